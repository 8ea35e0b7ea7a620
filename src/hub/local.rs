//! One topic on a shard, or one group of one: its members and what waits for them.

use std::collections::VecDeque;

use hashbrown::Equivalent;

use super::group::Group;
use super::member::Member;
use super::members::{Stake, Stay};
use crate::message::{Image, Message, Offset, Topic, Wants, Wire};
use crate::time::Stamp;

/// What a [`Local`] is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) topic: Topic,
    pub(super) group: Option<Group>,
}

/// A [`Name`] that is not owned. Its fields are hashed in the same order.
#[derive(Hash)]
pub(super) struct NameRef<'a> {
    pub(super) topic: &'a Topic,
    pub(super) group: Option<&'a Group>,
}

impl Equivalent<Name> for NameRef<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        *self.topic == name.topic && self.group == name.group.as_ref()
    }
}

/// Messages that are being handed to a topic's members, encoded once per format.
#[derive(Debug, Default)]
pub struct Batch {
    /// In order of offsets, never empty while the fan-out runs.
    pub messages: Vec<Message>,
    /// All of them as one piece, per [`Wire`], made when the first member of that format comes up.
    pub images: [Option<Image>; Wire::COUNT],
    /// Members before this place have been served. In a group: have had their turn.
    pub cursor: usize,
    /// When its fan-out began, for measurements.
    pub began: Stamp,
}

impl Batch {
    /// Messages in it at most. Some members take only a part of a batch, and are looked at message by message.
    pub const MESSAGES_MAX: usize = 256;
}

/// One topic, or one group of one, on this shard.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) name: Name,
    pub(super) stay: Stay,
    pub(super) members: Vec<Member>,
    /// Members of each [`Wire`].
    wires: [u32; Wire::COUNT],
    /// How many members the owner knows of.
    told: u32,
    /// Whether it is on the list of those that have changed.
    pub(super) listed: bool,
    /// Whether a group is on the shard's list of fan-outs.
    pub(super) enlisted: bool,
    /// Its topic was ended while it had members: it is not found by its name, and its owner knows nothing of it.
    pub(super) retired: bool,
    /// The newest message that came.
    last: Offset,
    /// What came and is not being handed out yet.
    pub(super) pending: VecDeque<Message>,
    /// What of it a group keeps in memory.
    pub(super) group_bytes: usize,
    /// What is being handed out.
    pub(super) batch: Batch,
}

impl Local {
    /// Places for waiting messages that are kept when none waits.
    const PENDING_KEPT: usize = 64;

    pub(super) fn new(name: Name, stay: Stay) -> Self {
        Self {
            name,
            stay,
            members: Vec::new(),
            wires: [0; Wire::COUNT],
            told: 0,
            listed: false,
            enlisted: false,
            retired: false,
            last: Offset(0),
            pending: VecDeque::new(),
            group_bytes: 0,
            batch: Batch::default(),
        }
    }

