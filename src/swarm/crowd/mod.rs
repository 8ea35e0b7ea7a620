//! One thread's connections to a server, from the client's side.
//!
//! A crowd opens connections at a rate, completes their handshakes, answers heartbeats, puts cut frames together again,
//! tries again who failed for a reason that passes, and counts what happens. What messages mean is told by a [`Part`].
//!
//! It never says that a connection is alive: a complete handshake or a message says so, both of which are data that
//! came from the server.
//!
//! Invariants:
//! - A connection costs 24 bytes here, more only while a frame is cut or bytes wait for room, and both are bounded. One that
//!   speaks in a gRPC call keeps the server's windows beside them.
//! - The clock is read once for each completion, and what it brings happens then.
//! - A place is used again only after its [`Completion::Closed`].

mod ending;
mod member;
mod opener;
mod outgoing;
mod reading;
#[cfg(test)]
pub(super) mod tests;

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

pub(super) use self::member::{Member, Phase, Role};
pub(super) use self::opener::PAUSE_LONGEST;
use self::opener::{Next, Opener};
use self::outgoing::Outgoing;
use super::latency::Latencies;
use super::limits::{Cause, Reason};
use super::peer::Client;
use super::tally::{Count, Tally};
use crate::id::ConnId;
use crate::io::tls::Asks;
use crate::io::{Completion, Dial};
use crate::time::{Clock, Instant};

/// Completions of one turn at most, so that what is due is not late for long.
const COMPLETIONS_MAX: usize = 4096;
/// And for so long: what is counted is shown once a turn.
const TURN_MAX: Duration = Duration::from_millis(20);
/// Connections dialled in one turn at most.
const DIALS_MAX: usize = 256;

/// Where the connections of a role go, and what they speak.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) client: Client,
    pub(super) address: SocketAddrV4,
    /// The server answers before the first message.
    pub(super) greets: bool,
    /// How it is asked for TLS, where it is.
    pub(super) asks: Option<Asks>,
}

/// How a crowd behaves.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    /// By role.
    pub(super) routes: [Route; Role::COUNT],
    /// Who publishes.
    pub(super) publishers: Role,
    /// Connections at most.
    pub(super) places: usize,
    /// Handshakes in flight at most.
    pub(super) window: usize,
    /// For one handshake.
    pub(super) timeout: Duration,
    /// Bytes that one connection may hold back. A server that does not read is not the client's memory's business.
    pub(super) backlog_bytes_max: usize,
}

/// What a scenario does with connections and their messages.
pub(super) trait Part {
    /// Its handshake is complete.
    fn opened(&mut self, _index: u32, _member: &mut Member, _heard: &mut Heard<'_>) {}

    /// A message came. What is appended to `answer` is sent on the same connection.
    fn message(&mut self, index: u32, member: &mut Member, payload: &[u8], heard: &mut Heard<'_>);

    /// It is gone, whoever ended it, and `reason` says how when it was not us, or not in answer to our good-bye. Its place
    /// may be used again.
    fn gone(&mut self, _index: u32, _member: &Member, _reason: Option<Reason>, _tally: &mut Tally) {}
}

/// The surroundings of a message.
pub(super) struct Heard<'a> {
    pub(super) now: Instant,
    pub(super) tally: &'a mut Tally,
    /// Writes messages.
    pub(super) client: &'a mut Client,
    /// What is sent on the same connection.
    pub(super) answer: &'a mut Vec<u8>,
}

/// One thread's connections.
pub(super) struct Crowd<B> {
    backend: B,
    manner: Manner,
    members: Vec<Member>,
    free: Vec<u32>,
    opener: Opener,
    outgoing: Outgoing,
    /// Completions of the last turn.
    brought: usize,
    /// Connections whose sends failed in this turn.
    broken: Vec<(ConnId, Reason)>,
    now: Instant,
    pub(super) tally: Tally,
    /// Nanoseconds from when a first dial was due to the welcome.
    pub(super) connect: Latencies,
    /// Time after which a server that sheds connections wants them back.
    retry_after: Duration,
    /// Why the first connection was given up.
    pub(super) obstacle: Option<Cause>,
}

impl<B: Dial> Crowd<B> {
    pub(super) fn new(backend: B, manner: Manner) -> Self {
        Self {
            members: Vec::with_capacity(manner.places),
            free: Vec::new(),
            opener: Opener::new(manner.window.max(1), manner.timeout),
            outgoing: Outgoing::default(),
            brought: 0,
            broken: Vec::new(),
            now: Instant::ZERO,
            tally: Tally::default(),
            connect: Latencies::new(),
            retry_after: Duration::ZERO,
            obstacle: None,
            backend,
            manner,
        }
    }

    /// Opens `count` connections from now on, one per `gap`.
    pub(super) fn open(&mut self, role: Role, count: usize, gap: Duration) {
        self.opener.want(role, count, gap, self.now);
    }

