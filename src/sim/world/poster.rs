//! A scripted publisher over HTTP: it is told what became of each message, and sends some again, with their keys.

use super::calls::{self, Heard};
use super::carriage::Carriage;
use super::ledger::Ledger;
use super::peer::Surroundings;
use super::sabotage::Trick;
use super::streams::{self, Head, Place};
use super::wire::{self, Id, Style};
use crate::id::ListenerId;
use crate::sim;

/// How it posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// HTTP/1.1.
    Plain,
    /// The same requests over HTTP/2.
    Http2,
    /// A call for each message.
    Once,
    /// One call for all.
    Calls,
}

/// Who posts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand {
    /// The step in which it comes.
    pub(super) start: usize,
    pub(super) way: Way,
    pub(super) messages: u32,
    /// How often, in a thousand rounds, it hangs up on an answer.
    pub(super) unruly: u16,
}

/// A message on its way.
#[derive(Clone, Copy, Debug)]
struct Post {
    topic: u8,
    id: Id,
    style: Style,
    bytes: usize,
    has_key: bool,
    /// How often it was sent.
    times: u32,
    /// It has been answered.
    acknowledged: bool,
}

/// A publisher.
#[derive(Debug)]
pub(super) struct Poster {
    pub(super) number: u32,
    pub(super) errand: Errand,
    client: Option<Carriage>,
    outgoing: Vec<u8>,
    inbox: Vec<u8>,
    head: Option<Box<Head>>,
    posted: u32,
    post: Option<Post>,
    /// Whether the request has been written, and the answer is to come.
    waits: bool,
    /// Answers that said where a message is.
    pub(super) acks: u64,
    pub(super) duplicates: u64,
}

impl Poster {
    /// Publishers' numbers begin here; below are those of other peers.
    pub(super) const FIRST: u32 = 1000;
    /// Times that a message is sent at most.
    const TIMES_MAX: u32 = 6;
    /// The topic that nobody subscribes to.
    const LONELY: u8 = 9;

    pub(super) const fn new(number: u32, errand: Errand) -> Self {
        Self {
            number,
            errand,
            client: None,
            outgoing: Vec::new(),
            inbox: Vec::new(),
            head: None,
            posted: 0,
            post: None,
            waits: false,
            acks: 0,
            duplicates: 0,
        }
    }

    /// What matters of it in a fault's text.
    pub(super) fn gist(&self) -> String {
        format!("poster {}, waits: {}, with {:?}", self.number, self.waits, self.post)
    }

