//! What a route does with its connections: the built-in `echo`, `chat` and `topic`, and whatever a program that embeds
//! Holdline brings.
//!
//! A [`Handler`] is called on its shard's thread and never blocks. It acts through its [`Context`]: what it sends to
//! its own connection is encoded at once, everything else becomes an [`Effect`] that the shard carries out when the
//! handler has returned.
//!
//! # An application of your own
//!
//! An auction: whoever opens `/lots/{lot}?name=N` hears every bid on that lot, and bids by sending a number.
//!
//! ```
//! use holdline::app::{Context, Handler, Refusal, Request, Router, Subscribe};
//! use holdline::close::CloseReason;
//! use holdline::codec::http1::Query;
//! use holdline::message::Kind;
//!
//! /// One value per shard, cloned from the one that the router was given.
//! #[derive(Clone)]
//! struct Auction {
//!     bid_min: u64,
//! }
//!
//! /// What is kept of each connection.
//! #[derive(Default)]
//! struct Bidder {
//!     name: String,
//! }
//!
//! impl Handler for Auction {
//!     type State = Bidder;
//!
//!     fn open(&mut self, bidder: &mut Bidder, request: &Request<'_>, context: &mut Context<'_>) -> Result<(), Refusal> {
//!         let refuse = |message: String| Refusal { status: 400, code: "bad_request", message };
//!         let lot = request.topic(request.param)?;
//!         let name = Query::new(request.query).get("name").ok_or_else(|| refuse("give a name".to_owned()))?;
//!         bidder.name = name.into_owned();
//!         context.subscribe(lot, Subscribe::default());
//!         context.send_text(&format!("welcome, {}", bidder.name));
//!         Ok(())
//!     }
//!
//!     fn message(&mut self, bidder: &mut Bidder, _kind: Kind, payload: &[u8], context: &mut Context<'_>) {
//!         let bid = str::from_utf8(payload).ok().and_then(|bid| bid.parse::<u64>().ok());
//!         match (bid, context.topic().cloned()) {
//!             (Some(bid), Some(lot)) if bid >= self.bid_min => {
//!                 context.publish(lot, Kind::Text, format!("{} bids {bid}", bidder.name).as_bytes());
//!             }
//!             (Some(_), _) => context.send_text("that is not enough"),
//!             (None, _) => context.close(CloseReason::Policy),
//!         }
//!     }
//!
//!     fn close(&mut self, bidder: &mut Bidder, _reason: CloseReason, context: &mut Context<'_>) {
//!         if let Some(lot) = context.topic().cloned() {
//!             context.announce(lot, Kind::Text, format!("{} has left", bidder.name).as_bytes());
//!         }
//!     }
//! }
//!
//! let router = Router::new().route("/lots/{lot}", Auction { bid_min: 10 });
//! let (_, lot) = router.find("/lots/vase").expect("a route for it");
//! assert_eq!(lot, "vase");
//! ```
//!
//! [`Server::start`](crate::server::Server::start) serves such a router.

pub mod batch;
pub mod chat;
mod context;
pub mod echo;
pub mod files;
pub mod grpc;
mod not_subscribed;
pub mod opening;
pub mod parameters;
pub mod router;
pub mod site;
#[cfg(test)]
pub(crate) mod testing;
pub mod topic;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::close::CloseReason;
use crate::hub::presence::{MemberId, Page};
use crate::hub::{Group, Start};
use crate::message::{Cursor, Kind, Message, Topic, TopicError};
use crate::rule::{AuthRefusal, Limit, Rule};

pub use crate::codec::grpc::{Code, Status};
pub use crate::codec::trace;
pub use crate::config::SlowConsumer;
pub use context::{Context, Subject};
pub use not_subscribed::NotSubscribed;
pub use router::{Request, RouteId, Router};

/// The built-in applications on their paths: `/echo`, `/chat/{room}`, `/topics/{topic}` and, for batches,
/// `/topics`; and the [gRPC services](grpc).
#[must_use]
pub fn standard_routes() -> Router {
    let router = Router::new()
        .route("/echo", echo::Echo)
        .route("/chat/{room}", chat::Chat::default())
        .route("/topics/{topic}", topic::Topics)
        .route("/topics", topic::Batch);
    grpc::add_to(router)
}

