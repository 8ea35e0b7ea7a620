//! Send this, expect that.

use proptest::prelude::*;

use super::*;
use crate::io::{Ending, Out};

const ACK: Bits = Bits::ACK;
/// The server's first sequence number, close to where they wrap.
const THEIRS: u32 = u32::MAX - 2;

/// A connection of index 0 that stands, with its hello acknowledged. Returns our and the server's next number.
fn established() -> (Bench, u32, u32) {
    let mut bench = Bench::new();
    bench.tcp.dial(id(0), server(), &hello(), bench.now);
    let ours = bench.sent()[0].0.seq.wrapping_add(1);
    bench.arrives(Segment { mss: Some(100), ..from_server(0, Bits::SYN.with(ACK), THEIRS, ours) }, &[]);
    bench.sent();
    let (ours, theirs) = (ours.wrapping_add(5), THEIRS.wrapping_add(1));
    bench.arrives(from_server(0, ACK, theirs, ours), &[]);
    assert_eq!(bench.told(), ["Writable(0.1)"]);
    assert_eq!(bench.tcp.in_flight(), 0);
    (bench, ours, theirs)
}

/// Bits, sequence number, acknowledgement and payload of each.
fn brief(sent: &[(Segment, Vec<u8>)]) -> Vec<(Bits, u32, u32, &[u8])> {
    sent.iter().map(|(segment, payload)| (segment.bits, segment.seq, segment.ack, &payload[..])).collect()
}

#[test]
fn the_hello_goes_with_the_acknowledgement() {
    let mut bench = Bench::new();
    bench.tcp.dial(id(3), server(), &hello(), bench.now);
    let sent = bench.sent();
    let (syn, _) = sent[0];
    assert_eq!((sent.len(), syn.bits, syn.mss), (1, Bits::SYN, Some(100)));
    assert_eq!((syn.from, syn.to), (client(3), server()));
    bench.arrives(from_server(3, Bits::SYN.with(ACK), THEIRS, syn.seq + 1), &[]);
    assert_eq!(bench.told(), ["Writable(3.1)"]);
    let sent = bench.sent();
    assert_eq!(brief(&sent), [(ACK.with(Bits::PSH), syn.seq + 1, THEIRS.wrapping_add(1), &b"hello"[..])]);
}

#[test]
fn an_empty_hello_is_an_acknowledgement_alone() {
    let mut bench = Bench::new();
    bench.tcp.dial(id(0), server(), &Arc::from([]), bench.now);
    let syn = bench.sent()[0].0;
    bench.arrives(from_server(0, Bits::SYN.with(ACK), 7, syn.seq + 1), &[]);
    assert_eq!(brief(&bench.sent()), [(ACK, syn.seq + 1, 8, &[][..])]);
    assert_eq!(bench.tcp.in_flight(), 0);
}

#[test]
fn a_syn_goes_again_later_and_later_and_then_fails() {
    let mut bench = Bench::new();
    bench.tcp.dial(id(0), server(), &hello(), bench.now);
    bench.sent();
    for wait in [800, 1600, 3200] {
        bench.passes(Duration::from_millis(wait - 10));
        assert!(bench.sent().is_empty());
        bench.passes(Duration::from_millis(10));
        assert_eq!(bench.sent()[0].0.bits, Bits::SYN);
    }
    bench.passes(Duration::from_millis(6400));
    assert_eq!(bench.told(), ["Failed(0.1, TimedOut)"]);
    bench.tcp.close(id(0), Ending::Graceful, bench.now);
    assert_eq!(bench.told(), ["Closed(0.1)"]);
    assert!(bench.sent().is_empty());
}

#[test]
fn a_reset_of_the_syn_is_a_refusal_only_if_it_is_of_this_syn() {
    let mut bench = Bench::new();
    bench.tcp.dial(id(0), server(), &hello(), bench.now);
    let syn = bench.sent()[0].0;
    bench.arrives(from_server(0, Bits::RST.with(ACK), 0, syn.seq), &[]);
    bench.arrives(from_server(0, Bits::RST, 0, 0), &[]);
    assert!(bench.told().is_empty());
    bench.arrives(from_server(0, Bits::RST.with(ACK), 0, syn.seq + 1), &[]);
    assert_eq!(bench.told(), ["Failed(0.1, ConnectionRefused)"]);
}

