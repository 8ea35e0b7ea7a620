//! From bytes to frames: headers, bodies as they come, and the payloads that have to be whole.

use super::settings::FRAME_BYTES;
use super::streams::{Absent, State};
use super::{Env, Http2, Partial, Violation};
use crate::codec::http2::frame::{self, HEADER_BYTES, Header, PREFACE, PREFACE_HEAD, flag, kind};
use crate::codec::http2::{ErrorCode, StreamId};
use crate::id::ConnId;
use crate::rule::Rule;
use crate::wheel::Tick;

/// An [`Event`](super::Event) whose bytes are still in the caller's hands.
#[derive(Debug)]
pub(super) enum Found {
    Request {
        stream: StreamId,
        head: Box<Partial>,
        ends: bool,
    },
    /// The last `length` of the bytes that were taken.
    Data {
        stream: StreamId,
        name: ConnId,
        length: usize,
        ends: bool,
    },
    Ends {
        stream: StreamId,
        name: ConnId,
    },
    Reset {
        name: ConnId,
        code: ErrorCode,
        rule: Option<Rule>,
    },
    Refused(Rule),
    Window(Option<ConnId>),
    Pong,
    Heard,
    GoAway,
}

/// Where in the bytes we are.
///
/// ```text
///   Preface ---> Header --+--> Pad --> Data --> Skip --+--> Header
///                         +----------> Data --> Skip --+
///                         +----------> Payload --------+
///                         +----------> Skip -----------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In what is left of the preface.
    Preface,
    /// In the header of a frame.
    Header,
    /// Before the length of a DATA frame's padding.
    Pad,
    /// In the body that a DATA frame carries.
    Data,
    /// In what does not matter: padding, unknown frames, DATA that nobody wants.
    Skip,
    /// In a payload that has to be whole.
    Payload,
}

/// The frame that is being read, and the block of fields that it may be part of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// Bytes that are left of the phase; of [`Phase::Preface`] and [`Phase::Payload`] all bytes, had or not.
    pub(super) left: u32,
    pub(super) stream: StreamId,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) phase: Phase,
    /// Padding behind the body.
    pad: u8,
    /// The stream of a block that goes on with a CONTINUATION.
    pub(super) continues: bool,
    /// CONTINUATION frames of the block so far.
    pub(super) continuations: u8,
    /// Flags of the block's HEADERS.
    pub(super) block_flags: u8,
    /// Whether the block opens its stream.
    pub(super) opens: bool,
    /// Whether its stream depends on itself.
    pub(super) depends_on_itself: bool,
}

// There for each connection.
const _: () = assert!(size_of::<Reading>() == 20);

impl Reading {
    pub(super) const fn new() -> Self {
        Self {
            left: 0,
            stream: StreamId::CONNECTION,
            kind: 0,
            flags: 0,
            phase: Phase::Preface,
            pad: 0,
            continues: false,
            continuations: 0,
            block_flags: 0,
            opens: false,
            depends_on_itself: false,
        }
    }

    /// Goes to a phase of so many bytes.
    const fn go(&mut self, phase: Phase, left: u32) {
        self.phase = phase;
        self.left = left;
    }

    /// Whether nothing can be done without another byte.
    const fn waits(&self) -> bool {
        matches!(self.phase, Phase::Preface | Phase::Header | Phase::Pad) || self.left > 0
    }

    const fn ends_stream(&self) -> bool {
        self.flags & flag::END_STREAM != 0
    }
}

impl Http2 {
    /// Frames without anything to tell that one call reads.
    pub const FRAMES_IN_A_ROW: usize = 256;

    /// Reads until there is something to tell, or others should have their turn.
    pub(super) fn read(
        &mut self,
        partial: &mut Option<Box<Partial>>,
        bytes: &[u8],
        now: Tick,
        env: &mut Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Found>), Violation> {
        let (mut at, mut frames) = (0, 0);
        while at < bytes.len() || !self.reading.waits() {
            if self.reading.phase == Phase::Header {
                if frames == Self::FRAMES_IN_A_ROW {
                    return Ok((at, None));
                }
                frames += 1;
            }
            let rest = &bytes[at..];
            let (taken, found) = match self.reading.phase {
                Phase::Preface => (self.preface(rest)?, None),
                Phase::Header => self.header(partial, rest, env, out)?,
                Phase::Pad => self.pad_length(rest, env, out)?,
                Phase::Data => self.body(rest, out),
                Phase::Skip => (self.skip(rest), None),
                Phase::Payload => self.payload(partial, rest, now, env, out)?,
            };
            at += taken;
            if found.is_some() {
                return Ok((at, found));
            }
        }
        Ok((at, None))
    }

    /// The rest of the preface, behind what HTTP/1.1 took for a head. `left` is what is had of it.
    fn preface(&mut self, rest: &[u8]) -> Result<usize, Violation> {
        let wanted = &PREFACE[PREFACE_HEAD.len() + self.reading.left as usize..];
        let taken = wanted.len().min(rest.len());
        if wanted[..taken] != rest[..taken] {
            return Err(Violation::Preface);
        }
        if taken == wanted.len() {
            self.reading.go(Phase::Header, 0);
        } else {
            self.reading.left += u32::try_from(taken).unwrap_or(0);
        }
        Ok(taken)
    }

