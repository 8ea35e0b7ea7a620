//! A batch of publications: lines of JSON, one for each.
//!
//! ```text
//! {"topic":"news","text":"hello"}
//! {"topic":"blobs","base64":"/w==","key":"upload-7"}
//! {"topic":"news","text":"hi","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
//! ```
//!
//! A line may say which trace it belongs to, by `traceparent` and `tracestate`; else it is the request's.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::topic::refusal;
use super::{Publication, Refusal};
use crate::codec::trace::{OwnTrace, Trace};
use crate::message::{KEY_BYTES_MAX, Kind, Topic};

/// Lines of a batch at most.
pub const LINES_MAX: usize = 10_000;

/// One line, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tracestate: Option<Cow<'a, str>>,
}

/// One publication of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// What is published.
    pub publication: Publication<'a>,
    /// The idempotency key.
    pub key: Option<Cow<'a, str>>,
    /// The trace that it belongs to.
    pub trace: Option<OwnTrace>,
}

/// The lines of a batch: each with what it publishes, or why it cannot. Empty lines count for nothing.
pub fn lines(body: &[u8], topic_bytes_max: usize) -> impl Iterator<Item = Result<Item<'_>, Refusal>> {
    let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    lines.map(move |line| read(line, topic_bytes_max))
}

fn read(line: &[u8], topic_bytes_max: usize) -> Result<Item<'_>, Refusal> {
    let Line { topic, text, base64, key, traceparent, tracestate } =
        serde_json::from_slice(line).map_err(|error| refusal("bad_line", format!("not a line of a batch: {error}")))?;
    let topic = Topic::parse(topic.as_bytes(), topic_bytes_max).map_err(Refusal::from)?;
    let (kind, payload) = match (text, base64) {
        (Some(text), None) => (Kind::Text, bytes_of(text)),
        (None, Some(base64)) => {
            let bytes = STANDARD.decode(base64.as_bytes());
            (Kind::Binary, Cow::Owned(bytes.map_err(|error| refusal("bad_base64", format!("bad base64: {error}")))?))
        }
        _ => return Err(refusal("bad_line", "a line has either text or base64".to_owned())),
    };
    if let Some(key) = &key {
        check_key(key)?;
    }
    let state = tracestate.as_deref().map(str::as_bytes);
    let trace = traceparent.as_deref().and_then(|parent| Trace::parse(parent.as_bytes(), state)).map(OwnTrace::from);
    Ok(Item { publication: Publication { topic, kind, payload }, key, trace })
}

fn bytes_of(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Checks an idempotency key.
///
/// # Errors
/// When it is empty or too long.
pub fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(refusal("bad_key", format!("there is one idempotency key, of 1 to {KEY_BYTES_MAX} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn each_line_is_a_publication() {
        let body =
            b"{\"topic\":\"a\",\"text\":\"h\\u00e9\\n\"}\r\n\n{\"topic\":\"b\",\"base64\":\"/w==\",\"key\":\"k\"}";
        let items: Vec<_> = lines(body, 255).map(Result::unwrap).collect();
        let seen: Vec<_> = items
            .iter()
            .map(|item| {
                let Publication { topic, kind, payload } = &item.publication;
                (topic.as_str(), *kind, &payload[..], item.key.as_deref())
            })
            .collect();
        let expected = [("a", Kind::Text, "hé\n".as_bytes(), None), ("b", Kind::Binary, &b"\xff"[..], Some("k"))];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_line_may_belong_to_a_trace() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let line = |fields: &str| format!("{{\"topic\":\"t\",\"text\":\"\"{fields}}}");
        let body = [
            line(&format!(",\"traceparent\":\"{parent}\",\"tracestate\":\"a=b\"")),
            line(",\"traceparent\":\"nonsense\""),
            line(",\"tracestate\":\"a=b\""),
        ];
        let body = body.join("\n");
        let items: Vec<_> = lines(body.as_bytes(), 255).map(Result::unwrap).collect();
        let trace = items[0].trace.as_ref().unwrap().as_trace();
        assert_eq!((trace.parent.to_string().as_str(), trace.state), (parent, "a=b"));
        assert_eq!((&items[1].trace, &items[2].trace), (&None, &None), "a message is no worse for it");
    }

    #[test]
    fn a_bad_line_spoils_no_other() {
        let long_key = format!("{{\"topic\":\"t\",\"text\":\"\",\"key\":\"{}\"}}", "k".repeat(256));
        let bad = [
            ("{", "bad_line"),
            ("[]", "bad_line"),
            ("{\"topic\":\"t\"}", "bad_line"),
            ("{\"topic\":\"t\",\"text\":\"\",\"base64\":\"\"}", "bad_line"),
            ("{\"topic\":\"t\",\"text\":\"\",\"other\":1}", "bad_line"),
            ("{\"topic\":\"a b\",\"text\":\"\"}", "bad_topic"),
            ("{\"topic\":\"\",\"text\":\"\"}", "bad_topic"),
            ("{\"topic\":\"t\",\"base64\":\"?\"}", "bad_base64"),
            ("{\"topic\":\"t\",\"text\":\"\",\"key\":\"\"}", "bad_key"),
            (&long_key, "bad_key"),
        ];
        for (line, code) in bad {
            let body = [line, "{\"topic\":\"t\",\"text\":\"x\"}"].join("\n");
            let read: Vec<_> = lines(body.as_bytes(), 255).collect();
            assert_eq!(read[0].as_ref().unwrap_err().code, code, "{line}");
            assert!(read[1].is_ok(), "{line}");
        }
        assert_eq!(lines(b"\xff\n", 255).next().unwrap().unwrap_err().code, "bad_line");
        assert_eq!(lines(b"\n\r\n", 255).count(), 0);
    }
}
