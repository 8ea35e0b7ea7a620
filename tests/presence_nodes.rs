//! Who is in a topic, over real servers that share it through a real nats-server.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;
#[path = "common/nats.rs"]
mod nats;
#[path = "common/program.rs"]
mod program;

use std::io::Read;
use std::net::SocketAddr;

use serde_json::{Value, json};

use common::{Client, until};
use nats::Nats;
use program::{Program, Scratch};

/// A server of the cluster, and its settings.
struct Node {
    program: Program,
    settings: Scratch,
}

impl Node {
    fn start(nats: &Nats, name: &str, lease: &str) -> Self {
        let text = format!(
            "[cluster]\nnats = [\"{}\"]\nname = \"{name}\"\nlease = \"{lease}\"\n[topics]\npresence = \"members\"\n\
             [topics.\"hall/*\"]\npresence = \"count\"\n[topics.\"quiet/*\"]\npresence = \"off\"\n\
             [topics.\"kept/*\"]\ndurable = true\n[topics.\"own/*\"]\nshared = false\n",
            nats.url
        );
        let settings = Scratch::with(&format!("{name}-{}.toml", nats.pid()), &text);
        Self { program: serve(&settings), settings }
    }

    /// Kills it, and starts it again.
    fn begin_anew(&mut self) {
        self.program = serve(&self.settings);
    }

    fn address(&self) -> SocketAddr {
        self.program.address(0).parse().unwrap()
    }

    fn websocket(&self, path: &str) -> Client {
        Client::websocket(self.address(), path)
    }

    fn ask(&self, listener: usize, path: &str) -> String {
        let mut client = Client::connect(self.program.address(listener).parse().unwrap());
        client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
        let mut answer = String::new();
        client.stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// How many others it knows of.
    fn others(&self) -> u64 {
        let metrics = self.ask(1, "/metrics");
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("holdline_cluster_nodes "))
            .unwrap_or_else(|| panic!("{metrics}"));
        line.parse().unwrap()
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.ask(0, path);
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1)
            .unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// The ids on a topic's list, with a number where a member has more connections than one.
    fn members(&self, topic: &str) -> Vec<String> {
        let id = |one: &Value| match one["connections"].as_u64().unwrap() {
            1 => one["id"].as_str().unwrap().to_owned(),
            more => format!("{}*{more}", one["id"].as_str().unwrap()),
        };
        let list = self.get(&format!("/topics/{topic}/presence"));
        assert_eq!(list["count"], json!(list["members"].as_array().unwrap().len()));
        list["members"].as_array().unwrap().iter().map(id).collect()
    }

    fn has(&self, topic: &str, expected: &[&str]) {
        until(&format!("{expected:?} are in {topic}"), || self.members(topic) == expected);
    }
}

fn serve(settings: &Scratch) -> Program {
    let arguments = ["--config", settings.path(), "--admin", "127.0.0.1:0", "--shards", "2", "--drain", "1s"];
    Program::serve(&["http://127.0.0.1:0"], &arguments)
}

/// One who watches a topic, and what it knows of its members.
struct Watcher {
    client: Client,
    known: Vec<String>,
    count: u64,
}

impl Watcher {
    fn new(node: &Node, path: &str) -> Self {
        Self { client: node.websocket(path), known: Vec::new(), count: 0 }
    }

    fn step(&mut self) {
        let event = serde_json::from_str::<Value>(&self.client.text()).unwrap()["presence"].take();
        if event.is_null() {
            // Of messages: some may have been missed.
            return;
        }
        let ids = |name: &str| -> Vec<String> {
            let all = event.get(name).and_then(Value::as_array).into_iter().flatten();
            all.map(|one| one["id"].as_str().unwrap().to_owned()).collect()
        };
        if event.get("members").is_some() {
            self.known = ids("members");
        }
        for left in ids("left") {
            let place = self.known.iter().position(|id| *id == left);
            self.known.remove(place.unwrap_or_else(|| panic!("{left} was not there: {event}")));
        }
        for joined in ids("joined") {
            assert!(!self.known.contains(&joined), "{joined} is there: {event}");
            self.known.push(joined);
        }
        self.known.sort();
        self.count = event["count"].as_u64().unwrap();
    }

    fn knows(&mut self, expected: &[&str]) {
        while self.known != expected {
            self.step();
        }
        assert_eq!(self.count, expected.len() as u64);
    }

    fn counts(&mut self, expected: u64) {
        while self.count != expected {
            self.step();
        }
    }
}

