//! Plain topics of several nodes: what is published on one is heard on all, and who misses something is told.

use std::collections::{BTreeMap, HashSet};

use holdline::cluster::port::{Follow, Inbound, NodeId, Outbound, Said, ThreadEnd};
use holdline::config::Limits;
use holdline::message::{Message, Topic};
use holdline::shard::Live;
use holdline::sim::{self, Client, Net};

use super::scene::{LINES, Scene, WEB, topic_of, upgrade};

/// A server, and the cluster's end of each of its shards, which the test plays.
struct Node {
    id: NodeId,
    scene: Scene,
    ends: Vec<ThreadEnd>,
    /// What is followed, by topic: the shard and the name of it.
    follows: BTreeMap<String, (usize, Follow)>,
    /// Follows that have ended.
    ended: HashSet<(usize, Follow)>,
    is_away: bool,
    heard: usize,
}

/// What one node says to the others.
type News = (Topic, Said, Option<Message>);

impl Node {
    fn new(number: u64, shards: u16) -> Self {
        let live = Live::new(Limits { connections_max: 100, ..Limits::default() });
        let mut scene = Scene::with(shards, live, Net::new(number, sim::Config::default()));
        let id = NodeId(number);
        let ends = scene.join_cluster(id);
        let mut node =
            Self { id, scene, ends, follows: BTreeMap::new(), ended: HashSet::new(), is_away: true, heard: 0 };
        node.connect();
        node
    }

    fn tell(&mut self, shard: usize, what: Inbound) {
        self.ends[shard].inbound.push(what);
        self.ends[shard].inbound.flush();
    }

    /// There is a connection to the others again.
    fn connect(&mut self) {
        self.is_away = false;
        (0..self.ends.len()).for_each(|shard| self.tell(shard, Inbound::Connected { payload_max: 1000 }));
        for (shard, follow) in self.follows.values().copied().collect::<Vec<_>>() {
            self.tell(shard, Inbound::Lost(follow, None));
        }
    }

    fn part(&mut self) {
        self.is_away = true;
        (0..self.ends.len()).for_each(|shard| self.tell(shard, Inbound::Away));
    }

    /// Takes what the shards say. What is said without a connection is lost.
    fn take(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for shard in 0..self.ends.len() {
            while let Some(outbound) = self.ends[shard].outbound.try_recv() {
                match outbound {
                    Outbound::Follow { follow, topic, .. } => {
                        let before = self.follows.insert(topic.as_str().to_owned(), (shard, follow));
                        assert!(before.is_none() && !self.ended.contains(&(shard, follow)), "{topic} twice");
                        self.tell(shard, Inbound::Following(follow));
                    }
                    Outbound::Unfollow(follow) => {
                        self.follows.retain(|_, one| *one != (shard, follow));
                        assert!(self.ended.insert((shard, follow)), "{follow:?} ended twice");
                    }
                    Outbound::Say(message, said) => news.push((message.topic.clone(), said, Some(message))),
                    Outbound::SaidSoFar(topic, said) => news.push((topic, said, None)),
                    other => panic!("nobody has that yet: {other:?}"),
                }
            }
        }
        if self.is_away { Vec::new() } else { news }
    }

    fn hear(&mut self, node: NodeId, (topic, said, message): &News) {
        let Some(&(shard, follow)) = self.follows.get(topic.as_str()).filter(|_| !self.is_away) else { return };
        self.heard += 1;
        // Only what it says goes from node to node.
        let message = message.as_ref().map(|one| Message::new(topic.clone(), one.kind(), one.payload(), None));
        self.tell(shard, Inbound::Heard { follow, node, said: *said, message });
    }

    /// A WebSocket of lines with their places.
    fn reader(&mut self, shard: usize, topic: &str) -> Reader {
        let client = self.scene.connect(shard, WEB, &upgrade(&format!("/topics/{topic}?format=json")));
        Reader { client, text: String::new() }
    }
}

struct Reader {
    client: Client,
    text: String,
}

impl Reader {
    /// All that it has heard: `epoch:offset text`, or `reset`.
    fn heard(&mut self) -> Vec<String> {
        self.text.push_str(&String::from_utf8_lossy(&self.client.read()));
        let number = |part: &str, name: &str| -> u64 {
            let (_, rest) = part.split_once(name).unwrap();
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
        };
        let parts = self.text.split("{\"topic\":").skip(1);
        let told = parts.map(|part| {
            let place = format!("{}:{}", number(part, "\"epoch\":"), number(part, "\"offset\":"));
            match part.split_once("\"text\":\"") {
                Some((_, rest)) => format!("{place} {}", rest.split('"').next().unwrap()),
                None => format!("{place} reset"),
            }
        });
        told.collect()
    }

