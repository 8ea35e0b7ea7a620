//! Events that wait for the receiver, as JSON, and the batches that they go in.
//!
//! ```text
//! {"node":"9f86d081884c7d65","host":"edge-1","batch":17,"time":1732795012400,"missed":{"connect":3},"events":[...]}
//! ```
//!
//! The queue is bounded in bytes: beyond, the oldest go, and are counted among what the next batch says is missing. A batch
//! is the same bytes however often it is sent.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::Name;
use super::{Counts, Event};
use crate::codec::json;
use crate::config::{HookKind, Hooks};
use crate::time::Instant;

/// What stands between two events, and behind the last one.
const ENDS_BYTES: usize = ",]}".len();
/// What an event takes in memory beside its JSON.
const ENTRY_BYTES: usize = size_of::<Entry>() + 16;

/// Who tells.
#[derive(Clone, Debug)]
pub struct Teller {
    /// Random for each process that runs, as 16 digits.
    pub node: String,
    /// The machine's name.
    pub host: String,
}

#[derive(Debug)]
struct Entry {
    json: Box<[u8]>,
    came: Instant,
    kind: HookKind,
}

/// Why events did not reach the receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The queue was full.
    pub full: u64,
    /// They had waited too long.
    pub late: u64,
}

/// Events that wait.
#[derive(Debug)]
pub struct Queue {
    teller: Teller,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Events that were named.
    numbers: u64,
    batches: u64,
    missed: Counts,
}

/// Events that go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// 1, 2, 3, ...
    pub number: u64,
    /// The same with who tells: no other batch has this name.
    pub name: String,
    /// The request's body.
    pub body: Vec<u8>,
    /// What is in it.
    pub events: Counts,
    /// What it says is missing.
    pub missed: Counts,
    /// When its first event came.
    pub came: Instant,
}

impl Batch {
    /// Bytes of a batch beyond which it takes no more events.
    pub const BYTES_MAX: usize = 1 << 20;
}

impl Queue {
    /// Without events.
    #[must_use]
    pub const fn new(teller: Teller) -> Self {
        Self { teller, entries: VecDeque::new(), bytes: 0, numbers: 0, batches: 0, missed: Counts([0; 7]) }
    }

    /// Takes an event. Returns what had to go for it.
    pub fn push(&mut self, event: &Event, hooks: &Hooks, now: Instant) -> Dropped {
        self.numbers += 1;
        let mut out = Vec::with_capacity(256);
        event.write(Name { node: &self.teller.node, number: self.numbers }, hooks.payload, &mut out);
        let entry = Entry { json: out.into(), came: now, kind: event.kind() };
        self.bytes += entry.json.len() + ENTRY_BYTES;
        self.entries.push_back(entry);
        let mut dropped = Dropped::default();
        while self.bytes > hooks.queue_bytes && self.drop_first() {
            dropped.full += 1;
        }
        dropped
    }

    /// Notes what was lost before it came here.
    pub fn miss(&mut self, missed: &Counts) {
        self.missed.add_all(missed);
    }

    /// Gives a batch up: what was in it is missing, and what it would have said is missing.
    pub fn give_up(&mut self, batch: &Batch) {
        self.missed.add_all(&batch.events);
        self.missed.add_all(&batch.missed);
    }

    /// Drops what has waited too long.
    pub fn expire(&mut self, age_max: Duration, now: Instant) -> Dropped {
        let mut dropped = Dropped::default();
        while self.entries.front().is_some_and(|entry| now.since(entry.came) > age_max) && self.drop_first() {
            dropped.late += 1;
        }
        dropped
    }

    fn drop_first(&mut self) -> bool {
        let Some(entry) = self.pop() else { return false };
        self.missed.add(entry.kind, 1);
        true
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.json.len() + ENTRY_BYTES;
        if self.entries.is_empty() {
            self.entries.shrink_to(1024);
        }
        Some(entry)
    }

