//! A client that says over HTTP/2 whatever a test wants, and what must come of it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::wire::{
    ACK, DATA, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get,
    ping, settings, status, window_update,
};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// What came of it: nothing, or what was wrong.
pub type Verdict = Result<(), String>;

/// A frame as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, flags, stream, payload } = self;
        let shown = payload.len().min(24);
        write!(to, "[kind {kind} flags {flags:#x} stream {stream} length {}: ", payload.len())?;
        write!(to, "{}]", payload[..shown].escape_ascii())
    }
}

impl Frame {
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// Four bytes of the payload as a number.
    pub fn number(&self, at: usize) -> u32 {
        self.payload.get(at..at + 4).map_or(u32::MAX, |four| u32::from_be_bytes(*four.first_chunk().unwrap()))
    }
}

/// A whole response.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// The lengths of its DATA frames.
    pub pieces: Vec<usize>,
}

/// One connection from the client's side.
pub struct Peer {
    pub stream: TcpStream,
    /// What the server said in its SETTINGS.
    pub settings: Vec<(u16, u32)>,
    /// What the server takes on the connection, apart from what a test sends.
    pub room: usize,
    buf: Vec<u8>,
    /// The stream of the next request that shows that all is well.
    next: u32,
    seen: Vec<Frame>,
    /// What came on streams that nobody waited for while another was.
    kept: VecDeque<Frame>,
    /// A server that is not ours may close without a word, or treat a stream's error as the connection's.
    lenient: bool,
}

impl Peer {
    /// A connection on which nothing has been said.
    pub fn silent(address: SocketAddr, lenient: bool) -> Self {
        Self::over(TcpStream::connect(address).unwrap(), lenient)
    }

