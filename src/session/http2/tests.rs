//! Transcripts: what a peer sends, what is found in it, what it is answered. Sections are those of RFC 9113.

use super::{Event, Http2, Violation};
use crate::codec::http2::frame::{self, HEADER_BYTES, Header, PREFACE, PREFACE_HEAD, kind};
use crate::codec::http2::{ErrorCode, StreamId};
use crate::config::Limits;
use crate::id::ConnId;
use crate::session::{Env, Partial, Partials, Tools};
use crate::wheel::Tick;

const END: u8 = 1;
const ACK: u8 = 1;
const WHOLE: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// A connection, and what is between it and its peer.
struct Peer {
    limits: Limits,
    http2: Box<Http2>,
    partial: Option<Box<Partial>>,
    tools: Tools,
    partials: Partials,
    now: Tick,
    out: Vec<u8>,
    /// Whether bodies are consumed as they come.
    consumes: bool,
    /// Whether what is sent comes byte by byte.
    slow: bool,
}

impl Peer {
    /// Before its preface.
    fn new(limits: Limits) -> Self {
        let mut out = Vec::new();
        let http2 = Http2::begin(&limits, Tick(0), &mut out);
        let (tools, partials) = (Tools::default(), Partials::default());
        Self { limits, http2, partial: None, tools, partials, now: Tick(0), out, consumes: true, slow: false }
    }

    /// After both sides' SETTINGS.
    fn greeted_with(limits: Limits) -> Self {
        let mut peer = Self::new(limits);
        assert_eq!(peer.send(&[&PREFACE[PREFACE_HEAD.len()..], &settings(&[])].concat()), "");
        assert_eq!(peer.send(&bytes(kind::SETTINGS, ACK, 0, &[])), "");
        peer.out.clear();
        peer
    }

    fn greeted() -> Self {
        Self::greeted_with(Limits::default())
    }

    /// Sends bytes. Returns what was found in them, in words.
    fn send(&mut self, bytes: &[u8]) -> String {
        let size = if self.slow { 1 } else { bytes.len().max(1) };
        let mut words = Vec::new();
        for piece in bytes.chunks(size) {
            let mut piece = piece.to_vec();
            let mut at = 0;
            while at < piece.len() {
                match self.receive(&mut piece[at..]) {
                    Ok((taken, event)) => {
                        at += taken;
                        words.extend(event);
                    }
                    Err(violation) => {
                        words.push(format!("{violation:?}"));
                        return words.join(", ");
                    }
                }
            }
        }
        words.join(", ")
    }

    fn receive(&mut self, piece: &mut [u8]) -> Result<(usize, Option<String>), Violation> {
        let mut env = Env { limits: &self.limits, tools: &mut self.tools, partials: &mut self.partials };
        let all = piece.len();
        let (taken, event) = self.http2.receive(&mut self.partial, piece, self.now, &mut env, &mut self.out)?;
        let is_much = taken >= Http2::FRAMES_IN_A_ROW;
        assert!(event.is_some() || taken == all || is_much, "without an event all is done with");
        let mut done = None;
        let words = event.map(|event| match event {
            Event::Request { stream, head, ends } => {
                self.http2.name(stream, ConnId::new(stream.0, 0));
                let line = String::from_utf8_lossy(&head.buf);
                let end = if ends { " ends" } else { "" };
                let words = format!("{} {}{end}", stream.0, line.lines().next().unwrap_or_default());
                self.partials.give(head);
                words
            }
            Event::Data { stream, name, bytes, ends } => {
                assert_eq!(name.index(), stream.0);
                done = Some((stream, bytes.len()));
                let end = if ends { " ends" } else { "" };
                format!("{} {:?}{end}", stream.0, String::from_utf8_lossy(bytes))
            }
            Event::Ends { stream, .. } => format!("{} ends", stream.0),
            Event::Reset { name, code, .. } => format!("{} reset {code:?}", name.index()),
            Event::Refused(rule) => format!("refused {}", rule.label()),
            Event::Window(Some(name)) => format!("window {}", name.index()),
            Event::Window(None) => "window".to_owned(),
            Event::Pong => "pong".to_owned(),
            Event::Heard => "heard".to_owned(),
            Event::GoAway => "goes away".to_owned(),
        });
        if let (true, Some((stream, bytes))) = (self.consumes, done) {
            self.http2.consumed(stream, bytes, &mut self.out);
        }
        Ok((taken, words))
    }

