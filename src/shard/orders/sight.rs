//! Connections and topics as operators read them: JSON.

use super::filter::queued_bytes;
use crate::codec::json;
use crate::hub::topics::{Holding, Sight};
use crate::id::{ConnId, ShardId};
use crate::message::Topic;
use crate::session::Protocol;
use crate::shard::cluster::Cluster;
use crate::shard::connection::{Connection, Flags};
use crate::shard::core::Core;

/// Topics of a connection that are listed. How many there are is told beside them.
const TOPICS_LISTED: usize = 8;

/// A connection's name for operators: shard, index and generation.
pub(in crate::shard) fn write_id(shard: ShardId, id: ConnId, out: &mut Vec<u8>) {
    out.push(b'"');
    json::write_number(u64::from(shard.0), out);
    out.push(b':');
    json::write_number(u64::from(id.index()), out);
    out.push(b':');
    json::write_number(u64::from(id.generation()), out);
    out.push(b'"');
}

/// A string, or null.
fn optional(name: &str, value: Option<&str>, out: &mut Vec<u8>) {
    match value {
        Some(value) => json::write_string_field(name, value, out),
        None => {
            json::write_field(name, out);
            out.extend_from_slice(b"null");
        }
    }
}

/// What a connection is doing.
const fn state_of(connection: &Connection) -> &'static str {
    let flags = connection.flags;
    if flags.has(Flags::CLOSING) {
        "closing"
    } else if flags.has(Flags::WAITING) {
        "waiting"
    } else if flags.has(Flags::STALLED) || flags.has(Flags::PAUSED) {
        "paused"
    } else if flags.has(Flags::OPEN) || matches!(connection.protocol, Protocol::Http2) {
        "open"
    } else {
        "opening"
    }
}

impl Core {
    /// One connection.
    pub(super) fn write_connection(&self, id: ConnId, connection: &Connection) -> Vec<u8> {
        let mut out = Vec::with_capacity(384);
        out.extend_from_slice(b"{\"id\":");
        write_id(self.id, id, &mut out);
        json::write_string_field("protocol", connection.protocol.label(), &mut out);
        json::write_string_field("state", state_of(connection), &mut out);
        let address = self.whence(id).map(|address| address.to_string());
        optional("address", address.as_deref(), &mut out);
        optional("user", self.user(id), &mut out);
        let entrance = self.entrances.get(usize::from(connection.listener().0));
        optional("listener", entrance.map(|entrance| entrance.url.as_str()), &mut out);
        self.write_subscriptions(connection, &mut out);
        json::write_number_field("queued_bytes", queued_bytes(connection) as u64, &mut out);
        let silence = self.silence(id, connection).as_millis();
        json::write_number_field("idle_ms", u64::try_from(silence).unwrap_or(u64::MAX), &mut out);
        let extra = connection.extra.as_deref();
        if let Some(borne) = extra.and_then(|extra| extra.borne.as_deref()) {
            json::write_field("carrier", &mut out);
            write_id(self.id, borne.carrier, &mut out);
            json::write_number_field("stream", u64::from(borne.stream.0), &mut out);
        }
        if let Some(carrier) = extra.and_then(|extra| extra.carrier.as_deref()) {
            json::write_number_field("streams", carrier.http2.streams() as u64, &mut out);
        }
        out.push(b'}');
        out
    }

    fn write_subscriptions(&self, connection: &Connection, out: &mut Vec<u8>) {
        let (mut all, mut before) = (0, "");
        json::write_field("topics", out);
        out.push(b'[');
        for membership in connection.memberships() {
            all += 1;
            if all <= TOPICS_LISTED
                && let Some(name) = self.members.name(membership.topic).map(Topic::as_str)
            {
                out.extend_from_slice(before.as_bytes());
                json::write_string(name, out);
                before = ",";
            }
        }
        out.push(b']');
        json::write_number_field("subscriptions", all as u64, out);
    }

    /// How a shared topic is doing.
    fn state_of_sharing(&self, holding: Holding) -> &'static str {
        let is_connected = self.cluster.as_deref().is_some_and(Cluster::is_connected);
        match holding {
            _ if !is_connected => "away",
            Holding::Alone | Holding::Idle | Holding::Elsewhere => "idle",
            Holding::Joining => "joining",
            Holding::Live => "live",
        }
    }

    /// One topic.
    pub(super) fn write_topic(&self, sight: &Sight<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(b"{\"topic\":");
        json::write_string(sight.name.as_str(), &mut out);
        if matches!(sight.holding, Some(Holding::Joining | Holding::Elsewhere)) {
            out.extend_from_slice(b",\"epoch\":null,\"offset\":null");
        } else {
            json::write_number_field("epoch", sight.cursor.epoch.0, &mut out);
            json::write_number_field("offset", sight.cursor.offset.0, &mut out);
        }
        json::write_number_field("subscribers", sight.subscribers, &mut out);
        json::write_number_field("shard", u64::from(self.id.0), &mut out);
        json::write_field("groups", &mut out);
        out.push(b'[');
        for (place, group) in self.topics.groups(sight.name).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            json::write_string(group.as_str(), &mut out);
        }
        out.push(b']');
        if let Some(holding) = sight.holding {
            let is_shared = holding != Holding::Alone;
            json::write_field("shared", &mut out);
            out.extend_from_slice(if is_shared { b"true" } else { b"false" });
            if is_shared {
                json::write_string_field("cluster", self.state_of_sharing(holding), &mut out);
            }
        }
        out.extend_from_slice(b",\"history\":{\"messages\":");
        json::write_number(sight.messages as u64, &mut out);
        json::write_number_field("bytes", sight.bytes as u64, &mut out);
        if let Some(first) = sight.first {
            json::write_number_field("first_offset", first.0, &mut out);
        }
        out.extend_from_slice(b"}}");
        out
    }
}
