//! Listeners and their URLs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::listen_at::{ListenAt, parse_mode, parse_path};
use super::nearest::nearest;
use super::problem::quote;

/// Where clients connect and what they speak there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Port 0 picks a free one.
    pub address: ListenAt,
    /// What is spoken.
    pub transport: Transport,
    /// Whether it is spoken over TLS.
    pub tls: bool,
    /// Whether every connection begins with a header that says who the client is (the PROXY protocol).
    pub proxy: bool,
    /// Permission bits of a Unix socket's file, [`Listen::MODE`] if not given.
    pub mode: Option<u32>,
}

/// What is spoken at a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1 and what grows out of it.
    Http,
    /// Frames over bare TCP.
    Tcp {
        /// How a frame ends.
        framing: Framing,
        /// Who serves it.
        app: App,
        /// The topic that every connection is bound to (the room, for a chat). Checked as the contract has it.
        topic: Option<String>,
        /// The queue group that all connections of a topic are in. Checked likewise.
        group: Option<String>,
    },
}

named! {
    /// How a raw TCP frame ends.
    Framing {
        /// In a newline.
        #[default]
        Line = "line",
        /// Where the 4-byte big-endian length before it says.
        Length = "length",
    }
}

named! {
    /// Who serves a raw TCP listener.
    App {
        /// Every frame comes back.
        #[default]
        Echo = "echo",
        /// A chat room.
        Chat = "chat",
        /// Publish and subscribe on one topic.
        Topic = "topic",
    }
}

/// Why a text is not a listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {mend}")]
pub struct ListenError {
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

pub(super) fn wrong<T>(what: impl Into<String>, mend: impl Into<String>) -> Result<T, ListenError> {
    Err(ListenError { what: what.into(), mend: mend.into() })
}

impl Listen {
    const SCHEMES: [&str; 5] = ["http", "https", "tcp", "tls", "unix"];
    const QUERY_KEYS: [&str; 5] = ["framing", "app", "topic", "group", "proxy"];

    /// Who may connect to a Unix socket unless its URL says it: the server's user and group.
    pub const MODE: u32 = 0o660;

    /// HTTP at this address.
    #[must_use]
    pub const fn http(address: SocketAddr) -> Self {
        Self::at_place(ListenAt::Ip(address), Transport::Http)
    }

    const fn at_place(address: ListenAt, transport: Transport) -> Self {
        Self { address, transport, tls: false, proxy: false, mode: None }
    }

    /// Raw TCP at this address as `tcp://` without a query has it: lines that are echoed.
    #[must_use]
    pub const fn tcp(address: SocketAddr) -> Self {
        let transport = Transport::Tcp { framing: Framing::Line, app: App::Echo, topic: None, group: None };
        Self::at_place(ListenAt::Ip(address), transport)
    }

    /// The same at another address, for one whose port was 0.
    #[must_use]
    pub fn at(&self, address: impl Into<ListenAt>) -> Self {
        Self { address: address.into(), ..self.clone() }
    }

    /// Reads `http://HOST:PORT` or `tcp://HOST:PORT?framing=line|length&app=echo|chat|topic&topic=NAME&group=NAME`, or
    /// `https://` and `tls://`, which are the same over TLS, or `unix:///PATH?mode=0660`; each with `proxy=on` in its query.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(url: &str) -> Result<Self, ListenError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            let mend = if url.starts_with("unix:") || url.starts_with('/') {
                "write unix:///PATH"
            } else {
                "write http://HOST:PORT, tcp://HOST:PORT or unix:///PATH"
            };
            return wrong(format!("{} is not a URL", quote(url)), mend);
        };
        let (authority, query) = rest.split_once('?').map_or((rest, None), |(head, query)| (head, Some(query)));
        let (path, authority) = (authority, authority.strip_suffix('/').unwrap_or(authority));
        let (proxy, query) = take_proxy(query.unwrap_or_default())?;
        match scheme {
            "http" | "https" => {
                if !query.is_empty() {
                    let what = format!("an {scheme} listener takes no query but proxy=on, not {}", quote(&query));
                    return wrong(what, "leave it out");
                }
                Ok(Self { tls: scheme == "https", proxy, ..Self::http(parse_address(authority)?) })
            }
            "tcp" | "tls" => {
                let (address, transport) = (parse_address(authority)?, parse_query(&query)?);
                let address = ListenAt::Ip(address);
                Ok(Self { tls: scheme == "tls", proxy, ..Self::at_place(address, transport) })
            }
            "unix" => {
                let (address, mode) = (parse_path(path)?, parse_mode(&query)?);
                Ok(Self { proxy, mode, ..Self::at_place(address, Transport::Http) })
            }
            "wss" | "grpcs" | "h2" => {
                wrong(format!("{scheme} is served by https listeners"), format!("write https://{authority}"))
            }
            "ws" | "sse" | "grpc" | "h2c" => {
                wrong(format!("{scheme} is served by http listeners"), format!("write http://{authority}"))
            }
            _ => wrong(
                format!("unknown scheme {}", quote(scheme)),
                format!("did you mean {}://?", nearest(scheme, Self::SCHEMES).unwrap_or("http")),
            ),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = '?';
        let mut pair = |f: &mut fmt::Formatter<'_>, key: &str, value: &str| {
            let before = std::mem::replace(&mut separator, '&');
            write!(f, "{before}{key}={value}")
        };
        match &self.transport {
            Transport::Http => match &self.address {
                ListenAt::Ip(address) => write!(f, "{}://{address}", if self.tls { "https" } else { "http" })?,
                ListenAt::Unix(path) => write!(f, "unix://{}", percent_encode(&path.to_string_lossy()))?,
            },
            Transport::Tcp { framing, app, topic, group } => {
                write!(f, "{}://{}", if self.tls { "tls" } else { "tcp" }, self.address)?;
                if *framing != Framing::default() {
                    pair(f, "framing", framing.name())?;
                }
                if *app != App::default() {
                    pair(f, "app", app.name())?;
                }
                for (key, name) in [("topic", topic), ("group", group)] {
                    name.as_ref().map_or(Ok(()), |name| pair(f, key, &percent_encode(name)))?;
                }
            }
        }
        if let Some(mode) = self.mode {
            pair(f, "mode", &format!("{mode:04o}"))?;
        }
        if self.proxy { pair(f, "proxy", "on") } else { Ok(()) }
    }
}

