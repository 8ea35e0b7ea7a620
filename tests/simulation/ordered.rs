//! Durable topics of several nodes: one order for all, which a stream has, and nobody misses anything without being told.

use std::time::Duration;

use crossbeam::channel;
use holdline::cluster::port::NotAppended;
use holdline::config::{Config, Pattern, TopicSection};
use holdline::id::ShardId;
use holdline::message::{Kind, Message, Topic};
use holdline::shard::Live;
use holdline::shard::orders::{Order, Outcome, Report, Search, What};
use holdline::sim::{Client, Peer};

use super::scene::{LINES, Scene, WEB, topic_of, upgrade};
use super::streams::{Node, Streams, config};

fn nodes(count: u64, shards: u16) -> (Vec<Node>, Streams) {
    ((1..=count).map(|number| Node::new(number, shards, &config())).collect(), Streams::default())
}

pub(super) fn post(topic: &str, key: &str, body: &str) -> String {
    let key = if key.is_empty() { String::new() } else { format!("Idempotency-Key: {key}\r\n") };
    let length = body.len();
    format!("POST /topics/{topic} HTTP/1.1\r\nHost: sim\r\nContent-Length: {length}\r\n{key}\r\n{body}")
}

fn get(target: &str, fields: &str) -> String {
    format!("GET /topics/{target} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n")
}

pub(super) fn text(client: &mut Client) -> String {
    String::from_utf8_lossy(&client.read()).into_owned()
}

fn number(text: &str, name: &str) -> u64 {
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("{name} is not in {text}"));
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

pub(super) fn place(answer: &str) -> (u64, u64) {
    (number(answer, "\"epoch\":"), number(answer, "\"offset\":"))
}

/// A WebSocket of messages with their places, which comes back when it has gone.
pub(super) struct Reader {
    client: Client,
    pub(super) text: String,
    /// How much of it has been looked at.
    seen: usize,
    /// Behind which message it stands, or reset.
    pub(super) at: Option<(u64, u64)>,
    pub(super) resets: usize,
}

impl Reader {
    pub(super) fn new(node: &mut Node, shard: usize, topic: &str, at: Option<(u64, u64)>) -> Self {
        let since = at.map(|(epoch, offset)| format!("&since={epoch}:{offset}")).unwrap_or_default();
        let client = node.scene.connect(shard, WEB, &upgrade(&format!("/topics/{topic}?format=json{since}")));
        Self { client, text: String::new(), seen: 0, at, resets: 0 }
    }

    /// What it has heard since the last look: places and texts, `None` for a reset.
    fn news(&mut self) -> Vec<((u64, u64), Option<String>)> {
        self.text.push_str(&text(&mut self.client));
        let all = self.text.split("{\"topic\":").skip(1).map(|part| {
            let said = part.split_once("\"text\":\"").map(|(_, rest)| rest.split('"').next().unwrap().to_owned());
            assert!(said.is_some() || part.contains("\"reset\":true"), "{part}");
            (place(part), said)
        });
        let news: Vec<_> = all.skip(self.seen).collect();
        self.seen += news.len();
        news
    }

    fn texts(&mut self) -> Vec<String> {
        self.news().into_iter().map(|(_, text)| text.unwrap_or_else(|| "reset".to_owned())).collect()
    }

    /// What it has heard is the stream, without a gap but behind a reset.
    pub(super) fn check(&mut self, topic: &str, streams: &Streams) -> Result<(), String> {
        for ((epoch, offset), said) in self.news() {
            let Some(said) = said else {
                (self.at, self.resets) = (Some((epoch, offset)), self.resets + 1);
                continue;
            };
            let is_next = |at| at == (epoch, offset - 1) || (at == (0, 0) && offset == 1);
            if self.at.is_some_and(|at| !is_next(at)) {
                return Err(format!("{epoch}:{offset} {said} follows {:?}", self.at));
            }
            if streams.text(topic, epoch, offset).as_deref() != Some(&*said) {
                return Err(format!("{epoch}:{offset} is {said}, should be {:?}", streams.text(topic, epoch, offset)));
            }
            self.at = Some((epoch, offset));
        }
        Ok(())
    }
}