/// An application: one value per shard, cloned from the one that was given to the router.
///
/// If a call panics, its connection is closed with 1011 and the others go on.
pub trait Handler: Clone + Send + 'static {
    /// What the application keeps for each connection. A type of no size costs nothing.
    type State: Default + Send + 'static;

    /// A client asks for this route. What is sent here follows the handshake's answer.
    ///
    /// # Errors
    /// A [`Refusal`] goes back to the client, and there is no connection.
    fn open(
        &mut self,
        state: &mut Self::State,
        request: &Request<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Refusal>;

    /// What a route offers beside WebSocket and raw TCP; by default nothing.
    fn offers(&self) -> Offers {
        Offers::default()
    }

    /// What a `POST` to this route publishes. It is called only where [`Offers::posts`] is set.
    ///
    /// # Errors
    /// A [`Refusal`] goes back to the client, and nothing is published.
    fn post<'b>(&mut self, request: &Request<'_>, kind: Kind, body: &'b [u8]) -> Result<Publication<'b>, Refusal> {
        let _ = (request, kind, body);
        Err(Refusal { status: 405, code: "method_not_allowed", message: "nothing is published here".to_owned() })
    }

    /// What became of a publication that was made with [`Context::publish_for`].
    fn published(
        &mut self,
        state: &mut Self::State,
        number: u32,
        outcome: Result<Published, NotPublished>,
        context: &mut Context<'_>,
    ) {
        let _ = (state, number, outcome, context);
    }

    /// A topic that a call asked for with [`Context::subscribe`] is not to be had. By default that ends the call; connections
    /// of other protocols are closed without this, as they have no way to hear of it.
    fn not_subscribed(
        &mut self,
        state: &mut Self::State,
        topic: &Topic,
        why: NotSubscribed,
        context: &mut Context<'_>,
    ) {
        let _ = (state, topic);
        context.close(why.reason());
    }

    /// Who is in a topic that was asked about with [`Context::ask_presence`]; `None` where that is not kept.
    fn presence(&mut self, state: &mut Self::State, topic: &Topic, page: Option<&Page>, context: &mut Context<'_>) {
        let _ = (state, topic, page, context);
    }

    /// The client sends no more, and still listens: the half-close of a gRPC call. By default the call ends well.
    fn finish(&mut self, state: &mut Self::State, context: &mut Context<'_>) {
        let _ = state;
        context.end(Status::OK);
    }

    /// The server has begun to drain, and this connection will be asked to go in its turn. So far only streams of HTTP/2
    /// hear of it, calls among them; those that open later find it in [`Context::is_draining`].
    fn leave(&mut self, state: &mut Self::State, context: &mut Context<'_>) {
        let _ = (state, context);
    }

    /// The token of the client has expired, and its connection ends when so much time is over. By default nobody is told.
    fn expiring(&mut self, state: &mut Self::State, left: Duration, context: &mut Context<'_>) {
        let _ = (state, left, context);
    }

    /// What became of a token that was shown with [`Context::renew`].
    fn renewed(&mut self, state: &mut Self::State, number: u32, outcome: Renewed, context: &mut Context<'_>) {
        let _ = (state, number, outcome, context);
    }

    /// A whole message came.
    fn message(&mut self, state: &mut Self::State, kind: Kind, payload: &[u8], context: &mut Context<'_>);

    /// The connection is ending; nothing can be sent to it any more, but the handler may still publish.
    fn close(&mut self, state: &mut Self::State, reason: CloseReason, context: &mut Context<'_>) {
        let _ = (state, reason, context);
    }
}

/// Why a handler does not want a connection: an HTTP status, and a code and a message for the error's JSON body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct Refusal {
    /// An HTTP status, 400 to 599.
    pub status: u16,
    /// A stable word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl From<TopicError> for Refusal {
    fn from(error: TopicError) -> Self {
        let code = if matches!(error, TopicError::TooLong(..)) { Rule::TopicTooLong.label() } else { "bad_topic" };
        Self { status: 400, code, message: error.to_string() }
    }
}

/// Ways to reach a route that are plain HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// It can be read as a response without an end: server-sent events, or lines of JSON. The handler is opened as for a
    /// WebSocket, but no messages come from the client.
    pub streams: bool,
    /// It can be read by long polls, each of which opens the handler and closes it. Leave this to handlers that do nothing but
    /// subscribe.
    pub polls: bool,
    /// `POST` publishes, see [`Handler::post`].
    pub posts: bool,
    /// `POST` publishes a batch: lines of JSON, each with its topic.
    pub batches: bool,
    /// It is a gRPC method, whose path it has: what the client sends are messages to the handler, and what the handler sends
    /// are the answers. Nothing else is served on such a route.
    pub calls: bool,
    /// The topic that the parameter names can be asked for its history and its state: `PATH/history`, `PATH/info`.
    pub queries: bool,
    /// It is served to whoever asks, also where others have to say who they are. Topics are not open to them by that.
    pub open: bool,
    /// It is a call with one answer: no connection for those who are told of connections.
    pub once: bool,
}

/// What became of a new token: the Unix second at which it ends, if it does, or why it is not taken.
pub type Renewed = Result<Option<u64>, AuthRefusal>;

