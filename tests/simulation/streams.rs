//! Several nodes, and the streams of their durable topics: the cluster's end of every shard, which the test plays.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use holdline::cluster::port::{
    Appended, Follow, Inbound, NodeId, NotAppended, Outbound, Sharing, Stored, ThreadEnd, Ticket,
};
use holdline::config::{Config, Limits};
use holdline::message::{Cursor, Epoch, Message, Offset, Topic};
use holdline::shard::Live;
use holdline::sim::{self, Net, Random};

use super::scene::Scene;

/// What a stream has at a place.
#[derive(Clone)]
struct Entry {
    message: Message,
    /// Which node published it.
    node: NodeId,
    key: Option<Arc<str>>,
}

#[derive(Default)]
pub(super) struct Stream {
    pub(super) epoch: u64,
    /// From 1 on: what is not kept any more is here too, for those who check.
    entries: Vec<Entry>,
    /// The oldest one that is kept.
    first: usize,
}

impl Stream {
    pub(super) fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn text(&self, offset: u64) -> Option<String> {
        let place = usize::try_from(offset.checked_sub(1)?).ok()?;
        Some(String::from_utf8(self.entries.get(place)?.message.payload().to_vec()).unwrap())
    }

    fn append(&mut self, node: NodeId, message: &Message, key: Option<Arc<str>>, keep: usize) -> (u64, bool) {
        let twin = key.as_ref().and_then(|key| self.entries.iter().position(|one| one.key.as_ref() == Some(key)));
        if let Some(twin) = twin {
            return (twin as u64 + 1, true);
        }
        self.entries.push(Entry { message: message.clone(), node, key });
        self.first = self.first.max(self.entries.len().saturating_sub(keep) + 1).max(1);
        (self.last(), false)
    }

    /// The message at a place, as a node is told it: only what it says goes from node to node.
    fn stored(&self, topic: &Topic, offset: u64, to: NodeId) -> Stored {
        let Entry { message, node, key } = &self.entries[usize::try_from(offset).unwrap() - 1];
        let publisher = message.publisher.filter(|_| *node == to);
        let mut copy = Message::new(topic.clone(), message.kind(), message.payload(), publisher);
        (copy.epoch, copy.offset, copy.time_ms) = (Epoch(self.epoch), Offset(offset), message.time_ms);
        Stored { message: copy, key: key.clone() }
    }
}

/// Where a shard stands with a stream.
struct Standing {
    shard: usize,
    follow: Follow,
    topic: Topic,
    keep: usize,
    /// Which stream it is told, and up to where; `None`: it awaits its past.
    at: Option<(u64, u64)>,
}

/// A publication that has come to the thread.
struct Append {
    shard: usize,
    ticket: Ticket,
    message: Message,
    key: Option<Arc<str>>,
    keep: usize,
}

/// A server, and the cluster's end of each of its shards.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) scene: Scene,
    ends: Vec<ThreadEnd>,
    standings: Vec<Standing>,
    appends: VecDeque<Append>,
    /// Answers that are still on their way.
    answers: VecDeque<(usize, Ticket, Result<Appended, NotAppended>)>,
    /// Plain topics that are followed.
    pub(super) plain: Vec<(usize, Follow)>,
    seen: HashSet<(usize, Follow)>,
    pub(super) is_away: bool,
}

/// Topics that are all durable.
pub(super) fn config() -> Config {
    let limits = Limits { connections_max: 100, ..Limits::default() };
    Config { durable: true, limits, ..Config::default() }
}

impl Node {
    pub(super) fn new(number: u64, shards: u16, config: &Config) -> Self {
        let net = Net::new(number, sim::Config::default());
        let mut scene = Scene::with(shards, Live::of(config), net);
        let id = NodeId(number);
        let ends = scene.join_cluster(id);
        let mut node = Self {
            id,
            scene,
            ends,
            standings: Vec::new(),
            appends: VecDeque::new(),
            answers: VecDeque::new(),
            plain: Vec::new(),
            seen: HashSet::new(),
            is_away: true,
        };
        node.connect();
        node
    }

    pub(super) fn tell(&mut self, shard: usize, what: Inbound) {
        self.ends[shard].inbound.push(what);
        self.ends[shard].inbound.flush();
    }

    pub(super) fn connect(&mut self) {
        self.is_away = false;
        (0..self.ends.len()).for_each(|shard| self.tell(shard, Inbound::Connected { payload_max: 10_000 }));
    }

