//! One HTTP/2 connection (RFC 9113) as the server sees it, sans-I/O: frames in, requests and their bodies out, and the
//! windows of both directions.
//!
//! [`Http2::receive`] finds one [`Event`] at a time, so that whoever carries it out has the session at hand. What the
//! protocol itself has to answer (acknowledgements, resets, window updates) is written at once. A stream is a record of a
//! few bytes that is there only while the stream is; what is said on it belongs to whoever named it.
//!
//! A body is passed on as it comes and nothing of it is kept here; only headers of frames, control frames and blocks of
//! fields wait in a [`Partial`] until they are whole. The connection's window is given back as soon as bytes come, a
//! stream's when they are consumed: so a stream that nobody reads stalls alone, and what can be unread is bounded by the
//! windows of all streams together.

mod block;
mod control;
mod floods;
#[doc(hidden)]
pub mod fuzz;
mod reading;
mod settings;
mod streams;
#[cfg(test)]
mod tests;
mod violation;
mod windows;

use floods::Floods;
use reading::{Found, Reading};
use settings::{Peer, Roll};
use streams::{State, Streams};
use windows::{ReceiveWindow, SendWindow};

use super::{Env, Partial};
use crate::codec::http2::frame::{self, Header, flag, kind};
use crate::codec::http2::hpack::Decoder;
use crate::codec::http2::{ErrorCode, StreamId};
use crate::config::Limits;
use crate::id::ConnId;
use crate::rule::Rule;
use crate::wheel::Tick;

pub use violation::Violation;

/// One connection.
#[derive(Debug)]
pub struct Http2 {
    decoder: Decoder,
    streams: Streams,
    floods: Floods,
    reading: Reading,
    peer: Peer,
    roll: Roll,
    /// What we may send on all streams together.
    send: SendWindow,
    /// What the peer may.
    receive: ReceiveWindow,
    /// The sizes of the windows that we give, of a stream and of the connection.
    stream_window: u32,
    connection_window: u32,
    /// Pings that are not answered yet.
    pings: u8,
    farewell: Farewell,
    /// Whether the peer's GOAWAY has been told.
    peer_leaves: bool,
}

// Decoder 16, streams 48 (24 of them for records, of which there are none without a stream), floods 20, reading 20, settings
// 8 + 8, windows 4 + 8 + 8, the rest 3 and padding: there for each connection, also for one that is idle.
const _: () = assert!(size_of::<Http2>() == 144);

/// What has been said about the connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Farewell {
    None,
    /// The peer is asked to open no more streams; those that were on their way are taken (RFC 9113 section 6.8).
    Warned,
    /// No more streams are taken.
    Drains,
    /// An error.
    Ends,
}

/// What our pings carry.
const PING: [u8; 8] = *b"holdline";

/// What the one carries whose answer says that the peer has heard our warning.
const WARNING: [u8; 8] = *b"goodbye!";

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
        /// The rule that the peer broke, to be counted.
        rule: Option<Rule>,
    },
    /// A request was refused, or a rule broken on a stream without a name. The peer has been told; this is to be counted.
    Refused(Rule),
    /// A window has grown, of one stream or, without a name, of the connection or all streams.
    Window(Option<ConnId>),
    /// The answer to a [`Http2::write_ping`].
    Pong,
    /// The peer has heard a [`Http2::warn`]: streams that it opened before have come.
    Heard,
    /// The peer opens no more streams and ends when those that are open have ended.
    GoAway,
}

impl Http2 {
    /// A connection whose first line, [`PREFACE_HEAD`], has been read as a request of HTTP/1.1. Writes our SETTINGS and the
    /// connection's window.
    ///
    /// [`PREFACE_HEAD`]: crate::codec::http2::frame::PREFACE_HEAD
    #[must_use]
    pub fn begin(limits: &Limits, now: Tick, out: &mut Vec<u8>) -> Box<Self> {
        settings::write_ours(limits, out);
        let [stream_window, connection_window] = settings::windows(&limits.http2);
        Box::new(Self {
            decoder: Decoder::new(settings::TABLE_BYTES),
            streams: Streams::new(),
            floods: Floods::new(&limits.http2, now),
            reading: Reading::new(),
            peer: Peer::new(),
            roll: Roll::new(limits.http2.settings_timeout, now),
            send: SendWindow::new(windows::WINDOW_FIRST),
            receive: ReceiveWindow::new(connection_window),
            stream_window,
            connection_window,
            pings: 0,
            farewell: Farewell::None,
            peer_leaves: false,
        })
    }

