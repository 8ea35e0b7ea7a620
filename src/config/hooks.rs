//! What can be said of hooks: events that are told to a receiver elsewhere, over HTTP or NATS.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Pattern;
use super::authority::host_and_port;
use crate::access::FromFile;

named! {
    /// What can be told.
    HookKind {
        /// A connection, or a stream of HTTP/2, has come.
        #[default]
        Connect = "connect",
        /// It has gone.
        Disconnect = "disconnect",
        /// It reads a topic.
        Subscribe = "subscribe",
        /// It does not any more.
        Unsubscribe = "unsubscribe",
        /// A message has its place in a topic.
        Publish = "publish",
        /// A topic has its first subscriber.
        Occupied = "occupied",
        /// It has lost its last one.
        Vacated = "vacated",
    }
}

impl HookKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Disconnect,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Publish,
        Self::Occupied,
        Self::Vacated,
    ];
}

/// Some kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookKinds(u8);

impl HookKinds {
    /// None.
    pub const NONE: Self = Self(0);
    /// All but publications, of which there can be more than of all else together.
    pub const USUAL: Self = Self(0b110_1111);

    /// Whether this one is among them.
    #[must_use]
    pub const fn has(self, kind: HookKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    /// These and this one.
    #[must_use]
    pub const fn with(self, kind: HookKind) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// Them, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = HookKind> {
        HookKind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

/// Where events are posted: a URL of HTTP with or without TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct HookUrl {
    /// Over TLS.
    pub tls: bool,
    /// The name or the address, of IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path and the query, as the request has them.
    pub target: String,
}

impl HookUrl {
    const BYTES_MAX: usize = 2048;

    /// Scheme, host and port: what logs may show. The rest can be a secret.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }

    /// What a request says of the host: without the port where that is the scheme's own (RFC 9110 section 7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.usual_port() { host } else { format!("{host}:{}", self.port) }
    }

    const fn usual_port(&self) -> u16 {
        if self.tls { 443 } else { 80 }
    }
}

/// With all but the query, which may have a secret.
impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        let query = if path.len() < self.target.len() { "?(not shown)" } else { "" };
        write!(f, "{}{path}{query}", self.origin())
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for HookUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let secure = text.strip_prefix("https://").map(|rest| (true, rest));
        let plain = || text.strip_prefix("http://").map(|rest| (false, rest));
        let (tls, rest) = secure.or_else(plain).ok_or("begins with neither https:// nor http://")?;
        // What a path and a query may have: RFC 3986 section 3.3.
        let is_of_url = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/?[]".contains(&byte);
        if text.len() > Self::BYTES_MAX || !rest.bytes().all(is_of_url) {
            return Err("is too long, or has a character that must be percent-encoded");
        }
        let (authority, target) = rest.find(['/', '?']).map_or((rest, ""), |end| rest.split_at(end));
        if authority.contains('@') {
            return Err("has a user in it; what it shows to the receiver is the signature of hooks.secret_file");
        }
        if target.contains(['[', ']']) {
            return Err("has a bracket that must be percent-encoded");
        }
        let (host, port) = host_and_port(authority)?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { tls, host: host.to_ascii_lowercase(), port, target: format!("{slash}{target}") })
    }
}

/// Secrets that requests are signed with, each by itself: a receiver may know either while they change.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HookSecrets(Vec<Box<[u8]>>);

impl HookSecrets {
    /// Secrets at most.
    pub const MAX: usize = 4;
    /// Bytes of one at least: as many as its hash has (RFC 2104 section 3).
    pub const BYTES_MIN: usize = 32;
    const BYTES_MAX: usize = 4096;

    /// Reads lines with one secret each. Empty ones are passed over.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_lines(text: &str) -> Result<Self, String> {
        let mut secrets = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty()) {
            if !(Self::BYTES_MIN..=Self::BYTES_MAX).contains(&line.len()) {
                let (least, most) = (Self::BYTES_MIN, Self::BYTES_MAX);
                return Err(format!("has {} bytes in line {number}; a secret has {least} to {most}", line.len()));
            }
            secrets.push(line.as_bytes().into());
        }
        match secrets.len() {
            0 => Err("has no secret in it".to_owned()),
            count if count > Self::MAX => Err(format!("has {count} secrets; {} are the most", Self::MAX)),
            _ => Ok(Self(secrets)),
        }
    }

    /// Them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|secret| &**secret)
    }
}

/// Only how many there are.
impl fmt::Debug for HookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// Certificates of authorities, DER.
pub type Authorities = Vec<Box<[u8]>>;

