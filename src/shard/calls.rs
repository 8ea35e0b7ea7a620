//! gRPC calls: which requests are some, and what they open.

use super::http::Answer;
use super::opening::Opened;
use super::requests::Requests;
use crate::app::router::Fault;
use crate::app::{Context, RouteId, Status, Subject};
use crate::codec::grpc::Code;
use crate::codec::http2::{StreamId, response};
use crate::message::Wire;
use crate::session::grpc::{self, Call};
use crate::session::http::{Head, Version};
use crate::session::{Encoder, Protocol, websocket};

/// What calls are answered with before their messages.
const CALL_FIELDS: [(&[u8], &[u8]); 2] =
    [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity,gzip")];

impl Requests<'_> {
    /// Whether a request is a gRPC call.
    pub(super) fn is_call(&self, head: &Head<'_>) -> bool {
        let has_stream = matches!(self.version, Some(Version::Http2(_)));
        let is_grpc =
            |media: &[u8]| media.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"));
        has_stream && head.method() == "POST" && head.field("content-type").is_some_and(is_grpc)
    }

    /// Begins a call, or says why there is none.
    pub(super) fn call(&mut self, head: &Head<'_>) -> Answer {
        let Some(Version::Http2(stream)) = self.version else { return Answer::Last };
        let called = Call::read(head).and_then(|call| {
            let (route, _) = self.method(head.path())?;
            Ok((call, route))
        });
        match called {
            Ok((call, route)) => self.open_call(head, route, call, stream),
            Err(status) => self.refuse_call(&status, stream),
        }
    }

    /// The method that a path names.
    fn method<'p>(&self, path: &'p str) -> Result<(RouteId, &'p str), Status> {
        let route = self.route(path).filter(|(route, _)| self.offers(*route).calls);
        route.ok_or_else(|| Status::new(Code::Unimplemented, format!("there is no method {path}")))
    }

    fn open_call(&mut self, head: &Head<'_>, route: RouteId, call: Call, stream: StreamId) -> Answer {
        let start = self.out.len();
        response::write_head(stream, 200, CALL_FIELDS.into_iter(), false, self.out);
        let request = self.request(head, "");
        let encoder = Encoder { wire: Wire::Grpc, window_bits: 0 };
        let protocol = Protocol::Grpc;
        let subject = Subject { id: self.id, shard: self.shard, now: self.now, protocol, encoder, topic: None };
        let mut context = Context::new(subject, self.deflater, self.out, self.effects);
        let status = match self.router.open(route, &request, &mut context) {
            Ok(state) => {
                let opened = Opened { route, state, websocket: websocket::State::default(), protocol };
                return Answer::Called(opened, call);
            }
            Err(Fault::Refused(refusal)) => status_of_refusal(refusal),
            Err(Fault::Panicked) => {
                self.metrics.handler_panics_total.add(1);
                Status::new(Code::Internal, "the handler failed")
            }
        };
        self.effects.clear();
        self.out.truncate(start);
        self.refuse_call(&status, stream)
    }

    /// A response that is nothing but its trailers.
    fn refuse_call(&mut self, status: &Status, stream: StreamId) -> Answer {
        self.metrics.http_errors_total.add(1);
        let mut room = String::new();
        let fields = CALL_FIELDS.into_iter().chain(grpc::status_fields(status, &mut room));
        response::write_head(stream, 200, fields, true, self.out);
        Answer::Last
    }
}

fn status_of_refusal(refusal: crate::app::Refusal) -> Status {
    Status::new(Code::InvalidArgument, refusal.message)
}
