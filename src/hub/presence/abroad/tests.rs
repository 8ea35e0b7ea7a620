#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, VecDeque};

use super::super::{Seat, Seen, What, Who};
use super::*;
use crate::hub::testing::{Random, topic};
use crate::id::ShardId;

/// A topic's owner on one node, and one who watches there.
struct Node {
    id: NodeId,
    room: Presence,
    seats: BTreeMap<u32, String>,
    /// What the one who watches knows, put together of what it was told.
    known: BTreeMap<MemberId, Seen>,
}

impl Node {
    fn new(id: u64, mode: Mode, members_max: usize) -> Self {
        let mut room = Presence::new(mode, members_max);
        room.go_abroad(1);
        room.watch(ShardId(0));
        room.list(&topic("t"));
        Self { id: NodeId(id), room, seats: BTreeMap::new(), known: BTreeMap::new() }
    }

    fn lists(id: u64) -> Self {
        Self::new(id, Mode::Members, 2000)
    }

    fn join(&mut self, connection: u32, id: &str, now_ms: u64) {
        let name = format!("{}-{}", &id[id.len().saturating_sub(8)..], self.id.0);
        let who = Who { id: MemberId::other(id), name: Some(name.into()) };
        self.room.join(Seat { shard: ShardId(0), connection }, who, now_ms);
        self.seats.insert(connection, id.to_owned());
    }

    fn leave(&mut self, connection: u32) {
        self.room.leave(Seat { shard: ShardId(0), connection });
        self.seats.remove(&connection);
    }

    /// What is said, as bytes.
    fn says(&mut self) -> Vec<Box<[u8]>> {
        self.room.whispers().iter().map(Whisper::encode).collect()
    }

    fn hears(&mut self, from: NodeId, bytes: &[u8]) -> Option<Box<[u8]>> {
        let whisper = Whisper::decode(bytes).unwrap();
        self.room.hear(self.id, from, whisper).map(|whisper| whisper.encode())
    }

    fn loses(&mut self, node: NodeId, at_once: usize) {
        let mut after = None;
        while self.room.drop_node(node, &mut after, at_once) {}
    }

    /// The one who watches follows.
    fn follow(&mut self) {
        for notice in self.room.news(&topic("t")).iter().flat_map(|news| news.iter()) {
            let What::Changes(joined, left) = &notice.what else { panic!("{notice:?}") };
            for one in left {
                assert!(self.known.remove(&one.id).is_some(), "{one:?} was not there");
            }
            for one in joined {
                assert!(self.known.insert(one.id.clone(), one.clone()).is_none(), "{one:?} is there");
            }
        }
        let listed = self.members();
        assert!(self.known.keys().eq(listed.iter().map(|one| &one.id)), "{:?} {listed:?}", self.known);
    }

    fn members(&self) -> Vec<Seen> {
        self.room.page(None, usize::MAX).members.unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.members().iter().map(|one| format!("{}*{}", one.name.as_deref().unwrap(), one.connections)).collect()
    }
}

/// Lets them whisper until all is said; `is_lost` says what does not arrive, from whom and to whom. Returns how much was said.
fn talk(nodes: &mut [Node], mut is_lost: impl FnMut(NodeId, NodeId, &[u8]) -> bool) -> usize {
    let mut said: VecDeque<(NodeId, Box<[u8]>)> = VecDeque::new();
    let mut count = 0;
    loop {
        if said.is_empty() {
            for node in nodes.iter_mut() {
                said.extend(node.says().into_iter().map(|bytes| (node.id, bytes)));
            }
        }
        let Some((from, bytes)) = said.pop_front() else { return count };
        count += 1;
        assert!(count < 10_000, "it does not end");
        for node in nodes.iter_mut().filter(|node| node.id != from) {
            if !is_lost(from, node.id, &bytes) {
                said.extend(node.hears(from, &bytes).map(|answer| (node.id, answer)));
            }
        }
    }
}

