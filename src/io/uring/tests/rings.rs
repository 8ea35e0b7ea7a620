//! More rings than one, and what wakes the one that the shard waits in.

use std::sync::mpsc;

use super::*;

#[test]
fn sixty_connections_live_in_eight_rings() {
    let mut shard = Shard::echoing(small(64, 8));
    let mut pairs: Vec<_> = (0..60).map(|_| shard.pair()).collect();
    assert_eq!((shard.uring.rings.len(), shard.slots_used()), (8, 60));
    for round in 0..6 {
        for (index, (stream, _)) in pairs.iter_mut().enumerate() {
            shard.ping(stream, format!("{round} {index}").as_bytes());
        }
    }
    for (mut stream, id) in pairs {
        shard.close(id, Ending::Graceful);
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
    assert_eq!(shard.slots_used(), 0);
}

#[test]
fn a_sleeping_shard_hears_from_all_rings() {
    let mut shard = Shard::echoing(small(16, 2));
    let pairs: Vec<_> = (0..16).map(|_| shard.pair()).collect();
    let deadline = Instant::now() + Duration::from_secs(5);
    for (mut stream, id) in pairs {
        stream.write_all(b"wake up").unwrap();
        while !shard.received.contains_key(&id) {
            shard.uring.wait(None).unwrap();
            while let Some(completion) = shard.uring.next() {
                shard.on(completion);
            }
            assert!(Instant::now() < deadline);
        }
        stream.read_exact(&mut [0; 7]).unwrap();
    }
}

#[test]
fn the_waker_ends_this_wait_or_the_next() {
    let mut uring = Uring::new(Config::new(1)).unwrap();
    let waker = uring.waker();
    for _ in 0..100 {
        waker.wake();
        uring.wait(None).unwrap();
    }
    let (asks, asked) = mpsc::channel();
    let thread = std::thread::spawn(move || asked.iter().for_each(|()| waker.wake()));
    let start = Instant::now();
    for _ in 0..100 {
        asks.send(()).unwrap();
        uring.wait(Some(Duration::from_secs(60))).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(30), "a wake was lost");
    drop(asks);
    thread.join().unwrap();
    let start = Instant::now();
    uring.wait(Some(Duration::ZERO)).unwrap();
    uring.wait(Some(Duration::from_millis(20))).unwrap();
    uring.wait(Some(Duration::from_millis(20))).unwrap();
    assert!(start.elapsed() > Duration::from_millis(19) && start.elapsed() < Duration::from_secs(1));
}

#[test]
fn too_many_connections_are_refused_at_once() {
    assert!(matches!(Uring::new(small(10_000, 1)), Err(SetupError::TooMany { asked: 10_000, .. })));
}
