//! What durable topics cost: how fast a journal is read at the start, and how many messages a second it makes safe when a
//! shard has 1, 16, 256 or 4,096 of them on their way, beside a bare loop of one write and one fdatasync; and what publishing
//! costs a whole server, in CPU time and requests a second, to durable topics and to others.
//!
//! ```text
//! cargo bench --bench journal
//! cargo bench --bench journal -- replay | append | publish
//! HOLDLINE_BENCH_BEFORE="/path/of/another/holdline serve" cargo bench --bench journal -- publish
//! ```
//!
//! Without `--bench` (as tests run it) everything is small. The directory is under the target folder; `JOURNAL_BENCH_DIR`
//! names another one.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot go on has failed")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of a bench are small")]

mod common;
#[path = "journal/publish.rs"]
mod publish;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdline::config::{Config, Journal as JournalConfig, TopicRules};
use holdline::journal::port::{self, Append, ShardEnd, Verdict};
use holdline::journal::record::{Place, Record};
use holdline::journal::replay::Replay;
use holdline::journal::segment::{HEADER_BYTES, Header};
use holdline::mailbox::Doorbell;
use holdline::message::{Epoch, Kind, Message, Offset, Topic};
use holdline::metrics::JournalMetrics;
use holdline::server::control::ControlThread;
use holdline::server::journal::{Journal, Opening};

const PAYLOAD: [u8; 128] = [b'x'; 128];

/// How much is done.
struct Scale {
    messages: u64,
    topics: u64,
    /// Of each measurement of appends.
    time: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (is_bench, all) = (has("--bench"), !has("replay") && !has("append") && !has("publish"));
    let scale = if is_bench {
        Scale { messages: 1_000_000, topics: 1_000, time: Duration::from_secs(3) }
    } else {
        Scale { messages: 5_000, topics: 10, time: Duration::from_millis(50) }
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, Linux {}, holdline {}", kernel.trim(), env!("CARGO_PKG_VERSION"));
    if all || has("replay") {
        replay(&scale);
    }
    if all || has("append") {
        append(&scale);
    }
    if all || has("publish") {
        let effort = if is_bench {
            publish::Effort { rounds: 5, requests: 200_000 }
        } else {
            publish::Effort { rounds: 1, requests: 1_000 }
        };
        let before = std::env::var("HOLDLINE_BENCH_BEFORE").ok();
        publish::run(&Directory::new().0, effort, before.as_deref()).unwrap();
    }
}

fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn message(topic: &Topic, offset: u64, now_ms: u64) -> Message {
    let mut message = Message::new(topic.clone(), Kind::Text, &PAYLOAD, None);
    (message.epoch, message.offset, message.time_ms) = (Epoch(1), Offset(offset), now_ms);
    message
}

/// Segments with so many messages, in turn of so many topics.
fn segments(scale: &Scale, segment_bytes: usize) -> Vec<Vec<u8>> {
    let names = (0..scale.topics).map(|number| Topic::parse(format!("room/{number}").as_bytes(), 255).unwrap());
    let (names, now_ms): (Vec<_>, _) = (names.collect(), unix_ms());
    let mut segments: Vec<Vec<u8>> = Vec::new();
    for number in 0..scale.messages {
        if segments.last().is_none_or(|bytes| bytes.len() >= segment_bytes) {
            let number = segments.len() as u64 + 1;
            let header = Header { number, previous: number - 1, created_ms: now_ms, ..Header::default() };
            segments.push(header.to_bytes().to_vec());
        }
        let segment = segments.len() as u64;
        let bytes = segments.last_mut().unwrap();
        let topic = &names[usize::try_from(number % scale.topics).unwrap()];
        let message = message(topic, number / scale.topics + 1, now_ms);
        let position = bytes.len() as u64;
        let batch = u32::try_from(position - (position - HEADER_BYTES as u64) % 4096).unwrap();
        Record { batch, ..Record::of(&message, None) }.write(Place { segment, position }, bytes);
    }
    segments
}

fn replay(scale: &Scale) {
    let segments = segments(scale, 64 << 20);
    let bytes: usize = segments.iter().map(Vec::len).sum();
    let rules = TopicRules::new(&Config::default());
    let mut rates = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let mut replay = Replay::new(&rules, unix_ms());
        let mut messages = 0;
        for (number, bytes) in (1..).zip(&segments) {
            messages += replay.segment(bytes, number, Some(bytes.len() as u64)).unwrap().messages;
        }
        let found = replay.finish();
        let seconds = began.elapsed().as_secs_f64();
        assert_eq!((messages, found.topics.len() as u64), (scale.messages, scale.topics));
        rates.push(messages as f64 / seconds);
    }
    rates.sort_by(f64::total_cmp);
    println!(
        "replay: {:.0} messages/s ({} messages of 128 bytes, {} topics, {} MiB in memory; the middle of three)",
        rates[1],
        scale.messages,
        scale.topics,
        bytes >> 20
    );
}

