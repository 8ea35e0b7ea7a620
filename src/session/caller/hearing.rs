//! What a server says to a caller: frames, and the messages in them, wherever both are cut.

use super::{FRAME_BYTES_MAX, STREAM, WINDOW};
use crate::codec::grpc::PREFIX_BYTES;
use crate::codec::http2::frame::{self, HEADER_BYTES, Header, flag, kind};
use crate::codec::http2::hpack::{Bounds, Decoder};
use crate::codec::http2::{StreamId, response};

/// What is found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// The server's settings, which have been acknowledged.
    Settings(Settings),
    /// More may be said, on the stream or on the connection.
    Window {
        /// On the stream.
        of_stream: bool,
        /// So many bytes.
        bytes: u32,
    },
    /// A heartbeat, which has been answered.
    Ping,
    /// The server takes the call.
    Opened,
    /// A message.
    Message(&'b [u8]),
    /// The connection ends when the call does.
    GoAway,
    /// The call has ended. Nothing follows.
    Ended(Outcome),
}

/// What of a server's settings concerns a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The window that streams begin with, when it says so.
    pub initial_window: Option<u32>,
}

/// How a call ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a status of gRPC, and a sentence.
    Status(u32, String),
    /// With another status of HTTP than 200, and seconds after which to come back.
    Declined(u16, Option<u32>),
    /// With a reset, for this reason.
    Reset(u32),
}

/// How a server breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Broken {
    /// Another protocol (RFC 9113 section 3.4).
    #[error("what it says is not HTTP/2")]
    NotHttp2,
    /// Longer than a frame may be (section 4.2).
    #[error("a frame of more than {FRAME_BYTES_MAX} bytes")]
    FrameTooLong,
    /// A frame that cannot be like that, or not there (section 6).
    #[error("a frame that breaks the rules of HTTP/2")]
    Frame,
    /// A head in several frames, or of a length that none of a call has.
    #[error("a head that is too long")]
    LongHead,
    /// Fields that cannot be read (RFC 7541), or make no head (RFC 9113 section 8).
    #[error("a head that cannot be read")]
    Head,
    /// A response that is none of gRPC.
    #[error("an answer that is not of content-type application/grpc")]
    NotGrpc,
    /// More than our window, or a window that is larger than any (sections 5.2 and 6.9.1).
    #[error("more than a window of HTTP/2 allows")]
    Window,
    /// A message that is compressed, which we did not offer, or another first byte than any has.
    #[error("a gRPC message in an encoding that was not offered")]
    Encoding,
    /// A message of more bytes than the caller takes.
    #[error("a gRPC message of {0} bytes")]
    TooLong(u32),
}

/// How far a call is.
///
/// ```text
///  Preface -- SETTINGS --> Opening -- head --> Open -- trailers --> Over
///                             +-- head with END_STREAM, RST_STREAM --^
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Preface,
    Opening,
    Open,
    Over,
}

/// The hearing half of a call.
#[derive(Debug, Default)]
pub struct Hearing {
    /// The beginning of a frame whose end has not come; of DATA, of its header.
    partial: Vec<u8>,
    /// The beginning of a message, with its prefix.
    message: Vec<u8>,
    /// Bytes of DATA that have not been credited.
    used: u32,
    /// Bytes of the DATA frame under way that have not come, and its padding behind them.
    left: u32,
    padding: u8,
    /// The stream ends with the DATA frame under way.
    is_last: bool,
    /// `message` has been given out.
    is_given: bool,
    stage: Stage,
}

const _: () = assert!(size_of::<Hearing>() <= 64, "2 * 24 of buffers, 2 * 4 of numbers, 4 * 1");

/// Bytes and fields of a head at most.
const HEAD: Bounds = Bounds { bytes_max: 8192, fields_max: 64 };

impl Hearing {
    /// One that was [at rest](Self::is_at_rest) with so many bytes [used](Self::used).
    #[must_use]
    pub fn resumed(used: u32) -> Self {
        Self { used, stage: Stage::Open, ..Self::default() }
    }

    /// Whether nothing but [`Self::used`] need be kept: the call is open, and nothing is cut.
    #[must_use]
    pub const fn is_at_rest(&self) -> bool {
        matches!(self.stage, Stage::Open)
            && self.partial.is_empty()
            && (self.message.is_empty() || self.is_given)
            && self.left == 0
            && self.padding == 0
            && !self.is_last
    }

