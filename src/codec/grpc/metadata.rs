//! What a call's fields say: its deadline, and how its messages are compressed.

use std::time::Duration;

/// How messages are compressed that say they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// None may say so.
    #[default]
    Identity,
    /// RFC 1952.
    Gzip,
}

impl Encoding {
    /// What is read, as the value of `grpc-accept-encoding`. What is sent is never compressed.
    pub const ACCEPTED: &'static str = "identity,gzip";

    /// By its name.
    #[must_use]
    pub const fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"identity" => Some(Self::Identity),
            b"gzip" => Some(Self::Gzip),
            _ => None,
        }
    }
}

/// A `grpc-timeout`: 1 to 8 digits and a unit, hours to nanoseconds. `None` when it is none.
#[must_use]
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_every_unit() {
        for (value, nanos) in [
            ("1H", 3_600_000_000_000),
            ("02M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("99999999m", 99_999_999_000_000),
            ("5u", 5_000),
            ("6n", 6),
            ("0n", 0),
            ("99999999H", 359_999_996_400_000_000_000),
        ] {
            assert_eq!(parse_timeout(value.as_bytes()).map(|timeout| timeout.as_nanos()), Some(nanos), "{value}");
        }
        for value in ["", "1", "H", "1s", "1 S", "+1S", "-1S", "1.5S", "123456789S", "1SS", "\u{661}S"] {
            assert_eq!(parse_timeout(value.as_bytes()), None, "{value}");
        }
    }
}
