//! What handlers are told about their connection, and what is done of that which they ask for.

use super::connection::Connection;
use super::core::Core;
use super::mail::About;
use crate::access::Grant;
use crate::app::router::News;
use crate::app::{Effect, Subject};
use crate::close::CloseReason;
use crate::id::ConnId;
use crate::message::Topic;

impl Core {
    /// What the log says of a close that nothing but the application is the cause of.
    pub(super) const ASKED_FOR: &'static str = "the application asked for it";

    /// What handlers are told about a connection.
    pub(super) fn subject<'a>(
        &self,
        id: ConnId,
        connection: &Connection,
        topic: Option<&'a Topic>,
        grant: Option<&'a Grant>,
    ) -> Subject<'a> {
        let (protocol, encoder) = (connection.protocol, connection.encoder());
        Subject {
            id,
            shard: self.id,
            now: self.now,
            protocol,
            encoder,
            topic,
            is_draining: self.drain.is_some(),
            grant,
        }
    }

    /// Carries out what a handler asked for; returns the close that comes of it, and why, for the log.
    pub(super) fn apply_effects(&mut self, id: ConnId) -> Option<(CloseReason, &'static str)> {
        if self.effects.is_empty() {
            return None;
        }
        let mut close = None;
        let mut effects = std::mem::take(&mut self.effects);
        let opens_stream = self.opens_stream(id);
        let (mut wishes, mut refused) = (Vec::new(), Vec::new());
        for effect in effects.drain(..) {
            match effect {
                Effect::Publish(message) => {
                    let refused = self.publish_said(id, message).err();
                    close = close.or(refused.map(|why| (CloseReason::Policy, why.message())));
                }
                Effect::Announce(message) => self.publish_about(id, message),
                Effect::Subscribe(topic, how) if opens_stream => wishes.push((topic, how)),
                Effect::Subscribe(topic, how) => {
                    if let Err(why) = self.subscribe(id, &topic, how) {
                        refused.push((topic, why));
                    }
                }
                Effect::Unsubscribe(topic) => self.unsubscribe(id, &topic),
                Effect::PublishFor(message, number, key) => self.publish_for(id, message, key, number),
                Effect::Renew(token, number) => self.renew(id, &token, number),
                Effect::Presence(topic, after, limit) => self.ask(id, &topic, About::Presence(after, limit)),
                Effect::Refused(cause) => self.metrics.count_refused(cause),
                Effect::Close(reason) => close = close.or(Some((reason, Self::ASKED_FOR))),
                Effect::End(status) => {
                    if let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) {
                        borne.status.get_or_insert(Box::new(status));
                    }
                    close = close.or(Some((CloseReason::Normal, Self::ASKED_FOR)));
                }
            }
        }
        self.effects = effects;
        if opens_stream {
            close = close.or(self.open_stream(id, wishes).err().map(|reason| (reason, Self::ASKED_FOR)));
        }
        for (topic, why) in refused {
            // What may be had later ends a call, too: so does the owner's own refusal, and the client comes again.
            if self.is_call(id) && why.reason() != CloseReason::TryAgainLater {
                self.tell_handler(id, News::NotSubscribed(&topic, why));
            } else {
                close = close.or(Some((why.reason(), why.message())));
            }
        }
        close
    }
}
