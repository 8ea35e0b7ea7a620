//! What `holdline chat` is told to connect to.

use std::fmt;

use super::call::Wish;
use crate::codec::http1::uri;

/// How the peer talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// WebSocket messages.
    WebSocket,
    /// Lines over bare TCP.
    Lines,
    /// A gRPC call.
    Call,
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) speech: Speech,
    /// Inside of TLS.
    pub(super) tls: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query, for WebSocket and calls.
    pub(super) path: String,
    /// What is called.
    pub(super) wish: Wish,
}

/// Why a text is no target: what is wrong, and how to mend it.
pub(super) type Refused = (String, &'static str);

impl Target {
    /// Reads `ws://HOST:PORT/PATH?QUERY` (`http://` is the same), `grpc://HOST:PORT/topics/TOPIC?QUERY` or
    /// `tcp://HOST:PORT`, or over TLS `wss` and `https`, `grpcs` and `tls`. Without a path `ws://` is the room `lobby`; a room without a name in the query is entered as `user`.
    pub(super) fn parse(url: &str, user: &str) -> Result<Self, Refused> {
        const MEND: &str = "write ws://HOST:PORT/chat/ROOM?name=NAME, grpc://HOST:PORT/topics/TOPIC or tcp://HOST:PORT";
        if url.contains(|c: char| c.is_control() || c == ' ') || !url.is_ascii() {
            return Err((
                "the URL has a space, a control character or a letter beyond ASCII in it".into(),
                "write it as %XX",
            ));
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(|| ("not a URL".to_owned(), MEND))?;
        let speech = match scheme {
            "ws" | "http" | "wss" | "https" => Speech::WebSocket,
            "tcp" | "tls" => Speech::Lines,
            "grpc" | "grpcs" => Speech::Call,
            _ => return Err((format!("unknown scheme {scheme}"), MEND)),
        };
        let tls = matches!(scheme, "wss" | "https" | "grpcs" | "tls");
        let rest = rest.split('#').next().unwrap_or(rest);
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = uri::split_authority(authority).ok_or_else(|| ("no host and port".to_owned(), MEND))?;
        let path = match speech {
            Speech::WebSocket => room(path, user),
            Speech::Call => path.to_owned(),
            Speech::Lines if matches!(path, "" | "/") => String::new(),
            Speech::Lines => {
                return Err(("a tcp URL ends after its port".to_owned(), "leave out what follows the port"));
            }
        };
        let wish = if speech == Speech::Call { Wish::parse(&path)? } else { Wish::default() };
        let port = port.or((speech != Speech::Lines).then_some(if tls { 443 } else { 80 }));
        let port = port.ok_or_else(|| ("a tcp URL needs a port".to_owned(), MEND))?;
        Ok(Self { speech, tls, host: host.to_owned(), port, path, wish })
    }

    /// Host and port as a header field and a resolver want them.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.speech, self.tls) {
            (Speech::WebSocket, false) => "ws",
            (Speech::WebSocket, true) => "wss",
            (Speech::Lines, false) => "tcp",
            (Speech::Lines, true) => "tls",
            (Speech::Call, false) => "grpc",
            (Speech::Call, true) => "grpcs",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// The path to ask for.
fn room(path: &str, user: &str) -> String {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let path = if matches!(path, "" | "/") { "/chat/lobby" } else { path };
    let named = query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("name=")));
    let mut parts: Vec<String> = query.filter(|query| !query.is_empty()).map(str::to_owned).into_iter().collect();
    if path.starts_with("/chat/") && !named && !user.is_empty() {
        let mut name = "name=".to_owned();
        uri::encode_value(user, &mut name);
        parts.push(name);
    }
    if parts.is_empty() { path.to_owned() } else { format!("{path}?{}", parts.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_targets() {
        for (url, expected) in [
            ("ws://127.0.0.1:8080/chat/room?name=N", "ws://127.0.0.1:8080/chat/room?name=N"),
            ("http://localhost:8080", "ws://localhost:8080/chat/lobby?name=J%20D"),
            ("ws://h/chat/a?x=1", "ws://h:80/chat/a?x=1&name=J%20D"),
            ("ws://[::1]:9/echo?", "ws://[::1]:9/echo"),
            ("ws://h:1?name=a#top", "ws://h:1/chat/lobby?name=a"),
            ("tcp://127.0.0.1:7000/", "tcp://127.0.0.1:7000"),
            ("grpc://h/topics/a?history=3", "grpc://h:80/topics/a?history=3"),
            ("wss://h/chat/a?name=x", "wss://h:443/chat/a?name=x"),
            ("https://[::1]:9/echo", "wss://[::1]:9/echo"),
            ("grpcs://h:1/echo", "grpcs://h:1/echo"),
            ("tls://h:7000", "tls://h:7000"),
            ("grpc://[::1]:9/echo", "grpc://[::1]:9/echo"),
        ] {
            assert_eq!(Target::parse(url, "J D").map(|target| target.to_string()), Ok(expected.to_owned()));
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for url in [
            "",
            "lobby",
            "wss://h:0",
            "tls://h",
            "ftp://h:1",
            "ws://",
            "ws://:80",
            "ws://h:0",
            "ws://h:x",
            "ws://h:70000",
            "ws://[::1",
            "ws://[::1]x",
            "ws://a@h:1",
            "tcp://h",
            "tcp://h:1/x",
            "grpcs://h:1",
            "grpc://h:1",
            "grpc://h:1/chat/lobby",
            "ws://h:1/a b",
            "ws://h:1/\r\nX: y",
            "ws://h:1/é",
        ] {
            assert!(Target::parse(url, "n").is_err(), "{url}");
        }
    }
}
