//! Messages of a trace (W3C Trace Context): from whoever publishes them to those who read them, in every format that has room.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot get what it needs has failed")]

mod common;
#[path = "common/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use common::wire::read_message;
use common::{Client, Running, backends, config};
use holdline::app::standard_routes;
use program::{Program, holdline};

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
    client.stream.read_to_end(&mut bytes).unwrap();
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

/// Takes one request of a collector's clients, and returns its body.
fn collect(listener: &TcpListener) -> serde_json::Value {
    let mut reader = BufReader::new(listener.accept().unwrap().0);
    let (_, body) = read_message(&mut reader).unwrap();
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// The whole way: a publisher's span, the server's own at the collector, and the one that subscribers are told.
#[test]
fn recorded_traces_reach_the_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    let mut command = holdline(&["serve", "--listen", "http://127.0.0.1:0", "--admin", "off", "--log-level", "off"]);
    command.env("HOLDLINE_OTEL_ENDPOINT", collector);
    let server = Program::start(command);
    let collected = thread::spawn(move || collect(&listener));
    let connect = |request: &str| {
        let mut stream = TcpStream::connect(server.address(0)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        BufReader::new(stream)
    };
    let until = |reader: &mut BufReader<TcpStream>, part: &str| {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(reader.read_line(&mut line).unwrap(), 0, "{part} was to come");
        }
        line
    };
    let mut lines = connect("GET /topics/news?stream=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    until(&mut lines, "\r\n");
    // Its subscription is there when the owner says so.
    while !until(&mut connect("GET /topics/news/info HTTP/1.1\r\nHost: a\r\n\r\n"), "{").contains("\"subscribers\":1") {
    }
    let recorded = PARENT.replace("-00f067aa0ba902b7-00", "-00f067aa0ba902b7-01");
    let post =
        format!("POST /topics/news HTTP/1.1\r\nHost: a\r\ntraceparent: {recorded}\r\nContent-Length: 2\r\n\r\nhi");
    until(&mut connect(&post), "\"offset\":1");
    let told = until(&mut lines, "traceparent");

    let body = collected.join().unwrap();
    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    let [publish, deliver] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((publish["name"].as_str(), deliver["name"].as_str()), (Some("publish news"), Some("deliver news")));
    assert_eq!(publish["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(deliver["parentSpanId"], publish["spanId"]);
    assert!(spans.iter().all(|span| span["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736"));
    let span = publish["spanId"].as_str().unwrap();
    assert!(told.contains(&format!("\"traceparent\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-{span}-01\"")), "{told}");
    let time = |span: &serde_json::Value, name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    for span in &spans {
        let (begin, end) = (time(span, "startTimeUnixNano"), time(span, "endTimeUnixNano"));
        assert!(begin > 1_700_000_000_000_000_000 && begin <= end && end - begin < 10_000_000_000, "{span}");
    }
}