fn parse_address(authority: &str) -> Result<SocketAddr, ListenError> {
    if let Ok(address) = authority.parse() {
        return Ok(address);
    }
    if authority.is_empty() {
        return wrong("the host and the port are missing", "write HOST:PORT, such as 127.0.0.1:8080");
    }
    if let Some((_, path)) = authority.split_once('/') {
        return wrong(format!("a listener has no path, not {}", quote(path)), "end it after the port");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => (host, port),
        _ => {
            return wrong(
                format!("{} has no port", quote(authority)),
                "add one, such as :8080, or :0 for any free one",
            );
        }
    };
    let Ok(port) = port.parse() else {
        return wrong(format!("{} is not a port", quote(port)), "write a number from 0 to 65535");
    };
    if host == "localhost" {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    match host {
        "" | "*" => wrong("the host is missing", format!("write 0.0.0.0:{port} or [::]:{port} for every interface")),
        _ if host.contains(':') => {
            wrong(format!("{} is not an address", quote(host)), format!("write IPv6 in brackets, such as [::1]:{port}"))
        }
        _ => wrong(
            format!("{} is not an address of this machine", quote(host)),
            "write an IP address to listen on, such as 127.0.0.1, [::1] or 0.0.0.0",
        ),
    }
}

/// Takes `proxy=on` or `proxy=off` out of a query. Whether it is on, and the rest.
fn take_proxy(query: &str) -> Result<(bool, String), ListenError> {
    let (mut proxy, mut rest) = (None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.strip_prefix("proxy=") {
            Some("on") => once(&mut proxy, "proxy", true)?,
            Some("off") => once(&mut proxy, "proxy", false)?,
            Some(other) => return wrong(format!("proxy is {}", quote(other)), "write on or off"),
            None => rest.push(pair),
        }
    }
    Ok((proxy.unwrap_or(false), rest.join("&")))
}

/// What stands behind the `?` of a `tcp://` URL.
pub(crate) fn parse_query(query: &str) -> Result<Transport, ListenError> {
    let (mut framing, mut app, mut topic, mut group) = (None, None, None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "framing" => once(&mut framing, key, word(key, value, Framing::from_name, Framing::NAMES)?)?,
            "app" => once(&mut app, key, word(key, value, App::from_name, App::NAMES)?)?,
            "topic" => once(&mut topic, key, parse_name(key, value)?)?,
            "group" => once(&mut group, key, parse_name(key, value)?)?,
            _ => {
                return wrong(
                    format!("unknown query key {}", quote(key)),
                    format!("did you mean {}?", nearest(key, Listen::QUERY_KEYS).unwrap_or("app")),
                );
            }
        }
    }
    let (framing, app) = (framing.unwrap_or_default(), app.unwrap_or_default());
    if topic.is_some() && app == App::Echo {
        return wrong("app=echo has no topic", "add app=topic or app=chat, or leave topic out");
    }
    if group.is_some() && app != App::Topic {
        return wrong(format!("app={} has no queue groups", app.name()), "add app=topic, or leave group out");
    }
    Ok(Transport::Tcp { framing, app, topic, group })
}

pub(super) fn once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), ListenError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => wrong(format!("{key} is there twice"), "leave one out"),
    }
}

fn word<T>(key: &str, value: &str, find: fn(&str) -> Option<T>, names: &[&str]) -> Result<T, ListenError> {
    find(value).map_or_else(|| wrong(format!("{key} is {}", quote(value)), format!("write {}", names.join(" or "))), Ok)
}