#[test]
fn what_the_server_kept_of_an_old_connection_is_reset_and_the_syn_goes_again_once() {
    let mut bench = Bench::new();
    bench.tcp.dial(id(0), server(), &hello(), bench.now);
    let syn = bench.sent()[0].0;
    bench.arrives(from_server(0, ACK, 5000, 77), &[]);
    assert_eq!(brief(&bench.sent()), [(Bits::RST, 77, 0, &[][..]), (Bits::SYN, syn.seq, 0, &[][..])]);
    bench.arrives(from_server(0, ACK, 5000, 77), &[]);
    assert_eq!(brief(&bench.sent()), [(Bits::RST, 77, 0, &[][..])]);
}

#[test]
fn bytes_are_lent_in_order_once() {
    let (mut bench, ours, theirs) = established();
    let push = |at: u32| from_server(0, ACK, theirs.wrapping_add(at), ours);
    assert_eq!(bench.arrives(push(0), b"0123"), Some(b"0123".to_vec()));
    // Again, with more behind it.
    assert_eq!(bench.arrives(push(2), b"2345"), Some(b"45".to_vec()));
    assert_eq!(brief(&bench.sent()), [(ACK, ours, theirs.wrapping_add(6), &[][..])]);
    for (at, bytes) in [(0, &b"0123"[..]), (8, b"89")] {
        assert_eq!(bench.arrives(push(at), bytes), None);
        assert_eq!(brief(&bench.sent()), [(ACK, ours, theirs.wrapping_add(6), &[][..])], "a duplicate");
    }
    assert_eq!(bench.arrives(push(6), b"6789"), Some(b"6789".to_vec()));
}

#[test]
fn bytes_before_their_turn_are_held_until_the_hole_is_filled() {
    let (mut bench, ours, theirs) = established();
    let push = |at: u32| from_server(0, ACK, theirs.wrapping_add(at), ours);
    for (at, bytes) in [(4, &b"45"[..]), (8, b"89"), (4, b"4567")] {
        assert_eq!(bench.arrives(push(at), bytes), None);
        assert_eq!(brief(&bench.sent()), [(ACK, ours, theirs, &[][..])], "a duplicate");
        assert!(bench.tcp.next_held().is_none());
    }
    assert_eq!(bench.arrives(push(0), b"01234"), Some(b"01234".to_vec()));
    let held = std::iter::from_fn(|| bench.tcp.next_held()).map(|(_, bytes, old)| bytes[old..].to_vec());
    assert_eq!(held.collect::<Vec<_>>().concat(), b"56789");
    assert_eq!(brief(&bench.sent()), [(ACK, ours, theirs.wrapping_add(10), &[][..])]);
    // Who pauses gives them up, and so does who closes.
    assert_eq!(bench.arrives(push(12), b"x"), None);
    bench.tcp.pause(id(0));
    bench.tcp.resume(id(0));
    assert_eq!(bench.arrives(push(14), b"x"), None);
    bench.tcp.close(id(0), Ending::Reset, bench.now);
    assert!(bench.tcp.next_held().is_none() && bench.tcp.held.is_done(0));
}

