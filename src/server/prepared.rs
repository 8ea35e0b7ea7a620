//! What a server needs beside its sockets: all that can be wrong with it is found before any socket is bound, or asked of the
//! server before.

use std::sync::Arc;

use super::handover::{Inherited, Predecessor};
use super::start::live;
use super::{Server, StartError, tls};
use crate::app::Router;
use crate::app::files::Files;
use crate::app::opening::Opening;
use crate::app::site::{DemoSite, Site};
use crate::config::{BackendChoice, Config, Framing, Listen, Transport};
use crate::io::{epoll, uring};
use crate::message::Topic;
use crate::session::Protocol;
use crate::shard::{EntranceKind, Live};

/// A server that could be started: its configuration fits the machine, and its files have been read.
pub struct Prepared {
    pub(super) config: Config,
    pub(super) shards: u16,
    pub(super) backend: BackendChoice,
    /// Where a listener speaks TLS.
    pub(super) keeper: Option<tls::Keeper>,
    /// What its listeners lead to, in their order.
    pub(super) kinds: Vec<EntranceKind>,
    pub(super) live: Live,
    /// Whether a journal that is corrupt is gone on with.
    pub(super) repair: bool,
}

impl Prepared {
    /// Looks at the machine and reads the files that are named: certificates, keys, the public directory.
    ///
    /// # Errors
    /// When one of them is of no use, or the machine cannot do what is asked for.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let site = site(config)?;
        let kinds = config.listeners.iter().map(|listen| kind(config, listen, &site)).collect::<Result<_, _>>()?;
        Ok(Self {
            config: config.clone(),
            shards: shard_count(config)?,
            backend: choose_backend(config)?,
            keeper: tls::Keeper::new(config)?,
            kinds,
            live: live(config)?,
            repair: false,
        })
    }

    /// Reads the files that a configuration names, as a start and a reload do, and nothing else: this machine may be another one
    /// than the server's.
    ///
    /// # Errors
    /// When one of them is of no use.
    pub fn check_files(config: &Config) -> Result<(), StartError> {
        site(config)?;
        tls::Keeper::new(config).map(drop)
    }

    /// Whether the journal is gone on with where it is corrupt, without what is lost.
    #[must_use]
    pub const fn repairing(mut self, repair: bool) -> Self {
        self.repair = repair;
        self
    }

    /// Binds what is not inherited and starts, see [`Server::start_with`].
    ///
    /// # Errors
    /// When a socket cannot be had, or the server before does not make room.
    pub fn start(
        self,
        router: Router,
        inherited: Inherited,
        predecessor: Option<&Predecessor>,
    ) -> Result<Server, StartError> {
        Server::start_prepared(self, router, inherited, predecessor)
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

/// What a listener leads to.
fn kind(config: &Config, listen: &Listen, site: &Arc<dyn Site>) -> Result<EntranceKind, StartError> {
    match &listen.transport {
        Transport::Http => Ok(EntranceKind::Http { site: Arc::clone(site), routes: true }),
        Transport::Tcp { framing, app, topic, group } => {
            let parse = |name: &String| Topic::parse(name.as_bytes(), config.limits.topic_bytes_max);
            let topic = topic.as_ref().map(parse).transpose();
            let topic = topic.map_err(|error| StartError::Topic { url: listen.to_string(), error })?;
            let protocol = match framing {
                Framing::Line => Protocol::Line,
                Framing::Length => Protocol::Length,
            };
            Ok(EntranceKind::Tcp { protocol, opening: Opening::new(*app, topic.as_ref()).in_group(group.as_deref()) })
        }
    }
}
