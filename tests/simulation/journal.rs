//! The journal's end of a scene's shards, played by the test: what is on the disk, and when a shard hears of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use holdline::config::{Config, History, Limits, Pattern, TopicSection};
use holdline::hub::topics::{Left, Legacy};
use holdline::journal::port::{self, Append, JournalEnd, Verdict};
use holdline::mailbox::Doorbell;
use holdline::message::{Cursor, Epoch, Message, Topic};
use holdline::shard::Live;
use holdline::sim::{self, Net};

use super::scene::Scene;

/// A message and its key.
pub(super) type Record = (Message, Option<Arc<str>>);

/// What a shard has given to the journal and heard nothing of.
pub(super) struct Way {
    end: JournalEnd,
    pub(super) generation: u32,
    pub(super) appends: VecDeque<Record>,
    /// Topics that are not needed up to here.
    pub(super) forgotten: Vec<(String, Cursor)>,
}

/// The journal of a scene.
pub(super) struct Journal {
    pub(super) ways: Vec<Way>,
    /// What is safe.
    pub(super) disk: Vec<Record>,
}

/// What a server with durable topics, whose names begin with `t`, has of its configuration.
pub(super) fn config(durable: bool) -> Config {
    let history = History { messages_max: 100_000, bytes_max: 1 << 30, ..History::default() };
    let limits = Limits { connections_max: 100, history, ..Limits::default() };
    let section = TopicSection::new(Pattern::parse("t*").unwrap());
    Config { limits, topics: vec![TopicSection { durable: Some(durable), ..section }], ..Config::default() }
}

/// A scene whose topics are durable that begin with `t`.
pub(super) fn scene(shards: u16, seed: u64) -> (Scene, Journal) {
    let mut scene = Scene::with(shards, Live::of(&config(true)), Net::new(seed, sim::Config::default()));
    let ways = scene.doorbells.clone().into_iter().zip(&mut scene.shards).map(|(doorbell, shard)| {
        let (here, end) = port::pair(doorbell, Arc::new(Doorbell::new()));
        shard.join_journal(here);
        Way { end, generation: 0, appends: VecDeque::new(), forgotten: Vec::new() }
    });
    let ways = ways.collect();
    (scene, Journal { ways, disk: Vec::new() })
}

impl Way {
    /// Takes what the shard has given. What is of another generation than the present one is nothing.
    pub(super) fn take(&mut self) -> usize {
        while let Some(append) = self.end.appends.try_recv() {
            match append {
                Append::Message { generation, message, key, first_kept } => {
                    assert!(first_kept <= message.offset && first_kept.0 > 0, "{first_kept:?} {message:?}");
                    if generation == self.generation {
                        self.appends.push_back((message, key));
                    }
                }
                Append::Forget(topic, cursor) => self.forgotten.push((topic.as_str().to_owned(), cursor)),
            }
        }
        self.appends.len()
    }

    fn say(&mut self, verdict: Verdict) {
        self.end.verdicts.push(verdict);
        self.end.verdicts.flush();
    }

    /// Says that so many are safe.
    pub(super) fn tell_committed(&mut self, count: usize) {
        self.say(Verdict::Committed { generation: self.generation, count: u32::try_from(count).unwrap() });
    }

    /// Nothing that is on its way gets to the disk.
    pub(super) fn fail(&mut self) {
        self.take();
        self.appends.clear();
        self.say(Verdict::Failed { generation: self.generation });
        self.generation += 1;
    }

    pub(super) fn works(&mut self) {
        self.say(Verdict::Working);
    }
}

impl Journal {
    /// Writes the next so many appends of a shard, and says nothing of it.
    pub(super) fn write(&mut self, shard: usize, most: usize) -> usize {
        let way = &mut self.ways[shard];
        let count = way.take().min(most);
        self.disk.extend(way.appends.drain(..count));
        count
    }

    /// Writes all that a shard has given, and says so.
    pub(super) fn commit(&mut self, shard: usize) -> usize {
        let count = self.write(shard, usize::MAX);
        self.ways[shard].tell_committed(count);
        count
    }

    /// The disk's messages of a topic in their order: offset and text.
    pub(super) fn of(&self, topic: &str) -> Vec<(u64, String)> {
        let of_topic = self.disk.iter().filter(|(message, _)| message.topic.as_str() == topic);
        of_topic
            .map(|(message, _)| (message.offset.0, String::from_utf8_lossy(message.payload()).into_owned()))
            .collect()
    }

    /// What a server begins with that finds this disk.
    pub(super) fn replay(&self) -> (Epoch, Vec<Legacy>) {
        let mut legacies: Vec<Legacy> = Vec::new();
        for (message, key) in &self.disk {
            let left = Left { message: message.clone(), age_ms: 0, key: key.clone() };
            let topic: &Topic = &message.topic;
            let place = legacies.iter().position(|legacy| legacy.topic == *topic).unwrap_or_else(|| {
                legacies.push(Legacy { topic: topic.clone(), cursor: message.cursor(), messages: Vec::new() });
                legacies.len() - 1
            });
            legacies[place].cursor = message.cursor();
            legacies[place].messages.push(left);
        }
        (legacies.iter().map(|legacy| legacy.cursor.epoch).max().unwrap_or_default(), legacies)
    }
}

/// Begins with what is on a disk.
pub(super) fn recover(scene: &mut Scene, (epoch, legacies): (Epoch, Vec<Legacy>)) {
    let shards = u16::try_from(scene.shards.len()).unwrap();
    for (number, shard) in (0..).zip(&mut scene.shards) {
        let own = legacies.iter().filter(|legacy| legacy.topic.owner(shards).0 == number).cloned();
        assert_eq!(shard.recover(epoch, own, &scene.clock), 0);
    }
}

/// Lets the shards turn and commits, until nobody waits.
pub(super) fn settle(scene: &mut Scene, journal: &mut Journal) {
    for _ in 0..20 {
        scene.rest();
        let committed: usize = (0..journal.ways.len()).map(|shard| journal.commit(shard)).sum();
        if committed == 0 {
            return scene.rest();
        }
    }
    panic!("it does not end");
}

/// A while in which nothing is committed.
pub(super) fn pause(scene: &mut Scene) {
    scene.rest();
    scene.clock.advance(Duration::from_millis(10));
    scene.rest();
}
