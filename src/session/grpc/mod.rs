//! The body of a gRPC call: messages behind their prefixes (gRPC's description of its protocol over HTTP/2,
//! "Length-Prefixed-Message").
//!
//! An empty message is a message. Messages are bytes: what they mean is the handler's business.

pub mod call;
#[doc(hidden)]
pub mod fuzz;

use std::ops::Range;

pub use call::{Call, Refused};

use super::{Env, Event, Flow, Partial, Partials, Tools};
use crate::close::CloseReason;
use crate::codec::grpc::gzip::GunzipError;
use crate::codec::grpc::{Code, Encoding, PREFIX_BYTES, Status};
use crate::message::Kind;
use crate::rule::Rule;

/// How a caller broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The first byte of a prefix is neither 0 nor 1.
    #[error("a message's prefix begins with {0}")]
    BadFlag(u8),
    /// A compressed message in a call without an encoding.
    #[error("a compressed message, but the call has no grpc-encoding")]
    NotAgreed,
    /// A length over the message limit.
    #[error("a message of {0} bytes was announced, the limit is {1}")]
    TooBig(usize, usize),
    /// A compressed message over the message limit.
    #[error("a compressed message has more than {0} bytes when inflated")]
    InflatedTooBig(usize),
    /// What is called compressed is not.
    #[error("a compressed message cannot be inflated")]
    BadGzip,
    /// The body ends inside a message.
    #[error("the call ends in the middle of a message")]
    Truncated,
}

impl Violation {
    /// How the call ends for it.
    #[must_use]
    pub fn status(&self) -> Status {
        let code = match self {
            Self::TooBig(..) | Self::InflatedTooBig(_) => Code::ResourceExhausted,
            Self::BadFlag(_) | Self::NotAgreed | Self::BadGzip | Self::Truncated => Code::Internal,
        };
        Status::new(code, self.to_string())
    }
}

impl super::Violation for Violation {
    fn rule(&self) -> Rule {
        match self {
            Self::BadFlag(_) => Rule::GrpcFlag,
            Self::NotAgreed => Rule::NotAgreed,
            Self::TooBig(..) => Rule::MessageTooBig,
            Self::InflatedTooBig(_) => Rule::InflatedTooBig,
            Self::BadGzip => Rule::BadGzip,
            Self::Truncated => Rule::GrpcTruncated,
        }
    }

    fn reason(&self) -> CloseReason {
        match self {
            Self::TooBig(..) | Self::InflatedTooBig(_) => CloseReason::TooBig,
            Self::BadFlag(_) | Self::NotAgreed | Self::BadGzip | Self::Truncated => CloseReason::ProtocolError,
        }
    }
}

/// A message in the bytes: where its payload lies, and whether that is compressed.
struct Found {
    payload: Range<usize>,
    is_compressed: bool,
}

/// Takes messages out of `bytes`, any part of a body, and returns how many bytes are done with: all of them, unless an event
/// said [`Flow::Stop`].
///
/// A message that is whole in `bytes` is handed out in place; only an unfinished one is copied, as much of it as has come.
///
/// # Errors
/// When the body is not made of messages; those before the mistake have been handed out.
pub fn receive<F: FnMut(Event<'_>) -> Flow>(
    partial: &mut Option<Box<Partial>>,
    bytes: &[u8],
    encoding: Encoding,
    env: &mut Env<'_>,
    mut on_event: F,
) -> Result<usize, Violation> {
    let bytes_max = env.limits.message_bytes_max;
    let mut done = 0;
    if let Some(mut kept) = partial.take() {
        let resumed = resume(&mut kept, bytes, encoding, bytes_max);
        if let Ok((taken, None)) = resumed {
            *partial = Some(kept);
            return Ok(taken);
        }
        let flow = resumed.and_then(|(taken, found)| {
            done = taken;
            found.map_or(Ok(Flow::Continue), |found| {
                hand_out(&kept.buf[found.payload], found.is_compressed, bytes_max, env.tools, &mut on_event)
            })
        });
        env.partials.give(kept);
        if flow? == Flow::Stop {
            return Ok(done);
        }
    }
    while done < bytes.len() {
        let rest = &bytes[done..];
        let found = declared(rest, encoding, bytes_max)?.filter(|found| found.payload.end <= rest.len());
        let Some(Found { payload, is_compressed }) = found else {
            partial.insert(env.partials.take()).buf.extend_from_slice(rest);
            return Ok(bytes.len());
        };
        done += payload.end;
        if hand_out(&rest[payload], is_compressed, bytes_max, env.tools, &mut on_event)? == Flow::Stop {
            break;
        }
    }
    Ok(done)
}

