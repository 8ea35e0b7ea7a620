//! What is wrong with a configuration, in one line: what, where, how to mend it.

use std::fmt;
use std::path::PathBuf;

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a file, counted from 1.
    File(PathBuf, usize),
    /// A file as a whole.
    WholeFile(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// Nobody set it.
    Default,
    /// What would run after a reload, some of it from before.
    Running,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::WholeFile(path) => path.display().fmt(f),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Default => f.write_str("the defaults"),
            Self::Running => f.write_str("what would run then"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}, {place}: {mend}")]
pub struct Problem {
    /// What is wrong, with the key's name.
    pub what: String,
    /// Where.
    pub place: Place,
    /// How to mend it.
    pub mend: String,
}

/// What is wrong with a value, before anyone knows whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Goes behind the key: `is 7 days`, `has no unit`.
    pub(crate) what: String,
    /// How to mend it.
    pub(crate) mend: String,
    /// Which item of a list it is.
    pub(crate) item: Option<usize>,
    /// What is wrong with other items.
    others: Vec<Self>,
}

impl Wrong {
    pub(crate) fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: what.into(), mend: mend.into(), item: None, others: Vec::new() }
    }

    pub(crate) fn of_item(self, index: usize) -> Self {
        Self { item: Some(index), ..self }
    }

    /// All that is wrong with a list, unless it is nothing.
    pub(crate) fn of_all(wrongs: Vec<Self>) -> Option<Self> {
        let mut wrongs = wrongs.into_iter();
        let first = wrongs.next()?;
        Some(Self { others: wrongs.collect(), ..first })
    }

    /// It by itself, and the others.
    pub(crate) fn each(mut self) -> impl Iterator<Item = Self> {
        let others = std::mem::take(&mut self.others);
        std::iter::once(self).chain(others)
    }

    pub(crate) fn at(self, key: &str, place: Place) -> Problem {
        Problem { what: format!("{key} {}", self.what), place, mend: self.mend }
    }
}

/// Untrusted text for a one-line message: quoted, without control characters, and short.
pub(crate) fn quote(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut quoted: String = text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        quoted.push_str("...");
    }
    format!("\"{quoted}\"")
}
