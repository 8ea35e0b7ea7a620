#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::app::site::DemoSite;
use crate::app::{Context, Handler, Offers, Refusal, Request, standard_routes};
use crate::codec::http1::response::Reply;
use crate::codec::websocket::client::write_frame;
use crate::codec::websocket::deflate::Deflater;
use crate::codec::websocket::frame::Opcode;
use crate::message::Kind;
use crate::metrics::Metrics;
use crate::session::http::UpgradePolicy;
use crate::shard::answers::WaitsFor;
use crate::shard::{EntranceKind, Live, tests};
use crate::sim::{Client, ManualClock, SimBackend};

const GET: &[u8] = b"GET /demo.css HTTP/1.1\r\nHost: sim\r\n\r\n";

/// A handler that offers polls and subscribes to nothing.
#[derive(Clone)]
struct Mute;

impl Handler for Mute {
    type State = ();

    fn open(&mut self, _: &mut (), _: &Request<'_>, _: &mut Context<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn offers(&self) -> Offers {
        Offers { polls: true, ..Offers::default() }
    }

    fn message(&mut self, _: &mut (), _: Kind, _: &[u8], _: &mut Context<'_>) {}
}

/// A shard on a simulated network, with one client whose first request has been answered.
struct Scene {
    clock: ManualClock,
    shard: Shard<SimBackend>,
    metrics: Metrics,
    client: Client,
    id: ConnId,
}

impl Scene {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self::of(Live { limits: Arc::new(limits), ..Live::default() })
    }

    fn of(live: Live) -> Self {
        let limits = Arc::new(Limits { connections_max: 10, ..(*live.limits).clone() });
        let kind = EntranceKind::Http { site: Arc::new(DemoSite), routes: true };
        let router = standard_routes().route("/mute", Mute);
        let (mut shard, net, metrics) = tests::alone(kind, router, Live { limits, ..live });
        let clock = ManualClock::new();
        let mut client = tests::connect(&net, &mut shard, &clock, GET);
        assert_eq!(statuses(&client.read()), ["200"]);
        let id = shard.core.table.iter().next().unwrap().0;
        Self { clock, shard, metrics, client, id }
    }

    /// One whose client waits for an answer that comes later.
    fn waiting(keep_alive: bool) -> Self {
        Self::new().into_waiting(keep_alive)
    }

    fn into_waiting(self, keep_alive: bool) -> Self {
        let mut scene = self;
        let reply = Reply { keep_alive, origin: Some(b"https://app.example"), ..Reply::last(Date::from_unix(0)) };
        scene.shard.core.wait(scene.id, Later::of(reply));
        let connection = scene.shard.core.table.get_mut(scene.id).unwrap();
        connection.extra.get_or_insert_default().waiting().waits_for = WaitsFor::One;
        scene
    }

    fn rest(&mut self) {
        tests::rest(&mut self.shard, &self.clock);
    }

    fn send(&mut self, bytes: &[u8]) {
        assert_eq!(self.client.write(bytes), bytes.len());
        self.rest();
    }

    fn answer(&mut self) {
        self.shard.core.respond(self.id, 200, "text/plain", b"later", &[]);
        self.rest();
    }

    /// One whose client asks for a topic's next message.
    fn polling() -> Self {
        let mut scene = Self::new();
        scene.send(b"GET /topics/t?wait=60s HTTP/1.1\r\nHost: sim\r\n\r\n");
        assert_eq!(statuses(&scene.client.read()), [""; 0]);
        scene
    }

    fn drain(&mut self, period: Duration) {
        self.shard.core.control.drain(period);
        self.rest();
    }

    fn connections(&self) -> u64 {
        self.metrics.total(|shard| shard.connections.get())
    }
}

/// The statuses of some answers, and `later` for a body that came later.
fn statuses(answers: &[u8]) -> Vec<&str> {
    let text = str::from_utf8(answers).unwrap();
    let heads = text.split("HTTP/1.1 ").skip(1);
    heads.flat_map(|head| [Some(&head[..3]), head.ends_with("later").then_some("later")]).flatten().collect()
}

