//! Who is in a topic, over several shards: lists, events, and what a reload makes of them.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;

use std::io::Read;

use holdline::access::Key;
use holdline::app::standard_routes;
use holdline::config::{Config, Pattern, Presence};
use serde_json::{Value, json};

use common::{Client, Running, backends, config, until};

const SECRET: &[u8] = b"a secret of more than 32 bytes, for tests";

fn each_backend(adjust: impl Fn(&mut Config), test: impl Fn(&Running, &Config)) {
    for backend in backends() {
        let mut config = config(backend, 3);
        config.presence = Presence::Members;
        adjust(&mut config);
        test(&Running::start(&config, standard_routes()), &config);
    }
}

/// A status and a body of JSON.
fn get(running: &Running, path: &str, fields: &str) -> (u16, Value) {
    let mut client = running.connect(0);
    client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n").as_bytes());
    let mut answer = String::new();
    client.stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

fn list(running: &Running, topic: &str) -> Value {
    get(running, &format!("/topics/{topic}/presence"), "").1
}

/// The names on the list, with a number where a member has more connections than one.
fn names(list: &Value) -> Vec<String> {
    let name = |one: &Value| match one["connections"].as_u64().unwrap() {
        1 => one["name"].as_str().unwrap().to_owned(),
        more => format!("{}*{more}", one["name"].as_str().unwrap()),
    };
    list["members"].as_array().unwrap().iter().map(name).collect()
}

fn has(running: &Running, topic: &str, expected: &[&str]) {
    until(&format!("{expected:?} are in {topic}: {}", list(running, topic)), || {
        names(&list(running, topic)) == expected
    });
}

fn event(client: &mut Client) -> Value {
    serde_json::from_str::<Value>(&client.text()).unwrap()["presence"].take()
}

/// The ids of members.
fn ids(members: &Value) -> Vec<&str> {
    members.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect()
}

/// What one who watches knows: follows its events until it knows these.
fn knows(watcher: &mut Client, known: &mut Vec<String>, expected: &[&str]) {
    while known != expected {
        let event = event(watcher);
        if event.get("members").is_some() {
            known.clear();
            known.extend(ids(&event["members"]).iter().map(ToString::to_string));
            continue;
        }
        for left in ids(&event["left"]) {
            let place =
                known.iter().position(|id| id == left).unwrap_or_else(|| panic!("{left} was not there: {event}"));
            known.remove(place);
        }
        for joined in ids(&event["joined"]) {
            assert!(!known.iter().any(|id| id == joined), "{joined} is there: {event}");
            known.push(joined.to_owned());
        }
        known.sort();
        assert_eq!(event["count"], json!(known.len()), "{event}");
    }
}

#[test]
fn those_who_are_there_are_listed_and_those_who_watch_follow() {
    each_backend(
        |_| {},
        |running, _| {
            let mut watcher = running.websocket("/topics/room?presence=1&member=eve");
            let mut known = Vec::new();
            knows(&mut watcher, &mut known, &["eve"]);
            let ann = [1, 2].map(|_| running.websocket("/topics/room?member=ann&name=Ann+Lee"));
            let ben = running.websocket("/topics/room?member=ben");
            knows(&mut watcher, &mut known, &["ann", "ben", "eve"]);
            has(running, "room", &["Ann Lee*2", "ben", "eve"]);
            let [one, two] = ann;
            drop((one, ben));
            knows(&mut watcher, &mut known, &["ann", "eve"]);
            has(running, "room", &["Ann Lee", "eve"]);
            let page = get(running, "/topics/room/presence?limit=1", "").1;
            assert_eq!(
                (names(&page), &page["count"], &page["next"]),
                (vec!["Ann Lee".to_owned()], &json!(2), &json!("member:ann"))
            );
            let page = get(running, "/topics/room/presence?after=member:ann", "").1;
            assert_eq!((names(&page), page.get("next")), (vec!["eve".to_owned()], None));
            drop((two, watcher));
            has(running, "room", &[]);
            until("nothing is kept", || running.count(|shard| shard.presence_members.get()) == 0);
        },
    );
}

#[test]
fn every_transport_has_members_and_most_have_events() {
    each_backend(
        |config| config.listeners.push(common::listen("tcp://127.0.0.1:0?app=topic")),
        |running, _| {
            let asked = |path: &str, fields: &str| {
                let mut client = running.connect(0);
                client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
                client
            };
            let mut events = asked("/topics/t?member=sse&presence=1", "Accept: text/event-stream\r\n");
            let mut lines = asked("/topics/t?member=lines&presence=1&stream=1", "");
            let mut raw = running.connect(1);
            raw.send_raw(b"t member=raw&presence=1\n");
            let chat = running.websocket("/chat/room?name=Ann");
            has(running, "t", &["lines", "raw", "sse"]);
            has(running, "chat/room", &["Ann"]);
            for client in [&mut events, &mut lines] {
                let mut all = String::new();
                while !all.contains("\"raw\"") {
                    all.push_str(&client.line().unwrap());
                    all.push('\n');
                }
                assert!(all.contains("{\"topic\":\"t\",\"presence\":{\"members\":["), "{all}");
                assert!(!all.contains("Accept") || all.contains("event: presence\ndata: {"), "{all}");
            }
            drop(chat);
            has(running, "chat/room", &[]);
        },
    );
}

#[test]
fn a_user_is_who_its_token_says() {
    each_backend(
        |config| {
            config.access.secret = Some(Key::secret(SECRET).unwrap());
            config.access.subscribe = vec![Pattern::parse("**").unwrap()];
        },
        |running, _| {
            let token =
                |user: &str| common::token(SECRET, &json!({ "sub": user, "exp": 32_503_680_000_u64 }).to_string());
            let ann = running
                .connect(0)
                .upgraded("/topics/t?member=ben", &format!("Authorization: Bearer {}\r\n", token("ann")));
            let fields = format!("Authorization: Bearer {}\r\n", token("eve"));
            let list = || get(running, "/topics/t/presence", &fields).1;
            until("ann is there", || list()["count"] == json!(1));
            assert_eq!((&list()["members"][0]["id"], &list()["members"][0]["user"]), (&json!("ann"), &json!(true)));
            assert_eq!(get(running, "/topics/t/presence", "").0, 401);
            drop(ann);
        },
    );
}

#[test]
fn a_list_that_is_full_counts_and_takes_those_in_when_it_has_room() {
    each_backend(
        |config| config.presence_members_max = 2,
        |running, _| {
            let mut members = Vec::new();
            for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
                members.push(running.websocket(&format!("/topics/t?member={name}")));
                until("it is counted", || list(running, "t")["count"] == json!(number + 1));
            }
            let full = list(running, "t");
            assert_eq!((names(&full).len(), &full["truncated"]), (2, &json!(true)));
            members.drain(..2);
            until("those who stay are listed", || {
                names(&list(running, "t")) == ["c", "d"] || {
                    // Each change is a reason to look.
                    drop(running.websocket("/topics/t?member=x"));
                    false
                }
            });
            assert_eq!(list(running, "t").get("truncated"), None);
        },
    );
}

