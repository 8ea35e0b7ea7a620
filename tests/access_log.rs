//! The log of requests: what it tells, that it is off by default, and that it is rationed. A process of its own: shards log to
//! the process's subscriber.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot get what it needs has failed")]

mod common;

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use common::{Client, Running, backends, config};
use holdline::access::{ApiKeys, FromFile};
use holdline::app::standard_routes;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Those about requests, since the last call.
    fn take(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        text.lines().filter(|line| line.contains("holdline::access")).map(str::to_owned).collect()
    }
}

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
    let text = String::from_utf8(std::mem::take(&mut *lines.0.lock().unwrap())).unwrap();
    let told: Vec<_> = text.lines().filter(|line| line.contains("an operator asks for a change")).collect();
    assert!(told.len() == 1 && told[0].contains("key=\"ann\" method=POST path=/api/kick"), "{text}");
    assert!(!text.contains("a-key-of") && !text.contains("a-secret-topic"), "{text}");
}

#[test]
fn requests_are_told_without_their_queries() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    operators_are_named(&lines);
    for backend in backends() {
        let mut config = config(backend, 1);
        ask(&Running::start(&config, standard_routes()), &get("/"));
        assert_eq!(lines.take(), [""; 0], "it is off by default");

        config.access_rate = 100;
        let running = Running::start(&config, standard_routes());
        ask(&running, &get("/"));
        ask(&running, &get("/topics/news?token=secret&wait=0s"));
        ask(&running, &get("/topics/a%20%22b/info?token=secret"));
        ask(&running, "POST /topics/news HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
        ask(&running, "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n");
        let told = lines.take();
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
        let told = lines.take().len() as u64;
        assert!((3..30).contains(&told), "{told}");
        assert_eq!(running.count(|shard| shard.log_lines_suppressed_total.get()), 51 - told);
    }
}
