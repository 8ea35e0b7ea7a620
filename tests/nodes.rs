//! Three nodes and a real nats-server, each on a machine of its own: nodes are killed, NATS hangs and ends, links are cut.
//! Whoever listens, on whichever node, hears each publisher's messages in their order, each one once, or is told that something
//! was missed.
//!
//! A machine is a network namespace, so these need root, `ip` and `nats-server` and say so where they are missing. There are 90
//! subscribers for each test and 300 for one; `HOLDLINE_NODES_SUBSCRIBERS=10000 cargo test --release --test nodes --
//! --test-threads 1 --nocapture` has as many for each. `HOLDLINE_NODES_LOG=1` shows what nodes log,
//! `HOLDLINE_NODES_PAUSE_MS=5` has each publisher publish as often.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

#[path = "common/nats.rs"]
mod nats;
#[path = "common/program.rs"]
mod program;
#[path = "common/wire.rs"]
#[allow(dead_code, reason = "these need a part of it")]
mod wire;

#[path = "nodes/fanout.rs"]
mod fanout;
#[path = "nodes/machines.rs"]
mod machines;
#[path = "nodes/publisher.rs"]
mod publisher;
#[path = "nodes/reader.rs"]
mod reader;
#[path = "nodes/scene.rs"]
mod scene;
#[path = "nodes/subscriber.rs"]
mod subscriber;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};

use machines::{Cut, Machines, NODES};
use publisher::Publisher;
use scene::{AWAY, Scene, Topic};
use subscriber::Subscriber;
use tokio::runtime;
use tokio::task::LocalSet;

/// What is shared.
const TOPICS: [Topic; 2] = [Topic { name: "room/1", is_durable: false }, Topic { name: "orders/1", is_durable: true }];
/// The plain ones.
const PLAIN: &[usize] = &[0];
const ALL: [usize; NODES] = [0, 1, 2];

/// Three machines and the clients of their nodes.
struct World {
    machines: Machines,
    scene: Arc<Scene>,
    clients: Option<JoinHandle<()>>,
}

impl World {
    /// With so many subscribers, unless the environment says how many. All hear all.
    fn start(lease: &str, subscribers: usize) -> Self {
        let told = std::env::var("HOLDLINE_NODES_SUBSCRIBERS").ok();
        let subscribers = told.map_or(subscribers, |told| told.parse().unwrap());
        let durable = TOPICS.iter().filter(|topic| topic.is_durable);
        let settings: String = durable.map(|topic| format!("[topics.{:?}]\ndurable = true\n", topic.name)).collect();
        let machines = Machines::start(lease, &settings);
        let doors = machines.nodes.iter().map(machines::Node::door).collect();
        let scene = Arc::new(Scene::new(doors, TOPICS, subscribers));
        let theirs = Arc::clone(&scene);
        let clients = thread::spawn(move || live(&theirs));
        let world = Self { machines, scene, clients: Some(clients) };
        world.scene.until("all have subscribed", || {
            let counts = world.machines.nodes.iter().map(|node| node.metric("subscriptions"));
            counts.sum::<u64>() == subscribers as u64
        });
        world.scene.order(|orders| orders.flows = true);
        world.scene.all_hear_all();
        // Who was there before a publisher begins hears it from its first message on.
        world.scene.order(|orders| orders.anew += 1);
        world.scene.all_hear_all();
        world
    }

    /// Some subscribers go to the next node, and all hear all.
    fn some_move(&self) {
        let scene = &self.scene;
        let moved = |one: &scene::Standing| one.moves.load(Relaxed);
        let before: Vec<_> = scene.subscribers.iter().map(moved).collect();
        scene.order(|orders| orders.moves += 1);
        let orders = *scene.orders.borrow();
        scene.until("some have moved", || {
            let mut all = scene.subscribers.iter().enumerate().zip(&before);
            all.all(|((number, one), before)| !orders.means(number) || moved(one) > *before)
        });
        scene.all_hear_all();
    }

    /// Waits until these nodes have a connection to NATS, or see that they have none.
    fn until_connected(&self, nodes: &[usize], is: bool) {
        for node in nodes {
            let what = format!("node {node} says {} of its connection", u8::from(is));
            let metric = || self.machines.nodes[*node].metric("cluster_connected");
            self.scene.until(&what, || metric() == u64::from(is));
        }
    }

    /// What is published on a node is heard there, whatever happens elsewhere.
    fn each_hears_its_own(&self, nodes: &[usize]) {
        nodes.iter().for_each(|node| self.scene.hear_each_other(&[*node], PLAIN));
    }

    /// How often each subscriber of a plain topic on these nodes was told that it has missed something, beside where it moved.
    fn told(&self, nodes: &[usize]) -> Vec<u32> {
        let is_plain = |number: usize| !TOPICS[self.scene.topic_of(number)].is_durable;
        let is_there = |one: &scene::Standing| nodes.contains(&one.at.load(Relaxed));
        let all = self.scene.subscribers.iter().enumerate();
        let plain = all.filter(|(number, one)| is_plain(*number) && is_there(one));
        plain.map(|(_, one)| one.resets.load(Relaxed) - one.moves.load(Relaxed)).collect()
    }

