//! What waits for streams on a shard, and its books.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;

use super::Place;
use crate::cluster::port::{Outbound, Ticket};
use crate::config::Keep;
use crate::message::Topic;
use crate::shard::durable::Durable;
use crate::shard::mail::{Publication, Question};
use crate::shard::publish::Entrant;
use crate::wheel::Tick;

/// What waits on a shard.
#[derive(Debug, Default)]
pub(in crate::shard) struct Ordered {
    /// Publications with a ticket, in the order of their tickets, and so of their times.
    waiting: BTreeMap<Ticket, Waiting>,
    /// Those of them that have not been given to the thread, and perhaps some that are gone.
    unsent: VecDeque<Ticket>,
    /// The number of the last ticket.
    pub(super) last: u64,
    /// What waits for a topic's past.
    parked: HashMap<Topic, Parked>,
    /// All that is parked, and how many publications are among it.
    pub(super) count: usize,
    publications: usize,
    /// Since when topics have something parked, in order, and perhaps some that have not any more.
    since: VecDeque<(Tick, Topic)>,
    /// Topics whose past is here.
    open: VecDeque<Topic>,
    /// What all publications here keep in memory, about.
    bytes: usize,
    /// What became of publications of operators.
    pub(super) watched: HashMap<Ticket, Option<Place>>,
    /// When it was last looked for what is too late.
    pub(super) looked: Tick,
}

#[derive(Debug)]
struct Waiting {
    entrant: Entrant,
    keep: Keep,
    since: Tick,
}

#[derive(Debug, Default)]
struct Parked {
    since: Tick,
    is_open: bool,
    queue: VecDeque<Wait>,
}

#[derive(Debug)]
pub(super) enum Wait {
    Publication(Entrant),
    Question(Question),
}

impl Wait {
    fn memory(&self) -> usize {
        match self {
            Self::Publication(entrant) => entrant.memory(),
            Self::Question(_) => 0,
        }
    }
}