/// What is told to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Where events are posted; `None`: nowhere.
    pub url: Option<HookUrl>,
    /// The subject of the cluster's NATS on which they are published instead; `None`: on none.
    pub nats: Option<Box<str>>,
    /// What requests are signed with; without a file they are not.
    pub secrets: FromFile<HookSecrets>,
    /// Who vouches for the receiver, beside those whom the system trusts.
    pub ca: FromFile<Authorities>,
    /// Which events.
    pub events: HookKinds,
    /// Of which topics, where they are of one; empty: of all.
    pub topics: Vec<Pattern>,
    /// Whether publications are told with what was published.
    pub payload: bool,
    /// Events of one request.
    pub batch_max: usize,
    /// Time that an event waits for others.
    pub batch_delay: Duration,
    /// Time for one request, from the look for the receiver's address to the answer.
    pub timeout: Duration,
    /// Bytes of events that wait.
    pub queue_bytes: usize,
    /// Age from which on an event is given up that could not be delivered.
    pub retry_max_age: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            url: None,
            nats: None,
            secrets: FromFile::default(),
            ca: FromFile::default(),
            events: HookKinds::USUAL,
            topics: Vec::new(),
            payload: false,
            batch_max: 100,
            batch_delay: Duration::from_millis(250),
            timeout: Duration::from_secs(10),
            queue_bytes: 16 << 20,
            retry_max_age: Duration::from_secs(15 * 60),
        }
    }
}

impl Hooks {
    /// Patterns of topics at most: each event's topic is compared with all of them.
    pub const PATTERNS_MAX: usize = 64;

    /// Whether there is a receiver. Without one no events are made.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.url.is_some() || self.nats.is_some()
    }

    /// Whether events of a topic are told.
    #[must_use]
    pub fn covers(&self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|pattern| pattern.matches(topic))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn urls() {
        for (text, shown, target) in [
            ("https://hooks.example", "https://hooks.example/", "/"),
            ("http://Hooks.example:8080/in/box", "http://hooks.example:8080/in/box", "/in/box"),
            ("https://hooks.example:443/a?key=7", "https://hooks.example/a?(not shown)", "/a?key=7"),
            ("https://hooks.example?key=7", "https://hooks.example/?(not shown)", "/?key=7"),
            ("http://[::1]:9/x", "http://[::1]:9/x", "/x"),
            ("http://127.0.0.1:80", "http://127.0.0.1/", "/"),
        ] {
            let url: HookUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.target.as_str()), (shown, target));
            assert_eq!(format!("{url:?}"), shown);
        }
        for bad in [
            "",
            "ftp://a",
            "a:80",
            "http://",
            "http://:1",
            "http://a:0",
            "http://a:x",
            "http://a:",
            "http://u:p@a",
            "http://a b",
            "http://[::1",
            "http://[x]",
            "http://[::1]x",
            "http://a/#x",
            "http://a/é",
            "http://a/[",
            "http://a;b",
        ] {
            assert!(bad.parse::<HookUrl>().is_err(), "{bad}");
        }
        assert_eq!("http://[::1]:9".parse::<HookUrl>().unwrap().host, "::1");
    }

    #[test]
    fn kinds_are_a_set() {
        assert_eq!(HookKinds::NONE.iter().count(), 0);
        for (number, kind) in HookKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            assert_eq!(HookKinds::NONE.with(kind).iter().collect::<Vec<_>>(), [kind]);
            assert_eq!(HookKinds::USUAL.has(kind), kind != HookKind::Publish, "{}", kind.name());
        }
    }

    #[test]
    fn secrets_are_lines_and_are_not_shown() {
        let (old, new) = ("o".repeat(32), "n".repeat(40));
        let secrets = HookSecrets::from_lines(&format!("{new}\n\n  {old}\r\n")).unwrap();
        assert_eq!(secrets.iter().collect::<Vec<_>>(), [new.as_bytes(), old.as_bytes()]);
        assert_eq!(format!("{secrets:?}"), "2 secrets");
        for (text, why) in [
            ("", "has no secret in it"),
            ("short", "has 5 bytes in line 1; a secret has 32 to 4096"),
            (&format!("{old}\n").repeat(5), "has 5 secrets; 4 are the most"),
        ] {
            assert_eq!(HookSecrets::from_lines(text).unwrap_err(), why);
        }
    }

    #[test]
    fn topics_are_all_or_those_of_the_patterns() {
        let mut hooks = Hooks::default();
        assert!(hooks.covers("any"));
        hooks.topics = ["news", "room/*"].map(|pattern| Pattern::parse(pattern).unwrap()).into();
        assert_eq!(["news", "room/7", "room/7/x", "any"].map(|topic| hooks.covers(topic)), [true, true, false, false]);
    }
}
