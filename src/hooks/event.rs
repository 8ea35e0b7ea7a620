//! What can be told, and its JSON.
//!
//! ```text
//! {"id":"9f86d081884c7d65-1","kind":"connect","time":1732795012345,"connection":"0:7:33","protocol":"websocket",
//!  "address":"192.0.2.7:50412","user":"ann"}
//! {"id":"9f86d081884c7d65-2","kind":"publish","time":1732795012346,"topic":"news","epoch":1732795000000,"offset":7,
//!  "connection":"0:7:33","subscribers":3,"bytes":2,"text":"hi"}
//! {"id":"9f86d081884c7d65-3","kind":"disconnect","time":1732795012347,...,"reason":"going_away","code":1001}
//! ```
//!
//! What is not known is left out.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::access::Grant;
use crate::close::CloseReason;
use crate::codec::json;
use crate::config::HookKind;
use crate::hub::Group;
use crate::id::{ConnId, ShardId};
use crate::message::{Message, Topic};
use crate::session::Protocol;

/// Something that has happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Unix time.
    pub time_ms: u64,
    /// What.
    pub what: What,
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum What {
    /// [`HookKind::Connect`].
    Connected(Client),
    /// [`HookKind::Disconnect`], and why.
    Disconnected(Client, CloseReason),
    /// [`HookKind::Subscribe`]; in a queue group or in none.
    Subscribed(Client, Topic, Option<Group>),
    /// [`HookKind::Unsubscribe`], likewise.
    Unsubscribed(Client, Topic, Option<Group>),
    /// [`HookKind::Publish`]: a message with its place, how many subscribers its topic has, and what its publisher may do, with
    /// the user's name.
    Published(Message, u64, Option<Arc<Grant>>),
    /// [`HookKind::Occupied`].
    Occupied(Topic, Wanted),
    /// [`HookKind::Vacated`].
    Vacated(Topic, Wanted),
}

/// Whether the receiver hears that a topic is occupied or vacated. Who hears one of the two needs the other one too, to know
/// what stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is told.
    Told,
    /// It only settles what is told.
    Aside,
}

// Every shard has room for some thousands of them.
const _: () = assert!(size_of::<Event>() <= 128);

/// Whose event it is.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its shard.
    pub shard: ShardId,
    /// Its connection there, or its stream.
    pub id: ConnId,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it is.
    pub address: Address,
    /// What it may do, with its user's name.
    pub grant: Option<Arc<Grant>>,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// On the network.
    Ip(SocketAddr),
    /// On this machine: it came in at a Unix socket.
    Unix,
    /// The kernel did not say it.
    Unknown,
}

/// An event's name: the receiver can tell by it what it has heard before.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// The process.
    pub node: &'a str,
    /// 1, 2, 3, ... in each.
    pub number: u64,
}

impl Event {
    /// Which kind it is of.
    #[must_use]
    pub const fn kind(&self) -> HookKind {
        match &self.what {
            What::Connected(_) => HookKind::Connect,
            What::Disconnected(..) => HookKind::Disconnect,
            What::Subscribed(..) => HookKind::Subscribe,
            What::Unsubscribed(..) => HookKind::Unsubscribe,
            What::Published(..) => HookKind::Publish,
            What::Occupied(..) => HookKind::Occupied,
            What::Vacated(..) => HookKind::Vacated,
        }
    }

    /// Whether the receiver hears it, as was configured when it happened.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        !matches!(self.what, What::Occupied(_, Wanted::Aside) | What::Vacated(_, Wanted::Aside))
    }

    /// Bytes that it keeps in memory beside itself: a message that nobody else may keep any more.
    #[must_use]
    pub fn memory(&self) -> usize {
        if let What::Published(message, ..) = &self.what { message.memory() } else { 0 }
    }

    /// Appends its JSON. `payload`: with what was published.
    pub fn write(&self, name: Name<'_>, payload: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":\"");
        out.extend_from_slice(name.node.as_bytes());
        out.push(b'-');
        json::write_number(name.number, out);
        out.extend_from_slice(b"\",\"kind\":\"");
        out.extend_from_slice(self.kind().name().as_bytes());
        out.push(b'"');
        json::write_number_field("time", self.time_ms, out);
        match &self.what {
            What::Connected(client) => client.write(out),
            What::Disconnected(client, reason) => {
                client.write(out);
                json::write_string_field("reason", reason.label(), out);
                if let Some(code) = reason.code() {
                    json::write_number_field("code", u64::from(code), out);
                }
            }
            What::Subscribed(client, topic, group) | What::Unsubscribed(client, topic, group) => {
                client.write(out);
                json::write_string_field("topic", topic.as_str(), out);
                if let Some(group) = group {
                    json::write_string_field("group", group.as_str(), out);
                }
            }
            What::Published(message, subscribers, grant) => {
                write_publication(message, *subscribers, out);
                user(grant.as_deref(), out);
                if payload {
                    out.push(b',');
                    json::write_payload(message.kind(), message.payload(), out);
                }
            }
            What::Occupied(topic, _) | What::Vacated(topic, _) => {
                json::write_string_field("topic", topic.as_str(), out)
            }
        }
        out.push(b'}');
    }
}

