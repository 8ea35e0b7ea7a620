//! A small blocking client of gRPC: what to call, and the call on a stream.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::link::{Ending, Heard};
use super::stream::Stream;
use super::target::{Refused, Target};
use crate::codec::grpc::client::{self, Cursor, Said, ServerFrame, Start, Subscription};
use crate::codec::http1::response::phrase;
use crate::codec::http1::uri::{self, Query};
use crate::message;
use crate::session::caller::{self, Broken, Event, Hearing, Method, Outcome, Speaking, status_name};

/// Bytes of a message at most.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// The number of the frame that subscribes. Publications have the ones behind it.
const SUBSCRIBE: u32 = 1;

/// What to call: an echo, or a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// `None` for the echo.
    topic: Option<String>,
    start: Start,
    group: String,
    no_echo: bool,
}

impl Wish {
    /// Reads `/echo` or `/topics/TOPIC?PARAMETERS`, which are `history=N`, `since=EPOCH:OFFSET`, `group=NAME` and `echo=0`.
    pub(super) fn parse(path: &str) -> Result<Self, Refused> {
        const MEND: &str = "write grpc://HOST:PORT/topics/TOPIC?history=N, or grpc://HOST:PORT/echo";
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if path == "/echo" && query.is_empty() {
            return Ok(Self::default());
        }
        if path.starts_with("/chat/") {
            let mend =
                "write ws://HOST:PORT/chat/ROOM, or grpc://HOST:PORT/topics/chat/ROOM for its messages without names";
            return Err(("chat rooms are for WebSocket and raw TCP, and gRPC has topics".to_owned(), mend));
        }
        let topic = path.strip_prefix("/topics/").filter(|topic| !topic.is_empty());
        let topic = topic.and_then(|topic| uri::decode_path(topic).ok()).filter(|topic| topic.len() <= 255);
        let topic = topic.ok_or_else(|| ("the path names no topic".to_owned(), MEND))?;
        let mut wish = Self { topic: Some(topic.into_owned()), ..Self::default() };
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        for name in pairs.map(|pair| pair.split('=').next().unwrap_or(pair)) {
            let value = Query::new(query).get(name).unwrap_or_default();
            let mend = mend(name).ok_or_else(|| (format!("there is no parameter {name:?}"), PARAMETERS))?;
            wish.set(name, &value).ok_or_else(|| (format!("the parameter {name} cannot be {value:?}"), mend))?;
        }
        Ok(wish)
    }

    /// Takes one parameter, unless there is none like that. `since` counts before `history`, as everywhere.
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "history" => {
                let history = Start::History(value.parse().ok()?);
                if !matches!(self.start, Start::Since(_)) {
                    self.start = history;
                }
            }
            "since" => {
                let message::Cursor { epoch, offset } = value.parse().ok()?;
                self.start = Start::Since(Cursor { epoch: epoch.0, offset: offset.0 });
            }
            "group" if value.len() <= 255 => self.group = value.to_owned(),
            "echo" => self.no_echo = matches!(value, "0" | "1").then_some(value == "0")?,
            _ => return None,
        }
        Some(())
    }

    fn method(&self) -> Method<'_> {
        match &self.topic {
            Some(topic) => {
                let Self { start, group, no_echo, .. } = self;
                Method::Connect(Subscription { topic, start: *start, group, no_echo: *no_echo })
            }
            None => Method::Echo,
        }
    }
}

/// The parameters there are.
const PARAMETERS: &str = "write history=N, since=EPOCH:OFFSET, group=NAME or echo=0";

/// How a parameter is written.
fn mend(name: &str) -> Option<&'static str> {
    match name {
        "history" => Some("write history=10, for the last ten messages"),
        "since" => Some("write since=EPOCH:OFFSET, a place that a message had"),
        "group" => Some("write group=NAME, at most 255 bytes"),
        "echo" => Some("write echo=0 to hear nothing of what is said here"),
        _ => None,
    }
}

/// Why there is no call.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The server did not take it.
    #[error("the server did not take the call: {}", told(.0))]
    Ended(Outcome),
    /// What answered is no gRPC server.
    #[error("not a gRPC server: {0}")]
    Broken(#[from] Broken),
    /// Nothing came, or not all of it.
    #[error("no answer: {0}")]
    Io(#[from] io::Error),
}

impl CallError {
    /// How to mend it.
    pub(super) const fn mend(&self) -> &'static str {
        match self {
            Self::Ended(Outcome::Status(12, _) | Outcome::Declined(404, _)) => "check that the server is a holdline",
            Self::Ended(Outcome::Status(7 | 16, _) | Outcome::Declined(401 | 403, _)) => "you are not let in",
            Self::Ended(_) => "try again later, and see the server's log",
            Self::Broken(_) => "check the port; gRPC is served by http:// listeners",
            Self::Io(_) => "check the port",
        }
    }

    /// Whether it may be gone at the next attempt.
    pub(super) const fn may_pass(&self) -> bool {
        match self {
            Self::Ended(Outcome::Status(code, _)) => matches!(code, 8 | 14),
            Self::Ended(Outcome::Declined(status, _)) => matches!(status, 429 | 500..),
            Self::Ended(Outcome::Reset(_)) | Self::Io(_) => true,
            Self::Broken(_) => false,
        }
    }
}

