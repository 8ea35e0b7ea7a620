//! Handing messages to subscribers, in slices.
//!
//! A message goes straight from its shared image to the socket of each subscriber who has nothing queued. What the
//! kernel does not take, and whatever comes for a connection that has something queued, goes to its outbox.

use std::iter::repeat_n;
use std::sync::Arc;

use super::Shard;
use super::connection::Flags;
use super::core::{Core, Send, Sent};
use super::egress::weight_of;
use super::latency::Heads;
use super::pace::Pace;
use super::spans::{Times, unix_ns};
use crate::app::SlowConsumer;
use crate::buf::Outbox;
use crate::close::CloseReason;
use crate::codec::websocket::deflate::Deflater;
use crate::hub::TopicKey;
use crate::id::ConnId;
use crate::io::{Backend, Out};
use crate::message::{Image, Message, Publisher, Topic, Wire};
use crate::rule::Limit;
use crate::time::{Clock, Instant, Stamp};

impl<B: Backend> Shard<B> {
    /// Deliveries of a slice that take no time worth a look at the clock.
    const SLICE_SHORT: usize = 16;
    /// Messages of a topic that wait together go out as one piece, up to this size.
    const BATCH_BYTES: usize = 64 * 1024;

    /// Serves the topics that have something to hand out, in turn.
    pub(super) fn fan_out(&mut self, pace: &mut Pace<'_, impl Clock>) {
        self.uncork();
        if !self.core.fan_outs.is_empty() {
            // Its steps are long ones, the first included.
            pace.look();
        }
        while pace.more() {
            let Some(topic) = self.core.fan_outs.pop_front() else { return };
            let room = Self::OWED_MAX.saturating_sub(self.core.owed);
            let now = pace.seen().unwrap_or(self.core.now);
            let (served, more) = self.slice(topic, room, now, pace.clock());
            if more {
                self.core.list_fan_out(topic);
            }
            self.core.enqueue_deferred(topic);
            self.core.send_private();
            self.close_doomed();
            self.pay(pace);
            if served >= Self::SLICE_SHORT {
                pace.look();
            }
        }
    }

    /// Serves members of a topic, for as much work as is left in `room`. Returns how much that was, and whether the topic
    /// has more to do.
    fn slice(&mut self, topic: TopicKey, room: usize, now: Instant, clock: &impl Clock) -> (usize, bool) {
        if self.core.members.group(topic).is_some() {
            self.core.members.delist(topic);
            return self.share(topic, room);
        }
        let Core {
            members,
            table,
            deflater,
            sends,
            send_images,
            deferred,
            private,
            metrics,
            batch: number,
            owed,
            tracer,
            spans,
            now: turn,
            unix_ms,
            id: shard,
            latencies,
            ..
        } = &mut self.core;
        let Some((all, batch)) = members.fan_out(topic, Self::BATCH_BYTES) else { return (0, false) };
        let bytes: usize = batch.messages.iter().map(|message| message.payload().len()).sum();
        let weight = weight_of(bytes);
        let (begin, end) = (batch.cursor, all.len().min(batch.cursor + (room / weight).max(1)));
        let Some(first) = batch.messages.first().map(|message| message.offset) else { return (0, false) };
        let messages = u32::try_from(batch.messages.len()).unwrap_or(u32::MAX);
        if batch.began.is_none() {
            batch.began = Stamp::of(now);
        }
        let mut sent = Heads::default();
        let mut pushed: [Option<usize>; Wire::COUNT] = [None; Wire::COUNT];
        for &member in &all[begin..end] {
            let Some((id, connection)) = table.at(member.connection()) else { continue };
            let wire = connection.encoder().wire;
            sent.count(connection.protocol);
            let own = Publisher { shard: *shard, connection: id };
            let is_own = |message: &Message| !member.echo() && message.publisher == Some(own);
            if wire.is_private() {
                let taken = batch.messages.iter().filter(|m| member.takes(m.offset) && !is_own(m));
                private.extend(taken.map(|message| (id, message.clone())));
                continue;
            }
            if !member.takes(first) || (!member.echo() && batch.messages.iter().any(is_own)) {
                let taken = batch.messages.iter_mut().filter(|m| member.takes(m.offset) && !is_own(m));
                deferred.extend(taken.map(|message| (id, joined(std::slice::from_mut(message), wire, deflater), 1)));
                continue;
            }
            let image =
                &*batch.images[wire as usize].get_or_insert_with(|| joined(&mut batch.messages, wire, deflater));
            if connection.outbox.is_some() || connection.batch == *number || connection.flags.has(Flags::BORNE) {
                deferred.push((id, image.clone(), messages));
                continue;
            }
            connection.batch = *number;
            let index = *pushed[wire as usize].get_or_insert_with(|| {
                send_images.push(image.clone());
                send_images.len() - 1
            });
            let tag = u32::try_from(sends.len()).unwrap_or(u32::MAX);
            sends.push(Send { id, what: Sent::Image { index, messages } });
            metrics.bytes_sent_total.add(image.len() as u64);
            if let Some(tracer) = tracer {
                tracer.delivered(id, image.len(), messages, false);
            }
            self.backend.send(id, Out::Shared(&image.bytes, image.start, image.end), tag);
        }
        metrics.deliveries_total.add(u64::from(messages) * (end - begin) as u64);
        sent.note(metrics, messages);
        batch.cursor = end;
        if end == all.len() {
            latencies.fan_out(batch.began);
            batch.messages.iter().for_each(|message| latencies.delivery(message.taken));
            for message in batch.messages.iter().filter(|message| message.is_sampled()) {
                let Some(span) = spans.begin(message, *turn, metrics) else { break };
                let times = Times { begin_ms: message.time_ms, end_ns: unix_ns(clock.now(), *turn, *unix_ms) };
                spans.tell("deliver", span, message, times, all.len() as u64);
            }
        }
        *owed += (end - begin) * weight;
        let more = end < all.len() || members.end_batch(topic);
        ((end - begin) * weight, more)
    }

