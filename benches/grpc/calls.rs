//! Calls that echo, all on one connection: each keeps a number of messages in flight, and every echo is checked and
//! followed by another message. The windows of both sides are kept (RFC 9113 section 5.2).

use std::io;
use std::mem;

use crate::common::client::{Client, Endpoint};
use crate::common::http2::{self, Frame, HEAD_BYTES, Message, WINDOW};
use crate::common::scenario::Sample;
use crate::common::target::Stopwatch;
use crate::common::wire::bad;

/// Shape of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    pub(crate) streams: usize,
    /// Bytes of the field of each message.
    pub(crate) size: usize,
    /// Messages of one stream that are not echoed yet.
    pub(crate) in_flight: usize,
    pub(crate) warm_up: u64,
    /// Measured messages, after the warm-up.
    pub(crate) messages: u64,
}

/// Runs the load against the process `pid` and measures what it spends after the warm-up.
pub(crate) fn calls(endpoint: &Endpoint, pid: u32, load: Calls) -> io::Result<Sample> {
    let mut client = Client::new(endpoint, 1, 64 * 1024)?;
    let mut connection = Connection::new(load);
    client.open_with(1, 1, |_, frame| connection.receive(frame))?;
    connection.open_streams(endpoint)?;
    let mut stopwatch: Option<(Stopwatch, u64)> = None;
    loop {
        let bytes = connection.departing();
        if !bytes.is_empty() {
            client.send(0, bytes)?;
        }
        client.turn(None, |_, frame| connection.receive(frame))?;
        let echoes = connection.echoes;
        match &stopwatch {
            None if echoes >= load.warm_up => stopwatch = Some((Stopwatch::start(pid)?, echoes)),
            Some((running, before)) if echoes - before >= load.messages => {
                return Ok(Sample { units: echoes - before, cost: running.stop()?, ..Sample::default() });
            }
            _ => {}
        }
    }
}

/// The client's end of a connection.
struct Connection {
    lanes: Vec<Lane>,
    message: Message,
    in_flight: usize,
    echoes: u64,
    windows: Windows,
    /// Window of a stream that begins.
    stream_window: i64,
    streams_max: usize,
    /// Bytes that leave with the next turn, and those that the last one took.
    waiting: Vec<u8>,
    leaving: Vec<u8>,
}

/// A stream's place in its own order of messages.
struct Lane {
    stream: u32,
    windows: Windows,
    is_answered: bool,
    /// Messages that may leave.
    due: usize,
    sent: u64,
    received: u64,
    /// A message that has not come whole.
    spill: Vec<u8>,
}

/// Flow control of a stream or of the connection.
#[derive(Clone, Copy, Default)]
struct Windows {
    /// Bytes that may be sent.
    room: i64,
    /// Bytes that came since the last update.
    used: usize,
}

impl Windows {
    /// Notes bytes that came; the update that is due.
    fn consume(&mut self, bytes: usize, stream: u32, out: &mut Vec<u8>) {
        self.used += bytes;
        if self.used >= WINDOW as usize / 2 {
            out.extend(http2::window_update(stream, mem::take(&mut self.used)));
        }
    }
}

