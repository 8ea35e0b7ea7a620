//! What a request wants, read from its path, its query and its body.
//!
//! | request | |
//! |---|---|
//! | `GET /api/connections` | those that match, page by page |
//! | `GET`, `DELETE /api/connections/{id}` | one of them |
//! | `POST /api/kick` | closes those that match |
//! | `GET /api/topics` | topics, page by page |
//! | `GET`, `DELETE /api/topics/{topic}` | one of them |
//! | `POST /api/publish` | a message |
//! | `GET`, `POST /api/drain` | sends all clients away |
//! | `GET /api/limits`, `GET /api/config` | what is set |
//! | `POST /reload` | reads the configuration again |

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Realm, refusal};
use crate::app::Refusal;
use crate::app::site::Ask;
use crate::codec::http1::Query;
use crate::config::{parse_duration, parse_size};
use crate::id::{ConnId, ShardId};
use crate::message::{Kind, Message, Topic};
use crate::session::Protocol;
use crate::shard::orders::{Filter, Parting, Search};

/// What somebody wants.
#[derive(Debug)]
pub(super) enum Wish {
    /// To see connections, beginning at this shard.
    Connections(ShardId, Search<Filter>),
    /// To see one.
    Connection(ShardId, ConnId),
    /// To have some closed, on this shard or on all.
    Kick(Option<ShardId>, Filter, Parting),
    /// To see topics, beginning at this shard.
    Topics(ShardId, Search<Box<str>>),
    /// To see one.
    Topic(Topic),
    /// To have one ended.
    CloseTopic(Topic, Parting),
    /// To publish.
    Publish(Message),
    /// To have all clients sent away.
    Drain(Pacing),
    /// That they are not.
    Undrain,
    /// To know whether they are.
    DrainState,
    /// To know the limits.
    Limits,
    /// To know the configuration.
    Config,
    /// To have it read again.
    Reload,
}

/// How fast clients are sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pacing {
    /// All within this time.
    Over(Duration),
    /// So many in a second.
    Rate(u64),
}

const CONNECTIONS: &str = "/api/connections";
const TOPICS: &str = "/api/topics";
const READ: &str = "GET, HEAD, OPTIONS";
const WRITE: &str = "POST, OPTIONS";
const READ_OR_DELETE: &str = "GET, HEAD, DELETE, OPTIONS";

/// The methods of a path of the API.
pub(super) fn methods(path: &str) -> Option<&'static str> {
    Some(match path {
        CONNECTIONS | TOPICS | "/api/limits" | "/api/config" => READ,
        "/api/kick" | "/api/publish" | super::RELOAD => WRITE,
        "/api/drain" => "GET, HEAD, POST, DELETE, OPTIONS",
        _ if below(path, CONNECTIONS).or_else(|| below(path, TOPICS)).is_some() => READ_OR_DELETE,
        _ => return None,
    })
}

/// What follows a path and a slash.
fn below<'p>(path: &'p str, of: &str) -> Option<&'p str> {
    path.strip_prefix(of)?.strip_prefix('/').filter(|rest| !rest.is_empty())
}

impl Wish {
    /// Reads a request.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub(super) fn read(ask: &Ask, realm: &Realm) -> Result<Self, Refusal> {
        let (path, query, shards) = (&*ask.path, Query::new(&ask.query), realm.shards.shards());
        let topic = |name: &str| Topic::parse(name.as_bytes(), Topic::BYTES_MAX).map_err(Refusal::from);
        let is_read = matches!(&*ask.method, "GET" | "HEAD");
        if !matches!(path, CONNECTIONS | TOPICS) {
            check_names(&query, &[])?;
        }
        if let Some(id) = below(path, CONNECTIONS) {
            let (shard, id) = parse_id(id, shards)?;
            if is_read {
                return Ok(Self::Connection(shard, id));
            }
            let filter = Filter { id: Some(id), ..Filter::default() };
            return Ok(Self::Kick(Some(shard), filter, body_or::<Words>(ask)?.parting(KICKED)?));
        }
        if let Some(name) = below(path, TOPICS) {
            let topic = topic(name)?;
            let parting = || body_or::<Words>(ask)?.parting(CLOSED);
            return Ok(if is_read { Self::Topic(topic) } else { Self::CloseTopic(topic, parting()?) });
        }
        Ok(match path {
            CONNECTIONS => connections(&query, shards)?,
            TOPICS => topics(&query, shards)?,
            "/api/kick" => body::<Kick>(ask)?.read(shards)?,
            "/api/publish" => body::<Publish>(ask)?.read(realm)?,
            "/api/drain" if is_read => Self::DrainState,
            "/api/drain" if &*ask.method == "DELETE" => Self::Undrain,
            "/api/drain" => Self::Drain(body_or::<Drain>(ask)?.read(realm.reloader.running().drain)?),
            "/api/limits" => Self::Limits,
            "/api/config" => Self::Config,
            super::RELOAD => Self::Reload,
            _ => return Err(refusal(404, "not_found", "there is nothing at this path")),
        })
    }
}

