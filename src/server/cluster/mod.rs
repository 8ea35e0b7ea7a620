//! The cluster of a server: its connection to NATS, and the thread that speaks to it for all shards.
//!
//! ```text
//!  shards -> outbound -> desk -> plain topics: published at once
//!                           \--> durable ones: a writer for each topic, which waits for the stream's answers
//!                           \--> a task for each topic that is followed -> inbound -> shards
//! ```
//!
//! It is a thread with a runtime of its own, on which nothing blocks. Whoever waits for a shard that has no room holds up its own
//! topic only; what NATS sends meanwhile waits in its subscription, and beyond that it is lost, which is told.

mod desk;
mod link;
mod nodes;
mod ordered;
mod plain;
mod running;
mod stream;
mod writer;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(super) use self::link::{connect, is_up};
pub use self::running::Clustering;
use crate::cluster::names::Names;
use crate::config::{Cluster, NatsUrl, Storage};

/// What a node of a cluster is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where NATS is: `nats://HOST:PORT`, with `USER:PASSWORD@` or `TOKEN@` before the host, or `tls://HOST:PORT`.
    pub nats: Vec<NatsUrl>,
    /// A file with a JWT and a seed, as `nsc` makes it.
    pub credentials: Option<PathBuf>,
    /// Certificates of authorities, PEM, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// What this node is called in logs.
    pub name: String,
    /// Subjects and streams.
    pub names: Names,
    /// How many servers of NATS keep a durable topic.
    pub replicas: usize,
    /// Whether they keep it in memory instead of in files.
    pub in_memory: bool,
    /// How long a node that is not heard of is there still.
    pub lease: Duration,
}

impl Settings {
    /// Those that are configured.
    pub(in crate::server) fn of(config: &Cluster) -> Self {
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        Self {
            nats: config.nats.clone(),
            credentials: config.credentials.clone(),
            ca_file: config.ca_file.clone(),
            name: if config.name.is_empty() { host() } else { config.name.clone() },
            names: Names::new(&config.prefix),
            replicas: usize::from(config.replicas),
            in_memory: config.storage == Storage::Memory,
            lease: config.lease,
        }
    }

    /// Where NATS is, without what nobody needs to see.
    pub(in crate::server) fn servers(&self) -> String {
        self.nats.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Why there is no cluster, in one line: what, where, how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No thread, or no runtime.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// It is none.
    #[error("cannot use {url} in cluster.nats: {why}: write nats://HOST:PORT")]
    Address {
        /// Without its secrets.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be used.
    #[error("cannot read the credentials for NATS: {error}, {}: name a file of `nsc generate creds` in cluster.credentials", file.display())]
    Credentials {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
    /// NATS wants nothing of us.
    #[error("NATS turned this node away: {why}, {nats}: mend cluster.nats, cluster.credentials or cluster.ca_file")]
    Refused {
        /// Where.
        nats: String,
        /// What it said.
        why: String,
    },
}

impl ClusterError {
    fn refused(settings: &Settings, error: &async_nats::ConnectError) -> Self {
        use async_nats::ConnectErrorKind as Kind;
        let why = match error.kind() {
            kind @ (Kind::Authentication | Kind::AuthorizationViolation) => kind.to_string(),
            _ => error.to_string(),
        };
        Self::Refused { nats: settings.servers(), why }
    }
}
