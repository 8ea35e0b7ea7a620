//! The past of durable topics, put together again from the segments of a journal.
//!
//! Segments are read in their order. A topic's messages follow each other; where some are missing, because a segment was
//! given up or repaired, what was before the gap is left out: a past with a hole would hide it from those who resume.
//! What was written later counts: another epoch is another past, whichever is greater. Records of a place that a topic has
//! passed already in the same one are passed over.

mod pasts;

use std::hash::Hash;

use hashbrown::Equivalent;

use self::pasts::Pasts;
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
}

impl<'a> Replay<'a> {
    /// Nothing yet. The rules say how much is kept of each topic, and of all; `now_ms` is Unix time.
    #[must_use]
    pub fn new(rules: &'a TopicRules, now_ms: u64) -> Self {
        let pasts = Pasts::new(rules.history_bytes_total_max);
        Self { pasts, census: Census::default(), rules, now_ms }
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
        let Some(key) = self.pasts.key(record, self.rules) else { return };
        let past = self.pasts.past(key);
        let (was, is) = (past.cursor, record.cursor);
        let is_message = record.content != Content::Cursor;
        let is_passed = is.offset < was.offset || (is == was && is_message);
        if is.epoch == was.epoch && is_passed {
            return;
        }
        past.cursor = is;
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
