//! The streams of durable topics: made as they are needed, one for each, whose sequence numbers are the topic's offsets.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    Config, DirectGetErrorKind, DiscardPolicy, Info, LastRawMessageErrorKind, Republish, StorageType, Stream,
};
use tokio::time;

use super::desk::Shared;
use super::ordered::RETRY;
use super::plain::envelope;
use crate::cluster::envelope::{foreign, place, read_key};
use crate::cluster::names::Use;
use crate::cluster::port::{NotAppended, Stored};
use crate::config::Keep;
use crate::message::{Cursor, Epoch, Offset, Topic};

/// Nodes that notice the same wait for each other: so long, times one of so many numbers.
const TURN: Duration = Duration::from_millis(20);
const TURNS: u32 = 16;
/// How often a stream is looked at that is being made.
const LOOKS: usize = 50;
/// How often NATS is asked to take another epoch.
const RENEWALS: usize = 3;
/// Publications with one key are one message for so long at most, as long as the topic's history has it otherwise.
const DUPLICATES: Duration = Duration::from_secs(3600);
/// What stands before the epoch in the description of a stream whose numbers have gone back.
const RENEWED: &str = ", epoch ";
/// Epochs are numbers of JSON.
const EPOCH_MAX: u64 = 1 << 53;
/// NATS takes no shorter age.
const AGE_MIN: Duration = Duration::from_millis(100);

/// A topic's stream as it is now.
pub(super) struct Known {
    /// `None`: there is none yet, and the topic stands at 0:0.
    stream: Option<Stream>,
    pub(super) epoch: Epoch,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Known {
    const NONE: Self = Self { stream: None, epoch: Epoch(0), first: 1, last: 0 };

    fn of(stream: Stream) -> Self {
        let Info { created, state, config, .. } = stream.cached_info();
        let created = u64::try_from(created.unix_timestamp_nanos() / 1_000_000).unwrap_or(0).max(1);
        let renewed = config.description.as_deref().and_then(|text| text.rsplit_once(RENEWED)?.1.parse().ok());
        let epoch = created.max(renewed.filter(|&renewed| renewed <= EPOCH_MAX).unwrap_or(0));
        let (first, last) = (state.first_sequence, state.last_sequence);
        Self { stream: Some(stream), epoch: Epoch(epoch), first, last }
    }

    /// Whether there is one.
    pub(super) const fn is_there(&self) -> bool {
        self.stream.is_some()
    }

    pub(super) const fn cursor(&self, offset: u64) -> Cursor {
        Cursor { epoch: self.epoch, offset: Offset(offset) }
    }
}

/// What became of looking for a message.
pub(super) enum Found {
    Message(Box<Stored>),
    /// It is not kept any more.
    Gone,
    /// Nobody answered.
    Away,
}

impl Shared {
    fn config(&self, topic: &Topic, keep: Keep) -> Config {
        let names = &self.settings.names;
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX).max(1);
        let (subject, again) = (names.subject(Use::Durable, topic), names.subject(Use::Ordered, topic));
        // A history that is off keeps the message that is told.
        let age = keep.age_max.max(AGE_MIN);
        Config {
            name: names.stream(topic),
            description: Some(format!("topic {topic}")),
            republish: Some(Republish { source: subject.clone(), destination: again, headers_only: false }),
            subjects: vec![subject],
            max_messages: count(keep.messages_max),
            max_bytes: count(keep.bytes_max),
            max_age: age,
            duplicate_window: age.min(DUPLICATES),
            discard: DiscardPolicy::Old,
            storage: if self.settings.in_memory { StorageType::Memory } else { StorageType::File },
            num_replicas: self.settings.replicas,
            allow_direct: true,
            ..Config::default()
        }
    }