#[test]
fn what_comes_before_the_answer_is_looked_at_after_it() {
    let mut scene = Scene::waiting(true);
    scene.send(GET);
    scene.send(&GET[..10]);
    assert_eq!(statuses(&scene.client.read()), [""; 0]);
    scene.answer();
    let answers = scene.client.read();
    assert_eq!(statuses(&answers), ["200", "later", "200"]);
    assert!(str::from_utf8(&answers).unwrap().contains("Access-Control-Allow-Origin: https://app.example\r\n"));
    scene.send(&GET[10..]);
    assert_eq!(statuses(&scene.client.read()), ["200"]);
}

#[test]
fn a_client_that_sends_nothing_meanwhile_goes_on_as_well() {
    let mut scene = Scene::waiting(true);
    scene.rest();
    scene.answer();
    assert_eq!(statuses(&scene.client.read()), ["200", "later"]);
    scene.answer();
    assert_eq!(statuses(&scene.client.read()), [""; 0], "nobody waits for it");
    scene.send(GET);
    assert_eq!(statuses(&scene.client.read()), ["200"]);
}

#[test]
fn the_last_answer_of_a_connection_may_come_later_too() {
    let mut scene = Scene::waiting(false);
    scene.send(GET);
    scene.answer();
    assert_eq!(statuses(&scene.client.read()), ["200", "later"]);
    scene.client.shutdown_write();
    scene.rest();
    assert_eq!(scene.connections(), 0);
}

#[test]
fn a_client_that_has_said_all_gets_its_answer() {
    let mut scene = Scene::waiting(true);
    scene.client.shutdown_write();
    scene.rest();
    assert_eq!(scene.connections(), 1);
    scene.answer();
    assert_eq!(statuses(&scene.client.read()), ["200", "later"]);
    assert_eq!(scene.connections(), 0);
}

#[test]
fn an_answer_that_does_not_come_is_given_up() {
    let mut scene = Scene::waiting(true);
    scene.send(GET);
    scene.clock.advance(Core::ANSWER_TIME - Duration::from_secs(1));
    scene.rest();
    assert_eq!(statuses(&scene.client.read()), [""; 0]);
    scene.clock.advance(Duration::from_secs(2));
    scene.rest();
    assert_eq!(statuses(&scene.client.read()), ["503"]);
    scene.answer();
    assert_eq!(statuses(&scene.client.read()), [""; 0], "it is too late");
}

#[test]
fn an_answer_for_nobody_is_none() {
    let mut scene = Scene::waiting(true);
    let client = std::mem::replace(&mut scene.client, Scene::new().client);
    client.reset();
    scene.rest();
    assert_eq!(scene.connections(), 0);
    scene.answer();
    assert_eq!(scene.connections(), 0);
}

#[test]
fn who_waits_is_not_idle() {
    let limits = Limits { idle_timeout: Duration::from_secs(1), ..Limits::default() };
    let mut scene = Scene::with(limits).into_waiting(true);
    scene.clock.advance(Duration::from_secs(3));
    scene.rest();
    scene.answer();
    assert_eq!(statuses(&scene.client.read()), ["200", "later"]);
    scene.clock.advance(Duration::from_secs(3));
    scene.rest();
    scene.send(GET);
    assert_eq!(statuses(&scene.client.read()), ["200"]);
}

#[test]
fn a_poll_that_waits_is_told_to_come_again_in_a_drain() {
    let mut scene = Scene::polling();
    scene.drain(Duration::from_secs(2));
    scene.clock.advance(Duration::from_secs(3));
    scene.rest();
    let answer = scene.client.read();
    assert_eq!(statuses(&answer), ["200"]);
    let answer = str::from_utf8(&answer).unwrap();
    assert!(answer.contains("Retry-After: ") && answer.contains("Holdline-Cursor: "), "{answer}");
    scene.client.shutdown_write();
    scene.rest();
    assert_eq!(scene.connections(), 0);
}

