//! Nodes as they are served, each a process of its own: durable topics with one order and one past on all of them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::nats::Nats;
use super::program::{PATIENCE, Program, Scratch, holdline, until};

struct Cluster {
    nats: Nats,
    settings: Scratch,
}

impl Cluster {
    fn start(name: &str) -> Self {
        let nats = Nats::start();
        let text = format!(
            "[cluster]\nnats = [{:?}]\nlease = \"3s\"\n[history]\nmessages_max = 1000\n[topics.\"orders/**\"]\n\
             durable = true\n",
            nats.url
        );
        Self { nats, settings: Scratch::with(&format!("cluster-{name}.toml"), &text) }
    }

    /// A node that has its connection.
    fn node(&self) -> Program {
        self.node_with(&[])
    }

    /// One with these variables.
    fn node_with(&self, variables: &[(&str, &str)]) -> Program {
        let mut command = holdline(&["serve", "--config", self.settings.path(), "--listen", "http://127.0.0.1:0"]);
        command.args(["--listen", "tcp://127.0.0.1:0?framing=line&app=topic"]);
        command.args(["--admin", "127.0.0.1:0", "--shards", "2", "--drain", "1s"]).stderr(Stdio::null());
        command.envs(variables.iter().copied());
        let node = Program::start(command);
        until("a connection to NATS", || ask(node.address(2), "GET /metrics", "").1.contains("cluster_connected 1"));
        node
    }
}

/// The status and the body of the answer to one request.
fn ask(address: &str, head: &str, body: &str) -> (u16, String) {
    ask_with(address, head, "", body)
}

