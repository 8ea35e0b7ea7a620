//! `holdline.v1.Edge/Connect`: any number of topics on one call.
//!
//! What a subscription brings (`Message`, `Reset`, and the `Subscribed` of those that begin at a place) is written by the shard,
//! which knows when; the rest is written here.

use std::time::Duration;

use super::{CALLS, check_key, decode, no_payload, send};
use crate::app::Named;
use crate::app::parameters::own_text;
use crate::app::{
    Context, Handler, NotPublished, NotSubscribed, Offers, Published, Refusal, Renewed, Request, Status, Subscribe,
};
use crate::codec::grpc::generated::edge::{
    self, ClientFrame, ServerFrame, client_frame, publish, server_frame, subscribe,
};
use crate::codec::trace::Trace;
use crate::hub::presence::{ID_BYTES_MAX, NAME_BYTES_MAX};
use crate::hub::{Group, Start};
use crate::message::{Cursor, Epoch, Kind, Offset, Topic};

/// Topics on one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connect;

/// What is kept of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// Publications whose place is not known yet.
    under_way: u32,
    topic_bytes_max: u8,
    /// The caller sends no more.
    is_finished: bool,
}

// Four bytes and two of one each: an idle call keeps no more here, whatever it is subscribed to.
const _: () = assert!(size_of::<Connected>() == 8);

/// Sends what answers a frame, or belongs to none (`id` 0).
fn answer(id: u32, frame: server_frame::Frame, context: &mut Context<'_>) {
    send(&ServerFrame { id, frame: Some(frame) }, context);
}

fn refuse(id: u32, refusal: Refusal, context: &mut Context<'_>) {
    let error = edge::Error { code: refusal.code.to_owned(), message: refusal.message };
    answer(id, server_frame::Frame::Error(error), context);
}

impl Connected {
    fn topic(self, name: &str) -> Result<Topic, Refusal> {
        Ok(Topic::parse(name.as_bytes(), usize::from(self.topic_bytes_max))?)
    }

    fn subscribe(self, wish: &edge::Subscribe, context: &mut Context<'_>) -> Result<(), Refusal> {
        let topic = self.topic(&wish.topic)?;
        context.may_subscribe(&topic)?;
        let start = match wish.start {
            None | Some(subscribe::Start::History(0)) => Start::Now,
            Some(subscribe::Start::History(count)) => Start::Last(count),
            Some(subscribe::Start::Since(edge::Cursor { epoch, offset })) => {
                Start::Since(Cursor { epoch: Epoch(epoch), offset: Offset(offset) })
            }
        };
        let bad = |message: String| Refusal { status: 400, code: "bad_parameter", message };
        let group = if wish.group.is_empty() { None } else { Some(&*wish.group) };
        let group = group.map(|name| Group::parse(name.as_bytes()).map_err(|error| bad(format!("the group: {error}"))));
        let group = group.transpose()?;
        if group.is_some() {
            if start != Start::Now {
                return Err(bad("a queue group begins with now: leave out since and history".to_owned()));
            }
            let topic = wish.topic.clone();
            answer(0, server_frame::Frame::Subscribed(edge::Subscribed { topic, cursor: None }), context);
        }
        let member = own_text("member", &wish.member, ID_BYTES_MAX)?;
        let name = own_text("name", &wish.name, NAME_BYTES_MAX)?;
        let who = (member.is_some() || name.is_some()).then(|| Box::new(Named { member, name }));
        context.subscribe(topic, Subscribe { echo: !wish.no_echo, group, start, watch: wish.presence, who });
        Ok(())
    }

    fn publish(&mut self, id: u32, wish: &edge::Publish, context: &mut Context<'_>) -> Result<(), Refusal> {
        let topic = self.topic(&wish.topic)?;
        let key = check_key(&wish.idempotency_key)?;
        let (kind, said) = match &wish.payload {
            Some(publish::Payload::Text(text)) => (Kind::Text, text.as_bytes()),
            Some(publish::Payload::Binary(bytes)) => (Kind::Binary, &bytes[..]),
            None => return Err(no_payload()),
        };
        let state = Some(wish.tracestate.as_bytes());
        let trace = Trace::parse(wish.traceparent.as_bytes(), state);
        context.publish_traced(topic, kind, said, id, key, trace);
        self.under_way = self.under_way.saturating_add(1);
        Ok(())
    }

