//! What a turn does with the rings: submits what is queued, handles what is complete, and sleeps in the primary one.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::request::{self, Done, Kind};
use super::ring::Batch;
use super::{PRIMARY, Uring};
use crate::io::Completion;

/// System calls for one ring's deferred work in a row.
const REAPS_MAX: u32 = 64;

impl Uring {
    /// Waits for the next signal of an eventfd.
    pub(super) fn poll_eventfd(&mut self, kind: Kind) {
        let eventfd = if kind == Kind::Kick { &self.kick } else { &*self.doorbell };
        // Emptied first: a signal from here on is seen by the new poll, one from before is being answered.
        eventfd.drain();
        let fd = eventfd.as_raw_fd();
        self.push(PRIMARY, &request::poll_eventfd(fd, kind));
    }

    /// Queues a request. All memory that requests point to is the backend's, see the module's invariants.
    pub(super) fn push(&mut self, ring: usize, entry: &io_uring::squeue::Entry) {
        if !self.rings[ring].listed {
            self.rings[ring].listed = true;
            self.listed.push(ring);
        }
        // SAFETY: requests are built in `request` with pointers to a static, to scratch memory that nobody has on loan,
        // to a place for an address that is free again with the request, to the arena, or to shared bytes in `held`. The
        // last two are given up after a submission only.
        if let Err(error) = unsafe { self.rings[ring].push(entry) } {
            self.broken = Some(error.kind());
        }
    }

    /// Submits what is queued in each ring, and handles what completes.
    pub(super) fn submit_all(&mut self) {
        let mut listed = std::mem::take(&mut self.listed);
        for &ring in &listed {
            self.rings[ring].listed = false;
            self.reap(ring);
        }
        listed.clear();
        if self.listed.is_empty() {
            self.listed = listed;
        }
        if self.broken.is_none() {
            self.arena.reset();
            self.held.clear();
        }
    }

    /// One system call for one ring: submits, runs deferred work, and handles what has completed.
    pub(super) fn reap(&mut self, ring: usize) {
        if let Err(error) = self.rings[ring].submit(true) {
            self.broken = Some(error.kind());
        }
        self.absorb(ring);
        if ring == PRIMARY {
            self.fresh = true;
        } else if self.rings[ring].has_deferred() {
            self.kicked = true;
        }
    }

    /// Handles the completions that a ring has now.
    pub(super) fn absorb(&mut self, ring: usize) {
        let mut batch = Batch::new();
        loop {
            self.rings[ring].take(&mut batch);
            if batch.len() == 0 {
                return;
            }
            for index in 0..batch.len() {
                self.handle(ring, &batch.get(index));
            }
        }
    }

    pub(super) fn handle(&mut self, ring: usize, done: &Done) {
        match done.kind {
            Kind::Ignored => {}
            Kind::Poll => self.on_poll(done),
            Kind::Recv => self.on_recv(done),
            Kind::Multi => self.on_multi(ring, done),
            Kind::PollOut => self.on_poll_out(done),
            Kind::Send | Kind::SendPart => self.on_send(done),
            Kind::Accept | Kind::AcceptOne => self.on_accept(ring, done),
            Kind::Peer => self.on_peer(done),
            Kind::CancelAccept => self.on_cancel_accept(done),
            Kind::CancelPoll | Kind::CancelMulti | Kind::CancelPollOut | Kind::CancelDial => {
                self.missed.push((done.kind, done.id()));
            }
            Kind::Shutdown => self.on_shutdown(done),
            Kind::Close => self.on_close(ring, done),
            Kind::Refuse => self.freed(ring, u32::try_from(done.about).unwrap_or(0)),
            Kind::DialSocket | Kind::DialBind | Kind::Dial => self.on_dial(done),
            Kind::Doorbell | Kind::Kick => {
                let flag = if done.kind == Kind::Kick { &mut self.kicked } else { &mut self.rung };
                *flag = true;
                if !done.more() {
                    self.poll_eventfd(done.kind);
                }
            }
        }
    }

    /// Enters the rings other than the primary that have work.
    pub(super) fn answer_kick(&mut self) {
        if !std::mem::take(&mut self.kicked) {
            return;
        }
        for ring in 1..self.rings.len() {
            let mut reaps = 0;
            while self.rings[ring].has_deferred() || self.rings[ring].has_done() {
                self.reap(ring);
                reaps += 1;
                if reaps == REAPS_MAX {
                    self.kicked = true;
                    break;
                }
            }
        }
    }

    /// Whether a wait is over.
    pub(super) fn has_news(&self) -> bool {
        self.rung || !self.done.is_empty()
    }

    /// Everything that needs no sleep. True when there is something to tell.
    pub(super) fn work(&mut self) -> bool {
        self.answer_kick();
        let news = self.has_news();
        if !news || !self.flushed {
            self.service();
            self.balance();
        }
        // What is queued in the primary ring is submitted when it sleeps.
        if !self.listed.is_empty() && (news && !self.flushed || self.others_listed()) {
            self.submit_all();
        }
        // With news at every wait and nothing to send, the kernel must be entered all the same.
        if news && !self.fresh && self.rings[PRIMARY].has_deferred() {
            self.reap(PRIMARY);
        }
        self.flushed = false;
        self.fresh = false;
        self.has_news()
    }

    /// Whether another ring than the primary has something to submit.
    pub(super) fn others_listed(&self) -> bool {
        self.listed.iter().any(|&ring| ring != PRIMARY)
    }

    /// Sleeps in the primary ring until something completes there.
    pub(super) fn sleep(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        let accept = self.accept_deadline();
        let deadline = deadline.map_or(accept, |deadline| Some(accept.map_or(deadline, |accept| accept.min(deadline))));
        let mut timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if self.kicked || self.others_listed() || !self.missed.is_empty() {
            timeout = Some(Duration::ZERO);
        }
        self.listed.retain(|&ring| ring != PRIMARY);
        self.rings[PRIMARY].listed = false;
        self.rings[PRIMARY].submit_and_wait(timeout)?;
        self.absorb(PRIMARY);
        Ok(())
    }

    /// Receives for those who still stand in the line for a buffer: how much a shard can read in a turn must not depend on
    /// how often it waits. Whether that brought anything.
    pub(super) fn refill(&mut self) -> bool {
        if !self.has_turns() || self.broken.is_some() {
            return false;
        }
        self.service();
        self.submit_all();
        !self.done.is_empty()
    }

    /// Whether a completion that waited in the queue is still of interest; what it holds is given back if not.
    pub(super) fn keeps(&mut self, completion: &Completion) -> bool {
        let (Completion::Received(id, _)
        | Completion::PeerClosed(id)
        | Completion::Writable(id)
        | Completion::Failed(id, _)) = completion
        else {
            return true;
        };
        self.table.open(*id).is_some()
    }
}
