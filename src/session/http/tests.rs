#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bodies;

use super::*;
use crate::config::{Limits, Origins};
use crate::session::{Partials, Tools};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A service out of a closure that takes no body.
struct Plain<F>(F);

impl<T, F: FnMut(&Head<'_>) -> Result<T, Violation>> Service for Plain<F> {
    type Answer = T;

    fn preflight(&mut self, _head: &Head<'_>) -> Result<Preflight, Violation> {
        Ok(Preflight::Now)
    }

    fn answer(&mut self, head: &Head<'_>, _body: Option<&[u8]>) -> Result<T, Violation> {
        self.0(head)
    }
}

/// What the server would answer to these pieces: the status that a violation has, `101` for a handshake, or the request
/// in words; `None` while the head is unfinished.
fn answer<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits, policy: &UpgradePolicy) -> Option<String> {
    let (mut tools, mut partials, mut partial) = (Tools::default(), Partials::default(), None);
    for piece in pieces {
        let mut env = Env { limits, tools: &mut tools, partials: &mut partials };
        let mut service = Plain(|head: &Head<'_>| {
            if head.has_token("upgrade", "websocket") {
                return upgrade(head, policy).map(|_| "101".to_owned());
            }
            refuse_body(head)?;
            let (method, path, query) = (head.method(), head.path(), head.raw_query());
            Ok(format!("{method} {path}?{query} keep_alive={}", head.keep_alive()))
        });
        let progress = receive(&mut partial, &mut piece.to_vec(), &mut env, &mut service);
        match progress.map(|progress| progress.outcome) {
            Ok(None) => assert!(partial.as_ref().is_none_or(|kept| kept.buf.len() < limits.head_bytes_max)),
            Ok(Some(words)) => return Some(words),
            Err(violation) => {
                assert!(partial.is_none(), "nothing is kept of a head that is refused");
                return Some(violation.status().to_string());
            }
        }
    }
    None
}

fn ask(head: &str) -> Option<String> {
    answer([head.as_bytes()], &Limits::default(), &UpgradePolicy::default())
}

/// A head with these lines behind a good request line.
fn with(lines: &str) -> String {
    format!("GET /a HTTP/1.1\r\n{lines}\r\n\r\n")
}

/// An opening handshake where one line is replaced by another, or left out when there is none.
fn handshake(line: &str, other: &str) -> String {
    let good = format!(
        "GET /echo HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nOrigin: http://example.com\r\n\r\n"
    );
    if line.is_empty() {
        return good;
    }
    let lines = good.split_inclusive("\r\n").map(|good| match good.trim_end() {
        found if found == line && other.is_empty() => String::new(),
        found if found == line => format!("{other}\r\n"),
        _ => good.to_owned(),
    });
    let changed: String = lines.collect();
    assert!(changed != good, "{line} is a line of it");
    changed
}

#[test]
fn good_requests() {
    for (head, words) in [
        (with("Host: a"), "GET /a? keep_alive=true"),
        (with("Host: a\r\nConnection: Close"), "GET /a? keep_alive=false"),
        (with("host:a\r\nContent-Length: 0"), "GET /a? keep_alive=true"),
        (with("Host: a:80\r\nX: \t spaced \t\r\nEmpty:"), "GET /a? keep_alive=true"),
        (with("Host: [::1]:8080\r\nObs-Text: \u{e9}"), "GET /a? keep_alive=true"),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "GET /? keep_alive=true"),
        ("GET / HTTP/1.0\r\n\r\n".into(), "GET /? keep_alive=false"),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n".into(), "GET /? keep_alive=true"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n".into(), "GET /? keep_alive=false"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(), "OPTIONS *? keep_alive=true"),
        ("HEAD /%C3%BC?q=%20x HTTP/1.1\r\nHost: a\r\n\r\n".into(), "HEAD /ü?q=%20x keep_alive=true"),
        ("GET http://a:8080/b?c HTTP/1.1\r\nHost: A:8080\r\n\r\n".into(), "GET /b?c keep_alive=true"),
        ("GET HTTP://a HTTP/1.1\r\nHost: a\r\n\r\n".into(), "GET /? keep_alive=true"),
    ] {
        assert_eq!(ask(&head).as_deref(), Some(words), "{head:?}");
    }
}