    /// Bytes that have not been credited.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Looks for one event in `input` and passes over what is done with; without one, all of it is. What the protocol itself
    /// has to answer is appended to `out`. Messages have `bytes_max` bytes at most.
    ///
    /// # Errors
    /// When the server breaks the rules: the connection is of no use any more.
    pub fn next<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'a>>, Broken> {
        if std::mem::take(&mut self.is_given) {
            self.message = Vec::new();
        }
        loop {
            if self.stage == Stage::Over {
                *input = &[];
                return Ok(None);
            }
            if self.left > 0 {
                match self.body(input, bytes_max)? {
                    Some(Found::InPlace(message)) => return Ok(Some(Event::Message(message))),
                    Some(Found::Kept) => {
                        self.is_given = true;
                        return Ok(Some(Event::Message(&self.message[PREFIX_BYTES..])));
                    }
                    None => {}
                }
            } else if self.padding > 0 {
                let padding = usize::from(self.padding).min(input.len());
                *input = &input[padding..];
                self.padding -= u8::try_from(padding).unwrap_or(self.padding);
            } else if self.is_last {
                return Ok(Some(self.end(None)));
            } else if let Some(event) = self.frame(input, out)? {
                return Ok(Some(event));
            }
            if input.is_empty() && !(self.is_last && self.left == 0 && self.padding == 0) {
                return Ok(None);
            }
        }
    }

    /// Lets the server say as much more as was heard, once that is worth it.
    pub fn credit(&mut self, out: &mut Vec<u8>) {
        if self.used >= WINDOW / 2 && self.stage == Stage::Open {
            frame::write_window_update(STREAM, self.used, out);
            frame::write_window_update(StreamId::CONNECTION, self.used, out);
            self.used = 0;
        }
    }

    /// Takes bytes of the DATA frame under way, to the end of a message at most.
    fn body<'a>(&mut self, input: &mut &'a [u8], bytes_max: usize) -> Result<Option<Found<'a>>, Broken> {
        let here = input.len().min(self.left as usize);
        if self.message.is_empty() {
            let piece = &input[..here];
            if let Some(end) = message_bytes(piece, bytes_max)?.filter(|end| *end <= here) {
                self.take(input, end);
                return Ok(Some(Found::InPlace(&piece[PREFIX_BYTES..end])));
            }
            let piece = self.take(input, here);
            self.message.extend_from_slice(piece);
            return Ok(None);
        }
        let end = message_bytes(&self.message, bytes_max)?.unwrap_or(PREFIX_BYTES);
        let taken = self.take(input, here.min(end - self.message.len()));
        self.message.extend_from_slice(taken);
        // With the prefix its length is known, which may be 0.
        let is_whole = message_bytes(&self.message, bytes_max)? == Some(self.message.len());
        Ok(is_whole.then_some(Found::Kept))
    }

    fn take<'a>(&mut self, input: &mut &'a [u8], bytes: usize) -> &'a [u8] {
        let (taken, rest) = input.split_at(bytes);
        *input = rest;
        self.left -= u32::try_from(bytes).unwrap_or(self.left);
        taken
    }

    /// Takes the bytes of one frame, of DATA only its header, and looks at it when it is whole.
    fn frame(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Event<'static>>, Broken> {
        if self.partial.is_empty()
            && let Some(bytes) = self.frame_bytes(input)?.filter(|bytes| *bytes <= input.len())
        {
            let (whole, rest) = input.split_at(bytes);
            *input = rest;
            return self.look(whole, out);
        }
        for _ in 0..2 {
            // First the header, which says how long it is.
            let bytes = self.frame_bytes(&self.partial)?.unwrap_or(HEADER_BYTES);
            let (taken, rest) = input.split_at(input.len().min(bytes - self.partial.len()));
            *input = rest;
            self.partial.extend_from_slice(taken);
        }
        if self.frame_bytes(&self.partial)? != Some(self.partial.len()) {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.partial);
        self.look(&whole, out)
    }

    /// How many bytes a frame has of which at least the header is there.
    fn frame_bytes(&self, bytes: &[u8]) -> Result<Option<usize>, Broken> {
        if self.stage == Stage::Preface && !bytes.is_empty() && bytes.starts_with(&b"HTTP/"[..bytes.len().min(5)]) {
            return Err(Broken::NotHttp2);
        }
        let Some(header) = bytes.first_chunk().map(Header::parse) else { return Ok(None) };
        if header.length > FRAME_BYTES_MAX {
            return Err(if self.stage == Stage::Preface { Broken::NotHttp2 } else { Broken::FrameTooLong });
        }
        Ok(Some(match header.kind {
            kind::DATA => HEADER_BYTES + usize::from(header.has(flag::PADDED) && header.length > 0),
            _ => HEADER_BYTES + header.length as usize,
        }))
    }

    fn look(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<Option<Event<'static>>, Broken> {
        let Some((header, payload)) = frame.split_first_chunk() else { return Ok(None) };
        let header = Header::parse(header);
        if self.stage == Stage::Preface && header.kind != kind::SETTINGS {
            return Err(Broken::NotHttp2);
        }
        let is_ours = header.stream == STREAM;
        match header.kind {
            kind::DATA if is_ours => self.data(header, payload).map(|()| None),
            kind::HEADERS if is_ours => self.head(header, payload),
            kind::RST_STREAM if is_ours => {
                let code = u32::from_be_bytes(payload.try_into().map_err(|_| Broken::Frame)?);
                Ok(Some(self.end(Some(Outcome::Reset(code)))))
            }
            kind::SETTINGS if header.stream == StreamId::CONNECTION => self.settings(header, payload, out),
            kind::PING if header.stream == StreamId::CONNECTION => {
                let data: [u8; 8] = payload.try_into().map_err(|_| Broken::Frame)?;
                if header.has(flag::ACK) {
                    return Ok(None);
                }
                frame::write_ping(data, true, out);
                Ok(Some(Event::Ping))
            }
            kind::GOAWAY if header.stream == StreamId::CONNECTION && payload.len() >= 8 => Ok(Some(Event::GoAway)),
            kind::WINDOW_UPDATE if is_ours || header.stream == StreamId::CONNECTION => {
                let bytes = u32::from_be_bytes(payload.try_into().map_err(|_| Broken::Frame)?) & StreamId::MAX;
                if bytes == 0 { Err(Broken::Frame) } else { Ok(Some(Event::Window { of_stream: is_ours, bytes })) }
            }
            // Of no stream that there is, what we do not allow, or what belongs behind something else.
            kind::DATA..=kind::CONTINUATION if header.kind != kind::PRIORITY => Err(Broken::Frame),
            _ => Ok(None),
        }
    }

    fn settings(
        &mut self,
        header: Header,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Broken> {
        let is_ack = header.has(flag::ACK);
        if !payload.len().is_multiple_of(6) || is_ack && !payload.is_empty() {
            return Err(Broken::Frame);
        }
        if is_ack {
            return Ok(None);
        }
        let mut settings = Settings::default();
        for setting in payload.chunks_exact(6) {
            let [high, low, a, b, c, d] = *setting else { continue };
            // SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.5.2).
            if [high, low] == [0, 4] {
                let window = u32::from_be_bytes([a, b, c, d]);
                if window > StreamId::MAX {
                    return Err(Broken::Window);
                }
                settings.initial_window = Some(window);
            }
        }
        if self.stage == Stage::Preface {
            self.stage = Stage::Opening;
        }
        frame::write(kind::SETTINGS, flag::ACK, StreamId::CONNECTION, &[], out);
        Ok(Some(Event::Settings(settings)))
    }

    /// A DATA frame begins. All of it counts in the window, padding too (section 6.9.1).
    fn data(&mut self, header: Header, start: &[u8]) -> Result<(), Broken> {
        let padding = start.first().copied().unwrap_or(0);
        let is_padded = header.has(flag::PADDED);
        let around = u32::from(is_padded) + u32::from(padding);
        if self.stage != Stage::Open || around > header.length {
            return Err(Broken::Frame);
        }
        self.used = self.used.saturating_add(header.length);
        if self.used > WINDOW {
            return Err(Broken::Window);
        }
        self.left = header.length - around;
        self.padding = padding;
        self.is_last = header.has(flag::END_STREAM);
        Ok(())
    }

    /// A response's head, or trailers.
    fn head(&mut self, header: Header, payload: &[u8]) -> Result<Option<Event<'static>>, Broken> {
        if !header.has(flag::END_HEADERS) {
            return Err(Broken::LongHead);
        }
        let fields = Fields::read(block(header, payload).ok_or(Broken::Frame)?)?;
        let is_last = header.has(flag::END_STREAM);
        match (self.stage, fields.status) {
            (Stage::Opening, Some(100..=199)) if !is_last => Ok(None),
            (Stage::Opening, Some(200)) if !fields.is_grpc => Err(Broken::NotGrpc),
            (Stage::Opening, Some(200)) if is_last => Ok(Some(self.end(fields.outcome()))),
            (Stage::Opening, Some(200)) => {
                self.stage = Stage::Open;
                Ok(Some(Event::Opened))
            }
            (Stage::Opening, Some(status @ 200..)) => {
                Ok(Some(self.end(Some(Outcome::Declined(status, fields.retry_after)))))
            }
            (Stage::Open, None) if is_last => Ok(Some(self.end(fields.outcome()))),
            _ => Err(Broken::Head),
        }
    }

    /// What is over without a status has one that nobody knows.
    fn end(&mut self, outcome: Option<Outcome>) -> Event<'static> {
        const UNKNOWN: u32 = 2;
        self.stage = Stage::Over;
        let outcome = outcome.unwrap_or_else(|| Outcome::Status(UNKNOWN, "the call ended without a status".to_owned()));
        Event::Ended(outcome)
    }
}

