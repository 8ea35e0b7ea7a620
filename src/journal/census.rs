//! Which segments of a journal are needed for what.
//!
//! A message is needed until its topic says from which one on it keeps them. A topic's place, its newest epoch and offset, is
//! needed when all its messages are gone: it is written again before the segment that has it goes. A place that is older
//! than all messages may be is forgotten; then the headers of segments still have the newest epoch of all, so that nobody
//! takes another past for that topic's.
//!
//! What a segment is still worth is counted for one segment in a step, since one may have many topics: see [`Census::weigh`].
//! One that was not counted since it has grown is worth all that it has. Before a segment goes though it is needed, all are
//! counted: there may be room elsewhere.

mod runs;

use std::collections::BTreeMap;

use hashbrown::HashMap;
use slab::Slab;

use self::runs::{Run, best_join, numbers, runs};
use super::record::{Content, Record};
use super::replay::Name;
use super::segment::{HEADER_BYTES, Header};
use crate::message::{Cursor, Epoch, Offset, Topic};

/// A topic.
#[derive(Debug)]
struct Known {
    name: Topic,
    /// Its newest record.
    cursor: Cursor,
    time_ms: u64,
    /// The segment of that.
    home: u64,
    /// The oldest message of its epoch that is needed.
    kept: Offset,
}

/// What a segment has of a topic, of the newest epoch that is there.
#[derive(Clone, Copy, Debug)]
struct Share {
    epoch: Epoch,
    first: Offset,
    last: Offset,
    bytes: u64,
}

/// A record as the census knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The topic's place.
    pub cursor: Cursor,
    /// The message's time.
    pub time_ms: u64,
    /// Bytes of the record.
    pub bytes: u64,
    /// Whether it is a message, not a mere place.
    pub is_message: bool,
}

impl Entry {
    /// Of a record.
    #[must_use]
    pub fn of(record: &Record<'_>) -> Self {
        Self {
            cursor: record.cursor,
            time_ms: record.time_ms,
            bytes: record.size() as u64,
            is_message: record.content != Content::Cursor,
        }
    }
}

#[derive(Debug, Default)]
struct Sheet {
    header: Header,
    /// Bytes of the file that are good.
    bytes: u64,
    /// The newest record's time.
    newest_ms: u64,
    shares: HashMap<u32, Share>,
    /// Until then it is in no join, in Unix milliseconds: one failed.
    barred_until_ms: u64,
    /// Bytes that were still needed when they were counted last; 0: not counted since it has grown.
    live: u64,
}

/// What may be kept on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes from which on a segment is followed by another one.
    pub segment_bytes: u64,
    /// Bytes of all segments.
    pub bytes_max: u64,
    /// Age from which on neither messages nor places are needed, in milliseconds.
    pub age_max_ms: u64,
}

/// A change that makes the journal smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This segment, the oldest one, goes: nothing in it is needed, or it is too old.
    Remove(u64),
    /// This segment, the oldest one, goes though messages in it are needed: what is needed is too much.
    Lose(u64),
    /// These neighbours are put together in the last one of them.
    Join(Vec<u64>),
}

/// A topic's place, to be written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Its name.
    pub topic: Topic,
    /// The place.
    pub cursor: Cursor,
    /// The newest message's time.
    pub time_ms: u64,
}

/// Segments, topics, and what is where.
#[derive(Debug, Default)]
pub struct Census {
    topics: Slab<Known>,
    names: HashMap<Topic, u32>,
    segments: BTreeMap<u64, Sheet>,
    epoch: Epoch,
    /// The segment that was weighed last.
    weighed: u64,
}

impl Census {
    /// See [`Census::bar`].
    pub const CORRUPT: u64 = u64::MAX;
    /// Neighbours of which each is smaller than a quarter of a segment are joined when they are so many.
    const SMALL_MAX: usize = 8;
    /// Neighbours that are looked at together.
    const JOIN_MAX: usize = 64;
    /// The part of a segment that a join has to free where there is too much: it writes no more than one of them, or the one
    /// that there is, so that each byte that is freed costs no more than about so many.
    const FREED: u64 = 16;

    /// A segment begins.
    pub fn begin(&mut self, header: &Header) {
        self.epoch = self.epoch.max(header.epoch);
        let bytes = HEADER_BYTES as u64;
        let newest_ms = header.created_ms;
        self.segments.insert(header.number, Sheet { header: *header, bytes, newest_ms, ..Sheet::default() });
    }

