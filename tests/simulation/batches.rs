//! Batches for durable topics: their lines go as there is room, and what finds none in time is refused so that a client sees it.

use std::fmt::Write as _;

use holdline::sim::Client;

use super::journal::{Journal, scene};
use super::scene::{Scene, WEB, topic_of};
use super::streams::{Node, Streams, config};

/// A batch for a topic, whose lines say their numbers.
fn batch(topic: &str, lines: usize) -> String {
    let mut body = String::new();
    for number in 0..lines {
        writeln!(body, "{{\"topic\":\"{topic}\",\"text\":\"{number}\"}}").unwrap();
    }
    format!("POST /topics HTTP/1.1\r\nHost: sim\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn send(scene: &mut Scene, shard: usize, request: &str) -> Client {
    let mut client = scene.connect(shard, WEB, "");
    let mut rest = request.as_bytes();
    while !rest.is_empty() {
        rest = &rest[client.write(rest)..];
        scene.rest();
    }
    client
}

fn text(client: &mut Client) -> String {
    String::from_utf8_lossy(&client.read()).into_owned()
}

/// All that a client is sent: it takes it bit by bit.
fn all(scene: &mut Scene, client: &mut Client) -> String {
    let mut all = String::new();
    while {
        scene.rest();
        let more = text(client);
        all.push_str(&more);
        !more.is_empty()
    } {}
    all
}

/// Commits until nothing waits: thousands of lines take some turns.
fn settle(scene: &mut Scene, journal: &mut Journal, mut look: impl FnMut(&Scene)) {
    for _ in 0..200 {
        scene.rest();
        journal.commit(0);
        look(scene);
    }
}

/// The places of the lines, which have all been published.
fn offsets(answer: &str) -> Vec<u64> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let offset = |line: &str| {
        let (_, rest) = line.split_once("\"offset\":").unwrap_or_else(|| panic!("{line}"));
        rest.split(',').next().unwrap().parse().unwrap()
    };
    body.lines().map(offset).collect()
}

#[test]
fn batches_for_durable_topics_wait_for_room() {
    for shards in [1, 3] {
        let (mut scene, mut journal) = scene(shards, 1);
        let topic = topic_of(0, shards, 0);
        let request = batch(&topic, 10_000);
        let at = |number: usize| number % usize::from(shards);
        let mut clients: Vec<_> = (0..5).map(|number| send(&mut scene, at(number), &request)).collect();
        let mut answers = vec![String::new(); clients.len()];
        settle(&mut scene, &mut journal, |scene| {
            assert!(scene.metrics.total(|shard| shard.durable_waiting.get()) <= 8192, "half of what may wait");
            scene.audit();
            answers.iter_mut().zip(&mut clients).for_each(|(answer, client)| answer.push_str(&text(client)));
        });
        for answer in &answers {
            let offsets = offsets(answer);
            assert!(offsets.len() == 10_000 && offsets.is_sorted(), "a batch keeps its order");
        }
        assert_eq!(journal.of(&topic).len(), 50_000);
        assert_eq!(scene.metrics.total(|shard| shard.durable_busy_total.get()), 0);
    }
}

#[test]
fn batches_for_topics_of_a_cluster_wait_for_room() {
    let (mut nodes, mut streams) = (vec![Node::new(1, 1, &config())], Streams::default());
    let request = batch("t", 10_000);
    let mut clients: Vec<_> = (0..3).map(|_| send(&mut nodes[0].scene, 0, &request)).collect();
    let mut answers = vec![String::new(); clients.len()];
    for _ in 0..20 {
        streams.settle(&mut nodes);
        answers.iter_mut().zip(&mut clients).for_each(|(answer, client)| answer.push_str(&text(client)));
    }
    for answer in &answers {
        let offsets = offsets(answer);
        assert!(offsets.len() == 10_000 && offsets.is_sorted());
    }
    assert_eq!(nodes[0].scene.metrics.total(|shard| shard.cluster_busy_total.get()), 0);
}

