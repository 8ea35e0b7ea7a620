//! No message is lost while a server is replaced or told other settings: publishers and subscribers of all kinds at full
//! speed, and books of what was acknowledged and what was heard.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/program.rs"]
mod program;
#[path = "common/traffic.rs"]
mod traffic;
#[allow(dead_code, missing_docs, unreachable_pub, reason = "each test uses a part of it")]
#[path = "common/wire.rs"]
mod wire;

use program::{Program, Scratch, backends, holdline, until};
use std::process::Stdio;
use traffic::Traffic;

const LISTENERS: [&str; 2] = ["http://127.0.0.1:0", "tcp://127.0.0.1:0?app=topic"];

/// A server whose topics keep so many messages.
fn serve(backend: &str, urls: &[String], admin: &str, kept: &str, arguments: &[&str]) -> Program {
    let mut command = holdline(&["serve", "--admin", admin, "--backend", backend, "--drain", "300ms"]);
    for url in urls {
        command.args(["--listen", url]);
    }
    command.args(arguments).stderr(Stdio::inherit());
    // Subscribers of a slow machine are none to be closed.
    let settings = [("MESSAGES_MAX", kept), ("BYTES_MAX", "64MiB")];
    for (key, value) in settings {
        command.env(format!("HOLDLINE_HISTORY_{key}"), value);
    }
    command.env("HOLDLINE_LIMITS_QUEUE_BYTES_MAX", "16MiB").env("HOLDLINE_LOG", "warn");
    Program::start(command)
}

fn first(backend: &str, kept: &str, arguments: &[&str]) -> Program {
    serve(backend, &LISTENERS.map(str::to_owned), "127.0.0.1:0", kept, arguments)
}

/// Servers that follow each other, each with another number of shards, while messages flow.
fn upgraded(backend: &str, kept: &str) -> traffic::Books {
    let socket = Scratch::new(&format!("continuity-{backend}-{kept}"));
    let with = |shards| ["--upgrade", "--upgrade-socket", socket.path(), "--shards", shards];
    let mut server = first(backend, kept, &with("3"));
    let (web, lines) = (server.address(0).to_owned(), server.address(1).to_owned());
    let admin = server.address(2).to_owned();
    let traffic = Traffic::start(&web, &lines);
    for shards in ["1", "4", "2"] {
        traffic.flows();
        let next = serve(backend, &server.urls[..2], &admin, kept, &with(shards));
        std::mem::replace(&mut server, next).ends_well();
    }
    traffic.flows();
    traffic.end()
}

#[test]
fn no_message_is_lost_in_upgrades() {
    for backend in backends() {
        let books = upgraded(backend, "1000000");
        books.nothing_is_lost();
        assert_eq!(books.resets, 0, "{backend}: the past went over with the topics");
        assert!(books.reconnects > 0, "{backend}: the clients of a server that was replaced come back");
        eprintln!("{backend}, upgrades: {books}");
    }
}

#[test]
fn where_little_is_kept_what_is_missed_in_upgrades_is_told() {
    let books = upgraded("epoll", "16");
    books.nothing_is_lost();
    eprintln!("upgrades with 16 messages kept: {books}");
}

#[test]
fn no_message_is_lost_and_nobody_dropped_while_settings_change() {
    for backend in backends() {
        let settings = |beat: usize| format!("drain = \"300ms\"\n[heartbeat]\ninterval = \"{}s\"\n", 20 + beat % 2);
        let file = Scratch::with(&format!("continuity-{backend}.toml"), &settings(0));
        let server = first(backend, "1000000", &["--config", file.path(), "--shards", "3"]);
        let traffic = Traffic::start(server.address(0), server.address(1));
        for beat in 1..=15 {
            std::fs::write(file.path(), settings(beat)).unwrap();
            server.signal("-HUP");
            let reloads = || server.metric("holdline_config_reloads_total{result=\"followed\"}");
            until("the settings are read again", || reloads() == beat as u64);
            traffic.flows();
        }
        let books = traffic.end();
        books.nothing_is_lost();
        assert_eq!((books.resets, books.reconnects, books.refused), (0, 0, 0), "{backend}: nobody notices");
        eprintln!("{backend}, 15 reloads: {books}");
    }
}
