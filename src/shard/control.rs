//! What the server tells all shards, and what they share: a few atomics that are off the messages' way.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::addresses::Addresses;
use super::live::Live;
use super::silencing::Silences;
use crate::access::Seen;
use crate::config::Limits;
use crate::id::ListenerId;
use crate::io::Backlog;
use crate::rate::SharedRate;
use crate::rule::Limit;
use crate::time::Instant;

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// It serves.
    Running = 0,
    /// It takes nobody in and asks everybody to leave.
    Draining = 1,
    /// It ends at once.
    Ending = 2,
}

/// What becomes of publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Publishing {
    /// They are published.
    Open = 0,
    /// They wait where they are, while another process takes the topics over.
    Held = 1,
    /// It has them: they are refused, and whoever publishes comes back to it.
    Moved = 2,
}

/// Shared by the server and its shards.
#[derive(Debug)]
pub struct Control {
    phase: AtomicU8,
    publishing: AtomicU8,
    drain_ms: AtomicU64,
    /// Time for which listeners stay open in a drain.
    grace_ms: AtomicU64,
    /// Listeners whose sockets another process has too, a bit for each.
    handed_over: [AtomicU64; 4],
    /// Shards that may still take connections in.
    listening: AtomicUsize,
    connections: AtomicUsize,
    connections_max: usize,
    /// Connections that are being turned away.
    shed: AtomicUsize,
    accepts: SharedRate,
    /// Connections that have not finished their handshake, where their number has a bound.
    handshakes: AtomicUsize,
    /// What each client address has.
    addresses: Addresses,
    /// Who is not answered.
    silences: Silences,
    message_bytes_max: AtomicUsize,
    /// There is too little memory for more connections.
    starved: AtomicBool,
    /// What may be replaced, and how often it was.
    live: Mutex<Arc<Live>>,
    live_version: AtomicU64,
    /// Tokens that were used, of those that may be used once.
    seen: Mutex<Seen>,
}

impl Control {
    /// Connections at a time, of all shards, that have a place to hear that there is none.
    pub const SHED_MAX: usize = 256;
    /// Time in which their request has to come, and then in which they have to take the answer.
    pub(super) const SHED_TIME: Duration = Duration::from_secs(1);

