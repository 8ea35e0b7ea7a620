//! Server-sent events as a server writes them, WHATWG HTML section 9.2.
//!
//! ```text
//! id: 1732795000000:7        where the stream stands when this has been seen
//! event: reset               left out for messages of text
//! data: first line
//! data: second line
//!                            the empty line hands the event over
//! ```
//!
//! CR, LF and CR LF all end a line for the reader, so each becomes a line of data of its own: a payload can end neither
//! its event nor become a field (CVE-2026-43968).

use std::fmt::Display;
use std::io::Write;

/// A comment, which the reader skips: a heartbeat.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// Appends the place that a reader says it has seen when it comes again. Without data behind it no event is handed over.
pub fn write_id(id: impl Display, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = writeln!(out, "id: {id}");
}

/// Appends the kind of event, one line of ours.
pub fn write_event(event: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    out.push(b'\n');
}

/// Appends the data, and the empty line that hands the event over.
pub fn write_data(data: &[u8], out: &mut Vec<u8>) {
    out.reserve(data.len() + 16);
    let mut rest = data;
    loop {
        let end = memchr::memchr2(b'\n', b'\r', rest);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        out.push(b'\n');
        let Some(end) = end else { break };
        let both = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(both)..];
    }
    out.push(b'\n');
}

/// Appends what a stream begins with: after how long a reader that lost it comes again, and, where that is known, the place
/// from which it goes on then. The place comes with an event of its own, `start`: some readers take no id without data.
pub fn write_start(retry_ms: u64, id: Option<&dyn Display>, out: &mut Vec<u8>) {
    let _ = writeln!(out, "retry: {retry_ms}");
    if let Some(id) = id {
        write_id(id, out);
        write_event("start", out);
        write_data(&[], out);
    } else {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_data(data, &mut out);
        out
    }

    #[test]
    fn every_line_of_the_payload_is_data() {
        assert_eq!(data(b"hello"), b"data: hello\n\n");
        assert_eq!(data(b""), b"data: \n\n");
        assert_eq!(data(b"one\ntwo\n"), b"data: one\ndata: two\ndata: \n\n");
        assert_eq!(data(b" lead"), b"data:  lead\n\n", "the reader takes one space away");
    }

    #[test]
    fn cve_2026_43968_a_bare_cr_is_no_field() {
        let out = data(b"a\rid: 9\r\nevent: x\n\rretry: 1");
        assert_eq!(out, b"data: a\ndata: id: 9\ndata: event: x\ndata: \ndata: retry: 1\n\n");
    }

    #[test]
    fn a_stream_begins_with_its_place() {
        let mut out = Vec::new();
        write_start(3000, Some(&"1:2"), &mut out);
        write_id("1:3", &mut out);
        write_event("reset", &mut out);
        write_data(b"{}", &mut out);
        assert_eq!(out, b"retry: 3000\nid: 1:2\nevent: start\ndata: \n\nid: 1:3\nevent: reset\ndata: {}\n\n");
    }
}
