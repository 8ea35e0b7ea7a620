//! Bytes arrive in order and once, both ways, whatever the path does. The peer is this machine again: a server is made
//! of a client whose segments are turned around, which leaves both halves of the protocol to one implementation but for
//! the handshake; that one is written out here.

use super::super::super::link::{Link, Path};
use super::super::entry::{Entry, State};
use super::super::flight::Flight;
use super::*;
use crate::io::{Ending, Out};
use crate::sim::Random;

/// Bytes each way.
const MUCH: usize = 5_000;

/// One end: what it has still to say, and what it has heard.
struct End {
    bench: Bench,
    unsent: Vec<u8>,
    heard: Vec<u8>,
    waits: bool,
    closed: bool,
    ended: bool,
    failed: bool,
}

impl End {
    fn new(bench: Bench, unsent: Vec<u8>) -> Self {
        Self { bench, unsent, heard: Vec::new(), waits: true, closed: false, ended: false, failed: false }
    }

    fn receive(&mut self, packet: &[u8]) {
        if let Some((_, range)) = self.bench.tcp.receive(packet, self.bench.now) {
            self.heard.extend_from_slice(&packet[range]);
        }
        while let Some((_, bytes, old)) = self.bench.tcp.next_held() {
            self.heard.extend_from_slice(&bytes[old..]);
        }
        while let Some(completion) = self.bench.tcp.next() {
            match completion {
                Completion::Writable(_) => self.waits = false,
                Completion::PeerClosed(_) => self.ended = true,
                Completion::Closed(_) => self.closed = true,
                _ => self.failed = true,
            }
        }
    }

    fn talk(&mut self, random: &mut Random) {
        while !self.waits && !self.unsent.is_empty() {
            let len = random.within(1, 700).min(self.unsent.len());
            let taken = self.bench.tcp.send(id(0), Out::Bytes(&self.unsent[..len]), self.bench.now).unwrap();
            self.unsent.drain(..taken);
            if taken < len {
                self.waits = true;
                self.bench.tcp.want_writable(id(0), self.bench.now);
                break;
            }
        }
    }

    fn packets(&mut self) -> Vec<Vec<u8>> {
        self.bench.tcp.acknowledge();
        let packets = self.bench.tcp.out().packets().map(turned).collect();
        self.bench.tcp.out().clear();
        packets
    }
}

/// Each end believes that it is client 0 and the other one the server: so sender and receiver change places twice.
fn turned(packet: &[u8]) -> Vec<u8> {
    let (segment, payload) = packet::read(packet, Checksums::Full).unwrap();
    assert_eq!((segment.from, segment.to), (client(0), server()));
    let mut turned = Vec::new();
    let segment = Segment { from: server(), to: client(0), window: segment.window.min(2000), ..segment };
    packet::write(&segment, &packet[payload], Checksums::Full, &mut turned);
    turned
}

/// An end that has had its SYN and answers it.
fn answering(syn: &[u8]) -> Bench {
    let (syn, _) = packet::read(syn, Checksums::Full).unwrap();
    let mut bench = Bench::new();
    bench.tcp.retries = 30;
    bench.tcp.dial(id(0), server(), &Arc::from([]), bench.now);
    bench.sent();
    let tcp = &mut bench.tcp;
    let entry: &mut Entry = &mut tcp.entries[0];
    entry.state = State::Established;
    entry.next_in = syn.seq.wrapping_add(1);
    entry.window = syn.window;
    entry.mss = 100;
    let (flight, next) = (entry.flight().unwrap(), entry.next_out);
    tcp.flights[flight as usize] = Flight::new(0, next);
    tcp.land(0);
    bench
}

fn play(seed: u64, path: Path) {
    let mut random = Random::new(seed);
    let mut link = Link::new(&path).unwrap();
    let bytes = |salt: usize| (0..MUCH).map(|at| (at * 7 / 3 + salt).to_le_bytes()[0]).collect::<Vec<_>>();
    let mut client = Bench::new();
    client.tcp.retries = 30;
    client.tcp.dial(id(0), server(), &Arc::from([]), client.now);
    let mut a = End::new(client, bytes(1));
    let syn = a.packets().remove(0);
    let mut b = End::new(answering(&syn), bytes(2));
    b.waits = false;
    // The handshake goes over a good path; the rest does not.
    let (iss, ack) = (b.bench.tcp.entries[0].next_out.wrapping_sub(1), b.bench.tcp.entries[0].next_in);
    a.bench.arrives(Segment { mss: Some(100), ..from_server(0, Bits::SYN.with(Bits::ACK), iss, ack) }, &[]);
    a.receive(&[]);
    for _ in 0..60_000 {
        let now = a.bench.now + Duration::from_millis(5);
        (a.bench.now, b.bench.now) = (now, now);
        a.bench.tcp.tick(now, usize::MAX);
        b.bench.tcp.tick(now, usize::MAX);
        a.talk(&mut random);
        b.talk(&mut random);
        for packet in a.packets() {
            link.outward.push(&packet, now);
        }
        for packet in b.packets() {
            link.inward.push(&packet, now);
        }
        while let Some(packet) = link.outward.pop(now) {
            b.receive(&packet);
        }
        while let Some(packet) = link.inward.pop(now) {
            a.receive(&packet);
        }
        if a.heard.len() >= MUCH && b.heard.len() >= MUCH {
            break;
        }
    }
    assert!(!a.failed && !b.failed, "seed {seed}");
    assert!(a.heard == bytes(2), "seed {seed}: {} of {MUCH} bytes", a.heard.len());
    assert!(b.heard == bytes(1), "seed {seed}: {} of {MUCH} bytes", b.heard.len());
    // Now the end, over the same path.
    a.bench.tcp.close(id(0), Ending::Graceful, a.bench.now);
    for _ in 0..60_000 {
        let now = a.bench.now + Duration::from_millis(5);
        (a.bench.now, b.bench.now) = (now, now);
        a.bench.tcp.tick(now, usize::MAX);
        b.bench.tcp.tick(now, usize::MAX);
        for packet in a.packets() {
            link.outward.push(&packet, now);
        }
        for packet in b.packets() {
            link.inward.push(&packet, now);
        }
        while let Some(packet) = link.outward.pop(now) {
            b.receive(&packet);
        }
        while let Some(packet) = link.inward.pop(now) {
            a.receive(&packet);
        }
        if b.ended && !b.closed {
            b.bench.tcp.close(id(0), Ending::Graceful, now);
        }
        if a.closed && b.closed {
            break;
        }
    }
    assert!(a.closed && b.closed, "seed {seed}");
    assert_eq!((a.bench.tcp.in_flight(), b.bench.tcp.in_flight()), (0, 0));
}

#[test]
fn bytes_arrive_in_order_and_once_over_any_path() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let share = |random: &mut Random, most: usize| random.below(most) as f64 / 100.0;
        let path = Path {
            rtt: Duration::from_millis(random.within(1, 100) as u64),
            jitter: Duration::from_millis(random.below(20) as u64),
            reorder: share(&mut random, 20),
            loss_out: share(&mut random, 12),
            loss_in: share(&mut random, 12),
            seed,
            ..Path::default()
        };
        play(seed, path);
    }
}
