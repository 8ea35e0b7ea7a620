//! The API of the admin listener: what operators see of connections and topics, and do to them.
//!
//! ```text
//!   request -> admin's shard: Desk -> worker: one order or several -> shards, slice by slice
//!   answer  <- admin's shard       <- worker                       <- reports
//! ```
//!
//! Nobody waits on a shard. A request is checked where it comes in, and waits there as others wait for a topic's owner; the
//! worker, a thread of its own, has the orders carried out and puts the answer together from the shards' reports. Lines of
//! a trace go from shard to shard as messages do, see [`trace`].

mod answers;
mod guard;
mod jobs;
mod trace;
mod wish;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam::channel::Sender;

use crate::app::Refusal;
use crate::app::Router;
use crate::app::site::Ask;
use crate::id::ConnId;
use crate::metrics::{ClusterMetrics, HooksMetrics, JournalMetrics, Metrics};
use crate::server::admin::PhaseCell;
use crate::server::drainer::Drainer;
use crate::server::reload::Reloader;
use crate::shard::orders::Target;
use crate::shard::{Control, Postbox};

use self::guard::Guard;
use self::trace::TraceRoute;
use self::wish::Wish;
use self::worker::Worker;

pub(super) use self::worker::Thread;

/// Where the configuration is read again. It says nothing itself, so it needs no body.
const RELOAD: &str = "/reload";

/// What the worker is told.
enum Event {
    /// Somebody wants this, and waits for the answer.
    Wish(ConnId, Box<Wish>),
    /// Somebody watches this from now on.
    Trace(u64, Target),
    /// And does not any more.
    Untrace(u64),
    /// The server ends.
    Stop,
}

/// What there is to be seen and done.
pub(super) struct Realm {
    /// The configuration that runs, and the way to another one.
    pub(super) reloader: Arc<Reloader>,
    pub(super) control: Arc<Control>,
    pub(super) metrics: Metrics,
    /// Where there is a journal.
    pub(super) journal: Option<Arc<JournalMetrics>>,
    /// Where a receiver is told what happens.
    pub(super) hooks: Option<Arc<HooksMetrics>>,
    pub(super) cluster: Option<Arc<ClusterMetrics>>,
    pub(super) phase: Arc<PhaseCell>,
    pub(super) drainer: Drainer,
    /// The way to the shards that serve clients.
    pub(super) shards: Postbox,
}

/// Where requests come in.
pub(super) struct Desk {
    realm: Realm,
    guard: Guard,
    events: Sender<Event>,
    line: Line,
    traces: AtomicUsize,
    numbers: AtomicU64,
}

/// How many events wait for the worker. It is held up for a while when it reads the configuration again, and clients who do
/// not wait for their answers must not fill the memory meanwhile.
#[derive(Debug, Default)]
struct Line(AtomicUsize);

impl Line {
    /// Events that wait at most; but that a trace has ended is always told, of which there are no more than of traces.
    const EVENTS_MAX: usize = 256;

    /// Takes a place.
    ///
    /// # Errors
    /// When there is none.
    fn enter(&self) -> Result<(), Refusal> {
        let count = |waiting| (waiting < Self::EVENTS_MAX).then_some(waiting + 1);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        taken.map(drop).map_err(|_| refusal(503, "busy", "too many requests wait; try again later"))
    }

    /// Takes one although there may be none.
    fn push_in(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Leaves it.
    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Desk {
    /// Traces at a time.
    const TRACES_MAX: usize = 16;

    /// A desk, and what its worker is to be started from. `is_local`: the admin listener is reached from this machine alone.
    pub(super) fn new(realm: Realm, is_local: bool) -> (Arc<Self>, Inbox) {
        let (events, inbox) = crossbeam::channel::unbounded();
        let (traces, numbers) = (AtomicUsize::new(0), AtomicU64::new(0));
        let (guard, line) = (Guard { is_local }, Line::default());
        (Arc::new(Self { realm, guard, events, line, traces, numbers }), Inbox(inbox))
    }

    pub(super) const fn reloader(&self) -> &Arc<Reloader> {
        &self.realm.reloader
    }

    /// The routes beside the pages.
    pub(super) fn routes(self: &Arc<Self>) -> Router {
        Router::new().route("/api/trace", TraceRoute::new(Arc::clone(self)))
    }

    /// The methods of a path of the API.
    pub(super) fn methods(path: &str) -> Option<&'static str> {
        wish::methods(path)
    }

    /// Whether what was sent to this host may be answered at all.
    ///
    /// # Errors
    /// When it must not be.
    pub(super) fn lets_in(&self, host: &[u8]) -> Result<(), Refusal> {
        self.guard.lets_in(host)
    }

    /// Takes a request.
    ///
    /// # Errors
    /// When it is none that can be fulfilled.
    pub(super) fn ask(&self, ask: &Ask) -> Result<(), Refusal> {
        self.guard.admit(ask)?;
        let wish = Wish::read(ask, &self.realm)?;
        self.line.enter()?;
        note(ask);
        self.tell(Event::Wish(ask.asker, Box::new(wish)));
        Ok(())
    }

    /// The worker lives as long as the server does; then nobody waits for it any more.
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// A number for another trace.
    ///
    /// # Errors
    /// When there may be none.
    fn begin_trace(&self, target: Target) -> Result<u64, Refusal> {
        let count = |traces| (traces < Self::TRACES_MAX).then_some(traces + 1);
        if self.traces.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_err() {
            let message = format!("there are {} traces already, which are as many as there may be", Self::TRACES_MAX);
            return Err(refusal(503, "too_many_traces", message));
        }
        if let Err(busy) = self.line.enter() {
            self.traces.fetch_sub(1, Ordering::Relaxed);
            return Err(busy);
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.tell(Event::Trace(number, target));
        Ok(number)
    }

    fn end_trace(&self, number: u64) {
        self.traces.fetch_sub(1, Ordering::Relaxed);
        self.line.push_in();
        self.tell(Event::Untrace(number));
    }
}

/// What a worker is started from.
pub(super) struct Inbox(crossbeam::channel::Receiver<Event>);

impl Inbox {
    /// Starts the worker. `admin`: the way to the shard where requests wait.
    pub(super) fn start(self, desk: Arc<Desk>, admin: Postbox) -> std::io::Result<Thread> {
        let stop = desk.events.clone();
        let worker = Worker::new(desk, self.0, admin);
        let desk = Arc::clone(&worker.desk);
        let stop = move || {
            desk.line.push_in();
            let _ = stop.send(Event::Stop);
        };
        Thread::start(worker, stop)
    }
}

/// Tells the log what an operator changes, and by the name of which key; never the key, nor what is in the request.
fn note(ask: &Ask) {
    let Ask { method, path, user, .. } = ask;
    if !matches!(&**method, "GET" | "HEAD") {
        tracing::info!(key = user.as_deref(), %method, %path, "an operator asks for a change");
    }
}

/// A refusal of a request.
fn refusal(status: u16, code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { status, code, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_long_as_it_may_be_and_ends_are_told_all_the_same() {
        let line = Line::default();
        assert_eq!((0..1000).filter(|_| line.enter().is_ok()).count(), Line::EVENTS_MAX);
        line.push_in();
        line.leave();
        assert!(line.enter().is_err(), "it is full still");
        line.leave();
        assert!(line.enter().is_ok() && line.enter().is_err(), "one has left");
    }
}
