//! What is kept of one topic's past.
//!
//! The messages are the ones that were fanned out: payloads and encoded frames are shared, not copied. They follow each
//! other without a gap and end with the topic's newest, or there are none. Messages go from the oldest on: when they are
//! over the topic's bounds, too old, or asked for by [`History::pop_oldest`].

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::codec::websocket::deflate::Deflater;
use crate::message::{Message, Offset, Wants};
use crate::wheel::Tick;

/// How much of a topic's past is kept. A zero turns history off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Messages.
    pub messages_max: usize,
    /// Bytes of messages, with what it takes to keep them apart.
    pub bytes_max: usize,
    /// Age of a message.
    pub age_ticks: u32,
}

impl Bounds {
    /// Whether nothing is kept.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.messages_max == 0 || self.bytes_max == 0 || self.age_ticks == 0
    }
}

/// The messages of a topic that are kept, and their idempotency keys.
#[derive(Debug, Default)]
pub struct History {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The offsets of messages that have a key. There is a map only while there are any.
    keys: Option<Box<HashMap<Arc<str>, Offset>>>,
}

#[derive(Debug)]
struct Kept {
    message: Message,
    at: Tick,
    /// How old it was then, in ticks: where it has been kept by another process before.
    aged: u32,
    key: Option<Arc<str>>,
}

impl Kept {
    /// What a key costs beside its bytes: its counts, its place in the map with room for growth.
    const KEY_BYTES: usize = 64;

    fn memory(&self) -> usize {
        History::bytes_of(&self.message, self.key.as_deref())
    }
}

impl History {
    /// Places for messages that are kept when they are empty.
    const ROOM_KEPT: usize = 64;
    /// Messages that are dropped in one step where there are more than may be: some microseconds.
    pub(super) const DROPPED_AT_ONCE: usize = 256;

    /// What it takes to keep a message that was published with this key, about.
    #[must_use]
    pub fn bytes_of(message: &Message, key: Option<&str>) -> usize {
        let key = key.map_or(0, |key| key.len() + Kept::KEY_BYTES);
        message.memory() + size_of::<Kept>() - size_of::<Message>() + key
    }

    /// Adds the topic's newest message. A message that is over the bounds by itself is not kept, nor any before it. Where the
    /// bounds have become narrower it makes some room, and [`History::trim`] the rest.
    pub fn push(&mut self, message: Message, key: Option<&str>, now: Tick, bounds: &Bounds) {
        if !bounds.is_off() {
            self.push_aged(message, key.map(Into::into), (now, 0), bounds);
        }
    }

    /// The same with a message that is so many ticks old by now.
    pub fn push_aged(&mut self, message: Message, key: Option<Arc<str>>, (at, aged): (Tick, u32), bounds: &Bounds) {
        if bounds.is_off() {
            return;
        }
        let kept = Kept { message, at, aged, key };
        let bytes = kept.memory();
        // Room is made first, so that a full history never grows its list.
        let mut left = if self.is_over(bounds) { Self::DROPPED_AT_ONCE } else { usize::MAX };
        while self.kept.len() >= bounds.messages_max || self.bytes + bytes > bounds.bytes_max {
            if left == 0 {
                break;
            }
            if !self.drop_oldest() {
                return self.give_memory_back();
            }
            left -= 1;
        }
        if let Some(key) = &kept.key {
            self.keys.get_or_insert_default().insert(Arc::clone(key), kept.message.offset);
        }
        self.bytes += bytes;
        self.kept.push_back(kept);
    }

    /// Drops the oldest message. Returns whether there was one.
    pub fn pop_oldest(&mut self) -> bool {
        let dropped = self.drop_oldest();
        self.give_memory_back();
        dropped
    }

    /// Drops what is over the bounds, so many messages at most. Returns whether there is more of it.
    pub fn trim(&mut self, bounds: &Bounds, most: usize) -> bool {
        let dropped = (0..most).take_while(|_| self.is_over(bounds) && self.drop_oldest()).count();
        if dropped > 0 {
            self.give_memory_back();
        }
        self.is_over(bounds)
    }

