//! What those who watch a topic's members are told, in the format of each:
//!
//! ```text
//! {"topic":"t","presence":{"members":[{"id":"ann","user":true,"name":"Ann","since":1732795012345}],"count":1}}
//! {"topic":"t","presence":{"joined":[...],"left":[{"id":"ben","name":"ben"}],"count":2}}
//! {"topic":"t","presence":{"count":100000}}
//! {"topic":"t","presence":{"off":true}}
//! ```
//!
//! A list is told in parts, each but the last with `"more":true`. `"truncated":true`: some are counted and on no list.

use std::sync::Arc;

use prost::Message as _;

use super::MemberId;
use crate::codec::grpc::generated::edge;
use crate::codec::http1::stream::write_chunk;
use crate::codec::websocket::frame::Header;
use crate::codec::{self, Kind, json, sse};
use crate::message::{Topic, Wire};

/// A member as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub id: MemberId,
    /// What it is called, where that is another than the id.
    pub name: Option<Arc<str>>,
    /// When its first connection came, in milliseconds of Unix time.
    pub since_ms: u64,
    /// Its connections.
    pub connections: u32,
}

/// What a [`Notice`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is not kept who is there.
    Off,
    /// How many are there, and no more.
    Count,
    /// Some who are there; more follow.
    Members(Vec<Seen>, bool),
    /// Who has come and who has gone.
    Changes(Vec<Seen>, Vec<Seen>),
}

/// What those who watch a topic are told at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The topic.
    pub topic: Topic,
    /// What there is to tell.
    pub what: What,
    /// How many are there.
    pub count: u64,
    /// Not all of them are on the list.
    pub truncated: bool,
}

/// Members of one notice, and bytes of their ids and names, about.
const PART_MEMBERS: usize = 256;
const PART_BYTES: usize = 16 * 1024;

/// All who are there, in parts.
pub(super) fn list(topic: &Topic, members: Vec<Seen>, count: u64, truncated: bool) -> Vec<Notice> {
    let mut parts = parts(members);
    let last = parts.pop().unwrap_or_default();
    let part = |members, more| Notice::new(topic, What::Members(members, more), count, truncated);
    let mut list: Vec<_> = parts.into_iter().map(|members| part(members, true)).collect();
    list.push(part(last, false));
    list
}

/// Who has come and gone, in parts; or nobody, where only the number has changed.
pub(super) fn changes(topic: &Topic, joined: Vec<Seen>, left: Vec<Seen>, count: u64, truncated: bool) -> Vec<Notice> {
    let (joined, left) = (parts(joined), parts(left));
    let both = joined.len().max(left.len()).max(1);
    let (mut joined, mut left) = (joined.into_iter(), left.into_iter());
    let next = |parts: &mut std::vec::IntoIter<Vec<Seen>>| parts.next().unwrap_or_default();
    let part = |_| Notice::new(topic, What::Changes(next(&mut joined), next(&mut left)), count, truncated);
    (0..both).map(part).collect()
}

fn parts(members: Vec<Seen>) -> Vec<Vec<Seen>> {
    let (mut parts, mut bytes) = (Vec::new(), PART_BYTES);
    for member in members {
        bytes += 48 + member.id.text.len() + member.name.as_ref().map_or(0, |name| name.len());
        match parts.last_mut() {
            Some(part) if bytes < PART_BYTES && Vec::len(part) < PART_MEMBERS => part.push(member),
            _ => {
                parts.push(vec![member]);
                bytes = 0;
            }
        }
    }
    parts
}

impl Seen {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id.text)
    }

    /// Appends `{"id","user"?,"name"`, without the end.
    fn open(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        json::write_string(&self.id.text, out);
        if self.id.is_user {
            out.extend_from_slice(b",\"user\":true");
        }
        out.extend_from_slice(b",\"name\":");
        json::write_string(self.name(), out);
    }

    fn write_since(&self, out: &mut Vec<u8>) {
        self.open(out);
        out.extend_from_slice(b",\"since\":");
        json::write_number(self.since_ms, out);
    }

    /// Appends `{"id","user"?,"name","since","connections"}`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.write_since(out);
        out.extend_from_slice(b",\"connections\":");
        json::write_number(u64::from(self.connections), out);
        out.push(b'}');
    }

    /// As a message of `holdline.v1`.
    #[must_use]
    pub fn to_message(&self) -> edge::Member {
        edge::Member {
            id: self.id.text.to_string(),
            user: self.id.is_user,
            name: self.name().to_owned(),
            since_ms: i64::try_from(self.since_ms).unwrap_or(i64::MAX),
            connections: self.connections,
        }
    }
}

