//! `holdline.v1.Edge/Publish`: one publication, answered with its place.

use super::{CALLS, Single, check_key, decode, no_payload, send};
use crate::app::{Context, Handler, NotPublished, Offers, Published, Refusal, Request, Status};
use crate::codec::grpc::generated::edge::{Cursor, PublishRequest, PublishResponse, publish_request};
use crate::codec::trace::OwnTrace;
use crate::message::{Kind, Topic};

/// One publication.
#[derive(Clone, Copy, Debug, Default)]
pub struct Publish;

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    single: Single,
    topic_bytes_max: u8,
    /// What the call's metadata says.
    trace: Option<Box<OwnTrace>>,
}

impl Publish {
    fn publish(state: &Progress, request: &PublishRequest, context: &mut Context<'_>) -> Result<(), Refusal> {
        let topic = Topic::parse(request.topic.as_bytes(), usize::from(state.topic_bytes_max))?;
        let key = check_key(&request.idempotency_key)?;
        let (kind, said) = match &request.payload {
            Some(publish_request::Payload::Text(text)) => (Kind::Text, text.as_bytes()),
            Some(publish_request::Payload::Binary(bytes)) => (Kind::Binary, &bytes[..]),
            None => return Err(no_payload()),
        };
        let trace = state.trace.as_ref().map(|trace| trace.as_trace());
        context.publish_traced(topic, kind, said, 0, key, trace);
        Ok(())
    }
}

impl Handler for Publish {
    type State = Progress;

    fn open(&mut self, state: &mut Progress, request: &Request<'_>, _context: &mut Context<'_>) -> Result<(), Refusal> {
        state.topic_bytes_max = u8::try_from(request.topic_bytes_max).unwrap_or(u8::MAX);
        state.trace = request.trace.map(|trace| Box::new(trace.into()));
        Ok(())
    }

    fn offers(&self) -> Offers {
        Offers { once: true, ..CALLS }
    }

    fn message(&mut self, state: &mut Progress, _kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        if !state.single.take(context) {
            return;
        }
        let Some(request) = decode(payload, context) else { return };
        if let Err(refusal) = Self::publish(state, &request, context) {
            context.end(Status::from(&refusal));
        }
    }

    fn published(
        &mut self,
        _state: &mut Progress,
        _number: u32,
        outcome: Result<Published, NotPublished>,
        context: &mut Context<'_>,
    ) {
        match outcome {
            Ok(Published { topic, cursor, subscribers, duplicate }) => {
                let cursor = Some(Cursor { epoch: cursor.epoch.0, offset: cursor.offset.0 });
                let topic = topic.as_str().to_owned();
                send(&PublishResponse { topic, cursor, subscribers, duplicate }, context);
                context.end(Status::OK);
            }
            Err(why) => context.end(Status::from(why)),
        }
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
    use crate::message::{self, Epoch, Offset, Wire};

    fn begin(request: &PublishRequest) -> (Bench, Progress, Vec<String>) {
        let (mut bench, mut state) = (Bench::new(Wire::Grpc), Progress::default());
        assert_eq!(bench.open(&mut Publish, &mut state, "/holdline.v1.Edge/Publish", "", ""), Ok(()));
        bench.message(&mut Publish, &mut state, Kind::Binary, &request.encode_to_vec());
        let effects = bench.effects();
        (bench, state, effects)
    }

    fn request(topic: &str, text: &str, key: &str) -> PublishRequest {
        let payload = Some(publish_request::Payload::Text(text.to_owned()));
        PublishRequest { topic: topic.to_owned(), payload, idempotency_key: key.to_owned() }
    }

    #[test]
    fn a_publication_is_answered_with_its_place() {
        let (mut bench, mut state, effects) = begin(&request("news", "hi", "k"));
        assert_eq!(effects, ["publish 0 news hi Some(\"k\")"]);
        bench.finish(&mut Publish, &mut state);
        assert_eq!(bench.effects(), [""; 0], "it waits for the owner");
        let cursor = message::Cursor { epoch: Epoch(5), offset: Offset(7) };
        let topic = Topic::parse(b"news", 255).expect("a topic");
        bench.published(&mut Publish, &mut state, 0, Ok(Published { topic, cursor, subscribers: 2, duplicate: true }));
        assert_eq!(bench.effects(), ["end Ok "]);
        let response = PublishResponse::decode(&bench.out[5..]).expect("a response");
        let cursor = Some(Cursor { epoch: 5, offset: 7 });
        assert_eq!(response, PublishResponse { topic: "news".to_owned(), cursor, subscribers: 2, duplicate: true });
    }

    #[test]
    fn a_publication_belongs_to_the_trace_of_its_call() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = crate::codec::trace::Trace::parse(parent.as_bytes(), Some(b"a=b"));
        let (mut bench, mut state) = (Bench::new(Wire::Grpc), Progress::default());
        let call = Request { trace, ..Request::default() };
        assert_eq!(bench.open_request(&mut Publish, &mut state, &call), Ok(()));
        bench.message(&mut Publish, &mut state, Kind::Binary, &request("news", "hi", "").encode_to_vec());
        assert_eq!(bench.effects(), [format!("publish 0 news hi None {parent} a=b")]);
    }

    #[test]
    fn what_is_not_published_ends_with_why() {
        for (why, end) in [
            (NotPublished::NoRoom, "end Unavailable there is no room for another topic; try again later"),
            (
                NotPublished::TooFast,
                "end ResourceExhausted the topic takes no more messages this second; try again later",
            ),
            (
                NotPublished::JournalFailed,
                "end Unavailable the topic's messages cannot be written to the disk now; try again later",
            ),
            (NotPublished::JournalBusy, "end Unavailable too many messages wait for the disk; try again later"),
            (NotPublished::ClusterBusy, "end Unavailable too many messages wait for the cluster; try again later"),
            (NotPublished::ClusterFull, "end Unavailable the topic's stream has no room for more; try again later"),
            (NotPublished::Forbidden, "end PermissionDenied you may not publish to this topic"),
            (NotPublished::Unauthenticated, "end Unauthenticated say who you are to publish to this topic"),
        ] {
            let (mut bench, mut state, _) = begin(&request("news", "hi", ""));
            bench.published(&mut Publish, &mut state, 0, Err(why));
            assert_eq!((bench.effects(), bench.out), (vec![end.to_owned()], vec![]));
        }
    }

    #[test]
    fn bad_requests_are_refused() {
        for bad in [
            request("a b", "hi", ""),
            request("", "hi", ""),
            request("t", "hi", &"k".repeat(256)),
            PublishRequest { topic: "t".to_owned(), ..PublishRequest::default() },
        ] {
            let (_, _, effects) = begin(&bad);
            assert!(effects.len() == 1 && effects[0].starts_with("end InvalidArgument "), "{bad:?} {effects:?}");
        }
    }

    #[test]
    fn one_request_exactly() {
        let (mut bench, mut state, _) = begin(&request("news", "hi", ""));
        bench.message(&mut Publish, &mut state, Kind::Binary, b"");
        assert_eq!(bench.effects(), ["end Internal this method takes one message, and there are more"]);
        let mut state = Progress::default();
        bench.finish(&mut Publish, &mut state);
        assert_eq!(bench.effects(), ["end Internal this method takes one message, and there is none"]);
    }
}