    /// Looks for one event in `bytes`: how many of them are done with, and the event. Without one all bytes are done with (an
    /// unfinished frame is kept in `partial`), or as many frames as [`Http2::FRAMES_IN_A_ROW`], so that whoever calls can
    /// see to others. Call it again with the rest.
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
        self.floods.refill(&env.limits.http2, now)?;
        let (taken, found) = self.read(partial, bytes, now, env, out)?;
        let event = found.map(|found| match found {
            Found::Request { stream, head, ends } => Event::Request { stream, head, ends },
            Found::Data { stream, name, length, ends } => {
                Event::Data { stream, name, bytes: &mut bytes[taken - length..taken], ends }
            }
            Found::Ends { stream, name } => Event::Ends { stream, name },
            Found::Reset { name, code, rule } => Event::Reset { name, code, rule },
            Found::Refused(rule) => Event::Refused(rule),
            Found::Window(name) => Event::Window(name),
            Found::Pong => Event::Pong,
            Found::Heard => Event::Heard,
            Found::GoAway => Event::GoAway,
        });
        Ok((taken, event))
    }

    /// Names a stream.
    pub fn name(&mut self, stream: StreamId, name: ConnId) {
        self.streams.set_name(stream, name);
    }

    /// The names of all streams that are open.
    pub fn names(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.streams.iter().filter_map(streams::Stream::name)
    }

    /// The highest stream below this number that is open, and its name.
    #[must_use]
    pub fn named_below(&self, stream: StreamId) -> Option<(StreamId, ConnId)> {
        self.streams.below(stream).rev().find_map(|stream| Some((stream.id, stream.name()?)))
    }

    /// How many streams are open.
    #[must_use]
    pub const fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Bytes of DATA that can be sent on a stream in one frame now: what both windows and the peer's largest frame allow. 0
    /// also for a stream that is gone.
    #[must_use]
    pub fn room(&self, stream: StreamId) -> usize {
        let room = self.streams.get(stream).filter(|stream| stream.state != State::WeEnded);
        room.map_or(0, |stream| stream.send.room().min(self.send.room()).min(self.peer.frame_bytes_max()))
    }

    /// The header of a DATA frame with `length` bytes, of at most [`Http2::room`], which is taken from the windows. `ends`:
    /// our side of the stream ends with it, and so does its record when the peer's side has ended too.
    pub fn data(&mut self, stream: StreamId, length: usize, ends: bool) -> [u8; 9] {
        debug_assert!(length <= self.room(stream) || length == 0);
        self.send.take(length);
        self.floods.sent();
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.send.take(length);
        }
        if ends {
            self.ended(stream);
        }
        let flags = if ends { flag::END_STREAM } else { 0 };
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Header { length, kind: kind::DATA, flags, stream }.to_bytes()
    }

    /// Notes that our side of a stream has ended with a HEADERS frame (a response without a body, or trailers).
    pub fn ended(&mut self, stream: StreamId) {
        match self.streams.get_mut(stream) {
            Some(open) if open.state == State::Open => open.state = State::WeEnded,
            Some(open) if open.state == State::PeerEnded => drop(self.close(stream)),
            _ => {}
        }
    }

    /// Whether the peer's side of a stream has ended, or there is no such stream.
    #[must_use]
    pub fn peer_ended(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_none_or(|stream| stream.state == State::PeerEnded)
    }

    /// So many bytes of a stream's body are done with: the peer may send as many more. Once in a while that is written.
    pub fn consumed(&mut self, stream: StreamId, bytes: usize, out: &mut Vec<u8>) {
        let Some(open) = self.streams.get_mut(stream) else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // What small frames lack is forgiven in the measure in which what they brought is consumed.
        let held = open.receive.held(self.stream_window);
        let kept = u64::from(open.lack) * u64::from(held.saturating_sub(bytes)) / u64::from(held.max(1));
        let kept = u16::try_from(kept).unwrap_or(u16::MAX);
        self.floods.forgive(u32::from(open.lack - kept));
        open.lack = kept;
        let grown = open.receive.give_back(bytes, self.stream_window);
        if let Some(grown) = grown.filter(|_| open.state != State::PeerEnded) {
            frame::write_window_update(stream, grown, out);
        }
    }

    /// Ends a stream, both sides. What still comes on it is ignored for a while.
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode, out: &mut Vec<u8>) {
        if self.close(stream).is_none() {
            return;
        }
        // After a whole response it is no more than what any request costs.
        if code != ErrorCode::NoError {
            self.floods.reset_aside();
        }
        self.streams.note_reset(stream);
        frame::write_reset(stream, code, out);
    }

    /// Asks the peer for a sign of life.
    pub fn write_ping(&mut self, out: &mut Vec<u8>) {
        self.pings = self.pings.saturating_add(1);
        frame::write_ping(PING, false, out);
    }

    /// Asks the peer to open no more streams, and to say when it has heard that ([`Event::Heard`]). Those that it opens until
    /// then are taken: none is lost on its way.
    pub fn warn(&mut self, debug: &str, out: &mut Vec<u8>) {
        if self.farewell == Farewell::None {
            self.farewell = Farewell::Warned;
            frame::write_go_away(StreamId(StreamId::MAX), ErrorCode::NoError, debug, out);
            frame::write_ping(WARNING, false, out);
        }
    }

    /// Says that no more streams are taken, once; with an error, that the connection ends. Streams that are opened
    /// afterwards are refused.
    pub fn go_away(&mut self, code: ErrorCode, debug: &str, out: &mut Vec<u8>) {
        let farewell = if code == ErrorCode::NoError { Farewell::Drains } else { Farewell::Ends };
        if farewell > self.farewell {
            self.farewell = farewell;
            frame::write_go_away(self.streams.last(), code, debug, out);
        }
    }

    /// Until when the peer must have sent its SETTINGS or acknowledged ours, if it has not.
    #[must_use]
    pub const fn settings_due(&self) -> Option<Tick> {
        self.roll.due()
    }

    /// What it keeps in memory beside itself.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.streams.memory() + self.decoder.memory()
    }

    /// Forgets a stream, and what it counted for.
    fn close(&mut self, stream: StreamId) -> Option<streams::Stream> {
        let closed = self.streams.close(stream)?;
        self.floods.forgive(u32::from(closed.lack));
        Some(closed)
    }
}
