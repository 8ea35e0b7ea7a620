//! Received bytes: whole frames are handed out in place, and only a cut one is kept.

use std::time::Duration;

use super::member::{Member, Phase, Role, Spill};
use super::opener::RETRY_AFTER_MAX;
use super::{Crowd, Heard, Part};
use crate::codec::event_stream::Body;
use crate::id::ConnId;
use crate::io::{Dial, Lease};
use crate::session::caller::{Event, Hearing, Outcome};
use crate::swarm::limits::{Cause, Reason};
use crate::swarm::peer::{Broken, Frame};
use crate::swarm::tally::Count;

/// One connection, and who hears what it brings.
struct Reader<'a, P> {
    index: u32,
    member: &'a mut Member,
    heard: Heard<'a>,
    part: &'a mut P,
    /// Seconds after which a server that is busy wants to be asked again.
    retry_after: Option<u32>,
}

impl<B: Dial> Crowd<B> {
    pub(super) fn received(&mut self, id: ConnId, lease: Lease, part: &mut impl Part) {
        let from = self.outgoing.bytes.len();
        let outcome = self.read(id, Some(&lease), part);
        self.backend.release(lease);
        self.read_done(id, from, outcome, part);
    }

    /// The transport stands. Where the server has no welcome, the connection is open with it.
    pub(super) fn greet(&mut self, id: ConnId, part: &mut impl Part) {
        let from = self.outgoing.bytes.len();
        let outcome = self.read(id, None, part);
        self.read_done(id, from, outcome, part);
    }

    fn read_done(&mut self, id: ConnId, from: usize, outcome: Result<(), Cause>, part: &mut impl Part) {
        self.post(id.index(), from);
        if let Err(cause) = outcome {
            self.end(id, cause, part);
        }
    }

    /// Gives a connection the bytes on loan. Its answers are staged.
    fn read(&mut self, id: ConnId, lease: Option<&Lease>, part: &mut impl Part) -> Result<(), Cause> {
        let (index, now) = (id.index(), self.now);
        let member = self.members.get_mut(index as usize).filter(|member| member.id(index) == id);
        let Some(member) = member.filter(|member| member.is_read()) else { return Ok(()) };
        let bytes: &[u8] = lease.map_or(&[], |lease| &*self.backend.bytes(lease));
        self.tally.add(Count::Bytes, bytes.len() as u64);
        let was_heard = member.has(Member::HEARD);
        if !bytes.is_empty() {
            member.set(Member::HEARD);
        }
        let age = (member.phase == Phase::Greeting).then(|| member.age_ns(now));
        let client = &mut self.manner.routes[member.role as usize].client;
        let heard = Heard { now, tally: &mut self.tally, client, answer: &mut self.outgoing.bytes };
        let mut reader = Reader { index, member, heard, part, retry_after: None };
        let outcome = reader.take(bytes);
        // What is not of the protocol says nothing for a connection.
        if !was_heard && outcome.as_ref().is_err_and(|cause| cause.reason == Reason::Protocol) {
            reader.member.clear(Member::HEARD);
        }
        if let Some(age) = age.filter(|_| reader.member.phase == Phase::Open) {
            self.opener.in_flight = self.opener.in_flight.saturating_sub(1);
            if reader.member.role != Role::Publisher {
                self.connect.record(age);
            }
            self.retry_after = Duration::ZERO;
        } else if let Some(seconds) = reader.retry_after {
            self.retry_after = Duration::from_secs(u64::from(seconds)).min(RETRY_AFTER_MAX);
        }
        outcome
    }
}