/// The body has ended.
///
/// # Errors
/// When that was inside a message.
pub fn end(partial: &mut Option<Box<Partial>>, partials: &mut Partials) -> Result<(), Violation> {
    partial.take().map_or(Ok(()), |kept| {
        partials.give(kept);
        Err(Violation::Truncated)
    })
}

fn hand_out<F: FnMut(Event<'_>) -> Flow>(
    payload: &[u8],
    is_compressed: bool,
    bytes_max: usize,
    tools: &mut Tools,
    on_event: &mut F,
) -> Result<Flow, Violation> {
    if !is_compressed {
        return Ok(on_event(Event::Message(Kind::Binary, payload)));
    }
    tools.inflated.clear();
    let inflated = tools.gunzip.inflate(payload, bytes_max, &mut tools.inflated);
    inflated.map_err(|error| match error {
        GunzipError::Garbage => Violation::BadGzip,
        GunzipError::TooBig => Violation::InflatedTooBig(bytes_max),
    })?;
    Ok(on_event(Event::Message(Kind::Binary, &tools.inflated)))
}

/// Adds to an unfinished message: how many of `bytes` belong to it, and where the payload lies when it is finished.
fn resume(
    kept: &mut Partial,
    bytes: &[u8],
    encoding: Encoding,
    bytes_max: usize,
) -> Result<(usize, Option<Found>), Violation> {
    let prefix = PREFIX_BYTES.saturating_sub(kept.buf.len()).min(bytes.len());
    let (prefix, rest) = bytes.split_at(prefix);
    kept.buf.extend_from_slice(prefix);
    let Some(found) = declared(&kept.buf, encoding, bytes_max)? else { return Ok((bytes.len(), None)) };
    let missing = found.payload.end - kept.buf.len();
    let taken = missing.min(rest.len());
    kept.buf.extend_from_slice(&rest[..taken]);
    Ok((prefix.len() + taken, (taken == missing).then_some(found)))
}

