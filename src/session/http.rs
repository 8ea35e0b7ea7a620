//! HTTP/1.1 up to the point where a connection becomes something else.
//!
//! ```text
//!            bytes            whole head            upgrade()
//!   waiting --------> partial ----------> on_head -----------> 101, then WebSocket
//!      ^  \______________________________/   |
//!      |            whole at once            | write_page, write_error
//!      +-------------------------------------+
//! ```
//!
//! [`receive`] finds one head at a time and says where it ended; what the request means is the caller's to decide, with
//! [`upgrade()`] for a WebSocket's opening handshake and [`refuse_body`] for what is not served. Every [`Violation`] is
//! the last thing on its connection: where requests end is not certain any more.

#[doc(hidden)]
pub mod fuzz;
mod upgrade;

use super::{Env, Partial, Violation as _};
use crate::close::CloseReason;
use crate::codec::http1::head::find_end;
use crate::rule::Rule;

pub use crate::codec::http1::{Body, Head, Malformed, Query, Reply, write_error, write_page};
pub use upgrade::{Upgrade, UpgradePolicy, upgrade, write_switching_protocols};

/// How far [`receive`] came.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress<T> {
    /// Bytes that are done with. What lies behind them belongs to what comes after the head.
    pub consumed: usize,
    /// What the head came to, `None` while it is unfinished.
    pub outcome: Option<T>,
}

/// How a request broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The head cannot be read.
    #[error(transparent)]
    Head(#[from] Malformed),
    /// Not GET or HEAD.
    #[error("this method is not allowed here; use GET")]
    MethodNotAllowed,
    /// A method that RFC 9110 does not know.
    #[error("this method is unknown")]
    MethodUnknown,
    /// A body where none is taken.
    #[error("a body is not taken here")]
    BodyNotTaken,
    /// A body of unknown length where none is taken.
    #[error("a body without a Content-Length is not taken here")]
    LengthRequired,
    /// The route is a WebSocket's and the request does not ask for one.
    #[error("this is a WebSocket; ask for an upgrade to it")]
    UpgradeRequired,
    /// An upgrade in HTTP/1.0.
    #[error("an upgrade needs HTTP/1.1")]
    UpgradeOldVersion,
    /// No `Connection: Upgrade` beside `Upgrade: websocket`.
    #[error("the Connection field does not have Upgrade in it")]
    ConnectionField,
    /// Another version than 13.
    #[error("the Sec-WebSocket-Version is not 13")]
    WebSocketVersion,
    /// No key, two keys, or not 16 bytes in base64.
    #[error("the Sec-WebSocket-Key is missing or malformed")]
    WebSocketKey,
    /// A page of another site wants to speak for its visitor.
    #[error("this origin is not allowed")]
    Origin,
    /// The client did not wait for the 101.
    #[error("data came before the upgrade was answered")]
    BytesBeforeSwitch,
}

impl Violation {
    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Head(malformed) => malformed.status(),
            Self::MethodNotAllowed => 405,
            Self::MethodUnknown => 501,
            Self::BodyNotTaken => 413,
            Self::LengthRequired => 411,
            Self::UpgradeRequired | Self::WebSocketVersion => 426,
            Self::Origin => 403,
            Self::UpgradeOldVersion | Self::ConnectionField | Self::WebSocketKey | Self::BytesBeforeSwitch => 400,
        }
    }

    /// Appends the whole answer, the last one of its connection.
    pub fn write(self, out: &mut Vec<u8>) {
        let extra: &[(&str, &str)] = match self {
            Self::MethodNotAllowed => &[("Allow", "GET, HEAD")],
            Self::UpgradeRequired => &[("Upgrade", "websocket"), ("Connection", "Upgrade, close")],
            Self::WebSocketVersion => {
                &[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket"), ("Connection", "Upgrade, close")]
            }
            _ => &[],
        };
        write_error(self.status(), self.rule().label(), &self.to_string(), extra, Reply::LAST, out);
    }
}

