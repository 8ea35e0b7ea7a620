//! Bytes out: whole, in parts, not at all.

use std::sync::mpsc;

use super::*;

#[test]
fn a_large_send_is_taken_in_parts() {
    let mut shard = Shard::new(Config::new(10));
    let (mut stream, id) = shard.pair();
    let bytes: Arc<[u8]> = (0..8_000_000_u32).map(|i| (i % 253) as u8).collect();
    let expected = Arc::clone(&bytes);
    let (full, is_full) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        is_full.recv().unwrap();
        stream.read_exact(&mut got).unwrap();
        assert!(got[..] == expected[..]);
    });
    let (mut sent, mut shorts, mut plain) = (0, 0, false);
    while sent < bytes.len() {
        let asked = bytes.len() - sent;
        match plain {
            true => shard.uring.send(id, Out::Bytes(&bytes[sent..]), 7),
            false => shard.uring.send(id, Out::Shared(&bytes, sent, bytes.len()), 7),
        }
        plain = !plain;
        shard.uring.flush();
        let Some(short) = shard.uring.next_short() else {
            sent += asked;
            continue;
        };
        assert_eq!(short.tag, 7);
        sent += short.sent.unwrap();
        shorts += 1;
        full.send(()).unwrap();
        let seen = shard.saw(id, "writable");
        shard.uring.want_writable(id);
        shard.uring.want_writable(id);
        shard.until(|shard| shard.saw(id, "writable") == seen + 1);
    }
    assert!(shorts > 0);
    reader.join().unwrap();
}

#[test]
fn a_full_socket_takes_nothing_and_says_so() {
    let mut shard = Shard::new(Config::new(10));
    let (_stream, id) = shard.pair();
    let bytes = vec![1; 200_000];
    loop {
        shard.uring.send(id, Out::Bytes(&bytes), 1);
        shard.uring.flush();
        if let Some(short) = shard.uring.next_short()
            && short.sent.unwrap() == 0
        {
            break;
        }
    }
    shard.uring.want_writable(id);
    shard.turns(3);
    assert_eq!(shard.saw(id, "writable"), 0);
    shard.close(id, Ending::Graceful);
    assert_eq!((shard.saw(id, "writable"), shard.slots_used()), (0, 0));
}

#[test]
fn what_was_sent_before_a_close_arrives() {
    let mut shard = Shard::new(Config::new(10));
    let (mut stream, id) = shard.pair();
    shard.uring.send(id, Out::Bytes(&[5; 100_000]), 1);
    shard.close(id, Ending::Graceful);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got, vec![5; 100_000]);
}
