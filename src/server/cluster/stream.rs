//! The streams of durable topics: made as they are needed, one for each, whose sequence numbers are the topic's offsets.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    Config, DirectGetErrorKind, DiscardPolicy, Info, LastRawMessageErrorKind, Republish, StorageType, Stream,
};

use super::desk::Shared;
use super::plain::envelope;
use crate::cluster::envelope::{foreign, place, read_key};
use crate::cluster::names::Use;
use crate::cluster::port::{NotAppended, Stored};
use crate::config::Keep;
use crate::message::{Cursor, Epoch, Offset, Topic};

/// Publications with one key are one message for so long at most, as long as the topic's history has it otherwise.
const DUPLICATES: Duration = Duration::from_secs(3600);
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
        let Info { created, state, .. } = stream.cached_info();
        let epoch = u64::try_from(created.unix_timestamp_nanos() / 1_000_000).unwrap_or(0).max(1);
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

    /// The stream of a topic, which is made or brought into line with what is to be kept.
    pub(super) async fn stream(&self, topic: &Topic, keep: Keep) -> Result<Known, NotAppended> {
        let known = self.find_stream(topic, keep).await?;
        if known.is_there() {
            return Ok(known);
        }
        let made = self.jetstream.create_stream(self.config(topic, keep)).await;
        made.map(Known::of).map_err(|error| {
            self.complain(topic, &error.to_string());
            no_stream(&error)
        })
    }

    /// The same where there is one already: whoever only listens or asks makes none.
    pub(super) async fn find_stream(&self, topic: &Topic, keep: Keep) -> Result<Known, NotAppended> {
        if !self.is_up() {
            return Err(NotAppended::Away);
        }
        let wanted = self.config(topic, keep);
        match self.jetstream.get_stream(&wanted.name).await {
            Ok(stream) => self.in_line(topic, stream, wanted).await.map(Known::of),
            Err(error) if is_missing(&error) => Ok(Known::NONE),
            Err(error) => {
                self.complain(topic, &error.to_string());
                Err(NotAppended::Away)
            }
        }
    }

    /// A stream that keeps what it should, or what it did before where NATS refuses to change it.
    async fn in_line(&self, topic: &Topic, stream: Stream, wanted: Config) -> Result<Stream, NotAppended> {
        let is = &stream.cached_info().config;
        if is_in_line(is, &wanted) {
            return Ok(stream);
        }
        // Where it is kept does not change.
        let changed = Config { storage: is.storage, ..wanted };
        match self.jetstream.update_stream(&changed).await {
            Ok(_) => self.jetstream.get_stream(&changed.name).await.map_err(|_| NotAppended::Away),
            Err(error) => {
                self.complain(topic, &error.to_string());
                Ok(stream)
            }
        }
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
            Err(_) => Err(Found::Away),
        };
        match found {
            Ok(found) => {
                let cursor = known.cursor(offset);
                Found::Message(Box::new(self.stored(topic, cursor, &found.payload, Some(&found.headers))))
            }
            Err(not) => not,
        }
    }

    /// A message as a shard is given it. One that did not come from a node is a message all the same: it has its place.
    pub(super) fn stored(
        &self,
        topic: &Topic,
        cursor: Cursor,
        payload: &[u8],
        headers: Option<&async_nats::HeaderMap>,
    ) -> Stored {
        let message = envelope(headers).and_then(|envelope| envelope.message(self.node, topic, payload));
        let mut message = message.unwrap_or_else(|| foreign(topic, payload, self.unix_ms()));
        place(&mut message, cursor);
        let key = headers.and_then(|headers| headers.get(async_nats::header::NATS_MESSAGE_ID));
        Stored { message, key: key.and_then(|key| read_key(key.as_str())).map(Arc::from) }
    }

    fn complain(&self, topic: &Topic, why: &str) {
        if self.may_complain() {
            tracing::warn!(%topic, why, "NATS does not keep a durable topic as it should");
        }
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
