//! The thread that has requests carried out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};

use super::jobs::Job;
use super::trace::topic_of;
use super::{Desk, Event};
use crate::id::{ConnId, ShardId};
use crate::shard::Postbox;
use crate::shard::orders::{Order, Report, Response, Target, Trace, What};

/// What carries requests out.
pub(super) struct Worker {
    pub(super) desk: Arc<Desk>,
    events: Receiver<Event>,
    reports: (Sender<Report>, Receiver<Report>),
    admin: Outbox,
    shards: Outbox,
    jobs: HashMap<u64, Job>,
    number: u64,
}

/// The way to some shards, and what has found no room there yet.
struct Outbox {
    postbox: Postbox,
    waiting: VecDeque<(ShardId, Box<Order>)>,
}

impl Outbox {
    const fn new(postbox: Postbox) -> Self {
        Self { postbox, waiting: VecDeque::new() }
    }

    /// Sends what waits, in order, as far as there is room; orders to others do not wait for one shard.
    fn flush(&mut self) {
        let mut full = Vec::new();
        for _ in 0..self.waiting.len() {
            let Some((shard, order)) = self.waiting.pop_front() else { return };
            let refused = if full.contains(&shard) { Err(order) } else { self.postbox.order(shard, order) };
            if let Err(order) = refused {
                full.push(shard);
                self.waiting.push_back((shard, order));
            }
        }
    }
}

impl Worker {
    /// Between two looks at what found no room.
    const RETRY: Duration = Duration::from_millis(5);
    /// Between two looks at the clock when nothing is going on.
    const IDLE: Duration = Duration::from_secs(1);
    /// Requests under way at most.
    const JOBS_MAX: usize = 256;
    /// Orders that wait for room at most: a shard that takes none any more has ended, or will answer too late anyway.
    const WAITING_MAX: usize = 4096;

    pub(super) fn new(desk: Arc<Desk>, events: Receiver<Event>, admin: Postbox) -> Self {
        let shards = Outbox::new(desk.realm.shards.clone());
        let reports = crossbeam::channel::unbounded();
        Self { desk, events, reports, admin: Outbox::new(admin), shards, jobs: HashMap::new(), number: 0 }
    }

    fn run(mut self) {
        while let Some(event) = self.next() {
            match event {
                Some(Event::Wish(asker, wish)) => self.begin(asker, *wish),
                Some(Event::Trace(number, target)) => self.trace(number, &target),
                Some(Event::Untrace(number)) => self.untrace(number),
                Some(Event::Stop) => return,
                None => {}
            }
            self.expire();
            self.flush();
        }
    }

    /// Waits for the next event, and takes reports meanwhile.
    fn next(&mut self) -> Option<Option<Event>> {
        let timeout = self.timeout();
        crossbeam::channel::select! {
            recv(self.events) -> event => {
                self.desk.line.leave();
                Some(Some(event.ok()?))
            }
            recv(self.reports.1) -> report => {
                if let Ok(report) = report {
                    self.take_report(report);
                }
                Some(None)
            }
            default(timeout) => Some(None),
        }
    }

    fn timeout(&self) -> Duration {
        if !self.admin.waiting.is_empty() || !self.shards.waiting.is_empty() {
            return Self::RETRY;
        }
        let next = self.jobs.values().map(|job| job.deadline).min();
        next.map_or(Self::IDLE, |deadline| deadline.saturating_duration_since(Instant::now())).min(Self::IDLE)
    }

    fn flush(&mut self) {
        self.admin.flush();
        self.shards.flush();
        for outbox in [&mut self.admin, &mut self.shards] {
            while outbox.waiting.len() > Self::WAITING_MAX {
                outbox.waiting.pop_front();
            }
        }
    }

    fn take_report(&mut self, report: Report) {
        let Report { number, shard, what } = report;
        if let Some(job) = self.jobs.remove(&number) {
            self.go_on(number, job, shard, what);
        }
    }

    /// Ends what has taken too long.
    fn expire(&mut self) {
        let now = Instant::now();
        let late: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| job.deadline <= now).map(|(&number, _)| number).collect();
        for number in late {
            if let Some(job) = self.jobs.remove(&number) {
                self.give_up(job);
            }
        }
    }

    /// A number for another job.
    pub(super) fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Whether as many requests are under way as may be: most are of clients who did not wait for their answers.
    pub(super) fn is_full(&self) -> bool {
        self.jobs.len() >= Self::JOBS_MAX
    }

    /// Notes that reports with this number are for this job.
    pub(super) fn keep(&mut self, number: u64, job: Job) {
        self.jobs.insert(number, job);
    }

    /// Gives one shard an order.
    pub(super) fn order(&mut self, shard: ShardId, number: u64, what: What) {
        let reports = self.reports.0.clone();
        self.shards.waiting.push_back((shard, Box::new(Order { number, what, reports })));
    }

    /// All shards that serve clients.
    pub(super) fn all_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.desk.realm.shards.shards()).map(ShardId)
    }

    /// Answers a request that waits.
    pub(super) fn answer(&mut self, asker: ConnId, status: u16, body: Vec<u8>) {
        let what = What::Respond(Box::new(Response { connection: asker, status, body }));
        let order = Order { number: 0, what, reports: self.reports.0.clone() };
        self.admin.waiting.push_back((ShardId(0), Box::new(order)));
    }

    fn trace(&mut self, number: u64, target: &Target) {
        let Some(under) = topic_of(number) else { return };
        for shard in self.all_shards() {
            let trace = Trace::new(number, target.clone(), self.admin.postbox.clone(), under.clone());
            self.order(shard, 0, What::Trace(Box::new(trace)));
        }
    }

    fn untrace(&mut self, number: u64) {
        self.all_shards().for_each(|shard| self.order(shard, 0, What::Untrace(number)));
    }
}

/// The worker's thread. It ends with this value.
pub(crate) struct Thread {
    stop: Box<dyn Fn() + Send + Sync>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    pub(super) fn start(worker: Worker, stop: impl Fn() + Send + Sync + 'static) -> std::io::Result<Self> {
        let thread = thread::Builder::new().name("api".to_owned()).spawn(move || worker.run())?;
        Ok(Self { stop: Box::new(stop), thread: Some(thread) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        (self.stop)();
        self.thread.take().into_iter().for_each(|thread| {
            let _ = thread.join();
        });
    }
}