    /// Closes those who must end.
    pub(super) fn close_doomed(&mut self) {
        while let Some((id, reason, detail)) = self.core.doomed.pop() {
            self.begin_close(id, reason, detail);
        }
    }
}

/// All messages as one piece, in one allocation.
pub(super) fn joined(messages: &mut [Message], wire: Wire, deflater: &mut Deflater) -> Image {
    if let [only] = messages {
        return only.encoded(wire, deflater);
    }
    let end = messages.iter_mut().map(|message| message.encoded(wire, deflater).len()).sum();
    let mut bytes: Arc<[u8]> = repeat_n(0, end).collect();
    if let Some(mut room) = Arc::get_mut(&mut bytes) {
        for message in messages {
            let image = message.encoded(wire, deflater);
            let (place, rest) = room.split_at_mut(image.len());
            place.copy_from_slice(image.as_slice());
            room = rest;
        }
    }
    Image { bytes, start: 0, end }
}

impl Core {
    /// Room for deferred messages that is kept.
    const DEFERRED_KEPT: usize = 4096;

    /// Queues what could not be sent straight.
    fn enqueue_deferred(&mut self, topic: TopicKey) {
        let Some(topic) = self.members.name(topic).cloned() else { return self.deferred.clear() };
        let mut deferred = std::mem::take(&mut self.deferred);
        for (id, image, messages) in deferred.drain(..) {
            self.enqueue(id, &topic, image, messages);
        }
        deferred.shrink_to(Self::DEFERRED_KEPT);
        self.deferred = deferred;
    }

    /// Queues messages of a topic for a connection, within its bounds.
    pub(super) fn enqueue(&mut self, id: ConnId, topic: &Topic, image: Image, messages: u32) {
        if self.table.get(id).is_none_or(|connection| connection.flags.has(Flags::CLOSING)) {
            return;
        }
        let (bound, spent) = (self.limits.queue_bytes_max, self.is_queue_budget_spent());
        if let Some(tracer) = &mut self.tracer {
            tracer.delivered(id, image.len(), messages, true);
        }
        let Some(outbox) = self.outbox(id) else { return };
        let (before, cost) = (outbox.memory(), outbox.cost());
        // What may be queued already so that there is room; when the process has none left, the queue must not grow.
        let room = outbox.allowance() + if spent { cost.min(bound) } else { bound };
        let cost_max = room.saturating_sub(Outbox::cost_of(image.len()));
        let mut dropped = 0;
        if cost > 0 && cost > cost_max {
            self.metrics.strike(if spent { Limit::QueueBytesTotalMax } else { Limit::QueueBytesMax });
            match self.slow_consumer(id, topic) {
                SlowConsumer::Close => {
                    self.doomed.push((id, CloseReason::SlowConsumer, "outgoing queue full"));
                    self.metrics.deliveries_dropped_total.add(u64::from(messages));
                    return;
                }
                SlowConsumer::DropOldest => dropped = self.drop_oldest(id, cost_max),
                SlowConsumer::KeepLatest => dropped = self.drop_oldest(id, 0),
            }
        }
        let Some(outbox) = self.outbox(id) else { return };
        if outbox.is_empty() || outbox.cost() <= cost_max {
            outbox.push_shared(image, messages);
        } else {
            dropped += u64::from(messages);
        }
        let (after, depth) = (outbox.memory(), outbox.bytes());
        self.metrics.queue_depth_bytes.observe(depth as u64);
        self.tops.deep(id, depth);
        self.metrics.deliveries_dropped_total.add(dropped);
        self.count_queued(before, after);
        self.mark_dirty(id);
    }

    fn drop_oldest(&mut self, id: ConnId, cost_max: usize) -> u64 {
        self.outbox(id).map_or(0, |outbox| outbox.drop_oldest(cost_max))
    }
}
