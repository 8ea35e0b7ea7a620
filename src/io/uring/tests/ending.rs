//! Resets, half closes and closes, from either end.

use super::super::table::CLOSING;
use super::*;

#[test]
fn a_reset_is_told_once() {
    for pings in [0, 10] {
        let mut shard = Shard::echoing(Config::new(10));
        let (mut stream, id) = shard.pair();
        (0..pings).for_each(|_| shard.ping(&mut stream, b"x"));
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        shard.until(|shard| shard.saw(id, "failed") == 1);
        shard.turns(3);
        shard.uring.send(id, Out::Bytes(b"y"), 9);
        shard.uring.flush();
        assert!(shard.uring.next_short().unwrap().sent.is_err());
        shard.close(id, Ending::Graceful);
        assert_eq!((shard.saw(id, "failed"), shard.saw(id, "peer closed")), (1, 0));
    }
}

#[test]
fn a_reset_right_behind_bytes_is_not_missed() {
    let mut shard = Shard::new(Config::new(10));
    for _ in 0..20 {
        let (mut stream, id) = shard.pair();
        stream.write_all(b"and gone").unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        shard.until(|shard| shard.saw(id, "failed") == 1);
        shard.close(id, Ending::Graceful);
    }
}

#[test]
fn bytes_that_nobody_read_do_not_spoil_a_graceful_close() {
    let mut shard = Shard::new(Config::new(10));
    let (mut stream, id) = shard.pair();
    shard.uring.pause(id);
    stream.write_all(&[1; 50_000]).unwrap();
    shard.uring.send(id, Out::Bytes(&[2; 50_000]), 1);
    shard.turns(2);
    shard.close(id, Ending::Graceful);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got, vec![2; 50_000]);
}

#[test]
fn half_close_works_both_ways() {
    for pings in [0, 10] {
        let mut shard = Shard::echoing(Config::new(10));
        let (mut stream, id) = shard.pair();
        (0..pings).for_each(|_| shard.ping(&mut stream, b"x"));
        stream.write_all(b"last").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        shard.until(|shard| shard.saw(id, "peer closed") == 1);
        assert!(shard.received[&id].ends_with(b"last"));
        shard.uring.send(id, Out::Bytes(b" word"), 1);
        shard.uring.flush();
        shard.uring.shutdown(id);
        shard.turns(3);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "last word");
        shard.close(id, Ending::Graceful);
        assert_eq!((shard.saw(id, "failed"), shard.saw(id, "peer closed")), (0, 1));
    }
}

#[test]
fn after_our_own_fin_bytes_still_arrive() {
    let mut shard = Shard::new(Config::new(10));
    let (mut stream, id) = shard.pair();
    shard.uring.shutdown(id);
    shard.turns(2);
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    stream.write_all(b"still here").unwrap();
    shard.until(|shard| shard.received.get(&id).is_some_and(|got| got == b"still here"));
    shard.close(id, Ending::Graceful);
}

#[test]
fn a_reset_by_us_reaches_the_peer() {
    let mut shard = Shard::new(Config::new(10));
    let (mut stream, id) = shard.pair();
    shard.close(id, Ending::Reset);
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    shard.accepting = false;
    let mut refused = shard.connect();
    shard.turns(5);
    assert_eq!(refused.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(shard.slots_used(), 0);
}

#[test]
fn a_close_overtakes_whatever_waits_in_the_queue() {
    let mut shard = Shard::new(Config::new(10));
    let (mut stream, id) = shard.pair();
    stream.write_all(b"too late").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    while shard.uring.done.is_empty() {
        shard.uring.wait(None).unwrap();
    }
    shard.uring.send(id, Out::Bytes(b"bye"), 1);
    shard.close(id, Ending::Graceful);
    assert!(!shard.received.contains_key(&id) && shard.all_buffers_back());
    assert_eq!(shard.saw(id, "peer closed"), 0);
    let (_other, again) = shard.pair();
    assert_eq!((again.index(), again.generation()), (id.index(), 1));
    shard.uring.send(id, Out::Bytes(b"stale"), 2);
    assert!(shard.uring.next_short().unwrap().sent.is_err());
    shard.uring.close(id, Ending::Reset);
    assert!(!shard.uring.table.get(again).unwrap().has(CLOSING));
}

#[test]
fn a_dropped_backend_lets_its_connections_go() {
    let mut shard = Shard::echoing(small(64, 8));
    let mut streams: Vec<_> = (0..20).map(|_| shard.pair().0).collect();
    for stream in &mut streams {
        (0..5).for_each(|_| shard.ping(stream, b"busy"));
        stream.write_all(b"one more").unwrap();
    }
    drop(shard);
    for mut stream in streams {
        if let Err(error) = stream.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}
