//! What happens on one connection or topic, told while it happens to whoever watches.
//!
//! While nobody does, it costs a look at one pointer where something could be told. While somebody does, each event is a
//! line of JSON that is published to a topic of the operators' own shard. There is a bound on their rate and on those that
//! wait; what is beyond is counted, and the next line that gets through says how many were lost.

use crate::close::CloseReason;
use crate::codec::json;
use crate::hub::Group;
use crate::id::{ConnId, ShardId};
use crate::message::{Cursor, Kind, Message, Topic};
use crate::rate::TokenBucket;
use crate::shard::core::Core;
use crate::shard::mail::Postbox;
use crate::shard::orders::sight::write_id;
use crate::time::Instant;

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A connection or a stream.
    Connection(ShardId, ConnId),
    /// A topic.
    Topic(Topic),
}

/// A watch on one shard.
#[derive(Debug)]
pub struct Trace {
    number: u64,
    target: Target,
    /// Where the lines go, and under which name.
    to: Postbox,
    under: Topic,
    bucket: TokenBucket,
    lost: u64,
}

impl Trace {
    /// Events that are told in a second, by one shard.
    const RATE: u32 = 2000;

    /// Lines about `target`, published to `under` by way of `to`. It ends by its number.
    #[must_use]
    pub const fn new(number: u64, target: Target, to: Postbox, under: Topic) -> Self {
        Self { number, target, to, under, bucket: TokenBucket::new(Self::RATE, Self::RATE), lost: 0 }
    }

    fn tell(&mut self, now: Instant, line: &[u8]) {
        if !self.bucket.take(now) {
            self.lost += 1;
            return;
        }
        if self.lost > 0 {
            let mut lost = b"{\"event\":\"lost\"".to_vec();
            Line(&mut lost).number("events", self.lost);
            lost.push(b'}');
            if !self.to.publish(&self.under, Kind::Text, &lost) {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        self.lost += u64::from(!self.to.publish(&self.under, Kind::Text, line));
    }
}

/// Those who watch something on a shard.
#[derive(Debug)]
pub(in crate::shard) struct Tracer {
    shard: ShardId,
    now: Instant,
    unix_ms: u64,
    traces: Vec<Trace>,
}

/// An event that is being written.
pub(in crate::shard) struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    fn field(&mut self, name: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    pub(in crate::shard) fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.field(name);
        json::write_number(value, self.0);
        self
    }

    pub(in crate::shard) fn string(&mut self, name: &str, value: &str) -> &mut Self {
        self.field(name);
        json::write_string(value, self.0);
        self
    }
}

impl Tracer {
    /// Bytes came from, or went to, a connection.
    pub(in crate::shard) fn bytes(&mut self, event: &str, id: ConnId, bytes: usize) {
        self.tell(event, Some(id), None, |line| {
            line.number("bytes", bytes as u64);
        });
    }

    /// A whole message came from a connection.
    pub(in crate::shard) fn message(&mut self, id: ConnId, kind: Kind, bytes: usize) {
        self.tell("message", Some(id), None, |line| {
            line.string("kind", if kind == Kind::Text { "text" } else { "binary" }).number("bytes", bytes as u64);
        });
    }

    /// Messages of a topic went to a connection, or into its queue.
    pub(in crate::shard) fn delivered(&mut self, id: ConnId, bytes: usize, messages: u32, is_queued: bool) {
        self.tell(if is_queued { "queued" } else { "delivered" }, Some(id), None, |line| {
            line.number("bytes", bytes as u64).number("messages", u64::from(messages));
        });
    }

    /// A connection joined a topic or left it.
    pub(in crate::shard) fn membership(&mut self, event: &str, id: ConnId, topic: &Topic, group: Option<&Group>) {
        self.tell(event, Some(id), Some(topic), |line| {
            if let Some(group) = group {
                line.string("group", group.as_str());
            }
        });
    }

