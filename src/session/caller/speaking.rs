//! What a caller says: messages in DATA frames, as many bytes as the server's windows allow (RFC 9113 section 5.2).

use super::hearing::{Broken, Event, Settings};
use super::{FRAME_BYTES_MAX, STREAM, WINDOW_AT_FIRST};
use crate::codec::grpc::PREFIX_BYTES;
use crate::codec::http2::frame::{self, Header, flag, kind};

/// The saying half of a call.
#[derive(Debug)]
pub struct Speaking {
    /// Bytes that wait for a window.
    waiting: Vec<u8>,
    /// Bytes that may be said on the stream; below 0 when the server made its window smaller.
    stream: i32,
    /// The same on the connection.
    connection: i32,
    /// What a stream's window begins with.
    initial: u32,
    /// Nothing is said any more behind what waits.
    is_over: bool,
}

/// 2^31 - 1 is the largest window (section 6.9.1).
const WINDOW_MAX: u32 = i32::MAX as u32;

impl Speaking {
    /// Of a connection that has said nothing but its hello, without a subscription.
    #[must_use]
    pub const fn new() -> Self {
        let at_first = WINDOW_AT_FIRST.cast_signed();
        Self { waiting: Vec::new(), stream: at_first, connection: at_first, initial: WINDOW_AT_FIRST, is_over: false }
    }

    /// Counts the DATA that a [`hello`](super::hello) ends with.
    pub fn said_with_hello(&mut self, hello: &[u8]) {
        let mut rest = hello.get(frame::PREFACE.len()..).unwrap_or_default();
        while let Some((header, behind)) = rest.split_first_chunk() {
            let header = Header::parse(header);
            if header.kind == kind::DATA {
                self.stream -= header.length.cast_signed();
                self.connection -= header.length.cast_signed();
            }
            rest = behind.get(header.length as usize..).unwrap_or_default();
        }
    }

    /// Notes what the server allows. What waited for it is appended to `out`.
    ///
    /// # Errors
    /// When it allows what nobody may.
    pub fn note(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Broken> {
        match *event {
            Event::Settings(Settings { initial_window: Some(initial) }) => {
                // The difference counts, also for the stream that is open (section 6.9.2).
                let before = i64::from(self.stream) - i64::from(self.initial);
                self.stream = window(before + i64::from(initial))?;
                self.initial = initial;
            }
            Event::Window { of_stream: true, bytes } => {
                self.stream = window(i64::from(self.stream) + i64::from(bytes))?;
            }
            Event::Window { of_stream: false, bytes } => {
                self.connection = window(i64::from(self.connection) + i64::from(bytes))?;
            }
            _ => return Ok(()),
        }
        self.say_waiting(out);
        Ok(())
    }

    /// Appends a message that consists of these parts. What the windows have no room for waits.
    pub fn message(&mut self, head: &[u8], payload: &[u8], out: &mut Vec<u8>) {
        let length = u32::try_from(head.len() + payload.len()).unwrap_or(u32::MAX);
        let [a, b, c, d] = length.to_be_bytes();
        let prefix: [u8; PREFIX_BYTES] = [0, a, b, c, d];
        let whole = PREFIX_BYTES + head.len() + payload.len();
        if self.waiting.is_empty() && whole <= self.room() {
            // Nearly always.
            self.write_header(whole, out);
            out.extend_from_slice(&prefix);
            out.extend_from_slice(head);
            out.extend_from_slice(payload);
            return;
        }
        let was_empty = self.waiting.is_empty();
        [&prefix[..], head, payload].iter().for_each(|part| self.waiting.extend_from_slice(part));
        if was_empty {
            self.say_waiting(out);
        }
    }

    /// Appends that nothing more is said, behind what waits. The server may go on.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.is_over = true;
        if self.waiting.is_empty() {
            Self::write_end(out);
        }
    }

    /// The end needs no window.
    fn write_end(out: &mut Vec<u8>) {
        frame::write(kind::DATA, flag::END_STREAM, STREAM, &[], out);
    }

    /// Bytes that wait for a window.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Says as much of what waits as there is room for.
    fn say_waiting(&mut self, out: &mut Vec<u8>) {
        if self.waiting.is_empty() {
            return;
        }
        let mut said = 0;
        while said < self.waiting.len() && self.room() > 0 {
            let end = self.waiting.len().min(said + self.room());
            self.write_header(end - said, out);
            out.extend_from_slice(&self.waiting[said..end]);
            said = end;
        }
        self.waiting.drain(..said);
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
            if self.is_over {
                Self::write_end(out);
            }
        }
    }

    /// Bytes of one frame.
    fn room(&self) -> usize {
        let window = u32::try_from(self.stream.min(self.connection)).unwrap_or(0);
        window.min(FRAME_BYTES_MAX) as usize
    }

    fn write_header(&mut self, bytes: usize, out: &mut Vec<u8>) {
        let length = u32::try_from(bytes).unwrap_or(FRAME_BYTES_MAX);
        self.stream -= length.cast_signed();
        self.connection -= length.cast_signed();
        out.extend_from_slice(&Header { length, kind: kind::DATA, flags: 0, stream: STREAM }.to_bytes());
    }
}

impl Default for Speaking {
    fn default() -> Self {
        Self::new()
    }
}

fn window(bytes: i64) -> Result<i32, Broken> {
    if bytes > i64::from(WINDOW_MAX) {
        return Err(Broken::Window);
    }
    i32::try_from(bytes).map_err(|_| Broken::Window)
}
