//! Blocks of fields: HEADERS and CONTINUATION until they are whole, then requests and trailers.

use super::control::depends_on;
use super::reading::Found;
use super::settings::FRAME_BYTES;
use super::streams::{Absent, State, Stream};
use super::windows::{ReceiveWindow, SendWindow};
use super::{Env, Http2, Partial, Violation};
use crate::codec::http2::frame::{self, Header, flag};
use crate::codec::http2::head::{RequestHead, Trailers};
use crate::codec::http2::hpack::{Bounds, Decoded, Decoder};
use crate::codec::http2::{ErrorCode, StreamId, response};
use crate::rule::Rule;

/// Bytes of the priority in HEADERS (section 6.2).
const PRIORITY_BYTES: usize = 5;

/// What a block of fields says.
enum Fields {
    /// A request with this announced length, or trailers.
    Good(Option<u64>),
    /// More than a limit allows. The block was read to its end.
    Over(Rule),
    /// Not as section 8 wants it.
    Malformed,
}

impl Http2 {
    /// HEADERS (section 6.2): whether they can be on this stream.
    pub(super) fn begin_block(&mut self, header: Header) -> Result<(), Violation> {
        let stream = header.stream;
        let before = u32::from(header.has(flag::PADDED)) + if header.has(flag::PRIORITY) { 5 } else { 0 };
        if stream.0.is_multiple_of(2) {
            return Err(Violation::StreamNumber);
        }
        if header.length < before {
            return Err(Violation::FrameSize);
        }
        self.reading.opens = false;
        if self.streams.get(stream).is_none() {
            match self.streams.absent(stream) {
                Absent::Idle => {
                    self.streams.begin(stream);
                    self.reading.opens = true;
                }
                Absent::Reset => {}
                // A number below those in use (section 5.1.1).
                Absent::Skipped => return Err(Violation::StreamNumber),
                Absent::Closed => return Err(Violation::ClosedStream),
            }
        }
        self.reading.block_flags = header.flags;
        self.reading.depends_on_itself = false;
        self.reading.continuations = 0;
        Ok(())
    }

    /// CONTINUATION (section 6.10). A block is as large as the largest frame or a request's head, at most.
    pub(super) fn continue_block(&mut self, header: Header, env: &Env<'_>) -> Result<(), Violation> {
        if !self.reading.continues {
            return Err(Violation::Continuation);
        }
        self.reading.continuations = self.reading.continuations.saturating_add(1);
        if u32::from(self.reading.continuations) > env.limits.http2.continuations_max {
            return Err(Violation::Continuations);
        }
        self.reading.left = header.length;
        Ok(())
    }

