//! The log of requests: what it tells, that it is off by default, and that it is rationed. A process of its own: shards log to
//! the process's subscriber.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot get what it needs has failed")]

mod common;

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use common::{Running, backends, config};
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

#[test]
fn requests_are_told_without_their_queries() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
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