    /// The stream of a topic, which is made if it is not there, or (`tends`) brought into line with what is to be kept.
    pub(super) async fn stream(&self, topic: &Topic, keep: Keep, tends: bool) -> Result<Known, NotAppended> {
        let known = self.find_stream(topic).await?;
        if known.is_there() {
            return if tends { self.in_line(topic, known, keep).await } else { Ok(known) };
        }
        if let Err(error) = self.jetstream.create_stream(self.config(topic, keep)).await {
            self.complain(topic, &error.to_string());
            return Err(no_stream(&error));
        }
        // Where two make it at once the answer to the second may be without the time at which the first did.
        self.find_stream(topic).await
    }

    /// The same where there is one already: whoever only listens or asks makes none.
    pub(super) async fn find_stream(&self, topic: &Topic) -> Result<Known, NotAppended> {
        if !self.is_up() {
            return Err(NotAppended::Away);
        }
        for _ in 0..LOOKS {
            match self.jetstream.get_stream(self.settings.names.stream(topic)).await {
                Ok(stream) if is_being_made(stream.cached_info()) => time::sleep(TURN).await,
                Ok(stream) => {
                    self.metrics.streams_working.set(1);
                    return Ok(Known::of(stream));
                }
                Err(error) if is_missing(&error) => return Ok(Known::NONE),
                Err(error) => {
                    self.complain(topic, &error.to_string());
                    return Err(NotAppended::Away);
                }
            }
        }
        self.complain(topic, "it is being made, and does not get ready");
        Err(NotAppended::Away)
    }

    /// A stream that keeps what it should, or what it did before where NATS refuses to change it. What this program does not
    /// say of streams stays as it is.
    pub(super) async fn in_line(&self, topic: &Topic, known: Known, keep: Keep) -> Result<Known, NotAppended> {
        let wanted = self.config(topic, keep);
        let Some(is) = known.stream.as_ref().map(|stream| stream.cached_info().config.clone()) else {
            return Ok(known);
        };
        if is_in_line(&is, &wanted) {
            return Ok(known);
        }
        let kept = |config: &Config| {
            let Config { max_messages, max_bytes, max_age, num_replicas, .. } = config;
            format!("{max_messages} messages, {max_bytes} bytes, {max_age:?}, {num_replicas} replicas")
        };
        let (before, now) = (kept(&is), kept(&wanted));
        tracing::warn!(%topic, before, now, "a stream keeps something else from now on: let all nodes keep the same");
        let changed = Config {
            subjects: wanted.subjects,
            republish: wanted.republish,
            max_messages: wanted.max_messages,
            max_bytes: wanted.max_bytes,
            max_age: wanted.max_age,
            duplicate_window: wanted.duplicate_window,
            num_replicas: wanted.num_replicas,
            allow_direct: wanted.allow_direct,
            ..is
        };
        match self.jetstream.update_stream(&changed).await {
            Ok(_) => self.find_stream(topic).await,
            Err(error) => {
                self.complain(topic, &error.to_string());
                Ok(known)
            }
        }
    }

    /// NATS has lost messages that it had acknowledged, and gives their numbers again: the stream has another epoch from now on,
    /// so that nobody takes a place of before for one of after. Its description says so, for all nodes; the first one to notice
    /// writes it. Says how the stream is known from now on, which is as before where NATS refuses that.
    pub(super) async fn renew_epoch(&self, topic: &Topic, before: Known) -> Known {
        let turn = u32::try_from(self.node.0 % u64::from(TURNS)).unwrap_or(0);
        time::sleep(TURN * turn).await;
        tracing::warn!(%topic, "NATS has lost messages of a durable topic that it had acknowledged: a new epoch begins");
        for _ in 0..RENEWALS {
            let known = self.stream_at_last(topic).await;
            let Some(stream) = known.stream.as_ref().filter(|_| known.epoch == before.epoch) else { break };
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now = u64::try_from(since.as_millis()).unwrap_or(0);
            let epoch = now.max(known.epoch.0.saturating_add(1));
            let description = Some(format!("topic {topic}{RENEWED}{epoch}"));
            let changed = Config { description, ..stream.cached_info().config.clone() };
            match self.jetstream.update_stream(&changed).await {
                Ok(_) => break,
                Err(error) => self.complain(topic, &error.to_string()),
            }
            time::sleep(RETRY.0).await;
        }
        // Whoever has looked before that was written may have written after it: all take what stands there then.
        time::sleep(TURN * TURNS).await;
        self.renewed.set(self.renewed.get() + 1);
        self.stream_at_last(topic).await
    }

