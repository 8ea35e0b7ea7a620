//! Crowds over real sockets, on both backends: all come at the same moment, all are pinged, all hear, half leave at the
//! same moment. `CROWD=N` makes them larger (two descriptors for each, one with io_uring).

#![allow(clippy::unwrap_used, reason = "a test that cannot get what it needs has failed")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use common::operator::Operator;
use common::{Neighbour, Running, backends, config, until, wire};
use holdline::app::standard_routes;
use holdline::config::{BackendChoice, Config};

/// How long a crowd may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Crowds share the process's descriptors.
static ALONE: Mutex<()> = Mutex::new(());

fn size() -> usize {
    std::env::var("CROWD").map_or(5000, |crowd| crowd.parse().expect("CROWD is a number"))
}

/// A server for them, and a guard.
fn serve(backend: BackendChoice, shards: usize, adjust: impl Fn(&mut Config)) -> Running {
    let mut config = config(backend, shards);
    config.limits.connections_max = size() + 100;
    adjust(&mut config);
    Running::start(&config, standard_routes())
}

/// One of them.
struct Member {
    stream: TcpStream,
    /// What came and has not been looked at.
    inbox: Vec<u8>,
    asked: bool,
    upgraded: bool,
    messages: usize,
    pings: usize,
}

struct Crowd {
    poll: Poll,
    members: Vec<Option<Member>>,
    upgraded: usize,
    request: String,
}

impl Crowd {
    /// They all begin to connect before any of them is served.
    fn rush(at: SocketAddr, members: usize, path: &str) -> Self {
        let poll = Poll::new().unwrap();
        let member = |number: usize| {
            let mut stream = TcpStream::connect(at).unwrap();
            poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE).unwrap();
            Some(Member { stream, inbox: Vec::new(), asked: false, upgraded: false, messages: 0, pings: 0 })
        };
        let members = (0..members).map(member).collect();
        Self { poll, members, upgraded: 0, request: wire::handshake(path, "") }
    }

    /// Serves them until it is so.
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let (deadline, mut events) = (Instant::now() + PATIENCE, Events::with_capacity(1024));
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{what}: {} of {} are in", self.upgraded, self.members.len());
            self.poll.poll(&mut events, Some(Duration::from_millis(10))).unwrap();
            for event in &events {
                let Some(member) = &mut self.members[event.token().0] else { continue };
                if event.is_writable() && !member.asked {
                    // An empty socket takes all of it. The edge comes again when the connection stands.
                    match member.stream.write(self.request.as_bytes()) {
                        Ok(taken) => {
                            assert_eq!(taken, self.request.len());
                            member.asked = true;
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}"),
                    }
                }
                if event.is_readable() {
                    let was = member.upgraded;
                    member.read();
                    self.upgraded += usize::from(member.upgraded && !was);
                }
            }
        }
    }

    /// What all of them have, each of whom is there.
    fn all(&self, has: impl Fn(&Member) -> bool) -> bool {
        self.members.iter().flatten().all(has)
    }
}

impl Member {
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the server closed it"),
                Ok(read) => self.inbox.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        if !self.upgraded {
            let Some(end) = self.inbox.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            assert!(self.inbox.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&self.inbox));
            self.inbox.drain(..end + 4);
            self.upgraded = true;
        }
        self.take_frames();
    }

    fn take_frames(&mut self) {
        while let [first, length, ..] = self.inbox[..] {
            assert!(length < 126, "a short frame");
            let end = 2 + usize::from(length);
            if self.inbox.len() < end {
                return;
            }
            self.inbox.drain(..end);
            if first == wire::FIN | wire::PING {
                self.pings += 1;
                let pong = wire::masked(wire::FIN | wire::PONG, b"");
                assert_eq!(self.stream.write(&pong).unwrap(), pong.len());
            } else {
                self.messages += 1;
            }
        }
    }
}

/// How long turns took.
fn tell_turns(running: &Running, what: &str, since: Instant) {
    let turns = running.count(|shard| shard.turns_total.get());
    let longer = [1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000]
        .map(|nanos| running.count(|shard| shard.turns_longer_than(nanos)));
    let worst = running.server.metrics().shards.iter().map(|shard| shard.turn_max_seconds.get()).max();
    eprintln!(
        "{} {what}: {:.3} s; {turns} turns, over 1 ms, 2.5, 5, 10, 25: {longer:?}, worst {:.1} ms",
        running.server.backend().name(),
        since.elapsed().as_secs_f64(),
        worst.unwrap_or(0) as f64 / 1e6
    );
}

/// No more long turns than what other processes on the machine may be to blame for. How much a turn takes on is tested
/// in the simulation, where nobody interrupts it.
fn turns_are_short(running: &Running) {
    let turns = running.count(|shard| shard.turns_total.get());
    let long = running.count(|shard| shard.turns_longer_than(25_000_000));
    assert!(long <= 5 + turns / 100, "{long} of {turns} turns took over 25 ms");
}

#[test]
fn all_come_at_once_and_nobody_is_lost() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for backend in backends() {
        for shards in [1, 2] {
            let running = serve(backend, shards, |_| ());
            let begin = Instant::now();
            let mut crowd = Crowd::rush(running.at[0], size(), "/echo");
            crowd.until("all are in", |crowd| crowd.upgraded == size());
            tell_turns(&running, "storm", begin);
            assert_eq!(running.count(|shard| shard.accepted_total.get()), size() as u64);
            assert_eq!(running.count(|shard| shard.refused_total.get()), 0);
            assert_eq!(running.connections(), size() as u64);
            turns_are_short(&running);
        }
    }
}