#[test]
fn a_message_has_one_place_for_all() {
    for shards in [1, 2] {
        let (mut nodes, mut streams) = nodes(3, shards);
        let (topic, at) = (topic_of(0, shards, 0), usize::from(shards - 1));
        let mut readers = [1, 2].map(|node| Reader::new(&mut nodes[node], at, &topic, None));
        let mut own = nodes[1].scene.connect(at, LINES, &format!("{topic} echo=0\n"));
        streams.settle(&mut nodes);
        let mut publisher = nodes[0].scene.connect(at, WEB, &post(&topic, "", "a"));
        own.write(b"b\n");
        nodes.iter_mut().for_each(|node| node.scene.rest());
        assert_eq!((text(&mut publisher).as_str(), readers[0].texts().len()), ("", 0), "not before it has a place");
        streams.settle(&mut nodes);
        let answer = text(&mut publisher);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let heard = readers.each_mut().map(Reader::news);
        assert_eq!(heard[0], heard[1]);
        assert_eq!(heard[0].len(), 2);
        assert!(heard[0].contains(&(place(&answer), Some("a".to_owned()))), "{heard:?} {answer}");
        assert_eq!(text(&mut own), "a\n", "not its own");
        assert_eq!(nodes.iter().map(Node::followed).collect::<Vec<_>>(), [0, 1, 1], "who publishes does not listen");
        // Whoever comes back to another node gets what it missed there.
        drop(readers);
        for body in ["c", "d"] {
            nodes[1].scene.connect(0, WEB, &post(&topic, "", body));
            streams.settle(&mut nodes);
        }
        let mut back = Reader::new(&mut nodes[0], at, &topic, Some(place(&answer)));
        streams.settle(&mut nodes);
        let missed: Vec<_> =
            (place(&answer).1 + 1..=4).map(|offset| streams.text(&topic, place(&answer).0, offset).unwrap()).collect();
        assert_eq!(back.texts(), missed);
    }
}

#[test]
fn who_subscribes_and_publishes_hears_itself_though_its_stream_is_slow() {
    let (mut nodes, mut streams) = nodes(2, 2);
    let topic = topic_of(0, 2, 0);
    nodes[1].scene.connect(0, WEB, &post(&topic, "", "before"));
    streams.settle(&mut nodes);
    let node = &mut nodes[0];
    let mut member = node.scene.member(1, &topic);
    member.write(b"mine\n");
    node.scene.rest();
    let mut info = node.scene.connect(0, WEB, &get(&format!("{topic}/info"), ""));
    let mut page = node.scene.connect(1, WEB, &get(&format!("{topic}/history?limit=9"), ""));
    let mut posted = node.scene.connect(0, WEB, &post(&topic, "", "posted"));
    let mut events = node.scene.connect(1, WEB, &get(&format!("{topic}?history=9"), "Accept: text/event-stream\r\n"));
    node.scene.rest();
    node.take();
    assert_eq!((node.followed(), node.appending()), (1, 0), "they wait for the past");
    assert_eq!((text(&mut info), text(&mut page), text(&mut posted)), Default::default());
    streams.settle(&mut nodes);
    assert_eq!(text(&mut member), "mine\nposted\n", "from where it has asked, and in order");
    assert_eq!(place(&text(&mut posted)).1, 3);
    let (info, page, events) = (text(&mut info), text(&mut page), text(&mut events));
    assert!(info.contains("\"offset\":1,") && info.contains("\"first_offset\":1"), "{info}");
    assert!(page.contains("\"before\"") && !page.contains("\"mine\""), "{page}");
    let told: Vec<_> = events.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(told, ["", "before", "mine", "posted"], "{events}");
}

