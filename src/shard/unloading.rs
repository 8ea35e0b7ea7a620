//! Streams that end with their connection, or because their peers have reset them: a few in each turn.
//!
//! A connection of HTTP/2 may bear hundreds of streams, each with an answer under way, subscriptions and a queue, and many
//! such connections may break at once. So a connection that ends only begins to: it stays until its streams have gone, the
//! last one first, and others have their turn meanwhile.
//!
//! ```text
//!   begin_close --> the streams end, in parts --> (those with time finish) --> the queue empties --> the socket goes
//!   broken -------> the streams end, in parts ------------------------------------------------> the socket goes
//! ```

use super::Shard;
use super::closing::is_polite;
use super::connection::{Connection, Flags};
use super::core::Core;
use super::pace::Pace;
use crate::close::CloseReason;
use crate::codec::http2::StreamId;
use crate::id::ConnId;
use crate::io::{Backend, Ending};
use crate::time::Clock;

/// What is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unload {
    /// The streams of this connection, for the reason that it has noted.
    Streams(ConnId),
    /// This stream, which is gone for its peer.
    Stream(ConnId, CloseReason),
}

/// Why a connection ends whose streams are being ended, and the lowest of them that has been looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unloading {
    reason: CloseReason,
    below: StreamId,
}

impl<B: Backend> Shard<B> {
    /// Ends streams that are to end, as far as there is time.
    pub(super) fn unload(&mut self, pace: &mut Pace<'_, impl Clock>) {
        while !self.core.unloading.is_empty() && pace.more() {
            match self.core.unloading.pop_front() {
                Some(Unload::Stream(id, reason)) => self.begin_close(id, reason, "the stream was reset"),
                Some(Unload::Streams(id)) if self.unload_next(id) => {
                    self.core.unloading.push_back(Unload::Streams(id));
                }
                _ => {}
            }
            self.pay(pace);
        }
    }

    /// Tells a connection's next stream that it ends; whether there may be more of them. Where nothing is wrong, answers that
    /// are under way have the time that the connection has.
    fn unload_next(&mut self, id: ConnId) -> bool {
        let Some(connection) = self.core.table.get_mut(id) else { return false };
        let flags = connection.flags;
        let Some(carrier) = connection.carrier() else { return false };
        let Some(Unloading { reason, below }) = carrier.unloading else { return false };
        let Some((number, stream)) = carrier.http2.named_below(below) else {
            carrier.unloading = None;
            if flags.has(Flags::BROKEN) {
                self.finish(id, Ending::Reset);
            } else {
                self.core.closing.push_back(id);
            }
            return false;
        };
        carrier.unloading = Some(Unloading { reason, below: number });
        let is_broken = flags.has(Flags::BROKEN);
        // Where nothing is heard any more no window opens: what waits for one will not leave.
        let is_deaf = flags.has(Flags::DEAF) && reason != CloseReason::PeerClosed;
        let has_time = !is_broken && !is_deaf && matches!(reason, CloseReason::GoingAway | CloseReason::PeerClosed);
        let is_under_way = |stream: &Connection| stream.is_being_answered() || stream.is_asking();
        if has_time && self.core.table.get(stream).is_some_and(is_under_way) {
            return true;
        }
        if is_broken || is_deaf || !is_polite(reason) {
            self.core.set(stream, Flags::BROKEN);
        }
        self.begin_close(stream, reason, "");
        true
    }

    /// Whether a connection that is to go at once goes when its streams have: there are some.
    pub(super) fn goes_after_streams(&mut self, id: ConnId) -> bool {
        let Some(connection) = self.core.table.get_mut(id) else { return false };
        let Some(carrier) = connection.carrier().filter(|carrier| carrier.http2.streams() > 0) else { return false };
        let known = carrier.unloading.map(|unloading| unloading.reason).filter(|reason| !is_polite(*reason));
        // What is left of it serves nobody: nothing comes any more, and nothing is queued.
        connection.flags.set(Flags::DEAF);
        connection.flags.set(Flags::BROKEN);
        self.core.drop_outbox(id);
        self.core.begin_unloading(id, known.unwrap_or(CloseReason::TransportError));
        let deadline = self.core.after(self.core.limits.close_timeout);
        self.core.arm(id, deadline);
        true
    }
}

impl Core {
    /// Begins to end the streams of a connection that ends, if it has any.
    pub(super) fn begin_unloading(&mut self, id: ConnId, reason: CloseReason) {
        let carrier = self.table.get_mut(id).and_then(|connection| connection.carrier());
        let Some(carrier) = carrier.filter(|carrier| carrier.http2.streams() > 0) else { return };
        let all = Unloading { reason, below: StreamId(u32::MAX) };
        if carrier.unloading.replace(all).is_none() {
            self.unloading.push_back(Unload::Streams(id));
        }
    }

    /// Whether a connection bears requests that have not come whole.
    pub(super) fn bears_requests(&self, id: ConnId) -> bool {
        let carrier = self.table.get(id).and_then(|connection| connection.extra.as_deref()?.carrier.as_deref());
        let is_asking = |stream| self.table.get(stream).is_some_and(Connection::is_asking);
        carrier.is_some_and(|carrier| carrier.http2.names().any(is_asking))
    }
}
