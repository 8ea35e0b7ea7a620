//! Streams of one connection, and what its client sees of them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::access::{Access, ApiKeys, FromFile};
use crate::app::Refusal;
use crate::app::site::{Ask, Body, Page, PageRequest, Site};
use crate::app::standard_routes;
use crate::codec::grpc;
use crate::codec::grpc::generated::edge::{ClientFrame, EchoMessage, Publish, Subscribe, client_frame, publish};
use crate::codec::http2::frame::{self, HEADER_BYTES, Header, PREFACE, flag, kind};
use crate::codec::http2::hpack::{self, Bounds, Decoder};
use crate::config::{Limits, Networks};
use crate::id::{ListenerId, ShardId};
use crate::metrics::{Metrics, ShardMetrics};
use crate::rule::{AuthRefusal, Limit};
use crate::shard::orders::{Filter, Order, Outcome, Search, What};
use crate::shard::{Control, Entrance, EntranceKind, Live, Mail, Seed};
use crate::sim::{Client, Config, ManualClock, Net, SimBackend};

const INITIAL_WINDOW_SIZE: u16 = 4;
const CONNECT: &str = "/holdline.v1.Edge/Connect";
const ECHO: &str = "/holdline.v1.Edge/Echo";

/// Pages of as many bytes as their path says.
struct Pages;

impl Site for Pages {
    fn get(&self, request: &PageRequest<'_>) -> Option<Page> {
        let bytes = request.path.trim_start_matches('/').parse().ok()?;
        Some(Page { status: 200, fields: Vec::new().into(), body: Body::Bytes(vec![b'x'; bytes].into()) })
    }
}

/// Of operators: how often it was asked something.
#[derive(Default)]
struct Desk(AtomicUsize);

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
fn guarded(key: &str) -> Live {
    let keys = ApiKeys::from_toml(&format!("[[key]]\nname = \"ops\"\nkey = \"{key}\"\nadmin = true\n")).unwrap();
    let access = Access { api_keys: FromFile { path: None, content: Arc::new(keys) }, ..Access::default() };
    let limits = Arc::new(Limits { connections_max: 10, ..Limits::default() });
    Live { limits, access: Arc::new(access), operators_only: true, ..Live::default() }
}

/// A shard on a simulated network with a client of HTTP/2.
struct Scene {
    clock: ManualClock,
    shard: Shard<SimBackend>,
    metrics: Metrics,
    client: Client,
    decoder: Decoder,
    /// What has come and is not a whole frame.
    unread: Vec<u8>,
    /// Bytes of all bodies by their streams.
    bodies: BTreeMap<u32, Vec<u8>>,
}

impl Scene {
    /// With windows of this size on streams, and one as large as can be on the connection.
    fn new(stream_window: u32) -> Self {
        let mut scene = Self::with(Limits::default(), stream_window);
        scene.send(&[window(0, StreamId::MAX - 65_535)]);
        scene
    }

    fn with(limits: Limits, stream_window: u32) -> Self {
        let live = Live { limits: Arc::new(Limits { connections_max: 10, ..limits }), ..Live::default() };
        Self::of(live, Arc::new(Pages), stream_window)
    }

    fn of(live: Live, site: Arc<dyn Site>, stream_window: u32) -> Self {
        let (net, metrics) = (Net::new(1, Config::default()), Metrics::new(1));
        let kind = EntranceKind::Http { site, routes: true };
        let mut backend = net.backend();
        backend.open(ListenerId(0));
        let seed = Seed {
            id: ShardId(0),
            router: standard_routes(),
            entrances: [Entrance { url: String::new(), kind, proxied: false }].into(),
            mail: Mail::mesh(1, live.limits.mailbox_capacity).remove(0),
            control: Arc::new(Control::new(live)),
            metrics: metrics.clone(),
        };
        let shard = Shard::new(backend, seed);
        let (clock, client) = (ManualClock::new(), net.connect_to(0, ListenerId(0)).unwrap());
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

    fn rest(&mut self) {
        for _ in 0..10 {
            self.shard.turn(&self.clock).unwrap();
            self.shard.audit().unwrap();
        }
    }

    fn send(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            assert_eq!(self.client.write(frame), frame.len());
            self.rest();
        }
    }

