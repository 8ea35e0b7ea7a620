//! Publishers and subscribers of one topic that come back wherever they were thrown out, and their books.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::wire::{FIN, TEXT, handshake, masked};

const PATIENCE: Duration = Duration::from_secs(60);

/// Epoch and offset.
type Place = (u64, u64);
type Stream = BufReader<TcpStream>;

/// How a subscriber listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Events,
    Lines,
    WebSocket,
    Tcp,
}

/// What all of them share.
struct Scene {
    web: String,
    lines: String,
    /// The publishers are to end.
    is_over: AtomicBool,
    /// The offset of the last message of all, once there is one.
    last: AtomicU64,
    acknowledged: AtomicU64,
}

/// What one subscriber has heard: by offset; and which offsets it was told that it has missed, up to and with the second.
#[derive(Default)]
struct Heard {
    messages: BTreeMap<u64, String>,
    gaps: Vec<Place>,
    reconnects: u64,
}

/// What one publisher was told.
#[derive(Default)]
struct Told {
    acknowledged: HashMap<u64, String>,
    reconnects: u64,
    /// Answers that said: not now.
    refused: u64,
}

/// Traffic that flows.
pub struct Traffic {
    scene: Arc<Scene>,
    subscribers: Vec<(Way, JoinHandle<Heard>)>,
    publishers: Vec<JoinHandle<Told>>,
}

/// What came of it.
pub struct Books {
    acknowledged: BTreeMap<u64, String>,
    heard: Vec<(Way, Heard)>,
    pub resets: usize,
    pub reconnects: u64,
    pub refused: u64,
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, resets, reconnects, refused, .. } = self;
        write!(f, "{} acknowledged, {reconnects} reconnects, {refused} refused, {resets} resets", acknowledged.len())
    }
}

impl Books {
    /// Each acknowledged message was heard by each subscriber, or that one was told that it has missed it.
    pub fn nothing_is_lost(&self) {
        assert!(self.acknowledged.len() > 100, "{self} is no traffic");
        for (way, heard) in &self.heard {
            for (offset, text) in &self.acknowledged {
                let is_told = || heard.gaps.iter().any(|(from, to)| from < offset && offset <= to);
                match heard.messages.get(offset) {
                    Some(other) => assert_eq!(other, text, "{way:?} at {offset}"),
                    None => assert!(is_told(), "{way:?} has never heard of {offset}, {text:?}; {:?}", heard.gaps),
                }
            }
        }
    }
}

