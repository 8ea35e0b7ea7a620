//! What is told of clients that come, talk and vanish at random: every connection's events tell a whole story.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::app::site::DemoSite;
use crate::app::standard_routes;
use crate::config::{Config, HookKinds, Limits, Pattern};
use crate::hooks::port::{self, ThreadEnd};
use crate::metrics::Metrics;
use crate::shard::{EntranceKind, Live, Shard, tests};
use crate::sim::{Client as Peer, ManualClock, Net, Random, SimBackend};

/// A shard that tells, and who hears it.
struct Scene {
    clock: ManualClock,
    shard: Shard<SimBackend>,
    metrics: Metrics,
    net: Net,
    told: ThreadEnd,
}

fn all() -> HookKinds {
    HookKind::ALL.into_iter().fold(HookKinds::NONE, HookKinds::with)
}

impl Scene {
    fn new(hooks: Hooks) -> Self {
        let kind = EntranceKind::Http { site: Arc::new(DemoSite), routes: true };
        let (mut shard, net, metrics) = tests::alone(kind, standard_routes(), Self::live(hooks));
        let (end, told) = port::pair(Arc::default());
        shard.join_hooks(end);
        Self { clock: ManualClock::new(), shard, metrics, net, told }
    }

    fn live(hooks: Hooks) -> Live {
        let limits = Limits { connections_max: 1000, ..Limits::default() };
        Live::of(&Config { limits, hooks, ..Config::default() })
    }

    fn rest(&mut self) {
        tests::rest(&mut self.shard, &self.clock);
    }

    fn connect(&mut self, request: &str) -> Peer {
        tests::connect(&self.net, &mut self.shard, &self.clock, request.as_bytes())
    }

    fn told(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.told.take()).collect()
    }

    fn kinds(&mut self) -> Vec<&'static str> {
        self.told().iter().map(|event| event.kind().name()).collect()
    }
}

fn websocket(topic: &str) -> String {
    format!(
        "GET /topics/{topic} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n")
}

fn post(topic: &str) -> String {
    format!("POST /topics/{topic} HTTP/1.1\r\nHost: sim\r\nContent-Length: 2\r\n\r\nhi")
}

/// The events of each connection, and those of each topic, in order.
type Stories = (BTreeMap<ConnId, Vec<Event>>, BTreeMap<String, Vec<HookKind>>);

fn stories(events: Vec<Event>) -> Stories {
    let (mut connections, mut topics) = Stories::default();
    for event in events {
        let id = match &event.what {
            What::Connected(client) | What::Disconnected(client, _) => client.id,
            What::Subscribed(client, ..) | What::Unsubscribed(client, ..) => client.id,
            What::Occupied(topic, _) | What::Vacated(topic, _) => {
                topics.entry(topic.as_str().to_owned()).or_insert_with(Vec::new).push(event.kind());
                continue;
            }
            What::Published(..) => continue,
        };
        connections.entry(id).or_insert_with(Vec::new).push(event);
    }
    (connections, topics)
}

#[test]
fn every_story_is_whole_however_clients_end() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut scene = Scene::new(Hooks { events: all(), ..Hooks::default() });
        let (mut clients, mut opened) = (Vec::new(), 0);
        for _ in 0..40 {
            let topic = ["a", "b", "c"][random.below(3)];
            match random.below(7) {
                0 | 1 => {
                    opened += 1;
                    clients.push(scene.connect(&websocket(topic)));
                }
                2 => {
                    opened += 1;
                    clients.push(scene.connect(&get("/topics/a,b", "Accept: text/event-stream\r\n")));
                }
                3 => clients.push(scene.connect(&get(&format!("/topics/{topic}?wait=30s"), ""))),
                4 => clients.push(scene.connect(&post(topic))),
                5 if !clients.is_empty() => clients.swap_remove(random.below(clients.len())).reset(),
                6 if !clients.is_empty() => clients.swap_remove(random.below(clients.len())).close(),
                _ => {}
            }
            scene.rest();
        }
        clients.into_iter().for_each(Peer::close);
        for _ in 0..30 {
            scene.clock.advance(std::time::Duration::from_secs(1));
            scene.rest();
        }
        let events = scene.told();
        assert!(scene.told.take_missed().is_empty());
        let published = events.iter().filter(|event| event.kind() == HookKind::Publish).count() as u64;
        assert_eq!(published, scene.metrics.total(|shard| shard.publications_total.get()), "seed {seed}");
        let (connections, topics) = stories(events);
        assert_eq!(connections.len(), opened, "seed {seed}");
        for (id, story) in connections {
            check(&story).unwrap_or_else(|why| panic!("seed {seed}, {id}: {why}: {story:#?}"));
        }
        for (topic, kinds) in topics {
            let turns = [HookKind::Occupied, HookKind::Vacated].into_iter().cycle().take(kinds.len());
            assert!(kinds.len() % 2 == 0 && turns.eq(kinds.iter().copied()), "seed {seed}, {topic}: {kinds:?}");
        }
    }
}

/// It comes, joins and leaves topics, leaves all of them, and goes.
fn check(story: &[Event]) -> Result<(), &'static str> {
    let (first, last) = (story.first().map(Event::kind), story.last().map(Event::kind));
    if (first, last) != (Some(HookKind::Connect), Some(HookKind::Disconnect)) {
        return Err("it does not begin with its coming and end with its going");
    }
    let mut topics = BTreeSet::new();
    for event in &story[1..story.len() - 1] {
        let is_well = match &event.what {
            What::Subscribed(_, topic, _) => topics.insert(topic.clone()),
            What::Unsubscribed(_, topic, _) => topics.remove(topic),
            _ => false,
        };
        if !is_well {
            return Err("something comes twice, or was not there");
        }
    }
    if topics.is_empty() { Ok(()) } else { Err("it is told to be in topics after its end") }
}

#[test]
fn a_reload_says_what_is_told_from_now_on() {
    let mut scene = Scene::new(Hooks { events: HookKinds::NONE, ..Hooks::default() });
    let first = scene.connect(&websocket("a"));
    assert_eq!(scene.kinds(), [""; 0]);
    let some = HookKinds::NONE.with(HookKind::Subscribe).with(HookKind::Disconnect).with(HookKind::Occupied);
    let hooks = Hooks { events: some, topics: vec![Pattern::parse("b").unwrap()], ..Hooks::default() };
    scene.shard.core.control.replace(Scene::live(hooks));
    let second = scene.connect(&websocket("a"));
    let third = scene.connect(&websocket("b"));
    assert_eq!(scene.kinds(), ["subscribe", "occupied"]);
    [first, second, third].into_iter().for_each(Peer::reset);
    scene.rest();
    let mut kinds = scene.kinds();
    kinds.sort_unstable();
    // Connections are of no topic; and whether a topic stays occupied is for the thread to tell.
    assert_eq!(kinds, ["disconnect", "disconnect", "disconnect", "vacated"]);
}

#[test]
fn a_message_that_comes_again_with_its_key_is_told_once() {
    let mut scene = Scene::new(Hooks { events: all(), ..Hooks::default() });
    let request = post("a").replace("Host", "Idempotency-Key: k\r\nHost");
    let _clients = [scene.connect(&request), scene.connect(&request)];
    assert_eq!(scene.kinds(), ["publish"]);
}
