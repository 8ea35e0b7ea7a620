//! The PROXY protocol, versions 1 and 2: the header with which a proxy in front says who its client is.
//!
//! It is the first thing on a connection, before TLS. Version 1 is a line of text, version 2 has a signature, a length and
//! addresses in binary (haproxy, `doc/proxy-protocol.txt`). Whether the peer may be believed is for others to say.
//!
//! Type-length-values behind the addresses of version 2 are passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::rule::Rule;

/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 begins.
const TEXT: &[u8; 6] = b"PROXY ";
/// Bytes of a line of version 1 with its end, as the protocol has it.
const LINE_MAX: usize = 107;
/// Bytes of a header's fixed part in version 2.
const FIXED: usize = 16;
/// Bytes behind it that are taken: addresses have up to 216, and proxies send some hundred of values about TLS.
const REST_MAX: usize = 4096;

/// Bytes of a header at most.
pub const HEADER_MAX: usize = FIXED + REST_MAX;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length; what follows is the client's.
    pub bytes: usize,
    /// The client. `None` where the proxy speaks for itself or does not know: then the peer is who it is.
    pub client: Option<SocketAddr>,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Something else came.
    #[error("no PROXY header came")]
    Missing,
    /// It begins like one.
    #[error("the PROXY header cannot be read")]
    Malformed,
    /// Over the bound.
    #[error("the PROXY header has more than {HEADER_MAX} bytes")]
    TooLong,
}

impl Fault {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Missing => Rule::ProxyMissing,
            Self::Malformed => Rule::ProxyMalformed,
            Self::TooLong => Rule::ProxyTooLong,
        }
    }
}

/// Reads the header that `bytes` begin with; `Ok(None)` while it is not whole.
///
/// # Errors
/// When they begin with something else.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    if begins(bytes, SIGNATURE) {
        return if bytes.len() < FIXED { check_fixed(bytes).map(|()| None) } else { binary(bytes) };
    }
    if begins(bytes, TEXT) { line(bytes) } else { Err(Fault::Missing) }
}

/// Whether what has come may become what begins so.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let len = bytes.len().min(with.len());
    bytes[..len] == with[..len]
}

/// Version 1: `PROXY TCP4 SOURCE DESTINATION PORT PORT` and CR LF.
fn line(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE_MAX)]) else {
        return if bytes.len() < LINE_MAX { Ok(None) } else { Err(Fault::Malformed) };
    };
    let line = bytes[..end].strip_suffix(b"\r").and_then(|line| str::from_utf8(line).ok()).ok_or(Fault::Malformed)?;
    let bytes = end + 1;
    let mut words = line.split(' ').skip(1);
    let client = match words.next() {
        // What follows may be anything.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(client::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(client::<Ipv6Addr>(words)?),
        _ => return Err(Fault::Malformed),
    };
    Ok(Some(Header { bytes, client }))
}

/// The first of two addresses with their ports behind them.
fn client<'w, A: FromStr + Into<IpAddr>>(mut words: impl Iterator<Item = &'w str>) -> Result<SocketAddr, Fault> {
    let mut address = || words.next().and_then(|word| word.parse::<A>().ok()).ok_or(Fault::Malformed);
    let (source, _) = (address()?, address()?);
    let mut port = || words.next().and_then(port).ok_or(Fault::Malformed);
    let (source_port, _) = (port()?, port()?);
    if words.next().is_some() { Err(Fault::Malformed) } else { Ok(SocketAddr::new(source.into(), source_port)) }
}

/// A port in decimal, without a sign or zeros before it.
fn port(word: &str) -> Option<u16> {
    let is_plain = word == "0" || word.bytes().all(|byte| byte.is_ascii_digit()) && !word.starts_with('0');
    if is_plain { word.parse().ok() } else { None }
}

/// What version 2 says in the bytes that are there already.
fn check_fixed(bytes: &[u8]) -> Result<(), Fault> {
    if bytes.get(12).is_some_and(|byte| !matches!(byte, 0x20 | 0x21)) {
        return Err(Fault::Malformed);
    }
    Ok(())
}

fn binary(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    check_fixed(bytes)?;
    let [command, family, high, low] = [bytes[12], bytes[13], bytes[14], bytes[15]];
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > REST_MAX {
        return Err(Fault::TooLong);
    }
    let Some(rest) = bytes.get(FIXED..FIXED + len) else { return Ok(None) };
    const LOCAL: u8 = 0x20;
    let client = match (command, family) {
        (LOCAL, _) => None,
        // Source, destination, source port, destination port.
        (_, 0x11) => Some(binary_client::<4>(rest, 12)?),
        (_, 0x21) => Some(binary_client::<16>(rest, 36)?),
        // Unknown, or sockets that are files.
        (_, 0x00 | 0x31) => None,
        // Datagrams, and what nobody has defined.
        _ => return Err(Fault::Malformed),
    };
    Ok(Some(Header { bytes: FIXED + len, client }))
}

