//! What a fuzzer runs: any bytes, cut anywhere, beside a naive account of what may be kept and sent.

use super::{Event, Http2, Violation};
use crate::codec::http2::frame::{HEADER_BYTES, Header, PREFACE, PREFACE_HEAD, flag, kind};
use crate::codec::http2::{ErrorCode, StreamId};
use crate::config::Limits;
use crate::id::ConnId;
use crate::session::{Env, Partial, Partials, Tools};
use crate::wheel::Tick;

/// What became of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Each event in words, bodies' pieces put together.
    pub events: Vec<String>,
    /// What was answered.
    pub answers: Vec<u8>,
    /// How it ended, if it did.
    pub violation: Option<Violation>,
}

/// Reads a connection out of `pieces`, behind the preface. Streams are named, consumed and answered by a rule that knows
/// their number alone, so that cuts do not matter.
///
/// # Panics
/// When more is kept than may be.
#[must_use]
pub fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Seen {
    let (mut tools, mut partials) = (Tools::default(), Partials::default());
    let (mut partial, mut seen): (Option<Box<Partial>>, Seen) = (None, Seen::default());
    let mut http2 = Http2::begin(limits, Tick(0), &mut seen.answers);
    let begin = &PREFACE[PREFACE_HEAD.len()..];
    for piece in std::iter::once(begin).chain(pieces) {
        let (mut piece, mut at) = (piece.to_vec(), 0);
        while at < piece.len() {
            let rest = piece.len() - at;
            let mut env = Env { limits, tools: &mut tools, partials: &mut partials };
            match http2.receive(&mut partial, &mut piece[at..], Tick(0), &mut env, &mut seen.answers) {
                Ok((taken, event)) => {
                    let is_much = taken >= Http2::FRAMES_IN_A_ROW;
                    assert!(event.is_some() || taken == rest || is_much, "without an event all is done with");
                    at += taken;
                    if let Some(event) = event {
                        carry_out(event, &mut http2, &mut partials, &mut seen);
                    }
                }
                Err(violation) => {
                    seen.violation = Some(violation);
                    return seen;
                }
            }
            check_bounds(&http2, partial.as_deref(), limits);
        }
    }
    seen
}

/// What is kept is bounded.
fn check_bounds(http2: &Http2, partial: Option<&Partial>, limits: &Limits) {
    let kept = partial.map_or(0, |keeper| keeper.buf.len());
    assert!(kept <= limits.head_bytes_max.max(16_384) + 16_384 + HEADER_BYTES, "{kept} bytes are kept");
    assert!(http2.streams() <= limits.http2.streams_max as usize);
    assert!(http2.names().count() <= http2.streams());
    assert!(http2.memory() < 20_000 + http2.streams() * 60);
}

/// Acts as a server would. Each third stream is not read, each fifth reset, each seventh answered at once.
fn carry_out(event: Event<'_>, http2: &mut Http2, partials: &mut Partials, seen: &mut Seen) {
    let words = match event {
        Event::Request { stream, head, ends } => {
            let words = format!("{} {:?} {ends}", stream.0, String::from_utf8_lossy(&head.buf));
            partials.give(head);
            http2.name(stream, ConnId::new(stream.0, 1));
            if stream.0 % 5 == 0 {
                http2.reset(stream, ErrorCode::Cancel, &mut seen.answers);
            } else if stream.0 % 7 == 0 {
                respond(http2, stream, &mut seen.answers);
            }
            words
        }
        Event::Data { stream, name, bytes, ends } => {
            assert_eq!(name, ConnId::new(stream.0, 1));
            if stream.0 % 3 != 0 {
                http2.consumed(stream, bytes.len(), &mut seen.answers);
            }
            let text = String::from_utf8_lossy(bytes).escape_debug().to_string();
            match seen.events.last_mut() {
                Some(last) if last.starts_with(&format!("data {} ", stream.0)) && !last.ends_with(" true") => {
                    last.truncate(last.len() - " false".len());
                    last.push_str(&format!("{text} {ends}"));
                    return;
                }
                _ => format!("data {} {text} {ends}", stream.0),
            }
        }
        other => format!("{other:?}"),
    };
    seen.events.push(words);
}

/// Sends as much as there is room for, a byte less than a thousand at most, and the end.
fn respond(http2: &mut Http2, stream: StreamId, answers: &mut Vec<u8>) {
    let length = http2.room(stream).min(999);
    answers.extend_from_slice(&http2.data(stream, length, true));
    answers.resize(answers.len() + length, b'.');
}

/// Checks a connection: cuts do not matter, and whatever the peer sent was within the windows that it was given.
///
/// # Panics
/// When it is not so.
pub fn check(stream: &[u8], limits: &Limits, cuts: &[usize]) {
    let whole = read([stream], limits);
    check_windows(stream, &whole, limits);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.sort_unstable();
    let mut start = 0;
    let pieces = cuts.into_iter().chain([stream.len()]).map(|cut| &stream[std::mem::replace(&mut start, cut)..cut]);
    for cut in [read(stream.chunks(1), limits), read(pieces, limits)] {
        assert_eq!(cut.events, whole.events);
        assert_eq!(cut.violation, whole.violation);
    }
}

