//! Events for tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use super::{Address, Client, Event, Wanted, What};
use crate::access::Grant;
use crate::id::{ConnId, ShardId};
use crate::message::{Epoch, Kind, Message, Offset, Publisher, Topic};
use crate::session::Protocol;

pub(crate) fn topic(name: &str) -> Topic {
    Topic::parse(name.as_bytes(), Topic::BYTES_MAX).unwrap()
}

pub(crate) fn client() -> Client {
    Client {
        shard: ShardId(1),
        id: ConnId::new(7, 33),
        protocol: Protocol::WebSocket,
        address: Address::Ip("192.0.2.7:5".parse().unwrap()),
        grant: Some(Arc::new(Grant::new(Some("a\"nn"), &[], &[]))),
    }
}

pub(crate) fn message(name: &str, payload: &[u8]) -> Message {
    let publisher = Publisher { shard: ShardId(1), connection: ConnId::new(7, 33) };
    let mut message = Message::new(topic(name), Kind::Text, payload, Some(publisher));
    (message.epoch, message.offset) = (Epoch(1), Offset(2));
    message
}

pub(crate) fn occupied(name: &str) -> Event {
    Event { time_ms: 5, what: What::Occupied(topic(name), Wanted::Told) }
}

pub(crate) fn vacated(name: &str) -> Event {
    Event { time_ms: 5, what: What::Vacated(topic(name), Wanted::Told) }
}

/// The same where nobody hears it.
pub(crate) fn vacated_aside(name: &str) -> Event {
    Event { time_ms: 5, what: What::Vacated(topic(name), Wanted::Aside) }
}
