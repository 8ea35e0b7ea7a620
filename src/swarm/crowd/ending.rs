//! How connections end: by the server, by the kernel, or because we say so.

use super::member::{Member, Phase, Role};
use super::{Crowd, Part};
use crate::id::ConnId;
use crate::io::{Dial, Ending};
use crate::swarm::limits::{Cause, Reason};
use crate::swarm::tally::Count;

impl<B: Dial> Crowd<B> {
    /// It did not open, or it is over, for a reason that is not ours.
    pub(super) fn end(&mut self, id: ConnId, cause: impl Into<Cause>, part: &mut impl Part) {
        let cause = cause.into();
        let reason = cause.reason;
        let is_peaceful = matches!(reason, Reason::Ended | Reason::Closed);
        let Some(member) = self.member(id) else { return };
        let (phase, role, heard) = (member.phase, member.role, member.has(Member::HEARD));
        // Where the server has no welcome, a connection that ends before it brought anything may have waited in a queue
        // of the kernel all the time.
        let never_opened = phase == Phase::Open && !heard && !self.greets(role);
        match phase {
            Phase::Free | Phase::Waiting | Phase::Closing => return,
            Phase::Dialing | Phase::Greeting => {
                self.opener.in_flight = self.opener.in_flight.saturating_sub(1);
                self.failed(id, cause, part);
            }
            Phase::Open if never_opened && role != Role::Guest => {
                self.no_longer_open(role);
                self.tally.less(Count::Opened);
                self.tell_gone(id, Some(reason), part);
                self.failed(id, cause, part);
            }
            Phase::Open if role == Role::Publisher => {
                self.no_longer_open(role);
                self.failed(id, cause, part);
            }
            Phase::Open => {
                self.no_longer_open(role);
                if role != Role::Guest {
                    self.tally.one(Count::Lost);
                    self.tally.lost(cause);
                }
                self.tell_gone(id, Some(reason), part);
            }
            Phase::Leaving => self.tell_gone(id, Some(reason).filter(|_| !is_peaceful), part),
        }
        let ending = if is_peaceful { Ending::Graceful } else { Ending::Reset };
        self.close(id, ending);
    }

    const fn greets(&self, role: Role) -> bool {
        self.manner.routes[role as usize].greets
    }

    fn says_good_bye(&self, role: Role) -> bool {
        self.manner.routes[role as usize].client.says_good_bye()
    }

    fn no_longer_open(&mut self, role: Role) {
        if role == Role::Publisher {
            return self.tally.less(Count::Publishers);
        }
        self.tally.less(Count::Open);
        if role.stays() {
            self.tally.less(Count::Standing);
        }
    }

    fn tell_gone(&mut self, id: ConnId, reason: Option<Reason>, part: &mut impl Part) {
        if let Some(member) = self.members.get(id.index() as usize) {
            part.gone(id.index(), member, reason, &mut self.tally);
        }
    }

    /// It is tried again, or given up. Guests are not: there are others.
    fn failed(&mut self, id: ConnId, cause: Cause, part: &mut impl Part) {
        let reason = cause.reason;
        self.tally.failed(reason);
        // Without a publisher a run that has begun would have to end: it comes back as long as others stay.
        let has_published = self.tally[Count::Published] > 0;
        let Some(member) = self.member(id) else { return };
        member.tries = member.tries.saturating_add(1);
        let is_needed = member.role == Role::Publisher && has_published;
        if member.role == Role::Guest {
            self.tell_gone(id, Some(reason), part);
        } else if is_needed || member.tries < reason.tries() {
            member.set(Member::AGAIN);
            self.tally.one(Count::Retries);
        } else {
            self.tally.one(Count::GivenUp);
            self.obstacle.get_or_insert(cause);
        }
    }

    fn close(&mut self, id: ConnId, ending: Ending) {
        if let Some(member) = self.member(id) {
            member.phase = Phase::Closing;
            member.spill = None;
            self.outgoing.forget(id.index());
            self.backend.close(id, ending);
        }
    }