#[test]
fn bytes_go_in_segments_within_the_window_and_the_rest_is_not_taken() {
    let (mut bench, ours, theirs) = established();
    let bytes: Vec<u8> = (0..=255).cycle().take(1500).collect();
    assert_eq!(bench.tcp.send(id(0), Out::Bytes(&bytes), bench.now), Ok(1000));
    assert_eq!(bench.tcp.send(id(0), Out::Bytes(&bytes), bench.now), Ok(0));
    bench.tcp.want_writable(id(0), bench.now);
    let sent = bench.sent();
    assert!(sent.iter().all(|(_, payload)| payload.len() == MSS));
    assert_eq!(sent.iter().flat_map(|(_, payload)| payload.clone()).collect::<Vec<_>>(), bytes[..1000]);
    // Half a segment of room is not worth a word.
    bench.arrives(from_server(0, ACK, theirs, ours + 50), &[]);
    assert!(bench.told().is_empty());
    bench.arrives(from_server(0, ACK, theirs, ours + 100), &[]);
    assert_eq!(bench.told(), ["Writable(0.1)"]);
    assert_eq!(bench.tcp.send(id(0), Out::Bytes(&bytes[1000..]), bench.now), Ok(100));
    bench.arrives(from_server(0, ACK, theirs, ours + 1100), &[]);
    assert_eq!(bench.tcp.in_flight(), 0);
}

#[test]
fn three_duplicates_bring_the_first_segment_again_and_each_hole_the_next() {
    let (mut bench, ours, theirs) = established();
    assert_eq!(bench.tcp.send(id(0), Out::Bytes(&[7; 400]), bench.now), Ok(400));
    assert_eq!(bench.sent().len(), 4);
    for _ in 0..3 {
        assert!(bench.sent().is_empty());
        bench.arrives(from_server(0, ACK, theirs, ours), &[]);
    }
    assert_eq!(brief(&bench.sent()), [(ACK, ours, theirs, &[7; 100][..])]);
    bench.arrives(from_server(0, ACK, theirs, ours + 200), &[]);
    assert_eq!(brief(&bench.sent()), [(ACK, ours + 200, theirs, &[7; 100][..])]);
    bench.arrives(from_server(0, ACK, theirs, ours + 400), &[]);
    assert!(bench.sent().is_empty());
    assert_eq!(bench.tcp.in_flight(), 0);
}

#[test]
fn what_is_never_acknowledged_fails_with_a_reset() {
    let (mut bench, ours, _) = established();
    bench.tcp.send(id(0), Out::Bytes(b"!"), bench.now).unwrap();
    bench.passes(Duration::from_secs(5));
    assert!(bench.told().is_empty());
    bench.passes(Duration::from_secs(2));
    assert_eq!(bench.told(), ["Failed(0.1, TimedOut)"]);
    let bits: Vec<_> = bench.sent().iter().map(|(segment, _)| (segment.bits, segment.seq - ours)).collect();
    let data = (ACK.with(Bits::PSH), 0);
    assert_eq!(bits, [data, data, data, data, (Bits::RST.with(ACK), 1)]);
}

#[test]
fn a_shut_window_is_probed_until_it_opens() {
    let (mut bench, ours, theirs) = established();
    bench.arrives(Segment { window: 0, ..from_server(0, ACK, theirs, ours) }, &[]);
    assert_eq!(bench.tcp.send(id(0), Out::Bytes(b"!"), bench.now), Ok(0));
    bench.tcp.want_writable(id(0), bench.now);
    for _ in 0..20 {
        let asked = bench.now;
        let probe = loop {
            bench.passes(Duration::from_millis(10));
            if let [(probe, _)] = bench.sent()[..] {
                break probe;
            }
            assert!(bench.now.since(asked) < AFTER * 32 && bench.told().is_empty());
        };
        assert_eq!(probe.seq, ours - 1);
        bench.arrives(Segment { window: 0, ..from_server(0, ACK, theirs, ours) }, &[]);
    }
    assert!(bench.told().is_empty());
    bench.arrives(from_server(0, ACK, theirs, ours), &[]);
    assert_eq!(bench.told(), ["Writable(0.1)"]);
    assert_eq!(bench.tcp.in_flight(), 0);
}