/// A topic's or a group's name: 1 to 255 bytes of UTF-8 without control characters or spaces.
fn parse_name(key: &str, encoded: &str) -> Result<String, ListenError> {
    let mend = "write 1 to 255 bytes of UTF-8 without spaces, with %XX for &, # and %";
    let Some(topic) = percent_decode(encoded) else {
        return wrong(format!("{key} {} is not percent-encoded UTF-8", quote(encoded)), mend);
    };
    let fits = (1..=255).contains(&topic.len()) && !topic.chars().any(|c| c.is_control() || c.is_whitespace());
    if fits { Ok(topic) } else { wrong(format!("{} cannot be a {key}", quote(&topic)), mend) }
}

pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// Escapes what would end a query's value or a URL.
fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/:@!$'()*,;".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn urls_come_back_as_they_were() {
        for url in [
            "http://127.0.0.1:8080",
            "http://[::1]:0",
            "tcp://0.0.0.0:7000",
            "tcp://127.0.0.1:7000?framing=length",
            "tcp://127.0.0.1:7000?app=topic&topic=news/%26/caf%C3%A9",
            "tcp://127.0.0.1:7000?framing=length&app=chat&topic=lobby",
            "tcp://127.0.0.1:7000?app=topic&topic=jobs&group=workers",
            "tcp://127.0.0.1:7000?app=topic&group=workers",
            "https://127.0.0.1:8443",
            "tls://[::1]:7001?framing=length&app=chat&topic=lobby",
            "tcp://127.0.0.1:7000?app=topic&group=workers&proxy=on",
            "tcp://127.0.0.1:7000?proxy=on",
            "http://0.0.0.0:80?proxy=on",
            "unix:///run/holdline/edge.sock",
            "unix:///run/a%20b%3F%25.sock?mode=0600&proxy=on",
        ] {
            assert_eq!(Listen::parse(url).unwrap().to_string(), url);
        }
        assert_eq!(Listen::parse("http://localhost:80/").unwrap().to_string(), "http://127.0.0.1:80");
    }

    #[test]
    fn what_is_no_listener_is_refused_with_the_reason() {
        for (url, expected) in [
            ("8080", "is not a URL"),
            ("htp://127.0.0.1:1", "did you mean http://?"),
            ("grpc://127.0.0.1:1", "write http://127.0.0.1:1"),
            ("wss://127.0.0.1:1", "write https://127.0.0.1:1"),
            ("tlss://127.0.0.1:1", "did you mean tls://?"),
            ("https://127.0.0.1:1?app=echo", "an https listener takes no query"),
            ("unix://run/holdline", "is not an absolute path: write unix:///run/holdline"),
            ("unix:/run/holdline", "write unix:///PATH"),
            ("/run/holdline", "write unix:///PATH"),
            ("unix://", "the path is missing"),
            ("unix:///run/", "is a directory"),
            ("unix:///run/%zz", "is not percent-encoded"),
            ("unix:///run/a%00b", "control characters"),
            ("unix:///a?mode=66g", "write permission bits in octal, such as 0660"),
            ("unix:///a?mode=1777", "write permission bits in octal"),
            ("unix:///a?mode=0660&mode=0600", "mode is there twice"),
            ("unix:///a?moed=0660", "takes mode=0660 and proxy=on, not \"moed=0660\""),
            ("http://127.0.0.1", "has no port"),
            ("http://[::1]", "has no port"),
            ("http://::1:80", "in brackets"),
            ("http://127.0.0.1:70000", "is not a port"),
            ("http://:80", "the host is missing"),
            ("http://example.org:80", "is not an address of this machine"),
            ("http://127.0.0.1:80/path", "a listener has no path, not \"path\""),
            ("http://", "the host and the port are missing"),
            ("http://127.0.0.1:80?app=echo", "takes no query"),
            ("http://127.0.0.1:80?proxy=maybe", "write on or off"),
            ("http://127.0.0.1:80?proxy=on&proxy=off", "proxy is there twice"),
            ("tcp://127.0.0.1:1?prox=on", "did you mean proxy?"),
            ("tcp://127.0.0.1:1?frame=line", "did you mean framing?"),
            ("tcp://127.0.0.1:1?framing=lines", "write line or length"),
            ("tcp://127.0.0.1:1?app=topic&app=chat", "app is there twice"),
            ("tcp://127.0.0.1:1?topic=a", "app=echo has no topic"),
            ("tcp://127.0.0.1:1?app=chat&group=g", "app=chat has no queue groups"),
            ("tcp://127.0.0.1:1?app=topic&group=a%20b", "cannot be a group"),
            ("tcp://127.0.0.1:1?app=topic&topic=", "cannot be a topic"),
            ("tcp://127.0.0.1:1?app=topic&topic=a%20b", "cannot be a topic"),
            ("tcp://127.0.0.1:1?app=topic&topic=%ff", "not percent-encoded UTF-8"),
            ("tcp://127.0.0.1:1?app=topic&topic=%+1", "not percent-encoded UTF-8"),
            ("tcp://127.0.0.1:1?app=topic&topic=%é", "not percent-encoded UTF-8"),
        ] {
            let error = Listen::parse(url).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains('\n'));
        }
    }
}
