//! A receiver of hooks: an HTTP server that keeps what it is told.

#![allow(
    dead_code,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "each test uses a part of it; a test that cannot get what it needs has failed"
)]

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::wire::{field, read_message};

/// Nothing that a test waits for takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request that was answered with 204.
#[derive(Clone, Debug)]
pub struct Told {
    pub head: String,
    pub body: Vec<u8>,
}

impl Told {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// The receiver.
pub struct Receiver {
    pub port: u16,
    told: mpsc::Receiver<Told>,
    /// All that it was told so far.
    pub all: Vec<Told>,
    /// All events of that.
    pub events: Vec<Value>,
}

impl Receiver {
    /// Over plain TCP, or with a certificate over TLS.
    pub fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), tls)
    }

    /// The same at an address.
    pub fn at(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (say, told) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, say, tls) = (stream.unwrap(), say.clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &say),
                    Some(config) => serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &say),
                });
            }
        });
        Self { port, told, all: Vec::new(), events: Vec::new() }
    }

    /// Waits until what it was told is so.
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(told) = self.told.recv_timeout(left) else {
                panic!("waited in vain for {what}: {:#?}", self.events)
            };
            self.events.extend(told.json()["events"].as_array().unwrap().iter().cloned());
            self.all.push(told);
        }
    }

    /// Waits for so many events of a kind.
    pub fn await_kind(&mut self, kind: &str, count: usize) {
        self.until(kind, |receiver| receiver.of(kind).len() >= count);
    }

    /// The events of a kind.
    pub fn of(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["kind"] == kind).collect()
    }

    /// What was missing, of all kinds.
    pub fn missed(&self) -> u64 {
        let missed = self.all.iter().filter_map(|told| told.json()["missed"].as_object().cloned());
        missed.flat_map(|kinds| kinds.into_iter().map(|(_, count)| count.as_u64().unwrap())).sum()
    }
}

fn serve(stream: impl Read + Write, say: &mpsc::Sender<Told>) {
    let mut stream = BufReader::new(stream);
    while let Some((head, body)) = read_message(&mut stream) {
        if say.send(Told { head, body }).is_err()
            || stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err()
        {
            return;
        }
    }
}
