//! Durable topics: their past and what follows, without a gap.
//!
//! NATS says each message of a stream again, with its number, to whoever listens to the topic now: that costs the stream nothing
//! for each node. What is missing between two numbers is read from the stream; what is not there any more is told.
//!
//! A topic to which nobody has published yet has no stream, and stands at 0:0: whoever only listens or asks makes none.
//!
//! A NATS that is killed may have lost the last messages that it had acknowledged, and gives their numbers again. After each loss
//! of the connection the last message that is known is looked at; where it is another one, or none, the stream gets another
//! epoch.
//!
//! Numbers are the stream's, and another stream of the same name begins at 1 again. Whoever hears a number that is not above
//! the one before looks which stream it is; where it is another one, it listens anew, so that nothing of the one before is taken
//! for a message of it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use async_nats::header::NATS_SEQUENCE;
use async_nats::{Message as NatsMessage, Subscriber};
use futures_util::{StreamExt as _, stream};
use tokio::time::{self, Instant};

use super::desk::{Doubt, Seat, Shared};
use super::plain::Whispers;
use super::stream::{Found, Known};
use crate::cluster::names::Use;
use crate::cluster::port::{Follow, Inbound, Stored};
use crate::config::Keep;
use crate::message::Topic;
use crate::metrics::ClusterDropped;

/// Messages that are read from a stream at a time.
const READS: usize = 64;
/// Messages in one part of a past.
const PART: usize = 256;
/// The same in bytes, with one round of reads beyond.
const PART_BYTES: usize = 1 << 20;
/// Between two tries to reach a stream, at first and at most.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Between two looks whether a stream that is quiet is still the same and has nothing that was not said.
const LOOK: Duration = Duration::from_secs(60);

/// Where a shard stands with a topic.
struct Standing {
    seat: Rc<Seat>,
    follow: Follow,
    topic: Topic,
    keep: Keep,
    known: Known,
    /// What the shard has.
    have: u64,
    /// What the last of it is known by again, if there is one.
    print: Option<u64>,
    /// The last number that the stream has said again.
    heard: u64,
    /// What the shard has was not found in the stream yet since the connection was lost: before that nothing is told.
    doubt: Option<Doubt>,
}

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// What follows is heard.
    Hear,
    /// It is another stream.
    Anew,
    /// NATS has lost what the stream had.
    Renew,
    /// There is nothing to hear any more.
    End,
}

/// What a message is known by again.
fn print(stored: &Stored) -> u64 {
    let Stored { message, key } = stored;
    let mut hasher = DefaultHasher::new();
    (message.payload(), message.time_ms, key).hash(&mut hasher);
    hasher.finish()
}

impl Shared {
    /// Hears a durable topic until it is dropped.
    pub(super) async fn follow_ordered(
        self: Rc<Self>,
        seat: Rc<Seat>,
        (follow, whispers): (Follow, bool),
        topic: Topic,
        keep: Keep,
    ) {
        let Some(mut whispered) = self.whispers(&topic, whispers).await else { return };
        let mut standing: Option<Standing> = None;
        let mut next = Next::Anew;
        loop {
            // From before the stream is looked at: what it says from then on is heard, or is there to be read.
            let Ok(mut said) = self.client.subscribe(self.settings.names.subject(Use::Ordered, &topic)).await else {
                return self.metrics.drop_one(ClusterDropped::Refused);
            };
            let known = self.stream_at_last(&topic).await;
            next = match &mut standing {
                None => {
                    let Ok(known) = self.in_line(&topic, known, keep).await else { continue };
                    let (seat, topic) = (Rc::clone(&seat), topic.clone());
                    // Who has heard nothing yet has nothing else to tell another stream by, which begins with lower numbers.
                    let (have, print, heard, doubt) = (known.last, None, known.last, None);
                    let first =
                        standing.insert(Standing { seat, follow, topic, keep, known, have, print, heard, doubt });
                    match self.tell_past(first).await {
                        Next::Hear => self.hear_stream(first, &mut said, &mut whispered).await,
                        next => next,
                    }
                }
                Some(standing) => {
                    let next = self.begin_anew(standing, known, next == Next::Renew).await;
                    standing.heard = standing.known.last;
                    match next {
                        Next::Hear => self.hear_stream(standing, &mut said, &mut whispered).await,
                        next => next,
                    }
                }
            };
            if next == Next::End {
                return;
            }
        }
    }

