//! A scripted peer: it speaks its protocol well or badly, and judges all that it is told.

mod hearing;
mod speech;

use std::collections::VecDeque;

use super::carriage::{Carriage, Lines};
use super::plan::{Crime, Door, Manner, Role, Sketch};
use super::sabotage::Sabotage;
use super::wire::{Format, Id, Style, Zip};
use crate::id::ListenerId;
use crate::sim::{self, Net, Random};
use crate::time::Instant;

/// What a peer needs of its world.
pub(super) struct Surroundings<'a> {
    pub(super) net: &'a Net,
    pub(super) random: &'a mut Random,
    pub(super) lines: &'a mut Lines,
    pub(super) zip: &'a mut Zip,
    pub(super) sabotage: &'a mut Option<Sabotage>,
    pub(super) now: Instant,
    pub(super) message_bytes_max: usize,
    /// Nobody dawdles and nobody begins anything.
    pub(super) calm: bool,
    /// Bytes that were written and read.
    pub(super) moved: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Has not connected.
    Ahead,
    Handshake,
    Open,
    /// Has nothing to say any more and waits for the end.
    Parting,
    Gone,
}

/// How its connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The server ended it.
    Server,
    /// It broke.
    Reset,
    /// The peer went without a word.
    Own,
    /// Nobody was there.
    Refused,
}

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) number: u32,
    pub(super) sketch: Sketch,
    pub(super) format: Format,
    pub(super) stage: Stage,
    pub(super) client: Option<Carriage>,
    outgoing: Vec<u8>,
    inbox: Vec<u8>,
    /// What it has published (or sent to be echoed).
    pub(super) sent: u32,
    expected: VecDeque<(Style, Vec<u8>)>,
    expected_pongs: VecDeque<Vec<u8>>,
    /// Publications of a call whose places it is to be told.
    expected_acks: VecDeque<u32>,
    /// Messages of its topic, in order.
    pub(super) seen: Vec<Id>,
    /// It has seen all that was published since, by peer: see `oracles`.
    pub(super) synced: Option<Vec<u32>>,
    /// The HTTP status that it got.
    pub(super) status: Option<u16>,
    pub(super) pages: u32,
    pub(super) code: Option<u16>,
    close_seen: bool,
    close_sent: bool,
    shut: bool,
    pub(super) end: Option<End>,
    /// When it last wrote something.
    pub(super) wrote: Instant,
    crime_done: bool,
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

impl Peer {
    pub(super) fn new(number: u32, sketch: Sketch) -> Self {
        let format = match sketch.door {
            Door::Web(_) => Format::WebSocket { deflate: false },
            Door::Line => Format::Line,
            Door::Length => Format::Length,
            Door::Call if sketch.role == Role::Echo => Format::EchoCall,
            Door::Call => Format::Call,
        };
        Self {
            number,
            sketch,
            format,
            stage: Stage::Ahead,
            client: None,
            outgoing: Vec::new(),
            inbox: Vec::new(),
            sent: 0,
            expected: VecDeque::new(),
            expected_pongs: VecDeque::new(),
            expected_acks: VecDeque::new(),
            seen: Vec::new(),
            synced: None,
            status: None,
            pages: 0,
            code: None,
            close_seen: false,
            close_sent: false,
            shut: false,
            end: None,
            wrote: Instant::ZERO,
            crime_done: false,
        }
    }

    pub(super) fn is_web(&self) -> bool {
        matches!(self.sketch.door, Door::Web(_))
    }

    pub(super) fn is_call(&self) -> bool {
        self.sketch.door == Door::Call
    }

    /// Whether it is as good as a peer can be, and still there.
    pub(super) fn is_well(&self) -> bool {
        matches!(self.sketch.manner, Manner::Healthy | Manner::Slow)
            && self.stage == Stage::Open
            && !matches!(self.sketch.role, Role::Criminal(_) | Role::Pages)
    }

    /// Whether all that it was owed has come.
    pub(super) fn is_even(&self) -> bool {
        self.expected.is_empty()
            && self.expected_pongs.is_empty()
            && self.expected_acks.is_empty()
            && self.outgoing.is_empty()
    }

    /// What matters of it in a fault's text.
    pub(super) fn gist(&self) -> String {
        let (outgoing, inbox, waiting) =
            (self.outgoing.len(), self.inbox.len(), self.client.as_ref().map(Carriage::available));
        let owed = (self.expected.len(), self.expected_pongs.len(), self.expected_acks.len());
        let Self { number, sketch, stage, sent, code, end, .. } = self;
        format!(
            "peer {number} {stage:?} sent {sent}, owed {owed:?}, {outgoing} to write, {inbox} unread, {waiting:?} there, \
             {code:?} {end:?} {sketch:?}"
        )
    }

    /// One round: reads, thinks, writes.
    pub(super) fn poll(&mut self, step: usize, around: &mut Surroundings<'_>) -> Result<(), String> {
        if self.stage == Stage::Ahead && self.sketch.start <= step {
            self.connect(around);
        }
        if self.client.is_none() {
            return Ok(());
        }
        self.read(around)?;
        self.think(around);
        self.write(around);
        self.notice_end();
        Ok(())
    }