/// All DATA that was taken fits in the first windows and what they grew by, stream by stream and together.
fn check_windows(stream: &[u8], seen: &Seen, limits: &Limits) {
    if seen.violation.is_some() {
        return;
    }
    let sum = |bytes: &[u8], of: &dyn Fn(Header, &[u8]) -> u64| {
        let (mut rest, mut sum) = (bytes, 0);
        while let Some((header, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let header = Header::parse(header);
            let (payload, behind) = behind.split_at(behind.len().min(header.length as usize));
            sum += of(header, payload);
            rest = behind;
        }
        sum
    };
    let sent = sum(stream, &|header, _| if header.kind == kind::DATA { u64::from(header.length) } else { 0 });
    let grown = sum(&seen.answers, &|header, payload| match payload.first_chunk() {
        Some(grown) if header.kind == kind::WINDOW_UPDATE && header.stream == StreamId::CONNECTION => {
            u64::from(u32::from_be_bytes(*grown))
        }
        _ => 0,
    });
    assert!(sent <= 65_535 + grown, "{sent} bytes in a window of 65535 + {grown}");
    assert!(grown <= sent + limits.http2.connection_window as u64, "no more is given back than has come");
    let acknowledged =
        sum(&seen.answers, &|header, _| u64::from(header.kind == kind::SETTINGS && header.flags & flag::ACK != 0));
    let asked = sum(stream, &|header, _| u64::from(header.kind == kind::SETTINGS && header.flags & flag::ACK == 0));
    assert!(acknowledged <= asked);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::http2::frame;
    use crate::session::testing::Dice;

    /// A frame that could be right, and often is not.
    fn push_frame(dice: &mut Dice, next: &mut u32, out: &mut Vec<u8>) {
        let kinds = if dice.below(9) == 0 { 17 } else { 13 };
        let kind = [0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 6, 8, 8, 9, 7, 33, 5][dice.below(kinds)];
        let length_max = [9, 40, 3000][dice.below(3)];
        let (length, flags) = (dice.below(length_max), [0, 1, 4, 5, 8, 0x2c, 0xff][dice.below(7)]);
        let mut payload = vec![u8::try_from(dice.below(9)).expect("it fits"); length];
        let mut whole = 0;
        match kind {
            kind::HEADERS if dice.below(6) > 0 => {
                payload.clear();
                for field in
                    ["\0\x07:method\x03GET", "\0\x07:scheme\x04http", "\0\x05:path\x01/", "\0\x0a:authority\x01a"]
                {
                    payload.extend_from_slice(field.as_bytes());
                }
                whole = flag::END_HEADERS;
            }
            kind::SETTINGS | kind::GOAWAY => payload.resize(length.min(5) * 6, 0),
            kind::PING => payload.resize(8, 0),
            kind::PRIORITY => payload.resize(5, 1),
            kind::RST_STREAM | kind::WINDOW_UPDATE => payload.resize(4, 1),
            _ => {}
        }
        let stream = match kind {
            _ if dice.below(30) == 0 => u32::try_from(dice.below(20)).expect("it fits"),
            kind::SETTINGS | kind::PING | kind::GOAWAY => 0,
            kind::HEADERS if dice.below(4) > 0 => std::mem::replace(next, *next + 2),
            kind::WINDOW_UPDATE if dice.below(2) == 0 => 0,
            _ => next.saturating_sub(2 * u32::try_from(dice.below(4)).expect("it fits") + 2).max(1),
        };
        let flags = if dice.below(3) > 0 { flags & 1 } else { flags } | whole;
        let flags = if kind == kind::HEADERS && whole != 0 { flags & 5 } else { flags };
        frame::write(kind, flags, StreamId(stream), &payload, out);
    }

    #[test]
    fn frames_of_all_kinds_and_a_few_things_wrong() {
        let mut limits = Limits { head_bytes_max: 600, ..Limits::default() };
        (limits.http2.streams_max, limits.http2.stream_window) = (6, 9_000);
        let (mut ended, mut events) = (0, 0);
        for seed in 0..4_000 {
            let mut dice = Dice::new(seed);
            let (mut stream, mut next) = (Vec::new(), 1);
            frame::write(kind::SETTINGS, 0, StreamId::CONNECTION, &[], &mut stream);
            (0..dice.below(30)).for_each(|_| push_frame(&mut dice, &mut next, &mut stream));
            if dice.below(4) == 0 {
                let at = dice.below(stream.len());
                stream[at] ^= 1 << dice.below(8);
            }
            let cuts = [dice.below(5000), dice.below(5000), dice.below(5000)];
            if std::panic::catch_unwind(|| check(&stream, &limits, &cuts)).is_err() {
                panic!("seed {seed}: {stream:x?}");
            }
            let seen = read([&stream[..]], &limits);
            ended += usize::from(seen.violation.is_some());
            events += seen.events.len();
        }
        assert!((400..3_600).contains(&ended), "neither all good nor all bad: {ended}");
        assert!(events > 4_000, "{events}");
    }
}
