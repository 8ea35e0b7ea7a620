//! Listeners: full tables, pauses, failures.

use super::*;

#[test]
fn a_full_table_waits_until_one_closes() {
    let mut shard = Shard::echoing(small(7, 4));
    let mut pairs: Vec<_> = (0..8).map(|_| shard.pair()).collect();
    let mut late: Vec<_> = (0..3).map(|_| shard.connect()).collect();
    shard.turns(5);
    assert_eq!(shard.open.len(), 8);
    for stream in &mut late {
        let (_, id) = pairs.pop().unwrap();
        shard.close(id, Ending::Graceful);
        shard.ping(stream, b"at last");
    }
    assert_eq!(shard.slots_used(), 8);
}

#[test]
fn accepting_can_pause_and_stop() {
    let mut shard = Shard::new(Config::new(5000));
    let (_stream, _) = shard.pair();
    shard.uring.pause_accept(true);
    shard.turns(3);
    let _waiting = shard.connect();
    shard.turns(3);
    assert_eq!(shard.open.len(), 1);
    shard.uring.pause_accept(false);
    shard.until(|shard| shard.open.len() == 2);
    shard.uring.stop_listening(ListenerId(0), Backlog::Leave);
    shard.until(|shard| TcpStream::connect(shard.address).is_err());
    assert_eq!(shard.open.len(), 2);
}

#[test]
fn when_descriptors_run_out_the_listener_rests_and_goes_on() {
    let mut shard = Shard::new(Config::new(10));
    shard.turns(2);
    shard.uring.on_accept(0, &Done::failed(Kind::Accept, 0, libc::EMFILE));
    let (start, mut turns) = (Instant::now(), 0);
    shard.until(|_| {
        turns += 1;
        start.elapsed() > Duration::from_millis(150)
    });
    assert!(turns < 150 && shard.accept_failures.len() == 1, "{turns}");
    shard.uring.on_accept(0, &Done::failed(Kind::Accept, 0, libc::ECONNABORTED));
    let (_stream, _) = shard.pair();
    assert_eq!((shard.accept_failures.len(), shard.uring.listeners.len()), (1, 1));
    shard.uring.on_accept(0, &Done::failed(Kind::Accept, 0, libc::ENFILE));
    shard.uring.pause_accept(true);
    let start = Instant::now();
    shard.uring.next();
    shard.uring.wait(Some(Duration::from_millis(300))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(290), "a paused listener does not keep the shard awake");
}

#[test]
fn two_listeners_share_the_last_slots() {
    let mut shard = Shard::echoing(small(3, 4));
    let second = TcpListener::bind("127.0.0.1:0").unwrap();
    second.set_nonblocking(true).unwrap();
    let addresses = [shard.address, second.local_addr().unwrap()];
    shard.uring.listen(ListenerId(1), second).unwrap();
    for round in 0..12 {
        shard.address = addresses[round % 2];
        let (mut stream, id) = shard.pair();
        shard.ping(&mut stream, b"hello");
        shard.close(id, Ending::Graceful);
    }
    assert_eq!(shard.slots_used(), 0);
}

#[test]
fn a_storm_comes_with_its_addresses() {
    let mut shard = Shard::new(Config::new(3000));
    let streams: Vec<_> = (0..2000).map(|_| shard.connect()).collect();
    shard.until(|shard| shard.open.len() == 2000);
    let mut sources: Vec<_> = streams.iter().map(|stream| stream.local_addr().unwrap()).collect();
    sources.sort_unstable();
    let mut told: Vec<_> = shard.peers.iter().map(|peer| peer.unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, sources);
}

#[test]
fn clients_of_ipv6_have_addresses_too() {
    let Ok(socket) = TcpListener::bind("[::1]:0") else {
        return eprintln!("skipped: this machine has no IPv6");
    };
    let address = socket.local_addr().unwrap();
    let mut shard = Shard::new(Config::new(3));
    shard.uring.listen(ListenerId(1), socket).unwrap();
    shard.address = address;
    let (stream, _) = shard.pair();
    assert_eq!(shard.peers, [Some(stream.local_addr().unwrap())]);
}
