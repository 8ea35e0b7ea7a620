//! Which handler serves which path.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use slab::Slab;

use super::{Context, Handler, Refusal, SlowConsumer};
use crate::close::CloseReason;
use crate::message::Kind;

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
}

/// What a call into a handler came to when it did not go well.
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
    slow_consumer: SlowConsumer,
    handler: Box<dyn AnyHandler>,
}

/// A handler and the states of its connections, without their types.
trait AnyHandler: Send {
    fn fresh(&self) -> Box<dyn AnyHandler>;
    fn open(&mut self, request: &Request<'_>, context: &mut Context<'_>) -> Result<u32, Refusal>;
    fn message(&mut self, state: u32, kind: Kind, payload: &[u8], context: &mut Context<'_>);
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

    fn message(&mut self, state: u32, kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        if Self::STATELESS {
            self.handler.message(&mut H::State::default(), kind, payload, context);
        } else if let Some(state) = self.states.get_mut(state as usize) {
            self.handler.message(state, kind, payload, context);
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
        self.route_with(pattern, handler, SlowConsumer::default())
    }

    /// The same with a policy for slow consumers.
    #[must_use]
    pub fn route_with<H: Handler>(mut self, pattern: &str, handler: H, slow_consumer: SlowConsumer) -> Self {
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

    /// What a full queue means on this route.
    #[must_use]
    pub fn slow_consumer(&self, route: RouteId) -> SlowConsumer {
        self.routes.get(usize::from(route.0)).map_or(SlowConsumer::Close, |route| route.slow_consumer)
    }

    /// Calls the handler's `open`. The number returned names the connection's state in later calls.
    ///
    /// # Errors
    /// When the handler refuses or panics.
    pub fn open(&mut self, route: RouteId, request: &Request<'_>, context: &mut Context<'_>) -> Result<u32, Fault> {
        let handler = &mut self.routes[usize::from(route.0)].handler;
        guarded(|| handler.open(request, context))?.map_err(Fault::Refused)
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
        let handler = &mut self.routes[usize::from(route.0)].handler;
        guarded(|| handler.message(state, kind, payload, context))
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
