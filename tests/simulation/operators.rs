//! What ends connections that have done nothing: an operator's kick, the end of a topic, a token that expires. Each is played
//! under many seeds, and an oracle judges what everybody was told; that it can fail is shown by breaking something.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crossbeam::channel::{Receiver, Sender};
use holdline::access::{Access, Key};
use holdline::config::Limits;
use holdline::hub::Group;
use holdline::id::ShardId;
use holdline::message::{Kind, Message, Topic};
use holdline::shard::Live;
use holdline::shard::orders::{Filter, Order, Outcome, Parting, Report, What};
use holdline::sim::{Client, Config, Faults, Net, Peer, Random};
use holdline::time::Clock;
use ring::hmac;

use super::scene::{LINES, Scene};

const SEEDS: u64 = 30;
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// How the members of a topic are sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Kick,
    EndTopic,
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trick {
    Nothing,
    /// One shard with members is not told.
    Spare,
    /// The members of the other topic are sent away too.
    Overreach,
    /// Somebody loses a message.
    Lose,
    /// More is reported than was done.
    Boast,
    /// The token of one is thought to end sooner than it does.
    Sooner,
    /// Later.
    Later,
}

/// A client, and all that it was told.
struct Member {
    client: Client,
    shard: usize,
    lines: Vec<String>,
    rest: String,
    /// When it was ended, if it was; milliseconds.
    ended: Option<u64>,
}

impl Member {
    fn new(scene: &mut Scene, shard: usize, first: &str) -> Self {
        let client = scene.connect(shard, LINES, first);
        Self { client, shard, lines: Vec::new(), rest: String::new(), ended: None }
    }

    /// Reads what is there. Empty lines are heartbeats.
    fn hear(&mut self, now: u64) {
        self.rest.push_str(&String::from_utf8(self.client.read()).unwrap());
        while let Some((line, rest)) = self.rest.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            self.lines.extend(Some(line).filter(|line| !line.is_empty()));
            self.rest = rest;
        }
        if self.client.peer() != Peer::Open && self.ended.is_none() {
            self.ended = Some(now);
        }
    }

    /// It is there, and was told just this.
    fn must_have_all(&self, said: &[String]) -> Result<(), String> {
        match self.ended {
            Some(at) => Err(format!("ended without reason at {at} ms")),
            None if self.lines == said => Ok(()),
            None => Err(format!("was told {:?} instead of {said:?}", self.lines)),
        }
    }

    /// It was ended, and had been told all of what had been said by then, and nothing else.
    fn must_be_gone(&self, said: &[String]) -> Result<(), String> {
        match self.ended {
            None => Err("is still there".to_owned()),
            Some(_) if self.lines == said => Ok(()),
            Some(_) => Err(format!("was told {:?} instead of {said:?} before its end", self.lines)),
        }
    }
}

/// A world: its scene, an operator, and what has been said in each topic.
struct World {
    scene: Scene,
    random: Random,
    shards: u16,
    reports: (Sender<Report>, Receiver<Report>),
    number: u64,
    said: [Vec<String>; 2],
}

const TOPICS: [&str; 2] = ["bad", "good"];

fn topic(place: usize) -> Topic {
    Topic::parse(TOPICS[place].as_bytes(), Topic::BYTES_MAX).unwrap()
}

impl World {
    fn new(seed: u64, access: impl FnOnce(&mut Random) -> Access) -> Self {
        let mut random = Random::new(seed);
        let shards = u16::try_from(random.within(1, 3)).unwrap();
        let mut wild = |most: usize| u16::try_from(random.below(most)).unwrap();
        let faults = Faults {
            partial_reads: wild(300),
            short_writes: wild(300),
            delays: wild(300),
            spurious_writables: wild(100),
            late_closes: wild(300),
            late_sends: wild(300),
            reorders: wild(300),
            ..Faults::NONE
        };
        let config = Config { faults, downstream_bytes: random.within(64, 8192), ..Config::default() };
        let limits = Limits { connections_max: 100, heartbeat_interval: Duration::ZERO, ..Limits::default() };
        let live = Live { access: Arc::new(access(&mut random)), ..Live::new(limits) };
        let scene = Scene::with(shards, live, Net::new(random.bits(), config));
        Self { scene, random, shards, reports: crossbeam::channel::unbounded(), number: 0, said: Default::default() }
    }

    fn now(&self) -> u64 {
        self.scene.clock.now().as_millis()
    }

    /// So many members, on any shards.
    fn members(&mut self, count: usize, first: &str) -> Vec<Member> {
        let shards = usize::from(self.shards);
        (0..count).map(|_| Member::new(&mut self.scene, self.random.below(shards), first)).collect()
    }

