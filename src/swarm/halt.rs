//! Why a run ends before its time: a stop, a limit, or a server that has left all its clients.

use std::sync::atomic::Ordering;

use super::limits::{Cause, Reason};
use super::report::Limit;
use super::stage::Stage;
use super::tally::Count;
use super::worker::Desk;

/// Descriptors of the program beside those of its rings: standard streams, signals, files, and a few per thread.
const DESCRIPTORS_BESIDE: usize = 64;

impl Stage<'_> {
    /// Whether the run is to end early.
    pub(super) fn is_stopped(&self) -> bool {
        let is_over = |desk: &Desk| desk.is_over.load(Ordering::Relaxed);
        self.stop.load(Ordering::Relaxed) || self.desks.iter().any(is_over) || self.is_deserted()
    }

    /// Whether all connections have stood, and none is left: there is nothing to measure.
    fn is_deserted(&self) -> bool {
        if !self.have_stood {
            return false;
        }
        let tally = self.tally();
        let is_nobody_left = tally[Count::Standing] == 0;
        if is_nobody_left && self.obstacle().is_some() {
            return true;
        }
        let is_deserted = is_nobody_left && tally[Count::Lost] > 0;
        if is_deserted && self.deserted.get().is_none() {
            self.deserted.set(Some(self.now().since(self.start)));
        }
        is_deserted
    }

    /// Notes why nobody is left, at the end of a scenario: it was no server of ours.
    pub(super) fn conclude(&mut self) {
        let tally = self.tally();
        let obstacle = self.obstacle().filter(|_| self.have_stood && tally[Count::Standing] == 0);
        if let Some(cause) = obstacle.filter(|_| self.deserted.get().is_none()) {
            self.stopped_by(cause, tally[Count::Opened]);
        }
    }

    pub(super) fn obstacle(&self) -> Option<Cause> {
        self.desks.iter().find_map(Desk::obstacle)
    }

    pub(super) fn stopped_by(&mut self, cause: Cause, at: u64) {
        let opened = self.tally()[Count::Opened];
        let mut limit = Limit { what: cause.what(), at, mend: cause.mend().to_owned() };
        match cause.reason {
            Reason::Refused if opened > 0 => {
                "a server that has stopped listening".clone_into(&mut limit.what);
                "see its log: it has ended, or closed its listener".clone_into(&mut limit.mend);
                limit.at = opened;
            }
            Reason::Descriptors => {
                let descriptors = descriptors(self.plan.connections);
                limit.mend = format!("raise ulimit -n to {descriptors} at least");
            }
            _ => {}
        }
        self.limit.get_or_insert(limit);
    }
}

/// Descriptors with which so many connections can be held: a ring has as many slots as the limit allows descriptors,
/// and is one itself. A power of two, for people.
fn descriptors(connections: usize) -> usize {
    let suffices = |limit: &usize| connections.div_ceil(*limit) + DESCRIPTORS_BESIDE <= *limit;
    (8..32).map(|bits| 1 << bits).find(suffices).unwrap_or(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_that_suffice_are_known() {
        assert_eq!([20_000, 200_000, 5_000_000].map(descriptors), [256, 512, 4096]);
    }
}