impl Connection {
    fn new(load: Calls) -> Self {
        let window = i64::from(http2::WINDOW_DEFAULT);
        let lane = |stream| Lane {
            stream,
            windows: Windows { room: window, used: 0 },
            is_answered: false,
            due: load.in_flight,
            sent: 0,
            received: 0,
            spill: Vec::new(),
        };
        Self {
            lanes: (1..).step_by(2).take(load.streams).map(lane).collect(),
            message: Message::new(load.size),
            in_flight: load.in_flight,
            echoes: 0,
            windows: Windows { room: window, used: 0 },
            stream_window: window,
            streams_max: usize::MAX,
            waiting: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// Writes the heads of all calls. The server's settings have come.
    fn open_streams(&mut self, endpoint: &Endpoint) -> io::Result<()> {
        if self.lanes.len() > self.streams_max {
            return Err(bad(&format!("the server takes {} streams at a time", self.streams_max)));
        }
        let authority = endpoint.address.to_string();
        let heads = self.lanes.iter().map(|lane| http2::call(lane.stream, &authority, &endpoint.path));
        self.waiting.extend(heads.flatten());
        Ok(())
    }

    /// What leaves now: answers, heads, and the messages that are due, as far as the windows go.
    fn departing(&mut self) -> &[u8] {
        self.leaving.clear();
        mem::swap(&mut self.leaving, &mut self.waiting);
        let length = self.message.len() as i64;
        for lane in &mut self.lanes {
            while lane.due > 0 && lane.windows.room.min(self.windows.room) >= length {
                self.message.write(lane.stream, lane.sent, &mut self.leaving);
                lane.windows.room -= length;
                self.windows.room -= length;
                lane.sent += 1;
                lane.due -= 1;
            }
        }
        &self.leaving
    }

    /// Takes a frame.
    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        let frame = Frame::head(bytes).ok_or_else(|| bad("less than a frame"))?;
        let payload = &bytes[HEAD_BYTES..];
        match frame.kind {
            http2::DATA => {
                self.windows.consume(payload.len(), 0, &mut self.waiting);
                let lane = lane(&mut self.lanes, frame.stream)?;
                lane.windows.consume(payload.len(), frame.stream, &mut self.waiting);
                let echoes = lane.take(frame, http2::data(frame, payload)?, &self.message)?;
                lane.due += echoes;
                self.echoes += echoes as u64;
                debug_assert!(lane.due <= self.in_flight, "an echo for a message");
            }
            http2::HEADERS => {
                lane(&mut self.lanes, frame.stream)?.is_answered = true;
                http2::check_answer(frame, payload)?;
            }
            http2::RST_STREAM => return Err(bad(&format!("stream {} was reset: {payload:?}", frame.stream))),
            http2::SETTINGS if frame.flags & http2::ACK == 0 => self.settle(payload),
            http2::WINDOW_UPDATE => {
                let more = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                let windows = match frame.stream {
                    0 => &mut self.windows,
                    stream => &mut lane(&mut self.lanes, stream)?.windows,
                };
                windows.room += i64::from(more);
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes settings and acknowledges them.
    fn settle(&mut self, payload: &[u8]) {
        for (name, value) in http2::settings(payload) {
            match name {
                http2::SETTING_STREAMS_MAX => self.streams_max = value as usize,
                http2::SETTING_WINDOW => {
                    let more = i64::from(value) - mem::replace(&mut self.stream_window, i64::from(value));
                    self.lanes.iter_mut().for_each(|lane| lane.windows.room += more);
                }
                _ => {}
            }
        }
        self.waiting.extend(http2::frame(http2::SETTINGS, http2::ACK, 0, &[]));
    }
}

impl Lane {
    /// Takes the bytes of a frame, which may end anywhere in a message; how many messages are whole with it.
    fn take(&mut self, frame: Frame, bytes: &[u8], message: &Message) -> io::Result<usize> {
        if !self.is_answered || frame.flags & http2::END_STREAM != 0 {
            return Err(bad(&format!("stream {}: a message without a head, or the last one", frame.stream)));
        }
        let mut spill = mem::take(&mut self.spill);
        let joined = if spill.is_empty() {
            bytes
        } else {
            spill.extend_from_slice(bytes);
            &spill
        };
        let mut whole = joined.chunks_exact(message.len());
        let mut count = 0;
        for echo in whole.by_ref() {
            if !message.is(self.received, echo) || self.received == self.sent {
                return Err(bad(&format!("stream {}: not echo {}: {echo:?}", frame.stream, self.received)));
            }
            self.received += 1;
            count += 1;
        }
        self.spill = whole.remainder().to_vec();
        Ok(count)
    }
}

fn lane(lanes: &mut [Lane], stream: u32) -> io::Result<&mut Lane> {
    let found = lanes.get_mut(stream as usize / 2).filter(|_| stream % 2 == 1);
    found.ok_or_else(|| bad(&format!("a frame on stream {stream}, which was not opened")))
}
