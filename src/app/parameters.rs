//! What the query of a stream asks for, in whatever transport: `since=EPOCH:OFFSET` or `history=N`, `echo=0`, `group=NAME`.
//!
//! `/topics/a,b,c` over server-sent events, as lines of JSON and by long polls are three topics; a comma that belongs to a
//! name is written `%2C`. Their cursors stand in the same order, with commas between them.

use std::sync::Arc;
use std::time::Duration;

use super::router::Request;
use super::topic::refusal;
use super::{Context, Named, Refusal, Subscribe};
use crate::codec::http1::Query;
use crate::codec::http1::uri::decode_path;
use crate::hub::presence::{self, MemberId};
use crate::hub::{Group, Start};
use crate::message::{BadCursor, Cursor, Topic};
use crate::session::Protocol;

/// Their names.
pub const NAMES: [&str; 7] = ["since", "history", "echo", "group", "presence", "member", "name"];

/// The code of the error when a stream names more topics than a connection may subscribe to.
pub const TOO_MANY_TOPICS: &str = "too_many_topics";

/// Messages of a page of history that does not say how many.
const PAGE_MESSAGES: usize = 256;
/// Members of a page of a list that does not say how many.
pub const PAGE_MEMBERS: usize = 256;
/// Members of a page of a list at most.
pub const PAGE_MEMBERS_MAX: usize = 10_000;
/// Messages of a page of history at most.
const PAGE_MESSAGES_MAX: usize = 10_000;

/// Whether a stream in this protocol can have several topics.
const fn takes_several(protocol: Protocol) -> bool {
    protocol.is_stream() || matches!(protocol, Protocol::Poll)
}

/// The topics that a request names, each with how it is to be subscribed to.
///
/// # Errors
/// When a parameter is not what it should be.
pub fn subscriptions(request: &Request<'_>, context: &Context<'_>) -> Result<Vec<(Topic, Subscribe)>, Refusal> {
    let topics = topics(request, context.protocol())?;
    let query = Query::new(request.query);
    let group = group(&query)?;
    // What a member of a group has seen last says nothing of what the others took, but a browser says it all the same.
    let seen = request.last_event_id.filter(|_| group.is_none());
    let starts = starts(seen, &query, topics.len())?;
    if group.is_some() && starts.iter().any(|start| *start != Start::Now) {
        let message = "a queue group begins with now: leave out since and history".to_owned();
        return Err(refusal("bad_parameter", message));
    }
    let echo = flag(&query, "echo")?;
    let named = named(&query)?;
    let how = |start| Subscribe { echo, group: group.clone(), start, ..named.clone() };
    Ok(topics.into_iter().zip(starts.into_iter().map(how)).collect())
}

/// Where the only subscription of a request begins.
///
/// # Errors
/// When a parameter is not what it should be.
pub fn only_start(request: &Request<'_>) -> Result<Start, Refusal> {
    let starts = starts(request.last_event_id, &Query::new(request.query), 1)?;
    Ok(starts.into_iter().next().unwrap_or_default())
}

fn topics(request: &Request<'_>, protocol: Protocol) -> Result<Vec<Topic>, Refusal> {
    let raw = request.raw_param.filter(|raw| takes_several(protocol) && raw.contains(','));
    let Some(raw) = raw else { return Ok(vec![request.topic(request.param)?]) };
    let mut topics: Vec<Topic> = Vec::new();
    for name in raw.split(',') {
        let name = decode_path(name).map_err(|_| refusal("bad_topic", "a topic's name is not UTF-8".to_owned()))?;
        let topic = request.topic(&name)?;
        if topics.contains(&topic) {
            return Err(refusal("bad_topic", format!("the topic {topic} is there twice")));
        }
        if topics.len() >= request.topics_max {
            let message = format!("a stream has at most {} topics", request.topics_max);
            return Err(refusal(TOO_MANY_TOPICS, message));
        }
        topics.push(topic);
    }
    Ok(topics)
}

