//! The rules for topics, over real sockets: sections of the configuration decide who may publish, how fast, what is kept,
//! and what becomes of slow consumers.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;

use std::time::Duration;

use holdline::access::Key;
use holdline::app::standard_routes;
use holdline::config::{Config, Pattern, Publishers, SlowConsumer, TopicSection};
use holdline::message::{Kind, Topic};
use holdline::rule::{Limit, Rule};

use common::wire::{FIN, TEXT};
use common::{Client, Running, backends, config, listen, token, until};

fn section(pattern: &str) -> TopicSection {
    TopicSection::new(Pattern::parse(pattern).unwrap())
}

/// A server with these sections on each backend, and lines of raw TCP on its second listener.
fn with_sections(sections: &[TopicSection], test: impl Fn(&Running)) {
    for backend in backends() {
        let mut config = Config { topics: sections.to_vec(), ..config(backend, 2) };
        config.listeners.push(listen("tcp://127.0.0.1:0?app=topic"));
        test(&Running::start(&config, standard_routes()));
    }
}

/// What a request with this body is answered: the status, the head and the body.
fn post(running: &Running, path: &str, body: &str) -> (u16, String, String) {
    request(running, &format!("POST {path} HTTP/1.1\r\nContent-Length: {}", body.len()), body)
}

fn get(running: &Running, path: &str) -> String {
    request(running, &format!("GET {path} HTTP/1.1"), "").2
}

fn request(running: &Running, head: &str, body: &str) -> (u16, String, String) {
    let mut client = running.connect(0);
    client.send_raw(format!("{head}\r\nHost: here\r\nConnection: close\r\n\r\n{body}").as_bytes());
    let (mut head, mut line) = (String::new(), client.line().unwrap());
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    while line != "\r" {
        head.push_str(&line.to_ascii_lowercase());
        line = client.line().unwrap();
    }
    let body = std::iter::from_fn(|| client.line()).collect::<Vec<_>>().join("\n");
    (status, head, body)
}

fn topic(name: &str) -> Topic {
    Topic::parse(name.as_bytes(), Topic::BYTES_MAX).unwrap()
}

/// Says something at a line listener of topics.
fn tcp(running: &Running, topic: &str, said: &[&str]) -> Client {
    let mut client = running.connect(1);
    client.send_raw(format!("{topic}\n").as_bytes());
    said.iter().for_each(|line| client.send_raw(format!("{line}\n").as_bytes()));
    client
}