#[test]
fn what_waits_for_a_stream_for_too_long_is_refused() {
    let (mut nodes, mut streams) = nodes(1, 2);
    let (node, topic) = (&mut nodes[0], topic_of(0, 2, 0));
    let mut member = node.scene.member(1, &topic);
    node.scene.rest();
    let mut asked: Vec<_> = [
        (WEB, get(&format!("{topic}/info"), "")),
        (WEB, get(&format!("{topic}/history"), "")),
        (WEB, get(&format!("{topic}?history=1"), "Accept: text/event-stream\r\n")),
        (WEB, get(&format!("{topic}?wait=9s"), "")),
        (WEB, post(&topic, "", "hi")),
    ]
    .into_iter()
    .map(|(listener, first)| node.scene.connect(1, listener, &first))
    .collect();
    node.scene.pass(4500);
    assert!(!asked.iter_mut().any(|client| text(client).contains("503")), "they wait");
    node.scene.pass(1000);
    for (number, client) in asked.iter_mut().enumerate() {
        let answer = text(client);
        if number == 2 {
            assert_ne!(client.peer(), Peer::Open, "{answer}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 503 "), "{number}: {answer}");
            assert_eq!(answer.contains("cluster_unavailable"), number != 3, "{number}: {answer}");
        }
    }
    assert_eq!(node.scene.metrics.total(|shard| shard.cluster_unanswered_total.get()), 4);
    assert_eq!(node.scene.metrics.total(|shard| shard.cluster_away_total.get()), 1);
    node.scene.audit();
    // The stream is there at last.
    streams.settle(&mut nodes);
    member.write(b"late\n");
    streams.settle(&mut nodes);
    assert_eq!(text(&mut member), "late\n");
}

#[test]
fn what_has_no_place_is_refused_in_every_way() {
    let (mut nodes, mut streams) = nodes(1, 2);
    let topic = topic_of(0, 2, 0);
    for (why, status, code) in [
        (NotAppended::Away, "503 ", "cluster_unavailable"),
        (NotAppended::NoRoom, "503 ", "cluster_full"),
        (NotAppended::TooLarge, "413 ", "cluster_payload_too_large"),
    ] {
        let mut posted = nodes[0].scene.connect(1, WEB, &post(&topic, "", "hi"));
        nodes[0].scene.rest();
        nodes[0].take();
        nodes[0].refuse(why);
        nodes[0].scene.rest();
        let answer = text(&mut posted);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code), "{answer}");
        assert_eq!(answer.contains("Retry-After"), status == "503 ", "{answer}");
    }
    let mut large = nodes[0].scene.connect(1, WEB, &post(&topic, "", &"x".repeat(10_001)));
    nodes[0].scene.rest();
    let answer = text(&mut large);
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("max_payload"), "{answer}");
    // While there is no connection at once, whatever is on its way; those who read have what is here.
    let mut reader = Reader::new(&mut nodes[0], 0, &topic, None);
    nodes[0].scene.connect(1, WEB, &post(&topic, "", "kept"));
    streams.settle(&mut nodes);
    let mut sent = nodes[0].scene.connect(1, WEB, &post(&topic, "", "sent"));
    let mut said = nodes[0].scene.member(1, &topic);
    nodes[0].scene.rest();
    said.write(b"said\n");
    nodes[0].take();
    nodes[0].part();
    nodes[0].scene.rest();
    let mut late = nodes[0].scene.connect(1, WEB, &post(&topic, "", "late"));
    let mut page = nodes[0].scene.connect(1, WEB, &get(&format!("{topic}/history"), ""));
    nodes[0].scene.rest();
    for answer in [text(&mut sent), text(&mut late)] {
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("cluster_unavailable"), "{answer}");
    }
    assert_ne!(said.peer(), Peer::Open, "it has no other way to be told");
    assert!(text(&mut page).contains("\"kept\""));
    assert_eq!(reader.texts(), ["kept"]);
    nodes[0].connect();
    nodes[0].scene.connect(1, WEB, &post(&topic, "", "again"));
    streams.settle(&mut nodes);
    assert_eq!(reader.texts(), ["again"], "without a gap");
}

