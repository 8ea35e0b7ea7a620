//! Who is in a topic on which node: what nodes whisper of it, as bytes.
//!
//! Each node speaks of its own members alone:
//!
//! ```text
//!   Changes(n)             once a tick, where something has changed; numbers are 1, 2, 3, ... in one life
//!   List(n), in parts      when somebody asks: all as of number n, in the order of ids
//!   Digest(n, count, hash) once a lease: whoever has something else asks
//!   Call                   of one who begins to listen: all say their digests, or lists that are short
//!   Ask(node)              of one node its list
//! ```
//!
//! Whispers may be lost, and come in order else. Who hears a number that does not follow the last, or a digest of something
//! else, asks for the list. All numbers are big-endian:
//!
//! ```text
//!   1 version of this format: 1    1 kind
//!   Changes 1: life 8, number 8, count 8, entries
//!   List    2: life 8, number 8, count 8, part 4, of 4, entries that are there
//!   Digest  3: life 8, number 8, count 8, hash 8
//!   Ask     4: node 8
//!   Call    5
//!   an entry:  flags 1 (1 user, 2 there, 4 named), id length 1, id; there: since 8, connections 4; named: length 1, name
//! ```

use std::sync::Arc;

use super::port::{NodeId, WHISPER_MAX};
use crate::hub::presence::{ID_BYTES_MAX, MemberId, NAME_BYTES_MAX};

/// Which state of a node's members something is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// When the node began to keep them, greater than all before.
    pub life: u64,
    /// Changes since then.
    pub number: u64,
}

/// What can be told of all members at once: equal where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many there are, those included that are on no list.
    pub count: u64,
    /// The sum of the [hashes](Entry::hash) of those on the list.
    pub hash: u64,
}

/// What a node says of one of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is called, where that is another than the id.
    pub name: Option<Arc<str>>,
    /// When its first connection there came, in milliseconds of Unix time.
    pub since_ms: u64,
    /// Its connections there.
    pub connections: u32,
}

/// A member, and what is known of it; `None`: it is not there any more.
pub type Change = (MemberId, Option<Entry>);

/// What nodes whisper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whisper {
    /// Some have changed.
    Changes {
        /// What that makes of the members.
        version: Version,
        /// How many are there now.
        count: u64,
        /// Who has come, or is known otherwise, and who has gone.
        changes: Vec<Change>,
    },
    /// All who are there, in parts.
    List {
        /// As of when.
        version: Version,
        /// How many are there in all.
        count: u64,
        /// Which part: 0, 1, ...
        part: u32,
        /// How many there are.
        of: u32,
        /// The members behind those of the part before, up to the last of these, or all in the last part.
        members: Vec<Change>,
    },
    /// What all are worth.
    Digest {
        /// As of when.
        version: Version,
        /// All of them.
        digest: Digest,
    },
    /// This node is to say all.
    Ask(NodeId),
    /// All nodes are to say what they have.
    Call,
}

/// Bytes that are no whisper of this kind, or of a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a whisper about presence cannot be read")]
pub struct BadWhisper;

const FORMAT: u8 = 1;
/// Bytes before the entries.
const HEAD_BYTES: usize = 2 + 3 * 8 + 2 * 4;
/// Bytes of an entry at most.
const ENTRY_BYTES: usize = 2 + ID_BYTES_MAX + 8 + 4 + 1 + NAME_BYTES_MAX;
/// Bytes of the entries of one whisper at most: some hundred members, which are taken in a tenth of a millisecond.
const ENTRIES_BYTES: usize = 16 * 1024;

const _: () = assert!(HEAD_BYTES + ENTRIES_BYTES <= WHISPER_MAX && ENTRY_BYTES <= ENTRIES_BYTES);

/// Entries in parts that find room in a whisper each; one that is empty where there are none.
#[must_use]
pub fn parts(entries: Vec<Change>) -> Vec<Vec<Change>> {
    let (mut parts, mut bytes): (Vec<Vec<Change>>, _) = (vec![Vec::new()], 0);
    for entry in entries {
        let size = size(&entry);
        match parts.last_mut() {
            Some(part) if bytes + size <= ENTRIES_BYTES => {
                bytes += size;
                part.push(entry);
            }
            _ => {
                bytes = size;
                parts.push(vec![entry]);
            }
        }
    }
    parts
}

/// Bytes of an entry.
fn size((id, entry): &Change) -> usize {
    let name = |entry: &Entry| entry.name.as_ref().map_or(0, |name| 1 + name.len());
    2 + id.text.len() + entry.as_ref().map_or(0, |entry| 12 + name(entry))
}