impl Traffic {
    pub fn start(web: &str, lines: &str) -> Self {
        let scene = Arc::new(Scene {
            web: web.to_owned(),
            lines: lines.to_owned(),
            is_over: AtomicBool::new(false),
            last: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
        });
        let (status, first, _) = post(&mut connect(web), "first", "first").unwrap();
        assert_eq!(status, 200);
        let ways = [Way::Events, Way::Lines, Way::WebSocket, Way::Tcp];
        let subscribers = ways.map(|way| {
            let scene = Arc::clone(&scene);
            (way, thread::spawn(move || subscribe(way, &scene, first)))
        });
        let publisher = |run: fn(&Scene, usize) -> Told, number| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || run(&scene, number))
        };
        let publishers = vec![
            publisher(|scene, number| poster(scene, number, false), 1),
            publisher(|scene, number| poster(scene, number, true), 2),
            publisher(talker, 3),
        ];
        Self { scene, subscribers: subscribers.into(), publishers }
    }

    /// Waits until some more was acknowledged.
    pub fn flows(&self) {
        let (from, deadline) = (self.scene.acknowledged.load(Relaxed), Instant::now() + PATIENCE);
        while self.scene.acknowledged.load(Relaxed) < from + 100 {
            assert!(Instant::now() < deadline, "nothing flows");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it, when all have heard the last message.
    pub fn end(self) -> Books {
        let Self { scene, subscribers, publishers } = self;
        scene.is_over.store(true, Relaxed);
        let told: Vec<Told> = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
        let (status, (_, last), _) = post(&mut connect(&scene.web), "last", "last").unwrap();
        assert_eq!(status, 200);
        scene.last.store(last, Relaxed);
        // Who had heard it before this was known waits for one more.
        let deadline = Instant::now() + PATIENCE;
        for number in 0.. {
            if subscribers.iter().all(|(_, subscriber)| subscriber.is_finished()) {
                break;
            }
            assert!(Instant::now() < deadline, "a subscriber has not heard the last message");
            let more = format!("more {number}");
            assert_eq!(post(&mut connect(&scene.web), &more, &more).unwrap().0, 200);
            thread::sleep(Duration::from_millis(20));
        }
        let join = |(way, subscriber): (Way, JoinHandle<Heard>)| (way, subscriber.join().unwrap());
        let heard: Vec<_> = subscribers.into_iter().map(join).collect();
        let reconnects = told.iter().map(|one| one.reconnects).chain(heard.iter().map(|(_, one)| one.reconnects));
        Books {
            resets: heard.iter().map(|(_, heard)| heard.gaps.len()).sum(),
            reconnects: reconnects.sum(),
            refused: told.iter().map(|one| one.refused).sum(),
            acknowledged: told.into_iter().flat_map(|one| one.acknowledged).collect(),
            heard,
        }
    }
}

/// A connect that fails is what no client may see.
fn connect(address: &str) -> Stream {
    let stream = TcpStream::connect(address).expect("a connect is never refused");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

/// One line, without its end; one that does not end was never sent.
fn line(stream: &mut Stream) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let whole = line.strip_suffix('\n').ok_or(ErrorKind::UnexpectedEof)?;
    Ok(whole.strip_suffix('\r').unwrap_or(whole).to_owned())
}

/// The status and the fields of an answer, in small letters.
fn head(stream: &mut Stream) -> io::Result<(u16, String)> {
    let status = line(stream)?.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let mut fields = String::new();
    loop {
        match &*line(stream)? {
            "" => return Ok((status, fields)),
            field => fields += &(field.to_lowercase() + "\n"),
        }
    }
}

fn place(json: &Value) -> Place {
    (json["epoch"].as_u64().unwrap_or(0), json["offset"].as_u64().unwrap_or(0))
}

/// Publishes; returns the status, the place, and whether the connection stays.
fn post(stream: &mut Stream, key: &str, text: &str) -> io::Result<(u16, Place, bool)> {
    let length = text.len();
    let fields =
        format!("Host: here\r\nContent-Type: text/plain\r\nIdempotency-Key: {key}\r\nContent-Length: {length}");
    stream.get_mut().write_all(format!("POST /topics/news HTTP/1.1\r\n{fields}\r\n\r\n{text}").as_bytes())?;
    let (status, fields) = head(stream)?;
    let field = |name: &str| fields.lines().find_map(|field| field.strip_prefix(name)).map(str::trim);
    let mut body = vec![0; field("content-length:").unwrap().parse().unwrap()];
    stream.read_exact(&mut body)?;
    Ok((status, place(&serde_json::from_slice(&body).unwrap()), field("connection:") != Some("close")))
}

/// Posts one message after the other, each until it was acknowledged.
fn poster(scene: &Scene, number: usize, keeps_alive: bool) -> Told {
    let (mut told, mut stream) = (Told::default(), connect(&scene.web));
    for message in 0.. {
        if scene.is_over.load(Relaxed) {
            break;
        }
        let text = format!("p{number} {message}");
        loop {
            let result = post(&mut stream, &text, &text);
            if !keeps_alive || !matches!(result, Ok((_, _, true))) {
                // After a thousand requests, or in a drain, an answer says that it is the connection's last.
                told.reconnects += u64::from(keeps_alive && result.is_err());
                stream = connect(&scene.web);
            }
            match result {
                Ok((200, (_, offset), _)) => {
                    scene.acknowledged.fetch_add(1, Relaxed);
                    told.acknowledged.insert(offset, text);
                    break;
                }
                Ok((503, ..)) => told.refused += 1,
                Ok((status, ..)) => panic!("{text}: {status}"),
                // A connection that the server has closed, perhaps before it has read this.
                Err(_) => {}
            }
        }
    }
    told
}

/// Publishes through a WebSocket, and takes for an acknowledgement that it hears itself.
fn talker(scene: &Scene, number: usize) -> Told {
    let (mut told, mut stream) = (Told::default(), None);
    for message in 0.. {
        if scene.is_over.load(Relaxed) {
            break;
        }
        let text = format!("p{number} {message}");
        let websocket = stream.get_or_insert_with(|| open(Way::WebSocket, scene, (0, 0)).unwrap());
        match say(websocket, &text) {
            Ok(offset) => {
                scene.acknowledged.fetch_add(1, Relaxed);
                told.acknowledged.insert(offset, text);
            }
            Err(_) => {
                told.reconnects += 1;
                stream = None;
            }
        }
    }
    told
}

fn say(stream: &mut Stream, text: &str) -> io::Result<u64> {
    stream.get_mut().write_all(&masked(FIN | TEXT, text.as_bytes()))?;
    loop {
        let json = websocket_json(stream)?;
        if json["text"] == text {
            return Ok(place(&json).1);
        }
    }
}

/// Begins to listen after a place.
fn open(way: Way, scene: &Scene, (epoch, offset): Place) -> io::Result<Stream> {
    let mut stream = connect(if way == Way::Tcp { &scene.lines } else { &scene.web });
    let since = format!("since={epoch}:{offset}");
    let request = match way {
        Way::Events => {
            let fields = format!("Accept: text/event-stream\r\nLast-Event-ID: {epoch}:{offset}");
            format!("GET /topics/news HTTP/1.1\r\nHost: here\r\n{fields}\r\n\r\n")
        }
        Way::Lines => format!("GET /topics/news?stream=1&{since} HTTP/1.1\r\nHost: here\r\n\r\n"),
        // A publisher begins with now.
        Way::WebSocket if epoch == 0 => handshake("/topics/news?format=json", ""),
        Way::WebSocket => handshake(&format!("/topics/news?format=json&{since}"), ""),
        Way::Tcp => format!("news {since}\n"),
    };
    stream.get_mut().write_all(request.as_bytes())?;
    if way != Way::Tcp {
        let (status, _) = head(&mut stream)?;
        let expected = if way == Way::WebSocket { 101 } else { 200 };
        if status != expected {
            return Err(io::Error::other(format!("{way:?}: {status}")));
        }
    }
    Ok(stream)
}

/// Listens until it has heard the last message of all.
fn subscribe(way: Way, scene: &Scene, first: Place) -> Heard {
    let (mut heard, (mut epoch, mut offset)) = (Heard::default(), first);
    loop {
        let Ok(mut stream) = open(way, scene, (epoch, offset)) else {
            heard.reconnects += 1;
            continue;
        };
        loop {
            // There may be nothing more to come.
            let is_silent = is_silent(&mut stream);
            let last = scene.last.load(Relaxed);
            if last > 0 && offset >= last {
                return heard;
            }
            if is_silent {
                continue;
            }
            let Ok((json, text)) = next(way, &mut stream) else { break };
            let Some(text) = text else {
                let told = place(&json);
                heard.gaps.push((offset, told.1));
                (epoch, offset) = told;
                continue;
            };
            offset += 1;
            if way != Way::Tcp {
                assert_eq!(place(&json), (epoch, offset), "{way:?}: {text}");
            }
            heard.messages.insert(offset, text);
        }
        heard.reconnects += 1;
    }
}

/// Whether nothing comes for a moment.
fn is_silent(stream: &mut Stream) -> bool {
    if !stream.buffer().is_empty() {
        return false;
    }
    stream.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let is_silent = stream.fill_buf().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    is_silent
}

/// The next message with its place, or a reset without a text.
fn next(way: Way, stream: &mut Stream) -> io::Result<(Value, Option<String>)> {
    loop {
        let (json, text) = match way {
            Way::Events => event(stream)?,
            Way::WebSocket => (websocket_json(stream)?, None),
            Way::Lines | Way::Tcp => match line(stream)? {
                line if line.starts_with('{') => (serde_json::from_str(&line).unwrap(), None),
                line if way == Way::Tcp && !line.is_empty() => (Value::Null, Some(line)),
                _ => continue,
            },
        };
        if json["reset"] == true {
            return Ok((json, None));
        }
        if let Some(text) = text.or_else(|| json["text"].as_str().map(str::to_owned)) {
            return Ok((json, Some(text)));
        }
    }
}

/// An event: its place, and its text; or the JSON of a reset.
fn event(stream: &mut Stream) -> io::Result<(Value, Option<String>)> {
    let (mut id, mut kind, mut data) = (Value::Null, String::new(), None);
    loop {
        let line = line(stream)?;
        match line.split_once(": ") {
            Some(("id", place)) => {
                let (epoch, offset) = place.split_once(':').unwrap();
                let number = |text: &str| text.parse::<u64>().unwrap();
                id = serde_json::json!({ "epoch": number(epoch), "offset": number(offset) });
            }
            Some(("event", name)) => kind = name.to_owned(),
            Some(("data", text)) => data = Some(text.to_owned()),
            _ if line.is_empty() && kind == "reset" => {
                return Ok((serde_json::from_str(&data.unwrap()).unwrap(), None));
            }
            _ if line.is_empty() && kind != "start" && data.is_some() => return Ok((id, data)),
            _ if line.is_empty() => (kind, data) = (String::new(), None),
            _ => {}
        }
    }
}

/// The JSON of the next text frame.
fn websocket_json(stream: &mut Stream) -> io::Result<Value> {
    loop {
        let mut start = [0; 2];
        stream.read_exact(&mut start)?;
        let mut length = u64::from(start[1]);
        if length == 126 {
            let mut more = [0; 2];
            stream.read_exact(&mut more)?;
            length = u64::from(u16::from_be_bytes(more));
        }
        let mut payload = Vec::new();
        stream.take(length).read_to_end(&mut payload)?;
        match start[0] & 0xf {
            TEXT => return serde_json::from_slice(&payload).map_err(io::Error::other),
            super::wire::CLOSE => return Err(ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}