#[test]
fn whoever_is_paused_shows_a_shut_window_and_takes_nothing() {
    let (mut bench, ours, theirs) = established();
    let window = |bench: &mut Bench| bench.sent().iter().map(|(segment, _)| segment.window).collect::<Vec<_>>();
    bench.tcp.pause(id(0));
    assert_eq!(window(&mut bench), [0]);
    assert_eq!(bench.arrives(from_server(0, ACK, theirs, ours), b"late"), None);
    assert_eq!(bench.arrives(from_server(0, ACK.with(Bits::FIN), theirs, ours), b"late"), None);
    assert_eq!(window(&mut bench), [0, 0]);
    bench.tcp.resume(id(0));
    assert_eq!(window(&mut bench), [u16::MAX]);
    assert_eq!(bench.arrives(from_server(0, ACK, theirs, ours), b"late"), Some(b"late".to_vec()));
}

#[test]
fn a_graceful_close_waits_for_both_ends() {
    let (mut bench, ours, theirs) = established();
    bench.tcp.send(id(0), Out::Bytes(b"bye"), bench.now).unwrap();
    bench.tcp.close(id(0), Ending::Graceful, bench.now);
    let ends: Vec<_> = bench.sent().iter().map(|(segment, _)| (segment.bits, segment.seq)).collect();
    assert_eq!(ends, [(ACK.with(Bits::PSH), ours), (ACK.with(Bits::FIN), ours + 3)]);
    // What still comes is acknowledged, and nobody hears of it.
    assert_eq!(bench.arrives(from_server(0, ACK, theirs, ours + 4), b"more"), None);
    assert!(bench.told().is_empty());
    bench.arrives(from_server(0, ACK.with(Bits::FIN), theirs.wrapping_add(4), ours + 4), &[]);
    assert_eq!(bench.told(), ["Closed(0.1)"]);
    assert_eq!(bench.sent().last().unwrap().0.ack, theirs.wrapping_add(5));
    assert_eq!(bench.tcp.in_flight(), 0);
}

#[test]
fn a_server_that_never_closes_its_side_is_reset() {
    let (mut bench, ours, theirs) = established();
    bench.tcp.close(id(0), Ending::Graceful, bench.now);
    bench.arrives(from_server(0, ACK, theirs, ours + 1), &[]);
    bench.sent();
    bench.passes(AFTER * 127);
    assert!(bench.told().is_empty());
    bench.passes(AFTER * 2);
    assert_eq!(bench.told(), ["Closed(0.1)"]);
    assert_eq!(bench.sent()[0].0.bits, Bits::RST.with(ACK));
}

#[test]
fn the_servers_end_leaves_us_sending() {
    let (mut bench, ours, theirs) = established();
    let last = bench.arrives(from_server(0, ACK.with(Bits::FIN), theirs, ours), b"last");
    assert_eq!((last, bench.told()), (Some(b"last".to_vec()), vec!["PeerClosed(0.1)".to_owned()]));
    assert_eq!(bench.tcp.send(id(0), Out::Bytes(b"!"), bench.now), Ok(1));
    bench.tcp.shutdown(id(0), bench.now);
    bench.arrives(from_server(0, ACK, theirs.wrapping_add(5), ours + 2), &[]);
    assert!(bench.told().is_empty());
    bench.tcp.close(id(0), Ending::Graceful, bench.now);
    assert_eq!(bench.told(), ["Closed(0.1)"]);
}

#[test]
fn resets_count_only_when_they_are_exact() {
    let (mut bench, ours, theirs) = established();
    bench.arrives(from_server(0, Bits::RST, theirs.wrapping_add(1), 0), &[]);
    assert_eq!(brief(&bench.sent()), [(ACK, ours, theirs, &[][..])], "a challenge");
    bench.arrives(from_server(0, Bits::RST, theirs.wrapping_sub(1), 0), &[]);
    assert!(bench.sent().is_empty() && bench.told().is_empty());
    bench.arrives(from_server(0, Bits::RST, theirs, 0), &[]);
    assert_eq!(bench.told(), ["Failed(0.1, ConnectionReset)"]);
}

