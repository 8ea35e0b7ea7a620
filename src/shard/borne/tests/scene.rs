//! A shard on a simulated network, what its client sends in frames, and what it is answered in words.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::access::{Access, ApiKeys, FromFile};
use crate::app::site::{Ask, Body, Page, PageRequest, Site};
use crate::app::{Refusal, standard_routes};
use crate::codec::grpc;
use crate::codec::grpc::generated::edge::{ClientFrame, Publish, client_frame, publish};
use crate::codec::http2::StreamId;
use crate::codec::http2::frame::{self, HEADER_BYTES, Header, PREFACE, flag, kind};
use crate::codec::http2::hpack::{self, Bounds, Decoder};
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::shard::{EntranceKind, Live, Shard, tests};
use crate::sim::{Client, ManualClock, SimBackend};

const INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const CONNECT: &str = "/holdline.v1.Edge/Connect";
pub(super) const ECHO: &str = "/holdline.v1.Edge/Echo";

/// Pages of as many bytes as their path says.
pub(super) struct Pages;

impl Site for Pages {
    fn get(&self, request: &PageRequest<'_>) -> Option<Page> {
        let bytes = request.path.trim_start_matches('/').parse().ok()?;
        Some(Page { status: 200, fields: Vec::new().into(), body: Body::Bytes(vec![b'x'; bytes].into()) })
    }
}

/// Of operators: how often it was asked something.
#[derive(Default)]
pub(super) struct Desk(pub(super) AtomicUsize);

impl Site for Desk {
    fn get(&self, _request: &PageRequest<'_>) -> Option<Page> {
        None
    }

    fn methods(&self, path: &str) -> Option<&'static str> {
        (path == "/api/kick").then_some("GET, HEAD, POST, DELETE, OPTIONS")
    }

    fn ask(&self, _ask: Ask) -> Result<(), Refusal> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn lets_in(&self, host: &[u8]) -> Result<(), Refusal> {
        let message = "not here".to_owned();
        if host == b"localhost" { Ok(()) } else { Err(Refusal { status: 403, code: "host", message }) }
    }
}

/// Serves operators, one of whom has this key.
pub(super) fn guarded(key: &str) -> Live {
    let keys = ApiKeys::from_toml(&format!("[[key]]\nname = \"ops\"\nkey = \"{key}\"\nadmin = true\n")).unwrap();
    let access = Access { api_keys: FromFile { path: None, content: Arc::new(keys) }, ..Access::default() };
    let limits = Arc::new(Limits { connections_max: 10, ..Limits::default() });
    Live { limits, access: Arc::new(access), operators_only: true, ..Live::default() }
}

/// A shard on a simulated network with a client of HTTP/2.
pub(super) struct Scene {
    pub(super) clock: ManualClock,
    pub(super) shard: Shard<SimBackend>,
    pub(super) metrics: Metrics,
    pub(super) client: Client,
    decoder: Decoder,
    /// What has come and is not a whole frame.
    pub(super) unread: Vec<u8>,
    /// Bytes of all bodies by their streams.
    pub(super) bodies: BTreeMap<u32, Vec<u8>>,
}

impl Scene {
    /// With windows of this size on streams, and one as large as can be on the connection.
    pub(super) fn new(stream_window: u32) -> Self {
        let mut scene = Self::with(Limits::default(), stream_window);
        scene.send(&[window(0, StreamId::MAX - 65_535)]);
        scene
    }

    pub(super) fn with(limits: Limits, stream_window: u32) -> Self {
        let live = Live { limits: Arc::new(Limits { connections_max: 10, ..limits }), ..Live::default() };
        Self::of(live, Arc::new(Pages), stream_window)
    }

    pub(super) fn of(live: Live, site: Arc<dyn Site>, stream_window: u32) -> Self {
        let kind = EntranceKind::Http { site, routes: true };
        let (shard, net, metrics) = tests::alone(kind, standard_routes(), live);
        let (clock, client) = (ManualClock::new(), net.connect_to(0, tests::ENTRANCE).unwrap());
        let (decoder, unread, bodies) = (Decoder::new(4096), Vec::new(), BTreeMap::new());
        let mut scene = Self { clock, shard, metrics, client, decoder, unread, bodies };
        let [high, low] = INITIAL_WINDOW_SIZE.to_be_bytes();
        let setting = [&[high, low][..], &stream_window.to_be_bytes()].concat();
        scene.send(&[
            PREFACE.to_vec(),
            frame(kind::SETTINGS, 0, 0, &setting),
            frame(kind::SETTINGS, flag::ACK, 0, &[]),
        ]);
        assert_eq!(scene.seen(), ["settings", "window 0 +983041", "settings ack"]);
        scene
    }

    pub(super) fn rest(&mut self) {
        tests::rest(&mut self.shard, &self.clock);
    }