#[test]
fn a_request_that_another_shard_answers_gets_its_answer_in_a_drain() {
    let mut scene = Scene::waiting(true);
    scene.drain(Duration::ZERO);
    scene.clock.advance(Duration::from_secs(1));
    scene.rest();
    assert_eq!(statuses(&scene.client.read()), [""; 0]);
    scene.answer();
    assert_eq!(statuses(&scene.client.read()), ["200", "later"]);
}

#[test]
fn what_cannot_be_read_says_how_it_can_be_asked_for() {
    let events = "Accept: text/event-stream\r\n";
    let many = (0..=Limits::default().subscriptions_max).map(|topic| topic.to_string()).collect::<Vec<_>>().join(",");
    for (path, fields, expected) in [
        ("/topics", "", ["HTTP/1.1 405 ", "Allow: POST, OPTIONS\r\n"]),
        ("/topics/t", "", ["HTTP/1.1 426 ", "?wait=30s"]),
        ("/chat/t", "", ["HTTP/1.1 426 ", "?stream=1\""]),
        ("/topics/t?stream=1&since=x", "", ["HTTP/1.1 400 ", "since is EPOCH:OFFSET, two numbers"]),
        ("/topics/a,b?stream=1&since=1:2", "", ["HTTP/1.1 400 ", "each of the 2 topics"]),
        (&format!("/topics/{many}"), events, ["HTTP/1.1 400 ", "at most 128 topics"]),
        (&format!("/topics/{many}?stream=1"), "", ["HTTP/1.1 400 ", "too_many_topics"]),
        (&format!("/topics/{many}?wait=1s"), "", ["HTTP/1.1 400 ", "too_many_topics"]),
    ] {
        let mut scene = Scene::new();
        scene.send(format!("GET {path} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n").as_bytes());
        let answer = scene.client.read();
        let answer = str::from_utf8(&answer).unwrap();
        assert!(expected.iter().all(|part| answer.contains(part)), "{path}: {answer}");
    }
}

#[test]
fn a_poll_that_waits_for_nothing_ends_in_its_time() {
    let mut scene = Scene::new();
    scene.client.write(b"GET /mute?wait=1s HTTP/1.1\r\nHost: sim\r\n\r\n");
    tests::rest(&mut scene.shard, &scene.clock);
    assert_eq!(scene.client.read(), b"");
    scene.clock.advance(Duration::from_millis(1200));
    tests::rest(&mut scene.shard, &scene.clock);
    assert!(scene.client.read().ends_with(b"[]\n"));
}

/// Compressed messages may be a thousand times what came: what one client has sent at once must not be the turn of all.
#[test]
fn what_was_compressed_is_looked_at_in_many_turns() {
    let policy = UpgradePolicy { deflate: true, ..UpgradePolicy::default() };
    let mut scene = Scene::of(Live { policy, ..Live::default() });
    scene.send(
        b"GET /echo HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
          Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    );
    assert_eq!(statuses(&scene.client.read()), ["101"]);
    let (mut payload, mut message) = (Vec::new(), Vec::new());
    Deflater::default().compress(&[0; 64 * 1024], 15, &mut payload).unwrap();
    write_frame(Opcode::Binary, &payload, [7; 4], &mut message);
    message[0] |= 0x40;
    let received = |scene: &Scene| scene.metrics.total(|shard| shard.messages_received_total.get());
    assert_eq!(scene.client.write(&message.repeat(100)), message.len() * 100);
    scene.shard.turn(&scene.clock).unwrap();
    assert!((1..=3).contains(&received(&scene)), "{} messages in a turn", received(&scene));
    (0..10).for_each(|_| scene.rest());
    assert_eq!(received(&scene), 100, "and all in the end");
    let answers = scene.client.read();
    assert_eq!(answers, answers[..answers.len() / 100].repeat(100));
    assert_eq!(answers[0], 0xc2);
}
