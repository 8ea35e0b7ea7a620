//! Faults that seeds have found, each as a small scene whose every turn is scripted.

use std::time::Duration;

use holdline::close::CloseReason;
use holdline::config::Limits;
use holdline::rule::Limit;
use holdline::shard::Turn;
use holdline::sim::{Client, HurriedClock, Peer};
use holdline::time::{Clock, Instant};

use super::scene::{Scene, WEB, topic_of, upgrade};

#[test]
fn a_topic_outlives_its_owners_connections_in_a_drain() {
    let mut scene = Scene::new(3, Limits::default());
    let topic = topic_of(0, 3, 0);
    let (mut reader, mut writer) = (scene.member(1, &topic), scene.member(2, &topic));
    scene.rest();
    scene.control.drain(Duration::from_secs(10));
    scene.rest();
    writer.write(b"still here\n");
    scene.rest();
    assert_eq!(reader.read(), b"still here\n");
    scene.pass(10_500);
    drop((reader, writer));
    scene.rest();
    assert_eq!(scene.done, [true; 3]);
}

#[test]
fn who_has_just_come_has_time_to_speak_in_a_drain() {
    let mut scene = Scene::new(1, Limits::default());
    let old = scene.member(0, "t");
    scene.pass(3000);
    let mut newcomer = scene.member(0, "t");
    scene.rest();
    scene.control.drain(Duration::ZERO);
    scene.pass(300);
    assert_eq!((old.peer(), newcomer.peer()), (Peer::Finished, Peer::Open));
    newcomer.write(b"hello\n");
    scene.rest();
    assert_eq!(newcomer.read(), b"hello\n");
    // Once, however often it speaks.
    for _ in 0..10 {
        newcomer.write(b"and\n");
        scene.pass(100);
        newcomer.read();
    }
    assert_eq!(newcomer.peer(), Peer::Finished);
}

#[test]
fn a_late_handshake_leaves_a_heartbeat() {
    let limits = Limits { heartbeat_interval: Duration::from_secs(1), ..Limits::default() };
    let mut scene = Scene::new(1, limits);
    let mut client = scene.connect(0, WEB, "");
    scene.pass(3000);
    client.write(upgrade("/echo").as_bytes());
    scene.rest();
    assert!(client.read().starts_with(b"HTTP/1.1 101 "));
    scene.pass(1300);
    assert_eq!(client.read(), [0x89, 0], "a ping");
}

#[test]
fn a_publisher_of_many_messages_at_once_is_read_to_the_end() {
    let mut scene = Scene::new(1, Limits::default());
    let mut reader = scene.member(0, "t");
    let mut writer = scene.connect(0, WEB, &upgrade("/topics/t?echo=0"));
    scene.rest();
    let frames = [0x81, 0x81, 0, 0, 0, 0, b'x'].repeat(1000);
    assert_eq!(writer.write(&frames), frames.len());
    (0..5).for_each(|_| scene.rest());
    assert_eq!(reader.read(), b"x\n".repeat(1000));
}

#[test]
fn a_stalled_publisher_is_closed_without_waiting() {
    let mut scene = Scene::new(2, Limits { mailbox_capacity: 1, ..Limits::default() });
    let topic = topic_of(0, 2, 0);
    let _reader = scene.member(0, &topic);
    let mut writer = scene.member(1, &topic);
    scene.rest();
    // The owner does not turn: its mailbox fills up, and the writer's bytes are held.
    for _ in 0..5 {
        writer.write(b"one\ntwo\nthree\n");
        scene.turn(1);
    }
    scene.control.drain(Duration::ZERO);
    scene.clock.advance(Duration::from_millis(1200));
    (0..5).for_each(|_| scene.turn(1));
    assert_eq!(writer.peer(), Peer::Finished);
}

