//! What a shard's topics leave to the process that follows, some at a time.

use super::Outcome;
use crate::hub::topics::Legacy;
use crate::shard::core::Core;

/// A look at topics and their histories that is under way.
#[derive(Debug)]
pub(super) struct Bequest {
    next: u32,
    legacies: Vec<Legacy>,
    messages: usize,
}

impl Bequest {
    /// Topics of one report, and about so many messages: what is found beside them is a few hundred KiB.
    const TOPICS_MAX: usize = 1024;
    const MESSAGES_MAX: usize = 2048;

    pub(super) const fn new(from: u32) -> Self {
        Self { next: from, legacies: Vec::new(), messages: 0 }
    }

    fn is_full(&self) -> bool {
        self.legacies.len() >= Self::TOPICS_MAX || self.messages >= Self::MESSAGES_MAX
    }
}

impl Core {
    /// One step: one topic with a history, or some without.
    pub(super) fn look_at_legacies(&self, bequest: &mut Bequest) -> Option<Outcome> {
        let end = u32::try_from(self.topics.place_end()).unwrap_or(u32::MAX);
        let step_end = end.min(bequest.next.saturating_add(Self::PLACES_PER_STEP));
        while bequest.next < step_end && !bequest.is_full() {
            let place = bequest.next;
            bequest.next += 1;
            let Some(legacy) = self.topics.legacy(place as usize, self.tick) else { continue };
            let messages = legacy.messages.len();
            bequest.messages += messages;
            bequest.legacies.push(legacy);
            if messages > 0 {
                break;
            }
        }
        let is_done = bequest.next >= end;
        (is_done || bequest.is_full()).then(|| Outcome::Legacies {
            legacies: std::mem::take(&mut bequest.legacies),
            next: (!is_done).then_some(bequest.next),
            epoch: self.topics.epoch(),
        })
    }
}