    fn texts(&mut self) -> Vec<String> {
        self.heard().into_iter().map(|one| one.split_once(' ').unwrap().1.to_owned()).collect()
    }
}

/// All nodes turn and hear each other, until nobody says anything. `keeps` says what is not lost.
fn settle(nodes: &mut [Node], mut keeps: impl FnMut() -> bool) {
    for _ in 0..20 {
        nodes.iter_mut().for_each(|node| node.scene.rest());
        let news: Vec<(NodeId, News)> = nodes
            .iter_mut()
            .flat_map(|node| node.take().into_iter().map(|one| (node.id, one)).collect::<Vec<_>>())
            .collect();
        if news.is_empty() {
            break;
        }
        for (origin, one) in &news {
            for node in nodes.iter_mut().filter(|node| node.id != *origin) {
                if keeps() {
                    node.hear(*origin, one);
                }
            }
        }
    }
    nodes.iter_mut().for_each(|node| node.scene.rest());
    nodes.iter().for_each(|node| node.scene.audit());
}

fn say(node: &mut Node, publisher: &mut Client, text: &str) {
    let line = format!("{text}\n");
    assert_eq!(publisher.write(line.as_bytes()), line.len());
    node.scene.rest();
}

#[test]
fn what_is_published_on_one_node_is_heard_on_all_and_not_said_again() {
    for shards in [1, 2] {
        let mut nodes = [Node::new(1, shards), Node::new(2, shards), Node::new(3, shards)];
        let topic = topic_of(0, shards, 0);
        let mut readers = [0, 1].map(|node| nodes[node].reader(usize::from(shards) - 1, &topic));
        let mut publisher = nodes[0].scene.connect(0, LINES, &format!("{topic} echo=0\n"));
        settle(&mut nodes, || true);
        for text in ["a", "b"] {
            say(&mut nodes[0], &mut publisher, text);
        }
        assert_eq!(readers[0].texts(), ["a", "b"], "at once here");
        settle(&mut nodes, || true);
        assert_eq!(readers.each_mut().map(Reader::texts), [["a", "b"], ["a", "b"]]);
        assert_ne!(readers[0].heard()[0], readers[1].heard()[0], "their pasts are two");
        assert_eq!(nodes.each_ref().map(|node| node.heard), [0, 2, 0], "who holds nothing hears nothing");
        let head = format!("POST /topics/{topic} HTTP/1.1\r\nHost: sim\r\nContent-Length: 1001\r\n\r\n");
        let mut large = nodes[0].scene.connect(0, WEB, &(head + &"x".repeat(1001)));
        settle(&mut nodes, || true);
        let answer = String::from_utf8_lossy(&large.read()).into_owned();
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("max_payload"), "{answer}");
    }
}

#[test]
fn who_was_away_is_told_and_so_are_those_who_were_not_told() {
    let mut nodes = [Node::new(1, 2), Node::new(2, 2)];
    let topic = topic_of(1, 2, 0);
    let mut readers = [0, 1].map(|node| nodes[node].reader(0, &topic));
    let mut publishers = [0, 1].map(|node| nodes[node].scene.connect(1, LINES, &format!("{topic} echo=0\n")));
    settle(&mut nodes, || true);
    say(&mut nodes[0], &mut publishers[0], "before");
    settle(&mut nodes, || true);
    nodes[0].part();
    nodes[0].scene.rest();
    say(&mut nodes[0], &mut publishers[0], "here");
    say(&mut nodes[1], &mut publishers[1], "there");
    settle(&mut nodes, || true);
    assert_eq!(readers[0].texts(), ["before", "here"]);
    assert_eq!(readers[1].texts(), ["before", "there"]);
    nodes[0].connect();
    settle(&mut nodes, || true);
    say(&mut nodes[1], &mut publishers[1], "after");
    settle(&mut nodes, || true);
    assert_eq!(readers[0].texts(), ["before", "here", "reset", "after"]);
    assert_eq!(readers[1].texts(), ["before", "there", "reset", "after"]);
}

