//! Those who read and publish over many connections: readers who resume, queue groups' workers, and publishers who are told
//! what became of their messages. And what must be true of all of them together.

use super::intruder::{Harm, Intruder};
use super::ledger::{Ledger, Memory};
use super::peer::{Peer, Surroundings};
use super::plan::Role;
use super::poster::{Errand, Poster, Way};
use super::reader::{Habit, Reader};
use super::streams::Transport;
use super::wire::{Format, Id};
use crate::config::History;
use crate::sim::Random;

/// Topics that are read.
const TOPICS: [u8; 3] = [0, 1, 2];

/// Who comes, and how much is remembered for them.
#[derive(Debug)]
pub(super) struct Sketches {
    pub(super) habits: Vec<Habit>,
    pub(super) errands: Vec<Errand>,
    /// Harm, when it begins, and whether who does it reads.
    pub(super) harms: Vec<(Harm, usize, bool)>,
    pub(super) memory: Memory,
}

impl Sketches {
    pub(super) fn new(random: &mut Random, steps: usize, crowded: bool) -> (Self, History) {
        let all = usize::try_from(Memory::ALL).unwrap_or(usize::MAX);
        let messages_max = match random.below(10) {
            0..=3 => all,
            4..=7 => random.within(1, 8),
            _ => 0,
        };
        let mut history = History { messages_max, bytes_max: 64 << 20, bytes_total_max: 1 << 30, ..History::default() };
        let narrow = random.chance(120);
        if narrow {
            history.bytes_max = random.within(200, 4000);
            history.bytes_total_max = random.within(1000, 20_000);
            history.age_max = std::time::Duration::from_millis(random.within(100, 3000) as u64);
        }
        let memory = Memory { messages: messages_max as u64, loose: narrow || crowded };
        let readers = if random.chance(300) { 0 } else { random.within(1, 6) };
        let workers = if random.chance(600) { 0 } else { random.within(1, 5) };
        let posters = if random.chance(400) { 0 } else { random.within(1, 3) };
        let topic = TOPICS[random.below(TOPICS.len())];
        let mut habits: Vec<_> = (0..readers).map(|_| Habit::reader(random, steps)).collect();
        habits.extend((0..workers).map(|_| Habit::worker(topic, random, steps)));
        let errands = (0..posters).map(|_| Errand::new(random, steps)).collect();
        let harms = if random.chance(850) { 0 } else { random.within(1, 2) };
        let harm = |_| (Harm::draw(random), begin(random, steps), random.chance(150));
        let harms = (0..harms).map(harm).collect();
        (Self { habits, errands, harms, memory }, history)
    }
}

fn begin(random: &mut Random, steps: usize) -> usize {
    if random.chance(500) { 0 } else { random.below(steps) }
}

/// Whether what is asked for in this way is asked for over HTTP/2.
fn carried(transport: Transport, random: &mut Random) -> bool {
    match transport {
        Transport::Calls => true,
        Transport::Events | Transport::Lines | Transport::Polls => random.chance(500),
        Transport::Json | Transport::Bare | Transport::Raw(_) => false,
    }
}

impl Habit {
    fn reader(random: &mut Random, steps: usize) -> Self {
        let transports = [
            Transport::Json,
            Transport::Events,
            Transport::Events,
            Transport::Lines,
            Transport::Polls,
            Transport::Calls,
            Transport::Calls,
        ];
        let transport = transports[random.below(transports.len())];
        let mut topics = TOPICS.to_vec();
        topics.rotate_left(random.below(TOPICS.len()));
        topics.truncate(if transport == Transport::Json { 1 } else { random.within(1, 3) });
        Self {
            transport,
            http2: carried(transport, random),
            topics,
            works: false,
            history: if random.chance(300) { random.within(1, 5) } else { 0 },
            start: begin(random, steps),
            unruly: if random.chance(300) { 0 } else { u16::try_from(random.within(5, 100)).unwrap_or(5) },
            slow: random.chance(200).then_some(250),
        }
    }