#[test]
fn malformed_and_hostile_heads() {
    for (status, head) in [
        // Where a line ends.
        (400, "GET / HTTP/1.1\nHost: a\n\n".into()),
        (400, "GET / HTTP/1.1\r\nHost: a\n\r\n".into()),
        (400, "GET / HTTP/1.1\rHost: a\r\n\r\n".into()),
        (400, with("Host: a\r\nX: b\rY: c")),
        (400, with("Host: a\r\nX: b\r")),
        (400, with("Host: a\r\n folded: b")),
        (400, with("Host: a\r\nX: b\r\n\tfolded")),
        (400, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        // Names and values.
        (400, with("Host : a")),
        (400, with(" Host: a")),
        (400, with("Host: a\r\nX Y: b")),
        (400, with("Host: a\r\n: b")),
        (400, with("Host: a\r\nno colon")),
        (400, with("Host: a\r\nX: a\0b")),
        (400, with("Host: a\r\nX\0: b")),
        (400, with("Host: a\r\nX: \u{7f}")),
        (400, with("Host: a\r\nX: \u{1b}[2J")),
        (400, with("Host: a\r\nü: b")),
        // The host.
        (400, with("X: no host")),
        (400, with("Host: a\r\nHost: a")),
        (400, with("Host: a\r\nhost: b")),
        (400, with("Host: a, b")),
        (400, with("Host: a/b")),
        (400, with("Host: user@a")),
        (400, with("Host: a b")),
        (400, with("Host:")),
        (400, with("Host: :80")),
        (400, with("Host: a:b")),
        (400, with("Host: a:80:80")),
        (400, with("Host: a:0")),
        (400, with("Host: a:65536")),
        (400, with("Host: ::1")),
        (400, with("Host: [::1")),
        (400, with("Host: [a]")),
        (400, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        // Where the body ends.
        (400, with("Host: a\r\nContent-Length: 5\r\nContent-Length: 5")),
        (400, with("Host: a\r\nContent-Length: 5\r\nContent-Length: 6")),
        (400, with("Host: a\r\nContent-Length: 5, 5")),
        (400, with("Host: a\r\nContent-Length: +5")),
        (400, with("Host: a\r\nContent-Length: -5")),
        (400, with("Host: a\r\nContent-Length: 0x5")),
        (400, with("Host: a\r\nContent-Length:")),
        (400, with("Host: a\r\nContent-Length: 99999999999999999999")),
        (400, with("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked")),
        (400, with("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
        (400, with("Host: a\r\nTransfer-Encoding: identity\r\nContent-Length: 5")),
        (501, with("Host: a\r\nTransfer-Encoding: gzip, chunked")),
        (501, with("Host: a\r\nTransfer-Encoding: xchunked")),
        (400, "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into()),
        // The request line.
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /\r\nHost: a\r\n\r\n".into()),
        (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n".into()),
        (400, "GET / HTTP/x.y\r\nHost: a\r\n\r\n".into()),
        (400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /a%0d%0aSet-Cookie:b HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /?a=%f HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "GET /?a=%ff HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (400, "\u{16}\u{3}\u{1}\u{2}".into()),
        (400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        (505, "GET / HTTP/0.9\r\nHost: a\r\n\r\n".into()),
        (505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n".into()),
        // Bodies and methods that are not served.
        (405, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".into()),
        (501, "BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (501, "get / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (413, with("Host: a\r\nContent-Length: 5")),
        (411, with("Host: a\r\nTransfer-Encoding: chunked")),
        // Over the limits.
        (414, format!("GET /{} HTTP/1.1\r\n", "a".repeat(16 * 1024))),
        (414, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(8 * 1024))),
        (431, with(&format!("Host: a\r\nCookie: {}", "c".repeat(16 * 1024)))),
        (431, with(&format!("Host: a{}", "\r\nX: b".repeat(100)))),
    ] {
        assert_eq!(ask(&head).unwrap(), status.to_string(), "{head:?}");
    }
}

#[test]
fn handshakes() {
    for (line, other) in [
        ("", ""),
        ("Upgrade: websocket", "upgrade: h2c, WebSocket"),
        ("Connection: keep-alive, Upgrade", "Connection: keep-alive\r\nConnection: ,upgrade"),
        ("Origin: http://example.com", ""),
        ("Origin: http://example.com", "Origin: HTTP://EXAMPLE.com:80"),
        ("Origin: http://example.com", "Origin: https://example.com"),
        ("Host: example.com", "Host: example.com:80"),
    ] {
        assert_eq!(ask(&handshake(line, other)).unwrap(), "101", "{other:?}");
    }
}

#[test]
fn malformed_and_hostile_handshakes() {
    let key = format!("Sec-WebSocket-Key: {KEY}");
    let first = "GET /echo HTTP/1.1";
    for (status, line, other) in [
        (405, first, "POST /echo HTTP/1.1"),
        (426, first, "HEAD /echo HTTP/1.1"),
        (400, first, "GET /echo HTTP/1.0"),
        (505, first, "GET /echo HTTP/2.0"),
        (400, "Connection: keep-alive, Upgrade", ""),
        (400, "Connection: keep-alive, Upgrade", "Connection: keep-alive"),
        (400, "Connection: keep-alive, Upgrade", "Connection: upgraded"),
        (426, "Sec-WebSocket-Version: 13", ""),
        (426, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
        (426, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13"),
        (426, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13, 8"),
        (400, &key, ""),
        (400, &key, "Sec-WebSocket-Key:"),
        (400, &key, "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="),
        (400, &key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ!="),
        (400, &key, &format!("{key}\r\n{key}")),
        (403, "Origin: http://example.com", "Origin: http://evil.example"),
        (403, "Origin: http://example.com", "Origin: http://example.com.evil.example"),
        (403, "Origin: http://example.com", "Origin: http://example.com:8080"),
        (403, "Origin: http://example.com", "Origin: null"),
        (403, "Origin: http://example.com", "Origin:"),
        (403, "Origin: http://example.com", "Origin: ftp://example.com"),
        (403, "Origin: http://example.com", "Origin: http://example.com\r\nOrigin: http://evil.example"),
        (413, "Host: example.com", "Host: example.com\r\nContent-Length: 3"),
        (411, "Host: example.com", "Host: example.com\r\nTransfer-Encoding: chunked"),
    ] {
        assert_eq!(ask(&handshake(line, other)).unwrap(), status.to_string(), "{other:?}");
    }
}

#[test]
fn bytes_before_the_101_are_refused() {
    // CVE-2026-2833.
    let smuggled = handshake("", "") + "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(ask(&smuggled).unwrap(), "400");
    let (head, rest) = smuggled.split_at(smuggled.len() - 40);
    let cut = [head.as_bytes(), rest.as_bytes()];
    assert_eq!(answer(cut, &Limits::default(), &UpgradePolicy::default()).unwrap(), "400", "kept and cut");
}

#[test]
fn a_plain_request_for_a_websocket_is_told_what_to_do() {
    let mut out = Vec::new();
    Violation::UpgradeRequired("").write(Reply::last(Date::from_unix(0)), &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{text}");
    assert!(text.contains("\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n"), "{text}");
    let mut out = Vec::new();
    Violation::WebSocketVersion.write(Reply::last(Date::from_unix(0)), &mut out);
    assert!(String::from_utf8(out).unwrap().contains("\r\nSec-WebSocket-Version: 13\r\n"));
    let mut out = Vec::new();
    Violation::MethodNotAllowed(METHODS).write(Reply::last(Date::from_unix(0)), &mut out);
    assert!(String::from_utf8(out).unwrap().contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"));
}

/// The whole 101 that a handshake gets.
fn switching(head: &str, policy: &UpgradePolicy) -> String {
    let (limits, mut tools, mut partials) = (Limits::default(), Tools::default(), Partials::default());
    let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
    let mut out = Vec::new();
    let mut service = Plain(|head: &Head<'_>| {
        write_switching_protocols(&upgrade(head, policy)?, &mut out);
        Ok(())
    });
    let progress = receive(&mut None, &mut head.as_bytes().to_vec(), &mut env, &mut service);
    assert_eq!(progress, Ok(Progress { consumed: head.len(), outcome: Some(()), expects: false }));
    String::from_utf8(out).unwrap()
}

#[test]
fn the_101_of_rfc_6455_section_1_3() {
    let answer = switching(&handshake("", ""), &UpgradePolicy::default());
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(answer, expected);
}

#[test]
fn a_subprotocol_is_ours_by_preference_and_only_when_offered() {
    let policy =
        UpgradePolicy { subprotocols: vec!["holdline.v2".into(), "holdline.v1".into()], ..UpgradePolicy::default() };
    for (offer, chosen) in [
        ("Sec-WebSocket-Protocol: holdline.v1", Some("holdline.v1")),
        ("Sec-WebSocket-Protocol: chat, holdline.v1,holdline.v2", Some("holdline.v2")),
        ("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: holdline.v1", Some("holdline.v1")),
        ("Sec-WebSocket-Protocol: chat", None),
        ("Sec-WebSocket-Protocol: HOLDLINE.V1", None),
        ("X: y", None),
    ] {
        let head = handshake("Host: example.com", &format!("Host: example.com\r\n{offer}"));
        let answer = switching(&head, &policy);
        let found = answer.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
        assert_eq!(found, chosen, "{offer}");
    }
}

#[test]
fn deflate_is_agreed_on_when_both_want_it() {
    let offers = "Sec-WebSocket-Extensions: x-unknown\r\nSec-WebSocket-Extensions: permessage-deflate";
    let head = handshake("Host: example.com", &format!("Host: example.com\r\n{offers}"));
    assert!(!switching(&head, &UpgradePolicy::default()).contains("Sec-WebSocket-Extensions"));
    let policy = UpgradePolicy { deflate: true, ..UpgradePolicy::default() };
    assert!(switching(&head, &policy).contains("\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_"));
    assert!(!switching(&handshake("", ""), &policy).contains("Sec-WebSocket-Extensions"));
}

#[test]
fn listed_origins_and_any() {
    let only = |list: &[&str]| Origins { any: false, same: false, list: list.iter().map(|&o| o.into()).collect() };
    let any = Origins { any: true, ..only(&[]) };
    let same_or = |list| Origins { same: true, ..only(list) };
    for (origin, origins, status) in [
        ("https://friend.example:8443", Origins::default(), "403"),
        ("https://friend.example:8443", same_or(&["https://friend.example"]), "403"),
        ("https://friend.example:8443", same_or(&["https://friend.example:8443"]), "101"),
        ("HTTPS://Friend.example:8443", same_or(&["https://friend.example:8443"]), "101"),
        ("https://friend.example:8443", any.clone(), "101"),
        ("HTTP://Example.com", same_or(&[]), "101"),
        ("https://EXAMPLE.com:443", same_or(&[]), "101"),
        ("http://Example.com", only(&["https://friend.example"]), "403"),
        ("http://example.com.evil", same_or(&[]), "403"),
        ("http://example.com:8080", same_or(&[]), "403"),
        ("http://", same_or(&[]), "403"),
        ("file://example.com", same_or(&[]), "403"),
        ("null", same_or(&["https://friend.example"]), "403"),
        ("null", any, "101"),
    ] {
        let head = handshake("Origin: http://example.com", &format!("Origin: {origin}"));
        let policy = UpgradePolicy { origins, ..UpgradePolicy::default() };
        assert_eq!(answer([head.as_bytes()], &Limits::default(), &policy).unwrap(), status, "{origin} {policy:?}");
    }
}

#[test]
fn cuts_do_not_matter() {
    let limits = Limits { head_bytes_max: 300, head_fields_max: 8, ..Limits::default() };
    let policy = UpgradePolicy::default();
    for head in [
        handshake("", ""),
        with("Host: a"),
        with("Host: a\r\nX: b\n"),
        with("Host: a\r\nHost: b"),
        format!("\r\n{}", with("Host: a")),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(267)),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(268)),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(400)),
        with(&"X: y\r\n".repeat(9)),
        "\u{16}\u{3}\u{1}".into(),
    ] {
        let bytes = head.as_bytes();
        let expected = answer([bytes], &limits, &policy);
        assert!(expected.is_some(), "{head:?}");
        assert_eq!(answer(bytes.chunks(1), &limits, &policy), expected, "byte by byte: {head:?}");
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(answer([first, second], &limits, &policy), expected, "cut at {cut}: {head:?}");
        }
    }
}

#[test]
fn a_whole_head_keeps_nothing_and_leaves_what_follows() {
    let (limits, mut tools, mut partials) = (Limits::default(), Tools::default(), Partials::default());
    let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
    let two = with("Host: a") + &with("Host: b");
    let mut partial = None;
    let mut behind = Plain(|head: &Head<'_>| Ok(head.behind()));
    let progress = receive(&mut partial, &mut two.as_bytes().to_vec(), &mut env, &mut behind).unwrap();
    assert_eq!(progress, Progress { consumed: two.len() / 2, outcome: Some(two.len() / 2), expects: false });
    assert!(partial.is_none());
    // Cut inside the second: kept, and only its own bytes are consumed.
    let second = &two.as_bytes()[two.len() / 2..];
    let (first, rest) = second.split_at(10);
    assert_eq!(receive(&mut partial, &mut first.to_vec(), &mut env, &mut behind).unwrap().consumed, 10);
    let mut rest = [rest, b"GET"].concat();
    let progress = receive(&mut partial, &mut rest, &mut env, &mut behind).unwrap();
    assert_eq!(progress, Progress { consumed: rest.len() - 3, outcome: Some(3), expects: false });
    assert!(partial.is_none());
}

#[test]
fn a_dribbled_head_is_not_scanned_again() {
    // CVE-2023-43669: a byte a time must not cost the square of the head. A limit of 1 MiB makes it show: 5e11 steps
    // would not end.
    let limits = Limits { head_bytes_max: 1 << 20, target_bytes_max: 1 << 20, ..Limits::default() };
    let (mut tools, mut partials, mut partial) = (Tools::default(), Partials::default(), None);
    let start = b"GET / HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'a'));
    for (count, byte) in start.enumerate() {
        let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
        let result = receive(&mut partial, &mut [*byte], &mut env, &mut Plain(|_: &Head<'_>| Ok(())));
        if let Err(violation) = result {
            assert_eq!((count, violation.status()), ((1 << 20) - 1, 431));
            break;
        }
    }
}
