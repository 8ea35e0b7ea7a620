//! `GET /api/trace`: what happens on one connection or topic, as events, lines of JSON or a WebSocket.
//!
//! Each trace has a topic of its own on the admin's shard, which the shards publish to; so what is sent, what happens to a
//! reader who is too slow, and the end are those of any other topic.

use std::sync::Arc;

use super::wish::{self, parse_id};
use super::{Desk, refusal};
use crate::app::{Context, Handler, Offers, Refusal, Request, Subscribe};
use crate::close::CloseReason;
use crate::codec::http1::Query;
use crate::message::{Kind, Topic};
use crate::shard::orders::Target;

/// The handler.
#[derive(Clone)]
pub(super) struct TraceRoute {
    desk: Arc<Desk>,
}

impl TraceRoute {
    pub(super) const fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }

    fn target(&self, query: &str) -> Result<Target, Refusal> {
        let query = Query::new(query);
        wish::check_names(&query, &["connection", "topic", "stream"])?;
        match (query.get("connection"), query.get("topic")) {
            (Some(id), None) => {
                let (shard, id) = parse_id(&id, self.desk.realm.shards.shards())?;
                Ok(Target::Connection(shard, id))
            }
            (None, Some(topic)) => Ok(Target::Topic(Topic::parse(topic.as_bytes(), Topic::BYTES_MAX)?)),
            _ => Err(refusal(400, "bad_parameter", "name one: ?connection=SHARD:INDEX:GENERATION or ?topic=NAME")),
        }
    }
}

/// The topic of a trace.
pub(super) fn topic_of(number: u64) -> Option<Topic> {
    Topic::parse(format!("trace/{number}").as_bytes(), Topic::BYTES_MAX).ok()
}

impl Handler for TraceRoute {
    type State = Option<u64>;

    fn open(
        &mut self,
        state: &mut Option<u64>,
        request: &Request<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        let target = self.target(request.query)?;
        let number = self.desk.begin_trace(target)?;
        *state = Some(number);
        if let Some(topic) = topic_of(number) {
            context.subscribe(topic, Subscribe::default());
        }
        Ok(())
    }

    fn offers(&self) -> Offers {
        Offers { streams: true, ..Offers::default() }
    }

    fn message(&mut self, _state: &mut Option<u64>, _kind: Kind, _payload: &[u8], _context: &mut Context<'_>) {}

    fn close(&mut self, state: &mut Option<u64>, _reason: CloseReason, _context: &mut Context<'_>) {
        state.take().into_iter().for_each(|number| self.desk.end_trace(number));
    }
}
