//! Frames that carry neither bodies nor fields.

use super::reading::{Found, Reading};
use super::settings::Peer;
use super::streams::Absent;
use super::{Env, Farewell, Http2, PING, Partial, Violation, WARNING};
use crate::codec::http2::frame::{self, Header, flag, kind};
use crate::codec::http2::{ErrorCode, StreamId};
use crate::rule::Rule;
use crate::wheel::Tick;

impl Http2 {
    /// Whether a control frame can be on its stream and as long as it is.
    pub(super) fn check_control(&mut self, header: Header) -> Result<(), Violation> {
        let Header { length, stream, .. } = header;
        // What carries nothing costs us more than the peer; SETTINGS are counted when they are read.
        self.floods.frames(1)?;
        let on_connection = stream == StreamId::CONNECTION;
        let (is_placed, is_sized) = match header.kind {
            kind::SETTINGS if header.has(flag::ACK) => (on_connection, length == 0),
            kind::SETTINGS => (on_connection, length % 6 == 0),
            kind::PING => (on_connection, length == 8),
            kind::GOAWAY => (on_connection, length >= 8),
            kind::WINDOW_UPDATE => (true, length == 4),
            kind::RST_STREAM => (!on_connection, length == 4),
            // Its size is the stream's matter (section 6.3).
            kind::PRIORITY => (!on_connection, true),
            _ => (true, true),
        };
        match (is_placed, is_sized) {
            (false, _) => Err(Violation::StreamNumber),
            (_, false) => Err(Violation::FrameSize),
            _ => Ok(()),
        }
    }

