//! How each kind of value is written: the same in a file, in the environment and in a flag.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Wrong, quote};
use super::{
    BackendChoice, ClientCertificates, LogFormat, OverRate, Presence, Publishers, SlowConsumer, Storage, TlsVersion,
};

/// A value as it was found.
pub(super) enum Raw<'a> {
    /// A string or a number.
    Text(&'a str),
    /// An array of strings.
    List(Vec<&'a str>),
    /// true or false.
    Switch(bool),
    /// Something that no setting takes: what it is.
    Other(&'static str),
}

impl<'a> Raw<'a> {
    pub(super) fn text(&self, mend: &str) -> Result<&'a str, Wrong> {
        match self {
            Self::Text(text) => Ok(text.trim()),
            Self::List(_) => Err(Wrong::new("is an array", mend)),
            Self::Switch(_) => Err(Wrong::new("is a boolean", mend)),
            Self::Other(what) => Err(Wrong::new(format!("is {what}"), mend)),
        }
    }

    /// A list; a text is one whose items are separated by commas.
    pub(super) fn list(&self, mend: &str) -> Result<Vec<&'a str>, Wrong> {
        match self {
            Self::Text(text) => Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()),
            Self::List(items) => Ok(items.clone()),
            Self::Switch(_) => Err(Wrong::new("is a boolean", mend)),
            Self::Other(what) => Err(Wrong::new(format!("is {what}"), mend)),
        }
    }
}

/// Reads each item of a list. What is wrong with any of them is told, not with the first one alone.
pub(super) fn each_item<'a, T>(
    items: impl IntoIterator<Item = &'a str>,
    mut read: impl FnMut(&'a str) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    let (mut values, mut wrongs) = (Vec::new(), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        match read(item) {
            Ok(value) => values.push(value),
            Err(wrong) => wrongs.push(wrong.of_item(index)),
        }
    }
    Wrong::of_all(wrongs).map_or(Ok(values), Err)
}

/// A duration in a flag that is no setting, such as `30s`, within these bounds.
pub(crate) fn parse_duration(text: &str, least: Duration, most: Duration) -> Result<Duration, Wrong> {
    let period = Period::read(&Raw::Text(text))?;
    Rule::Within(least, most).check::<Period>(&period)?;
    Ok(period)
}

/// A number of bytes likewise, such as `64KiB`.
pub(crate) fn parse_size(text: &str, least: usize, most: usize) -> Result<usize, Wrong> {
    let bytes = Size::read(&Raw::Text(text))?;
    Rule::Within(least, most).check::<Size>(&bytes)?;
    Ok(bytes)
}

/// A way to write values of a type.
pub(super) trait Format {
    type Value;

    fn read(raw: &Raw<'_>) -> Result<Self::Value, Wrong>;

    /// As it stands in a TOML file.
    fn write(value: &Self::Value) -> String;
}

/// What a number or a duration has to be.
#[derive(Clone, Copy)]
pub(super) enum Rule<T> {
    /// From the one to the other.
    Within(T, T),
    /// Likewise, or zero.
    ZeroOr(T, T),
}

impl<T: PartialOrd + Default + Copy> Rule<T> {
    pub(super) fn check<F: Format<Value = T>>(self, value: &T) -> Result<(), Wrong> {
        let (Self::Within(least, most) | Self::ZeroOr(least, most)) = self;
        let zero_allowed = matches!(self, Self::ZeroOr(..));
        if (least..=most).contains(value) || zero_allowed && *value == T::default() {
            return Ok(());
        }
        let far = if *value < least { "below" } else { "above" };
        let bound = if *value < least { least } else { most };
        let (value, bound) = (bare(&F::write(value)), bare(&F::write(&bound)));
        Err(Wrong::new(format!("is {value}, {far} {bound}"), format!("write {}", self.describe::<F>())))
    }

