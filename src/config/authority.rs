//! Hosts and ports in URLs of other servers.

use std::net::Ipv6Addr;

/// Why a text is none.
pub(super) const WRONG: &str = "has no host, or a port that is none";

/// The host (an address of IPv6 without its brackets) and the port, if there is one, of `HOST:PORT`.
///
/// # Errors
/// When it is something else.
pub(super) fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = split(authority).ok_or(WRONG)?;
    let port = port.map(|port| number(port).ok_or(WRONG)).transpose()?;
    Ok((host, port))
}

fn number(port: &str) -> Option<u16> {
    // A sign would be read as well.
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|&port| is_number && port != 0)
}

fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return if rest.is_empty() { Some((host, None)) } else { Some((host, Some(rest.strip_prefix(':')?))) };
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_name)).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_may_have_ports() {
        for (text, host, port) in [
            ("a.example", "a.example", None),
            ("a_b-1:65535", "a_b-1", Some(65_535)),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]", "::1", None),
            ("[2001:db8::1]:4222", "2001:db8::1", Some(4222)),
        ] {
            assert_eq!(host_and_port(text), Ok((host, port)));
        }
        for text in [
            "", ":1", "a:", "a:0", "a:65536", "a:-1", "a:+1", "a:b", "a:1:2", "::1", "[::1", "[a]:1", "[::1]1", "a b",
            "é",
        ] {
            assert_eq!(host_and_port(text), Err(WRONG), "{text}");
        }
    }
}