#[test]
fn more_than_may_wait_is_refused() {
    let (mut nodes, mut streams) = nodes(1, 1);
    let (node, big) = (&mut nodes[0], "x".repeat(9000));
    let lines = format!("{big}\n").repeat(100);
    let mut writers: Vec<Client> = (0..40).map(|_| node.scene.member(0, "t")).collect();
    node.scene.rest();
    for _ in 0..4 {
        for writer in &mut writers {
            let mut rest = lines.as_bytes();
            for _ in 0..100 {
                rest = &rest[writer.write(rest)..];
                node.scene.rest();
            }
        }
    }
    assert!(node.scene.metrics.total(|shard| shard.cluster_busy_total.get()) > 0);
    assert!(node.scene.metrics.total(|shard| shard.cluster_waiting.get()) < 33 << 20 >> 13);
    assert!(writers.iter().any(|writer| writer.peer() != Peer::Open), "those who cannot be told otherwise");
    node.scene.audit();
    streams.settle(&mut nodes);
    assert_eq!(nodes[0].scene.metrics.total(|shard| shard.cluster_waiting.get()), 0);
}

#[test]
fn a_key_is_published_once_wherever_it_is_sent_again() {
    let (mut nodes, mut streams) = nodes(2, 1);
    let mut reader = Reader::new(&mut nodes[1], 0, "t", None);
    streams.settle(&mut nodes);
    let mut first = nodes[0].scene.connect(0, WEB, &post("t", "key", "once"));
    streams.settle(&mut nodes);
    let first = text(&mut first);
    for node in [0, 1] {
        let mut again = nodes[node].scene.connect(0, WEB, &post("t", "key", "once"));
        streams.settle(&mut nodes);
        let answer = text(&mut again);
        assert!(answer.contains("\"duplicate\":true") && place(&answer) == place(&first), "{answer}");
    }
    assert_eq!(reader.texts(), ["once"]);
    assert_eq!(nodes[0].scene.metrics.total(|shard| shard.duplicates_total.get()), 1);
}

#[test]
fn every_protocol_is_told_when_a_stream_is_lost() {
    let (mut nodes, mut streams) = nodes(1, 2);
    let topic = topic_of(0, 2, 0);
    let firsts = [
        (LINES, format!("{topic}\n")),
        (WEB, upgrade(&format!("/topics/{topic}"))),
        (WEB, get(&topic, "Accept: text/event-stream\r\n")),
        (WEB, get(&format!("{topic}?wait=5"), "")),
        (WEB, get(&format!("{topic}?stream=1"), "")),
    ];
    nodes[0].scene.connect(0, WEB, &post(&topic, "", "old"));
    streams.settle(&mut nodes);
    let mut clients: Vec<Client> = Vec::new();
    for shard in [0, 1] {
        clients.extend(firsts.iter().map(|(listener, first)| nodes[0].scene.connect(shard, *listener, first)));
    }
    streams.settle(&mut nodes);
    streams.delete(&topic);
    streams.settle(&mut nodes);
    nodes[0].scene.connect(0, WEB, &post(&topic, "", "new"));
    streams.settle(&mut nodes);
    for (number, client) in clients.iter_mut().enumerate() {
        let text = text(client);
        let reset = text.find("\"epoch\":0,\"offset\":0,\"reset\":true}");
        assert!(reset.is_some(), "{number}: {text}");
        // A poll has its answer with the reset.
        assert!(number % 5 == 3 || text.find("new") > reset, "{number}: {text}");
        assert_eq!(text.contains("event: reset\ndata: "), number % 5 == 2, "{number}: {text}");
    }
    // Whoever comes back with the old place is told so too.
    let mut back = Reader::new(&mut nodes[0], 1, &topic, Some((1, 1)));
    streams.settle(&mut nodes);
    assert_eq!(back.news(), [((2, 1), None)]);
}

