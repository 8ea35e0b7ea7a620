//! What other nodes have said of a plain topic, by their numbers.

use crate::cluster::port::{NodeId, Said};

/// What is known of those that were heard.
#[derive(Debug)]
pub(super) struct Origins {
    /// The one that was heard last comes last.
    heard: Vec<Origin>,
    /// Some found no room.
    forgot: bool,
}

/// What was heard of one node.
#[derive(Clone, Copy, Debug)]
struct Origin {
    node: NodeId,
    said: Said,
}

/// What the number of a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is the next one.
    Next,
    /// It is known already, or of a topic that is not heard any more.
    Old,
    /// So many before it never came.
    Missed(u64),
}

impl Origins {
    /// Nodes of which it is known what they said last.
    const HEARD_MAX: usize = 256;

    pub(super) const fn new() -> Self {
        Self { heard: Vec::new(), forgot: false }
    }

    /// Notes what a node says, a message or how many there were.
    pub(super) fn note(&mut self, node: NodeId, said: Said, is_message: bool) -> Heard {
        if let Some(place) = self.heard.iter().position(|origin| origin.node == node) {
            // Who was heard last is forgotten last.
            self.heard[place..].rotate_left(1);
        }
        let Some(origin) = self.heard.last_mut().filter(|origin| origin.node == node) else {
            if self.heard.len() >= Self::HEARD_MAX {
                self.heard.remove(0);
                self.forgot = true;
            }
            self.heard.push(Origin { node, said });
            // Who listens since some message need not have heard those before it. What was not said at all was for all.
            let missed = if !is_message {
                said.number
            } else if self.forgot {
                said.number.saturating_sub(1)
            } else {
                0
            };
            return if missed > 0 { Heard::Missed(missed) } else { Heard::Next };
        };
        let before = if said.life > origin.said.life { 0 } else { origin.said.number };
        if said.life < origin.said.life || (said.number <= before && (is_message || said.number < before)) {
            return Heard::Old;
        }
        origin.said = said;
        let missed = said.number - before - u64::from(is_message && said.number > before);
        if missed > 0 { Heard::Missed(missed) } else { Heard::Next }
    }
}
