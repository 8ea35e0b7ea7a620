//! Servers that crash, one life after the other on the same disk, with publishers that are told what became of their messages
//! and readers that resume. What must be true whatever happens:
//!
//! - who is told that a message is published is told of one that is on the disk, at that place;
//! - nobody hears of a message that is not on the disk;
//! - after a crash a server has what was on the disk, in order and once;
//! - a reader sees each message once, in order and without a gap, over all lives, and is never told of a reset;
//! - in the end what is on the disk has been told to all readers, and no publisher waits.
//!
//! `SIMULATION_LIVES=N` plays so many seeds.

use std::collections::BTreeMap;
use std::env;

use holdline::sim::{Client, Peer, Random};

use super::journal::{Journal, Record, recover, scene, settle};
use super::scene::{Scene, WEB};

const SEEDS: u64 = 80;
const LIVES: usize = 4;
const TOPICS: [&str; 3] = ["ta", "tb", "tc"];

/// What is broken, to show that the oracles see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Commits are told that have not been written.
    Unwritten,
    /// A message that was written is not there after a crash.
    Lost,
    /// It is there twice.
    Twice,
    /// Two have changed places.
    Swapped,
    /// A topic begins anew.
    Anew,
}

/// Posts messages, each until it is told what became of it or has lost its patience.
struct Publisher {
    number: usize,
    client: Option<Client>,
    inbox: Vec<u8>,
    sent: u32,
    /// The message that it waits for: its topic and its text, and whether it has a key.
    waits: Option<(&'static str, String, bool)>,
    acks: u64,
    refusals: u64,
}

/// Follows a topic by its events.
struct Reader {
    topic: &'static str,
    client: Option<Client>,
    inbox: Vec<u8>,
    /// `epoch:offset` of the last one.
    place: Option<(u64, u64)>,
    seen: Vec<String>,
}

/// What a world came to.
#[derive(Debug, Default)]
struct Tally {
    acks: u64,
    refusals: u64,
    read: u64,
    resumed: u64,
    failures: u64,
    /// Messages that were on the disk and acknowledged to nobody when the server crashed.
    survivors: u64,
}

impl Publisher {
    fn new(number: usize) -> Self {
        Self { number, client: None, inbox: Vec::new(), sent: 0, waits: None, acks: 0, refusals: 0 }
    }

    fn poll(&mut self, scene: &mut Scene, journal: &Journal, random: &mut Random, begins: bool) -> Result<(), String> {
        if self.client.as_ref().is_some_and(|client| client.peer() != Peer::Open) {
            self.client = None;
        }
        if self.client.is_none() && (begins || self.waits.is_some()) {
            self.inbox.clear();
            let shard = random.below(scene.shards.len());
            self.client = scene.net.connect_to(shard, WEB);
            // What has no key may have been published: it is not sent again.
            self.waits = self.waits.take().filter(|(.., has_key)| *has_key);
            if let Some((topic, text, _)) = self.waits.clone() {
                self.send(topic, &text, true);
            }
        }
        if self.client.is_some() && self.waits.is_none() && begins && random.chance(400) {
            self.sent += 1;
            let (topic, text) = (TOPICS[random.below(3)], format!("{}-{}", self.number, self.sent));
            let has_key = random.chance(700);
            self.send(topic, &text, has_key);
            self.waits = Some((topic, text, has_key));
        }
        let Some(client) = &mut self.client else { return Ok(()) };
        client.read_into(&mut self.inbox, usize::MAX);
        let Some((status, body)) = answer(&mut self.inbox) else { return Ok(()) };
        let Some((topic, text, has_key)) = self.waits.take() else {
            return Err(format!("an answer to nothing: {body}"));
        };
        match status {
            200 => {
                self.acks += 1;
                let said: serde_json::Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
                let place = (said["epoch"].as_u64().unwrap_or(0), said["offset"].as_u64().unwrap_or(0));
                is_on_disk(journal, topic, place, &text).map_err(|fault| format!("acknowledged: {fault}"))?;
                // Some ask again, to be told the same.
                if has_key && random.chance(200) {
                    self.send(topic, &text, true);
                    self.waits = Some((topic, text, true));
                }
            }
            503 => {
                self.refusals += 1;
                if has_key {
                    self.send(topic, &text, true);
                    self.waits = Some((topic, text, true));
                }
            }
            _ => return Err(format!("answered {status}: {body}")),
        }
        Ok(())
    }