    /// Events that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing to tell, not even what is missing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.missed.is_empty()
    }

    /// Bytes of events that wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the next batch should go; `None`: there is nothing to tell. What is missing is told with the next event, or at
    /// once where there is none.
    #[must_use]
    pub fn due(&self, hooks: &Hooks) -> Option<Instant> {
        if self.entries.len() >= hooks.batch_max || self.bytes >= Batch::BYTES_MAX {
            return Some(Instant::ZERO);
        }
        match self.entries.front() {
            Some(first) => Some(first.came + hooks.batch_delay),
            None => (!self.missed.is_empty()).then_some(Instant::ZERO),
        }
    }

    /// The next batch, if there is something to tell. At this Unix time.
    pub fn take(&mut self, hooks: &Hooks, now: Instant, unix_ms: u64) -> Option<Batch> {
        self.take_within(hooks, now, unix_ms, Batch::BYTES_MAX)
    }

    /// The same with so many bytes at most, or one event.
    pub fn take_within(&mut self, hooks: &Hooks, now: Instant, unix_ms: u64, bytes_max: usize) -> Option<Batch> {
        let bytes_max = bytes_max.min(Batch::BYTES_MAX);
        if self.is_empty() {
            return None;
        }
        self.batches += 1;
        let (missed, came) = (std::mem::take(&mut self.missed), self.entries.front().map_or(now, |entry| entry.came));
        let mut body = Vec::with_capacity(self.bytes.min(bytes_max) + 256);
        self.open(&missed, unix_ms, &mut body);
        let mut events = Counts::default();
        while let Some(entry) = self.entries.front() {
            let (is_first, length) = (events.is_empty(), entry.json.len());
            if !is_first && (events.total() >= hooks.batch_max as u64 || body.len() + length + ENDS_BYTES > bytes_max) {
                break;
            }
            let Some(entry) = self.pop() else { break };
            if !is_first {
                body.push(b',');
            }
            body.extend_from_slice(&entry.json);
            events.add(entry.kind, 1);
        }
        body.extend_from_slice(b"]}");
        let name = format!("{}-{}", self.teller.node, self.batches);
        Some(Batch { number: self.batches, name, body, events, missed, came })
    }

    fn open(&self, missed: &Counts, unix_ms: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"node\":");
        json::write_string(&self.teller.node, out);
        out.extend_from_slice(b",\"host\":");
        json::write_string(&self.teller.host, out);
        out.extend_from_slice(b",\"batch\":");
        json::write_number(self.batches, out);
        out.extend_from_slice(b",\"time\":");
        json::write_number(unix_ms, out);
        let mut before: &[u8] = b",\"missed\":{";
        for (kind, events) in missed.iter() {
            out.extend_from_slice(before);
            json::write_string(kind.name(), out);
            out.push(b':');
            json::write_number(events, out);
            before = b",";
        }
        if !missed.is_empty() {
            out.push(b'}');
        }
        out.extend_from_slice(b",\"events\":[");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::hooks::What;
    use crate::hooks::testing::{client, message, occupied};

    fn queue() -> Queue {
        Queue::new(Teller { node: "n".to_owned(), host: "h".to_owned() })
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn told(batch: &Batch) -> serde_json::Value {
        serde_json::from_slice(&batch.body).unwrap()
    }

    fn ids(batch: &Batch) -> Vec<String> {
        told(batch)["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_batch_goes_when_it_is_full_or_has_waited() {
        let (mut queue, hooks) = (queue(), Hooks { batch_max: 3, ..Hooks::default() });
        assert_eq!((queue.due(&hooks), queue.take(&hooks, at(0), 0)), (None, None));
        queue.push(&occupied("a"), &hooks, at(10));
        queue.push(&occupied("b"), &hooks, at(20));
        assert_eq!(queue.due(&hooks), Some(at(260)));
        queue.push(&occupied("c"), &hooks, at(30));
        queue.push(&occupied("d"), &hooks, at(40));
        assert_eq!(queue.due(&hooks), Some(Instant::ZERO));
        let batch = queue.take(&hooks, at(50), 1234).unwrap();
        assert_eq!(batch.name, "n-1");
        assert_eq!((batch.number, batch.came, batch.events.of(HookKind::Occupied)), (1, at(10), 3));
        assert_eq!(ids(&batch), ["n-1", "n-2", "n-3"]);
        let head = "{\"node\":\"n\",\"host\":\"h\",\"batch\":1,\"time\":1234,\"events\":[{\"id\":\"n-1\",";
        assert!(String::from_utf8_lossy(&batch.body).starts_with(head));
        assert_eq!(queue.due(&hooks), Some(at(290)));
        assert_eq!(ids(&queue.take(&hooks, at(290), 0).unwrap()), ["n-4"]);
        assert_eq!((queue.len(), queue.bytes(), queue.due(&hooks)), (0, 0, None));
    }

    #[test]
    fn what_had_to_go_is_told_by_kind() {
        let (mut queue, hooks) = (queue(), Hooks { queue_bytes: 500, ..Hooks::default() });
        let connected = Event { time_ms: 0, what: What::Connected(client()) };
        let mut dropped = 0;
        for _ in 0..10 {
            dropped += queue.push(&connected, &hooks, at(0)).full;
            dropped += queue.push(&occupied("a"), &hooks, at(0)).full;
        }
        assert_eq!(dropped + queue.len() as u64, 20);
        assert!(queue.bytes() <= 500 && !queue.is_empty());
        let batch = queue.take(&hooks, at(0), 0).unwrap();
        assert_eq!(told(&batch)["missed"]["connect"], batch.missed.of(HookKind::Connect));
        assert_eq!(batch.missed.total(), dropped);
        assert_eq!(*ids(&batch).last().unwrap(), "n-20", "the newest are there");
        assert!(queue.is_empty());
        // What could not be told is told with the next one, and nothing else is.
        queue.give_up(&batch);
        assert_eq!(queue.due(&hooks), Some(Instant::ZERO));
        let next = queue.take(&hooks, at(0), 0).unwrap();
        assert_eq!((next.missed.total(), ids(&next).len()), (20, 0));
        assert_eq!(told(&next)["events"], serde_json::json!([]));
    }

    #[test]
    fn an_event_that_is_longer_than_the_queue_is_missing() {
        let (mut queue, hooks) = (queue(), Hooks { queue_bytes: 500, payload: true, ..Hooks::default() });
        let long = Event { time_ms: 0, what: What::Published(message("t", &[b'x'; 600]), 0, None) };
        assert_eq!(queue.push(&long, &hooks, at(0)).full, 1);
        assert_eq!(queue.take(&hooks, at(0), 0).unwrap().missed.of(HookKind::Publish), 1);
    }

    #[test]
    fn events_become_too_old() {
        let (mut queue, hooks) = (queue(), Hooks::default());
        queue.push(&occupied("a"), &hooks, at(0));
        queue.push(&occupied("b"), &hooks, at(900));
        assert_eq!(queue.expire(Duration::from_secs(1), at(1000)), Dropped::default());
        assert_eq!(queue.expire(Duration::from_secs(1), at(1001)).late, 1);
        let batch = queue.take(&hooks, at(1001), 0).unwrap();
        assert_eq!((batch.missed.of(HookKind::Occupied), ids(&batch)), (1, vec!["n-2".to_owned()]));
    }

    #[test]
    fn a_batch_has_a_megabyte_or_one_event() {
        let (mut queue, hooks) = (queue(), Hooks { payload: true, ..Hooks::default() });
        let publish = |queue: &mut Queue, bytes| {
            let payload = vec![b'x'; bytes];
            queue.push(&Event { time_ms: 0, what: What::Published(message("t", &payload), 0, None) }, &hooks, at(0));
        };
        publish(&mut queue, 2 << 20);
        (0..3).for_each(|_| publish(&mut queue, 400_000));
        let sizes: Vec<_> =
            std::iter::from_fn(|| queue.take(&hooks, at(0), 0)).map(|batch| ids(&batch).len()).collect();
        assert_eq!(sizes, [1, 2, 1]);
        // A receiver may take less.
        (0..3).for_each(|_| publish(&mut queue, 10_000));
        let sizes = std::iter::from_fn(|| queue.take_within(&hooks, at(0), 0, 25_000)).map(|batch| {
            assert!(batch.body.len() <= 25_000, "{}", batch.body.len());
            ids(&batch).len()
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [2, 1]);
    }
}
