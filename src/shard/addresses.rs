//! What each client address has: its connections, its unfinished handshakes, and how often it came of late.
//!
//! All shards share it. It is looked at when a connection comes, when its handshake is done and when it goes, and for
//! each request where requests are limited; never on a message's way. An address is what a [`Source`] is.
//!
//! An address that has connections costs 17 bytes of a table that doubles; one that has had some within the last second
//! 33 more. So both are bounded: by the number of connections, and by how many can come in a second.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashMap};

use super::core::Core;
use crate::config::Limits;
use crate::id::ConnId;
use crate::io::syn_filter::Source;
use crate::rate::Rate;
use crate::rule::Limit;
use crate::time::Instant;

/// What an address has now.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    connections: u32,
    handshakes: u32,
}

/// How often it came.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    accepts: Rate,
    requests: Rate,
    refusals: Rate,
}

impl Recent {
    /// Whether it says nothing any more.
    const fn is_past(&self, now: Instant) -> bool {
        self.accepts.is_full(now) && self.requests.is_full(now) && self.refusals.is_full(now)
    }
}

#[derive(Debug, Default)]
struct Stripe {
    held: HashMap<Source, Held>,
    recent: HashMap<Source, Recent>,
    /// Entries of `recent` from which on those are looked for that say nothing any more.
    sweep_at: usize,
    /// When that was done last.
    swept: Instant,
}

/// What is counted for a connection, as long as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(u8);

impl Marks {
    /// It is counted among its address's connections.
    pub(super) const COUNTED: Self = Self(1);
    /// And among the unfinished handshakes.
    pub(super) const SHAKING: Self = Self(2);
    /// And among those of the process.
    pub(super) const OPENING: Self = Self(4);
    /// It is in none of them: it is turned away because its address has too much.
    pub(super) const CROWDED: Self = Self(8);

    /// Whether it is counted in one of these ways.
    pub(super) const fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    pub(super) const fn with(self, mark: Self) -> Self {
        Self(self.0 | mark.0)
    }

    pub(super) const fn without(self, mark: Self) -> Self {
        Self(self.0 & !mark.0)
    }
}

/// All addresses.
#[derive(Debug)]
pub(super) struct Addresses {
    stripes: Box<[Mutex<Stripe>]>,
    hasher: DefaultHashBuilder,
}

impl Default for Addresses {
    fn default() -> Self {
        let stripes = (0..Self::STRIPES).map(|_| Mutex::default()).collect();
        Self { stripes, hasher: DefaultHashBuilder::default() }
    }
}

impl Addresses {
    /// Parts with a lock each, so that shards seldom meet.
    const STRIPES: usize = 64;
    /// Addresses that have come of late, in one part. Who comes beyond is let through: a million addresses a second are
    /// none of one client's.
    const RECENT_MAX: usize = 16 * 1024;
    const SWEEP_AT_LEAST: usize = 256;
    /// Looking at all of a part takes some 50 µs: not for each one who comes while it is full.
    const SWEEP_EVERY: Duration = Duration::from_millis(100);

    fn stripe(&self, key: Source) -> MutexGuard<'_, Stripe> {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or(0);
        self.stripes[hash % Self::STRIPES].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection in that begins its handshake.
    ///
    /// # Errors
    /// The limit that is in its way.
    fn admit(&self, ip: IpAddr, now: Instant, limits: &Limits) -> Result<Marks, Limit> {
        let key = Source::of(ip);
        let mut stripe = self.stripe(key);
        let held = stripe.held.get(&key).copied().unwrap_or_default();
        let is_over = |count: u32, max: usize| max > 0 && count as usize >= max;
        if is_over(held.connections, limits.connections_per_address_max) {
            return Err(Limit::ConnectionsPerAddressMax);
        }
        if is_over(held.handshakes, limits.handshakes_per_address_max) {
            return Err(Limit::HandshakesPerAddressMax);
        }
        let rate = limits.accept_rate_per_address;
        if rate > 0 && !stripe.recent(key, now).is_none_or(|recent| recent.accepts.take(now, rate)) {
            return Err(Limit::AcceptRatePerAddress);
        }
        let held = stripe.held.entry(key).or_default();
        held.connections = held.connections.saturating_add(1);
        held.handshakes = held.handshakes.saturating_add(1);
        Ok(Marks::COUNTED.with(Marks::SHAKING))
    }

    /// Its handshake is done.
    fn shaken(&self, ip: IpAddr) {
        let key = Source::of(ip);
        if let Some(held) = self.stripe(key).held.get_mut(&key) {
            held.handshakes = held.handshakes.saturating_sub(1);
        }
    }

