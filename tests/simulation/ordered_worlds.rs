//! Worlds of three nodes and a stream in which much goes wrong: answers that are lost or late, messages that come twice or never,
//! nodes that go and come back, streams that are deleted. `SIMULATION_STREAMS=N` plays so many.

use std::collections::BTreeMap;
use std::time::Duration;

use holdline::config::Config;
use holdline::sim::{Client, Peer, Random};

use super::ordered::{Reader, follow, place, post, text};
use super::scene::WEB;
use super::streams::{Node, Streams, config};

/// One who publishes with requests, one after the other, and asks again where it was refused.
struct Poster {
    client: Option<(Client, String)>,
    /// What it says, and whether with a key.
    text: String,
    keyed: bool,
    number: u32,
    acked: BTreeMap<(u64, u64), String>,
}

impl Poster {
    fn new(name: usize) -> Self {
        Self { client: None, text: format!("{name}."), keyed: false, number: 0, acked: BTreeMap::new() }
    }

    fn go_on(&mut self, node: &mut Node, shard: usize, topic: &str, random: &mut Random) -> Result<(), String> {
        let Some((client, answer)) = &mut self.client else {
            let name = self.text.split_once('.').unwrap().0.to_owned();
            self.number += 1;
            (self.text, self.keyed) = (format!("{name}.{}", self.number), random.one_in(2));
            self.send(node, shard, topic);
            return Ok(());
        };
        answer.push_str(&text(client));
        if client.peer() != Peer::Open || answer.contains(" 503 ") {
            self.client = None;
            // Without a key nobody knows whether it has a place.
            if self.keyed {
                self.send(node, shard, topic);
            }
        } else if answer.ends_with("}\n") {
            if !answer.starts_with("HTTP/1.1 200 ") {
                return Err(answer.clone());
            }
            let place = place(answer);
            if let Some(before) = self.acked.insert(place, self.text.clone()) {
                return Err(format!("{place:?} is both {before} and {}", self.text));
            }
            self.client = None;
        }
        Ok(())
    }

    fn send(&mut self, node: &mut Node, shard: usize, topic: &str) {
        let key = if self.keyed { self.text.as_str() } else { "" };
        self.client = Some((node.scene.connect(shard, WEB, &post(topic, key, &self.text)), String::new()));
    }
}

struct World {
    nodes: Vec<Node>,
    streams: Streams,
    readers: Vec<Reader>,
    posters: Vec<Poster>,
    random: Random,
}

impl World {
    const SHARDS: [u16; 3] = [2, 1, 2];

    fn new(seed: u64) -> Self {
        let mut nodes: Vec<Node> =
            (1..).zip(Self::SHARDS).map(|(number, shards)| Node::new(number, shards, &Self::config())).collect();
        let readers = (0..6).map(|number| Reader::new(&mut nodes[number % 3], 0, "t", None)).collect();
        let posters = (0..4).map(Poster::new).collect();
        Self { nodes, streams: Streams::default(), readers, posters, random: Random::new(seed) }
    }

    /// Few messages are kept, so that who is late loses some.
    fn config() -> Config {
        let mut config = config();
        config.limits.history.messages_max = 8;
        config
    }

    fn somewhere(&mut self) -> (usize, usize) {
        let node = self.random.below(3);
        (node, self.random.below(usize::from(Self::SHARDS[node])))
    }

    fn act(&mut self) -> Result<(), String> {
        let (node, shard) = self.somewhere();
        match self.random.below(24) {
            0 if self.nodes[node].is_away => self.nodes[node].connect(),
            0 => self.nodes[node].part(),
            1 if self.random.one_in(3) => self.streams.delete("t"),
            2 | 3 => {
                // It comes back to any node.
                let number = self.random.below(self.readers.len());
                let (at, resets) = (self.readers[number].at, self.readers[number].resets);
                self.readers[number] = Reader::new(&mut self.nodes[node], shard, "t", at);
                self.readers[number].resets = resets;
            }
            4 => self.nodes[node].scene.pass(300),
            5 => {
                // As much as is kept changes, and nothing else.
                let mut config = Self::config();
                config.limits.history.messages_max -= self.random.below(4);
                follow(&mut self.nodes[node], &config);
            }
            _ => {
                let number = self.random.below(self.posters.len());
                self.posters[number].go_on(&mut self.nodes[node], shard, "t", &mut self.random)?;
            }
        }
        if self.random.one_in(2) {
            let Self { nodes, streams, random, .. } = self;
            streams.step(nodes, &mut Some(random), 3);
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), String> {
        for (number, reader) in self.readers.iter_mut().enumerate() {
            reader.check("t", &self.streams).map_err(|fault| format!("reader {number}: {fault}"))?;
        }
        Ok(())
    }

    /// All meet again, everybody hears the end of the stream, and all of it is given back.
    fn end(mut self) -> Result<usize, String> {
        self.nodes.iter_mut().filter(|node| node.is_away).for_each(Node::connect);
        self.streams.settle(&mut self.nodes);
        for _ in 0..4 {
            for number in 0..self.posters.len() {
                self.posters[number].go_on(&mut self.nodes[0], 0, "t", &mut self.random)?;
            }
            self.streams.settle(&mut self.nodes);
        }
        self.check()?;
        for (place, said) in self.posters.iter().flat_map(|poster| &poster.acked) {
            let is = self.streams.text("t", place.0, place.1);
            if is.as_ref() != Some(said) {
                return Err(format!("{place:?} is {is:?}, {said} was acknowledged there"));
            }
        }
        let stream = self.streams.now.get("t");
        let end = Some(stream.map_or((0, 0), |stream| (stream.epoch, stream.last())));
        if let Some(reader) = self.readers.iter().find(|reader| reader.at != end) {
            return Err(format!("a reader is at {:?}, not at {end:?}: {}", reader.at, reader.text));
        }
        let resets = self.readers.iter().map(|reader| reader.resets).sum();
        (self.readers, self.posters) = (Vec::new(), Vec::new());
        for node in &mut self.nodes {
            node.scene.pass(500);
            node.scene.clock.advance(Duration::from_secs(1000));
            node.scene.rest();
            node.take();
            let left = node.scene.metrics.total(|shard| shard.topics_owned.get() + shard.cluster_waiting.get());
            if left + node.followed() as u64 > 0 {
                return Err(format!("node {:?} has {left} left, and {} follows", node.id, node.followed()));
            }
            node.scene.audit();
        }
        Ok(resets)
    }
}

#[test]
fn every_member_hears_the_stream_or_is_told() {
    let seeds = std::env::var("SIMULATION_STREAMS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    let mut resets = 0;
    for seed in 0..seeds {
        let mut world = World::new(seed);
        let played = (0..60).try_for_each(|_| world.act()).and_then(|()| world.end());
        resets += played.unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    }
    assert!(resets > 100, "worlds in which nothing goes wrong show nothing: {resets}");
}
