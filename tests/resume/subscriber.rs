//! A subscriber that drops its connections and goes on where it was, in any transport.

use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::TOPICS;
use super::common::Client;
use super::common::wire::{FIN, TEXT, handshake};
use super::record::Record;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Json,
    Events,
    Lines,
    Poll,
}

pub struct Subscriber {
    transport: Transport,
    pub topics: Vec<usize>,
    places: Vec<Option<(u64, u64)>>,
    random: u64,
    pub drops: u64,
    pub resets: u64,
}

/// The connection has ended.
struct Ended;

impl Subscriber {
    pub fn new(seed: u64, transport: Transport, topics: Vec<usize>) -> Self {
        Self { transport, places: vec![None; topics.len()], topics, random: seed, drops: 0, resets: 0 }
    }

    /// One of so many, by xorshift.
    fn chance(&mut self, of: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.is_multiple_of(of)
    }

    /// Follows its topics to their ends. It does not drop before all `may_begin`.
    pub fn run(&mut self, address: SocketAddr, record: &Record, may_begin: &AtomicBool) {
        while !self.is_at_end(record) {
            let mut client = Client::connect(address);
            client.send_raw(self.request().as_bytes());
            while let Ok(()) = self.step(&mut client, record) {
                if self.is_at_end(record) {
                    return;
                }
                if may_begin.load(Ordering::Acquire) && self.chance(200) {
                    if self.chance(2) {
                        let _ = client.stream.shutdown(Shutdown::Write);
                    }
                    break;
                }
            }
            self.drops += 1;
            drop(client);
            if self.chance(3) {
                thread::sleep(Duration::from_millis(1 + self.random % 40));
            }
        }
    }

    fn is_at_end(&self, record: &Record) -> bool {
        let is_end = |(topic, place): (&usize, &Option<(u64, u64)>)| {
            place.is_some_and(|(_, offset)| record.is_end(*topic, offset))
        };
        self.topics.iter().zip(&self.places).all(is_end)
    }

    fn request(&self) -> String {
        let topics: Vec<_> = self.topics.iter().map(|topic| TOPICS[*topic]).collect();
        let places: Option<Vec<_>> = self.places.iter().map(|place| place.map(|(e, o)| format!("{e}:{o}"))).collect();
        let (path, since) = (format!("/topics/{}", topics.join(",")), places.map(|places| places.join(",")));
        let parameter = since.as_ref().map_or(String::new(), |since| format!("&since={since}"));
        let get = |query: &str| format!("GET {path}?{query}{parameter} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        match self.transport {
            Transport::Json => handshake(&format!("{path}?format=json{parameter}"), ""),
            Transport::Lines => get("stream=1"),
            Transport::Poll => get("wait=500ms"),
            Transport::Events => {
                let seen = since.map_or(String::new(), |since| format!("Last-Event-ID: {since}\r\n"));
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{seen}\r\n")
            }
        }
    }