    /// All frames that have come, in words. Bodies are kept aside.
    fn seen(&mut self) -> Vec<String> {
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

    fn frames(&mut self) -> Vec<String> {
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
    fn body(&self, stream: u32) -> usize {
        self.bodies.get(&stream).map_or(0, Vec::len)
    }

    /// Sends so many bytes of a body in frames of 8 KiB, as far as the window of 64 KiB and what is given back of it reach.
    /// Returns how many that were.
    fn upload(&mut self, stream: u32, bytes: &[u8]) -> usize {
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

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(kind, flags, StreamId(stream), payload, &mut out);
    out
}

/// The first size of streams' windows.
fn settings(stream_window: u32) -> Vec<u8> {
    let [high, low] = INITIAL_WINDOW_SIZE.to_be_bytes();
    frame(kind::SETTINGS, 0, 0, &[&[high, low][..], &stream_window.to_be_bytes()].concat())
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

fn window(stream: u32, bytes: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

fn request(stream: u32, flags: u8, method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let first = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "sim")];
    for (name, value) in first.iter().chain(fields) {
        hpack::encode(name.as_bytes(), value.as_bytes(), &mut block);
    }
    frame(kind::HEADERS, flag::END_HEADERS | flags, stream, &block)
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    request(stream, flag::END_STREAM, "GET", path, &[])
}

fn call(stream: u32, path: &str) -> Vec<u8> {
    request(stream, 0, "POST", path, &[("content-type", "application/grpc"), ("te", "trailers")])
}

fn message(message: &impl prost::Message) -> Vec<u8> {
    let mut out = Vec::new();
    grpc::encode(&message.encode_to_vec(), &mut out);
    out
}

/// How many messages there are in a call's body.
fn messages(mut body: &[u8]) -> usize {
    let mut count = 0;
    while let Some((prefix, rest)) = body.split_first_chunk::<5>() {
        body = &rest[u32::from_be_bytes(*prefix[1..].first_chunk().unwrap()) as usize..];
        count += 1;
    }
    count
}

fn publication(id: u32) -> Vec<u8> {
    let payload = Some(publish::Payload::Text("x".to_owned()));
    let wish = Publish { topic: "t".to_owned(), payload, ..Publish::default() };
    message(&ClientFrame { id, frame: Some(client_frame::Frame::Publish(wish)) })
}

#[test]
fn messages_of_which_one_frame_has_many_are_all_looked_at() {
    let mut scene = Scene::new(1 << 20);
    let many: Vec<u8> = (0..600).flat_map(publication).collect();
    scene.send(&[call(1, CONNECT), data(1, flag::END_STREAM, &many)]);
    let seen = scene.seen();
    assert_eq!(messages(&scene.bodies[&1]), 600);
    assert_eq!((&*seen[0], &**seen.last().unwrap()), ("1 fields 200", "1 fields 0 end"), "{seen:?}");
}

/// A peer that sends and never opens a window must not fill our memory.
#[test]
fn a_call_whose_answers_find_no_window_is_not_read_on() {
    let mut scene = Scene::new(0);
    let echo = message(&EchoMessage { payload: vec![b'x'; 1000] });
    let all = echo.repeat(1000);
    scene.send(&[call(1, ECHO)]);
    let sent = scene.upload(1, &all);
    assert!(sent < 256 * 1024, "{sent} bytes were taken");
    assert!(scene.metrics.total(|shard| shard.queued_bytes.get()) < 256 * 1024);
    assert_eq!(scene.body(1), 0);
    // And goes on when there is one: the half-close, which came while it was not read, too.
    scene.send(&[data(1, flag::END_STREAM, &[]), window(1, 1 << 20)]);
    let seen = scene.seen();
    assert_eq!(scene.bodies[&1], all[..sent / echo.len() * echo.len()]);
    assert_eq!(seen.last().unwrap(), "1 fields 13 end", "the last message is not whole");
}

/// One whose queue is more than its part of what the process has goes, and its connection stays.
#[test]
fn a_stream_for_which_there_is_no_room_is_reset() {
    let limits = Limits { queue_bytes_total_max: 20_000, ..Limits::default() };
    let mut scene = Scene::with(limits, 0);
    scene.send(&[call(1, ECHO), call(3, ECHO)]);
    let echo = message(&EchoMessage { payload: vec![b'x'; 1000] });
    for _ in 0..3 {
        scene.send(&[data(1, 0, &echo.repeat(8))]);
        scene.clock.advance(Duration::from_millis(200));
    }
    scene.send(&[window(3, 100), data(3, flag::END_STREAM, b"\0\0\0\0\0")]);
    assert_eq!(scene.seen(), ["1 fields 200", "3 fields 200", "1 reset 11", "3 data", "3 fields 0 end"],);
}

/// The end of a connection that broke the rules does not wait for its streams.
#[test]
fn a_violation_ends_the_streams_with_the_connection() {
    let mut scene = Scene::new(1000);
    scene.send(&[call(1, CONNECT), frame(kind::PUSH_PROMISE, 0, 1, &[])]);
    assert_eq!(scene.seen(), ["1 fields 200", "go away 1 1"]);
    assert_eq!(scene.client.peer(), crate::sim::Peer::Finished);
    assert_eq!(scene.metrics.total(|shard| shard.http2_streams.get()), 0);
}

/// Both get their part of the connection's window, however much waits for the first one.
#[test]
fn streams_share_the_connection_s_window() {
    let mut scene = Scene::with(Limits::default(), 1 << 30);
    scene.send(&[get(1, "/1000000"), get(3, "/1000000"), get(5, "/1000000")]);
    for _ in 0..60 {
        scene.seen();
        scene.send(&[window(0, 16_384)]);
    }
    let bodies = [1, 3, 5].map(|stream| scene.body(stream));
    assert!(bodies.iter().all(|bytes| *bytes > 200_000), "{bodies:?}");
}

/// A long response does not keep its connection from being read, nor does that other answers were not read for a while.
#[test]
fn a_connection_is_read_while_much_is_sent() {
    let mut scene = Scene::new(1 << 30);
    scene.send(&[get(1, "/2000000")]);
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    (0..5).for_each(|_| scene.send(&[ping.repeat(1000)]));
    assert!(scene.metrics.total(|shard| shard.reading_paused_total.get()) > 0);
    scene.client.write(&frame(kind::PING, 0, 0, b"the last"));
    let mut pongs = 0;
    while pongs < 5001 {
        let read = scene.client.read_into(&mut scene.unread, 50_000);
        assert!(read > 0, "it waits for nothing");
        scene.rest();
        pongs += scene.frames().iter().filter(|seen| *seen == "pong").count();
    }
    assert!(scene.body(1) < 1_000_000, "{} bytes before the answer to a ping", scene.body(1));
}

/// RFC 9110 section 10.1.1: neither may wait for the other.
#[test]
fn who_waits_to_be_told_is_told() {
    let mut scene = Scene::new(1 << 20);
    let expect = ("expect", "100-continue");
    scene.send(&[request(1, 0, "POST", "/topics/t", &[expect, ("content-length", "2")])]);
    assert_eq!(scene.seen(), ["1 fields 100"]);
    scene.send(&[data(1, flag::END_STREAM, b"hi")]);
    assert_eq!(scene.seen(), ["1 fields 200", "1 data", "1 data end"]);
    scene.send(&[request(3, 0, "POST", "/topics/t", &[expect, ("content-length", "2000000")])]);
    assert_eq!(scene.seen(), ["3 fields 413", "3 data end", "3 reset 0"]);
    scene.send(&[request(5, 0, "GET", "/10", &[expect, ("content-length", "2")])]);
    assert_eq!(scene.seen(), ["5 fields 413", "5 data end", "5 reset 0"]);
    scene.send(&[request(7, 0, "DELETE", "/10", &[expect, ("content-length", "2")])]);
    assert_eq!(scene.seen(), ["7 fields 405", "7 data end", "7 reset 0"]);
}

#[test]
fn a_client_that_has_said_all_has_its_answers() {
    let mut scene = Scene::new(1 << 20);
    scene.client.write(&[get(1, "/100000"), call(3, CONNECT), get(5, "/topics/t/info")].concat());
    scene.client.shutdown_write();
    scene.rest();
    let seen = scene.seen();
    assert_eq!((scene.body(1), scene.body(5) > 0), (100_000, true), "{seen:?}");
    assert_eq!(scene.client.peer(), crate::sim::Peer::Finished);
    assert_eq!(scene.metrics.total(|shard| shard.http2_streams.get() + shard.connections.get()), 0);
}

#[test]
fn a_drain_lets_answers_end_that_are_under_way() {
    let mut scene = Scene::new(60_000);
    scene.send(&[get(1, "/100000"), call(3, ECHO), request(5, 0, "POST", "/topics/t", &[])]);
    scene.seen();
    scene.shard.core.control.drain(Duration::ZERO);
    scene.rest();
    assert_eq!(scene.seen(), ["go away 2147483647 0", "ping"]);
    // What was on its way when the client heard that is answered.
    scene.send(&[get(7, "/100"), frame(kind::PING, flag::ACK, 0, b"goodbye!")]);
    assert_eq!(scene.seen(), ["7 fields 200", "7 data end", "go away 7 0", "3 fields 14 end", "3 reset 0"]);
    // The body that was not whole may come, and is answered; what begins now is not.
    scene.send(&[get(9, "/100"), data(5, flag::END_STREAM, b"hello"), window(1, 60_000)]);
    let seen = scene.seen();
    assert!(seen.contains(&"9 reset 7".to_owned()) && seen.contains(&"5 fields 200".to_owned()), "{seen:?}");
    assert!(seen.contains(&"1 data end".to_owned()), "{seen:?}");
    assert_eq!((scene.body(1), scene.client.peer()), (100_000, crate::sim::Peer::Finished));
}

#[test]
fn a_client_that_does_not_answer_the_warning_leaves_all_the_same() {
    let mut scene = Scene::new(60_000);
    scene.send(&[call(1, ECHO)]);
    scene.seen();
    scene.shard.core.control.drain(Duration::ZERO);
    scene.rest();
    assert_eq!(scene.seen(), ["go away 2147483647 0", "ping"]);
    scene.clock.advance(Duration::from_secs(3));
    scene.rest();
    assert_eq!(scene.seen(), ["go away 1 0", "1 fields 14 end", "1 reset 0"]);
}

#[test]
fn what_is_cut_off_looks_neither_whole_nor_refused() {
    for (path, seen) in [("/topics/t?stream=1", &["1 fields 200"][..]), ("/topics/t?wait=60s", &[])] {
        let mut scene = Scene::new(1000);
        scene.send(&[get(1, path)]);
        assert_eq!(scene.seen(), seen);
        let id = scene.shard.core.table.iter().find(|(_, one)| one.flags.has(Flags::BORNE)).unwrap().0;
        scene.shard.begin_close(id, CloseReason::Internal, "");
        scene.rest();
        assert_eq!(scene.seen(), ["1 reset 2"]);
    }
}

#[test]
fn a_connection_without_heartbeats_and_streams_ends_some_time() {
    let limits = Limits { heartbeat_interval: Duration::ZERO, ..Limits::default() };
    let mut scene = Scene::with(limits, 1000);
    scene.send(&[call(1, ECHO)]);
    scene.clock.advance(Duration::from_secs(1000));
    scene.send(&[data(1, flag::END_STREAM, &[])]);
    assert_eq!(scene.seen(), ["1 fields 200", "1 fields 0 end"]);
    scene.clock.advance(Duration::from_secs(100));
    scene.rest();
    assert_eq!(scene.seen(), ["go away 1 0"]);
}

/// The time for a head is one for all of it, and goes on whatever other streams do.
#[test]
fn a_head_must_be_whole_in_time() {
    let mut scene = Scene::new(1000);
    scene.send(&[call(1, ECHO)]);
    let head = get(3, "/10");
    for byte in &head[..11] {
        scene.send(&[vec![*byte]]);
        scene.clock.advance(Duration::from_millis(800));
    }
    assert_eq!(scene.seen(), ["1 fields 200"]);
    scene.send(&[head[11..12].to_vec()]);
    scene.clock.advance(Duration::from_secs(9));
    scene.send(&[head[12..13].to_vec()]);
    assert_eq!(scene.seen(), ["go away 3 4"]);
}

/// A message of a group is not for a member that cannot be sent it.
#[test]
fn a_member_without_a_window_has_no_share() {
    let mut scene = Scene::new(1000);
    let wish = Subscribe { topic: "t".to_owned(), group: "g".to_owned(), ..Subscribe::default() };
    let join = message(&ClientFrame { id: 1, frame: Some(client_frame::Frame::Subscribe(wish)) });
    scene.send(&[call(1, CONNECT), data(1, 0, &join), call(3, CONNECT), data(3, 0, &join)]);
    scene.seen();
    let joined = scene.body(1);
    // All windows shrink by what is left of the first one.
    let shrunk = u32::try_from(joined).unwrap();
    scene.send(&[settings(shrunk), window(3, 100_000), call(5, CONNECT), window(5, 100_000)]);
    (0..10).for_each(|id| scene.send(&[data(5, 0, &publication(id))]));
    scene.seen();
    assert_eq!((scene.body(1), messages(&scene.bodies[&3])), (joined, 11));
    // The other one is gone: what is published waits for a window.
    scene.send(&[frame(kind::RST_STREAM, 0, 3, &8_u32.to_be_bytes()), data(5, 0, &publication(10))]);
    scene.seen();
    assert_eq!(scene.body(1), joined);
    scene.send(&[window(1, 1000)]);
    scene.seen();
    assert_eq!(messages(&scene.bodies[&1]), 2);
}

#[test]
fn a_subscription_too_many_is_told_and_the_call_goes_on() {
    let mut scene = Scene::with(Limits { subscriptions_max: 1, ..Limits::default() }, 1 << 20);
    let join = |topic: &str| {
        let wish = Subscribe { topic: topic.to_owned(), ..Subscribe::default() };
        message(&ClientFrame { id: 7, frame: Some(client_frame::Frame::Subscribe(wish)) })
    };
    scene.send(&[call(1, CONNECT), data(1, 0, &join("one")), data(1, 0, &join("two")), data(1, 0, &publication(9))]);
    let seen = scene.seen();
    assert!(!seen.last().unwrap().ends_with(" end"), "{seen:?}");
    let body = &scene.bodies[&1];
    for said in [&b"\x11subscriptions_max"[..], b"two: this connection has as many"] {
        assert!(body.windows(said.len()).any(|part| part == said), "{}", body.escape_ascii());
    }
    // That of the first one, the error, and the place of the publication.
    assert_eq!(messages(body), 3);
    assert_eq!(scene.metrics.total(|shard| shard.struck(crate::rule::Limit::SubscriptionsMax)), 1);
}

#[test]
fn what_operators_have_a_key_for_is_no_call_whatever_it_says_it_is() {
    const KEY: &str = "an-operators-own-key";
    let desk = Arc::new(Desk::default());
    let mut scene = Scene::of(guarded(KEY), Arc::<Desk>::clone(&desk), 65_535);
    let calls = [("content-type", "application/grpc"), ("x-holdline", "1")];
    for (stream, method) in [(1, "GET"), (3, "POST"), (5, "DELETE")] {
        scene.send(&[request(stream, flag::END_STREAM, method, "/api/kick", &calls)]);
        assert_eq!(scene.seen(), [format!("{stream} fields 401"), format!("{stream} data end")], "{method}");
    }
    assert_eq!(desk.0.load(Ordering::Relaxed), 0);
    let bearer = format!("Bearer {KEY}");
    let known = [calls[0], ("authorization", &*bearer)];
    scene.send(&[request(7, flag::END_STREAM, "POST", "/api/kick", &known)]);
    assert_eq!((scene.seen().len(), desk.0.load(Ordering::Relaxed)), (0, 1), "it waits for the answer");
    // Routes ask the same, and that they are called by a name of this machine.
    let fields = [("accept", "text/event-stream")];
    scene.send(&[request(9, flag::END_STREAM, "GET", "/topics/trace", &fields)]);
    assert_eq!(scene.seen(), ["9 fields 401", "9 data end"]);
    scene.send(&[request(11, flag::END_STREAM, "GET", "/topics/trace", &[fields[0], known[1]])]);
    assert_eq!(scene.seen(), ["11 fields 403", "11 data end"]);
    for (stream, path, status) in [(13, "/api/overview", 403), (15, "/metrics", 404)] {
        scene.send(&[request(stream, flag::END_STREAM, "GET", path, &[known[1]])]);
        assert_eq!(scene.seen(), [format!("{stream} fields {status}"), format!("{stream} data end")]);
    }
}

#[test]
fn operators_find_a_user_by_its_name() {
    const KEY: &str = "a-key-of-a-client-s";
    let mut scene = Scene::of(Live { operators_only: false, ..guarded(KEY) }, Arc::new(Pages), 65_535);
    let bearer = format!("Bearer {KEY}");
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", &*bearer)];
    scene.send(&[request(1, 0, "POST", CONNECT, &fields), request(3, 0, "POST", ECHO, &fields)]);
    assert_eq!(scene.seen(), ["1 fields 200", "3 fields 200"]);
    let (reports, reported) = crossbeam::channel::unbounded();
    for (user, count) in [("ops", 2), ("op", 0), ("", 0)] {
        let filter = Filter { user: Some(user.into()), ..Filter::default() };
        let what = What::Connections(Search { filter, from: 0, limit: 10, top: false });
        let order = Order { number: 1, what, reports: reports.clone() };
        assert!(scene.shard.core.mail.postbox().order(ShardId(0), Box::new(order)).is_ok());
        scene.rest();
        let Outcome::Found(found, _) = reported.try_recv().unwrap().what else { panic!("a look finds some or none") };
        assert_eq!(found.len(), count, "{user:?}");
        assert!(found.iter().all(|item| String::from_utf8_lossy(&item.json).contains("\"user\":\"ops\"")));
    }
}

#[test]
fn what_was_refused_when_it_came_is_not_taken_without_its_body_later() {
    let limits = Limits { request_rate_per_address: 1, exempt: Networks::default(), ..Limits::default() };
    let mut scene = Scene::with(limits, 65_535);
    for (stream, method) in [(3, "/topics/t"), (7, "/holdline.v1.Edge/Publish")] {
        let first = stream - 2;
        scene.send(&[request(first, 0, "POST", "/topics/t", &[]), data(first, flag::END_STREAM, b"one")]);
        assert_eq!(scene.seen()[0], format!("{first} fields 200"));
        let fields = if stream == 7 { &[("content-type", "application/grpc")][..] } else { &[] };
        scene.send(&[request(stream, 0, "POST", method, fields)]);
        scene.clock.advance(Duration::from_secs(2));
        scene.send(&[data(stream, flag::END_STREAM, b"two")]);
        assert_eq!(scene.seen()[0], format!("{stream} fields 429"));
    }
    assert_eq!(scene.metrics.total(|shard| shard.publications_total.get()), 2);
}

#[test]
fn a_request_that_is_refused_before_its_body_is_refused_once() {
    let mut scene =
        Scene::of(Live { operators_only: false, ..guarded("a-key-of-a-client-s") }, Arc::new(Pages), 65_535);
    scene.send(&[request(1, 0, "POST", "/topics/t", &[("authorization", "Bearer another-key")])]);
    scene.send(&[data(1, 0, b"one"), data(1, flag::END_STREAM, b"two")]);
    assert_eq!(scene.seen()[0], "1 fields 401");
    let refused = |shard: &ShardMetrics| AuthRefusal::ALL.iter().map(|cause| shard.refused(*cause)).sum();
    assert_eq!(scene.metrics.total(refused), 1);
}

#[test]
fn what_requests_publish_is_paid_for_by_the_connection_of_their_streams() {
    let mut scene = Scene::with(Limits { message_rate: 2, ..Limits::default() }, 65_535);
    let mut answered = 0;
    for stream in [1, 3, 5, 7, 9] {
        scene.send(&[request(stream, 0, "POST", "/topics/t", &[]), data(stream, flag::END_STREAM, b"one")]);
        answered += scene.seen().iter().filter(|line| line.ends_with("fields 200")).count();
    }
    assert!(answered < 5, "those beyond the rate wait");
    assert!(scene.metrics.total(|shard| shard.struck(Limit::MessageRate)) > 0);
    for _ in 0..10 {
        scene.clock.advance(Duration::from_secs(1));
        scene.rest();
        answered += scene.seen().iter().filter(|line| line.ends_with("fields 200")).count();
    }
    assert_eq!(answered, 5, "and are answered when it is their time");
}
