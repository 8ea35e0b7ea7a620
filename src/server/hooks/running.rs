//! The thread of hooks, from its start to its end.

use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::runtime;
use tokio::task::{self, LocalSet};

use super::courier::Courier;
use super::desk::Desk;
use super::nats::Nats;
use super::webhook::Webhook;
use super::{HooksError, Receiver, Shared, Terms};
use crate::config::Cluster;
use crate::hooks::port::{self, ShardEnd, ThreadEnd};
use crate::hooks::queue::Teller;
use crate::hooks::{Counts, Queue};
use crate::mailbox::Doorbell;
use crate::metrics::HooksMetrics;
use crate::server::control::Ending;
use crate::server::lock;
use crate::shard::Control;
use crate::time::SystemClock;

/// The thread, for all who may end it. It ends with this value.
#[derive(Debug)]
pub(in crate::server) struct Hooking {
    ending: Ending,
    /// Of those who wait for nothing.
    hurry: Ending,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread begins with.
struct Start<R> {
    seats: Vec<ThreadEnd>,
    doorbell: Arc<Doorbell>,
    control: Arc<Control>,
    metrics: Arc<HooksMetrics>,
    receiver: R,
    teller: Teller,
    seed: u64,
}

impl Hooking {
    /// Starts it for so many shards, if there is a receiver, which may be a stream of the cluster's NATS. Returns their ends
    /// too.
    pub(in crate::server) fn start(
        control: &Arc<Control>,
        shards: u16,
        metrics: Option<&Arc<HooksMetrics>>,
        cluster: &Cluster,
    ) -> Result<Option<(Self, Vec<ShardEnd>)>, HooksError> {
        let (hooks, Some(metrics)) = (Arc::clone(&control.live().hooks), metrics) else { return Ok(None) };
        let started = match (hooks.url.clone(), &hooks.nats) {
            (Some(url), _) => Self::tell(Webhook::new(url, &hooks)?, control, shards, metrics),
            (None, Some(subject)) => Self::tell(Nats::new(subject, cluster), control, shards, metrics),
            (None, None) => return Ok(None),
        };
        started.map(Some)
    }

    fn tell(
        receiver: impl Receiver + Send + 'static,
        control: &Arc<Control>,
        shards: u16,
        metrics: &Arc<HooksMetrics>,
    ) -> Result<(Self, Vec<ShardEnd>), HooksError> {
        let doorbell = Arc::<Doorbell>::default();
        let (ends, seats) = (0..shards).map(|_| port::pair(Arc::clone(&doorbell))).unzip();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(HooksError::Thread)?;
        let seed = random();
        let (control, metrics) = (Arc::clone(control), Arc::clone(metrics));
        let start = Start { seats, doorbell, control, metrics, receiver, teller: teller(seed), seed };
        let (ending, hurry) = (Ending::default(), Ending::default());
        let told = (ending.clone(), hurry.clone());
        let run = move || LocalSet::new().block_on(&runtime, start.run(told.0, told.1));
        let thread = thread::Builder::new().name("hooks".to_owned()).spawn(run).map_err(HooksError::Thread)?;
        Ok((Self { ending, hurry, thread: Mutex::new(Some(thread)) }, ends))
    }

    /// There is no time any more for what waits.
    pub(in crate::server) fn hurry(&self) {
        self.hurry.tell();
    }

    /// Delivers what there is, as far as there is time, and returns then. Once.
    pub(in crate::server) fn end(&self) {
        self.ending.tell();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Hooking {
    fn drop(&mut self) {
        self.end();
    }
}

impl<R: Receiver + 'static> Start<R> {
    async fn run(self, ending: Ending, hurry: Ending) {
        let Self { seats, doorbell, control, metrics, receiver, teller, seed } = self;
        let shared = Rc::new(Shared {
            queue: Queue::new(teller).into(),
            news: tokio::sync::Notify::new(),
            is_closed: false.into(),
            in_hand: Counts::default().into(),
            metrics,
            clock: SystemClock::new(),
        });
        let desk = Desk::new(seats, doorbell, Rc::clone(&shared), Terms::new(Arc::clone(&control)));
        let courier = Courier::new(Rc::clone(&shared), Terms::new(control), receiver, seed);
        let desk = task::spawn_local(desk.run(ending.clone()));
        let courier = task::spawn_local(courier.run(ending, hurry));
        for task in [desk, courier] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the hooks has ended; please report it");
            }
        }
        shared.conclude();
    }
}

/// Who tells: another one in each process that runs, so that events of two are never taken for the same.
fn teller(number: u64) -> Teller {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Teller { node: format!("{number:016x}"), host: host.trim().to_owned() }
}

pub(in crate::server) fn random() -> u64 {
    let mut bytes = [0; 8];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // There is a kernel without random numbers: the time and the process are as good as it gets.
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        return u64::from(time.subsec_nanos()) << 32 | u64::from(std::process::id());
    }
    u64::from_be_bytes(bytes)
}
