//! How scripted readers of streams read: HTTP heads, chunks, events and lines of JSON, strict and in plain code of their own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::wire::{self, Format, Frame, Zip};

/// Epoch and offset.
pub(super) type Cursor = (u64, u64);

/// A place in a topic, `t` and this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) topic: u8,
    pub(super) cursor: Cursor,
}

/// In what a topic is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// A WebSocket with JSON in its frames.
    Json,
    Events,
    Lines,
    Polls,
    /// A call of `Connect`.
    Calls,
    /// A WebSocket with bare payloads, which cannot be resumed.
    Bare,
    /// Raw TCP, likewise.
    Raw(Format),
}

/// What a reader was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Message(Option<Place>, Frame),
    Reset(Place),
    /// The stream stands here in its topics.
    Stands(Vec<Cursor>),
    /// A call's subscription begins; in a queue group the place says nothing.
    Begins(Place),
    /// A call's subscription has ended.
    Left(u8),
    /// Something of the protocol's own.
    Aside(Frame),
    /// The response is complete.
    End,
}

/// The head of a response.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    text: String,
}

impl Head {
    /// The value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Takes the head of a response, if all of it is there.
pub(super) fn head(inbox: &mut Vec<u8>) -> Result<Option<Head>, String> {
    let Some(end) = inbox.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8(inbox[..end].to_vec()).map_err(|_| "a head that is not UTF-8")?;
    inbox.drain(..end + 4);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    Ok(Some(Head { status: status.ok_or_else(|| format!("no status: {text}"))?, text }))
}

/// Takes the body that a head has declared, if all of it is there.
pub(super) fn body(head: &Head, inbox: &mut Vec<u8>) -> Result<Option<String>, String> {
    let length = head.field("content-length").and_then(|length| length.parse().ok());
    let length: usize = length.ok_or_else(|| format!("no length: {}", head.text))?;
    if inbox.len() < length {
        return Ok(None);
    }
    let body = inbox.drain(..length).collect();
    String::from_utf8(body).map(Some).map_err(|_| "a body that is not UTF-8".into())
}

/// Cursors with commas between them.
pub(super) fn cursors(list: &str) -> Result<Vec<Cursor>, String> {
    let one = |text: &str| {
        let (epoch, offset) = text.split_once(':')?;
        Some((epoch.parse().ok()?, offset.parse().ok()?))
    };
    list.split(',').map(one).collect::<Option<_>>().ok_or_else(|| format!("no cursors: {list}"))
}

/// What stands at the beginning of an open stream, if it is complete: taken from `inbox`, its parts behind each other in
/// `told`. Whether there was something.
pub(super) fn next(
    transport: Transport,
    topics: &[u8],
    inbox: &mut Vec<u8>,
    zip: &mut Zip,
    told: &mut Vec<Told>,
) -> Result<bool, String> {
    match transport {
        Transport::Events => {
            let Some(end) = inbox.windows(2).position(|two| two == b"\n\n") else { return Ok(false) };
            let block = String::from_utf8(inbox.drain(..end + 2).collect()).map_err(|_| "events that are not UTF-8")?;
            event(&block, topics, told)?;
        }
        Transport::Lines => {
            let Some(end) = inbox.windows(2).position(|two| two == b"\r\n") else { return Ok(false) };
            let length = str::from_utf8(&inbox[..end]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
            let length = length.ok_or("no length of a chunk")?;
            if inbox.len() < end + 2 + length + 2 {
                return Ok(false);
            }
            let chunk: Vec<u8> = inbox.drain(..end + 2 + length + 2).skip(end + 2).collect();
            if length == 0 {
                told.push(Told::End);
                return Ok(true);
            }
            let lines = String::from_utf8(chunk).map_err(|_| "lines that are not UTF-8")?;
            let lines = lines.strip_suffix("\n\r\n").ok_or_else(|| format!("half a line in a chunk: {lines}"))?;
            // The last line of a server that goes away says when to come back.
            let is_told = |line: &&str| !line.is_empty() && !line.starts_with("{\"retry\":");
            for line in lines.split('\n').filter(is_told) {
                told.push(json(&mut Scan(line))?);
            }
        }
        Transport::Json | Transport::Bare => {
            let Some(frame) = wire::next(Format::WebSocket { deflate: false }, inbox, zip)? else { return Ok(false) };
            told.push(match (transport, frame) {
                (Transport::Json, Frame::Text(line)) => json(&mut Scan(&String::from_utf8_lossy(&line)))?,
                (Transport::Bare, frame @ (Frame::Text(_) | Frame::Binary(_))) => Told::Message(None, frame),
                (_, frame) => Told::Aside(frame),
            });
        }
        // Read elsewhere.
        Transport::Calls => return Ok(false),
        Transport::Raw(format) => {
            let Some(frame) = wire::next(format, inbox, zip)? else { return Ok(false) };
            let is_message = matches!(frame, Frame::Raw(_));
            told.push(if is_message { Told::Message(None, frame) } else { Told::Aside(frame) });
        }
        Transport::Polls => return Ok(false),
    }
    Ok(true)
}

/// The answer of a poll, whose head has been taken.
pub(super) fn answer(head: &Head, body: &str, told: &mut Vec<Told>) -> Result<(), String> {
    let mut scan = Scan(body);
    scan.take("[")?;
    while !scan.is_at("]\n") {
        told.push(json(&mut scan)?);
        if !scan.is_at("]") {
            scan.take(",")?;
        }
    }
    told.extend(head.field("holdline-cursor").map(cursors).transpose()?.map(Told::Stands));
    told.push(Told::End);
    Ok(())
}

/// One event, or a comment.
fn event(block: &str, topics: &[u8], told: &mut Vec<Told>) -> Result<(), String> {
    let (mut id, mut event, mut data) = (None, "", Vec::new());
    for line in block.lines().filter(|line| !line.is_empty() && !line.starts_with(':')) {
        match line.split_once(": ") {
            Some(("id", value)) => id = Some(cursors(value)?),
            Some(("event", value)) => event = value,
            Some(("data", value)) => data.push(value),
            Some(("retry", _)) => {}
            _ => return Err(format!("a strange line of an event: {line}")),
        }
    }
    let bad = || format!("a strange event: {block}");
    let text = data.join("\n");
    match (event, data.is_empty(), topics, &id) {
        ("", true, ..) => {}
        // Where the stream begins.
        ("start", false, _, Some(_)) if text.is_empty() => {}
        ("", false, [topic], Some(id)) => {
            let place = Place { topic: *topic, cursor: *id.first().ok_or_else(bad)? };
            told.push(Told::Message(Some(place), Frame::Text(text.into_bytes())));
        }
        // In a queue group nothing is said of places.
        ("", false, [_], None) => told.push(Told::Message(None, Frame::Text(text.into_bytes()))),
        ("" | "binary" | "reset", false, ..) => {
            let item = json(&mut Scan(&text))?;
            if matches!(item, Told::Reset(_)) != (event == "reset") {
                return Err(bad());
            }
            told.push(item);
        }
        _ => return Err(bad()),
    }
    told.extend(id.map(Told::Stands));
    Ok(())
}

/// What became of a publication: its place, the subscribers, whether it was a duplicate.
pub(super) fn ack(body: &str) -> Result<(Place, u64, bool), String> {
    let mut scan = Scan(body);
    let place = scan.place()?;
    scan.take(",\"subscribers\":")?;
    let subscribers = scan.number()?;
    let duplicate = scan.take(",\"duplicate\":true").is_ok();
    scan.take("}\n")?;
    Ok((place, subscribers, duplicate))
}

/// A message or a reset.
fn json(scan: &mut Scan<'_>) -> Result<Told, String> {
    let place = scan.place()?;
    if scan.take(",\"reset\":true}").is_ok() {
        return Ok(Told::Reset(place));
    }
    scan.take(",\"time\":")?;
    scan.number()?;
    let frame = if scan.take(",\"text\":").is_ok() {
        Frame::Text(scan.string()?.into_bytes())
    } else {
        scan.take(",\"base64\":")?;
        let bytes = STANDARD.decode(scan.string()?).map_err(|error| error.to_string())?;
        Frame::Binary(bytes)
    };
    scan.take("}")?;
    Ok(Told::Message(Some(place), frame))
}

/// JSON in exactly the form that is promised.
struct Scan<'a>(&'a str);

impl Scan<'_> {
    fn is_at(&self, what: &str) -> bool {
        self.0.starts_with(what)
    }