/// A directory that is gone with the bench.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let parent =
            std::env::var_os("JOURNAL_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
        let path = parent.join(format!("journal-bench-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// So many bytes with one write, then one fdatasync, again and again: how often a second.
fn bare(directory: &Path, bytes: usize, time: Duration) -> f64 {
    let mut file = File::create(directory.join("bare")).unwrap();
    let (block, began, mut commits) = (vec![b'x'; bytes], Instant::now(), 0_u32);
    while began.elapsed() < time {
        file.write_all(&block).unwrap();
        file.sync_data().unwrap();
        commits += 1;
    }
    f64::from(commits) / began.elapsed().as_secs_f64()
}

/// Messages a second that a journal makes safe while so many are on their way, and how many a commit had.
fn journal(directory: &Path, in_flight: usize, time: Duration) -> (f64, f64) {
    let config = JournalConfig::default();
    let opening = Opening { now_ms: unix_ms(), ..Opening::default() };
    let journal = Journal::open(&directory.join("journal"), &config, &TopicRules::default(), opening).unwrap();
    let (doorbell, metrics) = (Arc::<Doorbell>::default(), Arc::<JournalMetrics>::default());
    let (mut shard, end) = port::pair(Arc::default(), Arc::clone(&doorbell));
    let mut offset = journal.topics.first().map_or(0, |topic| topic.cursor.offset.0);
    let mut control = ControlThread::start(vec![journal.job(vec![end], doorbell, Arc::clone(&metrics))]).unwrap();
    let topic = Topic::parse(b"room/1", 255).unwrap();
    let mut publish = |shard: &mut ShardEnd, count: usize| {
        for _ in 0..count {
            offset += 1;
            let (message, first_kept) = (message(&topic, offset, unix_ms()), Offset(offset.saturating_sub(256)));
            shard.appends.push(Append::Message { generation: 0, message, key: None, first_kept });
        }
        shard.appends.flush();
    };
    let (began, mut safe) = (Instant::now(), 0_u64);
    publish(&mut shard, in_flight);
    while began.elapsed() < time {
        match shard.verdicts.try_recv() {
            Some(Verdict::Committed { count, .. }) => {
                safe += u64::from(count);
                publish(&mut shard, count as usize);
            }
            Some(verdict) => panic!("{verdict:?}"),
            // A shard sleeps then; this one leaves the core to others.
            None => std::thread::sleep(Duration::from_micros(20)),
        }
    }
    let rate = safe as f64 / began.elapsed().as_secs_f64();
    control.end();
    let commits = metrics.commit_records.spread();
    (rate, commits.sum as f64 / commits.count().max(1) as f64)
}

fn append(scale: &Scale) {
    let directory = Directory::new();
    println!("appends of 128 bytes at {}:", directory.0.display());
    println!(
        "{:>10} {:>14} {:>12} {:>12} {:>14} {:>8}",
        "in flight", "messages/s", "per commit", "commits/s", "bare commits/s", "ratio"
    );
    for in_flight in [1, 16, 256, 4096] {
        let (rate, per_commit) = journal(&directory.0, in_flight, scale.time);
        // The same bytes as a commit has.
        let bare = bare(&directory.0, (per_commit * 176.0) as usize, scale.time);
        let commits = rate / per_commit;
        println!(
            "{in_flight:>10} {rate:>14.0} {per_commit:>12.1} {commits:>12.0} {bare:>14.0} {:>8.2}",
            commits / bare
        );
    }
}
