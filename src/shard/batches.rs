//! Batches of publications: their lines go to the topics' owners, and what became of each of them is the answer.
//!
//! ```text
//!   posted --> all lines are on their way ------------------------> each has its answer: so has the request
//!       \                                                      /
//!        \--> queued, where a topic is durable: on their way as there is room
//!                  \--> that takes too long, or too much is queued: what is left is refused
//! ```
//!
//! Publications to durable topics wait at the topics' owner, for the disk or for a stream, and an owner where as many wait as
//! may refuses what comes. So the batches of all shards together have no more on their way than half of that: none is refused
//! because of others, and what is published one by one finds room as well. Batches without a durable topic are not held up.

use std::collections::VecDeque;
use std::vec;

use super::answers::{JSON, JSON_LINES, WaitsFor};
use super::core::Core;
use super::durable::Durable;
use crate::app::NotPublished;
use crate::codec::json;
use crate::config::TopicRule;
use crate::id::ConnId;
use crate::message::{Message, Topic};
use crate::wheel::Tick;

/// What can be published of a batch: the number of its line, and its idempotency key.
pub(super) type Numbered = (u32, Message, Option<Box<str>>);

/// A batch that has no answer yet.
#[derive(Debug)]
pub(super) struct Batch {
    lines: Vec<Line>,
    /// Lines whose answers are to come.
    left: usize,
    /// Those of them that are still here.
    rest: vec::IntoIter<Numbered>,
    /// What it keeps in memory: answers, and what is still here.
    bytes: usize,
    /// And those that are not.
    on_way: Load,
    since: Tick,
    /// A line has its place.
    has_place: bool,
    /// Why the first was refused of those that may be taken later.
    refused: Option<NotPublished>,
}

#[derive(Debug)]
enum Line {
    /// Its answer is to come; with its memory, if it is on its way.
    Awaited(usize),
    Answered(Vec<u8>),
}

impl Line {
    fn memory(&self) -> usize {
        let answer = if let Self::Answered(answer) = self { answer.len() } else { 0 };
        size_of::<Self>() + answer
    }
}

/// What a line keeps in memory that is not on its way.
fn memory_of((_, message, key): &Numbered) -> usize {
    size_of::<Numbered>() + message.memory() + key.as_deref().map_or(0, str::len)
}

/// Lines that are on their way, and what they keep in memory.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    lines: usize,
    bytes: usize,
}

impl Load {
    /// Whether there is room for another line. For one there always is.
    const fn has_room(self, bytes: usize, most: Self) -> bool {
        self.lines == 0 || (self.lines < most.lines && self.bytes + bytes <= most.bytes)
    }

    const fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.bytes += other.bytes;
    }

    const fn half(self) -> Self {
        Self { lines: self.lines / 2, bytes: self.bytes / 2 }
    }
}

impl Batch {
    /// Of lines, those that can be published being empty, and what they publish.
    pub(super) fn new(lines: Vec<Vec<u8>>, publications: Vec<Numbered>, since: Tick) -> Self {
        let line = |line: Vec<u8>| if line.is_empty() { Line::Awaited(0) } else { Line::Answered(line) };
        let lines: Vec<_> = lines.into_iter().map(line).collect();
        let bytes = lines.iter().map(Line::memory).sum::<usize>() + publications.iter().map(memory_of).sum::<usize>();
        Self {
            lines,
            left: publications.len(),
            bytes,
            rest: publications.into_iter(),
            on_way: Load::default(),
            since,
            has_place: false,
            refused: None,
        }
    }

    /// Whether lines are still here.
    fn is_waiting(&self) -> bool {
        !self.rest.as_slice().is_empty()
    }

    /// Takes the next line out.
    fn take(&mut self) -> Option<Numbered> {
        let next = self.rest.next()?;
        self.bytes -= memory_of(&next);
        Some(next)
    }

    /// The next line that goes on its way, if there is room beside all that are.
    fn send(&mut self, all: &mut Load, most: Load) -> Option<Numbered> {
        let bytes = self.rest.as_slice().first()?.1.memory();
        if !all.has_room(bytes, most) || !self.on_way.has_room(bytes, most.half()) {
            return None;
        }
        let next = self.take()?;
        let one = Load { lines: 1, bytes };
        all.add(one);
        self.on_way.add(one);
        if let Some(line) = self.lines.get_mut(next.0 as usize) {
            *line = Line::Awaited(bytes);
        }
        Some(next)
    }

    /// Notes what became of a line. Returns whether that was the last one.
    fn note(&mut self, number: u32, answer: &[u8], refused: Option<NotPublished>) -> bool {
        if let Some(line) = self.lines.get_mut(number as usize)
            && let Line::Awaited(bytes) = *line
        {
            *line = Line::Answered(answer.to_vec());
            self.bytes += answer.len();
            self.left = self.left.saturating_sub(1);
            self.on_way.lines -= usize::from(bytes > 0);
            self.on_way.bytes -= bytes;
            self.has_place |= refused.is_none();
            self.refused = self.refused.or(refused.filter(|why| why.status() == 503));
        }
        self.left == 0
    }

    /// Why the whole batch is to be sent again: nothing of it was published, and later it may be.
    fn refusal(&self) -> Option<NotPublished> {
        self.refused.filter(|_| !self.has_place)
    }

    fn body(self) -> Vec<u8> {
        let answer = |line| if let Line::Answered(answer) = line { answer } else { Vec::new() };
        self.lines.into_iter().flat_map(answer).collect()
    }
}