/// An end in words.
pub(super) fn told(outcome: &Outcome) -> String {
    let said = match outcome {
        Outcome::Status(code, message) => format!("{code} {} {message}", status_name(*code)),
        Outcome::Declined(status, _) => format!("HTTP {status} {}", phrase(*status)),
        Outcome::Reset(code) => format!("reset with code {code} of HTTP/2"),
    };
    said.trim_end().to_owned()
}

/// What both ends of a call share.
#[derive(Debug)]
pub(super) struct Caller {
    wish: Wish,
    /// The saying half, and the number of the last frame. Whoever writes to the stream has it.
    said: Mutex<(Speaking, u32)>,
}

impl Caller {
    fn said(&self) -> MutexGuard<'_, (Speaking, u32)> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a line: publishes it, or lets it come back.
    pub(super) fn send(&self, stream: &mut impl Write, line: &str) -> io::Result<()> {
        let (mut said, mut head, mut out) = (self.said(), Vec::new(), Vec::new());
        let (speaking, number) = &mut *said;
        if let Some(topic) = &self.wish.topic {
            *number = number.checked_add(1).unwrap_or(SUBSCRIBE + 1);
            client::write_publish(*number, topic, line, &mut head);
            speaking.message(&head, b"", &mut out);
        } else {
            client::write_echo_head(line.len(), &mut head);
            speaking.message(&head, line.as_bytes(), &mut out);
        }
        stream.write_all(&out)
    }

    /// Says that nothing more is said: the call ends when all has been answered.
    pub(super) fn close(&self, stream: &mut impl Write) -> io::Result<()> {
        let (mut said, mut message, mut out) = (self.said(), Vec::new(), Vec::new());
        if let Some(topic) = &self.wish.topic {
            client::write_unsubscribe(0, topic, &mut message);
            said.0.message(&message, b"", &mut out);
        }
        said.0.finish(&mut out);
        stream.write_all(&out)
    }
}

/// The hearing half, and what came and has not been heard.
#[derive(Debug)]
pub(super) struct Reader {
    hearing: Hearing,
    stream: Stream,
    came: Vec<u8>,
}

/// Calls, and waits until the server takes it.
pub(super) fn open(mut stream: Stream, target: &Target) -> Result<(Arc<Caller>, Reader), CallError> {
    let method = target.wish.method();
    let hello = caller::hello(&method, &target.authority(), target.tls);
    stream.write_all(&hello)?;
    let mut speaking = Speaking::new();
    if matches!(method, Method::Connect(_)) {
        speaking.said_with_hello(&hello);
    }
    let caller = Caller { wish: target.wish.clone(), said: Mutex::new((speaking, SUBSCRIBE)) };
    let mut reader = Reader { hearing: Hearing::default(), stream, came: Vec::new() };
    loop {
        reader.fill()?;
        if reader.is_open(&caller)? {
            return Ok((Arc::new(caller), reader));
        }
    }
}

impl Reader {
    /// Waits for more.
    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.came.extend_from_slice(&bytes[..count]);
                Ok(())
            }
        }
    }

    /// Hears what came until the server takes the call; the rest is left.
    fn is_open(&mut self, caller: &Caller) -> Result<bool, CallError> {
        let (came, mut out) = (std::mem::take(&mut self.came), Vec::new());
        let (mut input, mut is_open) = (&came[..], false);
        while let Some(event) = self.hearing.next(&mut input, MESSAGE_BYTES_MAX, &mut out)? {
            match event {
                Event::Ended(outcome) => return Err(CallError::Ended(outcome)),
                Event::Opened => {
                    is_open = true;
                    break;
                }
                event => caller.said().0.note(&event, &mut out)?,
            }
        }
        self.came = input.to_vec();
        self.stream.write_all(&out)?;
        Ok(is_open)
    }

    /// Hears all that comes, to the end.
    pub(super) fn run(mut self, caller: &Caller, hear: impl Fn(Heard<'_>) -> bool) -> Ending {
        loop {
            let (came, mut out) = (std::mem::take(&mut self.came), Vec::new());
            let mut input = &came[..];
            loop {
                let event = match self.hearing.next(&mut input, MESSAGE_BYTES_MAX, &mut out) {
                    Ok(Some(event)) => event,
                    Ok(None) => break,
                    Err(broken) => return Ending::Lost(format!("the server breaks the protocol: {broken}")),
                };
                if let Some(ending) = take(event, caller, &self.stream, &hear) {
                    return ending;
                }
            }
            self.hearing.credit(&mut out);
            let answered = {
                let _said = caller.said();
                self.stream.write_all(&out)
            };
            if let Err(error) = answered.and_then(|()| self.fill()) {
                return super::link::lost(&error);
            }
        }
    }
}

