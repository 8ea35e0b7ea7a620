//! Handshakes, as their shard has them: those that wait, for a step or for their peers, and what comes of steps.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::mem;

use rustls::ProtocolVersion;

use super::Tls;
use super::aside::{Failure, Place, Step, Taken, Thread};
use super::handshake::{Done, Progress, cause};
use super::record;
use super::session::{Session, Stage, Table};
use super::terms::Terms;
use crate::id::ConnId;
use crate::io::{Backend, Completion};
use crate::rule::TlsFailure;

/// A fatal `unexpected_message`, for whoever sends what rustls has no answer to.
const ALERT: [u8; 7] = [record::kind::ALERT, 3, 3, 0, 2, 2, 10];
/// For whoever speaks HTTP where TLS comes first.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 84\r\n\
Connection: close\r\n\r\n{\"error\":{\"code\":\"bad_request\",\"message\":\"this port speaks TLS: use https or wss\"}}\n";

impl<B: Backend> Tls<B> {
    /// Counts anew what a connection's handshake keeps, and ends handshakes while they keep too much together: those that have
    /// waited longest for their peers, of which most will never be done when somebody attacks. What waits for us is served in
    /// its turn, but nobody else is let in beside it.
    pub(super) fn weigh(&mut self, id: ConnId) {
        self.count_weight(id);
        // Whoever dials has begun them all.
        let most = self.terms.as_ref().map_or(usize::MAX, |terms| terms.handshake_bytes_max);
        while self.weight > most {
            let first = self.halves.pop_front().unwrap_or(id);
            self.end_half(first, TlsFailure::Crowded, ErrorKind::QuotaExceeded);
            if first == id {
                break;
            }
        }
        // Only now: nobody is to see more than may be.
        self.metrics.tls_handshake_bytes.set(self.weight as u64);
    }

    fn count_weight(&mut self, id: ConnId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let weight = session.handshake_bytes();
        let before = mem::replace(&mut session.weight, weight);
        self.weight = self.weight + weight as usize - before as usize;
    }

    /// Puts a handshake at the end of those that have waited for their peers, once, and those away that wait no more.
    fn waits_for_peer(&mut self, id: ConnId) {
        while let Some(&first) = self.halves.front()
            && self.sessions.get_mut(first).is_none_or(|session| !session.is_greeting())
        {
            self.halves.pop_front();
        }
        if let Some(session) = self.sessions.get_mut(id)
            && !session.has(Session::HALF)
        {
            session.set(Session::HALF);
            self.halves.push_back(id);
        }
    }

    /// Ends a handshake that has not come to its end.
    pub(super) fn give_up(&mut self, id: ConnId, cause: TlsFailure, kind: ErrorKind) {
        self.end_half(id, cause, kind);
        self.metrics.tls_handshake_bytes.set(self.weight as u64);
    }

    fn end_half(&mut self, id: ConnId, cause: TlsFailure, kind: ErrorKind) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.is_greeting() && !session.has(Session::CLOSING | Session::FAILED) {
            session.stage = Stage::Broken;
            session.input = Vec::new();
            session.set(Session::FAILED);
            self.metrics.count_tls_failure(cause);
            self.done.push_back(Completion::Failed(id, kind));
            self.count_weight(id);
        }
    }

    /// Goes on with handshakes whose steps have been taken, and sends those away that wait, as many as may be.
    pub(super) fn next_taken(&mut self) -> Option<Completion> {
        loop {
            let Place::Aside(thread) = &mut self.place else { return None };
            let Ok(taken) = thread.next() else {
                // With what was away: that is given up when its time is over.
                self.place = Place::Here;
                return None;
            };
            let taken = taken?;
            self.send_away();
            let told = self.taken(taken);
            if told.is_some() {
                return told;
            }
        }
    }

    /// Sends the steps away that wait, as many as may be.
    pub(super) fn send_away(&mut self) {
        if !self.waiting.is_empty() && matches!(self.place, Place::Unknown) {
            self.place = Thread::start(self.inner.waker()).map_or(Place::Here, Place::Aside);
        }
        while let Place::Aside(thread) = &mut self.place
            && thread.has_room()
            && let Some(step) = next_step(&mut self.waiting, &mut self.sessions, self.terms.as_deref())
        {
            if let Err(step) = thread.send(step) {
                self.place = Place::Here;
                let _ = self.taken(step.take());
            }
        }
    }

    /// Takes the first handshake that waits a step further, here.
    pub(super) fn step_next(&mut self) -> Option<Completion> {
        let step = next_step(&mut self.waiting, &mut self.sessions, self.terms.as_deref())?;
        let taken = step.take();
        self.ration = self.ration.saturating_sub(taken.took);
        self.taken(taken)
    }

    /// A step has been taken.
    fn taken(&mut self, taken: Taken) -> Option<Completion> {
        let Taken { id, result, input, mut out, took } = taken;
        self.metrics.tls_handshake_step_seconds.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let session = self.sessions.get_mut(id)?;
        if !matches!(session.stage, Stage::Away(_)) || session.has(Session::CLOSING | Session::FAILED) {
            session.take(Session::QUEUED);
            return None;
        }
        // What has come meanwhile.
        let late = mem::replace(&mut session.input, input);
        session.input.extend_from_slice(&late);
        match result {
            Ok(Progress::Waits(handshake)) => {
                session.stage = Stage::Greeting(Some(handshake));
                if late.is_empty() {
                    session.take(Session::QUEUED);
                } else {
                    self.waiting.push_back(id);
                }
                self.give_own(id, &out);
                let told = if late.is_empty() {
                    self.waits_for_peer(id);
                    self.greeting_waits(id)
                } else {
                    None
                };
                self.weigh(id);
                told
            }
            Ok(Progress::Done(done)) => {
                session.take(Session::QUEUED);
                self.give_own(id, &out);
                let told = self.greeted(id, *done);
                self.weigh(id);
                told
            }
            Err(failure) => {
                session.take(Session::QUEUED);
                self.not_greeted(id, &failure, &mut out);
                self.weigh(id);
                self.give_own(id, &out);
                None
            }
        }
    }

    fn greeting_waits(&mut self, id: ConnId) -> Option<Completion> {
        let session = self.sessions.get_mut(id)?;
        if session.take(Session::CUT) {
            return self.cut(id);
        }
        self.inner.resume(id);
        None
    }

    /// Both sides have their keys.
    fn greeted(&mut self, id: ConnId, done: Done) -> Option<Completion> {
        let (version, resumed) = (done.version, done.resumed);
        let traffic = match done.traffic(&mut self.ready) {
            Ok(traffic) => traffic,
            Err(error) => {
                let mut out = Vec::new();
                self.not_greeted(id, &Failure::Tls(error), &mut out);
                self.give_own(id, &out);
                return None;
            }
        };
        let session = self.sessions.get_mut(id)?;
        session.stage = Stage::Open(Box::new(traffic));
        self.metrics.tls_handshakes_total.add(1);
        self.metrics.tls12_handshakes_total.add(u64::from(version == ProtocolVersion::TLSv1_2));
        self.metrics.tls_resumptions_total.add(u64::from(resumed));
        let cut = session.take(Session::CUT);
        // What came with the end of the handshake.
        let input = mem::take(&mut session.input);
        let told = if input.is_empty() {
            None
        } else {
            self.own = input;
            self.open_own(id, false)
        };
        let session = self.sessions.get_mut(id)?;
        if !session.has(Session::ENDED | Session::FAILED) {
            if cut {
                session.set(Session::ENDED);
                session.input = Vec::new();
                self.metrics.tls_truncations_total.add(1);
                self.done.push_back(Completion::PeerClosed(id));
            } else if !session.has(Session::PAUSED) {
                self.inner.resume(id);
            }
        }
        let is_dialled = session.asks != 0;
        let (wants_room, shut) = (session.has(Session::WANTS_ROOM), session.has(Session::SHUT));
        if shut {
            self.say_goodbye(id);
        }
        if wants_room || shut {
            self.list(id);
        }
        if !is_dialled { told } else { self.welcomed(id, told) }
    }

    /// There will be no keys. The peer is told in `out`.
    pub(super) fn not_greeted(&mut self, id: ConnId, failure: &Failure, out: &mut Vec<u8>) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.stage = Stage::Broken;
        session.input = Vec::new();
        session.set(Session::FAILED);
        let (cause, why) = match failure {
            Failure::PlainHttp => {
                out.extend_from_slice(PLAIN_HTTP);
                (TlsFailure::PlainHttp, "HTTP without TLS".to_owned())
            }
            Failure::Tls(error) => {
                if out.is_empty() {
                    out.extend_from_slice(&ALERT);
                }
                (cause(error), error.to_string())
            }
        };
        self.done.push_back(Completion::Failed(id, ErrorKind::InvalidData));
        self.metrics.count_tls_failure(cause);
        if self.may_log() {
            tracing::info!(connection = %id.of(self.shard), cause = cause.label(), %why, "TLS handshake failed");
        }
    }
}

/// The next step of the first that waits and is still there.
fn next_step(waiting: &mut VecDeque<ConnId>, sessions: &mut Table, terms: Option<&Terms>) -> Option<Step> {
    loop {
        let id = waiting.pop_front()?;
        let Some(session) = sessions.get_mut(id) else { continue };
        if !session.has(Session::CLOSING | Session::FAILED) {
            return Some(Step::of(session, terms));
        }
        session.take(Session::QUEUED);
    }
}