    /// Goes on with what may be another stream, or one that has lost what it had: from its beginning then, and all that it has
    /// is told.
    async fn begin_anew(&self, standing: &mut Standing, known: Known, is_loss: bool) -> Next {
        let before = standing.known.epoch;
        let is_loss = known.epoch == before && (is_loss || self.has_lost(standing, &known).await == Some(true));
        standing.known = if is_loss { self.renew_epoch(&standing.topic, known).await } else { known };
        let Known { epoch, first, last, .. } = standing.known;
        if is_loss || epoch != before {
            standing.doubt = None;
            self.lose(standing, first.saturating_sub(1).min(last)).await;
        }
        if standing.doubt.is_none() { self.read(standing, last).await } else { Next::Hear }
    }

    async fn hear_stream(
        self: &Rc<Self>,
        standing: &mut Standing,
        said: &mut Subscriber,
        whispered: &mut Whispers,
    ) -> Next {
        let mut link = self.link.clone();
        let mut seen = *link.borrow_and_update();
        let mut due = Instant::now() + LOOK;
        loop {
            if standing.doubt.is_some() {
                due = due.min(Instant::now() + RETRY.1);
            }
            let next = tokio::select! {
                biased;
                changed = link.changed() => {
                    let now = *link.borrow_and_update();
                    match changed {
                        Err(_) => Next::End,
                        Ok(()) if now.is_up && (now.number, now.slow) != (seen.number, seen.slow) => {
                            seen = now;
                            standing.doubt.get_or_insert_with(|| Doubt::new(self, &standing.topic));
                            self.catch_up(standing).await
                        }
                        Ok(()) => Next::Hear,
                    }
                }
                next = said.next() => match next {
                    Some(next) => {
                        due = Instant::now() + LOOK;
                        self.take(standing, &next).await
                    }
                    None => Next::End,
                },
                next = whispered.next() => match next {
                    Some(next) => {
                        self.hear_whisper(&standing.seat, standing.follow, next).await;
                        Next::Hear
                    }
                    None => Next::End,
                },
                () = time::sleep_until(due) => {
                    due = Instant::now() + LOOK;
                    self.catch_up(standing).await
                }
            };
            if next != Next::Hear {
                return next;
            }
        }
    }