impl Ordered {
    /// Publications that wait at most, and what they may keep in memory: beyond, they are refused.
    const WAITING_MAX: usize = Durable::WAITING_MAX;
    const BYTES_MAX: usize = Durable::BYTES_MAX;
    /// Things that are parked at most.
    pub(super) const PARKED_MAX: usize = 8192;
    /// How long a publication waits for its place. The thread gives up before.
    const WAITING_TICKS: u32 = 150;
    /// How long anything waits for a topic's past.
    pub(in crate::shard) const PARKED_TICKS: u32 = 50;

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.waiting.len() + self.publications < Self::WAITING_MAX && self.bytes + bytes <= Self::BYTES_MAX
    }

    pub(super) fn give_ticket(&mut self, entrant: Entrant, keep: Keep, since: Tick) {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.bytes += entrant.memory();
        self.waiting.insert(ticket, Waiting { entrant, keep, since });
        self.unsent.push_back(ticket);
    }

    pub(super) fn take_waiting(&mut self, ticket: Ticket) -> Option<Entrant> {
        let Waiting { entrant, .. } = self.waiting.remove(&ticket)?;
        self.bytes -= entrant.memory();
        Some(entrant)
    }

    pub(super) fn park(&mut self, topic: &Topic, wait: Wait, now: Tick) {
        self.count += 1;
        self.publications += usize::from(matches!(wait, Wait::Publication(_)));
        self.bytes += wait.memory();
        if let Some(parked) = self.parked.get_mut(topic) {
            return parked.queue.push_back(wait);
        }
        self.since.push_back((now, topic.clone()));
        self.parked.insert(topic.clone(), Parked { since: now, is_open: false, queue: VecDeque::from([wait]) });
    }

    fn note_unparked(&mut self, wait: &Wait) {
        self.count -= 1;
        self.publications -= usize::from(matches!(wait, Wait::Publication(_)));
        self.bytes -= wait.memory();
    }

    /// The next that may go on of a topic whose past is here. With the last one the topic is done.
    pub(super) fn next_open(&mut self) -> Option<(Topic, Option<Wait>)> {
        let topic = self.open.front()?.clone();
        let next = self.parked.get_mut(&topic).and_then(|parked| parked.queue.pop_front());
        match &next {
            Some(wait) => self.note_unparked(wait),
            None => {
                self.parked.remove(&topic);
                self.open.pop_front();
            }
        }
        Some((topic, next))
    }

    /// Lets what is parked of a topic go on.
    pub(super) fn open(&mut self, topic: Topic) {
        if let Some(parked) = self.parked.get_mut(&topic) {
            parked.is_open = true;
        }
        self.open.push_back(topic);
    }

    /// What has waited for a topic's past for too long.
    pub(super) fn next_late_parked(&mut self, now: Tick) -> Option<VecDeque<Wait>> {
        while let Some((since, topic)) = self.since.front()
            && since.later(Self::PARKED_TICKS) <= now
        {
            let is_late = self.parked.get(topic).is_some_and(|parked| parked.since == *since && !parked.is_open);
            let late = if is_late { self.parked.remove(topic) } else { None };
            self.since.pop_front();
            if let Some(Parked { queue, .. }) = late {
                queue.iter().for_each(|wait| self.note_unparked(wait));
                return Some(queue);
            }
        }
        None
    }

    /// The oldest publication that has waited for its place for too long; of all, whatever their time.
    pub(super) fn next_late(&mut self, now: Tick, all: bool) -> Option<(Ticket, Entrant)> {
        let (&ticket, first) = self.waiting.first_key_value()?;
        let is_late = all || first.since.later(Self::WAITING_TICKS) <= now;
        is_late.then(|| self.take_waiting(ticket)).flatten().map(|entrant| (ticket, entrant))
    }

    /// Publications that have not been sent, when nobody could take them: those that are parked too.
    pub(super) fn take_unsent(&mut self) -> Vec<(Option<Ticket>, Entrant)> {
        let tickets = std::mem::take(&mut self.unsent);
        let mut unsent: Vec<_> =
            tickets.into_iter().filter_map(|ticket| Some((Some(ticket), self.take_waiting(ticket)?))).collect();
        for parked in self.parked.values_mut().filter(|parked| !parked.is_open) {
            for wait in std::mem::take(&mut parked.queue) {
                match wait {
                    Wait::Question(_) => parked.queue.push_back(wait),
                    Wait::Publication(entrant) => {
                        self.count -= 1;
                        self.publications -= 1;
                        self.bytes -= entrant.memory();
                        unsent.push((None, entrant));
                    }
                }
            }
        }
        unsent
    }

    /// What the thread is to be given next, once there is room.
    pub(in crate::shard) fn next_append(&mut self) -> Option<Outbound> {
        while let Some(ticket) = self.unsent.pop_front() {
            let Some(Waiting { entrant, keep, .. }) = self.waiting.get(&ticket) else { continue };
            let Publication { message, terms, .. } = &entrant.publication;
            let key = terms.as_ref().and_then(|terms| terms.key.as_deref()).map(Arc::from);
            return Some(Outbound::Append { ticket, message: message.clone(), key, keep: *keep });
        }
        None
    }

    pub(in crate::shard) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(in crate::shard) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Publications that wait.
    pub(in crate::shard) fn waiting(&self) -> usize {
        self.waiting.len() + self.publications
    }

    /// When something will have waited for too long.
    pub(in crate::shard) fn deadline(&self) -> Option<Tick> {
        let waiting = self.waiting.first_key_value().map(|(_, first)| first.since.later(Self::WAITING_TICKS));
        let parked = self.since.front().map(|(since, _)| since.later(Self::PARKED_TICKS));
        waiting.into_iter().chain(parked).min()
    }

    /// What waits for a place, what is parked, publications among that, and bytes of publications.
    pub(in crate::shard) fn books(&self) -> [usize; 4] {
        [self.waiting.len(), self.count, self.publications, self.bytes]
    }

    /// Counts all again, for audits.
    pub(in crate::shard) fn recount(&self) -> [usize; 4] {
        let all = || self.parked.values().flat_map(|parked| &parked.queue);
        let publications = all().filter(|wait| matches!(wait, Wait::Publication(_))).count();
        let waiting: usize = self.waiting.values().map(|one| one.entrant.memory()).sum();
        [self.waiting.len(), all().count(), publications, waiting + all().map(Wait::memory).sum::<usize>()]
    }
}
