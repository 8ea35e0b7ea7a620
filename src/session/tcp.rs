//! The raw TCP sessions: lines and lengths.
//!
//! A frame is a message, an empty frame a sign of life. A frame is text when it is valid UTF-8 and binary otherwise, in
//! both framings: neither says which it is, and what TCP members send to a topic shows as text to its WebSocket members.

use super::{Env, Event, Flow, Partial, Protocol};
use crate::close::CloseReason;
use crate::codec::{length, line};
use crate::message::Kind;

/// How a peer broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// No newline within the message limit.
    #[error("a line has more than {0} bytes")]
    LineTooLong(usize),
    /// A length over the message limit.
    #[error("a frame of {0} bytes was announced, the limit is {1}")]
    FrameTooLong(usize, usize),
}

impl super::Violation for Violation {
    fn label(&self) -> &'static str {
        match self {
            Self::LineTooLong(_) => "line_too_long",
            Self::FrameTooLong(..) => "frame_too_long",
        }
    }

    fn reason(&self) -> CloseReason {
        CloseReason::TooBig
    }
}

/// Takes frames out of `bytes` and returns how many bytes are done with: all of them, unless an event said
/// [`Flow::Stop`].
///
/// A frame that is whole in `bytes` is handed out in place; only an unfinished one is copied, as much of it as has come.
///
/// # Errors
/// When a frame is over the message limit; the events before it have been handed out.
pub fn receive<F: FnMut(Event<'_>) -> Flow>(
    protocol: Protocol,
    partial: &mut Option<Box<Partial>>,
    bytes: &mut [u8],
    env: &mut Env<'_>,
    mut on_event: F,
) -> Result<usize, Violation> {
    debug_assert!(matches!(protocol, Protocol::Line | Protocol::Length), "the others have sessions of their own");
    let next = if protocol == Protocol::Length { next_length } else { next_line };
    let bytes_max = env.limits.message_bytes_max;
    let mut done = 0;
    if let Some(mut kept) = partial.take() {
        let (taken, flow) = match resume(next, &mut kept, bytes, bytes_max, &mut on_event) {
            Ok(Some(resumed)) => resumed,
            Ok(None) => {
                *partial = Some(kept);
                return Ok(bytes.len());
            }
            Err(violation) => {
                env.partials.give(kept);
                return Err(violation);
            }
        };
        env.partials.give(kept);
        done = taken;
        if flow == Flow::Stop {
            return Ok(done);
        }
    }
    while done < bytes.len() {
        let rest = &bytes[done..];
        let Some(frame) = next(rest, 0, bytes_max)? else {
            let kept = partial.insert(env.partials.take());
            kept.buf.extend_from_slice(rest);
            kept.scanned = rest.len();
            return Ok(bytes.len());
        };
        done += frame.bytes;
        if on_event(event(&rest[frame.start..frame.end])) == Flow::Stop {
            break;
        }
    }
    Ok(done)
}

/// Where a frame lies.
struct Frame {
    /// First byte of its payload.
    start: usize,
    /// Past its payload's last byte.
    end: usize,
    /// All of its bytes.
    bytes: usize,
}

/// Finds the frame at the beginning of `bytes`, of which `scanned` have been looked at before; `None` while it is
/// unfinished.
type Next = fn(bytes: &[u8], scanned: usize, bytes_max: usize) -> Result<Option<Frame>, Violation>;

fn next_line(bytes: &[u8], scanned: usize, bytes_max: usize) -> Result<Option<Frame>, Violation> {
    let newline = memchr::memchr(b'\n', &bytes[scanned..]).map(|at| scanned + at);
    let end = newline.unwrap_or(bytes.len());
    // A CR at the end of an unfinished line may yet be dropped.
    let end = end - usize::from(bytes[..end].ends_with(b"\r"));
    if end > bytes_max {
        return Err(Violation::LineTooLong(bytes_max));
    }
    Ok(newline.map(|newline| Frame { start: 0, end, bytes: newline + 1 }))
}

fn next_length(bytes: &[u8], _scanned: usize, bytes_max: usize) -> Result<Option<Frame>, Violation> {
    let Some(declared) = length::declared(bytes) else { return Ok(None) };
    if declared > bytes_max {
        return Err(Violation::FrameTooLong(declared, bytes_max));
    }
    let end = length::HEADER_BYTES + declared;
    Ok((bytes.len() >= end).then_some(Frame { start: length::HEADER_BYTES, end, bytes: end }))
}

/// Goes on with an unfinished frame: how many of `bytes` it took, and what its event said.
fn resume<F: FnMut(Event<'_>) -> Flow>(
    next: Next,
    kept: &mut Partial,
    bytes: &[u8],
    bytes_max: usize,
    on_event: &mut F,
) -> Result<Option<(usize, Flow)>, Violation> {
    let mut taken = 0;
    loop {
        let wanted = wanted(next, kept, &bytes[taken..]);
        kept.buf.extend_from_slice(&bytes[taken..taken + wanted]);
        taken += wanted;
        let frame = next(&kept.buf, kept.scanned, bytes_max)?;
        kept.scanned = kept.buf.len();
        if let Some(frame) = frame {
            return Ok(Some((taken, on_event(event(&kept.buf[frame.start..frame.end])))));
        }
        if taken == bytes.len() {
            return Ok(None);
        }
    }
}
