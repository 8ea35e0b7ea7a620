//! What the backend brings: connections, bytes, endings.

use std::io::ErrorKind;

use super::Shard;
use super::connection::Flags;
use super::core::Core;
use super::entrance::Entrance;
use super::opening::Fed;
use super::pace::Pace;
use crate::close::CloseReason;
use crate::id::{ConnId, ListenerId};
use crate::io::{Accepted, Backend, Completion, Lease};
use crate::rule::Limit;
use crate::session::Protocol;
use crate::time::{Clock, Stamp};

impl<B: Backend> Shard<B> {
    /// Bytes in a read from which on it was more than a last word.
    const DEAF_BYTES_MIN: usize = 4096;

    pub(super) fn ingress(&mut self, pace: &mut Pace<'_, impl Clock>) {
        self.resume_all(pace);
        while !self.core.is_staging_full() && pace.more() {
            match self.backend.next() {
                Some(completion) => self.complete(completion),
                None => {
                    self.core.listened = self.core.tick;
                    return;
                }
            }
            if self.core.has_looked_long() {
                pace.look();
            }
            self.pay(pace);
        }
        // While publications have to wait for others there is no hurry.
        self.core.unfinished |= !(self.core.is_staging_full() && self.core.blocked);
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Received(id, lease) => self.received(id, lease),
            Completion::Accepted(accepted) => self.accepted(accepted),
            Completion::Proxied(id, header) => self.proxied(id, header),
            Completion::Writable(id) => self.core.writable(id),
            Completion::PeerClosed(id) => self.peer_closed(id),
            Completion::Failed(id, kind) => self.failed(id, kind),
            Completion::Closed(id) => self.core.reap(id),
            Completion::AcceptFailed(listener, kind) => self.core.accept_failed(listener, kind),
        }
    }

    fn accepted(&mut self, accepted: Accepted) {
        if self.core.phase == super::Phase::Ending {
            return self.refuse(accepted);
        }
        let proxied = self.core.entrances.get(usize::from(accepted.listener.0)).is_some_and(|it| it.proxied);
        if proxied && !self.core.trusts(&accepted) {
            return self.refuse(accepted);
        }
        let id = match self.core.admit(&accepted) {
            Ok(id) => id,
            Err(limit) => return self.shed(accepted, limit),
        };
        self.attach(accepted, id);
        // Behind a proxy it opens when the client is known.
        if !proxied {
            self.open_bound(id);
        }
    }

    pub(super) fn open_bound(&mut self, id: ConnId) {
        self.begin_output(id);
        let fed = self.core.open_bound(id);
        self.after_feed(id, fed);
        self.core.hand_out_late_leave(id);
    }

    pub(super) fn attach(&mut self, accepted: Accepted, id: ConnId) {
        self.backend.attach(accepted, id);
        self.core.owed += 1;
    }

    fn received(&mut self, id: ConnId, lease: Lease) {
        self.begin_output(id);
        let core = &mut self.core;
        let bytes = self.backend.bytes(&lease);
        let count = bytes.len();
        core.metrics.bytes_received_total.add(count as u64);
        if let Some(tracer) = &mut core.tracer {
            tracer.bytes("received", id, bytes.len());
        }
        let fed = core.feed(id, bytes);
        if fed.pressed {
            core.hold(id, &bytes[fed.consumed..]);
        }
        let more = lease.more;
        self.backend.release(lease);
        self.after_feed(id, fed);
        if count >= Self::DEAF_BYTES_MIN {
            self.rest_if_deaf(id);
        }
        if !more {
            // Now, while this connection's lines are in the cache.
            self.uncork();
        }
    }

    /// What a connection that is heard no more sends on is thrown away: to read it as fast as it comes would be all that a
    /// shard does. So such a connection is read once in a tick, which is often enough to see its end.
    fn rest_if_deaf(&mut self, id: ConnId) {
        let connection =
            self.core.table.get(id).filter(|one| one.flags.has(Flags::DEAF) && !one.flags.has(Flags::ENDED));
        if connection.is_some_and(|one| !one.flags.has(Flags::BORNE)) {
            self.backend.pause(id);
            self.core.resting.push(id);
        }
    }

    /// Reads again from those who have rested.
    pub(super) fn resume_resting(&mut self) {
        for id in std::mem::take(&mut self.core.resting) {
            if self.core.table.get(id).is_some_and(|connection| !connection.flags.has(Flags::ENDED)) {
                self.backend.resume(id);
            }
        }
    }

    /// Carries out what came of received bytes.
    pub(super) fn after_feed(&mut self, id: ConnId, fed: Fed) {
        let asked = self.core.apply_effects(id);
        let waiting = self.core.table.get(id).is_some_and(|connection| connection.outbox.is_some());
        self.write(id);
        self.after_streams();
        if waiting && let Some(outbox) = self.core.outbox(id) {
            outbox.control_replies += fed.control_replies;
        }
        match (fed.close, asked) {
            (Some((reason, detail)), _) => self.begin_close(id, reason, &detail),
            (None, Some((reason, why))) => self.begin_close(id, reason, why),
            (None, None) => {}
        }
        if self.core.flag(id, Flags::CLOSING) {
            self.core.closing.push_back(id);
            return;
        }
        if fed.stalled {
            self.stall(id);
        }
        if waiting || fed.pressed {
            self.press(id);
        }
        if let Some(until) = fed.owed {
            self.pace_until(id, until);
        }
    }

    /// Stops reading a publisher until the mailboxes have room.
    pub(super) fn stall(&mut self, id: ConnId) {
        let Some(connection) = self.core.table.get_mut(id) else { return };
        if !connection.flags.has(Flags::STALLED) {
            connection.flags.set(Flags::STALLED);
            self.core.metrics.publisher_paused_total.add(1);
            self.core.stalled.push_back(id);
            self.pause(id);
        }
    }

    /// Goes on with those who waited for room and have it now.
    fn resume_all(&mut self, pace: &mut Pace<'_, impl Clock>) {
        for _ in 0..self.core.resumable.len() {
            if self.core.is_staging_full() || !pace.more() {
                break;
            }
            let Some(id) = self.core.resumable.pop_front() else { break };
            if self.core.paced_until(id).is_some() {
                // Its time comes, and then it is here again.
                continue;
            }
            self.core.unflag(id, Flags::PAUSED);
            self.core.begin_looking();
            self.resume(id);
            if self.core.has_looked_long() {
                // Those behind it have their turn when the shard has seen who has come meanwhile.
                pace.look();
                break;
            }
        }
        for _ in 0..self.core.stalled.len() {
            if self.core.blocked || self.core.is_staging_full() || !pace.more() {
                break;
            }
            let Some(id) = self.core.stalled.pop_front() else { break };
            self.core.unflag(id, Flags::STALLED);
            self.resume(id);
        }
    }

    fn resume(&mut self, id: ConnId) {
        let Some(connection) = self.core.table.get_mut(id) else { return };
        if connection.flags.has(Flags::WAITING) {
            // It goes on when it has its answer.
            connection.flags.set(Flags::PAUSED);
        }
        if !connection.is_read() || connection.flags.has(Flags::CLOSING) {
            return;
        }
        if connection.flags.has(Flags::OPEN) {
            // Nobody listened to it: its time to give a sign of life begins again.
            connection.hear(self.core.tick);
        }
        let is_borne = connection.flags.has(Flags::BORNE);
        let mut held = self.core.take_held(id);
        // Of a stream the end may have come as well.
        if !held.is_empty() || is_borne {
            self.begin_output(id);
            let bearer = self.core.bearer(id);
            self.core.begin_charging_streams();
            let fed = self.core.feed(id, &mut held);
            if fed.pressed {
                self.core.hold(id, &held[fed.consumed..]);
            }
            let consumed = fed.consumed;
            self.after_feed(id, fed);
            self.core.credit(id, consumed);
            bearer.into_iter().for_each(|bearer| self.charge_bearer(bearer));
        }
        if is_borne {
            return;
        }
        let Some(connection) = self.core.table.get(id) else { return };
        if !connection.is_read() || connection.flags.has(Flags::CLOSING) {
            return;
        }
        if connection.flags.has(Flags::PEER_DONE) {
            if !connection.is_transferring() {
                self.begin_close(id, CloseReason::PeerClosed, "");
            }
        } else {
            self.backend.resume(id);
        }
    }

    fn peer_closed(&mut self, id: ConnId) {
        let Some(connection) = self.core.table.get_mut(id) else { return };
        connection.flags.set(Flags::PEER_DONE);
        let held = connection.outbox.as_ref().is_some_and(|outbox| !outbox.held.is_empty());
        if connection.flags.has(Flags::CLOSING) {
            self.core.closing.push_back(id);
        } else if matches!(connection.protocol, Protocol::Poll | Protocol::Http2)
            || !(held || connection.flags.has(Flags::WAITING) || connection.is_transferring())
        {
            self.begin_close(id, CloseReason::PeerClosed, "");
        }
    }

    fn failed(&mut self, id: ConnId, kind: ErrorKind) {
        self.core.set(id, Flags::BROKEN);
        self.begin_close(id, CloseReason::TransportError, &kind.to_string());
    }
}