    /// So much of it is good.
    pub fn grow(&mut self, segment: u64, bytes: u64) {
        if let Some(sheet) = self.segments.get_mut(&segment) {
            sheet.bytes = bytes;
            sheet.live = 0;
        }
    }

    /// A record is in it, and from `kept` on the topic's messages are needed.
    pub fn note(&mut self, segment: u64, name: &str, entry: Entry, kept: Offset) {
        let Some(key) = self.key(name) else { return };
        self.epoch = self.epoch.max(entry.cursor.epoch);
        let known = &mut self.topics[key as usize];
        known.kept = if known.cursor.epoch == entry.cursor.epoch { known.kept.max(kept) } else { kept };
        (known.cursor, known.time_ms, known.home) = (entry.cursor, entry.time_ms, segment);
        if let Some(sheet) = self.segments.get_mut(&segment) {
            sheet.add(key, entry);
        }
    }

    /// A topic's messages up to this place are not needed any more. Says whether that is to be written down: the past that the
    /// topic has here has ended.
    pub fn forget(&mut self, topic: &Topic, cursor: Cursor) -> bool {
        let Some(&key) = self.names.get(topic) else { return false };
        let known = &mut self.topics[key as usize];
        if known.cursor.epoch == cursor.epoch {
            known.kept = known.kept.max(Offset(cursor.offset.0.saturating_add(1)));
        }
        known.cursor.epoch != cursor.epoch
    }

    fn key(&mut self, name: &str) -> Option<u32> {
        if let Some(&key) = self.names.get(&Name(name)) {
            return Some(key);
        }
        let name = Topic::parse(name.as_bytes(), Topic::BYTES_MAX).ok()?;
        let none = Known { name: name.clone(), cursor: Cursor::default(), time_ms: 0, home: 0, kept: Offset(0) };
        let key = u32::try_from(self.topics.insert(none)).ok()?;
        self.names.insert(name, key);
        Some(key)
    }