fn bad(message: impl Into<String>) -> Refusal {
    refusal(400, "bad_parameter", message)
}

/// Refuses parameters that mean nothing here.
pub(super) fn check_names(query: &Query<'_>, known: &[&str]) -> Result<(), Refusal> {
    let Some(unknown) = query.names().find(|name| !known.contains(&&**name)) else { return Ok(()) };
    Err(bad(match known {
        [] => format!("there is no parameter {unknown:?} here, nor any other"),
        _ => format!("there is no parameter {unknown:?} here; there are {}", known.join(", ")),
    }))
}

/// The name of a connection: shard, index and generation.
pub(super) fn parse_id(text: &str, shards: u16) -> Result<(ShardId, ConnId), Refusal> {
    let parts: Option<Vec<u32>> = text.split(':').map(number).collect();
    if let Some(&[shard, index, generation]) = parts.as_deref()
        && let Ok(shard) = u16::try_from(shard)
        && shard < shards
        && generation >> ConnId::GENERATION_BITS == 0
    {
        return Ok((ShardId(shard), ConnId::new(index, generation)));
    }
    Err(bad(format!("{text:?} is no connection: it has the form SHARD:INDEX:GENERATION, with {shards} shards")))
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Where the next page begins: a shard and a place in its table.
fn cursor(query: &Query<'_>, shards: u16) -> Result<(ShardId, u32), Refusal> {
    let Some(text) = query.get("cursor") else { return Ok((ShardId(0), 0)) };
    let place = text.split_once(':').and_then(|(shard, place)| Some((ShardId(number(shard)?), number(place)?)));
    place.filter(|(shard, _)| shard.0 < shards).ok_or_else(|| bad("cursor is what the page before has in next"))
}

/// Entries of one page.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

fn search<F>(query: &Query<'_>, filter: F, from: u32, weight: &str) -> Result<Search<F>, Refusal> {
    let limit = query.get("limit").map_or(Some(PAGE), |limit| number(&limit));
    let limit = limit.filter(|limit| (1..=PAGE_MAX).contains(limit));
    let limit = limit.ok_or_else(|| bad(format!("limit is a number from 1 to {PAGE_MAX}")))?;
    let top = match query.get("sort") {
        None => false,
        Some(sort) if sort == weight => true,
        Some(_) => return Err(bad(format!("sort is {weight}, or not there"))),
    };
    if top && query.get("cursor").is_some() {
        return Err(bad("what is sorted has no further pages: leave cursor out"));
    }
    Ok(Search { filter, from, limit, top })
}

fn connections(query: &Query<'_>, shards: u16) -> Result<Wish, Refusal> {
    let known = ["cursor", "limit", "sort", "protocol", "topic", "user", "address", "min_queue", "idle"];
    check_names(query, &known)?;
    let get = |name| query.get(name).map(std::borrow::Cow::into_owned);
    let terms = Terms {
        protocol: get("protocol"),
        topic: get("topic"),
        user: get("user"),
        address: get("address"),
        min_queue: get("min_queue"),
        idle: get("idle"),
    };
    let (shard, from) = cursor(query, shards)?;
    Ok(Wish::Connections(shard, search(query, terms.filter()?, from, "queue")?))
}

fn topics(query: &Query<'_>, shards: u16) -> Result<Wish, Refusal> {
    check_names(query, &["cursor", "limit", "sort", "prefix"])?;
    let (shard, from) = cursor(query, shards)?;
    let prefix = query.get("prefix").unwrap_or_default();
    Ok(Wish::Topics(shard, search(query, prefix.into(), from, "subscribers")?))
}

/// What connections are chosen by, as it is written.
#[derive(Debug, Default)]
struct Terms {
    protocol: Option<String>,
    topic: Option<String>,
    user: Option<String>,
    address: Option<String>,
    min_queue: Option<String>,
    idle: Option<String>,
}

impl Terms {
    fn filter(self) -> Result<Filter, Refusal> {
        let protocol = self.protocol.map(|name| {
            let names = || Protocol::ALL.map(Protocol::label).join(", ");
            let known = Protocol::ALL.into_iter().find(|protocol| protocol.label() == name);
            known.ok_or_else(|| bad(format!("{name:?} is no protocol; there are {}", names())))
        });
        let topic = self.topic.map(|name| Topic::parse(name.as_bytes(), Topic::BYTES_MAX));
        let address = self.address.map(|text| {
            parse_network(&text).ok_or_else(|| bad(format!("{text:?} is no address, nor a network such as 10.0.0.0/8")))
        });
        let queue_min = self.min_queue.map(|text| {
            parse_size(&text, 0, usize::MAX).map_err(|_| bad("min_queue is a size in bytes, such as 4096 or 64KiB"))
        });
        let idle_min = self.idle.map(|text| {
            parse_duration(&text, Duration::ZERO, Duration::MAX).map_err(|_| bad("idle is a time, such as 30s or 5m"))
        });
        Ok(Filter {
            id: None,
            protocol: protocol.transpose()?,
            topic: topic.transpose()?,
            user: self.user.map(Into::into),
            address: address.transpose()?,
            queue_min: queue_min.transpose()?.unwrap_or(0),
            idle_min: idle_min.transpose()?.unwrap_or_default(),
        })
    }
}

/// An address, or a network as address and bits.
fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), number)?;
    (bits <= most).then_some((address, bits))
}