    fn send(&mut self, topic: &str, text: &str, has_key: bool) {
        let key = if has_key { format!("Idempotency-Key: {text}\r\n") } else { String::new() };
        let length = text.len();
        let request =
            format!("POST /topics/{topic} HTTP/1.1\r\nHost: sim\r\nContent-Length: {length}\r\n{key}\r\n{text}");
        if let Some(client) = &mut self.client {
            client.write(request.as_bytes());
        }
    }
}

impl Reader {
    const fn new(topic: &'static str) -> Self {
        Self { topic, client: None, inbox: Vec::new(), place: None, seen: Vec::new() }
    }

    fn poll(
        &mut self,
        scene: &mut Scene,
        journal: &Journal,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Result<(), String> {
        if self.client.as_ref().is_some_and(|client| client.peer() != Peer::Open) || random.chance(10) {
            self.client = None;
        }
        if self.client.is_none() {
            self.inbox.clear();
            let seen = self
                .place
                .map_or_else(|| "?history=100000".to_owned(), |(epoch, offset)| format!("?since={epoch}:{offset}"));
            tally.resumed += u64::from(self.place.is_some());
            let shard = random.below(scene.shards.len());
            self.client = scene.net.connect_to(shard, WEB);
            let head = "Host: sim\r\nAccept: text/event-stream\r\n\r\n";
            let request = format!("GET /topics/{}{seen} HTTP/1.1\r\n{head}", self.topic);
            if let Some(client) = &mut self.client {
                client.write(request.as_bytes());
            }
        }
        let Some(client) = &mut self.client else { return Ok(()) };
        client.read_into(&mut self.inbox, usize::MAX);
        while let (true, Some(end)) = (self.client.is_some(), self.inbox.windows(2).position(|two| two == b"\n\n")) {
            let block: Vec<u8> = self.inbox.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block).replace('\r', "");
            tally.read += u64::from(self.take(&block, journal)?);
        }
        Ok(())
    }

    /// An event. Returns whether it is a message.
    fn take(&mut self, block: &str, journal: &Journal) -> Result<bool, String> {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let id = field("id: ").and_then(|id| {
            let (epoch, offset) = id.split_once(':')?;
            Some((epoch.parse::<u64>().ok()?, offset.parse::<u64>().ok()?))
        });
        if block.contains("event: reset") {
            if self.place.is_some_and(|(_, offset)| offset == 0) {
                // Nothing had been published to the topic, so that nothing of it was on the disk.
                (self.place, self.client) = (None, None);
                return Ok(false);
            }
            return Err(format!("{}: a reset after {:?}: {block}", self.topic, self.place));
        }
        let (Some(id), Some(text)) = (id, field("data: ").filter(|text| !text.is_empty())) else {
            self.place = self.place.or(id);
            return Ok(false);
        };
        if let Some((epoch, offset)) = self.place
            && id != (epoch, offset + 1)
        {
            return Err(format!("{}: {id:?} after {epoch}:{offset}: {text}", self.topic));
        }
        is_on_disk(journal, self.topic, id, text).map_err(|fault| format!("heard: {fault}"))?;
        self.place = Some(id);
        self.seen.push(text.to_owned());
        Ok(true)
    }
}

/// Whether this place of the disk has this text.
fn is_on_disk(journal: &Journal, topic: &str, (epoch, offset): (u64, u64), text: &str) -> Result<(), String> {
    let is_it = |(message, _): &&Record| {
        message.topic.as_str() == topic && (message.epoch.0, message.offset.0) == (epoch, offset)
    };
    match journal.disk.iter().find(is_it) {
        Some((message, _)) if message.payload() == text.as_bytes() => Ok(()),
        found => Err(format!("{topic} {epoch}:{offset} {text:?} is on the disk as {found:?}")),
    }
}

/// The next whole response: its status and its body.
fn answer(inbox: &mut Vec<u8>) -> Option<(u16, String)> {
    let head_end = inbox.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&inbox[..head_end]).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.parse::<usize>().ok()?;
    if inbox.len() < head_end + length {
        return None;
    }
    let body = String::from_utf8_lossy(&inbox[head_end..head_end + length]).into_owned();
    inbox.drain(..head_end + length);
    Some((head.split(' ').nth(1)?.parse().ok()?, body))
}

