//! Whether a shard is what it should be between two turns: its books against its connections, and its bounds.
//!
//! It walks the whole table, so only tests and the simulation ask.

use super::Shard;
use super::connection::{Connection, Extra, Flags, Membership};
use super::core::Core;
use super::unloading::Unload;
use crate::hub::TopicKey;
use crate::id::ConnId;
use crate::io::Backend;
use crate::message::Publisher;
use crate::metrics;
use crate::session::Protocol;

/// What an audit found beside faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// The next turn would not wait: there is work.
    pub busy: bool,
    /// Connections in the table.
    pub connections: usize,
    /// Streams that connections of HTTP/2 bear.
    pub streams: usize,
    /// Bytes of what is unfinished: heads, bodies, messages.
    pub unfinished_bytes: usize,
    /// Timers that are armed.
    pub timers: usize,
    /// Most bytes that wait for one connection.
    pub outbox_bytes_max: usize,
    /// Mail that found no room.
    pub staged_mail: usize,
    /// Requests, and subscriptions' beginnings, that topics' owners have not answered.
    pub unanswered: usize,
}

impl<B: Backend> Shard<B> {
    /// Checks this shard.
    ///
    /// # Errors
    /// What is wrong.
    pub fn audit(&self) -> Result<Audit, String> {
        self.core.audit()
    }

    /// Whether a turn may do something without anything happening outside: the next one would not wait, or not long.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let mail = &self.core.mail;
        self.core.has_work() || mail.staged_requests() + mail.staged_deliveries() > 0
    }
}

impl Core {
    /// What an outbox may hold beyond the limit: a joined batch of messages put back by a short send, the answers of
    /// one turn, a farewell.
    const OUTBOX_SLACK: usize = 256 * 1024;

    fn audit(&self) -> Result<Audit, String> {
        let mut audit = Audit { busy: self.has_work(), timers: self.wheel.len(), ..Audit::default() };
        let (mut queued, mut subscriptions, mut outboxes, mut unfinished) = (0, 0, 0, 0);
        let (mut shed, mut streams) = (0, 0);
        for (id, connection) in self.table.iter() {
            audit.connections += usize::from(!connection.flags.has(Flags::BORNE));
            streams += usize::from(connection.flags.has(Flags::BORNE));
            shed += usize::from(connection.flags.has(Flags::SHED));
            self.audit_connection(id, connection).map_err(|fault| format!("{id}: {fault}: {connection:?}"))?;
            subscriptions += connection.memberships().count();
            audit.unanswered += self.unanswered(id, connection);
            unfinished += connection.partial.as_ref().map_or(0, |partial| partial.buf.capacity());
            if let Some(outbox) = &connection.outbox {
                outboxes += 1;
                queued += outbox.memory();
                audit.outbox_bytes_max = audit.outbox_bytes_max.max(outbox.bytes());
            }
        }
        let same = |name: &str, is: u64, should: usize| {
            if is == should as u64 { Ok(()) } else { Err(format!("{name} is {is}, should be {should}")) }
        };
        same("connections", self.metrics.connections.get(), audit.connections - shed)?;
        same("http2_streams", self.metrics.http2_streams.get(), streams)?;
        (audit.streams, audit.unfinished_bytes) = (streams, unfinished);
        for protocol in metrics::Protocol::ALL {
            let speaks = |one: &Connection| one.protocol.counted() == *protocol && !one.flags.has(Flags::SHED);
            let speakers = self.table.iter().filter(|(_, connection)| speaks(connection)).count();
            same(protocol.label(), self.metrics.speakers(*protocol).0, speakers)?;
        }
        same("streams", self.streams as u64, streams)?;
        same("subscriptions", self.metrics.subscriptions.get(), subscriptions)?;
        same("queued_connections", self.metrics.queued_connections.get(), outboxes)?;
        same("queued_bytes", self.metrics.queued_bytes.get(), queued)?;
        same("queued", self.queued as u64, queued)?;
        same("unfinished", self.partials.bytes() as u64, unfinished)?;
        let topics = self.members.len();
        if subscriptions < topics {
            return Err(format!("{topics} topics for {subscriptions} subscriptions"));
        }
        if self.members.waiting_bytes() > 0 && self.fan_outs.is_empty() {
            return Err("messages wait for a fan-out that is not on the list".into());
        }
        self.audit_lists()?;
        self.audit_journal()?;
        self.audit_cluster()?;
        let peers = self.mail.peers.len().saturating_sub(1);
        // What one request leads to: its message to all shards, and its answer. What a group's last member here has left goes
        // to others all at once.
        let staged = self.mail.staged_deliveries();
        if staged > peers + 1 && !self.topics.has_groups() {
            return Err(format!("{staged} deliveries are staged for {peers} shards"));
        }
        let waits = (self.mail.staged_requests() > 0, self.mail.staged_deliveries() > 0);
        if waits != (self.mail.requests_wait, self.mail.deliveries_wait) {
            return Err(format!("of requests and deliveries, {waits:?} wait, which is not known"));
        }
        audit.staged_mail = self.mail.staged_deliveries() + self.mail.staged_requests();
        Ok(audit)
    }