    /// A frame is whole.
    pub(super) fn end_frame(
        &mut self,
        partial: &mut Option<Box<Partial>>,
        payload: &[u8],
        now: Tick,
        env: &mut Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Found>, Violation> {
        let Reading { kind, flags, stream, .. } = self.reading;
        match kind {
            kind::HEADERS => self.end_headers(partial, payload, env, out),
            kind::PRIORITY => self.priority(stream, payload, out),
            kind::RST_STREAM => self.peer_reset(stream, payload),
            kind::SETTINGS if flags & flag::ACK != 0 => {
                self.roll.acknowledge();
                Ok(None)
            }
            kind::SETTINGS => self.settings(payload, now, env, out),
            kind::PING => Ok(self.ping(flags, payload, out)),
            kind::GOAWAY => Ok((!std::mem::replace(&mut self.peer_leaves, true)).then_some(Found::GoAway)),
            kind::WINDOW_UPDATE => self.window_update(stream, payload, out),
            _ => Ok(None),
        }
    }

    /// Ignored (section 5.3.2), but for what cannot be.
    fn priority(&mut self, stream: StreamId, payload: &[u8], out: &mut Vec<u8>) -> Result<Option<Found>, Violation> {
        let (violation, code, rule) = match depends_on(payload) {
            _ if payload.len() != 5 => (Violation::FrameSize, ErrorCode::FrameSizeError, Rule::Http2FrameSize),
            Some(other) if other == stream => (Violation::Priority, ErrorCode::ProtocolError, Rule::Http2Priority),
            _ => return Ok(None),
        };
        if self.streams.get(stream).is_some() {
            return self.fail(stream, code, rule, out);
        }
        // What has not begun cannot be reset; what is over does not matter.
        if self.streams.absent(stream) == Absent::Idle { Err(violation) } else { Ok(None) }
    }

    /// RST_STREAM (section 6.4). Each costs a token: a peer that opens and resets streams without end (CVE-2023-44487) runs
    /// out of them.
    fn peer_reset(&mut self, stream: StreamId, payload: &[u8]) -> Result<Option<Found>, Violation> {
        if self.streams.get_mut(stream).is_none() {
            return if self.streams.absent(stream) == Absent::Idle { Err(Violation::IdleStream) } else { Ok(None) };
        }
        // One that cannot be paid for stays, so that it ends with the connection like the others.
        self.floods.reset()?;
        let Some(closed) = self.close(stream) else { return Ok(None) };
        let code = error_code(number(payload));
        Ok(closed.name().map(|name| Found::Reset { name, code, rule: None }))
    }

    /// SETTINGS (section 6.5), acknowledged at once.
    fn settings(
        &mut self,
        payload: &[u8],
        now: Tick,
        env: &Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Found>, Violation> {
        self.floods.frames(Peer::count(payload)?)?;
        let before = self.peer.window;
        self.peer.set(payload)?;
        let grown = i64::from(self.peer.window) - i64::from(before);
        let mut opened = false;
        if grown != 0 {
            for stream in self.streams.iter_mut() {
                opened |= stream.send.opens(grown).map_err(|_| Violation::SettingWindow)?;
            }
        }
        self.roll.begin(env.limits.http2.settings_timeout, now);
        frame::write(kind::SETTINGS, flag::ACK, StreamId::CONNECTION, &[], out);
        Ok(opened.then_some(Found::Window(None)))
    }

    /// PING (section 6.7).
    fn ping(&mut self, flags: u8, payload: &[u8], out: &mut Vec<u8>) -> Option<Found> {
        if flags & flag::ACK == 0 {
            if let Some(&data) = payload.first_chunk() {
                frame::write_ping(data, true, out);
            }
            return None;
        }
        if payload == WARNING && self.farewell == Farewell::Warned {
            return Some(Found::Heard);
        }
        if self.pings == 0 || payload != PING {
            return None;
        }
        self.pings -= 1;
        Some(Found::Pong)
    }

    /// WINDOW_UPDATE (section 6.9).
    fn window_update(
        &mut self,
        stream: StreamId,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Found>, Violation> {
        let grown = i64::from(number(payload) & StreamId::MAX);
        if stream == StreamId::CONNECTION {
            if grown == 0 {
                return Err(Violation::WindowIncrement);
            }
            let opened = self.send.opens(grown).map_err(|_| Violation::WindowOverflow)?;
            return Ok(opened.then_some(Found::Window(None)));
        }
        let Some(open) = self.streams.get_mut(stream) else {
            return if self.streams.absent(stream) == Absent::Idle { Err(Violation::IdleStream) } else { Ok(None) };
        };
        if grown == 0 {
            return self.fail(stream, ErrorCode::ProtocolError, Rule::Http2WindowIncrement, out);
        }
        if open.send.shift(grown).is_err() {
            return self.fail(stream, ErrorCode::FlowControlError, Rule::Http2WindowOverflow, out);
        }
        Ok(open.name().map(|name| Found::Window(Some(name))))
    }

    /// Whether a stream that is opened now is not taken any more.
    pub(super) fn drains(&self) -> bool {
        self.farewell > Farewell::Warned
    }
}

/// The stream that another depends on, in the first bytes of a priority (RFC 7540 section 6.3).
pub(super) fn depends_on(payload: &[u8]) -> Option<StreamId> {
    payload.first_chunk().map(|bytes| StreamId(u32::from_be_bytes(*bytes) & StreamId::MAX))
}

/// The number that a payload of four bytes is.
fn number(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Those that are unknown have no meaning (section 7).
const fn error_code(number: u32) -> ErrorCode {
    match number {
        0 => ErrorCode::NoError,
        1 => ErrorCode::ProtocolError,
        3 => ErrorCode::FlowControlError,
        4 => ErrorCode::SettingsTimeout,
        5 => ErrorCode::StreamClosed,
        6 => ErrorCode::FrameSizeError,
        7 => ErrorCode::RefusedStream,
        8 => ErrorCode::Cancel,
        9 => ErrorCode::CompressionError,
        10 => ErrorCode::ConnectError,
        11 => ErrorCode::EnhanceYourCalm,
        12 => ErrorCode::InadequateSecurity,
        13 => ErrorCode::Http11Required,
        _ => ErrorCode::InternalError,
    }
}
