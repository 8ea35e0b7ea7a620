//! The past of durable topics, put together again from the segments of a journal.
//!
//! Segments are read in their order. A topic's messages follow each other; where some are missing, because a segment was
//! given up or repaired, what was before the gap is left out: a past with a hole would hide it from those who resume.
//! What was written later counts: another epoch is another past, whichever is greater. Records of a place that a topic has
//! passed already in the same one are passed over.
//!
//! Where something is lost, a hole, the last messages of a topic may be in it. Those who have heard them must not take what
//! follows for what they know, so such a topic is [written again](Replay::renewal) under a newer epoch.

mod pasts;

use std::hash::Hash;

use hashbrown::Equivalent;

use self::pasts::{Past, Pasts};
use super::census::{Census, Entry};
use super::record::{Content, Place, Record};
use super::segment::{BadHeader, End, FIRST_BATCH, HEADER_BYTES, Header, Scan};
use crate::config::TopicRules;
use crate::hub::topics::Legacy;
use crate::message::{Cursor, Epoch, Offset, Topic};

/// A name that topics are found by, without making one.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Name<'a>(pub(super) &'a str);

impl Equivalent<Topic> for Name<'_> {
    fn equivalent(&self, topic: &Topic) -> bool {
        self.0 == topic.as_str()
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
    pasts: Pasts,
    census: Census,
    rules: &'a TopicRules,
    now_ms: u64,
    /// Holes so far.
    holes: u32,
}

impl<'a> Replay<'a> {
    /// Nothing yet. The rules say how much is kept of each topic, and of all; `now_ms` is Unix time.
    #[must_use]
    pub fn new(rules: &'a TopicRules, now_ms: u64) -> Self {
        let pasts = Pasts::new(rules.history_bytes_total_max);
        Self { pasts, census: Census::default(), rules, now_ms, holes: 0 }
    }

    /// Reads the next segment. `length` is how much of it was safe on the disk, where that is known. Without it, it is the
    /// last one, which may end with a torn commit.
    ///
    /// # Errors
    /// When something in it is wrong. [`salvage`] finds what is not.
    pub fn segment(&mut self, bytes: &[u8], number: u64, length: Option<u64>) -> Result<Outcome, Corrupt> {
        self.read(bytes, number, length, &[])
    }

    /// The same with what could be read of one.
    ///
    /// # Errors
    /// None: what was salvaged is right.
    pub fn salvaged(&mut self, salvaged: &Salvaged, number: u64) -> Result<Outcome, Corrupt> {
        let length = salvaged.bytes.len() as u64;
        self.read(&salvaged.bytes, number, Some(length), &salvaged.breaks)
    }

    /// Something is lost between what was read and what is read next.
    pub const fn miss(&mut self) {
        self.holes = self.holes.saturating_add(1);
    }

    fn read(&mut self, bytes: &[u8], number: u64, length: Option<u64>, breaks: &[u64]) -> Result<Outcome, Corrupt> {
        self.census.begin(&Header::read(bytes, number)?);
        let before = self.holes;
        let mut outcome = Outcome::default();
        let mut scan = Scan::new(good(bytes, length), number);
        loop {
            let passed = breaks.partition_point(|&at| at <= scan.position());
            self.holes = before.saturating_add(u32::try_from(passed).unwrap_or(u32::MAX));
            let Some(record) = scan.next() else { break };
            outcome.records += 1;
            outcome.messages += u64::from(record.content != Content::Cursor);
            self.take(&record, number);
        }
        outcome.end = scan.position();
        outcome.torn = ended(&scan, bytes, length)?;
        self.census.grow(number, outcome.end);
        Ok(outcome)
    }

    fn take(&mut self, record: &Record<'_>, segment: u64) {
        let Some(key) = self.pasts.key(record, self.rules) else { return };
        let past = self.pasts.past(key);
        let (was, is) = (past.cursor, record.cursor);
        let is_message = record.content != Content::Cursor;
        let is_passed = is.offset < was.offset || (is == was && is_message);
        if is.epoch == was.epoch && is_passed {
            return;
        }
        (past.cursor, past.time_ms) = (is, record.time_ms);
        // A place that is written again may come behind a message that was on its way just then. One of another epoch does not.
        if is_message || is.epoch != was.epoch {
            past.holes = self.holes;
        }
        let (rule, topic) = (past.rule, past.topic.clone());
        if !is_message || was.epoch != is.epoch || was.offset.0.checked_add(1) != Some(is.offset.0) {
            self.pasts.clear(key);
        }
        if let (Content::Message { key: name, .. }, Some(message)) = (record.content, record.message(&topic)) {
            let keep = &self.rules.get(rule).history;
            let age_ms = u64::try_from(keep.age_max.as_millis()).unwrap_or(u64::MAX);
            self.pasts.push(key, message, name, keep, self.now_ms.saturating_sub(age_ms));
        }
        let kept = self.pasts.past(key).kept();
        self.census.note(segment, record.topic, Entry::of(record), kept);
    }