#[test]
fn who_is_heard_no_more_cannot_keep_a_shard_busy() {
    let mut scene = Scene::new(1, Limits::default());
    let mut client = scene.connect(0, WEB, "this is no request\r\n\r\n");
    scene.rest();
    assert!(client.read().starts_with(b"HTTP/1.1 400 "), "it is told, and its end has begun");
    let received = |scene: &Scene| scene.metrics.total(|shard| shard.bytes_received_total.get());
    let flood = vec![b'x'; 1 << 20];
    let mut taken = Vec::new();
    for _ in 0..10 {
        let before = received(&scene);
        for _ in 0..100 {
            client.write(&flood);
            scene.turn(0);
        }
        taken.push(received(&scene) - before);
        scene.clock.advance(Duration::from_millis(100));
    }
    assert!(taken.iter().all(|&bytes| bytes < 1 << 17), "in a tick: {taken:?}");
    assert!(taken.iter().sum::<u64>() > 1 << 13, "it is read all the same: {taken:?}");
    client.shutdown_write();
    scene.pass(2000);
    assert_eq!(scene.metrics.total(|shard| shard.connections.get()), 0, "its end is seen");
}

#[test]
fn all_who_join_a_topic_without_room_are_sent_away() {
    let mut scene = Scene::new(2, Limits { topics_max: 2, ..Limits::default() });
    let first = scene.member(0, &topic_of(0, 2, 0));
    scene.rest();
    let others = [(); 3].map(|()| scene.member(0, &topic_of(0, 2, 1)));
    scene.rest();
    assert_eq!(first.peer(), Peer::Open);
    assert!(others.iter().all(|other| other.peer() == Peer::Finished));
}

#[test]
fn a_peer_that_answered_once_is_found_dead_in_time() {
    let (interval, timeout) = (Duration::from_secs(1), Duration::from_secs(3));
    let limits = Limits { heartbeat_interval: interval, heartbeat_timeout: timeout, ..Limits::default() };
    let mut scene = Scene::new(1, limits);
    let mut client = scene.member(0, "t");
    scene.pass(1200);
    assert_eq!(client.read(), b"\n", "a heartbeat");
    client.write(b"\n");
    scene.pass(1000 + 100 + 3000 + 400);
    assert_eq!(client.read(), b"\n", "another");
    assert_ne!(client.peer(), Peer::Open);
}

#[test]
fn who_takes_the_last_subscribers_place_sees_no_gap() {
    let mut scene = Scene::new(3, Limits::default());
    let topic = topic_of(0, 3, 0);
    let (leaver, mut writer) = (scene.member(1, &topic), scene.member(2, &topic));
    scene.rest();
    // In the owner's mailbox lie: one, the leaving, two, the joining, three.
    writer.write(b"one\n");
    scene.turn(2);
    drop(leaver);
    (0..2).for_each(|_| scene.turn(1));
    writer.write(b"two\n");
    scene.turn(2);
    let mut joiner = scene.member(1, &topic);
    (0..2).for_each(|_| scene.turn(1));
    writer.write(b"three\n");
    scene.turn(2);
    scene.rest();
    assert_eq!(joiner.read(), b"three\n");
}

#[test]
fn a_slow_consumer_has_the_whole_close_timeout_to_read_why() {
    let (stall, close) = (Duration::from_secs(1), Duration::from_secs(5));
    let limits =
        Limits { queue_bytes_max: 128 * 1024, queue_stall_timeout: stall, close_timeout: close, ..Limits::default() };
    let mut scene = Scene::new(1, limits);
    let (mut slow, mut writer) = (scene.connect(0, WEB, &upgrade("/topics/t")), scene.member(0, "t"));
    scene.rest();
    slow.read();
    // The network holds the first message and a bit of the second, the queue the rest of it and one more.
    for _ in 0..4 {
        writer.write(&[b"x".repeat(60_000), b"\n".to_vec()].concat());
        scene.rest();
        writer.read();
    }
    // It reads again, but not enough for all that is due, and rests longer than a queue may stand still.
    let mut heard = Vec::new();
    slow.read_into(&mut heard, 30_000);
    scene.pass(3000);
    while slow.read_into(&mut heard, 30_000) > 0 {
        scene.rest();
    }
    assert_eq!(heard.len(), 2 * 60_004 + 4 + 13, "two messages and a close frame");
    assert!(heard.ends_with(b"\x0f\xa1slow_consumer"), "which says 4001");
    assert_eq!(slow.peer(), Peer::Finished);
}