    /// A message got its place.
    pub(in crate::shard) fn published(&mut self, message: &Message, cursor: Cursor, subscribers: u64, duplicate: bool) {
        let publisher = message.publisher.map(|publisher| (publisher.shard, publisher.connection));
        self.tell_of("published", publisher, Some(&message.topic), |line| {
            line.number("epoch", cursor.epoch.0).number("offset", cursor.offset.0);
            line.number("bytes", message.payload().len() as u64).number("subscribers", subscribers);
            if duplicate {
                line.number("duplicate", 1);
            }
        });
    }

    /// Tells those who watch this connection of this shard, or this topic.
    fn tell(&mut self, event: &str, id: Option<ConnId>, topic: Option<&Topic>, more: impl Fn(&mut Line<'_>)) {
        self.tell_of(event, id.map(|id| (self.shard, id)), topic, more);
    }

    /// The same of a connection of any shard.
    fn tell_of(
        &mut self,
        event: &str,
        connection: Option<(ShardId, ConnId)>,
        topic: Option<&Topic>,
        more: impl Fn(&mut Line<'_>),
    ) {
        let (now, unix_ms) = (self.now, self.unix_ms);
        let concerns = |target: &Target| match target {
            Target::Connection(shard, id) => connection == Some((*shard, *id)),
            Target::Topic(watched) => topic == Some(watched),
        };
        for trace in self.traces.iter_mut().filter(|trace| concerns(&trace.target)) {
            let mut out = Vec::with_capacity(160);
            out.extend_from_slice(b"{\"event\":");
            json::write_string(event, &mut out);
            let mut line = Line(&mut out);
            line.number("time", unix_ms);
            if let Some((shard, id)) = connection {
                line.field("connection");
                write_id(shard, id, line.0);
            }
            if let Some(topic) = topic {
                line.string("topic", topic.as_str());
            }
            more(&mut line);
            out.push(b'}');
            trace.tell(now, &out);
        }
    }
}

impl Core {
    pub(super) fn begin_trace(&mut self, trace: Trace) {
        let (shard, now, unix_ms) = (self.id, self.now, self.unix_ms);
        let tracer = self.tracer.get_or_insert_with(|| Box::new(Tracer { shard, now, unix_ms, traces: Vec::new() }));
        let target = trace.target.clone();
        tracer.traces.push(trace);
        match target {
            Target::Connection(of, id) if of == shard => {
                let found = u64::from(self.table.get(id).is_some());
                tracer.tell("tracing", Some(id), None, |line| {
                    line.number("found", found);
                });
            }
            Target::Topic(topic) if topic.owner(self.shards) == shard => {
                let subscribers = self.topics.sight(&topic).map_or(0, |sight| sight.subscribers);
                tracer.tell("tracing", None, Some(&topic), |line| {
                    line.number("subscribers", subscribers);
                });
            }
            _ => {}
        }
    }

    pub(super) fn end_trace(&mut self, number: u64) {
        if let Some(tracer) = &mut self.tracer {
            tracer.traces.retain(|trace| trace.number != number);
            if tracer.traces.is_empty() {
                self.tracer = None;
            }
        }
    }

    /// Tells those who watch that a connection ends.
    pub(in crate::shard) fn trace_close(&mut self, id: ConnId, reason: CloseReason, detail: &str) {
        if self.tracer.is_none() {
            return;
        }
        let keys =
            self.table.get(id).map(|connection| connection.memberships().map(|one| one.topic).collect::<Vec<_>>());
        let Some(tracer) = &mut self.tracer else { return };
        let more = |line: &mut Line<'_>| {
            line.string("reason", reason.label()).string("detail", detail);
        };
        tracer.tell("closed", Some(id), None, more);
        for topic in keys.unwrap_or_default().into_iter().filter_map(|key| self.members.name(key)) {
            tracer.tell("subscriber_closed", Some(id), Some(topic), more);
        }
    }

    /// Tells those who watch what the time is.
    pub(in crate::shard) fn set_trace_time(&mut self) {
        if let Some(tracer) = &mut self.tracer {
            (tracer.now, tracer.unix_ms) = (self.now, self.unix_ms);
        }
    }
}