    /// Takes the next thing that comes.
    fn step(&mut self, client: &mut Client, record: &Record) -> Result<(), Ended> {
        let line = if self.transport == Transport::Json && !self.is_head(client) {
            return self.frame(client, record);
        } else {
            client.line().ok_or(Ended)?
        };
        if line.starts_with("HTTP/1.1 ") {
            return self.head(&line, client, record);
        }
        match self.transport {
            Transport::Lines => {
                let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
                let chunk = client.exactly(length + 2);
                let chunk = chunk.strip_suffix(b"\r\n").filter(|chunk| chunk.len() == length).ok_or(Ended)?;
                for line in chunk.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                    self.json(line, record);
                }
            }
            _ => self.event(line, client, record)?,
        }
        Ok(())
    }

    /// A WebSocket's frames begin with a bit that no text has.
    fn is_head(&self, client: &mut Client) -> bool {
        client.peek().is_some_and(|byte| byte == b'H')
    }

    /// The rest of a head, and of a poll its answer.
    fn head(&mut self, status: &str, client: &mut Client, record: &Record) -> Result<(), Ended> {
        assert!(status.contains(" 200 ") || status.contains(" 101 "), "{status}");
        let (mut length, mut cursor) = (0, None);
        loop {
            let line = client.line().ok_or(Ended)?;
            match line.trim_end().split_once(": ") {
                None if line.trim_end().is_empty() => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                Some((name, value)) if name.eq_ignore_ascii_case("holdline-cursor") => cursor = Some(value.to_owned()),
                _ => {}
            }
        }
        if self.transport == Transport::Poll {
            let body = client.exactly(length);
            if body.len() < length {
                return Err(Ended);
            }
            let items: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
            items.iter().for_each(|item| self.item(item, record));
            self.stands(&cursor.unwrap());
            client.try_send_raw(self.request().as_bytes());
        }
        Ok(())
    }

    fn frame(&mut self, client: &mut Client, record: &Record) -> Result<(), Ended> {
        let frame = client.message().ok_or(Ended)?;
        if frame.first == FIN | TEXT {
            self.json(&frame.payload, record);
        }
        Ok(())
    }

    /// The rest of an event.
    fn event(&mut self, first: String, client: &mut Client, record: &Record) -> Result<(), Ended> {
        let (mut line, mut id, mut data, mut kind) = (first, None, None, String::new());
        while !line.is_empty() {
            match line.split_once(": ") {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("data", value)) => data = Some(value.to_owned()),
                Some(("event", value)) => kind = value.to_owned(),
                _ => {}
            }
            line = client.line().ok_or(Ended)?;
        }
        match (data, &id) {
            (Some(data), Some(id)) if self.topics.len() == 1 && kind.is_empty() => {
                let (epoch, offset) = id.split_once(':').unwrap();
                self.message(0, (epoch.parse().unwrap(), offset.parse().unwrap()), data.parse().unwrap(), record);
            }
            // Where the stream begins.
            (Some(_), _) if kind == "start" => {}
            (Some(data), _) => self.json(data.as_bytes(), record),
            (None, _) => {}
        }
        if let Some(id) = id {
            self.stands(&id);
        }
        Ok(())
    }

    fn json(&mut self, json: &[u8], record: &Record) {
        self.item(&serde_json::from_slice(json).unwrap(), record);
    }

    fn item(&mut self, item: &serde_json::Value, record: &Record) {
        let topic = TOPICS.iter().position(|topic| item["topic"] == **topic).unwrap();
        let at = self.topics.iter().position(|one| *one == topic).unwrap();
        let cursor = (item["epoch"].as_u64().unwrap(), item["offset"].as_u64().unwrap());
        if item["reset"] == true {
            let (epoch, old) = self.places[at].expect("a reset of somebody who was somewhere");
            assert!(cursor.0 == epoch && cursor.1 > old + record.messages_max, "a reset from {old} to {cursor:?}");
            self.resets += 1;
            self.places[at] = Some(cursor);
        } else {
            self.message(at, cursor, item["text"].as_str().unwrap().parse().unwrap(), record);
        }
    }

    /// The next message: no gap, no repetition.
    fn message(&mut self, at: usize, cursor: (u64, u64), message: u64, record: &Record) {
        if let Some((epoch, offset)) = self.places[at] {
            assert_eq!(cursor, (epoch, offset + 1), "{:?} of {:?}", self.transport, self.topics);
        }
        self.places[at] = Some(cursor);
        record.stands(self.topics[at], cursor, message);
    }

    /// The stream says where it stands.
    fn stands(&mut self, id: &str) {
        let place = |cursor: &str| {
            let (epoch, offset) = cursor.split_once(':').unwrap();
            (epoch.parse().unwrap(), offset.parse().unwrap())
        };
        for (own, told) in self.places.iter_mut().zip(id.split(',').map(place)) {
            assert_eq!(*own.get_or_insert(told), told, "{:?} of {:?}", self.transport, self.topics);
        }
    }
}
