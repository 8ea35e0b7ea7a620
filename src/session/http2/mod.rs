//! One HTTP/2 connection (RFC 9113) as the server sees it, sans-I/O: frames in, requests and their bodies out, and the
//! windows of both directions.
//!
//! [`Http2::receive`] finds one [`Event`] at a time, so that whoever carries it out has the session at hand. What the
//! protocol itself has to answer (acknowledgements, resets, window updates) is written at once. A stream is a record of a
//! few bytes that is there only while the stream is; what is said on it belongs to whoever named it.

use super::{Env, Partial};
use crate::close::CloseReason;
use crate::codec::http2::{ErrorCode, StreamId};
use crate::config::Limits;
use crate::id::ConnId;
use crate::rule::Rule;
use crate::wheel::Tick;

/// One connection.
#[derive(Debug)]
pub struct Http2 {}

/// What was found in the bytes.
#[derive(Debug)]
pub enum Event<'b> {
    /// A request, whose stream is open now: [`Http2::name`] it or [`Http2::reset`] it.
    Request {
        /// Its stream.
        stream: StreamId,
        /// Its head, in `buf` alone, as a request's head of HTTP/1.1 that [`Head::parse`] reads: the fields have been
        /// checked by RFC 9113 section 8, the authority is the field `host`, cookies are joined. A `te`, and what belongs
        /// to the connection in HTTP/1.1, is not in it.
        ///
        /// [`Head::parse`]: crate::codec::http1::Head::parse
        head: Box<Partial>,
        /// Nothing follows the head.
        ends: bool,
    },
    /// Part of a body, as it came: it may be any part of a frame. Say [`Http2::consumed`] when it is done with.
    Data {
        /// Whose.
        stream: StreamId,
        /// Its name.
        name: ConnId,
        /// The bytes, without padding (that has been credited).
        bytes: &'b mut [u8],
        /// They are the last ones. The length that the head announced has been checked.
        ends: bool,
    },
    /// The body has ended with trailers, which say nothing here.
    Ends {
        /// Whose.
        stream: StreamId,
        /// Its name.
        name: ConnId,
    },
    /// A stream is gone: the peer reset it, or broke a rule on it and has been told so. Its record is no more.
    Reset {
        /// Its name.
        name: ConnId,
        /// Why.
        code: ErrorCode,
    },
    /// A window has grown, of one stream or, without a name, of the connection or all streams.
    Window(Option<ConnId>),
    /// The answer to a [`Http2::write_ping`].
    Pong,
    /// The peer opens no more streams and ends when those that are open have ended.
    GoAway,
}

/// How a peer broke the rules of the connection: it ends, after GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not what a connection begins with (RFC 9113 section 3.4).
    #[error("the connection does not begin with HTTP/2's preface and SETTINGS")]
    Preface,
}

impl Violation {
    /// What GOAWAY says.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Preface => ErrorCode::ProtocolError,
        }
    }
}

impl super::Violation for Violation {
    fn rule(&self) -> Rule {
        Rule::NotHttp
    }

    fn reason(&self) -> CloseReason {
        CloseReason::ProtocolError
    }
}

impl Http2 {
    /// A connection whose first line, [`PREFACE_HEAD`], has been read as a request of HTTP/1.1. Writes our SETTINGS and the
    /// connection's window.
    ///
    /// [`PREFACE_HEAD`]: crate::codec::http2::frame::PREFACE_HEAD
    #[must_use]
    pub fn begin(limits: &Limits, now: Tick, out: &mut Vec<u8>) -> Box<Self> {
        let _ = (limits, now, out);
        Box::new(Self {})
    }

    /// Looks for one event in `bytes`: how many of them are done with, and the event. Without one all bytes are done with:
    /// an unfinished frame is kept in `partial`. After an event, call it again with the rest.
    ///
    /// # Errors
    /// When the connection must end: say [`Http2::go_away`] with the violation's code and close.
    pub fn receive<'b>(
        &mut self,
        partial: &mut Option<Box<Partial>>,
        bytes: &'b mut [u8],
        now: Tick,
        env: &mut Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Event<'b>>), Violation> {
        let _ = (partial, now, env, out);
        Ok((bytes.len(), None))
    }

    /// Names a stream.
    pub fn name(&mut self, stream: StreamId, name: ConnId) {
        let _ = (stream, name);
    }

    /// The names of all streams that are open.
    pub fn names(&self) -> impl Iterator<Item = ConnId> + '_ {
        std::iter::empty()
    }

    /// How many streams are open.
    #[must_use]
    pub const fn streams(&self) -> usize {
        0
    }

    /// Bytes of DATA that can be sent on a stream in one frame now: what both windows and the peer's largest frame allow. 0
    /// also for a stream that is gone.
    #[must_use]
    pub fn room(&self, stream: StreamId) -> usize {
        let _ = stream;
        0
    }

    /// The header of a DATA frame with `length` bytes, of at most [`Http2::room`], which is taken from the windows. `ends`:
    /// our side of the stream ends with it, and so does its record when the peer's side has ended too.
    pub fn data(&mut self, stream: StreamId, length: usize, ends: bool) -> [u8; 9] {
        let _ = (stream, length, ends);
        [0; 9]
    }

    /// Notes that our side of a stream has ended with a HEADERS frame (a response without a body, or trailers).
    pub fn ended(&mut self, stream: StreamId) {
        let _ = stream;
    }

    /// Whether the peer's side of a stream has ended, or there is no such stream.
    #[must_use]
    pub fn peer_ended(&self, stream: StreamId) -> bool {
        let _ = stream;
        true
    }

    /// So many bytes of a stream's body are done with: the peer may send as many more. Once in a while that is written.
    pub fn consumed(&mut self, stream: StreamId, bytes: usize, out: &mut Vec<u8>) {
        let _ = (stream, bytes, out);
    }

    /// Ends a stream, both sides. What still comes on it is ignored for a while.
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode, out: &mut Vec<u8>) {
        let _ = (stream, code, out);
    }

    /// Asks the peer for a sign of life.
    pub fn write_ping(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Says that no more streams are taken, once; with an error, that the connection ends. Streams that are opened
    /// afterwards are refused.
    pub fn go_away(&mut self, code: ErrorCode, debug: &str, out: &mut Vec<u8>) {
        let _ = (code, debug, out);
    }

    /// Until when the peer must have sent its SETTINGS or acknowledged ours, if it has not.
    #[must_use]
    pub const fn settings_due(&self) -> Option<Tick> {
        None
    }

    /// What it keeps in memory beside itself.
    #[must_use]
    pub const fn memory(&self) -> usize {
        0
    }
}
