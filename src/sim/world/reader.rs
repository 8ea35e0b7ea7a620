//! A scripted reader: it follows topics over many connections, each from where the last one ended, and must see each topic's
//! messages once, in order and without a gap; or it works in a topic's queue group.

use super::calls::{self, From, Heard};
use super::carriage::Carriage;
use super::ledger::Ledger;
use super::peer::Surroundings;
use super::poster::Poster;
use super::sabotage::{Sabotage, Trick};
use super::streams::{self, Cursor, Head, Place, Told, Transport};
use super::wire::{self, Format, Frame};
use crate::id::ListenerId;
use crate::sim::{self, Random};

mod call;

/// Who reads.
#[derive(Clone, Debug)]
pub(super) struct Habit {
    pub(super) transport: Transport,
    /// Its requests are streams of HTTP/2.
    pub(super) http2: bool,
    /// One, or several where the transport has that.
    pub(super) topics: Vec<u8>,
    /// It shares its topic with others.
    pub(super) works: bool,
    /// How many messages of the past it begins with.
    pub(super) history: usize,
    /// The step in which it comes.
    pub(super) start: usize,
    /// How often, in a thousand rounds, it leaves to come again.
    pub(super) unruly: u16,
    /// How often, in a thousand rounds, it reads; then some bytes.
    pub(super) slow: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not connected, until this step.
    Away(usize),
    /// Waits for the head of a response.
    Asking,
    /// Of a poll, or what is refused: the body is to come.
    Answering,
    Open,
    /// Has said good-bye, and reads to the end.
    Parting,
}

/// A reader.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) number: u32,
    pub(super) habit: Habit,
    stage: Stage,
    client: Option<Carriage>,
    outgoing: Vec<u8>,
    inbox: Vec<u8>,
    head: Option<Box<Head>>,
    /// Where it stands in each of its topics, as far as it was told.
    places: Vec<Option<Cursor>>,
    /// In which topics the next thing may be a reset: it has named a place there, and seen nothing since.
    resumes: Vec<bool>,
    /// Which of its topics have begun, in a call.
    begun: Vec<bool>,
    /// The call's own side ends when all is written, though it goes on reading.
    half: bool,
    /// The topic that it unsubscribes from, to come again.
    leaves: Option<usize>,
    /// It has unsubscribed from all.
    parted: bool,
    /// It has told the server how long it waits.
    hurried: bool,
    told: Vec<Told>,
    /// Connections in calm times.
    tries: usize,
    /// Connections that have ended.
    pub(super) ends: u64,
    pub(super) seen: u64,
    pub(super) resets: u64,
    /// Subscriptions that it ended and began again.
    pub(super) returns: u64,
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

impl Reader {
    /// Connections in calm times after which it gives up: the server has no room for it.
    const TRIES_MAX: usize = 30;

    pub(super) fn new(number: u32, habit: Habit) -> Self {
        Self {
            number,
            stage: Stage::Away(habit.start),
            client: None,
            outgoing: Vec::new(),
            inbox: Vec::new(),
            head: None,
            places: vec![None; habit.topics.len()],
            resumes: vec![false; habit.topics.len()],
            begun: vec![false; habit.topics.len()],
            half: false,
            leaves: None,
            parted: false,
            hurried: false,
            told: Vec::new(),
            tries: 0,
            ends: 0,
            seen: 0,
            resets: 0,
            returns: 0,
            habit,
        }
    }

    /// What matters of it in a fault's text.
    pub(super) fn gist(&self) -> String {
        let Self { number, habit, stage, places, resumes, ends, seen, inbox, .. } = self;
        let there = self.client.as_ref().map(Carriage::available);
        let unread = String::from_utf8_lossy(inbox);
        format!(
            "reader {number} {stage:?} at {places:?}, resumes {resumes:?}, {ends} ends, {seen} seen, {there:?} there, \
             {unread:?} unread: {habit:?}"
        )
    }

    /// Whether it is subscribed and nothing is on its way, at rest.
    pub(super) fn is_there(&self) -> bool {
        let polls = self.habit.transport == Transport::Polls && self.stage == Stage::Asking;
        self.client.is_some() && (self.stage == Stage::Open || polls)
    }

    /// Whether it stays a member of its group from one message to the next.
    pub(super) fn is_steady(&self) -> bool {
        self.is_there() && self.habit.transport != Transport::Polls
    }

    /// Where it stands in a topic.
    pub(super) fn place_in(&self, topic: u8) -> Option<Cursor> {
        let at = self.habit.topics.iter().position(|one| *one == topic)?;
        self.places[at]
    }

