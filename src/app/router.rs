//! Which handler serves which path.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use slab::Slab;

use super::{
    Context, Handler, NotPublished, NotSubscribed, Offers, Publication, Published, Refusal, Renewed, SlowConsumer,
};
use crate::close::CloseReason;
use crate::codec::trace::Trace;
use crate::hub::presence::Page;
use crate::message::{Kind, Topic};

/// A route of a router, in the order they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(pub u16);

/// What a client asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The path, percent-decoded, without the query.
    pub path: &'a str,
    /// The raw query, without the question mark.
    pub query: &'a str,
    /// The part of the path that the route's `{name}` stands for, empty when it has none.
    pub param: &'a str,
    /// The same with its percent encodings, where the request came in a URL: a comma in it is a comma between names.
    pub raw_param: Option<&'a str>,
    /// The place that the client says it has seen last.
    pub last_event_id: Option<&'a str>,
    /// The trace that it belongs to.
    pub trace: Option<Trace<'a>>,
    /// Bytes of a topic's name, see [`Request::topic`].
    pub topic_bytes_max: usize,
    /// Topics of one stream at most: what a connection may subscribe to.
    pub topics_max: usize,
    /// Who asks, as its token says.
    pub user: Option<&'a str>,
}

impl Default for Request<'_> {
    fn default() -> Self {
        let topic_bytes_max = Topic::BYTES_MAX;
        Self {
            path: "/",
            query: "",
            param: "",
            raw_param: None,
            last_event_id: None,
            trace: None,
            topic_bytes_max,
            topics_max: usize::MAX,
            user: None,
        }
    }
}

impl Request<'_> {
    /// The topic of this name, within the limit. The shard refuses subscriptions over it, so a handler that takes names
    /// from its clients does best to parse them with this.
    ///
    /// # Errors
    /// When it is none. Given on as it is, the refusal is counted as what it is.
    pub fn topic(&self, name: &str) -> Result<Topic, Refusal> {
        Topic::parse(name.as_bytes(), self.topic_bytes_max).map_err(Refusal::from)
    }
}

/// What a call into a handler came to when it did not go well.
///
/// A refusal or a panic in `open` leaves nothing behind. A panic in `message` leaves the connection and its state as
/// they are: the shard closes it with [`CloseReason::Internal`], and so calls `close`, which drops the state whatever
/// happens in it.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// The handler does not want the connection.
    Refused(Refusal),
    /// The handler panicked.
    Panicked,
}

/// The routes of one shard.
#[derive(Default)]
pub struct Router {
    routes: Vec<Route>,
}

struct Route {
    /// What stands before the parameter, or the whole path.
    prefix: String,
    /// Whether something follows the prefix.
    has_param: bool,
    /// `None`: what the configuration says.
    slow_consumer: Option<SlowConsumer>,
    handler: Box<dyn AnyHandler>,
}

/// What a handler is told between the opening and the close of a connection.
#[derive(Debug)]
pub enum News<'a> {
    /// [`Handler::message`].
    Message(Kind, &'a [u8]),
    /// [`Handler::published`].
    Published(u32, Result<Published, NotPublished>),
    /// [`Handler::not_subscribed`].
    NotSubscribed(&'a Topic, NotSubscribed),
    /// [`Handler::presence`].
    Presence(&'a Topic, Option<&'a Page>),
    /// [`Handler::finish`].
    Finish,
    /// [`Handler::leave`].
    Leave,
    /// [`Handler::expiring`].
    Expiring(Duration),
    /// [`Handler::renewed`].
    Renewed(u32, Renewed),
}

impl News<'_> {
    fn tell<H: Handler>(self, handler: &mut H, state: &mut H::State, context: &mut Context<'_>) {
        match self {
            Self::Message(kind, payload) => handler.message(state, kind, payload, context),
            Self::Published(number, outcome) => handler.published(state, number, outcome, context),
            Self::NotSubscribed(topic, why) => handler.not_subscribed(state, topic, why, context),
            Self::Presence(topic, page) => handler.presence(state, topic, page, context),
            Self::Finish => handler.finish(state, context),
            Self::Leave => handler.leave(state, context),
            Self::Expiring(left) => handler.expiring(state, left, context),
            Self::Renewed(number, outcome) => handler.renewed(state, number, outcome, context),
        }
    }
}

