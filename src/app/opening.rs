//! What a raw TCP connection opens: it has no request, so its listener and its first frame stand for one, and it goes
//! through the same router as all others.
//!
//! | `app` | `topic=` given | the first frame |
//! |---|---|---|
//! | `echo` | | is a message |
//! | `topic` | yes | is a message |
//! | `topic` | no | is the topic; behind a space, parameters as in a URL's query: `jobs group=workers` |
//! | `chat` | yes: the room | is the name |
//! | `chat` | no | is the room; behind a space, the name |
//!
//! An empty first frame is a heartbeat and opens nothing.

use std::borrow::Cow;

use super::router::{Request, RouteId};
use super::{Router, parameters};
use crate::close::CloseReason;
use crate::codec::http1::uri::{check_query, encode_value};
use crate::config::App;
use crate::message::{Topic, TopicError};
use crate::rule::Rule;
use crate::session::Violation;

/// A first frame that opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFirstFrame {
    /// It should be a topic or a room.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// It should be a name or parameters.
    #[error("the first frame is not well-encoded UTF-8")]
    NotUtf8,
}

impl Violation for BadFirstFrame {
    fn rule(&self) -> Rule {
        match self {
            Self::Topic(TopicError::TooLong(..)) => Rule::TopicTooLong,
            Self::Topic(_) | Self::NotUtf8 => Rule::BadFirstFrame,
        }
    }

    fn reason(&self) -> CloseReason {
        CloseReason::Policy
    }
}

/// What the connections of a raw TCP listener open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    app: App,
    /// The path when the listener alone decides it.
    path: Option<Box<str>>,
    /// The parameters that the listener gives a topic.
    query: Box<str>,
}

/// A request that nobody sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'o> {
    /// The path, decoded.
    pub path: Cow<'o, str>,
    /// The raw query.
    pub query: String,
}

impl Opening {
    /// For a listener with `app=` and perhaps `topic=`, which for a chat is the room.
    #[must_use]
    pub fn new(app: App, topic: Option<&Topic>) -> Self {
        let path = match app {
            App::Echo => Some("/echo".into()),
            App::Chat | App::Topic => topic.map(|topic| path(app, topic.as_str()).into()),
        };
        Self { app, path, query: Box::default() }
    }

    /// The same with all connections of a topic in this queue group.
    #[must_use]
    pub fn in_group(mut self, group: Option<&str>) -> Self {
        if let Some(group) = group {
            let mut query = "group=".to_owned();
            encode_value(group, &mut query);
            self.query = query.into();
        }
        self
    }

    /// Whether a connection opens nothing before its first frame, which is then no message.
    #[must_use]
    pub fn needs_first_frame(&self) -> bool {
        self.app == App::Chat || self.path.is_none()
    }

    /// What a connection opens, `first_frame` being empty when none is needed.
    ///
    /// # Errors
    /// When the first frame is not what it should be.
    pub fn target(&self, first_frame: &[u8], topic_bytes_max: usize) -> Result<Target<'_>, BadFirstFrame> {
        let (place, name): (Cow<'_, str>, &[u8]) = match (&self.path, self.app) {
            (Some(path), App::Chat) => (Cow::Borrowed(path), first_frame),
            (Some(path), _) => (Cow::Borrowed(path), b""),
            (None, app) => {
                let space = memchr::memchr(b' ', first_frame);
                let (place, rest) = first_frame.split_at(space.unwrap_or(first_frame.len()));
                let place = Cow::Owned(path(app, Topic::parse(place, topic_bytes_max)?.as_str()));
                if app == App::Topic {
                    let own = parameters(rest)?;
                    // Of a parameter that is there twice the first counts: the listener's.
                    let between = if own.is_empty() || self.query.is_empty() { "" } else { "&" };
                    return Ok(Target { path: place, query: [&*self.query, between, &own].concat() });
                }
                (place, rest)
            }
        };
        let name = simdutf8::basic::from_utf8(name).map_err(|_| BadFirstFrame::NotUtf8)?.trim();
        let mut query = if self.app == App::Topic { self.query.to_string() } else { String::new() };
        if !name.is_empty() {
            query.push_str("name=");
            encode_value(name, &mut query);
        }
        Ok(Target { path: place, query })
    }
}

