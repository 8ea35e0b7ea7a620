//! The past of durable topics, put together again from the segments of a journal.
//!
//! Segments are read in their order. A topic's messages follow each other; where some are missing, because a segment was
//! given up or repaired, what was before the gap is left out: a past with a hole would hide it from those who resume.
//! What was written later counts: another epoch is another past, whichever is greater. Records of a place that a topic has
//! passed already in the same one are passed over.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};

use super::census::{Census, Entry};
use super::record::{Content, Place, Record};
use super::segment::{BadHeader, End, FIRST_BATCH, HEADER_BYTES, Header, Scan};
use crate::config::{RuleKey, TopicRules};
use crate::hub::topics::{Left, Legacy};
use crate::message::{Cursor, Epoch, Message, Offset, Topic};

/// A name that topics are found by, without making one.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Name<'a>(pub(super) &'a str);

impl Equivalent<Topic> for Name<'_> {
    fn equivalent(&self, topic: &Topic) -> bool {
        self.0 == topic.as_str()
    }
}

/// One topic as the journal knows it.
#[derive(Debug)]
struct Replayed {
    /// How far it has come.
    cursor: Cursor,
    /// Its messages and their idempotency keys, without a gap, up to the cursor; no more than its rule keeps.
    messages: VecDeque<(Message, Option<Arc<str>>)>,
    bytes: usize,
    rule: RuleKey,
}

impl Replayed {
    fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }

    fn push(&mut self, message: Message, key: Option<&str>) {
        self.bytes += message.memory();
        self.messages.push_back((message, key.map(Arc::from)));
    }

    fn drop_oldest(&mut self) {
        if let Some((message, _)) = self.messages.pop_front() {
            self.bytes -= message.memory();
        }
    }
}

/// What is wrong in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// Its beginning.
    #[error("{0}")]
    Header(#[from] BadHeader),
    /// What lies between two positions was safe on the disk once, and is not what was written.
    #[error("what is at position {from} is not what was written; {}", next(*to))]
    Records {
        /// The first byte.
        from: u64,
        /// Where records go on, if they do.
        to: Option<u64>,
    },
}

fn next(to: Option<u64>) -> String {
    to.map_or_else(|| "nothing behind it can be read".to_owned(), |to| format!("records go on at {to}"))
}

/// How a segment was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Records in it.
    pub records: u64,
    /// Messages among them.
    pub messages: u64,
    /// Up to where it is good.
    pub end: u64,
    /// Bytes of a commit that did not reach the disk whole.
    pub torn: u64,
}

/// The topics that have been found so far.
#[derive(Debug)]
pub struct Replay<'a> {
    topics: HashMap<Topic, Replayed>,
    census: Census,
    rules: &'a TopicRules,
    now_ms: u64,
}

impl<'a> Replay<'a> {
    /// Nothing yet. The rules say how much of each topic is kept; `now_ms` is Unix time.
    #[must_use]
    pub fn new(rules: &'a TopicRules, now_ms: u64) -> Self {
        Self { topics: HashMap::new(), census: Census::default(), rules, now_ms }
    }

    /// Reads the next segment. `length` is how much of it was safe on the disk, where that is known. Without it, it is the
    /// last one, which may end with a torn commit.
    ///
    /// # Errors
    /// When something in it is wrong. [`salvage`] finds what is not.
    pub fn segment(&mut self, bytes: &[u8], number: u64, length: Option<u64>) -> Result<Outcome, Corrupt> {
        self.census.begin(&Header::read(bytes, number)?);
        let known = known(bytes, length);
        let whole = &bytes[..known.min(bytes.len())];
        let mut outcome = Outcome::default();
        let mut scan = Scan::new(whole, number);
        for record in scan.by_ref() {
            outcome.records += 1;
            outcome.messages += u64::from(record.content != Content::Cursor);
            self.take(&record, number);
        }
        outcome.end = scan.position();
        let rest = (whole.len() as u64).saturating_sub(scan.position());
        match scan.end(length.is_none()) {
            End::Clean if length.is_none() || (rest == 0 && known == whole.len()) => {}
            End::Torn => outcome.torn = rest,
            End::Corrupt { next } => return Err(Corrupt::Records { from: scan.position(), to: next }),
            // Shorter than it was, or zeros where records were.
            End::Clean => return Err(Corrupt::Records { from: scan.position(), to: None }),
        }
        self.census.grow(number, outcome.end);
        Ok(outcome)
    }

