//! What may change while shards run.
//!
//! It is one value that never changes. Whoever reloads the configuration makes another and gives it to
//! [`Control::replace`](super::Control::replace); each shard takes it over between two turns, so that nothing sees half of
//! a change.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Flags;
use super::core::Core;
use super::pace::Pace;
use super::timers::spread;
use crate::access::Access;
use crate::config::{Config, Hooks, Limits, Networks, TopicRules};
use crate::session::http::UpgradePolicy;
use crate::time::Clock;

/// What shards read in every turn and an operator can replace. What a limit has reserved room for at the start (tables,
/// mailboxes) keeps its size, whatever stands here.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Every bound.
    pub limits: Arc<Limits>,
    /// Who may upgrade, and to what.
    pub policy: UpgradePolicy,
    /// Whose headers of the PROXY protocol are believed.
    pub proxies: Networks,
    /// What topics are allowed and given.
    pub rules: Arc<TopicRules>,
    /// Time over which clients are sent away when the server ends, unless that is said then.
    pub drain: Duration,
    /// Who may do what.
    pub access: Arc<Access>,
    /// It serves operators and nobody else, who are asked for a key if there is one.
    pub operators_only: bool,
    /// Requests that each shard's log may tell of in a second; 0: none.
    pub access_rate: u32,
    /// What is told to a receiver elsewhere.
    pub hooks: Arc<Hooks>,
}

impl Live {
    /// These limits, with the defaults of all else.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::of(&Config { limits, ..Config::default() })
    }

    /// What a configuration says of it.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let policy = UpgradePolicy {
            origins: config.origins.clone(),
            subprotocols: config.subprotocols.clone(),
            deflate: config.deflate,
        };
        Self {
            limits: Arc::new(config.limits.clone()),
            policy,
            proxies: config.proxies.clone(),
            rules: Arc::new(TopicRules::new(config)),
            drain: config.drain,
            access: Arc::new(config.access.clone()),
            operators_only: false,
            access_rate: config.access_rate,
            hooks: Arc::new(config.hooks.clone()),
        }
    }
}

/// A walk over all connections, whose deadlines have come nearer: a timer fires when the old one was due, or never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hurry {
    /// Connections below this index have been told.
    cursor: u32,
    index_end: u32,
    /// Their deadlines are looked at within this time, spread over it.
    ticks: u32,
    /// They had no idle timeout before.
    is_idle_new: bool,
}

impl Core {
    /// Connections that are told in one step: some microseconds.
    const HURRIED_PER_STEP: u32 = 64;

    /// Takes over what was replaced since the last turn.
    pub(super) fn follow_live(&mut self) {
        let version = self.control.live_version();
        if version == self.live_version {
            return;
        }
        self.live_version = version;
        let access = Arc::clone(&self.live.access);
        self.live = self.control.live();
        if access != self.live.access {
            self.begin_review();
        }
        let before = std::mem::replace(&mut self.limits, Arc::clone(&self.live.limits));
        self.rulings.forget();
        self.gate.forget();
        self.hooks.iter_mut().for_each(|teller| teller.follow(&self.live.hooks));
        self.members.set_topics_max(self.limits.topics_max);
        self.topics.follow(&self.live.rules, &self.limits, self.shards);
        let is_idle_new = before.idle_timeout.is_zero() && !self.limits.idle_timeout.is_zero();
        if is_idle_new {
            self.idle_since = self.tick;
        }
        if let Some(period) = shorter(&before, &self.limits) {
            let is_idle_new = is_idle_new || self.hurry.is_some_and(|hurry| hurry.is_idle_new);
            let ticks = self.wheel.ticks_in(period);
            self.hurry = Some(Hurry { cursor: 0, index_end: self.table.index_end(), ticks, is_idle_new });
        }
    }

    /// Goes on with the walk.
    pub(super) fn hurry_all(&mut self, pace: &mut Pace<'_, impl Clock>) {
        let Some(mut hurry) = self.hurry else { return };
        while hurry.cursor < hurry.index_end && pace.more() {
            let end = hurry.index_end.min(hurry.cursor + Self::HURRIED_PER_STEP);
            (hurry.cursor..end).for_each(|index| self.hurry(index, &hurry));
            hurry.cursor = end;
        }
        let is_over = hurry.cursor >= hurry.index_end;
        self.unfinished |= !is_over;
        self.hurry = if is_over { None } else { Some(hurry) };
    }

    fn hurry(&mut self, index: u32, hurry: &Hurry) {
        let Some((id, connection)) = self.table.at(index) else { return };
        let flags = connection.flags;
        // Of those that end, and of streams that have no handler, a timer that fires is the end.
        let is_ending = flags.has(Flags::CLOSING) || flags.has(Flags::SHED) || connection.is_answered();
        if is_ending || (flags.has(Flags::BORNE) && !flags.has(Flags::OPEN)) {
            return;
        }
        if hurry.is_idle_new && flags.has(Flags::OPEN) {
            connection.extra.get_or_insert_default().spoke = self.tick;
        }
        let offset = spread(u64::from(index), u64::from(hurry.ticks).max(1));
        self.arm_by(id, self.tick.later(1 + u32::try_from(offset).unwrap_or(u32::MAX)));
    }
}

/// The shortest of the times that are shorter than they were, if some are. Where zero means never, it is longer than any.
fn shorter(before: &Limits, now: &Limits) -> Option<Duration> {
    let or_never = |time: Duration| if time.is_zero() { Duration::MAX } else { time };
    let times = |limits: &Limits| {
        [
            limits.handshake_timeout,
            limits.body_timeout,
            limits.keep_alive_timeout,
            limits.queue_stall_timeout,
            limits.heartbeat_timeout,
            limits.http2.settings_timeout,
            or_never(limits.heartbeat_interval),
            or_never(limits.idle_timeout),
        ]
    };
    times(now).into_iter().zip(times(before)).filter(|(now, before)| now < before).map(|(now, _)| now).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_that_become_shorter_are_looked_at_at_once() {
        let seconds = Duration::from_secs;
        let limits = |interval, idle| Limits {
            heartbeat_interval: seconds(interval),
            idle_timeout: seconds(idle),
            ..Limits::default()
        };
        for (before, now, period) in [
            ((30, 0), (30, 0), None),
            ((30, 60), (60, 90), None),
            ((30, 60), (0, 0), None),
            ((30, 60), (7, 50), Some(7)),
            ((0, 0), (30, 0), Some(30)),
            ((30, 0), (60, 600), Some(600)),
        ] {
            let found = shorter(&limits(before.0, before.1), &limits(now.0, now.1));
            assert_eq!(found, period.map(seconds), "{before:?} {now:?}");
        }
    }
}
