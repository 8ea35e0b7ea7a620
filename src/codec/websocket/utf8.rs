//! UTF-8 that arrives in pieces, RFC 6455 section 8.1.
//!
//! A text message may be cut anywhere, inside a code point too. What has come is refused at the first byte that no
//! continuation could make right, not only when the message is complete: that is what Autobahn's 6.4 cases ask for.
//!
//! `simdutf8` checks 64 bytes at a time; its `basic` flavour is faster, its `compat` flavour says where and why.

/// Bytes that are no UTF-8 and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("text that is not UTF-8")]
pub struct BadUtf8;

/// Checks a whole text.
///
/// # Errors
/// When it is not UTF-8.
#[inline]
pub fn check(text: &[u8]) -> Result<(), BadUtf8> {
    // A short ASCII text, what most messages are, is known for what it is in a few instructions.
    if text.len() <= SHORT_BYTES_MAX && text.is_ascii() {
        return Ok(());
    }
    simdutf8::basic::from_utf8(text).map(drop).map_err(|_| BadUtf8)
}

/// Above this, looking for ASCII first gains nothing.
const SHORT_BYTES_MAX: usize = 256;

/// Checks what has come of an unfinished text. The first `valid` bytes are known to be whole code points; returns how
/// many are now. At most three bytes are looked at again by the next call.
///
/// # Errors
/// When no rest of the text can make it UTF-8.
#[inline]
pub fn check_partial(text: &[u8], valid: usize) -> Result<usize, BadUtf8> {
    match simdutf8::compat::from_utf8(&text[valid..]) {
        Ok(_) => Ok(text.len()),
        // No length: the last code point is cut off, and what is there of it may still become one.
        Err(error) if error.error_len().is_none() => Ok(valid + error.valid_up_to()),
        Err(_) => Err(BadUtf8),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Byte by byte: the number of bytes that were taken before one was refused, and whether the text is complete.
    fn feed(text: &[u8]) -> (usize, bool) {
        let mut valid = 0;
        for len in 1..=text.len() {
            match check_partial(&text[..len], valid) {
                Ok(now) => valid = now,
                Err(BadUtf8) => return (len - 1, false),
            }
        }
        (text.len(), valid == text.len())
    }

    #[test]
    fn refused_at_the_byte_that_cannot_be() {
        assert_eq!(feed("κόσμε".as_bytes()), (10, true));
        assert_eq!(feed(b"\xf4\x8f\xbf\xbf"), (4, true), "the last code point");
        assert_eq!(feed(b"\xf4\x90\x80\x80"), (1, false), "beyond the last code point");
        assert_eq!(feed(b"\xed\xa0\x80"), (1, false), "a surrogate");
        assert_eq!(feed(b"\xe0\x80\x80"), (1, false), "a longer form than needed");
        assert_eq!(feed(b"\xf0\x8f\xbf\xbf"), (1, false), "a longer form than needed");
        assert_eq!(feed(b"ab\xc0\x80"), (2, false), "a byte that never occurs");
        assert_eq!(feed(b"ab\x80"), (2, false), "a continuation of nothing");
        assert_eq!(feed(b"\xce\xba\xe1\xbd"), (4, false), "cut off, so far fine");
    }

    proptest! {
        #[test]
        fn as_the_standard_library_says(mut text: Vec<u8>, ascii: bool) {
            if ascii {
                text.iter_mut().for_each(|byte| *byte &= 0x7f);
            }
            let (taken, complete) = feed(&text);
            match std::str::from_utf8(&text) {
                Ok(_) => prop_assert_eq!((taken, complete), (text.len(), true)),
                Err(error) => {
                    prop_assert!(!complete);
                    prop_assert!(taken >= error.valid_up_to() && taken <= error.valid_up_to() + 3);
                    prop_assert_eq!(error.error_len().is_none(), taken == text.len());
                }
            }
            prop_assert_eq!(check(&text).is_ok(), complete);
        }

        #[test]
        fn text_is_text(text: String) {
            prop_assert_eq!(feed(text.as_bytes()), (text.len(), true));
        }
    }
}
