//! Requests that are malformed or hostile: each gets its status and the end of its connection, and what is behind it on the
//! wire is never taken for a request.

use std::net::Shutdown;

use crate::beside_a_neighbour;
use crate::common::Running;

/// A request that has an answer of its own. It stands behind each bad one.
const SMUGGLED: &str = "GET /demo.css HTTP/1.1\r\nHost: localhost\r\n\r\n";

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
}

fn line(line: &str) -> String {
    format!("{line}\r\nHost: localhost\r\n\r\n")
}

fn host(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\n{fields}\r\n")
}

type Case = (u16, &'static str, String);

/// Where a body ends.
fn framing() -> Vec<Case> {
    let chunks = |body: &str| post(CHUNKED, body);
    vec![
        (400, "a length and chunks", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        (400, "chunks and a length", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n")),
        (400, "two lengths", post("Content-Length: 0\r\nContent-Length: 43\r\n", "")),
        (400, "the same length twice", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        (400, "a list of lengths", post("Content-Length: 5, 5\r\n", "hello")),
        (400, "a length with a plus", post("Content-Length: +5\r\n", "hello")),
        (400, "a negative length", post("Content-Length: -1\r\n", "")),
        (400, "a hexadecimal length", post("Content-Length: 0x5\r\n", "hello")),
        (400, "an empty length", post("Content-Length: \r\n", "")),
        (400, "a length with a space in it", post("Content-Length: 1 0\r\n", "hello")),
        (400, "a length of more than 64 bits", post("Content-Length: 18446744073709551616\r\n", "")),
        (413, "a length of 64 bits", post("Content-Length: 18446744073709551615\r\n", "")),
        (413, "a length over the limit", post("Content-Length: 4194305\r\n", "")),
        (413, "a body of GET", get("Content-Length: 43\r\n")),
        (411, "a body of GET in chunks", get(CHUNKED)),
        (413, "a body of OPTIONS", post("Content-Length: 5\r\n", "hello").replace("POST", "OPTIONS")),
        (405, "a body that nobody takes", post("Content-Length: 43\r\n", "").replace("/echo", "/")),
        (405, "chunks that nobody takes", post(CHUNKED, "0\r\n\r\n").replace("/echo", "/")),
        (400, "two encodings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        (501, "chunked and something", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
        (501, "something and chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        (501, "an encoding that is nearly chunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
        (501, "an encoding in quotes", post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n")),
        (501, "an empty encoding", post("Transfer-Encoding: \r\n", "0\r\n\r\n")),
        (400, "an encoding behind a vertical tab", post("Transfer-Encoding: \u{b}chunked\r\n", "0\r\n\r\n")),
        (400, "a space before an encoding's colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")),
        (400, "a folded encoding", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")),
        (400, "chunks in HTTP/1.0", post(CHUNKED, "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0")),
        (400, "a chunk without a size", chunks("\r\nhello\r\n")),
        (400, "a chunk's size with 0x", chunks("0x5\r\nhello\r\n0\r\n\r\n")),
        (400, "a chunk's size with a plus", chunks("+5\r\nhello\r\n0\r\n\r\n")),
        (400, "a negative chunk", chunks("-1\r\n")),
        (400, "a space behind a chunk's size", chunks("5 \r\nhello\r\n0\r\n\r\n")),
        (400, "a chunk's size that overflows", chunks("10000000000000000\r\n")),
        (413, "a chunk of 64 bits", chunks("ffffffffffffffff\r\n")),
        (413, "chunks over the limit together", chunks("5\r\nhello\r\n3fffff\r\n")),
        (400, "a chunk that is longer than it says", chunks("4\r\nhello\r\n0\r\n\r\n")),
        (400, "a chunk's size that ends in LF", chunks("5\nhello\r\n0\r\n\r\n")),
        (400, "a chunk that ends in LF", chunks("5\r\nhello\n0\r\n\r\n")),
        (400, "a chunk's size that ends in CR", chunks("5\rhello\r\n0\r\n\r\n")),
        (400, "an extension that ends in LF", chunks("5;x\nhello\r\n0\r\n\r\n")),
        (400, "an extension with a zero byte", chunks("5;\0\r\nhello\r\n0\r\n\r\n")),
        (400, "an extension without an end", chunks(&format!("5;{}", "x".repeat(5000)))),
        (400, "a trailer that ends in LF", chunks("0\r\nX: y\n\r\n")),
        (400, "a folded trailer", chunks("0\r\nX: y\r\n z\r\n\r\n")),
        (400, "a trailer without a colon", chunks("0\r\nGET / HTTP/1.1\r\n\r\n")),
        (400, "trailers without an end", chunks(&format!("0\r\n{}", "X: y\r\n".repeat(1500)))),
        (400, "the end of chunks with LF", chunks("0\r\n\n")),
        (417, "an expectation that nobody knows", post("Expect: 200-ok\r\nContent-Length: 5\r\n", "hello")),
    ]
}

/// What the lines of a head are.
fn heads() -> Vec<Case> {
    vec![
        (400, "lines that end in LF", get("").replace("\r\n", "\n")),
        (400, "one line that ends in LF", get("A: b\nC: d\r\n")),
        (400, "a bare CR in a value", get("A: b\rC: d\r\n")),
        (400, "a request line that ends in CR", "GET / HTTP/1.1\rHost: localhost\r\n\r\n".into()),
        (400, "a zero byte in a value", get("A: b\0\r\n")),
        (400, "a zero byte in a name", get("A\0: b\r\n")),
        (400, "a zero byte in the target", line("GET /\0 HTTP/1.1")),
        (400, "an escape sequence in a value", get("A: \u{1b}[2J\r\n")),
        (400, "a folded line", get("A: b\r\n c\r\n")),
        (400, "a first line that is folded", host(" A: b\r\nHost: localhost\r\n")),
        (400, "a space before a colon", get("A : b\r\n")),
        (400, "no name", get(": b\r\n")),
        (400, "no colon", get("nonsense\r\n")),
        (400, "no Host", host("")),
        (400, "two Hosts", host("Host: localhost\r\nHost: localhost\r\n")),
        (400, "a list of hosts", host("Host: a, b\r\n")),
        (400, "a Host with a path", host("Host: a/b\r\n")),
        (400, "a Host with a user", host("Host: a@b\r\n")),
        (400, "a Host with a space", host("Host: a b\r\n")),
        (400, "an empty Host", host("Host:\r\n")),
        (400, "a Host that is a port", host("Host: :80\r\n")),
        (400, "a Host with two ports", host("Host: a:80:80\r\n")),
        (400, "a Host that contradicts the target", line("GET http://elsewhere/ HTTP/1.1")),
        (400, "a target that is no path", line("GET index.html HTTP/1.1")),
        (400, "a target of another scheme", line("GET ftp://localhost/ HTTP/1.1")),
        (400, "a star that is not for OPTIONS", line("GET * HTTP/1.1")),
        (400, "a fragment", line("GET /#top HTTP/1.1")),
        (400, "a broken escape", line("GET /%zz HTTP/1.1")),
        (400, "an escaped zero byte", line("GET /%00 HTTP/1.1")),
        (400, "an escaped line end", line("GET /a%0d%0aX:y HTTP/1.1")),
        (400, "two spaces", line("GET  / HTTP/1.1")),
        (400, "no version", line("GET /")),
        (400, "a version in lower case", line("GET / http/1.1")),
        (505, "another version", line("GET / HTTP/2.0")),
        (505, "the preface of HTTP/2 with a field", line("PRI * HTTP/2.0")),
        (400, "TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".into()),
        (501, "a method of its own", line("FETCH / HTTP/1.1")),
        (405, "CONNECT", line("CONNECT / HTTP/1.1")),
        (405, "TRACE", line("TRACE / HTTP/1.1")),
        (405, "DELETE", line("DELETE / HTTP/1.1")),
        (414, "a target over the limit", line(&format!("GET /{} HTTP/1.1", "a".repeat(8192)))),
        (414, "a target without an end", format!("GET /{}", "a".repeat(17 * 1024))),
        (431, "a field over the limit", get(&format!("A: {}\r\n", "b".repeat(17 * 1024)))),
        (431, "too many fields", get(&"A: b\r\n".repeat(100))),
        (403, "a POST from another site", post("Origin: https://evil.example\r\nContent-Length: 5\r\n", "hello")),
        (403, "a POST that nobody takes, from another site", line("POST / HTTP/1.1\r\nOrigin: null")),
        (403, "a topic for another site", line("GET /topics/t HTTP/1.1\r\nOrigin: https://evil.example")),
        (403, "a question from another site", get("Origin: https://evil.example\r\n").replace("GET", "OPTIONS")),
    ]
}

/// Sends it all, and the smuggled request behind it. What comes until the end.
fn answers(running: &Running, request: &str) -> String {
    let mut client = running.connect(0);
    client.try_send_raw(request.as_bytes());
    client.try_send_raw(SMUGGLED.as_bytes());
    String::from_utf8(client.exactly(usize::MAX)).unwrap()
}

#[test]
fn every_bad_request_is_the_last_of_its_connection() {
    beside_a_neighbour(
        |_| {},
        |running, neighbour| {
            let cases = [framing(), heads()].concat();
            assert!(cases.len() >= 90);
            for (status, what, request) in cases {
                let before = running.count(|shard| shard.http_errors_total.get());
                let answer = answers(running, &request);
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer:?}");
                assert_eq!(answer.matches("\r\nDate: ").count(), 1, "{what}: it is the only answer: {answer:?}");
                assert!(answer.contains("\r\nContent-Type: application/json\r\n"), "{what}: {answer}");
                assert!(answer.contains("close\r\n") && answer.contains("\r\nDate: "), "{what}: {answer}");
                assert_eq!(running.count(|shard| shard.http_errors_total.get()), before + 1, "{what}");
                neighbour.is_well();
            }
        },
    );
}

#[test]
fn the_smuggled_request_is_one_behind_a_good_one() {
    beside_a_neighbour(
        |_| {},
        |running, _| {
            let good = post("Content-Length: 5\r\n", "hello");
            let mut client = running.connect(0);
            client.send_raw((good + SMUGGLED).as_bytes());
            assert_eq!((client.answer().status, client.answer().status), (200, 200));
        },
    );
}

#[test]
fn a_request_that_is_cut_off_has_no_answer() {
    beside_a_neighbour(
        |_| {},
        |running, neighbour| {
            for request in [
                String::new(),
                "G".into(),
                "GET / HTTP/1.1\r\nHost: localhost\r\n".into(),
                post("Content-Length: 6\r\n", "hello"),
                post(CHUNKED, ""),
                post(CHUNKED, "5\r\nhel"),
                post(CHUNKED, "5\r\nhello\r\n0\r\n"),
            ] {
                let mut client = running.connect(0);
                client.send_raw(request.as_bytes());
                client.stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(client.exactly(usize::MAX), b"", "{request:?}");
                neighbour.is_well();
            }
        },
    );
}
