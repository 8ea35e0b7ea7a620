//! Subscribers drop and return while publishers go on: who comes back in time has missed nothing, who comes late is told so.
//!
//! `RESUME_SECONDS=N` has each of these last so long, per backend; a few seconds unless told.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;
#[path = "resume/publishers.rs"]
mod publishers;
#[path = "resume/record.rs"]
mod record;
#[path = "resume/subscriber.rs"]
mod subscriber;
#[path = "resume/workers.rs"]
mod workers;

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use common::{Running, backends, config, listen, until};
use holdline::app::standard_routes;
use holdline::config::{BackendChoice, History};
use record::Record;
use subscriber::{Subscriber, Transport};

const SHARDS: usize = 3;
const TOPICS: [&str; 2] = ["red", "green"];

fn duration() -> Duration {
    let seconds = std::env::var("RESUME_SECONDS").ok().map_or(2, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

fn start(backend: BackendChoice, messages_max: usize) -> Running {
    let mut config = config(backend, SHARDS);
    config.listeners.push(listen("tcp://127.0.0.1:0?framing=line&app=topic"));
    config.limits.history =
        History { messages_max, bytes_max: 1 << 30, bytes_total_max: 1 << 31, age_max: Duration::from_secs(600) };
    Running::start(&config, standard_routes())
}

/// Subscribers of every transport, some of one topic and some of both.
fn subscribers() -> Vec<Subscriber> {
    let one = [Transport::Json, Transport::Events, Transport::Lines, Transport::Poll];
    let both = [Transport::Events, Transport::Lines, Transport::Poll];
    let alone = TOPICS.iter().enumerate().flat_map(|(topic, _)| one.map(|transport| (transport, vec![topic])));
    let all = alone.chain(both.map(|transport| (transport, vec![1, 0])));
    (1..).zip(all).map(|(seed, (transport, topics))| Subscriber::new(seed, transport, topics)).collect()
}

/// Returns how many connections were dropped and how many resets there were.
fn assert_resumed(backend: BackendChoice, messages_max: usize) -> (u64, u64) {
    let running = start(backend, messages_max);
    let record = Record::new(TOPICS.len(), messages_max as u64);
    let subscribers = subscribers();
    let members: u64 = subscribers.iter().map(|subscriber| subscriber.topics.len() as u64).sum();
    let may_begin = AtomicBool::new(false);
    let (said, drops, resets) = thread::scope(|scope| {
        let (web, record, may_begin) = (running.at[0], &record, &may_begin);
        let run = |mut subscriber: Subscriber| {
            scope.spawn(move || {
                subscriber.run(web, record, may_begin);
                (subscriber.drops, subscriber.resets)
            })
        };
        let threads: Vec<_> = subscribers.into_iter().map(run).collect();
        until("all are members", || running.count(|shard| shard.subscriptions.get()) == members);
        may_begin.store(true, std::sync::atomic::Ordering::Release);
        let said = publishers::run(&running, record, duration());
        until("all is published", || {
            running.count(|shard| shard.publications_total.get()) >= said.messages + said.repeated
        });
        for (topic, name) in TOPICS.iter().enumerate() {
            publishers::end(web, name, |offset| record.end(topic, offset));
        }
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        ended.into_iter().fold((said, 0, 0), |all, one| (said, all.1 + one.0, all.2 + one.1))
    });
    let heard = record.assert_all_in_order();
    println!("{}, history of {messages_max}: {heard} messages, {drops} drops, {resets} resets", backend.name());
    assert_eq!(heard, said.messages + TOPICS.len() as u64, "nothing was published twice or lost");
    (drops, resets)
}

#[test]
fn who_returns_in_time_has_missed_nothing() {
    for backend in backends() {
        let (drops, resets) = assert_resumed(backend, 200_000);
        assert!(drops > 50, "{drops} drops");
        // In minutes at full speed a reader that returns and returns can fall behind further than that. Each reset has been
        // found to be due then too.
        assert!(resets == 0 || duration() > Duration::from_secs(10), "{resets} resets");
    }
}

#[test]
fn who_returns_late_is_told_so() {
    for backend in backends() {
        let (drops, resets) = assert_resumed(backend, 20);
        assert!(drops > 50 && resets > 10, "{drops} drops, {resets} resets");
    }
}