    pub(super) fn wants(&self) -> Wants {
        Wire::ALL.into_iter().filter(|&wire| self.wires[wire as usize] > 0).fold(Wants::NONE, Wants::with)
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn stake(&self) -> Stake {
        Stake { group: self.name.group.clone(), wants: self.wants(), stay: self.stay, members: self.count() }
    }

    pub(super) const fn is_group(&self) -> bool {
        self.name.group.is_some()
    }

    /// Whether the owner knows another number of members.
    pub(super) fn is_news(&self) -> bool {
        self.told != self.count()
    }

    /// The owner is told of the members that there are now.
    pub(super) fn tell(&mut self) {
        self.told = self.count();
    }

    /// Adds a member, whose place is the last one.
    pub(super) fn push(&mut self, connection: u32, wire: Wire, echo: bool, pending: bool) {
        self.members.push(Member::new(connection, echo, pending, self.last));
        self.wires[wire as usize] += 1;
    }

    /// Removes a member. Whoever fills its place comes from the same side of the cursor.
    pub(super) fn remove(&mut self, position: u32, wire: Wire, mut moved: impl FnMut(u32, u32)) {
        self.wires[wire as usize] -= 1;
        let mut hole = position as usize;
        let mut fill = |members: &mut Vec<Member>, hole: usize, from: usize| {
            if from != hole {
                members[hole] = members[from];
                moved(members[hole].connection(), u32::try_from(hole).unwrap_or(u32::MAX));
            }
        };
        if hole < self.batch.cursor {
            self.batch.cursor -= 1;
            fill(&mut self.members, hole, self.batch.cursor);
            hole = self.batch.cursor;
        }
        let last = self.members.len() - 1;
        fill(&mut self.members, hole, last);
        self.members.pop();
        if self.members.capacity() > 4 * self.members.len().max(64) {
            let members = self.members.len();
            self.members.shrink_to(2 * members);
        }
    }

    /// Queues a message for a fan-out. Returns whether nothing waited before it.
    pub(super) fn queue(&mut self, message: Message) -> bool {
        let idle = self.pending.is_empty() && self.batch.messages.is_empty();
        if message.is_reset() && !self.is_ahead(message.offset) {
            self.begin_anew(message.offset);
        } else {
            self.refresh(message.offset);
            if message.is_reset() {
                self.let_all_take(message.offset);
            }
        }
        self.last = message.offset;
        self.pending.push_back(message);
        idle
    }

    /// Whether a place is one behind all that came, as members compare it.
    const fn is_ahead(&self, offset: Offset) -> bool {
        offset.0 > self.last.0 && (self.last.0 == 0 || offset.0 - self.last.0 < 1 << 31)
    }

    /// A reset leads to a place before those that were given, or far behind: what waits is part of what is lost.
    fn begin_anew(&mut self, offset: Offset) {
        self.pending.clear();
        self.end_batch();
        let before = Offset(offset.0.wrapping_sub(1));
        self.members.iter_mut().filter(|member| !member.is_pending()).for_each(|member| member.refresh(before));
    }

    /// A reset is for all: also for those who have had a past that ended there, or behind that, of which nobody here knew.
    fn let_all_take(&mut self, offset: Offset) {
        let before = Offset(offset.0.wrapping_sub(1));
        let is_beyond = |member: &&mut Member| !member.is_pending() && !member.takes(offset);
        self.members.iter_mut().filter(is_beyond).for_each(|member| member.refresh(before));
    }

    /// Brings old members' `after` forward, once in 2^30 messages, so that 32 bits always tell before from after. Also
    /// when the first message comes, since members who joined before it did not know where the topic stands; those who
    /// have had their past do. Members who wait for it take nothing, and learn where they stand when they begin.
    fn refresh(&mut self, coming: Offset) {
        if coming.0 >> 30 == self.last.0 >> 30 {
            return;
        }
        let waiting = self.batch.messages.first().or(self.pending.front());
        let oldest = waiting.map_or(coming, |message| message.offset);
        let before = Offset(oldest.0 - 1);
        let unknown = self.last == Offset(0);
        let is_due = |member: &Member| member.takes(oldest) || (unknown && member.is_from_the_start());
        self.members.iter_mut().filter(|member| is_due(member)).for_each(|member| member.refresh(before));
    }

    /// Moves what waits into the batch, up to its bounds.
    pub(super) fn begin_batch(&mut self, bytes_max: usize) {
        let mut bytes = 0;
        while let Some(message) = self.pending.front() {
            bytes += message.payload().len();
            let taken = self.batch.messages.len();
            if taken == Batch::MESSAGES_MAX || (bytes > bytes_max && taken > 0) {
                break;
            }
            self.batch.messages.extend(self.pending.pop_front());
        }
    }

    /// What waits for its fan-out, or is in it, keeps in memory, about.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.pending.iter().chain(&self.batch.messages).map(Message::memory).sum()
    }

    /// Empties the batch. Returns whether more waits.
    pub(super) fn end_batch(&mut self) -> bool {
        self.batch.messages.clear();
        self.batch.images = Default::default();
        self.batch.cursor = 0;
        self.batch.began = Stamp::NONE;
        self.give_memory_back();
        !self.pending.is_empty()
    }

    pub(super) fn give_memory_back(&mut self) {
        if self.pending.is_empty() && self.pending.capacity() > Self::PENDING_KEPT {
            self.pending = VecDeque::new();
        }
    }

    /// The place of the member whose turn it is, in a group.
    pub(super) fn turn(&mut self) -> Option<u32> {
        let place = if self.batch.cursor < self.members.len() { self.batch.cursor } else { 0 };
        self.members.get(place)?;
        self.batch.cursor = place + 1;
        u32::try_from(place).ok()
    }
}
