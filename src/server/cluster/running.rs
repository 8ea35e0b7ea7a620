//! The thread of a cluster, from its start to its end.

use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use tokio::runtime;
use tokio::task::LocalSet;

use super::desk::Desk;
use super::link::Line;
use super::{ClusterError, Settings};
use crate::cluster::port::{self, NodeId, ShardEnd};
use crate::config::Cluster;
use crate::mailbox::Doorbell;
use crate::metrics::ClusterMetrics;
use crate::server::control::Ending;
use crate::server::hooks::random;
use crate::server::lock;

/// The thread, for all who may end it. It ends with this value.
#[derive(Debug)]
pub struct Clustering {
    ending: Ending,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Clustering {
    /// Starts the one that is configured, if one is.
    pub(in crate::server) fn begin(
        config: &Cluster,
        shards: &[Arc<Doorbell>],
        metrics: Option<&Arc<ClusterMetrics>>,
    ) -> Result<Option<(Self, Vec<ShardEnd>)>, ClusterError> {
        let Some(metrics) = metrics.filter(|_| config.is_set()) else { return Ok(None) };
        Self::start(Settings::of(config), NodeId(random()), shards, Arc::clone(metrics)).map(Some)
    }

    /// Starts it for the shards with these doorbells, and returns their ends too.
    ///
    /// # Errors
    /// When NATS turns this node away, or there is no thread to be had. That NATS is not there is none.
    pub fn start(
        settings: Settings,
        node: NodeId,
        shards: &[Arc<Doorbell>],
        metrics: Arc<ClusterMetrics>,
    ) -> Result<(Self, Vec<ShardEnd>), ClusterError> {
        let doorbell = Arc::<Doorbell>::default();
        let pairs = shards.iter().map(|shard| port::pair(node, Arc::clone(shard), Arc::clone(&doorbell)));
        let (ends, seats): (Vec<_>, Vec<_>) = pairs.unzip();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(ClusterError::Thread)?;
        let (ending, (report, started)) = (Ending::default(), mpsc::channel());
        let told = ending.clone();
        let run = move || {
            LocalSet::new().block_on(&runtime, async move {
                match Line::open(&settings).await {
                    Ok(line) => {
                        let _ = report.send(Ok(()));
                        Desk::new(settings, node, line, seats, doorbell, metrics).run(told).await;
                    }
                    Err(error) => drop(report.send(Err(error))),
                }
            });
        };
        let thread = thread::Builder::new().name("cluster".to_owned()).spawn(run).map_err(ClusterError::Thread)?;
        let clustering = Self { ending, thread: Mutex::new(Some(thread)) };
        match started.recv() {
            Ok(Ok(())) => Ok((clustering, ends)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ClusterError::Thread(std::io::ErrorKind::Other.into())),
        }
    }

    /// Says what has come, and returns then. Once.
    pub fn end(&self) {
        self.ending.tell();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Clustering {
    fn drop(&mut self) {
        self.end();
    }
}