    /// Opens no more.
    pub(super) fn stop_opening(&mut self) {
        self.opener.stop();
    }

    /// Who publishes.
    pub(super) const fn publishers(&self) -> Role {
        self.manner.publishers
    }

    /// Reads the clock; what happens until the next turn happens then.
    pub(super) fn tick(&mut self, clock: &impl Clock) -> Instant {
        self.now = clock.now();
        self.now
    }

    pub(super) const fn now(&self) -> Instant {
        self.now
    }

    /// How many places there are or were.
    pub(super) fn places(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// The connection at a place, when it is open.
    pub(super) fn standing(&self, index: u32) -> Option<&Member> {
        self.members.get(index as usize).filter(|member| member.phase == Phase::Open)
    }

    /// The same, to change what a part keeps there.
    pub(super) fn standing_mut(&mut self, index: u32) -> Option<&mut Member> {
        self.members.get_mut(index as usize).filter(|member| member.phase == Phase::Open)
    }

    /// Dials what is due, and gives up who is late.
    pub(super) fn pace(&mut self, part: &mut impl Part) {
        let now = self.now;
        let members = &self.members;
        let is_opening = |id: ConnId| {
            let member = members.get(id.index() as usize);
            member.is_some_and(|member| member.id(id.index()) == id && member.is_opening())
        };
        let mut late = Vec::new();
        while let Some(id) = self.opener.late(now, is_opening) {
            late.push(id);
        }
        for id in late {
            self.end(id, Reason::TimedOut, part);
        }
        for _ in 0..DIALS_MAX {
            match self.opener.next(now) {
                Some(Next::New(role, due)) => {
                    self.dial(role, due);
                }
                Some(Next::Again(index)) => self.dial_at(index),
                None => return,
            }
        }
    }

    /// When [`Crowd::pace`] has something to do, when nothing else happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.opener.due()
    }

    /// Handshakes in flight.
    pub(super) const fn opening(&self) -> usize {
        self.opener.in_flight
    }

    /// Dials one more, at once, which was due then. `None` when all places are taken.
    pub(super) fn dial(&mut self, role: Role, due: Instant) -> Option<u32> {
        let fresh = (self.members.len() < self.manner.places).then(|| self.places());
        let index = self.free.pop().or(fresh)?;
        if index as usize == self.members.len() {
            self.members.push(Member::default());
        }
        self.members[index as usize].begin(role, due);
        self.tally.add(Count::Guests, u64::from(role == Role::Guest));
        self.dial_at(index);
        Some(index)
    }

    fn dial_at(&mut self, index: u32) {
        let Some(member) = self.members.get_mut(index as usize) else { return };
        member.dialled(self.now);
        let id = member.id(index);
        let route = &self.manner.routes[member.role as usize];
        self.tally.one(Count::Dials);
        self.opener.dialled(id, self.now);
        self.backend.dial(id, route.address, route.client.hello());
    }

    /// How many completions the last turn brought.
    pub(super) const fn brought(&self) -> usize {
        self.brought
    }

    /// Waits for something to happen, at most for so long, and deals with it.
    ///
    /// # Errors
    /// When the kernel's interface itself fails.
    pub(super) fn turn(&mut self, timeout: Duration, clock: &impl Clock, part: &mut impl Part) -> io::Result<()> {
        self.backend.wait(Some(timeout))?;
        let start = self.tick(clock);
        self.brought = 0;
        for _ in 0..COMPLETIONS_MAX {
            if self.now.since(start) >= TURN_MAX {
                break;
            }
            let Some(completion) = self.backend.next() else { break };
            // Answers to what this turn sends may come in the same turn.
            self.tick(clock);
            self.brought += 1;
            match completion {
                Completion::Received(id, lease) => self.received(id, lease, part),
                Completion::Writable(id) => self.writable(id, part),
                Completion::PeerClosed(id) => self.end(id, Reason::Ended, part),
                Completion::Failed(id, kind) => self.end(id, Reason::of(kind), part),
                Completion::Closed(id) => self.closed(id),
                // Nobody listens here.
                Completion::Accepted(_) | Completion::AcceptFailed(..) | Completion::Proxied(..) => {}
            }
        }
        self.end_broken(part);
        Ok(())
    }

    fn member(&mut self, id: ConnId) -> Option<&mut Member> {
        let index = id.index();
        self.members.get_mut(index as usize).filter(|member| member.id(index) == id)
    }

    /// It stands, or has room again.
    fn writable(&mut self, id: ConnId, part: &mut impl Part) {
        let Some(member) = self.member(id) else { return };
        match member.phase {
            Phase::Dialing => {
                member.phase = Phase::Greeting;
                self.greet(id, part);
            }
            Phase::Greeting | Phase::Open | Phase::Leaving => self.catch_up(id.index()),
            _ => {}
        }
    }
}
