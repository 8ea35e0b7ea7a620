//! The way up: handshakes go on with what comes, and records are opened.

use std::io::ErrorKind;
use std::mem;
use std::time::Instant;

use rustls::ProtocolVersion;

use super::handshake::{Done, Handshake, Progress, cause};
use super::keys::Ready;
use super::record::{self, Fault, HEADER};
use super::session::{Session, Stage};
use super::terms::Terms;
use super::traffic::{End, Opened};
use super::{Tls, drop_pending};
use crate::id::ConnId;
use crate::io::{Backend, Completion, Lease};
use crate::rule::TlsFailure;
use crate::time;

/// Bytes that may be pending of a peer that asks for answers and takes none.
const PENDING_MAX: usize = 256 * 1024;
/// A fatal `unexpected_message`, for whoever sends what rustls has no answer to.
const ALERT: [u8; 7] = [record::kind::ALERT, 3, 3, 0, 2, 2, 10];
/// For whoever speaks HTTP where TLS comes first.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 84\r\n\
Connection: close\r\n\r\n{\"error\":{\"code\":\"bad_request\",\"message\":\"this port speaks TLS: use https or wss\"}}\n";

/// Why a handshake ends without keys.
pub(super) enum Failure {
    /// The peer speaks HTTP.
    PlainHttp,
    Tls(rustls::Error),
}

impl Session {
    /// Takes the handshake as far as it goes.
    fn greet(&mut self, terms: Option<&Terms>, ready: &mut Ready, out: &mut Vec<u8>) -> Result<Progress, Failure> {
        let handshake = match mem::replace(&mut self.stage, Stage::Broken) {
            Stage::Greeting(Some(handshake)) => handshake,
            _ if self.http && self.input.first().is_some_and(u8::is_ascii_uppercase) => return Err(Failure::PlainHttp),
            _ => {
                let config = terms.map(|terms| if self.http { &terms.http } else { &terms.raw });
                let config = config.ok_or_else(|| rustls::Error::General("no terms".to_owned()));
                config.and_then(|config| Handshake::new(config.clone())).map_err(Failure::Tls)?
            }
        };
        let progress = handshake.step(&mut self.input, ready, out).map_err(Failure::Tls)?;
        if self.input.capacity() > 2 * self.input.len() {
            self.input.shrink_to_fit();
        }
        Ok(progress)
    }
}

impl<B: Backend> Tls<B> {
    /// Bytes of a connection that speaks TLS.
    pub(super) fn received(&mut self, id: ConnId, lease: Lease) -> Option<Completion> {
        let session = self.sessions.get_mut(id)?;
        if session.has(Session::CLOSING | Session::ENDED | Session::FAILED) {
            self.inner.release(lease);
            return None;
        }
        match session.stage {
            Stage::Open(_) if session.input.is_empty() => self.open_in_place(id, lease),
            Stage::Open(_) => self.open_joined(id, lease),
            Stage::Broken | Stage::Dialled => {
                self.inner.release(lease);
                None
            }
            Stage::Silent | Stage::Greeting(_) => {
                session.input.extend_from_slice(self.inner.bytes(&lease));
                if matches!(session.stage, Stage::Silent) {
                    session.stage = Stage::Greeting(None);
                }
                let queued = session.has(Session::QUEUED);
                session.set(Session::QUEUED);
                self.inner.release(lease);
                if !queued {
                    self.inner.pause(id);
                    self.waiting.push_back(id);
                }
                self.weigh(id);
                self.make_room(id);
                None
            }
        }
    }

    /// Opens the records of a lease where they are.
    fn open_in_place(&mut self, id: ConnId, lease: Lease) -> Option<Completion> {
        let start = self.batch.bytes().len();
        let session = self.sessions.get_mut(id)?;
        let Stage::Open(traffic) = &mut session.stage else { return None };
        let bytes = self.inner.bytes(&lease);
        let opened = traffic.open(&mut self.ready, bytes, self.batch.bytes());
        if opened.end.is_none() {
            keep(&mut session.input, &bytes[opened.consumed..]);
        }
        let told = text_of(&opened, lease.buffer, lease.more).map(|text| Completion::Received(id, text));
        if told.is_some() {
            self.lent = Some(lease);
        } else {
            self.inner.release(lease);
        }
        self.opened(id, &opened, start);
        told
    }

    /// Opens the records of a lease together with the beginning of the first, which came before.
    fn open_joined(&mut self, id: ConnId, lease: Lease) -> Option<Completion> {
        let session = self.sessions.get_mut(id)?;
        let bytes = self.inner.bytes(&lease);
        let have = session.input.len() + bytes.len();
        if let Ok(Some(len)) = record::length(&session.input)
            && len > have
        {
            session.input.reserve_exact(len - session.input.len());
            session.input.extend_from_slice(bytes);
            self.inner.release(lease);
            return None;
        }
        self.own.clear();
        self.own.extend_from_slice(&session.input);
        self.own.extend_from_slice(bytes);
        session.input = Vec::new();
        let more = lease.more;
        self.inner.release(lease);
        self.open_own(id, more)
    }

    /// Opens the records in our own buffer.
    fn open_own(&mut self, id: ConnId, more: bool) -> Option<Completion> {
        let start = self.batch.bytes().len();
        let session = self.sessions.get_mut(id)?;
        let Stage::Open(traffic) = &mut session.stage else { return None };
        let opened = traffic.open(&mut self.ready, &mut self.own, self.batch.bytes());
        if opened.end.is_none() {
            keep(&mut session.input, &self.own[opened.consumed..]);
        }
        let told = text_of(&opened, Self::OWN, more).map(|text| Completion::Received(id, text));
        self.opened(id, &opened, start);
        told
    }

    /// Sends answers to records that were no data, and ends what they ended.
    fn opened(&mut self, id: ConnId, opened: &Opened, start: usize) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let mut end = opened.end;
        if end.is_none() && session.pending.len() > PENDING_MAX {
            end = Some(End::Fault(Fault::Flood));
        }
        if let (Some(End::Fault(fault)), Stage::Open(traffic)) = (end, &mut session.stage) {
            traffic.seal_alert(&mut self.ready, fault, self.batch.bytes());
        }
        // Behind our good-bye nothing is said, and behind that of the transport nothing can be.
        if session.has(Session::NOTIFIED) {
            self.batch.bytes().truncate(start);
        }
        match end {
            None => {}
            Some(End::CloseNotify) => {
                session.set(Session::ENDED);
                self.done.push_back(Completion::PeerClosed(id));
            }
            Some(End::Alert(_) | End::Fault(_)) => {
                session.stage = Stage::Broken;
                session.set(Session::FAILED);
                let kind = if matches!(end, Some(End::Alert(_))) {
                    ErrorKind::ConnectionAborted
                } else {
                    ErrorKind::InvalidData
                };
                self.done.push_back(Completion::Failed(id, kind));
                self.metrics.tls_faults_total.add(1);
                if self.may_log() {
                    tracing::info!(connection = %id.of(self.shard), ?end, "TLS ended by a fault");
                }
            }
        }
        self.give(id, start, None);
    }

    /// The peer has ended the transport.
    pub(super) fn cut(&mut self, id: ConnId) -> Option<Completion> {
        let session = self.sessions.get_mut(id)?;
        if session.has(Session::CLOSING | Session::ENDED | Session::FAILED) {
            return None;
        }
        if session.has(Session::QUEUED) {
            session.set(Session::CUT);
            return None;
        }
        session.set(Session::ENDED);
        match session.stage {
            Stage::Open(_) => self.metrics.tls_truncations_total.add(1),
            Stage::Greeting(_) => self.metrics.count_tls_failure(TlsFailure::Cut),
            // Who only looks whether somebody listens has begun nothing.
            Stage::Silent | Stage::Broken | Stage::Dialled => {}
        }
        session.input = Vec::new();
        self.weigh(id);
        Some(Completion::PeerClosed(id))
    }

    /// The transport is broken.
    pub(super) fn failed(&mut self, id: ConnId, kind: ErrorKind) -> Option<Completion> {
        let session = self.sessions.get_mut(id)?;
        session.set(Session::DEAD);
        drop_pending(session, &self.metrics);
        if session.has(Session::CLOSING) {
            self.sever(id);
            return None;
        }
        if session.has(Session::FAILED) {
            return None;
        }
        session.set(Session::FAILED);
        if matches!(session.stage, Stage::Greeting(_)) {
            self.metrics.count_tls_failure(TlsFailure::Cut);
        }
        session.stage = Stage::Broken;
        self.weigh(id);
        Some(Completion::Failed(id, kind))
    }

    /// Counts anew what a connection's handshake keeps.
    pub(super) fn weigh(&mut self, id: ConnId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let weight = session.handshake_bytes();
        let before = mem::replace(&mut session.weight, weight);
        self.weight = self.weight + weight as usize - before as usize;
        self.metrics.tls_handshake_bytes.set(self.weight as u64);
    }

    /// Ends handshakes while they keep too much together: those that have waited longest for their peers, of which most will
    /// never be done when somebody attacks. What waits for us is served in its turn, but nobody else is let in beside it.
    fn make_room(&mut self, newest: ConnId) {
        // Whoever dials has begun them all.
        let most = self.terms.as_ref().map_or(usize::MAX, |terms| terms.handshake_bytes_max);
        while self.weight > most {
            let id = self.halves.pop_front().unwrap_or(newest);
            self.give_up(id, TlsFailure::Crowded, ErrorKind::QuotaExceeded);
            if id == newest {
                break;
            }
        }
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
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.is_greeting() && !session.has(Session::CLOSING | Session::FAILED) {
            session.stage = Stage::Broken;
            session.input = Vec::new();
            session.set(Session::FAILED);
            self.metrics.count_tls_failure(cause);
            self.done.push_back(Completion::Failed(id, kind));
            self.weigh(id);
        }
    }

    /// Takes the first handshake that waits a step further.
    pub(super) fn step_next(&mut self) -> Option<Completion> {
        let id = self.waiting.pop_front()?;
        let began = Instant::now();
        let told = self.step(id);
        let took = began.elapsed();
        self.ration = self.ration.saturating_sub(took);
        self.metrics.tls_handshake_step_seconds.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        told
    }

    fn step(&mut self, id: ConnId) -> Option<Completion> {
        let (session, terms) = (self.sessions.get_mut(id)?, self.terms.as_deref());
        session.take(Session::QUEUED);
        if session.has(Session::CLOSING | Session::FAILED) {
            return None;
        }
        let mut out = Vec::new();
        match session.greet(terms, &mut self.ready, &mut out) {
            Ok(Progress::Waits(handshake)) => {
                session.stage = Stage::Greeting(Some(handshake));
                self.give_own(id, &out);
                self.weigh(id);
                self.waits_for_peer(id);
                let told = self.greeting_waits(id);
                self.make_room(id);
                told
            }
            Ok(Progress::Done(done)) => {
                self.give_own(id, &out);
                let told = self.greeted(id, done);
                self.weigh(id);
                told
            }
            Err(failure) => {
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
        let Done { traffic, version, resumed } = done;
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

    /// Whether a line that a peer brought about may be written now; counts it if not.
    pub(super) fn may_log(&mut self) -> bool {
        let nanos = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let permitted = self.log.take(time::Instant::from_nanos(nanos));
        self.metrics.log_lines_suppressed_total.add(u64::from(!permitted));
        permitted
    }
}

/// Keeps the beginning of a record, in as much memory as all of it takes.
fn keep(input: &mut Vec<u8>, rest: &[u8]) {
    if rest.is_empty() {
        return;
    }
    let len = record::length(rest).ok().flatten().unwrap_or(HEADER);
    input.reserve_exact(len.max(rest.len()));
    input.extend_from_slice(rest);
}

/// The lease for what was opened, if it is anything.
fn text_of(opened: &Opened, buffer: u32, more: bool) -> Option<Lease> {
    let start = u32::try_from(opened.text.start).ok()?;
    let len = u32::try_from(opened.text.len()).ok().filter(|&len| len > 0)?;
    Some(Lease { buffer, start, len, more })
}