    /// Counts it out.
    fn release(&self, ip: IpAddr, marks: Marks) {
        if !marks.has(Marks::COUNTED) {
            return;
        }
        let key = Source::of(ip);
        let mut stripe = self.stripe(key);
        let Some(held) = stripe.held.get_mut(&key) else { return };
        held.connections = held.connections.saturating_sub(1);
        if marks.has(Marks::SHAKING) {
            held.handshakes = held.handshakes.saturating_sub(1);
        }
        if held.connections == 0 {
            stripe.held.remove(&key);
            stripe.give_memory_back();
        }
    }

    /// Whether one more request may come from there.
    pub(super) fn takes_request(&self, ip: IpAddr, now: Instant, per_second: u32) -> bool {
        let key = Source::of(ip);
        self.stripe(key).recent(key, now).is_none_or(|recent| recent.requests.take(now, per_second))
    }

    /// Whether one more connection may be refused there, or it is one of too many.
    pub(super) fn takes_refusal(&self, ip: IpAddr, now: Instant, per_second: u32) -> bool {
        let key = Source::of(ip);
        self.stripe(key).recent(key, now).is_none_or(|recent| recent.refusals.take(now, per_second))
    }
}

impl Stripe {
    /// How often an address came; `None` when there is no room to keep it.
    fn recent(&mut self, key: Source, now: Instant) -> Option<&mut Recent> {
        if self.recent.len() >= self.sweep_at && now.since(self.swept) >= Addresses::SWEEP_EVERY {
            self.swept = now;
            self.recent.retain(|_, recent| !recent.is_past(now));
            self.sweep_at = (2 * self.recent.len()).clamp(Addresses::SWEEP_AT_LEAST, Addresses::RECENT_MAX);
            if self.recent.capacity() > 4 * self.sweep_at {
                self.recent.shrink_to(self.sweep_at);
            }
        }
        if self.recent.len() >= Addresses::RECENT_MAX && !self.recent.contains_key(&key) {
            return None;
        }
        Some(self.recent.entry(key).or_default())
    }

    /// Frees what the table kept of a time when it was far larger.
    fn give_memory_back(&mut self) {
        let len = self.held.len();
        if self.held.capacity() > 1024 && len < self.held.capacity() / 8 {
            self.held.shrink_to(2 * len);
        }
    }
}

impl Core {
    /// The address that limits are about: `None` where there is none, or it is exempt.
    pub(super) fn limited(&self, peer: Option<SocketAddr>) -> Option<IpAddr> {
        peer.map(|peer| peer.ip()).filter(|ip| !self.limits.exempt.contains(*ip))
    }

    /// Counts a connection in at its address.
    ///
    /// # Errors
    /// The limit that is in its way.
    fn count_at_address(&self, peer: Option<SocketAddr>) -> Result<Marks, Limit> {
        let is_limited = self.limits.connections_per_address_max > 0
            || self.limits.handshakes_per_address_max > 0
            || self.limits.accept_rate_per_address > 0;
        match self.limited(peer) {
            Some(ip) if is_limited => self.control.addresses().admit(ip, self.now, &self.limits),
            _ => Ok(Marks::default()),
        }
    }

    /// Counts a connection in: at its address, and among the handshakes.
    ///
    /// # Errors
    /// The limit that is in its way.
    pub(super) fn count_in(&self, peer: Option<SocketAddr>) -> Result<Marks, Limit> {
        let marks = self.count_at_address(peer)?;
        match self.limits.handshakes_max {
            0 => Ok(marks),
            max if self.control.begin_handshake(max) => Ok(marks.with(Marks::OPENING)),
            _ => {
                self.uncount(peer, marks);
                Err(Limit::HandshakesMax)
            }
        }
    }

    /// Notes whom a proxy speaks for, and counts the connection in there.
    ///
    /// # Errors
    /// The limit that is in its way.
    pub(super) fn count_client(&mut self, id: ConnId, client: Option<SocketAddr>) -> Result<(), Limit> {
        let (index, peer) = (id.index(), client.or_else(|| self.peers.get(id.index())));
        let marks = self.peers.marks(index);
        self.peers.set(index, peer, marks);
        let counted = self.count_at_address(client)?;
        self.peers.mark(index, marks.with(counted));
        Ok(())
    }

    /// Notes that the handshake of a connection is done: its request has come, or its first frame.
    pub(super) fn shaken(&mut self, id: ConnId) {
        let marks = self.peers.marks(id.index());
        if !marks.has(Marks::SHAKING.with(Marks::OPENING)) {
            return;
        }
        self.peers.mark(id.index(), marks.without(Marks::SHAKING).without(Marks::OPENING));
        if marks.has(Marks::SHAKING)
            && let Some(peer) = self.peers.get(id.index())
        {
            self.control.addresses().shaken(peer.ip());
        }
        if marks.has(Marks::OPENING) {
            self.control.end_handshake();
        }
    }

