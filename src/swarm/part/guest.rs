//! Those who come and go: most say good-bye, some reset, some go mute, some stop reading.
//!
//! ```text
//!   dialled -> open -> lifetime over: good-bye, or reset
//!                  +-> mute: reads and answers nothing. After a time it looks whether the server has ended it
//!                  +-> slow: reads nothing until its lifetime is over, then says good-bye
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use super::super::crowd::{Crowd, Member, Phase, Role};
use super::super::limits::Reason;
use super::super::tally::{Count, Tally};
use crate::id::ConnId;
use crate::io::Dial;
use crate::time::Instant;

/// Time for a good-bye to be answered.
const FAREWELL: Duration = Duration::from_secs(10);
/// Time for the end of a mute guest to arrive, once it listens again.
const LISTEN: Duration = Duration::from_secs(2);
/// Guests dialled in one turn at most, however late they are.
const DIALS_MAX: u32 = 256;

/// Who comes, how often, and for how long.
#[derive(Clone, Copy, Debug)]
pub(in crate::swarm) struct Invitation {
    /// Time between two guests.
    pub(in crate::swarm) gap: Duration,
    pub(in crate::swarm) start: Instant,
    pub(in crate::swarm) until: Instant,
    pub(in crate::swarm) lifetime: Duration,
    /// Time in which the server should notice that a guest is mute.
    pub(in crate::swarm) mute_for: Duration,
    /// Of all guests, 0 to 1.
    pub(in crate::swarm) abrupt: f64,
    pub(in crate::swarm) mute: f64,
    pub(in crate::swarm) slow: f64,
}

/// What a guest is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Polite,
    Abrupt,
    Mute,
    Slow,
}

/// The guests of one thread.
#[derive(Debug, Default)]
pub(in crate::swarm) struct Guests {
    invitation: Option<Invitation>,
    /// When the next one comes.
    next: Instant,
    /// How much of a guest of each kind is due.
    owed: [f64; 3],
    /// Those who are there, by place.
    kinds: HashMap<u32, Kind>,
    /// Those who opened since the last turn.
    fresh: Vec<(ConnId, Kind)>,
    /// Each in the order of its times.
    stays: VecDeque<(Instant, ConnId)>,
    mutes: VecDeque<(Instant, ConnId)>,
    listeners: VecDeque<(Instant, ConnId)>,
    farewells: VecDeque<(Instant, ConnId)>,
}

impl Guests {
    pub(in crate::swarm) fn invite(&mut self, invitation: Invitation) {
        self.next = invitation.start;
        self.invitation = Some(invitation);
    }

    /// Nobody else comes.
    pub(in crate::swarm) fn stop(&mut self) {
        if let Some(invitation) = &mut self.invitation {
            invitation.until = Instant::ZERO;
        }
    }

    /// A guest has completed its handshake.
    pub(in crate::swarm) fn opened(&mut self, index: u32, member: &Member, now: Instant, tally: &mut Tally) {
        let Some(invitation) = self.invitation else { return };
        let kind = self.choose(&invitation);
        let id = member.id(index);
        self.kinds.insert(index, kind);
        tally.one(Count::Came);
        match kind {
            Kind::Polite | Kind::Abrupt => self.stays.push_back((now + invitation.lifetime, id)),
            Kind::Slow => {
                self.stays.push_back((now + invitation.lifetime, id));
                self.fresh.push((id, kind));
            }
            Kind::Mute => self.fresh.push((id, kind)),
        }
    }

    /// Spreads the kinds evenly, without chance.
    fn choose(&mut self, invitation: &Invitation) -> Kind {
        let shares = [invitation.abrupt, invitation.mute, invitation.slow];
        self.owed.iter_mut().zip(shares).for_each(|(owed, share)| *owed += share);
        let kinds = [Kind::Abrupt, Kind::Mute, Kind::Slow];
        for (owed, kind) in self.owed.iter_mut().zip(kinds) {
            if *owed >= 1.0 {
                *owed -= 1.0;
                return kind;
            }
        }
        Kind::Polite
    }

