//! One thread's part of the server, and its turn.
//!
//! A [`Shard`] is its backend and its [`Core`]. The core holds everything that is not I/O: connections, timers, topics,
//! applications. It is not generic, and it never calls a backend; what it wants to be sent or done it leaves in lists
//! that the shard works off. [`Shard::turn`] is the whole loop:
//!
//! ```text
//! wait -> phase -> ingress -> mailbox -> verdicts -> cluster -> timers -> orders -> publish -> endings -> fan-out -> files -> egress -> ring
//! ```
//!
//! Each phase has a part of the turn's time, a millisecond or so, and goes on in the next turn where it was: see `pace`.
//!
//! The server runs it on a thread per shard, the simulation runs many shards on one thread and a clock of its own.

mod addresses;
mod admitting;
mod answers;
mod audit;
mod batches;
mod borne;
mod calls;
mod carrier;
mod closing;
mod cluster;
mod connection;
mod control;
mod core;
mod durable;
mod effects;
mod egress;
mod entrance;
mod fanout;
mod feed;
mod gate;
mod groups;
mod hooks;
mod http;
mod ingress;
mod latency;
mod live;
mod log;
mod mail;
mod opening;
mod ordered;
pub mod orders;
mod pace;
mod paces;
mod peers;
mod permits;
mod polls;
mod presence;
mod proxied;
mod publish;
mod pump;
mod queues;
mod requests;
mod shedding;
mod silencing;
pub mod spans;
mod standing;
mod streams;
mod subscribe;
mod table;
#[cfg(test)]
mod tests;
mod timers;
mod tops;
mod transfers;
mod turns;
mod unloading;
mod visits;
mod whispers;
mod wishes;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::cluster::Cluster;
use self::durable::Durable;
use self::hooks::Teller;
use self::pace::{Pace, Part};
use crate::cluster::port::ShardEnd as ClusterEnd;
use crate::hooks::port::ShardEnd as HooksEnd;
use crate::hub::topics::Legacy;
use crate::id::ListenerId;
use crate::io::{Backend, Backlog};
use crate::journal::port::ShardEnd;
use crate::message::Epoch;
use crate::metrics::Purpose;
use crate::time::{Clock, Instant};
use crate::wheel::Tick;

pub use self::core::{Core, Seed};
pub use audit::Audit;
pub use control::{Control, Phase, Publishing};
pub use entrance::{Entrance, Kind as EntranceKind};
pub use live::Live;
pub use mail::{About, Ack, Answer, Answered, Asker, Delivery, Mail, Postbox, Publication, Question, Request, Terms};

/// Whether a shard has more to live for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Call again.
    Again,
    /// The drain is done and nothing is left.
    Done,
}

/// A backend and the connections on it.
pub struct Shard<B> {
    backend: B,
    core: Core,
}

impl<B: Backend> Shard<B> {
    /// Longest time without a look at the clock.
    const WAIT_MAX: Duration = Duration::from_secs(1);
    /// How soon to look again when another shard's mailbox was full.
    const FULL_MAILBOX_WAIT: Duration = Duration::from_millis(1);

    /// A shard. Its doorbell rings this backend from now on.
    pub fn new(backend: B, seed: Seed) -> Self {
        seed.mail.doorbell().connect(backend.waker());
        Self { backend, core: Core::new(seed) }
    }

