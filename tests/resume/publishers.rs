//! Who publishes: through WebSockets, raw TCP, and requests whose answers say where the message is.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::TOPICS;
use super::common::wire::{FIN, TEXT, masked};
use super::common::{Client, Running};
use super::record::Record;

/// Of each topic.
pub const PUBLISHERS: usize = 3;
/// Messages that are said at once, and the time between two times.
const BURST: u64 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// Messages as numbers: the publisher, and which of its messages, from 1.
pub struct Publishing;

impl Publishing {
    pub const END: u64 = u64::MAX;

    pub fn message(publisher: usize, number: u64) -> u64 {
        (publisher as u64) << 48 | number
    }

    pub fn parts(message: u64) -> (usize, u64) {
        (usize::try_from(message >> 48).unwrap(), message & ((1 << 48) - 1))
    }
}

/// How many messages were published, and how many of them once more.
#[derive(Clone, Copy, Default)]
pub struct Said {
    pub messages: u64,
    pub repeated: u64,
}

/// Publishes to all topics for this long.
pub fn run(running: &Running, record: &Record, duration: Duration) -> Said {
    let end = Instant::now() + duration;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (topic, name) in TOPICS.iter().enumerate() {
            threads.push(scope.spawn(move || by_websocket(running, name, end)));
            threads.push(scope.spawn(move || by_tcp(running, name, end)));
            threads.push(scope.spawn(move || by_requests(running, (topic, name), record, end)));
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(Said::default(), |all, one| Said {
            messages: all.messages + one.messages,
            repeated: all.repeated + one.repeated,
        })
    })
}

/// Calls `say` with bursts of messages until the end. Returns how many there were.
fn bursts(publisher: usize, end: Instant, mut say: impl FnMut(&[String])) -> Said {
    let mut said = 0;
    while Instant::now() < end {
        let messages = (said + 1..=said + BURST).map(|number| Publishing::message(publisher, number).to_string());
        say(&messages.collect::<Vec<_>>());
        said += BURST;
        thread::sleep(PAUSE);
    }
    Said { messages: said, repeated: 0 }
}

/// Throws away what comes until the end, beside.
fn drained(client: &Client) -> thread::JoinHandle<()> {
    let mut reading = Client::over(client.stream.try_clone().unwrap());
    thread::spawn(move || reading.end())
}

fn by_websocket(running: &Running, topic: &str, end: Instant) -> Said {
    let mut client = running.websocket(&format!("/topics/{topic}?echo=0"));
    let reading = drained(&client);
    let said = bursts(0, end, |messages| {
        let frames: Vec<u8> = messages.iter().flat_map(|message| masked(FIN | TEXT, message.as_bytes())).collect();
        client.send_raw(&frames);
    });
    client.stream.shutdown(Shutdown::Write).unwrap();
    reading.join().unwrap();
    said
}

fn by_tcp(running: &Running, topic: &str, end: Instant) -> Said {
    let mut client = running.connect(1);
    client.send_raw(format!("{topic} echo=0\n").as_bytes());
    let reading = drained(&client);
    let said = bursts(1, end, |messages| client.send_raw(format!("{}\n", messages.join("\n")).as_bytes()));
    client.stream.shutdown(Shutdown::Write).unwrap();
    reading.join().unwrap();
    said
}

fn by_requests(running: &Running, (topic, name): (usize, &str), record: &Record, end: Instant) -> Said {
    let mut client = running.connect(0);
    let (mut said, mut repeated, mut left) = (0, 0, 0);
    while Instant::now() < end {
        said += 1;
        let message = Publishing::message(2, said);
        // Every seventh is said twice, and is one message all the same, where history is long enough to know that.
        let times = if said % 7 == 0 && record.is_long() { 2 } else { 1 };
        for time in 0..times {
            // A connection has a thousand requests.
            if left == 0 {
                (client, left) = (running.connect(0), 900);
            }
            left -= 1;
            let (epoch, offset, duplicate) = post_over(&mut client, name, &message.to_string(), said);
            record.stands(topic, (epoch, offset), message);
            assert_eq!(duplicate, time == 1, "{message:x}");
            repeated += time;
        }
    }
    Said { messages: said, repeated }
}

fn post_over(client: &mut Client, topic: &str, body: &str, key: u64) -> (u64, u64, bool) {
    let length = body.len();
    let mut request = Vec::new();
    write!(request, "POST /topics/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n").unwrap();
    write!(request, "Content-Type: text/plain\r\nIdempotency-Key: {key}\r\n\r\n{body}").unwrap();
    client.send_raw(&request);
    let mut length = 0;
    loop {
        let line = client.line().expect("an answer");
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let answer: serde_json::Value = serde_json::from_slice(&client.exactly(length)).unwrap();
    assert_eq!(answer["topic"], topic);
    (answer["epoch"].as_u64().unwrap(), answer["offset"].as_u64().unwrap(), answer["duplicate"] == true)
}

/// Ends a topic: its last message but one is the end. The last one wakes those who had got that far before anybody
/// knew that it is the end.
pub fn end(address: SocketAddr, topic: &str, mut known: impl FnMut(u64)) {
    let mut client = Client::connect(address);
    let body = Publishing::END.to_string();
    known(post_over(&mut client, topic, &body, 0).1);
    post_over(&mut client, topic, &body, u64::MAX);
}