/// What the journal's thread might do in one moment.
fn work(journal: &mut Journal, told: &mut [usize], failed: &mut [bool], random: &mut Random, lie: Option<Lie>) -> u64 {
    let mut failures = 0;
    for shard in 0..journal.ways.len() {
        if failed[shard] {
            if random.chance(200) {
                journal.ways[shard].works();
                failed[shard] = false;
            }
            continue;
        }
        if lie == Some(Lie::Unwritten) && random.chance(100) {
            let count = journal.ways[shard].take();
            journal.ways[shard].appends.clear();
            journal.ways[shard].tell_committed(count + told[shard]);
            told[shard] = 0;
        } else if random.chance(300) {
            told[shard] += journal.write(shard, random.within(1, 8));
        }
        if told[shard] > 0 && random.chance(500) {
            let some = random.within(1, told[shard]);
            journal.ways[shard].tell_committed(some);
            told[shard] -= some;
        }
        if random.chance(20) {
            // What is written has been told before: a failure is about the rest.
            journal.ways[shard].tell_committed(std::mem::take(&mut told[shard]));
            journal.ways[shard].fail();
            failed[shard] = true;
            failures += 1;
        }
    }
    failures
}

/// The disk after a crash; some of what was on its way may have reached it.
fn crash(journal: &mut Journal, random: &mut Random, lie: Option<Lie>) -> Vec<Record> {
    for shard in 0..journal.ways.len() {
        let most = random.below(5);
        journal.write(shard, most);
    }
    let mut disk = std::mem::take(&mut journal.disk);
    let victim = random.below(disk.len().max(1));
    match lie {
        Some(Lie::Lost) if !disk.is_empty() => {
            let (gone, _) = disk.remove(victim);
            close_gap(&mut disk, gone.topic.as_str());
        }
        Some(Lie::Twice) if !disk.is_empty() => {
            let again = disk[victim].clone();
            let topic = again.0.topic.clone();
            disk.insert(victim, again);
            close_gap(&mut disk, topic.as_str());
        }
        Some(Lie::Swapped) => {
            let topic = TOPICS[random.below(3)];
            let of: Vec<_> = (0..disk.len()).filter(|at| disk[*at].0.topic.as_str() == topic).collect();
            if let [.., one, two] = of[..] {
                disk.swap(one, two);
                close_gap(&mut disk, topic);
            }
        }
        Some(Lie::Anew) => {
            let topic = TOPICS[random.below(3)];
            disk.iter_mut().filter(|(message, _)| message.topic.as_str() == topic).for_each(|(message, _)| {
                message.epoch.0 += 1;
            });
        }
        _ => {}
    }
    disk
}

/// Numbers the messages of a topic anew: the lie is not that they have a gap.
fn close_gap(disk: &mut [Record], topic: &str) {
    let of_topic = disk.iter_mut().filter(|(message, _)| message.topic.as_str() == topic);
    of_topic.zip(1..).for_each(|((message, _), offset)| message.offset.0 = offset);
}

/// No message is there twice, and each topic's are without a gap.
fn is_in_order(journal: &Journal) -> Result<(), String> {
    for topic in TOPICS {
        let of = journal.of(topic);
        if let Some(at) = of.iter().zip(1..).position(|((offset, _), should)| *offset != should) {
            return Err(format!("{topic}: place {at} of the disk is {:?}", of[at]));
        }
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        of.iter().for_each(|(_, text)| *times.entry(text).or_default() += 1);
        if let Some((text, _)) = times.iter().find(|(_, times)| **times > 1) {
            return Err(format!("{topic}: {text} was published twice: {of:?}"));
        }
    }
    Ok(())
}

