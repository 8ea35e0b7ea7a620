//! What carries a scripted peer's requests: a connection of its own, or a stream of HTTP/2, whose requests and responses are
//! put into words of HTTP/1.1 here, so that the same script reads both.

use std::cell::RefCell;
use std::rc::Rc;

use super::line::{Line, Weather};
use crate::codec::http2::ErrorCode;
use crate::codec::http2::request::Request;
use crate::id::ListenerId;
use crate::sim::{self, Net, Random};

/// A connection or a stream.
#[derive(Debug)]
pub(super) enum Carriage {
    Plain(sim::Client),
    Stream(Branch),
}

/// Lines that several peers share, and what all lines do.
#[derive(Debug, Default)]
pub(super) struct Lines {
    slots: Vec<Rc<RefCell<Line>>>,
    weather: Rc<Weather>,
}

impl Lines {
    /// Lines that are shared at once.
    const SHARED: usize = 3;

    /// Says whether anybody dawdles, and what has moved since it was asked last.
    pub(super) fn blow(&self, calm: bool) -> u64 {
        self.weather.calm.set(calm);
        self.weather.moved.take()
    }

    /// Streams that servers have reset.
    pub(super) fn resets(&self) -> u64 {
        self.weather.resets.get()
    }

    /// Keeps lines going on which nobody is.
    pub(super) fn poll(&mut self) -> Result<(), String> {
        for line in &self.slots {
            line.borrow_mut().poll()?;
        }
        self.slots.retain(|line| !line.borrow().is_broken());
        Ok(())
    }

    /// A stream on a line of others, or on a new one. `None`: refused.
    pub(super) fn branch(&mut self, net: &Net, random: &mut Random, alone: bool) -> Option<Carriage> {
        if !alone && random.chance(700) {
            let with_room: Vec<_> = self.slots.iter().filter(|line| line.borrow().has_room()).collect();
            if !with_room.is_empty() {
                return Some(Carriage::on(with_room[random.below(with_room.len())]));
            }
        }
        let client = net.connect(ListenerId(0))?;
        let line = Rc::new(RefCell::new(Line::new(client, random.bits(), Rc::clone(&self.weather))));
        if !alone {
            self.slots.push(Rc::clone(&line));
            if self.slots.len() > Self::SHARED {
                self.slots.remove(0);
            }
        }
        Some(Carriage::on(&line))
    }
}

impl Carriage {
    fn on(line: &Rc<RefCell<Line>>) -> Self {
        Self::Stream(Branch::new(line))
    }

    /// Writes what fits, and says how much that was.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Plain(client) => client.write(bytes),
            Self::Stream(branch) => branch.write(bytes),
        }
    }

    /// Reads no more than `bytes_max`, and says how much.
    pub(super) fn read_into(&mut self, into: &mut Vec<u8>, bytes_max: usize) -> Result<usize, String> {
        match self {
            Self::Plain(client) => Ok(client.read_into(into, bytes_max)),
            Self::Stream(branch) => branch.read_into(into, bytes_max),
        }
    }

    /// What is known of the server.
    pub(super) fn peer(&self) -> sim::Peer {
        match self {
            Self::Plain(client) => client.peer(),
            Self::Stream(branch) => branch.peer(),
        }
    }

    /// Bytes that have arrived.
    pub(super) fn available(&self) -> usize {
        match self {
            Self::Plain(client) => client.available(),
            Self::Stream(branch) => branch.line.borrow().available(),
        }
    }

    /// Whether the server has taken leave of it.
    pub(super) fn is_left(&self) -> bool {
        match self {
            Self::Plain(client) => client.is_left(),
            Self::Stream(branch) => branch.peer() != sim::Peer::Open || branch.line.borrow().is_left(),
        }
    }

    /// Nothing more is written, not even in answer to the server.
    pub(super) fn hush(&mut self) {
        if let Self::Stream(branch) = self {
            branch.line.borrow_mut().hush();
        }
    }

    /// Says that nothing more will be written, and goes on reading where that means anything.
    pub(super) fn shutdown_write(&mut self) {
        match self {
            Self::Plain(client) => client.shutdown_write(),
            Self::Stream(branch) => branch.shutdown_write(),
        }
    }

    /// Ends it.
    pub(super) fn close(self) {}

    /// Ends it with a reset.
    pub(super) fn reset(self) {
        if let Self::Plain(client) = self {
            client.reset();
        }
    }

    /// How a call has ended: `grpc-status`, if it has.
    pub(super) fn status(&self) -> Option<u16> {
        let Self::Stream(branch) = self else { return None };
        let mut line = branch.line.borrow_mut();
        let stream = line.stream(branch.stream?)?;
        let fields = stream.trailers.as_ref().or(stream.head.as_ref().map(|(_, fields)| fields))?;
        let status = fields.iter().find(|(name, _)| name == "grpc-status")?;
        status.1.parse().ok()
    }
}

/// A stream, and those after it where one request follows another.
#[derive(Debug)]
pub(super) struct Branch {
    line: Rc<RefCell<Line>>,
    stream: Option<u32>,
    /// What is written and has not been sent.
    words: Vec<u8>,
    /// Bytes of the body that are still to be written; `None`: a call, which says itself when it is over.
    body: Option<usize>,
    /// The head of the response has been handed on.
    has_head: bool,
    /// What comes is lines, which HTTP/1.1 has in chunks; and what there is of the next.
    lines: Option<Vec<u8>>,
    /// A response may be followed by another.
    goes_on: bool,
    /// There will be no other request.
    last: bool,
    /// Its line keeps room for it.
    promised: bool,
}

