//! What a field may look like (RFC 9113 section 8.2), in requests, responses and trailers alike.

use super::head::MalformedHead;

/// Whether it can be a field's name: a token (RFC 9110 section 5.6.2) without capitals.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| is_token(byte) && !byte.is_ascii_uppercase())
}

/// RFC 9110 section 5.6.2.
pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// Whether it can be a value: no control characters but tabs, and neither space nor tab at its ends.
pub(super) fn is_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    !value.iter().any(is_control) && !is_blank(value.first()) && !is_blank(value.last())
}

/// Checks a field that is no pseudo-field.
pub(super) fn check(name: &[u8], value: &[u8]) -> Result<(), MalformedHead> {
    if !is_name(name) {
        return Err(MalformedHead::FieldName);
    }
    if !is_value(value) {
        return Err(MalformedHead::FieldValue);
    }
    match name {
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            Err(MalformedHead::ConnectionField)
        }
        b"te" if !value.eq_ignore_ascii_case(b"trailers") => Err(MalformedHead::Te),
        _ => Ok(()),
    }
}
