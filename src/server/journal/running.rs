//! The journal of a server: opened when the server before has left it, ended when all shards have.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use super::{Journal, Opening, unix_ms};
use crate::config::{Config, TopicRules};
use crate::hub::topics::Legacy;
use crate::journal::port::{self, ShardEnd};
use crate::mailbox::Doorbell;
use crate::message::Epoch;
use crate::metrics::JournalMetrics;
use crate::server::control::ControlThread;
use crate::server::{StartError, lock};

/// Time that a process which hands over, or has just ended, has to leave its directory.
const WAIT: Duration = Duration::from_secs(10);

/// A journal that is written, and what was in it.
pub(in crate::server) struct Begun {
    pub(in crate::server) thread: ControlThread,
    /// One for each shard.
    pub(in crate::server) ends: Vec<ShardEnd>,
    pub(in crate::server) epoch: Epoch,
    pub(in crate::server) topics: Vec<Legacy>,
}

impl Begun {
    /// Opens the journal that is configured, if one is, for the shards with these doorbells.
    pub(in crate::server) fn begin(
        config: &Config,
        repair: bool,
        shards: &[Arc<Doorbell>],
        metrics: Option<&Arc<JournalMetrics>>,
    ) -> Result<Option<Self>, StartError> {
        let (Some(directory), Some(metrics)) = (&config.journal.dir, metrics) else { return Ok(None) };
        let opening = Opening { now_ms: unix_ms(), repair, wait: WAIT };
        let mut journal = Journal::open(directory, &config.journal, &TopicRules::new(config), opening)?;
        outlive_large_files();
        let (epoch, topics) = (journal.epoch, std::mem::take(&mut journal.topics));
        let doorbell = Arc::<Doorbell>::default();
        let pairs = shards.iter().map(|shard| port::pair(Arc::clone(shard), Arc::clone(&doorbell)));
        let (ends, its): (Vec<_>, Vec<_>) = pairs.unzip();
        let thread = ControlThread::start(vec![journal.job(its, doorbell, Arc::clone(metrics))])?;
        Ok(Some(Self { thread, ends, epoch, topics }))
    }
}

/// Whether the journal that is configured can be followed, before its process leaves it: a journal that cannot be read would be
/// found when nobody serves any more.
pub(in crate::server) fn can_follow(config: &Config) -> Result<(), StartError> {
    let Some(directory) = &config.journal.dir else { return Ok(()) };
    Ok(Journal::look(directory, &TopicRules::new(config), unix_ms())?)
}

/// The journal of a server that runs, for all who may end it.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct Keeping(Arc<Mutex<Option<ControlThread>>>);

impl Keeping {
    pub(in crate::server) fn new(thread: Option<ControlThread>) -> Self {
        Self(Arc::new(Mutex::new(thread)))
    }

    /// Writes what has come, and leaves the directory to whoever follows. Once.
    pub(in crate::server) fn end(&self) {
        drop(lock(&self.0).take());
    }
}

/// A write beyond the limit of file sizes is an error, which is told, and not the end of the process.
fn outlive_large_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Whether it was raised is no matter.
        if let Err(error) = signal_hook::flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false))) {
            tracing::warn!(%error, "a file that grows over the limit of file sizes would end this process");
        }
    });
}
