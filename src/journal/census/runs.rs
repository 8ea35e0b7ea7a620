//! Neighbours that could be put together, and what that would free.

use std::cmp::Ordering;

use super::{Bounds, Census, Sheet};

/// Neighbours, counted from the first one of some segments.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    pub(super) count: usize,
    bytes: u64,
    /// Bytes that are needed.
    pub(super) live: u64,
    /// Those that are smaller than a quarter of a segment.
    pub(super) small: usize,
}

impl Run {
    pub(super) const fn freed(&self) -> u64 {
        self.bytes.saturating_sub(self.live)
    }

    pub(super) const fn is_dead(&self, bounds: &Bounds) -> bool {
        self.freed() >= bounds.segment_bytes / 2 && self.live <= self.bytes / 2
    }

    /// What is freed for each byte that is written; then what is freed.
    pub(super) fn cmp_gain(&self, other: &Self) -> Ordering {
        let product = |freed: u64, live: u64| u128::from(freed) * u128::from(live.max(1));
        let gain = product(self.freed(), other.live).cmp(&product(other.freed(), self.live));
        gain.then(self.freed().cmp(&other.freed()))
    }
}

/// The first one of these, the first two, and so on: what they are together, as long as one segment has room for what is needed
/// of them. One alone always has. They end before one that is barred.
pub(super) fn runs(segments: &[(u64, &Sheet)], bounds: &Bounds, now_ms: u64) -> impl Iterator<Item = Run> {
    let Bounds { segment_bytes, .. } = *bounds;
    let add = move |run: &mut Run, (_, sheet): &(u64, &Sheet)| {
        run.count += 1;
        run.live += sheet.worth();
        run.bytes += sheet.bytes;
        run.small += usize::from(sheet.bytes < segment_bytes / 4);
        (run.count == 1 || run.live <= segment_bytes).then_some(*run)
    };
    let is_free = move |(_, sheet): &&(u64, &Sheet)| sheet.barred_until_ms <= now_ms;
    segments.iter().take(Census::JOIN_MAX).take_while(is_free).scan(Run::default(), add)
}

/// The neighbours that free the most for what is written, where that is something, and no more than `room` is written.
pub(super) fn best_join(segments: &[(u64, &Sheet)], room: u64, bounds: &Bounds, now_ms: u64) -> Option<Vec<u64>> {
    let least = (bounds.segment_bytes / Census::FREED).max(1);
    let from = |from: usize| runs(&segments[from..], bounds, now_ms).map(move |run| (from, run));
    let worth = (0..segments.len()).flat_map(from).filter(|(_, run)| run.freed() >= least && run.live <= room);
    let best = worth.max_by(|(_, one), (_, other)| one.cmp_gain(other));
    best.map(|(from, run)| numbers(&segments[from..from + run.count]))
}

pub(super) fn numbers(segments: &[(u64, &Sheet)]) -> Vec<u64> {
    segments.iter().map(|(number, _)| *number).collect()
}