    /// Forgets where a connection came from.
    pub(super) fn count_out(&mut self, index: u32) {
        self.uncount(self.peers.get(index), self.peers.marks(index));
        self.peers.set(index, None, Marks::default());
    }

    /// Takes back what was counted.
    pub(super) fn uncount(&self, peer: Option<SocketAddr>, marks: Marks) {
        if let Some(peer) = peer {
            self.control.addresses().release(peer.ip(), marks);
        }
        if marks.has(Marks::OPENING) {
            self.control.end_handshake();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn limits(connections: usize, handshakes: usize, rate: u32) -> Limits {
        Limits {
            connections_per_address_max: connections,
            handshakes_per_address_max: handshakes,
            accept_rate_per_address: rate,
            ..Limits::default()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const NOW: Instant = Instant::from_millis(5000);

    #[test]
    fn an_address_has_so_many_connections() {
        let (addresses, limits) = (Addresses::default(), limits(2, 0, 0));
        let admit = |text: &str| addresses.admit(ip(text), NOW, &limits);
        assert!(admit("192.0.2.1").is_ok() && admit("::ffff:192.0.2.1").is_ok());
        assert_eq!(admit("192.0.2.1"), Err(Limit::ConnectionsPerAddressMax));
        assert!(admit("192.0.2.2").is_ok());
        addresses.release(ip("192.0.2.1"), Marks::COUNTED);
        assert!(admit("192.0.2.1").is_ok() && admit("192.0.2.1").is_err());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (addresses, limits) = (Addresses::default(), limits(1, 0, 0));
        assert!(addresses.admit(ip("2001:db8:0:1::1"), NOW, &limits).is_ok());
        assert!(addresses.admit(ip("2001:db8:0:1:ffff::2"), NOW, &limits).is_err());
        assert!(addresses.admit(ip("2001:db8:0:2::1"), NOW, &limits).is_ok());
    }

    #[test]
    fn handshakes_count_until_they_are_done() {
        let (addresses, limits) = (Addresses::default(), limits(0, 2, 0));
        let one = ip("192.0.2.1");
        let admit = || addresses.admit(one, NOW, &limits);
        let marks = admit().unwrap();
        assert!(admit().is_ok());
        assert_eq!(admit(), Err(Limit::HandshakesPerAddressMax));
        addresses.shaken(one);
        assert!(admit().is_ok() && admit().is_err());
        addresses.release(one, marks);
        assert!(admit().is_ok() && admit().is_err());
    }

    #[test]
    fn nothing_is_left_of_addresses_that_are_gone() {
        let (addresses, limits) = (Addresses::default(), limits(1, 1, 5));
        for number in 0..100_000_u32 {
            let ip = IpAddr::from(std::net::Ipv4Addr::from_bits(number));
            let now = Instant::from_millis(u64::from(number));
            let marks = addresses.admit(ip, now, &limits).unwrap();
            addresses.release(ip, marks);
        }
        let stripes: Vec<_> = addresses.stripes.iter().map(|stripe| stripe.lock().unwrap()).collect();
        assert!(stripes.iter().all(|stripe| stripe.held.is_empty()));
        // Two hundred milliseconds' worth say something still.
        let recent: usize = stripes.iter().map(|stripe| stripe.recent.len()).sum();
        assert!(recent <= Addresses::STRIPES * Addresses::SWEEP_AT_LEAST, "{recent}");
    }

    #[test]
    fn accepts_and_requests_have_rates_of_their_own() {
        let (addresses, limits) = (Addresses::default(), limits(0, 0, 3));
        let one = ip("192.0.2.1");
        let admitted = |ms| (0..10).filter(|_| addresses.admit(one, Instant::from_millis(ms), &limits).is_ok()).count();
        assert_eq!((admitted(5000), admitted(5400), admitted(9000)), (3, 1, 3));
        let asked = |ms| (0..10).filter(|_| addresses.takes_request(one, Instant::from_millis(ms), 5)).count();
        assert_eq!((asked(9000), asked(9200), asked(20_000)), (5, 1, 5));
    }

    #[test]
    fn a_table_that_is_full_lets_through() {
        let addresses = Addresses::default();
        for number in 0..Addresses::STRIPES * Addresses::RECENT_MAX * 5 / 4 {
            let ip = IpAddr::from(std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap()));
            assert!(addresses.takes_request(ip, NOW, 1));
        }
        assert!(addresses.stripes.iter().all(|stripe| stripe.lock().unwrap().recent.len() <= Addresses::RECENT_MAX));
    }
}
