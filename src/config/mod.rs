//! What can be set: one typed model, filled from the defaults, a TOML file, the environment and flags, in this order.
//!
//! `settings` is the one table of keys: the file, the environment, the flags, `default-config` and the search for the
//! nearest known name all read it, so that they cannot drift apart. What cannot be right is refused here; the rest of
//! the program gets a [`Config`] it need not check again.

/// An enum whose values have names in the configuration.
macro_rules! named {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[$attribute:meta])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name {
            $($(#[$attribute])+ $variant,)+
        }

        impl $name {
            /// The names, in the order of the variants.
            pub const NAMES: &[&str] = &[$($word),+];

            /// The name in the configuration.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// What has this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

mod authority;
mod cluster;
mod credentials;
mod endpoint;
mod filter;
mod fitting;
mod hooks;
mod journal;
mod limits;
mod listen;
mod listen_at;
mod lists;
mod loader;
mod nearest;
mod networks;
mod origins;
mod pattern;
mod problem;
mod receiver;
mod reload;
mod sections;
mod settings;
mod tls;
mod topics;
mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::access::Access;

pub use cluster::{Cluster, Login, NatsUrl, Storage, is_prefix};
pub use endpoint::Endpoint;
pub use filter::{LogFilter, LogFilterError};
pub use hooks::{Authorities, HookKind, HookKinds, HookSecrets, HookUrl, Hooks};
pub use journal::Journal;
pub use limits::{History, Http2Limits, Limits, OverRate};
pub(crate) use listen::parse_query as parse_tcp_query;
pub use listen::{App, Framing, Listen, ListenError, Transport};
pub use listen_at::ListenAt;
pub use loader::Loader;
pub use networks::{Network, NetworkError, Networks};
pub use origins::Origins;
pub use pattern::{Pattern, PatternError};
pub use problem::{Place, Problem};
pub(crate) use problem::{Wrong, quote};
pub use reload::Difference;
#[cfg(test)]
pub(crate) use settings::keys;
pub use settings::{default_config, effective};
pub use tls::{ClientCertificates, TlsConfig, TlsVersion};
pub use topics::{Keep, Presence, Publishers, RuleKey, TopicRule, TopicRules, TopicSection};
pub(crate) use value::{parse_duration, parse_size};

/// All that an operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub listeners: Vec<Listen>,
    /// Networks whose addresses may say, in a header of the PROXY protocol, that they speak for others.
    pub proxies: Networks,
    /// Where operators look: metrics, health, dashboard. `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// Who may do what.
    pub access: Access,
    /// Whether listeners may be open to the network though nobody is asked who they are.
    pub insecure: bool,
    /// How the kernel is asked.
    pub backend: BackendChoice,
    /// Shards, 0 for one per available core.
    pub shards: usize,
    /// The directory whose files are the pages; `None`: the built-in page.
    pub public: Option<PathBuf>,
    /// Certificates, for listeners that speak TLS.
    pub tls: TlsConfig,
    /// Every bound.
    pub limits: Limits,
    /// Time over which clients are sent away when the server ends.
    pub drain: Duration,
    /// Time before that in which the server only says that it is not ready.
    pub drain_delay: Duration,
    /// The Unix socket for upgrades; `None`: one of the runtime directory, if there is one.
    pub upgrade_socket: Option<PathBuf>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_filter: LogFilter,
    /// Requests that each shard's log may tell of in a second; 0: none.
    pub access_rate: u32,
    /// Where spans of traces are sent; `None`: nowhere.
    pub collector: Option<Endpoint>,
    /// Which web pages may open a WebSocket.
    pub origins: Origins,
    /// WebSocket subprotocols that are spoken, best first.
    pub subprotocols: Vec<String>,
    /// Whether permessage-deflate is agreed to when a client offers it.
    pub deflate: bool,
    /// What happens to slow subscribers, where neither a route nor a section for their topic says it.
    pub slow_consumer: SlowConsumer,
    /// Who may publish to topics, likewise.
    pub publish: Publishers,
    /// Publications a second of each topic, likewise. Zero: no bound.
    pub topic_rate: u32,
    /// Whether a publication is on the disk, or in the cluster's stream, before anybody hears of it, likewise.
    pub durable: bool,
    /// Whether other nodes hold topics too, where there is a cluster; likewise.
    pub shared: bool,
    /// Whether it is kept who is in a topic.
    pub presence: Presence,
    /// Members of one topic that are listed.
    pub presence_members_max: usize,
    /// What differs for the topics that a pattern stands for; the first that fits counts.
    pub topics: Vec<TopicSection>,
    /// Where durable topics are kept.
    pub journal: Journal,
    /// The other nodes.
    pub cluster: Cluster,
    /// What is told to a receiver elsewhere.
    pub hooks: Hooks,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            listeners: vec![Listen::http(local(8080)), Listen::tcp(local(7000))],
            proxies: Networks::default(),
            admin: Some(local(9090)),
            access: Access::default(),
            insecure: false,
            backend: BackendChoice::default(),
            shards: 0,
            public: None,
            tls: TlsConfig::default(),
            limits: Limits::default(),
            drain: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            upgrade_socket: None,
            log_format: LogFormat::default(),
            log_filter: LogFilter::default(),
            access_rate: 0,
            collector: None,
            origins: Origins::default(),
            subprotocols: Vec::new(),
            deflate: true,
            slow_consumer: SlowConsumer::default(),
            publish: Publishers::default(),
            topic_rate: 0,
            durable: false,
            shared: true,
            presence: Presence::default(),
            presence_members_max: 10_000,
            topics: Vec::new(),
            journal: Journal::default(),
            cluster: Cluster::default(),
            hooks: Hooks::default(),
        }
    }
}

named! {
    /// Which backend serves.
    BackendChoice {
        /// io_uring where the kernel has all it takes, else epoll with a warning.
        #[default]
        Auto = "auto",
        /// epoll.
        Epoll = "epoll",
        /// io_uring, or an error that says what is missing.
        Uring = "uring",
    }
}

named! {
    /// How log lines look.
    LogFormat {
        /// For people.
        #[default]
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

named! {
    /// What happens to a subscriber whose queue is full.
    SlowConsumer {
        /// It is closed with 4001.
        #[default]
        Close = "close",
        /// Its oldest waiting messages are dropped.
        DropOldest = "drop_oldest",
        /// Only the newest message waits.
        KeepLatest = "keep_latest",
    }
}