    pub(super) fn describe<F: Format<Value = T>>(self) -> String {
        let (Self::Within(least, most) | Self::ZeroOr(least, most)) = self;
        let or_zero = if matches!(self, Self::ZeroOr(..)) { ", or 0" } else { "" };
        format!("{} to {}{or_zero}", bare(&F::write(&least)), bare(&F::write(&most)))
    }
}

fn bare(written: &str) -> String {
    written.trim_matches('"').to_owned()
}

/// A directory, or none. Whether it is there is looked at when it is served.
pub(super) struct Directory;

impl Format for Directory {
    type Value = Option<PathBuf>;

    fn read(raw: &Raw<'_>) -> Result<Option<PathBuf>, Wrong> {
        let text = raw.text("write the path of a directory")?;
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn write(value: &Option<PathBuf>) -> String {
        quote(&value.as_deref().map_or_else(String::new, |path| path.display().to_string()))
    }
}

/// A file, or none. Whether it is there is looked at when it is read.
pub(super) struct FilePath;

impl Format for FilePath {
    type Value = Option<PathBuf>;

    fn read(raw: &Raw<'_>) -> Result<Option<PathBuf>, Wrong> {
        let text = raw.text("write the path of a file")?;
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn write(value: &Option<PathBuf>) -> String {
        Directory::write(value)
    }
}

/// The path of a Unix socket, or none.
pub(super) struct File;

impl File {
    /// Bytes that fit into a `sockaddr_un`, with room for a PID behind the name.
    const BYTES_MAX: usize = 96;
}

impl Format for File {
    type Value = Option<PathBuf>;

    fn read(raw: &Raw<'_>) -> Result<Option<PathBuf>, Wrong> {
        let text = raw.text("write the path of a file")?;
        if text.len() > Self::BYTES_MAX {
            let what = format!("has {} bytes, {} are the most for a socket", text.len(), Self::BYTES_MAX);
            return Err(Wrong::new(what, "write a shorter path"));
        }
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn write(value: &Option<PathBuf>) -> String {
        Directory::write(value)
    }
}

/// A number of things.
pub(super) struct Count<T>(PhantomData<T>);

impl<T: std::str::FromStr + ToString> Format for Count<T> {
    type Value = T;

    fn read(raw: &Raw<'_>) -> Result<T, Wrong> {
        let mend = "write a whole number, such as 1000, 200k or 5M";
        let text = raw.text(mend)?;
        let (digits, zeros) = match text.as_bytes().split_last() {
            Some((b'k' | b'K', _)) => (&text[..text.len() - 1], "000"),
            Some((b'M', _)) => (&text[..text.len() - 1], "000000"),
            _ => (text, ""),
        };
        // Zeros alone are no number.
        let number = if digits.is_empty() { None } else { format!("{digits}{zeros}").replace('_', "").parse().ok() };
        number.ok_or_else(|| Wrong::new(format!("is {}", quote(text)), mend))
    }

    fn write(value: &T) -> String {
        value.to_string()
    }
}

/// A number of bytes.
pub(super) struct Size;

impl Size {
    /// From the largest.
    const UNITS: [(&str, usize); 5] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
}

impl Format for Size {
    type Value = usize;

    fn read(raw: &Raw<'_>) -> Result<usize, Wrong> {
        let mend = "write bytes, such as 65536, 64KiB, 1MiB or 2GiB";
        let text = raw.text(mend)?;
        let (number, unit) = split_number(text);
        let factor = Self::UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
        let factor = if unit.is_empty() { Some(1) } else { factor };
        let number = number.replace('_', "").parse::<usize>().ok();
        let bytes = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        bytes.ok_or_else(|| Wrong::new(format!("is {}", quote(text)), mend))
    }

