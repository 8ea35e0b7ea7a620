//! Where a listener is: an address of the network, or a file.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::listen::{ListenError, once, percent_decode, wrong};
use super::problem::quote;

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAt {
    /// An address and a port.
    Ip(SocketAddr),
    /// The file of a Unix stream socket (unix(7)), an absolute path.
    Unix(PathBuf),
}

impl ListenAt {
    /// Bytes of a path at most: `sun_path` has 108, and a zero ends it (unix(7)).
    pub const PATH_BYTES_MAX: usize = 107;

    /// Whether other machines can connect there.
    #[must_use]
    pub const fn is_remote(&self) -> bool {
        match self {
            Self::Ip(address) => !address.ip().is_loopback(),
            Self::Unix(_) => false,
        }
    }

    /// Whether the kernel chooses the port.
    #[must_use]
    pub const fn is_any_port(&self) -> bool {
        matches!(self, Self::Ip(address) if address.port() == 0)
    }

    /// The address, where it is one.
    #[must_use]
    pub const fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The file, where it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Ip(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl From<SocketAddr> for ListenAt {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Reads what [`fmt::Display`] writes: `HOST:PORT`, or a path.
impl FromStr for ListenAt {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') { Ok(Self::Unix(PathBuf::from(text))) } else { text.parse().map(Self::Ip) }
    }
}

/// What stands behind `unix://`: an absolute path, with %XX for `?`, `#` and `%`.
pub(super) fn parse_path(encoded: &str) -> Result<ListenAt, ListenError> {
    if encoded.is_empty() {
        return wrong("the path is missing", "write unix:///PATH, such as unix:///run/holdline/edge.sock");
    }
    let Some(path) = percent_decode(encoded) else {
        return wrong(format!("{} is not percent-encoded UTF-8", quote(encoded)), "write %25 for %");
    };
    if !path.starts_with('/') {
        return wrong(format!("{} is not an absolute path", quote(&path)), format!("write unix:///{encoded}"));
    }
    if path.ends_with('/') {
        return wrong(format!("{} is a directory", quote(&path)), "add the name of the socket, such as edge.sock");
    }
    if path.chars().any(char::is_control) {
        return wrong(format!("{} has control characters", quote(&path)), "choose another path");
    }
    if path.len() > ListenAt::PATH_BYTES_MAX {
        let max = ListenAt::PATH_BYTES_MAX;
        let what = format!("{} has {} bytes, the path of a socket {max} at most", quote(&path), path.len());
        return wrong(what, "choose a shorter path");
    }
    Ok(ListenAt::Unix(path.into()))
}

/// What stands behind the `?` of a `unix://` URL.
pub(super) fn parse_mode(query: &str) -> Result<Option<u32>, ListenError> {
    let mut mode = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some(octal) = pair.strip_prefix("mode=") else {
            let what = format!("a unix listener takes mode=0660 and proxy=on, not {}", quote(pair));
            return wrong(what, "leave it out");
        };
        let bits = u32::from_str_radix(octal, 8).ok().filter(|bits| *bits <= 0o777 && !octal.starts_with('+'));
        let Some(bits) = bits else {
            return wrong(format!("mode is {}", quote(octal)), "write permission bits in octal, such as 0660");
        };
        once(&mut mode, "mode", bits)?;
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["127.0.0.1:80", "[::1]:0", "/run/holdline/edge.sock"] {
            assert_eq!(text.parse::<ListenAt>().unwrap().to_string(), text);
        }
        assert!("run/edge.sock".parse::<ListenAt>().is_err());
    }

    #[test]
    fn a_path_is_as_long_as_the_kernel_has_room() {
        let path = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
        assert_eq!(parse_path(&path(107)).unwrap().path(), Some(Path::new(&path(107))));
        let said = parse_path(&path(108)).unwrap_err().to_string();
        assert!(said.ends_with("has 108 bytes, the path of a socket 107 at most: choose a shorter path"), "{said}");
    }

    #[test]
    fn a_file_is_of_this_machine_and_has_no_port() {
        let all = ["127.0.0.1:0", "0.0.0.0:80", "/run/edge.sock"].map(|text| text.parse::<ListenAt>().unwrap());
        assert_eq!(all.each_ref().map(ListenAt::is_remote), [false, true, false]);
        assert_eq!(all.each_ref().map(ListenAt::is_any_port), [true, false, false]);
    }
}