    /// The backend, to give it its listeners.
    pub fn backend(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Goes on with topics where the process before has left them. Before the first turn. Returns how many found room.
    pub fn adopt(&mut self, epoch: Epoch, legacies: impl IntoIterator<Item = Legacy>, clock: &impl Clock) -> usize {
        self.core.begin_turn(clock.now(), clock.unix_ms());
        let now = self.core.time();
        let topics = &mut self.core.topics;
        topics.begin_after(epoch);
        legacies.into_iter().map(|legacy| usize::from(topics.adopt(legacy, now))).sum()
    }

    /// Writes durable topics down from now on. Before the first turn.
    pub fn join_journal(&mut self, end: ShardEnd) {
        self.core.durable = Some(Box::new(Durable::new(end)));
    }

    /// Tells what happens to a receiver from now on. Before the first turn.
    pub fn join_hooks(&mut self, end: HooksEnd) {
        self.core.hooks = Some(Box::new(Teller::new(end, Arc::clone(&self.core.live.hooks))));
    }

    /// Shares topics with other nodes from now on. Before the first turn, and before there are topics.
    pub fn join_cluster(&mut self, end: ClusterEnd) {
        self.core.topics.join_cluster(end.node);
        self.core.cluster = Some(Box::new(Cluster::new(end)));
    }

    /// Goes on with topics where the journal has them, but for those that are here already. Before the first turn, with a
    /// journal and after [`Shard::adopt`]. Returns how many found no room.
    pub fn recover(&mut self, epoch: Epoch, legacies: impl IntoIterator<Item = Legacy>, clock: &impl Clock) -> usize {
        self.core.begin_turn(clock.now(), clock.unix_ms());
        let now = self.core.time();
        let topics = &mut self.core.topics;
        topics.begin_after(epoch);
        topics.recover_all(legacies, now)
    }

    /// What is not I/O.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// One turn. Waits until there is something to do, if nothing is.
    ///
    /// # Errors
    /// When the kernel's interface itself fails.
    pub fn turn(&mut self, clock: &impl Clock) -> io::Result<Turn> {
        let (begin, now) = self.wait(clock)?;
        if self.core.begin_turn(now, clock.unix_ms()) {
            self.core.metrics.set_memory(Purpose::Backend, self.backend.memory());
            self.core.metrics.set_memory(Purpose::Tls, self.backend.tls_memory());
            self.resume_resting();
        }
        self.control();
        self.ingress(&mut Pace::new(clock, Part::INGRESS));
        self.core.note_listening(self.backend.is_listening());
        self.core.take_mail(&mut Pace::new(clock, Part::MAIL));
        self.core.take_verdicts(&mut Pace::new(clock, Part::VERDICTS));
        self.core.take_cluster_mail(&mut Pace::new(clock, Part::CLUSTER));
        self.timers(&mut Pace::new(clock, self.timers_part()));
        self.orders(&mut Pace::new(clock, Part::ORDERS));
        self.core.forget(&mut Pace::new(clock, Part::FORGET));
        self.core.tell_changes(&mut Pace::new(clock, Part::TELL));
        self.core.publish(&mut Pace::new(clock, Part::PUBLISH));
        self.core.tell_presence(&mut Pace::new(clock, Part::TELL));
        self.close_doomed();
        self.unload(&mut Pace::new(clock, Part::UNLOAD));
        self.fan_out(&mut Pace::new(clock, Part::FAN_OUT));
        self.transfer(&mut Pace::new(clock, Part::TRANSFERS));
        self.egress(&mut Pace::new(clock, Part::EGRESS));
        self.core.mail.flush();
        self.core.flush_journal();
        self.core.flush_hooks();
        self.core.flush_cluster();
        self.core.end_turn(begin, clock.now());
        Ok(if self.core.is_done() { Turn::Done } else { Turn::Again })
    }

    /// Waits. Returns since when it has been working (a backend that is not to sleep works all the time), and the time.
    fn wait(&mut self, clock: &impl Clock) -> io::Result<(Instant, Instant)> {
        let doorbell = self.core.mail.doorbell();
        doorbell.prepare_to_sleep();
        let mut before = clock.now();
        let mut timeout = if self.core.has_work() { Duration::ZERO } else { self.timeout(before) };
        if !timeout.is_zero() && self.core.is_staging_full() {
            // What the backend has left may not be taken before another shard has made room: it would not wait.
            clock.rest(timeout.min(Self::FULL_MAILBOX_WAIT));
            before = clock.now();
            timeout = Duration::ZERO;
        }
        let result = self.backend.wait(Some(timeout));
        doorbell.awake();
        result?;
        let now = clock.now();
        Ok((if timeout.is_zero() { before } else { now }, now))
    }

    fn timeout(&self, now: Instant) -> Duration {
        if self.core.mail.requests_wait
            || self.core.mail.deliveries_wait
            || self.core.has_appends()
            || self.core.waits_for_cluster()
        {
            return Self::FULL_MAILBOX_WAIT;
        }
        let shuts = self.core.drain.and_then(|drain| drain.shuts);
        let resting = (!self.core.resting.is_empty()).then(|| self.core.tick.later(1));
        let nexts = [
            self.core.wheel.next_expiry(),
            self.core.topics.next_expiry(),
            self.core.topics.news_due(),
            self.core.waiting_due(),
            shuts,
            resting,
            self.core.streams_deadline(),
            self.core.batches.due(),
        ];
        let next = nexts.into_iter().flatten().min();
        let next = next.map_or(Self::WAIT_MAX, |tick: Tick| self.core.wheel.instant_of(tick).since(now));
        next.min(self.core.silenced.timeout(now)).min(Self::WAIT_MAX)
    }

    /// Follows the server: takes over what was replaced, and stops accepting when the drain begins.
    fn control(&mut self) {
        self.core.follow_live();
        self.core.follow_publishing();
        self.follow_silences();
        if self.core.follow_phase() {
            self.close_listeners(Backlog::Leave);
        }
        if self.core.shuts_now() {
            self.close_listeners(Backlog::Take);
        }
    }

    /// Closes the listeners whose waiting connections have this lot.
    fn close_listeners(&mut self, backlog: Backlog) {
        for number in 0..self.core.entrances.len() {
            let listener = ListenerId(u8::try_from(number).unwrap_or(u8::MAX));
            if self.core.control.backlog(listener) == backlog {
                self.backend.stop_listening(listener, backlog);
            }
        }
    }
}
