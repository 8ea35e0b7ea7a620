//! The raw TCP sessions: lines and lengths.
//!
//! A frame is a message, an empty frame a sign of life. A frame is text when it is valid UTF-8 and binary otherwise, in
//! both framings: neither says which it is, and what TCP members send to a topic shows as text to its WebSocket members.

#[doc(hidden)]
pub mod fuzz;

use std::ops::Range;

use super::{Env, Event, Flow, Partial, Protocol};
use crate::close::CloseReason;
use crate::codec::length;
use crate::message::Kind;
use crate::rule::Rule;

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
    fn rule(&self) -> Rule {
        match self {
            Self::LineTooLong(_) => Rule::LineTooLong,
            Self::FrameTooLong(..) => Rule::FrameTooLong,
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
    let bytes_max = env.limits.message_bytes_max;
    let mut done = 0;
    if let Some(mut kept) = partial.take() {
        let resumed = match protocol {
            Protocol::Length => resume_length(&mut kept, bytes, bytes_max),
            _ => resume_line(&mut kept, bytes, bytes_max),
        };
        if let Ok((taken, None)) = resumed {
            *partial = Some(kept);
            return Ok(taken);
        }
        let flow = resumed.map(|(taken, payload)| {
            done = taken;
            payload.map_or(Flow::Continue, |payload| on_event(event(&kept.buf[payload])))
        });
        env.partials.give(kept);
        if flow? == Flow::Stop {
            return Ok(done);
        }
    }
    while done < bytes.len() {
        let rest = &bytes[done..];
        let found = match protocol {
            Protocol::Length => find_length(rest, bytes_max)?,
            _ => find_line(rest, bytes_max)?,
        };
        let Some((frame_bytes, payload)) = found else {
            partial.insert(env.partials.take()).buf.extend_from_slice(rest);
            return Ok(bytes.len());
        };
        done += frame_bytes;
        if on_event(event(&rest[payload])) == Flow::Stop {
            break;
        }
    }
    Ok(done)
}

/// What a frame means.
fn event(payload: &[u8]) -> Event<'_> {
    if payload.is_empty() {
        return Event::Heartbeat;
    }
    let text = simdutf8::basic::from_utf8(payload).is_ok();
    Event::Message(if text { Kind::Text } else { Kind::Binary }, payload)
}

/// The line at the beginning of `bytes`: its bytes with the newline, and where its payload lies.
fn find_line(bytes: &[u8], bytes_max: usize) -> Result<Option<(usize, Range<usize>)>, Violation> {
    let newline = memchr::memchr(b'\n', bytes);
    let payload = line_payload(&bytes[..newline.unwrap_or(bytes.len())], bytes_max)?;
    Ok(newline.map(|newline| (newline + 1, payload)))
}

/// Adds to an unfinished line: how many of `bytes` belong to it, and where the payload lies when it is finished. What
/// was kept has no newline in it and is not looked at again.
fn resume_line(kept: &mut Partial, bytes: &[u8], bytes_max: usize) -> Result<(usize, Option<Range<usize>>), Violation> {
    let newline = memchr::memchr(b'\n', bytes);
    let taken = newline.map_or(bytes.len(), |newline| newline + 1);
    // CR and LF do not count. Checked before anything is copied.
    if kept.buf.len() + taken > bytes_max.saturating_add(2) {
        return Err(Violation::LineTooLong(bytes_max));
    }
    kept.buf.extend_from_slice(&bytes[..taken]);
    let line = &kept.buf[..kept.buf.len() - usize::from(newline.is_some())];
    let payload = line_payload(line, bytes_max)?;
    Ok((taken, newline.map(|_| payload)))
}

/// A line without the CR at its end; at the end of an unfinished line, it may yet be dropped.
fn line_payload(line: &[u8], bytes_max: usize) -> Result<Range<usize>, Violation> {
    let payload = line.strip_suffix(b"\r").unwrap_or(line);
    if payload.len() > bytes_max {
        return Err(Violation::LineTooLong(bytes_max));
    }
    Ok(0..payload.len())
}

/// The frame at the beginning of `bytes`: its bytes with the length, and where its payload lies.
fn find_length(bytes: &[u8], bytes_max: usize) -> Result<Option<(usize, Range<usize>)>, Violation> {
    let frame = declared_frame(bytes, bytes_max)?;
    Ok(frame.filter(|frame| frame.end <= bytes.len()).map(|frame| (frame.end, frame)))
}

/// Adds to an unfinished frame: how many of `bytes` belong to it, and where the payload lies when it is finished.
fn resume_length(
    kept: &mut Partial,
    bytes: &[u8],
    bytes_max: usize,
) -> Result<(usize, Option<Range<usize>>), Violation> {
    let header = length::HEADER_BYTES.saturating_sub(kept.buf.len()).min(bytes.len());
    let (header, rest) = bytes.split_at(header);
    kept.buf.extend_from_slice(header);
    let Some(payload) = declared_frame(&kept.buf, bytes_max)? else { return Ok((bytes.len(), None)) };
    let missing = payload.end - kept.buf.len();
    let taken = missing.min(rest.len());
    kept.buf.extend_from_slice(&rest[..taken]);
    Ok((header.len() + taken, (taken == missing).then_some(payload)))
}