impl super::Violation for Violation {
    fn rule(&self) -> Rule {
        match self {
            Self::Head(malformed) => malformed.rule(),
            Self::MethodNotAllowed => Rule::MethodNotAllowed,
            Self::MethodUnknown => Rule::MethodUnknown,
            Self::BodyNotTaken => Rule::BodyNotTaken,
            Self::LengthRequired => Rule::LengthRequired,
            Self::UpgradeRequired => Rule::UpgradeRequired,
            Self::UpgradeOldVersion => Rule::UpgradeOldVersion,
            Self::ConnectionField => Rule::ConnectionField,
            Self::WebSocketVersion => Rule::WebSocketVersion,
            Self::WebSocketKey => Rule::WebSocketKey,
            Self::Origin => Rule::Origin,
            Self::BytesBeforeSwitch => Rule::BytesBeforeSwitch,
        }
    }

    fn reason(&self) -> CloseReason {
        CloseReason::BadHandshake
    }
}

/// Looks for one request head. One that is whole in `bytes` is read in place; an unfinished one is kept in `partial`.
///
/// No byte is looked at twice for the head's end, however they were cut (CVE-2023-43669), and no more than
/// `head_bytes_max` are kept.
///
/// # Errors
/// When the bytes are no head that is taken here; answer with [`Violation::write`] and close.
pub fn receive<T>(
    partial: &mut Option<Box<Partial>>,
    bytes: &[u8],
    env: &mut Env<'_>,
    on_head: impl FnOnce(&Head<'_>) -> T,
) -> Result<Progress<T>, Violation> {
    let (bytes_max, fields_max) = (env.limits.head_bytes_max, env.limits.head_fields_max);
    let Some(mut kept) = partial.take() else {
        let Some(end) = head_end(bytes, 0, bytes_max)? else {
            if !bytes.is_empty() {
                let kept = partial.insert(env.partials.take());
                kept.buf.extend_from_slice(bytes);
                kept.scanned = bytes.len();
            }
            return Ok(Progress { consumed: bytes.len(), outcome: None });
        };
        let outcome = Head::parse(&bytes[..end], bytes.len() - end, fields_max, on_head)?;
        return Ok(Progress { consumed: end, outcome: Some(outcome) });
    };
    let before = kept.buf.len();
    let room = bytes_max.saturating_sub(before);
    kept.buf.extend_from_slice(&bytes[..bytes.len().min(room)]);
    let progress = match head_end(&kept.buf, kept.scanned, bytes_max) {
        Ok(Some(end)) => {
            let consumed = end - before;
            Head::parse(&kept.buf[..end], bytes.len() - consumed, fields_max, on_head)
                .map(|outcome| Progress { consumed, outcome: Some(outcome) })
        }
        Ok(None) => {
            kept.scanned = kept.buf.len();
            *partial = Some(kept);
            return Ok(Progress { consumed: bytes.len(), outcome: None });
        }
        Err(malformed) => Err(malformed),
    };
    env.partials.give(kept);
    Ok(progress?)
}

/// Where the head ends, within the limit.
fn head_end(bytes: &[u8], scanned: usize, bytes_max: usize) -> Result<Option<usize>, Malformed> {
    let within = &bytes[..bytes.len().min(bytes_max)];
    let end = find_end(within, scanned)?;
    if end.is_none() && bytes.len() >= bytes_max {
        return Err(Malformed::TooLarge(bytes_max));
    }
    Ok(end)
}

/// Refuses what is not served: every method but GET and HEAD, and every body.
///
/// # Errors
/// When the request is such a one.
pub fn refuse_body(head: &Head<'_>) -> Result<(), Violation> {
    match (head.method(), head.body()) {
        ("GET" | "HEAD", Body::None) => Ok(()),
        ("GET" | "HEAD", Body::Length(_)) => Err(Violation::BodyNotTaken),
        ("GET" | "HEAD", Body::Chunked) => Err(Violation::LengthRequired),
        ("POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS" | "TRACE" | "CONNECT", _) => Err(Violation::MethodNotAllowed),
        _ => Err(Violation::MethodUnknown),
    }
}

#[cfg(test)]
mod tests;