/// Where the payload lies, or will, of the message that `bytes` begin with; `None` while its prefix is unfinished.
fn declared(bytes: &[u8], encoding: Encoding, bytes_max: usize) -> Result<Option<Found>, Violation> {
    let Some((&flag, length)) = bytes.split_first() else { return Ok(None) };
    let is_compressed = match (flag, encoding) {
        (0, _) => false,
        (1, Encoding::Gzip) => true,
        (1, Encoding::Identity) => return Err(Violation::NotAgreed),
        _ => return Err(Violation::BadFlag(flag)),
    };
    let Some(length) = length.first_chunk() else { return Ok(None) };
    // Where an address has fewer bits, a length that does not fit is over any limit.
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > bytes_max {
        return Err(Violation::TooBig(length, bytes_max));
    }
    Ok(Some(Found { payload: PREFIX_BYTES..PREFIX_BYTES + length, is_compressed }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::fuzz::read;
    use super::*;
    use crate::codec::grpc::gzip::compress;
    use crate::config::Limits;

    /// What came out: messages, and how it ended.
    fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, encoding: Encoding, bytes_max: usize) -> Vec<String> {
        let (messages, ended) = read(pieces, encoding, bytes_max);
        let mut seen: Vec<_> =
            messages.iter().map(|message| format!("message {}", String::from_utf8_lossy(message))).collect();
        seen.extend(ended.err().map(|violation| violation.to_string()));
        seen
    }

    /// Cuts everywhere once, and between all bytes: what comes out is the same.
    fn whole(bytes: &[u8], encoding: Encoding, bytes_max: usize) -> Vec<String> {
        let expected = run([bytes], encoding, bytes_max);
        assert_eq!(run(bytes.chunks(1), encoding, bytes_max), expected, "byte by byte: {bytes:?}");
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(run([first, second], encoding, bytes_max), expected, "cut at {cut}: {bytes:?}");
        }
        expected
    }

    fn framed(flag: u8, payload: &[u8]) -> Vec<u8> {
        [&[flag][..], &u32::try_from(payload.len()).unwrap().to_be_bytes(), payload].concat()
    }

    #[test]
    fn messages_come_out_wherever_the_body_is_cut() {
        let bytes = b"\0\0\0\0\x05hello\0\0\0\0\0\0\0\0\0\x02hi";
        assert_eq!(whole(bytes, Encoding::Identity, 5), ["message hello", "message ", "message hi"]);
        assert_eq!(whole(b"", Encoding::Gzip, 5), [""; 0]);
    }

    #[test]
    fn compressed_messages_stand_beside_others() {
        let bytes = [framed(1, &compress(b"hello")), framed(0, b"plain"), framed(1, &compress(b""))].concat();
        assert_eq!(whole(&bytes, Encoding::Gzip, 100), ["message hello", "message plain", "message "]);
    }

    #[test]
    fn bodies_that_are_none() {
        let bomb = framed(1, &compress(&[b'x'; 1000]));
        let cut = framed(1, &compress(b"hello")[..20]);
        for (bytes, seen, code) in [
            (&b"\x02\0\0\0\0"[..], "a message's prefix begins with 2", Code::Internal),
            (b"\xff", "a message's prefix begins with 255", Code::Internal),
            (b"\0\0\0\0\x65", "a message of 101 bytes was announced, the limit is 100", Code::ResourceExhausted),
            (
                b"\0\xff\xff\xff\xff",
                "a message of 4294967295 bytes was announced, the limit is 100",
                Code::ResourceExhausted,
            ),
            (&bomb, "a compressed message has more than 100 bytes when inflated", Code::ResourceExhausted),
            (&cut, "a compressed message cannot be inflated", Code::Internal),
            (b"\x01\0\0\0\0", "a compressed message cannot be inflated", Code::Internal),
            (b"\0\0\0", "the call ends in the middle of a message", Code::Internal),
            (b"\0\0\0\0\x05hell", "the call ends in the middle of a message", Code::Internal),
        ] {
            let after_one = [&b"\0\0\0\0\x01a"[..], bytes].concat();
            assert_eq!(whole(&after_one, Encoding::Gzip, 100), ["message a", seen]);
            assert_eq!(read([bytes], Encoding::Gzip, 100).1.unwrap_err().status(), Status::new(code, seen));
        }
        let seen = "a compressed message, but the call has no grpc-encoding";
        assert_eq!(whole(b"\x01\0\0\0\0", Encoding::Identity, 100), [seen]);
    }

    #[test]
    fn what_is_announced_allocates_nothing() {
        let (limits, mut tools, mut partials) = (Limits::default(), Tools::default(), Partials::default());
        let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
        let mut partial = None;
        receive(&mut partial, b"\0\0\x0f\xff\xffab", Encoding::Identity, &mut env, |_| Flow::Continue).unwrap();
        assert!(partial.unwrap().buf.capacity() < 64);
    }

    #[test]
    fn stop_leaves_the_rest() {
        let bytes = b"\0\0\0\0\x03one\0\0\0\0\x03two";
        for cut in 0..8 {
            let (limits, mut tools, mut partials) = (Limits::default(), Tools::default(), Partials::default());
            let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
            let (mut partial, mut events) = (None, 0);
            let mut stop = |_: Event<'_>| {
                events += 1;
                Flow::Stop
            };
            let (first, second) = bytes.split_at(cut);
            assert_eq!(receive(&mut partial, first, Encoding::Identity, &mut env, &mut stop), Ok(cut));
            assert_eq!(receive(&mut partial, second, Encoding::Identity, &mut env, &mut stop), Ok(8 - cut));
            assert_eq!(events, 1);
            assert!(partial.is_none());
        }
    }
}
