//! The backend over loopback, with the standard library's sockets as peers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::buffers::BufferRing;
use super::table::{CLOSING, MULTI, POLL};
use super::*;

/// A backend with a listener, and what an engine would keep.
struct Shard {
    uring: Uring,
    address: SocketAddr,
    next_index: u32,
    free: Vec<ConnId>,
    open: HashSet<ConnId>,
    accepting: bool,
    echo: bool,
    received: HashMap<ConnId, Vec<u8>>,
    events: Vec<(ConnId, &'static str)>,
    shorts: Vec<Short>,
    longest: u32,
    accept_failures: Vec<ErrorKind>,
}

impl Shard {
    fn new(config: Config) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut uring = Uring::new(config).unwrap();
        uring.listen(ListenerId(0), socket).unwrap();
        Self {
            uring,
            address,
            next_index: 0,
            free: Vec::new(),
            open: HashSet::new(),
            accepting: true,
            echo: false,
            received: HashMap::new(),
            events: Vec::new(),
            shorts: Vec::new(),
            longest: 0,
            accept_failures: Vec::new(),
        }
    }

    fn echoing(config: Config) -> Self {
        Self { echo: true, ..Self::new(config) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn turn(&mut self) {
        self.uring.wait(Some(Duration::from_millis(2))).unwrap();
        while let Some(completion) = self.uring.next() {
            self.on(completion);
        }
        self.uring.flush();
        while let Some(short) = self.uring.next_short() {
            self.shorts.push(short);
        }
    }

    fn on(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted(accepted) if self.accepting => {
                let id = self.free.pop().map_or_else(
                    || {
                        self.next_index += 1;
                        ConnId::new(self.next_index - 1, 0)
                    },
                    |old| ConnId::new(old.index(), old.generation() + 1),
                );
                self.uring.attach(accepted, id);
                self.open.insert(id);
                self.events.push((id, "open"));
            }
            Completion::Accepted(accepted) => self.uring.refuse(accepted),
            Completion::AcceptFailed(_, kind) => self.accept_failures.push(kind),
            Completion::Received(id, lease) => {
                assert!(self.open.contains(&id) && lease.len > 0, "{id}");
                self.longest = self.longest.max(lease.len);
                let bytes = self.uring.bytes(&lease).to_vec();
                self.uring.release(lease);
                if self.echo {
                    self.uring.send(id, Out::Bytes(&bytes), id.index());
                    self.uring.flush();
                }
                self.received.entry(id).or_default().extend(bytes);
            }
            Completion::PeerClosed(id) => self.note(id, "peer closed"),
            Completion::Writable(id) => self.note(id, "writable"),
            Completion::Failed(id, _) => self.note(id, "failed"),
            Completion::Closed(id) => {
                assert!(self.open.remove(&id), "{id} is closed once");
                self.free.push(id);
                self.events.push((id, "closed"));
            }
        }
    }

    fn note(&mut self, id: ConnId, what: &'static str) {
        assert!(self.open.contains(&id), "{id}: {what}");
        self.events.push((id, what));
    }

    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < deadline, "in time; so far: {:?}", &self.events[self.events.len().min(20)..]);
            self.turn();
        }
    }

    fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn());
    }

    fn saw(&self, id: ConnId, what: &str) -> usize {
        self.events.iter().filter(|event| **event == (id, what)).count()
    }

    /// One connection, both ends.
    fn pair(&mut self) -> (TcpStream, ConnId) {
        let stream = self.connect();
        let before = self.events.len();
        self.until(|shard| shard.events[before..].iter().any(|event| event.1 == "open"));
        let id = self.events[before..].iter().find(|event| event.1 == "open").unwrap().0;
        (stream, id)
    }

    fn close(&mut self, id: ConnId, ending: Ending) {
        self.uring.close(id, ending);
        self.until(|shard| shard.saw(id, "closed") == 1);
    }

    fn ping(&mut self, stream: &mut TcpStream, message: &[u8]) {
        stream.write_all(message).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut back: Vec<u8> = Vec::new();
        let mut buffer = [0; 4096];
        self.until(|_| match stream.read(&mut buffer) {
            Ok(0) => panic!("closed"),
            Ok(count) => {
                back.extend(&buffer[..count]);
                back.len() >= message.len()
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        });
        stream.set_nonblocking(false).unwrap();
        assert_eq!(back, message);
    }

    fn slots_used(&self) -> u32 {
        self.uring.rings.iter().map(|ring| ring.used).sum()
    }

    fn multi(&mut self, id: ConnId) -> bool {
        self.uring.table.get(id).unwrap().has(MULTI)
    }

    fn all_buffers_back(&self) -> bool {
        self.uring.scratch.free_count() == Scratch::COUNT as usize
    }
}

