//! Both ends of connections in one memory, without sockets: what the records of each cost, for benchmarks. Nothing here is
//! for others to build on.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Error, ServerConfig};

use super::handshake::{Handshake, Progress};
use super::keys::Ready;
use super::traffic::Traffic;

/// Connections whose handshakes are done, with the keys that a shard keeps ready for all of them.
#[derive(Default)]
pub struct Pairs {
    ready: Ready,
    pairs: Vec<(Traffic, Traffic)>,
}

impl Pairs {
    /// Messages back and forth until both ends have their keys, with some to spare.
    const STEPS_MAX: usize = 8;

    /// Makes one more connection.
    ///
    /// # Errors
    /// What rustls finds wrong with the handshake. Secrets must be extractable at both ends.
    pub fn agree(
        &mut self,
        server: Arc<ServerConfig>,
        client: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<(), Error> {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let mut client = Progress::Waits(Handshake::with(client, name)?);
        let mut server = Progress::Waits(Handshake::new(server)?);
        for _ in 0..Self::STEPS_MAX {
            if let Progress::Waits(handshake) = client {
                client = handshake.step(&mut down, &mut up)?;
            }
            if let Progress::Waits(handshake) = server {
                server = handshake.step(&mut up, &mut down)?;
            }
        }
        match (server, client) {
            (Progress::Done(server), Progress::Done(client)) => {
                self.pairs.push((server.traffic(&mut self.ready)?, client.traffic(&mut self.ready)?));
                Ok(())
            }
            _ => Err(Error::HandshakeNotComplete),
        }
    }

    /// Seals text at a connection's server, behind what is in `out`. `false` when its key is spent.
    pub fn seal(&mut self, pair: usize, text: &[u8], out: &mut Vec<u8>) -> bool {
        self.pairs[pair].0.seal(&mut self.ready, text, out).is_ok()
    }

    /// Opens whole records at its client, in place: the text, or nothing when they do not open.
    pub fn open<'a>(&mut self, pair: usize, records: &'a mut [u8]) -> Option<&'a [u8]> {
        let opened = self.pairs[pair].1.open(&mut self.ready, records, &mut Vec::new());
        opened.end.is_none().then(|| &records[opened.text])
    }
}
