//! What is asked of topics: their past, and what is known of them.

use super::ordered::NOWHERE;
use super::{Info, NoRoom, Now, Owned, Page, Past, Start, Topics};
use crate::codec::websocket::deflate::Deflater;
use crate::message::{Cursor, Message, Topic, Wants};

impl Topics {
    /// What a new subscriber missed. The topic is created if it does not exist, so that the cursor means something.
    ///
    /// # Errors
    /// When there is no room for the topic.
    pub fn past(&mut self, topic: &Topic, start: Start, now: Now) -> Result<Past, NoRoom> {
        let key = self.find_or_create(topic, now)?;
        self.share(key);
        let owned = self.look(key, now);
        let Some(missed) = owned.missed(start) else {
            return Ok(Past { cursor: owned.cursor, messages: Vec::new(), reset: true });
        };
        let cursor = match start {
            Start::Since(since) if owned.is_ahead(since) => since,
            _ => owned.cursor,
        };
        Ok(Past { cursor, messages: owned.history.last(missed).cloned().collect(), reset: false })
    }

    /// Encodes what [`Topics::past`] will give for those who read these formats, in history itself: once for all who ask.
    pub fn prepare(&mut self, topic: &Topic, start: Start, wants: Wants, deflater: &mut Deflater) {
        let Some(&key) = self.keys.get(topic) else { return };
        let owned = &mut self.topics.0[key as usize];
        if let Some(missed) = owned.missed(start) {
            owned.history.prepare_last(missed, wants, deflater);
        }
    }

    /// Up to `limit` messages after `since`, or the last ones.
    pub fn page(&mut self, topic: &Topic, since: Option<Cursor>, limit: usize, now: Now) -> Page {
        let Some(&key) = self.keys.get(topic) else { return Page { reset: since.is_some(), ..Page::default() } };
        let owned = self.look(key, now);
        let Some(since) = since else {
            let messages = owned.history.last(limit).cloned().collect();
            return Page { cursor: Some(owned.cursor), messages, more: false, reset: false };
        };
        let Some(found) = owned.since(since) else {
            return Page { cursor: Some(owned.cursor), reset: true, ..Page::default() };
        };
        let more = found.len() > limit;
        let messages: Vec<_> = found.take(limit).cloned().collect();
        let cursor = messages.last().map_or(since, Message::cursor);
        Page { cursor: Some(cursor), messages, more, reset: false }
    }

    /// What is known of a topic, also when it does not exist.
    pub fn info(&mut self, topic: &Topic, now: Now) -> Info {
        let bounds = self.rulings.of(topic).keep;
        let Some(&key) = self.keys.get(topic) else {
            return Info { cursor: None, subscribers: 0, messages: 0, bytes: 0, first: None, bounds };
        };
        let Owned { cursor, audience, history, .. } = self.look(key, now);
        let subscribers = audience.subscribers();
        let (messages, bytes, first) = (history.len(), history.bytes(), history.first());
        Info { cursor: Some(*cursor), subscribers, messages, bytes, first, bounds }
    }
}

impl Owned {
    /// Messages that a node may be behind another one.
    const LEAD_MAX: u64 = 1 << 20;

    /// How many of the newest messages make up such a past; `None` where some of it is lost.
    fn missed(&self, start: Start) -> Option<usize> {
        match start {
            Start::Now => Some(0),
            Start::Last(n) => Some(usize::try_from(n).unwrap_or(usize::MAX)),
            Start::Since(since) => self.since(since).map(|messages| messages.len()),
        }
    }

    /// The messages after a cursor; `None` when it is none of this past's, or some are not kept any more. Who stands before a
    /// stream that did not exist has missed what it has.
    fn since(&self, since: Cursor) -> Option<impl ExactSizeIterator<Item = &Message>> {
        let is_ours = since.epoch == self.cursor.epoch || (self.has_stream() && since == NOWHERE);
        let from = if self.is_ahead(since) { self.cursor.offset } else { since.offset };
        is_ours.then(|| self.history.since(from, self.cursor.offset)).flatten()
    }

    fn has_stream(&self) -> bool {
        self.shared.as_deref().is_some_and(|shared| shared.ordered.is_some())
    }

    /// Whether another node has told more of the stream than has come here yet: nothing is missed, and what comes up to there is
    /// known. Who names a place far beyond is told of a reset, and does not wait for what may never come.
    fn is_ahead(&self, since: Cursor) -> bool {
        let lead = since.offset.0.checked_sub(self.cursor.offset.0);
        self.has_stream()
            && since.epoch == self.cursor.epoch
            && lead.is_some_and(|lead| (1..=Self::LEAD_MAX).contains(&lead))
    }
}