/// The same of a request with more fields.
fn ask_with(address: &str, head: &str, fields: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!("{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n");
    stream.write_all(format!("{head}{fields}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

type Place = (u64, u64);

/// Publishes until that is acknowledged. Returns its place, and how often it was refused.
fn publish(node: &Program, topic: &str, key: &str, text: &str) -> (Place, usize) {
    let (deadline, mut refused) = (Instant::now() + PATIENCE, 0);
    loop {
        let field = format!("Idempotency-Key: {key}\r\n");
        let (status, body) = ask_with(node.address(0), &format!("POST /topics/{topic}"), &field, text);
        if status == 200 {
            let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
            return ((answer["epoch"].as_u64().unwrap(), answer["offset"].as_u64().unwrap()), refused);
        }
        assert!(status == 503 && body.contains("\"cluster_"), "{status} {body}");
        assert!(Instant::now() < deadline, "{text} is not taken");
        refused += 1;
        thread::sleep(Duration::from_millis(100));
    }
}

/// A stream of events of one topic.
struct Events {
    lines: BufReader<TcpStream>,
}

/// What an event says.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Start(Place),
    Message(Place, String),
    Reset(Place),
}

impl Events {
    fn open(node: &Program, topic: &str, how: &str) -> (Self, Told) {
        let mut stream = TcpStream::connect(node.address(0)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("GET /topics/{topic}{how} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut events = Self { lines: BufReader::new(stream) };
        let first = events.next();
        (events, first)
    }

    fn next(&mut self) -> Told {
        let (mut id, mut data, mut kind) = (None, None, String::new());
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the stream has ended");
            let line = line.trim_end();
            if let Some(place) = line.strip_prefix("id: ") {
                let (epoch, offset) = place.split_once(':').unwrap();
                id = Some((epoch.parse().unwrap(), offset.parse().unwrap()));
            } else if let Some(text) = line.strip_prefix("data:") {
                data = Some(text.trim_start().to_owned());
            } else if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut kind);
            } else if line.is_empty()
                && let (Some(id), Some(data)) = (id, data.take())
            {
                return match &*kind {
                    "start" => Told::Start(id),
                    "reset" => Told::Reset(id),
                    _ => Told::Message(id, data),
                };
            }
        }
    }

    /// Messages up to one with this text, by their places.
    fn up_to(&mut self, last: &str) -> BTreeMap<Place, String> {
        let mut all = BTreeMap::new();
        loop {
            let Told::Message(place, text) = self.next() else { panic!("nothing is lost") };
            let is_last = text == last;
            let before = all.last_key_value().map(|(place, _): (&Place, _)| *place);
            assert!(before.is_none_or(|(epoch, offset)| place == (epoch, offset + 1)), "{place:?} follows {before:?}");
            all.insert(place, text);
            if is_last {
                return all;
            }
        }
    }
}

#[test]
fn durable_topics_are_one_on_all_nodes_though_nodes_and_nats_go() {
    const TOPIC: &str = "orders/1";
    let mut cluster = Cluster::start("durable");
    let (mut a, b, c) = (cluster.node(), cluster.node(), cluster.node());
    let (mut events, Told::Start(start)) = Events::open(&b, TOPIC, "") else { panic!("it begins with its place") };
    let (first, refused) = publish(&a, TOPIC, "1", "first");
    // Who only listens makes no stream: it begins with the first message, and that is no loss.
    assert_eq!((start, first.1, refused), ((0, 0), 1, 0));
    assert_eq!(events.next(), Told::Message(first, "first".to_owned()));
    // Publishers on all nodes: one order.
    let told: BTreeMap<Place, String> = thread::scope(|scope| {
        let publishers: Vec<_> = [&a, &b, &c]
            .into_iter()
            .zip('a'..)
            .map(|(node, name)| {
                scope.spawn(move || {
                    let texts = (0..20).map(|number| format!("{name}{number}"));
                    texts.map(|text| (publish(node, TOPIC, &text, &text).0, text)).collect::<Vec<_>>()
                })
            })
            .collect();
        publishers.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(told.len(), 60);
    publish(&a, TOPIC, "marker", "marker");
    let mut heard = events.up_to("marker");
    let (marker, _) = heard.pop_last().unwrap();
    assert_eq!(heard, told, "what was acknowledged is what is heard, at its place");
    // Whoever comes back to another node has the rest there; who publishes again there does not publish twice.
    let (mut back, _) = Events::open(&c, TOPIC, &format!("?since={}:{}", first.0, first.1));
    heard.insert(marker, "marker".to_owned());
    assert_eq!(back.up_to("marker"), heard);
    assert_eq!(publish(&c, TOPIC, "marker", "marker").0, marker);
    // A node is killed.
    a.child.kill().unwrap();
    a.child.wait().unwrap();
    let a = cluster.node();
    publish(&a, TOPIC, "back", "back");
    for events in [&mut events, &mut back] {
        assert_eq!(events.up_to("back").len(), 1);
    }
    // NATS goes: what is there can be read, nothing is published, and nothing is missed when it is back.
    cluster.nats.stop();
    until("a refusal", || ask(b.address(0), &format!("POST /topics/{TOPIC}"), "away").0 == 503);
    let (status, page) = ask(b.address(0), &format!("GET /topics/{TOPIC}/history"), "");
    assert!(status == 200 && page.contains("\"back\""), "{status} {page}");
    cluster.nats.start_again();
    publish(&c, TOPIC, "again", "again");
    for events in [&mut events, &mut back] {
        let heard = events.up_to("again");
        // One that was on its way when NATS went may have a place, though it was refused.
        assert!(heard.values().all(|text| text == "away" || text == "again"), "{heard:?}");
    }
}

fn delete_stream(cluster: &Cluster, topic: &str) {
    let name = holdline::cluster::names::Names::new("holdline").stream(&super::topic(topic));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(&cluster.nats.url).await.unwrap();
        async_nats::jetstream::new(client).delete_stream(&name).await.unwrap();
    });
}

#[test]
fn a_stream_that_is_deleted_is_told_and_begins_anew() {
    let cluster = Cluster::start("deleted");
    let (a, b) = (cluster.node(), cluster.node());
    let (mut events, Told::Start(start)) = Events::open(&b, "orders/2", "") else { panic!("it begins with its place") };
    for text in ["1", "2", "3"] {
        let (place, _) = publish(&a, "orders/2", text, text);
        assert_eq!(events.next(), Told::Message(place, text.to_owned()));
    }
    delete_stream(&cluster, "orders/2");
    let (mut next, mut number) = (None, 3);
    while next.is_none() {
        number += 1;
        let text = format!("{number}");
        let (place, _) = publish(&a, "orders/2", &text, &text);
        assert!(place.0 > start.0, "a new stream has a new epoch");
        // It is found out with a message, or after a while without.
        next = Some(events.next());
    }
    let Some(Told::Reset(reset)) = next else { panic!("{next:?}") };
    assert!(reset.0 > start.0);
    publish(&a, "orders/2", "last", "last");
    let heard = events.up_to("last");
    assert_eq!(heard.first_key_value().unwrap().0, &(reset.0, reset.1 + 1), "from there on");
}

#[test]
fn a_stream_that_is_deleted_is_told_to_who_has_only_its_past() {
    let cluster = Cluster::start("deleted-early");
    let (a, b) = (cluster.node(), cluster.node());
    let places: Vec<_> = ["1", "2", "3", "4", "5"].map(|text| publish(&a, "orders/4", text, text).0).into();
    // All of this node's are from the stream itself: it has heard none when it was published.
    let (mut events, Told::Start(_)) = Events::open(&b, "orders/4", "?history=2") else {
        panic!("it begins with its place")
    };
    for (place, text) in places[3..].iter().zip(["4", "5"]) {
        assert_eq!(events.next(), Told::Message(*place, text.to_owned()));
    }
    delete_stream(&cluster, "orders/4");
    // Five with numbers of messages that this node has already, and one that would be the next.
    let texts = ["a", "b", "c", "d", "e", "f"];
    let anew: Vec<_> = texts.map(|text| publish(&a, "orders/4", text, text).0).into();
    assert!(anew[0].0 > places[4].0, "a new stream has a new epoch");
    let Told::Reset(reset) = events.next() else { panic!("it is another stream") };
    assert_eq!(reset, (anew[0].0, 0));
    for (place, text) in anew.iter().zip(texts) {
        assert_eq!(events.next(), Told::Message(*place, text.to_owned()));
    }
}

#[test]
fn a_receiver_is_told_that_it_may_miss_what_nats_did_not_answer() {
    let cluster = Cluster::start("unknown");
    // Nobody answers there: what is missed is counted all the same.
    let node =
        cluster.node_with(&[("HOLDLINE_HOOKS_URL", "http://127.0.0.1:9/"), ("HOLDLINE_HOOKS_EVENTS", "publish")]);
    let events = || {
        let metrics = ask(node.address(2), "GET /metrics", "").1;
        let of = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect("such a metric");
            line.trim().parse::<u64>().unwrap()
        };
        let missed = of("holdline_hooks_dropped_total{why=\"shard_queue\"}");
        (of("holdline_hooks_events_total{kind=\"publish\"}"), missed)
    };
    cluster.nats.signal("-STOP");
    let post =
        |key: u64| ask_with(node.address(0), "POST /topics/orders/5", &format!("Idempotency-Key: {key}\r\n"), "x").0;
    // All its threads stand still only after a moment.
    let refused = (0..).find(|key| post(*key) == 503).unwrap();
    cluster.nats.signal("-CONT");
    // It is in the stream, and nobody is told of it again.
    until("NATS is back", || post(refused) == 200);
    assert_eq!(publish(&node, "orders/5", &refused.to_string(), "x").0.1, refused + 1);
    // Once for each time that nobody knew.
    until("it is missed", || events().1 > 0);
}

#[test]
fn whoever_subscribes_and_publishes_hears_itself_or_not_as_it_wants() {
    let cluster = Cluster::start("echo");
    let node = cluster.node();
    let open = |how: &str, said: &str| {
        let mut stream = TcpStream::connect(node.address(1)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("orders/3{how}\n{said}\n").as_bytes()).unwrap();
        BufReader::new(stream)
    };
    let next = |lines: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it has ended");
        line
    };
    // NATS works, or whoever publishes so would be closed.
    publish(&node, "orders/1", "first", "first");
    // The stream is made by the message itself: it is heard all the same.
    let mut echo = open("", "own");
    assert_eq!(next(&mut echo), "own\n");
    let mut silent = open(" echo=0", "not heard here");
    assert_eq!(next(&mut echo), "not heard here\n");
    publish(&node, "orders/3", "other", "other");
    assert_eq!([next(&mut echo), next(&mut silent)], ["other\n", "other\n"]);
}