#[test]
fn members_of_all_nodes_are_in_one_room() {
    let nats = Nats::start();
    let [a, b, c] = ["a", "b", "c"].map(|name| Node::start(&nats, name, "10s"));
    // A plain topic, and one that has a stream.
    for room in ["room/1", "kept/1"] {
        let member = |node: &Node, id: &str| node.websocket(&format!("/topics/{room}?member={id}"));
        let mut watcher = Watcher::new(&b, &format!("/topics/{room}?presence=1&member=eve"));
        watcher.knows(&["eve"]);
        let here = [1, 2].map(|_| member(&a, "ann"));
        let there = member(&c, "ann");
        watcher.knows(&["ann", "eve"]);
        for node in [&a, &b, &c] {
            node.has(room, &["ann*3", "eve"]);
        }
        assert_eq!(b.get(&format!("/topics/{room}/presence?limit=1"))["next"], json!("member:ann"));
        // It is there as long as it is anywhere.
        drop(here);
        for node in [&a, &b, &c] {
            node.has(room, &["ann", "eve"]);
        }
        assert_eq!(watcher.known, ["ann", "eve"]);
        let zoe = member(&a, "zoe");
        drop(there);
        watcher.knows(&["eve", "zoe"]);
        drop(zoe);
        watcher.knows(&["eve"]);
    }
    // Who asks where nobody is, and who comes later, learns it too.
    let _held = a.websocket("/topics/room/2?member=zoe");
    c.has("room/2", &["zoe"]);
    let mut late = Watcher::new(&b, "/topics/room/2?presence=1&member=late");
    late.knows(&["late", "zoe"]);

    // Numbers of subscriptions, and nothing where nothing is kept.
    let halls = [&a, &a, &b].map(|node| node.websocket("/topics/hall/1"));
    let mut counter = Watcher::new(&c, "/topics/hall/1?presence=1");
    counter.counts(4);
    until("all count them", || a.get("/topics/hall/1/presence")["count"] == json!(4));
    drop(halls);
    counter.counts(1);
    assert_eq!(a.get("/topics/quiet/1/presence")["error"]["code"], json!("presence_off"));

    // Topics that are each node's own.
    let _own = [a.websocket("/topics/own/1?member=ann"), b.websocket("/topics/own/1?member=ben")];
    a.has("own/1", &["ann"]);
    b.has("own/1", &["ben"]);
    c.has("own/1", &[]);
}

#[test]
fn members_of_a_node_that_is_killed_leave_and_no_ghost_stays() {
    let nats = Nats::start();
    let [mut a, b] = ["killed", "stays"].map(|name| Node::start(&nats, name, "1s"));
    let mut watcher = Watcher::new(&b, "/topics/room/1?presence=1&member=eve");
    let ann = a.websocket("/topics/room/1?member=ann");
    let hall = a.websocket("/topics/hall/1");
    watcher.knows(&["ann", "eve"]);
    let mut counter = Watcher::new(&b, "/topics/hall/1?presence=1");
    counter.counts(2);
    until("they know of each other", || (a.others(), b.others()) == (1, 1));
    a.program.signal("-KILL");
    watcher.knows(&["eve"]);
    counter.counts(1);
    assert_eq!(b.others(), 0, "they left because it was not heard of");
    b.has("room/1", &["eve"]);
    drop((ann, hall));
    a.begin_anew();
    let _back = [a.websocket("/topics/room/1?member=ann"), a.websocket("/topics/room/1?member=ben")];
    watcher.knows(&["ann", "ben", "eve"]);
    for node in [&a, &b] {
        node.has("room/1", &["ann", "ben", "eve"]);
    }
    // One that is stopped is gone too, and comes back.
    a.program.signal("-STOP");
    watcher.knows(&["eve"]);
    a.program.signal("-CONT");
    watcher.knows(&["ann", "ben", "eve"]);
    for node in [&a, &b] {
        node.has("room/1", &["ann", "ben", "eve"]);
    }
}

#[test]
fn a_node_that_ends_well_is_gone_at_once() {
    let nats = Nats::start();
    // Nobody waits so long.
    let [a, b] = ["ends", "goes-on"].map(|name| Node::start(&nats, name, "1h"));
    let mut watcher = Watcher::new(&b, "/topics/room/1?presence=1&member=eve");
    let _ann = a.websocket("/topics/room/1?member=ann");
    watcher.knows(&["ann", "eve"]);
    a.program.signal("-TERM");
    watcher.knows(&["eve"]);
    a.program.ends_well();
    b.has("room/1", &["eve"]);
}

#[test]
fn a_nats_that_goes_and_comes_back_leaves_all_knowing_the_truth() {
    let mut nats = Nats::start();
    let [a, b] = ["left", "right"].map(|name| Node::start(&nats, name, "1s"));
    let mut watcher = Watcher::new(&b, "/topics/room/1?presence=1&member=eve");
    let ann = a.websocket("/topics/room/1?member=ann");
    let _zoe = a.websocket("/topics/room/1?member=zoe");
    watcher.knows(&["ann", "eve", "zoe"]);
    nats.stop();
    // Each knows its own.
    watcher.knows(&["eve"]);
    a.has("room/1", &["ann", "zoe"]);
    drop(ann);
    let _ben = a.websocket("/topics/room/1?member=ben");
    nats.start_again();
    watcher.knows(&["ben", "eve", "zoe"]);
    for node in [&a, &b] {
        node.has("room/1", &["ben", "eve", "zoe"]);
    }
}