fn small(connections: usize, slots: u32) -> Config {
    Config { slots_per_ring: Some(slots), ..Config::new(connections) }
}

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
fn a_large_send_is_taken_in_parts() {
    let mut shard = Shard::new(Config::new(10));
    let (mut stream, id) = shard.pair();
    let bytes: Arc<[u8]> = (0..8_000_000_u32).map(|i| (i % 253) as u8).collect();
    let expected = Arc::clone(&bytes);
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        std::thread::sleep(Duration::from_millis(50));
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
fn thousands_come_and_go_and_leave_nothing() {
    let mut shard = Shard::echoing(small(64, 16));
    for round in 0..100 {
        let mut streams: Vec<_> = (0..40).map(|_| shard.connect()).collect();
        shard.until(|shard| shard.open.len() == 40);
        if round % 3 == 0 {
            streams.iter_mut().for_each(|stream| stream.write_all(b"hello").unwrap());
        }
        if round % 2 == 0 {
            streams.clear();
            shard.turn();
        }
        let ids: Vec<_> = shard.open.iter().copied().collect();
        for id in ids {
            let ending = if id.index() % 2 == 0 { Ending::Graceful } else { Ending::Reset };
            shard.uring.close(id, ending);
        }
        shard.until(|shard| shard.open.is_empty());
        assert_eq!(shard.slots_used(), 0);
    }
    assert!(shard.all_buffers_back());
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
    shard.uring.stop_listening();
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
fn what_was_sent_before_a_close_arrives() {
    let mut shard = Shard::new(Config::new(10));
    let (mut stream, id) = shard.pair();
    shard.uring.send(id, Out::Bytes(&[5; 100_000]), 1);
    shard.close(id, Ending::Graceful);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got, vec![5; 100_000]);
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

/// Connections of all kinds at once: what peers write arrives whole and in order, whatever the engine does meanwhile.
#[test]
fn a_crowd_does_everything_at_once() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let mut shard = Shard::echoing(small(64, 8));
    for _ in 0..4 {
        let mut peers: Vec<(TcpStream, ConnId, Vec<u8>)> = Vec::new();
        for _ in 0..40 {
            let (stream, id) = shard.pair();
            stream.set_nonblocking(true).unwrap();
            peers.push((stream, id, Vec::new()));
        }
        shard.received.clear();
        for _ in 0..3000 {
            let (stream, id, wrote) = &mut peers[usize::try_from(random(40)).unwrap()];
            let len = match random(10) {
                0 => 40_000,
                1..4 => 3000,
                _ => 20,
            };
            let bytes: Vec<u8> = (0..random(len) + 1).map(|_| (random(256) & 0xff) as u8).collect();
            match random(12) {
                0 => shard.uring.pause(*id),
                1..4 => shard.uring.resume(*id),
                4 => shard.uring.quieten(*id),
                5 => shard.uring.want_writable(*id),
                6 => shard.turn(),
                _ => {
                    let count = stream.write(&bytes).unwrap_or(0);
                    wrote.extend(&bytes[..count]);
                    let _ = stream.read(&mut [0; 65536]);
                }
            }
        }
        peers.iter().for_each(|(_, id, _)| shard.uring.resume(*id));
        shard.until(|shard| {
            peers.iter().all(|(_, id, wrote)| shard.received.get(id).map_or(0, Vec::len) == wrote.len())
        });
        assert!(peers.iter().all(|(_, id, wrote)| shard.received.get(id).map_or(wrote.is_empty(), |got| got == wrote)));
        for (index, (_, id, _)) in peers.iter().enumerate() {
            let ending = if index % 2 == 0 { Ending::Graceful } else { Ending::Reset };
            shard.uring.pause(*id);
            shard.uring.close(*id, ending);
        }
        shard.until(|shard| shard.open.is_empty());
        assert!(shard.slots_used() == 0 && shard.all_buffers_back());
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
    let thread = std::thread::spawn(move || {
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(5));
            waker.wake();
        }
    });
    while !thread.is_finished() {
        uring.wait(Some(Duration::from_secs(1))).unwrap();
    }
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
