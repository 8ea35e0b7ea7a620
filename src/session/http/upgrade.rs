//! The opening handshake of a WebSocket, RFC 6455 section 4.2, from the server's side.

use super::origin::{Caller, caller};
use super::{Head, SUBPROTOCOL, TOKEN_SUBPROTOCOL, Violation};
use crate::codec::http2::{StreamId, response};
use crate::codec::websocket::deflate::{Agreement, negotiate};
use crate::codec::websocket::handshake::{ACCEPT_BYTES, accept_key, is_key};
use crate::config::Origins;

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
    // HEAD is answered as GET without an upgrade, which is for GET alone.
    if head.method() != "GET" || !head.has_token("upgrade", "websocket") {
        return Err(Violation::UpgradeRequired(""));
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
    if caller(head, &policy.origins) == Caller::Foreign {
        return Err(Violation::Origin);
    }
    if head.behind() > 0 {
        return Err(Violation::BytesBeforeSwitch);
    }
    Ok(agree(head, policy, accept_key(key)))
}

/// The same on a stream of HTTP/2 (RFC 8441 section 5), where no key proves that both mean it: the method does.
///
/// # Errors
/// When it is not one that is allowed here.
pub fn upgrade_stream<'p>(head: &Head<'_>, policy: &'p UpgradePolicy) -> Result<Upgrade<'p>, Violation> {
    if only(head.fields("sec-websocket-version")) != Some(b"13") {
        return Err(Violation::WebSocketVersion);
    }
    if caller(head, &policy.origins) == Caller::Foreign {
        return Err(Violation::Origin);
    }
    Ok(agree(head, policy, [0; ACCEPT_BYTES]))
}

fn agree<'p>(head: &Head<'_>, policy: &'p UpgradePolicy, accept: [u8; ACCEPT_BYTES]) -> Upgrade<'p> {
    let offers = |name: &[u8]| head.list("sec-websocket-protocol").any(|offer| offer == name);
    let brings_token = head.list("sec-websocket-protocol").any(|offer| offer.starts_with(TOKEN_SUBPROTOCOL));
    let spoken = policy.subprotocols.iter().map(String::as_str).find(|name| offers(name.as_bytes()));
    // The token itself is never agreed on: it would come back, and into the logs of what is between.
    let beside = || Some(SUBPROTOCOL).filter(|name| brings_token && offers(name.as_bytes()));
    Upgrade { accept, subprotocol: spoken.or_else(beside), deflate: if policy.deflate { deflate(head) } else { None } }
}

/// The first offer that we can take, over all fields.
fn deflate(head: &Head<'_>) -> Option<Agreement> {
    head.fields("sec-websocket-extensions").filter_map(|offers| str::from_utf8(offers).ok()).find_map(negotiate)
}

/// The value, when there is exactly one.
fn only<'f>(mut values: impl Iterator<Item = &'f [u8]>) -> Option<&'f [u8]> {
    values.next().filter(|_| values.next().is_none())
}

/// Appends the answer that makes a stream of HTTP/2 a WebSocket.
pub fn write_accepted(stream: StreamId, upgrade: &Upgrade<'_>, out: &mut Vec<u8>) {
    let mut extension = Vec::new();
    if let Some(agreement) = &upgrade.deflate {
        agreement.write_response(&mut extension);
    }
    let protocol = upgrade.subprotocol.map(|name| (&b"sec-websocket-protocol"[..], name.as_bytes()));
    let extension = (!extension.is_empty()).then_some((&b"sec-websocket-extensions"[..], &extension[..]));
    response::write_head(stream, 200, protocol.into_iter().chain(extension), false, out);
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