impl<P: Part> Reader<'_, P> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Cause> {
        if self.heard.client.is_call() {
            self.call(bytes)
        } else if self.member.phase != Phase::Greeting && self.heard.client.has_body() {
            self.unwrap_body(self.member.body(), bytes)
        } else {
            self.put(bytes)
        }
    }

    /// Takes the next bytes of a call, which may end.
    fn call(&mut self, bytes: &[u8]) -> Result<(), Cause> {
        let mut hearing = self.member.take_hearing(self.heard.client.speaks_on_call());
        let outcome = self.events(&mut hearing, bytes);
        hearing.credit(self.heard.answer);
        self.member.put_hearing(hearing);
        outcome
    }

    fn events(&mut self, hearing: &mut Hearing, mut bytes: &[u8]) -> Result<(), Cause> {
        let bytes_max = self.heard.client.message_bytes_max();
        while let Some(event) = hearing.next(&mut bytes, bytes_max, self.heard.answer).map_err(Broken::from)? {
            match event {
                Event::Message(message) => {
                    if let Some(payload) = self.heard.client.payload(message)? {
                        self.part.message(self.index, self.member, payload, &mut self.heard);
                    }
                }
                Event::Settings(_) | Event::Window { .. } => {
                    if let Some(speaking) = self.member.speaking() {
                        speaking.note(&event, self.heard.answer).map_err(Broken::from)?;
                    }
                }
                Event::Ping => self.heard.tally.add(Count::Pings, u64::from(self.member.role != Role::Publisher)),
                Event::Opened => self.open(),
                Event::GoAway => {}
                Event::Ended(outcome) => return Err(self.over(&outcome)),
            }
        }
        Ok(())
    }

    /// Why a call is over.
    fn over(&mut self, outcome: &Outcome) -> Cause {
        match outcome {
            Outcome::Status(code, _) if self.member.phase != Phase::Greeting => {
                Cause::closed(u16::try_from(*code).ok())
            }
            outcome => self.refused(outcome.into()),
        }
    }

    /// Takes the next bytes of a body, which may end.
    fn unwrap_body(&mut self, mut body: Body, mut bytes: &[u8]) -> Result<(), Cause> {
        loop {
            let piece = body.next(&mut bytes).map_err(Broken::from)?;
            if piece.is_empty() {
                break;
            }
            self.put(piece)?;
        }
        self.member.set_body(body);
        if body.is_over() { Err(Reason::Ended.into()) } else { Ok(()) }
    }

    /// Takes bytes of frames, behind those that have been kept.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Cause> {
        let Some(mut spill) = self.member.spill.take() else {
            let used = self.frames(bytes)?;
            let rest = bytes.get(used..).unwrap_or_default();
            if !rest.is_empty() {
                self.member.spill = Some(Box::new(Spill::Bytes(rest.to_vec())));
            }
            return Ok(());
        };
        let Spill::Bytes(kept) = &mut *spill else { return Ok(()) };
        kept.extend_from_slice(bytes);
        let used = self.frames(kept)?;
        if used < kept.len() {
            // No longer than the client allows: it has just looked at it.
            kept.drain(..used);
            self.member.spill = Some(spill);
        }
        Ok(())
    }

    /// Hands out whole frames, and returns how many bytes they were.
    fn frames(&mut self, bytes: &[u8]) -> Result<usize, Cause> {
        let mut used = 0;
        if self.member.phase == Phase::Greeting {
            let Some(welcome) = self.heard.client.open(bytes).map_err(|broken| self.refused(broken))? else {
                return Ok(0);
            };
            used = welcome.bytes;
            self.open();
            if let Some(body) = welcome.body {
                self.unwrap_body(body, bytes.get(used..).unwrap_or_default())?;
                return Ok(bytes.len());
            }
        }
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let Some((frame, length)) = self.heard.client.next(rest)? else {
                return Ok(used);
            };
            used += length;
            match frame {
                Frame::Message(payload) => self.part.message(self.index, self.member, payload, &mut self.heard),
                Frame::Event(event) => {
                    // What a stream begins with says where it stands, and is no message.
                    if let Some(data) = event.data().filter(|_| event.kind != Some(b"start")) {
                        self.part.message(self.index, self.member, &data, &mut self.heard);
                    }
                }
                Frame::Ping(payload) => {
                    self.heard.tally.add(Count::Pings, u64::from(self.member.role != Role::Publisher));
                    self.heard.client.pong(payload, self.heard.answer);
                }
                Frame::Comment => self.heard.tally.one(Count::Heartbeats),
                Frame::Pong | Frame::Blank => {}
                Frame::Close(code, _) => return Err(Cause::closed(code)),
            }
        }
    }

    fn refused(&mut self, broken: Broken) -> Cause {
        if let Broken::Declined { retry_after, .. } = broken {
            self.retry_after = retry_after;
        }
        broken.into()
    }

    fn open(&mut self) {
        self.member.phase = Phase::Open;
        if self.member.role == Role::Publisher {
            self.heard.tally.one(Count::Publishers);
            return;
        }
        self.heard.tally.one(Count::Open);
        self.heard.tally.one(Count::Opened);
        if self.member.role.stays() {
            self.heard.tally.one(Count::Standing);
        }
        self.part.opened(self.index, self.member, &mut self.heard);
    }
}
