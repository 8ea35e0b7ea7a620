//! JSON Web Signatures in their compact form (RFC 7515 section 7.1): three parts of base64url, the last of which signs the
//! first two.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::jwk::{Algorithm, Key};
use crate::rule::AuthRefusal;

/// What is read of a JOSE header (RFC 7515 section 4.1). Where a key could be had from is not: the operator says that.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<serde_json::Value>,
}

/// The payload of a token that one of `keys` has signed.
///
/// # Errors
/// When none has, or it is no token.
pub(super) fn verify<'k, K: Iterator<Item = &'k Key>>(
    token: &[u8],
    keys: impl Fn() -> K,
) -> Result<Vec<u8>, AuthRefusal> {
    let mut parts = token.split(|&byte| byte == b'.');
    let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(AuthRefusal::Malformed);
    };
    let signed = &token[..header.len() + 1 + payload.len()];
    let header = decode(header)?;
    // An array would be read as the members in their order.
    let is_object = header.trim_ascii_start().first() == Some(&b'{');
    let header: Header = serde_json::from_slice(&header).map_err(|_| AuthRefusal::Malformed)?;
    if header.crit.is_some() || !is_object {
        return Err(AuthRefusal::Malformed);
    }
    let algorithm = Algorithm::from_name(&header.alg).ok_or(AuthRefusal::Algorithm)?;
    let (signature, payload) = (decode(signature)?, decode(payload)?);
    let mut outcome = AuthRefusal::UnknownKey;
    for key in keys().filter(|key| key.is_called(header.kid.as_deref())) {
        if key.algorithm() != algorithm {
            if outcome == AuthRefusal::UnknownKey {
                outcome = AuthRefusal::Algorithm;
            }
        } else if key.has_signed(signed, &signature) {
            return Ok(payload);
        } else {
            outcome = AuthRefusal::Signature;
        }
    }
    Err(outcome)
}

fn decode(part: &[u8]) -> Result<Vec<u8>, AuthRefusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthRefusal::Malformed)
}