    /// The message of a topic at a place.
    pub(super) async fn fetch(&self, known: &Known, topic: &Topic, offset: u64) -> Found {
        use LastRawMessageErrorKind as Raw;
        let Some(stream) = &known.stream else { return Found::Gone };
        let found = match stream.direct_get(offset).await {
            Ok(found) => Ok(found),
            // Whoever answers may be behind the others. The stream's leader is not.
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                let found = stream.get_raw_message(offset).await;
                found.map_err(|error| if error.kind() == Raw::NoMessageFound { Found::Gone } else { Found::Away })
            }
            Err(error) => {
                self.complain(topic, &error.to_string());
                Err(Found::Away)
            }
        };
        match found {
            Ok(found) => {
                let time_ms = u64::try_from(found.time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
                let headers = Some(&found.headers);
                let stored = self.stored(topic, known.cursor(offset), &found.payload, headers);
                let stored =
                    stored.unwrap_or_else(|| Stored::foreign(topic, known.cursor(offset), &found.payload, time_ms));
                Found::Message(Box::new(stored))
            }
            Err(not) => not,
        }
    }

    /// A message as a shard is given it, if it came from a node.
    pub(super) fn stored(
        &self,
        topic: &Topic,
        cursor: Cursor,
        payload: &[u8],
        headers: Option<&async_nats::HeaderMap>,
    ) -> Option<Stored> {
        let mut message = envelope(headers)?.message(self.node, topic, payload)?;
        place(&mut message, cursor);
        let key = headers.and_then(|headers| headers.get(async_nats::header::NATS_MESSAGE_ID));
        Some(Stored { message, key: key.and_then(|key| read_key(key.as_str())).map(Arc::from) })
    }

    /// Says that streams do not work as they should, in `/readyz` until one does, and in the log now and then.
    pub(super) fn complain(&self, topic: &Topic, why: &str) {
        self.metrics.streams_working.set(0);
        if self.may_complain() {
            tracing::warn!(%topic, why, "a durable topic's stream does not work: it needs JetStream (nats-server -js) and its permissions");
        }
    }
}

impl Stored {
    /// What something else than a node has put into a stream is a message all the same: it has its place, and the time at
    /// which the stream took it.
    fn foreign(topic: &Topic, cursor: Cursor, payload: &[u8], time_ms: u64) -> Self {
        let mut message = foreign(topic, payload, time_ms);
        place(&mut message, cursor);
        Self { message, key: None }
    }
}

/// Whether a stream keeps what it should.
fn is_in_line(is: &Config, wanted: &Config) -> bool {
    let republish =
        |config: &Config| config.republish.as_ref().map(|one| (one.source.clone(), one.destination.clone()));
    (is.max_messages, is.max_bytes, is.max_age, is.num_replicas, is.allow_direct)
        == (wanted.max_messages, wanted.max_bytes, wanted.max_age, wanted.num_replicas, wanted.allow_direct)
        && republish(is) == republish(wanted)
}

/// NATS tells of a stream before it has given it a time.
const fn is_being_made(info: &Info) -> bool {
    info.created.unix_timestamp() <= 0
}

/// Whether there is no such stream.
fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn no_stream(error: &CreateStreamError) -> NotAppended {
    match error.kind() {
        CreateStreamErrorKind::JetStream(error)
            if matches!(
                error.error_code(),
                ErrorCode::STORAGE_RESOURCES_EXCEEDED
                    | ErrorCode::MEMORY_RESOURCES_EXCEEDED
                    | ErrorCode::INSUFFICIENT_RESOURCES
                    | ErrorCode::MAXIMUM_STREAMS_LIMIT
            ) =>
        {
            NotAppended::NoRoom
        }
        _ => NotAppended::Away,
    }
}
