//! Who is there: members, their ids and their seats.

use std::sync::Arc;

use super::abroad::There;
use super::notice::Seen;
use crate::cluster::presence::Entry;
use crate::id::ShardId;

/// Bytes of a member's id.
pub const ID_BYTES_MAX: usize = 128;
/// Bytes of a member's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Who a member is. A user's id is what its token or its key says; all others are their connections' own words, and never a
/// user's, whatever they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    /// It is a user.
    pub is_user: bool,
    /// The id among users, or among others.
    pub text: Arc<str>,
}

impl MemberId {
    /// A user's. One that is too long is cut, and told from others with the same beginning by a number behind it.
    #[must_use]
    pub fn user(name: &str) -> Self {
        if name.len() <= ID_BYTES_MAX {
            return Self { is_user: true, text: name.into() };
        }
        // FNV-1a, 64 bit: users are the operator's own.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let end = (0..=ID_BYTES_MAX - 17).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        Self { is_user: true, text: format!("{}~{hash:016x}", &name[..end]).into() }
    }

    /// Somebody else's.
    #[must_use]
    pub fn other(text: &str) -> Self {
        Self { is_user: false, text: text.into() }
    }

    /// As it stands in `after=`: `user:ID` or `member:ID`.
    #[must_use]
    pub fn write(&self) -> String {
        format!("{}:{}", if self.is_user { "user" } else { "member" }, self.text)
    }

    /// What [`MemberId::write`] has written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, text) = text.split_once(':')?;
        match kind {
            "user" => Some(Self { is_user: true, text: text.into() }),
            "member" => Some(Self::other(text)),
            _ => None,
        }
    }
}

/// Who has a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its id.
    pub id: MemberId,
    /// What it is called, where that is another than the id.
    pub name: Option<Arc<str>>,
}

/// A subscription: an index of a connection on a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seat {
    /// The shard.
    pub shard: ShardId,
    /// The connection's place there.
    pub connection: u32,
}

/// What is known of a member: a name, a time and seats here, where it has some, and what other nodes say of theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: Option<Arc<str>>,
    pub(super) since_ms: u64,
    pub(super) seats: u32,
    pub(super) there: Box<[There]>,
}

impl Member {
    /// What other nodes are told of it.
    pub(super) fn here(&self) -> Option<Entry> {
        let Self { name, since_ms, seats, .. } = self;
        (*seats > 0).then(|| Entry { name: name.clone(), since_ms: *since_ms, connections: *seats })
    }

    /// As others see it: called what it was called first.
    pub(super) fn seen(&self, id: &MemberId) -> Seen {
        let here = (self.seats > 0).then_some((self.since_ms, &self.name));
        let there = self.there.iter().map(|there| (there.entry.since_ms, &there.entry.name));
        let first = here.into_iter().chain(there).min();
        let connections = self.there.iter().fold(self.seats, |all, there| all.saturating_add(there.entry.connections));
        Seen {
            id: id.clone(),
            name: first.and_then(|(_, name)| name.clone()),
            since_ms: first.map_or(0, |(since_ms, _)| since_ms),
            connections,
        }
    }
}