#[test]
fn a_batch_that_finds_no_room_in_time_is_refused_as_a_whole() {
    let (mut scene, mut journal) = scene(1, 1);
    let request = batch("t", 10_000);
    let mut clients: Vec<_> = (0..4).map(|_| send(&mut scene, 0, &request)).collect();
    let mut plain = send(&mut scene, 0, &batch("m", 3));
    scene.rest();
    assert_eq!(offsets(&text(&mut plain)), [1, 2, 3], "others do not wait");
    scene.pass(9000);
    assert!(clients.iter_mut().all(|client| text(client).is_empty()), "they wait for the disk");
    scene.pass(2000);
    let answers: Vec<_> = clients.iter_mut().map(text).collect();
    // The first two have lines on their way, whose end nobody knows yet.
    assert_eq!((answers[0].as_str(), answers[1].as_str()), ("", ""));
    for answer in &answers[2..] {
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
        assert!(answer.contains("{\"error\":{\"code\":\"journal_busy\""), "{answer}");
    }
    settle(&mut scene, &mut journal, |_| {});
    for client in &mut clients[..2] {
        let answer = all(&mut scene, client);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let busy = answer.matches("\"journal_busy\"").count();
        assert_eq!((busy, answer.matches("\"offset\"").count()), (10_000 - 4096, 4096), "each line has its answer");
    }
    scene.audit();
    assert_eq!(journal.of("t").len(), 8192);
    // Who sends it again finds room.
    let mut again = send(&mut scene, 0, &batch("t", 100));
    settle(&mut scene, &mut journal, |_| {});
    assert_eq!(offsets(&text(&mut again)).len(), 100);
}

#[test]
fn what_waiting_batches_keep_in_memory_is_bounded() {
    let (mut scene, mut journal) = scene(1, 1);
    let body = format!("{{\"topic\":\"t\",\"text\":\"{}\"}}\n", "x".repeat(900_000)).repeat(4);
    let request = format!("POST /topics HTTP/1.1\r\nHost: sim\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut clients: Vec<_> = (0..16).map(|_| send(&mut scene, 0, &request)).collect();
    scene.rest();
    assert!(scene.metrics.total(|shard| shard.durable_waiting_bytes.get()) <= 16 << 20, "half of what may wait");
    // 16 MiB are on their way and 32 MiB wait: thirteen of 3.6 MB.
    let (waiting, refused): (Vec<_>, Vec<_>) =
        clients.iter_mut().map(|client| (text(client), client)).partition(|(answer, _)| answer.is_empty());
    assert_eq!((waiting.len(), refused.len()), (13, 3));
    let is_busy = |answer: &str| answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"journal_busy\"");
    assert!(refused.iter().all(|(answer, _)| is_busy(answer)), "at once, as a whole");
    settle(&mut scene, &mut journal, |_| {});
    for (_, client) in waiting {
        assert_eq!(offsets(&text(client)).len(), 4);
    }
    scene.audit();
}

#[test]
fn batches_whose_clients_have_gone_hold_up_no_others() {
    let (mut scene, mut journal) = scene(1, 1);
    let request = batch("t", 10_000);
    let gone: Vec<_> = (0..3).map(|_| send(&mut scene, 0, &request)).collect();
    drop(gone);
    let mut client = send(&mut scene, 0, &batch("t", 100));
    settle(&mut scene, &mut journal, |_| {});
    assert_eq!(offsets(&text(&mut client)).len(), 100);
    assert_eq!(scene.metrics.total(|shard| shard.durable_busy_total.get()), 0);
    scene.audit();
}

#[test]
fn a_batch_of_which_nothing_is_published_is_answered_as_one_message_is() {
    let (mut scene, mut journal) = scene(1, 1);
    let mut lost = send(&mut scene, 0, &batch("t", 10));
    scene.rest();
    journal.ways[0].fail();
    scene.rest();
    let answer = text(&mut lost);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
    assert!(answer.contains("{\"error\":{\"code\":\"journal_failed\""), "{answer}");
}
