//! Memory of idle connections.

use holdline::app::standard_routes;
use holdline::config::BackendChoice;

use super::counting::Watch;
use crate::common::{Client, Running, backends, config, listen, until};

/// User memory of one idle connection with one subscription and its heartbeat on.
const BUDGET_BYTES: i64 = 128;
/// What we aim at.
const AIM_BYTES: i64 = 96;
/// The same of a stream of server-sent events.
const STREAM_BUDGET_BYTES: i64 = 256;

const CONNECTIONS: usize = 4000;

/// What the shard of a server with room for so many connections holds when they are all there.
fn held_by(watch: &Watch, backend: BackendChoice, connections: usize, connect: &dyn Fn(&Running) -> Client) -> i64 {
    let before = watch.live_bytes();
    let mut config = config(backend, 1);
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
    // What a server has anyway is in both.
    let one = held_by(watch, backend, 1, connect);
    let all = held_by(watch, backend, CONNECTIONS, connect);
    let each = (all - one) / (CONNECTIONS as i64 - 1);
    println!("{}, {what}: {each} bytes for each idle connection, {one} for a server with one", backend.name());
    each
}

fn assert_idle_is_cheap(what: &str, connect: &dyn Fn(&Running) -> Client) {
    let watch = Watch::new();
    for backend in backends() {
        let each = idle_bytes(&watch, backend, what, connect);
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