    /// What waits for the disk has its places, and no place is without it.
    fn audit_journal(&self) -> Result<(), String> {
        let Some(durable) = self.durable.as_deref() else { return Ok(()) };
        let (books, all) = (durable.books(), durable.recount());
        if books != all {
            return Err(format!("what waits for the disk is {books:?}, should be {all:?}"));
        }
        let (places, behind) = self.topics.waiting();
        // Places of a past that has ended are none.
        if places > all.1 || behind != durable.counted_behind() {
            return Err(format!("{places} places are reserved and {behind} publications wait for theirs: {all:?}"));
        }
        Ok(())
    }

    /// What waits for streams is counted, and topics are followed as the cluster is told.
    fn audit_cluster(&self) -> Result<(), String> {
        let Some(cluster) = self.cluster.as_deref() else { return Ok(()) };
        let (books, all) = (cluster.ordered.books(), cluster.ordered.recount());
        if books != all {
            return Err(format!("what waits for streams is {books:?}, should be {all:?}"));
        }
        self.topics.check_follows()
    }

    /// What a connection waits for that topics' owners have to say.
    fn unanswered(&self, id: ConnId, connection: &Connection) -> usize {
        let asks = connection.extra.as_deref().is_some_and(Extra::asks);
        let begins = connection.extra.as_deref().and_then(|extra| extra.several.as_deref());
        let begins = begins.is_some_and(|several| !several.is_live);
        let is_pending = |one: &Membership| {
            let member = self.members.members(one.topic).get(one.position as usize);
            member.is_some_and(|member| member.is_pending())
        };
        let pending = connection.memberships().filter(is_pending).count();
        if connection.flags.has(Flags::CLOSING) {
            return 0;
        }
        pending + usize::from(asks) + usize::from(begins) + usize::from(self.is_poll_awaiting(id) && pending == 0)
    }

    /// Lists of what is done within a turn are empty after it; the others have the next turn come soon.
    fn audit_lists(&self) -> Result<(), String> {
        let within = [self.private.len(), self.told.len(), self.shares.len(), self.own_shares.len(), self.broken.len()];
        if within.iter().any(|len| *len > 0) {
            return Err(format!("something of this turn was left undone: {within:?}"));
        }
        let after = [self.begun.len(), self.own_mail.len(), self.doomed.len()];
        if after.iter().any(|len| *len > 0) && !self.has_work() {
            return Err(format!("nobody will look at what is left: {after:?}"));
        }
        Ok(())
    }

    /// A request that has been taken has something that will answer it; and what waits for a group's members waits because
    /// none of them is ready, or is on the list.
    fn audit_waiting(&self, id: ConnId, connection: &Connection) -> Result<(), String> {
        let flags = connection.flags;
        let extra = connection.extra.as_deref();
        let polls = extra.is_some_and(|extra| extra.poll().is_some());
        let asks = extra.is_some_and(Extra::asks);
        if flags.has(Flags::CLOSING) {
            return Ok(());
        }
        if flags.has(Flags::WAITING) != (polls || asks) {
            return Err(format!("it waits: {}; polls: {polls}, asks: {asks}", flags.has(Flags::WAITING)));
        }
        if polls != (connection.protocol == Protocol::Poll && flags.has(Flags::OPEN)) {
            return Err(format!("it polls: {polls}"));
        }
        let is_ready = connection.outbox.is_none() && flags.has(Flags::OPEN) && self.is_ready_for_share(connection);
        for Membership { topic, .. } in connection.memberships() {
            let waiting = self.members.waiting(topic);
            if waiting > 0 && is_ready && self.takes_from(id, topic) && !self.fan_outs.contains(&topic) {
                return Err(format!("{waiting} messages of a group wait, for which it is ready"));
            }
        }
        Ok(())
    }

