//! What clients of all nodes share, and the books of what they were told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::machines::{Door, NODES};
use super::program::PATIENCE;
use super::reader::Place;

/// Of each node. They take turns with the topics.
pub const PUBLISHERS: usize = 4;
/// Nowhere.
pub const AWAY: usize = usize::MAX;

/// What is published to and heard.
#[derive(Clone, Copy, Debug)]
pub struct Topic {
    pub name: &'static str,
    pub is_durable: bool,
}

/// What a publisher says: who it was at that time, and which one of that one's messages it is, from 1.
///
/// A publisher of a plain topic is another one with each new connection: what it was told before may be gone with its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Saying {
    pub who: u32,
    pub number: u32,
}

impl Saying {
    pub const fn bits(self) -> u64 {
        (self.who as u64) << 32 | self.number as u64
    }

    pub fn text(self) -> String {
        format!("{} {}", self.who, self.number)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (who, number) = text.split_once(' ')?;
        Some(Self { who: who.parse().ok()?, number: number.parse().ok()? })
    }
}

/// What all are told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    pub is_over: bool,
    /// Publishers publish.
    pub flows: bool,
    /// Publishers begin anew with each change, each on its own node.
    pub anew: u64,
    /// With each change some subscribers go to the next node.
    pub moves: usize,
}

impl Orders {
    /// One subscriber of five, of all topics, nodes and ways to listen: with each change others.
    pub const fn means(self, subscriber: usize) -> bool {
        (subscriber / 18 + self.moves).is_multiple_of(5)
    }
}

pub struct Scene {
    pub doors: Vec<Door>,
    pub topics: [Topic; 2],
    pub orders: watch::Sender<Orders>,
    pub subscribers: Vec<Standing>,
    pub publishers: Vec<Standing>,
    pub pause: Duration,
    is_failed: AtomicBool,
    faults: Mutex<Vec<String>>,
    /// Which publisher each `who` is.
    who: Mutex<Vec<usize>>,
    record: Mutex<Record>,
}

/// How a client is doing.
pub struct Standing {
    /// The node that it is connected to.
    pub at: AtomicUsize,
    /// Of a publisher, the last message that was acknowledged; of a subscriber, the last that it heard from each publisher.
    pub last: Vec<AtomicU64>,
    /// Times that it has come back.
    pub moves: AtomicU32,
    pub resets: AtomicU32,
}

impl Standing {
    fn new(lasts: usize) -> Self {
        Self {
            at: AWAY.into(),
            last: (0..lasts).map(|_| AtomicU64::new(0)).collect(),
            moves: 0.into(),
            resets: 0.into(),
        }
    }
}

/// What stands where, by what anybody was told.
#[derive(Default)]
struct Record([BTreeMap<Place, Saying>; 2]);

impl Scene {
    pub fn new(doors: Vec<Door>, topics: [Topic; 2], subscribers: usize) -> Self {
        let publishers = NODES * PUBLISHERS;
        // A machine that tests share with others delivers so many a second.
        let deliveries = subscribers / topics.len() * publishers;
        let told = std::env::var("HOLDLINE_NODES_PAUSE_MS").ok().map(|told| told.parse().unwrap());
        let pause = told.map_or((deliveries as f64 / 20_000.0).max(0.1), |told: f64| told / 1000.0);
        let pause = Duration::from_secs_f64(pause);
        Self {
            doors,
            topics,
            orders: watch::Sender::new(Orders::default()),
            subscribers: (0..subscribers).map(|_| Standing::new(publishers)).collect(),
            publishers: (0..publishers).map(|_| Standing::new(1)).collect(),
            pause,
            is_failed: AtomicBool::new(false),
            faults: Mutex::default(),
            who: Mutex::default(),
            record: Mutex::default(),
        }
    }

    pub const fn topic_of(&self, number: usize) -> usize {
        number % self.topics.len()
    }

    /// Something that must not be. The test fails as soon as it looks.
    pub fn fault(&self, what: String) {
        self.is_failed.store(true, Relaxed);
        self.faults.lock().unwrap().push(what);
    }

    /// Looks until it is so.
    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            self.is_well();
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_well(&self) {
        if self.is_failed.load(Relaxed) {
            // Others may follow at once.
            thread::sleep(Duration::from_millis(100));
            let faults = self.faults.lock().unwrap();
            panic!("{} faults, the first of them:\n{}", faults.len(), faults[..faults.len().min(10)].join("\n"));
        }
    }