/// RFC 6750 section 3.1: the answer says that it is the token's scope.
#[test]
fn a_token_that_does_not_name_the_topic_has_an_insufficient_scope() {
    const SECRET: &[u8] = b"a secret of thirty-two bytes or more";
    let mut config = config(backends()[0], 1);
    config.access.secret = Some(Key::secret(SECRET).unwrap());
    let running = Running::start(&config, standard_routes());
    let shown = token(SECRET, r#"{"sub":"ann","exp":4102444800,"holdline":{"subscribe":["**"],"publish":["hers"]}}"#);
    for (topic, expected) in [("hers", "http/1.1 200 "), ("other", "http/1.1 403 ")] {
        let mut client = running.connect(0);
        let head = format!("POST /topics/{topic} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n");
        client.send_raw(format!("{head}Authorization: Bearer {shown}\r\n\r\nhi").as_bytes());
        let answer = String::from_utf8(client.exactly(usize::MAX)).unwrap().to_ascii_lowercase();
        assert!(answer.starts_with(expected), "{answer}");
        let challenge = "\r\nwww-authenticate: bearer realm=\"holdline\", error=\"insufficient_scope\"\r\n";
        assert_eq!(answer.contains(challenge), topic == "other", "{answer}");
    }
}

#[test]
fn where_nobody_may_publish_all_may_read_and_the_program_publishes() {
    let sections = [
        TopicSection { publish: Some(Publishers::Nobody), ..section("news/*") },
        TopicSection { publish: Some(Publishers::Nobody), ..section("chat/quiet") },
        TopicSection { publish: Some(Publishers::Authenticated), ..section("members/*") },
    ];
    with_sections(&sections, |running| {
        let mut reader = running.websocket("/topics/news/today");
        let (status, head, body) = post(running, "/topics/news/today", "spam");
        assert_eq!(status, 403, "{body}");
        assert!(!head.contains("www-authenticate"), "no token would help: {head}");
        assert!(body.contains("\"code\":\"publish_not_allowed\""), "{body}");
        let (status, head, body) = post(running, "/topics/members/all", "spam");
        assert_eq!(status, 401, "{body}");
        assert!(head.contains("www-authenticate: bearer"), "{head}");
        let lines = "{\"topic\":\"news/today\",\"text\":\"spam\"}\n{\"topic\":\"other\",\"text\":\"fine\"}\n";
        let (status, _, body) = post(running, "/topics", lines);
        let lines: Vec<&str> = body.split('\n').collect();
        assert_eq!(status, 200);
        assert!(lines[0].contains("publish_not_allowed") && lines[1].contains("\"topic\":\"other\""), "{body}");

        let mut intruder = running.websocket("/topics/news/today");
        intruder.send_text("spam");
        assert_eq!(intruder.close_words(), Some((1008, "you may not publish to this topic".to_owned())));
        tcp(running, "news/today", &["spam"]).end();
        until("all are counted", || running.count(|shard| shard.violations(Rule::PublishNotAllowed)) == 5);

        running.server.publisher().publish(&topic("news/today"), Kind::Text, b"true").unwrap();
        assert_eq!(reader.text(), "true", "and nothing before it");

        // What the application says about somebody who may not publish nobody hears, and it may stay.
        let mut quiet = running.websocket("/chat/quiet?name=spam");
        running.server.publisher().publish(&topic("chat/quiet"), Kind::Text, b"only this").unwrap();
        assert_eq!(quiet.text(), "only this");
    });
}

#[test]
fn a_topic_takes_so_many_in_a_second() {
    let sections = [TopicSection { rate: Some(5), ..section("room/*") }];
    with_sections(&sections, |running| {
        let mut reader = running.websocket("/topics/room/1");
        let mut flooder = running.websocket("/topics/room/1?echo=0");
        for number in 0..50 {
            flooder.try_send_raw(&common::wire::masked(FIN | TEXT, number.to_string().as_bytes()));
        }
        let words = "the topic takes no more messages this second; try again later";
        assert_eq!(flooder.close_words(), Some((1008, words.to_owned())));
        (0..5).for_each(|number| assert_eq!(reader.text(), number.to_string()));
        let (status, head, body) = post(running, "/topics/room/1", "one more");
        assert!((status == 429 && head.contains("retry-after: 1")) || status == 200, "{status} {body}");
        assert_eq!(post(running, "/topics/room/2", "another room").0, 200);
        tcp(running, "room/3", &["1", "2", "3", "4", "5", "6", "7"]).end();
        assert!(running.count(|shard| shard.struck(Limit::TopicRate)) >= 3);
        until("it takes messages again", || post(running, "/topics/room/1", "later").0 == 200);
        for _ in 0..100 {
            running.server.publisher().publish(&topic("room/4"), Kind::Text, b"the server itself").unwrap();
        }
        until("all have a place", || get(running, "/topics/room/4/info").contains("\"offset\":100,"));
    });
}

#[test]
fn each_topic_keeps_what_its_section_says() {
    let sections = [
        TopicSection { messages_max: Some(2), age_max: Some(Duration::from_secs(60)), ..section("short/*") },
        TopicSection { bytes_max: Some(0), ..section("none/**") },
    ];
    with_sections(&sections, |running| {
        for name in ["short/a", "none/a/b", "else"] {
            (0..3).for_each(|number| assert_eq!(post(running, &format!("/topics/{name}"), &number.to_string()).0, 200));
        }
        let kept = |name: &str| get(running, &format!("/topics/{name}/history")).matches("\"text\"").count();
        assert_eq!((kept("short/a"), kept("none/a/b"), kept("else")), (2, 0, 3));
        let info = get(running, "/topics/short/a/info");
        assert!(info.contains("\"messages_max\":2,\"bytes_max\":1048576,\"age_max_seconds\":60}"), "{info}");
        assert!(get(running, "/topics/none/unheard-of/info").contains("\"bytes_max\":0,"));
    });
}

#[test]
fn slow_consumers_are_treated_as_their_topics_section_says() {
    let sections = [TopicSection { slow_consumer: Some(SlowConsumer::KeepLatest), ..section("prices/*") }];
    for backend in backends() {
        let mut config = Config { topics: sections.to_vec(), ..config(backend, 1) };
        config.limits.queue_bytes_max = 16 * 1024;
        let running = Running::start(&config, standard_routes());
        let slow = |path: &str| Client::with_small_window(running.at[0]).upgraded(path, "");
        let (mut prices, mut other) = (slow("/topics/prices/gold"), slow("/topics/other"));
        let big = vec![b'x'; 8 * 1024];
        let publisher = running.server.publisher();
        let mut number = 0_u32;
        until("the slow consumer of the other topic is closed", || {
            for name in ["prices/gold", "other"] {
                let _ = publisher.publish(&topic(name), Kind::Binary, &big);
            }
            running.closed(holdline::close::CloseReason::SlowConsumer) == 1
        });
        until("the last one has its place", || publisher.publish(&topic("prices/gold"), Kind::Text, b"last").is_ok());
        assert_eq!(other.close_code(), Some(4001));
        while prices.message().unwrap().payload != b"last" {
            number += 1;
            assert!(number < 1_000_000);
        }
    }
}
