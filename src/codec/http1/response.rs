//! Responses, of every version: what they say is the same.

use super::date::Date;
use crate::codec::http2::{self, StreamId};
use crate::codec::json::{self, write_number};

/// The version of a request, and so of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0, where to go on has to be said.
    #[default]
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2, on this stream. Heads are written as whole HEADERS frames, bodies as they are: DATA frames are made of them
    /// where the windows are known.
    Http2(StreamId),
}

/// How an answer has to be, given its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The connection goes on after it.
    pub keep_alive: bool,
    /// The request was HEAD: everything but the body.
    pub head_only: bool,
    /// The version of the request.
    pub version: Version,
    /// When it is.
    pub date: Date,
    /// The other site whose page asks, and may read the answer (CORS).
    pub origin: Option<&'a [u8]>,
    /// It may do so with its visitor's cookies and the like, as one that was named and not merely let in with all.
    pub credentials: bool,
}

/// What a page of another site may read beside the fields that all may.
const EXPOSED: &str = "Holdline-Cursor, Retry-After";

impl Reply<'_> {
    /// The last answer of a connection.
    #[must_use]
    pub const fn last(date: Date) -> Self {
        Self { keep_alive: false, head_only: false, version: Version::Http11, date, origin: None, credentials: false }
    }
}

/// The phrase of a status, RFC 9110 section 15 and RFC 6585.
#[must_use]
pub const fn phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// Appends a response with a body of known length.
///
/// `extra` are header fields of ours; control characters in their values are left out, so that a value which repeats
/// something of a peer's cannot become a field of its own.
pub fn write_page(
    status: u16,
    content_type: &str,
    body: &[u8],
    extra: &[(&str, &str)],
    reply: Reply<'_>,
    out: &mut Vec<u8>,
) {
    if let Version::Http2(stream) = reply.version {
        let (mut room, length) = ([0; 20], body.len() as u64);
        let own = [("Content-Type", content_type), ("Content-Length", decimal(length, &mut room))];
        let fields = own.into_iter().chain(extra.iter().copied());
        write_http2(stream, status, fields, b"", reply, body.is_empty(), out);
        if !reply.head_only {
            out.extend_from_slice(body);
        }
        return;
    }
    write_status(status, out);
    write_field("Content-Type", content_type.as_bytes(), out);
    out.extend_from_slice(b"Content-Length: ");
    write_number(body.len() as u64, out);
    out.extend_from_slice(b"\r\n");
    write_fields(extra, reply, out);
    if !reply.head_only {
        out.extend_from_slice(body);
    }
}

/// Appends a response's head that says nothing of a body, but what `extra` says: one without any (204, 304), or one
/// whose length is not known yet.
pub fn write_head(status: u16, extra: &[(&str, &str)], reply: Reply<'_>, out: &mut Vec<u8>) {
    if let Version::Http2(stream) = reply.version {
        return write_http2(stream, status, extra.iter().copied(), b"", reply, matches!(status, 204 | 304), out);
    }
    write_status(status, out);
    write_fields(extra, reply, out);
}

/// Appends the head of a response whose fields are written out already, each line with its CRLF. `length` is that of the
/// body that follows; a 304 has none and does not say one (RFC 9110 section 8.6).
pub fn write_prepared(status: u16, fields: &[u8], length: u64, reply: Reply<'_>, out: &mut Vec<u8>) {
    if let Version::Http2(stream) = reply.version {
        let mut room = [0; 20];
        let length = (status != 304).then(|| ("Content-Length", decimal(length, &mut room)));
        let ends = matches!(length, None | Some((_, "0")));
        return write_http2(stream, status, length.into_iter(), fields, reply, ends, out);
    }
    write_status(status, out);
    out.extend_from_slice(fields);
    if status != 304 {
        out.extend_from_slice(b"Content-Length: ");
        write_number(length, out);
        out.extend_from_slice(b"\r\n");
    }
    write_fields(&[], reply, out);
}

/// The same as a HEADERS frame: `fields`, those of `lines`, and what every response has. `ends`: there is no body.
fn write_http2<'f>(
    stream: StreamId,
    status: u16,
    fields: impl Iterator<Item = (&'f str, &'f str)>,
    lines: &'f [u8],
    reply: Reply<'_>,
    ends: bool,
    out: &mut Vec<u8>,
) {
    let is_hop =
        |name: &str| ["connection", "upgrade", "transfer-encoding"].iter().any(|hop| name.eq_ignore_ascii_case(hop));
    let own = fields.filter(|(name, _)| !is_hop(name)).map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let lines = lines.split(|&byte| byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    });
    let origin = reply.origin.map(|origin| {
        let allows = [(&b"access-control-allow-origin"[..], origin), (b"vary", b"Origin")];
        let credentials = reply.credentials.then_some((&b"access-control-allow-credentials"[..], &b"true"[..]));
        let exposes = (&b"access-control-expose-headers"[..], EXPOSED.as_bytes());
        allows.into_iter().chain([exposes]).chain(credentials)
    });
    let date = [(&b"date"[..], reply.date.as_bytes())];
    let all = own.chain(lines).chain(origin.into_iter().flatten()).chain(date);
    http2::response::write_head(stream, status, all, ends || reply.head_only, out);
}

