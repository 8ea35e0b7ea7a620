//! One order for all: four publishers and a thousand subscribers over all shards.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;

use std::thread;

use common::wire::{FIN, TEXT, masked};
use common::{Client, Running, backends, config, until};
use holdline::app::standard_routes;
use holdline::config::BackendChoice;

const SUBSCRIBERS: usize = 1000;
const PUBLISHERS: usize = 4;
const MESSAGES: usize = 100;
const TOPICS: [&str; 2] = ["/topics/red", "/topics/green"];

/// What a publisher says, of one length so that readers can cut it without thinking: `p3 m042`.
fn said(publisher: usize, message: usize) -> String {
    format!("p{publisher} m{message:03}")
}

/// Bytes that a subscriber of one topic gets in all: a header of two bytes each.
fn bytes_in_all() -> usize {
    PUBLISHERS * MESSAGES * (2 + said(0, 0).len())
}

fn assert_one_order(backend: BackendChoice, shards: usize) {
    let mut config = config(backend, shards);
    config.limits.connections_max = SUBSCRIBERS + PUBLISHERS * TOPICS.len() + 16;
    let running = Running::start(&config, standard_routes());
    let mut subscribers: Vec<Client> =
        (0..SUBSCRIBERS).map(|number| running.websocket(TOPICS[number % TOPICS.len()])).collect();
    let publishers: Vec<Vec<Client>> = (0..PUBLISHERS)
        .map(|_| TOPICS.iter().map(|topic| running.websocket(&format!("{topic}?echo=0"))).collect())
        .collect();
    let members = (SUBSCRIBERS + PUBLISHERS * TOPICS.len()) as u64;
    until("all are members", || running.count(|shard| shard.subscriptions.get()) == members);
    let served = running.server.metrics().shards.iter().filter(|shard| shard.subscriptions.get() > 0).count();
    assert_eq!(served, shards, "all shards have some of them");

    let heard = thread::scope(|scope| {
        for (number, mut clients) in publishers.into_iter().enumerate() {
            scope.spawn(move || {
                for message in 0..MESSAGES {
                    let frame = masked(FIN | TEXT, said(number, message).as_bytes());
                    clients.iter_mut().for_each(|client| client.send_raw(&frame));
                }
                // They stay and read, so that nobody is a slow consumer.
                clients.iter_mut().for_each(|client| {
                    client.exactly(bytes_in_all() / PUBLISHERS * (PUBLISHERS - 1));
                });
            });
        }
        let quarters: Vec<_> = subscribers
            .chunks_mut(SUBSCRIBERS.div_ceil(4))
            .map(|part| {
                scope.spawn(|| part.iter_mut().map(|client| client.exactly(bytes_in_all())).collect::<Vec<_>>())
            })
            .collect();
        quarters.into_iter().flat_map(|quarter| quarter.join().unwrap()).collect::<Vec<_>>()
    });

    for (first, topic) in TOPICS.iter().enumerate() {
        let order = &heard[first];
        assert_complete(order, topic);
        for (number, other) in heard.iter().enumerate().skip(first).step_by(TOPICS.len()) {
            assert!(other == order, "{}: subscriber {number} of {topic} heard another order", backend.name());
        }
    }
    let publications = (PUBLISHERS * MESSAGES * TOPICS.len()) as u64;
    assert_eq!(running.count(|shard| shard.publications_total.get()), publications);
    assert_eq!(running.count(|shard| shard.deliveries_dropped_total.get()), 0);
}

/// Everything is there once, and each publisher's messages in its order.
fn assert_complete(bytes: &[u8], topic: &str) {
    assert_eq!(bytes.len(), bytes_in_all());
    let mut next = [0; PUBLISHERS];
    for frame in bytes.chunks(2 + said(0, 0).len()) {
        let text = str::from_utf8(&frame[2..]).unwrap();
        let publisher: usize = text[1..2].parse().unwrap();
        assert_eq!(text, said(publisher, next[publisher]), "{topic}");
        next[publisher] += 1;
    }
    assert_eq!(next, [MESSAGES; PUBLISHERS]);
}

#[test]
fn every_subscriber_sees_one_order_over_two_shards() {
    backends().into_iter().for_each(|backend| assert_one_order(backend, 2));
}

#[test]
fn every_subscriber_sees_one_order_over_four_shards() {
    backends().into_iter().for_each(|backend| assert_one_order(backend, 4));
}
