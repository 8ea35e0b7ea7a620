//! Until when a certificate is valid (RFC 5280 section 4.1.2.5), and for whom (section 4.2.1.6): what a server wants to know
//! of its own certificates and its TLS library does not tell.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use crate::metrics::text::{Kind, Text};

/// What operators are told of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    file: PathBuf,
    /// The first that it names; empty for none.
    host: String,
    /// Unix time.
    pub(super) not_after: i64,
    /// Tells it from the one before it in the same file.
    fingerprint: [u8; 32],
}

impl Validity {
    /// `None` for what is no certificate.
    pub(super) fn of(certificate: &[u8], file: &Path) -> Option<Self> {
        let host = host(certificate).unwrap_or_default();
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, certificate).as_ref());
        expiry(certificate).map(|not_after| Self { file: file.to_owned(), host, not_after, fingerprint })
    }
}

/// What Prometheus is told.
pub(super) fn write_metrics(all: &[Validity], text: &mut Text) {
    const NAME: &str = "tls_certificate_not_after_timestamp_seconds";
    text.family(NAME, Kind::Gauge, "Unix time at which a certificate of TLS listeners expires.");
    for Validity { file, host, not_after, .. } in all {
        text.sample(NAME, &[("file", &file.to_string_lossy()), ("host", host)], not_after);
    }
}

/// A tag and length, its contents, and what follows (X.690 sections 8.1 and 10.1).
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit)), rest)
    };
    let (contents, rest) = rest.split_at_checked(len)?;
    Some((tag, contents, rest))
}

/// Seconds since 1970 at which a certificate in DER expires; `None` for what is none.
fn expiry(certificate: &[u8]) -> Option<i64> {
    let (_, validity, _) = element(from_validity(certificate)?)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    seconds(tag, text)
}

/// The fields from the validity on.
fn from_validity(certificate: &[u8]) -> Option<&[u8]> {
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if element(fields)?.0 == VERSION {
        fields = element(fields)?.2;
    }
    // The serial number, the algorithm, the issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    Some(fields)
}

/// The first host that a certificate in DER names: a name, or else an address.
fn host(certificate: &[u8]) -> Option<String> {
    const EXTENSIONS: u8 = 0xa3;
    /// `id-ce-subjectAltName`, 2.5.29.17.
    const ALTERNATIVE_NAMES: [u8; 3] = [0x55, 0x1d, 0x11];
    const OCTETS: u8 = 0x04;
    let mut fields = elements(from_validity(certificate)?);
    let (_, extensions) = fields.find(|&(tag, _)| tag == EXTENSIONS)?;
    let mut extensions = elements(element(extensions)?.1);
    let (_, names) = extensions.find(|(_, extension)| elements(extension).any(|(_, id)| id == ALTERNATIVE_NAMES))?;
    let (_, names) = elements(names).find(|&(tag, _)| tag == OCTETS)?;
    first_host(element(names)?.1)
}

fn first_host(names: &[u8]) -> Option<String> {
    const NAME: u8 = 0x82;
    const ADDRESS: u8 = 0x87;
    let named = elements(names).find(|&(tag, _)| tag == NAME);
    if let Some((_, name)) = named {
        return std::str::from_utf8(name).ok().map(str::to_owned);
    }
    let (_, address) = elements(names).find(|&(tag, _)| tag == ADDRESS)?;
    let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from)).ok().map(|address| address.to_string())
}

/// Tags and contents of all elements in a row.
fn elements(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, contents, rest) = element(bytes)?;
        bytes = rest;
        Some((tag, contents))
    })
}

/// `YYMMDDHHMMSSZ` (UTCTime) or `YYYYMMDDHHMMSSZ` (GeneralizedTime).
fn seconds(tag: u8, text: &[u8]) -> Option<i64> {
    const UTC_TIME: u8 = 0x17;
    let text = text.strip_suffix(b"Z")?;
    let (year, rest) = text.split_at_checked(if tag == UTC_TIME { 2 } else { 4 })?;
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<i64>().ok();
    let year = match number(year)? {
        year if tag == UTC_TIME => year + if year < 50 { 2000 } else { 1900 },
        year => year,
    };
    let pairs: Vec<i64> = rest.chunks(2).map(number).collect::<Option<_>>()?;
    let [month, day, hour, minute, second] = pairs[..] else { return None };
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970 of a date in the Gregorian calendar. Years are counted from March, so that the leap day is their last.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_years = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Five months from March on have 153 days.
    let of_months = (153 * month + 2) / 5;
    // The first of March of the year 0 is 719468 days before 1970.
    of_years + of_months + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn dates_are_counted_from_1970() {
        for (tag, text, expected) in [
            (0x17, "700101000000Z", Some(0)),
            (0x17, "240229120000Z", Some(1_709_208_000)),
            (0x17, "491231235959Z", Some(2_524_607_999)),
            (0x18, "20500101000000Z", Some(2_524_608_000)),
            (0x18, "20500101000000", None),
            (0x17, "2402291200Z", None),
            (0x17, "24022912zz00Z", None),
        ] {
            assert_eq!(seconds(tag, text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_certificate_tells_when_it_expires_and_a_piece_of_it_does_not() {
        let mut parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2031, 5, 6);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let der = certificate.der();
        assert_eq!(expiry(der), Some(1_935_792_000));
        for end in 0..60 {
            assert_eq!(expiry(&der[..end]), None);
        }
    }

    #[test]
    fn a_certificate_tells_the_first_host_that_it_names() {
        for (names, expected) in [
            (&["a.example", "b.example"][..], Some("a.example")),
            (&["192.0.2.1", "a.example"], Some("a.example")),
            (&["192.0.2.1"], Some("192.0.2.1")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&[], None),
        ] {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            let der = made.cert.der();
            assert_eq!(host(der).as_deref(), expected);
            // Whatever a piece of it has, it is not another's.
            for end in 0..der.len() {
                assert!(host(&der[..end]).is_none_or(|host| Some(host.as_str()) == expected));
            }
        }
    }

    #[test]
    fn prometheus_is_told_until_when_certificates_are_valid() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let validity = Validity::of(made.cert.der(), Path::new("/etc/a.pem")).unwrap();
        let mut text = Text::new(crate::metrics::text::Format::Prometheus);
        write_metrics(&[validity], &mut text);
        let said = text.finish();
        let sample = "holdline_tls_certificate_not_after_timestamp_seconds{file=\"/etc/a.pem\",host=\"a.example\"} ";
        assert!(said.contains(sample), "{said}");
        assert_eq!(Validity::of(b"no certificate", Path::new("a")), None);
    }
}
