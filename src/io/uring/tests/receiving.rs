//! Bytes in: poll and multishot receive, pauses, buffers.

use super::super::buffers::BufferRing;
use super::super::table::POLL;
use super::*;

#[test]
fn what_a_peer_says_arrives_and_comes_back() {
    let mut shard = Shard::echoing(Config::new(10));
    let (mut stream, id) = shard.pair();
    for round in 0..20_u8 {
        shard.ping(&mut stream, &[round; 100]);
    }
    assert_eq!(shard.received[&id].len(), 2000);
    shard.close(id, Ending::Graceful);
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    assert_eq!(shard.slots_used(), 0);
}

#[test]
fn bytes_that_came_before_attach_and_a_megabyte_arrive_in_order() {
    for promote_after in [3, u32::MAX] {
        let mut shard = Shard::new(Config { promote_after, ..Config::new(10) });
        let mut stream = shard.connect();
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
        let expected = bytes.clone();
        let writer = std::thread::spawn(move || {
            stream.write_all(&bytes).unwrap();
            stream
        });
        shard.until(|shard| shard.received.values().next().is_some_and(|got| got.len() == expected.len()));
        assert!(shard.received.values().next() == Some(&expected));
        drop(writer.join().unwrap());
        let id = ConnId::new(0, 0);
        shard.until(|shard| shard.saw(id, "peer closed") == 1);
        shard.close(id, Ending::Graceful);
        assert!(shard.all_buffers_back());
    }
}

#[test]
fn a_pause_holds_bytes_back_until_resume() {
    for pings in [0, 10] {
        let mut shard = Shard::echoing(Config::new(10));
        let (mut stream, id) = shard.pair();
        (0..pings).for_each(|_| shard.ping(&mut stream, b"x"));
        shard.echo = false;
        shard.uring.pause(id);
        shard.turns(2);
        let before = shard.received.get(&id).map_or(0, Vec::len);
        stream.write_all(b"later").unwrap();
        shard.turns(5);
        assert_eq!(shard.received.get(&id).map_or(0, Vec::len), before);
        shard.uring.resume(id);
        shard.until(|shard| shard.received.get(&id).is_some_and(|got| got.len() == before + 5));
        shard.uring.pause(id);
        shard.uring.resume(id);
        stream.write_all(b"again").unwrap();
        shard.until(|shard| shard.received[&id].len() == before + 10);
        shard.close(id, Ending::Graceful);
    }
}

#[test]
fn a_busy_connection_is_promoted_and_a_quiet_one_demoted() {
    let mut shard = Shard::echoing(Config::new(10));
    let (mut stream, id) = shard.pair();
    shard.ping(&mut stream, b"one");
    assert!(!shard.multi(id));
    (0..5).for_each(|_| shard.ping(&mut stream, b"more"));
    assert!(shard.multi(id));
    for _ in 0..50 {
        shard.uring.quieten(id);
        shard.ping(&mut stream, b"and");
        shard.ping(&mut stream, b"back");
        shard.ping(&mut stream, b"again");
        shard.ping(&mut stream, b"and on");
    }
    shard.uring.quieten(id);
    shard.until(|shard| !shard.multi(id) && shard.uring.table.get(id).unwrap().has(POLL));
    shard.ping(&mut stream, b"still there");
    shard.close(id, Ending::Graceful);
}

#[test]
fn a_connection_that_gets_much_at_once_goes_back_to_the_poll() {
    let mut shard = Shard::new(Config::new(10));
    let (mut stream, id) = shard.pair();
    for round in 1..10 {
        stream.write_all(b"small").unwrap();
        shard.until(|shard| shard.received.get(&id).is_some_and(|got| got.len() == round * 5));
    }
    assert!(shard.multi(id));
    shard.longest = 0;
    for round in 1..10 {
        stream.write_all(&[b'.'; 50_000]).unwrap();
        shard.until(|shard| shard.received[&id].len() == 45 + round * 50_000);
    }
    assert!(!shard.multi(id) && shard.longest > BufferRing::BYTES, "{}", shard.longest);
    shard.close(id, Ending::Reset);
}

#[test]
fn when_the_group_of_buffers_is_empty_the_poll_takes_over() {
    let mut shard = Shard::new(Config::new(10));
    let (mut stream, id) = shard.pair();
    for round in 1..10 {
        stream.write_all(b"small").unwrap();
        shard.until(|shard| shard.received.get(&id).is_some_and(|got| got.len() == round * 5));
    }
    assert!(shard.multi(id));
    let mut sent = 0;
    while shard.multi(id) {
        stream.write_all(b"and nobody listens").unwrap();
        sent += 18;
        shard.uring.rings[0].submit(true).unwrap();
        shard.uring.absorb(0);
    }
    shard.until(|shard| shard.received[&id].len() == 45 + sent);
    let text: Vec<u8> = b"small".repeat(9).into_iter().chain(b"and nobody listens".repeat(sent / 18)).collect();
    assert_eq!(shard.received[&id], text);
    assert!(sent >= 18 * 256 && shard.all_buffers_back());
}

#[test]
fn when_buffers_run_out_others_wait_and_nothing_is_lost() {
    let mut shard = Shard::new(Config::new(200));
    let streams: Vec<_> = (0..150).map(|_| shard.pair().0).collect();
    for round in 1..=8 {
        let writers: Vec<_> = streams.iter().map(|mut stream| stream.write_all(&[round; 5000])).collect();
        assert!(writers.iter().all(Result::is_ok));
        let want = usize::from(round) * 5000;
        shard.until(|shard| shard.received.values().filter(|got| got.len() == want).count() == 150);
    }
    assert!(shard.all_buffers_back() && shard.received.values().all(|got| got.is_sorted()));
}