    fn order(&mut self, shard: u16, what: What) {
        self.number += 1;
        let order = Order { number: self.number, what, reports: self.reports.0.clone() };
        self.scene.postbox.order(ShardId(shard), Box::new(order)).unwrap();
    }

    /// All that has been reported since.
    fn reported(&self) -> Vec<Outcome> {
        self.reports.1.try_iter().map(|report| report.what).collect()
    }

    /// An operator says something in a topic.
    fn say(&mut self, place: usize) {
        let text = format!("{} {}", TOPICS[place], self.said[place].len());
        let message = Message::new(topic(place), Kind::Text, text.as_bytes(), None);
        self.said[place].push(text);
        self.order(topic(place).owner(self.shards).0, What::Publish(message));
    }

    /// Everything that is under way arrives.
    fn settle(&mut self, members: &mut [Member]) {
        for _ in 0..30 {
            self.scene.rest();
            let now = self.now();
            members.iter_mut().for_each(|member| member.hear(now));
        }
    }

    /// Sends the members of the first topic away. Returns how many connections that is said to have been.
    fn do_it(&mut self, deed: Deed, trick: Trick, members: &mut [Member]) -> u64 {
        let spared = (trick == Trick::Spare).then(|| u16::try_from(members[0].shard).unwrap());
        let parting = Parting { code: 4003, reason: "go".into() };
        let mut places = vec![0];
        places.extend((trick == Trick::Overreach).then_some(1));
        for place in places {
            let groups = if deed == Deed::EndTopic { self.end_past(place, members) } else { Vec::new() };
            let progress = Arc::new(AtomicU64::new(0));
            for shard in (0..self.shards).filter(|shard| Some(*shard) != spared) {
                let (parting, progress) = (parting.clone(), Arc::clone(&progress));
                let filter = Filter { topic: Some(topic(place)), ..Filter::default() };
                self.order(
                    shard,
                    match deed {
                        Deed::Kick => What::Kick(filter, parting, progress),
                        Deed::EndTopic => What::CloseTopic(topic(place), groups.clone(), parting, progress),
                    },
                );
            }
        }
        self.settle(members);
        let closed =
            self.reported().into_iter().map(|outcome| if let Outcome::Closed(count) = outcome { count } else { 0 });
        closed.sum::<u64>() + u64::from(trick == Trick::Boast)
    }

    fn end_past(&mut self, place: usize, members: &mut [Member]) -> Vec<Group> {
        self.reported();
        self.order(topic(place).owner(self.shards).0, What::EndTopic(topic(place)));
        self.settle(members);
        let ended = self.reported().into_iter().find_map(|outcome| match outcome {
            Outcome::Ended(Some((_, groups))) => Some(groups),
            _ => None,
        });
        ended.expect("the topic is there")
    }
}

/// Plays a deed. The first members are of the topic whose members are sent away, then come those of the other one.
fn play_deed(seed: u64, deed: Deed, trick: Trick) -> Result<(), String> {
    let mut world = World::new(seed, |_| Access::default());
    let (bad, good) = (world.random.within(1, 8), world.random.within(1, 8));
    let mut members = world.members(bad, "bad\n");
    members.extend(world.members(good, "good\n"));
    world.settle(&mut members);
    for _ in 0..world.random.within(1, 20) {
        let place = world.random.below(2);
        world.say(place);
        let shard = world.random.below(usize::from(world.shards));
        world.scene.turn(shard);
    }
    world.settle(&mut members);
    let before = world.said[0].clone();
    world.reported();
    let closed = world.do_it(deed, trick, &mut members);
    // Who comes back is as welcome as the first time.
    members.extend(world.members(1, "bad\n"));
    world.settle(&mut members);
    for _ in 0..3 {
        world.say(0);
        world.say(1);
    }
    world.settle(&mut members);
    if trick == Trick::Lose {
        members[bad].lines.pop();
    }
    judge_deed(&world, &members, (bad, &before), closed)
}

/// The oracle: those are gone who should be, the others and those who come later miss nothing, and the count is right.
fn judge_deed(world: &World, members: &[Member], (bad, before): (usize, &[String]), closed: u64) -> Result<(), String> {
    let (gone, others) = members.split_at(bad);
    let Some((newcomer, good)) = others.split_last() else { return Err("nobody is left".to_owned()) };
    let named = |place: usize, found: Result<(), String>| found.map_err(|fault| format!("member {place} {fault}"));
    for (place, member) in gone.iter().enumerate() {
        named(place, member.must_be_gone(before))?;
    }
    for (place, member) in (bad..).zip(good) {
        named(place, member.must_have_all(&world.said[1]))?;
    }
    named(members.len() - 1, newcomer.must_have_all(&world.said[0][before.len()..]))?;
    if closed == bad as u64 { Ok(()) } else { Err(format!("{closed} were closed, it is said, and not {bad}")) }
}

