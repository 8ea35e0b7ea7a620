//! Durable topics: nobody hears of what a crash could take back, and what fails is refused.

use std::time::Duration;

use crossbeam::channel;
use holdline::message::{Kind, Message, Topic};
use holdline::shard::Live;
use holdline::shard::orders::{Order, Outcome, What};
use holdline::sim::{Client, Peer};

use super::journal::{Journal, config, pause, scene, settle};
use super::scene::{LINES, Scene, WEB, topic_of, upgrade};

fn post(topic: &str, key: &str, body: &str) -> String {
    let key = if key.is_empty() { String::new() } else { format!("Idempotency-Key: {key}\r\n") };
    let length = body.len();
    format!("POST /topics/{topic} HTTP/1.1\r\nHost: sim\r\nContent-Length: {length}\r\n{key}\r\n{body}")
}

fn text(client: &mut Client) -> String {
    String::from_utf8_lossy(&client.read()).into_owned()
}

fn offset(answer: &str) -> u64 {
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let after = answer.split_once("\"offset\":").unwrap().1;
    after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

fn info(scene: &mut Scene, topic: &str) -> String {
    let mut client = scene.connect(0, WEB, &format!("GET /topics/{topic}/info HTTP/1.1\r\nHost: sim\r\n\r\n"));
    scene.rest();
    text(&mut client)
}

#[test]
fn nobody_hears_of_a_message_before_it_is_on_the_disk() {
    for shards in [1, 3] {
        let (mut scene, mut journal) = scene(shards, 1);
        let topic = topic_of(0, shards, 0);
        let at = usize::from(shards - 1);
        let (mut reader, mut worker) =
            (scene.member(at, &topic), scene.connect(at, LINES, &format!("{topic} group=g\n")));
        scene.rest();
        let mut publisher = scene.connect(at, WEB, &post(&topic, "", "hi"));
        pause(&mut scene);
        assert_eq!((text(&mut reader), text(&mut worker), text(&mut publisher)), Default::default());
        assert!(info(&mut scene, &topic).contains("\"offset\":0,"), "nor sees it");
        assert_eq!(journal.write(0, 9), 1);
        pause(&mut scene);
        assert_eq!((text(&mut reader), text(&mut publisher)), Default::default(), "nobody has been told");
        journal.ways[0].tell_committed(1);
        scene.rest();
        assert_eq!((text(&mut reader), text(&mut worker)), ("hi\n".to_owned(), "hi\n".to_owned()));
        let answer = text(&mut publisher);
        assert!(offset(&answer) == 1 && answer.contains("\"subscribers\":2"), "{answer}");
        assert!(info(&mut scene, &topic).contains("\"offset\":1,"));
        scene.audit();
    }
}

#[test]
fn other_topics_never_wait_for_the_disk() {
    let (mut scene, _journal) = scene(1, 1);
    let (mut writer, mut reader) = (scene.member(0, "m"), scene.member(0, "m"));
    let mut durable = scene.connect(0, WEB, &post("t", "", "hi"));
    scene.rest();
    writer.write(b"at once\n");
    scene.rest();
    assert_eq!((text(&mut reader).as_str(), text(&mut durable).as_str()), ("at once\n", ""));
}

#[test]
fn what_fails_is_refused_in_every_way_and_its_places_are_given_again() {
    let (mut scene, mut journal) = scene(2, 1);
    let topic = topic_of(0, 2, 0);
    let mut reader = scene.member(1, &topic);
    let mut first = scene.connect(1, WEB, &post(&topic, "", "safe"));
    scene.rest();
    let mut second = scene.connect(1, WEB, &post(&topic, "key", "lost"));
    let mut socket = scene.connect(0, WEB, &upgrade(&format!("/topics/{topic}")));
    scene.rest();
    text(&mut socket);
    socket.write(&[0x81, 0x81, 0, 0, 0, 0, b'x']);
    scene.rest();
    assert_eq!(journal.write(0, 1), 1);
    // The disk has the first one; the shard hears both at the same time.
    journal.ways[0].tell_committed(1);
    journal.ways[0].fail();
    scene.rest();
    assert_eq!((offset(&text(&mut first)), text(&mut reader)), (1, "safe\n".to_owned()));
    let refusal = text(&mut second);
    assert!(refusal.starts_with("HTTP/1.1 503 ") && refusal.contains("Retry-After: 1\r\n"), "{refusal}");
    assert!(
        refusal.contains("{\"error\":{\"code\":\"journal_failed\",\"message\":\"the topic's messages"),
        "{refusal}"
    );
    assert!(socket.read().windows(2).any(|code| code == 1013_u16.to_be_bytes()), "try again later");
    // As long as it cannot be written nothing goes there.
    let mut third = scene.connect(1, WEB, &post(&topic, "", "early"));
    scene.rest();
    assert!(text(&mut third).contains("journal_failed") && journal.ways[0].take() == 0);
    journal.ways[0].works();
    let mut again = scene.connect(1, WEB, &post(&topic, "key", "lost"));
    settle(&mut scene, &mut journal);
    let answer = text(&mut again);
    assert!(offset(&answer) == 2 && !answer.contains("duplicate"), "{answer}");
    assert_eq!((text(&mut reader).as_str(), journal.of(&topic).len()), ("lost\n", 2));
    assert_eq!(scene.metrics.total(|shard| shard.durable_failed_total.get()), 3);
    scene.audit();
}

#[test]
fn what_is_sent_again_while_it_waits_is_published_once() {
    let (mut scene, mut journal) = scene(1, 1);
    let mut reader = scene.member(0, "t");
    let mut publishers: Vec<_> = (0..3).map(|_| scene.connect(0, WEB, &post("t", "key", "hi"))).collect();
    let mut other = scene.connect(0, WEB, &post("t", "other", "ho"));
    scene.rest();
    assert_eq!(journal.commit(0), 2);
    scene.rest();
    let answers: Vec<_> = publishers.iter_mut().map(text).collect();
    assert!(answers.iter().all(|answer| offset(answer) == 1), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.contains("duplicate")).count(), 2);
    assert_eq!((offset(&text(&mut other)), text(&mut reader).as_str()), (2, "hi\nho\n"));
    // Of one that was refused the repetition is the first.
    let mut publishers: Vec<_> = (0..2).map(|_| scene.connect(0, WEB, &post("t", "new", "hi"))).collect();
    scene.rest();
    journal.ways[0].fail();
    scene.rest();
    assert!(publishers.iter_mut().all(|one| text(one).contains("journal_failed")));
    scene.audit();
}

