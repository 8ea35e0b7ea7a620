//! The `chat` application: rooms where everyone has a name.

use std::borrow::Cow;

use super::parameters::{crop, named, only_start};
use super::topic::refusal;
use super::{Context, Handler, Offers, Publication, Refusal, Request, Subscribe};
use crate::close::CloseReason;
use crate::codec::http1::Query;
use crate::message::{Kind, Topic};

/// Characters of a name.
pub const NAME_CHARS_MAX: usize = 32;

/// `/chat/{room}?name=N`: all members of a room, the one concerned among them, read `N joined the chat`, `N: text` and
/// `N left the chat`. Who gives no name is a guest.
#[derive(Clone, Debug, Default)]
pub struct Chat {
    /// The line that is being said, kept so that saying one allocates nothing here.
    line: Vec<u8>,
}

impl Chat {
    /// The parts as one line.
    fn line(&mut self, parts: &[&[u8]]) -> &[u8] {
        self.line.clear();
        parts.iter().for_each(|part| self.line.extend_from_slice(part));
        &self.line
    }
}

impl Handler for Chat {
    /// The name, all that a chat remembers of a member. The room is the connection's topic.
    type State = Box<str>;

    fn open(&mut self, name: &mut Box<str>, request: &Request<'_>, context: &mut Context<'_>) -> Result<(), Refusal> {
        let topic = room(request)?;
        *name = match Query::new(request.query).get("name").as_deref().map(str::trim) {
            None | Some("") => guest(context),
            Some(name) => parse_name(name)?,
        };
        let start = only_start(request)?;
        let mut how = Subscribe { start, ..named(&Query::new(request.query))? };
        how.who.get_or_insert_default().name = Some(crop(name).into());
        context.subscribe(topic.clone(), how);
        context.announce(topic, Kind::Text, self.line(&[name.as_bytes(), b" joined the chat"]));
        Ok(())
    }

    fn offers(&self) -> Offers {
        Offers { streams: true, posts: true, ..Offers::default() }
    }

    /// `POST /chat/{room}?name=N`: for those whose connection only reads. Saying something does not join the room.
    fn post<'b>(&mut self, request: &Request<'_>, kind: Kind, body: &'b [u8]) -> Result<Publication<'b>, Refusal> {
        let topic = room(request)?;
        let name = Query::new(request.query).get("name").unwrap_or_default();
        let name = match name.trim() {
            "" => "guest".into(),
            name => parse_name(name)?,
        };
        if kind == Kind::Binary {
            let message = "a chat takes text; say so with Content-Type: text/plain".to_owned();
            return Err(Refusal { status: 415, code: "unsupported_media_type", message });
        }
        Ok(Publication { topic, kind, payload: Cow::Owned([name.as_bytes(), b": ", body].concat()) })
    }

    fn message(&mut self, name: &mut Box<str>, kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        match kind {
            Kind::Text => {
                if let Some(room) = context.topic().cloned() {
                    context.publish(room, kind, self.line(&[name.as_bytes(), b": ", payload]));
                }
            }
            Kind::Binary => context.close(CloseReason::Unsupported),
        }
    }

    fn close(&mut self, name: &mut Box<str>, _reason: CloseReason, context: &mut Context<'_>) {
        if let Some(room) = context.topic().cloned() {
            context.announce(room, Kind::Text, self.line(&[name.as_bytes(), b" left the chat"]));
        }
    }
}

fn room(request: &Request<'_>) -> Result<Topic, Refusal> {
    request.topic(&["chat/", request.param].concat())
}

fn parse_name(name: &str) -> Result<Box<str>, Refusal> {
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(refusal("bad_name", format!("a name has at most {NAME_CHARS_MAX} characters")));
    }
    if name.chars().any(char::is_control) {
        return Err(refusal("bad_name", "a name has no control characters".to_owned()));
    }
    Ok(name.into())
}

