//! Another configuration for a server that runs: what follows it, what stays, and that nobody is dropped and nothing lost.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;
#[path = "common/program.rs"]
mod program;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use holdline::access::Key;
use holdline::app::standard_routes;
use holdline::close::CloseReason;
use holdline::config::{Config, Limits, Networks};
use holdline::message::{Kind, Topic};
use holdline::rule::Limit;

use common::wire::{FIN, PING};
use common::{Client, PATIENCE, Running, backends, config, until};
use program::{Program, Scratch, holdline};
use serde_json::json;

/// A server on each backend whose limits `before` has changed, and which follows those that `after` has changed.
fn reloaded(before: impl Fn(&mut Limits), after: impl Fn(&mut Limits), test: impl Fn(&Running, &dyn Fn())) {
    for backend in backends() {
        let mut first = config(backend, 2);
        before(&mut first.limits);
        let running = Running::start(&first, standard_routes());
        let mut second = first.clone();
        after(&mut second.limits);
        let reload = || {
            let difference = running.server.reloader().take_on(second.clone()).unwrap();
            assert!(!difference.changed.is_empty() && difference.at_start.is_empty(), "{difference:?}");
        };
        test(&running, &reload);
    }
}

#[test]
fn who_was_never_asked_for_a_sign_of_life_is_asked_now() {
    let off = |limits: &mut Limits| limits.heartbeat_interval = Duration::ZERO;
    let on = |limits: &mut Limits| limits.heartbeat_interval = Duration::from_millis(500);
    reloaded(off, on, |running, reload| {
        let mut idle: Vec<Client> = (0..20).map(|_| running.websocket("/echo")).collect();
        let begin = Instant::now();
        reload();
        for client in &mut idle {
            let ping = client.frame().unwrap();
            assert_eq!(ping.first, FIN | PING);
            client.send_frame(FIN | common::wire::PONG, &ping.payload);
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert_eq!(running.connections(), 20);
    });
}

#[test]
fn a_day_between_heartbeats_becomes_a_moment() {
    let day = |limits: &mut Limits| limits.heartbeat_interval = Duration::from_secs(24 * 3600);
    let moment = |limits: &mut Limits| {
        limits.heartbeat_interval = Duration::from_millis(300);
        limits.heartbeat_timeout = Duration::from_millis(300);
    };
    reloaded(day, moment, |running, reload| {
        let _silent: Vec<Client> = (0..5).map(|_| running.websocket("/echo")).collect();
        reload();
        until("who does not answer is closed", || running.closed(CloseReason::HeartbeatTimeout) == 5);
    });
}

#[test]
fn an_idle_timeout_begins_when_it_is_set() {
    let never = |limits: &mut Limits| limits.idle_timeout = Duration::ZERO;
    let second = |limits: &mut Limits| limits.idle_timeout = Duration::from_secs(1);
    reloaded(never, second, |running, reload| {
        // Some have what a timeout is noted in, since they have two subscriptions' worth of it.
        let (mut one, mut other) = (running.websocket("/echo"), running.websocket("/topics/t"));
        thread::sleep(Duration::from_millis(1500));
        let begin = Instant::now();
        reload();
        assert_eq!((one.close_code(), other.close_code()), (Some(1000), Some(1000)));
        assert!(begin.elapsed() >= Duration::from_millis(800), "{:?}", begin.elapsed());
    });
}

#[test]
fn limits_hold_from_the_next_message_on() {
    let small = |limits: &mut Limits| (limits.message_bytes_max, limits.history.messages_max) = (10, 2);
    reloaded(
        |_| {},
        small,
        |running, reload| {
            let topic = Topic::parse(b"t", Topic::BYTES_MAX).unwrap();
            let publisher = running.server.publisher();
            let mut client = running.websocket("/topics/t");
            (0..50).for_each(|_| client.send_text("twenty bytes of text"));
            (0..50).for_each(|_| assert_eq!(client.text(), "twenty bytes of text"));
            until("all are kept", || running.count(|shard| shard.history_messages.get()) == 50);
            reload();
            until("history has shrunk", || running.count(|shard| shard.history_messages.get()) == 2);
            assert!(publisher.publish(&topic, Kind::Text, b"twenty bytes of text").is_err());
            client.send_text("short");
            assert_eq!(client.text(), "short");
            client.send_text("twenty bytes of text");
            assert_eq!(client.close_code(), Some(1009));
        },
    );
}

#[test]
fn who_may_connect_is_asked_anew() {
    for backend in backends() {
        let first = config(backend, 1);
        let running = Running::start(&first, standard_routes());
        let upgrade = || {
            let mut client = running.connect(0);
            let fields = "Origin: https://a.example\r\nSec-WebSocket-Protocol: v2\r\n";
            client.send_raw(common::wire::handshake("/echo", fields).as_bytes());
            client.answer()
        };
        assert_eq!(upgrade().status, 403);
        let mut second = Config { subprotocols: vec!["v2".to_owned()], ..first };
        second.origins.list.push("https://a.example".to_owned());
        running.server.reloader().take_on(second).unwrap();
        until("it is let in", || upgrade().status == 101);
        assert!(upgrade().head.contains("Sec-WebSocket-Protocol: v2"));
    }
}

/// On all shards: each has a socket of its own.
#[test]
fn who_was_silenced_is_answered_again() {
    const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    let before = |limits: &mut Limits| {
        limits.exempt = Networks::default();
        (limits.accept_rate_per_address, limits.refusal_rate_per_address) = (1, 5);
    };
    reloaded(
        before,
        |limits| limits.refusal_rate_per_address = 0,
        |running, reload| {
            let is_answered = || running.is_answered(CROWD);
            let silenced = || running.count(|shard| shard.struck(Limit::RefusalRatePerAddress));
            // For a second, for two, and for four.
            while silenced() < 3 {
                is_answered();
            }
            until("it is silent", || !(0..8).any(|_| is_answered()));
            let begin = Instant::now();
            reload();
            until("it is answered by all", || (0..8).all(|_| is_answered()));
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        },
    );
}

/// Whoever is there when all are asked who they are is told so in its own way, and goes if it has no answer.
#[test]
fn who_is_there_has_to_show_a_token_when_that_is_asked_for() {
    const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
    for backend in backends() {
        let mut first = Config { drain: Duration::from_millis(300), ..config(backend, 2) };
        first.listeners.push(common::listen("tcp://127.0.0.1:0?app=topic&topic=t"));
        (first.access.leeway, first.access.renew_grace) = (Duration::ZERO, Duration::from_secs(3));
        let mut second = first.clone();
        second.access.secret = Some(Key::secret(SECRET).unwrap());
        let running = Running::start(&first, standard_routes());
        let get = |path: &str, fields: &str| {
            let mut client = running.connect(0);
            client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
            client
        };
        let (mut stays, mut goes) = (running.websocket("/topics/t?renew=1"), running.websocket("/topics/t"));
        let mut events = get("/topics/t", "Accept: text/event-stream\r\n");
        let mut lines = get("/topics/t?stream=1", "");
        let mut poll = get("/topics/t?wait=60s", "Connection: close\r\n");
        let mut raw = running.connect(1);
        until("all are there", || running.count(|shard| shard.subscriptions.get()) == 6);
        running.server.reloader().take_on(second).unwrap();
        assert!(stays.text().starts_with(r#"{"auth":{"expiring":true,"seconds_left":"#));
        let token =
            common::token(SECRET, r#"{"sub":"ann","exp":4000000000,"holdline":{"subscribe":["t"],"publish":["t"]}}"#);
        stays.send_text(&format!("AUTH {token}"));
        assert_eq!(stays.text(), r#"{"auth":{"renewed":true,"expires":4000000000}}"#);

        assert_eq!(goes.close_code(), Some(4002));
        let all = |client: &mut Client| String::from_utf8(client.exactly(usize::MAX)).unwrap();
        let told = all(&mut events);
        assert!(told.contains("event: expired") && told.contains("say who you are"), "{told}");
        assert!(all(&mut lines).ends_with("0\r\n\r\n"));
        assert!(all(&mut poll).ends_with("[]\n"), "it has what came until then");
        assert_eq!(raw.line(), None);
        until("they are counted", || running.closed(CloseReason::AuthExpired) == 4);
        assert_eq!(running.count(|shard| shard.auth_lapsed_total.get()), 6);
        stays.send_text("still here");
        assert_eq!(stays.text(), "still here");
    }
}

/// A server with a configuration file, and the lines that it logs.
struct Served {
    program: Program,
    file: Scratch,
    log: Receiver<String>,
}

impl Served {
    fn start(name: &str, text: &str) -> Self {
        let file = Scratch::with(name, text);
        let mut command = holdline(&["serve", "--config", file.path(), "--listen", "http://127.0.0.1:0"]);
        command.args(["--admin", "127.0.0.1:0", "--shards", "2"]).stderr(Stdio::piped());
        let mut program = Program::start(command);
        let stderr = BufReader::new(program.child.stderr.take().unwrap());
        let (line, log) = mpsc::channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|said| line.send(said)));
        Self { program, file, log }
    }

    fn address(&self) -> SocketAddr {
        self.program.address(0).parse().unwrap()
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file.path(), text).unwrap();
    }

    /// Asks for it at the admin listener, as curl does: the status and the JSON.
    fn post(&self) -> (u16, serde_json::Value) {
        let mut client = Client::connect(self.program.address(1).parse().unwrap());
        client.send_raw(b"POST /reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = String::from_utf8(client.exactly(usize::MAX)).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    fn hup(&self) {
        let status = Command::new("kill").args(["-HUP", &self.program.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for a line with this in it.
    fn hears(&self, what: &str) -> String {
        self.hears_until(what).pop().unwrap()
    }

    /// The same with all lines before it.
    fn hears_until(&self, what: &str) -> Vec<String> {
        let (deadline, mut lines) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            lines.push(self.log.recv_timeout(left).unwrap_or_else(|_| panic!("no line with {what}: {lines:?}")));
            if lines[lines.len() - 1].contains(what) {
                return lines;
            }
        }
    }
}

#[test]
fn a_wrong_file_changes_nothing_and_is_told_with_its_line() {
    let served = Served::start("half.toml", "[limits]\nsubscriptions_max = 5\n");
    let mut client = Client::websocket(served.address(), "/topics/t");
    served.write("[limits]\nmessage_bytes_max = 3\nsubscriptons_max = 6\n[topics.\"a b\"]\n");
    served.hup();
    let line = served.hears("not reloaded");
    let said = format!("unknown key \"limits.subscriptons_max\", {} line 3: did you mean", served.file.path());
    assert!(line.contains(&said), "{line}");
    assert!(served.hears("not reloaded").contains("line 4: write a topic's name"), "the second error has a line too");
    client.send_text("longer than three bytes");
    assert_eq!(client.text(), "longer than three bytes");

    std::fs::remove_file(served.file.path()).unwrap();
    served.hup();
    assert!(served.hears("not reloaded").contains("cannot be read: "));
    std::fs::create_dir(served.file.path()).unwrap();
    served.hup();
    assert!(served.hears("not reloaded").contains("it is no file"));
    std::fs::remove_dir(served.file.path()).unwrap();

    served.write("shards = 7\ndrain = \"1s\"\n[limits]\nmessage_bytes_max = 3\n");
    served.hup();
    let line = served.hears("configuration reloaded");
    assert!(line.contains("drain limits.message_bytes_max limits.subscriptions_max"), "{line}");
    client.send_text("longer than three bytes");
    assert_eq!(client.close_code(), Some(1009));
    served.hup();
    served.hears("nothing is different");
}

#[test]
fn operators_reload_over_http_too() {
    let served = Served::start("post.toml", "drain = \"1s\"\n");
    assert_eq!(served.post(), (200, json!({ "changed": [], "at_start": [] })));
    served.write("drain = \"2s\"\nbackend = \"epoll\"\n[topics.\"room/*\"]\nrate = 1\n");
    let told = json!({ "changed": ["drain", "topics.\"room/*\""], "at_start": ["backend"] });
    assert_eq!(served.post(), (200, told));
    assert!(served.hears("change at the next start only").contains("backend"));
    let mut client = Client::websocket(served.address(), "/topics/room/1");
    (0..2).for_each(|_| client.send_text("hi"));
    assert_eq!(client.close_code(), Some(1008), "the rule holds");

    served.write("drain = \"3 parsecs\"\n\n\nlimit = 3\n");
    let (status, body) = served.post();
    assert_eq!((status, &body["error"]["code"]), (422, &json!("bad_configuration")));
    let place = |line: u32| format!("{} line {line}: ", served.file.path());
    for (problem, (said, line)) in
        [("drain is \"3 parsecs\", ", 1), ("unknown key \"limit\", ", 4)].into_iter().enumerate()
    {
        let problem = body["error"]["problems"][problem].as_str().unwrap();
        assert!(problem.starts_with(said) && problem.contains(&place(line)), "{problem}");
    }
    let mut scrape = Client::connect(served.program.address(1).parse().unwrap());
    scrape.send_raw(b"GET /metrics HTTP/1.0\r\n\r\n");
    let metrics = String::from_utf8(scrape.exactly(usize::MAX)).unwrap();
    for line in ["config_reloads_total{result=\"followed\"} 2", "config_reloads_total{result=\"refused\"} 1"] {
        assert!(metrics.contains(&format!("holdline_{line}\n")), "{line}: {metrics}");
    }
}

#[test]
fn a_reload_after_which_fewer_are_asked_says_so() {
    let key = "[[key]]\nname = \"ops\"\nkey = \"an example of a key\"\nadmin = true\n";
    let file = Scratch::with("asked-keys.toml", key);
    let keys = format!("[auth]\napi_keys = {:?}\n", file.path());
    let secret = "[auth]\nsecret = \"a secret of at least thirty-two bytes\"\n";
    let clients = "clients are not asked any more who they are";
    let operators = "operators are not asked any more who they are";
    let served = Served::start("asked.toml", &keys);
    let ways: [(&str, &[&str]); 5] =
        [(secret, &[operators]), (&keys, &[]), ("", &[clients, operators]), (secret, &[]), ("", &[clients])];
    for (text, expected) in ways {
        served.write(text);
        served.hup();
        let mut told = served.hears_until("configuration reloaded");
        told.retain(|line| line.contains(" WARN "));
        let all = told.iter().zip(expected).all(|(line, said)| line.contains(said));
        assert!(all && told.len() == expected.len(), "{text}: {told:?}");
    }
}

#[test]
fn a_reload_says_what_waits_for_the_next_start() {
    const SAID: &str = "these settings change at the next start only: drain this server then";
    let served = Served::start("waits.toml", "drain = \"1s\"\n");
    served.write("backend = \"epoll\"\ndrain = \"2s\"\n[journal]\nage_max = \"2h\"\n[cluster]\nname = \"a\"\n");
    for _ in 0..2 {
        served.hup();
        let line = served.hears(SAID);
        let is_whole = line.contains(" WARN ") && line.contains("keys=\"backend journal.age_max cluster.name\"");
        assert!(is_whole, "as often as it is read: {line}");
    }
    served.write("drain = \"2s\"\n");
    served.hup();
    let told = served.hears_until("nothing is different");
    assert!(told.iter().all(|line| !line.contains(SAID)), "nothing waits any more: {told:?}");
}

#[test]
fn levels_of_the_log_change_while_it_runs() {
    let served = Served::start("levels.toml", "");
    let admin = served.program.address(1).parse().unwrap();
    let ends = |times: u32| {
        drop(Client::websocket(served.address(), "/echo"));
        let counted = format!("holdline_closed_total{{reason=\"peer_closed\"}} {times}\n");
        until("its end is counted", || {
            let mut scrape = Client::connect(admin);
            scrape.send_raw(b"GET /metrics HTTP/1.0\r\n\r\n");
            String::from_utf8(scrape.exactly(usize::MAX)).unwrap().contains(&counted)
        });
    };
    let levels =
        [("debug", true), ("info", false), ("info,holdline::shard=debug", true), ("debug,holdline::shard=info", false)];
    ends(1);
    for (times, (level, tells)) in (2..).zip(levels) {
        served.write(&format!("[log]\nlevel = \"{level}\"\n"));
        served.hup();
        served.hears("configuration reloaded");
        ends(times);
        if tells {
            served.hears("connection closed");
            continue;
        }
        served.hup();
        let told = served.hears_until("nothing is different");
        assert!(told.iter().all(|line| !line.contains("connection closed")), "{level}: {told:?}");
    }
}

/// Publishers and subscribers go on while the server is asked for another configuration a hundred times, some of them
/// wrong. Every message arrives once and in order at every subscriber, and no connection ends.
#[test]
fn a_hundred_reloads_under_load_drop_nobody_and_lose_nothing() {
    let served = Served::start("load.toml", "");
    let address = served.address();
    let stop = Arc::new(AtomicBool::new(false));
    let published = Arc::new(AtomicU64::new(0));
    let subscribers: Vec<_> = (0..8)
        .map(|number| {
            let mut client = Client::websocket(address, &format!("/topics/room/{}", number % 2));
            thread::spawn(move || {
                let (mut heard, mut next) = (0_u64, [0_u64; 2]);
                loop {
                    let text = client.text();
                    if text == "the end" {
                        return heard;
                    }
                    let (who, sequence) = text.split_once(' ').unwrap();
                    let (who, sequence): (usize, u64) = (who.parse().unwrap(), sequence.parse().unwrap());
                    assert_eq!(sequence, next[who], "of publisher {who}");
                    next[who] += 1;
                    heard += 1;
                }
            })
        })
        .collect();
    let publishers: Vec<_> = (0..4)
        .map(|number| {
            let (stop, published) = (Arc::clone(&stop), Arc::clone(&published));
            let mut client = Client::websocket(address, &format!("/topics/room/{}?echo=1", number % 2));
            thread::spawn(move || {
                let mut sequence = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let said = format!("{} {sequence}", number / 2);
                    client.send_text(&said);
                    sequence += 1;
                    published.fetch_add(1, Ordering::Relaxed);
                    // Its own comes back among the others': so it never runs far ahead.
                    while client.text() != said {}
                }
                client
            })
        })
        .collect();
    for round in 0..100 {
        let wrong = if round % 10 == 9 { "rat = 1" } else { "" };
        served.write(&format!(
            "drain = \"{}s\"\n[history]\nmessages_max = {}\n[heartbeat]\ninterval = \"{}ms\"\n\
             [topics.\"room/{}\"]\nhistory.bytes_max = \"{}KiB\"\n{wrong}\n",
            round + 1,
            round * 7 % 50,
            200 + round % 3 * 400,
            round % 2,
            round % 4,
        ));
        if round % 2 == 0 {
            served.hup();
        } else {
            assert_eq!(served.post().0, if wrong.is_empty() { 200 } else { 422 });
        }
        served.hears(if wrong.is_empty() { "configuration reloaded" } else { "not reloaded" });
        if round % 10 == 0 {
            drop(Client::websocket(address, "/echo"));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let clients: Vec<Client> = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
    for room in 0..2 {
        Client::websocket(address, &format!("/topics/room/{room}?echo=0")).send_text("the end");
    }
    let heard: u64 = subscribers.into_iter().map(|subscriber| subscriber.join().unwrap()).sum();
    let published = published.load(Ordering::Relaxed);
    assert_eq!(heard, 4 * published, "each message once at each of four subscribers");
    assert!(published > 100, "{published}");
    drop(clients);
}