    fn write(value: &usize) -> String {
        let unit = Self::UNITS.iter().find(|(_, factor)| *value >= *factor && value.is_multiple_of(*factor));
        match unit {
            Some((_, 1)) | None => value.to_string(),
            Some((name, factor)) => format!("\"{}{name}\"", value / factor),
        }
    }
}

/// A time.
pub(super) struct Period;

impl Period {
    /// From the largest, in milliseconds.
    const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

    fn parse(text: &str) -> Option<Duration> {
        let mut total: u64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let (number, tail) = split_number(rest);
            let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let factor = Self::UNITS.iter().find(|(name, _)| *name == unit.trim())?.1;
            total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
            rest = tail;
        }
        Some(Duration::from_millis(total))
    }
}

impl Format for Period {
    type Value = Duration;

    fn read(raw: &Raw<'_>) -> Result<Duration, Wrong> {
        let mend = "write a time with its unit, such as 250ms, 30s, 5m or 1h";
        let text = raw.text(mend)?;
        if text == "0" {
            return Ok(Duration::ZERO);
        }
        if text.parse::<f64>().is_ok() {
            return Err(Wrong::new(format!("is {}, without a unit", quote(text)), mend));
        }
        let period = Self::parse(text).filter(|_| !text.is_empty());
        period.ok_or_else(|| Wrong::new(format!("is {}", quote(text)), mend))
    }

    fn write(value: &Duration) -> String {
        let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return "\"0s\"".to_owned();
        }
        let (unit, factor) =
            Self::UNITS.iter().find(|(_, factor)| millis.is_multiple_of(*factor)).unwrap_or(&("ms", 1));
        format!("\"{}{unit}\"", millis / factor)
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// One of a few words.
pub(super) struct Word<T>(PhantomData<T>);

pub(super) trait Named: Sized + Copy {
    fn names() -> &'static [&'static str];
    fn find(name: &str) -> Option<Self>;
    fn name(self) -> &'static str;
}

macro_rules! has_names {
    ($($type:ty),+) => {
        $(impl Named for $type {
            fn names() -> &'static [&'static str] {
                Self::NAMES
            }
            fn find(name: &str) -> Option<Self> {
                Self::from_name(name)
            }
            fn name(self) -> &'static str {
                self.name()
            }
        })+
    };
}

has_names!(
    BackendChoice,
    ClientCertificates,
    LogFormat,
    OverRate,
    Presence,
    Publishers,
    SlowConsumer,
    Storage,
    TlsVersion
);

impl<T: Named> Format for Word<T> {
    type Value = T;

    fn read(raw: &Raw<'_>) -> Result<T, Wrong> {
        let mend = format!("write {}", T::names().join(" or "));
        let text = raw.text(&mend)?;
        T::find(text).ok_or_else(|| Wrong::new(format!("is {}", quote(text)), mend))
    }

    fn write(value: &T) -> String {
        format!("\"{}\"", value.name())
    }
}

/// Yes or no.
pub(super) struct Switch;

impl Format for Switch {
    type Value = bool;

    fn read(raw: &Raw<'_>) -> Result<bool, Wrong> {
        let mend = "write true or false";
        if let Raw::Switch(on) = raw {
            return Ok(*on);
        }
        let text = raw.text(mend)?;
        text.parse().map_err(|_| Wrong::new(format!("is {}", quote(text)), mend))
    }

    fn write(value: &bool) -> String {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::super::lists::{Address, Listeners, OriginList, Subprotocols};
    use super::*;

    fn round_trip<F: Format>(text: &str) -> String {
        bare(&F::write(&F::read(&Raw::Text(text)).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))))
    }

    fn refused<F: Format>(text: &str) -> bool {
        F::read(&Raw::Text(text)).is_err()
    }

    #[test]
    fn counts_may_be_in_thousands_and_millions() {
        for (text, written) in [("7", "7"), ("1_000", "1000"), ("200k", "200000"), ("20K", "20000"), ("5M", "5000000")]
        {
            assert_eq!(round_trip::<Count<usize>>(text), written);
        }
        for text in ["", "k", "M", "1m", "1.5M", "-1k", "1kk", "99999999999999999999M", "1é"] {
            assert!(refused::<Count<usize>>(text), "{text}");
        }
        assert!(refused::<Count<u16>>("1M"));
    }