    fn is_over(&self, bounds: &Bounds) -> bool {
        self.len() > bounds.messages_max || self.bytes > bounds.bytes_max
    }

    /// Drops so many of the oldest messages. Returns whether there are any left.
    pub fn drop_some(&mut self, most: usize) -> bool {
        (0..most).all(|_| self.drop_oldest())
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(kept) = self.kept.pop_front() else { return false };
        self.bytes -= kept.memory();
        if let (Some(key), Some(keys)) = (&kept.key, &mut self.keys) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys = None;
            }
        }
        true
    }

    fn give_memory_back(&mut self) {
        let len = self.kept.len();
        if len == 0 {
            self.kept = VecDeque::new();
        } else if self.kept.capacity() > 4 * len.max(Self::ROOM_KEPT) {
            self.kept.shrink_to(2 * len);
        }
    }

    /// Drops messages whose age is over the bound at `now`, so many at most. Returns how many.
    pub fn expire(&mut self, now: Tick, bounds: &Bounds, most: usize) -> usize {
        let mut expired = 0;
        while expired < most && self.expiry(bounds).is_some_and(|expiry| expiry <= now) {
            self.drop_oldest();
            expired += 1;
        }
        self.give_memory_back();
        expired
    }

    /// When the oldest message is over its age.
    #[must_use]
    pub fn expiry(&self, bounds: &Bounds) -> Option<Tick> {
        self.kept.front().map(|kept| kept.at.later(bounds.age_ticks.saturating_sub(kept.aged)))
    }

    /// The message that was published with this key.
    #[must_use]
    pub fn keyed(&self, key: &str) -> Option<Offset> {
        self.keys.as_ref()?.get(key).copied()
    }

    /// The offset of the oldest message.
    #[must_use]
    pub fn first(&self) -> Option<Offset> {
        self.kept.front().map(|kept| kept.message.offset)
    }

    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What they keep in memory, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// All messages after `offset` of a topic whose newest is `last`; `None` when some of them are not kept any more, or
    /// `offset` is none of the topic's.
    #[must_use]
    pub fn since(&self, offset: Offset, last: Offset) -> Option<impl ExactSizeIterator<Item = &Message>> {
        let missed = usize::try_from(last.0.checked_sub(offset.0)?).ok()?;
        (missed <= self.len()).then(|| self.last(missed))
    }

    /// All messages with their ages in ticks and their keys.
    pub fn aged(&self, now: Tick) -> impl ExactSizeIterator<Item = (&Message, u32, Option<&Arc<str>>)> {
        let age = move |kept: &Kept| now.0.saturating_sub(kept.at.0).saturating_add(kept.aged);
        self.kept.iter().map(move |kept| (&kept.message, age(kept), kept.key.as_ref()))
    }

    /// Encodes the last `n` messages for those who read these formats, so that it is done once for all of them.
    pub fn prepare_last(&mut self, n: usize, wants: Wants, deflater: &mut Deflater) {
        let begin = self.len().saturating_sub(n);
        self.kept.range_mut(begin..).for_each(|kept| kept.message.prepare(wants, deflater));
    }

    /// The last `n` messages, or all when there are fewer.
    #[must_use]
    pub fn last(&self, n: usize) -> impl ExactSizeIterator<Item = &Message> {
        let begin = self.len().saturating_sub(n);
        self.kept.range(begin..).map(|kept| &kept.message)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::hub::testing::{Random, message};

    fn bounds(messages_max: usize, bytes_max: usize, age_ticks: u32) -> Bounds {
        Bounds { messages_max, bytes_max, age_ticks }
    }

    fn push(history: &mut History, offset: u64, key: Option<&str>, now: u32, bounds: &Bounds) {
        history.push(message("t", offset, b"hi"), key, Tick(now), bounds);
    }

    fn offsets<'a>(messages: impl Iterator<Item = &'a Message>) -> Vec<u64> {
        messages.map(|message| message.offset.0).collect()
    }

    #[test]
    fn a_zero_keeps_nothing() {
        for off in [bounds(0, 9999, 9), bounds(9, 0, 9), bounds(9, 9999, 0)] {
            let mut history = History::default();
            push(&mut history, 1, Some("key"), 0, &off);
            assert!(history.is_empty() && history.keyed("key").is_none() && history.bytes() == 0);
        }
    }

    #[test]
    fn payloads_are_shared() {
        let mut history = History::default();
        let sent = message("t", 1, b"hi");
        history.push(sent.clone(), None, Tick(0), &bounds(9, 9999, 9));
        assert_eq!(history.last(1).next().unwrap().payload().as_ptr(), sent.payload().as_ptr());
    }

    #[test]
    fn what_is_too_large_leaves_nothing() {
        let mut history = History::default();
        let few = bounds(9, 1000, 9);
        push(&mut history, 1, Some("small"), 0, &few);
        history.push(message("t", 2, &[0; 1000]), Some("large"), Tick(0), &few);
        assert!(history.is_empty() && history.bytes() == 0 && history.keys.is_none());
        assert!(history.since(Offset(1), Offset(2)).is_none());
        assert_eq!(history.since(Offset(2), Offset(2)).unwrap().len(), 0);
    }

    /// Against a list that nothing is ever taken from: what should be kept is found by walking it from its end.
    #[test]
    fn it_keeps_what_its_bounds_say() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let (one, age) = (message("t", 1, b"hi").memory() + 64, random.below(30) + 1);
            let bounds = bounds(random.below(20) + 1, one * (random.below(20) + 1), u32::try_from(age).unwrap());
            let (mut history, mut now, mut lost) = (History::default(), 0, 0);
            let mut all: Vec<(u32, usize, Option<String>)> = Vec::new();
            for offset in 1..=100 {
                now += u32::try_from(random.below(4)).unwrap();
                history.expire(Tick(now), &bounds, usize::MAX);
                let key = (random.below(3) == 0).then(|| format!("key {offset}"));
                let payload = vec![0; random.below(100)];
                let message = message("t", offset, &payload);
                let memory = message.memory() + size_of::<Kept>() - size_of::<Message>();
                all.push((now, memory + key.as_ref().map_or(0, |key| key.len() + Kept::KEY_BYTES), key.clone()));
                history.push(message, key.as_deref(), Tick(now), &bounds);

                let (mut kept, mut bytes) = (0, 0);
                for (at, memory, _) in all.iter().rev() {
                    let fits = kept < bounds.messages_max && bytes + memory <= bounds.bytes_max;
                    if !fits || at + bounds.age_ticks <= now {
                        break;
                    }
                    (kept, bytes) = (kept + 1, bytes + memory);
                }
                // What has gone stays away.
                lost = lost.max(all.len() - kept);
                assert_eq!(history.bytes(), all[lost..].iter().map(|(_, memory, _)| memory).sum::<usize>());
                let expected: Vec<u64> = (u64::try_from(lost).unwrap() + 1..=offset).collect();
                assert_eq!(offsets(history.last(usize::MAX)), expected, "seed {seed}");
                for (place, (.., key)) in all.iter().enumerate() {
                    let Some(key) = key else { continue };
                    assert_eq!(history.keyed(key).is_some(), place >= lost, "seed {seed}: {key}");
                }
                let since = Offset(u64::try_from(random.below(all.len() + 3)).unwrap());
                let is_there = since.0 <= offset && usize::try_from(since.0).unwrap() >= lost;
                let found = history.since(since, Offset(offset)).map(offsets);
                assert_eq!(found, is_there.then(|| (since.0 + 1..=offset).collect()), "seed {seed}: {since:?}");
            }
        }
    }
}