/// A message, in what was said or in what was kept.
enum Found<'a> {
    InPlace(&'a [u8]),
    Kept,
}

/// Bytes of a message with its prefix, once that is there.
fn message_bytes(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Broken> {
    let Some([flag, length @ ..]) = bytes.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    if *flag != 0 {
        return Err(Broken::Encoding);
    }
    let length = u32::from_be_bytes(*length);
    let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= bytes_max);
    bytes.map(|bytes| Some(PREFIX_BYTES + bytes)).ok_or(Broken::TooLong(length))
}

/// The fields in a HEADERS frame, without what may stand around them (RFC 9113 section 6.2).
fn block(header: Header, payload: &[u8]) -> Option<&[u8]> {
    let (padding, rest) = if header.has(flag::PADDED) {
        payload.split_first().map(|(padding, rest)| (usize::from(*padding), rest))?
    } else {
        (0, payload)
    };
    let rest = if header.has(flag::PRIORITY) { rest.get(5..)? } else { rest };
    rest.get(..rest.len().checked_sub(padding)?)
}

/// What of a head or trailers concerns a caller.
#[derive(Debug, Default)]
struct Fields {
    status: Option<u16>,
    is_grpc: bool,
    retry_after: Option<u32>,
    grpc_status: Option<u32>,
    grpc_message: Vec<u8>,
}