    /// A HEADERS frame is whole.
    pub(super) fn end_headers(
        &mut self,
        partial: &mut Option<Box<Partial>>,
        payload: &[u8],
        env: &mut Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Found>, Violation> {
        let flags = self.reading.flags;
        let (pad, mut fragment) = match payload.split_first() {
            Some((&pad, rest)) if flags & flag::PADDED != 0 => (usize::from(pad), rest),
            _ => (0, payload),
        };
        if flags & flag::PRIORITY != 0 {
            let (priority, rest) = fragment.split_at_checked(PRIORITY_BYTES).ok_or(Violation::FrameSize)?;
            self.reading.depends_on_itself = depends_on(priority) == Some(self.reading.stream);
            fragment = rest;
        }
        let length = fragment.len().checked_sub(pad).ok_or(Violation::Padding)?;
        let fragment = &fragment[..length];
        if flags & flag::END_HEADERS != 0 {
            return self.end_block(fragment, env, out);
        }
        let keeper = partial.get_or_insert_with(|| env.partials.take());
        keeper.buf.extend_from_slice(fragment);
        keeper.scanned = keeper.buf.len();
        self.reading.continues = true;
        Ok(None)
    }

    /// A CONTINUATION frame is whole, and part of the block in `partial`.
    pub(super) fn end_continuation(
        &mut self,
        partial: &mut Option<Box<Partial>>,
        env: &mut Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Found>, Violation> {
        let block_bytes_max = env.limits.head_bytes_max.max(FRAME_BYTES as usize);
        if partial.as_ref().is_some_and(|keeper| keeper.buf.len() > block_bytes_max) {
            return Err(Violation::Continuations);
        }
        if self.reading.flags & flag::END_HEADERS == 0 {
            return Ok(None);
        }
        self.reading.continues = false;
        let keeper = partial.take().unwrap_or_default();
        let found = self.end_block(&keeper.buf, env, out);
        env.partials.give(keeper);
        found
    }

    /// A block is whole. It is read whatever becomes of it, so that the table for the next ones is right (section 4.3).
    fn end_block(&mut self, block: &[u8], env: &mut Env<'_>, out: &mut Vec<u8>) -> Result<Option<Found>, Violation> {
        let stream = self.reading.stream;
        if self.reading.opens {
            let mut head = env.partials.take();
            let fields = read_request(&mut self.decoder, block, env, &mut head.buf);
            return match fields {
                Ok(Fields::Good(length)) => self.request(stream, length, head, env, out),
                fields => {
                    env.partials.give(head);
                    self.bad_request(stream, fields?, out)
                }
            };
        }
        let fields = read_trailers(&mut self.decoder, block, env)?;
        match self.streams.get(stream) {
            Some(_) => self.trailers(stream, &fields, out),
            // It was reset.
            None => {
                self.floods.frames(1)?;
                Ok(None)
            }
        }
    }

    /// Whether the block that was read ends the peer's side.
    const fn block_ends(&self) -> bool {
        self.reading.block_flags & flag::END_STREAM != 0
    }

    /// Opens a stream, if it may be.
    fn request(
        &mut self,
        stream: StreamId,
        length: Option<u64>,
        head: Box<Partial>,
        env: &mut Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Found>, Violation> {
        let ends = self.block_ends();
        let refusal = if self.drains() {
            Some((ErrorCode::RefusedStream, None))
        } else if self.reading.depends_on_itself {
            Some((ErrorCode::ProtocolError, Some(Rule::Http2Priority)))
        } else if self.streams.len() >= env.limits.http2.streams_max as usize {
            Some((ErrorCode::RefusedStream, Some(Rule::Http2TooManyStreams)))
        } else if ends && length.is_some_and(|length| length > 0) {
            Some((ErrorCode::ProtocolError, Some(Rule::Http2BodyLength)))
        } else {
            None
        };
        if let Some((code, rule)) = refusal {
            env.partials.give(head);
            return self.refuse(stream, code, rule, out);
        }
        let (send, receive) = (SendWindow::new(self.peer.window), ReceiveWindow::new(self.stream_window));
        let mut open = Stream::new(stream, send, receive, length);
        if ends {
            open.state = State::PeerEnded;
        }
        self.streams.open(open);
        Ok(Some(Found::Request { stream, head, ends }))
    }

    /// A request that cannot be taken, on a stream that has not been opened.
    fn bad_request(&mut self, stream: StreamId, fields: Fields, out: &mut Vec<u8>) -> Result<Option<Found>, Violation> {
        let Fields::Over(rule) = fields else {
            return self.refuse(stream, ErrorCode::ProtocolError, Some(Rule::Http2Malformed), out);
        };
        if self.drains() {
            return self.refuse(stream, ErrorCode::RefusedStream, None, out);
        }
        // A whole response; what the peer still wants to say is not needed (section 8.1).
        self.floods.reset()?;
        response::write_head(stream, 431, std::iter::once((&b"content-length"[..], &b"0"[..])), true, out);
        if !self.block_ends() {
            self.streams.note_reset(stream);
            frame::write_reset(stream, ErrorCode::NoError, out);
        }
        Ok(Some(Found::Refused(rule)))
    }

    /// Resets a stream that has not been opened.
    fn refuse(
        &mut self,
        stream: StreamId,
        code: ErrorCode,
        rule: Option<Rule>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Found>, Violation> {
        self.floods.reset()?;
        self.streams.note_reset(stream);
        frame::write_reset(stream, code, out);
        Ok(rule.map(Found::Refused))
    }

    /// Fields behind a body, on a stream that is open (section 8.1). They say nothing here, but that it ends.
    fn trailers(&mut self, stream: StreamId, fields: &Fields, out: &mut Vec<u8>) -> Result<Option<Found>, Violation> {
        let ends = self.block_ends();
        let Some(open) = self.streams.get_mut(stream) else { return Ok(None) };
        let name = open.name();
        let wrong = if open.state == State::PeerEnded {
            Some((ErrorCode::StreamClosed, Rule::Http2ClosedStream))
        } else if let Fields::Over(rule) = *fields {
            Some((ErrorCode::EnhanceYourCalm, rule))
        } else if !ends || matches!(fields, Fields::Malformed) {
            Some((ErrorCode::ProtocolError, Rule::Http2Malformed))
        } else if self.reading.depends_on_itself {
            Some((ErrorCode::ProtocolError, Rule::Http2Priority))
        } else if !open.announced(0, true) {
            Some((ErrorCode::ProtocolError, Rule::Http2BodyLength))
        } else {
            None
        };
        if let Some((code, rule)) = wrong {
            return self.fail(stream, code, rule, out);
        }
        self.end_peer(stream);
        Ok(name.map(|name| Found::Ends { stream, name }))
    }
}

/// Fields that a head of HTTP/1.1 has in its first line: `:method`, `:scheme` and `:path`.
const FIRST_LINE_FIELDS: usize = 3;

/// Reads the block of a request and writes it as a head of HTTP/1.1.
fn read_request(
    decoder: &mut Decoder,
    block: &[u8],
    env: &mut Env<'_>,
    head: &mut Vec<u8>,
) -> Result<Fields, Violation> {
    let bounds = bounds(env);
    let mut request = RequestHead::new(head);
    let decoded = decoder.decode(block, bounds, &mut env.tools.inflated, |name, value| request.push(name, value))?;
    let fields = request.finish().map_or(Fields::Malformed, |facts| Fields::Good(facts.content_length));
    Ok(over(decoded, bounds).unwrap_or(fields))
}

/// Reads the block of trailers.
fn read_trailers(decoder: &mut Decoder, block: &[u8], env: &mut Env<'_>) -> Result<Fields, Violation> {
    let bounds = bounds(env);
    let mut trailers = Trailers::default();
    let decoded = decoder.decode(block, bounds, &mut env.tools.inflated, |name, value| trailers.push(name, value))?;
    let fields = trailers.finish().map_or(Fields::Malformed, |()| Fields::Good(None));
    Ok(over(decoded, bounds).unwrap_or(fields))
}

const fn bounds(env: &Env<'_>) -> Bounds {
    Bounds { bytes_max: env.limits.head_bytes_max, fields_max: env.limits.head_fields_max + FIRST_LINE_FIELDS }
}

/// What was too much, if anything was.
fn over(decoded: Decoded, bounds: Bounds) -> Option<Fields> {
    let rule = if decoded.bytes > bounds.bytes_max { Rule::HeadTooLarge } else { Rule::TooManyFields };
    decoded.over.then_some(Fields::Over(rule))
}
