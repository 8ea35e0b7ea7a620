//! The WebSocket session, RFC 6455 sections 5 to 7, from the side of the server.
//!
//! Whole frames are taken where they lie: unmasked in place, handed out as slices. Only what is unfinished when the
//! bytes end is copied, into a [`Partial`] that the connection has no longer than that. Nothing is ever allocated for a
//! length that a peer merely says; a limit that a header breaks is told before the payload comes.
//!
//! It does not matter how the bytes are cut: the same stream gives the same events and the same violation.
//!
//! ```text
//!             whole frame                      header or payload not all here, or a fragment
//!              +------+                     +------------------------------------------------+
//!              |      v                     |                                                v
//!              +--- no partial (idle) ------+                              partial: header -> payload -+
//!                        ^                                                            ^                |
//!                        +---------- nothing is unfinished any more -------------------- next frame <--+
//! ```

mod encode;
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod tests;
mod violation;

pub use encode::{encode_close, encode_message, encode_ping, encode_pong};
pub use violation::Violation;

use super::{Env, Event, Flow, Partial, Tools};
use crate::codec::websocket::frame::{BadHeader, CLIENT_HEADER_BYTES_MAX, ClientHeader, Opcode, Parsed};
use crate::codec::websocket::utf8::BadUtf8;
use crate::codec::websocket::{close, mask, utf8};
use crate::config::Limits;
use crate::message::Kind;

/// What is remembered of a WebSocket connection, idle or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(u8);

impl State {
    const WINDOW_BITS: u8 = 0x0f;
    const CLOSE_SENT: u8 = 0x10;
    const CLOSE_RECEIVED: u8 = 0x20;
    const JSON: u8 = 0x40;

    /// A connection that is open. `window_bits` are permessage-deflate's for what we send, 9 to 15; 0 without it.
    #[must_use]
    pub const fn open(window_bits: u8) -> Self {
        Self(window_bits & Self::WINDOW_BITS)
    }

    /// The same, where the client wants messages as JSON, with their places in their topics.
    #[must_use]
    pub const fn as_json(self) -> Self {
        Self(self.0 | Self::JSON)
    }

    /// Whether it wants them as JSON.
    #[must_use]
    pub const fn is_json(self) -> bool {
        self.0 & Self::JSON != 0
    }

    /// permessage-deflate's window for what we send; 0 without it.
    #[must_use]
    pub const fn window_bits(self) -> u8 {
        self.0 & Self::WINDOW_BITS
    }

    /// Whether we have sent a close frame: nothing may be sent behind it.
    #[must_use]
    pub const fn close_sent(self) -> bool {
        self.0 & Self::CLOSE_SENT != 0
    }

    /// We have sent a close frame. Events still come, and the peer's close frame among them.
    pub const fn set_close_sent(&mut self) {
        self.0 |= Self::CLOSE_SENT;
    }

    /// Whether the peer's close frame has come: nothing behind it counts.
    #[must_use]
    pub const fn close_received(self) -> bool {
        self.0 & Self::CLOSE_RECEIVED != 0
    }
}

/// Where the session stands in an unfinished frame or message. The bytes are in [`Partial::buf`]: the message so far,
/// unmasked, behind it what has come of a control frame; [`Partial::scanned`] is how much of a text is known to be
/// UTF-8.
#[derive(Debug, Default)]
pub struct Assembly {
    /// A header that is not all there.
    head: [u8; CLIENT_HEADER_BYTES_MAX],
    head_bytes: usize,
    /// A frame whose payload is not all there, and how much of it is.
    frame: Option<(ClientHeader, usize)>,
    message: Option<Fragments>,
}

/// A message that is not complete.
#[derive(Clone, Copy, Debug)]
struct Fragments {
    kind: Kind,
    compressed: bool,
    count: u32,
    /// Empty ones since the last that was not.
    empty: u32,
}

/// How far the bytes led.
enum Step {
    /// So many bytes were used; go on or stop.
    Used(usize, Flow),
    /// What is left is not a whole unfragmented frame.
    Unfinished,
}

/// Takes what came from the peer and says what was in it. Returns how many bytes are done with: all of them, unless
/// an event was answered with [`Flow::Stop`]. Bytes behind the peer's close frame are done with too.
///
/// # Errors
/// When the peer breaks a rule. The events before that were told. The connection is to be closed with the violation's
/// reason and must not be given more bytes.
pub fn receive<F: FnMut(Event<'_>) -> Flow>(
    state: &mut State,
    partial: &mut Option<Box<Partial>>,
    bytes: &mut [u8],
    env: &mut Env<'_>,
    mut on_event: F,
) -> Result<usize, Violation> {
    let result = run(state, partial, bytes, env, &mut on_event);
    if (result.is_err() || state.close_received())
        && let Some(unfinished) = partial.take()
    {
        env.partials.give(unfinished);
    }
    result
}