#[test]
fn members_of_all_nodes_are_one_list_and_each_is_there_once() {
    let mut nodes = [Node::lists(1), Node::lists(2), Node::lists(3)];
    nodes[0].join(1, "ann", 5);
    nodes[1].join(1, "ann", 4);
    nodes[1].join(2, "ben", 6);
    assert_eq!(talk(&mut nodes, |_, _, _| false), 2, "one whisper of each that has somebody, and none asks");
    for node in &mut nodes {
        node.follow();
        assert_eq!((node.names(), node.room.count()), (vec!["ann-2*2".to_owned(), "ben-2*1".to_owned()], 2));
    }
    nodes[1].leave(1);
    talk(&mut nodes, |_, _, _| false);
    for node in &mut nodes {
        node.follow();
        assert_eq!(node.names(), ["ann-1*1", "ben-2*1"], "ann is there still, and has not left");
    }
    let gone = nodes[1].id;
    nodes[2].loses(gone, 1);
    nodes[2].follow();
    assert_eq!((nodes[2].names(), nodes[2].room.count()), (vec!["ann-1*1".to_owned()], 1));
}

#[test]
fn who_comes_later_asks_once_and_short_lists_are_answered_at_once() {
    let mut nodes = vec![Node::lists(1), Node::lists(2)];
    (0..3).for_each(|n| nodes[0].join(n, &format!("m{n}"), 1));
    talk(&mut nodes, |_, _, _| false);
    nodes.push(Node::lists(3));
    let call = nodes[2].room.call(Tick(7)).unwrap();
    assert!(nodes[2].room.is_learning(Tick(7)) && !nodes[2].room.is_learning(Tick(7 + Abroad::LEARNING_TICKS)));
    nodes[..2].iter_mut().for_each(|node| assert_eq!(node.hears(NodeId(3), &call.encode()), None));
    assert_eq!(talk(&mut nodes, |_, _, _| false), 1, "its list");
    assert_eq!(nodes[2].names().len(), 3);
    (3..500).for_each(|n| nodes[0].join(n, &format!("{n:0>100}"), 1));
    talk(&mut nodes, |_, to, _| to == NodeId(3));
    let call = nodes[2].room.call(Tick(9)).unwrap();
    nodes[0].hears(NodeId(3), &call.encode());
    let said = talk(&mut nodes, |_, _, _| false);
    assert!(said > 4, "a digest, a question, and a list in parts: {said}");
    assert_eq!(nodes[2].names(), nodes[0].names());
}

#[test]
fn a_part_that_is_lost_leaves_no_mixture() {
    let mut nodes = [Node::lists(1), Node::lists(2)];
    (0..1000).for_each(|n| nodes[0].join(n, &format!("{n:0>100}"), 1));
    let (mut changes, mut parts) = (0, 0);
    talk(&mut nodes, |_, _, bytes| {
        match Whisper::decode(bytes).unwrap() {
            Whisper::Changes { .. } => changes += 1,
            Whisper::List { part, .. } => parts += usize::from(part == 3),
            _ => return false,
        }
        changes == 3 || parts == 1
    });
    assert!(changes > 6 && parts == 1, "{changes} {parts}");
    nodes[1].follow();
    assert!((1..1000).contains(&nodes[1].names().len()));
    nodes.iter_mut().for_each(|node| node.room.renew());
    assert!(talk(&mut nodes, |_, _, _| false) > 9, "a digest, a question, a list");
    nodes[1].follow();
    assert_eq!(nodes[1].names(), nodes[0].names());
}

#[test]
fn whoever_says_nothing_for_long_has_nobody_and_nobody_stays_for_ever() {
    let mut nodes = vec![Node::lists(1), Node::lists(2)];
    nodes[0].join(1, "ann", 5);
    talk(&mut nodes, |_, _, _| false);
    for _ in 0..9 {
        nodes.iter_mut().for_each(|node| node.room.renew());
        assert_eq!(talk(&mut nodes, |_, _, _| false), 1, "a short list instead of a digest");
        assert_eq!(nodes[1].names().len(), 1);
    }
    // Its topic is forgotten, and the last word of it is lost.
    nodes.remove(0).room.farewell().unwrap();
    for lease in 1..=Abroad::SILENT_MAX {
        nodes[0].room.renew();
        assert_eq!(nodes[0].names().len(), 1, "{lease}");
    }
    nodes[0].room.renew();
    nodes[0].follow();
    assert_eq!((nodes[0].names(), nodes[0].room.count()), (vec![], 0));
}

