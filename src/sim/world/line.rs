//! A scripted peer's connection of HTTP/2, on which several of them may have their streams: it keeps count of the windows on
//! both sides, changes its own in the middle, gives back late, and judges every frame that it gets.

mod frames;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use crate::codec::http2::frame::{self, HEADER_BYTES, Header, PREFACE, flag, kind};
use crate::codec::http2::request::{self, Request};
use crate::codec::http2::{Decoder, ErrorCode, StreamId};
use crate::sim::{self, Random};

/// What every window is at first.
const WINDOW_FIRST: i64 = 65_535;
/// The largest payload of a frame.
const FRAME_BYTES: usize = 16_384;

/// What all lines of a world share.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// Bytes that were written and read.
    pub(super) moved: Cell<u64>,
    /// Nobody dawdles.
    pub(super) calm: Cell<bool>,
    /// Streams that servers reset.
    pub(super) resets: Cell<u64>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Line {
    client: sim::Client,
    random: Random,
    weather: Rc<Weather>,
    outgoing: Vec<u8>,
    inbox: Vec<u8>,
    decoder: Decoder,
    /// A block of fields that is not complete: its stream, whether that ends with it, and what has come.
    block: Option<(u32, bool, Vec<u8>)>,
    streams: BTreeMap<u32, Stream>,
    /// Streams that were given up: what still comes on them does not matter.
    closed: BTreeSet<u32>,
    /// The number of the next stream.
    next: u32,
    /// What the server may still send on all streams.
    window: i64,
    /// What has come and is not given back.
    owed: u32,
    /// What new streams' windows are, as far as the server has acknowledged it.
    window_first: i64,
    /// Such sizes that it has not acknowledged.
    announced: VecDeque<i64>,
    /// The size that was announced last.
    announced_last: i64,
    /// What may be sent, on all streams; and on a new one.
    send_window: i64,
    send_window_first: i64,
    /// Until the server says how many streams there may be: one.
    streams_max: usize,
    /// Streams that somebody will open.
    promised: usize,
    pings: VecDeque<[u8; 8]>,
    /// The server has said something in HTTP/2.
    has_begun: bool,
    /// The server takes no more streams.
    leaving: bool,
    broken: bool,
    mute: bool,
}

/// One of its streams.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Status and fields.
    pub(super) head: Option<(u16, Fields)>,
    /// What has come and was not taken.
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<Fields>,
    /// The response is complete.
    pub(super) ended: bool,
    /// The server's reason to reset it.
    pub(super) reset: Option<u32>,
    window: i64,
    owed: u32,
    send_window: i64,
    outgoing: Vec<u8>,
    /// Nothing follows what is to be sent; and that has been said.
    finish: bool,
    finished: bool,
}

/// Names and values.
pub(super) type Fields = Vec<(String, String)>;

impl Line {
    /// Opens it: the preface, SETTINGS with windows of any size, and all that in one piece or in many.
    pub(super) fn new(client: sim::Client, seed: u64, weather: Rc<Weather>) -> Self {
        let mut line = Self {
            client,
            random: Random::new(seed),
            weather,
            outgoing: PREFACE.to_vec(),
            inbox: Vec::new(),
            decoder: Decoder::new(4096),
            block: None,
            streams: BTreeMap::new(),
            closed: BTreeSet::new(),
            next: 1,
            window: WINDOW_FIRST,
            owed: 0,
            window_first: WINDOW_FIRST,
            announced: VecDeque::new(),
            announced_last: WINDOW_FIRST,
            send_window: WINDOW_FIRST,
            send_window_first: WINDOW_FIRST,
            streams_max: 1,
            promised: 0,
            pings: VecDeque::new(),
            has_begun: false,
            leaving: false,
            broken: false,
            mute: false,
        };
        let window = line.any_window();
        line.announce(window);
        line
    }

