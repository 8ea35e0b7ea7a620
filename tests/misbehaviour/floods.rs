//! Peers that send and do not read.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use holdline::close::CloseReason::SlowConsumer;
use holdline::config::Config;

use crate::beside_a_neighbour;
use crate::common::wire::{BINARY, FIN, PING, TEXT, masked};
use crate::common::{Client, Neighbour, PATIENCE, Running, until};

/// What one connection may have queued.
const QUEUE_BYTES_MAX: usize = 64 * 1024;
/// What goes beside the queue: one receive's answers, one message.
const SLACK_BYTES: u64 = 512 * 1024;

fn tight(config: &mut Config) {
    config.limits.queue_bytes_max = QUEUE_BYTES_MAX;
    config.limits.queue_stall_timeout = Duration::from_secs(1);
}

/// Sends the same bytes without reading until the server takes no more, then waits for what comes of it, with the
/// neighbour well and the queues bounded all the time.
fn flood(running: &Running, neighbour: &mut Neighbour, client: &mut Client, bytes: &[u8]) {
    client.stream.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let (mut blocked, mut sent, mut at) = (false, 0, 0);
    while running.closed(SlowConsumer) == 0 {
        assert!(Instant::now() < deadline, "it is never closed; {sent} bytes were taken, blocked: {blocked}");
        match client.stream.write(&bytes[at..]) {
            Ok(taken) => {
                sent += taken;
                at = (at + taken) % bytes.len();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                blocked = true;
                neighbour.is_well();
            }
            Err(_) => break,
        }
        let queued = running.count(|shard| shard.queued_bytes.get());
        assert!(queued <= QUEUE_BYTES_MAX as u64 + SLACK_BYTES, "{queued} bytes are queued");
    }
    neighbour.is_well();
    until("it is counted", || running.closed(SlowConsumer) == 1);
    assert!(blocked, "it was not read any more before it was closed; {sent} bytes were taken");
    assert!(running.count(|shard| shard.reading_paused_total.get()) > 0);
}

#[test]
fn a_flood_of_pings_is_not_read_and_then_closed() {
    beside_a_neighbour(tight, |running, neighbour| {
        let mut client = Client::with_small_window(running.at[0]).upgraded("/echo", "");
        flood(running, neighbour, &mut client, &masked(FIN | PING, &[b'x'; 125]).repeat(100));
    });
}

#[test]
fn a_flood_of_messages_is_not_read_and_then_closed() {
    beside_a_neighbour(tight, |running, neighbour| {
        let mut client = Client::with_small_window(running.at[0]).upgraded("/echo", "");
        flood(running, neighbour, &mut client, &masked(FIN | BINARY, &[0; 1000]).repeat(50));
    });
}

#[test]
fn a_flood_that_is_read_goes_through() {
    beside_a_neighbour(tight, |running, neighbour| {
        let mut client = running.websocket("/echo");
        let mut writer = client.stream.try_clone().unwrap();
        let bytes = masked(FIN | BINARY, &[7; 1000]).repeat(50);
        std::thread::scope(|scope| {
            scope.spawn(move || (0..100).for_each(|_| writer.write_all(&bytes).unwrap()));
            for _ in 0..5000 {
                assert_eq!(client.frame().unwrap().payload.len(), 1000);
            }
        });
        neighbour.is_well();
        assert_eq!(running.closed(SlowConsumer), 0);
    });
}

/// Publishes 1 KiB messages to a topic with a member who reads nothing, until `done`; another member reads all of them.
fn publish_until(running: &Running, neighbour: &mut Neighbour, path: &str, done: impl Fn() -> bool) -> usize {
    let topic = path.rsplit('/').next().unwrap();
    let mut publisher = running.websocket(&format!("/topics/{topic}?echo=0"));
    let mut reader = running.websocket(&format!("/topics/{topic}"));
    let deadline = Instant::now() + PATIENCE;
    let mut published = 0;
    while !done() {
        assert!(Instant::now() < deadline, "{published} messages did not do it");
        for _ in 0..20 {
            publisher.send_frame(FIN | TEXT, format!("{published:01000}").as_bytes());
            published += 1;
        }
        for number in published - 20..published {
            assert_eq!(reader.text(), format!("{number:01000}"), "a slow reader delays nobody");
        }
        neighbour.is_well();
        let queued = running.count(|shard| shard.queued_bytes.get());
        assert!(queued <= QUEUE_BYTES_MAX as u64 + SLACK_BYTES, "{queued} bytes are queued");
    }
    published
}

#[test]
fn a_slow_reader_is_closed_with_4001() {
    beside_a_neighbour(tight, |running, neighbour| {
        let mut slow = Client::with_small_window(running.at[0]).upgraded("/topics/busy", "");
        publish_until(running, neighbour, "/topics/busy", || running.closed(SlowConsumer) == 1);
        assert!(running.count(|shard| shard.deliveries_dropped_total.get()) > 0);
        assert_eq!(slow.close_code(), Some(4001), "it is told when it reads at last");
    });
}

/// What a slow reader reads in the end, as numbers.
fn read_late(slow: &mut Client, last: usize) -> Vec<usize> {
    let mut heard = Vec::new();
    while heard.last() != Some(&last) {
        heard.push(slow.text().parse().unwrap());
    }
    heard
}

fn no_stall(config: &mut Config) {
    tight(config);
    config.limits.queue_stall_timeout = Duration::from_secs(60);
}

#[test]
fn a_slow_reader_misses_the_oldest_where_the_route_says_so() {
    beside_a_neighbour(no_stall, |running, neighbour| {
        let dropped = || running.count(|shard| shard.deliveries_dropped_total.get());
        let mut slow = Client::with_small_window(running.at[0]).upgraded("/oldest/busy", "");
        let published = publish_until(running, neighbour, "/oldest/busy", || dropped() >= 100);
        let heard = read_late(&mut slow, published - 1);
        assert!(heard.is_sorted() && heard[0] == 0, "in order, from the first on");
        assert_eq!(heard.len() as u64 + dropped(), published as u64, "all are heard or counted");
        let newest = &heard[heard.len() - 30..];
        assert!(newest.windows(2).all(|pair| pair[1] == pair[0] + 1), "the newest are all there: {newest:?}");
        assert_eq!(running.closed(SlowConsumer), 0);
    });
}

#[test]
fn a_slow_reader_hears_the_latest_where_the_route_says_so() {
    beside_a_neighbour(no_stall, |running, neighbour| {
        let dropped = || running.count(|shard| shard.deliveries_dropped_total.get());
        let mut slow = Client::with_small_window(running.at[0]).upgraded("/latest/busy", "");
        let published = publish_until(running, neighbour, "/latest/busy", || dropped() >= 100);
        let heard = read_late(&mut slow, published - 1);
        assert!(heard.is_sorted() && heard[0] == 0, "in order, from the first on");
        assert_eq!(heard.len() as u64 + dropped(), published as u64, "all are heard or counted");
        assert_eq!(running.closed(SlowConsumer), 0);
    });
}

#[test]
fn a_reader_that_stalls_is_closed_whatever_its_policy() {
    beside_a_neighbour(tight, |running, neighbour| {
        let slow = Client::with_small_window(running.at[0]).upgraded("/oldest/busy", "");
        publish_until(running, neighbour, "/oldest/busy", || running.closed(SlowConsumer) == 1);
        drop(slow);
    });
}
