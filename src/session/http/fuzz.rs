//! What a fuzzer runs: heads whole and cut, and what is accepted held against a naive reading.

use super::{Body, Head, UpgradePolicy, receive, refuse_body, upgrade};
use crate::config::Limits;
use crate::session::{Env, Partial, Partials, Tools};

/// What became of a stream, request by request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What was read of each head that was accepted.
    pub heads: Vec<String>,
    /// Where the accepted heads lie in the stream.
    pub ends: Vec<usize>,
    /// The violation that ended it.
    pub violation: Option<String>,
}

/// Reads requests out of `pieces`, until one breaks the rules.
#[must_use]
pub fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Seen {
    let (mut tools, mut partials) = (Tools::default(), Partials::default());
    let mut partial: Option<Box<Partial>> = None;
    let mut seen = Seen { heads: Vec::new(), ends: Vec::new(), violation: None };
    let mut position = 0;
    for mut piece in pieces {
        while !piece.is_empty() {
            let mut env = Env { limits, tools: &mut tools, partials: &mut partials };
            let progress = match receive(&mut partial, piece, &mut env, describe) {
                Ok(progress) => progress,
                Err(violation) => {
                    assert!(partial.is_none(), "nothing is kept of a head that is refused");
                    seen.violation = Some(violation.to_string());
                    return seen;
                }
            };
            assert!(progress.consumed > 0 && progress.consumed <= piece.len(), "it goes on");
            assert!(
                partial.as_ref().is_none_or(|kept| kept.buf.len() < limits.head_bytes_max),
                "what is kept is bounded"
            );
            position += progress.consumed;
            piece = &piece[progress.consumed..];
            if let Some(head) = progress.outcome {
                seen.heads.push(head);
                seen.ends.push(position);
            }
        }
    }
    seen
}

/// All that can be asked of a head, but for what had come behind it.
fn describe(head: &Head<'_>) -> String {
    let policy = UpgradePolicy { deflate: true, ..UpgradePolicy::default() };
    let upgrade = if head.behind() == 0 { upgrade(head, &policy).is_ok() } else { false };
    assert!(!upgrade || refuse_body(head).is_ok(), "a handshake has no body");
    assert!(head.path().starts_with('/') || head.path() == "*");
    assert!(!head.path().chars().any(|c| c.is_ascii_control()));
    let tokens = head.list("connection").count();
    let (method, path, query, host) = (head.method(), head.path(), head.raw_query(), head.host());
    let name = head.query().get("name");
    format!("{method} {path} {query} {name:?} {host:?} {:?} {} {tokens}", head.body(), head.keep_alive())
}

/// Checks a stream: cuts do not matter, and what is accepted is what a naive reader of lines sees.
///
/// # Panics
/// When it is not so.
pub fn check(stream: &[u8], limits: &Limits, cuts: &[usize]) {
    let whole = read([stream], limits);
    assert_eq!(read(stream.chunks(1), limits), whole, "byte by byte");
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.sort_unstable();
    let mut start = 0;
    let pieces = cuts.into_iter().chain([stream.len()]).map(|cut| &stream[std::mem::replace(&mut start, cut)..cut]);
    assert_eq!(read(pieces, limits), whole, "cut");
    let mut start = 0;
    for (head, &end) in whole.heads.iter().zip(&whole.ends) {
        check_naively(head, &stream[start..end]);
        start = end;
    }
}

/// Nobody may read this head in another way: no line end but CR LF, no field twice that says where it goes or ends.
fn check_naively(head: &str, bytes: &[u8]) {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.split("\r\n").collect();
    let [fields @ .., "", ""] = &lines[1..] else { panic!("a head ends in an empty line: {text:?}") };
    assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])), "{text:?}");
    assert!(fields.iter().all(|line| !line.starts_with([' ', '\t', ':'])), "{text:?}");
    let count = |name: &str| {
        fields.iter().filter(|line| line.split(':').next().is_some_and(|n| n.trim().eq_ignore_ascii_case(name))).count()
    };
    let (lengths, encodings) = (count("content-length"), count("transfer-encoding"));
    assert!(lengths + encodings <= 1 && count("host") <= 1, "{text:?}");
    assert!(count("host") == 1 || lines[0].ends_with(" HTTP/1.0"), "{text:?}");
    assert_eq!(encodings == 1, head.contains(&format!(" {:?} ", Body::Chunked)), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Dice;

    const GOOD: [&str; 4] = [
        "GET /chat/lobby?name=Ann%20Lee HTTP/1.1\r\nHost: a:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nOrigin: http://a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST /%C3%BC HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nCookie: a=b\r\n\r\n",
        "GET http://a/?b HTTP/1.0\r\nHost: a\r\nConnection: close, x\r\n\r\n",
    ];

    const WORDS: [&str; 26] = [
        "\r",
        "\n",
        "\r\n",
        "\r\n\r\n",
        "\0",
        " ",
        "\t",
        ":",
        ",",
        ";",
        "%",
        "%00",
        "%ff",
        "+",
        "#",
        "?",
        "*",
        "\u{e9}",
        "\u{7f}",
        "Host: b\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "\r\n folded",
        "HTTP/2.0",
        "content-length : 1\r\n",
        "x",
    ];

    /// One or two requests with a few things wrong.
    fn stream(dice: &mut Dice) -> Vec<u8> {
        let mut bytes = [GOOD[dice.below(4)], GOOD[dice.below(4)]][..=dice.below(2)].concat().into_bytes();
        for _ in 0..dice.below(4) {
            let at = dice.below(bytes.len());
            let until = (at + dice.below(4)).min(bytes.len());
            bytes.splice(at..until, WORDS[dice.below(WORDS.len())].bytes());
        }
        bytes
    }

    #[test]
    fn requests_with_a_few_things_wrong() {
        let limits = Limits { head_bytes_max: 400, head_fields_max: 9, ..Limits::default() };
        let mut accepted = 0;
        for seed in 0..20_000 {
            let mut dice = Dice::new(seed);
            let stream = stream(&mut dice);
            let cuts = [dice.below(1000), dice.below(1000), dice.below(1000)];
            if std::panic::catch_unwind(|| check(&stream, &limits, &cuts)).is_err() {
                panic!("seed {seed}: {:?}", String::from_utf8_lossy(&stream));
            }
            accepted += usize::from(read([&stream[..]], &limits).violation.is_none());
        }
        assert!((2_000..18_000).contains(&accepted), "the streams are neither all good nor all bad: {accepted}");
    }
}
