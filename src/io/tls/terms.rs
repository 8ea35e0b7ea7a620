//! On which terms handshakes are made, and who speaks TLS.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;

use crate::metrics::ShardMetrics;

/// What connections of a listener speak below their protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Nothing.
    Plain,
    /// TLS, with HTTP inside, whose versions are agreed on (ALPN, RFC 7301).
    Https,
    /// TLS, with anything inside.
    Tls,
}

/// On which terms handshakes are made. Both configurations must let their secrets be extracted.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Where HTTP is inside.
    pub http: Arc<ServerConfig>,
    /// Where something else is.
    pub raw: Arc<ServerConfig>,
    /// Time from accept to the end of a handshake.
    pub timeout: Duration,
    /// Bytes that the handshakes of a shard may keep while they are under way. Beyond, those that have waited longest for their
    /// peers are ended, and where none has, newcomers are.
    pub handshake_bytes_max: usize,
}

/// The terms in force, which may be replaced while shards run. Handshakes that have begun keep theirs, and so do open
/// connections.
#[derive(Debug)]
pub struct Current {
    version: AtomicU64,
    terms: Mutex<Arc<Terms>>,
}

impl Current {
    /// These, to begin with.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self { version: AtomicU64::new(0), terms: Mutex::new(Arc::new(terms)) }
    }

    /// Handshakes that begin from now on are made on these terms.
    pub fn replace(&self, terms: Terms) {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(terms);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Changes with each replacement.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The terms in force.
    #[must_use]
    pub fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a [`Tls`](super::Tls) needs to know.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What listeners speak, by the numbers of their ids; those that are missing speak nothing.
    pub listeners: Vec<Speaks>,
    /// On which terms.
    pub current: Arc<Current>,
    /// Where handshakes are counted.
    pub metrics: Arc<ShardMetrics>,
}
