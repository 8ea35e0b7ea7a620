//! Clients that come again however often they are refused: the kernel drops their connects for a while.
//!
//! A refusal costs an accept and a close, and who gets a reset can come again at once: one client can have tens of thousands in a
//! second, and everybody else waits between them. So an address with more refusals within a second than
//! [`Limits::refusal_rate_per_address`](crate::config::Limits) is not answered at all for a second, and twice as long each
//! time that it goes on. What that takes is in [`crate::io::syn_filter`].
//!
//! Only who has connected is refused, so that nobody can have another one's address silenced by using it as a sender. All shards
//! share what is silenced; each tells its own sockets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Shard;
use super::core::Core;
use crate::id::ListenerId;
use crate::io::Backend;
use crate::io::syn_filter::{SOURCES_MAX, Source};
use crate::rule::Limit;
use crate::time::Instant;

/// One that is silent, or was so short a time ago that it is not forgiven.
#[derive(Debug)]
struct Silence {
    source: Source,
    until: Instant,
    time: Duration,
}

impl Silence {
    /// Whether it has been as well-behaved as it was silent.
    fn is_past(&self, now: Instant) -> bool {
        now >= self.until + self.time
    }
}

/// All that are silent.
#[derive(Debug, Default)]
pub(super) struct Silences {
    all: Mutex<Vec<Silence>>,
    /// How often one was added.
    version: AtomicU64,
    /// Sockets have other filters from now on. Set and looked at with the lock.
    are_kept: AtomicBool,
}

impl Silences {
    /// How long the first one is, and the longest.
    const TIMES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(16));

    fn lock(&self) -> MutexGuard<'_, Vec<Silence>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Silences an address, and says for how long. `None`: it is already, or too many are.
    fn add(&self, source: Source, now: Instant) -> Option<Duration> {
        let mut all = self.lock();
        all.retain(|one| !one.is_past(now));
        let is_full = all.len() >= SOURCES_MAX;
        let time = match all.iter_mut().find(|one| one.source == source) {
            Some(one) if now < one.until => return None,
            Some(one) => {
                one.time = (one.time * 2).min(Self::TIMES.1);
                one.until = now + one.time;
                one.time
            }
            None if is_full => return None,
            None => {
                all.push(Silence { source, until: now + Self::TIMES.0, time: Self::TIMES.0 });
                Self::TIMES.0
            }
        };
        self.version.fetch_add(1, Ordering::Release);
        Some(time)
    }

    /// Tells somebody who is silent now. Nobody is told once sockets keep what they have.
    fn tell(&self, now: Instant, mut told: impl FnMut(&[Source])) -> Silenced {
        let all = self.lock();
        let silent: Vec<_> = all.iter().filter(|one| now < one.until).collect();
        let sources: Vec<_> = silent.iter().map(|one| one.source).collect();
        let (ends, version) = (silent.iter().map(|one| one.until).min(), self.version.load(Ordering::Acquire));
        if self.are_kept.load(Ordering::Relaxed) {
            return Silenced { version, ..Silenced::default() };
        }
        told(&sources);
        let count = u32::try_from(sources.len()).unwrap_or(u32::MAX);
        Silenced { version, ends, again: now + Silenced::EVERY + Silenced::EVERY_FOR_EACH * count }
    }

    /// Forgives all of them.
    pub(super) fn forgive(&self) {
        self.lock().clear();
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Has no shard tell its sockets anything from now on.
    pub(super) fn keep(&self) {
        let _all = self.lock();
        self.are_kept.store(true, Ordering::Relaxed);
    }
}

/// What a shard has told its sockets.
#[derive(Debug, Default)]
pub(super) struct Silenced {
    version: u64,
    /// When one of those is silent no more.
    ends: Option<Instant>,
    /// When it may tell them something again.
    again: Instant,
}

impl Silenced {
    /// Between two times, since that takes some ten microseconds for each socket, and one or two for each source: all others
    /// wait for it in less than one of a hundred of their messages.
    const EVERY: Duration = Duration::from_millis(5);
    const EVERY_FOR_EACH: Duration = Duration::from_millis(1);

