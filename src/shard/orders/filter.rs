//! Which connections an operator means.

use std::net::IpAddr;
use std::time::Duration;

use crate::hub::TopicKey;
use crate::id::ConnId;
use crate::message::Topic;
use crate::session::Protocol;
use crate::shard::connection::{Connection, Flags};
use crate::shard::core::Core;
use crate::wheel::jitter;

/// Which connections, and streams of HTTP/2, are meant: those that are all of this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// This one.
    pub id: Option<ConnId>,
    /// It speaks this.
    pub protocol: Option<Protocol>,
    /// It subscribes to this topic, or to a group of it.
    pub topic: Option<Topic>,
    /// It is this user's.
    pub user: Option<Box<str>>,
    /// Its client's address is in this network.
    pub address: Option<(IpAddr, u8)>,
    /// So many bytes are queued for it, or more.
    pub queue_min: usize,
    /// It has given no sign of life for so long.
    pub idle_min: Duration,
}

impl Filter {
    /// Whether all connections are meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether an address is in a network of so many bits. An IPv4 address that is written as one of IPv6 is one of IPv4.
fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        let rest = width.saturating_sub(u32::from(bits));
        (a ^ b).checked_shr(rest).unwrap_or(0) == 0
    };
    match (address.to_canonical(), network.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

impl Core {
    /// Whether this connection is meant. The cheapest questions come first: most of a million are told by their entry.
    pub(super) fn is_meant(&self, id: ConnId, connection: &Connection, filter: &Filter) -> bool {
        let Filter { id: only, protocol, topic, user, address, queue_min, idle_min } = filter;
        if only.is_some_and(|only| only != id) || protocol.is_some_and(|protocol| protocol != connection.protocol) {
            return false;
        }
        if *queue_min > 0 && queued_bytes(connection) < *queue_min {
            return false;
        }
        if !idle_min.is_zero() && self.silence(id, connection) < *idle_min {
            return false;
        }
        if let Some(topic) = topic
            && !self.subscribes(connection, topic)
        {
            return false;
        }
        if let Some(user) = user
            && self.user(id) != Some(user)
        {
            return false;
        }
        address.is_none_or(|(network, bits)| self.peer(id).is_some_and(|address| is_in(address.ip(), network, bits)))
    }

    fn subscribes(&self, connection: &Connection, topic: &Topic) -> bool {
        let plain = self.members.key(topic, None);
        let is_it = |key: TopicKey| {
            plain == Some(key) || (self.members.group(key).is_some() && self.members.name(key) == Some(topic))
        };
        connection.memberships().any(|membership| is_it(membership.topic))
    }

    /// How long its peer has given no sign of life, about.
    pub(super) fn silence(&self, id: ConnId, connection: &Connection) -> Duration {
        let mut ticks = self.tick.0.wrapping_sub(connection.heard.0);
        if connection.flags.has(Flags::PINGED) {
            // It was asked then, having been silent for the interval.
            ticks = ticks.saturating_add(jitter(self.wheel.ticks_in(self.limits.heartbeat_interval), id.index()));
        }
        crate::wheel::TICK.saturating_mul(ticks)
    }
}

/// What is queued for a connection.
pub(super) fn queued_bytes(connection: &Connection) -> usize {
    connection.outbox.as_deref().map_or(0, crate::buf::Outbox::bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn networks_are_compared_by_their_bits() {
        let is_in =
            |address: &str, network: &str, bits| is_in(address.parse().unwrap(), network.parse().unwrap(), bits);
        assert!(is_in("10.1.2.3", "10.1.2.3", 32) && !is_in("10.1.2.3", "10.1.2.2", 32));
        assert!(is_in("10.1.2.3", "10.0.0.0", 8) && !is_in("11.1.2.3", "10.0.0.0", 8));
        assert!(is_in("1.2.3.4", "0.0.0.0", 0) && is_in("::ffff:10.1.2.3", "10.1.2.3", 32));
        assert!(is_in("2001:db8::1", "2001:db8::", 32) && !is_in("2001:db9::1", "2001:db8::", 32));
        assert!(!is_in("::1", "0.0.0.0", 0) && is_in("::1", "::", 0));
    }
}
