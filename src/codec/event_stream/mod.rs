//! The client's side of server-sent events, as the HTML standard has them (section 9.2): the request, the check of the
//! answer, its [body](Body), and the [items](event::Item) in that.
//!
//! Nothing is kept here between two calls but the four bytes of a [`Body`]. What is not whole stays with the caller.

pub mod body;
pub mod event;

pub use self::body::{BadBody, Body};
use super::websocket::client::{HEAD_BYTES_MAX, field};

const FIELDS_MAX: usize = 64;

/// Appends the request for a stream. `path` and `authority` (host and port) must not contain spaces or control
/// characters.
pub fn write_request(path: &str, authority: &str, out: &mut Vec<u8>) {
    for part in [
        "GET ",
        path,
        " HTTP/1.1\r\nHost: ",
        authority,
        "\r\nAccept: text/event-stream\r\nCache-Control: no-store\r\nUser-Agent: holdline/",
        env!("CARGO_PKG_VERSION"),
        "\r\n\r\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// An answer that opens no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// A server that says no.
    #[error("the server answered {status}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// Seconds after which to come back.
        retry_after: Option<u32>,
    },
    /// Something else than an event stream.
    #[error("no event stream: {0}")]
    Broken(&'static str),
}

/// The head of an answer that opens a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Bytes of the head; the body follows it.
    pub head_bytes: usize,
    /// How to read the body.
    pub body: Body,
}

/// Checks the answer at the beginning of `bytes`; `None` while its head is not whole.
///
/// # Errors
/// When it opens no stream that goes on until one side ends it.
pub fn check_answer(bytes: &[u8]) -> Result<Option<Welcome>, BadAnswer> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let head_bytes = match response.parse(&bytes[..bytes.len().min(HEAD_BYTES_MAX)]) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() >= HEAD_BYTES_MAX => {
            return Err(BadAnswer::Broken("its answer does not end"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadAnswer::Broken("what it says is not HTTP")),
    };
    let status = response.code.unwrap_or(0);
    if status != 200 {
        let retry_after = field(&response, "retry-after").and_then(|after| after.parse().ok());
        return Err(BadAnswer::Status { status, retry_after });
    }
    let field = |name| field(&response, name);
    if !field("content-type").is_some_and(is_event_stream) {
        return Err(BadAnswer::Broken("its answer is not of Content-Type text/event-stream"));
    }
    if field("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(BadAnswer::Broken("it encodes the stream, which we did not offer"));
    }
    let body = match field("transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => Body::chunked(),
        Some(_) => return Err(BadAnswer::Broken("it has a Transfer-Encoding other than chunked")),
        None if field("content-length").is_some() => {
            return Err(BadAnswer::Broken("its answer has a Content-Length, and hence an end"));
        }
        None => Body::until_close(),
    };
    Ok(Some(Welcome { head_bytes, body }))
}

/// Parameters, such as a charset, may follow.
fn is_event_stream(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\n";

    fn answer(head: &str) -> Result<Option<Welcome>, BadAnswer> {
        check_answer(head.as_bytes())
    }

    #[test]
    fn a_request_asks_for_events() {
        let mut out = Vec::new();
        write_request("/topics/t?echo=0", "h:1", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("GET /topics/t?echo=0 HTTP/1.1\r\nHost: h:1\r\nAccept: text/event-stream\r\n"),
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn both_kinds_of_body_are_taken_wherever_the_head_is_cut() {
        for (fields, body) in [
            ("Content-Type: text/event-stream\r\n", Body::until_close()),
            ("content-type: Text/Event-Stream; charset=utf-8\r\nTransfer-Encoding: Chunked\r\n", Body::chunked()),
        ] {
            let head = format!("{OK}{fields}\r\n");
            for cut in 0..head.len() {
                assert_eq!(answer(&head[..cut]), Ok(None), "{cut}");
            }
            assert_eq!(answer(&format!("{head}rest")), Ok(Some(Welcome { head_bytes: head.len(), body })));
        }
    }

    #[test]
    fn what_is_no_endless_stream_is_told() {
        let stream = "Content-Type: text/event-stream\r\n";
        for (head, expected) in [
            (format!("{OK}Content-Type: text/html\r\n\r\n"), "not of Content-Type"),
            (format!("{OK}\r\n"), "not of Content-Type"),
            (format!("{OK}{stream}Content-Length: 3\r\n\r\n"), "hence an end"),
            (format!("{OK}{stream}Transfer-Encoding: gzip, chunked\r\n\r\n"), "other than chunked"),
            (format!("{OK}{stream}Content-Encoding: gzip\r\n\r\n"), "did not offer"),
            ("SSH-2.0-x\r\n".to_owned(), "not HTTP"),
            (format!("{OK}A: {}", "a".repeat(HEAD_BYTES_MAX)), "does not end"),
        ] {
            let said = answer(&head).unwrap_err().to_string();
            assert!(said.contains(expected), "{head}: {said}");
        }
    }

    #[test]
    fn a_no_is_told_with_its_status() {
        let no = |status, retry_after| Err(BadAnswer::Status { status, retry_after });
        assert_eq!(answer("HTTP/1.1 503 X\r\nRetry-After: 7\r\n\r\n"), no(503, Some(7)));
        assert_eq!(answer("HTTP/1.1 404 X\r\nRetry-After: soon\r\n\r\n"), no(404, None));
        assert_eq!(answer("HTTP/1.1 204 X\r\nContent-Type: text/event-stream\r\n\r\n"), no(204, None));
    }
}