    /// What it was answered since the last time, frame by frame.
    fn answers(&mut self) -> Vec<String> {
        let (mut rest, mut answers) = (&self.out[..], Vec::new());
        while let Some((header, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let Header { length, kind, flags, stream } = Header::parse(header);
            let (payload, behind) = behind.split_at(length as usize);
            rest = behind;
            let number =
                |at: usize| payload.get(at..at + 4).map_or(0, |b| u32::from_be_bytes(b.try_into().expect("it fits")));
            answers.push(match kind {
                kind::HEADERS => format!("{} head {flags}", stream.0),
                kind::RST_STREAM => format!("{} reset {}", stream.0, number(0)),
                kind::SETTINGS => format!("settings {flags} {}", payload.len() / 6),
                kind::PING => format!("ping {flags} {}", String::from_utf8_lossy(payload)),
                kind::GOAWAY => format!("goaway {} {}", number(0), number(4)),
                kind::WINDOW_UPDATE => format!("window {} +{}", stream.0, number(0)),
                other => format!("kind {other}"),
            });
        }
        self.out.clear();
        answers
    }
}

fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(kind, flags, StreamId(stream), payload, &mut out);
    out
}

fn settings(all: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        all.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    bytes(kind::SETTINGS, 0, 0, &payload)
}

/// A block of fields.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        literal(name, value, &mut out);
    }
    out
}

fn literal(name: &str, value: &str, out: &mut Vec<u8>) {
    for string in ["\0", name, value] {
        if string != "\0" {
            out.push(string.len().try_into().expect("it fits"));
        }
        out.extend_from_slice(string.as_bytes());
    }
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "a")];

fn request(more: &[(&str, &str)]) -> Vec<u8> {
    block(&[&GET, more].concat())
}

/// A request without a body.
fn get(stream: u32) -> Vec<u8> {
    bytes(kind::HEADERS, END | WHOLE, stream, &request(&[]))
}

/// A request with one.
fn post(stream: u32) -> Vec<u8> {
    bytes(kind::HEADERS, WHOLE, stream, &request(&[]))
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    bytes(kind::DATA, flags, stream, payload)
}

fn number(kind: u8, stream: u32, number: u32) -> Vec<u8> {
    bytes(kind, 0, stream, &number.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    number(kind::RST_STREAM, stream, 8)
}

fn window(stream: u32, grown: u32) -> Vec<u8> {
    number(kind::WINDOW_UPDATE, stream, grown)
}

/// What ends a connection after a greeting.
#[track_caller]
fn breaks(frames: &[Vec<u8>], violation: Violation) {
    for slow in [false, true] {
        let mut peer = Peer::greeted();
        peer.slow = slow;
        let words = peer.send(&frames.concat());
        assert_eq!(words.rsplit(", ").next(), Some(&format!("{violation:?}")[..]), "{words}");
    }
}

/// What is found after a greeting, and answered.
#[track_caller]
fn says(frames: &[Vec<u8>], found: &str, answers: &[&str]) {
    for slow in [false, true] {
        let mut peer = Peer::greeted();
        peer.slow = slow;
        assert_eq!(peer.send(&frames.concat()), found, "slow: {slow}");
        assert_eq!(peer.answers(), answers, "slow: {slow}");
        assert!(peer.partial.is_none(), "nothing is kept");
    }
}

mod bodies;
mod connection;
mod fields;
mod floods;
