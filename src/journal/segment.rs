//! One file of a journal: a header, then records.
//!
//! ```text
//!  0  magic    8     "HOLDLINE"
//!  8  version  u32   1
//! 12  checksum u32   CRC-32 of the 48 bytes behind it
//! 16  number   u64   of the segment, as in the file's name
//! 24  created  u64   milliseconds of Unix time
//! 32  previous u64   number of the segment before it, 0 for none
//! 40  before   u64   bytes of that one that were safe on the disk when this one was begun
//! 48  length   u64   bytes of this segment where they are known, because it was written anew; else 0
//! 56  epoch    u64   the newest one of any topic by then
//! 64  records
//! ```
//!
//! The segments are a [chain](super::chain). What lies between a segment's number and that of the one before it was put
//! together in it.
//!
//! Records are written in commits: one write, one `fdatasync`, and only then the next. Each record says where its commit
//! begins. So a place that cannot be read is the torn end of a commit that nobody was told of, unless a later commit
//! follows: that one was begun when this place was safe on the disk, and what is wrong there is corruption.

use super::record::{HEADER_BYTES as RECORD_BYTES, NoRecord, Place, Record};
use crate::message::Epoch;

/// Bytes in front of the first record.
pub const HEADER_BYTES: usize = 64;
/// Where the first commit begins.
pub const FIRST_BATCH: u32 = 64;
const _: () = assert!(FIRST_BATCH as usize == HEADER_BYTES);
const MAGIC: &[u8; 8] = b"HOLDLINE";
const VERSION: u32 = 1;

/// What is wrong with the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// Fewer bytes than a header has.
    #[error("it ends within its header")]
    Short,
    /// Some other file.
    #[error("it is no journal")]
    Foreign,
    /// Of a later program.
    #[error("it has version {0}, and this program reads version 1")]
    Version(u32),
    /// Not what was written.
    #[error("the checksum of its header is wrong")]
    Checksum,
    /// A file under another one's name.
    #[error("it is number {0} inside")]
    Number(u64),
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The segment's number, as in its file's name.
    pub number: u64,
    /// When it was begun, milliseconds of Unix time.
    pub created_ms: u64,
    /// The number of the segment before it, 0 for none.
    pub previous: u64,
    /// Bytes of that one that were safe on the disk by then. What follows them there was refused.
    pub before: u64,
    /// Bytes of this one where they were known when it was begun; else 0.
    pub length: u64,
    /// The newest epoch of any topic by then: whatever is forgotten, no topic has it again.
    pub epoch: Epoch,
}

impl Header {
    /// As it stands in the file.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let numbers = [self.number, self.created_ms, self.previous, self.before, self.length, self.epoch.0];
        for (number, at) in numbers.into_iter().zip((16..).step_by(8)) {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = crc32fast::hash(&bytes[16..]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads and checks the header of the segment of this number.
    ///
    /// # Errors
    /// When it is none, or another one's.
    pub fn read(bytes: &[u8], number: u64) -> Result<Self, BadHeader> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            let is_ours = bytes.starts_with(&MAGIC[..bytes.len().min(8)]);
            return Err(if is_ours { BadHeader::Short } else { BadHeader::Foreign });
        };
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if &header[..8] != MAGIC {
            return Err(BadHeader::Foreign);
        }
        if word(8) != VERSION {
            return Err(BadHeader::Version(word(8)));
        }
        if word(12) != crc32fast::hash(&header[16..]) {
            return Err(BadHeader::Checksum);
        }
        let (number_inside, created_ms, previous) = (long(16), long(24), long(32));
        let (before, length, epoch) = (long(40), long(48), Epoch(long(56)));
        let header = Self { number: number_inside, created_ms, previous, before, length, epoch };
        if header.number == number { Ok(header) } else { Err(BadHeader::Number(header.number)) }
    }
}

/// How the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the end of the file, or where zeros begin.
    Clean,
    /// With a commit that did not reach the disk whole: nobody was told of it.
    Torn,
    /// Here is something wrong that was safe on the disk once. The next record that can be read is there, if any.
    Corrupt {
        /// The next record's position.
        next: Option<u64>,
    },
}

/// Finds the records of a segment one after the other.
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    bytes: &'a [u8],
    number: u64,
    position: usize,
}

impl<'a> Scan<'a> {
    /// Bytes that are put through the checksum in search of a record, in sizes of the segment: what publishers say could be
    /// made to look like the beginnings of many.
    const SEARCHED_MAX: usize = 16;

    /// Of a segment with a good header.
    #[must_use]
    pub const fn new(bytes: &'a [u8], number: u64) -> Self {
        Self { bytes, number, position: HEADER_BYTES }
    }

    /// Where the next record begins, or should.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position as u64
    }

    /// Goes on at another place.
    pub fn skip_to(&mut self, position: u64) {
        self.position = usize::try_from(position).unwrap_or(usize::MAX).min(self.bytes.len());
    }

    /// Why there are no more records: asked when the iterator has ended. `is_last` says whether the segment is the one
    /// that was written to: all others were whole before the next one was begun.
    #[must_use]
    pub fn end(&self, is_last: bool) -> End {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        if rest.iter().all(|&byte| byte == 0) {
            return End::Clean;
        }
        match self.search(is_last) {
            Search::Found(next) => End::Corrupt { next: Some(next as u64) },
            Search::Nothing if is_last => End::Torn,
            Search::Nothing | Search::GaveUp => End::Corrupt { next: None },
        }
    }

    /// The first record behind here; in the last segment, of a commit that begins behind here.
    fn search(&self, is_last: bool) -> Search {
        let mut left = self.bytes.len().saturating_mul(Self::SEARCHED_MAX);
        let mut found = None;
        for position in self.position + 1..self.bytes.len().saturating_sub(RECORD_BYTES - 1) {
            let Some(length) = self.looks_like(position) else { continue };
            let Some(still) = left.checked_sub(length) else { return Search::GaveUp };
            left = still;
            let Ok(record) = self.read(position) else { continue };
            let first = *found.get_or_insert(position);
            if !is_last || record.batch as usize > self.position {
                return Search::Found(first);
            }
        }
        Search::Nothing
    }

    /// The length of what may be a record, by its numbers alone.
    fn looks_like(&self, position: usize) -> Option<usize> {
        let bytes = &self.bytes[position..];
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let length = number(0);
        let fits = length <= bytes.len() - 8 && length >= RECORD_BYTES - 8;
        let is_one =
            fits && matches!(bytes[12], 1..=3) && bytes[13] > 0 && (HEADER_BYTES..=position).contains(&number(8));
        is_one.then_some(length)
    }

    fn read(&self, position: usize) -> Result<Record<'a>, NoRecord> {
        Record::read(
            self.bytes.get(position..).unwrap_or_default(),
            Place { segment: self.number, position: position as u64 },
        )
    }
}

enum Search {
    Found(usize),
    Nothing,
    GaveUp,
}

impl<'a> Iterator for Scan<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let record = self.read(self.position).ok()?;
        self.position += record.size();
        Some(record)
    }
}

#[cfg(test)]
mod tests;
