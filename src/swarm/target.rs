//! Whom to load: a URL, read.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use rustls::pki_types::ServerName;

use crate::codec::http1::uri;
use crate::config::{self, Framing, Transport, Wrong, quote};

/// A server, and what it does there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What is spoken.
    pub protocol: Protocol,
    /// Inside of TLS.
    pub tls: bool,
    /// Where.
    pub address: SocketAddrV4,
    /// `HOST:PORT` as the URL has it, for the `Host` field.
    pub host: String,
    /// Path and query, over HTTP; else empty.
    pub path: String,
    /// What a connection sends first over raw TCP, where the listener does not fix the topic.
    pub first_frame: Option<String>,
    /// What the server does with a message. Over SSE it is a topic: a client there can only hear. Over gRPC it is the method
    /// that is called.
    pub app: App,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 6455 over HTTP/1.1.
    WebSocket,
    /// Server-sent events over HTTP/1.1: the server speaks, and the client only hears.
    Sse,
    /// A gRPC call over HTTP/2, one on each connection.
    Grpc,
    /// Frames that end in a newline, over TCP.
    Line,
    /// Frames behind a 4-byte length, over TCP.
    Length,
}

impl Protocol {
    /// `"websocket"`, `"sse"`, `"grpc"`, `"line"` or `"length"`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Grpc => "grpc",
            Self::Line => "line",
            Self::Length => "length",
        }
    }

    /// Whether the server answers before its first message: until then a connection is not open.
    #[must_use]
    pub const fn greets(self) -> bool {
        matches!(self, Self::WebSocket | Self::Sse | Self::Grpc)
    }
}

/// What the server does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// It comes back.
    Echo,
    /// Everyone gets it.
    Topic,
}

impl App {
    /// `"echo"` or `"topic"`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Topic => "topic",
        }
    }
}

/// How names become addresses.
pub(crate) type Resolve<'a> = &'a dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

const MEND: &str = "write ws://HOST:PORT/echo, ws://HOST:PORT/topics/NAME, http://HOST:PORT/topics/NAME for SSE, \
                    grpc://HOST:PORT/topics/NAME, or tcp://HOST:PORT?framing=line&app=topic&topic=NAME";

/// Parameters that say how a stream is to be, which is not a publisher's business.
const STREAM_PARAMETERS: [&str; 7] = ["echo", "format", "group", "history", "since", "stream", "wait"];

