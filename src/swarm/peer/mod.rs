//! The client's side of each protocol: bytes of a server in, frames out, and back.
//!
//! No socket, no clock, and nothing kept per connection: what is not whole yet stays with the caller, who shows it again
//! with what came behind it, and so does the [`Body`] of a stream of events, and the halves of a call
//! ([`Hearing`](crate::session::caller::Hearing), [`Speaking`]). A server is not trusted; whatever it sends is a frame, a
//! reason to wait, or [`Broken`].

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::target::{App, Protocol, Target};
use crate::codec::event_stream::event::{self, Event, Item};
use crate::codec::event_stream::{self, BadBody, Body};
use crate::codec::grpc::client::{self as edge, BadMessage, Said, Subscription};
use crate::codec::websocket::client::{self, BadAnswer, BadFrame, ServerHeader};
use crate::codec::websocket::close::{self, CloseError};
use crate::codec::websocket::frame::Opcode;
use crate::codec::websocket::handshake::{ACCEPT_BYTES, accept_key};
use crate::codec::{
    http1::{response, uri},
    length, line,
};
use crate::session::caller::{self, Method, Outcome, Speaking};

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A message.
    Message(&'a [u8]),
    /// A server-sent event, or a block without data.
    Event(Event<'a>),
    /// A heartbeat: [`Client::pong`] is due, with these bytes.
    Ping(&'a [u8]),
    /// A heartbeat that nobody can answer: a comment in a stream of events.
    Comment,
    /// A sign of life that nobody has to answer.
    Pong,
    /// Nothing: an empty line between events.
    Blank,
    /// Good-bye: code and reason. [`Client::close`] answers.
    Close(Option<u16>, &'a str),
}

/// How a server is no server, or not for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Broken {
    /// It says no.
    #[error("the server answered {status} {}", response::phrase(*.status))]
    Declined {
        /// The HTTP status.
        status: u16,
        /// Seconds after which to come back.
        retry_after: Option<u32>,
    },
    /// It does not speak WebSocket.
    #[error("not a WebSocket server: {0}")]
    NotWebSocket(&'static str),
    /// It does not serve a stream of events.
    #[error("no event stream: {0}")]
    NotEventStream(&'static str),
    /// A stream that is not in chunks, though its head says so.
    #[error("the server sent {0}")]
    Body(#[from] BadBody),
    /// It does not serve a call.
    #[error("not a gRPC server: {0}")]
    NotGrpc(#[from] caller::Broken),
    /// A message that is none.
    #[error("the server sent {0}")]
    Message(#[from] BadMessage),
    /// A call that it does not take.
    #[error("the server ended the call with status {0} ({name})", name = caller::status_name(*.0))]
    Status(u32),
    /// A call that it reset: the code of HTTP/2.
    #[error("the server reset the call with code {0}")]
    StreamReset(u32),
    /// A subscription that it does not take.
    #[error("the server declined the subscription")]
    NotSubscribed,
    /// It speaks HTTP, where raw TCP is expected.
    #[error("an HTTP server where raw TCP is asked for")]
    Http,
    /// A frame that no server may send.
    #[error("the server sent {0}")]
    Frame(#[from] BadFrame),
    /// A good-bye that is none.
    #[error("the server sent {0}")]
    Close(#[from] CloseError),
    /// A message in more than one frame.
    #[error("the server sent a message in fragments, which swarm does not put together")]
    Fragmented,
    /// A message over the limit that [`Client::new`] was given.
    #[error("the server sent a message of more than {0} bytes")]
    TooLong(usize),
}

impl Broken {
    /// How to mend it.
    #[must_use]
    pub const fn mend(&self) -> &'static str {
        match self {
            Self::Declined { status: 401 | 403, .. } => "the server lets only others in: check its origins and rules",
            Self::Declined { status: 404, .. } => "check the target's path",
            Self::Declined { status: 426, .. } | Self::Declined { status: 400, .. } => {
                "check the target's path and query"
            }
            Self::Declined { status: 429, .. } => "lower --rate",
            Self::Declined { status: 503, .. } => "the server is full or drains: raise its --max-connections",
            Self::Declined { .. } => "look into the server's log",
            Self::NotWebSocket(_) => "check the port; raw TCP listeners are tcp://HOST:PORT",
            Self::NotEventStream(_) => "check the target's path: SSE is served at http://HOST:PORT/topics/NAME",
            Self::NotGrpc(_) => "check the port: gRPC is served by http:// listeners",
            Self::Status(8 | 14) => "the server is full or drains: raise its limits, or ask for fewer --connections",
            Self::Status(12) => "the server has no such method: grpc:// is for Holdline's own service",
            Self::Status(_) => "look into the server's log",
            Self::StreamReset(_) => "raise the server's limits, or look into its log",
            Self::NotSubscribed => "check the target's topic",
            Self::Http => "load it as ws://HOST:PORT/..., or take the port of a tcp:// listener",
            Self::Frame(_) | Self::Close(_) | Self::Fragmented | Self::Body(_) | Self::Message(_) => {
                "check that the target's protocol is the server's"
            }
            Self::TooLong(_) => "check the target's framing, and that nobody else publishes to its topic",
        }
    }
}

impl From<BadAnswer> for Broken {
    fn from(bad: BadAnswer) -> Self {
        match bad {
            BadAnswer::Status(declined) => {
                Self::Declined { status: declined.status, retry_after: declined.retry_after }
            }
            BadAnswer::Broken(why) => Self::NotWebSocket(why),
        }
    }
}

impl From<event_stream::BadAnswer> for Broken {
    fn from(bad: event_stream::BadAnswer) -> Self {
        match bad {
            event_stream::BadAnswer::Status { status, retry_after } => Self::Declined { status, retry_after },
            event_stream::BadAnswer::Broken(why) => Self::NotEventStream(why),
        }
    }
}

impl From<&Outcome> for Broken {
    /// What the end of a call says of the server, when the call had not begun.
    fn from(outcome: &Outcome) -> Self {
        match *outcome {
            Outcome::Status(code, _) => Self::Status(code),
            Outcome::Declined(status, retry_after) => Self::Declined { status, retry_after },
            Outcome::Reset(code) => Self::StreamReset(code),
        }
    }
}

/// The welcome of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its bytes; frames follow.
    pub bytes: usize,
    /// How what follows is wrapped, in a stream of events.
    pub body: Option<Body>,
}

/// Bytes of an event's other fields, and of their names, at most.
const FIELDS_BYTES_MAX: usize = 1024;

/// What all clients of a target have in common.
#[derive(Clone, Debug)]
pub struct Client {
    protocol: Protocol,
    app: App,
    hello: Arc<[u8]>,
    accept: [u8; ACCEPT_BYTES],
    message_bytes_max: usize,
    /// The next mask. It need not be a secret, but a mask of zeros would be no work for the server.
    mask: u32,
    /// What stands in front of a message that is being written.
    head: Vec<u8>,
}

impl Client {
    /// Clients that take messages of at most `message_bytes_max` bytes. All of them ask with the same key, which is
    /// `random`: so that they can share one request.
    #[must_use]
    pub fn new(target: &Target, random: [u8; 16], message_bytes_max: usize) -> Self {
        let key = client::key(random);
        let mut hello = Vec::new();
        match (target.protocol, &target.first_frame) {
            (Protocol::WebSocket, _) => client::write_request(&target.path, &target.host, &key, &mut hello),
            (Protocol::Sse, _) => event_stream::write_request(&target.path, &target.host, &mut hello),
            (Protocol::Grpc, _) => hello = call_hello(target),
            (Protocol::Line, Some(topic)) => line::encode(topic.as_bytes(), &mut hello),
            (Protocol::Length, Some(topic)) => length::encode(topic.as_bytes(), &mut hello),
            (Protocol::Line | Protocol::Length, None) => {}
        }
        // Xorshift stands still at zero.
        let mask = u32::from_ne_bytes([random[0], random[1], random[2], random[3]]) | 1;
        let (protocol, app, accept) = (target.protocol, target.app, accept_key(&key));
        Self { protocol, app, hello: hello.into(), accept, message_bytes_max, mask, head: Vec::new() }
    }

    /// What a connection sends first; may be empty.
    #[must_use]
    pub const fn hello(&self) -> &Arc<[u8]> {
        &self.hello
    }

    /// The welcome at the beginning of `bytes` when it is whole. Raw TCP has none: 0 bytes at once. That of a call is found
    /// by [`Hearing`](crate::session::caller::Hearing), as all that follows it.
    ///
    /// # Errors
    /// When it is no welcome.
    pub fn open(&self, bytes: &[u8]) -> Result<Option<Welcome>, Broken> {
        match self.protocol {
            Protocol::WebSocket => {
                let head = client::check_answer(bytes, &self.accept)?;
                Ok(head.map(|bytes| Welcome { bytes, body: None }))
            }
            Protocol::Sse => {
                let head = event_stream::check_answer(bytes)?;
                Ok(head.map(|head| Welcome { bytes: head.head_bytes, body: Some(head.body) }))
            }
            Protocol::Grpc => Ok(None),
            Protocol::Line | Protocol::Length => Ok(Some(Welcome { bytes: 0, body: None })),
        }
    }

    /// Whether what follows the welcome is a [`Body`], which the caller unwraps before it shows it to [`Client::next`].
    #[must_use]
    pub const fn has_body(&self) -> bool {
        matches!(self.protocol, Protocol::Sse)
    }

    /// Whether what comes is heard by a [`Hearing`](crate::session::caller::Hearing), which the caller keeps; its messages are
    /// read by [`Client::payload`].
    #[must_use]
    pub const fn is_call(&self) -> bool {
        matches!(self.protocol, Protocol::Grpc)
    }

    /// Whether the caller keeps a [`Speaking`] for [`Client::message`].
    #[must_use]
    pub const fn speaks_on_call(&self) -> bool {
        self.is_call() && matches!(self.app, App::Echo)
    }

    /// What a message of a call brings; `None` when that is no message of ours.
    ///
    /// # Errors
    /// When it is none, or says that there will be none.
    #[inline]
    pub fn payload<'a>(&self, message: &'a [u8]) -> Result<Option<&'a [u8]>, Broken> {
        if self.app == App::Echo {
            return Ok(Some(edge::read_echo(message)?));
        }
        match edge::read_server_frame(message)?.said {
            Said::Message { payload, .. } => Ok(Some(payload)),
            Said::Error { .. } => Err(Broken::NotSubscribed),
            _ => Ok(None),
        }
    }

    /// Whether [`Client::close`] says good-bye and the server answers; else the end of the stream does.
    #[must_use]
    pub const fn says_good_bye(&self) -> bool {
        matches!(self.protocol, Protocol::WebSocket | Protocol::Grpc)
    }

    /// The frame at the beginning of `bytes` and how many bytes it has; `None` while it is not whole.
    ///
    /// # Errors
    /// When no frame begins like that, or none that is short enough: the caller never has to keep more than
    /// [`Client::kept_bytes_max`].
    #[inline]
    pub fn next<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Broken> {
        match self.protocol {
            Protocol::WebSocket => self.next_websocket(bytes),
            Protocol::Sse => self.next_item(bytes),
            Protocol::Grpc => Ok(None),
            Protocol::Line => self.next_line(bytes),
            Protocol::Length => self.next_length(bytes),
        }
    }

    /// Bytes of a message at most, in a call.
    #[must_use]
    pub const fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// Bytes for which [`Client::next`] may still say that they are not whole.
    #[must_use]
    pub const fn kept_bytes_max(&self) -> usize {
        let head = if self.protocol.greets() { client::HEAD_BYTES_MAX } else { 16 };
        let frame = if self.has_body() { self.item_bytes_max() } else { self.message_bytes_max + 16 };
        if frame > head { frame } else { head }
    }

    const fn item_bytes_max(&self) -> usize {
        self.message_bytes_max + FIELDS_BYTES_MAX
    }

    fn next_websocket<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Broken> {
        let Some(header) = ServerHeader::parse(bytes)? else { return Ok(None) };
        if !header.fin || header.opcode == Opcode::Continuation {
            return Err(Broken::Fragmented);
        }
        let payload_bytes = self.check(usize::try_from(header.payload_bytes).unwrap_or(usize::MAX))?;
        let end = header.header_bytes + payload_bytes;
        let Some(payload) = bytes.get(header.header_bytes..end) else { return Ok(None) };
        let frame = match header.opcode {
            Opcode::Ping => Frame::Ping(payload),
            Opcode::Pong => Frame::Pong,
            Opcode::Close => Frame::Close(close::parse(payload)?, reason(payload)),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => Frame::Message(payload),
        };
        Ok(Some((frame, end)))
    }

    fn next_item<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Broken> {
        let item = event::parse(bytes);
        if item.as_ref().map_or(bytes.len(), |(_, length)| *length) > self.item_bytes_max() {
            return Err(Broken::TooLong(self.message_bytes_max));
        }
        Ok(item.map(|(item, length)| match item {
            Item::Event(event) => (Frame::Event(event), length),
            Item::Comment(_) => (Frame::Comment, length),
            Item::Blank => (Frame::Blank, length),
        }))
    }

    fn next_line<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Broken> {
        // A CR before the newline does not count.
        if bytes.starts_with(b"HTTP/1.") {
            return Err(Broken::Http);
        }
        let window = &bytes[..bytes.len().min(self.message_bytes_max + 2)];
        let Some(newline) = memchr::memchr(b'\n', window) else {
            return if window.len() < bytes.len() { Err(Broken::TooLong(self.message_bytes_max)) } else { Ok(None) };
        };
        let payload = window[..newline].strip_suffix(b"\r").unwrap_or(&window[..newline]);
        self.check(payload.len())?;
        Ok(Some((bare(payload), newline + 1)))
    }

    fn next_length<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Broken> {
        if bytes.starts_with(b"HTTP") {
            return Err(Broken::Http);
        }
        let Some(declared) = length::declared(bytes) else { return Ok(None) };
        let end = length::HEADER_BYTES + self.check(declared)?;
        Ok(bytes.get(length::HEADER_BYTES..end).map(|payload| (bare(payload), end)))
    }

    fn check(&self, payload_bytes: usize) -> Result<usize, Broken> {
        let fits = payload_bytes <= self.message_bytes_max;
        fits.then_some(payload_bytes).ok_or(Broken::TooLong(self.message_bytes_max))
    }

    /// Appends a message, text over WebSocket. Over raw TCP it must not be empty, and as a line not have breaks in it.
    /// Over SSE a client says nothing, and in a call what `call` has room for.
    #[inline]
    pub fn message(&mut self, payload: &[u8], call: Option<&mut Speaking>, out: &mut Vec<u8>) {
        match self.protocol {
            Protocol::WebSocket => client::write_frame(Opcode::Text, payload, self.next_mask(), out),
            Protocol::Sse => {}
            Protocol::Grpc => {
                if let Some(call) = call {
                    self.head.clear();
                    edge::write_echo_head(payload.len(), &mut self.head);
                    call.message(&self.head, payload, out);
                }
            }
            Protocol::Line => line::encode(payload, out),
            Protocol::Length => length::encode(payload, out),
        }
    }

    /// Appends the answer to a heartbeat.
    pub fn pong(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        match self.protocol {
            Protocol::WebSocket => client::write_frame(Opcode::Pong, payload, self.next_mask(), out),
            // In a call they are answered where they are found.
            Protocol::Sse | Protocol::Grpc => {}
            Protocol::Line => line::encode(b"", out),
            Protocol::Length => length::encode(b"", out),
        }
    }

    /// Appends a good-bye, code 1000. Raw TCP and SSE have none: there the end of the stream is one. A call is cancelled, and
    /// the connection with it.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.is_call() {
            caller::write_good_bye(out);
        } else if self.says_good_bye() {
            client::write_frame(Opcode::Close, &1000_u16.to_be_bytes(), self.next_mask(), out);
        }
    }

    /// Xorshift (Marsaglia 2003).
    const fn next_mask(&mut self) -> [u8; 4] {
        self.mask ^= self.mask << 13;
        self.mask ^= self.mask >> 17;
        self.mask ^= self.mask << 5;
        self.mask.to_ne_bytes()
    }
}

/// The hello of a call.
fn call_hello(target: &Target) -> Vec<u8> {
    let path = target.path.strip_prefix("/topics/").unwrap_or_default();
    let topic = uri::decode_path(path).unwrap_or_default();
    let method = match target.app {
        App::Echo => Method::Echo,
        App::Topic => Method::Connect(Subscription { topic: &topic, ..Subscription::default() }),
    };
    caller::hello(&method, &target.host, target.tls)
}

/// A frame over raw TCP: an empty one is a heartbeat.
const fn bare(payload: &[u8]) -> Frame<'_> {
    if payload.is_empty() { Frame::Ping(payload) } else { Frame::Message(payload) }
}

/// The reason in a close frame that has been checked.
fn reason(payload: &[u8]) -> &str {
    payload.get(2..).and_then(|reason| std::str::from_utf8(reason).ok()).unwrap_or_default()
}