    pub fn order(&self, change: impl FnOnce(&mut Orders)) {
        self.orders.send_modify(change);
    }

    /// A publisher is somebody else from now on.
    pub fn become_another(&self, publisher: usize) -> u32 {
        let mut who = self.who.lock().unwrap();
        who.push(publisher);
        u32::try_from(who.len() - 1).unwrap()
    }

    /// How many there have been so far.
    pub fn born(&self) -> u32 {
        u32::try_from(self.who.lock().unwrap().len()).unwrap()
    }

    pub fn publisher_of(&self, who: u32) -> Option<usize> {
        self.who.lock().unwrap().get(who as usize).copied()
    }

    /// Somebody was told that this stands there.
    pub fn stands(&self, topic: usize, place: Place, saying: Saying) -> Result<(), String> {
        match self.record.lock().unwrap().0[topic].insert(place, saying) {
            Some(other) if other != saying => {
                Err(format!("{saying:?} stands at {place:?}, where others saw {other:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Waits until the subscribers of these nodes have heard what the publishers of these nodes say now, or after that.
    pub fn hear_each_other(&self, nodes: &[usize], topics: &[usize]) {
        let is_there = |standing: &Standing| nodes.contains(&standing.at.load(Relaxed));
        let speaks =
            |&(number, standing): &(usize, &Standing)| topics.contains(&self.topic_of(number)) && is_there(standing);
        let speakers: Vec<_> = self.publishers.iter().enumerate().filter(speaks).collect();
        assert!(!speakers.is_empty(), "nobody publishes on {nodes:?}");
        // Not what was said before this.
        let marks: Vec<(usize, u64)> =
            speakers.iter().map(|(number, one)| (*number, one.last[0].load(Relaxed) + 1)).collect();
        for (number, subscriber) in self.subscribers.iter().enumerate() {
            let topic = self.topic_of(number);
            if !topics.contains(&topic) || !is_there(subscriber) {
                continue;
            }
            for (publisher, mark) in marks.iter().filter(|(publisher, _)| self.topic_of(*publisher) == topic) {
                let what = format!("subscriber {number} hears publisher {publisher}");
                self.until(&what, || subscriber.last[*publisher].load(Relaxed) >= *mark);
            }
        }
    }

    /// The same of all, when all are somewhere.
    pub fn all_hear_all(&self) {
        let is_somewhere = |standing: &Standing| standing.at.load(Relaxed) != AWAY;
        self.until("all are connected", || self.subscribers.iter().chain(&self.publishers).all(is_somewhere));
        self.hear_each_other(&[0, 1, 2], &[0, 1]);
    }

    /// Resets and moves of all subscribers of topics of one kind.
    pub fn resets_and_moves(&self, is_durable: bool) -> (u32, u32) {
        let fits = |&(number, _): &(usize, &Standing)| self.topics[self.topic_of(number)].is_durable == is_durable;
        let all = self.subscribers.iter().enumerate().filter(fits);
        let counts = all.map(|(_, one)| (one.resets.load(Relaxed), one.moves.load(Relaxed)));
        counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// Looks through all that anybody was told. Returns how many messages there were.
    pub fn audit(&self) -> usize {
        let record = self.record.lock().unwrap();
        for (topic, places) in self.topics.iter().zip(&record.0) {
            let mut last: HashMap<(u64, u32), u32> = HashMap::new();
            for (&(epoch, offset), saying) in places {
                let before = last.insert((epoch, saying.who), saying.number);
                assert!(
                    before < Some(saying.number),
                    "{}: {saying:?} at {epoch}:{offset} after {before:?}",
                    topic.name
                );
                if topic.is_durable {
                    let follows = saying.number == before.unwrap_or(0) + 1;
                    assert!(follows, "{}: {saying:?} at {offset} after {before:?}: one is lost", topic.name);
                }
            }
            if topic.is_durable {
                let epochs: Vec<_> = places.keys().map(|place| place.0).collect();
                assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{}: one epoch", topic.name);
                assert!(places.keys().map(|place| place.1).eq(1..=places.len() as u64), "{}: no gap", topic.name);
            }
        }
        record.0.iter().map(BTreeMap::len).sum()
    }
}