/// A message that is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication<'b> {
    /// Where.
    pub topic: Topic,
    /// Text or binary.
    pub kind: Kind,
    /// What; the request's body itself, where that is it.
    pub payload: Cow<'b, [u8]>,
}

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where it was published.
    pub topic: Topic,
    /// Its place.
    pub cursor: Cursor,
    /// Subscribers that the topic had.
    pub subscribers: u64,
    /// It had been published before, there.
    pub duplicate: bool,
}

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub enum NotPublished {
    /// The topic's owner has no room for another topic.
    NoRoom,
    /// More were published to the topic within a second than it takes.
    TooFast,
    /// Another process has taken the topics over: a connection that comes back is one to it.
    Moved,
    /// The topic is durable, and the disk cannot be written.
    JournalFailed,
    /// The topic is durable, and as much waits for the disk as may.
    JournalBusy,
    /// The topic is durable and shared, and its stream cannot be reached.
    ClusterAway,
    /// The topic is durable and shared, and as much waits for its stream as may.
    ClusterBusy,
    /// The topic is durable and shared, and its stream takes no more.
    ClusterFull,
    /// The topic is shared, and the message is larger than what the nodes say to each other.
    ClusterPayload,
    /// This connection may not publish there.
    Forbidden,
    /// This connection has not said whose it is, and would have to.
    Unauthenticated,
}

impl NotPublished {
    /// The HTTP status that says so.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NoRoom | Self::Moved | Self::JournalFailed | Self::JournalBusy => 503,
            Self::ClusterAway | Self::ClusterBusy | Self::ClusterFull => 503,
            Self::ClusterPayload => 413,
            Self::TooFast => 429,
            Self::Forbidden => 403,
            Self::Unauthenticated => 401,
        }
    }

    /// A stable word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoRoom => Limit::TopicsMax.label(),
            Self::TooFast => Limit::TopicRate.label(),
            Self::Moved => CloseReason::GoingAway.label(),
            Self::JournalFailed => "journal_failed",
            Self::JournalBusy => "journal_busy",
            Self::ClusterAway => "cluster_unavailable",
            Self::ClusterBusy => "cluster_busy",
            Self::ClusterFull => "cluster_full",
            Self::ClusterPayload => "cluster_payload_too_large",
            Self::Forbidden => Rule::PublishNotAllowed.label(),
            Self::Unauthenticated => "unauthenticated",
        }
    }

    /// A sentence for people.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::NoRoom => "there is no room for another topic; try again later",
            Self::Moved => "the server is being replaced; connect again",
            Self::JournalFailed => "the topic's messages cannot be written to the disk now; try again later",
            Self::JournalBusy => "too many messages wait for the disk; try again later",
            Self::ClusterAway => {
                "the topic's stream cannot be reached now, the message may be in it all the same; try again later"
            }
            Self::ClusterBusy => "too many messages wait for the cluster; try again later",
            Self::ClusterFull => "the topic's stream has no room for more; try again later",
            Self::ClusterPayload => {
                "the message is larger than the cluster takes: NATS's max_payload would have to be raised"
            }
            Self::TooFast => "the topic takes no more messages this second; try again later",
            Self::Forbidden => "you may not publish to this topic",
            Self::Unauthenticated => "say who you are to publish to this topic",
        }
    }
}

impl From<NotPublished> for Refusal {
    fn from(why: NotPublished) -> Self {
        Self { status: why.status(), code: why.code(), message: why.message().to_owned() }
    }
}

/// How a subscription behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Whether the connection gets its own messages too.
    pub echo: bool,
    /// The queue group that shares the messages: each goes to one of its members.
    pub group: Option<Group>,
    /// Where it begins.
    pub start: Start,
    /// Whether the connection is told who is in the topic.
    pub watch: bool,
    /// Who it is there, where it says so.
    pub who: Option<Box<Named>>,
}

/// Who a connection says that it is in a topic. Where its token says a user it is that one, whatever its member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Its member's id, of 128 bytes at most; `None`: one of its own.
    pub member: Option<Arc<str>>,
    /// What it is called, in 64 bytes at most.
    pub name: Option<Arc<str>>,
}

impl Default for Subscribe {
    fn default() -> Self {
        Self { echo: true, group: None, start: Start::Now, watch: false, who: None }
    }
}

/// What a handler asked for; the shard carries it out.
#[derive(Debug)]
pub enum Effect {
    /// Join a topic.
    Subscribe(Topic, Subscribe),
    /// Leave it.
    Unsubscribe(Topic),
    /// Say something to all of a topic.
    Publish(Message),
    /// The same of the application's own accord.
    Announce(Message),
    /// [`Effect::Publish`] with a number that [`Handler::published`] gets with what became of it, and an idempotency key.
    PublishFor(Message, u32, Option<Box<str>>),
    /// End this connection.
    Close(CloseReason),
    /// End this call with a status.
    End(Status),
    /// Take this token from now on; the number is that of [`Handler::renewed`].
    Renew(Box<[u8]>, u32),
    /// Ask who is in a topic: those behind this member, and so many at most.
    Presence(Topic, Option<MemberId>, usize),
    /// Count a wish that was refused.
    Refused(AuthRefusal),
}

impl Effect {
    /// Whether something is published.
    pub(crate) const fn publishes(&self) -> bool {
        matches!(self, Self::Publish(_) | Self::Announce(_) | Self::PublishFor(..))
    }
}
