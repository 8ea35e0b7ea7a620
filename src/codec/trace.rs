//! Which trace a message belongs to: W3C Trace Context.
//!
//! ```text
//! traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//!              version, trace, span, flags
//! tracestate:  vendor=value,other=value
//! ```
//!
//! What is none is passed over, as section 3.2.4 has it: a message is no worse for it. The state is given up where it is longer
//! than 512 bytes, which is what everybody has to take, or breaks its grammar (3.3.1).

use std::fmt;
use std::str;

/// The span that something comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parent {
    /// The trace, never 0.
    pub trace: u128,
    /// The span within it, never 0.
    pub span: u64,
    /// Bit 0: the trace is recorded by who began it. Bit 1: its number is random.
    pub flags: u8,
}

impl Parent {
    /// Bytes of its text.
    pub const BYTES: usize = 55;
    /// The flags that are known, which are handed on.
    const FLAGS: u8 = 0b11;

    /// Reads a `traceparent`. Of later versions the fields that this one has are read (3.2.4).
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        let (fields, rest) = text.split_at_checked(Self::BYTES)?;
        let version = number(&fields[..2])?;
        let is_known = if version == 0 { rest.is_empty() } else { version != 0xff && matches!(rest, [] | [b'-', ..]) };
        if !is_known || [fields[2], fields[35], fields[52]] != *b"---" {
            return None;
        }
        let trace = u128::from(number(&fields[3..19])?) << 64 | u128::from(number(&fields[19..35])?);
        let span = number(&fields[36..52])?;
        let flags = u8::try_from(number(&fields[53..])?).ok()? & Self::FLAGS;
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// Whether spans of it are recorded.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.flags & 1 != 0
    }

    /// Its text.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut text = *b"00-................................-................-..";
        write_hex(self.trace, &mut text[3..35]);
        write_hex(u128::from(self.span), &mut text[36..52]);
        write_hex(u128::from(self.flags), &mut text[53..]);
        text
    }
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.to_bytes()).unwrap_or_default())
    }
}

/// Up to 16 digits, lower case.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

fn write_hex(mut number: u128, room: &mut [u8]) {
    for place in room.iter_mut().rev() {
        *place = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// What a request says of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace<'a> {
    /// Where it comes from.
    pub parent: Parent,
    /// What vendors say of it; empty for nothing.
    pub state: &'a str,
}

impl<'a> Trace<'a> {
    /// Bytes of a state at most.
    pub const STATE_BYTES_MAX: usize = 512;
    /// Its members at most.
    const MEMBERS_MAX: usize = 32;

    /// Reads both fields; the first must be there.
    #[must_use]
    pub fn parse(parent: &[u8], state: Option<&'a [u8]>) -> Option<Self> {
        let parent = Parent::parse(parent)?;
        let state = state.map(<[u8]>::trim_ascii).filter(|state| is_state(state));
        Some(Self { parent, state: state.and_then(|state| str::from_utf8(state).ok()).unwrap_or_default() })
    }
}

/// A [`Trace`] that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTrace {
    parent: Parent,
    state: Box<str>,
}

impl OwnTrace {
    /// To be handed on.
    #[must_use]
    pub const fn as_trace(&self) -> Trace<'_> {
        Trace { parent: self.parent, state: &self.state }
    }
}

impl From<Trace<'_>> for OwnTrace {
    fn from(trace: Trace<'_>) -> Self {
        Self { parent: trace.parent, state: trace.state.into() }
    }
}

/// Whether it keeps the grammar of a `tracestate`, and is not too long.
fn is_state(state: &[u8]) -> bool {
    let members = || state.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let is_member = |member: &[u8]| member.is_empty() || is_member(member);
    state.len() <= Trace::STATE_BYTES_MAX && members().count() <= Trace::MEMBERS_MAX && members().all(is_member)
}

/// `key=value`: a key of 256 bytes at most, whose first is a letter or a digit, and printable ASCII as its value.
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = memchr::memchr(b'=', member) else { return false };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let is_key_byte = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let begins_well = key.first().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
    let is_value_byte = |byte: &u8| matches!(byte, 0x20..=0x2b | 0x2d..=0x3c | 0x3e..=0x7e);
    begins_well
        && key.len() <= 256
        && key.iter().all(is_key_byte)
        && !value.is_empty()
        && value.len() <= 256
        && value.iter().all(is_value_byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parent(text: &str) -> Option<Parent> {
        Parent::parse(text.as_bytes())
    }

    #[test]
    fn a_parent_is_read_and_written() {
        let read = parent(GOOD).expect("the example of the specification");
        assert_eq!((read.trace, read.span), (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7));
        assert!(read.is_sampled());
        assert_eq!(read.to_string(), GOOD);
        let unsampled = parent(&GOOD.replace("-01", "-00")).expect("one that is not recorded");
        assert!(!unsampled.is_sampled());
    }

    #[test]
    fn later_versions_are_read_as_this_one() {
        let later = GOOD.replacen("00-", "cc-", 1);
        for text in [later.clone(), format!("{later}-what-comes-then"), GOOD.replace("-01", "-ff")] {
            let read = parent(&text).expect("it can be read");
            assert!(read.to_string().starts_with("00-4bf92f") && read.flags <= 3, "{text}");
        }
    }

    #[test]
    fn what_is_no_parent_is_none() {
        for bad in [
            "",
            "00",
            &GOOD.replacen("00-", "ff-", 1),
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &format!("{}x", GOOD.replacen("00-", "01-", 1)),
            &GOOD.to_uppercase(),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("4b", "4g"),
            &GOOD.replace("4b", "ü"),
        ] {
            assert_eq!(parent(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_state_that_breaks_a_rule_is_left_out() {
        let state = |state: &str| {
            let trace = Trace::parse(GOOD.as_bytes(), Some(state.as_bytes())).map(|trace| trace.state.to_owned());
            trace.expect("the parent is good")
        };
        let most = (0..32).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
        for good in
            ["a=b", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=b, c=d", "fw529a3039@dt=x y", "1a-_*/=!~", &most]
        {
            assert_eq!(state(good), good);
        }
        for bad in ["a", "=b", "A=b", "a=b=c", "a=", "a=\u{1}", "-a=b", &format!("{most},more=v"), &"a=b,".repeat(129)]
        {
            assert_eq!(state(bad), "", "{bad}");
        }
        assert_eq!(state(" a=b "), "a=b");
        assert_eq!(Trace::parse(b"nonsense", Some(b"a=b")), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in prop::collection::vec(any::<u8>(), 0..80), state in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Some(trace) = Trace::parse(&text, Some(&state)) {
                prop_assert!(trace.state.len() <= Trace::STATE_BYTES_MAX);
            }
        }

        #[test]
        fn what_is_written_is_read(trace in 1..=u128::MAX, span in 1..=u64::MAX, flags in 0..=3_u8) {
            let parent = Parent { trace, span, flags };
            prop_assert_eq!(Parent::parse(&parent.to_bytes()), Some(parent));
        }
    }
}