    /// The topic of this name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.names.get_key_value(&Name(name)).map(|(topic, _)| topic)
    }

    /// The newest epoch of any topic so far.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Topics whose places are known.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|sheet| sheet.bytes).sum()
    }

    /// The newest segment and how much of it is good.
    #[must_use]
    pub fn last(&self) -> Option<(u64, u64)> {
        self.segments.last_key_value().map(|(number, sheet)| (*number, sheet.bytes))
    }

    /// A segment's header.
    #[must_use]
    pub fn header(&self, segment: u64) -> Option<Header> {
        self.segments.get(&segment).map(|sheet| sheet.header)
    }

    /// Bytes of a segment that are good.
    #[must_use]
    pub fn length(&self, segment: u64) -> u64 {
        self.segments.get(&segment).map_or(0, |sheet| sheet.bytes)
    }

    /// A join of this segment failed: it is in none until then, in Unix milliseconds. [`Census::CORRUPT`]: it is not what was
    /// written.
    pub fn bar(&mut self, segment: u64, until_ms: u64) {
        if let Some(sheet) = self.segments.get_mut(&segment) {
            sheet.barred_until_ms = until_ms;
        }
    }

    /// Joins that failed may be tried again now: there may be room.
    pub fn unbar(&mut self) {
        let failed = self.segments.values_mut().filter(|sheet| !sheet.is_corrupt());
        failed.for_each(|sheet| sheet.barred_until_ms = 0);
    }

    /// Segments that are not what was written.
    #[must_use]
    pub fn corrupt(&self) -> usize {
        self.segments.values().filter(|sheet| sheet.is_corrupt()).count()
    }

    /// Whether a record of an older segment is still needed.
    #[must_use]
    pub fn needs(&self, record: &Record<'_>) -> bool {
        let known = self.names.get(&Name(record.topic)).map(|&key| &self.topics[key as usize]);
        known.is_some_and(|known| {
            record.content != Content::Cursor
                && known.cursor.epoch == record.cursor.epoch
                && record.cursor.offset >= known.kept
        })
    }

    /// The numbers of all segments.
    #[must_use]
    pub fn numbers(&self) -> Vec<u64> {
        self.segments.keys().copied().collect()
    }

    /// Counts what the next one of the segments is still worth.
    pub fn weigh_next(&mut self) {
        let next = self.segments.range(self.weighed.saturating_add(1)..).next().or(self.segments.first_key_value());
        let Some(number) = next.map(|(number, _)| *number) else { return };
        self.weighed = number;
        self.weigh(number);
    }

    /// Counts what segments are worth that have grown since that was counted: few of them.
    pub fn weigh_grown(&mut self) {
        let grown = self.segments.iter().filter(|(_, sheet)| sheet.live == 0).map(|(number, _)| *number);
        grown.collect::<Vec<_>>().into_iter().for_each(|number| self.weigh(number));
    }

    /// Counts what a segment is still worth.
    pub fn weigh(&mut self, segment: u64) {
        let Some(sheet) = self.segments.get_mut(&segment) else { return };
        let topics = &self.topics;
        let worth =
            |(key, share): (&u32, &Share)| topics.get(*key as usize).map_or(0, |known| known.worth(*share, segment));
        sheet.live = HEADER_BYTES as u64 + sheet.shares.iter().map(worth).sum::<u64>();
    }

    /// Whether there are more bytes than there may be.
    #[must_use]
    pub fn is_over(&self, bounds: &Bounds) -> bool {
        self.bytes() > bounds.bytes_max
    }

    /// How the journal can be made smaller now, if it can. The newest segment stays as it is.
    #[must_use]
    pub fn next_step(&self, bounds: &Bounds, now_ms: u64) -> Option<Step> {
        let (&newest, _) = self.segments.last_key_value()?;
        let (&oldest, sheet) = self.segments.first_key_value().filter(|(number, _)| **number != newest)?;
        let is_old = now_ms.saturating_sub(sheet.newest_ms) > bounds.age_max_ms;
        if is_old || !self.is_needed(oldest) {
            return Some(Step::Remove(oldest));
        }
        let is_over = self.is_over(bounds);
        let join = if is_over { best_join(&self.closed(), u64::MAX, bounds, now_ms) } else { None };
        let join = join.or_else(|| self.worth_joining(bounds, now_ms));
        join.map(Step::Join).or_else(|| (is_over && self.worth() > bounds.bytes_max).then_some(Step::Lose(oldest)))
    }

    /// How it can be made smaller on a disk that is full, while nothing is written to it: by what takes no more than `room` bytes
    /// before it frees any. Then the newest segment has ended too. It is never removed: its header has the newest epoch.
    #[must_use]
    pub fn next_step_within(&self, room: u64, bounds: &Bounds, now_ms: u64) -> Option<Step> {
        let (&newest, _) = self.segments.last_key_value()?;
        let (&oldest, sheet) = self.segments.first_key_value()?;
        let is_dead = || now_ms.saturating_sub(sheet.newest_ms) > bounds.age_max_ms || !self.is_needed(oldest);
        if oldest != newest && is_dead() && self.places(&[oldest], true, bounds, now_ms).is_empty() {
            return Some(Step::Remove(oldest));
        }
        let all: Vec<_> = self.segments.iter().map(|(number, sheet)| (*number, sheet)).collect();
        best_join(&all, room, bounds, now_ms).map(Step::Join)
    }

    /// Bytes that are needed. Joins come down to about this.
    fn worth(&self) -> u64 {
        self.segments.values().map(Sheet::worth).sum()
    }

    /// Whether any message of a segment is needed. Places can be written again.
    fn is_needed(&self, segment: u64) -> bool {
        let Some(sheet) = self.segments.get(&segment) else { return false };
        sheet.shares.iter().any(|(key, share)| self.topics.get(*key as usize).is_some_and(|known| known.keeps(*share)))
    }

    /// Neighbours that are mostly dead, or small.
    fn worth_joining(&self, bounds: &Bounds, now_ms: u64) -> Option<Vec<u64>> {
        let closed = self.closed();
        (0..closed.len()).find_map(|from| {
            let runs = runs(&closed[from..], bounds, now_ms);
            let is_worth = |run: &Run| run.is_dead(bounds) || run.small >= Self::SMALL_MAX;
            runs.filter(is_worth).last().map(|run| numbers(&closed[from..from + run.count]))
        })
    }

    /// All segments but the newest one.
    fn closed(&self) -> Vec<(u64, &Sheet)> {
        let closed = self.segments.len().saturating_sub(1);
        self.segments.iter().take(closed).map(|(number, sheet)| (*number, sheet)).collect()
    }

    /// The places that are in these segments and nowhere behind them, but those that are too old. `with_messages` says
    /// whether those count whose newest message is needed: where that stays, it says the place itself.
    #[must_use]
    pub fn places(&self, segments: &[u64], with_messages: bool, bounds: &Bounds, now_ms: u64) -> Vec<Stand> {
        let mut stands = Vec::new();
        for (segment, sheet) in segments.iter().filter_map(|segment| self.segments.get_key_value(segment)) {
            let known = sheet.shares.keys().filter_map(|&key| self.topics.get(key as usize));
            let is_here = |known: &&Known| {
                known.home == *segment
                    && now_ms.saturating_sub(known.time_ms) <= bounds.age_max_ms
                    && (with_messages || known.cursor.offset < known.kept)
            };
            stands.extend(known.filter(is_here).map(Known::stand));
        }
        stands
    }

    /// Whether a topic is still where it stood.
    #[must_use]
    pub fn stands(&self, stand: &Stand) -> bool {
        let key = self.names.get(&stand.topic);
        key.is_some_and(|&key| self.topics[key as usize].cursor == stand.cursor)
    }

    /// Neighbours have been put together in the last one of them, which has these records now.
    pub fn join(&mut self, segments: &[u64], header: &Header, records: &[(Topic, Entry)]) {
        let mut sheet = Sheet { header: *header, bytes: header.length, ..Sheet::default() };
        for (topic, entry) in records {
            let Some(&key) = self.names.get(topic) else { continue };
            sheet.add(key, *entry);
            let known = &mut self.topics[key as usize];
            if segments.contains(&known.home) {
                known.home = header.number;
            }
        }
        for segment in segments {
            let Some(old) = self.segments.remove(segment) else { continue };
            let gone = old.shares.into_keys().filter(|key| !sheet.shares.contains_key(key));
            gone.for_each(|key| self.drop_if_home(key, *segment));
        }
        self.segments.insert(header.number, sheet);
    }

    /// A segment is gone, and with it the topics that have nothing elsewhere.
    pub fn remove(&mut self, segment: u64) {
        let Some(sheet) = self.segments.remove(&segment) else { return };
        sheet.shares.into_keys().for_each(|key| self.drop_if_home(key, segment));
    }

    fn drop_if_home(&mut self, key: u32, segment: u64) {
        if self.topics.get(key as usize).is_some_and(|known| known.home == segment) {
            let known = self.topics.remove(key as usize);
            self.names.remove(&known.name);
            // Its number is another topic's from now on.
            self.segments.values_mut().for_each(|sheet| {
                sheet.shares.remove(&key);
            });
        }
    }
}

