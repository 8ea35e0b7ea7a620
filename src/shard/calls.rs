//! gRPC calls: which requests are some, and what they open.

use super::admitting::user_of;
use super::borne::trailers;
use super::http::Answer;
use super::opening::Opened;
use super::requests::Requests;
use crate::app::router::{Fault, Request};
use crate::app::{Context, Refusal, RouteId, Status};
use crate::codec::grpc::status::status_fields;
use crate::codec::grpc::{Code, Encoding};
use crate::codec::http2::{StreamId, response};
use crate::message::Wire;
use crate::session::grpc::{Call, Refused};
use crate::session::http::{Head, Reply, Version};
use crate::session::{Encoder, Protocol, websocket};

/// What calls are answered with before their messages.
const CALL_FIELDS: [(&[u8], &[u8]); 2] =
    [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", Encoding::ACCEPTED.as_bytes())];

impl Requests<'_> {
    /// Whether a request is a gRPC call. What the site is asked is none, whatever its type says: a call is asked late who
    /// it is, when its method is known.
    pub(super) fn is_call(&self, head: &Head<'_>) -> bool {
        matches!(self.version, Some(Version::Http2(_))) && Call::is_meant(head) && self.asks_site(head).is_none()
    }

    /// Begins a call, or says why there is none.
    pub(super) fn call(&mut self, head: &Head<'_>, reply: Reply<'_>) -> Answer {
        let Some(Version::Http2(stream)) = self.version else { return Answer::Last };
        match Call::read(head).and_then(|call| Ok((call, self.method(head.path())?))) {
            Ok((call, route)) => match self.admit_call(head) {
                Ok(()) => self.open_call(head, route, call, stream),
                Err(cause) => self.refuse_call(&Status::from(cause), stream),
            },
            Err(Refused::Call(status)) => self.refuse_call(&status, stream),
            Err(Refused::Http(status)) => {
                let message = "a gRPC call is a POST of application/grpc".to_owned();
                self.refuse(&Refusal { status, code: "bad_call", message }, reply)
            }
        }
    }

    /// The method that a path names.
    fn method(&self, path: &str) -> Result<RouteId, Status> {
        let route = self.route(path).map(|(route, _)| route).filter(|route| self.offers(*route).calls);
        route.ok_or_else(|| Status::new(Code::Unimplemented, format!("there is no method {path}")))
    }

    fn open_call(&mut self, head: &Head<'_>, route: RouteId, call: Call, stream: StreamId) -> Answer {
        let start = self.out.len();
        response::write_head(stream, 200, CALL_FIELDS.into_iter(), false, self.out);
        let grant = self.grant.clone();
        let request = Request { user: user_of(&grant), ..self.request(head, "") };
        let (encoder, protocol) = (Encoder { wire: Wire::Grpc, window_bits: 0 }, Protocol::Grpc);
        let subject = self.subject(protocol, encoder, grant.as_deref());
        let mut context = Context::new(subject, self.deflater, self.out, self.effects);
        let opened = self.router.open(route, &request, &mut context);
        let status = match opened.and_then(|state| self.allowed(route, state)) {
            Ok(state) => {
                let opened = Opened { route, state, websocket: websocket::State::default(), protocol };
                return Answer::Called(opened, call);
            }
            Err(Fault::Refused(refusal)) => Status::from(&refusal),
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
        let (code, message) = status_fields(status);
        let fields = CALL_FIELDS.into_iter().chain(trailers(code, message.as_deref()));
        response::write_head(stream, 200, fields, true, self.out);
        Answer::Last
    }
}