/// A client's frame with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0], payload].concat()
}

const TEXT: u8 = 0x81;

fn echoing(scene: &mut Scene) -> Client {
    let mut client = scene.connect(0, WEB, &upgrade("/echo"));
    scene.rest();
    assert!(client.read().starts_with(b"HTTP/1.1 101 "));
    client
}

#[test]
fn the_numbers_of_batches_come_round_and_nobody_waits() {
    let mut scene = Scene::new(1, Limits::default());
    let (mut rare, mut busy) = (echoing(&mut scene), echoing(&mut scene));
    let ask = |scene: &mut Scene, client: &mut Client| {
        client.write(&frame(TEXT, b"x"));
        scene.turn(0);
        scene.turn(0);
        assert_eq!(client.read(), [0x81, 1, b'x']);
        assert!(!scene.shards[0].is_busy());
    };
    ask(&mut scene, &mut rare);
    // 16 bits without zero count 65535 batches.
    (1..65_535).for_each(|_| ask(&mut scene, &mut busy));
    ask(&mut scene, &mut rare);
}

#[test]
fn who_reads_slowly_is_not_taken_for_dead() {
    let limits = Limits {
        heartbeat_interval: Duration::from_secs(1),
        heartbeat_timeout: Duration::from_secs(1),
        queue_bytes_max: 64 * 1024,
        ..Limits::default()
    };
    let mut scene = Scene::new(1, limits);
    let mut client = echoing(&mut scene);
    let mut asked = 0;
    for _ in 0..40 {
        (0..100).for_each(|_| asked += client.write(&frame(TEXT, &[b'x'; 100])) / 106);
        scene.rest();
    }
    // It is not read any more, so it cannot answer pings, but it takes what it is sent.
    let mut bytes = Vec::new();
    while bytes.len() < asked * 102 * 9 / 10 {
        client.read_into(&mut bytes, 1000);
        scene.pass(100);
        assert_eq!(client.peer(), Peer::Open, "{} bytes of {asked} answers", bytes.len());
    }
    assert!(scene.clock.now() > Instant::from_millis(5000), "it takes a while");
}

#[test]
fn the_last_shard_notices_at_once_that_a_drain_is_over() {
    let mut scene = Scene::new(2, Limits::default());
    let client = scene.connect(1, WEB, "");
    scene.rest();
    scene.control.drain(Duration::from_secs(10));
    scene.rest();
    assert!(!scene.shards[0].is_busy(), "it waits for the other one");
    drop(client);
    (0..5).for_each(|_| scene.turn(1));
    assert_eq!(scene.done, [false, true]);
    assert!(scene.shards[0].is_busy(), "it may go now");
}

#[test]
fn tiny_messages_count_with_what_they_cost() {
    let mut scene = Scene::new(1, Limits { queue_bytes_max: 64 * 1024, ..Limits::default() });
    let mut slow = scene.member(0, "t");
    let mut writer = scene.connect(0, WEB, &upgrade("/topics/t?echo=0"));
    scene.rest();
    let mut published = 0;
    while scene.metrics.total(|shard| shard.closed(CloseReason::SlowConsumer)) == 0 && published < 400_000 {
        writer.write(&frame(TEXT, b"x"));
        scene.turn(0);
        published += 1;
    }
    let in_the_kernel = slow.read().len() / 2;
    assert!(published - in_the_kernel < 2000, "{published} messages, of which {in_the_kernel} were sent");
}

