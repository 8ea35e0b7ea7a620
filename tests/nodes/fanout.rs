//! What a message costs those who do not hold its topic: nothing. NATS itself counts what it takes from whom and gives to whom.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use serde_json::Value;

use super::nats::Nats;
use super::program::{PATIENCE, Program, holdline, until};

const MESSAGES: u64 = 1000;
const TOPIC: &str = "room/alone";
const SUBJECT: &str = "holdline.t.room.alone";

/// NATS' own figures of one node. What nodes say of themselves is among them, which is little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    /// Messages from the node to NATS, and from NATS to the node.
    said: u64,
    heard: u64,
}

fn node(number: usize, nats: &Nats) -> Program {
    let mut command = holdline(&["serve", "--listen", "http://127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "2"]);
    // What nodes say of themselves does not come again within the hour.
    let settings = [("NATS", &*nats.url), ("NAME", &*format!("node{number}")), ("LEASE", "1h")];
    command.envs(settings.map(|(name, value)| (format!("HOLDLINE_CLUSTER_{name}"), value)));
    command.stderr(Stdio::null());
    Program::start(command)
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What NATS says of the connection of a node.
fn connection(monitor: &str, number: usize) -> Value {
    let answer = ask(monitor, "GET /connz?subs=1 HTTP/1.0\r\n\r\n");
    let page: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let name = format!("holdline node{number}");
    let connections = page["connections"].as_array().unwrap();
    connections.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name} in {page}")).clone()
}

fn figures(monitor: &str) -> [Figures; 3] {
    [0, 1, 2].map(|number| {
        let connection = connection(monitor, number);
        let count = |name: &str| connection[name].as_u64().unwrap();
        Figures { said: count("in_msgs"), heard: count("out_msgs") }
    })
}

/// Subscribes, and waits until NATS knows of it.
fn subscribe(node: &Program, number: usize, monitor: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(node.address(0)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /topics/{TOPIC} HTTP/1.1\r\nHost: here\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    until("NATS knows of the subscription", || {
        let connection = connection(monitor, number);
        let subjects = connection["subscriptions_list"].as_array();
        subjects.is_some_and(|subjects| subjects.iter().any(|subject| subject == SUBJECT))
    });
    BufReader::new(stream)
}

/// Publishes a batch on the first node, and waits until these hear its end. What each node said to NATS and heard from it, in
/// hundreds.
fn publish(node: &Program, monitor: &str, last: &str, subscribers: &mut [BufReader<TcpStream>]) -> [Figures; 3] {
    let before = figures(monitor);
    let text = |number: u64| if number == MESSAGES { last.to_owned() } else { number.to_string() };
    let line = |number| format!("{{\"topic\":{TOPIC:?},\"text\":{:?}}}\n", text(number));
    let body: String = (1..=MESSAGES).map(line).collect();
    let head = format!("POST /topics HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {}", body.len());
    let answer = ask(node.address(0), &format!("{head}\r\n\r\n{body}"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for subscriber in subscribers {
        let mut line = String::new();
        while line.trim_end() != format!("data: {last}") {
            line.clear();
            assert_ne!(subscriber.read_line(&mut line).unwrap(), 0, "the stream ends");
        }
    }
    until("NATS has all of it", || figures(monitor)[0].said >= before[0].said + MESSAGES);
    let after = figures(monitor);
    let about = |count: u64| count / 100 * 100;
    std::array::from_fn(|node| Figures {
        said: about(after[node].said - before[node].said),
        heard: about(after[node].heard - before[node].heard),
    })
}

#[test]
fn who_does_not_hold_a_topic_hears_nothing_of_it() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let monitor = format!("127.0.0.1:{port}");
    let nats = Nats::start_with(&["--http_port", &port.to_string()]);
    let nodes = [0, 1, 2].map(|number| node(number, &nats));
    let mut subscribers = vec![subscribe(&nodes[0], 0, &monitor)];
    let none = Figures { said: 0, heard: 0 };
    let speaker = Figures { said: MESSAGES, heard: 0 };
    let listener = Figures { said: 0, heard: MESSAGES };
    assert_eq!(publish(&nodes[0], &monitor, "one", &mut subscribers), [speaker, none, none]);
    // Nor does it cost more to say to several.
    subscribers.push(subscribe(&nodes[1], 1, &monitor));
    assert_eq!(publish(&nodes[0], &monitor, "two", &mut subscribers), [speaker, listener, none]);
    subscribers.push(subscribe(&nodes[2], 2, &monitor));
    assert_eq!(publish(&nodes[0], &monitor, "three", &mut subscribers), [speaker, listener, listener]);
}
