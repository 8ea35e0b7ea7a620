//! What scripted callers say and hear in calls of `holdline.v1.Edge`.

use prost::Message as _;

use super::streams::{Place, Told};
use super::wire::{Frame, Style};
use crate::codec::grpc;
use crate::codec::grpc::generated::edge::{
    self, ClientFrame, EchoMessage, PublishRequest, PublishResponse, ServerFrame, client_frame, message, publish,
    publish_request, server_frame, subscribe,
};

/// How a subscription is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Now,
    Since(super::streams::Cursor),
    Last(usize),
}

/// The head of a call.
pub(super) fn head(method: &str, timeout_ms: Option<usize>) -> String {
    let timeout = timeout_ms.map_or_else(String::new, |millis| format!("grpc-timeout: {millis}m\r\n"));
    format!(
        "POST /holdline.v1.Edge/{method} HTTP/1.1\r\nHost: sim\r\nContent-Type: application/grpc\r\nTE: trailers\r\n{timeout}\r\n"
    )
}

fn client_frame(id: u32, frame: client_frame::Frame, out: &mut Vec<u8>) {
    grpc::encode(&ClientFrame { id, frame: Some(frame) }.encode_to_vec(), out);
}

/// Asks for a topic.
pub(super) fn subscribe(topic: u8, from: From, group: bool, echo: bool, out: &mut Vec<u8>) {
    let start = match from {
        From::Now => None,
        From::Since((epoch, offset)) => Some(subscribe::Start::Since(edge::Cursor { epoch, offset })),
        From::Last(count) => Some(subscribe::Start::History(u32::try_from(count).unwrap_or(0))),
    };
    let group = if group { "g".to_owned() } else { String::new() };
    let wish =
        edge::Subscribe { topic: format!("t{topic}"), group, no_echo: !echo, start, ..edge::Subscribe::default() };
    client_frame(0, client_frame::Frame::Subscribe(wish), out);
}

