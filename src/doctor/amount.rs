//! Quantities as people and as programs read them.

use serde::{Serialize, Serializer};

use crate::host::Limit;

/// A quantity. In JSON a number, `"unlimited"`, a text, or null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Of things.
    Count(u64),
    /// Of bytes.
    Bytes(u64),
    /// Without limit.
    Unlimited,
    /// Something that is not counted.
    Words(String),
    /// It could not be read.
    Unknown,
    /// Nothing to say.
    None,
}

impl Amount {
    /// A limit on a number of things.
    #[must_use]
    pub const fn count(limit: Limit) -> Self {
        match limit {
            Limit::At(number) => Self::Count(number),
            Limit::Unlimited => Self::Unlimited,
            Limit::Unknown => Self::Unknown,
        }
    }

    /// A limit in bytes.
    #[must_use]
    pub const fn bytes(limit: Limit) -> Self {
        match limit {
            Limit::At(number) => Self::Bytes(number),
            Limit::Unlimited => Self::Unlimited,
            Limit::Unknown => Self::Unknown,
        }
    }

    /// As the table has it.
    #[must_use]
    pub fn show(&self) -> String {
        match self {
            Self::Count(number) => count(*number),
            Self::Bytes(number) => bytes(*number),
            Self::Unlimited => "unlimited".to_owned(),
            Self::Words(words) => words.clone(),
            Self::Unknown => "unknown".to_owned(),
            Self::None => "-".to_owned(),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(number) | Self::Bytes(number) => serializer.serialize_u64(*number),
            Self::Unlimited => serializer.serialize_str("unlimited"),
            Self::Words(words) => serializer.serialize_str(words),
            Self::Unknown | Self::None => serializer.serialize_none(),
        }
    }
}

/// The number at which something ends; `"unlimited"` where nothing ends it, null where that is not known.
pub(super) fn serialize_limit<S: Serializer>(limit: &Limit, serializer: S) -> Result<S::Ok, S::Error> {
    Amount::count(*limit).serialize(serializer)
}

/// `1234567` is `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    groups.iter().map(|group| String::from_utf8_lossy(group)).collect::<Vec<_>>().join(",")
}

/// A number with its noun: `1 shard`, `2 shards`.
pub(super) fn several(number: u64, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {one}{plural}", count(number))
}

/// In the largest unit that leaves a whole number before the point.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.iter().find(|(shift, _)| number >> shift > 0) {
        Some((shift, unit)) => {
            let tenths = (u128::from(number) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{number} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_bytes_have_units() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([several(1, "ring"), several(1000, "ring")], ["1 ring", "1,000 rings"]);
        assert_eq!([1023, 1024, 1_572_864, u64::MAX].map(bytes), ["1023 B", "1.0 KiB", "1.5 MiB", "16777215.9 TiB"]);
    }
}