    /// What was on its way has no answer.
    pub(super) fn part(&mut self) {
        self.is_away = true;
        (0..self.ends.len()).for_each(|shard| self.tell(shard, Inbound::Away));
        while let Some(Append { shard, ticket, .. }) = self.appends.pop_front() {
            self.tell(shard, Inbound::Appended(ticket, Err(NotAppended::Away)));
        }
        while let Some((shard, ticket, _)) = self.answers.pop_front() {
            self.tell(shard, Inbound::Appended(ticket, Err(NotAppended::Away)));
        }
    }

    /// Takes what the shards say. Returns whether there was something.
    pub(super) fn take(&mut self) -> bool {
        let mut has_some = false;
        for shard in 0..self.ends.len() {
            while let Some(outbound) = self.ends[shard].outbound.try_recv() {
                has_some = true;
                self.take_one(shard, outbound);
            }
        }
        has_some
    }

    fn take_one(&mut self, shard: usize, outbound: Outbound) {
        match outbound {
            Outbound::Follow { follow, topic, sharing: Sharing::Durable(keep), .. } => {
                assert!(self.seen.insert((shard, follow)), "{follow:?} comes again");
                assert!(self.standings.iter().all(|one| one.topic != topic), "{topic} is followed twice");
                self.standings.push(Standing { shard, follow, topic, keep: keep.messages_max, at: None });
            }
            Outbound::Follow { follow, .. } => {
                self.plain.push((shard, follow));
                self.tell(shard, Inbound::Following(follow));
            }
            Outbound::Unfollow(follow) => {
                let before = self.standings.len() + self.plain.len();
                self.standings.retain(|one| (one.shard, one.follow) != (shard, follow));
                self.plain.retain(|one| *one != (shard, follow));
                assert_eq!(self.standings.len() + self.plain.len() + 1, before, "{follow:?} is followed");
            }
            Outbound::Append { ticket, .. } if self.is_away => {
                self.tell(shard, Inbound::Appended(ticket, Err(NotAppended::Away)));
            }
            Outbound::Append { ticket, message, key, keep } => {
                let keep = keep.messages_max;
                self.appends.push_back(Append { shard, ticket, message, key, keep });
            }
            Outbound::Say(..) | Outbound::SaidSoFar(..) | Outbound::Whisper(..) => {}
        }
    }

    /// Durable topics that are followed.
    pub(super) fn followed(&self) -> usize {
        self.standings.len()
    }

    /// Publications that have come and have no place.
    pub(super) fn appending(&self) -> usize {
        self.appends.len()
    }

    /// The next publication has no place, for this reason.
    pub(super) fn refuse(&mut self, why: NotAppended) {
        let Append { shard, ticket, .. } = self.appends.pop_front().unwrap();
        self.tell(shard, Inbound::Appended(ticket, Err(why)));
    }
}

/// All streams there are, and were.
#[derive(Default)]
pub(super) struct Streams {
    pub(super) now: BTreeMap<String, Stream>,
    pub(super) gone: BTreeMap<(String, u64), Stream>,
    epochs: u64,
}

impl Streams {
    /// What goes wrong: one in so many; 0: nothing.
    const CALM: usize = 0;

    fn of(&mut self, topic: &Topic) -> &mut Stream {
        let epochs = &mut self.epochs;
        self.now.entry(topic.as_str().to_owned()).or_insert_with(|| {
            *epochs += 1;
            Stream { epoch: *epochs, first: 1, ..Stream::default() }
        })
    }

    /// Somebody deletes a stream.
    pub(super) fn delete(&mut self, topic: &str) {
        if let Some(stream) = self.now.remove(topic) {
            self.gone.insert((topic.to_owned(), stream.epoch), stream);
        }
    }

    pub(super) fn text(&self, topic: &str, epoch: u64, offset: u64) -> Option<String> {
        let now = self.now.get(topic).filter(|stream| stream.epoch == epoch);
        now.or_else(|| self.gone.get(&(topic.to_owned(), epoch)))?.text(offset)
    }

    /// Puts the next publication of a node into its stream. Its answer may be lost, or come later.
    fn append(&mut self, node: &mut Node, faults: &mut Option<&mut Random>) -> bool {
        let Some(Append { shard, ticket, message, key, keep }) = node.appends.pop_front() else { return false };
        let id = node.id;
        let stream = self.of(&message.topic);
        let (offset, duplicate) = stream.append(id, &message, key, keep);
        let cursor = Cursor { epoch: Epoch(stream.epoch), offset: Offset(offset) };
        let is_lost = faults.as_mut().is_some_and(|random| random.one_in(10));
        let answer = if is_lost { Err(NotAppended::Away) } else { Ok(Appended { cursor, duplicate }) };
        node.answers.push_back((shard, ticket, answer));
        true
    }