    /// One round. `stays` when nobody begins anything new.
    pub(super) fn poll(
        &mut self,
        step: usize,
        stays: bool,
        around: &mut Surroundings<'_>,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        if self.errand.start > step {
            return Ok(());
        }
        let begins = !stays && !around.calm && self.post.is_none() && self.posted < self.errand.messages;
        if begins && around.random.chance(300) {
            self.begin(around);
        }
        if self.post.is_some() && !self.waits && !stays {
            self.send(around, ledger);
        }
        self.read(around, ledger)?;
        self.write(around);
        let hangs_up = !around.calm && around.random.chance(self.errand.unruly);
        let over = self.client.as_ref().is_some_and(|client| client.peer() != sim::Peer::Open);
        if over && let Some(status) = self.client.as_ref().and_then(Carriage::status) {
            // All is well, there is no room, or the server goes.
            if !matches!(status, 0 | 8 | 14) {
                return Err(format!("its call ends with {status}"));
            }
        }
        if over || stays && !self.waits || hangs_up {
            self.hang_up(hangs_up, around);
        }
        Ok(())
    }

    fn begin(&mut self, around: &mut Surroundings<'_>) {
        let random = &mut *around.random;
        self.posted += 1;
        let topic = if random.chance(150) { Self::LONELY } else { u8::try_from(random.below(3)).unwrap_or(0) };
        self.post = Some(Post {
            topic,
            id: Id { publisher: self.number, sequence: self.posted },
            style: [Style::Text, Style::Lines, Style::Binary][random.below(3)],
            bytes: random.below(150),
            has_key: random.chance(600),
            times: 0,
            acknowledged: false,
        });
    }

    fn send(&mut self, around: &mut Surroundings<'_>, ledger: &mut Ledger) {
        if self.client.is_none() {
            self.connect(around);
        }
        let Some(post) = self.post.as_mut().filter(|_| self.client.is_some()) else { return };
        let Id { publisher, sequence } = post.id;
        let mut key = format!("{publisher}-{sequence}");
        if post.times > 0 {
            ledger.repeats(post.id);
            // Of what has been answered the place is known.
            if post.acknowledged && around.sabotage.as_mut().is_some_and(|sabotage| sabotage.strikes(Trick::Republish))
            {
                key.push('x');
            }
        }
        post.times += 1;
        let payload = wire::payload(post.style, post.id, post.bytes);
        self.waits = true;
        let call_key = if post.has_key { &*key } else { "" };
        match self.errand.way {
            Way::Plain | Way::Http2 => {}
            Way::Once => {
                calls::publish_once(post.topic, post.style, &payload, call_key, &mut self.outgoing);
                return;
            }
            Way::Calls => {
                calls::publish(post.topic, sequence, post.style, &payload, call_key, &mut self.outgoing);
                return;
            }
        }
        let key = if post.has_key { format!("Idempotency-Key: {key}\r\n") } else { String::new() };
        let kind = if post.style == Style::Binary { "application/octet-stream" } else { "text/plain" };
        let (topic, length) = (post.topic, payload.len());
        let head = format!("Host: sim\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{key}\r\n");
        self.outgoing.extend_from_slice(format!("POST /topics/t{topic} HTTP/1.1\r\n{head}").as_bytes());
        self.outgoing.extend_from_slice(&payload);
    }

    fn connect(&mut self, around: &mut Surroundings<'_>) {
        (self.outgoing, self.inbox, self.head) = (Vec::new(), Vec::new(), None);
        if self.errand.way == Way::Plain {
            self.client = around.net.connect(ListenerId(0)).map(Carriage::Plain);
            return;
        }
        self.client = around.lines.branch(around.net, around.random, false);
        match self.errand.way {
            Way::Once => self.outgoing.extend_from_slice(calls::head("Publish", None).as_bytes()),
            Way::Calls => self.outgoing.extend_from_slice(calls::head("Connect", None).as_bytes()),
            Way::Plain | Way::Http2 => {}
        }
    }

    fn read(&mut self, around: &mut Surroundings<'_>, ledger: &mut Ledger) -> Result<(), String> {
        let Some(client) = &mut self.client else { return Ok(()) };
        around.moved += client.read_into(&mut self.inbox, usize::MAX)? as u64;
        if self.head.is_none() {
            self.head = streams::head(&mut self.inbox)?.map(Box::new);
        }
        let Some(head) = &self.head else { return Ok(()) };
        let status = head.status;
        if matches!(self.errand.way, Way::Once | Way::Calls) {
            return self.hear(status, around, ledger);
        }
        let Some(body) = streams::body(head, &mut self.inbox)? else { return Ok(()) };
        self.head = None;
        match status {
            200 => {}
            // Whether it was published nobody knows.
            408 | 503 => {
                self.hang_up(false, around);
                return Ok(());
            }
            _ => return Err(format!("it is answered {status}: {body}")),
        }
        let (place, subscribers, duplicate) = streams::ack(&body)?;
        self.take_ack(place, subscribers, duplicate, around, ledger)
    }

    /// The same in a call.
    fn hear(&mut self, status: u16, around: &mut Surroundings<'_>, ledger: &mut Ledger) -> Result<(), String> {
        if status != 200 {
            return Err(format!("a call is answered {status}"));
        }
        let is_one = self.errand.way == Way::Once;
        loop {
            let inbox = &mut self.inbox;
            let heard = if is_one { calls::hear_published(inbox)? } else { calls::hear(false, inbox)? };
            match heard {
                None => return Ok(()),
                Some(Heard::Ack(number, place, subscribers, duplicate)) => {
                    let right = self.post.filter(|post| self.waits && (is_one || post.id.sequence == number));
                    right.ok_or_else(|| format!("an answer to {number}, which nobody asked"))?;
                    self.take_ack(place, subscribers, duplicate, around, ledger)?;
                }
                Some(Heard::NoRoom(_)) => {
                    self.hang_up(false, around);
                    return Ok(());
                }
                Some(Heard::Told(other)) => return Err(format!("{other:?} to a publisher")),
            }
        }
    }

    fn take_ack(
        &mut self,
        mut place: Place,
        mut subscribers: u64,
        duplicate: bool,
        around: &mut Surroundings<'_>,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        self.waits = false;
        self.acks += 1;
        let Some(mut post) = self.post.take() else { return Err("an answer to nothing".into()) };
        let mut strikes = |trick| around.sabotage.as_mut().is_some_and(|sabotage| sabotage.strikes(trick));
        place.cursor.1 += u64::from(strikes(Trick::Misplace));
        subscribers += u64::from(post.topic == Self::LONELY && strikes(Trick::Subscribers));
        if place.topic != post.topic || (post.topic == Self::LONELY && subscribers > 0) {
            return Err(format!("{post:?} was heard by {subscribers} at {place:?}"));
        }
        self.duplicates += u64::from(duplicate);
        ledger.acknowledge(place, post.id, duplicate)?;
        post.acknowledged = true;
        if post.has_key && post.times < Self::TIMES_MAX && !around.calm && around.random.chance(400) {
            self.post = Some(post);
        }
        Ok(())
    }

    /// What has not been answered is sent again, if it has a key.
    fn hang_up(&mut self, resets: bool, around: &mut Surroundings<'_>) {
        let Some(client) = self.client.take() else { return };
        if resets && around.random.chance(500) {
            client.reset();
        }
        self.waits = false;
        around.moved += 1;
        self.post = self.post.filter(|post| post.times == 0 || post.has_key && post.times < Self::TIMES_MAX);
    }

    fn write(&mut self, around: &mut Surroundings<'_>) {
        let Some(client) = &mut self.client else { return };
        let whole = around.calm || around.random.chance(500);
        let bytes = if whole { self.outgoing.len() } else { around.random.within(1, 64).min(self.outgoing.len()) };
        let written = if bytes == 0 { 0 } else { client.write(&self.outgoing[..bytes]) };
        self.outgoing.drain(..written);
        around.moved += written as u64;
        if self.errand.way == Way::Once && self.outgoing.is_empty() && self.waits {
            client.shutdown_write();
        }
    }
}