    pub(super) fn send(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            assert_eq!(self.client.write(frame), frame.len());
            self.rest();
        }
    }

    /// All frames that have come, in words. Bodies are kept aside.
    pub(super) fn seen(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        loop {
            let bytes = self.client.read();
            if bytes.is_empty() {
                return words;
            }
            self.unread.extend(bytes);
            words.extend(self.frames());
            self.rest();
        }
    }

    pub(super) fn frames(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        while let Some(header) = self.unread.first_chunk().map(Header::parse) {
            let end = HEADER_BYTES + header.length as usize;
            if self.unread.len() < end {
                break;
            }
            let frame: Vec<u8> = self.unread.drain(..end).collect();
            words.push(self.words(header, &frame[HEADER_BYTES..]));
        }
        words
    }

    fn words(&mut self, header: Header, payload: &[u8]) -> String {
        let stream = header.stream.0;
        let number = |at: usize| payload.get(at..at + 4).map_or(0, |four| u32::from_be_bytes(four.try_into().unwrap()));
        let end = if header.has(flag::END_STREAM) { " end" } else { "" };
        match header.kind {
            kind::DATA => {
                self.bodies.entry(stream).or_default().extend(payload);
                format!("{stream} data{end}")
            }
            kind::HEADERS => {
                let bounds = Bounds { bytes_max: 4096, fields_max: 20 };
                let mut said = String::new();
                let decoded = self.decoder.decode(payload, bounds, &mut Vec::new(), |name, value| {
                    if matches!(name, b":status" | b"grpc-status") {
                        said = format!("{said} {}", str::from_utf8(value).unwrap());
                    }
                });
                decoded.unwrap();
                format!("{stream} fields{said}{end}")
            }
            kind::RST_STREAM => format!("{stream} reset {}", number(0)),
            kind::SETTINGS if header.has(flag::ACK) => "settings ack".to_owned(),
            kind::SETTINGS => "settings".to_owned(),
            kind::PING if header.has(flag::ACK) => "pong".to_owned(),
            kind::PING => "ping".to_owned(),
            kind::GOAWAY => format!("go away {} {}", number(0), number(4)),
            kind::WINDOW_UPDATE => format!("window {stream} +{}", number(0)),
            other => format!("{other}"),
        }
    }

    /// Bytes that have come of a stream's body.
    pub(super) fn body(&self, stream: u32) -> usize {
        self.bodies.get(&stream).map_or(0, Vec::len)
    }

    /// Sends so many bytes of a body in frames of 8 KiB, as far as the window of 64 KiB and what is given back of it reach.
    /// Returns how many that were.
    pub(super) fn upload(&mut self, stream: u32, bytes: &[u8]) -> usize {
        let (mut sent, mut room) = (0, 65_535);
        let update = format!("window {stream} +");
        for piece in bytes.chunks(8 * 1024) {
            if room < piece.len() {
                break;
            }
            self.send(&[data(stream, 0, piece)]);
            sent += piece.len();
            room -= piece.len();
            let given: usize =
                self.seen().iter().filter_map(|seen| seen.strip_prefix(&update)?.parse::<usize>().ok()).sum();
            room += given;
        }
        sent
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(kind, flags, StreamId(stream), payload, &mut out);
    out
}

/// The first size of streams' windows.
pub(super) fn settings(stream_window: u32) -> Vec<u8> {
    let [high, low] = INITIAL_WINDOW_SIZE.to_be_bytes();
    frame(kind::SETTINGS, 0, 0, &[&[high, low][..], &stream_window.to_be_bytes()].concat())
}

pub(super) fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

pub(super) fn window(stream: u32, bytes: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

pub(super) fn request(stream: u32, flags: u8, method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let first = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "sim")];
    for (name, value) in first.iter().chain(fields) {
        hpack::encode(name.as_bytes(), value.as_bytes(), &mut block);
    }
    frame(kind::HEADERS, flag::END_HEADERS | flags, stream, &block)
}

pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    request(stream, flag::END_STREAM, "GET", path, &[])
}

pub(super) fn call(stream: u32, path: &str) -> Vec<u8> {
    request(stream, 0, "POST", path, &[("content-type", "application/grpc"), ("te", "trailers")])
}

pub(super) fn message(message: &impl prost::Message) -> Vec<u8> {
    let mut out = Vec::new();
    grpc::encode(&message.encode_to_vec(), &mut out);
    out
}

/// How many messages there are in a call's body.
pub(super) fn messages(mut body: &[u8]) -> usize {
    let mut count = 0;
    while let Some((prefix, rest)) = body.split_first_chunk::<5>() {
        body = &rest[u32::from_be_bytes(*prefix[1..].first_chunk().unwrap()) as usize..];
        count += 1;
    }
    count
}

pub(super) fn publication(id: u32) -> Vec<u8> {
    let payload = Some(publish::Payload::Text("x".to_owned()));
    let wish = Publish { topic: "t".to_owned(), payload, ..Publish::default() };
    message(&ClientFrame { id, frame: Some(client_frame::Frame::Publish(wish)) })
}
