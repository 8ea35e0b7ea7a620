#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;

fn member(number: u64) -> Change {
    let (id, name) = (MemberId::other(&format!("{number:0>128}")), Some("ü".repeat(32).into()));
    (id, Some(Entry { name, since_ms: number, connections: 1 }))
}

/// One of each kind.
fn all() -> Vec<Whisper> {
    let (version, count) = (Version { life: 5, number: 6 }, 7);
    let ann = || (MemberId::user("ann"), Some(Entry { name: None, since_ms: 8, connections: 2 }));
    let named = (MemberId::other("ben"), Some(Entry { name: Some("Ben".into()), since_ms: 9, connections: 1 }));
    vec![
        Whisper::Changes { version, count, changes: vec![ann(), (MemberId::other("eve"), None)] },
        Whisper::List { version, count, part: 1, of: 3, members: vec![ann(), named] },
        Whisper::Digest { version, digest: Digest { count, hash: u64::MAX } },
        Whisper::Ask(NodeId(u64::MAX)),
        Whisper::Call,
    ]
}

#[test]
fn whispers_are_read_as_they_were_written() {
    for whisper in all() {
        assert_eq!(Whisper::decode(&whisper.encode()), Ok(whisper));
    }
    let bytes = Whisper::Ask(NodeId(0x0102)).encode();
    assert_eq!(*bytes, [1, 4, 0, 0, 0, 0, 0, 0, 1, 2]);
}

#[test]
fn long_lists_come_in_parts_that_find_room() {
    let members: Vec<_> = (0..2000).map(member).collect();
    let parts = parts(members.clone());
    assert!(parts.len() > 20 && parts.iter().all(|part| !part.is_empty()));
    for part in &parts {
        let whisper = Whisper::List { version: Version::default(), count: 0, part: 0, of: 1, members: part.clone() };
        let bytes = whisper.encode();
        assert!(bytes.len() <= HEAD_BYTES + ENTRIES_BYTES);
        assert_eq!(part.iter().map(size).sum::<usize>() + HEAD_BYTES, bytes.len());
        assert_eq!(Whisper::decode(&bytes), Ok(whisper));
    }
    assert_eq!(parts.concat(), members);
    assert_eq!(super::parts(Vec::new()), [vec![]]);
}

#[test]
fn each_thing_that_is_known_of_a_member_makes_another_hash() {
    let entry = |name: Option<&str>, since_ms, connections| Entry { name: name.map(Arc::from), since_ms, connections };
    let (ann, user) = (MemberId::other("ann"), MemberId::user("ann"));
    let plain = entry(None, 1, 1);
    let others = [
        plain.hash(&user),
        plain.hash(&MemberId::other("ben")),
        entry(Some(""), 1, 1).hash(&ann),
        entry(Some("x"), 1, 1).hash(&ann),
        entry(None, 2, 1).hash(&ann),
        entry(None, 1, 2).hash(&ann),
        entry(Some("n"), 1, 1).hash(&MemberId::other("an")),
    ];
    assert!(others.iter().all(|other| *other != plain.hash(&ann)));
    assert_eq!(plain.hash(&ann), entry(None, 1, 1).hash(&MemberId::other("ann")));
}

/// What is cut, torn or foreign is refused, or is another whisper that is well formed.
#[test]
fn nothing_that_comes_does_harm() {
    let good: Vec<_> = all().iter().map(Whisper::encode).collect();
    let mut torn = 0;
    for bytes in &good {
        for end in 0..bytes.len() {
            if let Ok(whisper) = Whisper::decode(&bytes[..end]) {
                assert_eq!(*whisper.encode(), bytes[..end], "at the end of an entry");
                torn += 1;
            }
        }
    }
    assert_eq!(torn, 2 + 2, "where one or two entries are cut off");
    let mut random = 88_172_645_463_325_252_u64;
    let mut below = |bound: usize| {
        // Xorshift (Marsaglia).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap() % bound
    };
    let mut read = 0;
    for _ in 0..50_000 {
        let mut bytes = good[below(good.len())].to_vec();
        for _ in 0..=below(3) {
            let at = below(bytes.len());
            bytes[at] = u8::try_from(below(256)).unwrap();
        }
        if let Ok(whisper) = Whisper::decode(&bytes) {
            assert_eq!(*whisper.encode(), bytes);
            read += 1;
        }
    }
    assert!(read > 5_000 && read < 49_000, "{read}");
    for bytes in [&[][..], &[1], &[2, 5], &[1, 6], &[1, 5, 0], &[1; WHISPER_MAX + 1]] {
        assert_eq!(Whisper::decode(bytes), Err(BadWhisper));
    }
}