impl Core {
    /// Gives a connection its place.
    ///
    /// # Errors
    /// The limit that is in its way.
    fn admit(&mut self, accepted: &Accepted) -> Result<ConnId, Limit> {
        let entrance = self.entrances.get(usize::from(accepted.listener.0));
        // A proxy is not counted, but the client that it speaks for, when that is known.
        let counted = accepted.peer.filter(|_| entrance.is_none_or(|entrance| !entrance.proxied));
        if let Some(entrance) = entrance.filter(|entrance| !entrance.proxied && !entrance.is_unix()) {
            self.log.came(counted.is_some(), &entrance.url);
        }
        // Its address comes first: one that sends too many must not use up the rate that all have together.
        let marks = self.count_in(counted)?;
        self.control.admit(self.now, &self.limits).inspect_err(|_| self.uncount(counted, marks))?;
        let protocol = entrance.map(Entrance::protocol);
        let id = protocol.and_then(|protocol| self.table.insert(accepted.listener, protocol, self.tick));
        let Some(id) = id else {
            self.control.release();
            self.uncount(counted, marks);
            return Err(Limit::ConnectionsMax);
        };
        self.peers.set(id.index(), accepted.peer, marks);
        if let Some(connection) = self.table.get_mut(id) {
            connection.set_arrived(Stamp::of(self.now));
            self.metrics.speaks(None, Some(connection.protocol.counted()));
        }
        self.metrics.accepted_total.add(1);
        self.metrics.connections.add(1);
        let deadline = self.after(self.limits.handshake_timeout);
        self.arm(id, deadline);
        Ok(id)
    }

    fn accept_failed(&mut self, listener: ListenerId, kind: ErrorKind) {
        self.metrics.accept_failures_total.add(1);
        let url = self.entrances.get(usize::from(listener.0)).map_or("?", |entrance| entrance.url.as_str());
        let what = format_args!("cannot accept at {url}: {kind}; `holdline doctor` tells which limit that is");
        self.log.event(self.now, &self.metrics, what);
    }

    fn writable(&mut self, id: ConnId) {
        if let Some(outbox) = self.table.get_mut(id).and_then(|connection| connection.outbox.as_deref_mut()) {
            outbox.waits = false;
            if outbox.is_empty() {
                self.outbox_done(id);
            } else {
                self.mark_dirty(id);
            }
        }
    }

    fn unflag(&mut self, id: ConnId, flag: Flags) {
        if let Some(connection) = self.table.get_mut(id) {
            connection.flags.clear(flag);
        }
    }
}
