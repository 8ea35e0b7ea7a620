//! The log of requests: what it tells, that it is off by default, and that it is rationed. A process of its own: shards log to
//! the process's subscriber.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot get what it needs has failed")]

mod common;
#[path = "common/log.rs"]
mod log;

use std::io::Read;
use std::sync::Arc;

use common::{Client, Running, backends, config};
use holdline::access::{ApiKeys, FromFile};
use holdline::app::standard_routes;
use log::Lines;

/// What lines about requests have in them.
const ABOUT: &str = "holdline::access";

/// Sends requests on one connection, and waits for its end.
fn ask(running: &Running, requests: &str) {
    let mut client = running.connect(0);
    client.send_raw(requests.as_bytes());
    let mut answers = Vec::new();
    client.stream.read_to_end(&mut answers).unwrap();
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

/// What an operator changes is told by the name of the key, and neither the key nor the request is.
fn operators_are_named(lines: &Lines) {
    let keys = "[[key]]\nname = \"ann\"\nkey = \"a-key-of-an-operator-0123456789\"\nadmin = true\n";
    let mut config = config(backends()[0], 1);
    config.admin = Some("127.0.0.1:0".parse().unwrap());
    config.access.api_keys = FromFile { path: None, content: Arc::new(ApiKeys::from_toml(keys).unwrap()) };
    let running = Running::start(&config, standard_routes());
    for (method, path) in [("GET", "/api/connections"), ("POST", "/api/kick"), ("GET", "/api/limits")] {
        let mut client = Client::connect(*running.at.last().unwrap());
        let body = if method == "POST" { r#"{"topic":"a-secret-topic"}"# } else { "" };
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Holdline: 1\r\n");
        let fields = format!("X-API-Key: a-key-of-an-operator-0123456789\r\nContent-Length: {length}\r\n");
        client.send_raw(format!("{head}{fields}\r\n{body}").as_bytes());
        assert!(client.exactly(usize::MAX).starts_with(b"HTTP/1.1 200 "));
    }
    let all = lines.take("");
    let told: Vec<_> = all.iter().filter(|line| line.contains("an operator asks for a change")).collect();
    assert!(told.len() == 1 && told[0].contains("key=\"ann\" method=POST path=/api/kick"), "{all:?}");
    assert!(all.iter().all(|line| !line.contains("a-key-of") && !line.contains("a-secret-topic")), "{all:?}");
}

#[test]
fn requests_are_told_without_their_queries() {
    let lines = Lines::start();
    operators_are_named(&lines);
    for backend in backends() {
        let mut config = config(backend, 1);
        ask(&Running::start(&config, standard_routes()), &get("/"));
        assert_eq!(lines.take(ABOUT), [""; 0], "it is off by default");

        config.access_rate = 100;
        let running = Running::start(&config, standard_routes());
        ask(&running, &get("/"));
        ask(&running, &get("/topics/news?token=secret&wait=0s"));
        ask(&running, &get("/topics/a%20%22b/info?token=secret"));
        ask(&running, "POST /topics/news HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
        ask(&running, "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n");
        let told = lines.take(ABOUT);
        for (line, parts) in told.iter().zip([
            ["method=\"GET\" path=\"/\" status=200 ", "connection=0:0:"],
            ["method=\"GET\" path=\"/topics/news\" status=200 ", "peer=127.0.0.1:"],
            ["method=\"GET\" path=\"/topics/a \\\"b/info\" status=400 ", "ms="],
            ["method=\"POST\" path=\"/topics/news\" status=200 ", "shard=0"],
            ["method=\"DELETE\" path=\"/\" status=405 ", "suppressed=0"],
        ]) {
            assert!(parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
        }
        assert!(told.len() == 5 && !told.concat().contains("secret"), "{told:?}");

        config.access_rate = 3;
        let running = Running::start(&config, standard_routes());
        ask(&running, &("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50) + &get("/")));
        let told = lines.take(ABOUT).len() as u64;
        assert!((3..30).contains(&told), "{told}");
        assert_eq!(running.count(|shard| shard.log_lines_suppressed_total.get()), 51 - told);
    }
}