    /// Whether this member of a group wants the next message: it may be its own.
    fn takes_from(&self, id: ConnId, group: TopicKey) -> bool {
        let own = Publisher { shard: self.id, connection: id };
        self.members.next_for_group(group).is_some_and(|message| message.publisher != Some(own))
    }

    fn audit_connection(&self, id: ConnId, connection: &Connection) -> Result<(), String> {
        let flags = connection.flags;
        let ended = flags.has(Flags::ENDED);
        if !(connection.timer.is_armed() || ended || self.may_be_timeless(connection)) {
            return Err("nothing will end it if its peer does not".into());
        }
        if ended && connection.timer.is_armed() {
            return Err("it has ended and its timer is armed".into());
        }
        if flags.has(Flags::CLOSING) && connection.memberships().next().is_some() {
            return Err("it is closing and still subscribed".into());
        }
        for membership in connection.memberships() {
            let member = self.members.members(membership.topic).get(membership.position as usize);
            if member.is_none_or(|member| member.connection() != id.index()) {
                return Err(format!("{membership:?} is {member:?}"));
            }
        }
        self.audit_waiting(id, connection)?;
        if let Some(partial) = &connection.partial {
            let limits = &self.limits;
            let bound = limits.message_bytes_max.max(limits.body_bytes_max) + limits.head_bytes_max + 256;
            if partial.buf.len() > bound {
                return Err(format!("{} bytes of something unfinished, {bound} allowed", partial.buf.len()));
            }
        }
        let resting = connection.outbox.as_ref().is_none_or(|outbox| outbox.is_empty()) && !flags.has(Flags::CLOSING);
        let waits = flags.has(Flags::WAITING);
        let is_paced = self.paced_until(id).is_some() && connection.timer.is_armed();
        if resting && !waits && !is_paced && flags.has(Flags::PAUSED) && !self.resumable.contains(&id) {
            return Err("it is paused and nothing will resume it".into());
        }
        if flags.has(Flags::STALLED) && !flags.has(Flags::CLOSING) && !self.stalled.contains(&id) {
            return Err("it is stalled and nothing will resume it".into());
        }
        let Some(outbox) = &connection.outbox else { return Ok(()) };
        if flags.has(Flags::CLOSING) && !outbox.held.is_empty() {
            return Err("it is closing and holds bytes that nobody will look at".into());
        }
        let bound = self.limits.queue_bytes_max + 2 * self.limits.message_bytes_max + Self::OUTBOX_SLACK;
        if outbox.bytes() > bound {
            return Err(format!("{} bytes are queued, {bound} allowed", outbox.bytes()));
        }
        let listed = outbox.listed && self.dirty.contains(&id);
        // What is queued for a stream that was reset goes with it.
        let is_of = |unload: &Unload| matches!(unload, Unload::Stream(stream, _) if *stream == id);
        let is_doomed = flags.has(Flags::BROKEN) && self.unloading.iter().any(is_of);
        if !(outbox.is_empty() || outbox.waits || listed || is_doomed) {
            return Err("its queue is not empty and nothing will send it".into());
        }
        Ok(())
    }

    /// Without a heartbeat and an idle timeout an open connection may stay for ever; a stream ends with what bears it.
    fn may_be_timeless(&self, connection: &Connection) -> bool {
        let is_timeless = connection.flags.has(Flags::OPEN) || connection.protocol == Protocol::Http2;
        connection.flags.has(Flags::BORNE) || (is_timeless && self.limits.heartbeat_interval.is_zero())
    }
}