    /// Another connection's windows would be different ones.
    fn any_window(&mut self) -> i64 {
        let random = &mut self.random;
        let window = match random.below(6) {
            0 => 0,
            1 => random.within(16, 200),
            2 => random.within(200, 4000),
            3 => 1 << 20,
            _ => return WINDOW_FIRST,
        };
        i64::try_from(window).unwrap_or(0)
    }

    /// SETTINGS with the size of all streams' windows, which may make some of them negative.
    fn announce(&mut self, window: i64) {
        let mut payload = vec![0, 4];
        payload.extend(u32::try_from(window).unwrap_or(0).to_be_bytes());
        frame::write(kind::SETTINGS, 0, StreamId::CONNECTION, &payload, &mut self.outgoing);
        self.announced.push_back(window);
        self.announced_last = window;
    }

    /// Whether another stream can be opened.
    pub(super) fn has_room(&self) -> bool {
        let open = self.streams.values().filter(|stream| !(stream.ended && stream.finished)).count();
        !(self.leaving || self.broken || self.mute) && open + self.promised < self.streams_max
    }

    /// Somebody will open a stream, or will not after all.
    pub(super) const fn promise(&mut self, will: bool) {
        self.promised = if will { self.promised + 1 } else { self.promised.saturating_sub(1) };
    }

    /// Whether nobody can be heard or told anything any more.
    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether the server takes no more streams.
    pub(super) const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The server has taken leave of it, whatever of its last words has been read.
    pub(super) fn is_left(&self) -> bool {
        self.client.is_left()
    }

    /// From now on nothing is written.
    pub(super) fn hush(&mut self) {
        self.mute = true;
    }

    /// Bytes that have arrived.
    pub(super) fn available(&self) -> usize {
        self.client.available()
    }

    /// Opens a stream.
    pub(super) fn open(&mut self, request: Request<'_>, fields: &[(String, String)], ends: bool) -> u32 {
        let number = self.next;
        self.next += 2;
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        request::write_head(StreamId(number), request, fields, ends, &mut self.outgoing);
        let (window, send_window) = (self.window_first, self.send_window_first);
        self.streams.insert(number, Stream { window, send_window, finish: ends, finished: ends, ..Stream::default() });
        number
    }

    pub(super) fn stream(&mut self, number: u32) -> Option<&mut Stream> {
        self.streams.get_mut(&number)
    }

    /// Sends part of a body, when the windows allow it.
    pub(super) fn send(&mut self, number: u32, bytes: &[u8]) {
        if let Some(stream) = self.streams.get_mut(&number).filter(|stream| !stream.finish) {
            stream.outgoing.extend_from_slice(bytes);
        }
    }