    /// How long a shard that has nothing to do may wait.
    pub(super) fn timeout(&self, now: Instant) -> Duration {
        self.ends.map_or(Duration::MAX, |ends| ends.max(self.again).since(now))
    }
}

impl<B: Backend> Shard<B> {
    /// Tells the sockets who is silent, when that has changed.
    pub(super) fn follow_silences(&mut self) {
        let Self { core, backend } = self;
        let now = core.now;
        let is_news = core.control.silences().version.load(Ordering::Acquire) != core.silenced.version;
        let is_over = core.silenced.ends.is_some_and(|ends| ends <= now);
        if !(is_news || is_over) || now < core.silenced.again {
            return;
        }
        let control = Arc::clone(&core.control);
        core.silenced = control.silences().tell(now, |sources| {
            for (number, entrance) in core.entrances.iter().enumerate() {
                // Whoever comes through a proxy is no sender here.
                if !entrance.proxied
                    && let Err(error) = backend.silence(ListenerId(u8::try_from(number).unwrap_or(u8::MAX)), sources)
                {
                    core.log.not_silenced(now, &core.metrics, &entrance.url, &error);
                }
            }
        });
    }
}

impl Core {
    /// Notes that a connection was refused for what its address does.
    pub(super) fn note_refusal(&mut self, peer: Option<SocketAddr>) {
        let rate = self.limits.refusal_rate_per_address;
        let Some(ip) = self.limited(peer).filter(|_| rate > 0) else { return };
        if self.control.addresses().takes_refusal(ip, self.now, rate) {
            return;
        }
        if let Some(time) = self.control.silences().add(Source::of(ip), self.now) {
            self.metrics.strike(Limit::RefusalRatePerAddress);
            self.log.silenced(self.now, &self.metrics, ip, time);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn source(number: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from_bits(number).into())
    }

    const fn at(ms: u64) -> Instant {
        Instant::from_millis(10_000 + ms)
    }

    fn who(silences: &Silences, ms: u64) -> Vec<Source> {
        let mut who = Vec::new();
        silences.tell(at(ms), |sources| who = sources.to_vec());
        who
    }

    #[test]
    fn who_goes_on_is_silent_for_longer_and_who_does_not_is_forgiven() {
        let silences = Silences::default();
        let add = |ms| silences.add(source(1), at(ms)).map(|time| time.as_secs());
        assert_eq!((add(0), add(999)), (Some(1), None), "it is silent already");
        assert_eq!((who(&silences, 999), who(&silences, 1000)), (vec![source(1)], vec![]));
        let told = silences.tell(at(10), |_| {});
        assert_eq!((told.ends, told.version), (Some(at(1000)), 1));
        let mut end = 1000;
        for seconds in [2, 4, 8, 16, 16] {
            assert_eq!(add(end + 10), Some(seconds));
            end += 10 + 1000 * seconds;
        }
        // As long again without a word.
        assert_eq!(add(end + 16_000), Some(1));
        silences.forgive();
        assert_eq!(
            (who(&silences, end + 16_001), add(end + 16_002)),
            (vec![], Some(1)),
            "other limits hold from now on"
        );
    }

    #[test]
    fn so_many_are_silent_at_a_time() {
        let silences = Silences::default();
        let count = u32::try_from(SOURCES_MAX).unwrap();
        assert!((0..count).all(|number| silences.add(source(number), at(u64::from(number))).is_some()));
        assert_eq!(silences.add(source(count), at(500)), None);
        assert_eq!(who(&silences, 500).len(), SOURCES_MAX);
        // The first of them is forgiven.
        assert!(silences.add(source(count), at(2000)).is_some());
        assert_eq!(silences.add(source(count + 1), at(2000)), None);
    }

    #[test]
    fn sockets_that_have_other_filters_keep_them() {
        let silences = Silences::default();
        assert!(silences.add(source(1), at(0)).is_some());
        silences.keep();
        let told = silences.tell(at(1), |_| panic!("nobody is told"));
        assert_eq!((told.version, told.ends), (1, None), "nor asks again");
    }
}
