//! Memory of idle connections.

use std::sync::atomic::{AtomicUsize, Ordering};

use holdline::access::Key;
use holdline::app::standard_routes;
use holdline::config::{BackendChoice, Config};

use super::counting::Watch;
use crate::common::{self, Client, Running, backends, config, listen, until};

/// User memory of one idle connection with one subscription and its heartbeat on.
const BUDGET_BYTES: i64 = 128;
/// What we aim at.
const AIM_BYTES: i64 = 96;
/// What one that has shown a token of its own, for three patterns, holds beyond one that need not.
const GRANT_BUDGET_BYTES: i64 = 200;
/// The same of a stream of server-sent events.
const STREAM_BUDGET_BYTES: i64 = 256;

const CONNECTIONS: usize = 4000;

/// How often a crowd may have come at once.
const TRIES: usize = 3;

/// What the shard of a server with room for so many connections holds when they are all there.
fn held_by(watch: &Watch, mut config: Config, connections: usize, connect: &dyn Fn(&Running) -> Client) -> i64 {
    let before = watch.live_bytes();
    config.listeners.push(listen("tcp://127.0.0.1:0?app=topic&topic=news"));
    config.limits.connections_max = connections;
    let running = Running::start(&config, standard_routes());
    let clients: Vec<Client> = (0..connections).map(|_| connect(&running)).collect();
    until("all are members", || running.count(|shard| shard.subscriptions.get()) == connections as u64);
    let held = watch.live_bytes() - before;
    drop(clients);
    held
}

/// What each idle connection holds.
fn idle_bytes(watch: &Watch, backend: BackendChoice, what: &str, connect: &dyn Fn(&Running) -> Client) -> i64 {
    idle_bytes_with(watch, &config(backend, 1), what, connect)
}

/// The same with such a configuration.
fn idle_bytes_with(watch: &Watch, config: &Config, what: &str, connect: &dyn Fn(&Running) -> Client) -> i64 {
    let backend = config.backend;
    // What a server has anyway is in both.
    let one = held_by(watch, config.clone(), 1, connect);
    let all = held_by(watch, config.clone(), CONNECTIONS, connect);
    let each = (all - one) / (CONNECTIONS as i64 - 1);
    println!("{}, {what}: {each} bytes for each idle connection, {one} for a server with one", backend.name());
    each
}

fn assert_idle_is_cheap(what: &str, connect: &dyn Fn(&Running) -> Client) {
    let watch = Watch::new();
    for backend in backends() {
        // A list that many were on at once keeps its room, some 20 KiB: which has to do with how they came, not with how many
        // there are.
        let mut tries = (0..TRIES).map(|_| idle_bytes(&watch, backend, what, connect));
        let each = tries.find(|&each| each <= AIM_BYTES).unwrap_or_else(|| idle_bytes(&watch, backend, what, connect));
        assert!(each <= BUDGET_BYTES, "{}, {what}: {each} bytes", backend.name());
        assert!(
            each <= AIM_BYTES,
            "{}, {what}: {each} bytes are within the budget, but not within the aim",
            backend.name()
        );
    }
}

#[test]
fn an_idle_websocket_is_cheap() {
    assert_idle_is_cheap("WebSocket", &|running| running.websocket("/topics/news"));
}

#[test]
fn an_idle_tcp_connection_is_cheap() {
    assert_idle_is_cheap("TCP", &|running| running.connect(1));
}

#[test]
fn an_idle_stream_of_events_is_cheap() {
    let watch = Watch::new();
    let connect = |running: &Running| {
        let mut client = running.connect(0);
        client.send_raw(b"GET /topics/news HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
        client
    };
    for backend in backends() {
        let each = idle_bytes(&watch, backend, "events", &connect);
        assert!(each <= STREAM_BUDGET_BYTES, "{}: {each} bytes", backend.name());
    }
}

/// A token of a user of its own, who may read `news` and what is below it.
fn token(secret: &[u8], user: usize) -> String {
    let topics = format!(r#"{{"subscribe":["news","news/*"],"publish":["news/{user}"]}}"#);
    common::token(secret, &format!(r#"{{"sub":"user-{user}","exp":4000000000,"holdline":{topics}}}"#))
}

#[test]
fn an_idle_websocket_that_has_shown_a_token_is_little_dearer() {
    const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
    let watch = Watch::new();
    for backend in backends() {
        let mut guarded = config(backend, 1);
        guarded.access.secret = Some(Key::secret(SECRET).unwrap());
        let user = AtomicUsize::new(0);
        let connect = |running: &Running| {
            let token = token(SECRET, user.fetch_add(1, Ordering::Relaxed));
            Client::connect(running.at[0]).upgraded("/topics/news", &format!("Authorization: Bearer {token}\r\n"))
        };
        let plain = idle_bytes(&watch, backend, "without a token", &|running| running.websocket("/topics/news"));
        let shown = idle_bytes_with(&watch, &guarded, "with a token of its own", &connect);
        println!("{}: a token's grant takes {} bytes", backend.name(), shown - plain);
        assert!(shown - plain <= GRANT_BUDGET_BYTES, "{}: {} bytes", backend.name(), shown - plain);
    }
}

/// Joins a crowd to a topic, hands them a message, and has all of them leave at once. Returns what the shard holds then.
fn after_a_crowd(watch: &Watch, running: &Running, members: usize) -> i64 {
    let mut publisher = running.websocket("/topics/news?echo=0");
    let mut crowd: Vec<Client> = (0..members).map(|_| running.websocket("/topics/news")).collect();
    publisher.send_text("news");
    crowd.iter_mut().for_each(|member| assert_eq!(member.text(), "news"));
    drop((crowd, publisher));
    until("all have left", || running.connections() == 0);
    watch.live_bytes()
}

#[test]
fn a_crowd_that_has_left_leaves_nothing() {
    let watch = Watch::new();
    for backend in backends() {
        let mut config = config(backend, 1);
        config.limits.connections_max = CONNECTIONS + 1;
        let running = Running::start(&config, standard_routes());
        let few = after_a_crowd(&watch, &running, 64);
        let many: Vec<i64> = (0..6).map(|_| after_a_crowd(&watch, &running, CONNECTIONS)).collect();
        println!("{}: {few} bytes after a few, {many:?} after crowds of {CONNECTIONS}", backend.name());
        // Lists of connections keep room for 4096, 32 KiB. How long each has been is chance.
        let lists = 6 * 4096 * 8;
        let most = many.iter().max().unwrap();
        assert!(most - few <= lists, "{}: {many:?}, {few} before", backend.name());
    }
}
