//! Responses that go on and on, and requests that wait: how they begin, and how they end.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;

use std::io::Read;
use std::time::Duration;

use holdline::app::standard_routes;
use holdline::config::Config;

use common::{Client, Running, backends, config, until};

fn each_backend(adjust: impl Fn(&mut Config), test: impl Fn(Running)) {
    for backend in backends() {
        let mut config = config(backend, 2);
        adjust(&mut config);
        test(Running::start(&config, standard_routes()));
    }
}

/// A client that has asked for this.
fn asked(running: &Running, path: &str, fields: &str) -> Client {
    let mut client = running.connect(0);
    client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
    client
}

const EVENTS: &str = "Accept: text/event-stream\r\n";

/// All that comes until the end.
fn rest(mut client: Client) -> String {
    let mut all = Vec::new();
    client.stream.read_to_end(&mut all).unwrap();
    String::from_utf8(all).unwrap()
}

#[test]
fn a_drain_tells_all_of_them_when_to_come_back() {
    each_backend(
        |_| {},
        |running| {
            let clients = [
                asked(&running, "/topics/t", EVENTS),
                asked(&running, "/topics/t,u", EVENTS),
                asked(&running, "/topics/t?stream=1", ""),
                asked(&running, "/topics/t?wait=100s", ""),
            ];
            until("all are there", || running.count(|shard| shard.subscriptions.get()) == 5);
            running.server.drain(Duration::from_millis(200));
            let [events, several, lines, poll] = clients.map(rest);
            for events in [events, several] {
                let (_, retry) = events.rsplit_once("retry: ").unwrap();
                assert!(retry.trim().parse::<u64>().unwrap() <= 200, "{events}");
            }
            let (_, last) = lines.rsplit_once("{\"retry\":").unwrap();
            let (retry, end) = last.split_once('}').unwrap();
            assert!(retry.parse::<u64>().unwrap() <= 200, "{lines}");
            assert_eq!(end, "\n\r\n0\r\n\r\n", "the last chunk: {lines}");
            assert!(poll.starts_with("HTTP/1.1 200") && poll.ends_with("\r\n\r\n[]\n"), "{poll}");
            assert!(poll.contains("Holdline-Cursor: ") && poll.contains("Retry-After: 1\r\n"), "{poll}");
            assert!(poll.contains("Connection: close\r\n"), "{poll}");
        },
    );
}

#[test]
fn silent_streams_hear_heartbeats_and_are_never_asked_for_one() {
    let quick = |config: &mut Config| {
        config.limits.heartbeat_interval = Duration::from_millis(100);
        config.limits.heartbeat_timeout = Duration::from_millis(100);
    };
    each_backend(quick, |running| {
        let mut events = asked(&running, "/topics/t", EVENTS);
        let mut lines = asked(&running, "/topics/t?stream=1", "");
        let (mut comments, mut empty) = (0, 0);
        while comments < 5 {
            comments += u32::from(events.line().unwrap() == ":");
        }
        assert_eq!(lines.answer().status, 200);
        while empty < 5 {
            let (length, line) = (lines.line().unwrap(), lines.line().unwrap());
            assert_eq!((length.trim(), line.as_str(), lines.line().as_deref()), ("00000001", "", Some("\r")));
            empty += 1;
        }
        assert_eq!(running.connections(), 2);
    });
}

#[test]
fn who_is_gone_waits_for_nothing() {
    each_backend(
        |_| {},
        |running| {
            let clients = [asked(&running, "/topics/t?wait=100s&group=g", ""), asked(&running, "/topics/t", EVENTS)];
            until("they wait", || running.count(|shard| shard.subscriptions.get()) == 2);
            drop(clients);
            until("they are gone", || {
                running.connections() == 0 && running.count(|shard| shard.subscriptions.get()) == 0
            });
        },
    );
}

#[test]
fn a_poll_waits_no_longer_than_the_limit_and_its_connection_goes_on() {
    each_backend(
        |config| config.limits.poll_wait_max = Duration::from_millis(300),
        |running| {
            let mut client = asked(&running, "/topics/t?wait=1000s", "");
            client.send_raw(b"POST /topics/t HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            client.send_raw(b"GET /topics/t?wait=100s&history=1 HTTP/1.1\r\nHost: a\r\n\r\n");
            // The publication waits behind the poll, which therefore ends without it.
            let answers: Vec<_> = (0..3).map(|_| client.answer()).collect();
            assert!(answers.iter().all(|answer| answer.status == 200));
            let cursors: Vec<_> =
                answers.iter().filter_map(|answer| answer.head.split("Holdline-Cursor: ").nth(1)).collect();
            assert!(cursors.len() == 2 && cursors[0] != cursors[1], "{cursors:?}");
        },
    );
}

#[test]
fn a_drain_does_not_wait_for_idle_connections() {
    let slow = |config: &mut Config| config.limits.close_timeout = Duration::from_secs(100);
    each_backend(slow, |running| {
        let mut client = asked(&running, "/topics/t/info", "");
        assert_eq!(client.answer().status, 200);
        running.server.drain(Duration::from_millis(100));
        // It does not look at its connection, as one in a pool.
        until("it is gone", || running.connections() == 0);
        client.end();
    });
}
