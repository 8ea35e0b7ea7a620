//! What a fuzzer runs: frames whole, cut and with a stop at each event, held against a naive reading.

use super::receive;
use crate::config::Limits;
use crate::session::{Env, Event, Flow, Partial, Partials, Protocol, Tools};

/// The frames of a stream and how it ended. An empty frame is a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Payloads.
    pub frames: Vec<Vec<u8>>,
    /// Whether a frame was over the limit.
    pub too_big: bool,
}

/// Receives `pieces`, stopping at each event when `flow` says so.
#[must_use]
pub fn read<'a>(protocol: Protocol, pieces: impl IntoIterator<Item = &'a [u8]>, bytes_max: usize, flow: Flow) -> Seen {
    let limits = Limits { message_bytes_max: bytes_max, ..Limits::default() };
    let (mut tools, mut partials) = (Tools::default(), Partials::default());
    let mut partial: Option<Box<Partial>> = None;
    let mut seen = Seen::default();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        while !rest.is_empty() {
            let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
            let consumed = receive(protocol, &mut partial, rest, &mut env, |event| {
                seen.frames.push(match event {
                    Event::Message(_, payload) => payload.to_vec(),
                    _ => Vec::new(),
                });
                flow
            });
            assert!(partial.as_ref().is_none_or(|kept| kept.buf.len() <= bytes_max + 4), "what is kept is bounded");
            match consumed {
                Ok(consumed) => rest = &mut rest[consumed..],
                Err(_) => {
                    seen.too_big = true;
                    return seen;
                }
            }
        }
    }
    seen
}

/// Checks a stream: neither cuts nor stops matter, and the frames are those that a naive reader sees.
///
/// # Panics
/// When it is not so.
pub fn check(protocol: Protocol, stream: &[u8], bytes_max: usize, cuts: &[usize]) {
    let expected = naive(protocol, stream, bytes_max);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.sort_unstable();
    for flow in [Flow::Continue, Flow::Stop] {
        assert_eq!(read(protocol, [stream], bytes_max, flow), expected, "whole");
        assert_eq!(read(protocol, stream.chunks(1), bytes_max, flow), expected, "byte by byte");
        let mut start = 0;
        let ends = cuts.iter().copied().chain([stream.len()]);
        let pieces = ends.map(|cut| &stream[std::mem::replace(&mut start, cut)..cut]);
        assert_eq!(read(protocol, pieces, bytes_max, flow), expected, "cut");
    }
}

fn naive(protocol: Protocol, mut stream: &[u8], bytes_max: usize) -> Seen {
    let mut seen = Seen::default();
    loop {
        let (payload, taken) = if protocol == Protocol::Length {
            let Some((header, rest)) = stream.split_at_checked(4) else { return seen };
            let declared = header.iter().fold(0, |sum, &byte| sum * 256 + usize::from(byte));
            seen.too_big = declared > bytes_max;
            if seen.too_big || declared > rest.len() {
                return seen;
            }
            (&rest[..declared], 4 + declared)
        } else {
            let newline = stream.iter().position(|&byte| byte == b'\n');
            let line = &stream[..newline.unwrap_or(stream.len())];
            let line = if line.ends_with(b"\r") { &line[..line.len() - 1] } else { line };
            seen.too_big = line.len() > bytes_max;
            match newline {
                Some(newline) if !seen.too_big => (line, newline + 1),
                _ => return seen,
            }
        };
        seen.frames.push(payload.to_vec());
        stream = &stream[taken..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Dice;

    #[test]
    fn streams_of_every_kind() {
        // The alphabet makes short frames, long ones and nearly everything at a limit of 6 bytes.
        const ALPHABET: [u8; 12] = *b"\n\n\r\0\0\0\x01\x06\x07a\xffb";
        for seed in 0..20_000 {
            let mut dice = Dice::new(seed);
            let stream: Vec<u8> = (0..dice.below(40)).map(|_| ALPHABET[dice.below(ALPHABET.len())]).collect();
            let cuts = [dice.below(1000), dice.below(1000), dice.below(1000)];
            for protocol in [Protocol::Line, Protocol::Length] {
                if std::panic::catch_unwind(|| check(protocol, &stream, 6, &cuts)).is_err() {
                    panic!("seed {seed}, {protocol:?}: {stream:?}");
                }
            }
        }
    }
}
