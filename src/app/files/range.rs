//! Byte ranges, RFC 9110 section 14.

/// What a `Range` field comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// Everything: the field is missing, malformed, of another unit, or asks for several ranges.
    Whole,
    /// So many bytes from there on, at least one.
    Part {
        /// The first.
        start: u64,
        /// How many.
        length: u64,
    },
    /// Nothing of it is there.
    Unsatisfiable,
}

/// Reads the field's value, for a file of `size` bytes.
pub(super) fn read(field: &[u8], size: u64) -> Range {
    let unit = field.get(..6).filter(|unit| unit.eq_ignore_ascii_case(b"bytes="));
    let Some(spec) = unit.map(|_| field[6..].trim_ascii()) else { return Range::Whole };
    let Some(dash) = memchr::memchr(b'-', spec) else { return Range::Whole };
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    let is_number = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    if !is_number(first) || !is_number(last) {
        return Range::Whole;
    }
    match (number(first), number(last)) {
        (None, None) => Range::Whole,
        (Some(first), Some(last)) if last < first => Range::Whole,
        (None, Some(count)) => part(size.saturating_sub(count), size, size),
        (Some(first), last) => part(first, last.map_or(size, |last| last.saturating_add(1)), size),
    }
}

fn part(start: u64, end: u64, size: u64) -> Range {
    let end = end.min(size);
    if start >= end { Range::Unsatisfiable } else { Range::Part { start, length: end - start } }
}

/// A number without a bound: what is over 64 bits is beyond every file.
fn number(digits: &[u8]) -> Option<u64> {
    let add = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    (!digits.is_empty()).then(|| digits.iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(start: u64, length: u64) -> Range {
        Range::Part { start, length }
    }

    #[test]
    fn one_range_is_a_part() {
        for (field, range) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=10-", part(10, 90)),
            ("bytes=-10", part(90, 10)),
            ("bytes=-1000", part(0, 100)),
            ("Bytes=99-1000", part(99, 1)),
            ("bytes=5-99999999999999999999999999", part(5, 95)),
        ] {
            assert_eq!(read(field.as_bytes(), 100), range, "{field}");
        }
    }

    #[test]
    fn what_is_beyond_the_end_cannot_be_had() {
        for field in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(read(field.as_bytes(), 100), Range::Unsatisfiable, "{field}");
        }
        assert_eq!(read(b"bytes=0-", 0), Range::Unsatisfiable);
        assert_eq!(read(b"bytes=-5", 0), Range::Unsatisfiable);
    }

    #[test]
    fn what_is_no_single_range_is_ignored() {
        for field in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-1",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=1",
            "bytes=+1-2",
        ] {
            assert_eq!(read(field.as_bytes(), 100), Range::Whole, "{field}");
        }
    }
}