impl Target {
    /// Reads `ws://HOST:PORT/PATH?QUERY`, `http://HOST:PORT/PATH?QUERY` for SSE (`sse://` is the same),
    /// `grpc://HOST:PORT/echo`, `grpc://HOST:PORT/topics/NAME` or
    /// `tcp://HOST:PORT?framing=line|length&app=echo|topic&topic=NAME`; over TLS they begin with `wss`, `https`, `grpcs` and
    /// `tls`. `app` overrules what a path says.
    ///
    /// # Errors
    /// What is wrong, and how to mend it.
    pub(crate) fn parse(url: &str, app: Option<App>, resolve: Resolve<'_>) -> Result<Self, Wrong> {
        if url.contains(|c: char| c.is_control() || c.is_whitespace()) || !url.is_ascii() {
            let what = "has a space, a control character or a letter beyond ASCII in it";
            return Err(Wrong::new(what, "write it as %XX"));
        }
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| Wrong::new(format!("is {}, not a URL", quote(url)), MEND))?;
        let rest = rest.split('#').next().unwrap_or(rest);
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let tls = matches!(scheme, "wss" | "https" | "grpcs" | "tls");
        let target = match scheme {
            "ws" | "wss" => Self::http((Protocol::WebSocket, tls), authority, path, app, resolve),
            "http" | "sse" | "https" => {
                only_hears(path, app)?;
                Self::http((Protocol::Sse, tls), authority, path, app, resolve)
            }
            "grpc" | "grpcs" => {
                callable(path, app)?;
                Self::http((Protocol::Grpc, tls), authority, path, None, resolve)
            }
            "tcp" | "tls" => Self::tcp(authority, path, app, resolve).map(|target| Self { tls, ..target }),
            _ => Err(Wrong::new(format!("has the unknown scheme {}", quote(scheme)), MEND)),
        }?;
        if tls && target.server_name().is_none() {
            let what = format!("has the host {}, which no certificate can be for", quote(&target.host));
            return Err(Wrong::new(what, "write a name of DNS or an address"));
        }
        Ok(target)
    }

    /// Whose certificate the server has to show over TLS.
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        let (host, _) = uri::split_authority(&self.host)?;
        ServerName::try_from(host.to_owned()).ok()
    }

    fn http(
        (protocol, tls): (Protocol, bool),
        authority: &str,
        path: &str,
        app: Option<App>,
        resolve: Resolve<'_>,
    ) -> Result<Self, Wrong> {
        let bare = path.split('?').next().unwrap_or(path);
        let app = match (app, bare) {
            (Some(app), _) => app,
            (None, "/echo") => App::Echo,
            (None, path) if path.strip_prefix("/topics/").is_some_and(|topic| !topic.is_empty()) => App::Topic,
            (None, path) => return Err(unknown_path(path)),
        };
        Ok(Self {
            protocol,
            tls,
            address: find(authority, Some(if tls { 443 } else { 80 }), resolve)?,
            host: authority.to_owned(),
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            first_frame: None,
            app,
        })
    }

    fn tcp(authority: &str, path: &str, app: Option<App>, resolve: Resolve<'_>) -> Result<Self, Wrong> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if !matches!(path, "" | "/") {
            return Err(Wrong::new(format!("has the path {}, and raw TCP has none", quote(path)), MEND));
        }
        let transport = config::parse_tcp_query(query).map_err(|error| Wrong::new(error.to_string(), MEND))?;
        let Transport::Tcp { framing, app: served, topic, .. } = transport else {
            return Err(Wrong::new("is no raw TCP", MEND));
        };
        let served = match served {
            config::App::Echo => App::Echo,
            config::App::Topic => App::Topic,
            config::App::Chat => return Err(chat("app=topic&topic=chat/ROOM")),
        };
        let protocol = if framing == Framing::Line { Protocol::Line } else { Protocol::Length };
        let (address, host) = (find(authority, None, resolve)?, authority.to_owned());
        let (app, path) = (app.unwrap_or(served), String::new());
        Ok(Self { protocol, tls: false, address, host, path, first_frame: topic, app })
    }

    /// Where to publish to those who only hear: a WebSocket to the same topic, which does not hear itself. `None` where
    /// those who hold the target publish themselves.
    #[must_use]
    pub fn publisher(&self) -> Option<Self> {
        if !matches!((self.protocol, self.app), (Protocol::Sse, _) | (Protocol::Grpc, App::Topic)) {
            return None;
        }
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let is_kept = |parameter: &&str| {
            let name = parameter.split('=').next().unwrap_or_default();
            !name.is_empty() && !STREAM_PARAMETERS.contains(&name)
        };
        let kept: Vec<&str> = query.split('&').filter(is_kept).chain(["echo=0"]).collect();
        let path = format!("{path}?{}", kept.join("&"));
        Some(Self { protocol: Protocol::WebSocket, path, ..self.clone() })
    }
}

/// Refuses what makes no sense over SSE.
fn only_hears(path: &str, app: Option<App>) -> Result<(), Wrong> {
    let bare = path.split('?').next().unwrap_or(path);
    if app == Some(App::Echo) || (app.is_none() && bare == "/echo") {
        let mend = "write ws://HOST:PORT/echo, or http://HOST:PORT/topics/NAME";
        return Err(Wrong::new("echoes, and over SSE a client only hears: it has nothing that could come back", mend));
    }
    if bare.strip_prefix("/topics/").is_some_and(|topics| topics.contains(',')) {
        return Err(Wrong::new("is a stream of several topics, whose messages come inside of JSON", "write one topic"));
    }
    Ok(())
}

/// Refuses what is no method of ours, over gRPC.
fn callable(path: &str, app: Option<App>) -> Result<(), Wrong> {
    const MEND: &str = "write grpc://HOST:PORT/echo or grpc://HOST:PORT/topics/NAME";
    if path.contains('?') {
        return Err(Wrong::new("has parameters, and a call has none", MEND));
    }
    let served = match (path, path.strip_prefix("/topics/")) {
        ("/echo", _) => App::Echo,
        (_, Some(topic)) if topic.contains(',') => {
            return Err(Wrong::new(
                "has a comma in its topic, which the one that publishes could not name",
                "write another topic",
            ));
        }
        (_, Some(topic)) if !topic.is_empty() && uri::decode_path(topic).is_ok() => App::Topic,
        (_, _) if path.starts_with("/chat/") => return Err(unknown_path(path)),
        _ => {
            let what = format!("has the path {}, and over gRPC there are an echo and topics", quote(path));
            return Err(Wrong::new(what, MEND));
        }
    };
    match app {
        Some(app) if app != served => {
            Err(Wrong::new(format!("is the method for {}, whatever --app says", served.name()), MEND))
        }
        _ => Ok(()),
    }
}

fn unknown_path(path: &str) -> Wrong {
    if let Some(room) = path.strip_prefix("/chat/") {
        return chat(&format!("/topics/chat/{room}"));
    }
    let what = match path {
        "" | "/" => "has no path, which says what the server does".to_owned(),
        path => format!("has the path {}, and only your server knows what that does", quote(path)),
    };
    Wrong::new(what, "write ws://HOST:PORT/echo or ws://HOST:PORT/topics/NAME, or add --app echo or --app topic")
}