impl Fields {
    fn read(block: &[u8]) -> Result<Self, Broken> {
        let mut fields = Self::default();
        let number = |value: &[u8]| std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        // A table without room is as good as new after each block.
        let read = response::read(&mut Decoder::new(0), block, HEAD, &mut Vec::new(), |name, value| match name {
            b"content-type" => fields.is_grpc = value.starts_with(b"application/grpc"),
            b"retry-after" => fields.retry_after = number(value),
            b"grpc-status" => fields.grpc_status = number(value),
            b"grpc-message" => fields.grpc_message = value.to_vec(),
            _ => {}
        });
        fields.status = read.map_err(|bad| match bad {
            response::BadResponse::TooLarge => Broken::LongHead,
            _ => Broken::Head,
        })?;
        Ok(fields)
    }

    fn outcome(&self) -> Option<Outcome> {
        self.grpc_status.map(|code| Outcome::Status(code, percent_decoded(&self.grpc_message)))
    }
}

/// A sentence as trailers carry it, with `%XX` for what is no printable ASCII. What is encoded badly stays as it is.
fn percent_decoded(value: &[u8]) -> String {
    let digit = |at: usize| value.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let (mut bytes, mut at) = (Vec::with_capacity(value.len()), 0);
    while let Some(byte) = value.get(at) {
        let encoded = (*byte == b'%').then(|| digit(at + 1).zip(digit(at + 2))).flatten();
        let decoded = encoded.and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        bytes.push(decoded.unwrap_or(*byte));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
