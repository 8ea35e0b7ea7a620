//! The API of the admin listener against a real server: what operators see, and what they do to connections and topics.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use holdline::app::standard_routes;
use holdline::close::CloseReason;
use holdline::config::{BackendChoice, Pattern, SlowConsumer, TopicSection};
use serde_json::{Value, json};

use common::operator::{Operator, id};
use common::wire::{CLOSE, FIN};
use common::{Client, Running, backends, config, until};

/// A server with an admin listener, which is the last one.
fn server(backend: BackendChoice, shards: usize) -> Running {
    let mut config = config(backend, shards);
    config.admin = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.listeners.push(common::listen("tcp://127.0.0.1:0?framing=line&app=topic&topic=lines"));
    Running::start(&config, standard_routes())
}

fn on_each_backend(test: impl Fn(&Running)) {
    for backend in backends() {
        for shards in [1, 2] {
            test(&server(backend, shards));
        }
    }
}

#[test]
fn connections_are_listed_page_by_page_and_found_by_what_they_are() {
    on_each_backend(|running| {
        let operator = Operator::of(running);
        let members: Vec<Client> = (0..23).map(|_| running.websocket("/topics/room/1")).collect();
        let _echo = running.websocket("/echo");
        let line = running.connect(1);
        until("all are there", || running.count(|shard| shard.subscriptions.get()) == 24);
        let all = operator.all("", 7);
        assert_eq!(all.len(), 25);
        assert_eq!(all.iter().map(id).collect::<BTreeSet<_>>().len(), 25, "each is there once");
        let of_room = operator.all("&topic=room/1", 10);
        assert_eq!(of_room.len(), members.len());
        assert!(of_room.iter().all(|one| one["topics"] == json!(["room/1"]) && one["state"] == "open"));
        let lines = operator.all("&protocol=tcp_line", 100);
        assert_eq!((lines.len(), &lines[0]["topics"]), (1, &json!(["lines"])));
        assert!(lines[0]["listener"].as_str().unwrap().starts_with("tcp://127.0.0.1:"));
        assert!(operator.all("&min_queue=1", 100).is_empty() && operator.all("&idle=1h", 100).is_empty());
        assert_eq!(operator.all("&idle=0s&topic=lines", 100).len(), 1);
        let port = line.stream.local_addr().unwrap();
        assert_eq!(lines[0]["address"], port.to_string());
        assert_eq!(operator.all("&address=127.0.0.0/8&protocol=tcp_line", 100).len(), 1);
        assert!(operator.all("&address=127.0.0.2", 100).is_empty());
        let one = operator.get(&format!("/api/connections/{}", id(&lines[0])));
        assert_eq!((&one["id"], &one["protocol"]), (&lines[0]["id"], &json!("tcp_line")));
        assert_eq!(operator.get("/api/connections?sort=queue")["connections"], json!([]));
    });
}

#[test]
fn who_is_kicked_hears_why_and_the_others_stay() {
    on_each_backend(|running| {
        let operator = Operator::of(running);
        let mut guests: Vec<Client> = (0..5).map(|_| running.websocket("/topics/bad")).collect();
        let mut good = running.websocket("/topics/good");
        until("all are there", || running.count(|shard| shard.subscriptions.get()) == 6);

        let first = id(&operator.all("&topic=bad", 100)[0]);
        let (status, answer) = operator.ask("DELETE", &format!("/api/connections/{first}"), "");
        assert_eq!((status, answer), (200, json!({"closed": 1, "done": true})));
        until("it has gone", || operator.all("&topic=bad", 100).len() == 4);
        let again = operator.ask("DELETE", &format!("/api/connections/{first}"), "").1;
        assert_eq!(again, json!({"closed": 0, "done": true}), "there is none of this generation any more");

        let kick = json!({"topic": "bad", "reason": "not here", "code": 4400});
        assert_eq!(operator.post("/api/kick", &kick), json!({"closed": 4, "done": true}));
        let mut said = BTreeSet::new();
        for guest in &mut guests {
            let close = guest.message().unwrap();
            assert_eq!(close.first, FIN | CLOSE);
            said.insert((close.payload[..2].to_vec(), String::from_utf8(close.payload[2..].to_vec()).unwrap()));
        }
        let code = |code: u16| code.to_be_bytes().to_vec();
        let expected = [(code(4003), "kicked".to_owned()), (code(4400), "not here".to_owned())];
        assert_eq!(said, BTreeSet::from(expected));
        assert_eq!(running.closed(CloseReason::Kicked), 5);
        good.send_text("still here");
        assert_eq!(good.text(), "still here");
    });
}

