//! Small files of /proc and /sys under a root that a test can choose. What cannot be read is `None`, never a panic.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// A bound that the kernel puts on something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limit {
    /// It could not be read.
    #[default]
    Unknown,
    /// There is none.
    Unlimited,
    /// This many, in the unit of what it bounds.
    At(u64),
}

impl Limit {
    /// The smaller one; what is unknown bounds nothing.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self, other) {
            (Self::At(one), Self::At(another)) => Self::At(one.min(another)),
            (Self::At(one), _) | (_, Self::At(one)) => Self::At(one),
            (Self::Unlimited, _) | (_, Self::Unlimited) => Self::Unlimited,
            (Self::Unknown, Self::Unknown) => Self::Unknown,
        }
    }

    /// The same after a calculation with its number.
    #[must_use]
    pub fn map(self, change: impl FnOnce(u64) -> u64) -> Self {
        match self {
            Self::At(number) => Self::At(change(number)),
            other => other,
        }
    }

    /// Whether it is known to be below `needed`.
    #[must_use]
    pub const fn is_below(self, needed: u64) -> bool {
        matches!(self, Self::At(number) if number < needed)
    }

    /// From a number, or a word for "none": `unlimited` (limits) or `max` (cgroups).
    #[must_use]
    pub fn parse(word: &str) -> Self {
        match word.trim() {
            "unlimited" | "max" => Self::Unlimited,
            number => number.parse().map_or(Self::Unknown, Self::At),
        }
    }

    pub(crate) fn of(number: Option<u64>) -> Self {
        number.map_or(Self::Unknown, Self::At)
    }
}

/// Where /proc and /sys are.
#[derive(Debug)]
pub(crate) struct Tree(PathBuf);

impl Tree {
    /// More than any of these files has.
    const FILE_BYTES_MAX: u64 = 1 << 20;

    pub(crate) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// `path` as it is seen from the root, with or without a slash before it.
    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// The size that the kernel says that something has.
    pub(crate) fn size(&self, path: &str) -> Option<u64> {
        std::fs::metadata(self.at(path)).ok().map(|metadata| metadata.len())
    }

    pub(crate) fn text(&self, path: &str) -> Option<String> {
        self.read(path).ok()
    }

    fn read(&self, path: &str) -> std::io::Result<String> {
        let mut bytes = Vec::new();
        File::open(self.at(path))?.take(Self::FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its first word as a number.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.numbers(path).first().copied()
    }

    /// All its words that are numbers; those below zero without their sign.
    pub(crate) fn numbers(&self, path: &str) -> Vec<u64> {
        let text = self.text(path).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.trim_start_matches('-').parse().ok()).collect()
    }

    /// A file with one number, or a word for none.
    pub(crate) fn limit(&self, path: &str) -> Limit {
        self.text(path).map_or(Limit::Unknown, |text| Limit::parse(&text))
    }

    /// The same for a file that need not be there: then nothing is limited.
    pub(crate) fn limit_if_there(&self, path: &str) -> Limit {
        match self.read(path) {
            Ok(text) => Limit::parse(&text),
            Err(error) if error.kind() == ErrorKind::NotFound => Limit::Unlimited,
            Err(_) => Limit::Unknown,
        }
    }

    /// The number behind `key` in a file of `key value` or `key: value` lines.
    pub(crate) fn field(&self, path: &str, key: &str) -> Option<u64> {
        field(&self.text(path)?, key)?.split_whitespace().next()?.parse().ok()
    }
}

/// What stands behind `key` in a text of `key value` or `key: value` lines.
pub(crate) fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let behind = |line: &'a str| line.strip_prefix(key)?.strip_prefix([':', ' ', '\t']);
    text.lines().find_map(behind).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_counts_and_the_unknown_does_not() {
        let (unknown, unlimited, seven) = (Limit::Unknown, Limit::Unlimited, Limit::At(7));
        assert_eq!(seven.min(Limit::At(9)), seven);
        assert_eq!((unlimited.min(seven), seven.min(unknown)), (seven, seven));
        assert_eq!((unknown.min(unlimited), unknown.min(unknown)), (unlimited, unknown));
        assert!(seven.is_below(8) && !seven.is_below(7) && !unknown.is_below(u64::MAX));
    }

    #[test]
    fn words_and_numbers_are_read() {
        assert_eq!(Limit::parse("max\n"), Limit::Unlimited);
        assert_eq!(Limit::parse(" 12 "), Limit::At(12));
        assert_eq!((Limit::parse("-1"), Limit::parse("")), (Limit::Unknown, Limit::Unknown));
        assert_eq!(field("MemTotal:   12 kB\nMemFree: 3 kB", "MemFree"), Some("3 kB"));
        assert_eq!((field("anon 1\nanon_thp 2", "anon_thp"), field("a", "a")), (Some("2"), None));
    }
}