impl Sheet {
    fn is_corrupt(&self) -> bool {
        self.barred_until_ms == Census::CORRUPT
    }

    /// Bytes that are needed. Until it has been weighed, all; and of one that can never be written anew.
    fn worth(&self) -> u64 {
        if self.live == 0 || self.is_corrupt() { self.bytes } else { self.live.min(self.bytes) }
    }

    fn add(&mut self, key: u32, entry: Entry) {
        // A clock that was set back does not make a segment older.
        self.newest_ms = self.newest_ms.max(entry.time_ms);
        let (epoch, offset) = (entry.cursor.epoch, entry.cursor.offset);
        let none = Share { epoch, first: offset, last: offset, bytes: 0 };
        let share = self.shares.entry(key).or_insert(none);
        if share.epoch != epoch || share.bytes == 0 {
            *share = none;
        }
        if entry.is_message {
            share.last = offset;
            share.bytes += entry.bytes;
        }
    }
}

impl Known {
    fn stand(&self) -> Stand {
        Stand { topic: self.name.clone(), cursor: self.cursor, time_ms: self.time_ms }
    }

    /// Whether any message of a share is needed.
    fn keeps(&self, share: Share) -> bool {
        share.bytes > 0 && share.epoch == self.cursor.epoch && share.last >= self.kept
    }

    /// Bytes of a share that are needed, about: its messages are taken for equally long. A place is worth its record.
    fn worth(&self, share: Share, segment: u64) -> u64 {
        if self.keeps(share) {
            let (first, last) = (share.first.0, share.last.0);
            let count = |from: u64| last.saturating_sub(from).saturating_add(1);
            let (all, kept) = (count(first), count(first.max(self.kept.0)));
            let worth = u128::from(share.bytes) * u128::from(kept) / u128::from(all);
            return u64::try_from(worth).unwrap_or(share.bytes);
        }
        if self.home == segment { self.place_bytes() } else { 0 }
    }

    fn place_bytes(&self) -> u64 {
        Record::of_cursor(self.name.as_str(), self.cursor, self.time_ms).size() as u64
    }
}

#[cfg(test)]
mod tests;