/// What those hear who are closed, where nobody says what.
const KICKED: &str = "kicked";
const CLOSED: &str = "the topic was closed";

/// What those hear who are closed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    reason: Option<String>,
    code: Option<u16>,
}

impl Words {
    fn parting(self, default: &str) -> Result<Parting, Refusal> {
        let reason = self.reason.as_deref().unwrap_or(default);
        if reason.len() > Parting::REASON_BYTES_MAX || reason.chars().any(char::is_control) {
            let most = Parting::REASON_BYTES_MAX;
            return Err(bad(format!("reason is at most {most} bytes of text without control characters")));
        }
        let code = self.code.unwrap_or(4003);
        // RFC 6455 section 7.4: those that an endpoint may send, and those that are the application's.
        if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            return Err(bad("code is a WebSocket close code: 1000 to 1003, 1007 to 1014, or 3000 to 4999"));
        }
        Ok(Parting { code, reason: Arc::from(reason) })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kick {
    id: Option<String>,
    protocol: Option<String>,
    topic: Option<String>,
    user: Option<String>,
    address: Option<String>,
    min_queue: Option<Size>,
    idle: Option<String>,
    reason: Option<String>,
    code: Option<u16>,
}

/// Bytes, as a number or as they are written elsewhere.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Text(String),
}

impl Kick {
    fn read(self, shards: u16) -> Result<Wish, Refusal> {
        let Self { id, protocol, topic, user, address, min_queue, idle, reason, code } = self;
        let parting = Words { reason, code }.parting(KICKED)?;
        let min_queue = min_queue.map(|size| match size {
            Size::Bytes(bytes) => bytes.to_string(),
            Size::Text(text) => text,
        });
        let mut filter = Terms { protocol, topic, user, address, min_queue, idle }.filter()?;
        let mut shard = None;
        if let Some(id) = id {
            let (of, id) = parse_id(&id, shards)?;
            (shard, filter.id) = (Some(of), Some(id));
        }
        if filter.is_empty() {
            let message = "say who: id, user, address, topic, protocol, min_queue or idle; to send all away, drain";
            return Err(bad(message));
        }
        Ok(Wish::Kick(shard, filter, parting))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    topic: String,
    text: Option<String>,
    base64: Option<String>,
}

impl Publish {
    fn read(self, realm: &Realm) -> Result<Wish, Refusal> {
        let live = realm.control.live();
        let topic = Topic::parse(self.topic.as_bytes(), live.limits.topic_bytes_max)?;
        let (kind, payload) = match (self.text, self.base64) {
            (Some(text), None) => (Kind::Text, text.into_bytes()),
            (None, Some(base64)) => {
                let bytes = STANDARD.decode(base64.as_bytes());
                (Kind::Binary, bytes.map_err(|error| refusal(400, "bad_base64", format!("bad base64: {error}")))?)
            }
            _ => return Err(refusal(400, "bad_body", "a message has either text or base64")),
        };
        let (bytes, most) = (payload.len(), live.limits.message_bytes_max);
        if bytes > most {
            return Err(refusal(413, "message_too_big", format!("the message has {bytes} bytes, the limit is {most}")));
        }
        Ok(Wish::Publish(Message::new(topic, kind, &payload, None)))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    over: Option<String>,
    rate: Option<u64>,
}

impl Drain {
    const OVER_MAX: Duration = Duration::from_secs(24 * 3600);

    fn read(self, default: Duration) -> Result<Pacing, Refusal> {
        match (self.over, self.rate) {
            (None, None) => Ok(Pacing::Over(default)),
            (Some(over), None) => {
                let over = parse_duration(&over, Duration::ZERO, Self::OVER_MAX);
                over.map(Pacing::Over).map_err(|_| bad("over is a time of at most 24h, such as 30s"))
            }
            (None, Some(rate)) if rate > 0 => Ok(Pacing::Rate(rate)),
            (None, Some(_)) => Err(bad("rate is a number of connections in a second, 1 or more")),
            (Some(_), Some(_)) => Err(bad("a drain has either over or rate")),
        }
    }
}

/// The body, as JSON.
fn body<T: DeserializeOwned>(ask: &Ask) -> Result<T, Refusal> {
    serde_json::from_slice(&ask.body).map_err(|error| refusal(400, "bad_body", format!("not a body for this: {error}")))
}

/// The same where it may be left out.
fn body_or<T: DeserializeOwned + Default>(ask: &Ask) -> Result<T, Refusal> {
    if ask.body.trim_ascii().is_empty() { Ok(T::default()) } else { body(ask) }
}
