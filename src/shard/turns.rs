//! How a turn of the core begins and ends, and whether there is work for another one.

use super::control::Phase;
use super::core::Core;
use crate::codec::http1::date::Date;
use crate::time::Instant;

impl Core {
    /// Notes the time. Returns whether it is another tick than in the last turn.
    pub(super) fn begin_turn(&mut self, now: Instant, unix_ms: u64) -> bool {
        let tick = self.wheel.now_of(now);
        let is_new_tick = tick != self.tick;
        if is_new_tick {
            self.metrics.unfinished_bytes.set(self.partials.bytes() as u64);
            self.note_memory();
            let all = self.all_metrics.total(|shard| shard.queued_bytes.get() + shard.unfinished_bytes.get());
            let here = self.queued + self.partials.bytes();
            self.queued_elsewhere = usize::try_from(all).unwrap_or(usize::MAX).saturating_sub(here);
        }
        self.now = now;
        self.tick = tick;
        self.unix_ms = unix_ms;
        if unix_ms / 1000 != self.date.second() {
            self.date = Date::from_unix(unix_ms / 1000);
        }
        self.unfinished = false;
        self.set_trace_time();
        if is_new_tick {
            self.note_tops();
        }
        is_new_tick
    }

    pub(super) fn end_turn(&mut self, began: Instant, now: Instant) {
        self.metrics.count_turn(now.as_nanos().saturating_sub(began.as_nanos()));
        self.latencies.end(now, &self.metrics);
        self.give_memory_back();
    }

    /// Frees what the lists of connections kept of a time when many were on them.
    fn give_memory_back(&mut self) {
        const KEPT: usize = 4096;
        for list in [&mut self.dirty, &mut self.closing, &mut self.stalled, &mut self.resumable] {
            if list.is_empty() && list.capacity() > KEPT {
                list.shrink_to(KEPT);
            }
        }
        if self.unloading.is_empty() && self.unloading.capacity() > KEPT {
            self.unloading.shrink_to(KEPT);
        }
    }

    /// Whether the next turn should not wait.
    pub(super) fn has_work(&self) -> bool {
        self.unfinished
            || !self.fan_outs.is_empty()
            || !self.dirty.is_empty()
            || !self.closing.is_empty()
            || !self.transfers.is_empty()
            || !self.desk.1.is_empty()
            || (!self.is_staging_full() && !self.resumable.is_empty())
            || (!self.staged.is_empty() && !self.is_blocked())
            || (!self.blocked && !self.stalled.is_empty())
            || self.has_mail()
            || self.has_verdicts()
            || self.has_cluster_mail()
            || self.batches.has_work()
            || !self.own_mail.is_empty()
            || self.attendance.has_work(!self.mail.requests_wait)
            || !self.begun.is_empty()
            || !self.doomed.is_empty()
            || !self.unloading.is_empty()
            || self.has_orders()
            || self.phase != self.control.phase()
            || self.publishing != self.control.publishing()
            || self.is_done()
    }

    /// Whether the server ends and nobody is left, on any shard: until then others' publications may need this one to
    /// order them or its mailbox to take them. What is still on its way then is for nobody.
    pub(super) fn is_done(&self) -> bool {
        match self.phase {
            Phase::Running => false,
            Phase::Draining => self.table.len() == 0 && self.control.is_deserted() && !self.has_durable_waiting(),
            Phase::Ending => true,
        }
    }
}