    /// The backend has let go of it.
    pub(super) fn closed(&mut self, id: ConnId) {
        let now = self.now;
        let Some(member) = self.member(id).filter(|member| member.phase == Phase::Closing) else { return };
        member.generation = member.generation.wrapping_add(1) & ((1 << ConnId::GENERATION_BITS) - 1);
        if member.has(Member::AGAIN) {
            member.phase = Phase::Waiting;
            let tries = member.tries;
            let floor = self.retry_after;
            self.opener.try_again(id.index(), tries, floor, now);
        } else if member.has(Member::VANISHED) {
            // Whoever came here next would tell the server, from the same address.
            member.phase = Phase::Free;
        } else {
            member.phase = Phase::Free;
            let is_guest = member.role == Role::Guest;
            self.free.push(id.index());
            if is_guest {
                self.tally.less(Count::Guests);
            }
        }
    }

    /// Says good-bye as the protocol wants it; the server ends it then.
    pub(in crate::swarm) fn leave(&mut self, id: ConnId) {
        let Some(member) = self.member(id).filter(|member| member.phase == Phase::Open) else { return };
        let role = member.role;
        self.send(id.index(), |_, client, out| client.close(out));
        if !self.says_good_bye(role) {
            self.flush();
            self.backend.shutdown(id);
        }
        if let Some(member) = self.member(id) {
            member.phase = Phase::Leaving;
        }
        self.no_longer_open(role);
    }

    /// Ends it with a reset.
    pub(in crate::swarm) fn reset(&mut self, id: ConnId) {
        let Some(member) = self.member(id) else { return };
        let (phase, role) = (member.phase, member.role);
        match phase {
            Phase::Open => self.no_longer_open(role),
            Phase::Dialing | Phase::Greeting => {
                self.opener.in_flight = self.opener.in_flight.saturating_sub(1);
            }
            Phase::Leaving => {}
            Phase::Free | Phase::Waiting | Phase::Closing => return,
        }
        self.close(id, Ending::Reset);
    }

    /// Lets a share of those who stand vanish, evenly spread. The server does not hear of it.
    pub(in crate::swarm) fn vanish(&mut self, share: f64) {
        let mut due = 0.5;
        for index in 0..self.places() {
            let Some(member) = self.standing(index).filter(|member| member.role.stays()) else { continue };
            let (id, role) = (member.id(index), member.role);
            due += share;
            if due >= 1.0 {
                due -= 1.0;
                self.no_longer_open(role);
                self.tally.one(Count::Vanished);
                self.cut(id);
            }
        }
    }

    fn cut(&mut self, id: ConnId) {
        if let Some(member) = self.member(id) {
            member.phase = Phase::Closing;
            member.set(Member::VANISHED);
            member.spill = None;
            self.outgoing.forget(id.index());
            self.backend.vanish(id);
        }
    }

    /// Reads no more, and hence answers nothing.
    pub(in crate::swarm) fn pause(&mut self, id: ConnId) {
        if let Some(member) = self.member(id).filter(|member| member.phase == Phase::Open) {
            member.set(Member::PAUSED);
            self.backend.pause(id);
        }
    }

    /// Reads again.
    pub(in crate::swarm) fn resume(&mut self, id: ConnId) {
        if let Some(member) = self.member(id).filter(|member| member.has(Member::PAUSED)) {
            member.clear(Member::PAUSED);
            self.backend.resume(id);
        }
    }

    /// Where a connection is, as long as it is the same one.
    pub(in crate::swarm) fn phase(&self, id: ConnId) -> Phase {
        let member = self.members.get(id.index() as usize);
        member.filter(|member| member.id(id.index()) == id).map_or(Phase::Free, |member| member.phase)
    }

    /// Ends everything between two places, with a good-bye where the protocol has one.
    pub(in crate::swarm) fn end_places(&mut self, from: u32, to: u32) {
        for index in from..to.min(self.places()) {
            let member = &self.members[index as usize];
            let (id, phase, role) = (member.id(index), member.phase, member.role);
            match phase {
                Phase::Free | Phase::Waiting | Phase::Closing => continue,
                Phase::Open if self.says_good_bye(role) && !member.has(Member::PAUSED) => {
                    self.leave(id);
                    continue;
                }
                Phase::Open => self.no_longer_open(role),
                Phase::Dialing | Phase::Greeting | Phase::Leaving => {}
            }
            self.close(id, Ending::Graceful);
        }
    }

    /// The first place from here on that the backend has not let go of.
    pub(in crate::swarm) fn first_closing(&self, from: u32) -> Option<u32> {
        let has_gone = |member: &Member| matches!(member.phase, Phase::Free | Phase::Waiting);
        (from..self.places()).find(|index| !has_gone(&self.members[*index as usize]))
    }
}