    /// Waits for a topic's stream as long as it takes.
    pub(super) async fn stream_at_last(&self, topic: &Topic) -> Known {
        let mut pause = RETRY.0;
        loop {
            if let Ok(known) = self.find_stream(topic).await {
                return known;
            }
            time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Tells the newest messages of a stream, and where it stands. What is not there any more is left out.
    async fn tell_past(&self, standing: &mut Standing) -> Next {
        let Standing { known, topic, seat, follow, keep, .. } = &*standing;
        let (follow, last) = (*follow, known.last);
        let most = u64::try_from(keep.messages_max).unwrap_or(u64::MAX);
        let mut next = known.first.max(last.saturating_sub(most) + 1).max(1);
        let (mut messages, mut bytes) = (Vec::new(), 0);
        let mut last_print = None;
        while next <= last {
            for found in self.fetch_all(known, topic, next..=last.min(next + READS as u64 - 1)).await {
                match found {
                    Found::Message(stored) => {
                        bytes += stored.message.payload().len();
                        last_print = Some((stored.message.offset.0, print(&stored)));
                        messages.push(*stored);
                    }
                    // The stream goes on meanwhile, and drops its oldest; or somebody took one out.
                    Found::Gone => {}
                    Found::Away => match self.look_again(topic, known).await {
                        Next::Hear => break,
                        is_another => {
                            seat.post(Inbound::Past { follow, messages, end: Some(known.cursor(last)) }).await;
                            return is_another;
                        }
                    },
                }
                next += 1;
            }
            if messages.len() >= PART || bytes >= PART_BYTES {
                bytes = 0;
                seat.post(Inbound::Past { follow, messages: std::mem::take(&mut messages), end: None }).await;
            }
        }
        seat.post(Inbound::Past { follow, messages, end: Some(known.cursor(last)) }).await;
        standing.print = last_print.filter(|(offset, _)| *offset == last).map(|(_, print)| print);
        Next::Hear
    }

    /// A message could not be read: after a while it is tried again, unless the stream is not there any more.
    async fn look_again(&self, topic: &Topic, known: &Known) -> Next {
        time::sleep(RETRY.0).await;
        match self.find_stream(topic).await {
            Ok(now) if now.epoch != known.epoch => Next::Anew,
            _ => Next::Hear,
        }
    }

    /// Takes what the stream says again.
    async fn take(self: &Rc<Self>, standing: &mut Standing, said: &NatsMessage) -> Next {
        let headers = said.headers.as_ref();
        let number = headers.and_then(|headers| headers.get(NATS_SEQUENCE)?.as_str().parse::<u64>().ok());
        let Some(number) = number else {
            self.metrics.drop_one(ClusterDropped::Foreign);
            return Next::Hear;
        };
        self.metrics.heard(said.payload.len());
        if number <= standing.heard || standing.doubt.is_some() {
            let next = self.catch_up(standing).await;
            if standing.doubt.is_none() {
                // It was said before the stream was looked at, and so may the next ones be.
                standing.heard = number;
            }
            return next;
        }
        standing.heard = number;
        if !standing.known.is_there() {
            return self.catch_up(standing).await;
        }
        if number > standing.have + 1 {
            self.metrics.gaps.add(1);
            let next = self.read(standing, number - 1).await;
            if next != Next::Hear {
                return next;
            }
        }
        // Below that it was read before it was said.
        if number == standing.have + 1 {
            let cursor = standing.known.cursor(number);
            let Some(stored) = self.stored(&standing.topic, cursor, &said.payload, headers) else {
                // No node's: the stream knows its time.
                return self.read(standing, number).await;
            };
            self.tell(standing, stored).await;
        }
        Next::Hear
    }

    /// Reads what the shard does not have, up to a place.
    async fn read(&self, standing: &mut Standing, last: u64) -> Next {
        while standing.have < last {
            let missing = standing.have + 1..=last.min(standing.have + READS as u64);
            for found in self.fetch_all(&standing.known, &standing.topic, missing).await {
                match found {
                    Found::Message(stored) => self.tell(standing, *stored).await,
                    Found::Gone => match self.go_on_behind(standing).await {
                        Next::Hear => break,
                        next => return next,
                    },
                    Found::Away if self.is_up() => match self.look_again(&standing.topic, &standing.known).await {
                        Next::Hear => break,
                        next => return next,
                    },
                    // It is caught up with when the connection is back.
                    Found::Away => return Next::Hear,
                }
            }
        }
        Next::Hear
    }

    async fn fetch_all(&self, known: &Known, topic: &Topic, offsets: RangeInclusive<u64>) -> Vec<Found> {
        stream::iter(offsets).map(|offset| self.fetch(known, topic, offset)).buffered(READS).collect().await
    }

    /// The next message is not there any more: the topic goes on behind it, and behind what the stream has dropped with it.
    async fn go_on_behind(&self, standing: &mut Standing) -> Next {
        let (known, gone) = (self.stream_at_last(&standing.topic).await, standing.have + 1);
        if known.epoch != standing.known.epoch || known.last < gone {
            return Next::Anew;
        }
        standing.known = known;
        if !matches!(self.fetch(&standing.known, &standing.topic, gone).await, Found::Gone) {
            // It was not there yet.
            return Next::Hear;
        }
        let at = gone.max(standing.known.first.saturating_sub(1));
        self.lose(standing, at).await;
        Next::Hear
    }

    /// Tells the next message.
    async fn tell(&self, standing: &mut Standing, stored: Stored) {
        (standing.have, standing.print) = (stored.message.offset.0, Some(print(&stored)));
        standing.seat.post(Inbound::Placed(standing.follow, stored)).await;
    }

    async fn lose(&self, standing: &mut Standing, at: u64) {
        self.metrics.lost.add(1);
        (standing.have, standing.print) = (at, None);
        let cursor = standing.known.cursor(at);
        standing.seat.post(Inbound::Lost(standing.follow, Some(cursor))).await;
    }

    /// Whether a stream has lost what it had: then the message that was the last one is another one, or not there. `None`:
    /// nobody answered.
    async fn has_lost(&self, standing: &Standing, known: &Known) -> Option<bool> {
        if !known.is_there() || known.last < standing.have {
            return Some(known.is_there());
        }
        let Some(before) = standing.print else { return Some(false) };
        match self.fetch(known, &standing.topic, standing.have).await {
            Found::Message(stored) => Some(print(&stored) != before),
            Found::Gone => Some(false),
            Found::Away => None,
        }
    }

    /// Looks what the stream has that was not said, whether it is the same one, and whether it has lost what it had. Where nobody
    /// answers that is done again before anything is told.
    async fn catch_up(self: &Rc<Self>, standing: &mut Standing) -> Next {
        standing.doubt.get_or_insert_with(|| Doubt::new(self, &standing.topic));
        let Ok(known) = self.find_stream(&standing.topic).await else { return Next::Hear };
        let is_first = !standing.known.is_there() && known.is_there();
        if !is_first && known.epoch != standing.known.epoch {
            return Next::Anew;
        }
        match self.has_lost(standing, &known).await {
            Some(true) => return Next::Renew,
            Some(false) => {}
            None => return Next::Hear,
        }
        standing.known = known;
        standing.doubt = None;
        if standing.have + 1 < standing.known.first {
            let at = standing.known.first - 1;
            self.lose(standing, at).await;
        }
        let last = standing.known.last;
        self.read(standing, last).await
    }
}