#[test]
fn a_farewell_is_heard_at_once_and_an_empty_room_becomes_quiet() {
    let mut nodes = [Node::lists(1), Node::lists(2)];
    nodes[0].join(1, "ann", 5);
    talk(&mut nodes, |_, _, _| false);
    let farewell = nodes[0].room.farewell().unwrap().encode();
    nodes[1].hears(NodeId(1), &farewell);
    nodes[1].follow();
    assert_eq!(nodes[1].names().len(), 0);
    let mut nodes = [Node::lists(1), Node::lists(2)];
    nodes[0].join(1, "ann", 5);
    talk(&mut nodes, |_, _, _| false);
    nodes[0].leave(1);
    talk(&mut nodes, |_, _, _| true);
    assert_eq!(nodes[1].names().len(), 1, "that ann left was not heard");
    let said: Vec<usize> = (0..5)
        .map(|_| {
            nodes.iter_mut().for_each(|node| node.room.renew());
            talk(&mut nodes, |_, _, _| false)
        })
        .collect();
    assert_eq!(nodes[1].names().len(), 0);
    assert_eq!(said, [3, 1, 0, 0, 0], "a digest, a question and a list; a digest; nothing");
    assert_eq!(nodes[0].room.farewell(), None, "nobody knows of anybody");
}

#[test]
fn numbers_of_all_nodes_add_up() {
    let mut nodes = [1, 2].map(|id| Node::new(id, Mode::Count, 1));
    nodes[0].room.set_subscriptions(7);
    nodes[1].room.set_subscriptions(5);
    talk(&mut nodes, |_, _, _| false);
    assert_eq!(nodes.each_ref().map(|node| node.room.count()), [12, 12]);
    let news = nodes[1].room.news(&topic("t")).unwrap();
    assert_eq!((&news[0].what, news[0].count), (&What::Count, 12));
    let gone = nodes[0].id;
    nodes[1].loses(gone, 1);
    assert_eq!((nodes[1].room.count(), nodes[1].room.is_news()), (5, true));
}

#[test]
fn those_beyond_the_bound_are_counted_everywhere() {
    let mut nodes = [1, 2].map(|id| Node::new(id, Mode::Members, 2));
    (0..5).for_each(|n| nodes[0].join(n, &format!("m{n}"), 1));
    nodes[1].join(9, "m9", 1);
    talk(&mut nodes, |_, _, _| false);
    for node in &mut nodes {
        node.follow();
        assert_eq!((node.names().len(), node.room.count(), node.room.is_truncated()), (3, 6, true));
    }
    (2..5).for_each(|n| nodes[0].leave(n));
    talk(&mut nodes, |_, _, _| false);
    assert!(nodes.iter().all(|node| (node.room.count(), node.room.is_truncated()) == (3, false)));
}

#[test]
fn hostile_numbers_do_no_harm() {
    let mut node = Node::lists(1);
    let mut random = Random::new(1);
    let number = |random: &mut Random| [0, 1, 2, u64::MAX][random.below(4)];
    for step in 0..10_000 {
        let version = Version { life: number(&mut random), number: number(&mut random) };
        let (count, from) = (number(&mut random), NodeId(random.below(2000) as u64));
        let id = MemberId::other(&format!("m{}", random.below(9)));
        let entry = Entry { name: None, since_ms: number(&mut random), connections: u32::MAX };
        let members = vec![(id, Some(entry))];
        let whisper = match random.below(4) {
            0 => Whisper::Changes { version, count, changes: members },
            1 => Whisper::List { version, count, part: 0, of: 1 + step % 3, members },
            2 => Whisper::List { version, count, part: step % 3, of: u32::MAX, members },
            _ => Whisper::Digest { version, digest: Digest { count, hash: count } },
        };
        node.room.hear(node.id, from, whisper);
        if step % 100 == 0 {
            node.follow();
        }
    }
    let abroad = node.room.abroad.as_deref().unwrap();
    assert!(abroad.nodes.len() <= Abroad::NODES_MAX && node.room.memory() < 1 << 21);
    let all: Vec<NodeId> = abroad.nodes.keys().copied().collect();
    all.into_iter().for_each(|of| node.loses(of, 3));
    node.follow();
    assert_eq!((node.names().len(), node.room.count(), node.room.abroad.as_deref().unwrap().entries), (0, 0, 0));
}