/// `guest-` and four letters or digits that guests of the same moment do not share, most of the time.
fn guest(context: &Context<'_>) -> Box<str> {
    // Letters and digits that are not mistaken for one another: 5 bits each.
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz123456789";
    let seed = context.id().bits() ^ u64::from(context.shard().0) << 56 ^ context.now().as_nanos().rotate_left(24);
    // Fibonacci hashing: the upper bits depend on all of the seed.
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letters = [59, 54, 49, 44].map(|shift| char::from(ALPHABET[(mixed >> shift & 31) as usize]));
    ["guest-", &String::from_iter(letters)].concat().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::app::testing::Bench;
    use crate::message::Wire;

    fn open(query: &str) -> (Result<(), Refusal>, Vec<String>, Box<str>) {
        let (mut bench, mut name) = (Bench::new(Wire::WebSocket), Box::default());
        let opened = bench.open(&mut Chat::default(), &mut name, "/chat/lobby", query, "lobby");
        (opened, bench.effects(), name)
    }

    #[test]
    fn a_member_joins_speaks_and_leaves() {
        let (mut bench, mut chat, mut name) = (Bench::new(Wire::WebSocket), Chat::default(), Box::default());
        assert_eq!(bench.open(&mut chat, &mut name, "/chat/lobby", "name=Ann+Lee", "lobby"), Ok(()));
        let joined = ["subscribe chat/lobby echo=true as - Ann Lee", "publish chat/lobby Text Ann Lee joined the chat"];
        assert_eq!(bench.effects(), joined);
        bench.join("chat/lobby");
        bench.message(&mut chat, &mut name, Kind::Text, "hello, Zoë".as_bytes());
        assert_eq!(bench.effects(), ["publish chat/lobby Text Ann Lee: hello, Zoë"]);
        bench.close(&mut chat, &mut name, CloseReason::PeerClosed);
        assert_eq!(bench.effects(), ["publish chat/lobby Text Ann Lee left the chat"]);
        assert_eq!(bench.out, b"");
    }

    #[test]
    fn a_room_has_a_past() {
        let (opened, effects, _) = open("name=ann&history=5");
        assert_eq!((opened, effects[0].as_str()), (Ok(()), "subscribe chat/lobby echo=true history=5 as - ann"));
        assert!(open("name=ann&since=x").0.is_err());
    }

    #[test]
    fn who_only_reads_speaks_by_post() {
        let post = |query, kind, body: &'static [u8]| {
            Chat::default().post(&Request { param: "lobby", query, ..Request::default() }, kind, body)
        };
        let said = post("name=ann", Kind::Text, b"hi").unwrap();
        assert_eq!((said.topic.as_str(), &said.payload[..]), ("chat/lobby", &b"ann: hi"[..]));
        assert_eq!(post("", Kind::Text, b"hi").unwrap().payload[..], b"guest: hi"[..]);
        assert_eq!(post("name=ann", Kind::Binary, b"\xff").unwrap_err().status, 415);
        assert_eq!(post("name=a%0Ab", Kind::Text, b"hi").unwrap_err().code, "bad_name");
    }

    #[test]
    fn a_chat_takes_text_only() {
        let (mut bench, mut name) = (Bench::new(Wire::WebSocket), "ann".into());
        bench.join("chat/lobby");
        bench.message(&mut Chat::default(), &mut name, Kind::Binary, b"\x00");
        assert_eq!(bench.effects(), ["close unsupported"]);
    }

    #[test]
    fn who_has_no_name_is_a_guest() {
        for query in ["", "name=", "name=+%20"] {
            let (opened, effects, name) = open(query);
            assert_eq!(opened, Ok(()));
            assert!(name.starts_with("guest-") && name.len() == 10, "{name}");
            assert_eq!(effects[1], format!("publish chat/lobby Text {name} joined the chat"));
        }
    }

    #[test]
    fn names_have_rules() {
        let (longest, too_long) = ("ü".repeat(32), "ü".repeat(33));
        assert_eq!(open(&format!("name={longest}")).2.as_ref(), longest);
        for query in [&*format!("name={too_long}"), "name=a%0Ab", "name=a%00", "name=a%7Fb", "name=%C2%85x%C2%85y"] {
            let (opened, effects, _) = open(query);
            assert_eq!(opened.unwrap_err().code, "bad_name", "{query}");
            assert!(effects.is_empty());
        }
    }

    #[test]
    fn a_room_is_a_topic() {
        for room in ["a room", "", "a\nb", &"r".repeat(251)] {
            let (mut bench, mut name) = (Bench::new(Wire::WebSocket), Box::default());
            let opened = bench.open(&mut Chat::default(), &mut name, "/chat/", "", room);
            assert_eq!(opened.is_err(), !room.is_empty(), "{room:?}");
        }
    }
}