fn run<F: FnMut(Event<'_>) -> Flow>(
    state: &mut State,
    partial: &mut Option<Box<Partial>>,
    bytes: &mut [u8],
    env: &mut Env<'_>,
    on_event: &mut F,
) -> Result<usize, Violation> {
    let mut done = 0;
    while done < bytes.len() {
        if state.close_received() {
            return Ok(bytes.len());
        }
        let rest = &mut bytes[done..];
        let step = match partial {
            None => whole_frame(state, rest, env, on_event)?,
            Some(unfinished) => {
                let step = piece(state, unfinished, rest, env, on_event)?;
                if unfinished.websocket.is_idle()
                    && let Some(finished) = partial.take()
                {
                    env.partials.give(finished);
                }
                step
            }
        };
        match step {
            Step::Used(used, flow) => {
                done += used;
                if flow == Flow::Stop {
                    break;
                }
            }
            Step::Unfinished => *partial = Some(env.partials.take()),
        }
    }
    Ok(if state.close_received() { bytes.len() } else { done })
}

/// The fast path: a whole frame that is a whole message, taken in place.
#[inline]
fn whole_frame<F: FnMut(Event<'_>) -> Flow>(
    state: &mut State,
    bytes: &mut [u8],
    env: &mut Env<'_>,
    on_event: &mut F,
) -> Result<Step, Violation> {
    let Parsed::Header(header) = ClientHeader::parse(bytes)? else { return Ok(Step::Unfinished) };
    if !header.fin {
        return Ok(Step::Unfinished);
    }
    let rest = &mut bytes[header.header_bytes..];
    let Some(payload) = usize::try_from(header.payload_bytes).ok().and_then(|len| rest.get_mut(..len)) else {
        return Ok(Step::Unfinished);
    };
    let used = header.header_bytes + payload.len();
    if header.opcode.is_control() {
        mask::unmask(payload, header.key, 0);
        return Ok(Step::Used(used, control(state, header.opcode, payload, on_event)?));
    }
    let kind = first_kind(&header)?;
    check_first(*state, &header, env.limits)?;
    mask::unmask(payload, header.key, 0);
    if header.compressed {
        return Ok(Step::Used(used, inflated(kind, payload, env.limits, env.tools, on_event)?));
    }
    if kind == Kind::Text {
        utf8::check(payload)?;
    }
    Ok(Step::Used(used, on_event(Event::Message(kind, payload))))
}

/// The slow path: as much of one frame as has come.
fn piece<F: FnMut(Event<'_>) -> Flow>(
    state: &mut State,
    partial: &mut Partial,
    bytes: &mut [u8],
    env: &mut Env<'_>,
    on_event: &mut F,
) -> Result<Step, Violation> {
    let assembly = &mut partial.websocket;
    let mut used = 0;
    let (header, received) = match assembly.frame {
        Some(frame) => frame,
        None => {
            let (header_bytes, header) = assembly.take_header(bytes)?;
            used += header_bytes;
            let Some(header) = header else { return Ok(Step::Used(used, Flow::Continue)) };
            assembly.admit(*state, &header, partial.buf.len(), env.limits)?;
            (header, 0)
        }
    };
    // Fits: a control frame's payload is short, and a message's was checked against a limit.
    let missing = usize::try_from(header.payload_bytes).map_err(|_| Violation::TooBig)? - received;
    let available = bytes.len() - used;
    let payload = &mut bytes[used..used + missing.min(available)];
    mask::unmask(payload, header.key, received);
    partial.buf.extend_from_slice(payload);
    used += payload.len();

    let received = received + payload.len();
    let complete = payload.len() == missing;
    assembly.frame = (!complete).then_some((header, received));
    let flow = if !header.opcode.is_control() {
        message_piece(partial, complete && header.fin, env, on_event)?
    } else if complete {
        let message_bytes = partial.buf.len() - received;
        let flow = control(state, header.opcode, &partial.buf[message_bytes..], on_event)?;
        partial.buf.truncate(message_bytes);
        flow
    } else {
        Flow::Continue
    };
    Ok(Step::Used(used, flow))
}

/// More of a message has come; `last`: all of it.
fn message_piece<F: FnMut(Event<'_>) -> Flow>(
    partial: &mut Partial,
    last: bool,
    env: &mut Env<'_>,
    on_event: &mut F,
) -> Result<Flow, Violation> {
    let Partial { buf, websocket: assembly, scanned, .. } = partial;
    // Always there: a data frame that was admitted belongs to a message.
    let Some(message) = assembly.message else { return Ok(Flow::Continue) };
    if message.kind == Kind::Text && !message.compressed {
        *scanned = utf8::check_partial(buf, *scanned)?;
        if last && *scanned < buf.len() {
            return Err(BadUtf8.into()); // cut off inside a code point
        }
    }
    if !last {
        return Ok(Flow::Continue);
    }
    assembly.message = None;
    // Nothing is unfinished now, so the caller gives the partial back, which clears it.
    if message.compressed {
        return inflated(message.kind, buf, env.limits, env.tools, on_event);
    }
    Ok(on_event(Event::Message(message.kind, buf)))
}

