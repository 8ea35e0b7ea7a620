//! Harness for the simulation.

use std::marker::PhantomData;

use holdline::id::ListenerId;
use holdline::sim::{self, Config, Faults, Net, SimBackend};

use super::harness::{Client, Harness, Peer, Setup};

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

/// Two networks of one seed, driven alike, say the same.
#[test]
fn the_same_seed_replays() {
    let run = |seed| {
        let net = Net::new(seed, Config { faults: Faults::HARSH, ..Config::default() });
        let mut world = super::world::World::over(Simulated::<Harsh> {
            backend: {
                let mut backend = net.backend();
                backend.open(LISTENER);
                backend
            },
            net,
            weather: PhantomData,
        });
        let mut clients: Vec<_> = (0..20).map(|_| world.harness.try_connect().unwrap()).collect();
        for round in 0..200_u32 {
            let nth = round as usize % clients.len();
            Client::write(&mut clients[nth], &round.to_le_bytes());
            world.turn();
        }
        format!("{:?}", world.log)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
