//! What comes on a stream of messages: bytes in, messages and resets out.

use std::str;

use serde_json::Value;

use super::wire::{CLOSE, TEXT};

/// Epoch and offset.
pub type Place = (u64, u64);

/// How a subscriber listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    WebSocket,
    Events,
    Lines,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::WebSocket, Self::Events, Self::Lines];

    /// The request that begins behind a place, or now.
    pub fn request(self, topic: &str, since: Option<Place>) -> String {
        let since = since.map(|(epoch, offset)| format!("{epoch}:{offset}"));
        let parameter = since.as_ref().map_or(String::new(), |since| format!("&since={since}"));
        match self {
            Self::WebSocket => super::wire::handshake(&format!("/topics/{topic}?format=json{parameter}"), ""),
            Self::Lines => format!("GET /topics/{topic}?stream=1{parameter} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Self::Events => {
                let seen = since.map_or(String::new(), |since| format!("Last-Event-ID: {since}\r\n"));
                let fields = format!("Accept: text/event-stream\r\n{seen}");
                format!("GET /topics/{topic} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
            }
        }
    }
}

/// What comes.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// The answer's head: its status.
    Head(u16),
    /// A stream begins behind this place.
    Start(Place),
    Message(Place, String),
    /// Something was missed; it goes on behind this place.
    Reset(Place),
    /// There is no more.
    End,
}

/// One connection's bytes.
pub struct Reader {
    way: Way,
    bytes: Vec<u8>,
    taken: usize,
    has_head: bool,
    /// Lines that came in chunks.
    text: Vec<u8>,
    event: Event,
}

#[derive(Default)]
struct Event {
    id: Option<Place>,
    kind: String,
    data: Option<String>,
}

impl Reader {
    pub fn new(way: Way) -> Self {
        Self { way, bytes: Vec::new(), taken: 0, has_head: false, text: Vec::new(), event: Event::default() }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next one that is whole.
    pub fn next(&mut self) -> Option<Item> {
        if !self.has_head {
            let end = memchr::memmem::find(self.rest(), b"\r\n\r\n")? + 4;
            let head = str::from_utf8(self.take(end)).unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            self.has_head = true;
            return Some(Item::Head(status));
        }
        match self.way {
            Way::WebSocket => self.frame(),
            Way::Events => self.line(),
            Way::Lines => self.chunked_line(),
        }
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn take(&mut self, bytes: usize) -> &[u8] {
        self.taken += bytes;
        &self.bytes[self.taken - bytes..self.taken]
    }

    /// The next frame that has something to say.
    fn frame(&mut self) -> Option<Item> {
        loop {
            let rest = self.rest();
            let (&first, &length) = (rest.first()?, rest.get(1)?);
            let (start, length) = match length {
                126 => (4, usize::from(u16::from_be_bytes(*rest.get(2..4)?.first_chunk()?))),
                127 => panic!("no message is so long"),
                length => (2, usize::from(length)),
            };
            if rest.len() < start + length {
                return None;
            }
            let payload = &self.take(start + length)[start..];
            match first & 15 {
                TEXT => return Some(item(payload)),
                CLOSE => return Some(Item::End),
                _ => {}
            }
        }
    }

    /// The next line of JSON.
    fn chunked_line(&mut self) -> Option<Item> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.text) {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                if line.first() == Some(&b'{') {
                    let json: Value = serde_json::from_slice(&line).unwrap();
                    // In a drain: when to come again.
                    return Some(if json["retry"].is_null() { item_of(&json) } else { Item::End });
                }
                continue;
            }
            let rest = self.rest();
            let start = memchr::memmem::find(rest, b"\r\n")?;
            let length = usize::from_str_radix(str::from_utf8(&rest[..start]).unwrap(), 16).unwrap();
            if rest.len() < start + 2 + length + 2 {
                return None;
            }
            if length == 0 {
                return Some(Item::End);
            }
            let chunk = self.take(start + 2 + length + 2)[start + 2..][..length].to_vec();
            self.text.extend(chunk);
        }
    }

    /// Reads lines up to the end of the next event.
    fn line(&mut self) -> Option<Item> {
        loop {
            let end = memchr::memchr(b'\n', self.rest())?;
            let line = str::from_utf8(&self.take(end + 1)[..end]).unwrap().to_owned();
            match line.split_once(": ") {
                Some(("id", value)) => {
                    let (epoch, offset) = value.split_once(':').unwrap();
                    self.event.id = Some((epoch.parse().unwrap(), offset.parse().unwrap()));
                }
                Some(("event", value)) => value.clone_into(&mut self.event.kind),
                Some(("data", value)) => self.event.data = Some(value.to_owned()),
                _ if line.is_empty() => {
                    let Event { id, kind, data } = std::mem::take(&mut self.event);
                    match (&*kind, id, data) {
                        ("start", Some(id), _) => return Some(Item::Start(id)),
                        ("reset", _, Some(data)) => return Some(item(data.as_bytes())),
                        ("", Some(id), Some(data)) => return Some(Item::Message(id, data)),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }
}

fn item(json: &[u8]) -> Item {
    item_of(&serde_json::from_slice(json).unwrap())
}

fn item_of(json: &Value) -> Item {
    let place = (json["epoch"].as_u64().unwrap(), json["offset"].as_u64().unwrap());
    match json["text"].as_str() {
        Some(text) => Item::Message(place, text.to_owned()),
        None => {
            assert_eq!(json["reset"], true, "{json}");
            Item::Reset(place)
        }
    }
}
