//! A whole server: listeners, a thread per shard, the admin pages, the drain.
//!
//! The admin listener has a small shard of its own, on epoll: a scrape never costs the others a turn, and the pages
//! answer until the last client of the others has left.
//!
//! # A server inside a program
//!
//! The configuration is a plain value, and port 0 picks a free port. Dropping the [`Server`] ends it at once;
//! [`Server::drain`] and [`Server::wait`] let its clients leave first.
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use std::net::TcpStream;
//! use std::time::Duration;
//!
//! use holdline::app::{Router, echo::Echo};
//! use holdline::config::{Config, Limits, Listen};
//! use holdline::server::Server;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config {
//!     listeners: vec![Listen::parse("http://127.0.0.1:0")?, Listen::parse("tcp://127.0.0.1:0?framing=line&app=echo")?],
//!     admin: None,
//!     shards: 1,
//!     limits: Limits { connections_max: 100, ..Limits::default() },
//!     ..Config::default()
//! };
//! let server = Server::start(&config, Router::new().route("/echo", Echo))?;
//!
//! // Everything accepts from here on. This is a client over bare TCP.
//! let listening = server.listening();
//! let address = listening[1].trim_start_matches("tcp://").split('?').next().unwrap_or_default();
//! let mut client = BufReader::new(TcpStream::connect(address)?);
//! client.get_mut().write_all(b"hello\n")?;
//! let mut line = String::new();
//! client.read_line(&mut line)?;
//! assert_eq!(line, "hello\n");
//! assert_eq!(server.metrics().total(|shard| shard.messages_received_total.get()), 1);
//!
//! // Clients are asked to leave within this time.
//! drop(client);
//! server.drain(Duration::ZERO);
//! server.wait()?;
//! # Ok(())
//! # }
//! ```

pub mod admin;
mod api;
mod bind;
pub mod cluster;
pub mod control;
mod dashboard;
mod drainer;
pub mod handover;
mod hooks;
pub mod journal;
mod launch;
mod prepared;
mod publisher;
mod race;
pub mod reload;
mod ring;
mod scrape;
pub mod service;
mod socket_file;
mod start;
mod tls;
mod validity;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::app::Router;
use crate::config::{BackendChoice, Config};
use crate::mailbox::Doorbell;
use crate::metrics::Metrics;

use self::admin::{Phase, PhaseCell};
use self::cluster::Clustering;
use self::drainer::Drainer;
use self::handover::{Inherited, Predecessor};
use self::hooks::Hooking;
use self::journal::Keeping;
use self::launch::Group;
use self::reload::Reloader;
use self::watch::Watch;

pub use self::hooks::HooksError;
pub use self::prepared::Prepared;
pub use self::publisher::{PublishError, Publisher};
pub use self::start::StartError;
pub use self::tls::TlsError;

/// Why a server did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel's interface failed.
    #[error("shard {0} failed: {1}, while running: see the log")]
    Io(usize, std::io::Error),
    /// A fault of ours.
    #[error("shard {0} panicked, while running: please report it")]
    Panic(usize),
}

/// A running server.
pub struct Server {
    metrics: Metrics,
    phase: Arc<PhaseCell>,
    backend: BackendChoice,
    listening: Vec<String>,
    serving: Group,
    journal: Keeping,
    hooks: Option<Hooking>,
    cluster: Option<Clustering>,
    drainer: Drainer,
    admin: Option<Group>,
    /// The worker of the admin API.
    _api: Option<api::Thread>,
    reloader: Arc<Reloader>,
    _watch: Watch,
}

impl Server {
    /// Binds all listeners, starts the shards; when it returns every listener accepts.
    ///
    /// # Errors
    /// When a listener cannot be bound, or the kernel cannot do what was asked for.
    pub fn start(config: &Config, router: Router) -> Result<Self, StartError> {
        Self::start_with(config, router, Inherited::default(), None)
    }

    /// The same with sockets that others have made: a service manager, or a server that runs and waits until this one is
    /// ready.
    ///
    /// # Errors
    /// Likewise, and when what was passed cannot be used. The server that runs goes on then.
    pub fn start_with(
        config: &Config,
        router: Router,
        inherited: Inherited,
        predecessor: Option<&Predecessor>,
    ) -> Result<Self, StartError> {
        Prepared::new(config)?.start(router, inherited, predecessor)
    }

    /// URLs with real ports, in the order configured, admin last.
    #[must_use]
    pub fn listening(&self) -> Vec<String> {
        self.listening.clone()
    }

    /// The backend in use, never `Auto`.
    #[must_use]
    pub const fn backend(&self) -> BackendChoice {
        self.backend
    }

    /// Begins to drain: nobody is let in, everybody is asked to come back later, spread over `period`.
    ///
    /// Whoever has begun to connect is taken in. Nobody else gets an answer from the kernel until the listeners close, a
    /// second later at most.
    pub fn drain(&self, period: Duration) {
        self.drainer.drain(period);
    }

    /// The same at a rate: so many connections are asked to leave in each second.
    pub fn drain_at_rate(&self, per_second: u32) {
        let connections = self.metrics.total(|shard| shard.connections.get());
        self.drain(Duration::from_millis(connections.saturating_mul(1000) / u64::from(per_second.max(1))));
    }

    /// The same, but `/readyz` says so for a while before anything happens: whoever spreads clients over servers can leave
    /// this one out.
    pub fn drain_after(&self, delay: Duration, period: Duration) {
        self.drainer.drain_after(delay, period);
    }

    /// Returns when all shards have ended: after a drain, an abort, or a failure of one of them.
    ///
    /// # Errors
    /// When one of them failed.
    pub fn wait(&self) -> Result<(), RunError> {
        let result = self.serving.join();
        self.journal.end();
        self.hooks.iter().for_each(Hooking::end);
        self.cluster.iter().for_each(Clustering::end);
        if let Some(admin) = &self.admin {
            admin.end();
            let _ = admin.join();
        }
        self.phase.advance(Phase::Ended);
        result
    }

    /// Wakes all shards, as if something had happened.
    fn wake(&self) {
        self.serving.wake();
    }

    /// Ends at once: connections are reset.
    pub fn abort(&self) {
        self.drainer.close();
        self.hooks.iter().for_each(Hooking::hurry);
        self.serving.end();
    }

    /// The configuration that runs, and the way to another one without a restart.
    #[must_use]
    pub const fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// The counters.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A way to publish from other threads.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        self.serving.publisher().clone()
    }

    /// Where it is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.abort();
        let _ = self.wait();
    }
}

type Joins = Mutex<Vec<JoinHandle<Result<(), std::io::Error>>>>;

fn ring_all(doorbells: &[Arc<Doorbell>]) {
    doorbells.iter().for_each(|doorbell| doorbell.ring());
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