impl Branch {
    fn new(line: &Rc<RefCell<Line>>) -> Self {
        line.borrow_mut().promise(true);
        Self {
            line: Rc::clone(line),
            stream: None,
            words: Vec::new(),
            body: Some(0),
            has_head: false,
            lines: None,
            goes_on: false,
            last: false,
            promised: true,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.words.extend_from_slice(bytes);
        self.send();
        self.line.borrow_mut().push();
        bytes.len()
    }

    /// Hands on what is written: a head when it is whole, a body as it comes.
    fn send(&mut self) {
        if self.stream.is_none() {
            self.open();
        }
        let Some(number) = self.stream else { return };
        let mut line = self.line.borrow_mut();
        match &mut self.body {
            None => line.send(number, &std::mem::take(&mut self.words)),
            Some(0) => {}
            Some(left) => {
                let bytes: Vec<u8> = self.words.drain(..self.words.len().min(*left)).collect();
                *left -= bytes.len();
                line.send(number, &bytes);
                if *left == 0 {
                    line.finish(number);
                }
            }
        }
    }

    fn open(&mut self) {
        let Some(end) = self.words.windows(4).position(|four| four == b"\r\n\r\n") else { return };
        if std::mem::take(&mut self.promised) {
            self.line.borrow_mut().promise(false);
        }
        if !self.line.borrow().has_room() {
            self.last = true;
            return;
        }
        let head = String::from_utf8_lossy(&self.words[..end]).into_owned();
        self.words.drain(..end + 4);
        let mut lines = head.lines();
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
        let fields = lines.filter_map(|line| line.split_once(": "));
        let fields: Vec<(String, String)> =
            fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let authority = fields.iter().find(|(name, _)| name == "host").map_or("sim", |(_, value)| value);
        let others: Vec<_> = fields.iter().filter(|(name, _)| name != "host").cloned().collect();
        let length =
            others.iter().find(|(name, _)| name == "content-length").and_then(|(_, length)| length.parse().ok());
        let is_call = path.starts_with("/holdline.v1.");
        self.body = if is_call { None } else { Some(length.unwrap_or(0)) };
        self.lines = path.contains("stream=1").then(Vec::new);
        (self.has_head, self.goes_on) = (false, false);
        let request = Request { method, scheme: "http", authority, path };
        self.stream = Some(self.line.borrow_mut().open(request, &others, self.body == Some(0)));
    }

    fn read_into(&mut self, into: &mut Vec<u8>, bytes_max: usize) -> Result<usize, String> {
        let mut line = self.line.borrow_mut();
        line.poll()?;
        let (start, Some(number)) = (into.len(), self.stream) else { return Ok(0) };
        let Some(stream) = line.stream(number) else { return Ok(0) };
        if !self.has_head {
            let Some((status, fields)) = &stream.head else { return Ok(0) };
            self.goes_on = fields.iter().any(|(name, _)| name == "content-length");
            into.extend_from_slice(format!("HTTP/1.1 {status} As Over HTTP/2\r\n").as_bytes());
            fields.iter().for_each(|(name, value)| into.extend_from_slice(format!("{name}: {value}\r\n").as_bytes()));
            into.extend_from_slice(b"\r\n");
            self.has_head = true;
        }
        let taken = stream.body.len().min(bytes_max);
        let bytes = stream.body.drain(..taken);
        match &mut self.lines {
            None => into.extend(bytes),
            Some(begun) => {
                begun.extend(bytes);
                let whole = begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                if whole > 0 {
                    into.extend_from_slice(format!("{whole:x}\r\n").as_bytes());
                    into.extend(begun.drain(..whole));
                    into.extend_from_slice(b"\r\n");
                }
            }
        }
        let is_over = stream.ended && stream.body.is_empty();
        if is_over && self.lines.take().is_some_and(|rest| rest.is_empty()) {
            into.extend_from_slice(b"0\r\n\r\n");
        }
        line.taken(number, taken);
        if is_over && self.goes_on {
            line.give_up(number);
            self.stream = None;
            drop(line);
            self.send();
        }
        Ok(into.len() - start)
    }

    fn peer(&self) -> sim::Peer {
        let mut line = self.line.borrow_mut();
        let (is_broken, is_leaving) = (line.is_broken(), line.is_leaving());
        let Some(number) = self.stream else {
            return match is_broken {
                true => sim::Peer::Reset,
                false if is_leaving || self.last => sim::Peer::Finished,
                false => sim::Peer::Open,
            };
        };
        let Some(stream) = line.stream(number) else { return sim::Peer::Reset };
        let reset = stream.reset.is_some_and(|code| code != ErrorCode::NoError as u32);
        match (stream.ended, stream.body.is_empty() && self.has_head) {
            _ if reset => sim::Peer::Reset,
            (true, true) => sim::Peer::Finished,
            (true, false) => sim::Peer::Open,
            (false, _) if is_broken => sim::Peer::Reset,
            (false, _) => sim::Peer::Open,
        }
    }

    /// A call's side ends; of an endless response nobody wants more; what is answered soon is waited for.
    fn shutdown_write(&mut self) {
        self.last = true;
        let Some(number) = self.stream else { return };
        if self.body.is_none() {
            self.line.borrow_mut().finish(number);
        } else if self.has_head {
            self.line.borrow_mut().give_up(number);
            self.stream = None;
        }
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        if self.promised {
            self.line.borrow_mut().promise(false);
        }
        if let Some(number) = self.stream {
            self.line.borrow_mut().give_up(number);
            self.line.borrow_mut().push();
        }
    }
}