/// Takes an event, which may be the last.
fn take(event: Event<'_>, caller: &Caller, mut stream: &Stream, hear: &impl Fn(Heard<'_>) -> bool) -> Option<Ending> {
    let goes_on = match event {
        Event::Message(message) => match heard(message, caller) {
            Ok(Some(heard)) => hear(heard),
            Ok(None) => true,
            Err(ending) => return Some(ending),
        },
        Event::Ended(outcome) => return Some(Ending::Call(outcome)),
        event => {
            let (mut said, mut out) = (caller.said(), Vec::new());
            if let Err(broken) = said.0.note(&event, &mut out) {
                return Some(Ending::Lost(format!("the server breaks the protocol: {broken}")));
            }
            stream.write_all(&out).is_ok()
        }
    };
    (!goes_on).then(|| Ending::Lost("it does not read".to_owned()))
}

/// What a message says.
fn heard<'a>(message: &'a [u8], caller: &Caller) -> Result<Option<Heard<'a>>, Ending> {
    let broken = |error| Ending::Lost(format!("the server breaks the protocol: {error}"));
    if caller.wish.topic.is_none() {
        return client::read_echo(message).map(|payload| Some(Heard::Message(payload))).map_err(broken);
    }
    let ServerFrame { id, said } = client::read_server_frame(message).map_err(broken)?;
    Ok(match said {
        Said::Message { payload, .. } => Some(Heard::Message(payload)),
        Said::Reset(_) => Some(Heard::Missed),
        Said::Error { code, message } if id == SUBSCRIBE => {
            return Err(Ending::Refused(format!("{code}: {message}")));
        }
        Said::Error { code, message } => Some(Heard::NotTaken(format!("{code}: {message}"))),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn wish(path: &str) -> Result<Wish, String> {
        Wish::parse(path).map_err(|(what, _)| what)
    }

    #[test]
    fn paths_become_wishes() {
        let topic = |topic: &str| Wish { topic: Some(topic.to_owned()), ..Wish::default() };
        let group = "g".to_owned();
        let since = Start::Since(Cursor { epoch: 7, offset: 3 });
        for (path, expected) in [
            ("/echo", Wish::default()),
            ("/topics/a/b", topic("a/b")),
            ("/topics/a%20b?history=3", Wish { start: Start::History(3), ..topic("a b") }),
            (
                "/topics/a?since=5:70&echo=0",
                Wish { start: Start::Since(Cursor { epoch: 5, offset: 70 }), no_echo: true, ..topic("a") },
            ),
            ("/topics/a?group=g&echo=1", Wish { group, ..topic("a") }),
            ("/topics/a?since=7:3&history=5", Wish { start: since, ..topic("a") }),
            ("/topics/a?history=5&since=7:3", Wish { start: since, ..topic("a") }),
        ] {
            assert_eq!(wish(path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_is_no_wish_says_why() {
        for (path, what) in [
            ("", "names no topic"),
            ("/topics/", "names no topic"),
            ("/topics/%zz", "names no topic"),
            ("/echo?history=1", "names no topic"),
            ("/chat/lobby", "chat rooms are for WebSocket and raw TCP"),
            ("/topics/a?history=many", "the parameter history cannot be"),
            ("/topics/a?since=x", "the parameter since cannot be"),
            ("/topics/a?echo=no", "the parameter echo cannot be"),
            ("/topics/a?wait=1s", "there is no parameter \"wait\""),
        ] {
            let said = wish(path).unwrap_err();
            assert!(said.contains(what), "{path}: {said}");
        }
    }

    #[test]
    fn ends_are_told_in_words() {
        for (outcome, words) in [
            (Outcome::Status(14, "the server is going away".to_owned()), "14 UNAVAILABLE the server is going away"),
            (Outcome::Status(0, String::new()), "0 OK"),
            (Outcome::Declined(404, None), "HTTP 404 Not Found"),
            (Outcome::Reset(8), "reset with code 8 of HTTP/2"),
        ] {
            assert_eq!(told(&outcome), words);
        }
    }
}
