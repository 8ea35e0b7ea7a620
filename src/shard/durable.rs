//! Publications to durable topics, at the topics' owner: they wait here, with their places, for the disk.
//!
//! ```text
//!   own --> reserve --> journal --> committed --> place: kept, handed out, acknowledged
//!                              \--> failed    --> all that waits is refused, its places are taken back
//! ```
//!
//! Verdicts come in the order of appends, so what waits is a queue. They are worked off in a part of each turn: thousands may
//! come at once. Publications that must keep an order with what waits, and are not written down themselves, stand in the same
//! queue; so does the repetition of one that waits.
//!
//! A failure begins a new generation: what is on its way of the old one is nothing. Until the journal works again durable
//! publications are refused at once. Topics that are not durable never come here.

use std::collections::VecDeque;
use std::sync::Arc;

use super::core::Core;
use super::mail::Publication;
use super::pace::Pace;
use super::publish::{Entrant, Stage};
use crate::app::NotPublished;
use crate::hub::topics::Turn;
use crate::journal::port::{Append, ShardEnd, Verdict};
use crate::message::Offset;
use crate::time::Clock;

/// What a shard has of the journal.
#[derive(Debug)]
pub(super) struct Durable {
    end: ShardEnd,
    generation: u32,
    /// The disk can be written, as far as is known.
    works: bool,
    waiting: VecDeque<Waiting>,
    /// Those of them that are on their way to the disk.
    written: usize,
    /// What all keep in memory, about.
    bytes: usize,
    /// The first ones, which are on the disk and still to be placed.
    committed: usize,
    /// The first ones, which will not be on the disk and are still to be told.
    failed: usize,
    /// All that were given to the journal so far.
    appended: u64,
}

/// A publication that waits.
#[derive(Debug)]
enum Waiting {
    /// For the disk.
    Written(Entrant),
    /// For its turn; whether its topic counts it among those that have to wait for theirs.
    Behind(Entrant, bool),
}

/// What is to be done next.
enum Next {
    Place(Entrant),
    Refuse(Entrant),
    Turn(Entrant, bool),
    /// A verdict was taken.
    Heard,
    Nothing,
}

impl Durable {
    /// Publications that wait at most, and what they may keep in memory: beyond, they are refused.
    pub(super) const WAITING_MAX: usize = 16_384;
    pub(super) const BYTES_MAX: usize = 32 * 1024 * 1024;
    /// Places for them that are kept.
    const ROOM_KEPT: usize = 1024;

    /// With nothing that waits.
    pub(super) const fn new(end: ShardEnd) -> Self {
        Self {
            end,
            generation: 0,
            works: true,
            waiting: VecDeque::new(),
            written: 0,
            bytes: 0,
            committed: 0,
            failed: 0,
            appended: 0,
        }
    }

    /// Why a publication cannot be taken now.
    fn objection(&self, bytes: usize) -> Option<NotPublished> {
        if !self.works {
            Some(NotPublished::JournalFailed)
        } else if self.waiting.len() >= Self::WAITING_MAX || self.bytes + bytes > Self::BYTES_MAX {
            Some(NotPublished::JournalBusy)
        } else {
            None
        }
    }

    /// Gives a message with its place to the journal.
    fn append(&mut self, entrant: Entrant, first_kept: Offset) {
        let Publication { message, terms, .. } = &entrant.publication;
        let key = terms.as_ref().and_then(|terms| terms.key.as_deref()).map(Arc::from);
        let (generation, message) = (self.generation, message.clone());
        self.end.appends.push(Append::Message { generation, message, key, first_kept });
        self.written += 1;
        self.appended += 1;
        self.bytes += entrant.memory();
        self.waiting.push_back(Waiting::Written(entrant));
    }

    fn stand_behind(&mut self, entrant: Entrant, is_counted: bool) {
        self.bytes += entrant.memory();
        self.waiting.push_back(Waiting::Behind(entrant, is_counted));
    }

