//! What a request shows to prove whose it is.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Head;
use crate::rule::AuthRefusal;

/// The subprotocol behind whose name a browser sends a token: it can set no other field of a WebSocket's handshake.
pub const TOKEN_SUBPROTOCOL: &[u8] = b"holdline.token.";

/// The subprotocol that is agreed on where a client offers it beside its token: a browser wants one of those that it offers.
pub const SUBPROTOCOL: &str = "holdline";

/// The token or key of a request: `Authorization: Bearer TOKEN` (RFC 6750 section 2.1), or Basic with the key as the
/// password; `X-API-Key: KEY`; the subprotocol `holdline.token.TOKEN`; or `?token=TOKEN`. The first of these counts.
///
/// # Errors
/// When an Authorization field says something else, or there are two.
pub fn credentials<'h>(head: &'h Head<'_>) -> Result<Option<Cow<'h, [u8]>>, AuthRefusal> {
    let mut fields = head.fields("authorization");
    if let Some(field) = fields.next() {
        return if fields.next().is_some() { Err(AuthRefusal::Malformed) } else { authorization(field).map(Some) };
    }
    if let Some(key) = head.field("x-api-key") {
        return Ok(Some(Cow::Borrowed(key.trim_ascii())));
    }
    let mut offers = head.list("sec-websocket-protocol");
    if let Some(token) = offers.find_map(|offer| offer.strip_prefix(TOKEN_SUBPROTOCOL)) {
        return Ok(Some(Cow::Borrowed(token)));
    }
    Ok(head.query().get("token").map(|token| match token {
        Cow::Borrowed(token) => Cow::Borrowed(token.as_bytes()),
        Cow::Owned(token) => Cow::Owned(token.into_bytes()),
    }))
}

fn authorization(field: &[u8]) -> Result<Cow<'_, [u8]>, AuthRefusal> {
    let field = field.trim_ascii();
    let space = memchr::memchr(b' ', field).ok_or(AuthRefusal::Malformed)?;
    let (scheme, value) = (&field[..space], field[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(Cow::Borrowed(value));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Err(AuthRefusal::Malformed);
    }
    if value.len() > 2 * crate::access::TOKEN_BYTES_MAX {
        return Err(AuthRefusal::TooLong);
    }
    // RFC 7617 section 2: the user's name has no colon.
    let pair = STANDARD.decode(value).map_err(|_| AuthRefusal::Malformed)?;
    let colon = memchr::memchr(b':', &pair).ok_or(AuthRefusal::Malformed)?;
    Ok(Cow::Owned(pair[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Limits;

    fn shown(target: &str, fields: &str) -> Result<Option<String>, AuthRefusal> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let read = |head: &Head<'_>| {
            credentials(head).map(|shown| shown.map(|shown| String::from_utf8_lossy(&shown).into_owned()))
        };
        Head::parse(head.as_bytes(), 0, &Limits::default(), read).unwrap()
    }

    #[test]
    fn every_way_to_show_a_token() {
        for (target, fields, token) in [
            ("/", "", None),
            ("/", "Authorization: Bearer a.b.c\r\n", Some("a.b.c")),
            ("/", "authorization:  bearer   a.b.c  \r\n", Some("a.b.c")),
            ("/", "Authorization: Basic YW5uOmtleTp4\r\n", Some("key:x")),
            ("/", "X-API-Key: key\r\n", Some("key")),
            ("/", "Sec-WebSocket-Protocol: chat, holdline.token.a.b.c\r\n", Some("a.b.c")),
            ("/?a=1&token=a.b%2Ec", "", Some("a.b.c")),
            ("/?token=", "", Some("")),
            ("/?token=b", "Authorization: Bearer a\r\n", Some("a")),
        ] {
            assert_eq!(shown(target, fields), Ok(token.map(str::to_owned)), "{target} {fields}");
        }
        for fields in [
            "Authorization: Bearer\r\n",
            "Authorization: Digest a=b\r\n",
            "Authorization: Basic ?\r\n",
            "Authorization: Basic YW5u\r\n",
            "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
        ] {
            assert_eq!(shown("/?token=b", fields), Err(AuthRefusal::Malformed), "{fields}");
        }
    }
}
