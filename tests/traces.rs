//! Messages of a trace (W3C Trace Context): from whoever publishes them to those who read them, in every format that has room.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot get what it needs has failed")]

mod common;

use common::{Client, Running, backends, config};
use holdline::app::standard_routes;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// Sends a request, and returns the answer's body.
fn ask(running: &Running, method: &str, path: &str, fields: &str, body: &str) -> String {
    let mut client = running.connect(0);
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n");
    client.send_raw(format!("{head}{body}").as_bytes());
    let answer = rest(&mut client);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn rest(client: &mut Client) -> String {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut client.stream, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The texts of a history's messages, and their traces.
fn history(running: &Running) -> Vec<(String, Option<String>, Option<String>)> {
    let array: serde_json::Value = serde_json::from_str(&ask(running, "GET", "/topics/news/history", "", "")).unwrap();
    let text = |message: &serde_json::Value, name: &str| message[name].as_str().map(str::to_owned);
    let each = |message| (text(message, "text").unwrap(), text(message, "traceparent"), text(message, "tracestate"));
    array.as_array().unwrap().iter().map(each).collect()
}

#[test]
fn what_is_posted_keeps_its_trace() {
    for backend in backends() {
        let running = Running::start(&config(backend, 2), standard_routes());
        let mut json = running.websocket("/topics/news?format=json");
        let mut bare = running.websocket("/topics/news");
        let fields = format!("traceparent: {PARENT}\r\ntracestate: a=b,c=d\r\n");
        ask(&running, "POST", "/topics/news", &fields, "one");
        ask(&running, "POST", "/topics/news", "traceparent: nonsense\r\n", "two");
        ask(&running, "POST", "/topics/news", "tracestate: a=b\r\n", "three");
        let twice = format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n");
        ask(&running, "POST", "/topics/news", &twice, "four");
        let own = PARENT.replace("00f067aa0ba902b7", "00000000000000ff");
        let batch = format!(
            "{{\"topic\":\"news\",\"text\":\"five\"}}\n{{\"topic\":\"news\",\"text\":\"six\",\"traceparent\":\"{own}\"}}\n"
        );
        ask(&running, "POST", "/topics", &fields, &batch);

        let (parent, state) = (Some(PARENT.to_owned()), Some("a=b,c=d".to_owned()));
        let expected = [
            ("one", parent.clone(), state.clone()),
            ("two", None, None),
            ("three", None, None),
            ("four", None, None),
            ("five", parent, state),
            ("six", Some(own), None),
        ];
        let expected = expected.map(|(text, parent, state)| (text.to_owned(), parent, state));
        assert_eq!(history(&running), expected, "{}", backend.name());
        for (text, parent, _) in expected {
            assert_eq!(bare.text(), text);
            let message: serde_json::Value = serde_json::from_str(&json.text()).unwrap();
            assert_eq!((message["text"].as_str(), message["traceparent"].as_str()), (Some(&*text), parent.as_deref()));
        }
    }
}