#[test]
fn groups_have_one_member_on_each_node() {
    let (mut nodes, mut streams) = nodes(2, 2);
    let topic = topic_of(0, 2, 0);
    let mut workers: Vec<Client> =
        (0..4).map(|place| nodes[place / 2].scene.connect(place % 2, LINES, &format!("{topic} group=g\n"))).collect();
    streams.settle(&mut nodes);
    for number in 0..20 {
        nodes[number % 2].scene.connect(0, WEB, &post(&topic, "", &format!("{number}")));
        streams.settle(&mut nodes);
    }
    let heard: Vec<usize> = workers.iter_mut().map(|worker| text(worker).lines().count()).collect();
    assert!(heard[0] + heard[1] == 20 && heard[2] + heard[3] == 20 && !heard.contains(&0), "{heard:?}");
}

#[test]
fn a_drain_waits_for_places_and_not_for_ever() {
    for hangs in [false, true] {
        let (mut nodes, mut streams) = nodes(1, 2);
        let (node, topic) = (&mut nodes[0], topic_of(0, 2, 0));
        let mut publisher = node.scene.connect(1, WEB, &post(&topic, "", "hi"));
        node.scene.rest();
        node.scene.control.drain(Duration::from_secs(1));
        node.scene.pass(500);
        assert_eq!((text(&mut publisher).as_str(), node.scene.done[0]), ("", false));
        if !hangs {
            streams.write(node);
            Streams::acknowledge(node);
            assert_eq!(place(&text(&mut publisher)), (1, 1));
        }
        node.scene.pass(5000);
        assert!(!hangs || text(&mut publisher).contains("cluster_unavailable"), "nobody knows better");
        drop(publisher);
        node.scene.pass(4000);
        assert_eq!(node.scene.done, [true; 2], "hangs: {hangs}");
    }
}

fn reports(scene: &Scene, what: What) -> channel::Receiver<Report> {
    let (send, receive) = channel::unbounded();
    let order = Order { number: 1, what, reports: send };
    assert!(scene.postbox.order(ShardId(0), Box::new(order)).is_ok());
    receive
}

#[test]
fn the_process_that_follows_is_left_what_has_no_stream_when_nothing_waits() {
    let (mut nodes, mut streams) = nodes(1, 1);
    let mut reader = Reader::new(&mut nodes[0], 0, "t", None);
    streams.settle(&mut nodes);
    let node = &mut nodes[0];
    let mut publisher = node.scene.connect(0, WEB, &post("t", "", "hi"));
    node.scene.rest();
    node.scene.control.hold();
    let reports = reports(&node.scene, What::Legacies(0));
    node.scene.rest();
    assert!(reports.try_recv().is_err(), "not yet");
    streams.settle(&mut nodes);
    let node = &mut nodes[0];
    assert_eq!(place(&text(&mut publisher)).1, 1);
    let Outcome::Legacies { legacies, next: None, .. } = reports.try_recv().unwrap().what else { panic!("all of it") };
    assert!(legacies.is_empty(), "the stream has it");
    node.scene.control.give_topics_away();
    let mut late = node.scene.connect(0, WEB, &post("t", "", "late"));
    node.scene.rest();
    assert!(text(&mut late).contains("going_away"));
    // Those who are here still hear the stream, which the process that follows publishes to.
    let mut other = [Node::new(2, 1, &config())];
    other[0].scene.connect(0, WEB, &post("t", "", "from there"));
    streams.settle(&mut other);
    streams.settle(&mut nodes);
    assert_eq!(reader.texts(), ["hi", "from there"]);
}