fn binary_client<const N: usize>(rest: &[u8], len: usize) -> Result<SocketAddr, Fault>
where
    IpAddr: From<[u8; N]>,
{
    let addresses = rest.get(..len).ok_or(Fault::Malformed)?;
    let ip = addresses.first_chunk::<N>().ok_or(Fault::Malformed)?;
    let port = addresses.get(2 * N..2 * N + 2).ok_or(Fault::Malformed)?;
    Ok(SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes([port[0], port[1]])))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, rest].concat()
    }

    const ADDRESSES: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb];

    fn addresses6() -> Vec<u8> {
        let ip = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
        [&ip[..], &ip, &[0x30, 0x39, 1, 0xbb]].concat()
    }

    /// The client that a whole header names, with something behind it.
    fn client_of(header: &[u8]) -> Option<SocketAddr> {
        let read = parse(&[header, b"\x16\x03\x01 and what follows"].concat()).unwrap().unwrap();
        assert_eq!(read.bytes, header.len());
        assert!((0..header.len()).all(|cut| parse(&header[..cut]) == Ok(None)), "not whole");
        read.client
    }

    fn at(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn lines_of_version_1() {
        assert_eq!(client_of(b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\n"), at("192.0.2.1:12345"));
        assert_eq!(client_of(b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n"), at("[2001:db8::7]:65535"));
        assert_eq!(client_of(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(client_of(b"PROXY UNKNOWN ffff:f:ffff whatever 1\r\n"), None);
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 16));
        assert_eq!(client_of(longest.as_bytes()), None);
    }

    #[test]
    fn lines_that_are_none() {
        for line in [
            "PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\n",
            "PROXY  TCP4 192.0.2.1 10.0.0.1 12345 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 12345 443 \r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 12345\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 12345 65536\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 012345 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 +12345 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1  443\r\n",
            "PROXY TCP4 192.0.2.01 10.0.0.1 1 443\r\n",
            "PROXY TCP4 2001:db8::7 ::1 1 443\r\n",
            "PROXY TCP6 192.0.2.1 10.0.0.1 1 443\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.1 1 443\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(Fault::Malformed), "{line:?}");
        }
        let endless = format!("PROXY UNKNOWN {}", "f".repeat(200));
        assert_eq!(parse(endless.as_bytes()), Err(Fault::Malformed));
        assert_eq!(parse(&endless.as_bytes()[..106]), Ok(None));
    }

    #[test]
    fn headers_of_version_2() {
        assert_eq!(client_of(&v2(0x21, 0x11, &ADDRESSES)), at("192.0.2.1:12345"));
        assert_eq!(client_of(&v2(0x21, 0x21, &addresses6())), at("[2001:db8::7]:12345"));
        let with_values = [&ADDRESSES[..], &[0x02, 0, 4, b'h', b'o', b's', b't'], &[0xee; 500]].concat();
        assert_eq!(client_of(&v2(0x21, 0x11, &with_values)), at("192.0.2.1:12345"));
        assert_eq!(client_of(&v2(0x20, 0x00, &[])), None, "LOCAL");
        assert_eq!(client_of(&v2(0x20, 0x11, &ADDRESSES)), None, "LOCAL, whatever it says");
        assert_eq!(client_of(&v2(0x21, 0x00, &[1, 2, 3])), None, "UNSPEC");
        assert_eq!(client_of(&v2(0x21, 0x31, &[0; 216])), None, "UNIX");
        assert_eq!(client_of(&v2(0x21, 0x11, &[&ADDRESSES[..], &[0; REST_MAX - 12]].concat())), at("192.0.2.1:12345"));
    }

    #[test]
    fn headers_of_version_2_that_are_none() {
        for (command, family, rest) in [
            (0x11, 0x11, &ADDRESSES[..]),
            (0x22, 0x11, &ADDRESSES),
            (0x21, 0x12, &ADDRESSES),
            (0x21, 0x41, &ADDRESSES),
            (0x21, 0x11, &ADDRESSES[..11]),
            (0x21, 0x21, &ADDRESSES),
        ] {
            assert_eq!(parse(&v2(command, family, rest)), Err(Fault::Malformed), "{command:x} {family:x}");
        }
        assert_eq!(parse(&v2(0x21, 0x11, &[0; REST_MAX + 1])[..FIXED]), Err(Fault::TooLong), "before it is there");
        assert_eq!(parse(&v2(0x30, 0x11, &[])[..13]), Err(Fault::Malformed), "as soon as it shows");
    }

    #[test]
    fn something_else_is_seen_by_its_first_byte_that_differs() {
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"PROXI", b"PRI * HTTP/2.0", b"\r\n\r\nX", b"proxy "]
        {
            assert_eq!(parse(other), Err(Fault::Missing), "{other:?}");
        }
        assert_eq!(parse(b""), Ok(None));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter_and_nothing_is_read_twice(
            start in prop_oneof![Just(Vec::new()), Just(TEXT.to_vec()), Just(SIGNATURE.to_vec()),
                Just(b"PROXY TCP4 192.0.2.1 ".to_vec()), Just(v2(0x21, 0x11, &ADDRESSES)[..15].to_vec())],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, rest].concat();
            let whole = parse(&bytes);
            if let Ok(Some(header)) = whole {
                prop_assert!(header.bytes <= bytes.len() && header.bytes <= HEADER_MAX);
            }
            // What comes in pieces comes to the same, no later.
            let first = (0..=bytes.len()).map(|cut| parse(&bytes[..cut])).find(|read| *read != Ok(None));
            prop_assert_eq!(first.unwrap_or(Ok(None)), whole);
        }
    }
}
