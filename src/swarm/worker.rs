//! One thread: a crowd, its parts, and a desk on which the conductor puts orders and reads counts.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::crowd::{Crowd, Manner};
use super::latency::Latencies;
use super::limits::Cause;
use super::live::Counts;
use super::part::{Actor, Order};
use super::tally::{Board, Count, Tally};
use crate::io::{Dial, Wake};
use crate::time::{Clock, Instant, SystemClock};

/// A turn takes no longer than this when nothing happens.
const TURN_MAX: Duration = Duration::from_millis(50);
/// A thread that sleeps whenever it has read what came must be woken for nearly every message of a broadcast, and the
/// server's core does that work (2 of 7 us a delivery here). While much comes the thread rests so long with its eyes
/// shut instead, and then reads all at once. An echo is answered at once.
const REST: Duration = Duration::from_micros(250);
/// Completions of a turn that are so few that it is worth while to rest.
const FEW: usize = 16;
/// Connections that are ended in one turn.
const ENDS_PER_TURN: u32 = 4096;
/// A stopped thread closes what it can in this time; the kernel does the rest.
const HASTE: Duration = Duration::from_millis(600);

/// Where the conductor and one thread meet.
#[derive(Default)]
pub(super) struct Desk {
    orders: Mutex<VecDeque<Order>>,
    obeyed: AtomicU64,
    board: Board,
    waker: OnceLock<Arc<dyn Wake>>,
    obstacle: OnceLock<Cause>,
    /// The thread is over, for whatever reason.
    pub(super) is_over: AtomicBool,
}

impl Desk {
    /// Gives an order.
    pub(super) fn tell(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Orders that have been obeyed so far.
    pub(super) fn obeyed(&self) -> u64 {
        self.obeyed.load(Ordering::Acquire)
    }

    pub(super) fn read(&self) -> Tally {
        self.board.read()
    }

    /// Why a connection was given up.
    pub(super) fn obstacle(&self) -> Option<Cause> {
        self.obstacle.get().copied()
    }

    fn next(&self) -> Option<Order> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// What a thread has found.
pub(super) struct Harvest {
    pub(super) tally: Tally,
    pub(super) connect: Latencies,
    pub(super) actor: Actor,
}

impl Harvest {
    /// Adds what another thread has found.
    pub(super) fn merge(&mut self, other: Self) {
        self.tally = self.tally.and(&other.tally);
        self.connect.merge(&other.connect);
        self.actor.merge(&other.actor);
    }
}

/// What a thread works with, beside its backend.
pub(super) struct Worker<'a> {
    pub(super) manner: Manner,
    pub(super) desk: &'a Desk,
    pub(super) counts: &'a Counts,
    pub(super) clock: SystemClock,
    pub(super) stop: &'a AtomicBool,
}

impl Worker<'_> {
    /// Works until it is told to end.
    ///
    /// # Errors
    /// When the kernel's interface itself fails.
    pub(super) fn run<B: Dial>(self, backend: B, actor: Actor) -> io::Result<Harvest> {
        let _ = self.desk.waker.set(backend.waker());
        let mut crowd = Crowd::new(backend, self.manner.clone());
        let mut actor = actor;
        let mut end = None;
        while end.as_ref().is_none_or(|end: &End| !end.is_reached(crowd.now())) {
            crowd.tick(&self.clock);
            self.take_orders(&mut crowd, &mut actor, &mut end);
            self.hurry(&mut end, crowd.now());
            actor.act(&mut crowd);
            crowd.pace(&mut actor);
            if let Some(end) = &mut end {
                end.proceed(&mut crowd);
            }
            crowd.flush();
            self.show(&crowd);
            let due = [crowd.due(), actor.due()].into_iter().flatten().min();
            let timeout = due.map_or(TURN_MAX, |due| due.since(self.clock.now()).min(TURN_MAX));
            if (1..FEW).contains(&crowd.brought()) && !actor.echoes.is_measuring() {
                std::thread::sleep(REST);
            }
            crowd.turn(timeout, &self.clock, &mut actor)?;
            crowd.flush();
        }
        self.show(&crowd);
        Ok(Harvest { tally: crowd.tally, connect: crowd.connect, actor })
    }

    fn take_orders<B: Dial>(&self, crowd: &mut Crowd<B>, actor: &mut Actor, end: &mut Option<End>) {
        while let Some(order) = self.desk.next() {
            actor.obey(order, crowd);
            if let Order::End(within) = order {
                *end = Some(End { deadline: crowd.now() + within, cursor: 0, closing: 0, done: false });
            }
            // Who sees that it is done sees what was counted until then.
            self.show(crowd);
            self.desk.obeyed.fetch_add(1, Ordering::Release);
        }
    }

    /// A stop makes every end a quick one.
    fn hurry(&self, end: &mut Option<End>, now: Instant) {
        if let Some(end) = end.as_mut().filter(|_| self.stop.load(Ordering::Relaxed)) {
            end.deadline = end.deadline.min(now + HASTE);
        }
    }

    fn show<B: Dial>(&self, crowd: &Crowd<B>) {
        let tally = &crowd.tally;
        self.desk.board.show(tally);
        if let Some(cause) = crowd.obstacle {
            let _ = self.desk.obstacle.set(cause);
        }
        let counts = self.counts;
        counts.opening.set(crowd.opening() as u64);
        counts.opened.set(tally[Count::Opened]);
        counts.failed.set(tally[Count::GivenUp]);
        counts.alive.set(tally[Count::Open]);
        counts.lost.set(tally[Count::Lost]);
        counts.pings.set(tally[Count::Pings]);
        counts.sent.set(tally[Count::Published] + tally[Count::Asked]);
        counts.received.set(tally[Count::Heard] + tally[Count::Answered]);
        counts.bytes_sent.set(tally[Count::BytesSent]);
        counts.bytes_received.set(tally[Count::Bytes]);
    }
}

/// The end of a thread, under way.
struct End {
    deadline: Instant,
    /// Places up to here have been told to end.
    cursor: u32,
    /// Places up to here have ended.
    closing: u32,
    done: bool,
}

impl End {
    fn proceed<B: Dial>(&mut self, crowd: &mut Crowd<B>) {
        let to = self.cursor.saturating_add(ENDS_PER_TURN).min(crowd.places());
        crowd.end_places(self.cursor, to);
        self.cursor = to;
        let next = crowd.first_closing(self.closing);
        self.closing = next.unwrap_or_else(|| crowd.places());
        self.done = next.is_none() && to == crowd.places();
    }

    fn is_reached(&self, now: Instant) -> bool {
        self.done || now >= self.deadline
    }
}