/// A handler and the states of its connections, without their types.
trait AnyHandler: Send {
    fn fresh(&self) -> Box<dyn AnyHandler>;
    fn open(&mut self, request: &Request<'_>, context: &mut Context<'_>) -> Result<u32, Refusal>;
    fn offers(&self) -> Offers;
    fn post<'b>(&mut self, request: &Request<'_>, kind: Kind, body: &'b [u8]) -> Result<Publication<'b>, Refusal>;
    fn tell(&mut self, state: u32, news: News<'_>, context: &mut Context<'_>);
    fn close(&mut self, state: u32, reason: CloseReason, context: &mut Context<'_>);
    fn forget(&mut self, state: u32);
}

struct Typed<H: Handler> {
    handler: H,
    states: Slab<H::State>,
}

impl<H: Handler> Typed<H> {
    const STATELESS: bool = size_of::<H::State>() == 0;
}

impl<H: Handler> AnyHandler for Typed<H> {
    fn fresh(&self) -> Box<dyn AnyHandler> {
        Box::new(Self { handler: self.handler.clone(), states: Slab::new() })
    }

    fn open(&mut self, request: &Request<'_>, context: &mut Context<'_>) -> Result<u32, Refusal> {
        let mut state = H::State::default();
        self.handler.open(&mut state, request, context)?;
        if Self::STATELESS {
            return Ok(0);
        }
        Ok(u32::try_from(self.states.insert(state)).expect("connections of a shard are counted in 32 bits"))
    }

    fn offers(&self) -> Offers {
        self.handler.offers()
    }

    fn post<'b>(&mut self, request: &Request<'_>, kind: Kind, body: &'b [u8]) -> Result<Publication<'b>, Refusal> {
        self.handler.post(request, kind, body)
    }

    fn tell(&mut self, state: u32, news: News<'_>, context: &mut Context<'_>) {
        if Self::STATELESS {
            news.tell(&mut self.handler, &mut H::State::default(), context);
        } else if let Some(state) = self.states.get_mut(state as usize) {
            news.tell(&mut self.handler, state, context);
        }
    }

    fn close(&mut self, state: u32, reason: CloseReason, context: &mut Context<'_>) {
        if Self::STATELESS {
            self.handler.close(&mut H::State::default(), reason, context);
        } else if let Some(mut state) = self.states.try_remove(state as usize) {
            self.handler.close(&mut state, reason, context);
        }
    }

    fn forget(&mut self, state: u32) {
        if !Self::STATELESS {
            drop(self.states.try_remove(state as usize));
        }
    }
}

impl Router {
    /// No routes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves `pattern` with `handler`. A pattern is a path, or a path that ends in `{name}`, which stands for all that
    /// follows, slashes included, and at least one byte. The first pattern that matches wins.
    #[must_use]
    pub fn route<H: Handler>(self, pattern: &str, handler: H) -> Self {
        self.add(pattern, handler, None)
    }

    /// The same with a policy for slow consumers, whatever `topics.slow_consumer` of the configuration says. A section for
    /// the topic that says it wins over this.
    #[must_use]
    pub fn route_with<H: Handler>(self, pattern: &str, handler: H, slow_consumer: SlowConsumer) -> Self {
        self.add(pattern, handler, Some(slow_consumer))
    }

    fn add<H: Handler>(mut self, pattern: &str, handler: H, slow_consumer: Option<SlowConsumer>) -> Self {
        let prefix = pattern.split('{').next().unwrap_or(pattern).to_owned();
        let has_param = prefix.len() < pattern.len();
        let handler = Box::new(Typed { handler, states: Slab::new() });
        self.routes.push(Route { prefix, has_param, slow_consumer, handler });
        self
    }

