//! Protocol state machines, one per connection, sans-I/O: bytes in, events and bytes out.
//!
//! What a session must remember of an idle connection is a few bits in the table's hot entry. What it must remember of
//! an unfinished head, frame or message lives in a [`Partial`], which a connection has only while there is such a
//! thing; a shard keeps a few spare ones, so that a steady state allocates nothing.

pub mod caller;
pub mod grpc;
pub mod http;
pub mod http2;
pub mod tcp;
#[cfg(test)]
pub(crate) mod testing;
pub mod websocket;

use crate::close::CloseReason;
use crate::codec::grpc::gzip::Gunzip;
use crate::codec::http1::stream::write_chunk;
use crate::codec::websocket::deflate::{Deflater, Inflater};
use crate::codec::{self, json, length, line, sse};
use crate::config::Limits;
use crate::message::{Kind, Wire};
use crate::metrics;
use crate::rule::Rule;

/// Which state machine a connection runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// HTTP/1.1, until a request says what it becomes.
    Http,
    /// RFC 6455.
    WebSocket,
    /// Raw TCP, frames that end in a newline.
    Line,
    /// Raw TCP, frames behind a length.
    Length,
    /// A response that is a stream of server-sent events of one topic.
    Sse,
    /// The same of several topics.
    SseMany,
    /// A response in chunks, a line of JSON each.
    JsonStream,
    /// The same where chunks are not needed: on a stream of HTTP/2.
    JsonLines,
    /// A request that is answered when there is something to tell.
    Poll,
    /// HTTP/2: a connection that bears streams, each of which is an entry of its own beside it.
    Http2,
    /// A stream of HTTP/2 that is a gRPC call.
    Grpc,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Http,
        Self::WebSocket,
        Self::Line,
        Self::Length,
        Self::Sse,
        Self::SseMany,
        Self::JsonStream,
        Self::JsonLines,
        Self::Poll,
        Self::Http2,
        Self::Grpc,
    ];

    /// The name on pages and in logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::WebSocket => "websocket",
            Self::Line => "tcp_line",
            Self::Length => "tcp_length",
            Self::Sse => "sse",
            Self::SseMany => "sse_many",
            Self::JsonStream => "json_stream",
            Self::JsonLines => "json_lines",
            Self::Poll => "poll",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }

    /// The name that it is counted under.
    #[must_use]
    pub const fn counted(self) -> metrics::Protocol {
        match self {
            Self::Http => metrics::Protocol::Http,
            Self::WebSocket => metrics::Protocol::WebSocket,
            Self::Line => metrics::Protocol::Line,
            Self::Length => metrics::Protocol::Length,
            Self::Sse | Self::SseMany => metrics::Protocol::EventStream,
            Self::JsonStream | Self::JsonLines => metrics::Protocol::JsonStream,
            Self::Poll => metrics::Protocol::Poll,
            Self::Http2 => metrics::Protocol::Http2,
            Self::Grpc => metrics::Protocol::Grpc,
        }
    }

    /// Whether it is a response that goes on and on: what comes from the peer means nothing, and it is never asked for a
    /// sign of life.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Sse | Self::SseMany | Self::JsonStream | Self::JsonLines)
    }

    /// Whether it is frames on a TCP connection and nothing else.
    #[must_use]
    pub const fn is_raw(self) -> bool {
        matches!(self, Self::Line | Self::Length)
    }

    /// Whether it is HTTP, in whatever state.
    #[must_use]
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Poll) || self.is_stream()
    }
}

/// What a session found in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message.
    Message(Kind, &'a [u8]),
    /// A WebSocket ping; a pong with the same bytes is due.
    Ping(&'a [u8]),
    /// A WebSocket pong.
    Pong(&'a [u8]),
    /// A sign of life without content (raw TCP's empty frame).
    Heartbeat,
    /// The peer's close frame, with its code when it gave one. Nothing after it counts.
    Close(Option<u16>),
}

/// Whether a session should go on after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Look for the next event.
    Continue,
    /// Stop; bytes behind this event stay unconsumed.
    Stop,
}

/// How a peer broke the rules: which rule, for metrics and logs, and how the connection ends.
pub trait Violation: std::error::Error {
    /// The rule.
    fn rule(&self) -> Rule;

    /// How the connection ends for it.
    fn reason(&self) -> CloseReason;
}

/// What all sessions of a shard share.
#[derive(Debug, Default)]
pub struct Tools {
    /// Compresses; no context is kept from one message to the next.
    pub deflater: Deflater,
    /// Inflates, likewise.
    pub inflater: Inflater,
    /// Inflates gzip.
    pub gunzip: Gunzip,
    /// Room for one inflated message at a time.
    pub inflated: Vec<u8>,
}

/// Bytes of something unfinished, and where the session stands in it.
#[derive(Debug, Default)]
pub struct Partial {
    /// The unfinished head, line, frame or message.
    pub buf: Vec<u8>,
    /// WebSocket's own notes.
    pub websocket: websocket::Assembly,
    /// HTTP's own notes.
    pub http: http::Assembly,
    /// How much of `buf` the session has looked at already, so that no byte is looked at twice.
    pub scanned: usize,
    /// Bytes that [`Partials`] has counted it with.
    noted: usize,
}

/// Spare [`Partial`]s of a shard, and how much those in use keep in memory.
#[derive(Debug, Default)]
pub struct Partials {
    #[expect(clippy::vec_box, reason = "the box is what is spared: connections hold their partials boxed")]
    spare: Vec<Box<Partial>>,
    bytes: usize,
}

impl Partials {
    const SPARE_MAX: usize = 256;
    const SPARE_BYTES_MAX: usize = 16 * 1024;

    /// An empty one.
    pub fn take(&mut self) -> Box<Partial> {
        self.spare.pop().unwrap_or_default()
    }

    /// Counts what one in use keeps in memory now. Returns whether it has grown.
    pub fn note(&mut self, partial: &mut Partial) -> bool {
        let (before, now) = (partial.noted, partial.buf.capacity());
        self.bytes = self.bytes + now - before;
        partial.noted = now;
        now > before
    }

    /// What all in use keep in memory, as far as it was noted.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes one back; big buffers are freed.
    pub fn give(&mut self, mut partial: Box<Partial>) {
        self.bytes -= std::mem::take(&mut partial.noted);
        if self.spare.len() < Self::SPARE_MAX && partial.buf.capacity() <= Self::SPARE_BYTES_MAX {
            partial.buf.clear();
            partial.websocket = websocket::Assembly::default();
            partial.http = http::Assembly::default();
            partial.scanned = 0;
            self.spare.push(partial);
        }
    }
}

/// What a session gets besides its own state.
#[derive(Debug)]
pub struct Env<'a> {
    /// The bounds.
    pub limits: &'a Limits,
    /// The shard's codec state.
    pub tools: &'a mut Tools,
    /// Spare partials.
    pub partials: &'a mut Partials,
}