impl Entry {
    /// A number of a member that most have for their own. Sums of such numbers are compared.
    #[must_use]
    pub fn hash(&self, id: &MemberId) -> u64 {
        // FNV-1a, 64 bit, and SplitMix64's finish (Steele, Lea, Flood 2014).
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut take = |bytes: &[u8]| {
            // An end that no text has.
            for byte in bytes.iter().chain(&[0xff]) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        take(&[u8::from(id.is_user), u8::from(self.name.is_some())]);
        take(id.text.as_bytes());
        take(self.name.as_deref().unwrap_or_default().as_bytes());
        take(&self.since_ms.to_be_bytes());
        take(&self.connections.to_be_bytes());
        hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ hash >> 31
    }
}

fn write_entry((id, entry): &Change, out: &mut Vec<u8>) {
    let name = entry.as_ref().and_then(|entry| entry.name.as_deref());
    out.push(u8::from(id.is_user) | u8::from(entry.is_some()) << 1 | u8::from(name.is_some()) << 2);
    write_text(&id.text, ID_BYTES_MAX, out);
    if let Some(entry) = entry {
        out.extend_from_slice(&entry.since_ms.to_be_bytes());
        out.extend_from_slice(&entry.connections.to_be_bytes());
    }
    name.into_iter().for_each(|name| write_text(name, NAME_BYTES_MAX, out));
}

/// A text, as much of it as there may be.
fn write_text(text: &str, most: usize, out: &mut Vec<u8>) {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    out.push(u8::try_from(end).unwrap_or(0));
    out.extend_from_slice(&text.as_bytes()[..end]);
}

impl Whisper {
    /// Its bytes, no more than [`WHISPER_MAX`] of them where its entries are one of [`parts`].
    #[must_use]
    pub fn encode(&self) -> Box<[u8]> {
        let mut out = vec![FORMAT];
        let open = |kind: u8, version: &Version, count: u64, out: &mut Vec<u8>| {
            out.push(kind);
            for number in [version.life, version.number, count] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        };
        match self {
            Self::Changes { version, count, changes } => {
                open(1, version, *count, &mut out);
                changes.iter().for_each(|change| write_entry(change, &mut out));
            }
            Self::List { version, count, part, of, members } => {
                open(2, version, *count, &mut out);
                out.extend_from_slice(&part.to_be_bytes());
                out.extend_from_slice(&of.to_be_bytes());
                members.iter().for_each(|member| write_entry(member, &mut out));
            }
            Self::Digest { version, digest } => {
                open(3, version, digest.count, &mut out);
                out.extend_from_slice(&digest.hash.to_be_bytes());
            }
            Self::Ask(node) => {
                out.push(4);
                out.extend_from_slice(&node.0.to_be_bytes());
            }
            Self::Call => out.push(5),
        }
        out.into()
    }

    /// Reads bytes that another node has sent.
    ///
    /// # Errors
    /// When they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadWhisper> {
        if bytes.len() > WHISPER_MAX {
            return Err(BadWhisper);
        }
        let mut reader = Reader(bytes);
        if reader.byte()? != FORMAT {
            return Err(BadWhisper);
        }
        let whisper = match reader.byte()? {
            1 => {
                let (version, count) = reader.head()?;
                Self::Changes { version, count, changes: reader.entries()? }
            }
            2 => {
                let (version, count) = reader.head()?;
                let (part, of) = (reader.int()?, reader.int()?);
                let members = reader.entries()?;
                if part >= of || members.iter().any(|(_, entry)| entry.is_none()) {
                    return Err(BadWhisper);
                }
                Self::List { version, count, part, of, members }
            }
            3 => {
                let (version, count) = reader.head()?;
                Self::Digest { version, digest: Digest { count, hash: reader.long()? } }
            }
            4 => Self::Ask(NodeId(reader.long()?)),
            5 => Self::Call,
            _ => return Err(BadWhisper),
        };
        if reader.0.is_empty() { Ok(whisper) } else { Err(BadWhisper) }
    }
}

/// What is left to be read.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, bytes: usize) -> Result<&'b [u8], BadWhisper> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(BadWhisper)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, BadWhisper> {
        self.take(1)?.first().copied().ok_or(BadWhisper)
    }

    fn int(&mut self) -> Result<u32, BadWhisper> {
        Ok(u32::from_be_bytes(*self.take(4)?.first_chunk().ok_or(BadWhisper)?))
    }

    fn long(&mut self) -> Result<u64, BadWhisper> {
        Ok(u64::from_be_bytes(*self.take(8)?.first_chunk().ok_or(BadWhisper)?))
    }

    /// A version and a count.
    fn head(&mut self) -> Result<(Version, u64), BadWhisper> {
        Ok((Version { life: self.long()?, number: self.long()? }, self.long()?))
    }

    fn text(&mut self, most: usize) -> Result<&'b str, BadWhisper> {
        let bytes = usize::from(self.byte()?);
        let text = str::from_utf8(self.take(bytes)?).map_err(|_| BadWhisper)?;
        if bytes <= most { Ok(text) } else { Err(BadWhisper) }
    }

    fn entries(&mut self) -> Result<Vec<Change>, BadWhisper> {
        let mut entries = Vec::new();
        while !self.0.is_empty() {
            let flags = self.byte()?;
            if flags > 7 || flags & 6 == 4 {
                return Err(BadWhisper);
            }
            let id = MemberId { is_user: flags & 1 != 0, text: self.text(ID_BYTES_MAX)?.into() };
            let entry = if flags & 2 == 0 {
                None
            } else {
                let (since_ms, connections) = (self.long()?, self.int()?);
                let name = if flags & 4 == 0 { None } else { Some(self.text(NAME_BYTES_MAX)?.into()) };
                Some(Entry { name, since_ms, connections })
            };
            entries.push((id, entry));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests;
