//! What is told to a receiver elsewhere: see [`hooks`](crate::hooks).
//!
//! Without a receiver it costs a look at one pointer where something could be told. A request that has one answer is no
//! connection: no `connect` is told of a POST, a long poll or a unary call, nor what a poll subscribes to while it waits.

use std::sync::Arc;

use super::core::Core;
use super::peers::Whence;
use crate::access::Grant;
use crate::close::CloseReason;
use crate::config::{HookKind, Hooks};
use crate::hooks::port::ShardEnd;
use crate::hooks::{Address, Client, Event, Wanted, What};
use crate::hub::Group;
use crate::id::ConnId;
use crate::message::{Message, Topic};
use crate::session::Protocol;

/// A shard's way to the receiver.
#[derive(Debug)]
pub(super) struct Teller {
    end: ShardEnd,
    /// What it is told.
    hooks: Arc<Hooks>,
}

impl Teller {
    pub(super) const fn new(end: ShardEnd, hooks: Arc<Hooks>) -> Self {
        Self { end, hooks }
    }

    /// What is told may have been replaced.
    pub(super) fn follow(&mut self, hooks: &Arc<Hooks>) {
        self.hooks = Arc::clone(hooks);
    }

    fn wants(&self, kind: HookKind) -> bool {
        self.hooks.events.has(kind)
    }

    fn wants_of(&self, kind: HookKind, topic: &Topic) -> bool {
        self.wants(kind) && self.hooks.covers(topic.as_str())
    }

    /// A message has its place. Not for what was published on another node: that one tells it.
    pub(super) fn published(&mut self, message: &Message, subscribers: u64, grant: Option<Arc<Grant>>) {
        if self.wants_of(HookKind::Publish, &message.topic) {
            self.end
                .tell(Event { time_ms: message.time_ms, what: What::Published(message.clone(), subscribers, grant) });
        }
    }

    /// A message may have its place, or not: it was on its way when there was no answer any more.
    pub(super) fn may_be_published(&mut self, topic: &Topic) {
        if self.wants_of(HookKind::Publish, topic) {
            self.end.miss(HookKind::Publish);
        }
    }

    pub(super) fn flush(&mut self) {
        self.end.flush();
    }
}

impl Core {
    /// Whether such an event is to be told.
    fn hooks_want(&self, kind: HookKind) -> bool {
        self.hooks.as_deref().is_some_and(|teller| teller.wants(kind))
    }

    fn tell_hook(&mut self, what: What) {
        let time_ms = self.unix_ms;
        if let Some(teller) = self.hooks.as_deref_mut() {
            teller.end.tell(Event { time_ms, what });
        }
    }

    /// Who an event is about; `None` where that is no connection but a request.
    fn hook_client(&self, id: ConnId) -> Option<Client> {
        let connection = self.table.get(id)?;
        let protocol = connection.protocol;
        match protocol {
            Protocol::Http | Protocol::Poll => return None,
            Protocol::Grpc if self.router.offers(connection.route).is_ok_and(|offers| offers.once) => return None,
            _ => {}
        }
        let address = match self.whence(id) {
            Some(Whence::Ip(address)) => Address::Ip(address),
            Some(Whence::Unix) => Address::Unix,
            None => Address::Unknown,
        };
        Some(Client { shard: self.id, id, protocol, address, grant: connection.grant().cloned() })
    }

    /// What a connection's client may do, where it is told who publishes.
    pub(super) fn hook_grant(&self, id: ConnId) -> Option<Arc<Grant>> {
        self.hooks.as_deref().filter(|teller| teller.wants(HookKind::Publish))?;
        self.table.get(id)?.grant().cloned()
    }

    /// A handler has taken a connection.
    pub(super) fn hook_connected(&mut self, id: ConnId) {
        if self.hooks_want(HookKind::Connect)
            && let Some(client) = self.hook_client(id)
        {
            self.tell_hook(What::Connected(client));
        }
    }

    /// It has gone, or is about to.
    pub(super) fn hook_disconnected(&mut self, id: ConnId, reason: CloseReason) {
        if self.hooks_want(HookKind::Disconnect)
            && let Some(client) = self.hook_client(id)
        {
            self.tell_hook(What::Disconnected(client, reason));
        }
    }

    /// A connection reads a topic from now on.
    pub(super) fn hook_subscribed(&mut self, id: ConnId, topic: &Topic, group: Option<&Group>) {
        let wants = self.hooks.as_deref().is_some_and(|teller| teller.wants_of(HookKind::Subscribe, topic));
        if wants && let Some(client) = self.hook_client(id) {
            self.tell_hook(What::Subscribed(client, topic.clone(), group.cloned()));
        }
    }

    /// It does not any more.
    pub(super) fn hook_unsubscribed(&mut self, id: ConnId, topic: &Topic, group: Option<&Group>) {
        let wants = self.hooks.as_deref().is_some_and(|teller| teller.wants_of(HookKind::Unsubscribe, topic));
        if wants && let Some(client) = self.hook_client(id) {
            self.tell_hook(What::Unsubscribed(client, topic.clone(), group.cloned()));
        }
    }

    /// Somebody has said who is interested in a topic that is owned here, where this many topics had somebody before.
    pub(super) fn hook_interest(&mut self, topic: &Topic, before: usize) {
        let Some(teller) = self.hooks.as_deref() else { return };
        let (what, kind, other): (fn(Topic, Wanted) -> What, _, _) = match self.topics.interested().cmp(&before) {
            std::cmp::Ordering::Greater => (What::Occupied, HookKind::Occupied, HookKind::Vacated),
            std::cmp::Ordering::Less => (What::Vacated, HookKind::Vacated, HookKind::Occupied),
            std::cmp::Ordering::Equal => return,
        };
        // Who hears one of the two needs both to know what stays: see [`settle`](crate::hooks::settle).
        if teller.wants_of(kind, topic) {
            self.tell_hook(what(topic.clone(), Wanted::Told));
        } else if teller.wants_of(other, topic) {
            self.tell_hook(what(topic.clone(), Wanted::Aside));
        }
    }

    /// At the end of a turn: wakes the thread, if there is something to tell.
    pub(super) fn flush_hooks(&mut self) {
        if let Some(teller) = self.hooks.as_deref_mut() {
            teller.flush();
        }
    }
}

#[cfg(test)]
mod tests;
