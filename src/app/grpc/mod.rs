//! The gRPC services: `holdline.v1.Edge`, `grpc.health.v1.Health` and server reflection, as the files under `proto` describe
//! them. Each method is a route whose path is `/SERVICE/METHOD`.

pub mod connect;
pub mod echo;
pub mod health;
pub mod presence;
pub mod publish;
pub mod reflection;

use super::{Code, Context, NotPublished, Offers, Refusal, Router, Status, batch};
use crate::message::Kind;
use crate::rule::AuthRefusal;

/// What all these routes offer.
const CALLS: Offers = Offers {
    streams: false,
    polls: false,
    posts: false,
    batches: false,
    calls: true,
    queries: false,
    open: false,
    once: false,
};

/// Adds the services to a router.
pub(super) fn add_to(router: Router) -> Router {
    let reflection = reflection::Reflection::new();
    router
        .route("/holdline.v1.Edge/Connect", connect::Connect)
        .route("/holdline.v1.Edge/Publish", publish::Publish)
        .route("/holdline.v1.Edge/Presence", presence::Presence)
        .route("/holdline.v1.Edge/Echo", echo::Echo)
        .route("/grpc.health.v1.Health/Check", health::Check)
        .route("/grpc.health.v1.Health/Watch", health::Watch)
        .route("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", reflection.clone())
        .route("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", reflection)
}

/// What a call ends with that a handler refuses.
impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        Self::new(Code::from_http(refusal.status), refusal.message.clone())
    }
}

/// What a call ends with whose publication is refused.
impl From<NotPublished> for Status {
    fn from(why: NotPublished) -> Self {
        Self::new(Code::from_http(why.status()), why.message())
    }
}

/// What a call ends with whose caller has not proved who it is.
impl From<AuthRefusal> for Status {
    fn from(cause: AuthRefusal) -> Self {
        Self::new(Code::from_http(cause.status()), cause.message())
    }
}

/// Sends a message.
fn send(message: &impl prost::Message, context: &mut Context<'_>) {
    context.send(Kind::Binary, &message.encode_to_vec());
}

/// Reads a message, or ends the call as other servers do for what is no protobuf.
fn decode<M: prost::Message + Default>(payload: &[u8], context: &mut Context<'_>) -> Option<M> {
    let decoded = M::decode(payload);
    if let Err(error) = &decoded {
        context.end(Status::new(Code::Internal, format!("a message cannot be read: {error}")));
    }
    decoded.ok()
}

/// An idempotency key; the empty one is none.
fn check_key(key: &str) -> Result<Option<&str>, Refusal> {
    if key.is_empty() {
        return Ok(None);
    }
    batch::check_key(key).map(|()| Some(key))
}

/// A publication of nothing.
fn no_payload() -> Refusal {
    Refusal { status: 400, code: "bad_parameter", message: "a publication has text or binary".to_owned() }
}

/// How far a call with one request is, which is to have exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Single {
    /// No message yet.
    #[default]
    Awaited,
    /// It came.
    Here,
}

impl Single {
    /// Notes a message. A second one ends the call, and so is `false`.
    fn take(&mut self, context: &mut Context<'_>) -> bool {
        let is_first = *self == Self::Awaited;
        if !is_first {
            context.end(Status::new(Code::Internal, "this method takes one message, and there are more"));
        }
        *self = Self::Here;
        is_first
    }

    /// The caller sends no more. Without a message the call ends.
    fn finish(self, context: &mut Context<'_>) {
        if self == Self::Awaited {
            context.end(Status::new(Code::Internal, "this method takes one message, and there is none"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::standard_routes;

    #[test]
    fn every_method_of_the_files_has_a_route() {
        for path in reflection::Reflection::new().methods() {
            let path = format!("/{path}");
            let router = standard_routes();
            let (route, _) = router.find(&path).unwrap_or_else(|| panic!("{path} has no route"));
            let open = path.starts_with("/grpc.health.");
            let once = path.ends_with("/Check") || path.ends_with("/Publish");
            assert_eq!(router.offers(route), Ok(Offers { open, once, ..CALLS }), "{path}");
        }
        assert!(standard_routes().find("/holdline.v1.Edge/Other").is_none());
    }

    #[test]
    fn a_refusal_is_a_status() {
        let refusal = Refusal { status: 404, code: "not_found", message: "nothing here".to_owned() };
        assert_eq!(Status::from(&refusal), Status::new(Code::NotFound, "nothing here"));
    }
}
