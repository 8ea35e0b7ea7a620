//! The signature of a request: `t=SECONDS,v1=HEX`, where `HEX` is the HMAC-SHA256 (RFC 2104) of the time, a dot and the
//! body, and the time is that of the request, so that an old one cannot be sent again.
//!
//! Of several secrets each has its `v1`: one that the receiver knows is enough.

use ring::hmac;

use crate::config::HookSecrets;

/// The field that has it.
pub const FIELD: &str = "Holdline-Signature";

/// The field's value; `None` without a secret.
#[must_use]
pub fn value(secrets: &HookSecrets, unix_seconds: u64, body: &[u8]) -> Option<String> {
    let mut value = format!("t={unix_seconds}");
    let before = value.len();
    for secret in secrets.iter() {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
        context.update(unix_seconds.to_string().as_bytes());
        context.update(b".");
        context.update(body);
        value.push_str(",v1=");
        context.sign().as_ref().iter().for_each(|byte| value.push_str(&format!("{byte:02x}")));
    }
    (value.len() > before).then_some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn each_secret_signs() {
        let (one, other) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
        let of = |lines: &str| value(&HookSecrets::from_lines(lines).unwrap(), 1_732_795_012, b"{\"events\":[]}");
        // printf '1732795012.{"events":[]}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        assert_eq!(of(one).unwrap(), format!("t=1732795012,v1={ONE}"));
        let both = of(&format!("{other}\n{one}\n")).unwrap();
        assert!(both.starts_with("t=1732795012,v1=") && both.ends_with(&format!(",v1={ONE}")), "{both}");
        assert_eq!(both.len(), 12 + 2 * 68);
        assert_eq!(value(&HookSecrets::default(), 1, b""), None);
    }

    const ONE: &str = "049ac2374888a615f33fe1854a4670a819463862274e41ae22ef025b92d75936";
}