/// Where each of so many subscriptions begins. What the client has seen last counts more than the URL: a browser comes again
/// with the URL of its first request.
fn starts(seen: Option<&str>, query: &Query<'_>, count: usize) -> Result<Vec<Start>, Refusal> {
    if let Some(seen) = seen.filter(|seen| !seen.is_empty()) {
        // One that is none of ours is a place that is lost: the client is told so and goes on.
        let lost = || vec![Start::Since(Cursor::default()); count];
        return Ok(cursors(seen, count).unwrap_or_else(lost));
    }
    if let Some(since) = query.get("since") {
        let message = || match count {
            1 => "since is EPOCH:OFFSET, two numbers".to_owned(),
            _ => format!("since is EPOCH:OFFSET for each of the {count} topics, commas between"),
        };
        return cursors(&since, count).ok_or_else(|| refusal("bad_parameter", message()));
    }
    let Some(last) = query.get("history") else { return Ok(vec![Start::Now; count]) };
    let number = if last.bytes().all(|byte| byte.is_ascii_digit()) { last.parse().ok() } else { None };
    let number = number.ok_or_else(|| refusal("bad_parameter", "history is a number of messages".to_owned()))?;
    Ok(vec![if number == 0 { Start::Now } else { Start::Last(number) }; count])
}

fn cursors(list: &str, count: usize) -> Option<Vec<Start>> {
    let cursors: Option<Vec<Start>> = list.split(',').map(|one| one.parse().ok().map(Start::Since)).collect();
    cursors.filter(|cursors| cursors.len() == count)
}

fn group(query: &Query<'_>) -> Result<Option<Group>, Refusal> {
    let Some(name) = query.get("group") else { return Ok(None) };
    let group = Group::parse(name.as_bytes());
    group
        .map(Some)
        .map_err(|_| refusal("bad_parameter", "group is a name of 1 to 255 bytes, without spaces".to_owned()))
}

/// Who the client is in a topic, and whether it is told who else is: `member=ID`, `name=NAME`, `presence=1`.
///
/// # Errors
/// When a parameter is not what it should be.
pub fn named(query: &Query<'_>) -> Result<Subscribe, Refusal> {
    let watch = is_set(query, "presence")?;
    let text = |name: &str, bytes_max: usize| match query.get(name) {
        None => Ok(None),
        Some(text) => own_text(name, &text, bytes_max),
    };
    let (member, name) = (text("member", presence::ID_BYTES_MAX)?, text("name", presence::NAME_BYTES_MAX));
    // A name that is no good is none: it was no parameter of streams before.
    let name = name.unwrap_or_default();
    let who = (member.is_some() || name.is_some()).then(|| Box::new(Named { member, name }));
    Ok(Subscribe { watch, who, ..Subscribe::default() })
}

/// A text that a client says of itself; an empty one is none.
///
/// # Errors
/// When it is too long, or has control characters.
pub fn own_text(name: &str, text: &str, bytes_max: usize) -> Result<Option<Arc<str>>, Refusal> {
    let text = text.trim();
    if text.len() > bytes_max || text.chars().any(char::is_control) {
        let message = format!("{name} is a text of {bytes_max} bytes at most, without control characters");
        return Err(refusal("bad_parameter", message));
    }
    Ok(if text.is_empty() { None } else { Some(text.into()) })
}

/// As much of a name as members may have.
#[must_use]
pub fn crop(name: &str) -> &str {
    let end = (0..=presence::NAME_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

/// What a list of members is asked for: behind which one, and how many at most.
///
/// # Errors
/// When a parameter is not what it should be.
pub fn members(query: &Query<'_>) -> Result<(Option<MemberId>, usize), Refusal> {
    let after = match query.get("after").as_deref() {
        None | Some("") => None,
        Some(after) => {
            let message = || "after is what next said: user:ID or member:ID".to_owned();
            Some(MemberId::parse(after).ok_or_else(|| refusal("bad_parameter", message()))?)
        }
    };
    let limit = query.get("limit").map_or(Some(PAGE_MEMBERS), |limit| limit.parse().ok());
    let limit = limit.ok_or_else(|| refusal("bad_parameter", "limit is a number of members".to_owned()))?;
    Ok((after, limit.min(PAGE_MEMBERS_MAX)))
}

/// How long a long poll waits: seconds, or a number with `s`, `ms` or `m` behind it.
///
/// # Errors
/// When it is none.
pub fn wait(text: &str) -> Result<Duration, Refusal> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "" | "s" => 1000,
        "ms" => 1,
        "m" => 60_000,
        _ => 0,
    };
    let number: Option<u64> = number.parse().ok().filter(|_| millis > 0);
    let wait = number.map(|number| Duration::from_millis(number.saturating_mul(millis)));
    wait.ok_or_else(|| refusal("bad_parameter", "wait is a time, such as 30s or 500ms".to_owned()))
}