#[test]
fn operators_publish_and_see_how_a_topic_is_doing() {
    let (mut nodes, mut streams) = nodes(1, 1);
    let publish = || What::Publish(Message::new(Topic::parse(b"t", 255).unwrap(), Kind::Text, b"hi", None));
    let rows = |scene: &mut Scene| {
        let search = Search { filter: "".into(), from: 0, limit: 9, top: false };
        let report = reports(scene, What::Topics(search));
        scene.rest();
        let Outcome::Found(found, None) = report.try_recv().unwrap().what else { panic!("all of them") };
        found.into_iter().map(|item| String::from_utf8(item.json).unwrap()).collect::<String>()
    };
    let told = |outcome: &channel::Receiver<Report>| match outcome.try_recv().map(|report| report.what) {
        Ok(Outcome::Published(place)) => Some(place.map(|(cursor, _)| cursor.offset.0).map_err(|why| why.code())),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    };
    let first = reports(&nodes[0].scene, publish());
    nodes[0].scene.rest();
    assert_eq!(told(&first), None);
    let row = rows(&mut nodes[0].scene);
    assert!(row.contains("\"shared\":true,\"cluster\":\"idle\"") && row.contains("\"offset\":null,"), "{row}");
    streams.settle(&mut nodes);
    assert_eq!(told(&first), Some(Ok(1)));
    // While somebody joins it waits, behind what came before.
    let mut reader = Reader::new(&mut nodes[0], 0, "t", None);
    nodes[0].scene.rest();
    assert!(rows(&mut nodes[0].scene).contains("\"cluster\":\"joining\""));
    let second = reports(&nodes[0].scene, publish());
    nodes[0].scene.rest();
    assert_eq!(told(&second), None);
    streams.settle(&mut nodes);
    assert_eq!((told(&second), reader.texts()), (Some(Ok(2)), vec!["hi".to_owned()]));
    assert!(rows(&mut nodes[0].scene).contains("\"cluster\":\"live\""));
    nodes[0].part();
    let third = reports(&nodes[0].scene, publish());
    nodes[0].scene.rest();
    assert_eq!(told(&third), Some(Err("cluster_unavailable")));
    assert!(rows(&mut nodes[0].scene).contains("\"cluster\":\"away\""));
    // One that waits is told when nothing comes.
    nodes[0].connect();
    let fourth = reports(&nodes[0].scene, publish());
    nodes[0].scene.pass(20_000);
    assert_eq!(told(&fourth), Some(Err("cluster_unavailable")));
    nodes[0].scene.audit();
}

pub(super) fn follow(node: &mut Node, config: &Config) {
    node.scene.control.replace(Live::of(config));
    node.scene.doorbells.iter().for_each(|doorbell| doorbell.ring());
}

#[test]
fn a_reload_turns_streams_on_and_off_and_those_who_hear_are_told() {
    let (mut nodes, mut streams) = nodes(1, 2);
    let topic = topic_of(0, 2, 0);
    let of = |durable, shared, messages_max| {
        let section = TopicSection::new(Pattern::parse("**").unwrap());
        let section =
            TopicSection { durable: Some(durable), shared: Some(shared), messages_max: Some(messages_max), ..section };
        Config { topics: vec![section], ..config() }
    };
    let mut reader = Reader::new(&mut nodes[0], 1, &topic, None);
    let mut writer = nodes[0].scene.connect(1, LINES, &format!("{topic} echo=0\n"));
    streams.settle(&mut nodes);
    let mut say = |nodes: &mut Vec<Node>, streams: &mut Streams, text: &str| {
        writer.write(format!("{text}\n").as_bytes());
        streams.settle(nodes);
    };
    say(&mut nodes, &mut streams, "one");
    // What is published in the same turn comes behind the reset.
    follow(&mut nodes[0], &of(false, true, 9));
    say(&mut nodes, &mut streams, "plain");
    assert_eq!(reader.texts(), ["one", "reset", "plain"]);
    assert_eq!((nodes[0].followed(), nodes[0].plain.len()), (0, 1));
    follow(&mut nodes[0], &of(true, true, 9));
    say(&mut nodes, &mut streams, "two");
    assert_eq!(reader.texts(), ["reset", "two"]);
    // Other bounds are no loss.
    follow(&mut nodes[0], &of(true, true, 5));
    say(&mut nodes, &mut streams, "three");
    assert_eq!(reader.texts(), ["three"]);
    follow(&mut nodes[0], &of(false, false, 5));
    say(&mut nodes, &mut streams, "own");
    assert_eq!(reader.texts(), ["reset", "own"]);
    assert_eq!((nodes[0].followed(), nodes[0].plain.len()), (0, 0));
    assert_eq!(streams.now[&topic].last(), 3);
}
