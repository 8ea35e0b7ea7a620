//! The caller's side of a gRPC call: an HTTP/2 connection (RFC 9113) with one stream, of which the first bytes are the same
//! for all who call the same.
//!
//! It is in two halves, so that who only hears pays for one, and for that only while something is cut: [`Hearing`] finds
//! [`Event`]s in what the server says, and [`Speaking`] keeps what is said within the server's windows.
//!
//! The server compresses no fields with a table, since ours is announced to have no room; hence nothing of HPACK is kept.
//! Heads in more than one frame, padding aside, are not read: no head of a call is that long.

mod hearing;
mod speaking;
#[cfg(test)]
mod tests;

pub use self::hearing::{Broken, Event, Hearing, Outcome, Settings};
pub use self::speaking::Speaking;
use crate::codec::grpc::{PREFIX_BYTES, client};
use crate::codec::http2::frame::{self, PREFACE, kind};
use crate::codec::http2::{ErrorCode, StreamId, request};

/// The one stream.
pub const STREAM: StreamId = StreamId(1);
/// Bytes that the server may send before we credit them, on the stream and on the connection.
pub const WINDOW: u32 = 1 << 20;
/// The window of both until something else is said (RFC 9113 section 6.9.2).
const WINDOW_AT_FIRST: u32 = 65_535;
/// Bytes of a frame as long as nothing else is said, which we never do (section 4.2).
const FRAME_BYTES_MAX: u32 = 16_384;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method<'a> {
    /// `holdline.v1.Edge/Connect`, with a first subscription, whose id is 1.
    Connect(client::Subscription<'a>),
    /// `holdline.v1.Edge/Echo`.
    Echo,
}

impl Method<'_> {
    const fn path(&self) -> &'static str {
        match self {
            Self::Connect(_) => "/holdline.v1.Edge/Connect",
            Self::Echo => "/holdline.v1.Edge/Echo",
        }
    }
}

/// What a connection says first: the preface, settings, the request's head and the subscription. `authority` (host and port)
/// must not contain spaces or control characters. With `tls` it is said inside of TLS.
///
/// Settings: no table of fields, no pushes, and windows of [`WINDOW`] bytes.
#[must_use]
pub fn hello(method: &Method<'_>, authority: &str, tls: bool) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    let setting = |id: u16, value: u32| [id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat();
    // HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE (RFC 9113 section 6.5.2).
    let settings = [setting(1, 0), setting(2, 0), setting(4, WINDOW)].concat();
    frame::write(kind::SETTINGS, 0, StreamId::CONNECTION, &settings, &mut out);
    frame::write_window_update(StreamId::CONNECTION, WINDOW - WINDOW_AT_FIRST, &mut out);
    let scheme = if tls { "https" } else { "http" };
    let head = request::Request { method: "POST", scheme, authority, path: method.path() };
    let agent = concat!("holdline/", env!("CARGO_PKG_VERSION"));
    let fields: [(&[u8], &[u8]); 3] =
        [(b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"user-agent", agent.as_bytes())];
    request::write_head(STREAM, head, fields.into_iter(), false, &mut out);
    if let Method::Connect(subscription) = method {
        let mut message = vec![0; PREFIX_BYTES];
        client::write_subscribe(1, subscription, &mut message);
        let length = u32::try_from(message.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
        message[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        // A topic and a group have 255 bytes at most, which is far below a frame.
        frame::write(kind::DATA, 0, STREAM, &message, &mut out);
    }
    out
}

/// Appends that the call is of no use any more, and neither is the connection: the server ends it then.
pub fn write_good_bye(out: &mut Vec<u8>) {
    frame::write_reset(STREAM, ErrorCode::Cancel, out);
    frame::write_go_away(StreamId::CONNECTION, ErrorCode::NoError, "", out);
}

/// The name of a status of gRPC.
#[must_use]
pub const fn status_name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    if code < 17 { NAMES[code as usize] } else { "of another time" }
}