#[test]
fn thousands_of_verdicts_at_once_keep_their_order() {
    let (mut scene, mut journal) = scene(2, 1);
    let topic = topic_of(0, 2, 0);
    let (mut reader, mut writer) = (scene.member(1, &topic), scene.member(1, &topic));
    scene.rest();
    let lines: String = (0..3000).map(|number| format!("{number}\n")).collect();
    for part in lines.as_bytes().chunks(4000) {
        writer.write(part);
        (0..4).for_each(|_| scene.rest());
    }
    assert_eq!(journal.commit(0), 3000);
    let mut heard = String::new();
    for _ in 0..100 {
        scene.rest();
        heard.push_str(&text(&mut reader));
    }
    assert_eq!(heard, lines);
}

#[test]
fn more_than_may_wait_is_refused() {
    let (mut scene, mut journal) = scene(1, 1);
    let big = "x".repeat(900_000);
    let (mut waits, mut refused) = (Vec::new(), 0);
    for _ in 0..40 {
        let mut publisher = scene.connect(0, WEB, "");
        let request = post("t", "", &big);
        let mut rest = request.as_bytes();
        while !rest.is_empty() {
            let written = publisher.write(rest);
            rest = &rest[written..];
            scene.rest();
        }
        scene.rest();
        let answer = text(&mut publisher);
        if answer.is_empty() {
            waits.push(publisher);
        } else {
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"journal_busy\""), "{answer}");
            refused += 1;
        }
    }
    assert!(refused > 0 && waits.len() > 30, "{refused}");
    assert_eq!(scene.metrics.total(|shard| shard.durable_busy_total.get()), refused);
    assert!(scene.metrics.total(|shard| shard.durable_waiting_bytes.get()) <= 32 << 20);
    settle(&mut scene, &mut journal);
    let offsets: Vec<_> = waits.iter_mut().map(|one| offset(&text(one))).collect();
    assert!(offsets.is_sorted() && offsets.len() as u64 == *offsets.last().unwrap(), "{offsets:?}");
    scene.audit();
}

#[test]
fn a_drain_waits_for_the_disk_and_not_for_ever() {
    for hangs in [false, true] {
        let (mut scene, mut journal) = scene(2, 1);
        let topic = topic_of(0, 2, 0);
        let mut publisher = scene.connect(1, WEB, &post(&topic, "", "hi"));
        let mut silent = scene.connect(1, LINES, &format!("{topic}\nand this\n"));
        scene.rest();
        scene.control.drain(Duration::from_secs(1));
        scene.pass(500);
        assert_eq!((text(&mut publisher).as_str(), scene.done[0]), ("", false));
        if !hangs {
            assert_eq!(journal.commit(0), 2);
            scene.rest();
            assert!(offset(&text(&mut publisher)) <= 2);
        }
        scene.pass(5000);
        assert!(!hangs || text(&mut publisher).contains("journal_failed"), "nobody knows better");
        silent.read();
        let left = (publisher.peer() != Peer::Open, silent.peer() != Peer::Open);
        assert_eq!(left, (true, true), "hangs: {hangs}");
        drop((publisher, silent.read(), silent));
        scene.pass(4000);
        assert_eq!(scene.done, [true; 2], "hangs: {hangs}");
    }
}