    fn obey(&mut self, id: u32, frame: Option<client_frame::Frame>, context: &mut Context<'_>) -> Result<(), Refusal> {
        match frame {
            Some(client_frame::Frame::Subscribe(wish)) => self.subscribe(&wish, context),
            Some(client_frame::Frame::Publish(wish)) => self.publish(id, &wish, context),
            Some(client_frame::Frame::Unsubscribe(edge::Unsubscribe { topic })) => {
                context.unsubscribe(self.topic(&topic)?);
                answer(id, server_frame::Frame::Unsubscribed(edge::Unsubscribed { topic }), context);
                Ok(())
            }
            Some(client_frame::Frame::Authenticate(edge::Authenticate { token })) => {
                context.renew(token.as_bytes(), id);
                Ok(())
            }
            None => {
                let message = "a frame is a subscribe, an unsubscribe, a publish or an authenticate".to_owned();
                Err(Refusal { status: 400, code: "bad_frame", message })
            }
        }
    }

    /// Ends the call when nothing more can come.
    fn end_if_done(self, context: &mut Context<'_>) {
        if self.is_finished && self.under_way == 0 && context.topic().is_none() {
            context.end(Status::OK);
        }
    }
}

impl Handler for Connect {
    type State = Connected;

    fn open(
        &mut self,
        state: &mut Connected,
        request: &Request<'_>,
        _context: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        state.topic_bytes_max = u8::try_from(request.topic_bytes_max).unwrap_or(u8::MAX);
        Ok(())
    }

    fn offers(&self) -> Offers {
        CALLS
    }

    fn message(&mut self, state: &mut Connected, _kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        let Some(ClientFrame { id, frame }) = decode(payload, context) else { return };
        if let Err(refusal) = state.obey(id, frame, context) {
            refuse(id, refusal, context);
        }
    }

    fn published(
        &mut self,
        state: &mut Connected,
        number: u32,
        outcome: Result<Published, NotPublished>,
        context: &mut Context<'_>,
    ) {
        state.under_way = state.under_way.saturating_sub(1);
        match outcome {
            Ok(Published { topic, cursor, subscribers, duplicate }) => {
                let cursor = Some(edge::Cursor { epoch: cursor.epoch.0, offset: cursor.offset.0 });
                let topic = topic.as_str().to_owned();
                let published = edge::Published { topic, cursor, subscribers, duplicate };
                answer(number, server_frame::Frame::Published(published), context);
            }
            Err(why) => refuse(number, why.into(), context),
        }
        state.end_if_done(context);
    }

    fn not_subscribed(&mut self, state: &mut Connected, topic: &Topic, why: NotSubscribed, context: &mut Context<'_>) {
        let refusal = Refusal::from(why);
        // What asked for it has been answered with nothing yet, and its number is not known any more.
        let message = format!("{}: {}", topic.as_str(), refusal.message);
        refuse(0, Refusal { message, ..refusal }, context);
        state.end_if_done(context);
    }

    fn expiring(&mut self, _state: &mut Connected, left: Duration, context: &mut Context<'_>) {
        let seconds_left = u32::try_from(left.as_secs()).unwrap_or(u32::MAX);
        answer(0, server_frame::Frame::Expiring(edge::Expiring { seconds_left }), context);
    }

    fn renewed(&mut self, _state: &mut Connected, number: u32, outcome: Renewed, context: &mut Context<'_>) {
        match outcome {
            Ok(expires) => {
                let expires = expires.map_or(0, |expires| i64::try_from(expires).unwrap_or(i64::MAX));
                answer(number, server_frame::Frame::Authenticated(edge::Authenticated { expires }), context);
            }
            Err(cause) => {
                let message = cause.message().to_owned();
                refuse(number, Refusal { status: cause.status(), code: cause.code(), message }, context);
            }
        }
    }

    fn finish(&mut self, state: &mut Connected, context: &mut Context<'_>) {
        state.is_finished = true;
        state.end_if_done(context);
    }
}

#[cfg(test)]
mod tests;
