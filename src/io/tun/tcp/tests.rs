//! Against a scripted peer, against a model of one on a bad path, and against anything at all.

#![allow(clippy::unwrap_used, reason = "a test that does not get the segment it waits for has failed")]

mod model;
mod transcript;

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use super::super::packet::{self, Bits, Checksums, Segment};
use super::super::plan::{Block, SERVER};
use super::{Config, Tcp};
use crate::id::ConnId;
use crate::io::Completion;
use crate::time::Instant;

const PORT: u16 = 80;
const MTU: u16 = 140;
const MSS: usize = 100;
const AFTER: Duration = Duration::from_millis(400);
const RETRIES: u8 = 3;

fn server() -> SocketAddrV4 {
    SocketAddrV4::new(SERVER, PORT)
}

fn client(index: u32) -> SocketAddrV4 {
    Block::new(0).source(index)
}

fn config() -> Config {
    Config {
        block: Block::new(0),
        connections_max: 16,
        mtu: MTU,
        checksums: Checksums::Full,
        prefix: &[],
        retransmit_after: AFTER,
        retries: RETRIES,
        vanish: None,
    }
}

/// The machine, a clock, and what it has said.
struct Bench {
    tcp: Tcp,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { tcp: Tcp::new(config()), now: Instant::ZERO }
    }

    /// Segments that it has sent since the last call, acknowledgements that are owed among them.
    fn sent(&mut self) -> Vec<(Segment, Vec<u8>)> {
        self.tcp.acknowledge();
        let packets = self.tcp.out().packets().map(|packet| {
            let (segment, payload) = packet::read(packet, Checksums::Full).unwrap();
            (segment, packet[payload].to_vec())
        });
        let sent = packets.collect();
        self.tcp.out().clear();
        sent
    }

    /// A segment of the server arrives. Returns the bytes that are news.
    fn arrives(&mut self, segment: Segment, payload: &[u8]) -> Option<Vec<u8>> {
        let mut packet = Vec::new();
        packet::write(&segment, payload, Checksums::Full, &mut packet);
        self.tcp.receive(&packet, self.now).map(|(_, range)| packet[range].to_vec())
    }

    fn told(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.tcp.next()).map(|completion| format!("{completion:?}")).collect()
    }

    /// Lets time pass, in steps that are shorter than any alarm.
    fn passes(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(10);
            self.tcp.tick(self.now, usize::MAX);
        }
    }
}

/// A segment from the server to a client.
fn from_server(index: u32, bits: Bits, seq: u32, ack: u32) -> Segment {
    Segment { from: server(), to: client(index), seq, ack, bits, window: 1000, mss: None }
}

fn id(index: u32) -> ConnId {
    ConnId::new(index, 1)
}

fn hello() -> Arc<[u8]> {
    Arc::from(&b"hello"[..])
}