    #[test]
    fn durations_have_units() {
        for (text, written) in [
            ("30s", "30s"),
            ("5m", "5m"),
            ("250ms", "250ms"),
            ("1h", "1h"),
            ("90s", "90s"),
            ("1m30s", "90s"),
            ("120s", "2m"),
            ("0", "0s"),
            ("24h", "1d"),
            ("1500 ms", "1500ms"),
        ] {
            assert_eq!(round_trip::<Period>(text), written);
        }
        for text in ["", "30", "1.5", "s", "30 parsecs", "-1s", "99999999999999999999s", "18446744073709551615d", "1é"]
        {
            assert!(refused::<Period>(text), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_binary_units() {
        for (text, written) in
            [("65536", "64KiB"), ("64KiB", "64KiB"), ("1 mib", "1MiB"), ("1000", "1000"), ("0", "0"), ("1_024", "1KiB")]
        {
            assert_eq!(round_trip::<Size>(text), written);
        }
        for text in ["", "KiB", "1KB", "1.5MiB", "-1", "99999999999TiB", "_"] {
            assert!(refused::<Size>(text), "{text}");
        }
    }

    #[test]
    fn rules_say_what_is_allowed() {
        let rule = Rule::ZeroOr(Duration::from_secs(1), Duration::from_secs(60));
        assert!(rule.check::<Period>(&Duration::ZERO).is_ok());
        let wrong = rule.check::<Period>(&Duration::from_millis(10)).unwrap_err();
        assert_eq!((wrong.what.as_str(), wrong.mend.as_str()), ("is 10ms, below 1s", "write 1s to 1m, or 0"));
    }

    #[test]
    fn lists_are_separated_by_commas_in_one_text() {
        let listeners = Listeners::read(&Raw::Text("http://127.0.0.1:1, tcp://127.0.0.1:2")).unwrap();
        assert_eq!(Listeners::write(&listeners), r#"["http://127.0.0.1:1", "tcp://127.0.0.1:2"]"#);
        assert!(refused::<Listeners>(""));
        assert_eq!(round_trip::<OriginList>("same,https://a.example"), r#"["same", "https://a.example"]"#);
        assert_eq!(Subprotocols::read(&Raw::Text("")).unwrap(), Vec::<String>::new());
        assert!(refused::<Subprotocols>("a,a"));
        assert!(refused::<Subprotocols>("a b"));
    }

    #[test]
    fn a_switch_is_true_or_false() {
        assert_eq!((round_trip::<Switch>("true"), round_trip::<Switch>("false")), ("true".into(), "false".into()));
        assert!(matches!(Switch::read(&Raw::Switch(false)), Ok(false)));
        assert!(refused::<Switch>("yes") && refused::<Switch>(""));
        assert!(Period::read(&Raw::Switch(true)).is_err() && OriginList::read(&Raw::Switch(true)).is_err());
    }

    #[test]
    fn a_directory_can_be_none() {
        assert_eq!(
            (round_trip::<Directory>(""), round_trip::<Directory>("/srv/a b")),
            (String::new(), "/srv/a b".into())
        );
    }

    #[test]
    fn a_socket_has_a_short_path_or_none() {
        assert_eq!((round_trip::<File>(""), round_trip::<File>("/run/h.sock")), (String::new(), "/run/h.sock".into()));
        assert!(refused::<File>(&"x".repeat(97)));
    }

    #[test]
    fn the_admin_address_can_be_off() {
        assert_eq!(round_trip::<Address>("off"), "off");
        assert_eq!(round_trip::<Address>("localhost:9"), "127.0.0.1:9");
        assert!(refused::<Address>("9090"));
    }
}