    /// Says that nothing follows.
    pub(super) fn finish(&mut self, number: u32) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.finish = true;
        }
    }

    /// So many bytes of a body were taken: the server may send as many more, sometime.
    pub(super) fn taken(&mut self, number: u32, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.owed += u32::try_from(bytes).unwrap_or(0);
        }
    }

    /// Nobody wants a stream any more: it is reset, unless both have said all.
    pub(super) fn give_up(&mut self, number: u32) {
        let Some(stream) = self.streams.remove(&number) else { return };
        self.closed.insert(number);
        if stream.reset.is_none() && !(stream.ended && stream.finished) {
            frame::write_reset(StreamId(number), ErrorCode::Cancel, &mut self.outgoing);
        }
    }

    /// One round: writes what it can, reads what is there, and gives back what was taken.
    pub(super) fn poll(&mut self) -> Result<(), String> {
        self.push();
        let read = self.client.read_into(&mut self.inbox, usize::MAX);
        self.move_bytes(read);
        if self.inbox.starts_with(b"HTTP/1.1") && !self.has_begun {
            // It came too late, or there was no room.
            self.broken = true;
            return Ok(());
        }
        while let Some(header) = self.whole_frame()? {
            self.has_begun = true;
            let end = HEADER_BYTES + header.length as usize;
            let payload: Vec<u8> = self.inbox.drain(..end).skip(HEADER_BYTES).collect();
            self.take(header, &payload).map_err(|fault| format!("HTTP/2: {fault}: {header:?}"))?;
        }
        self.change_windows();
        self.push();
        self.broken |= self.client.peer() != sim::Peer::Open;
        Ok(())
    }

    fn move_bytes(&self, bytes: usize) {
        self.weather.moved.set(self.weather.moved.get() + bytes as u64);
    }

    /// Writes what it can.
    pub(super) fn push(&mut self) {
        if self.mute {
            self.outgoing.clear();
            return;
        }
        self.fill();
        let waits = self.outgoing.len();
        let whole = self.weather.calm.get() || self.random.chance(500);
        let bytes = if whole { waits } else { self.random.within(1, 64).min(waits) };
        let written = if bytes == 0 { 0 } else { self.client.write(&self.outgoing[..bytes]) };
        self.outgoing.drain(..written);
        self.move_bytes(written);
    }

    /// Makes frames of what the windows allow.
    fn fill(&mut self) {
        for (number, stream) in &mut self.streams {
            if stream.reset.is_some() || stream.finished {
                continue;
            }
            loop {
                let room = usize::try_from(stream.send_window.min(self.send_window)).unwrap_or(0);
                let mut bytes = stream.outgoing.len().min(room).min(FRAME_BYTES);
                if bytes > 0 && self.random.chance(200) {
                    bytes = self.random.within(1, bytes);
                }
                let ends = stream.finish && bytes == stream.outgoing.len();
                if bytes == 0 && !ends {
                    break;
                }
                let flags = if ends { flag::END_STREAM } else { 0 };
                frame::write(kind::DATA, flags, StreamId(*number), &stream.outgoing[..bytes], &mut self.outgoing);
                stream.outgoing.drain(..bytes);
                stream.send_window -= i64::try_from(bytes).unwrap_or(0);
                self.send_window -= i64::try_from(bytes).unwrap_or(0);
                stream.finished = ends;
                if ends {
                    break;
                }
            }
        }
    }

    /// Changes the windows' first size now and then, and gives back what was taken, late.
    fn change_windows(&mut self) {
        let calm = self.weather.calm.get();
        if calm && self.announced_last != WINDOW_FIRST {
            self.announce(WINDOW_FIRST);
        } else if !calm && self.announced.is_empty() && self.random.chance(20) {
            let window = self.any_window();
            self.announce(window);
        }
        if !calm && self.random.chance(30) {
            let ping = self.random.bits().to_be_bytes();
            self.pings.push_back(ping);
            frame::write_ping(ping, false, &mut self.outgoing);
        }
        if self.owed > 0 && (calm || self.random.chance(300)) {
            frame::write_window_update(StreamId::CONNECTION, self.owed, &mut self.outgoing);
            self.window += i64::from(std::mem::take(&mut self.owed));
        }
        for (number, stream) in &mut self.streams {
            let is_over = stream.ended || stream.reset.is_some();
            if stream.owed > 0 && !is_over && (calm || self.random.chance(300)) {
                frame::write_window_update(StreamId(*number), stream.owed, &mut self.outgoing);
                stream.window += i64::from(std::mem::take(&mut stream.owed));
            }
            // Who begins with nothing gives something.
            if !calm && !is_over && stream.window <= 0 && stream.owed == 0 && self.random.chance(100) {
                let bytes = u32::try_from(self.random.within(16, 2000)).unwrap_or(16);
                frame::write_window_update(StreamId(*number), bytes, &mut self.outgoing);
                stream.window += i64::from(bytes);
            }
        }
    }

    fn whole_frame(&self) -> Result<Option<Header>, String> {
        let Some(header) = self.inbox.first_chunk().map(Header::parse) else { return Ok(None) };
        if header.length as usize > FRAME_BYTES {
            return Err(format!("no frame: {}", String::from_utf8_lossy(&self.inbox)));
        }
        Ok((self.inbox.len() >= HEADER_BYTES + header.length as usize).then_some(header))
    }
}