/// What a connection needs to encode a message for its peer: a few bits of the hot entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoder {
    /// The format.
    pub wire: Wire,
    /// permessage-deflate's window for what we send, 9 to 15; 0 without the extension.
    pub window_bits: u8,
}

/// Appends a message as this connection's peer reads it.
#[inline]
pub fn encode_message(encoder: Encoder, kind: Kind, payload: &[u8], deflater: &mut Deflater, out: &mut Vec<u8>) {
    match encoder.wire {
        Wire::WebSocket | Wire::WebSocketDeflate => websocket::encode_message(encoder, kind, payload, deflater, out),
        Wire::Line => line::encode(payload, out),
        Wire::Length => length::encode(payload, out),
        Wire::Grpc => codec::grpc::encode(payload, out),
        _ => encode_aside(encoder, kind, payload, deflater, out),
    }
}

/// The same where messages have a place in their topic: this one has none.
#[cold]
fn encode_aside(encoder: Encoder, kind: Kind, payload: &[u8], deflater: &mut Deflater, out: &mut Vec<u8>) {
    let mut aside = Vec::new();
    json::write_aside(kind, payload, &mut aside);
    match encoder.wire {
        Wire::WebSocketJson => websocket::encode_message(encoder, Kind::Text, &aside, deflater, out),
        Wire::Sse if kind == Kind::Text => sse::write_data(payload, out),
        Wire::Sse | Wire::SseMany => sse::write_data(&aside, out),
        Wire::JsonStream => write_chunk(|out| out.extend_from_slice(&[&aside[..], b"\n"].concat()), out),
        Wire::JsonLines => out.extend_from_slice(&[&aside[..], b"\n"].concat()),
        // A poll is answered with messages of its topics and nothing else.
        _ => {}
    }
}

/// Appends that what was asked for is lost, and where the stream goes on: JSON, in a frame of the format.
pub fn encode_reset(encoder: Encoder, place: json::Place<'_>, deflater: &mut Deflater, out: &mut Vec<u8>) {
    let mut reset = Vec::new();
    place.reset(&mut reset);
    match encoder.wire {
        Wire::WebSocket | Wire::WebSocketDeflate | Wire::WebSocketJson => {
            websocket::encode_message(encoder, Kind::Text, &reset, deflater, out);
        }
        Wire::Line => line::encode(&reset, out),
        Wire::Length => length::encode(&reset, out),
        Wire::Sse | Wire::SseMany => {
            sse::write_event("reset", out);
            sse::write_data(&reset, out);
        }
        Wire::JsonStream => write_chunk(|out| out.extend_from_slice(&[&reset[..], b"\n"].concat()), out),
        Wire::Json => out.extend_from_slice(&reset),
        Wire::JsonLines => out.extend_from_slice(&[&reset[..], b"\n"].concat()),
        Wire::Grpc => codec::grpc::write_reset(place, out),
    }
}

/// Appends that a subscription begins and after which place its live stream does, in formats that have a frame for that.
pub fn encode_subscribed(encoder: Encoder, place: json::Place<'_>, out: &mut Vec<u8>) {
    if encoder.wire == Wire::Grpc {
        codec::grpc::write_subscribed(place, true, out);
    }
}

/// Appends what shows a silent peer that we live, and asks it for a sign of life where it can give one: a WebSocket ping, an
/// empty frame on raw TCP, a comment among events, an empty line among lines of JSON.
pub fn encode_heartbeat(wire: Wire, out: &mut Vec<u8>) {
    match wire {
        Wire::WebSocket | Wire::WebSocketDeflate | Wire::WebSocketJson => websocket::encode_ping(&[], out),
        Wire::Line => line::encode(&[], out),
        Wire::Length => length::encode(&[], out),
        Wire::Sse | Wire::SseMany => out.extend_from_slice(sse::HEARTBEAT),
        Wire::JsonStream => write_chunk(|out| out.push(b'\n'), out),
        Wire::JsonLines => out.push(b'\n'),
        // A poll is answered with messages; a gRPC call lives while its connection does, which is asked by PING.
        Wire::Json | Wire::Grpc => {}
    }
}
