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
mod bind;
mod launch;
mod publisher;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::app::Router;
use crate::app::files::Files;
use crate::app::opening::Opening;
use crate::app::site::{DemoSite, Site};
use crate::config::{BackendChoice, Config, Framing, Listen, Transport};
use crate::io::{epoll, uring};
use crate::mailbox::Doorbell;
use crate::message::Topic;
use crate::metrics::Metrics;
use crate::session::Protocol;
use crate::shard::{Control, Entrance, EntranceKind, Live};

use self::admin::{Admin, Phase, PhaseCell};
use self::bind::Bound;
use self::launch::{Group, Launch};
use self::watch::Watch;

pub use self::publisher::{PublishError, Publisher};

/// Why a server did not start, in one line: what, where, how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address cannot be had.
    #[error("cannot listen: {error}, {url}: {mend}")]
    Bind {
        /// The listener.
        url: String,
        /// What the kernel said.
        error: std::io::Error,
        /// What to do.
        mend: &'static str,
    },
    /// The kernel has no io_uring that is good enough.
    #[error("cannot use io_uring: {0}: serve with --backend epoll or auto")]
    NoUring(uring::Missing),
    /// More connections than descriptors.
    #[error(transparent)]
    Epoll(#[from] epoll::SetupError),
    /// The kernel refused a ring.
    #[error("{0}, at the start: raise ulimit -n, or serve with --backend epoll")]
    Uring(#[from] uring::SetupError),
    /// No thread.
    #[error("cannot start a thread: {0}, at the start: raise ulimit -u")]
    Thread(std::io::Error),
    /// The directory of the files cannot be served.
    #[error("cannot serve files: {error}, {path}: name a directory that can be read with public or --public")]
    Public {
        /// The directory.
        path: String,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// Too many shards or listeners.
    #[error("{0}")]
    TooMany(String),
    /// A topic's name in a listener's URL.
    #[error("{url}: {error}")]
    Topic {
        /// The listener.
        url: String,
        /// What is wrong with it.
        error: crate::message::TopicError,
    },
}

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
    admin: Option<Group>,
    _watch: Watch,
}

impl Server {
    /// Binds all listeners, starts the shards; when it returns every listener accepts.
    ///
    /// # Errors
    /// When a listener cannot be bound, or the kernel cannot do what was asked for.
    pub fn start(config: &Config, router: Router) -> Result<Self, StartError> {
        let shards = shard_count(config)?;
        let backend = choose_backend(config)?;
        let metrics = Metrics::new(usize::from(shards));
        let phase = Arc::new(PhaseCell::default());
        let mut bound = Vec::new();
        for listen in &config.listeners {
            bound.push(Bound::new(listen, usize::from(shards), bind::silence(&config.limits))?);
        }
        let mut listening: Vec<String> = bound.iter().map(|bound| bound.url.clone()).collect();
        let site = site(config)?;
        let entrances = config
            .listeners
            .iter()
            .zip(&listening)
            .map(|(listen, url)| entrance(config, listen, url, &site))
            .collect::<Result<Vec<_>, _>>()?;
        let control = Arc::new(Control::new(live(config)));
        let serving = Launch {
            backend,
            entrances: entrances.into(),
            sockets: bind::per_shard(bound, usize::from(shards)),
            control: Arc::clone(&control),
            metrics: metrics.clone(),
            router,
            name: "shard",
        }
        .start()?;
        let admin = match config.admin {
            Some(address) => {
                let (group, url) = start_admin(address, &metrics, &phase, backend, &listening)?;
                listening.push(url);
                Some(group)
            }
            None => None,
        };
        if let Some(hint) = bind::somaxconn().and_then(|max| bind::small_backlog(max, config.limits.connections_max)) {
            tracing::warn!("{hint}");
        }
        let watch = Watch::start(control, metrics.clone(), config.limits.memory_free_bytes_min)?;
        phase.advance(Phase::Running);
        Ok(Self { _watch: watch, metrics, phase, backend, listening, serving, admin })
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
    pub fn drain(&self, period: Duration) {
        self.phase.advance(Phase::Draining);
        self.serving.drain(period);
    }

    /// Returns when all shards have ended: after a drain, an abort, or a failure of one of them.
    ///
    /// # Errors
    /// When one of them failed.
    pub fn wait(&self) -> Result<(), RunError> {
        let result = self.serving.join();
        if let Some(admin) = &self.admin {
            admin.end();
            let _ = admin.join();
        }
        self.phase.advance(Phase::Ended);
        result
    }

    /// Ends at once: connections are reset.
    pub fn abort(&self) {
        self.serving.end();
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

fn shard_count(config: &Config) -> Result<u16, StartError> {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shards = if config.shards == 0 { cores() } else { config.shards };
    if config.listeners.len() > usize::from(u8::MAX) {
        return Err(StartError::TooMany("there are more than 255 listeners: configure fewer".to_owned()));
    }
    u16::try_from(shards)
        .ok()
        .filter(|&shards| shards <= 1024)
        .ok_or_else(|| StartError::TooMany(format!("{shards} shards are too many: configure one for each core")))
}

/// io_uring or epoll, after a look at the kernel.
fn choose_backend(config: &Config) -> Result<BackendChoice, StartError> {
    let epoll = || epoll::check_descriptor_limit(config.limits.connections_max).map(|()| BackendChoice::Epoll);
    match (config.backend, uring::probe()) {
        (BackendChoice::Epoll, _) => Ok(epoll()?),
        (_, Ok(())) => Ok(BackendChoice::Uring),
        (BackendChoice::Uring, Err(missing)) => Err(StartError::NoUring(missing)),
        (BackendChoice::Auto, Err(missing)) => {
            tracing::warn!(%missing, "io_uring is not good enough here; serving with epoll");
            Ok(epoll()?)
        }
    }
}

/// The pages beside the routes.
fn site(config: &Config) -> Result<Arc<dyn Site>, StartError> {
    let Some(path) = &config.public else { return Ok(Arc::new(DemoSite)) };
    let files = Files::open(path).map_err(|error| StartError::Public { path: path.display().to_string(), error })?;
    Ok(Arc::new(files))
}

fn entrance(config: &Config, listen: &Listen, url: &str, site: &Arc<dyn Site>) -> Result<Entrance, StartError> {
    let kind = match &listen.transport {
        Transport::Http => EntranceKind::Http { site: Arc::clone(site), routes: true },
        Transport::Tcp { framing, app, topic, group } => {
            let parse = |name: &String| Topic::parse(name.as_bytes(), config.limits.topic_bytes_max);
            let topic = topic.as_ref().map(parse).transpose();
            let topic = topic.map_err(|error| StartError::Topic { url: url.to_owned(), error })?;
            let protocol = match framing {
                Framing::Line => Protocol::Line,
                Framing::Length => Protocol::Length,
            };
            EntranceKind::Tcp { protocol, opening: Opening::new(*app, topic.as_ref()).in_group(group.as_deref()) }
        }
    };
    Ok(Entrance { url: url.to_owned(), kind })
}

/// What can be replaced while the server runs.
fn live(config: &Config) -> Live {
    Live::of(config)
}

fn start_admin(
    address: std::net::SocketAddr,
    metrics: &Metrics,
    phase: &Arc<PhaseCell>,
    backend: BackendChoice,
    listening: &[String],
) -> Result<(Group, String), StartError> {
    const CONNECTIONS_MAX: usize = 64;
    let bound = Bound::new(&Listen::http(address), 1, None)?;
    let url = bound.url.clone();
    let about = vec![("backend", backend.name().to_owned()), ("listeners", listening.join("\n"))];
    let kind =
        EntranceKind::Http { site: Arc::new(Admin::new(metrics.clone(), Arc::clone(phase), about)), routes: false };
    let limits = crate::config::Limits { connections_max: CONNECTIONS_MAX, ..Default::default() };
    let launch = Launch {
        backend: BackendChoice::Epoll,
        entrances: [Entrance { url: url.clone(), kind }].into(),
        sockets: bind::per_shard(vec![bound], 1),
        control: Arc::new(Control::new(Live::new(limits))),
        metrics: Metrics::new(1),
        router: Router::new(),
        name: "admin",
    };
    Ok((launch.start()?, url))
}

type Joins = Mutex<Vec<JoinHandle<Result<(), std::io::Error>>>>;

fn ring_all(doorbells: &[Arc<Doorbell>]) {
    doorbells.iter().for_each(|doorbell| doorbell.ring());
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