/// Where the payload lies, or will, of the frame that `bytes` begin with; `None` while its length is unfinished.
fn declared_frame(bytes: &[u8], bytes_max: usize) -> Result<Option<Range<usize>>, Violation> {
    let Some(declared) = length::declared(bytes) else { return Ok(None) };
    if declared > bytes_max {
        return Err(Violation::FrameTooLong(declared, bytes_max));
    }
    Ok(Some(length::HEADER_BYTES..length::HEADER_BYTES + declared))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Limits;
    use crate::session::{Partials, Tools};

    /// What came out: messages and heartbeats in words, and how it ended.
    fn run<'a>(protocol: Protocol, pieces: impl IntoIterator<Item = &'a [u8]>, bytes_max: usize) -> Vec<String> {
        let limits = Limits { message_bytes_max: bytes_max, ..Limits::default() };
        let (mut tools, mut partials) = (Tools::default(), Partials::default());
        let (mut partial, mut seen) = (None, Vec::new());
        for piece in pieces {
            let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
            let mut piece = piece.to_vec();
            let consumed = receive(protocol, &mut partial, &mut piece, &mut env, |event| {
                seen.push(match event {
                    Event::Message(Kind::Text, text) => format!("text {}", String::from_utf8_lossy(text)),
                    Event::Message(Kind::Binary, bytes) => format!("binary {bytes:?}"),
                    other => format!("{other:?}"),
                });
                Flow::Continue
            });
            match consumed {
                Ok(consumed) => assert_eq!(consumed, piece.len()),
                Err(violation) => {
                    seen.push(violation.to_string());
                    return seen;
                }
            }
            if let Some(partial) = &partial {
                assert!(partial.buf.len() <= bytes_max + length::HEADER_BYTES, "a partial is bounded");
            }
        }
        seen
    }

    fn whole(protocol: Protocol, bytes: &[u8], bytes_max: usize) -> Vec<String> {
        run(protocol, [bytes], bytes_max)
    }

    /// Cuts everywhere once, and between all bytes: what comes out is the same.
    fn assert_cuts_do_not_matter(protocol: Protocol, bytes: &[u8], bytes_max: usize) {
        let expected = whole(protocol, bytes, bytes_max);
        assert_eq!(run(protocol, bytes.chunks(1), bytes_max), expected, "byte by byte: {bytes:?}");
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(run(protocol, [first, second], bytes_max), expected, "cut at {cut}: {bytes:?}");
        }
    }

    #[test]
    fn lines_are_messages_and_empty_lines_heartbeats() {
        let bytes = b"hello\nwith cr\r\n\n\r\n\xff\xfe\na\rb\nunfinished";
        let seen = ["text hello", "text with cr", "Heartbeat", "Heartbeat", "binary [255, 254]", "text a\rb"];
        assert_eq!(whole(Protocol::Line, bytes, 100), seen);
        assert_cuts_do_not_matter(Protocol::Line, bytes, 100);
    }

    #[test]
    fn lengths_are_messages_and_zero_a_heartbeat() {
        let bytes = b"\0\0\0\x05hello\0\0\0\0\0\0\0\x01\xff\0\0\0\x02a\n\0\0\0\x09unfin";
        let seen = ["text hello", "Heartbeat", "binary [255]", "text a\n"];
        assert_eq!(whole(Protocol::Length, bytes, 100), seen);
        assert_cuts_do_not_matter(Protocol::Length, bytes, 100);
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_byte_more_does_not() {
        for (bytes, seen) in [
            (&b"12345\n"[..], "text 12345"),
            (b"12345\r\n", "text 12345"),
            (b"123456\n", "a line has more than 5 bytes"),
            (b"123456", "a line has more than 5 bytes"),
            (b"12345\rx", "a line has more than 5 bytes"),
            (b"12345\r\r\n", "a line has more than 5 bytes"),
            (b"1234567890", "a line has more than 5 bytes"),
        ] {
            assert_eq!(whole(Protocol::Line, bytes, 5), [seen]);
            assert_cuts_do_not_matter(Protocol::Line, bytes, 5);
        }
        assert_eq!(whole(Protocol::Line, b"12345\r", 5), [""; 0], "the CR may yet be dropped");
    }

    #[test]
    fn a_declared_length_is_refused_before_anything_is_allocated() {
        for (bytes, seen) in [
            (&b"\xff\xff\xff\xff"[..], "a frame of 4294967295 bytes was announced, the limit is 5"),
            (b"\0\0\0\x06", "a frame of 6 bytes was announced, the limit is 5"),
            (b"\0\0\0\x0512345", "text 12345"),
        ] {
            assert_eq!(whole(Protocol::Length, bytes, 5), [seen]);
            assert_cuts_do_not_matter(Protocol::Length, bytes, 5);
        }
        // RUSTSEC-2022-0035: what is announced allocates nothing, only what comes does.
        let (limits, mut tools, mut partials) = (Limits::default(), Tools::default(), Partials::default());
        let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
        let (mut partial, mut bytes) = (None, *b"\0\x0f\xff\xffab");
        receive(Protocol::Length, &mut partial, &mut bytes, &mut env, |_| Flow::Continue).unwrap();
        assert!(partial.unwrap().buf.capacity() < 64);
    }

    #[test]
    fn stop_leaves_the_rest() {
        for (protocol, bytes, consumed) in
            [(Protocol::Line, &b"one\ntwo\n"[..], 4), (Protocol::Length, b"\0\0\0\x03one\0\0\0\x03two", 7)]
        {
            for cut in 0..consumed {
                let (limits, mut tools, mut partials) = (Limits::default(), Tools::default(), Partials::default());
                let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
                let (mut partial, mut bytes) = (None, bytes.to_vec());
                let (first, second) = bytes.split_at_mut(cut);
                let mut events = 0;
                let mut stop = |_: Event<'_>| {
                    events += 1;
                    Flow::Stop
                };
                assert_eq!(receive(protocol, &mut partial, first, &mut env, &mut stop), Ok(cut));
                assert_eq!(receive(protocol, &mut partial, second, &mut env, &mut stop), Ok(consumed - cut));
                assert_eq!(events, 1);
                assert!(partial.is_none());
            }
        }
    }
}