/// Asks for no more of a topic.
pub(super) fn unsubscribe(topic: u8, out: &mut Vec<u8>) {
    let wish = edge::Unsubscribe { topic: format!("t{topic}") };
    client_frame(7, client_frame::Frame::Unsubscribe(wish), out);
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

/// Publishes in a call that goes on.
pub(super) fn publish(topic: u8, id: u32, style: Style, said: &[u8], key: &str, out: &mut Vec<u8>) {
    let payload = match style {
        Style::Binary => publish::Payload::Binary(said.to_vec()),
        _ => publish::Payload::Text(text(said)),
    };
    let (topic, idempotency_key) = (format!("t{topic}"), key.to_owned());
    let wish = edge::Publish { topic, idempotency_key, payload: Some(payload), ..edge::Publish::default() };
    client_frame(id, client_frame::Frame::Publish(wish), out);
}

/// Publishes in a call of its own.
pub(super) fn publish_once(topic: u8, style: Style, said: &[u8], key: &str, out: &mut Vec<u8>) {
    let payload = match style {
        Style::Binary => publish_request::Payload::Binary(said.to_vec()),
        _ => publish_request::Payload::Text(text(said)),
    };
    let (topic, idempotency_key) = (format!("t{topic}"), key.to_owned());
    grpc::encode(&PublishRequest { topic, idempotency_key, payload: Some(payload) }.encode_to_vec(), out);
}

/// Has something sent back.
pub(super) fn echo(said: &[u8], out: &mut Vec<u8>) {
    grpc::encode(&EchoMessage { payload: said.to_vec() }.encode_to_vec(), out);
}

/// Takes a message, if it is all there.
fn next(inbox: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let &[compressed, a, b, c, d, ..] = &inbox[..] else { return Ok(None) };
    let end = 5 + u32::from_be_bytes([a, b, c, d]) as usize;
    if compressed != 0 || end > 1 << 24 {
        return Err(format!("a message of a call begins with {:?}", &inbox[..5]));
    }
    Ok((inbox.len() >= end).then(|| inbox.drain(..end).skip(5).collect()))
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Told(Told),
    /// A publication's number, its place, its subscribers, whether it was known.
    Ack(u32, Place, u64, bool),
    /// There is no room for this publication's topic, or a drain has waited for the disk for long enough: the journal of these
    /// worlds never fails itself. Whether the publication was written down nobody knows then.
    NoRoom(u32),
}

fn place(topic: &str, cursor: Option<edge::Cursor>) -> Result<Place, String> {
    let number = topic.strip_prefix('t').and_then(|number| number.parse().ok());
    let cursor = cursor.ok_or("a place without a cursor")?;
    let topic = number.ok_or_else(|| format!("a topic of nobody: {topic}"))?;
    Ok(Place { topic, cursor: (cursor.epoch, cursor.offset) })
}

fn payload(payload: Option<message::Payload>) -> Result<Frame, String> {
    match payload {
        Some(message::Payload::Text(text)) => Ok(Frame::Text(text.into_bytes())),
        Some(message::Payload::Binary(bytes)) => Ok(Frame::Binary(bytes)),
        None => Err("a message of nothing".into()),
    }
}

/// What stands at the beginning of `Connect`'s answers, if it is all there. `works`: in a queue group.
pub(super) fn hear(works: bool, inbox: &mut Vec<u8>) -> Result<Option<Heard>, String> {
    let Some(bytes) = next(inbox)? else { return Ok(None) };
    let frame = ServerFrame::decode(&bytes[..]).map_err(|error| error.to_string())?;
    let number = frame.id;
    Ok(Some(match frame.frame.ok_or("a frame of nothing")? {
        server_frame::Frame::Message(edge::Message { topic, cursor, payload: said, .. }) => {
            let place = if works { None } else { Some(place(&topic, cursor)?) };
            Heard::Told(Told::Message(place, payload(said)?))
        }
        server_frame::Frame::Subscribed(edge::Subscribed { topic, cursor: None }) if works => {
            Heard::Told(Told::Begins(place(&topic, Some(edge::Cursor::default()))?))
        }
        server_frame::Frame::Subscribed(edge::Subscribed { topic, cursor }) => {
            Heard::Told(Told::Begins(place(&topic, cursor)?))
        }
        server_frame::Frame::Unsubscribed(edge::Unsubscribed { topic }) => {
            Heard::Told(Told::Left(place(&topic, Some(edge::Cursor::default()))?.topic))
        }
        server_frame::Frame::Reset(edge::Reset { topic, cursor }) => Heard::Told(Told::Reset(place(&topic, cursor)?)),
        server_frame::Frame::Published(edge::Published { topic, cursor, subscribers, duplicate }) => {
            Heard::Ack(number, place(&topic, cursor)?, subscribers, duplicate)
        }
        server_frame::Frame::Error(error) if matches!(error.code.as_str(), "topics_max" | "journal_failed") => {
            Heard::NoRoom(number)
        }
        server_frame::Frame::Error(error) => return Err(format!("it is answered {error:?}")),
        frame @ server_frame::Frame::Presence(_) => return Err(format!("nobody watches, and hears {frame:?}")),
        frame @ (server_frame::Frame::Authenticated(_) | server_frame::Frame::Expiring(_)) => {
            return Err(format!("nobody was asked who it is, and hears {frame:?}"));
        }
    }))
}

/// The same for a peer that reads one topic from now on.
pub(super) fn frame(inbox: &mut Vec<u8>) -> Result<Option<Frame>, String> {
    Ok(hear(false, inbox)?.map(|heard| match heard {
        Heard::Told(Told::Message(_, frame)) => frame,
        Heard::Told(_) => Frame::Aside,
        Heard::Ack(number, ..) | Heard::NoRoom(number) => Frame::Ack(number),
    }))
}

/// The answer of `Publish`, if it is all there.
pub(super) fn hear_published(inbox: &mut Vec<u8>) -> Result<Option<Heard>, String> {
    let Some(bytes) = next(inbox)? else { return Ok(None) };
    let PublishResponse { topic, cursor, subscribers, duplicate } =
        PublishResponse::decode(&bytes[..]).map_err(|error| error.to_string())?;
    Ok(Some(Heard::Ack(0, place(&topic, cursor)?, subscribers, duplicate)))
}

/// What `Echo` sends back, if it is all there.
pub(super) fn hear_echo(inbox: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let Some(bytes) = next(inbox)? else { return Ok(None) };
    let echo = EchoMessage::decode(&bytes[..]).map_err(|error| error.to_string())?;
    Ok(Some(echo.payload))
}