    fn worker(topic: u8, random: &mut Random, steps: usize) -> Self {
        let transports = [
            Transport::Bare,
            Transport::Json,
            Transport::Events,
            Transport::Lines,
            Transport::Polls,
            Transport::Calls,
            Transport::Raw(Format::Line),
            Transport::Raw(Format::Length),
        ];
        let transport = transports[random.below(transports.len())];
        Self {
            transport,
            http2: carried(transport, random),
            topics: vec![topic],
            works: true,
            history: 0,
            start: begin(random, steps),
            unruly: if random.chance(700) { 0 } else { u16::try_from(random.within(5, 50)).unwrap_or(5) },
            slow: random.chance(200).then_some(250),
        }
    }
}

impl Errand {
    fn new(random: &mut Random, steps: usize) -> Self {
        Self {
            way: [Way::Plain, Way::Http2, Way::Once, Way::Calls][random.below(4)],
            start: begin(random, steps),
            messages: u32::try_from(random.below(30)).unwrap_or(0),
            unruly: if random.chance(400) { 0 } else { 30 },
        }
    }
}

/// What is known of the only queue group.
#[derive(Debug, Default)]
struct Group {
    /// What each peer had sent when it was certain that the group was known: all that follows goes to a member.
    floor: Option<Vec<u32>>,
    /// Somebody went, and what was on the way to it is lost.
    lost: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) readers: Vec<Reader>,
    pub(super) posters: Vec<Poster>,
    intruders: Vec<Intruder>,
    ledger: Ledger,
    group: Group,
    /// Readers who were there before the last words, by their place, and how often they had missed something until then.
    listeners: Vec<(usize, u64)>,
}

fn sent(peers: &[Peer]) -> Vec<u32> {
    peers.iter().map(|peer| peer.sent).collect()
}

impl Crowd {
    pub(super) fn new(sketches: &Sketches) -> Self {
        let number = |habit: (u32, &Habit)| Reader::new(habit.0, habit.1.clone());
        Self {
            readers: (0..).zip(&sketches.habits).map(number).collect(),
            posters: (Poster::FIRST..).zip(&sketches.errands).map(|(number, one)| Poster::new(number, *one)).collect(),
            intruders: sketches.harms.iter().map(|(harm, start, blind)| Intruder::new(*harm, *start, *blind)).collect(),
            ledger: Ledger::new(sketches.memory),
            group: Group::default(),
            listeners: Vec::new(),
        }
    }

    /// One round of all.
    pub(super) fn poll(
        &mut self,
        step: usize,
        stays: bool,
        chance: u16,
        peers: &[Peer],
        around: &mut Surroundings<'_>,
    ) -> Result<(), String> {
        for reader in &mut self.readers {
            if !around.random.chance(chance) {
                continue;
            }
            let before = (reader.ends, reader.seen);
            let told = reader.poll(step, stays, around, &mut self.ledger);
            told.map_err(|fault| format!("{fault}: {}", reader.gist()))?;
            if reader.habit.works && reader.ends != before.0 {
                self.group = Group { floor: None, lost: true };
            } else if reader.habit.works && before.1 == 0 && reader.seen > 0 && reader.is_steady() && !self.group.lost {
                self.group.floor.get_or_insert_with(|| sent(peers));
            }
        }
        for poster in &mut self.posters {
            if around.random.chance(chance) {
                let told = poster.poll(step, stays, around, &mut self.ledger);
                told.map_err(|fault| format!("{fault}: {}", poster.gist()))?;
            }
        }
        for intruder in &mut self.intruders {
            if around.random.chance(chance) {
                let told = intruder.poll(step, stays, around);
                told.map_err(|fault| format!("{fault}: {}", intruder.gist()))?;
            }
        }
        Ok(())
    }

