//! Publications to a durable topic: into its stream, in their order, and back with their places.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::{task, time};

use super::desk::{PATIENCE, Seat, Shared};
use super::plain::headers;
use super::stream::Known;
use crate::cluster::envelope::{Envelope, write_key};
use crate::cluster::names::Use;
use crate::cluster::port::{Appended, Inbound, NotAppended, Ticket};
use crate::config::Keep;
use crate::message::{Message, Topic};

/// A writer without work ends.
const IDLE: Duration = Duration::from_secs(30);

/// Between two looks whether a stream that is written to is the same: somebody may delete it.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks whether somebody else still looks at it.
const DOUBT: Duration = Duration::from_millis(20);
/// What the log says of an answer that does not come.
const NO_ANSWER: &str = "JetStream does not answer";

/// A publication on its way.
pub(super) struct Append {
    pub(super) since: Instant,
    pub(super) seat: Rc<Seat>,
    pub(super) ticket: Ticket,
    pub(super) message: Message,
    pub(super) key: Option<Arc<str>>,
    pub(super) keep: Keep,
}

impl Append {
    async fn answer(self, what: Result<Appended, NotAppended>) {
        self.seat.post(Inbound::Appended(self.ticket, what)).await;
    }
}

/// A topic's stream as its writer knows it.
struct Target {
    /// The connection that it was looked at with.
    connection: u64,
    known: Known,
    /// The greatest number that it has given a message.
    highest: Cell<u64>,
    looked: Instant,
    /// How many epochs had been renewed then.
    renewed: u64,
    /// It may be another stream by now.
    is_stale: Cell<bool>,
}

impl Shared {
    /// Writes what comes until nothing has for a while.
    pub(super) async fn write(self: Rc<Self>, topic: Topic, mut appends: mpsc::UnboundedReceiver<Append>) {
        let (mut target, mut before): (Option<Rc<Target>>, Option<Rc<Target>>) = (None, None);
        while let Ok(Some(append)) = time::timeout(IDLE, appends.recv()).await {
            if append.since.elapsed() > PATIENCE {
                // Its publisher is told so, or has been: nothing is written then that nobody counts on any more.
                append.answer(Err(NotAppended::Away)).await;
                continue;
            }
            let connection = self.link.borrow().number;
            let is_fit = |target: &Rc<Target>| {
                target.connection == connection
                    && target.renewed == self.renewed.get()
                    && !target.is_stale.get()
                    && target.looked.elapsed() < LOOK
            };
            if let Some(unfit) = target.take_if(|target| !is_fit(target)) {
                before = Some(unfit);
            }
            let is_new = before.is_none();
            let target = match target.as_ref() {
                Some(target) => target,
                None => match self.stream_in_time(&topic, append.keep, is_new).await {
                    Ok(known) => {
                        // What NATS had acknowledged is not there: see `renew_epoch`.
                        let has_lost = |one: &Rc<Target>| {
                            one.known.epoch == known.epoch && known.is_there() && known.last < one.highest.get()
                        };
                        let has_lost = before.as_ref().is_some_and(has_lost);
                        let known = if has_lost { self.renew_epoch(&topic, known).await } else { known };
                        let (highest, is_stale) = (Cell::new(known.last), Cell::new(false));
                        let (looked, renewed) = (Instant::now(), self.renewed.get());
                        target.insert(Rc::new(Target { connection, known, highest, looked, renewed, is_stale }))
                    }
                    Err(why) => {
                        append.answer(Err(why)).await;
                        // Those who came meanwhile would wait as long, one after the other.
                        while let Ok(append) = appends.try_recv() {
                            append.answer(Err(why)).await;
                        }
                        continue;
                    }
                },
            };
            self.append(Rc::clone(target), append).await;
        }
    }

    async fn stream_in_time(&self, topic: &Topic, keep: Keep, tends: bool) -> Result<Known, NotAppended> {
        let find = async {
            let mut known = self.stream(topic, keep, tends).await;
            // Who hears the topic may find that it has another epoch from now on.
            while known.is_ok() && self.is_doubted(topic) {
                time::sleep(DOUBT).await;
                known = self.stream(topic, keep, false).await;
            }
            known
        };
        time::timeout(PATIENCE, find).await.unwrap_or_else(|_| {
            self.complain(topic, NO_ANSWER);
            Err(NotAppended::Away)
        })
    }

    /// Sends one, and waits for its place beside.
    async fn append(self: &Rc<Self>, target: Rc<Target>, append: Append) {
        if !self.is_up() {
            return append.answer(Err(NotAppended::Away)).await;
        }
        let Append { message, key, .. } = &append;
        let mut headers = headers(&Envelope::of(self.node, message, None));
        if let Some(key) = key {
            headers.insert(async_nats::header::NATS_MESSAGE_ID, write_key(key));
        }
        let subject = self.settings.names.subject(Use::Durable, &message.topic);
        let payload = Bytes::copy_from_slice(message.payload());
        self.metrics.said(payload.len());
        let began = Instant::now();
        let publish = self.jetstream.publish_with_headers(subject, headers, payload);
        let sent = time::timeout(PATIENCE, self.unless_away(async { Ok::<_, Infallible>(publish.await) })).await;
        let waiting = match sent {
            Ok(Ok(Ok(waiting))) => waiting,
            Ok(Ok(Err(error))) => return append.answer(Err(why(&error))).await,
            Ok(Err(_)) | Err(_) => return append.answer(Err(NotAppended::Away)).await,
        };
        let shared = Rc::clone(self);
        task::spawn_local(async move {
            let mut link = shared.link.clone();
            // What a connection has taken with it is not answered by the next one.
            let is_over = link.wait_for(|link| !link.is_up || link.number != target.connection);
            let answer = tokio::select! {
                biased;
                answer = time::timeout(PATIENCE, waiting.into_future()) => Some(answer),
                _ = is_over => None,
            };
            shared.metrics.append_seconds.observe(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            let what = match answer {
                Some(Ok(Ok(ack))) => shared.place(&target, &append, ack.sequence, ack.duplicate).await,
                Some(Ok(Err(error))) => {
                    target.is_stale.set(true);
                    shared.complain(&append.message.topic, &error.to_string());
                    Err(why(&error))
                }
                Some(Err(_)) => {
                    shared.complain(&append.message.topic, NO_ANSWER);
                    Err(NotAppended::Away)
                }
                None => Err(NotAppended::Away),
            };
            append.answer(what).await;
        });
    }

    /// Where a message is that has got this number.
    async fn place(
        &self,
        target: &Target,
        append: &Append,
        number: u64,
        duplicate: bool,
    ) -> Result<Appended, NotAppended> {
        self.metrics.streams_working.set(1);
        let before = target.highest.get();
        target.highest.set(before.max(number));
        if duplicate || number > before {
            return Ok(Appended { cursor: target.known.cursor(number), duplicate });
        }
        // A stream does not count back: it is another one, or its answers have overtaken each other.
        target.is_stale.set(true);
        let known = self.stream(&append.message.topic, append.keep, false).await?;
        Ok(Appended { cursor: known.cursor(number), duplicate })
    }
}

fn why(error: &PublishError) -> NotAppended {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => NotAppended::TooLarge,
        PublishErrorKind::Other => NotAppended::NoRoom,
        _ => NotAppended::Away,
    }
}