    /// The newest epoch of any topic so far.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.census.epoch()
    }

    /// The next segment, under this header, to be read behind all others: it has topics whose last messages may be lost, with
    /// what is kept of them, under the header's epoch. About so many bytes, and no topic is in two of them: so each that is
    /// there has all of its topics. `None` when there is no such topic left.
    #[must_use]
    pub fn renewal(&self, header: Header, bytes_max: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; HEADER_BYTES];
        let is_lost = |past: &&Past| past.holes < self.holes && past.cursor.epoch != header.epoch;
        for past in self.pasts.all().iter().filter(is_lost) {
            if out.len() >= bytes_max {
                break;
            }
            renew(past, &header, &mut out);
        }
        let length = out.len() as u64;
        out[..HEADER_BYTES].copy_from_slice(&Header { length, ..header }.to_bytes());
        (out.len() > HEADER_BYTES).then_some(out)
    }

    /// What was found.
    #[must_use]
    pub fn finish(mut self) -> Found {
        // Of some the oldest went after their last record was noted.
        for past in self.pasts.all() {
            if let Some(offset) = past.kept().0.checked_sub(1) {
                self.census.forget(&past.topic, Cursor { offset: Offset(offset), ..past.cursor });
            }
        }
        Found { topics: self.pasts.legacies(self.now_ms), epoch: self.census.epoch(), census: self.census }
    }
}

/// Writes a topic again, under another epoch.
fn renew(past: &Past, header: &Header, out: &mut Vec<u8>) {
    let mut write = |record: Record<'_>| {
        let place = Place { segment: header.number, position: out.len() as u64 };
        let cursor = Cursor { epoch: header.epoch, ..record.cursor };
        Record { batch: FIRST_BATCH, cursor, ..record }.write(place, out);
    };
    past.messages().for_each(|(message, key)| write(Record::of(message, key)));
    if past.messages().len() == 0 {
        write(Record::of_cursor(past.topic.as_str(), past.cursor, past.time_ms));
    }
}

/// Looks whether a segment is as it was written, and reads no more than that. See [`Replay::segment`].
///
/// # Errors
/// When it is not.
pub fn check(bytes: &[u8], number: u64, length: Option<u64>) -> Result<(), Corrupt> {
    Header::read(bytes, number)?;
    let mut scan = Scan::new(good(bytes, length), number);
    scan.by_ref().for_each(drop);
    ended(&scan, bytes, length).map(drop)
}

/// What a segment has of what was safe on the disk.
fn good(bytes: &[u8], length: Option<u64>) -> &[u8] {
    &bytes[..known(bytes, length).min(bytes.len())]
}

/// How a segment ends in which nothing more can be read: with so many bytes of a commit that is torn.
fn ended(scan: &Scan<'_>, bytes: &[u8], length: Option<u64>) -> Result<u64, Corrupt> {
    let from = scan.position();
    let is_whole = known(bytes, length) as u64 == from;
    match scan.end(length.is_none()) {
        End::Clean if length.is_none() || is_whole => Ok(0),
        End::Torn => Ok((bytes.len() as u64).saturating_sub(from)),
        End::Corrupt { next } => Err(Corrupt::Records { from, to: next }),
        // Shorter than it was, or zeros where records were.
        End::Clean => Err(Corrupt::Records { from, to: None }),
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
    /// Where those were, in `bytes`.
    pub breaks: Vec<u64>,
    /// Where the segment ended, with what could not be read.
    pub end: u64,
}

impl Salvaged {
    /// Bytes that could not be read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.holes.iter().map(|(from, to)| to - from).sum()
    }

    /// Nothing could be read from here to there.
    fn lose(&mut self, from: u64, to: u64) {
        if to > from {
            self.holes.push((from, to));
            self.breaks.push(self.bytes.len() as u64);
        }
    }
}

/// Writes a segment anew with what can be read of it, under a header that fits it in behind another one: `header` says what
/// its own does not any more.
///
/// An end that may be torn counts as a hole: where something else is wrong, nobody knows that it is not.
#[must_use]
pub fn salvage(bytes: &[u8], length: Option<u64>, header: Header) -> Salvaged {
    let known = known(bytes, length) as u64;
    let mut salvaged = Salvaged { bytes: vec![0; HEADER_BYTES], ..Salvaged::default() };
    let mut scan = Scan::new(good(bytes, length), header.number);
    salvaged.end = loop {
        for record in scan.by_ref() {
            let place = Place { segment: header.number, position: salvaged.bytes.len() as u64 };
            Record { batch: FIRST_BATCH, ..record }.write(place, &mut salvaged.bytes);
            salvaged.records += 1;
        }
        let from = scan.position();
        let (to, is_last) = match scan.end(length.is_none()) {
            End::Corrupt { next: Some(next) } => (next, false),
            End::Clean if length.is_none() => (from, true),
            End::Corrupt { next: None } | End::Torn | End::Clean => (known, true),
        };
        salvaged.lose(from, to);
        if is_last {
            break to;
        }
        scan.skip_to(to);
    };
    let length = salvaged.bytes.len() as u64;
    salvaged.bytes[..HEADER_BYTES].copy_from_slice(&Header { length, ..header }.to_bytes());
    salvaged
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