    /// A guest is gone that had not been reset by us.
    pub(in crate::swarm) fn gone(&mut self, index: u32, member: &Member, reason: Option<Reason>, tally: &mut Tally) {
        let kind = self.kinds.remove(&index);
        match (kind, reason) {
            // It had said good-bye.
            (_, None) => {}
            (Some(Kind::Mute), Some(_)) => tally.one(Count::Detected),
            (Some(Kind::Slow), Some(_)) => tally.one(Count::Cut),
            (_, Some(_)) if member.is_leaving() => tally.one(Count::Unanswered),
            // It had been open: until then a failed try is counted by the crowd.
            (Some(Kind::Polite | Kind::Abrupt), Some(reason)) => {
                tally.one(Count::Turned);
                tally.failed(reason);
            }
            (None, Some(_)) => tally.one(Count::Turned),
        }
    }

    /// When [`Guests::act`] has something to do.
    pub(in crate::swarm) fn due(&self) -> Option<Instant> {
        let queues = [&self.stays, &self.mutes, &self.listeners, &self.farewells];
        let queued = queues.into_iter().filter_map(|queue| queue.front().map(|(due, _)| *due));
        let comes = self.invitation.map(|_| self.next).filter(|_| self.is_open());
        queued.chain(comes).min()
    }

    fn is_open(&self) -> bool {
        self.invitation.is_some_and(|invitation| self.next < invitation.until)
    }

    /// Lets guests come and go.
    pub(in crate::swarm) fn act<B: Dial>(&mut self, crowd: &mut Crowd<B>) {
        let Some(invitation) = self.invitation else { return };
        let now = crowd.now();
        for _ in 0..DIALS_MAX {
            if !self.is_open() || self.next > now {
                break;
            }
            if crowd.dial(Role::Guest, self.next).is_none() {
                crowd.tally.one(Count::Turned);
                crowd.tally.failed(Reason::Places);
            }
            self.next = self.next + invitation.gap;
        }
        for (id, kind) in self.fresh.drain(..) {
            crowd.pause(id);
            let is_mute = kind == Kind::Mute;
            crowd.tally.one(if is_mute { Count::Muted } else { Count::Slowed });
            if is_mute {
                self.mutes.push_back((now + invitation.mute_for, id));
            }
        }
        while let Some(id) = pop(&mut self.stays, now) {
            self.leave(id, crowd);
        }
        while let Some(id) = pop(&mut self.mutes, now) {
            crowd.resume(id);
            self.listeners.push_back((now + LISTEN, id));
        }
        while let Some(id) = pop(&mut self.listeners, now) {
            if crowd.phase(id) == Phase::Open {
                crowd.tally.one(Count::Overlooked);
                self.kinds.remove(&id.index());
                crowd.reset(id);
            }
        }
        while let Some(id) = pop(&mut self.farewells, now) {
            if crowd.phase(id) == Phase::Leaving {
                crowd.tally.one(Count::Unanswered);
                self.kinds.remove(&id.index());
                crowd.reset(id);
            }
        }
    }

    /// Its time is over.
    fn leave<B: Dial>(&mut self, id: ConnId, crowd: &mut Crowd<B>) {
        if crowd.phase(id) != Phase::Open {
            return;
        }
        if self.kinds.get(&id.index()) == Some(&Kind::Abrupt) {
            crowd.tally.one(Count::Reset);
            self.kinds.remove(&id.index());
            crowd.reset(id);
            return;
        }
        crowd.resume(id);
        crowd.leave(id);
        crowd.tally.one(Count::Left);
        self.farewells.push_back((crowd.now() + FAREWELL, id));
    }
}

fn pop(queue: &mut VecDeque<(Instant, ConnId)>, now: Instant) -> Option<ConnId> {
    let id = queue.front().filter(|(due, _)| *due <= now).map(|(_, id)| *id)?;
    queue.pop_front();
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_come_in_their_shares() {
        let second = Duration::from_secs(1);
        let invitation = Invitation {
            gap: second,
            start: Instant::ZERO,
            until: Instant::ZERO,
            lifetime: second,
            mute_for: second,
            abrupt: 0.2,
            mute: 0.05,
            slow: 0.01,
        };
        let mut guests = Guests::default();
        let kinds: Vec<_> = (0..1000).map(|_| guests.choose(&invitation)).collect();
        let count = |kind| kinds.iter().filter(|other| **other == kind).count();
        for (kind, expected) in [(Kind::Abrupt, 200), (Kind::Mute, 50), (Kind::Slow, 10), (Kind::Polite, 740)] {
            assert!(count(kind).abs_diff(expected) <= 3, "{kind:?}: {}", count(kind));
        }
    }
}