    pub fn over(stream: TcpStream, lenient: bool) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            settings: Vec::new(),
            room: 65_535,
            buf: Vec::new(),
            next: 100_001,
            seen: Vec::new(),
            kept: VecDeque::new(),
            lenient,
        }
    }

    /// The preface and SETTINGS of both sides, each acknowledged.
    pub fn begin(&mut self, values: &[(u16, u32)]) -> Verdict {
        self.send(&[PREFACE, &settings(values)].concat());
        let first = self.frame()?.ok_or("the end came instead of SETTINGS")?;
        if (first.kind, first.flags, first.stream) != (SETTINGS, 0, 0) {
            return Err(format!("a connection must begin with SETTINGS, not {first:?}"));
        }
        let values = first.payload.chunks(6).map(|six| {
            let (id, value) = six.split_first_chunk::<2>().unwrap();
            (u16::from_be_bytes(*id), u32::from_be_bytes(*value.first_chunk().unwrap()))
        });
        self.settings = values.collect();
        self.send(&frame(SETTINGS, ACK, 0, &[]));
        self.until("an acknowledgement of SETTINGS", |frame| frame.kind == SETTINGS && frame.flags == ACK)?;
        Ok(())
    }

    /// Sends what may meet a connection that has been closed meanwhile.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends it all, then everything that follows is `expected` of it.
    pub fn say(&mut self, frames: &[Vec<u8>]) {
        self.send(&frames.concat());
    }

    /// The next frame, `None` at the end.
    ///
    /// # Errors
    /// When nothing comes.
    pub fn frame(&mut self) -> Result<Option<Frame>, String> {
        let Some(head) = self.exactly(9)? else { return Ok(None) };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes(*head[5..].first_chunk().unwrap());
        let payload = match self.exactly(length)? {
            Some(payload) => payload,
            None if self.lenient => return Ok(None),
            None => return Err("the end came inside a frame".into()),
        };
        let found = Frame { kind: head[3], flags: head[4], stream, payload };
        if found.kind == PING && found.flags & ACK == 0 {
            self.send(&frame(PING, ACK, 0, &found.payload));
        }
        if found.kind == WINDOW_UPDATE && found.stream == 0 {
            self.room += found.number(0) as usize;
        }
        if self.seen.len() < 12 {
            self.seen.push(found.clone());
        }
        Ok(Some(found))
    }

    fn exactly(&mut self, bytes: usize) -> Result<Option<Vec<u8>>, String> {
        let mut piece = [0; 16 * 1024];
        while self.buf.len() < bytes {
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(read) => self.buf.extend(&piece[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Ok(None);
                }
                Err(error) => return Err(format!("nothing came after {:?}: {error}", self.seen)),
            }
        }
        Ok(Some(self.buf.drain(..bytes).collect()))
    }

    /// Throws frames away until this one.
    pub fn until(&mut self, what: &str, is_it: impl Fn(&Frame) -> bool) -> Result<Frame, String> {
        loop {
            match self.frame().map_err(|error| format!("waited for {what}: {error}"))? {
                Some(frame) if is_it(&frame) => return Ok(frame),
                Some(frame) if frame.kind == GOAWAY && frame.number(4) != 0 => {
                    return Err(format!("waited for {what}, but the connection ended: {:?}", self.seen));
                }
                Some(_) => {}
                None => return Err(format!("waited for {what}, but the end came after {:?}", self.seen)),
            }
        }
    }

    /// An error of the connection: GOAWAY with one of `codes`, and the end.
    pub fn dies(&mut self, codes: &[u32]) -> Verdict {
        loop {
            match self.frame().map_err(|error| format!("GOAWAY with one of {codes:?} was due: {error}"))? {
                Some(frame) if frame.kind == GOAWAY && frame.number(4) != 0 => {
                    if !codes.contains(&frame.number(4)) {
                        return Err(format!("GOAWAY should say one of {codes:?}: {frame:?}"));
                    }
                    return self.ends();
                }
                Some(_) => {}
                None if self.lenient => return Ok(()),
                None => return Err(format!("the end without GOAWAY, after {:?}", self.seen)),
            }
        }
    }

    /// The end, whatever comes before it.
    pub fn ends(&mut self) -> Verdict {
        while self.frame().map_err(|error| format!("the end was due: {error}"))?.is_some() {}
        Ok(())
    }

    /// An error of a stream: RST_STREAM with one of `codes`, and the connection goes on.
    pub fn resets(&mut self, stream: u32, codes: &[u32]) -> Verdict {
        loop {
            match self.frame().map_err(|error| format!("RST_STREAM of {stream} was due: {error}"))? {
                Some(frame) if frame.kind == RST_STREAM && frame.stream == stream => {
                    if !codes.contains(&frame.number(0)) {
                        return Err(format!("RST_STREAM should say one of {codes:?}: {frame:?}"));
                    }
                    return if self.lenient { Ok(()) } else { self.lives() };
                }
                Some(frame) if frame.kind == GOAWAY && self.lenient && codes.contains(&frame.number(4)) => {
                    return Ok(());
                }
                Some(frame) if frame.kind == GOAWAY => {
                    return Err(format!("not the whole connection's error: {frame:?}"));
                }
                Some(frame) if frame.stream == stream && frame.ends_stream() => {
                    return Err(format!("RST_STREAM of {stream} was due, not an answer: {:?}", self.seen));
                }
                Some(_) => {}
                None if self.lenient => return Ok(()),
                None => return Err(format!("RST_STREAM of {stream} was due, not the end after {:?}", self.seen)),
            }
        }
    }

    /// Where the RFC leaves it to the server whose error it is: RST_STREAM or GOAWAY with one of `codes`.
    pub fn resets_or_dies(&mut self, stream: u32, codes: &[u32]) -> Verdict {
        loop {
            let frame = self.frame().map_err(|error| format!("RST_STREAM or GOAWAY was due: {error}"))?;
            let code = match frame {
                Some(frame) if frame.kind == RST_STREAM && frame.stream == stream => frame.number(0),
                Some(frame) if frame.kind == GOAWAY && frame.number(4) != 0 => frame.number(4),
                Some(_) => continue,
                None if self.lenient => return Ok(()),
                None => return Err(format!("RST_STREAM or GOAWAY was due, not the end after {:?}", self.seen)),
            };
            let wrong = || format!("one of {codes:?} was due: {:?}", self.seen);
            return codes.contains(&code).then_some(()).ok_or_else(wrong);
        }
    }

    /// The connection goes on: a PING comes back and a request has its answer.
    pub fn lives(&mut self) -> Verdict {
        self.send(&ping(b"wellbein"));
        self.until("a PING's answer", |frame| {
            frame.kind == PING && frame.flags == ACK && frame.payload == b"wellbein"
        })?;
        let stream = self.next;
        self.next += 2;
        self.send(&get(stream));
        let head = self.until("an answer", |frame| frame.kind == HEADERS && frame.stream == stream)?;
        match status(&head.payload) {
            Some(200) => Ok(()),
            other => Err(format!("200 was due, not {other:?}: {head:?}")),
        }
    }

    /// The whole answer on a stream. Windows are kept open.
    pub fn answer(&mut self, stream: u32) -> Result<Answer, String> {
        let mut answer = Answer::default();
        loop {
            let frame = self.of_stream(stream)?;
            match frame.kind {
                HEADERS if answer.status == 0 => {
                    answer.status = status(&frame.payload).ok_or_else(|| format!("no status: {frame:?}"))?;
                }
                DATA => {
                    let body = unpadded(&frame).ok_or("padding that is too long")?;
                    answer.body.extend(body);
                    answer.pieces.push(body.len());
                    if !frame.payload.is_empty() && !frame.ends_stream() {
                        let length = u32::try_from(frame.payload.len()).unwrap();
                        self.say(&[window_update(0, length), window_update(stream, length)]);
                    }
                }
                HEADERS => {}
                _ => return Err(format!("an answer of stream {stream} was due, not {frame:?}")),
            }
            if frame.ends_stream() {
                return Ok(answer);
            }
        }
    }

    /// The next frame of an answer on this stream. Those of other streams stay for whoever asks for them.
    fn of_stream(&mut self, stream: u32) -> Result<Frame, String> {
        if let Some(at) = self.kept.iter().position(|frame| frame.stream == stream) {
            return Ok(self.kept.remove(at).unwrap());
        }
        loop {
            let is_part = |frame: &Frame| frame.stream != 0 && matches!(frame.kind, HEADERS | DATA | RST_STREAM);
            let frame = self.until(&format!("the answer of stream {stream}"), is_part)?;
            if frame.stream == stream {
                return Ok(frame);
            }
            self.kept.push_back(frame);
        }
    }

    /// The answer on a stream has this status.
    pub fn answers(&mut self, stream: u32, status: u16) -> Result<Vec<u8>, String> {
        let answer = self.answer(stream)?;
        if answer.status == status { Ok(answer.body) } else { Err(format!("{status} was due: {answer:?}")) }
    }
}

fn unpadded(frame: &Frame) -> Option<&[u8]> {
    if frame.flags & PADDED == 0 {
        return Some(&frame.payload);
    }
    let (length, rest) = frame.payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*length))?)
}

/// `found` is what is `due`.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, due: T) -> Verdict {
    if found == due { Ok(()) } else { Err(format!("{what}: {found:?}, not {due:?}")) }
}
