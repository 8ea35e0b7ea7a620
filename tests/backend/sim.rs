//! Harness for the simulation.

use std::marker::PhantomData;
use std::net::SocketAddr;

use holdline::id::ListenerId;
use holdline::sim::{self, Config, Faults, Net, Random, SimBackend};

use super::harness::{Client, Harness, Peer, Setup};
use super::world::{World, noise};

/// What goes wrong.
pub trait Weather {
    const FAULTS: Faults;
}

/// Nothing.
pub struct Calm;

impl Weather for Calm {
    const FAULTS: Faults = Faults::NONE;
}

/// All that loses no connection.
pub struct Harsh;

impl Weather for Harsh {
    const FAULTS: Faults = Faults::HARSH;
}

/// A network with one backend.
pub struct Simulated<W> {
    net: Net,
    backend: SimBackend,
    weather: PhantomData<W>,
}

const LISTENER: ListenerId = ListenerId(0);

impl<W: Weather> Harness for Simulated<W> {
    type Backend = SimBackend;
    type Client = sim::Client;

    const FAULTS: bool = W::FAULTS.late_sends > 0;

    fn new(setup: Setup) -> Self {
        let pipe_bytes = if setup.small_buffers { 4096 } else { 64 * 1024 };
        let config = Config { upstream_bytes: pipe_bytes, downstream_bytes: pipe_bytes, ..Config::default() };
        let net = Net::new(1, Config { faults: W::FAULTS, ..config });
        let mut backend = net.backend();
        backend.open(LISTENER);
        Self { net, backend, weather: PhantomData }
    }

    fn backend(&mut self) -> &mut SimBackend {
        &mut self.backend
    }

    fn try_connect(&mut self) -> Option<sim::Client> {
        self.net.connect(LISTENER)
    }

    fn starve(&mut self) -> bool {
        self.net.set_faults(Faults { accept_failures: 1000, ..W::FAULTS });
        true
    }

    fn feed(&mut self) {
        self.net.set_faults(W::FAULTS);
    }

    fn holdings(&self) -> usize {
        self.net.connections()
    }
}

impl Client for sim::Client {
    fn address(&self) -> Option<SocketAddr> {
        None
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        Self::write(self, bytes)
    }

    fn read(&mut self, into: &mut Vec<u8>, bytes_max: usize) -> usize {
        self.read_into(into, bytes_max)
    }

    fn peer(&mut self) -> Peer {
        match Self::peer(self) {
            sim::Peer::Open => Peer::Open,
            sim::Peer::Finished => Peer::Finished,
            sim::Peer::Reset => Peer::Reset,
        }
    }

    fn shutdown_write(&mut self) {
        Self::shutdown_write(self);
    }

    fn close(self) {
        Self::close(self);
    }

    fn reset(self) {
        Self::reset(self);
    }
}

type SimWorld = World<Simulated<Harsh>>;

fn world(seed: u64, config: Config) -> SimWorld {
    let net = Net::new(seed, config);
    let mut backend = net.backend();
    backend.open(LISTENER);
    let mut world = World::over(Simulated { net, backend, weather: PhantomData });
    world.echo = true;
    world
}

/// A client that writes its bytes, ends somehow, and expects them back, each plus one.
struct Script {
    client: Option<sim::Client>,
    bytes: Vec<u8>,
    written: usize,
    read: Vec<u8>,
    said_all: bool,
}

impl Script {
    fn new(world: &SimWorld, random: &mut Random) -> Self {
        let bytes = noise(random.below(20_000), random.bits());
        Self { client: world.harness.net.connect(LISTENER), bytes, written: 0, read: Vec::new(), said_all: false }
    }

    /// Does one thing, and says whether there is more to come.
    fn step(&mut self, random: &mut Random) -> bool {
        let Some(client) = &mut self.client else { return false };
        match random.below(6) {
            0..=2 => {
                let end = self.bytes.len().min(self.written + random.within(1, 3000));
                self.written += client.write(&self.bytes[self.written..end]);
            }
            _ => {
                let seen = self.read.len();
                client.read_into(&mut self.read, random.within(1, 4000));
                let news = self.read[seen..].iter().zip(&self.bytes[seen..]);
                assert!(news.into_iter().all(|(echo, byte)| *echo == byte.wrapping_add(1)), "a wrong echo");
            }
        }
        if self.written == self.bytes.len() && !self.said_all {
            client.shutdown_write();
            self.said_all = true;
        }
        let peer = client.peer();
        if peer == Peer::Finished {
            assert!(self.said_all && self.read.len() == self.bytes.len(), "the echo ends before its end");
        }
        if peer != Peer::Open || random.chance(1) {
            self.client = None;
        }
        self.client.is_some()
    }
}

/// An echo server under every fault, and everything is freed in the end.
fn run(seed: u64) -> String {
    let mut random = Random::new(!seed);
    let buffers = random.within(100, 10_000);
    let faults = Faults::draw(&mut random);
    let config = Config { faults, upstream_bytes: buffers, downstream_bytes: buffers, ..Config::default() };
    let mut world = world(seed, config);
    let mut scripts: Vec<Script> = (0..10).map(|_| Script::new(&world, &mut random)).collect();
    world.until("the scripts' ends", |world| {
        world.close_ended();
        scripts.iter_mut().filter_map(|script| script.step(&mut random).then_some(())).count() == 0
    });
    world.until("everything freed", |world| {
        world.close_ended();
        world.harness.net.connections() == 0 && world.open.is_empty()
    });
    assert_eq!(world.harness.net.held_by_servers(), 0);
    format!("{:?}", world.log)
}

#[test]
fn an_echo_survives_every_fault() {
    for seed in 0..300 {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn the_same_seed_replays() {
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
