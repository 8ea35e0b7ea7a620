//! Looks at many connections or topics, a few at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::filter::queued_bytes;
use super::{Filter, Item, Outcome, Search};
use crate::id::ConnId;
use crate::shard::core::Core;

/// A look that is under way.
#[derive(Debug)]
pub(super) struct Scan<F> {
    search: Search<F>,
    next: u32,
    /// In the order of their places.
    items: Vec<Item>,
    /// The heaviest so far, the lightest of them first.
    top: BinaryHeap<Reverse<Item>>,
}

impl<F> Scan<F> {
    pub(super) const fn new(search: Search<F>) -> Self {
        Self { next: search.from, search, items: Vec::new(), top: BinaryHeap::new() }
    }

    /// Whether one of this weight is wanted.
    fn wants(&self, weight: u64) -> bool {
        if !self.search.top {
            return true;
        }
        let is_full = self.top.len() >= self.search.limit;
        weight > 0 && (!is_full || self.top.peek().is_some_and(|Reverse(least)| weight > least.weight))
    }

    fn add(&mut self, item: Item) {
        if !self.search.top {
            return self.items.push(item);
        }
        self.top.push(Reverse(item));
        if self.top.len() > self.search.limit {
            self.top.pop();
        }
    }

    fn is_full(&self) -> bool {
        !self.search.top && self.items.len() >= self.search.limit
    }

    /// What was found, when all has been looked at up to `end`, or enough was found.
    fn outcome(&mut self, end: u32) -> Option<Outcome> {
        let is_done = self.next >= end;
        if !is_done && !self.is_full() {
            return None;
        }
        let mut items = std::mem::take(&mut self.items);
        items.extend(std::mem::take(&mut self.top).into_sorted_vec().into_iter().map(|Reverse(item)| item));
        Some(Outcome::Found(items, (!is_done).then_some(self.next)))
    }
}

impl Core {
    /// Places that are looked at in one step: some microseconds, where their entries are not in the cache.
    pub(super) const PLACES_PER_STEP: u32 = 64;

    /// The next connection that is meant, of those from `next` on that one step looks at.
    pub(super) fn next_meant(&mut self, next: &mut u32, end: u32, filter: &Filter) -> Option<ConnId> {
        let step_end = end.min(next.saturating_add(Self::PLACES_PER_STEP));
        while *next < step_end {
            let place = *next;
            *next += 1;
            let Some((id, _)) = self.table.at(place) else { continue };
            if self.table.get(id).is_some_and(|connection| self.is_meant(id, connection, filter)) {
                return Some(id);
            }
        }
        None
    }

    /// One step of a look at connections.
    pub(super) fn look_at_connections(&mut self, scan: &mut Scan<Filter>) -> Option<Outcome> {
        let end = self.table.index_end();
        if scan.search.limit > 0
            && let Some(id) = self.next_meant(&mut scan.next, end, &scan.search.filter)
            && let Some(connection) = self.table.get(id)
        {
            let weight = queued_bytes(connection) as u64;
            if scan.wants(weight) {
                let json = self.write_connection(id, connection);
                scan.add(Item { weight, json });
            }
        }
        scan.outcome(end)
    }

    /// One step of a look at topics.
    pub(super) fn look_at_topics(&self, scan: &mut Scan<Box<str>>) -> Option<Outcome> {
        let end = u32::try_from(self.topics.place_end()).unwrap_or(u32::MAX);
        let step_end = end.min(scan.next.saturating_add(Self::PLACES_PER_STEP));
        while scan.next < step_end && !scan.is_full() {
            let place = scan.next;
            scan.next += 1;
            let Some(sight) = self.topics.at(place as usize) else { continue };
            if sight.name.as_str().starts_with(&*scan.search.filter) && scan.wants(sight.subscribers) {
                scan.add(Item { weight: sight.subscribers, json: self.write_topic(&sight) });
                break;
            }
        }
        scan.outcome(end)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn scan(limit: usize, top: bool) -> Scan<()> {
        Scan::new(Search { filter: (), from: 0, limit, top })
    }

    fn item(weight: u64) -> Item {
        Item { weight, json: Vec::new() }
    }

    fn weights(outcome: Option<Outcome>) -> (Vec<u64>, Option<u32>) {
        let Some(Outcome::Found(items, next)) = outcome else { panic!("it is not done") };
        (items.iter().map(|item| item.weight).collect(), next)
    }

    #[test]
    fn the_first_ones_and_where_to_go_on() {
        let mut scan = scan(2, false);
        scan.add(item(1));
        scan.next = 7;
        assert!(scan.outcome(100).is_none());
        scan.add(item(0));
        assert_eq!(weights(scan.outcome(100)), (vec![1, 0], Some(7)));
    }

    #[test]
    fn the_heaviest_ones_the_heaviest_first() {
        let mut scan = scan(3, true);
        for weight in [5, 0, 9, 1, 7, 7, 2] {
            if scan.wants(weight) {
                scan.add(item(weight));
            }
        }
        assert!(!scan.wants(7) && scan.wants(8));
        scan.next = 100;
        assert_eq!(weights(scan.outcome(100)), (vec![9, 7, 7], None));
    }
}
