//! What a request wants, as its fields and its query say it.

use std::time::Duration;

use crate::app::{Offers, Refusal, batch, parameters};
use crate::config::Limits;
use crate::message::Kind;
use crate::rule::Rule;
use crate::session::http::Head;

/// A transport in which a route is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    WebSocket,
    Events,
    Lines,
    /// For so long at most.
    Poll(Duration),
}

/// The transport that a request asks for, of those that its route offers.
pub(super) fn reading(head: &Head<'_>, offers: Offers, limits: &Limits) -> Result<Option<Reading>, Refusal> {
    if head.has_token("upgrade", "websocket") {
        return Ok(Some(Reading::WebSocket));
    }
    let query = head.query();
    if offers.polls
        && let Some(wait) = query.get("wait")
    {
        let wait = parameters::wait(&wait)?.min(limits.poll_wait_max);
        return Ok(Some(Reading::Poll(wait)));
    }
    if !offers.streams {
        return Ok(None);
    }
    let is_events = |media: &[u8]| {
        let name = media.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        name.eq_ignore_ascii_case(b"text/event-stream")
    };
    if head.list("accept").any(is_events) {
        return Ok(Some(Reading::Events));
    }
    let is_lines = parameters::is_set(&query, "stream")?;
    Ok(is_lines.then_some(Reading::Lines))
}

/// What a path asks about a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    History,
    Info,
    Presence,
}

/// The topic that a path asks about, and what it asks.
pub(super) fn asks(param: &str) -> Option<(&str, Asks)> {
    let ends = [("/history", Asks::History), ("/info", Asks::Info), ("/presence", Asks::Presence)];
    let found = ends.into_iter().find_map(|(end, asks)| param.strip_suffix(end).map(|topic| (topic, asks)));
    found.filter(|(topic, _)| !topic.is_empty())
}

/// Whether a body is text or binary: what `Content-Type` says; where it says nothing, what the body is.
pub(super) fn kind_of(head: &Head<'_>, body: &[u8]) -> Result<Kind, Refusal> {
    let is_utf8 = simdutf8::basic::from_utf8(body).is_ok();
    let Some(content_type) = head.field("content-type") else {
        return Ok(if is_utf8 { Kind::Text } else { Kind::Binary });
    };
    let media = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    if !parameters::is_text(media) {
        return Ok(Kind::Binary);
    }
    if !is_utf8 {
        let message = "the body is not UTF-8, as its Content-Type says; binary is application/octet-stream".to_owned();
        return Err(Refusal { status: 400, code: Rule::BadUtf8.label(), message });
    }
    Ok(Kind::Text)
}

/// The idempotency key of a publication.
pub(super) fn key_of<'h>(head: &'h Head<'_>) -> Result<Option<&'h str>, Refusal> {
    let mut keys = head.fields("idempotency-key");
    let Some(key) = keys.next() else { return Ok(None) };
    let key = if keys.next().is_none() { str::from_utf8(key).unwrap_or_default() } else { "" };
    batch::check_key(key).map(|()| Some(key))
}
