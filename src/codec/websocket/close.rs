//! The payload of close frames, RFC 6455 sections 5.5.1 and 7.4.

use super::frame::CONTROL_BYTES_MAX;
use super::utf8;

/// What is wrong with a close frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CloseError {
    /// One byte cannot hold a code.
    #[error("a close frame with half a code")]
    HalfACode,
    /// A code that must not be sent.
    #[error("a close frame with the code {0}, which no one may send")]
    BadCode(u16),
    /// The reason is text.
    #[error("a close frame with a reason that is not UTF-8")]
    BadReason,
}

/// Whether a code may stand in a close frame: those that RFC 6455 and the registry behind it define for the wire, and
/// the ranges of libraries (3000) and of applications (4000).
#[must_use]
pub const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The code in a close frame's payload, `None` when it is empty.
///
/// # Errors
/// When the payload is not what section 5.5.1 says.
pub fn parse(payload: &[u8]) -> Result<Option<u16>, CloseError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseError::HalfACode) };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(CloseError::BadCode(code));
    }
    utf8::check(reason).map_err(|_| CloseError::BadReason)?;
    Ok(Some(code))
}

/// As much of a reason as a close frame has room for behind the code, cut between characters.
#[must_use]
pub fn fitting(reason: &str) -> &str {
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_7_4_codes() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(parse(&u16::to_be_bytes(code)), Ok(Some(code)));
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(parse(&u16::to_be_bytes(code)), Err(CloseError::BadCode(code)));
        }
    }

    #[test]
    fn section_5_5_1_payloads() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"\x03"), Err(CloseError::HalfACode));
        assert_eq!(parse("\u{3}\u{e8}".as_bytes()), Err(CloseError::BadCode(0x3c3)), "not text itself");
        assert_eq!(parse(b"\x03\xe8bye"), Ok(Some(1000)));
        assert_eq!(parse(b"\x03\xe8\xce"), Err(CloseError::BadReason));
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(fitting("bye"), "bye");
        assert_eq!(fitting(&"a".repeat(200)).len(), 123);
        assert_eq!(fitting(&"ä".repeat(100)).len(), 122);
    }
}