    /// One round. `stays` when nobody begins anything new: the server drains.
    pub(super) fn poll(
        &mut self,
        step: usize,
        stays: bool,
        around: &mut Surroundings<'_>,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        if let Stage::Away(until) = self.stage {
            let is_tired = around.calm && self.tries >= Self::TRIES_MAX;
            if (until > step && !around.calm) || stays || is_tired {
                return Ok(());
            }
            self.connect(step, around);
        }
        self.read(stays, around, ledger)?;
        self.leave_perhaps(step, around);
        self.write(around);
        let over = self.client.as_ref().is_some_and(|client| client.peer() != sim::Peer::Open);
        if over {
            self.check_status()?;
            self.gone(step, around);
        }
        Ok(())
    }

    fn gone(&mut self, step: usize, around: &mut Surroundings<'_>) {
        self.client = None;
        self.ends += 1;
        self.stage = Stage::Away(step + around.random.below(20));
        around.moved += 1;
    }

    fn connect(&mut self, step: usize, around: &mut Surroundings<'_>) {
        self.tries += usize::from(around.calm);
        let listener = match self.habit.transport {
            Transport::Raw(Format::Length) => 6,
            Transport::Raw(_) => 5,
            _ => 0,
        };
        self.client = match self.habit.http2 {
            true => around.lines.branch(around.net, around.random, false),
            false => around.net.connect(ListenerId(listener)).map(Carriage::Plain),
        };
        if self.client.is_none() {
            self.stage = Stage::Away(step + 1);
            return;
        }
        (self.outgoing, self.inbox) = (Vec::new(), Vec::new());
        self.told.clear();
        self.ask(around);
    }

    /// Writes the request, or the first frame.
    fn ask(&mut self, around: &mut Surroundings<'_>) {
        let topic = |number: &u8| format!("t{number}");
        let topics = self.habit.topics.iter().map(topic).collect::<Vec<_>>().join(",");
        self.stage = Stage::Asking;
        if let Transport::Raw(format) = self.habit.transport {
            let first = format!("{topics} group=g");
            if format == Format::Length {
                self.outgoing.extend(u32::try_from(first.len()).unwrap_or(0).to_be_bytes());
            }
            self.outgoing.extend_from_slice(first.as_bytes());
            self.outgoing.extend_from_slice(if format == Format::Line { b"\n" } else { b"" });
            self.stage = Stage::Open;
            return;
        }
        if self.habit.transport == Transport::Calls {
            return self.call(around);
        }
        let since = self.since();
        let (mut parameters, mut fields) = (Vec::new(), String::new());
        if self.habit.works {
            parameters.push("group=g".to_owned());
            // A browser does so, whatever it means here.
            if let (Transport::Events, Some((epoch, offset))) = (self.habit.transport, self.places[0]) {
                fields = format!("Last-Event-ID: {epoch}:{offset}\r\n");
            }
        } else if let Some(since) = &since
            && self.habit.transport == Transport::Events
        {
            fields = format!("Last-Event-ID: {since}\r\n");
        } else if let Some(since) = &since {
            parameters.push(format!("since={since}"));
        } else if self.habit.history > 0 {
            parameters.push(format!("history={}", self.habit.history));
        }
        match self.habit.transport {
            Transport::Events => fields.push_str("Accept: text/event-stream\r\n"),
            Transport::Lines => parameters.push("stream=1".to_owned()),
            Transport::Polls => parameters.push(format!("wait={}ms", around.random.within(200, 900))),
            _ => {
                let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
                fields.push_str(&format!("{upgrade}Sec-WebSocket-Key: {KEY}\r\n"));
            }
        }
        if self.habit.transport == Transport::Json {
            parameters.push("format=json".to_owned());
        }
        let query = parameters.join("&");
        let request = format!("GET /topics/{topics}?{query} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n");
        self.outgoing.extend_from_slice(request.as_bytes());
    }

    /// The places to go on from, where all are known.
    fn since(&mut self) -> Option<String> {
        let places: Option<Vec<Cursor>> = self.places.iter().copied().collect();
        let places = places.filter(|_| !self.habit.works);
        self.resumes.fill(places.is_some());
        if places.is_none() && !self.habit.works {
            self.places.fill(None);
        }
        let text = |(epoch, offset): &Cursor| format!("{epoch}:{offset}");
        places.map(|places| places.iter().map(text).collect::<Vec<_>>().join(","))
    }

    fn read(&mut self, stays: bool, around: &mut Surroundings<'_>, ledger: &mut Ledger) -> Result<(), String> {
        let mut bytes_max = usize::MAX;
        if let Some(chance) = self.habit.slow.filter(|_| !around.calm) {
            if !around.random.chance(chance) {
                return Ok(());
            }
            bytes_max = around.random.within(1, 200);
        }
        let Some(client) = &mut self.client else { return Ok(()) };
        let read = client.read_into(&mut self.inbox, bytes_max)?;
        around.moved += read as u64;
        if read == 0 {
            return Ok(());
        }
        loop {
            let stage = self.stage;
            let has_more = match stage {
                Stage::Away(_) => false,
                Stage::Asking => self.take_head()?,
                Stage::Answering => self.take_body()?,
                Stage::Open | Stage::Parting if self.habit.transport == Transport::Calls => self.hear()?,
                Stage::Open | Stage::Parting => {
                    let Habit { transport, topics, .. } = &self.habit;
                    streams::next(*transport, topics, &mut self.inbox, around.zip, &mut self.told)?
                }
            };
            let told = std::mem::take(&mut self.told);
            for told in told {
                self.take(told, stays, around, ledger)?;
            }
            if !has_more && stage == self.stage {
                return Ok(());
            }
        }
    }

    fn take_head(&mut self) -> Result<bool, String> {
        let Some(head) = streams::head(&mut self.inbox)? else { return Ok(false) };
        let polls = self.habit.transport == Transport::Polls;
        let fine = if matches!(self.habit.transport, Transport::Json | Transport::Bare) { 101 } else { 200 };
        if head.status != fine && !matches!(head.status, 408 | 503) {
            return Err(format!("it is answered {}", head.status));
        }
        self.stage = if polls || head.status != fine { Stage::Answering } else { Stage::Open };
        self.head = Some(Box::new(head));
        Ok(true)
    }

    fn take_body(&mut self) -> Result<bool, String> {
        let Some(head) = &self.head else { return Ok(false) };
        let Some(body) = streams::body(head, &mut self.inbox)? else { return Ok(false) };
        if head.status == 200 {
            streams::answer(head, &body, &mut self.told)?;
        } else {
            self.stage = Stage::Parting;
        }
        self.head = None;
        Ok(true)
    }

    fn take(
        &mut self,
        told: Told,
        stays: bool,
        around: &mut Surroundings<'_>,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        match told {
            Told::Message(place, frame) => {
                let id = wire::identify(&frame)?;
                self.seen += 1;
                self.is_subscribed(place)?;
                if self.habit.works {
                    return self.work(id, around, ledger);
                }
                let place = place.ok_or("a message without a place")?;
                if self.tampers(around.sabotage, Trick::Skip) {
                    return Ok(());
                }
                self.step_to(place)?;
                if self.tampers(around.sabotage, Trick::Again) {
                    self.step_to(place)?;
                }
                ledger.stands(place, id)
            }
            Told::Reset(place) => {
                self.resets += 1;
                if self.tampers(around.sabotage, Trick::Unreset) {
                    return Ok(());
                }
                self.reset_to(place, ledger)
            }
            // Of its own messages only: what others took it does not know.
            Told::Stands(cursors) if self.habit.works => {
                self.places = cursors.into_iter().map(Some).collect();
                Ok(())
            }
            Told::Stands(cursors) => self.stands(&cursors),
            Told::Begins(place) => self.begins(place),
            Told::Left(topic) => self.has_left(topic),
            Told::Aside(frame) => {
                self.take_aside(frame);
                Ok(())
            }
            Told::End if self.habit.transport == Transport::Polls => {
                if stays {
                    self.stage = Stage::Parting;
                    self.client.iter_mut().for_each(Carriage::shutdown_write);
                } else {
                    self.ask(around);
                }
                Ok(())
            }
            Told::End => {
                self.stage = Stage::Parting;
                Ok(())
            }
        }
    }

    /// Whether the server is to be caught lying to this one: it stays, so that nothing hides the lie.
    fn tampers(&self, sabotage: &mut Option<Sabotage>, trick: Trick) -> bool {
        self.habit.unruly == 0 && sabotage.as_mut().is_some_and(|sabotage| sabotage.strikes(trick))
    }

    fn work(&mut self, id: wire::Id, around: &mut Surroundings<'_>, ledger: &mut Ledger) -> Result<(), String> {
        let topic = self.habit.topics[0];
        // In wild times a message may be lost with a member.
        if around.calm && id.publisher < Poster::FIRST && self.tampers(around.sabotage, Trick::NoWorker) {
            return Ok(());
        }
        if self.tampers(around.sabotage, Trick::TwoWorkers) {
            ledger.takes(topic, id, self.number + 1)?;
        }
        ledger.takes(topic, id, self.number)
    }

    fn at(&self, place: Place) -> Result<usize, String> {
        let at = self.habit.topics.iter().position(|topic| *topic == place.topic);
        at.ok_or_else(|| format!("{place:?} is not what it reads"))
    }

    /// The next message of a topic: no gap, no repetition.
    fn step_to(&mut self, place: Place) -> Result<(), String> {
        let at = self.at(place)?;
        if let Some((epoch, offset)) = self.places[at]
            && place.cursor != (epoch, offset + 1)
        {
            return Err(format!("a message at {place:?} after {epoch}:{offset}"));
        }
        self.places[at] = Some(place.cursor);
        self.resumes[at] = false;
        Ok(())
    }

    fn reset_to(&mut self, place: Place, ledger: &Ledger) -> Result<(), String> {
        let at = self.at(place)?;
        let (true, Some(old)) = (self.resumes[at], self.places[at]) else {
            return Err(format!("a reset to {place:?} out of nothing"));
        };
        ledger.resets(old, place.cursor)?;
        self.resumes[at] = false;
        self.places[at] = Some(place.cursor);
        Ok(())
    }

    /// What the server says of the stream's place must be what the reader knows itself.
    fn stands(&mut self, cursors: &[Cursor]) -> Result<(), String> {
        let fits = cursors.len() == self.places.len()
            && self.places.iter().zip(cursors).all(|(place, cursor)| place.is_none_or(|place| place == *cursor));
        if !fits {
            return Err(format!("the stream stands at {cursors:?}, the reader at {:?}", self.places));
        }
        // A stream of several topics is told its places first: what comes then is as if it had named them.
        let several = self.places.len() > 1;
        for (place, resumes) in self.places.iter().zip(&mut self.resumes) {
            *resumes |= several && place.is_none();
        }
        self.places = cursors.iter().copied().map(Some).collect();
        Ok(())
    }

    fn take_aside(&mut self, frame: Frame) {
        match frame {
            Frame::Ping(payload) => wire::client_frame(0x8a, &payload, [1, 2, 3, 4], &mut self.outgoing),
            Frame::Close(code) if self.stage == Stage::Open => {
                let code = code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec());
                wire::client_frame(0x88, &code, [4, 3, 2, 1], &mut self.outgoing);
                self.stage = Stage::Parting;
            }
            Frame::Heartbeat if self.habit.transport == Transport::Raw(Format::Length) => self.outgoing.extend([0; 4]),
            Frame::Heartbeat => self.outgoing.push(b'\n'),
            _ => {}
        }
    }

    /// Goes now and then, politely or not.
    fn leave_perhaps(&mut self, step: usize, around: &mut Surroundings<'_>) {
        if around.calm || self.client.is_none() || !around.random.chance(self.habit.unruly) {
            return;
        }
        if self.stage == Stage::Open && around.random.chance(400) && !self.half {
            return self.part(around.random);
        }
        if self.stage == Stage::Open && around.random.chance(500) && self.unsubscribe(around.random) {
            return;
        }
        if let Some(client) = self.client.take() {
            if around.random.chance(500) { client.reset() } else { client.close() }
        }
        self.gone(step, around);
    }

    fn part(&mut self, random: &mut Random) {
        self.stage = Stage::Parting;
        match self.habit.transport {
            Transport::Json | Transport::Bare if random.chance(500) => {
                wire::client_frame(0x88, &1000_u16.to_be_bytes(), [5, 6, 7, 8], &mut self.outgoing);
            }
            Transport::Calls => self.leave_all(),
            _ => self.client.iter_mut().for_each(Carriage::shutdown_write),
        }
    }

    fn write(&mut self, around: &mut Surroundings<'_>) {
        let Some(client) = &mut self.client else { return };
        let whole = around.calm || around.random.chance(500);
        let bytes = if whole { self.outgoing.len() } else { around.random.within(1, 64).min(self.outgoing.len()) };
        let written = if bytes == 0 { 0 } else { client.write(&self.outgoing[..bytes]) };
        self.outgoing.drain(..written);
        around.moved += written as u64;
        if self.half && self.outgoing.is_empty() {
            client.shutdown_write();
        }
    }
}
