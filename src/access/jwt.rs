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

/// Signatures that are checked for one token at most: whoever sends a forged one is paid for with so many. A token that names
/// its key is checked with that one first; whoever names none may mean any.
pub const CHECKS_MAX: usize = 4;

/// The payload of a token, and which of `keys` has signed it.
///
/// # Errors
/// When none has, as far as [`CHECKS_MAX`] of them can tell, or it is no token.
pub(super) fn verify<'k, K: Iterator<Item = &'k Key>>(
    token: &[u8],
    keys: impl Fn() -> K,
) -> Result<(Vec<u8>, &'k Key), AuthRefusal> {
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
    let kid = header.kid.as_deref();
    let named = keys().filter(|key| kid.is_some_and(|kid| key.is_called(kid)));
    let others = keys().filter(|key| kid.is_none() || key.is_nameless());
    let (mut outcome, mut checks) = (AuthRefusal::UnknownKey, 0);
    for key in named.chain(others) {
        if key.algorithm() != algorithm {
            if outcome == AuthRefusal::UnknownKey {
                outcome = AuthRefusal::Algorithm;
            }
            continue;
        }
        if checks == CHECKS_MAX {
            return Err(AuthRefusal::TooManyKeys);
        }
        if key.has_signed(signed, &signature) {
            return Ok((payload, key));
        }
        (outcome, checks) = (AuthRefusal::Signature, checks + 1);
    }
    Err(outcome)
}

fn decode(part: &[u8]) -> Result<Vec<u8>, AuthRefusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthRefusal::Malformed)
}
