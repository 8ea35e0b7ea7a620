//! Which log lines are written.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use super::nearest::nearest;
use super::problem::{Wrong, quote};
use super::value::{Format, Raw};

/// A level for all of the program, levels for some of its modules, or both: `info`, `info,holdline::shard=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// What is no [`LogFilter`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LogFilterError(String);

impl LogFilter {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const BYTES_MAX: usize = 1024;

    /// As it was written, without spaces.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A word alone would be taken for the name of a module, and a misspelt level would silence all.
    fn check(directive: &str) -> Result<(), LogFilterError> {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if Self::LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level.trim())) {
            return Ok(());
        }
        let near = nearest(&level.trim().to_ascii_lowercase(), Self::LEVELS).unwrap_or("info");
        Err(LogFilterError(format!("{} is no level; did you mean {near}?", quote(level.trim()))))
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        if text.len() > Self::BYTES_MAX {
            return Err(LogFilterError(format!("longer than {} bytes", Self::BYTES_MAX)));
        }
        let directives: Vec<&str> = text.split(',').map(str::trim).collect();
        directives.iter().try_for_each(|directive| Self::check(directive))?;
        let text = directives.join(",");
        EnvFilter::try_new(&text).map_err(|error| LogFilterError(error.to_string()))?;
        Ok(Self(text))
    }
}

/// How it is written.
pub(super) struct Filter;

impl Format for Filter {
    type Value = LogFilter;

    fn read(raw: &Raw<'_>) -> Result<LogFilter, Wrong> {
        let mend = "write error, warn, info, debug or trace, or levels by module such as info,holdline::shard=debug";
        let text = raw.text(mend)?;
        text.parse().map_err(|error| Wrong::new(format!("is {}: {error}", quote(text)), mend))
    }

    fn write(value: &LogFilter) -> String {
        quote(value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_alone_and_by_module() {
        for good in
            ["info", "WARN", "off", "info,holdline::shard=debug", "holdline::server=trace", "warn, holdline=info"]
        {
            assert_eq!(good.parse::<LogFilter>().map(|filter| filter.to_string()), Ok(good.replace(' ', "")));
        }
    }

    #[test]
    fn what_would_silence_the_log_by_mistake_is_refused() {
        for (bad, said) in [
            ("inof", "\"inof\" is no level; did you mean info?"),
            ("info,holdline::shard", "\"holdline::shard\" is no level; did you mean "),
            ("holdline::shard=deubg", "\"deubg\" is no level; did you mean debug?"),
            ("", "\"\" is no level"),
            ("=,=", "\"\" is no level"),
        ] {
            let error = bad.parse::<LogFilter>().expect_err(bad).to_string();
            assert!(error.starts_with(said), "{bad}: {error}");
        }
        assert!("x".repeat(2000).parse::<LogFilter>().is_err());
    }
}
