//! Those who come over HTTP/2 to do harm: garbage, frames in any order, floods and windows that never open. What they are told
//! must be HTTP/2 all the same, they must be sent away for what is a crime, and nobody else may notice them.

use std::time::Duration;

use super::peer::Surroundings;
use crate::codec::http2::frame::{self, HEADER_BYTES, Header, PREFACE, flag, kind};
use crate::codec::http2::request::{self, Request};
use crate::codec::http2::{ErrorCode, StreamId};
use crate::id::ListenerId;
use crate::sim::{self, Peer, Random};
use crate::time::Instant;

/// What an intruder does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// Bytes that mean nothing, behind a good beginning.
    Garbage,
    /// Good frames and bad ones, in any order, on any streams.
    Disorder,
    /// Requests that are taken back at once (CVE-2023-44487).
    Resets,
    /// PINGs, SETTINGS and other frames that cost an answer or a look.
    Floods,
    /// A block of fields without an end (CVE-2024-27316).
    Continuations,
    /// Streams that are read by nobody: the window stays closed.
    ZeroWindow,
    /// It sends more than its windows.
    Overflow,
    /// It stops in the middle of a frame.
    Silence,
}

impl Harm {
    const ALL: [Self; 8] = [
        Self::Garbage,
        Self::Disorder,
        Self::Resets,
        Self::Floods,
        Self::Continuations,
        Self::ZeroWindow,
        Self::Overflow,
        Self::Silence,
    ];

    /// The code that it must be sent away with.
    const fn code(self) -> Option<ErrorCode> {
        match self {
            Self::Resets | Self::Floods | Self::Continuations => Some(ErrorCode::EnhanceYourCalm),
            _ => None,
        }
    }

    /// Any.
    pub(super) fn draw(random: &mut Random) -> Self {
        Self::ALL[random.below(Self::ALL.len())]
    }
}

/// Who does it.
#[derive(Debug)]
pub(super) struct Intruder {
    harm: Harm,
    /// The step in which it comes.
    start: usize,
    client: Option<sim::Client>,
    outgoing: Vec<u8>,
    inbox: Vec<u8>,
    /// The reason that it was sent away for.
    pub(super) code: Option<u32>,
    /// When it came, and when it had done all.
    came: Option<Instant>,
    done: Option<Instant>,
    /// It reads nothing.
    blind: bool,
}

impl Intruder {
    pub(super) fn new(harm: Harm, start: usize, blind: bool) -> Self {
        let (outgoing, inbox) = (Vec::new(), Vec::new());
        Self { harm, start, client: None, outgoing, inbox, code: None, came: None, done: None, blind }
    }

    /// One round.
    pub(super) fn poll(&mut self, step: usize, stays: bool, around: &mut Surroundings<'_>) -> Result<(), String> {
        if self.came.is_none() && self.start <= step && !stays {
            self.came = Some(around.now);
            self.client = around.net.connect(ListenerId(0));
            self.outgoing = PREFACE.to_vec();
            self.misbehave(around.random);
        }
        let Some(client) = &mut self.client else { return Ok(()) };
        if !self.blind {
            let read = client.read_into(&mut self.inbox, usize::MAX);
            around.moved += read as u64;
        }
        let most = if around.calm { self.outgoing.len() } else { around.random.within(1, 4000) };
        let written = client.write(&self.outgoing[..most.min(self.outgoing.len())]);
        self.outgoing.drain(..written);
        around.moved += written as u64;
        if self.outgoing.is_empty() {
            self.done.get_or_insert(around.now);
        }
        let is_over = client.peer() != Peer::Open;
        self.listen()?;
        if is_over {
            self.client = None;
            return self.judge();
        }
        Ok(())
    }

    /// What it is told must be frames that may be, whatever it has done.
    fn listen(&mut self) -> Result<(), String> {
        if self.inbox.starts_with(b"HTTP/1.1 ") {
            return Ok(());
        }
        while let Some(header) = self.inbox.first_chunk().map(Header::parse) {
            let known = [kind::DATA, kind::HEADERS, kind::RST_STREAM, kind::SETTINGS, kind::PING, kind::GOAWAY];
            let is_fine = known.contains(&header.kind) || header.kind == kind::WINDOW_UPDATE;
            if header.length > 16_384 || !is_fine || (self.code.is_some() && header.kind == kind::PING) {
                return Err(format!("{:?} is told {header:?}, behind {:?}", self.harm, self.code));
            }
            let end = HEADER_BYTES + header.length as usize;
            let Some(payload) = self.inbox.get(HEADER_BYTES..end) else { break };
            if header.kind == kind::DATA && header.length > 0 && self.harm == Harm::ZeroWindow {
                return Err("data through a closed window".into());
            }
            if header.kind == kind::GOAWAY {
                let code = payload.get(4..8).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
                self.code = code.filter(|code| *code != 0).or(self.code);
            }
            self.inbox.drain(..end);
        }
        Ok(())
    }

    /// Who was told a reason was told the right one.
    fn judge(&self) -> Result<(), String> {
        match (self.harm.code(), self.code) {
            (Some(right), Some(code)) if code != right as u32 && code != ErrorCode::SettingsTimeout as u32 => {
                Err(format!("{:?} is sent away with {code}", self.harm))
            }
            _ => Ok(()),
        }
    }

