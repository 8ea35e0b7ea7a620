//! Dialling over TLS: the client's end.
//!
//! ```text
//!   dial -> stands (below) -> handshake -> hello sealed -> stands (above)
//! ```
//!
//! Handshakes of dialled connections take the same way as those of accepted ones, but begin by themselves. Whoever dials
//! has its own limit on the time that one takes.

use std::net::SocketAddrV4;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::Tls;
use super::aside::Failure;
use super::handshake::{Handshake, Progress};
use super::session::{Session, Stage};
use crate::id::ConnId;
use crate::io::{Completion, Dial};
use crate::metrics::ShardMetrics;

/// A server that is dialled over TLS. All dials that go to this address with this hello do.
#[derive(Clone, Debug)]
pub struct Asks {
    /// Where.
    pub address: SocketAddrV4,
    /// What is said first, inside.
    pub hello: Arc<[u8]>,
    /// On which terms. They must let their secrets be extracted.
    pub config: Arc<ClientConfig>,
    /// Whose certificate it must show.
    pub name: ServerName<'static>,
}

impl<B> Tls<B> {
    /// Servers at most that are told apart.
    const ASKS_MAX: usize = u8::MAX as usize;

    /// A backend that dials these over TLS, and all others as they are.
    pub fn calls(inner: B, mut asks: Vec<Asks>, metrics: Arc<ShardMetrics>) -> Self {
        asks.truncate(Self::ASKS_MAX);
        Self { asks, ..Self::plain(inner, metrics) }
    }
}

impl<B: Dial> Dial for Tls<B> {
    fn dial(&mut self, id: ConnId, to: SocketAddrV4, hello: &Arc<[u8]>) {
        let asked = self.asks.iter().position(|asks| asks.address == to && asks.hello == *hello);
        match asked.and_then(|index| u8::try_from(index + 1).ok()) {
            Some(asks) => {
                self.sessions.insert(Session::dialled(id, asks));
                self.metrics.tls_connections.add(1);
                self.inner.dial(id, to, &self.silence);
            }
            None => self.inner.dial(id, to, hello),
        }
    }

    fn vanish(&mut self, id: ConnId) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.set(Session::CLOSING | Session::CLOSED);
            super::drop_pending(session, &self.metrics);
        }
        self.inner.vanish(id);
    }
}

impl<B: crate::io::Backend> Tls<B> {
    /// The transport of a dialled connection stands: its handshake begins.
    pub(super) fn stands(&mut self, id: ConnId) -> Option<Completion> {
        let session = self.sessions.get_mut(id)?;
        let asks = self.asks.get(usize::from(session.asks).checked_sub(1)?)?;
        let mut out = Vec::new();
        let begun = Handshake::with(Arc::clone(&asks.config), asks.name.clone());
        match begun.and_then(|handshake| handshake.step(&mut session.input, &mut out)) {
            Ok(Progress::Waits(handshake)) => {
                session.stage = Stage::Greeting(Some(handshake));
                self.give_own(id, &out);
            }
            Ok(Progress::Done(_)) => {}
            Err(error) => self.not_greeted(id, &Failure::Tls(error), &mut out),
        }
        None
    }

    /// The handshake of a dialled connection is done. `told` is what came behind it.
    pub(super) fn welcomed(&mut self, id: ConnId, told: Option<Completion>) -> Option<Completion> {
        let session = self.sessions.get_mut(id)?;
        let asks = self.asks.get(usize::from(session.asks).checked_sub(1)?)?;
        if let Stage::Open(traffic) = &mut session.stage {
            let mut sealed = Vec::new();
            if !asks.hello.is_empty() && traffic.seal(&mut self.ready, &asks.hello, &mut sealed).is_err() {
                return told;
            }
            self.give_own(id, &sealed);
        }
        self.next = told;
        Some(Completion::Writable(id))
    }
}
