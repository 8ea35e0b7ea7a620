//! The opening handshake of a WebSocket, RFC 6455 section 4.2, from the server's side.

use super::{Head, Violation};
use crate::codec::websocket::deflate::{Agreement, negotiate};
use crate::codec::websocket::handshake::{ACCEPT_BYTES, accept_key, is_key};
use crate::config::Origins;

/// Whether a handshake with this `Origin` and `Host` is allowed. `null`, the origin of pages that have none of their own,
/// is only where any is.
fn is_allowed(origins: &Origins, origin: &[u8], host: &[u8]) -> bool {
    origins.any
        || origins.same && is_same(origin, host)
        || origins.list.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(origin))
}

/// Whether `http://host` or `https://host`, the scheme's own port left out, is the origin. The scheme does not matter:
/// TLS may have ended before us.
fn is_same(origin: &[u8], host: &[u8]) -> bool {
    fn bare<'n>(name: &'n [u8], port: &[u8]) -> &'n [u8] {
        name.strip_suffix(port).unwrap_or(name)
    }
    let schemes: [(&[u8], &[u8]); 2] = [(b"http://", b":80"), (b"https://", b":443")];
    schemes.into_iter().any(|(scheme, port)| {
        origin.split_at_checked(scheme.len()).is_some_and(|(start, authority)| {
            !authority.is_empty()
                && start.eq_ignore_ascii_case(scheme)
                && bare(authority, port).eq_ignore_ascii_case(bare(host, port))
        })
    })
}

/// What a listener agrees to in a handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpgradePolicy {
    /// Whose pages may come.
    pub origins: Origins,
    /// Subprotocols that are spoken here, the preferred ones first.
    pub subprotocols: Vec<String>,
    /// Whether permessage-deflate is taken when it is offered.
    pub deflate: bool,
}

/// A handshake that can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade<'p> {
    /// `Sec-WebSocket-Accept`.
    pub accept: [u8; ACCEPT_BYTES],
    /// The subprotocol that both speak.
    pub subprotocol: Option<&'p str>,
    /// permessage-deflate, as agreed.
    pub deflate: Option<Agreement>,
}

/// Checks an opening handshake.
///
/// # Errors
/// When it is none, or not one that is allowed here.
pub fn upgrade<'p>(head: &Head<'_>, policy: &'p UpgradePolicy) -> Result<Upgrade<'p>, Violation> {
    super::refuse_body(head)?;
    if head.method() != "GET" {
        return Err(Violation::MethodNotAllowed);
    }
    if !head.has_token("upgrade", "websocket") {
        return Err(Violation::UpgradeRequired);
    }
    if !head.is_modern() {
        return Err(Violation::UpgradeOldVersion);
    }
    if !head.has_token("connection", "upgrade") {
        return Err(Violation::ConnectionField);
    }
    if only(head.fields("sec-websocket-version")) != Some(b"13") {
        return Err(Violation::WebSocketVersion);
    }
    let key = only(head.fields("sec-websocket-key")).filter(|key| is_key(key)).ok_or(Violation::WebSocketKey)?;
    if head.fields("origin").any(|origin| !is_allowed(&policy.origins, origin, head.host())) {
        return Err(Violation::Origin);
    }
    if head.behind() > 0 {
        return Err(Violation::BytesBeforeSwitch);
    }
    let offered = |name: &&String| head.list("sec-websocket-protocol").any(|offer| offer == name.as_bytes());
    Ok(Upgrade {
        accept: accept_key(key),
        subprotocol: policy.subprotocols.iter().find(offered).map(String::as_str),
        deflate: if policy.deflate { deflate(head) } else { None },
    })
}

/// The first offer that we can take, over all fields.
fn deflate(head: &Head<'_>) -> Option<Agreement> {
    head.fields("sec-websocket-extensions").filter_map(|offers| str::from_utf8(offers).ok()).find_map(negotiate)
}

/// The value, when there is exactly one.
fn only<'f>(mut values: impl Iterator<Item = &'f [u8]>) -> Option<&'f [u8]> {
    values.next().filter(|_| values.next().is_none())
}

/// Appends the answer that turns the connection into a WebSocket. Plain copies: it is part of every connection's cost.
pub fn write_switching_protocols(upgrade: &Upgrade<'_>, out: &mut Vec<u8>) {
    const START: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    out.reserve(START.len() + 256);
    out.extend_from_slice(START);
    out.extend_from_slice(&upgrade.accept);
    if let Some(subprotocol) = upgrade.subprotocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(subprotocol.as_bytes());
    }
    if let Some(agreement) = &upgrade.deflate {
        out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        agreement.write_response(out);
    }
    out.extend_from_slice(b"\r\n\r\n");
}