#[test]
fn a_reload_turns_it_on_off_and_into_numbers() {
    each_backend(
        |config| config.presence = Presence::Off,
        |running, config| {
            let follow = |presence| {
                let difference = running.server.reloader().take_on(Config { presence, ..config.clone() }).unwrap();
                assert!(difference.at_start.is_empty(), "{difference:?}");
            };
            let mut watcher = running.websocket("/topics/t?presence=1");
            assert_eq!(event(&mut watcher), json!({ "off": true }));
            let (status, error) = get(running, "/topics/t/presence", "");
            assert_eq!((status, &error["error"]["code"]), (404, &json!("presence_off")));
            let others: Vec<_> = (0..50).map(|_| running.websocket("/topics/t")).collect();
            follow(Presence::Members);
            until("all are listed", || list(running, "t")["count"] == json!(51));
            assert!(list(running, "t")["members"][0]["id"].as_str().unwrap().starts_with("anon-"));
            let mut told = 0;
            while told < 51 {
                let event = event(&mut watcher);
                told += ids(event.get("members").unwrap_or(&event["joined"])).len();
            }
            follow(Presence::Count);
            while event(&mut watcher) != json!({ "count": 51 }) {}
            drop(others);
            while event(&mut watcher) != json!({ "count": 1 }) {}
            assert_eq!(get(running, "/topics/t/presence", ""), (200, json!({ "topic": "t", "count": 1 })));
            follow(Presence::Off);
            while event(&mut watcher) != json!({ "off": true }) {}
            until("nothing is kept", || running.count(|shard| shard.presence_members.get()) == 0);
        },
    );
}

#[test]
fn bad_parameters_are_refused() {
    each_backend(
        |_| {},
        |running, _| {
            for path in ["/topics/t/presence?limit=x", "/topics/t/presence?after=ann", "/topics/t?stream=1&presence=2"]
            {
                assert_eq!(get(running, path, "").0, 400, "{path}");
            }
            let long = format!("/topics/t?stream=1&member={}", "m".repeat(129));
            assert_eq!(get(running, &long, "").0, 400);
        },
    );
}