#[test]
fn a_syn_in_the_window_and_a_keep_alive_are_answered() {
    let (mut bench, ours, theirs) = established();
    for segment in [from_server(0, Bits::SYN, theirs, 0), from_server(0, ACK, theirs.wrapping_sub(1), ours)] {
        bench.arrives(segment, &[]);
        assert_eq!(brief(&bench.sent()), [(ACK, ours, theirs, &[][..])]);
    }
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_not_believed() {
    let (mut bench, ours, theirs) = established();
    assert_eq!(bench.arrives(from_server(0, ACK, theirs, ours + 1), b"bad"), None);
    assert_eq!(brief(&bench.sent()), [(ACK, ours, theirs, &[][..])]);
}

#[test]
fn a_port_is_used_again_with_higher_numbers() {
    let (mut bench, ours, _) = established();
    bench.tcp.close(id(0), Ending::Reset, bench.now);
    assert_eq!(bench.told(), ["Closed(0.1)"]);
    assert_eq!(brief(&bench.sent())[0].1, ours);
    bench.tcp.dial(ConnId::new(0, 2), server(), &hello(), bench.now);
    assert!(bench.sent()[0].0.seq.wrapping_sub(ours) >= 1 << 16);
    // The old name means nothing now.
    bench.tcp.close(id(0), Ending::Reset, bench.now);
    assert_eq!(bench.tcp.send(id(0), Out::Bytes(b"!"), bench.now), Err(std::io::ErrorKind::NotConnected));
    assert!(bench.told().is_empty());
}

#[test]
fn nobodys_segments_are_refused_and_resets_never_answered() {
    let mut bench = Bench::new();
    bench.arrives(from_server(9, ACK, 5, 42), b"x");
    bench.arrives(from_server(9, Bits::SYN, 5, 0), &[]);
    bench.arrives(from_server(9, Bits::RST, 5, 0), &[]);
    assert_eq!(brief(&bench.sent()), [(Bits::RST, 42, 0, &[][..]), (Bits::RST.with(ACK), 0, 6, &[][..])]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever arrives and whatever the caller does meanwhile: nothing panics, nothing grows, nobody else is lent bytes.
    #[test]
    fn no_packet_does_harm(
        steps in proptest::collection::vec((any::<u8>(), -3_i32..400, -3_i32..400, 0_usize..120, 0_u8..12, any::<u16>()), 1..60)
    ) {
        let (mut bench, ours, theirs) = established();
        let (mut at, mut generation) = (theirs, 1);
        for (bits, seq, ack, len, action, window) in steps {
            let id = ConnId::new(0, generation);
            match action {
                0 => bench.tcp.pause(id),
                1 => bench.tcp.resume(id),
                2 => bench.tcp.shutdown(id, bench.now),
                3 => bench.tcp.close(id, Ending::Graceful, bench.now),
                4 => bench.tcp.want_writable(id, bench.now),
                5 => bench.passes(Duration::from_secs(1)),
                6 => drop(bench.tcp.send(id, Out::Bytes(&[1; 300][..len]), bench.now)),
                _ => {}
            }
            let segment = from_server(0, Bits(bits), at.wrapping_add_signed(seq), ours.wrapping_add_signed(ack));
            if let Some(bytes) = bench.arrives(Segment { window, ..segment }, &vec![0; len]) {
                prop_assert!(!bytes.is_empty() && bytes.len() <= len);
                at = segment.seq.wrapping_add(u32::try_from(len).unwrap());
            }
            while let Some((_, bytes, old)) = bench.tcp.next_held() {
                prop_assert!(old < bytes.len());
                at = at.wrapping_add(u32::try_from(bytes.len() - old).unwrap());
            }
            prop_assert!(bench.sent().len() < 40);
            if bench.told().iter().any(|told| told.starts_with("Closed")) {
                generation += 1;
                bench.tcp.dial(ConnId::new(0, generation), server(), &hello(), bench.now);
            }
            prop_assert!(bench.tcp.in_flight() <= 1);
        }
    }

    #[test]
    fn no_bytes_do_harm(packet in proptest::collection::vec(any::<u8>(), 0..100)) {
        let (mut bench, ..) = established();
        prop_assert_eq!(bench.tcp.receive(&packet, bench.now), None);
    }
}