#[test]
fn topics_are_listed_and_closed_and_begin_anew() {
    on_each_backend(|running| {
        let operator = Operator::of(running);
        let mut members: Vec<Client> = (0..4).map(|_| running.websocket("/topics/news/a")).collect();
        members.extend((0..4).map(|_| running.websocket("/topics/news/a?group=g")));
        let _other = running.websocket("/topics/other");
        until("all are there", || running.count(|shard| shard.subscriptions.get()) == 9);
        for text in ["one", "two"] {
            let answer = operator.post("/api/publish", &json!({"topic": "news/a", "text": text}));
            assert_eq!(answer["subscribers"], 8);
        }
        let page = operator.get("/api/topics?prefix=news/");
        let topic = page["topics"][0].clone();
        assert_eq!(page["topics"].as_array().unwrap().len(), 1);
        assert_eq!((&topic["offset"], &topic["subscribers"], &topic["groups"]), (&json!(2), &json!(8), &json!(["g"])));
        assert_eq!(topic["history"]["messages"], 2);
        assert_eq!(operator.get("/api/topics/news/a"), topic);
        let top = operator.get("/api/topics?sort=subscribers&limit=2");
        let names: Vec<_> = top["topics"].as_array().unwrap().iter().map(|one| one["topic"].clone()).collect();
        assert_eq!(names, ["news/a", "other"]);

        let (status, closed) = operator.ask("DELETE", "/api/topics/news%2Fa", "");
        assert_eq!((status, &closed["closed"], &closed["done"]), (200, &json!(8), &json!(true)));
        for member in &mut members {
            assert_eq!(member.close_code(), Some(4003));
        }
        let mut back = running.websocket("/topics/news/a");
        until("it is back", || operator.get("/api/topics/news/a")["subscribers"] == 1);
        let answer = operator.post("/api/publish", &json!({"topic": "news/a", "base64": "aGk="}));
        assert_eq!((&answer["offset"], &answer["epoch"]), (&json!(1), &closed["epoch"]));
        assert!(answer["epoch"].as_u64() > topic["epoch"].as_u64());
        assert_eq!(back.message().unwrap().payload, b"hi");
        operator.refused("DELETE", "/api/topics/nobody", "", (404, "not_found", "topic"));
    });
}

