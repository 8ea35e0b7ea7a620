//! Connections that are turned away while the server is at a limit, and how they hear of it.
//!
//! A reset says nothing, and a client that gets one comes back at once. So a bounded number of them at a time has a place
//! for a moment, beyond `connections_max`: an HTTP client is answered with when to come back and 503, or 429
//! where it is its address that has too much, a raw TCP client
//! gets a clean end. Their request is read first, since the kernel answers unread bytes with a reset that destroys
//! what was sent. When those places are taken too the rest is reset: a storm costs an accept and a close for each, until its
//! address is silenced.

use std::net::SocketAddr;

use super::Shard;
use super::addresses::Marks;
use super::connection::Flags;
use super::core::Core;
use super::timers::spread;
use crate::close::CloseReason;
use crate::codec::http1::date::Date;
use crate::codec::http1::response::{Reply, write_error};
use crate::codec::http2::{ErrorCode, StreamId, frame};
use crate::id::ConnId;
use crate::io::{Accepted, Backend};
use crate::rule::Limit;
use crate::session::Protocol;

impl<B: Backend> Shard<B> {
    /// Turns a connection away because of this limit.
    pub(super) fn shed(&mut self, accepted: Accepted, limit: Limit) {
        self.core.metrics.strike(limit);
        self.core.log.refused(self.core.now, &self.core.metrics, accepted.peer, limit);
        if limit.is_of_an_address() {
            self.core.note_refusal(accepted.peer);
        }
        let Some(id) = self.core.shed_place(&accepted, limit) else { return self.refuse(accepted) };
        self.core.metrics.refused_total.add(1);
        self.attach(accepted, id);
        if self.core.table.get(id).is_some_and(|connection| connection.protocol != Protocol::Http) {
            self.begin_close(id, CloseReason::TryAgainLater, "");
        }
    }

    /// Turns a connection away of whose client its proxy has spoken only now.
    pub(super) fn shed_client(&mut self, id: ConnId, client: Option<SocketAddr>, limit: Limit) {
        let core = &mut self.core;
        core.metrics.strike(limit);
        core.metrics.refused_total.add(1);
        core.log.refused(core.now, &core.metrics, client, limit);
        if !core.move_to_shed(id, limit) {
            core.set(id, Flags::BROKEN);
            return self.begin_close(id, CloseReason::TryAgainLater, limit.label());
        }
        if core.table.get(id).is_some_and(|connection| connection.protocol != Protocol::Http) {
            self.begin_close(id, CloseReason::TryAgainLater, "");
        }
    }

    /// Resets a connection that has no place.
    pub(super) fn refuse(&mut self, accepted: Accepted) {
        self.core.metrics.refused_total.add(1);
        self.core.owed += Self::CLOSE_WEIGHT;
        self.backend.refuse(accepted);
    }

    /// Its request did not come in time: it is answered all the same.
    pub(super) fn shed_now(&mut self, id: ConnId) {
        self.begin_output(id);
        self.core.write_shed(id);
        self.write(id);
        self.begin_close(id, CloseReason::TryAgainLater, "");
    }
}

impl Core {
    /// A place for a connection that is turned away.
    fn shed_place(&mut self, accepted: &Accepted, limit: Limit) -> Option<ConnId> {
        let listener = accepted.listener;
        let protocol = self.entrances.get(usize::from(listener.0))?.protocol();
        if !self.control.admit_shed(limit) {
            return None;
        }
        let Some(id) = self.table.insert(listener, protocol, self.tick) else {
            self.control.release_shed();
            return None;
        };
        let marks = if limit.is_of_an_address() { Marks::CROWDED } else { Marks::default() };
        self.peers.set(id.index(), accepted.peer, marks);
        self.set(id, Flags::SHED);
        let deadline = self.after(super::Control::SHED_TIME);
        self.arm(id, deadline);
        Some(id)
    }

    /// Takes a connection's own place away, and gives it one of those for connections that are turned away, if there is one.
    fn move_to_shed(&mut self, id: ConnId, limit: Limit) -> bool {
        let Some(connection) = self.table.get_mut(id) else { return false };
        if !self.control.admit_shed(limit) {
            return false;
        }
        connection.flags.set(Flags::SHED);
        self.metrics.connections.sub(1);
        self.metrics.speaks(Some(connection.protocol.counted()), None);
        if self.control.release() && self.phase != super::Phase::Running {
            self.mail.ring_all();
        }
        if limit.is_of_an_address() {
            self.peers.mark(id.index(), self.peers.marks(id.index()).with(Marks::CROWDED));
        }
        let deadline = self.after(super::Control::SHED_TIME);
        self.arm(id, deadline);
        true
    }

    /// Writes the answer. Clients are spread over some seconds, so that they do not all come back at once.
    pub(super) fn write_shed(&mut self, id: ConnId) {
        let is_crowded = self.peers.marks(id.index()).has(Marks::CROWDED);
        write_shed(id, is_crowded, self.date, &mut self.out);
        self.metrics.http_errors_total.add(1);
    }
}

/// Tells a client of HTTP/2 that there is no place. `is_crowded`: for its address.
pub(super) fn write_shed_http2(is_crowded: bool, out: &mut Vec<u8>) {
    frame::write(frame::kind::SETTINGS, 0, StreamId::CONNECTION, &[], out);
    let (code, message) = if is_crowded {
        (ErrorCode::EnhanceYourCalm, "too many connections come from this address; come back later")
    } else {
        (ErrorCode::NoError, "no more connections are taken in now; come back later")
    };
    frame::write_go_away(StreamId::CONNECTION, code, message, out);
}

/// Writes that there is no place, and when to come back. `is_crowded`: for its address.
pub(super) fn write_shed(id: ConnId, is_crowded: bool, date: Date, out: &mut Vec<u8>) {
    const SECONDS: [&str; 5] = ["1", "2", "3", "4", "5"];
    let seconds = SECONDS[usize::try_from(spread(id.bits(), SECONDS.len() as u64)).unwrap_or(0)];
    let (status, code, message) = if is_crowded {
        let message = "too many connections come from this address; come back after the time in Retry-After";
        (429, "too_many_connections", message)
    } else {
        (503, "unavailable", "no more connections are taken in now; come back after the time in Retry-After")
    };
    write_error(status, code, message, &[("Retry-After", seconds)], Reply::last(date), out);
}