/// Appends an array of them.
pub(super) fn write_list(members: &[Seen], write: impl Fn(&Seen, &mut Vec<u8>), out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, member) in members.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(member, out);
    }
    out.push(b']');
}

impl Notice {
    pub(super) fn new(topic: &Topic, what: What, count: u64, truncated: bool) -> Self {
        Self { topic: topic.clone(), what, count, truncated }
    }

    /// Whether it is, or begins, what one who watches is told first.
    #[must_use]
    pub const fn is_list(&self) -> bool {
        !matches!(self.what, What::Changes(..))
    }

    /// Appends its JSON, without a line break.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let since = |member: &Seen, out: &mut Vec<u8>| {
            member.write_since(out);
            out.push(b'}');
        };
        let named = |member: &Seen, out: &mut Vec<u8>| {
            member.open(out);
            out.push(b'}');
        };
        out.extend_from_slice(b"{\"topic\":");
        json::write_string(self.topic.as_str(), out);
        out.extend_from_slice(b",\"presence\":{");
        match &self.what {
            What::Off => return out.extend_from_slice(b"\"off\":true}}"),
            What::Count => {}
            What::Members(members, more) => {
                out.extend_from_slice(b"\"members\":");
                write_list(members, since, out);
                out.extend_from_slice(if *more { b",\"more\":true," } else { b"," });
            }
            What::Changes(joined, left) => {
                out.extend_from_slice(b"\"joined\":");
                write_list(joined, since, out);
                out.extend_from_slice(b",\"left\":");
                write_list(left, named, out);
                out.push(b',');
            }
        }
        out.extend_from_slice(b"\"count\":");
        json::write_number(self.count, out);
        out.extend_from_slice(if self.truncated { b",\"truncated\":true}}" } else { b"}}" });
    }

    /// As a message of `holdline.v1`.
    fn to_message(&self) -> edge::Presence {
        let all = |members: &[Seen]| members.iter().map(Seen::to_message).collect();
        let mut message = edge::Presence {
            topic: self.topic.as_str().to_owned(),
            count: self.count,
            truncated: self.truncated,
            ..edge::Presence::default()
        };
        match &self.what {
            What::Off => message.off = true,
            What::Count => {}
            What::Members(members, more) => {
                (message.list, message.members, message.more) = (true, all(members), *more);
            }
            What::Changes(joined, left) => (message.joined, message.left) = (all(joined), all(left)),
        }
        message
    }

    /// The frame for this format; `None` where it has none.
    #[must_use]
    pub fn encoded(&self, wire: Wire) -> Option<Vec<u8>> {
        let (mut json, mut out) = (Vec::new(), Vec::new());
        if wire != Wire::Grpc {
            self.write_json(&mut json);
        }
        match wire {
            Wire::WebSocket | Wire::WebSocketDeflate | Wire::WebSocketJson => {
                out.extend_from_slice(Header::message(Kind::Text, json.len(), false).as_slice());
                out.extend_from_slice(&json);
            }
            Wire::Sse | Wire::SseMany => {
                sse::write_event("presence", &mut out);
                sse::write_data(&json, &mut out);
            }
            Wire::JsonStream => write_chunk(
                |out| {
                    out.extend_from_slice(&json);
                    out.push(b'\n');
                },
                &mut out,
            ),
            Wire::JsonLines => {
                json.push(b'\n');
                return Some(json);
            }
            Wire::Grpc => {
                let frame = Some(edge::server_frame::Frame::Presence(self.to_message()));
                codec::grpc::encode(&edge::ServerFrame { id: 0, frame }.encode_to_vec(), &mut out);
            }
            Wire::Line | Wire::Length | Wire::Json => return None,
        }
        Some(out)
    }
}