    fn connect(&mut self, around: &mut Surroundings<'_>) {
        let (listener, first) = self.sketch.way_in(self.number);
        self.client = if self.is_call() {
            let alone = matches!(self.sketch.manner, Manner::Mute | Manner::Blind);
            around.lines.branch(around.net, around.random, alone)
        } else {
            around.net.connect(ListenerId(listener)).map(Carriage::Plain)
        };
        self.wrote = around.now;
        if self.client.is_none() {
            self.stage = Stage::Gone;
            self.end = Some(End::Refused);
            return;
        }
        self.stage = Stage::Handshake;
        if self.is_web() {
            return self.request(&first, around);
        }
        if self.is_call() {
            return self.call();
        }
        self.stage = Stage::Open;
        if !first.is_empty() {
            self.raw_frame(first.as_bytes());
        }
    }

    fn request(&mut self, path: &str, around: &mut Surroundings<'_>) {
        let request = match self.sketch.role {
            Role::Pages => {
                let mut requests = format!("GET {path} HTTP/1.1\r\nHost: sim\r\n\r\n").repeat(around.random.below(4));
                requests.push_str(&format!("GET {path} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n"));
                self.sent = u32::try_from(requests.matches("GET").count()).unwrap_or(0);
                requests
            }
            Role::Criminal(Crime::Garbage) => "\u{1}\u{2} complete nonsense\r\n\r\n".to_owned(),
            Role::Criminal(Crime::LongHead) => {
                format!("GET / HTTP/1.1\r\nHost: sim\r\nX: {}\r\n\r\n", "x".repeat(4096))
            }
            Role::Criminal(Crime::Unfinished) => "GET /echo HTTP/1.1\r\nHost: s".to_owned(),
            role => {
                let mut request = format!(
                    "GET {path} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
                );
                if let Door::Web(Some(offer)) = self.sketch.door {
                    request.push_str(&format!("Sec-WebSocket-Extensions: {offer}\r\n"));
                }
                request.push_str("\r\n");
                if role == Role::Criminal(Crime::EarlyData) {
                    request.push_str("\u{1}early");
                }
                request
            }
        };
        self.outgoing.extend_from_slice(request.as_bytes());
    }

    fn is_silent(&self) -> bool {
        self.sketch.manner == Manner::Mute
    }

    /// Decides what to do next.
    fn think(&mut self, around: &mut Surroundings<'_>) {
        if self.stage != Stage::Open || around.calm && !matches!(self.sketch.role, Role::Criminal(_)) {
            return;
        }
        if let Role::Criminal(crime) = self.sketch.role {
            if !self.crime_done && (around.calm || around.random.chance(500)) {
                self.commit(crime, around);
            }
            return;
        }
        match self.sketch.manner {
            Manner::Mute => return,
            Manner::Abrupt if around.random.chance(30) => {
                self.end = Some(End::Own);
                self.stage = Stage::Gone;
                if let Some(client) = self.client.take() {
                    if around.random.chance(500) { client.reset() } else { client.close() }
                }
                return;
            }
            Manner::Leaves if around.random.chance(30) => return self.part(),
            _ => {}
        }
        if self.outgoing.len() < 4096 && self.sent < self.sketch.messages && around.random.chance(300) {
            self.say(around);
        }
        if self.is_web() && around.random.chance(40) {
            self.ping(around.random);
        }
    }

    fn write(&mut self, around: &mut Surroundings<'_>) {
        let web = self.is_web();
        let Some(client) = &mut self.client else { return };
        if self.sketch.manner == Manner::Mute && self.stage == Stage::Open && !web {
            client.hush();
        }
        if self.sketch.manner == Manner::Mute && self.stage == Stage::Open && web && !self.close_sent {
            self.outgoing.clear();
        }
        let whole = around.calm || around.random.chance(500);
        let bytes = if whole { self.outgoing.len() } else { around.random.within(1, 64).min(self.outgoing.len()) };
        let written = if bytes == 0 { 0 } else { client.write(&self.outgoing[..bytes]) };
        self.outgoing.drain(..written);
        around.moved += written as u64;
        if written > 0 {
            self.wrote = around.now;
        }
        if self.outgoing.is_empty() && self.close_sent && !web && !self.shut {
            self.shut = true;
            client.shutdown_write();
        }
    }

    fn notice_end(&mut self) {
        let Some(client) = &self.client else { return };
        let end = match client.peer() {
            sim::Peer::Open => return,
            sim::Peer::Finished => End::Server,
            sim::Peer::Reset => End::Reset,
        };
        if self.is_call() {
            self.code = client.status().map(close_code);
        }
        self.end = Some(end);
        self.stage = Stage::Gone;
        self.client = None;
    }
}

/// The close code that says what a call's status does.
const fn close_code(status: u16) -> u16 {
    match status {
        0 => 1000,
        8 => 4001,
        14 => 1013,
        other => 5000 + other,
    }
}