    fn header(
        &mut self,
        partial: &mut Option<Box<Partial>>,
        rest: &[u8],
        env: &mut Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Found>), Violation> {
        let kept = kept(partial.as_deref());
        if let (0, Some(header)) = (kept, rest.first_chunk()) {
            return Ok((HEADER_BYTES, self.begin_frame(Header::parse(header), env, out)?));
        }
        let keeper = partial.get_or_insert_with(|| env.partials.take());
        let taken = (HEADER_BYTES - kept).min(rest.len());
        keeper.buf.extend_from_slice(&rest[..taken]);
        let Some(&header) = keeper.buf[keeper.scanned..].first_chunk() else { return Ok((taken, None)) };
        keeper.buf.truncate(keeper.scanned);
        self.release(partial, env);
        Ok((taken, self.begin_frame(Header::parse(&header), env, out)?))
    }

    /// Gives back what keeps nothing.
    pub(super) fn release(&self, partial: &mut Option<Box<Partial>>, env: &mut Env<'_>) {
        if !self.reading.continues
            && let Some(keeper) = partial.take_if(|keeper| keeper.buf.is_empty())
        {
            env.partials.give(keeper);
        }
    }

    /// Whether the frame can be, and what becomes of its payload.
    fn begin_frame(
        &mut self,
        header: Header,
        env: &mut Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Found>, Violation> {
        if !self.roll.has_begun() && (header.kind != kind::SETTINGS || header.has(flag::ACK)) {
            return Err(Violation::Preface);
        }
        if header.length > FRAME_BYTES {
            return Err(Violation::FrameSize);
        }
        let continues = header.kind == kind::CONTINUATION && header.stream == self.reading.stream;
        if self.reading.continues && !continues {
            return Err(Violation::Continuation);
        }
        (self.reading.stream, self.reading.kind, self.reading.flags) = (header.stream, header.kind, header.flags);
        self.reading.go(Phase::Payload, header.length);
        match header.kind {
            kind::DATA => return self.begin_data(header, env, out),
            kind::HEADERS => self.begin_block(header)?,
            kind::CONTINUATION => self.continue_block(header, env)?,
            kind::PUSH_PROMISE => return Err(Violation::Push),
            kind::PRIORITY..=kind::WINDOW_UPDATE => self.check_control(header)?,
            _ => {
                self.floods.frames(1)?;
                self.reading.go(Phase::Skip, header.length);
            }
        }
        Ok(None)
    }

    /// DATA (section 6.1): flow control is for the whole frame, padding included (section 6.9).
    fn begin_data(&mut self, header: Header, env: &mut Env<'_>, out: &mut Vec<u8>) -> Result<Option<Found>, Violation> {
        let Header { stream, length, .. } = header;
        if stream == StreamId::CONNECTION {
            return Err(Violation::StreamNumber);
        }
        if header.has(flag::PADDED) && length == 0 {
            return Err(Violation::FrameSize);
        }
        if !self.receive.take(length) {
            return Err(Violation::WindowExceeded);
        }
        if let Some(grown) = self.receive.give_back(length, self.connection_window) {
            frame::write_window_update(StreamId::CONNECTION, grown, out);
        }
        self.reading.pad = 0;
        self.reading.go(Phase::Skip, length);
        let Some(open) = self.streams.get_mut(stream) else { return self.stray_data(stream, env, out) };
        if open.state == State::PeerEnded {
            return self.fail(stream, ErrorCode::StreamClosed, Rule::Http2ClosedStream, out);
        }
        if !open.receive.take(length) {
            return self.fail(stream, ErrorCode::FlowControlError, Rule::Http2WindowExceeded, out);
        }
        if header.has(flag::PADDED) {
            self.reading.go(Phase::Pad, length - 1);
            return Ok(None);
        }
        self.begin_body(length, 0, env, out)
    }

    /// DATA on a stream that is not open (section 5.1).
    fn stray_data(&mut self, stream: StreamId, env: &Env<'_>, out: &mut Vec<u8>) -> Result<Option<Found>, Violation> {
        match self.streams.absent(stream) {
            Absent::Idle => Err(Violation::IdleStream),
            // It was on its way; but that is no licence to send tiny frames.
            Absent::Reset if self.reading.left == 0 => {
                self.floods.frames(1)?;
                self.floods.empty_data(&env.limits.http2)?;
                Ok(None)
            }
            Absent::Reset => {
                self.floods.frames(1)?;
                Ok(None)
            }
            Absent::Skipped | Absent::Closed => {
                self.fail(stream, ErrorCode::StreamClosed, Rule::Http2ClosedStream, out)
            }
        }
    }

    fn pad_length(
        &mut self,
        rest: &[u8],
        env: &mut Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Found>), Violation> {
        let Some(&pad) = rest.first() else { return Ok((0, None)) };
        let length = self.reading.left.checked_sub(u32::from(pad)).ok_or(Violation::Padding)?;
        Ok((1, self.begin_body(length, pad, env, out)?))
    }

    /// Before the body that a frame carries: is it as long as announced, is it worth a frame?
    fn begin_body(
        &mut self,
        length: u32,
        pad: u8,
        env: &mut Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Found>, Violation> {
        let (stream, ends) = (self.reading.stream, self.reading.ends_stream());
        self.reading.pad = pad;
        if length > 0 {
            let lack = self.floods.data(length, &env.limits.http2)?;
            if let Some(open) = self.streams.get_mut(stream) {
                let counted = u16::try_from(u32::from(open.lack) + lack).unwrap_or(u16::MAX);
                self.floods.forgive(lack - u32::from(counted - open.lack));
                open.lack = counted;
            }
        } else if !ends {
            self.floods.frames(1)?;
            self.floods.empty_data(&env.limits.http2)?;
        }
        self.reading.go(Phase::Skip, length + u32::from(pad));
        // Between the header and here the stream may have been reset.
        let Some(open) = self.streams.get_mut(stream) else { return Ok(None) };
        if !open.announced(length, ends) {
            return self.fail(stream, ErrorCode::ProtocolError, Rule::Http2BodyLength, out);
        }
        if self.reading.flags & flag::PADDED != 0 {
            let padding = u32::from(pad) + 1;
            if let Some(grown) = open.receive.give_back(padding, self.stream_window).filter(|_| !ends) {
                frame::write_window_update(stream, grown, out);
            }
        }
        // What is neither body nor end is nothing.
        if length > 0 || ends {
            self.reading.go(Phase::Data, length);
        }
        Ok(None)
    }

    /// The body itself, as much as there is of it.
    fn body(&mut self, rest: &[u8], out: &mut Vec<u8>) -> (usize, Option<Found>) {
        let stream = self.reading.stream;
        let taken = rest.len().min(self.reading.left as usize);
        self.reading.left -= u32::try_from(taken).unwrap_or(0);
        let ends = self.reading.left == 0 && self.reading.ends_stream();
        if self.reading.left == 0 {
            self.reading.go(Phase::Skip, u32::from(self.reading.pad));
        }
        let name = self.streams.get(stream).and_then(super::streams::Stream::name);
        if name.is_none() {
            // Nobody will say that it is consumed.
            self.consumed(stream, taken, out);
        }
        if ends {
            self.end_peer(stream);
        }
        (taken, name.map(|name| Found::Data { stream, name, length: taken, ends }))
    }

    /// The peer's side of a stream has ended.
    pub(super) fn end_peer(&mut self, stream: StreamId) {
        match self.streams.get_mut(stream) {
            Some(open) if open.state == State::Open => open.state = State::PeerEnded,
            Some(open) if open.state == State::WeEnded => drop(self.close(stream)),
            _ => {}
        }
    }

    fn skip(&mut self, rest: &[u8]) -> usize {
        let taken = rest.len().min(self.reading.left as usize);
        self.reading.left -= u32::try_from(taken).unwrap_or(0);
        if self.reading.left == 0 {
            self.reading.go(Phase::Header, 0);
        }
        taken
    }

    /// A payload that has to be whole: where it lies, if it does so in one piece.
    fn payload(
        &mut self,
        partial: &mut Option<Box<Partial>>,
        rest: &[u8],
        now: Tick,
        env: &mut Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Found>), Violation> {
        let (kept, wanted) = (kept(partial.as_deref()), self.reading.left as usize);
        let taken = rest.len().min(wanted - kept);
        if kept == 0 && taken == wanted && self.reading.kind != kind::CONTINUATION {
            self.reading.go(Phase::Header, 0);
            return Ok((taken, self.end_frame(partial, &rest[..taken], now, env, out)?));
        }
        let keeper = partial.get_or_insert_with(|| env.partials.take());
        keeper.buf.extend_from_slice(&rest[..taken]);
        if kept + taken < wanted {
            return Ok((taken, None));
        }
        self.reading.go(Phase::Header, 0);
        if self.reading.kind == kind::CONTINUATION {
            keeper.scanned = keeper.buf.len();
            return Ok((taken, self.end_continuation(partial, env, out)?));
        }
        let keeper = partial.take().unwrap_or_default();
        let found = self.end_frame(partial, &keeper.buf, now, env, out);
        env.partials.give(keeper);
        Ok((taken, found?))
    }

    /// A stream error (section 5.4.2).
    pub(super) fn fail(
        &mut self,
        stream: StreamId,
        code: ErrorCode,
        rule: Rule,
        out: &mut Vec<u8>,
    ) -> Result<Option<Found>, Violation> {
        self.floods.reset()?;
        let name = self.close(stream).and_then(|closed| closed.name());
        self.streams.note_reset(stream);
        frame::write_reset(stream, code, out);
        Ok(Some(match name {
            Some(name) => Found::Reset { name, code, rule: Some(rule) },
            None => Found::Refused(rule),
        }))
    }
}

/// Bytes of an unfinished header or payload, behind the block that it belongs to.
fn kept(partial: Option<&Partial>) -> usize {
    partial.map_or(0, |keeper| keeper.buf.len() - keeper.scanned)
}