    /// Ends it, and looks through the books.
    fn end(mut self) -> Books {
        self.scene.all_hear_all();
        self.scene.order(|orders| orders.is_over = true);
        self.clients.take().unwrap().join().unwrap();
        self.scene.is_well();
        let (resets, moves) = self.scene.resets_and_moves(false);
        let books = Books {
            subscribers: self.scene.subscribers.len(),
            messages: self.scene.audit(),
            resets,
            moves,
            durable: self.scene.resets_and_moves(true),
        };
        println!("{}: {books}", thread::current().name().unwrap_or_default());
        books
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.scene.order(|orders| orders.is_over = true);
        self.clients.take().into_iter().for_each(|clients| drop(clients.join()));
    }
}

/// What came of it.
struct Books {
    subscribers: usize,
    /// Places of all topics; plain ones have theirs on each node.
    messages: usize,
    /// Of subscribers of plain topics.
    resets: u32,
    moves: u32,
    /// The same of durable ones.
    durable: (u32, u32),
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subscribers, messages, resets, moves, durable } = self;
        write!(f, "{subscribers} subscribers, {messages} places, plain: {moves} moves and {resets} resets")?;
        write!(f, ", durable: {} moves and {} resets", durable.1, durable.0)
    }
}

/// All clients.
fn live(scene: &Arc<Scene>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = LocalSet::new();
    let publishers =
        (0..scene.publishers.len()).map(|number| all.spawn_local(Publisher::new(scene.clone(), number).run()));
    let mut tasks: Vec<_> = publishers.collect();
    let subscribers = 0..scene.subscribers.len();
    tasks.extend(subscribers.map(|number| all.spawn_local(Subscriber::new(scene.clone(), number).run())));
    all.block_on(&runtime, async {
        for task in tasks {
            if let Err(error) = task.await {
                scene.fault(format!("a client: {error}"));
            }
        }
    });
}

#[test]
fn nothing_is_lost_or_doubled_and_only_who_moves_is_told_of_it() {
    let world = World::start("30s", 300);
    world.some_move();
    // NATS sleeps, which nobody notices: what is published on a node is heard there, and elsewhere when it wakes.
    world.machines.nats.signal("-STOP");
    world.each_hears_its_own(&ALL);
    world.machines.nats.signal("-CONT");
    world.scene.all_hear_all();
    world.some_move();
    let books = world.end();
    assert_eq!(books.resets, books.moves, "{books}");
}

#[test]
fn clients_of_a_node_that_is_killed_go_on_elsewhere() {
    let mut world = World::start("30s", 90);
    for node in [1, 2] {
        world.machines.nodes[node].kill();
        world.scene.until("its clients are elsewhere", || {
            let mut all = world.scene.subscribers.iter().chain(&world.scene.publishers);
            all.all(|one| ![node, AWAY].contains(&one.at.load(Relaxed)))
        });
        world.scene.all_hear_all();
        world.machines.nodes[node].start_again();
        world.until_connected(&[node], true);
        world.some_move();
        world.scene.order(|orders| orders.anew += 1);
        world.some_move();
    }
    let books = world.end();
    assert_eq!(books.resets, books.moves, "{books}");
}

#[test]
fn nats_that_hangs_or_ends_is_no_end() {
    let mut world = World::start("1s", 90);
    world.machines.nats.signal("-STOP");
    world.until_connected(&ALL, false);
    world.each_hears_its_own(&ALL);
    world.machines.nats.signal("-CONT");
    world.until_connected(&ALL, true);
    world.scene.all_hear_all();
    world.some_move();
    assert!(world.told(&ALL).iter().all(|times| *times > 0), "something was missed everywhere");

    // One that is killed may have acknowledged what it had not written yet, which is told by a reset.
    world.machines.nats.end();
    world.until_connected(&ALL, false);
    world.each_hears_its_own(&ALL);
    world.machines.nats.start_again();
    world.until_connected(&ALL, true);
    world.scene.all_hear_all();
    world.some_move();
    world.end();
}

#[test]
fn a_link_that_goes_down_parts_one_node_for_a_while() {
    a_link_is_cut(2, Cut::Down);
}

#[test]
fn a_link_that_loses_everything_parts_one_node_for_a_while() {
    a_link_is_cut(0, Cut::Silent);
}

fn a_link_is_cut(node: usize, how: Cut) {
    let world = World::start("1s", 90);
    let others: Vec<_> = ALL.into_iter().filter(|other| *other != node).collect();
    world.machines.cut(node, how);
    world.until_connected(&[node], false);
    world.each_hears_its_own(&[node]);
    world.scene.hear_each_other(&others, &[0, 1]);
    assert!(world.told(&others).iter().all(|times| *times == 0), "they have missed nothing that was said");
    world.machines.mend(node, how);
    world.until_connected(&[node], true);
    world.scene.all_hear_all();
    assert!(world.told(&[node]).iter().all(|times| *times > 0), "something was missed there");
    world.some_move();
    world.end();
}