/// A room tells all members of each that comes, which a million of them would not survive.
fn chat(instead: &str) -> Wrong {
    let what = "is a chat room, which greets each member to all the others: a million joins are 10^12 messages";
    Wrong::new(what, format!("write {instead}, the same topic without greetings"))
}

/// The address behind `HOST:PORT`.
fn find(authority: &str, port: Option<u16>, resolve: Resolve<'_>) -> Result<SocketAddrV4, Wrong> {
    let wrong = |what: String| Wrong::new(what, "write HOST:PORT, such as 127.0.0.1:8080");
    let (host, named) =
        uri::split_authority(authority).ok_or_else(|| wrong(format!("has {} for host and port", quote(authority))))?;
    let port = named.or(port).ok_or_else(|| wrong("has no port".to_owned()))?;
    let only_v4 = || wrong(format!("has the host {}, and swarm speaks IPv4", quote(host)));
    if host == "localhost" {
        return Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    }
    if host.contains(':') {
        return Err(only_v4());
    }
    if let Ok(address) = host.parse() {
        return Ok(SocketAddrV4::new(address, port));
    }
    let found = resolve(host, port).map_err(|error| {
        Wrong::new(
            format!("has the host {}, which is not found ({error})", quote(host)),
            "check the name, or write its address",
        )
    })?;
    let found = found.into_iter().find_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    found.ok_or_else(only_v4)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secured = if self.tls { "s" } else { "" };
        let framing = match self.protocol {
            Protocol::WebSocket => return write!(f, "ws{secured}://{}{}", self.host, self.path),
            Protocol::Sse => return write!(f, "http{secured}://{}{}", self.host, self.path),
            Protocol::Grpc => return write!(f, "grpc{secured}://{}{}", self.host, self.path),
            Protocol::Line => "line",
            Protocol::Length => "length",
        };
        let scheme = if self.tls { "tls" } else { "tcp" };
        write!(f, "{scheme}://{}?framing={framing}&app={}", self.host, self.app.name())?;
        let Some(topic) = &self.first_frame else { return Ok(()) };
        let mut encoded = String::new();
        uri::encode_value(topic, &mut encoded);
        write!(f, "&topic={encoded}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn parse(url: &str) -> Result<Target, Wrong> {
        Target::parse(url, None, &|host, port| match host {
            "both.example" => Ok(vec!["[::1]:1".parse().unwrap(), SocketAddr::from(([192, 0, 2, 1], port))]),
            "six.example" => Ok(vec!["[::1]:1".parse().unwrap()]),
            _ => Err(io::Error::other("no such host")),
        })
    }

    #[test]
    fn urls_become_targets() {
        for (url, expected, address) in [
            ("ws://127.0.0.1:8080/echo", "ws://127.0.0.1:8080/echo", "127.0.0.1:8080"),
            ("ws://localhost:1/topics/a/b?echo=0", "ws://localhost:1/topics/a/b?echo=0", "127.0.0.1:1"),
            ("http://localhost:1/topics/a/b?history=1", "http://localhost:1/topics/a/b?history=1", "127.0.0.1:1"),
            ("sse://localhost/topics/a", "http://localhost/topics/a", "127.0.0.1:80"),
            ("grpc://localhost:1/topics/a%20b", "grpc://localhost:1/topics/a%20b", "127.0.0.1:1"),
            ("grpc://localhost/echo", "grpc://localhost/echo", "127.0.0.1:80"),
            ("wss://localhost/echo", "wss://localhost/echo", "127.0.0.1:443"),
            ("https://127.0.0.1:8443/topics/a", "https://127.0.0.1:8443/topics/a", "127.0.0.1:8443"),
            ("grpcs://localhost:1/topics/a", "grpcs://localhost:1/topics/a", "127.0.0.1:1"),
            ("tls://127.0.0.1:7?app=topic", "tls://127.0.0.1:7?framing=line&app=topic", "127.0.0.1:7"),
            ("ws://both.example/echo#top", "ws://both.example/echo", "192.0.2.1:80"),
            ("tcp://127.0.0.1:7000", "tcp://127.0.0.1:7000?framing=line&app=echo", "127.0.0.1:7000"),
            (
                "tcp://127.1.2.3:7/?framing=length&app=topic&topic=a%26b",
                "tcp://127.1.2.3:7?framing=length&app=topic&topic=a%26b",
                "127.1.2.3:7",
            ),
            ("tcp://127.0.0.1:7?app=topic", "tcp://127.0.0.1:7?framing=line&app=topic", "127.0.0.1:7"),
        ] {
            let target = parse(url).unwrap();
            assert_eq!((target.to_string().as_str(), target.address.to_string().as_str()), (expected, address));
            assert_eq!(parse(expected).unwrap(), target, "it reads what it writes");
        }
        assert_eq!(parse("tcp://127.0.0.1:7?app=topic&topic=n").unwrap().first_frame.as_deref(), Some("n"));
    }

    #[test]
    fn the_app_can_be_told() {
        let target = Target::parse("ws://127.0.0.1:1/own", Some(App::Topic), &|_, _| Ok(Vec::new())).unwrap();
        assert_eq!((target.app, target.path.as_str()), (App::Topic, "/own"));
    }

    #[test]
    fn who_only_hears_has_a_publisher_beside() {
        for (path, expected) in [
            ("topics/t", "topics/t?echo=0"),
            ("topics/t?group=g&token=x&since=1:2&history=3&format=json", "topics/t?token=x&echo=0"),
        ] {
            let publisher = parse(&format!("http://127.0.0.1:1/{path}")).unwrap().publisher().unwrap();
            assert_eq!(publisher, parse(&format!("ws://127.0.0.1:1/{expected}")).unwrap());
        }
        let secured = parse("grpcs://127.0.0.1:1/topics/t").unwrap().publisher();
        assert_eq!(secured, Some(parse("wss://127.0.0.1:1/topics/t?echo=0").unwrap()));
        let publisher = parse("grpc://127.0.0.1:1/topics/t").unwrap().publisher();
        assert_eq!(publisher, Some(parse("ws://127.0.0.1:1/topics/t?echo=0").unwrap()));
        for url in ["ws://127.0.0.1:1/topics/t", "tcp://127.0.0.1:7?app=topic", "grpc://127.0.0.1:1/echo"] {
            assert_eq!(parse(url).unwrap().publisher(), None, "{url}");
        }
        let echo = Target::parse("http://127.0.0.1:1/own", Some(App::Echo), &|_, _| Ok(Vec::new())).unwrap_err();
        assert!(echo.what.contains("a client only hears"), "{}", echo.what);
        let own = Target::parse("http://127.0.0.1:1/own", Some(App::Topic), &|_, _| Ok(Vec::new())).unwrap();
        assert_eq!(own.publisher().unwrap().path, "/own?echo=0");
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_reason() {
        for (url, expected) in [
            ("", "is \"\", not a URL"),
            ("127.0.0.1:8080", "not a URL"),
            ("wss://127.0.0.1:1", "has no path"),
            ("https://127.0.0.1:1/echo", "over SSE a client only hears"),
            ("tls://127.0.0.1", "has no port"),
            ("ftp://h:1", "unknown scheme"),
            ("ws:///echo", "for host and port"),
            ("ws://:80/echo", "for host and port"),
            ("ws://127.0.0.1:0/echo", "for host and port"),
            ("ws://127.0.0.1:70000/echo", "for host and port"),
            ("ws://a@h:1/echo", "for host and port"),
            ("ws://[::1]:80/echo", "swarm speaks IPv4"),
            ("ws://six.example/echo", "swarm speaks IPv4"),
            ("ws://nowhere.example/echo", "is not found (no such host)"),
            ("ws://127.0.0.1:1", "has no path"),
            ("ws://127.0.0.1:1/topics/", "only your server knows"),
            ("ws://127.0.0.1:1/chat/lobby", "chat room"),
            ("http://127.0.0.1:1/chat/lobby", "chat room"),
            ("http://127.0.0.1:1/echo", "over SSE a client only hears"),
            ("sse://127.0.0.1:1/topics/a,b", "several topics"),
            ("ws://127.0.0.1:1/a b", "has a space"),
            ("ws://127.0.0.1:1/\r\nX: y", "has a space, a control character"),
            ("ws://127.0.0.1:1/é", "a letter beyond ASCII"),
            ("grpcs://127.0.0.1:1/chat/lobby", "chat room"),
            ("grpc://127.0.0.1:1/chat/lobby", "chat room"),
            ("grpc://127.0.0.1:1", "over gRPC there are an echo and topics"),
            ("grpc://127.0.0.1:1/topics/", "over gRPC there are an echo and topics"),
            ("grpc://127.0.0.1:1/topics/%0a", "over gRPC there are an echo and topics"),
            ("grpc://127.0.0.1:1/topics/a,b", "has a comma"),
            ("grpc://127.0.0.1:1/topics/t?history=1", "a call has none"),
            ("tcp://127.0.0.1", "has no port"),
            ("tcp://127.0.0.1:1/x", "raw TCP has none"),
            ("tcp://127.0.0.1:1?app=chat&topic=r", "chat room"),
            ("tcp://127.0.0.1:1?frame=line", "did you mean framing?"),
            ("tcp://127.0.0.1:1?topic=a", "app=echo has no topic"),
        ] {
            let wrong = parse(url).unwrap_err();
            assert!(wrong.what.contains(expected), "{url}: {}", wrong.what);
            assert!(!wrong.mend.is_empty());
        }
    }
}