    /// At rest: whether nobody has told it to go, though it has done what nobody may, and so fast that it cannot be forgiven.
    pub(super) fn is_at_large(&self) -> bool {
        let is_fast = self.came.zip(self.done).is_some_and(|(came, done)| done < came + Duration::from_secs(1));
        let is_free = self.client.is_some() && self.code.is_none() && !self.blind;
        is_free && is_fast && self.harm.code().is_some()
    }

    /// What matters of it in a fault's text.
    pub(super) fn gist(&self) -> String {
        format!("{:?}, {} to write, {:?}", self.harm, self.outgoing.len(), self.code)
    }

    fn misbehave(&mut self, random: &mut Random) {
        let out = &mut self.outgoing;
        let window = if self.harm == Harm::ZeroWindow { 0_u32 } else { 65_535 };
        frame::write(kind::SETTINGS, 0, StreamId::CONNECTION, &setting(4, window), out);
        match self.harm {
            Harm::Garbage => out.extend((0..random.within(1, 400)).map(|_| random.bits().to_le_bytes()[0])),
            Harm::Disorder => {
                frame::write(kind::SETTINGS, flag::ACK, StreamId::CONNECTION, &[], out);
                (0..random.within(5, 60)).for_each(|_| any_frame(random, out));
            }
            Harm::Resets => {
                for number in 0..300 {
                    get(2 * number + 1, "/topics/t8", out);
                    frame::write_reset(StreamId(2 * number + 1), ErrorCode::Cancel, out);
                }
            }
            Harm::Floods => {
                let which = random.below(3);
                for _ in 0..12_000 {
                    match which {
                        0 => frame::write_window_update(StreamId::CONNECTION, 1, out),
                        1 => frame::write(kind::PRIORITY, 0, StreamId(1), &[0, 0, 0, 3, 0], out),
                        _ => frame::write(kind::SETTINGS, 0, StreamId::CONNECTION, &[], out),
                    }
                }
            }
            Harm::Continuations => {
                frame::write(kind::HEADERS, 0, StreamId(1), &[0x82], out);
                (0..100).for_each(|_| frame::write(kind::CONTINUATION, 0, StreamId(1), &[0x84], out));
            }
            Harm::ZeroWindow => {
                frame::write(kind::SETTINGS, flag::ACK, StreamId::CONNECTION, &[], out);
                (0..4).for_each(|number| get(2 * number + 1, "/topics/t0", out));
            }
            Harm::Overflow => {
                post(1, "/holdline.v1.Edge/Echo", out);
                for _ in 0..8 {
                    frame::write(kind::DATA, 0, StreamId(1), &[0, 0, 1, 0, 0].repeat(2400), out);
                }
            }
            Harm::Silence => {
                post(1, "/holdline.v1.Edge/Echo", out);
                out.extend([0, 0, 100, kind::DATA, 0, 0, 0]);
            }
        }
    }
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

fn get(number: u32, path: &str, out: &mut Vec<u8>) {
    let request = Request { method: "GET", scheme: "http", authority: "sim", path };
    let fields = [(&b"accept"[..], &b"text/event-stream"[..])];
    request::write_head(StreamId(number), request, fields.into_iter(), true, out);
}

fn post(number: u32, path: &str, out: &mut Vec<u8>) {
    let request = Request { method: "POST", scheme: "http", authority: "sim", path };
    let fields = [(&b"content-type"[..], &b"application/grpc"[..]), (&b"te"[..], &b"trailers"[..])];
    request::write_head(StreamId(number), request, fields.into_iter(), false, out);
}

/// A frame of any kind, mostly good in itself, on a stream of some few.
fn any_frame(random: &mut Random, out: &mut Vec<u8>) {
    let number = u32::try_from(random.below(12)).unwrap_or(0);
    let stream = StreamId(number);
    let odd = number | 1;
    let paths = ["/topics/t8", "/page", "/topics/t8?stream=1", "/topics/t8?wait=1s", "/nothing", "/echo"];
    let some: Vec<u8> = (0..random.below(30)).map(|_| random.bits().to_le_bytes()[0]).collect();
    let flags = random.bits().to_le_bytes()[0] & 0x2d;
    match random.below(16) {
        0..=3 => get(odd, paths[random.below(paths.len())], out),
        4 => post(odd, "/holdline.v1.Edge/Connect", out),
        5 => post(odd, "/holdline.v1.Edge/Echo", out),
        6 => frame::write(kind::DATA, flags, StreamId(odd), &some, out),
        7 => frame::write(kind::DATA, flags & flag::END_STREAM, StreamId(odd), b"\0\0\0\0\x02\x0a\0", out),
        8 => frame::write_reset(StreamId(odd), ErrorCode::Cancel, out),
        9 => frame::write_window_update(stream, u32::try_from(random.within(1, 1 << 30)).unwrap_or(1), out),
        10 => frame::write(kind::SETTINGS, 0, StreamId::CONNECTION, &setting(4, below_31_bits(random)), out),
        11 => frame::write_ping(*b"12345678", false, out),
        12 => frame::write(kind::PRIORITY, 0, StreamId(odd), &[0, 0, 0, 0, 1], out),
        13 if random.chance(300) => frame::write_go_away(StreamId(0), ErrorCode::NoError, "", out),
        14 if random.chance(300) => frame::write(random.bits().to_le_bytes()[0] % 12, flags, stream, &some, out),
        _ => {}
    }
}

fn below_31_bits(random: &mut Random) -> u32 {
    u32::try_from(random.bits() >> 36).unwrap_or(0)
}
