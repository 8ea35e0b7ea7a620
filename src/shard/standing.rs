//! What a reload of keys and terms makes of connections that are there: they keep what they have, may do something else from
//! now on, or have to show something new.
//!
//! A walk looks at all of them, some in each turn. Those that have to show something are told so one after the other, over the
//! period of a drain, and have the time of an expired token then; so a million are not sent away in one turn.

use std::sync::Arc;

use super::connection::{Connection, Flags};
use super::core::Core;
use super::gate::Admission;
use super::pace::Pace;
use super::timers::spread;
use crate::access::{Grant, Standing};
use crate::close::CloseReason;
use crate::id::ConnId;
use crate::rule::AuthRefusal;
use crate::time::Clock;
use crate::wheel::Tick;

/// A walk over all connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Review {
    /// Connections below this index have been looked at.
    cursor: u32,
    index_end: u32,
    began: Tick,
    /// Those that have to show something are told within this time.
    ticks: u32,
}

impl Core {
    /// Connections that are looked at in one step: some microseconds.
    const REVIEWED_PER_STEP: u32 = 32;

    /// There are other keys or terms.
    pub(super) fn begin_review(&mut self) {
        let (index_end, ticks) = (self.table.index_end(), self.wheel.ticks_in(self.live.drain));
        self.review = Some(Review { cursor: 0, index_end, began: self.tick, ticks });
    }

    /// Goes on with the walk.
    pub(super) fn review_all(&mut self, pace: &mut Pace<'_, impl Clock>) {
        let Some(mut review) = self.review else { return };
        while review.cursor < review.index_end && pace.more() {
            let end = review.index_end.min(review.cursor + Self::REVIEWED_PER_STEP);
            (review.cursor..end).for_each(|index| self.review(index, &review));
            review.cursor = end;
        }
        let is_over = review.cursor >= review.index_end;
        self.unfinished |= !is_over;
        self.review = Some(review).filter(|_| !is_over);
    }

    fn review(&mut self, index: u32, review: &Review) {
        let Some((id, connection)) = self.table.at(index) else { return };
        if connection.flags.has(Flags::CLOSING) || connection.flags.has(Flags::SHED) || connection.is_answered() {
            return;
        }
        if !connection.flags.has(Flags::OPEN) {
            return self.review_unopened(id);
        }
        // What is open to all stays so.
        if self.router.offers(connection.route).is_ok_and(|offers| offers.open) {
            return;
        }
        let Some(connection) = self.table.get(id) else { return };
        let standing = self.live.access.review(connection.grant(), self.live.operators_only);
        let standing = match standing {
            Standing::Other(grant) if !self.allows_memberships(connection, &grant) => Standing::Lapsed,
            other => other,
        };
        match standing {
            Standing::Same => self.restore(id),
            Standing::Other(grant) => self.regrant(id, Some(grant)),
            Standing::Free => self.regrant(id, None),
            Standing::Lapsed => {
                let offset = spread(u64::from(index), u64::from(review.ticks) + 1);
                self.lapse(id, review.began.later(u32::try_from(offset).unwrap_or(u32::MAX)));
            }
        }
    }

    /// Of a raw TCP connection that has shown a token, and has not said what it wants. Requests show theirs anew.
    fn review_unopened(&mut self, id: ConnId) {
        let Some(connection) = self.table.get(id).filter(|connection| connection.flags.has(Flags::NAMELESS)) else {
            return;
        };
        let Some(grant) = connection.grant() else { return };
        match self.live.access.review(Some(grant), self.live.operators_only) {
            Standing::Same => {}
            Standing::Other(grant) => self.regrant(id, Some(grant)),
            Standing::Free => self.regrant(id, None),
            Standing::Lapsed => {
                self.doomed.push((id, CloseReason::AuthExpired, AuthRefusal::Missing.message()));
            }
        }
    }

    /// What it had is worth something again.
    fn restore(&mut self, id: ConnId) {
        if self.table.get_mut(id).and_then(Connection::admission).is_some_and(|admission| admission.lapsed) {
            self.begin_admission(id);
            self.arm_due(id);
        }
    }

    fn regrant(&mut self, id: ConnId, grant: Option<Arc<Grant>>) {
        let Some(connection) = self.table.get_mut(id) else { return };
        let extra = connection.extra.get_or_insert_default();
        extra.admission = Admission::new(grant, extra.admission.renews);
        if connection.flags.has(Flags::OPEN) {
            self.begin_admission(id);
            self.arm_due(id);
        }
    }
}

#[cfg(test)]
mod tests;