    fn answer(node: &mut Node) -> bool {
        let Some((shard, ticket, answer)) = node.answers.pop_front() else { return false };
        node.tell(shard, Inbound::Appended(ticket, answer));
        true
    }

    /// Tells a node's follow something, if there is something to tell.
    fn go_on(&mut self, node: &mut Node, place: usize, faults: &mut Option<&mut Random>) -> bool {
        let Some(standing) = node.standings.get_mut(place) else { return false };
        let Some(stream) = self.now.get(standing.topic.as_str()) else {
            // Who only listens makes no stream: it stands before the first message of any.
            let (shard, follow) = (standing.shard, standing.follow);
            let what = match standing.at.replace((0, 0)) {
                None => Inbound::Past { follow, messages: Vec::new(), end: Some(Cursor::default()) },
                Some((0, 0)) => return false,
                Some(_) => Inbound::Lost(follow, Some(Cursor::default())),
            };
            node.tell(shard, what);
            return true;
        };
        if standing.at == Some((0, 0)) {
            standing.at = Some((stream.epoch, 0));
        }
        let (shard, follow, last) = (standing.shard, standing.follow, stream.last());
        let cursor = |offset| Cursor { epoch: Epoch(stream.epoch), offset: Offset(offset) };
        let mut chance = |bound| faults.as_mut().is_some_and(|random| random.one_in(bound));
        let what = match standing.at {
            None => {
                let from = last.saturating_sub(standing.keep as u64).max(stream.first as u64 - 1) + 1;
                standing.at = Some((stream.epoch, last));
                let mut messages: Vec<_> =
                    (from..=last).map(|offset| stream.stored(&standing.topic, offset, node.id)).collect();
                let rest = messages.split_off(messages.len() / 2);
                node.tell(shard, Inbound::Past { follow, messages, end: None });
                Inbound::Past { follow, messages: rest, end: Some(cursor(last)) }
            }
            Some((epoch, at)) if epoch != stream.epoch || at > last => {
                standing.at = Some((stream.epoch, last));
                Inbound::Lost(follow, Some(cursor(last)))
            }
            Some((_, at)) if at + 1 < stream.first as u64 => {
                standing.at = Some((stream.epoch, stream.first as u64 - 1));
                Inbound::Lost(follow, Some(cursor(stream.first as u64 - 1)))
            }
            Some((_, at)) if at == last => return false,
            Some((epoch, at)) => {
                // What has been told is told again, or one is left out, which nobody says.
                let next = if at > 0 && chance(12) {
                    at
                } else if at + 2 <= last && chance(20) {
                    at + 2
                } else {
                    at + 1
                };
                standing.at = Some((epoch, next.max(at)));
                Inbound::Placed(follow, stream.stored(&standing.topic, next, node.id))
            }
        };
        node.tell(shard, what);
        true
    }

    /// Lets everything happen that can.
    pub(super) fn settle(&mut self, nodes: &mut [Node]) {
        for _ in 0..2000 {
            if !self.step(nodes, &mut None, Self::CALM) {
                break;
            }
        }
        nodes.iter_mut().for_each(|node| node.scene.rest());
        nodes.iter().for_each(|node| node.scene.audit());
    }

    /// Lets some of it happen. Returns whether anything did.
    pub(super) fn step(&mut self, nodes: &mut [Node], faults: &mut Option<&mut Random>, delays: usize) -> bool {
        let mut has_moved = false;
        for node in nodes {
            node.scene.rest();
            has_moved |= node.take();
            if node.is_away {
                continue;
            }
            let waits = |faults: &mut Option<&mut Random>| {
                delays > 0 && faults.as_mut().is_some_and(|random| random.one_in(delays))
            };
            while !waits(faults) && self.append(node, faults) {
                has_moved = true;
            }
            while !waits(faults) && Self::answer(node) {
                has_moved = true;
            }
            for place in 0..node.standings.len() {
                while !waits(faults) && self.go_on(node, place, faults) {
                    has_moved = true;
                }
            }
            node.scene.rest();
        }
        has_moved
    }

    /// Puts all that has come into the streams, and tells nobody.
    pub(super) fn write(&mut self, node: &mut Node) {
        node.take();
        while self.append(node, &mut None) {}
    }

    /// Tells a node's publishers where their messages are.
    pub(super) fn acknowledge(node: &mut Node) {
        while Self::answer(node) {}
        node.scene.rest();
    }
}