    fn take(&mut self, what: &str) -> Result<(), String> {
        self.0 = self.0.strip_prefix(what).ok_or_else(|| format!("{what} is not where it should be: {}", self.0))?;
        Ok(())
    }

    fn number(&mut self) -> Result<u64, String> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.0.split_at(digits);
        self.0 = rest;
        number.parse().map_err(|_| format!("no number before {rest}"))
    }

    fn string(&mut self) -> Result<String, String> {
        self.take("\"")?;
        let mut string = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Ok(string);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => string.push('\n'),
                    Some((_, plain @ ('"' | '\\'))) => string.push(plain),
                    other => return Err(format!("an escape that nobody needed: {other:?}")),
                },
                ' '.. => string.push(char),
                _ => return Err(format!("{char:?} in a string")),
            }
        }
        Err("a string without an end".into())
    }

    fn place(&mut self) -> Result<Place, String> {
        self.take("{\"topic\":")?;
        let name = self.string()?;
        let topic = name.strip_prefix('t').and_then(|number| number.parse().ok());
        let topic = topic.ok_or_else(|| format!("a topic of nobody: {name}"))?;
        self.take(",\"epoch\":")?;
        let epoch = self.number()?;
        self.take(",\"offset\":")?;
        Ok(Place { topic, cursor: (epoch, self.number()?) })
    }
}
