//! Topics that have lost their last subscriber: whether for good, is told a while later.
//!
//! A page that is loaded again leaves its topics and enters them within a moment. So a topic that is vacated is told after
//! [`GRACE`], and nothing is told of one that is occupied again by then: of each topic there are no more than one `vacated`
//! and one `occupied` in that time, however often it changes.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use super::{Event, Wanted, What};
use crate::message::Topic;
use crate::time::Instant;

/// Time for which a topic must have no subscribers before that is told.
pub const GRACE: Duration = Duration::from_secs(1);

/// Topics that are waited for at most; others are told at once.
const WAITING_MAX: usize = 65_536;

/// What is to be told later.
#[derive(Debug, Default)]
pub struct Vacancies {
    /// When each is due, the Unix time at which it became empty, and whether that is told.
    topics: HashMap<Topic, (Instant, u64, Wanted)>,
    /// In order; those of topics that have been occupied again are passed over.
    order: VecDeque<(Instant, Topic)>,
}

impl Vacancies {
    /// Takes an event that has come. Returns what is to be told of it now.
    pub fn pass(&mut self, event: Event, now: Instant) -> Option<Event> {
        match &event.what {
            What::Vacated(topic, wanted) if self.order.len() < WAITING_MAX => {
                let due = now + GRACE;
                self.topics.insert(topic.clone(), (due, event.time_ms, *wanted));
                self.order.push_back((due, topic.clone()));
                None
            }
            What::Occupied(topic, _) if self.topics.remove(topic).is_some() => None,
            _ => Some(event),
        }
    }

    /// The next topic that has been empty for long enough.
    pub fn next(&mut self, now: Instant) -> Option<Event> {
        loop {
            let (due, _) = self.order.front()?;
            if *due > now {
                return None;
            }
            let (due, topic) = self.order.pop_front()?;
            if self.topics.get(&topic).is_some_and(|(latest, ..)| *latest == due)
                && let Some((_, time_ms, wanted)) = self.topics.remove(&topic)
            {
                return Some(Event { time_ms, what: What::Vacated(topic, wanted) });
            }
        }
    }

    /// When [`Vacancies::next`] may have one.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.order.front().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::config::HookKind;
    use crate::hooks::testing::{occupied, topic, vacated};

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_topic_that_stays_empty_is_told_once_and_with_its_own_time() {
        let mut vacancies = Vacancies::default();
        assert_eq!(vacancies.pass(occupied("t"), at(0)).unwrap().kind(), HookKind::Occupied);
        assert!(vacancies.pass(vacated("t"), at(100)).is_none());
        assert_eq!(vacancies.due(), Some(at(1100)));
        assert!(vacancies.next(at(1099)).is_none());
        let told = vacancies.next(at(1100)).unwrap();
        assert!(matches!(&told.what, What::Vacated(name, _) if *name == topic("t")));
        assert_eq!((told.time_ms, vacancies.due()), (5, None));
        assert!(vacancies.next(at(9999)).is_none() && vacancies.topics.is_empty());
    }

    #[test]
    fn a_topic_that_flaps_is_told_at_most_once_in_a_grace() {
        let mut vacancies = Vacancies::default();
        let mut told = 0;
        for ms in 0..10_000 {
            let event = if ms % 2 == 0 { vacated("t") } else { occupied("t") };
            told += usize::from(vacancies.pass(event, at(ms)).is_some());
            told += usize::from(vacancies.next(at(ms)).is_some());
        }
        assert_eq!((told, vacancies.topics.len()), (0, 0));
        assert!(vacancies.order.len() <= 1001, "what is passed over goes with time");
    }

    #[test]
    fn what_has_no_room_is_told_at_once() {
        let mut vacancies = Vacancies::default();
        for number in 0..WAITING_MAX {
            assert!(vacancies.pass(vacated(&format!("t{number}")), at(0)).is_none());
        }
        assert!(vacancies.pass(vacated("more"), at(0)).is_some());
        assert_eq!(std::iter::from_fn(|| vacancies.next(at(1000))).count(), WAITING_MAX);
    }
}