#[test]
fn every_protocol_is_told() {
    let mut nodes = [Node::new(1, 2)];
    let topic = topic_of(0, 2, 0);
    let get = |how: &str, fields: &str| format!("GET /topics/{topic}{how} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n");
    let events = get("", "Accept: text/event-stream\r\n");
    let firsts = [
        (LINES, format!("{topic}\n")),
        (WEB, upgrade(&format!("/topics/{topic}"))),
        (WEB, events),
        (WEB, get("?wait=5", "")),
    ];
    let mut clients: Vec<Client> = Vec::new();
    for shard in [0, 1] {
        clients.extend(firsts.iter().map(|(listener, first)| nodes[0].scene.connect(shard, *listener, first)));
    }
    settle(&mut nodes, || true);
    nodes[0].connect();
    settle(&mut nodes, || true);
    for (number, client) in clients.iter_mut().enumerate() {
        let text = String::from_utf8_lossy(&client.read()).into_owned();
        assert!(text.contains("\"reset\":true}"), "{number}: {text}");
        assert_eq!(text.contains("event: reset\ndata: "), number % 4 == 2, "{number}: {text}");
    }
}

/// Random publications on three nodes, connections that go and come, and messages that get lost. Whoever hears a node's message
/// that is not its next one has been told before; after that nothing is missed.
#[test]
fn nobody_misses_anything_without_being_told() {
    for seed in 0..100_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = move |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 33) % bound
        };
        let mut nodes = [Node::new(1, 2), Node::new(2, 1), Node::new(3, 2)];
        let mut readers: Vec<Reader> = nodes.iter_mut().map(|node| node.reader(0, "t")).collect();
        let mut publishers: Vec<Client> =
            nodes.iter_mut().map(|node| node.scene.connect(0, LINES, "t echo=0\n")).collect();
        settle(&mut nodes, || true);
        let mut numbers = [1_u64; 3];
        for place in 0..3 {
            say(&mut nodes[place], &mut publishers[place], &format!("{place}.1"));
        }
        settle(&mut nodes, || true);
        for _ in 0..30 {
            let place = usize::try_from(below(3)).unwrap();
            match below(8) {
                0 if nodes[place].is_away => nodes[place].connect(),
                0 => nodes[place].part(),
                _ => {
                    numbers[place] += 1;
                    let text = format!("{place}.{}", numbers[place]);
                    say(&mut nodes[place], &mut publishers[place], &text);
                }
            }
            if below(2) == 0 {
                let is_bad = below(4) == 0;
                settle(&mut nodes, || !is_bad || below(4) > 0);
            }
        }
        // All meet again, and each says one more.
        nodes.iter_mut().filter(|node| node.is_away).for_each(Node::connect);
        settle(&mut nodes, || true);
        for place in 0..3 {
            numbers[place] += 1;
            say(&mut nodes[place], &mut publishers[place], &format!("{place}.{}", numbers[place]));
        }
        settle(&mut nodes, || true);
        for (number, reader) in readers.iter_mut().enumerate() {
            check(seed, number, &reader.heard(), numbers);
        }
    }
}

fn check(seed: u64, reader: usize, heard: &[String], numbers: [u64; 3]) {
    let mut last = [0_u64; 3];
    let (mut was_reset, mut before) = ([false; 3], (0, 0));
    for one in heard {
        let (place, text) = one.split_once(' ').unwrap();
        let (epoch, offset) = place.split_once(':').unwrap();
        let place: (u64, u64) = (epoch.parse().unwrap(), offset.parse().unwrap());
        assert!(before == (0, 0) || place.1 == before.1 + 1, "seed {seed}, reader {reader}: {heard:?}");
        assert_eq!(
            text == "reset" && before != (0, 0),
            before != (0, 0) && place.0 != before.0,
            "seed {seed}: {heard:?}"
        );
        before = place;
        let Some((node, number)) = text.split_once('.') else {
            was_reset = [true; 3];
            continue;
        };
        let (node, number): (usize, u64) = (node.parse().unwrap(), number.parse().unwrap());
        let is_next = number == last[node] + 1;
        assert!(is_next || (number > last[node] && was_reset[node]), "seed {seed}, reader {reader}: {heard:?}");
        (last[node], was_reset[node]) = (number, false);
    }
    assert_eq!(last, numbers, "seed {seed}, reader {reader}: all have heard the last ones");
}