fn play(seed: u64, lie: Option<Lie>) -> Result<Tally, String> {
    let mut random = Random::new(seed);
    let (mut tally, mut disk, mut clock) = (Tally::default(), Vec::new(), None);
    let mut publishers: Vec<_> = (0..random.within(1, 8)).map(Publisher::new).collect();
    let mut readers: Vec<_> = TOPICS.iter().cycle().take(random.within(1, 6)).map(|topic| Reader::new(topic)).collect();
    for life in 0..LIVES {
        let shards = u16::try_from(random.within(1, 3)).unwrap_or(1);
        let (mut scene, mut journal) = scene(shards, random.below(1 << 30) as u64);
        journal.disk = disk;
        if let Some(clock) = clock {
            scene.clock = clock;
        }
        recover(&mut scene, journal.replay());
        publishers.iter_mut().for_each(|one| one.client = None);
        readers.iter_mut().for_each(|one| one.client = None);
        let (mut told, mut failed) = (vec![0; journal.ways.len()], vec![false; journal.ways.len()]);
        for _ in 0..random.within(20, 150) {
            publishers.iter_mut().try_for_each(|one| one.poll(&mut scene, &journal, &mut random, true))?;
            for shard in 0..scene.shards.len() {
                if random.chance(700) {
                    scene.turn(shard);
                }
            }
            readers.iter_mut().try_for_each(|one| one.poll(&mut scene, &journal, &mut random, &mut tally))?;
            tally.failures += work(&mut journal, &mut told, &mut failed, &mut random, lie);
            scene.clock.advance(std::time::Duration::from_millis(random.below(20) as u64));
            for shard in &scene.shards {
                shard.audit()?;
            }
        }
        if life + 1 < LIVES {
            let acks: u64 = publishers.iter().map(|one| one.acks).sum();
            disk = crash(&mut journal, &mut random, lie);
            tally.survivors += (disk.len() as u64).saturating_sub(acks);
        } else {
            rest(
                &mut scene,
                &mut journal,
                (&mut told, &mut failed),
                &mut publishers,
                &mut readers,
                &mut random,
                &mut tally,
            )?;
            disk = Vec::new();
        }
        clock = Some(scene.clock.clone());
    }
    tally.acks = publishers.iter().map(|one| one.acks).sum();
    tally.refusals = publishers.iter().map(|one| one.refusals).sum();
    Ok(tally)
}

/// The end: the disk works, nobody begins anything new, and all that is owed comes.
fn rest(
    scene: &mut Scene,
    journal: &mut Journal,
    (told, failed): (&mut [usize], &mut [bool]),
    publishers: &mut [Publisher],
    readers: &mut [Reader],
    random: &mut Random,
    tally: &mut Tally,
) -> Result<(), String> {
    for shard in 0..journal.ways.len() {
        journal.ways[shard].tell_committed(std::mem::take(&mut told[shard]));
        if std::mem::take(&mut failed[shard]) {
            journal.ways[shard].works();
        }
    }
    for _ in 0..40 {
        publishers.iter_mut().try_for_each(|one| one.poll(scene, journal, random, false))?;
        settle(scene, journal);
        readers.iter_mut().try_for_each(|one| one.poll(scene, journal, random, tally))?;
        scene.rest();
    }
    // Whoever has just left comes once more.
    for _ in 0..3 {
        scene.rest();
        readers.iter_mut().try_for_each(|one| one.poll(scene, journal, &mut Random::new(1), tally))?;
    }
    is_in_order(journal)?;
    if let Some(waits) = publishers.iter().find_map(|one| one.waits.as_ref()) {
        return Err(format!("nobody has answered {waits:?}"));
    }
    for reader in readers {
        let of: Vec<String> = journal.of(reader.topic).into_iter().map(|(_, text)| text).collect();
        if reader.seen != of {
            return Err(format!("{}: read {:?}, and there is {of:?}", reader.topic, reader.seen));
        }
    }
    Ok(())
}

#[test]
fn what_was_acknowledged_is_there_after_every_crash() {
    let seeds = env::var("SIMULATION_LIVES").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let mut all = Tally::default();
    for seed in 0..seeds {
        let tally = play(seed, None).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        all.acks += tally.acks;
        all.refusals += tally.refusals;
        all.read += tally.read;
        all.resumed += tally.resumed;
        all.failures += tally.failures;
        all.survivors += tally.survivors;
    }
    eprintln!("{seeds} seeds, {all:?}");
    for much in [all.acks, all.refusals, all.read, all.resumed, all.failures] {
        assert!(much > seeds, "{all:?}");
    }
    assert!(all.survivors > 0, "{all:?}");
}

#[test]
fn a_journal_that_lies_is_caught() {
    for lie in [Lie::Unwritten, Lie::Lost, Lie::Twice, Lie::Swapped, Lie::Anew] {
        let caught = (0..20).filter(|seed| play(*seed, Some(lie)).is_err()).count();
        assert!(caught >= 15, "{lie:?}: {caught} of 20");
    }
}