/// What a page of history is asked for: after which place, and how many messages at most.
///
/// # Errors
/// When a parameter is not what it should be.
pub fn page(query: &Query<'_>) -> Result<(Option<Cursor>, usize), Refusal> {
    let since = match query.get("since") {
        None => None,
        Some(since) => {
            Some(since.parse().map_err(|error: BadCursor| refusal("bad_parameter", format!("since: {error}")))?)
        }
    };
    let limit = query.get("limit").map_or(Some(PAGE_MESSAGES), |limit| limit.parse().ok());
    let limit = limit.ok_or_else(|| refusal("bad_parameter", "limit is a number of messages".to_owned()))?;
    Ok((since, limit.min(PAGE_MESSAGES_MAX)))
}

/// Whether a parameter that is 0 or 1, and 0 where it is not there, is 1.
///
/// # Errors
/// When it is something else.
pub fn is_set(query: &Query<'_>, name: &str) -> Result<bool, Refusal> {
    if query.get(name).is_some() { flag(query, name) } else { Ok(false) }
}

/// A parameter that is 0 or 1, and 1 where it is not there.
fn flag(query: &Query<'_>, name: &str) -> Result<bool, Refusal> {
    match query.get(name).as_deref() {
        None | Some("1" | "true") => Ok(true),
        Some("0" | "false") => Ok(false),
        Some(_) => Err(refusal("bad_parameter", format!("{name} is 0 or 1"))),
    }
}

/// Whether a media type is one of texts. A form is what curl says of anything.
#[must_use]
pub fn is_text(media: &[u8]) -> bool {
    let is = |name: &[u8]| media.eq_ignore_ascii_case(name);
    let begins = |start: &[u8]| media.get(..start.len()).is_some_and(|part| part.eq_ignore_ascii_case(start));
    let ends =
        |end: &[u8]| media.len().checked_sub(end.len()).is_some_and(|start| media[start..].eq_ignore_ascii_case(end));
    let named =
        [&b"application/json"[..], b"application/xml", b"application/x-ndjson", b"application/x-www-form-urlencoded"];
    begins(b"text/") || ends(b"+json") || ends(b"+xml") || named.into_iter().any(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_has_a_unit_or_is_in_seconds() {
        for (text, millis) in [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("7", 7000), ("0", 0)] {
            assert_eq!(wait(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(wait(&u64::MAX.to_string()).map(|wait| wait > Duration::from_secs(1 << 40)), Ok(true));
        for text in ["", "s", "-1", "+1", "1h", "1.5s", "99999999999999999999"] {
            assert!(wait(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_page_has_a_beginning_and_a_length() {
        let read = |query| page(&Query::new(query));
        let cursor = "5:7".parse().ok();
        assert_eq!(read("since=5:7&limit=3"), Ok((cursor, 3)));
        assert_eq!(read(""), Ok((None, PAGE_MESSAGES)));
        assert_eq!(read("limit=99999999"), Ok((None, PAGE_MESSAGES_MAX)));
        assert!(read("since=x").is_err() && read("limit=-1").is_err() && read("limit=").is_err());
    }

    #[test]
    fn texts_are_known_by_their_type() {
        for text in ["text/plain", "TEXT/x", "application/JSON", "application/ld+json", "image/svg+XML"] {
            assert!(is_text(text.as_bytes()), "{text}");
        }
        for other in ["", "text", "json", "application/octet-stream", "application/jsonx", "xml", "image/png"] {
            assert!(!is_text(other.as_bytes()), "{other}");
        }
    }
}