/// The parameters behind a topic. Others than those of a stream are none: then it is a topic with a space in it.
fn parameters(text: &[u8]) -> Result<String, BadFirstFrame> {
    let text = simdutf8::basic::from_utf8(text).map_err(|_| BadFirstFrame::NotUtf8)?.trim();
    check_query(text).map_err(|_| BadFirstFrame::NotUtf8)?;
    let is_known = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or_default();
        parameters::NAMES.contains(&name) && name.len() < parameter.len()
    };
    if !text.is_empty() && !text.split('&').all(is_known) {
        return Err(TopicError::BadCharacter.into());
    }
    Ok(text.to_owned())
}

fn path(app: App, topic: &str) -> String {
    let prefix = if app == App::Chat { "/chat/" } else { "/topics/" };
    [prefix, topic].concat()
}

impl Target<'_> {
    /// The route for it, and the request to open it with.
    #[must_use]
    pub fn find(&self, router: &Router, topic_bytes_max: usize) -> Option<(RouteId, Request<'_>)> {
        let (route, param) = router.find(&self.path)?;
        let request = Request { path: &self.path, query: &self.query, param, topic_bytes_max, ..Request::default() };
        Some((route, request))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::app::standard_routes;

    fn opening(app: &str, topic: &str) -> Opening {
        let topic = Topic::parse(topic.as_bytes(), 255).ok();
        Opening::new(App::from_name(app).unwrap(), topic.as_ref())
    }

    #[test]
    fn every_opening_of_the_table() {
        for (app, topic, first_frame, path, query) in [
            ("echo", "", None, "/echo", ""),
            ("echo", "ignored", None, "/echo", ""),
            ("topic", "news", None, "/topics/news", ""),
            ("topic", "", Some("news/local"), "/topics/news/local", ""),
            ("topic", "", Some("jobs group=workers&echo=0"), "/topics/jobs", "group=workers&echo=0"),
            ("topic", "", Some("news since=5:7"), "/topics/news", "since=5:7"),
            ("chat", "lobby", Some("Ann & Bob"), "/chat/lobby", "name=Ann%20%26%20Bob"),
            ("chat", "", Some("lobby"), "/chat/lobby", ""),
            ("chat", "", Some("lobby ann"), "/chat/lobby", "name=ann"),
            ("chat", "", Some("lobby  Ann Lee "), "/chat/lobby", "name=Ann%20Lee"),
            ("chat", "", Some("über zoë"), "/chat/über", "name=zo%C3%AB"),
        ] {
            let opening = opening(app, topic);
            assert_eq!(opening.needs_first_frame(), first_frame.is_some(), "{app} {topic}");
            let target = opening.target(first_frame.unwrap_or_default().as_bytes(), 255).unwrap();
            assert_eq!((&*target.path, &*target.query), (path, query), "{app} {topic} {first_frame:?}");
            assert!(target.find(&standard_routes(), 255).is_some(), "{path}");
        }
    }

    #[test]
    fn a_listener_can_put_all_into_a_queue_group() {
        for (topic, first_frame, query) in
            [("jobs", "", "group=a%26b"), ("", "jobs", "group=a%26b"), ("", "jobs echo=0", "group=a%26b&echo=0")]
        {
            let opening = opening("topic", topic).in_group(Some("a&b"));
            let target = opening.target(first_frame.as_bytes(), 255).unwrap();
            assert_eq!((&*target.path, &*target.query), ("/topics/jobs", query));
        }
    }

    #[test]
    fn bad_first_frames() {
        for (app, topic, first_frame) in [
            ("topic", "", &b"two words"[..]),
            ("topic", "", b"t nam=ann"),
            ("topic", "", b"t since"),
            ("topic", "", b"t group=%ff"),
            ("topic", "", b"\xff"),
            ("topic", "", &[b't'; 256]),
            ("chat", "", b" ann"),
            ("chat", "", b"lobby \xff"),
            ("chat", "lobby", b"\xff"),
        ] {
            let bad = opening(app, topic).target(first_frame, 255).unwrap_err();
            assert_eq!(bad.reason(), CloseReason::Policy, "{app} {topic} {first_frame:?}");
        }
    }
}