/// A token that ends then, Unix seconds.
fn token(expires: u64) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = format!(r#"{{"sub":"ann","exp":{expires},"holdline":{{"subscribe":["good"]}}}}"#);
    let signed = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(&claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Plays a crowd whose tokens expire one after the other, while something is said each quarter of a second and the wall clock
/// is set: that moves nobody's end.
fn play_tokens(seed: u64, trick: Trick) -> Result<(), String> {
    let mut grace = Duration::ZERO;
    let mut world = World::new(seed, |random| {
        let mut seconds = || Duration::from_secs(random.within(0, 3) as u64);
        let (leeway, renew_grace) = (seconds(), seconds());
        grace = leeway.max(renew_grace);
        Access { secret: Some(Key::secret(SECRET).unwrap()), leeway, renew_grace, ..Access::default() }
    });
    let (start, begin) = (world.scene.clock.unix_ms() / 1000, world.now());
    let grace = grace.as_secs() * 1000;
    let (mut members, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..world.random.within(2, 8) {
        let seconds = world.random.within(1, 8) as u64;
        members.extend(world.members(1, &format!("AUTH {}\ngood\n", token(start + seconds))));
        ends.push(begin + seconds * 1000 + grace);
    }
    world.settle(&mut members);
    let (mut spoken, jumps) = (Vec::new(), world.random.chance(500));
    while world.now() < begin + 12_500 {
        world.say(1);
        spoken.push(world.now());
        world.settle(&mut members);
        if jumps && world.random.chance(100) {
            let by = i64::try_from(world.random.below(8_000)).unwrap() - 4_000;
            world.scene.clock.jump_unix(by);
        }
        for _ in 0..5 {
            world.scene.pass(50);
            let now = world.now();
            members.iter_mut().for_each(|member| member.hear(now));
        }
    }
    match trick {
        Trick::Sooner => ends[0] -= 1000,
        Trick::Later => ends[0] += 1000,
        Trick::Lose => drop(members[0].lines.remove(0)),
        _ => {}
    }
    judge_tokens(&members, &ends, &world.said[1], &spoken)
}

/// The oracle: each ends when its token says, not sooner and within a tick or two, and misses nothing until then.
fn judge_tokens(members: &[Member], ends: &[u64], said: &[String], spoken: &[u64]) -> Result<(), String> {
    const LATE_MS: u64 = 250;
    for (place, (member, &end)) in members.iter().zip(ends).enumerate() {
        let ended = member.ended.ok_or_else(|| format!("member {place} is still there"))?;
        if ended < end || ended > end + LATE_MS {
            return Err(format!("member {place} was ended at {ended} ms, and its token at {end}"));
        }
        let heard = spoken.iter().take_while(|at| **at < ended).count();
        let lines: Vec<_> = member.lines.iter().filter(|line| line.starts_with("good ")).cloned().collect();
        if lines != said[..heard] {
            return Err(format!("member {place} was told {lines:?} of {heard} messages"));
        }
    }
    Ok(())
}

#[test]
fn who_is_kicked_is_gone_and_nobody_else() {
    for seed in 0..SEEDS {
        play_deed(seed, Deed::Kick, Trick::Nothing).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    }
}

#[test]
fn a_topic_that_is_ended_ends_for_all_and_begins_anew() {
    for seed in 0..SEEDS {
        play_deed(seed, Deed::EndTopic, Trick::Nothing).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    }
}

#[test]
fn a_token_ends_when_it_says_whatever_the_wall_clock_does() {
    for seed in 0..SEEDS / 3 {
        play_tokens(seed, Trick::Nothing).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    }
}

#[test]
fn the_oracles_of_operators_see_what_is_broken() {
    for deed in [Deed::Kick, Deed::EndTopic] {
        for trick in [Trick::Spare, Trick::Overreach, Trick::Lose, Trick::Boast] {
            for seed in 0..8 {
                assert!(play_deed(seed, deed, trick).is_err(), "{deed:?}, {trick:?}, seed {seed}: nobody has seen it");
            }
        }
    }
    for trick in [Trick::Sooner, Trick::Later, Trick::Lose] {
        for seed in 0..4 {
            assert!(play_tokens(seed, trick).is_err(), "{trick:?}, seed {seed}: nobody has seen it");
        }
    }
}