    /// At rest: all who read a topic stand at its newest message, and what was for the group has come to a member.
    pub(super) fn at_rest(&self, peers: &[Peer]) -> Result<(), String> {
        if let Some(reader) = self.readers.iter().find(|reader| reader.waits_to_begin()) {
            return Err(format!("a subscription never began: {}", reader.gist()));
        }
        if let Some(intruder) = self.intruders.iter().find(|intruder| intruder.is_at_large()) {
            return Err(format!("an intruder is at large: {}", intruder.gist()));
        }
        for topic in TOPICS {
            let there = || self.readers.iter().filter(|reader| reader.is_there() && !reader.habit.works);
            let places = there().filter_map(|reader| reader.place_in(topic));
            let newest = places.chain(self.ledger.newest(topic)).max();
            let behind = there()
                .find(|reader| reader.place_in(topic).is_some_and(|place| newest.is_some_and(|new| place < new)));
            if let Some(reader) = behind {
                return Err(format!("t{topic} has {newest:?}, which never came to {}", reader.gist()));
            }
        }
        let workers = || self.readers.iter().filter(|reader| reader.habit.works);
        let (Some(floor), Some(worker)) = (&self.group.floor, workers().find(|worker| worker.is_steady())) else {
            return Ok(());
        };
        let topic = worker.habit.topics[0];
        for peer in members(peers, topic) {
            for sequence in floor[peer.number as usize] + 1..=peer.sent {
                let id = Id { publisher: peer.number, sequence };
                if !self.ledger.is_taken(topic, id) {
                    return Err(format!(
                        "{id:?} came to no worker of t{topic}: {:?}",
                        workers().map(Reader::gist).collect::<Vec<_>>()
                    ));
                }
            }
        }
        Ok(())
    }

    /// Everything is at rest, and all members of topics are about to say something.
    pub(super) fn before_last_words(&mut self, peers: &[Peer]) {
        let is_steady = self.readers.iter().any(|reader| reader.habit.works && reader.is_steady());
        self.group = Group { floor: is_steady.then(|| sent(peers)), lost: false };
        let there = self.readers.iter().enumerate().filter(|(_, reader)| reader.is_there() && !reader.habit.works);
        self.listeners = there.map(|(at, reader)| (at, reader.ends + reader.resets)).collect();
    }

    /// What they said is at rest too: who was there to hear it has heard it.
    pub(super) fn after_last_words(&mut self, peers: &[Peer]) -> Result<(), String> {
        for (at, missed) in std::mem::take(&mut self.listeners) {
            let reader = &self.readers[at];
            if reader.ends + reader.resets != missed {
                continue;
            }
            for topic in &reader.habit.topics {
                for peer in members(peers, *topic).filter(|peer| peer.sent > 0) {
                    let id = Id { publisher: peer.number, sequence: peer.sent };
                    if !self.ledger.knows(id) {
                        return Err(format!("{id:?} never came to {}", reader.gist()));
                    }
                }
            }
        }
        self.at_rest(peers)
    }

    /// Resets, messages, connections that ended, acknowledgements, duplicates; messages and new subscriptions in calls;
    /// intruders that were told why they go.
    pub(super) fn counts(&self) -> [u64; 8] {
        let readers = |field: fn(&Reader) -> u64| self.readers.iter().map(field).sum();
        let posters = |field: fn(&Poster) -> u64| self.posters.iter().map(field).sum();
        [
            readers(|reader| reader.resets),
            readers(|reader| reader.seen),
            readers(|reader| reader.ends),
            posters(|poster| poster.acks),
            posters(|poster| poster.duplicates),
            readers(|reader| if reader.habit.transport == Transport::Calls { reader.seen } else { 0 }),
            readers(|reader| reader.returns),
            self.intruders.iter().filter(|intruder| intruder.code.is_some()).count() as u64,
        ]
    }
}

/// Well members of a topic.
fn members(peers: &[Peer], topic: u8) -> impl Iterator<Item = &Peer> {
    let is_member = move |peer: &&Peer| matches!(peer.sketch.role, Role::Member(number, ..) if number == topic);
    peers.iter().filter(is_member).filter(|peer| peer.is_well())
}
