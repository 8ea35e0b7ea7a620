//! What a shard hears and says of the members that topics have on other nodes.
//!
//! Topics know what there is to say: see [`crate::hub::topics`]. Here are the walks over all of them, which go on a step at a
//! time: one round each lease and with each connection, and one for each node that has gone. Questions about topics that were
//! not heard here before wait a moment for what other nodes say.

use std::collections::VecDeque;

use super::cluster::Cluster;
use super::core::Core;
use super::mail::{About, Question};
use crate::cluster::port::{Follow, NodeId};
use crate::hub::presence::MemberId;
use crate::wheel::Tick;

/// What there is to do.
#[derive(Debug)]
pub(super) struct Errands {
    /// The next place of a topic whose members are said again, and whether the other nodes are asked for theirs too.
    round: Option<(usize, bool)>,
    /// Nodes whose members are to be dropped.
    leaving: VecDeque<Leaving>,
    /// Nodes that have gone, the last ones: one that comes again has missed something.
    gone: VecDeque<NodeId>,
    /// Questions that wait, and until when.
    questions: VecDeque<(Tick, Question)>,
    /// When it was last looked at those.
    looked: Tick,
}

/// A node that has gone: the next place of a topic, and the member there behind whom it goes on.
#[derive(Debug)]
struct Leaving {
    node: NodeId,
    place: usize,
    after: Option<MemberId>,
}

impl Errands {
    /// Nodes that are remembered.
    const GONE_MAX: usize = 256;
    /// Whispers up to which a round goes on: what waits for NATS need not become more.
    const WHISPERS_MAX: usize = 1024;
    /// Places of topics that are looked at in one step.
    const PLACES_PER_STEP: usize = 64;
    /// Questions that wait at most.
    const QUESTIONS_MAX: usize = 1024;
    /// How long one waits at most.
    const WAIT_TICKS: u32 = 10;

    pub(super) const fn new() -> Self {
        Self {
            round: None,
            leaving: VecDeque::new(),
            gone: VecDeque::new(),
            questions: VecDeque::new(),
            looked: Tick(0),
        }
    }

    /// Says all again, from the first topic on; one that only says goes on where it is.
    pub(super) fn begin_round(&mut self, calls: bool) {
        if calls || self.round.is_none() {
            self.round = Some((0, calls));
        }
    }

    pub(super) fn note_came(&mut self, node: NodeId) {
        let known = self.gone.len();
        self.gone.retain(|gone| *gone != node);
        if self.gone.len() < known {
            self.begin_round(true);
        }
    }

    pub(super) fn note_gone(&mut self, node: NodeId) {
        if self.gone.len() >= Self::GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back(node);
        self.leaving.push_back(Leaving { node, place: 0, after: None });
    }
}

impl Core {
    fn errands(&mut self) -> Option<&mut Errands> {
        self.cluster.as_deref_mut().map(|cluster| &mut cluster.errands)
    }

    /// Whether a walk goes on now.
    pub(super) fn has_errands(&self) -> bool {
        let Some(cluster) = self.cluster.as_deref() else { return false };
        let goes_round = || cluster.errands.round.is_some() && self.topics.whispers_waiting() < Errands::WHISPERS_MAX;
        !cluster.errands.leaving.is_empty() || goes_round()
    }

    /// A topic is heard: what do the others have?
    pub(super) fn call_others(&mut self, follow: Follow) {
        let now = self.time();
        self.topics.call_others(follow, now);
    }

    pub(super) fn hear_whisper(&mut self, follow: Follow, node: NodeId, bytes: &[u8]) {
        let now = self.time();
        if !self.topics.hear_whisper(follow, node, bytes, now) {
            self.metrics.presence_whispers_bad_total.add(1);
        }
    }

    /// Drops some members of a node that has gone. Nothing more is taken of the others before it is done.
    pub(super) fn drop_leaving(&mut self) -> bool {
        let (now, end) = (self.time(), self.topics.place_end());
        let Some(mut leaving) = self.errands().and_then(|errands| errands.leaving.pop_front()) else { return false };
        for _ in 0..Errands::PLACES_PER_STEP {
            if leaving.place > end {
                return true;
            }
            if self.topics.drop_node_at(leaving.place, leaving.node, &mut leaving.after, now) {
                break;
            }
            (leaving.place, leaving.after) = (leaving.place + 1, None);
        }
        if let Some(errands) = self.errands() {
            errands.leaving.push_front(leaving);
        }
        true
    }

    /// Goes on with the round.
    pub(super) fn go_round(&mut self) {
        let (now, end) = (self.time(), self.topics.place_end());
        let Some((begin, calls)) = self.errands().and_then(|errands| errands.round) else { return };
        if self.topics.whispers_waiting() >= Errands::WHISPERS_MAX {
            return;
        }
        let next = begin + Errands::PLACES_PER_STEP;
        for place in begin..next.min(end) {
            self.topics.renew_presence_at(place, calls, now);
        }
        if let Some(errands) = self.errands() {
            errands.round = (next < end).then_some((next, calls));
        }
    }

    /// Has a question wait where other nodes may be about to say something that belongs to its answer.
    pub(super) fn wait_for_others(&mut self, question: Question) -> Option<Question> {
        let is_presence = matches!(question.about, About::Presence(..));
        if !is_presence || !self.cluster.as_deref().is_some_and(Cluster::is_connected) {
            return Some(question);
        }
        let (now, until) = (self.time(), self.tick.later(Errands::WAIT_TICKS));
        if !self.topics.is_learning(&question.topic, now) {
            return Some(question);
        }
        match self.errands() {
            Some(errands) if errands.questions.len() < Errands::QUESTIONS_MAX => {
                errands.questions.push_back((until, question));
                None
            }
            _ => Some(question),
        }
    }

    /// Answers questions that need wait no longer.
    pub(super) fn answer_waiting(&mut self) {
        let (tick, now) = (self.tick, self.time());
        let Some(cluster) = self.cluster.as_deref_mut() else { return };
        let is_connected = cluster.is_connected();
        let errands = &mut cluster.errands;
        if errands.questions.is_empty() || std::mem::replace(&mut errands.looked, tick) == tick {
            return;
        }
        for (until, question) in std::mem::take(&mut errands.questions) {
            let waits = is_connected && tick < until && self.topics.is_learning(&question.topic, now);
            match self.errands() {
                Some(errands) if waits => errands.questions.push_back((until, question)),
                _ => self.answer_question(question),
            }
        }
    }

    /// When it is to be looked whether one need wait no longer.
    pub(super) fn waiting_due(&self) -> Option<Tick> {
        let cluster = self.cluster.as_deref()?;
        (!cluster.errands.questions.is_empty()).then(|| self.tick.later(1))
    }
}
