//! The `topic` application: a connection on one topic, or a stream of several.

use std::borrow::Cow;

use super::parameters::subscriptions;
use super::{Context, Handler, Offers, Publication, Refusal, Request};
use crate::message::Kind;

/// `/topics/{topic}`: what you send is published, what others publish arrives; with `echo=0` without your own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Topics;

impl Handler for Topics {
    type State = ();

    fn open(&mut self, _state: &mut (), request: &Request<'_>, context: &mut Context<'_>) -> Result<(), Refusal> {
        for (topic, how) in subscriptions(request, context)? {
            context.subscribe(topic, how);
        }
        Ok(())
    }

    fn offers(&self) -> Offers {
        Offers { streams: true, polls: true, posts: true, queries: true, ..Offers::default() }
    }

    fn post<'b>(&mut self, request: &Request<'_>, kind: Kind, body: &'b [u8]) -> Result<Publication<'b>, Refusal> {
        Ok(Publication { topic: request.topic(request.param)?, kind, payload: Cow::Borrowed(body) })
    }

    fn message(&mut self, _state: &mut (), kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        if let Some(topic) = context.topic().cloned() {
            context.publish(topic, kind, payload);
        }
    }
}

/// `POST /topics`: a batch of publications.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch;

impl Handler for Batch {
    type State = ();

    fn open(&mut self, _state: &mut (), _request: &Request<'_>, _context: &mut Context<'_>) -> Result<(), Refusal> {
        let message = "name a topic: /topics/NAME; this is where batches are published with POST".to_owned();
        Err(Refusal { status: 404, code: "not_found", message })
    }

    fn offers(&self) -> Offers {
        Offers { batches: true, ..Offers::default() }
    }

