//! Which content encoding a client takes, RFC 9110 section 12.5.3.

/// What the bytes of a file may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As they are.
    Identity,
    /// Brotli.
    Brotli,
    /// Gzip.
    Gzip,
}

impl Encoding {
    /// All of them, the smaller files first.
    pub(super) const ALL: [Self; 3] = [Self::Brotli, Self::Gzip, Self::Identity];

    /// What is behind the name of a file that is encoded so.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
        }
    }

    /// The value of `Content-Encoding`.
    pub(super) const fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Brotli => Some("br"),
            Self::Gzip => Some("gzip"),
        }
    }
}

/// The weights that an `Accept-Encoding` gives, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weights {
    brotli: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    others: Option<u16>,
}

impl Weights {
    fn read(field: &[u8]) -> Self {
        let mut weights = Self::default();
        for member in field.split(|&byte| byte == b',') {
            let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(weight).unwrap_or(Some(1000));
            let place = match name {
                name if name.eq_ignore_ascii_case(b"br") => &mut weights.brotli,
                name if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => &mut weights.gzip,
                name if name.eq_ignore_ascii_case(b"identity") => &mut weights.identity,
                b"*" => &mut weights.others,
                _ => continue,
            };
            // A weight that is none takes nothing.
            *place = Some(weight.unwrap_or(0));
        }
        weights
    }

    fn of(self, encoding: Encoding) -> u16 {
        match encoding {
            Encoding::Brotli => self.brotli.or(self.others).unwrap_or(0),
            Encoding::Gzip => self.gzip.or(self.others).unwrap_or(0),
            // It is always taken, but rather not when it is not named.
            Encoding::Identity => self.identity.unwrap_or(0),
        }
    }
}

/// The number of `q=0.5`, as thousandths; the inner `None` when it is malformed, the outer when it is no weight.
fn weight(parameter: &[u8]) -> Option<Option<u16>> {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, rest) = value.split_first().unwrap_or((&b'x', &[]));
    let digits = rest.strip_prefix(b".").unwrap_or_default();
    let is_well = matches!(whole, b'0' | b'1')
        && (rest.is_empty() || rest[0] == b'.')
        && digits.len() <= 3
        && digits.iter().all(u8::is_ascii_digit);
    if !is_well {
        return Some(None);
    }
    let thousandths = [100, 10, 1].iter().zip(digits).map(|(unit, digit)| unit * u16::from(digit - b'0')).sum::<u16>();
    let weight = u16::from(whole - b'0') * 1000 + thousandths;
    Some((weight <= 1000).then_some(weight))
}

/// The encoding to send of those that are there. Without the field nothing is encoded; the file itself is always there.
pub(super) fn choose(field: Option<&[u8]>, is_there: impl Fn(Encoding) -> bool) -> Encoding {
    let Some(field) = field else { return Encoding::Identity };
    let weights = Weights::read(field);
    let mut best = (Encoding::Identity, weights.of(Encoding::Identity));
    // From the worst to the best, so that the better one wins where the client does not care.
    for encoding in [Encoding::Gzip, Encoding::Brotli] {
        let weight = weights.of(encoding);
        if weight > 0 && weight >= best.1 && is_there(encoding) {
            best = (encoding, weight);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(field: &str) -> Encoding {
        choose(Some(field.as_bytes()), |_| true)
    }

    #[test]
    fn the_client_decides_and_the_smaller_file_wins_a_tie() {
        assert_eq!(choose(None, |_| true), Encoding::Identity);
        for (field, encoding) in [
            ("gzip, deflate, br", Encoding::Brotli),
            ("gzip", Encoding::Gzip),
            ("X-GZIP", Encoding::Gzip),
            ("br;q=0.5, gzip;q=0.8", Encoding::Gzip),
            ("br;q=0, gzip", Encoding::Gzip),
            ("br;q=0.000, gzip;q=0", Encoding::Identity),
            ("*", Encoding::Brotli),
            ("*;q=0.5, br;q=0", Encoding::Gzip),
            ("identity, gzip;q=0.5", Encoding::Identity),
            ("identity;q=0.5, gzip ; q=0.5", Encoding::Gzip),
            ("deflate", Encoding::Identity),
            ("", Encoding::Identity),
        ] {
            assert_eq!(chosen(field), encoding, "{field}");
        }
        assert_eq!(choose(Some(b"br, gzip"), |encoding| encoding == Encoding::Gzip), Encoding::Gzip);
        assert_eq!(choose(Some(b"br, gzip"), |_| false), Encoding::Identity);
    }

    #[test]
    fn a_weight_that_is_none_takes_nothing() {
        for field in ["gzip;q=2", "gzip;q=", "gzip;q=x", "gzip;q=0.1234", "gzip;q=1.5", "gzip;q=-1", "gzip;q=05"] {
            assert_eq!(chosen(field), Encoding::Identity, "{field}");
        }
        assert_eq!(chosen("gzip;level=1"), Encoding::Gzip);
    }
}