/// Members come and go, whispers are lost, nodes die and come anew, or are cut off for a while: when nothing is lost any more
/// all come to know the truth within four leases, and whoever watches was told it.
#[test]
fn whatever_is_lost_all_come_to_know_the_truth() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let members_max = [3, 100][random.below(2)];
        let mut nodes: Vec<Node> = (1..=4).map(|id| Node::new(id, Mode::Members, members_max)).collect();
        let (mut next, mut cut) = (4, None);
        for step in 0..140 {
            let is_quiet = step >= 100;
            if !is_quiet {
                disturb(&mut nodes, &mut random, &mut next, &mut cut, (step, members_max));
            } else if let Some(back) = cut.take() {
                come_back(&mut nodes, back);
            }
            if step % 10 == 9 {
                nodes.iter_mut().for_each(|node| node.room.renew());
            }
            talk(&mut nodes, |from, to, _| {
                !is_quiet && (random.below(4) == 0 || cut.is_some_and(|cut| cut == from || cut == to))
            });
            nodes.iter_mut().for_each(Node::follow);
        }
        agree(&nodes, seed, members_max);
    }
}

fn disturb(
    nodes: &mut Vec<Node>,
    random: &mut Random,
    next: &mut u64,
    cut: &mut Option<NodeId>,
    (step, members_max): (u64, usize),
) {
    let at = random.below(nodes.len());
    match random.below(30) {
        0 => {
            let dead = nodes.remove(at).id;
            *cut = cut.filter(|cut| *cut != dead);
            *next += 1;
            nodes.iter_mut().for_each(|node| node.loses(dead, 1 + random.below(5)));
            nodes.push(Node::new(*next, Mode::Members, members_max));
        }
        1 if cut.is_none() => {
            // It is taken for dead, and takes the others for dead.
            let id = nodes[at].id;
            *cut = Some(id);
            let others: Vec<NodeId> = nodes.iter().map(|node| node.id).filter(|other| *other != id).collect();
            for node in nodes.iter_mut() {
                let lost = if node.id == id { others.clone() } else { vec![id] };
                lost.into_iter().for_each(|lost| node.loses(lost, 2));
            }
        }
        2 if cut.is_some() => cut.take().into_iter().for_each(|back| come_back(nodes, back)),
        _ => {
            let connection = u32::try_from(random.below(9)).unwrap();
            if random.below(2) == 0 {
                nodes[at].leave(connection);
            }
            if random.below(2) == 0 {
                nodes[at].join(connection, &format!("m{}", random.below(6)), step);
            }
        }
    }
}

/// Each side hears that the other has come.
fn come_back(nodes: &mut [Node], back: NodeId) {
    let calls: Vec<_> =
        nodes.iter_mut().filter_map(|node| Some((node.id, node.room.call(Tick(0))?.encode()))).collect();
    for (from, call) in calls {
        for node in nodes.iter_mut().filter(|node| node.id != from && (node.id == back || from == back)) {
            node.hears(from, &call);
        }
    }
}

fn agree(nodes: &[Node], seed: u64, members_max: usize) {
    let first = (nodes[0].members(), nodes[0].room.count(), nodes[0].room.is_truncated());
    for node in nodes {
        let (members, count) = (node.members(), node.room.count());
        assert_eq!(
            (&members, count, node.room.is_truncated()),
            (&first.0, first.1, first.2),
            "seed {seed}, {:?}",
            node.id
        );
        let abroad = node.room.abroad.as_deref().unwrap();
        assert_eq!(abroad.nodes.values().filter(|other| other.listed > 0 || other.count > 0).count(), {
            nodes.iter().filter(|other| other.id != node.id && !other.seats.is_empty()).count()
        });
    }
    if members_max == 100 {
        let mut truth: BTreeMap<&str, u32> = BTreeMap::new();
        nodes.iter().flat_map(|node| node.seats.values()).for_each(|id| *truth.entry(id).or_default() += 1);
        let known: Vec<_> = first.0.iter().map(|one| (&*one.id.text, one.connections)).collect();
        assert_eq!(known, truth.into_iter().collect::<Vec<_>>(), "seed {seed}");
    }
}
