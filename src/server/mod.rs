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
pub mod reload;
mod ring;
mod scrape;
pub mod service;
mod socket_file;
mod tls;
mod validity;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::app::Router;
use crate::cluster::port::ShardEnd as ClusterEnd;
use crate::config::{BackendChoice, Config, History, Limits, Listen, ListenAt};
use crate::hooks::port::ShardEnd as HooksEnd;
use crate::io::{epoll, uring};
use crate::mailbox::Doorbell;
use crate::message::Epoch;
use crate::metrics::{ClusterMetrics, HooksMetrics, JournalMetrics, Metrics};
use crate::shard::{Control, Entrance, EntranceKind, Live};

use self::admin::{Admin, Phase, PhaseCell};
use self::api::{Desk, Realm};
use self::bind::Held;
use self::cluster::{ClusterError, Clustering};
use self::drainer::Drainer;
use self::handover::{Estate, Inherited, Predecessor};
use self::hooks::Hooking;
use self::journal::{Begun, Keeping};
use self::launch::{Group, Launch, Recovered, Waiting};
use self::reload::Reloader;
use self::watch::Watch;

pub use self::hooks::HooksError;
pub use self::prepared::Prepared;
pub use self::publisher::{PublishError, Publisher};
pub use self::tls::TlsError;

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
    /// A certificate or a key is not usable.
    #[error("cannot speak TLS: {0}")]
    Tls(#[from] TlsError),
    /// TLS is not to be had as it is configured.
    #[error("cannot speak TLS: {0}, at the start: please report it")]
    Crypto(rustls::Error),
    /// What a service manager passed is for nobody.
    #[error(transparent)]
    Activation(#[from] handover::ActivationError),
    /// The server before this one does not make room.
    #[error(transparent)]
    Handover(#[from] handover::HandoverError),
    /// What durable topics have on the disk cannot be had.
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
    /// Nor written.
    #[error(
        "cannot keep a journal: {0}, at the start: allow io_uring (kernel.io_uring_disabled, seccomp), or leave journal.dir out"
    )]
    Control(#[from] control::ControlError),
    /// There is no cluster for this node.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Nothing can be told to the receiver of hooks.
    #[error(transparent)]
    Hooks(#[from] HooksError),
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

    /// Starts what has been prepared.
    fn start_prepared(
        prepared: Prepared,
        router: Router,
        inherited: Inherited,
        predecessor: Option<&Predecessor>,
    ) -> Result<Self, StartError> {
        let Prepared { config, shards, backend, keeper, kinds, live, repair } = prepared;
        let config = &config;
        if predecessor.is_some() && !repair {
            journal::can_follow(config)?;
        }
        let metrics = Metrics::new(usize::from(shards));
        let phase = Arc::new(PhaseCell::default());
        let held = bind_all(config, usize::from(shards), inherited)?;
        let clients = config.listeners.len();
        let listening: Vec<String> = held[..clients].iter().map(|held| held.url.clone()).collect();
        let entrance = |((listen, url), kind): ((&Listen, &String), EntranceKind)| Entrance {
            url: url.clone(),
            kind,
            proxied: listen.proxy,
        };
        let entrances: Vec<_> = config.listeners.iter().zip(&listening).zip(kinds).map(entrance).collect();
        let control = Arc::new(Control::new(live));
        let serving = Launch {
            backend,
            entrances: entrances.into(),
            sockets: bind::per_shard(&held[..clients], usize::from(shards))?,
            control: Arc::clone(&control),
            metrics: metrics.clone(),
            router,
            tls: keeper.as_ref().map(|keeper| (tls::speaks(config), Arc::clone(&keeper.current))),
            name: "shard",
        }
        .start()?;
        let held = Arc::new(held);
        let drainer = Drainer::new(Arc::clone(&phase), serving.group().gate(), Arc::clone(&held), clients);
        let reloader = Arc::new(Reloader::new(config, keeper, Arc::clone(&control), serving.group().doorbells()));
        let journal: Option<Arc<JournalMetrics>> = config.journal.dir.as_ref().map(|_| Arc::default());
        let hooks: Option<Arc<HooksMetrics>> = config.hooks.is_set().then(Arc::default);
        let shared: Option<Arc<ClusterMetrics>> = config.cluster.is_set().then(Arc::default);
        let realm = || Realm {
            cluster: shared.clone(),
            journal: journal.clone(),
            hooks: hooks.clone(),
            reloader: Arc::clone(&reloader),
            control: Arc::clone(&control),
            metrics: metrics.clone(),
            phase: Arc::clone(&phase),
            drainer: drainer.clone(),
            shards: serving.group().postbox(),
        };
        let admin = match held.get(clients).map(|held| start_admin(held, realm(), backend, &listening)).transpose() {
            Ok(admin) => admin,
            Err(error) => {
                serving.give_up();
                return Err(error);
            }
        };
        let (admin, api) = admin.unzip();
        admin.iter().for_each(|admin| drainer.set_admin(admin.group().gate()));
        let hooking = match Hooking::start(&control, shards, hooks.as_ref(), &config.cluster) {
            Ok(hooking) => hooking,
            Err(error) => {
                serving.give_up();
                admin.into_iter().for_each(Waiting::give_up);
                return Err(error.into());
            }
        };
        let (hooks, ends) = hooking.unzip();
        let clustering = match Clustering::begin(&config.cluster, &serving.group().doorbells(), shared.as_ref()) {
            Ok(clustering) => clustering,
            Err(error) => {
                serving.give_up();
                admin.into_iter().for_each(Waiting::give_up);
                return Err(error.into());
            }
        };
        let (cluster, shared_ends) = clustering.unzip();
        let ways = Ways { hooks: ends.unwrap_or_default(), cluster: shared_ends.unwrap_or_default() };
        let begin = |doorbells: &[_]| Begun::begin(config, repair, doorbells, journal.as_ref());
        let (serving, admin, journal) = open(serving, admin, predecessor, &held, begin, ways)?;
        let listening = held.iter().map(|held| held.url.clone()).collect();
        if let Some(hint) = bind::somaxconn().and_then(|max| bind::small_backlog(max, config.limits.connections_max)) {
            tracing::warn!("{hint}");
        }
        let watch = Watch::start(control, metrics.clone())?;
        phase.advance(Phase::Running);
        Ok(Self {
            _watch: watch,
            metrics,
            phase,
            backend,
            listening,
            serving,
            journal,
            hooks,
            cluster,
            drainer,
            admin,
            reloader,
            _api: api,
        })
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

/// What can be replaced while the server runs.
fn live(config: &Config) -> Result<Live, StartError> {
    Ok(Live::of(config))
}

/// What configured listeners are called among those that are passed on.
const ADMIN: &str = "admin";

/// The sockets of all listeners, the admin listener last: those that were passed, or new ones.
fn bind_all(config: &Config, shards: usize, mut inherited: Inherited) -> Result<Vec<Held>, StartError> {
    let urls: Vec<String> = config.listeners.iter().map(Listen::to_string).collect();
    let names = urls.iter().map(|url| url.split("://").next().unwrap_or_default());
    let clients = names.zip(config.listeners.iter().map(|listen| listen.address.clone()));
    let wanted: Vec<_> = clients.chain(config.admin.map(|address| (ADMIN, ListenAt::Ip(address)))).collect();
    let given = inherited.assign(&wanted);
    if let Some(error) = inherited.unwanted() {
        return Err(error.into());
    }
    let silence = bind::silence(&config.limits);
    let admin = config.admin.map(Listen::http);
    let clients = config.listeners.iter().map(|listen| (listen, shards, silence));
    let all = clients.chain(admin.iter().map(|listen| (listen, 1, None)));
    let named = wanted.iter().map(|(name, _)| *name).zip(given);
    let bind = |((listen, shards, silence), (name, passed))| Held::new(name, listen, passed, shards, silence);
    all.zip(named).map(bind).collect()
}

/// Where shards tell what others are to know.
struct Ways {
    hooks: Vec<HooksEnd>,
    cluster: Vec<ClusterEnd>,
}

/// Lets shards listen, once the server before has made room.
fn open(
    serving: Waiting,
    admin: Option<Waiting>,
    predecessor: Option<&Predecessor>,
    held: &[Held],
    begin: impl FnOnce(&[Arc<Doorbell>]) -> Result<Option<Begun>, StartError>,
    ways: Ways,
) -> Result<(Group, Option<Group>, Keeping), StartError> {
    let give_up = |serving: Waiting, admin: Option<Waiting>| {
        serving.give_up();
        admin.into_iter().for_each(Waiting::give_up);
    };
    let taken = held.iter().filter_map(|held| held.number).collect();
    let estate = match predecessor.map_or(Ok(Estate::default()), |predecessor| predecessor.ready(taken)) {
        Ok(estate) => estate,
        Err(error) => {
            give_up(serving, admin);
            return Err(error.into());
        }
    };
    held.iter().for_each(Held::own);
    serving.group().gate().control.adopt_seen(estate.used);
    let mut begun = match begin(&serving.group().doorbells()) {
        Ok(begun) => begun,
        Err(error) => {
            give_up(serving, admin);
            return Err(error);
        }
    };
    let recovered = begun.as_mut().map(|begun| Recovered {
        epoch: begun.epoch,
        topics: std::mem::take(&mut begun.topics),
        ends: std::mem::take(&mut begun.ends),
    });
    // It ends with this value if anything fails from here on.
    let journal = Keeping::new(begun.map(|begun| begun.thread));
    let serving = serving.listen(estate.epoch, estate.topics, recovered, ways.hooks, ways.cluster)?;
    match admin.map(|admin| admin.listen(Epoch::default(), Vec::new(), None, Vec::new(), Vec::new())).transpose() {
        Ok(admin) => Ok((serving, admin, journal)),
        Err(error) => {
            serving.end();
            let _ = serving.join();
            Err(error)
        }
    }
}

/// The same of the admin listener.
fn admin_live(config: &Config) -> Live {
    const CONNECTIONS_MAX: usize = 64;
    let limits = Limits {
        connections_max: CONNECTIONS_MAX,
        // Whoever sits on connections leaves some for operators elsewhere.
        connections_per_address_max: CONNECTIONS_MAX * 3 / 4,
        message_bytes_max: config.limits.message_bytes_max,
        // Lines of a trace are for those who are there.
        history: History { messages_max: 0, ..History::default() },
        ..Limits::default()
    };
    Live { access: Arc::new(config.access.clone()), operators_only: true, ..Live::new(limits) }
}

fn start_admin(
    held: &Held,
    realm: Realm,
    backend: BackendChoice,
    listening: &[String],
) -> Result<(Waiting, api::Thread), StartError> {
    let url = held.url.clone();
    let about = vec![("backend", backend.name().to_owned()), ("listeners", listening.join("\n"))];
    let pages = Admin::new(realm.metrics.clone(), Arc::clone(&realm.phase), about)
        .with_journal(realm.journal.clone())
        .with_hooks(realm.hooks.clone())
        .with_cluster(realm.cluster.clone());
    let reloader = Arc::clone(&realm.reloader);
    let control = Arc::new(Control::new(admin_live(&reloader.running())));
    let (desk, inbox) = Desk::new(realm, !held.is_remote());
    let kind = EntranceKind::Http { site: Arc::new(pages.with_api(Arc::clone(&desk))), routes: true };
    let launch = Launch {
        backend: BackendChoice::Epoll,
        entrances: [Entrance { url, kind, proxied: false }].into(),
        sockets: bind::per_shard(std::slice::from_ref(held), 1)?,
        control: Arc::clone(&control),
        metrics: Metrics::new(1),
        router: desk.routes(),
        tls: None,
        name: "admin",
    };
    let waiting = launch.start()?;
    reloader.follow_admin(control, waiting.group().doorbells());
    let thread = inbox.start(desk, waiting.group().postbox());
    let thread = thread.map_err(|error| waiting.group().fail(StartError::Thread(error)))?;
    Ok((waiting, thread))
}

type Joins = Mutex<Vec<JoinHandle<Result<(), std::io::Error>>>>;

fn ring_all(doorbells: &[Arc<Doorbell>]) {
    doorbells.iter().for_each(|doorbell| doorbell.ring());
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