#[test]
fn half_of_a_topic_leaves_at_once_while_it_is_served_and_pinged() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for backend in backends() {
        let adjust = |config: &mut Config| {
            // All within 20 ms of each other: as many pings at once.
            config.limits.heartbeat_interval = Duration::from_millis(900);
            config.limits.heartbeat_timeout = Duration::from_secs(60);
        };
        let running = serve(backend, 1, adjust);
        let mut neighbour = Neighbour::new(&running);
        let mut crowd = Crowd::rush(running.at[0], size(), "/topics/crowd");
        crowd.until("all are in", |crowd| crowd.upgraded == size());
        let mut publisher = running.websocket("/topics/crowd?echo=0");
        let begin = Instant::now();
        publisher.send_text("to all");
        crowd.until("all have heard it and were pinged", |crowd| {
            crowd.all(|member| member.messages == 1 && member.pings > 0)
        });
        tell_turns(&running, "pings and a broadcast", begin);

        publisher.send_text("while they leave");
        let begin = Instant::now();
        let leavers: Vec<Member> = crowd.members.iter_mut().step_by(2).filter_map(Option::take).collect();
        let left = leavers.len();
        drop(leavers);
        tell_turns(&running, "clients have left", begin);
        neighbour.is_well();
        let stay = (size() - left + 2) as u64;
        until("all who left are gone", || running.connections() == stay);
        tell_turns(&running, "server knows it", begin);
        crowd.until("those who stay have heard it", |crowd| crowd.all(|member| member.messages == 2));
        assert_eq!(running.count(|shard| shard.subscriptions.get()), stay - 1);
        neighbour.is_well();
        turns_are_short(&running);
    }
}

/// How long a neighbour's echoes take while something is done.
fn echoes_during(neighbour: &mut Neighbour, work: impl FnOnce()) -> Vec<Duration> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let echoes = scope.spawn(|| {
            let mut echoes = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                neighbour.is_well();
                echoes.push(begin.elapsed());
            }
            echoes
        });
        work();
        over.store(true, Ordering::Relaxed);
        echoes.join().unwrap()
    })
}

#[test]
fn echoes_go_on_during_broadcasts() {
    const BROADCASTS: usize = 20;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for backend in backends() {
        let running = serve(backend, 1, |_| ());
        let mut neighbour = Neighbour::new(&running);
        let mut crowd = Crowd::rush(running.at[0], size(), "/topics/crowd");
        crowd.until("all are in", |crowd| crowd.upgraded == size());
        let mut publisher = running.websocket("/topics/crowd?echo=0");
        let begin = Instant::now();
        let mut echoes = echoes_during(&mut neighbour, || {
            for number in 1..=BROADCASTS {
                publisher.send_text(&number.to_string());
                crowd.until("all have heard it", |crowd| crowd.all(|member| member.messages == number));
            }
        });
        echoes.sort();
        let of = |share: usize| echoes[(echoes.len() - 1) * share / 100].as_secs_f64() * 1e3;
        eprintln!(
            "{}: {:.3} s for {} deliveries, {} echoes meanwhile: {:.1} ms, p99 {:.1} ms, worst {:.1} ms",
            running.server.backend().name(),
            begin.elapsed().as_secs_f64(),
            BROADCASTS * size(),
            echoes.len(),
            of(50),
            of(99),
            of(100)
        );
        assert!(of(50) < 25.0, "an echo takes {} ms", of(50));
    }
}

/// Listing all, looking for some, and closing all of a topic: none of it keeps a neighbour waiting.
#[test]
fn echoes_go_on_while_operators_look_at_all_and_send_them_away() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for backend in backends() {
        let running = serve(backend, 1, |config| config.admin = Some(SocketAddr::from(([127, 0, 0, 1], 0))));
        let operator = Operator::of(&running);
        let mut neighbour = Neighbour::new(&running);
        let mut crowd = Crowd::rush(running.at[0], size(), "/topics/crowd");
        crowd.until("all are in", |crowd| crowd.upgraded == size());
        let begin = Instant::now();
        tell_turns(&running, "before", begin);
        let mut echoes = echoes_during(&mut neighbour, || {
            assert_eq!(operator.all("", 1000).len(), size() + 1);
            assert_eq!(operator.all("&topic=crowd", 1000).len(), size());
            tell_turns(&running, "two lists of all", begin);
            let nobody = Instant::now();
            (0..20).for_each(|_| assert!(operator.all("&address=10.0.0.0/8", 1000).is_empty()));
            assert_eq!(operator.get("/api/connections?sort=queue")["connections"].as_array().map(Vec::len), Some(0));
            tell_turns(&running, "20 looks for nobody", nobody);
            let kick = Instant::now();
            let closed = operator.post("/api/kick", &serde_json::json!({"topic": "crowd"}));
            assert_eq!(closed["closed"].as_u64(), Some(size() as u64));
            tell_turns(&running, "a kick of all", kick);
        });
        drop(crowd);
        until("all have gone", || running.connections() == 1);
        neighbour.is_well();
        turns_are_short(&running);
        echoes.sort();
        let of = |share: usize| echoes[(echoes.len() - 1) * share / 100].as_secs_f64() * 1e3;
        let (count, p50, p99, worst) = (echoes.len(), of(50), of(99), of(100));
        eprintln!("{}: {count} echoes meanwhile: {p50:.1} ms, p99 {p99:.1} ms, worst {worst:.1} ms", backend.name());
        assert!(of(50) < 25.0, "an echo takes {} ms", of(50));
    }
}
