//! `holdline.v1.Edge/Presence`: who is in a topic.

use super::{CALLS, Single, decode, send};
use crate::app::parameters::{PAGE_MEMBERS, PAGE_MEMBERS_MAX};
use crate::app::{Code, Context, Handler, Offers, Refusal, Request, Status};
use crate::codec::grpc::generated::edge::{PresenceRequest, PresenceResponse};
use crate::hub::presence::{MemberId, OFF, Page, Seen};
use crate::message::{Kind, Topic};

/// One question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presence;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    single: Single,
    topic_bytes_max: u8,
}

impl Presence {
    fn ask(state: Progress, request: &PresenceRequest, context: &mut Context<'_>) -> Result<(), Refusal> {
        let topic = Topic::parse(request.topic.as_bytes(), usize::from(state.topic_bytes_max))?;
        context.may_subscribe(&topic)?;
        let after = if request.after.is_empty() { None } else { Some(MemberId::parse(&request.after)) };
        if after == Some(None) {
            let message = "after is what next said: user:ID or member:ID".to_owned();
            return Err(Refusal { status: 400, code: "bad_parameter", message });
        }
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX).min(PAGE_MEMBERS_MAX);
        context.ask_presence(topic, after.flatten(), if limit == 0 { PAGE_MEMBERS } else { limit });
        Ok(())
    }
}

impl Handler for Presence {
    type State = Progress;

    fn open(&mut self, state: &mut Progress, request: &Request<'_>, _context: &mut Context<'_>) -> Result<(), Refusal> {
        state.topic_bytes_max = u8::try_from(request.topic_bytes_max).unwrap_or(u8::MAX);
        Ok(())
    }

    fn offers(&self) -> Offers {
        CALLS
    }

    fn message(&mut self, state: &mut Progress, _kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        if !state.single.take(context) {
            return;
        }
        let Some(request) = decode(payload, context) else { return };
        if let Err(refusal) = Self::ask(*state, &request, context) {
            context.end(Status::from(&refusal));
        }
    }

    fn presence(&mut self, _state: &mut Progress, topic: &Topic, page: Option<&Page>, context: &mut Context<'_>) {
        let Some(page) = page else { return context.end(Status::new(Code::NotFound, OFF)) };
        let response = PresenceResponse {
            topic: topic.as_str().to_owned(),
            count: page.count,
            members: page.members.iter().flatten().map(Seen::to_message).collect(),
            truncated: page.truncated,
            next: page.next().unwrap_or_default(),
        };
        send(&response, context);
        context.end(Status::OK);
    }

    /// The answer may be due yet.
    fn finish(&mut self, state: &mut Progress, context: &mut Context<'_>) {
        state.single.finish(context);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::app::testing::Bench;
    use crate::message::Wire;

    fn ask(request: &PresenceRequest) -> (Bench, Progress, Vec<String>) {
        let (mut bench, mut state) = (Bench::new(Wire::Grpc), Progress::default());
        assert_eq!(bench.open(&mut Presence, &mut state, "/holdline.v1.Edge/Presence", "", ""), Ok(()));
        bench.message(&mut Presence, &mut state, Kind::Binary, &request.encode_to_vec());
        let effects = bench.effects();
        (bench, state, effects)
    }

    #[test]
    fn a_question_is_answered_with_a_part_of_the_list() {
        let request = PresenceRequest { topic: "room".to_owned(), limit: 2, after: "member:ann".to_owned() };
        let (mut bench, mut state, effects) = ask(&request);
        assert_eq!(effects, ["presence room member:ann 2"]);
        bench.finish(&mut Presence, &mut state);
        assert_eq!(bench.effects(), [""; 0], "it waits for the owner");
        let ben = Seen { id: MemberId::user("ben"), name: None, since_ms: 7, connections: 2 };
        let page = Page { count: 3, members: Some(vec![ben]), truncated: false, more: true };
        let room = Topic::parse(b"room", 255).expect("a topic");
        bench.call(|context| Presence.presence(&mut state, &room, Some(&page), context));
        assert_eq!(bench.effects(), ["end Ok "]);
        let response = PresenceResponse::decode(&bench.out[5..]).expect("a response");
        assert_eq!((response.count, response.members.len(), &*response.next), (3, 1, "user:ben"));
        assert!(response.members[0].user && response.members[0].name == "ben");
    }

    #[test]
    fn bad_questions_and_topics_without_lists_are_refused() {
        let request =
            |topic: &str, after: &str| PresenceRequest { topic: topic.to_owned(), limit: 0, after: after.to_owned() };
        for bad in [request("a b", ""), request("t", "ann")] {
            let (_, _, effects) = ask(&bad);
            assert!(effects.len() == 1 && effects[0].starts_with("end InvalidArgument "), "{effects:?}");
        }
        let (mut bench, mut state, effects) = ask(&request("t", ""));
        assert_eq!(effects, ["presence t  256"]);
        let topic = Topic::parse(b"t", 255).expect("a topic");
        bench.call(|context| Presence.presence(&mut state, &topic, None, context));
        assert_eq!(bench.effects(), [format!("end NotFound {OFF}")]);
    }
}