    fn message(&mut self, _state: &mut (), _kind: Kind, _payload: &[u8], _context: &mut Context<'_>) {}
}

/// A bad request.
pub(super) const fn refusal(code: &'static str, message: String) -> Refusal {
    Refusal { status: 400, code, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing::Bench;
    use crate::message::Wire;

    #[test]
    fn a_connection_joins_and_what_it_says_is_published() {
        let mut bench = Bench::new(Wire::Line);
        assert_eq!(bench.open(&mut Topics, &mut (), "/topics/a/b", "", "a/b"), Ok(()));
        assert_eq!(bench.effects(), ["subscribe a/b echo=true"]);
        bench.join("a/b");
        bench.message(&mut Topics, &mut (), Kind::Binary, b"\xff");
        bench.message(&mut Topics, &mut (), Kind::Text, b"hi");
        assert_eq!(bench.effects(), ["publish a/b Binary \u{fffd}", "publish a/b Text hi"]);
        assert_eq!(bench.out, b"");
    }

    #[test]
    fn echo_can_be_turned_off() {
        for (query, seen) in [("echo=0", "subscribe t echo=false"), ("x=y&echo=1", "subscribe t echo=true")] {
            let mut bench = Bench::new(Wire::Line);
            assert_eq!(bench.open(&mut Topics, &mut (), "/topics/t", query, "t"), Ok(()));
            assert_eq!(bench.effects(), [seen]);
        }
    }

    #[test]
    fn a_stream_begins_where_the_client_asks() {
        for (query, seen) in [
            ("since=5:7", "subscribe t echo=true since=5:7"),
            ("history=20&echo=0", "subscribe t echo=false history=20"),
            ("history=0", "subscribe t echo=true"),
            ("group=workers", "subscribe t echo=true group=workers"),
            ("presence=1&member=a%20b", "subscribe t echo=true watch as a b -"),
            ("name=Ann&presence=0", "subscribe t echo=true as - Ann"),
        ] {
            let mut bench = Bench::new(Wire::WebSocket);
            assert_eq!(bench.open(&mut Topics, &mut (), "/topics/t", query, "t"), Ok(()));
            assert_eq!(bench.effects(), [seen]);
        }
    }

    #[test]
    fn what_a_client_has_seen_counts_more_than_its_url() {
        for (seen, expected) in [
            ("5:8", "subscribe t echo=true since=5:8"),
            ("", "subscribe t echo=true since=5:7"),
            ("of another server", "subscribe t echo=true since=0:0"),
            ("5:8,5:9", "subscribe t echo=true since=0:0"),
        ] {
            let mut bench = Bench::new(Wire::Sse);
            let last_event_id = Some(seen);
            let request = Request { query: "since=5:7", param: "t", last_event_id, ..Request::default() };
            assert_eq!(bench.open_request(&mut Topics, &mut (), &request), Ok(()));
            assert_eq!(bench.effects(), [expected]);
        }
    }

    #[test]
    fn a_browser_comes_back_to_its_group() {
        let mut bench = Bench::new(Wire::Sse);
        let request = Request { query: "group=g", param: "t", last_event_id: Some("5:8"), ..Request::default() };
        assert_eq!(bench.open_request(&mut Topics, &mut (), &request), Ok(()));
        assert_eq!(bench.effects(), ["subscribe t echo=true group=g"]);
    }

    #[test]
    fn more_topics_than_a_connection_may_have_are_refused() {
        for (raw, is_fine) in [("a,b", true), ("a,b,c", false)] {
            let mut bench = Bench::new(Wire::Sse);
            let request = Request { param: raw, raw_param: Some(raw), topics_max: 2, ..Request::default() };
            let refused = bench.open_request(&mut Topics, &mut (), &request);
            assert_eq!(refused.map_err(|refusal| (refusal.status, refusal.code)).is_ok(), is_fine, "{raw}");
        }
    }

    #[test]
    fn commas_part_topics_where_a_stream_can_have_several() {
        let param = "a,b,c,d/e";
        let request =
            Request { param, raw_param: Some("a,b%2Cc,d/e"), query: "since=1:1,2:2,3:3", ..Request::default() };
        let mut bench = Bench::new(Wire::Sse);
        assert_eq!(bench.open_request(&mut Topics, &mut (), &request), Ok(()));
        let three = ["a echo=true since=1:1", "b,c echo=true since=2:2", "d/e echo=true since=3:3"];
        assert_eq!(bench.effects(), three.map(|subscription| format!("subscribe {subscription}")));
        let mut bench = Bench::new(Wire::WebSocket);
        let request = Request { query: "", ..request };
        assert_eq!(bench.open_request(&mut Topics, &mut (), &request), Ok(()));
        assert_eq!(bench.effects(), ["subscribe a,b,c,d/e echo=true"]);
    }

    #[test]
    fn bad_parameters_are_refused() {
        for (raw, query) in [
            ("t", "since=5"),
            ("t", "since=5:7,5:8"),
            ("t", "since=+5:7"),
            ("t", "since="),
            ("t", "history=many"),
            ("t", "history=-1"),
            ("t", "history=99999999999999999999"),
            ("t", "group="),
            ("t", "presence=2"),
            ("t", "member=a%01b"),
            ("t", "group=a%20b"),
            ("t", "group=g&since=1:1"),
            ("t", "group=g&history=5"),
            ("a,b", "since=1:1"),
            ("a,,b", ""),
            ("a,b,a", ""),
            ("a,%ff", ""),
        ] {
            let mut bench = Bench::new(Wire::Sse);
            let request = Request { param: raw, raw_param: Some(raw), query, ..Request::default() };
            let refused = bench.open_request(&mut Topics, &mut (), &request);
            assert!(refused.is_err_and(|refusal| refusal.status == 400), "{raw} {query}");
            assert_eq!(bench.effects(), [""; 0]);
        }
    }

    #[test]
    fn a_post_publishes() {
        let request = Request { param: "a/b", ..Request::default() };
        let publication = Topics.post(&request, Kind::Binary, b"\xff").expect("a good topic");
        assert_eq!(
            (publication.topic.as_str(), publication.kind, &publication.payload[..]),
            ("a/b", Kind::Binary, &b"\xff"[..])
        );
        assert!(Topics.post(&Request { param: "a b", ..Request::default() }, Kind::Text, b"").is_err());
    }

    #[test]
    fn bad_requests_are_refused() {
        let long = "t".repeat(256);
        for (topic, query) in [("a b", ""), ("a\u{7f}", ""), (&*long, ""), ("", ""), ("t", "echo=maybe")] {
            let mut bench = Bench::new(Wire::Line);
            let refused = bench.open(&mut Topics, &mut (), "/topics/", query, topic);
            assert!(refused.is_err_and(|refusal| refusal.status == 400), "{topic} {query}");
            assert_eq!(bench.effects(), [""; 0]);
        }
    }
}
