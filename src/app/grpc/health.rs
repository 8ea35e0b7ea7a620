//! `grpc.health.v1.Health`: whether the server serves. It does, until it drains.

use super::{CALLS, Single, decode, send};
use crate::app::{Code, Context, Handler, Offers, Refusal, Request, Status};
use crate::codec::grpc::generated::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};
use crate::message::Kind;

/// The services that can be asked for; the empty name is the server.
const SERVICES: [&str; 3] = ["", "holdline.v1.Edge", "grpc.health.v1.Health"];

/// How it is now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Check;

/// How it is now, and that the server drains.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch;

fn say(status: ServingStatus, context: &mut Context<'_>) {
    send(&HealthCheckResponse { status: status.into() }, context);
}

/// Says how it is with a service of ours.
fn say_ours(context: &mut Context<'_>) {
    say(if context.is_draining() { ServingStatus::NotServing } else { ServingStatus::Serving }, context);
}

/// Reads the only request: whether the service that it names is one of ours.
fn asks_for_ours(single: &mut Single, payload: &[u8], context: &mut Context<'_>) -> Option<bool> {
    if !single.take(context) {
        return None;
    }
    let request: HealthCheckRequest = decode(payload, context)?;
    Some(SERVICES.contains(&&*request.service))
}

impl Handler for Check {
    type State = Asked;

    fn open(&mut self, _state: &mut Asked, _request: &Request<'_>, _context: &mut Context<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn offers(&self) -> Offers {
        Offers { open: true, once: true, ..CALLS }
    }

    fn message(&mut self, state: &mut Asked, _kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        state.is_ours = asks_for_ours(&mut state.single, payload, context);
    }

    fn finish(&mut self, state: &mut Asked, context: &mut Context<'_>) {
        state.single.finish(context);
        match state.is_ours {
            Some(true) => {
                say_ours(context);
                context.end(Status::OK);
            }
            Some(false) => context.end(Status::new(Code::NotFound, "there is no such service")),
            None => {}
        }
    }
}

/// What a caller of [`Check`] or [`Watch`] has asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    single: Single,
    is_ours: Option<bool>,
}

impl Handler for Watch {
    type State = Asked;

    fn open(&mut self, _state: &mut Asked, _request: &Request<'_>, _context: &mut Context<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn offers(&self) -> Offers {
        Offers { open: true, ..CALLS }
    }

    fn message(&mut self, state: &mut Asked, _kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        state.is_ours = asks_for_ours(&mut state.single, payload, context);
        match state.is_ours {
            Some(true) => say_ours(context),
            Some(false) => say(ServingStatus::ServiceUnknown, context),
            None => {}
        }
    }

    /// The call goes on: it is the answers that are a stream.
    fn finish(&mut self, state: &mut Asked, context: &mut Context<'_>) {
        state.single.finish(context);
    }

    fn leave(&mut self, state: &mut Asked, context: &mut Context<'_>) {
        if state.is_ours == Some(true) {
            say(ServingStatus::NotServing, context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing::Bench;
    use crate::message::Wire;

    const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
    const EDGE: &[u8] = b"\x0a\x10holdline.v1.Edge";
    const OTHER: &[u8] = b"\x0a\x01x";

    #[test]
    fn a_check_is_answered_at_its_end() {
        for (request, sent, end) in [
            (&b""[..], SERVING, "end Ok "),
            (EDGE, SERVING, "end Ok "),
            (OTHER, b"", "end NotFound there is no such service"),
        ] {
            let (mut bench, mut state) = (Bench::new(Wire::Grpc), Asked::default());
            bench.message(&mut Check, &mut state, Kind::Binary, request);
            assert_eq!(bench.effects(), [""; 0]);
            bench.finish(&mut Check, &mut state);
            assert_eq!((bench.effects(), &bench.out[..]), (vec![end.to_owned()], sent));
        }
    }

    #[test]
    fn a_check_has_exactly_one_request() {
        let (mut bench, mut state) = (Bench::new(Wire::Grpc), Asked::default());
        bench.finish(&mut Check, &mut state);
        assert_eq!(bench.effects(), ["end Internal this method takes one message, and there is none"]);
        bench.message(&mut Check, &mut state, Kind::Binary, b"");
        bench.message(&mut Check, &mut state, Kind::Binary, b"");
        assert_eq!(bench.effects(), ["end Internal this method takes one message, and there are more"]);
        assert_eq!(bench.out, b"");
    }

    #[test]
    fn a_watch_hears_of_the_drain() {
        let (mut bench, mut state) = (Bench::new(Wire::Grpc), Asked::default());
        bench.message(&mut Watch, &mut state, Kind::Binary, EDGE);
        bench.finish(&mut Watch, &mut state);
        assert_eq!((bench.effects(), &bench.out[..]), (vec![], SERVING));
        bench.out.clear();
        bench.leave(&mut Watch, &mut state);
        assert_eq!(bench.out, b"\0\0\0\0\x02\x08\x02");
    }

    #[test]
    fn in_a_drain_it_does_not_serve() {
        let (mut bench, mut asked, mut watching) = (Bench::new(Wire::Grpc), Asked::default(), Asked::default());
        bench.is_draining = true;
        bench.message(&mut Check, &mut asked, Kind::Binary, EDGE);
        bench.finish(&mut Check, &mut asked);
        bench.message(&mut Watch, &mut watching, Kind::Binary, EDGE);
        assert_eq!(bench.out, b"\0\0\0\0\x02\x08\x02\0\0\0\0\x02\x08\x02");
    }

    #[test]
    fn a_watch_of_what_is_not_there_stays() {
        let (mut bench, mut state) = (Bench::new(Wire::Grpc), Asked::default());
        bench.message(&mut Watch, &mut state, Kind::Binary, OTHER);
        bench.leave(&mut Watch, &mut state);
        assert_eq!((bench.effects(), &bench.out[..]), (vec![], &b"\0\0\0\0\x02\x08\x03"[..]));
    }

    #[test]
    fn garbage_ends_the_call() {
        let (mut bench, mut state) = (Bench::new(Wire::Grpc), Asked::default());
        bench.message(&mut Check, &mut state, Kind::Binary, b"\xff");
        assert!(bench.effects()[0].starts_with("end Internal "));
    }
}
