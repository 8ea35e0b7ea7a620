//! The `topic` application: a connection on one topic.

use super::{Context, Handler, Refusal, Request, Subscribe};
use crate::codec::http1::Query;
use crate::message::Kind;

/// `/topics/{topic}?echo=0`: what you send is published, what others publish arrives; with `echo=0` without your own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Topics;

impl Handler for Topics {
    type State = ();

    fn open(&mut self, _state: &mut (), request: &Request<'_>, context: &mut Context<'_>) -> Result<(), Refusal> {
        let topic = request.topic(request.param)?;
        let echo = match Query::new(request.query).get("echo").as_deref() {
            None | Some("1" | "true") => true,
            Some("0" | "false") => false,
            Some(_) => return Err(refusal("bad_parameter", "echo is 0 or 1".to_owned())),
        };
        context.subscribe(topic, Subscribe { echo });
        Ok(())
    }

    fn message(&mut self, _state: &mut (), kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        if let Some(topic) = context.topic().cloned() {
            context.publish(topic, kind, payload);
        }
    }
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
