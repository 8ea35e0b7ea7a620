//! Events, comments, and the empty lines between them.
//!
//! A line ends with LF, CR or CR LF. An event is over with the first of an empty line's bytes: a newline that belongs to
//! its carriage return may come later, and is an empty line then, which says nothing.

use std::borrow::Cow;

/// What stands in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// Lines up to an empty one.
    Event(Event<'a>),
    /// A comment between two events: a heartbeat.
    Comment(&'a [u8]),
    /// An empty line where no event is.
    Blank,
}

/// An event, or a block without data, which only tells its fields. Values are bytes: whether they are UTF-8 is the
/// caller's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The new last event id. Without one the last one stays.
    pub id: Option<&'a [u8]>,
    /// The type, when it is not `message`.
    pub kind: Option<&'a [u8]>,
    /// Milliseconds after which to connect again.
    pub retry_ms: Option<u64>,
    /// Lines of data.
    pub data_lines: usize,
    first: &'a [u8],
    block: &'a [u8],
}

impl<'a> Event<'a> {
    /// The data: its lines, joined by newlines. `None` when there is none, and hence no event.
    #[must_use]
    pub fn data(&self) -> Option<Cow<'a, [u8]>> {
        match self.data_lines {
            0 => None,
            1 => Some(Cow::Borrowed(self.first)),
            _ => {
                let lines: Vec<&[u8]> =
                    fields(self.block).filter(|field| field.0 == b"data").map(|field| field.1).collect();
                Some(Cow::Owned(lines.join(&b'\n')))
            }
        }
    }
}

/// The item at the beginning of `bytes` and how many bytes it has; `None` while it is not whole.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<(Item<'_>, usize)> {
    // A byte order mark may be the first of a stream. In front of a later event nobody writes one.
    let start = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let (first, first_bytes) = line(&bytes[start..])?;
    match first {
        [] => Some((Item::Blank, start + first_bytes)),
        [b':', comment @ ..] => Some((Item::Comment(bare(comment)), start + first_bytes)),
        _ => {
            let block_bytes = block_bytes(&bytes[start..])?;
            let (block, rest) = bytes[start..].split_at(block_bytes);
            let (_, end_bytes) = line(rest)?;
            Some((Item::Event(event(block)), start + block_bytes + end_bytes))
        }
    }
}

/// Bytes before the first empty line.
fn block_bytes(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let (text, length) = line(&bytes[at..])?;
        if text.is_empty() {
            return Some(at);
        }
        at += length;
    }
}

/// The first line, and how many bytes it has with its end.
#[inline]
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let at = memchr::memchr2(b'\n', b'\r', bytes)?;
    let is_pair = bytes[at] == b'\r' && bytes.get(at + 1) == Some(&b'\n');
    Some((&bytes[..at], at + 1 + usize::from(is_pair)))
}

/// Names and values of a block of whole lines.
fn fields(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let (text, length) = line(rest)?;
        rest = &rest[length..];
        Some(match memchr::memchr(b':', text) {
            Some(colon) => (&text[..colon], bare(&text[colon + 1..])),
            None => (text, &[][..]),
        })
    })
}

/// A value without the space before it.
fn bare(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

fn event(block: &[u8]) -> Event<'_> {
    let mut event = Event { id: None, kind: None, retry_ms: None, data_lines: 0, first: &[], block };
    for (name, value) in fields(block) {
        match name {
            b"data" => {
                if event.data_lines == 0 {
                    event.first = value;
                }
                event.data_lines += 1;
            }
            b"id" if !value.contains(&0) => event.id = Some(value),
            b"event" => event.kind = Some(value).filter(|kind| !kind.is_empty()),
            b"retry" => event.retry_ms = number(value).or(event.retry_ms),
            // A comment, or what a later standard has.
            _ => {}
        }
    }
    event
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use proptest::prelude::*;

    use super::*;

    /// An item as a line of a transcript; empty lines say nothing.
    fn told(item: &Item<'_>) -> Option<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match item {
            Item::Blank => None,
            Item::Comment(comment) => Some(format!("comment {}", text(comment))),
            Item::Event(event) => Some(format!(
                "event id={:?} kind={:?} retry={:?} data={:?}",
                event.id.map(text),
                event.kind.map(text),
                event.retry_ms,
                event.data().map(|data| text(&data))
            )),
        }
    }

    /// What is seen of pieces, by somebody who keeps what is not whole.
    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let (mut kept, mut seen) = (Vec::new(), Vec::new());
        for piece in pieces {
            kept.extend_from_slice(piece);
            while let Some((item, bytes)) = parse(&kept) {
                assert!(bytes > 0 && bytes <= kept.len());
                seen.extend(told(&item));
                kept.drain(..bytes);
            }
        }
        seen
    }

    fn one(text: &str) -> Vec<String> {
        read(&[text.as_bytes()])
    }

    fn event(id: Option<&str>, data: Option<&str>) -> String {
        format!("event id={id:?} kind=None retry=None data={data:?}")
    }

    #[test]
    fn the_examples_of_the_standard() {
        let stocks = "data: YHOO\ndata: +2\ndata: 10\n\n";
        assert_eq!(one(stocks), [event(None, Some("YHOO\n+2\n10"))]);
        let four = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        let expected = [
            "comment test stream".to_owned(),
            event(Some("1"), Some("first event")),
            event(Some(""), Some("second event")),
            event(None, Some(" third event")),
        ];
        assert_eq!(one(four), expected);
        assert_eq!(one("data\n\ndata\ndata\n\ndata:"), [event(None, Some("")), event(None, Some("\n"))]);
        assert_eq!(one("data:test\n\ndata: test\n\n"), vec![event(None, Some("test")); 2]);
    }

    #[test]
    fn all_line_ends_are_the_same_wherever_they_are_cut() {
        let text =
            ":hello\n\nretry: 3000\nid: 1:7\n\n:\nid: 1:8\ndata: one\ndata:\ndata: two\n\nevent: reset\ndata: {}\n\n";
        let expected = [
            "comment hello".to_owned(),
            "event id=Some(\"1:7\") kind=None retry=Some(3000) data=None".to_owned(),
            "comment ".to_owned(),
            event(Some("1:8"), Some("one\n\ntwo")),
            "event id=None kind=Some(\"reset\") retry=None data=Some(\"{}\")".to_owned(),
        ];
        for end in ["\n", "\r", "\r\n"] {
            let bytes = format!("\u{feff}{}", text.replace('\n', end)).into_bytes();
            for cut in 0..bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(read(&[head, tail]), expected, "{end:?} cut at {cut}");
            }
            assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), expected, "{end:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let text =
            "data: a\n: in between\nfoo: bar\n data: b\nid: x\0y\nretry: 3s\nretry: 99999999999999999999\nevent\n\n";
        assert_eq!(one(text), [event(None, Some("a"))]);
    }

    #[test]
    fn an_event_without_its_empty_line_is_not_there_yet() {
        assert_eq!(parse(b"data: a\n"), None);
        assert_eq!(parse(b"data: a"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b": half a comm"), None);
    }

    proptest! {
        #[test]
        fn anything_is_survived_and_reads_the_same_in_pieces(
            bytes in prop::collection::vec(prop::sample::select(&b"data:id \r\n\r\n\xef\xbb\xbf\0"[..]), 0..100),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            places.extend([0, bytes.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[&bytes]));
        }
    }
}