impl Assembly {
    fn is_idle(&self) -> bool {
        self.head_bytes == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// The next frame's header, `None` when it is not all there, and how many bytes it took.
    fn take_header(&mut self, bytes: &[u8]) -> Result<(usize, Option<ClientHeader>), BadHeader> {
        if self.head_bytes == 0
            && let Parsed::Header(header) = ClientHeader::parse(bytes)?
        {
            return Ok((header.header_bytes, Some(header)));
        }
        let mut used = 0;
        loop {
            match ClientHeader::parse(&self.head[..self.head_bytes])? {
                Parsed::Header(header) => {
                    self.head_bytes = 0;
                    return Ok((used, Some(header)));
                }
                Parsed::Needs(_) if used == bytes.len() => return Ok((used, None)),
                Parsed::Needs(needs) => {
                    let more = (needs - self.head_bytes).min(bytes.len() - used);
                    self.head[self.head_bytes..self.head_bytes + more].copy_from_slice(&bytes[used..used + more]);
                    self.head_bytes += more;
                    used += more;
                }
            }
        }
    }

    /// Whether the frame may come now, and what it makes of the message.
    fn admit(
        &mut self,
        state: State,
        header: &ClientHeader,
        message_bytes: usize,
        limits: &Limits,
    ) -> Result<(), Violation> {
        let empty = u32::from(header.payload_bytes == 0);
        match (header.opcode, &mut self.message) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return Ok(()),
            (Opcode::Continuation, None) => return Err(Violation::NothingToContinue),
            (Opcode::Continuation, Some(message)) => {
                message.count += 1;
                message.empty = if empty > 0 { message.empty + empty } else { 0 };
                // No overflow: a length has at most 63 bits, and what has come fits in memory.
                if header.payload_bytes + message_bytes as u64 > bytes_max(message.compressed, limits) {
                    return Err(Violation::TooBig);
                }
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::Interleaved),
            (Opcode::Text | Opcode::Binary, none) => {
                let kind = first_kind(header)?;
                check_first(state, header, limits)?;
                *none = Some(Fragments { kind, compressed: header.compressed, count: 1, empty });
            }
        }
        match &self.message {
            // A whole message in one frame has no fragments.
            Some(message) if !(message.count == 1 && header.fin) => message.check(limits),
            _ => Ok(()),
        }
    }
}

impl Fragments {
    fn check(&self, limits: &Limits) -> Result<(), Violation> {
        if self.count > limits.fragments_max {
            return Err(Violation::TooManyFragments);
        }
        if self.empty > limits.empty_fragments_max {
            return Err(Violation::EmptyFragments);
        }
        Ok(())
    }
}

/// The kind of the message that a data frame begins.
#[inline]
fn first_kind(header: &ClientHeader) -> Result<Kind, Violation> {
    match header.opcode {
        Opcode::Text => Ok(Kind::Text),
        Opcode::Binary => Ok(Kind::Binary),
        _ => Err(Violation::NothingToContinue),
    }
}

/// Whether a message may begin with this frame.
#[inline]
fn check_first(state: State, header: &ClientHeader, limits: &Limits) -> Result<(), Violation> {
    if header.compressed && state.window_bits() == 0 {
        return Err(Violation::NotAgreed);
    }
    if header.payload_bytes > bytes_max(header.compressed, limits) {
        return Err(Violation::TooBig);
    }
    Ok(())
}

/// Payload bytes of a message at most. Compression makes noise larger: by at most an eighth, says zlib.
#[inline]
fn bytes_max(compressed: bool, limits: &Limits) -> u64 {
    let max = limits.message_bytes_max as u64;
    if compressed { max.saturating_add(max / 8 + 64) } else { max }
}

fn control<F: FnMut(Event<'_>) -> Flow>(
    state: &mut State,
    opcode: Opcode,
    payload: &[u8],
    on_event: &mut F,
) -> Result<Flow, Violation> {
    Ok(match opcode {
        Opcode::Ping => on_event(Event::Ping(payload)),
        Opcode::Close => {
            let code = close::parse(payload)?;
            state.0 |= State::CLOSE_RECEIVED;
            on_event(Event::Close(code))
        }
        _ => on_event(Event::Pong(payload)),
    })
}

fn inflated<F: FnMut(Event<'_>) -> Flow>(
    kind: Kind,
    compressed: &[u8],
    limits: &Limits,
    tools: &mut Tools,
    on_event: &mut F,
) -> Result<Flow, Violation> {
    /// More is freed again: a shard does not keep the room of its largest message for ever.
    const KEPT_BYTES_MAX: usize = 1024 * 1024;
    let Tools { inflater, inflated: message, .. } = tools;
    message.clear(); // a handler that panicked has left its message here
    let checked = inflater.inflate(compressed, limits.message_bytes_max, message).map_err(Violation::from);
    let checked = checked.and_then(|()| if kind == Kind::Text { Ok(utf8::check(message)?) } else { Ok(()) });
    let flow = checked.map(|()| on_event(Event::Message(kind, message)));
    if message.capacity() > KEPT_BYTES_MAX {
        message.clear();
        message.shrink_to(KEPT_BYTES_MAX);
    }
    flow
}