    fn take(&mut self, record: &Record<'_>, segment: u64) {
        let Some(replayed) = self.topic(record) else { return };
        let (was, is) = (replayed.cursor, record.cursor);
        let is_passed = is.offset < was.offset || (is == was && record.content != Content::Cursor);
        if is.epoch == was.epoch && is_passed {
            return;
        }
        replayed.cursor = is;
        if was.epoch != is.epoch || was.offset.0.checked_add(1) != Some(is.offset.0) {
            replayed.clear();
        }
        let Content::Message { key, .. } = record.content else {
            replayed.clear();
            let kept = Offset(is.offset.0.saturating_add(1));
            return self.census.note(segment, record.topic, Entry::of(record), kept);
        };
        let (rules, now_ms) = (self.rules, self.now_ms);
        let Some((topic, replayed)) = self.topics.get_key_value_mut(&Name(record.topic)) else { return };
        let Some(message) = record.message(topic) else { return };
        let keep = rules.get(replayed.rule).history;
        replayed.push(message, key);
        let oldest_ms = now_ms.saturating_sub(u64::try_from(keep.age_max.as_millis()).unwrap_or(u64::MAX));
        while replayed.messages.len() > keep.messages_max
            || replayed.bytes > keep.bytes_max
            || replayed.messages.front().is_some_and(|(message, _)| message.time_ms < oldest_ms)
        {
            replayed.drop_oldest();
        }
        let kept = replayed.messages.front().map_or(is.offset.0.saturating_add(1), |(message, _)| message.offset.0);
        self.census.note(segment, record.topic, Entry::of(record), Offset(kept));
    }

    /// The topic of a record, as it stands; a new one stands before it.
    fn topic(&mut self, record: &Record<'_>) -> Option<&mut Replayed> {
        if !self.topics.contains_key(&Name(record.topic)) {
            // The same names as always; only a foreign writer has others.
            let topic = Topic::parse(record.topic.as_bytes(), Topic::BYTES_MAX).ok()?;
            let offset = Offset(record.cursor.offset.0.saturating_sub(1));
            let rule = self.rules.key(record.topic);
            let cursor = Cursor { offset, ..record.cursor };
            self.topics.insert(topic, Replayed { cursor, messages: VecDeque::new(), bytes: 0, rule });
        }
        self.topics.get_mut(&Name(record.topic))
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Found {
        let now_ms = self.now_ms;
        let left = |(message, key): (Message, Option<Arc<str>>)| {
            let age_ms = u32::try_from(now_ms.saturating_sub(message.time_ms)).unwrap_or(u32::MAX);
            Left { message, age_ms, key }
        };
        let legacy = |(topic, replayed): (Topic, Replayed)| Legacy {
            topic,
            cursor: replayed.cursor,
            messages: replayed.messages.into_iter().map(left).collect(),
        };
        let topics = self.topics.into_iter().map(legacy).collect();
        Found { topics, epoch: self.census.epoch(), census: self.census }
    }
}

fn known(bytes: &[u8], length: Option<u64>) -> usize {
    length.map_or(bytes.len(), |length| usize::try_from(length).unwrap_or(usize::MAX))
}

/// What could be read of a segment that is corrupt.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// The segment without the rest.
    pub bytes: Vec<u8>,
    /// Its records.
    pub records: u64,
    /// From where to where nothing could be read. The last one ends where the segment should have.
    pub holes: Vec<(u64, u64)>,
}

impl Salvaged {
    /// Bytes that could not be read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.holes.iter().map(|(from, to)| to - from).sum()
    }
}

/// Writes a segment anew with what can be read of it, under a header that fits it in behind another one: `header` says what
/// its own does not any more.
#[must_use]
pub fn salvage(bytes: &[u8], length: Option<u64>, header: Header) -> Salvaged {
    let known = known(bytes, length);
    let whole = &bytes[..known.min(bytes.len())];
    let mut out = vec![0; HEADER_BYTES];
    let mut salvaged = Salvaged::default();
    let mut scan = Scan::new(whole, header.number);
    loop {
        for record in scan.by_ref() {
            let place = Place { segment: header.number, position: out.len() as u64 };
            Record { batch: FIRST_BATCH, ..record }.write(place, &mut out);
            salvaged.records += 1;
        }
        let from = scan.position();
        match scan.end(length.is_none()) {
            End::Corrupt { next: Some(next) } => {
                salvaged.holes.push((from, next));
                scan.skip_to(next);
            }
            End::Corrupt { next: None } | End::Torn => {
                salvaged.holes.push((from, known as u64));
                break;
            }
            End::Clean => {
                let end = if length.is_some() { known as u64 } else { from };
                salvaged.holes.extend((end > from).then_some((from, end)));
                break;
            }
        }
    }
    let length = out.len() as u64;
    out[..HEADER_BYTES].copy_from_slice(&Header { length, ..header }.to_bytes());
    Salvaged { bytes: out, ..salvaged }
}

/// All that a journal has.
#[derive(Debug)]
pub struct Found {
    /// Topics with their messages, in no order.
    pub topics: Vec<Legacy>,
    /// The newest epoch that there was.
    pub epoch: Epoch,
    /// Which segments are needed for what.
    pub census: Census,
}

#[cfg(test)]
mod tests;
