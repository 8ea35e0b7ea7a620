//! What a fuzzer runs: requests whole and cut, and what is accepted held against a naive reading.

use super::{Body, Head, Preflight, Service, UpgradePolicy, Violation, receive, refuse_body, upgrade};
use crate::config::Limits;
use crate::session::{Env, Partial, Partials, Tools};

/// What became of a stream, request by request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What was read of each request that was accepted: its head in words, and its body.
    pub requests: Vec<(String, Vec<u8>)>,
    /// Where the accepted requests end in the stream.
    pub ends: Vec<usize>,
    /// The violation that ended it.
    pub violation: Option<String>,
}

/// Reads requests out of `pieces`, until one breaks the rules.
#[must_use]
pub fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Seen {
    let (mut tools, mut partials) = (Tools::default(), Partials::default());
    let mut partial: Option<Box<Partial>> = None;
    let mut seen = Seen { requests: Vec::new(), ends: Vec::new(), violation: None };
    let mut position = 0;
    for piece in pieces {
        let (mut piece, mut consumed) = (piece.to_vec(), 0);
        while consumed < piece.len() {
            let mut env = Env { limits, tools: &mut tools, partials: &mut partials };
            let progress = match receive(&mut partial, &mut piece[consumed..], &mut env, &mut Describer) {
                Ok(progress) => progress,
                Err(violation) => {
                    assert!(partial.is_none(), "nothing is kept of a head that is refused");
                    seen.violation = Some(violation.to_string());
                    return seen;
                }
            };
            assert!(progress.consumed > 0 && progress.consumed <= piece.len() - consumed, "it goes on");
            assert!(
                partial.as_ref().is_none_or(|kept| kept.buf.len() < limits.head_bytes_max + limits.message_bytes_max),
                "what is kept is bounded"
            );
            position += progress.consumed;
            consumed += progress.consumed;
            if let Some(request) = progress.outcome {
                seen.requests.push(request);
                seen.ends.push(position);
            }
        }
    }
    seen
}

/// Takes every body.
struct Describer;

impl Service for Describer {
    type Answer = (String, Vec<u8>);

    fn preflight(&mut self, _head: &Head<'_>) -> Result<Preflight, Violation> {
        Ok(Preflight::Message)
    }

    fn answer(&mut self, head: &Head<'_>, body: Option<&[u8]>) -> Result<Self::Answer, Violation> {
        Ok((describe(head), body.expect("no body is left unread").to_vec()))
    }
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
    for ((head, body), &end) in whole.requests.iter().zip(&whole.ends) {
        let request = &stream[start..end];
        let head_end =
            request.windows(4).position(|four| four == b"\r\n\r\n").expect("a head ends in an empty line") + 4;
        check_naively(head, &request[..head_end]);
        assert_eq!(naive_body(&request[..head_end], &request[head_end..]), *body);
        assert!(body.len() <= limits.message_bytes_max);
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

/// The body that a reader of lines finds in the bytes behind a head, which are the body's and no more.
fn naive_body(head: &[u8], mut bytes: &[u8]) -> Vec<u8> {
    if !String::from_utf8_lossy(head).to_ascii_lowercase().contains("\r\ntransfer-encoding:") {
        return bytes.to_vec();
    }
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a size is a line");
        let line = String::from_utf8_lossy(&bytes[..end]);
        let size = line.split(';').next().and_then(|size| usize::from_str_radix(size, 16).ok()).expect("a size");
        bytes = &bytes[end + 2..];
        if size == 0 {
            assert!(bytes.ends_with(b"\r\n"), "the end");
            return body;
        }
        body.extend_from_slice(&bytes[..size]);
        assert_eq!(&bytes[size..size + 2], b"\r\n", "a chunk ends");
        bytes = &bytes[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Dice;

    const GOOD: [&str; 7] = [
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\nhello, world",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\na;x=y\r\n, my world\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\nY: z\r\n\r\n",
        "GET /chat/lobby?name=Ann%20Lee HTTP/1.1\r\nHost: a:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nOrigin: http://a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST /%C3%BC HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nCookie: a=b\r\n\r\n0\r\n\r\n",
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
        let mut bytes = [GOOD[dice.below(7)], GOOD[dice.below(7)]][..=dice.below(2)].concat().into_bytes();
        for _ in 0..dice.below(4) {
            let at = dice.below(bytes.len());
            let until = (at + dice.below(4)).min(bytes.len());
            bytes.splice(at..until, WORDS[dice.below(WORDS.len())].bytes());
        }
        bytes
    }

    #[test]
    fn requests_with_a_few_things_wrong() {
        let limits = Limits { head_bytes_max: 400, head_fields_max: 9, message_bytes_max: 30, ..Limits::default() };
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