#[test]
fn answers_that_nobody_reads_are_within_the_bound_of_the_process() {
    let total = 256 * 1024;
    let limits = Limits { queue_bytes_total_max: total, ..Limits::default() };
    let mut scene = Scene::new(1, limits);
    let mut clients: Vec<_> = (0..40).map(|_| echoing(&mut scene)).collect();
    for _ in 0..40 {
        for client in &mut clients {
            client.write(&frame(TEXT, &[b'x'; 100]).repeat(100));
        }
        scene.rest();
        let queued = usize::try_from(scene.metrics.total(|shard| shard.queued_bytes.get())).unwrap();
        assert!(queued < 2 * total, "{queued} bytes are queued");
    }
    scene.pass(300);
    let slow = scene.metrics.total(|shard| shard.closed(CloseReason::SlowConsumer));
    assert!(slow > 0 && slow < 40, "{slow} of them are closed");
}

#[test]
fn subscribers_who_come_and_go_do_not_fill_the_memory() {
    let mut scene = Scene::new(2, Limits { mailbox_capacity: 1, ..Limits::default() });
    let topic = topic_of(0, 2, 0);
    // The owner does not turn, so that nothing leaves this shard.
    for _ in 0..40_000 {
        let member = scene.member(1, &topic);
        (0..2).for_each(|_| scene.turn(1));
        drop(member);
        (0..2).for_each(|_| scene.turn(1));
    }
    assert!(scene.metrics.total(|shard| shard.struck(Limit::MailboxCapacity)) > 0);
    let staged = scene.shards[1].audit().unwrap().staged_mail;
    assert!((60_000..66_000).contains(&staged), "{staged} requests wait");
    (0..50).for_each(|_| scene.rest());
}

#[test]
fn messages_that_never_end_are_within_the_bound_of_the_process() {
    let total = 256 * 1024;
    let limits = Limits { queue_bytes_total_max: total, ..Limits::default() };
    let mut scene = Scene::new(1, limits);
    let mut clients: Vec<_> = (0..40).map(|_| echoing(&mut scene)).collect();
    let half = [&[0x82, 0x80 | 127, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0], &[b'x'; 8 * 1024][..]].concat();
    for client in &mut clients {
        client.write(&half);
    }
    for _ in 0..20 {
        scene.pass(100);
        let unfinished = usize::try_from(scene.metrics.total(|shard| shard.unfinished_bytes.get())).unwrap();
        assert!(unfinished < 2 * total, "{unfinished} bytes are kept");
        scene.shards[0].audit().unwrap();
        for client in &mut clients {
            client.write(&[b'x'; 4 * 1024]);
        }
    }
    let refused = scene.metrics.total(|shard| shard.closed(CloseReason::TryAgainLater));
    assert!(refused > 0 && refused < 40, "{refused} of them are closed");
    let told = clients.iter_mut().map(|client| client.read().starts_with(&[0x88, 17, 0x03, 0xf5]));
    assert_eq!(told.map(u64::from).sum::<u64>(), refused, "they are told: 1013");
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: sim\r\nAccept: text/event-stream\r\n\r\n")
}

#[test]
fn who_joins_an_owner_that_has_no_time_misses_nothing() {
    let mut scene = Scene::new(1, Limits::default());
    let mut reader = scene.connect(0, WEB, "");
    let mut writer = scene.member(0, "t");
    scene.rest();
    reader.write(get("/topics/t").as_bytes());
    writer.write(&b"news\n".repeat(100));
    let hurried = HurriedClock::new(&scene.clock, Duration::from_micros(100));
    (0..20).for_each(|_| assert_eq!(scene.shards[0].turn(&hurried).unwrap(), Turn::Again));
    scene.rest();
    let heard = String::from_utf8(reader.read()).unwrap();
    assert_eq!(heard.matches("data: news\n").count(), 100, "{heard}");
}

fn poll(query: &str) -> String {
    format!("GET /topics/t?{query} HTTP/1.1\r\nHost: sim\r\n\r\n")
}