/// The batches of a shard's connections that have lines for durable topics, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Batches {
    queue: VecDeque<ConnId>,
    /// When they were looked at, and whether something has come since then.
    looked: Tick,
    has_news: bool,
    /// Some have lines that are not on their way.
    waits: bool,
    /// What all keep in memory, but for what is on its way.
    bytes: usize,
}

impl Batches {
    /// Whether lines may go on their way now.
    pub(super) const fn has_work(&self) -> bool {
        self.has_news
    }

    /// What they keep in memory.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// When they are looked at, if nothing happens before.
    pub(super) fn due(&self) -> Option<Tick> {
        self.waits.then(|| self.looked.later(1))
    }
}

impl Core {
    /// How long a batch's lines may wait here, in ticks: ten seconds. What they wait at their owners comes on top.
    const BATCH_TICKS: u32 = 100;
    /// What queued batches may keep in memory, beside the first one.
    const BATCHES_BYTES_MAX: usize = 32 * 1024 * 1024;

    /// Publishes a batch, for which a request waits.
    pub(super) fn begin_batch(&mut self, id: ConnId, lines: Vec<Vec<u8>>, publications: Vec<Numbered>) {
        // It is not the one that the connection had before.
        self.batches.queue.retain(|other| *other != id);
        let is_durable = publications.iter().any(|(_, message, _)| self.busy_at(&message.topic).is_some());
        self.set_waits_for(id, WaitsFor::Batch(Box::new(Batch::new(lines, publications, self.tick))));
        if is_durable {
            self.batches.queue.push_back(id);
            self.batches.has_news = true;
            return;
        }
        while let Some((number, message, key)) = self.batch(id).and_then(Batch::take) {
            self.publish_for(id, message, key, number);
        }
    }

    /// Notes what became of a line, and answers the request with the last one.
    pub(super) fn note_line(&mut self, id: ConnId, number: u32, answer: &[u8], refused: Option<NotPublished>) {
        let Some(batch) = self.batch(id) else { return };
        let is_last = batch.note(number, answer, refused);
        self.batches.has_news |= !self.batches.queue.is_empty();
        if !is_last {
            return;
        }
        let Some(WaitsFor::Batch(batch)) = self.waits_for(id).map(std::mem::take) else { return };
        match batch.refusal() {
            Some(why) => {
                let mut error = Vec::new();
                json::write_error(why.code(), why.message(), &mut error);
                self.respond(id, why.status(), JSON, &error, &[]);
            }
            None => self.respond(id, 200, JSON_LINES, &batch.body(), &[]),
        }
    }

    /// Sends lines of queued batches on their way, as far as there is room.
    pub(super) fn send_batches(&mut self) {
        let is_due = self.batches.has_news || (self.batches.waits && self.batches.looked != self.tick);
        if !is_due {
            return;
        }
        (self.batches.has_news, self.batches.looked) = (false, self.tick);
        let mut queue = std::mem::take(&mut self.batches.queue);
        let (mut all, most) = (Load::default(), self.batch_room());
        // Connections may have gone: what they have sent is not waited for.
        queue.retain(|id| self.batch(*id).inspect(|batch| all.add(batch.on_way)).is_some());
        (self.batches.waits, self.batches.bytes) = (false, 0);
        for &id in &queue {
            self.send_lines(id, &mut all, most);
        }
        self.batches.queue = queue;
    }

    /// The same of one batch, beside what others have on their way, and keep.
    fn send_lines(&mut self, id: ConnId, all: &mut Load, most: Load) {
        let (tick, before) = (self.tick, self.batches.bytes);
        let is_much = |batch: &mut Batch| before > 0 && before + batch.bytes > Self::BATCHES_BYTES_MAX;
        if self.batch(id).is_some_and(is_much) {
            self.refuse_rest(id);
        }
        while let Some((number, message, key)) = self.batch(id).and_then(|batch| batch.send(all, most)) {
            self.publish_for(id, message, key, number);
        }
        if self.batch(id).is_some_and(|batch| batch.is_waiting() && batch.since.later(Self::BATCH_TICKS) <= tick) {
            self.refuse_rest(id);
        }
        let Some(batch) = self.batch(id) else { return };
        let (bytes, is_waiting) = (before + batch.bytes, batch.is_waiting());
        self.batches.waits |= is_waiting;
        self.batches.bytes = bytes;
    }

    /// Refuses what is left of a batch, but for what need not wait.
    fn refuse_rest(&mut self, id: ConnId) {
        let mut error = Vec::new();
        while let Some((number, message, key)) = self.batch(id).and_then(Batch::take) {
            let Some(why) = self.busy_at(&message.topic) else {
                self.publish_for(id, message, key, number);
                continue;
            };
            self.count_refused(why);
            error.clear();
            json::write_error(why.code(), why.message(), &mut error);
            self.note_line(id, number, &error, Some(why));
        }
    }

    /// What is said of a topic's publications when too many wait; `None`: they do not wait.
    fn busy_at(&mut self, topic: &Topic) -> Option<NotPublished> {
        let has_cluster = self.cluster.is_some();
        let TopicRule { durable, shared, .. } = *self.rule(topic);
        let busy = if shared && has_cluster { NotPublished::ClusterBusy } else { NotPublished::JournalBusy };
        durable.then_some(busy)
    }

    /// What this shard's batches may have on their way.
    fn batch_room(&self) -> Load {
        let shards = usize::from(self.shards).max(1);
        Load { lines: Durable::WAITING_MAX / 2 / shards, bytes: Durable::BYTES_MAX / 2 / shards }
    }

    fn batch(&mut self, id: ConnId) -> Option<&mut Batch> {
        match self.waits_for(id) {
            Some(WaitsFor::Batch(batch)) => Some(batch),
            _ => None,
        }
    }
}