#[test]
fn readers_over_http_hear_that_they_are_sent_away() {
    on_each_backend(|running| {
        let operator = Operator::of(running);
        let follow = |query: &str, fields: &str| {
            let mut client = running.connect(0);
            client.send_raw(format!("GET /topics/read{query} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes());
            client
        };
        let mut events = follow("", "Accept: text/event-stream\r\n");
        let mut poll = follow("?wait=30s", "");
        until("both are there", || running.count(|shard| shard.subscriptions.get()) == 2);
        let protocols = operator.all("&topic=read", 10).iter().map(|one| one["protocol"].clone()).collect::<Vec<_>>();
        assert!(protocols.contains(&json!("sse")) && protocols.contains(&json!("poll")));
        assert_eq!(operator.ask("DELETE", "/api/topics/read", r#"{"reason":"over"}"#).1["closed"], 2);
        let all = String::from_utf8(events.exactly(usize::MAX)).unwrap();
        assert!(all.ends_with("event: kicked\ndata: {\"code\":4003,\"reason\":\"over\"}\n\n"), "{all}");
        let all = String::from_utf8(poll.exactly(usize::MAX)).unwrap();
        assert!(
            all.starts_with("HTTP/1.1 403 ") && all.ends_with("{\"code\":\"kicked\",\"message\":\"over\"}}\n"),
            "{all}"
        );
    });
}

/// Requests that are cut, doubled and turned over, a few thousand: each has an answer, and the server goes on.
#[test]
fn nothing_that_is_sent_does_harm() {
    let running = server(BackendChoice::Epoll, 2);
    let operator = Operator::of(&running);
    let mut client = running.websocket("/echo");
    let paths =
        ["/api/connections?cursor=0:1&limit=3&topic=a", "/api/kick", "/api/topics/a/b", "/api/publish", "/api/drain"];
    let bodies =
        [r#"{"topic":"a","reason":"b","code":4003}"#, r#"{"topic":"t","text":"x"}"#, r#"{"id":"0:1:2"}"#, "[]"];
    let mut state = 7_u64;
    let mut random = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound
    };
    for _ in 0..1500 {
        let method = ["GET", "POST", "DELETE"][random(3)];
        let mut path = paths[random(paths.len())].to_owned();
        let mut body = bodies[random(bodies.len())].to_owned();
        for text in [&mut path, &mut body] {
            let at = 1 + random(text.len());
            match random(3) {
                0 => text.truncate(at),
                1 => text
                    .insert_str(at.min(text.len()), ["9999999999999999999", "%00", "%ff", "\"", "::", "-1"][random(6)]),
                _ => {}
            }
        }
        if method == "POST" && path == "/api/drain" {
            continue;
        }
        let body = if method == "GET" { "" } else { &body };
        let (status, answer) = operator.raw(method, &path, "X-Holdline: 1\r\n", body);
        assert!((200..500).contains(&status), "{method} {path} {body}: {status} {answer}");
    }
    client.send_text("still here");
    assert_eq!(client.text(), "still here");
}

/// Whoever subscribes while a topic is being closed is closed too, or hears all of the new epoch from its beginning.
#[test]
fn a_topic_that_is_closed_again_and_again_loses_nothing_silently() {
    on_each_backend(|running| {
        let operator = Operator::of(running);
        for round in 0..20 {
            let mut reader = running.websocket("/topics/hot");
            until("it is there", || running.count(|shard| shard.subscriptions.get()) == 1);
            for number in 0..3 {
                operator.post("/api/publish", &json!({"topic": "hot", "text": format!("{round} {number}")}));
                assert_eq!(reader.text(), format!("{round} {number}"));
            }
            assert_eq!(operator.ask("DELETE", "/api/topics/hot", "").1["closed"], 1);
            assert_eq!(reader.close_code(), Some(4003));
            drop(reader);
            until("it has gone", || running.connections() == 0);
        }
    });
}

#[test]
fn a_trace_tells_what_happens() {
    on_each_backend(|running| {
        let operator = Operator::of(running);
        let mut watched = running.websocket("/topics/stage");
        until("it is there", || running.count(|shard| shard.subscriptions.get()) == 1);
        let name = id(&operator.all("", 10)[0]);
        let follow = |query: &str| {
            let mut client = Client::connect(operator.0);
            let request =
                format!("GET /api/trace?{query} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
            client.send_raw(request.as_bytes());
            assert_eq!(client.answer().status, 200);
            client
        };
        let event = |client: &mut Client| loop {
            let line = client.line().expect("an event before the end");
            // The stream's own beginning has no data.
            if let Some(data) = line.strip_prefix("data: ").filter(|data| !data.is_empty()) {
                return serde_json::from_str::<Value>(data).unwrap();
            }
        };
        let wait_for = |client: &mut Client, name: &str| loop {
            let event = event(client);
            if event["event"] == name {
                return event;
            }
        };
        let mut of_connection = follow(&format!("connection={name}"));
        let mut of_topic = follow("topic=stage");
        assert_eq!(event(&mut of_connection)["event"], "tracing");
        assert_eq!(event(&mut of_topic)["event"], "tracing");

        watched.send_text("hello");
        assert_eq!(watched.text(), "hello");
        let message = wait_for(&mut of_connection, "message");
        assert_eq!((&message["bytes"], &message["connection"]), (&json!(5), &json!(name)));
        for trace in [&mut of_connection, &mut of_topic] {
            let published = wait_for(trace, "published");
            assert_eq!((&published["offset"], &published["topic"]), (&json!(1), &json!("stage")));
            assert_eq!((&published["subscribers"], &published["connection"]), (&json!(1), &json!(name)));
        }
        let _second = running.websocket("/topics/stage");
        assert_eq!(wait_for(&mut of_topic, "subscribed")["topic"], "stage");
        operator.post("/api/kick", &json!({"id": name}));
        assert_eq!(wait_for(&mut of_connection, "closed")["reason"], "kicked");
        assert_eq!(wait_for(&mut of_topic, "unsubscribed")["connection"], json!(name));
    });
}

#[test]
fn traces_are_few_and_end_with_their_readers() {
    let running = server(BackendChoice::Epoll, 2);
    let operator = Operator::of(&running);
    let open = || {
        let mut client = Client::connect(operator.0);
        client.send_raw(b"GET /api/trace?topic=t&stream=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let status = client.answer().status;
        (client, status)
    };
    let mut open_ones: Vec<Client> = (0..16)
        .map(|_| {
            let (client, status) = open();
            assert_eq!(status, 200);
            client
        })
        .collect();
    assert_eq!(open().1, 503);
    open_ones.pop();
    until("there is room again", || open().1 == 200);
}

#[test]
fn what_is_set_is_shown() {
    let running = server(BackendChoice::Epoll, 1);
    let operator = Operator::of(&running);
    let limits = operator.get("/api/limits");
    assert_eq!(limits["limits"]["limits.connections_max"], 512);
    assert_eq!(limits["struck"]["connections_max"], 0);
    let config = operator.get("/api/config")["config"].clone();
    assert_eq!((&config["backend"], &config["shards"], &config["drain"]), (&json!("epoll"), &json!(1), &json!("30s")));
}

#[test]
fn a_drain_is_begun_once_and_not_undone() {
    for backend in backends() {
        let running = server(backend, 2);
        let operator = Operator::of(&running);
        let mut client = running.websocket("/echo");
        operator.refused("DELETE", "/api/drain", "", (409, "not_draining", "does not drain"));
        operator.refused("POST", "/api/drain", r#"{"over":"30s","rate":5}"#, (400, "bad_parameter", "either"));
        assert_eq!(operator.get("/api/drain")["phase"], "running");
        let (status, answer) = operator.ask("POST", "/api/drain", r#"{"over":"200ms"}"#);
        assert_eq!((status, &answer["phase"], &answer["connections"]), (202, &json!("draining"), &json!(1)));
        operator.refused("POST", "/api/drain", r#"{"rate":5}"#, (409, "draining", "already"));
        operator.refused("DELETE", "/api/drain", "", (409, "draining", "cannot be undone"));
        assert_eq!(client.close_code(), Some(1001));
        drop(client);
        running.server.wait().unwrap();
    }
}

#[test]
fn what_cannot_be_understood_is_refused_in_words() {
    let running = server(BackendChoice::Epoll, 2);
    let operator = Operator::of(&running);
    for (method, path, body, expected) in [
        ("GET", "/api/connections/nonsense", "", (400, "bad_parameter", "SHARD:INDEX:GENERATION")),
        ("GET", "/api/connections/7:1:1", "", (400, "bad_parameter", "with 2 shards")),
        ("GET", "/api/connections/0:+1:1", "", (400, "bad_parameter", "SHARD:INDEX:GENERATION")),
        ("GET", "/api/connections/0:1:99999999", "", (400, "bad_parameter", "SHARD:INDEX:GENERATION")),
        ("GET", "/api/connections/0:4294967295:1", "", (404, "not_found", "connection")),
        ("GET", "/api/connections/0:0:0?x=1", "", (400, "bad_parameter", "nor any other")),
        ("GET", "/api/connections?limit=1000000000000", "", (400, "bad_parameter", "1 to 1000")),
        ("GET", "/api/connections?limit=0", "", (400, "bad_parameter", "1 to 1000")),
        ("GET", "/api/connections?cursor=9:9", "", (400, "bad_parameter", "cursor")),
        ("GET", "/api/connections?user_name=x", "", (400, "bad_parameter", "user_name")),
        ("GET", "/api/connections?protocol=gopher", "", (400, "bad_parameter", "websocket")),
        ("GET", "/api/connections?address=10.0.0.0/33", "", (400, "bad_parameter", "10.0.0.0/8")),
        ("GET", "/api/connections?idle=soon", "", (400, "bad_parameter", "30s")),
        ("GET", "/api/connections?min_queue=many", "", (400, "bad_parameter", "64KiB")),
        ("GET", "/api/connections?topic=a%20b", "", (400, "bad_topic", "space")),
        ("GET", "/api/connections?sort=queue&cursor=0:0", "", (400, "bad_parameter", "no further pages")),
        ("GET", "/api/topics?sort=name", "", (400, "bad_parameter", "subscribers")),
        ("GET", "/api/topics/nobody", "", (404, "not_found", "topic")),
        ("GET", "/api/trace?stream=1", "", (400, "bad_parameter", "name one")),
        ("GET", "/api/trace?stream=1&topic=a&connection=0:0:0", "", (400, "bad_parameter", "name one")),
        ("POST", "/api/kick", "", (400, "bad_body", "EOF")),
        ("POST", "/api/kick", "{}", (400, "bad_parameter", "say who")),
        ("POST", "/api/kick", r#"{"min_queue":0}"#, (400, "bad_parameter", "say who")),
        ("POST", "/api/kick", r#"{"usr":"x"}"#, (400, "bad_body", "unknown field `usr`")),
        ("POST", "/api/kick", r#"{"user":7}"#, (400, "bad_body", "line 1")),
        ("POST", "/api/kick", r#"{"user":"x","code":1006}"#, (400, "bad_parameter", "close code")),
        ("POST", "/api/kick", r#"{"user":"x","reason":"a\nb"}"#, (400, "bad_parameter", "control")),
        ("POST", "/api/publish", r#"{"topic":"t"}"#, (400, "bad_body", "either text or base64")),
        ("POST", "/api/publish", r#"{"topic":"t","base64":"?"}"#, (400, "bad_base64", "base64")),
        ("POST", "/api/drain", r#"{"rate":0}"#, (400, "bad_parameter", "1 or more")),
        ("POST", "/api/drain", r#"{"over":"forever"}"#, (400, "bad_parameter", "24h")),
        ("POST", "/api/connections", "{}", (405, "method_not_allowed", "GET")),
        ("PUT", "/api/kick", "{}", (405, "method_not_allowed", "POST")),
        ("GET", "/api/kick", "", (405, "method_not_allowed", "POST")),
        ("GET", "/api/nothing", "", (404, "not_found", "nothing")),
        ("POST", "/api/kick", &format!("{{\"user\":\"{}\"}}", "x".repeat(2 << 20)), (413, "message_too_big", "")),
    ] {
        operator.refused(method, path, body, expected);
    }
    assert_eq!(running.connections(), 0);
}

#[test]
fn what_another_sites_page_can_send_does_nothing() {
    let running = server(BackendChoice::Epoll, 1);
    let operator = Operator::of(&running);
    let _client = running.websocket("/topics/t");
    until("it is there", || running.count(|shard| shard.subscriptions.get()) == 1);
    let kick = r#"{"topic":"t"}"#;
    let status = |fields: &str| operator.raw("POST", "/api/kick", fields, kick).0;
    assert_eq!(status("Content-Type: text/plain\r\n"), 415, "a form");
    assert_eq!(status(""), 415);
    assert_eq!(status("Content-Type: application/json\r\nOrigin: https://evil.example\r\n"), 403);
    assert_eq!(status("Content-Type: application/json\r\nOrigin: null\r\n"), 403);
    for (path, expected) in [
        ("/api/connections", 403),
        ("/api/overview", 403),
        ("/metrics", 403),
        ("/", 403),
        // What machines look at has nothing to hide.
        ("/healthz", 200),
        ("/readyz", 200),
    ] {
        let mut rebound = Client::connect(operator.0);
        rebound.send_raw(format!("GET {path} HTTP/1.1\r\nHost: evil.example:9090\r\n\r\n").as_bytes());
        assert_eq!(rebound.answer().status, expected, "a name that was made to lead here: {path}");
    }
    assert_eq!(running.closed(CloseReason::Kicked), 0);
    assert_eq!(status("X-Holdline: 1\r\n"), 200);
    assert_eq!(running.closed(CloseReason::Kicked), 1);
}

#[test]
fn the_overview_names_who_reads_too_slowly_and_who_was_ended_for_it() {
    for backend in backends() {
        let mut config = config(backend, 2);
        config.admin = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        config.limits.queue_stall_timeout = Duration::from_secs(60);
        let mut prices = TopicSection::new(Pattern::parse("prices/*").unwrap());
        prices.slow_consumer = Some(SlowConsumer::DropOldest);
        config.topics.push(prices);
        let running = Running::start(&config, standard_routes());
        let operator = Operator::of(&running);
        let slow = |topic: &str| Client::with_small_window(running.at[0]).upgraded(&format!("/topics/{topic}"), "");
        let (behind, ended) = (slow("prices/a"), slow("news"));
        let _reader = running.websocket("/topics/other");
        until("all are there", || running.count(|shard| shard.subscriptions.get()) == 3);
        let told = |list: &str, client: &Client| {
            let address = client.stream.local_addr().unwrap().to_string();
            let overview = operator.get("/api/overview");
            overview[list].as_array().unwrap().iter().find(|one| one["address"] == address).cloned()
        };
        let text = "x".repeat(500_000);
        until("both are told", || {
            for topic in ["prices/a", "news", "other"] {
                operator
                    .post("/api/publish", &json!({"topic": topic, "text": if topic == "other" { "" } else { &text }}));
            }
            told("slow", &behind).is_some() && told("slow_ended", &ended).is_some()
        });
        let one = told("slow", &behind).unwrap();
        assert!(one["queued_bytes"].as_u64().unwrap() > 4096, "{one}");
        assert_eq!((&one["protocol"], &one["user"]), (&json!("websocket"), &Value::Null));
        let known = operator.get(&format!("/api/connections/{}", id(&one)));
        assert_eq!((&known["address"], &known["topics"]), (&one["address"], &json!(["prices/a"])));
        let one = told("slow_ended", &ended).unwrap();
        assert!(one["ended_seconds"].as_f64().is_some_and(|age| (0.0..60.0).contains(&age)), "{one}");
        assert!(one["queued_bytes"].as_u64().unwrap() > 0, "{one}");
        assert_eq!(running.closed(CloseReason::SlowConsumer), 1);
        assert_eq!(told("slow_ended", &behind), None);
        until("it is over", || told("slow", &ended).is_none());
        assert_eq!(operator.get("/api/overview")["slow_ended"].as_array().unwrap().len(), 1, "it is told once");
    }
}
