//! What a reader does that calls: it subscribes, unsubscribes and subscribes again on one stream.

use super::{Carriage, From, Heard, Place, Reader, Stage, Surroundings, Transport, calls};
use crate::sim::Random;

impl Reader {
    /// Begins a call, and subscribes.
    pub(super) fn call(&mut self, around: &mut Surroundings<'_>) {
        self.hurried = !around.calm && around.random.chance(100);
        let timeout_ms = self.hurried.then(|| around.random.within(100, 3000));
        self.outgoing.extend_from_slice(calls::head("Connect", timeout_ms).as_bytes());
        self.begun.fill(false);
        self.half = !self.habit.works && around.random.chance(100);
        for at in 0..self.habit.topics.len() {
            self.subscribe(at);
        }
    }

    fn subscribe(&mut self, at: usize) {
        let works = self.habit.works;
        let from = match self.places[at] {
            _ if works => From::Now,
            Some(place) => From::Since(place),
            None if self.habit.history > 0 => From::Last(self.habit.history),
            None => From::Now,
        };
        self.resumes[at] = matches!(from, From::Since(_));
        calls::subscribe(self.habit.topics[at], from, works, true, &mut self.outgoing);
    }

    /// Takes what stands at the beginning of the answers; whether there was something.
    pub(super) fn hear(&mut self) -> Result<bool, String> {
        match calls::hear(self.habit.works, &mut self.inbox)? {
            None => Ok(false),
            Some(Heard::Told(told)) => {
                self.told.push(told);
                Ok(true)
            }
            Some(ack @ (Heard::Ack(..) | Heard::NoRoom(_))) => Err(format!("{ack:?} to a reader")),
        }
    }

    /// A subscription begins: before its messages, and once.
    pub(super) fn begins(&mut self, place: Place) -> Result<(), String> {
        let at = self.at(place)?;
        if std::mem::replace(&mut self.begun[at], true) {
            return Err(format!("t{} begins twice", place.topic));
        }
        match self.places[at] {
            _ if self.habit.works => {}
            Some((epoch, offset)) if place.cursor.0 == epoch && place.cursor.1 < offset => {
                return Err(format!("{place:?} is before {offset}"));
            }
            None if self.habit.history == 0 => self.places[at] = Some(place.cursor),
            _ => {}
        }
        Ok(())
    }

    /// A message comes only while its topic is subscribed to.
    pub(super) fn is_subscribed(&self, place: Option<Place>) -> Result<(), String> {
        let at = place.map_or(Ok(0), |place| self.at(place))?;
        let is_fine = self.habit.transport != Transport::Calls || self.begun[at];
        if is_fine { Ok(()) } else { Err(format!("a message of what is not subscribed to: {place:?}")) }
    }

    /// Unsubscribes from something. Whether it can.
    pub(super) fn unsubscribe(&mut self, random: &mut Random) -> bool {
        let can = self.habit.transport == Transport::Calls && !self.habit.works && !self.half;
        let at = random.below(self.habit.topics.len());
        if !can || !self.begun[at] || self.leaves.is_some() {
            return false;
        }
        self.leaves = Some(at);
        calls::unsubscribe(self.habit.topics[at], &mut self.outgoing);
        true
    }

    /// A subscription has ended; it begins again from where it was.
    pub(super) fn has_left(&mut self, topic: u8) -> Result<(), String> {
        let at = self.at(Place { topic, cursor: (0, 0) })?;
        let was = std::mem::replace(&mut self.begun[at], false);
        if self.stage == Stage::Parting {
            return Ok(());
        }
        if !was || self.leaves.take() != Some(at) {
            return Err(format!("t{topic} has ended, which nobody asked for"));
        }
        self.returns += 1;
        self.subscribe(at);
        Ok(())
    }

    /// Wants nothing more, and says so: the call ends well.
    pub(super) fn leave_all(&mut self) {
        for topic in &self.habit.topics {
            calls::unsubscribe(*topic, &mut self.outgoing);
        }
        (self.half, self.parted) = (true, true);
    }

    /// How its call has ended must be right.
    pub(super) fn check_status(&mut self) -> Result<(), String> {
        let parted = std::mem::take(&mut self.parted);
        self.leaves = None;
        let Some(status) = self.client.as_ref().and_then(Carriage::status) else { return Ok(()) };
        let is_right = match status {
            0 => parted,
            4 => self.hurried,
            // It read too slowly, there is no room, or the server goes.
            8 | 14 => true,
            _ => false,
        };
        if is_right { Ok(()) } else { Err(format!("its call ends with {status}")) }
    }

    /// Whether something that it asked for has never begun, at rest.
    pub(in crate::sim::world) fn waits_to_begin(&self) -> bool {
        let calls = self.habit.transport == Transport::Calls && self.stage == Stage::Open && self.client.is_some();
        calls && self.begun.contains(&false)
    }
}