fn reports(scene: &Scene, what: What) -> channel::Receiver<holdline::shard::orders::Report> {
    let (send, receive) = channel::unbounded();
    let order = Order { number: 1, what, reports: send };
    assert!(scene.postbox.order(holdline::id::ShardId(0), Box::new(order)).is_ok());
    receive
}

#[test]
fn topics_go_over_when_what_waits_is_safe() {
    let (mut scene, mut journal) = scene(1, 1);
    let mut publisher = scene.connect(0, WEB, &post("t", "", "hi"));
    scene.rest();
    scene.control.hold();
    let late = scene.connect(0, WEB, &post("t", "", "late"));
    let reports = reports(&scene, What::Legacies(0));
    scene.rest();
    assert!(reports.try_recv().is_err(), "not yet");
    assert_eq!(journal.commit(0), 1, "what has come since has no place");
    scene.rest();
    let Outcome::Legacies { legacies, next: None, .. } = reports.try_recv().unwrap().what else { panic!("all of it") };
    assert_eq!((legacies.len(), legacies[0].messages.len(), legacies[0].cursor.offset.0), (1, 1, 1));
    assert_eq!(offset(&text(&mut publisher)), 1);
    scene.control.give_topics_away();
    let mut late = late;
    scene.rest();
    assert!(text(&mut late).starts_with("HTTP/1.1 503 "));
}

#[test]
fn operators_are_told_when_their_message_is_safe() {
    let (mut scene, mut journal) = scene(1, 1);
    let publish = || What::Publish(Message::new(Topic::parse(b"t", 255).unwrap(), Kind::Text, b"hi", None));
    let outcomes = [(); 2].map(|()| reports(&scene, publish()));
    scene.rest();
    assert!(outcomes.iter().all(|one| one.try_recv().is_err()));
    journal.write(0, 1);
    journal.ways[0].tell_committed(1);
    journal.ways[0].fail();
    scene.rest();
    let told = outcomes.map(|one| match one.try_recv().unwrap().what {
        Outcome::Published(place) => place.map(|(cursor, _)| cursor.offset.0).map_err(|why| why.code()),
        other => panic!("{other:?}"),
    });
    assert_eq!(told, [Ok(1), Err("journal_failed")]);
    let refused = reports(&scene, publish());
    scene.rest();
    let Outcome::Published(Err(why)) = refused.try_recv().unwrap().what else { panic!("it is refused") };
    assert_eq!(why.code(), "journal_failed");
    scene.audit();
}

fn follow(scene: &mut Scene, durable: bool) {
    scene.control.replace(Live::of(&config(durable)));
    scene.doorbells.iter().for_each(|doorbell| doorbell.ring());
    scene.rest();
}

#[test]
fn a_reload_turns_it_on_and_off_and_keeps_the_order() {
    let (mut scene, mut journal) = scene(1, 1);
    let (mut reader, mut writer) = (scene.member(0, "t"), scene.member(0, "t"));
    scene.rest();
    writer.write(b"one\n");
    scene.rest();
    follow(&mut scene, false);
    writer.write(b"two\nthree\n");
    scene.rest();
    assert_eq!((text(&mut reader).as_str(), journal.ways[0].take()), ("", 1), "they wait, and are not written");
    journal.commit(0);
    scene.rest();
    assert_eq!(text(&mut reader), "one\ntwo\nthree\n");
    writer.write(b"four\n");
    scene.rest();
    assert_eq!((text(&mut reader).as_str(), journal.ways[0].take()), ("four\n", 0));
    let (topic, cursor) = journal.ways[0].forgotten.pop().unwrap();
    assert_eq!((topic.as_str(), cursor.offset.0), ("t", 0), "after a crash it begins anew");
    follow(&mut scene, true);
    writer.write(b"five\n");
    scene.rest();
    assert_eq!((text(&mut reader).as_str(), journal.commit(0)), ("", 1));
    scene.rest();
    assert_eq!((text(&mut reader).as_str(), journal.of("t")[1].0), ("five\n", 5));
    scene.audit();
}

/// While one waits to be written a reload turns durability off, and the disk fails: what need not be written is published.
#[test]
fn what_stood_behind_a_failure_is_published_if_it_need_not_be_written() {
    let (mut scene, mut journal): (Scene, Journal) = scene(1, 1);
    let mut reader = scene.member(0, "t");
    let mut lost = scene.connect(0, WEB, &post("t", "", "lost"));
    scene.rest();
    follow(&mut scene, false);
    let mut fine = scene.connect(0, WEB, &post("t", "", "fine"));
    scene.rest();
    journal.ways[0].fail();
    scene.rest();
    assert!(text(&mut lost).contains("journal_failed"));
    assert_eq!((offset(&text(&mut fine)), text(&mut reader).as_str()), (1, "fine\n"));
    scene.audit();
}