#[test]
fn a_poll_of_a_group_is_ready_though_a_request_waits_behind_it() {
    let mut scene = Scene::new(1, Limits::default());
    let mut worker = scene.connect(0, WEB, &poll("group=g&wait=60s").repeat(2));
    let mut writer = scene.member(0, "t echo=0");
    scene.rest();
    scene.pass(500);
    writer.write(b"one\ntwo\n");
    scene.rest();
    let heard = String::from_utf8(worker.read()).unwrap();
    assert!(heard.contains("\"one\"") && heard.contains("\"two\""), "{heard}");
    writer.write(b"three\n");
    scene.rest();
    let heard = String::from_utf8(worker.read()).unwrap();
    assert!(heard.contains("\"three\""), "{heard}");
}

#[test]
fn what_the_last_member_of_a_group_does_not_want_is_in_nobodys_way() {
    let mut scene = Scene::new(1, Limits::default());
    let mut worker = scene.member(0, "t group=g&echo=0");
    let (busy, mut writer) = (scene.member(0, "t group=g"), scene.member(0, "t"));
    scene.rest();
    // Each of them is for the other one, who does not read, until its queue is full.
    for _ in 0..6 {
        worker.write(&[b"x".repeat(60_000), b"\n".to_vec()].concat());
        scene.rest();
        writer.read();
    }
    writer.write(b"for the worker\n");
    scene.rest();
    assert_eq!(worker.read(), b"");
    drop(busy);
    scene.rest();
    assert_eq!(worker.read(), b"for the worker\n");
}

#[test]
fn a_poll_does_not_outlast_a_drain() {
    let mut scene = Scene::new(1, Limits::default());
    let mut client = scene.connect(0, WEB, &poll("wait=60s"));
    scene.rest();
    scene.control.drain(Duration::from_secs(2));
    scene.pass(3000);
    let heard = String::from_utf8(client.read()).unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 ") && heard.contains("Retry-After") && heard.ends_with("[]\n"), "{heard}");
}

#[test]
fn a_stream_of_too_many_topics_costs_its_owners_nothing() {
    let mut scene = Scene::new(1, Limits { subscriptions_max: 3, ..Limits::default() });
    let mut client = scene.connect(0, WEB, &get("/topics/a,b,c,d"));
    scene.rest();
    assert!(client.read().starts_with(b"HTTP/1.1 400 "));
    assert_eq!(scene.metrics.total(|shard| shard.topics_owned.get()), 0);
}

#[test]
fn a_turn_takes_on_no_more_than_it_has_time_for() {
    let limits = Limits { heartbeat_interval: Duration::from_secs(1), ..Limits::default() };
    let mut scene = Scene::new(1, limits);
    let mut members: Vec<_> = (0..100).map(|_| scene.member(0, "t")).collect();
    scene.rest();
    let received = |scene: &Scene| scene.metrics.total(|shard| shard.messages_received_total.get());
    let pinged = |scene: &Scene| scene.metrics.total(|shard| shard.heartbeats_sent_total.get());
    // Four steps between two looks at the clock take 100 µs: 60 in the 1.5 ms for what comes in.
    let turn = |scene: &mut Scene| {
        let clock = HurriedClock::new(&scene.clock, Duration::from_micros(100));
        scene.shards[0].turn(&clock).unwrap();
    };
    members.iter_mut().for_each(|member| assert_eq!(member.write(b"news\n"), 5));
    turn(&mut scene);
    assert!((40..=80).contains(&received(&scene)), "{} messages in a turn", received(&scene));
    scene.rest();
    assert_eq!(received(&scene), 100);
    // And 40 in the millisecond for pings, of which all are due.
    scene.clock.advance(Duration::from_millis(1300));
    turn(&mut scene);
    assert!((30..=60).contains(&pinged(&scene)), "{} pings in a turn", pinged(&scene));
    scene.rest();
    assert_eq!(pinged(&scene), 100);
}