    fn next(&mut self) -> Next {
        let is_due = match self.waiting.front() {
            Some(Waiting::Written(_)) => self.committed > 0 || self.failed > 0,
            Some(Waiting::Behind(..)) => true,
            None => false,
        };
        if !is_due {
            return self.hear();
        }
        let Some(first) = self.waiting.pop_front() else { return Next::Nothing };
        let is_committed = self.committed > 0;
        let next = match first {
            Waiting::Written(entrant) => {
                self.written -= 1;
                self.bytes -= entrant.memory();
                if is_committed { Next::Place(entrant) } else { Next::Refuse(entrant) }
            }
            Waiting::Behind(entrant, is_counted) => {
                self.bytes -= entrant.memory();
                Next::Turn(entrant, is_counted)
            }
        };
        match next {
            Next::Place(_) => self.committed -= 1,
            _ => self.failed = self.failed.saturating_sub(1),
        }
        if self.waiting.is_empty() && self.waiting.capacity() > Self::ROOM_KEPT {
            self.waiting.shrink_to(Self::ROOM_KEPT);
        }
        next
    }

    /// Takes a verdict. What it is about has been worked off before.
    fn hear(&mut self) -> Next {
        match self.end.verdicts.try_recv() {
            Some(Verdict::Committed { generation, count }) if generation == self.generation => {
                self.committed = self.written.min(usize::try_from(count).unwrap_or(usize::MAX));
            }
            Some(Verdict::Failed { generation }) if generation == self.generation => self.give_up(),
            Some(Verdict::Working) => self.works = true,
            // Of something that was given up.
            Some(Verdict::Committed { .. } | Verdict::Failed { .. }) => {}
            None => return Next::Nothing,
        }
        Next::Heard
    }

    /// Nothing that waits is waited for any more.
    fn give_up(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        (self.committed, self.failed) = (0, self.waiting.len());
        self.works = false;
    }

    fn is_due(&self) -> bool {
        let front = self.waiting.front();
        let is_written = matches!(front, Some(Waiting::Written(_)));
        (is_written && (self.committed > 0 || self.failed > 0))
            || matches!(front, Some(Waiting::Behind(..)))
            || !self.end.verdicts.is_empty()
    }

    /// What waits and what of it has been given to the journal; in bytes what all of it keeps in memory.
    pub(super) fn books(&self) -> (usize, usize, usize) {
        (self.waiting.len(), self.written, self.bytes)
    }

    /// Counts all again, for audits.
    pub(super) fn recount(&self) -> (usize, usize, usize) {
        let written = self.waiting.iter().filter(|one| matches!(one, Waiting::Written(_))).count();
        let memory = |one: &Waiting| match one {
            Waiting::Written(entrant) | Waiting::Behind(entrant, _) => entrant.memory(),
        };
        (self.waiting.len(), written, self.waiting.iter().map(memory).sum())
    }

    /// How many wait that their topics count.
    pub(super) fn counted_behind(&self) -> usize {
        self.waiting.iter().filter(|one| matches!(one, Waiting::Behind(_, true))).count()
    }
}

impl Core {
    /// How much longer than its period a drain waits for the disk, and for streams, in ticks: two seconds.
    pub(super) const DISK_TICKS: u32 = 20;

    /// Writes a message down that has a reserved place.
    pub(super) fn write_down(&mut self, entrant: Entrant, first_kept: Offset) {
        let why = self
            .durable
            .as_deref()
            .map_or(Some(NotPublished::JournalFailed), |durable| durable.objection(entrant.memory()));
        if let Some(why) = why {
            self.release(&entrant);
            return self.refuse_publication(entrant.publication, why);
        }
        // What was said of the same topic before comes before.
        self.tell_gone(usize::MAX);
        if let Some(durable) = self.durable.as_deref_mut() {
            durable.append(entrant, first_kept);
        }
    }

    /// Has a publication wait until those before it have their places.
    pub(super) fn stand_behind(&mut self, entrant: Entrant, is_counted: bool) {
        let durable = self.durable.as_deref_mut();
        match durable.filter(|durable| durable.waiting.len() < 2 * Durable::WAITING_MAX) {
            Some(durable) => durable.stand_behind(entrant, is_counted),
            None => {
                if is_counted {
                    self.topics.turn(&entrant.publication.message.topic);
                }
                self.refuse_publication(entrant.publication, NotPublished::JournalBusy);
            }
        }
    }