    /// A running server.
    #[must_use]
    pub fn new(live: Live) -> Self {
        let limits = Arc::clone(&live.limits);
        Self {
            phase: AtomicU8::new(Phase::Running as u8),
            publishing: AtomicU8::new(Publishing::Open as u8),
            drain_ms: AtomicU64::new(0),
            grace_ms: AtomicU64::new(0),
            handed_over: Default::default(),
            listening: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            connections_max: limits.connections_max,
            shed: AtomicUsize::new(0),
            accepts: SharedRate::default(),
            handshakes: AtomicUsize::new(0),
            addresses: Addresses::default(),
            silences: Silences::default(),
            message_bytes_max: AtomicUsize::new(limits.message_bytes_max),
            starved: AtomicBool::new(false),
            live: Mutex::new(Arc::new(live)),
            live_version: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    /// Who is not answered.
    pub(super) const fn silences(&self) -> &Silences {
        &self.silences
    }

    /// Leaves the filters of listening sockets as they are: the server sets its own from now on.
    pub fn keep_silences(&self) {
        self.silences.keep();
    }

    /// Tokens that were used.
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The used tokens, for the process that follows. No more are taken until [`Control::go_on`].
    #[must_use]
    pub fn leave_seen(&self) -> Vec<([u8; 16], u64)> {
        self.seen().leave()
    }

    /// Goes on with the used tokens of the process before.
    pub fn adopt_seen(&self, used: impl IntoIterator<Item = ([u8; 16], u64)>) {
        self.seen().adopt(used);
    }

    /// What may be replaced, as it is now.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it. Ring the doorbells afterwards.
    pub fn replace(&self, live: Live) {
        self.message_bytes_max.store(live.limits.message_bytes_max, Ordering::Relaxed);
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        self.live_version.fetch_add(1, Ordering::Release);
        // They were silenced for limits that may not hold any more.
        self.silences.forgive();
    }

    /// Bytes of one message, for those who are no shard.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max.load(Ordering::Relaxed)
    }

    /// How often it was replaced.
    #[must_use]
    pub fn live_version(&self) -> u64 {
        self.live_version.load(Ordering::Acquire)
    }

    /// Where the server is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Ending,
        }
    }

    /// What becomes of publications.
    #[must_use]
    pub fn publishing(&self) -> Publishing {
        match self.publishing.load(Ordering::Acquire) {
            0 => Publishing::Open,
            1 => Publishing::Held,
            _ => Publishing::Moved,
        }
    }

    /// Has all shards hold publications back: what has a place already is delivered, nothing else gets one. Ring the
    /// doorbells afterwards.
    pub fn hold(&self) {
        self.publishing.store(Publishing::Held as u8, Ordering::Release);
    }

    /// Has them go on. Ring the doorbells afterwards.
    pub fn go_on(&self) {
        self.seen().go_on();
        self.publishing.store(Publishing::Open as u8, Ordering::Release);
    }

    /// Has them refuse publications for good: another process has the topics. Ring the doorbells afterwards.
    pub fn give_topics_away(&self) {
        self.publishing.store(Publishing::Moved as u8, Ordering::Release);
    }

    /// Begins to drain; all connections are told to leave within `period`. Ring the doorbells afterwards.
    pub fn drain(&self, period: Duration) {
        self.drain_ms.store(u64::try_from(period.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
        self.phase.fetch_max(Phase::Draining as u8, Ordering::AcqRel);
    }

    /// Begins to drain: so many connections are told to leave in each second. Ring the doorbells afterwards.
    pub fn drain_at_rate(&self, per_second: u32) {
        let millis = (self.connections() as u64).saturating_mul(1000) / u64::from(per_second.max(1));
        self.drain(Duration::from_millis(millis));
    }

    /// How long listeners stay open in a drain, for clients whose handshake is under way. Whoever says so sees to it that
    /// no other handshake begins. To be said before the drain.
    pub fn set_grace(&self, grace: Duration) {
        self.grace_ms.store(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// How long listeners stay open in a drain.
    pub(super) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms.load(Ordering::Acquire))
    }

    /// Says that another process has the sockets of a listener: those who wait there are its own. To be said before the
    /// drain.
    pub fn hand_over(&self, listener: ListenerId) {
        self.handed_over[usize::from(listener.0 / 64)].fetch_or(1 << (listener.0 % 64), Ordering::AcqRel);
    }

    /// What becomes of those who wait at a listener when it closes.
    pub(super) fn backlog(&self, listener: ListenerId) -> Backlog {
        let bits = self.handed_over[usize::from(listener.0 / 64)].load(Ordering::Acquire);
        if bits >> (listener.0 % 64) & 1 == 1 { Backlog::Leave } else { Backlog::Take }
    }

    /// Counts in a shard that takes connections in.
    pub(super) fn listens(&self) {
        self.listening.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts it out. Returns whether it was the last one.
    pub(super) fn listens_no_more(&self) -> bool {
        self.listening.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether nobody is there, nor will come, now that the server drains.
    pub(super) fn is_deserted(&self) -> bool {
        // In this order: who comes in is counted before its shard says that nobody more comes.
        self.listening.load(Ordering::Acquire) == 0 && self.connections() == 0
    }

    /// Ends at once. Ring the doorbells afterwards.
    pub fn end(&self) {
        self.phase.store(Phase::Ending as u8, Ordering::Release);
    }

    /// The period of the drain.
    #[must_use]
    pub fn drain_period(&self) -> Duration {
        Duration::from_millis(self.drain_ms.load(Ordering::Acquire))
    }

    /// Whether nobody is left to hear anything, nor will be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.phase() {
            Phase::Running => false,
            Phase::Draining => self.is_deserted(),
            Phase::Ending => true,
        }
    }

    /// Says whether there is too little memory for more connections.
    pub fn set_starved(&self, starved: bool) {
        self.starved.store(starved, Ordering::Relaxed);
    }

    /// Whether there is too little memory for more connections.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }

    /// Counts a connection in, if the process has room for it.
    ///
    /// # Errors
    /// The limit that is in its way.
    pub(super) fn admit(&self, now: Instant, limits: &Limits) -> Result<(), Limit> {
        if self.is_starved() {
            return Err(Limit::MemoryFreeBytesMin);
        }
        // There is room for as many as there might be at the start.
        if !count_in(&self.connections, self.connections_max.min(limits.connections_max)) {
            return Err(Limit::ConnectionsMax);
        }
        if limits.accept_rate > 0 && !self.accepts.take(now, limits.accept_rate) {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            return Err(Limit::AcceptRate);
        }
        Ok(())
    }

    /// Counts in a handshake, if there may be one more.
    pub(super) fn begin_handshake(&self, max: usize) -> bool {
        count_in(&self.handshakes, max)
    }

    /// Counts it out.
    pub(super) fn end_handshake(&self) {
        self.handshakes.fetch_sub(1, Ordering::Relaxed);
    }

    /// What each client address has.
    pub(super) const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Counts in a connection that is turned away because of this limit, if there is a place for it to hear that. Those
    /// of addresses with too many get half of the places, so that there are some for the others.
    pub(super) fn admit_shed(&self, limit: Limit) -> bool {
        count_in(&self.shed, if limit.is_of_an_address() { Self::SHED_MAX / 2 } else { Self::SHED_MAX })
    }

    /// Counts it out.
    pub(super) fn release_shed(&self) {
        self.shed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections of all shards.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Counts a connection out. Returns whether it was the last one.
    pub(super) fn release(&self) -> bool {
        self.connections.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

fn count_in(counter: &AtomicUsize, max: usize) -> bool {
    let admitted = counter.fetch_add(1, Ordering::Relaxed) < max;
    if !admitted {
        counter.fetch_sub(1, Ordering::AcqRel);
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_turns_connections_away_and_costs_none_of_the_others() {
        let limits = Limits { connections_max: 3, accept_rate: 2, ..Limits::default() };
        let control = Control::new(Live::new(limits.clone()));
        let admit = |ms| control.admit(Instant::from_millis(ms), &limits);
        assert_eq!((admit(0), admit(0)), (Ok(()), Ok(())));
        assert_eq!(admit(0), Err(Limit::AcceptRate));
        assert_eq!(admit(500), Ok(()));
        assert_eq!(admit(9000), Err(Limit::ConnectionsMax));
        control.release();
        control.set_starved(true);
        assert_eq!(admit(9000), Err(Limit::MemoryFreeBytesMin));
        control.set_starved(false);
        assert_eq!(admit(9000), Ok(()));
        assert_eq!(control.connections(), 3);
    }

    #[test]
    fn a_drain_is_over_when_nobody_is_there_and_nobody_can_come() {
        let control = Control::new(Live::default());
        control.listens();
        control.listens();
        assert_eq!(control.admit(Instant::ZERO, &Limits::default()), Ok(()));
        control.drain(Duration::ZERO);
        control.release();
        assert!(!control.is_over() && !control.listens_no_more());
        assert!(!control.is_over() && control.listens_no_more());
        assert!(control.is_over());
    }

    #[test]
    fn a_rate_is_a_period_for_so_many() {
        let control = Control::new(Live::default());
        (0..300).for_each(|_| assert_eq!(control.admit(Instant::ZERO, &Limits::default()), Ok(())));
        control.drain_at_rate(200);
        assert_eq!((control.phase(), control.drain_period()), (Phase::Draining, Duration::from_millis(1500)));
        control.drain_at_rate(0);
        assert_eq!(control.drain_period(), Duration::from_secs(300));
    }

    #[test]
    fn who_waits_at_a_listener_that_was_handed_over_is_left_to_the_others() {
        let control = Control::new(Live::default());
        [3, 255].into_iter().for_each(|listener| control.hand_over(ListenerId(listener)));
        let left = (0..=255).filter(|&listener| control.backlog(ListenerId(listener)) == Backlog::Leave);
        assert_eq!(left.collect::<Vec<_>>(), [3, 255]);
    }

    #[test]
    fn limits_may_fall_and_rise_to_what_there_was_room_for() {
        let control = Control::new(Live::new(Limits { connections_max: 2, ..Limits::default() }));
        let admit = |connections_max| control.admit(Instant::ZERO, &Limits { connections_max, ..Limits::default() });
        assert_eq!((admit(1), admit(1)), (Ok(()), Err(Limit::ConnectionsMax)));
        assert_eq!((admit(9), admit(9)), (Ok(()), Err(Limit::ConnectionsMax)));
    }

    #[test]
    fn places_to_be_turned_away_in_are_few() {
        let control = Control::new(Live::default());
        let admitted = |limit| (0..1000).filter(|_| control.admit_shed(limit)).count();
        assert_eq!(admitted(Limit::ConnectionsPerAddressMax), Control::SHED_MAX / 2);
        assert_eq!(admitted(Limit::ConnectionsMax), Control::SHED_MAX / 2);
        control.release_shed();
        assert_eq!(admitted(Limit::AcceptRatePerAddress), 0);
        assert_eq!(admitted(Limit::AcceptRate), 1);
    }
}
