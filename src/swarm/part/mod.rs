//! What the connections of one thread do: hear what is published, publish, send what comes back.
//!
//! Every scenario is made of the same parts, told apart by the role of a connection.

pub(super) mod echo;
pub(super) mod guest;
pub(super) mod publisher;
pub(super) mod subscriber;
#[cfg(test)]
mod tests;

use self::echo::{Echoes, Load};
use self::guest::{Guests, Invitation};
use self::publisher::{Publisher, Series};
use self::subscriber::Subscribers;
use super::crowd::{Crowd, Heard, Member, Part, Role};
use super::limits::Reason;
use super::tally::Tally;
use crate::io::Dial;
use crate::time::Instant;

/// What the conductor tells a thread.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Opens so many connections.
    Open {
        /// What for.
        role: Role,
        /// How many.
        count: usize,
        /// Time between two of them.
        gap: std::time::Duration,
    },
    /// Opens no more.
    Halt,
    /// Lets a share of those who stand vanish.
    Vanish(f64),
    /// Measures deliveries from this publication on.
    Measure {
        /// Its number.
        first: u32,
        /// The number of the last one.
        last: u32,
    },
    /// Publishes.
    Publish(Series),
    /// Sends messages that come back.
    Echo(Load),
    /// Sends no more of them.
    Hush,
    /// Lets guests come and go.
    Invite(Invitation),
    /// Ends all connections, and then the thread.
    End(std::time::Duration),
}

/// All parts of one thread.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) subscribers: Subscribers,
    pub(super) publisher: Publisher,
    pub(super) echoes: Echoes,
    guests: Guests,
}

impl Actor {
    /// For messages of `size` bytes of this run.
    pub(super) fn new(run: u32, size: usize) -> Self {
        Self {
            subscribers: Subscribers::new(run),
            publisher: Publisher::new(run, size),
            echoes: Echoes::new(run, size),
            guests: Guests::default(),
        }
    }

    /// Adds what another thread has found.
    pub(super) fn merge(&mut self, other: &Self) {
        self.subscribers.merge(&other.subscribers);
        self.echoes.merge(&other.echoes);
    }

    /// Does as it is told. [`Order::End`] is the thread's.
    pub(super) fn obey<B: Dial>(&mut self, order: Order, crowd: &mut Crowd<B>) {
        match order {
            Order::Open { role, count, gap } => crowd.open(role, count, gap),
            Order::Halt => crowd.stop_opening(),
            Order::Vanish(share) => crowd.vanish(share),
            Order::Measure { first, last } => self.subscribers.measure(first, last),
            Order::Publish(series) => self.publisher.begin(series, crowd.now()),
            Order::Echo(load) => self.echoes.begin(load, crowd),
            Order::Hush => self.echoes.hush(crowd),
            Order::Invite(invitation) => self.guests.invite(invitation),
            Order::End(_) => {
                self.publisher.stop();
                self.guests.stop();
                self.echoes.hush(crowd);
                crowd.stop_opening();
            }
        }
    }

    /// Does what is due.
    pub(super) fn act<B: Dial>(&mut self, crowd: &mut Crowd<B>) {
        self.publisher.publish(crowd);
        self.echoes.send_due(crowd);
        self.guests.act(crowd);
    }

    /// When something is due that [`Actor::act`] does.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.publisher.due(), self.echoes.due(), self.guests.due()].into_iter().flatten().min()
    }
}

impl Part for Actor {
    fn opened(&mut self, index: u32, member: &mut Member, heard: &mut Heard<'_>) {
        if member.role() == Role::Guest {
            self.guests.opened(index, member, heard.now, heard.tally);
        }
    }

    fn gone(&mut self, index: u32, member: &Member, reason: Option<Reason>, tally: &mut Tally) {
        match member.role() {
            Role::Guest => self.guests.gone(index, member, reason, tally),
            Role::Echo => self.echoes.gone(index, member),
            Role::Holder | Role::Publisher => {}
        }
    }

    #[inline]
    fn message(&mut self, index: u32, member: &mut Member, payload: &[u8], heard: &mut Heard<'_>) {
        match member.role() {
            Role::Holder => self.subscribers.hear(index, member, payload, heard),
            Role::Echo => self.echoes.hear(index, member, payload, heard),
            // What it hears is its own, from a server that does not know echo=0.
            Role::Guest | Role::Publisher => {}
        }
    }
}
