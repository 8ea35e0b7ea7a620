//! The way up: what comes waits for a step of its handshake, or is opened.

use std::io::ErrorKind;

use super::record::{self, Fault, HEADER};
use super::session::{Session, Stage};
use super::traffic::{End, Opened};
use super::{Tls, drop_pending};
use crate::id::ConnId;
use crate::io::{Backend, Completion, Lease};
use crate::rule::TlsFailure;
use crate::time;

/// Bytes that may be pending of a peer that asks for answers and takes none.
const PENDING_MAX: usize = 256 * 1024;

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
            Stage::Silent | Stage::Greeting(_) | Stage::Away(_) => {
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
    pub(super) fn open_own(&mut self, id: ConnId, more: bool) -> Option<Completion> {
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
            Stage::Greeting(_) | Stage::Away(_) => self.metrics.count_tls_failure(TlsFailure::Cut),
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
        if matches!(session.stage, Stage::Greeting(_) | Stage::Away(_)) {
            self.metrics.count_tls_failure(TlsFailure::Cut);
        }
        session.stage = Stage::Broken;
        self.weigh(id);
        Some(Completion::Failed(id, kind))
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
