//! How a server starts: sockets, shards, the admin listener, and what runs beside them; and why it does not.
//!
//! All that can fail is done before anybody is let in, and before a server that runs is asked to make room.

use std::sync::Arc;

use super::admin::{Admin, Phase, PhaseCell};
use super::api::{self, Desk, Realm};
use super::bind::{self, Held};
use super::cluster::{ClusterError, Clustering};
use super::drainer::Drainer;
use super::handover::{self, Estate, Inherited, Predecessor};
use super::hooks::{Hooking, HooksError};
use super::journal::{self, Begun, Keeping};
use super::launch::{Group, Launch, Recovered, Waiting};
use super::prepared::Prepared;
use super::reload::Reloader;
use super::tls::{self, TlsError};
use super::watch::Watch;
use super::{Server, control};
use crate::app::Router;
use crate::cluster::port::ShardEnd as ClusterEnd;
use crate::config::{BackendChoice, Config, History, Limits, Listen, ListenAt};
use crate::hooks::port::ShardEnd as HooksEnd;
use crate::io::{epoll, uring};
use crate::mailbox::Doorbell;
use crate::message::Epoch;
use crate::metrics::{ClusterMetrics, HooksMetrics, JournalMetrics, Metrics};
use crate::shard::{Control, Entrance, EntranceKind, Live};

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

impl Server {
    /// Starts what has been prepared.
    pub(super) fn start_prepared(
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
}

/// What can be replaced while the server runs.
pub(super) fn live(config: &Config) -> Result<Live, StartError> {
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

/// What can be replaced of the admin listener.
pub(super) fn admin_live(config: &Config) -> Live {
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
