//! Outboxes of connections, and what they may cost together.

use super::connection::Flags;
use super::core::Core;
use crate::buf::Outbox;
use crate::id::ConnId;

impl Core {
    /// The connection's outbox, made when it has none. Nothing is queued any more for a connection that waits only for its
    /// streams to end.
    pub(super) fn outbox(&mut self, id: ConnId) -> Option<&mut Outbox> {
        let connection = self.table.get_mut(id)?;
        if connection.outbox.is_none() {
            if connection.flags.has(Flags::BROKEN) && connection.flags.has(Flags::CLOSING) {
                return None;
            }
            self.metrics.queued_connections.add(1);
            connection.outbox = Some(self.outboxes.take(self.tick));
        }
        connection.outbox.as_deref_mut()
    }

    /// Takes a connection's outbox away.
    pub(super) fn drop_outbox(&mut self, id: ConnId) {
        let outbox = self.table.get_mut(id).and_then(|connection| connection.outbox.take());
        if let Some(outbox) = outbox {
            self.metrics.queued_connections.sub(1);
            self.count_queued(outbox.memory(), 0);
            self.outboxes.give(outbox);
        }
    }

    /// Notes that outboxes grew or shrank.
    pub(super) fn count_queued(&mut self, before: usize, after: usize) {
        self.queued = (self.queued + after).saturating_sub(before);
        self.metrics.queued_bytes.set(self.queued as u64);
    }

    /// Whether all outboxes and unfinished messages of the process are over their bound.
    pub(super) fn is_queue_budget_spent(&self) -> bool {
        let here = self.queued + self.partials.bytes();
        here.saturating_add(self.queued_elsewhere) > self.limits.queue_bytes_total_max
    }

    /// What each connection may queue even then: its part of the bound.
    pub(super) fn queue_share(&self) -> usize {
        self.limits.queue_bytes_total_max / self.limits.connections_max.max(1)
    }

    /// Keeps received bytes until the answers to those before them have left.
    pub(super) fn hold(&mut self, id: ConnId, bytes: &[u8]) {
        if !bytes.is_empty()
            && let Some(outbox) = self.outbox(id)
        {
            outbox.held.extend_from_slice(bytes);
            self.count_queued(0, bytes.len());
        }
    }
}
