//! Patterns of topics' names, in the configuration and in what clients are allowed.

use std::fmt;

use super::problem::quote;

/// A name in which `*` stands for any bytes but slashes, and `**` for any bytes at all; both also for none.
///
/// ```
/// use holdline::config::Pattern;
///
/// let rooms = Pattern::parse("room/*")?;
/// assert!(rooms.matches("room/7") && !rooms.matches("room/7/typing"));
/// assert!(Pattern::parse("room/**")?.matches("room/7/typing"));
/// # Ok::<(), holdline::config::PatternError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

/// What a pattern is put together from. Literal bytes are joined, and never two stars stand side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'p> {
    Literal(&'p [u8]),
    /// `*`.
    Level,
    /// `**`.
    Levels,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl Pattern {
    /// Bytes of a pattern: those of the longest topic.
    pub const BYTES_MAX: usize = 255;
    /// Stars in one. A match may look at the name once more for each of them.
    pub const STARS_MAX: usize = 8;

    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty, too long, has too many stars, or bytes that no topic has.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let refuse = |what: String| Err(PatternError(format!("the pattern {} {what}", quote(text))));
        if text.is_empty() || text.len() > Self::BYTES_MAX {
            return refuse(format!("has {} bytes; give it 1 to {}", text.len(), Self::BYTES_MAX));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return refuse("has a space or a control character, which no topic has".to_owned());
        }
        let stars = Pieces(text.as_bytes()).filter(|piece| !matches!(piece, Piece::Literal(_))).count();
        if stars > Self::STARS_MAX {
            return refuse(format!("has {stars} stars; {} are enough", Self::STARS_MAX));
        }
        if text.contains("***") {
            return refuse("has three stars side by side; write * for one level or ** for any number".to_owned());
        }
        Ok(Self(text.into()))
    }

    /// Whether a name is one of those that this stands for.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        Self::text_matches(self.0.as_bytes(), name)
    }

    /// The same of a pattern's text, which is kept elsewhere.
    pub(crate) fn text_matches(text: &[u8], name: &str) -> bool {
        let name = name.as_bytes();
        match Pieces(text).next() {
            // Most patterns that do not fit are found here.
            Some(Piece::Literal(first)) if !name.starts_with(first) => false,
            Some(Piece::Literal(only)) if only.len() == text.len() => name.len() == only.len(),
            _ => matches(Pieces(text), name),
        }
    }

    /// Whether it is one name, without stars.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is left of a pattern's text, piece by piece.
struct Pieces<'p>(&'p [u8]);

impl<'p> Iterator for Pieces<'p> {
    type Item = Piece<'p>;

    fn next(&mut self) -> Option<Piece<'p>> {
        let (piece, length) = match self.0 {
            [] => return None,
            [b'*', b'*', ..] => (Piece::Levels, 2),
            [b'*', ..] => (Piece::Level, 1),
            rest => {
                let end = rest.iter().position(|&byte| byte == b'*').unwrap_or(rest.len());
                (Piece::Literal(&rest[..end]), end)
            }
        };
        self.0 = &self.0[length..];
        Some(piece)
    }
}

/// From left to right with the places in `name` that can have been reached: for each piece once over the name, so that no
/// pattern takes more than stars times bytes.
fn matches(pieces: Pieces<'_>, name: &[u8]) -> bool {
    // Bit `n`: the pieces so far can stand for the first `n` bytes. Names have 255 bytes at most, as topics do.
    if name.len() > Pattern::BYTES_MAX {
        return false;
    }
    let mut reached = [false; Pattern::BYTES_MAX + 1];
    reached[0] = true;
    for piece in pieces {
        let mut next = [false; Pattern::BYTES_MAX + 1];
        match piece {
            Piece::Literal(bytes) => {
                for start in (0..=name.len()).filter(|&start| reached[start]) {
                    if name[start..].starts_with(bytes) {
                        next[start + bytes.len()] = true;
                    }
                }
            }
            Piece::Level | Piece::Levels => {
                let mut inside = false;
                for place in 0..=name.len() {
                    let crosses = place > 0 && name[place - 1] == b'/' && piece == Piece::Level;
                    inside = (inside && !crosses) || reached[place];
                    next[place] = inside;
                }
            }
        }
        reached = next;
    }
    reached[name.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use proptest::prelude::*;

    use super::*;

    fn is_match(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_star_is_one_level_and_two_are_any_number() {
        for (pattern, name) in [
            ("news", "news"),
            ("room/*", "room/7"),
            ("room/*", "room/"),
            ("room/*/typing", "room/7/typing"),
            ("*-eu", "node-1-eu"),
            ("**", "a/b/c"),
            ("room/**", "room/7/typing"),
            ("**/typing", "room/7/typing"),
            ("a*b*c", "axxbyybzzc"),
        ] {
            assert!(is_match(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("news", "new"),
            ("news", "newsy"),
            ("room/*", "room/7/typing"),
            ("room/*", "room"),
            ("*", "a/b"),
            ("room/**", "rooms/7"),
            ("a*b", "axbx"),
            ("*-eu", "x/node-eu"),
        ] {
            assert!(!is_match(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, why) in [
            ("", "the pattern \"\" has 0 bytes; give it 1 to 255"),
            ("a b", "the pattern \"a b\" has a space or a control character, which no topic has"),
            ("a***", "the pattern \"a***\" has three stars side by side; write * for one level or ** for any number"),
        ] {
            assert_eq!(Pattern::parse(text).unwrap_err().to_string(), why);
        }
        assert!(Pattern::parse(&"*a".repeat(9)).is_err() && Pattern::parse(&"*a".repeat(8)).is_ok());
        assert!(Pattern::parse(&"a".repeat(256)).is_err());
    }

    /// The same, as one would write it down.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=name.len()).any(|end| naive(rest, &name[end..])),
            [b'*', rest @ ..] => {
                let level = name.iter().position(|&byte| byte == b'/').unwrap_or(name.len());
                (0..=level).any(|end| naive(rest, &name[end..]))
            }
            [first, rest @ ..] => name.first() == Some(first) && naive(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn matches_are_those_of_the_naive_way(pattern in "[ab/]{0,3}(\\*{1,2}[ab/]{1,2}){0,4}", name in "[ab/]{0,10}") {
            if let Ok(parsed) = Pattern::parse(&pattern) {
                prop_assert_eq!(parsed.matches(&name), naive(pattern.as_bytes(), name.as_bytes()));
            }
        }
    }
}