impl Client {
    fn write(&self, out: &mut Vec<u8>) {
        json::write_string_field("connection", &self.id.of(self.shard).to_string(), out);
        json::write_string_field("protocol", self.protocol.label(), out);
        match self.address {
            Address::Ip(address) => json::write_string_field("address", &address.to_string(), out),
            Address::Unix => json::write_string_field("address", "unix", out),
            Address::Unknown => {}
        }
        user(self.grant.as_deref(), out);
    }
}

fn user(grant: Option<&Grant>, out: &mut Vec<u8>) {
    if let Some(user) = grant.and_then(|grant| grant.user.as_deref()) {
        json::write_string_field("user", user, out);
    }
}

fn write_publication(message: &Message, subscribers: u64, out: &mut Vec<u8>) {
    json::write_string_field("topic", message.topic.as_str(), out);
    json::write_number_field("epoch", message.epoch.0, out);
    json::write_number_field("offset", message.offset.0, out);
    if let Some(publisher) = message.publisher {
        json::write_string_field("connection", &publisher.connection.of(publisher.shard).to_string(), out);
    }
    json::write_number_field("subscribers", subscribers, out);
    json::write_number_field("bytes", message.payload().len() as u64, out);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::hooks::testing::{client, message, topic};

    fn written(what: What, payload: bool) -> String {
        let mut out = Vec::new();
        Event { time_ms: 5, what }.write(Name { node: "n", number: 7 }, payload, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        text
    }

    #[test]
    fn each_kind_has_its_fields() {
        let who =
            "\"connection\":\"1:7:33\",\"protocol\":\"websocket\",\"address\":\"192.0.2.7:5\",\"user\":\"a\\\"nn\"";
        let head = |kind: &str| format!("{{\"id\":\"n-7\",\"kind\":\"{kind}\",\"time\":5");
        assert_eq!(written(What::Connected(client()), true), format!("{},{who}}}", head("connect")));
        assert_eq!(
            written(What::Disconnected(client(), CloseReason::GoingAway), true),
            format!("{},{who},\"reason\":\"going_away\",\"code\":1001}}", head("disconnect"))
        );
        assert!(written(What::Disconnected(client(), CloseReason::PeerClosed), true).ends_with("\"peer_closed\"}"));
        assert_eq!(
            written(What::Subscribed(client(), topic("t"), Some(Group::parse(b"g").unwrap())), true),
            format!("{},{who},\"topic\":\"t\",\"group\":\"g\"}}", head("subscribe"))
        );
        assert_eq!(
            written(What::Unsubscribed(client(), topic("t"), None), true),
            format!("{},{who},\"topic\":\"t\"}}", head("unsubscribe"))
        );
        assert_eq!(
            written(What::Occupied(topic("t"), Wanted::Told), true),
            format!("{},\"topic\":\"t\"}}", head("occupied"))
        );
        assert_eq!(
            written(What::Vacated(topic("t"), Wanted::Told), true),
            format!("{},\"topic\":\"t\"}}", head("vacated"))
        );
    }

    #[test]
    fn a_publication_is_told_with_its_payload_or_without() {
        let place = "{\"id\":\"n-7\",\"kind\":\"publish\",\"time\":5,\"topic\":\"t\",\"epoch\":1,\"offset\":2,\
                     \"connection\":\"1:7:33\",\"subscribers\":3";
        let published = |payload: &[u8], told| written(What::Published(message("t", payload), 3, None), told);
        assert_eq!(published(b"hi", false), format!("{place},\"bytes\":2}}"));
        assert_eq!(published(b"hi", true), format!("{place},\"bytes\":2,\"text\":\"hi\"}}"));
        assert_eq!(published(b"\xff", true), format!("{place},\"bytes\":1,\"base64\":\"/w==\"}}"));
        let text = written(What::Published(message("t", b"hi"), 3, client().grant), true);
        assert_eq!(text, format!("{place},\"bytes\":2,\"user\":\"a\\\"nn\",\"text\":\"hi\"}}"));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let nobody = Client { address: Address::Unknown, grant: None, ..client() };
        let text = written(What::Connected(nobody.clone()), true);
        assert!(text.ends_with("\"protocol\":\"websocket\"}"), "{text}");
        let text = written(What::Connected(Client { address: Address::Unix, ..nobody }), true);
        assert!(text.ends_with("\"address\":\"unix\"}"), "{text}");
    }
}