    /// The same routes with fresh handlers, for another shard.
    #[must_use]
    pub fn fresh(&self) -> Self {
        let routes = self.routes.iter().map(|route| Route {
            prefix: route.prefix.clone(),
            has_param: route.has_param,
            slow_consumer: route.slow_consumer,
            handler: route.handler.fresh(),
        });
        Self { routes: routes.collect() }
    }

    /// The route for a path, and what its parameter stands for.
    #[must_use]
    pub fn find<'p>(&self, path: &'p str) -> Option<(RouteId, &'p str)> {
        let mut numbered = (0..).zip(&self.routes);
        numbered.find_map(|(number, route)| {
            let rest = path.strip_prefix(route.prefix.as_str())?;
            (route.has_param != rest.is_empty()).then_some((RouteId(number), rest))
        })
    }

    /// What a full queue means on this route; `None` where it does not say it.
    #[must_use]
    pub fn slow_consumer(&self, route: RouteId) -> Option<SlowConsumer> {
        self.routes.get(usize::from(route.0))?.slow_consumer
    }

    /// Calls the handler's `open`. The number returned names the connection's state in later calls.
    ///
    /// # Errors
    /// When the handler refuses or panics.
    pub fn open(&mut self, route: RouteId, request: &Request<'_>, context: &mut Context<'_>) -> Result<u32, Fault> {
        let handler = &mut self.routes[usize::from(route.0)].handler;
        guarded(|| handler.open(request, context))?.map_err(Fault::Refused)
    }

    /// What the route offers beside WebSocket and raw TCP.
    ///
    /// # Errors
    /// When the handler panics.
    pub fn offers(&self, route: RouteId) -> Result<Offers, Fault> {
        guarded(|| self.routes[usize::from(route.0)].handler.offers())
    }

    /// Calls the handler's `post`.
    ///
    /// # Errors
    /// When the handler refuses or panics.
    pub fn post<'b>(
        &mut self,
        route: RouteId,
        request: &Request<'_>,
        kind: Kind,
        body: &'b [u8],
    ) -> Result<Publication<'b>, Fault> {
        let handler = &mut self.routes[usize::from(route.0)].handler;
        guarded(|| handler.post(request, kind, body))?.map_err(Fault::Refused)
    }

    /// Calls the handler's `message`.
    ///
    /// # Errors
    /// When it panics.
    pub fn message(
        &mut self,
        route: RouteId,
        state: u32,
        kind: Kind,
        payload: &[u8],
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        self.tell(route, state, News::Message(kind, payload), context)
    }

    /// Tells the handler what has happened.
    ///
    /// # Errors
    /// When it panics.
    pub fn tell(&mut self, route: RouteId, state: u32, news: News<'_>, context: &mut Context<'_>) -> Result<(), Fault> {
        let handler = &mut self.routes[usize::from(route.0)].handler;
        guarded(|| handler.tell(state, news, context))
    }

    /// Drops the state of a connection that is refused after all; the handler is not told.
    pub(crate) fn forget(&mut self, route: RouteId, state: u32) {
        let handler = &mut self.routes[usize::from(route.0)].handler;
        let _ = guarded(|| handler.forget(state));
    }

    /// Calls the handler's `close` and drops the connection's state.
    ///
    /// # Errors
    /// When it panics.
    pub fn close(
        &mut self,
        route: RouteId,
        state: u32,
        reason: CloseReason,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let handler = &mut self.routes[usize::from(route.0)].handler;
        let result = guarded(|| handler.close(state, reason, context));
        if result.is_err() {
            // The panic may have come before the state was dropped.
            let _ = guarded(|| handler.forget(state));
        }
        result
    }
}

/// Runs a handler; its panic is its connection's end and nobody else's.
fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_: Box<dyn Any + Send>| Fault::Panicked)
}

#[cfg(test)]
mod tests;