/// A number in `room`.
fn decimal(mut number: u64, room: &mut [u8; 20]) -> &str {
    let mut start = room.len();
    loop {
        start -= 1;
        room[start] = b"0123456789"[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            return str::from_utf8(&room[start..]).unwrap_or("0");
        }
    }
}

fn write_status(status: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_number(u64::from(status), out);
    out.push(b' ');
    out.extend_from_slice(phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The fields that every response has, and the end of its head.
fn write_fields(extra: &[(&str, &str)], reply: Reply<'_>, out: &mut Vec<u8>) {
    for (name, value) in extra {
        write_field(name, value.as_bytes(), out);
    }
    let is_said = extra.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection"));
    if !reply.keep_alive && !is_said {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if reply.version == Version::Http10 && !is_said {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    if let Some(origin) = reply.origin {
        write_field("Access-Control-Allow-Origin", origin, out);
        write_field("Vary", b"Origin", out);
        write_field("Access-Control-Expose-Headers", EXPOSED.as_bytes(), out);
        if reply.credentials {
            write_field("Access-Control-Allow-Credentials", b"true", out);
        }
    }
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(reply.date.as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends an error: JSON `{"error":{"code","message"}}`.
pub fn write_error(
    status: u16,
    code: &str,
    message: &str,
    extra: &[(&str, &str)],
    reply: Reply<'_>,
    out: &mut Vec<u8>,
) {
    let mut body = Vec::with_capacity(64 + code.len() + message.len());
    json::write_error(code, message, &mut body);
    write_page(status, "application/json", &body, extra, reply, out);
}

fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.iter().copied().filter(|byte| !byte.is_ascii_control()));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// As the answer to a plain request.
    fn goes_on() -> Reply<'static> {
        Reply { keep_alive: true, ..last() }
    }

    fn last() -> Reply<'static> {
        Reply::last(Date::from_unix(784_111_777))
    }

    const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_page() {
        let page = text(|out| write_page(200, "text/plain", b"hello", &[("X-A", "b")], goes_on(), out));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nX-A: b\r\n";
        assert_eq!(page, format!("{head}{DATE}\r\nhello"));
    }

    #[test]
    fn the_answer_to_head_has_everything_but_the_body() {
        let reply = Reply { head_only: true, ..last() };
        let page = text(|out| write_page(200, "text/plain", b"0123456789", &[], reply, out));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10\r\nConnection: close\r\n";
        assert_eq!(page, format!("{head}{DATE}\r\n"));
    }

    #[test]
    fn an_error_is_escaped_json() {
        let error = text(|out| write_error(404, "not_found", "no \"x\"\\\n\u{1}ü", &[], last(), out));
        assert!(error.starts_with("HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n"), "{error}");
        let (_, body) = error.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "{\"error\":{\"code\":\"not_found\",\"message\":\"no \\\"x\\\"\\\\\\n\\u0001ü\"}}\n");
        assert!(error.contains(&format!("Content-Length: {}\r\n", body.len())));
    }

    #[test]
    fn a_value_cannot_become_a_field() {
        let page =
            text(|out| write_page(200, "text/plain", b"", &[("Location", "/a\r\nSet-Cookie: b")], goes_on(), out));
        assert!(page.contains("Location: /aSet-Cookie: b\r\nDate"));
    }

    #[test]
    fn to_go_on_is_said_to_old_clients_only() {
        let old = Reply { version: Version::Http10, ..goes_on() };
        let head = format!("HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n{DATE}\r\n");
        assert_eq!(text(|out| write_head(204, &[], old, out)), head);
        let modern = text(|out| write_head(204, &[("Allow", "GET")], goes_on(), out));
        assert_eq!(modern, format!("HTTP/1.1 204 No Content\r\nAllow: GET\r\n{DATE}\r\n"));
        let own = text(|out| write_head(426, &[("Connection", "Upgrade, close")], last(), out));
        assert_eq!(own.matches("Connection").count(), 1);
    }

    #[test]
    fn a_page_of_another_site_may_read_the_answer() {
        let reply = Reply { origin: Some(b"https://app.example"), ..goes_on() };
        let page = text(|out| write_page(200, "text/plain", b"", &[], reply, out));
        assert!(page.contains("\r\nAccess-Control-Allow-Origin: https://app.example\r\nVary: Origin\r\n"), "{page}");
        assert!(page.contains("\r\nAccess-Control-Expose-Headers: Holdline-Cursor, Retry-After\r\n"), "{page}");
        assert!(!page.contains("Credentials"), "{page}");
        let page = text(|out| write_page(200, "text/plain", b"", &[], Reply { credentials: true, ..reply }, out));
        assert!(page.contains("\r\nAccess-Control-Allow-Credentials: true\r\n"), "{page}");
    }
}