    fn release(&mut self, entrant: &Entrant) {
        let (now, Publication { message, terms, .. }) = (self.time(), &entrant.publication);
        self.topics.take_back(message, terms.as_ref().and_then(|terms| terms.key.as_deref()), now);
    }

    /// Does what verdicts say, as long as there is room and time.
    pub(super) fn take_verdicts(&mut self, pace: &mut Pace<'_, impl Clock>) {
        self.give_up_late();
        let mut has_moved = false;
        while self.has_verdicts() && pace.more() {
            has_moved = true;
            let Some(durable) = self.durable.as_deref_mut() else { return };
            match durable.next() {
                Next::Place(entrant) => {
                    let is_long = entrant.is_long();
                    self.settle(entrant, Stage::Written);
                    if is_long {
                        pace.look();
                    }
                }
                Next::Refuse(entrant) => {
                    self.release(&entrant);
                    self.refuse_publication(entrant.publication, NotPublished::JournalFailed);
                }
                Next::Turn(entrant, false) => self.settle(entrant, Stage::Takes(Turn::Again)),
                Next::Turn(entrant, true) => {
                    self.topics.turn(&entrant.publication.message.topic);
                    self.settle(entrant, Stage::Takes(Turn::Next));
                }
                Next::Heard => {}
                Next::Nothing => break,
            }
        }
        if has_moved {
            self.orders.go_on();
        }
    }

    /// Whether there are verdicts that may be worked off now, or what they have left to do.
    pub(super) fn has_verdicts(&self) -> bool {
        let is_due = self.durable.as_deref().is_some_and(Durable::is_due);
        is_due && !self.mail.deliveries_wait && !self.is_congested()
    }

    /// Whether appends found no room.
    pub(super) fn has_appends(&self) -> bool {
        self.durable.as_deref().is_some_and(|durable| durable.end.appends.staged() > 0)
    }

    /// A drain does not wait for a disk for ever: what has had no verdict by then is refused, for all that is known.
    fn give_up_late(&mut self) {
        let is_late = self.is_drain_late();
        let durable = self.durable.as_deref_mut().filter(|durable| is_late && !durable.waiting.is_empty());
        if let Some(durable) = durable.filter(|durable| durable.failed == 0 && durable.committed == 0) {
            durable.give_up();
        }
    }

    /// Whether something waits for the disk, or for its place in a stream.
    pub(super) fn has_durable_waiting(&self) -> bool {
        self.durable.as_deref().is_some_and(|durable| !durable.waiting.is_empty()) || self.has_ordered_waiting()
    }

    /// How many messages were given to the journal so far, in which generation, and whether it works.
    pub(super) fn journal_state(&self) -> (u64, u32, bool) {
        let durable = self.durable.as_deref();
        durable.map_or((0, 0, false), |durable| (durable.appended, durable.generation, durable.works))
    }

    /// Tells the journal what it need not keep, so many topics at most.
    fn tell_gone(&mut self, most: usize) {
        let Some(durable) = self.durable.as_deref_mut() else { return };
        for _ in 0..most {
            let Some((topic, cursor)) = self.topics.next_gone() else { return };
            durable.end.appends.push(Append::Forget(topic, cursor));
        }
    }

    /// At the end of a turn: rings the journal, if it has something to do.
    pub(super) fn flush_journal(&mut self) {
        let Some(durable) = self.durable.as_deref_mut() else { return };
        durable.end.appends.flush();
        self.metrics.durable_waiting.set(durable.waiting.len() as u64);
        self.metrics.durable_waiting_bytes.set(durable.bytes as u64);
        if self.topics.has_gone() && durable.end.appends.staged() == 0 {
            let room = durable.end.appends.sender().room();
            self.tell_gone(room);
            if let Some(durable) = self.durable.as_deref_mut() {
                durable.end.appends.flush();
            }
        }
    }
}
