//! What can be seen while a swarm runs: counters of its threads, added up by whoever looks.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use crate::metrics::Counter;

/// What a thread of the swarm counts: the thread alone writes it.
///
/// Two lines of 64 bytes, because processors fetch lines in pairs: no other thread writes to them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counts {
    /// Connections dialled whose handshake is not complete (gauge).
    pub opening: Counter,
    /// Handshakes completed.
    pub opened: Counter,
    /// Connections that did not get that far.
    pub failed: Counter,
    /// Connections that are open now (gauge).
    pub alive: Counter,
    /// Open connections that ended without having been told to.
    pub lost: Counter,
    /// Heartbeats answered.
    pub pings: Counter,
    /// Messages sent.
    pub sent: Counter,
    /// Messages received.
    pub received: Counter,
    /// Bytes sent, headers of frames included.
    pub bytes_sent: Counter,
    /// Bytes received likewise.
    pub bytes_received: Counter,
}

/// What a swarm is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It prepares: threads, rings, a namespace, the server in it.
    #[default]
    Setup,
    /// Connections are opened.
    Open,
    /// They prove by data that they live.
    Check,
    /// They are held.
    Hold,
    /// It runs without being measured.
    WarmUp,
    /// It is measured.
    Measure,
    /// Late answers and deliveries are waited for.
    Settle,
    /// Connections are closed.
    Close,
    /// It is over.
    Done,
}

impl Phase {
    /// For people: `opening`, `holding`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Setup => "setting up",
            Self::Open => "opening",
            Self::Check => "checking",
            Self::Hold => "holding",
            Self::WarmUp => "warming up",
            Self::Measure => "measuring",
            Self::Settle => "settling",
            Self::Close => "closing",
            Self::Done => "done",
        }
    }
}

/// The counters of all threads, and the phase.
#[derive(Debug)]
pub struct Live {
    threads: Box<[Counts]>,
    stage: Mutex<Stage>,
}

/// A phase, and how far it is. Together, so that nobody sees the one of now and the other of before.
#[derive(Clone, Copy, Debug, Default)]
struct Stage {
    phase: Phase,
    done: u64,
    goal: u64,
}

/// The sums, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in Counts")]
pub struct Snapshot {
    pub phase: Phase,
    pub opening: u64,
    pub opened: u64,
    pub failed: u64,
    pub alive: u64,
    pub lost: u64,
    pub pings: u64,
    pub sent: u64,
    pub received: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub done: u64,
    pub goal: u64,
}

impl Live {
    /// For so many threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads: (0..threads).map(|_| Counts::default()).collect(), stage: Mutex::default() }
    }

    /// What this thread counts in; only it may write there.
    ///
    /// # Panics
    /// When there is no such thread.
    #[must_use]
    pub fn thread(&self, index: usize) -> &Counts {
        &self.threads[index]
    }

    /// Says what goes on from now on, by whoever leads the run. `goal` is how much of it there is to do, in the unit of
    /// [`Live::progress`]; 0 when nobody knows.
    pub fn enter(&self, phase: Phase, goal: u64) {
        *self.lock() = Stage { phase, done: 0, goal };
    }

    /// Says how far the phase is, by whoever leads the run: milliseconds of a time, or publications.
    pub fn advance(&self, done: u64) {
        self.lock().done = done;
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the phase is, and how far it goes (0: nobody knows).
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let stage = self.lock();
        (stage.done, stage.goal)
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// All of it now. The numbers may be some microseconds apart.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let sum = |counter: fn(&Counts) -> &Counter| self.threads.iter().map(|counts| counter(counts).get()).sum();
        let Stage { phase, done, goal } = *self.lock();
        Snapshot {
            phase,
            done,
            goal,
            opening: sum(|counts| &counts.opening),
            opened: sum(|counts| &counts.opened),
            failed: sum(|counts| &counts.failed),
            alive: sum(|counts| &counts.alive),
            lost: sum(|counts| &counts.lost),
            pings: sum(|counts| &counts.pings),
            sent: sum(|counts| &counts.sent),
            received: sum(|counts| &counts.received),
            bytes_sent: sum(|counts| &counts.bytes_sent),
            bytes_received: sum(|counts| &counts.bytes_received),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 9] = [
        Phase::Setup,
        Phase::Open,
        Phase::Check,
        Phase::Hold,
        Phase::WarmUp,
        Phase::Measure,
        Phase::Settle,
        Phase::Close,
        Phase::Done,
    ];

    #[test]
    fn threads_add_up() {
        let live = Live::new(3);
        for (index, opened) in [5, 7, 11].into_iter().enumerate() {
            live.thread(index).opened.add(opened);
            live.thread(index).alive.set(opened - 1);
        }
        let seen = live.snapshot();
        assert_eq!((seen.opened, seen.alive, seen.failed, seen.phase), (23, 20, 0, Phase::Setup));
    }

    #[test]
    fn every_phase_comes_back() {
        let live = Live::new(1);
        for phase in PHASES {
            live.enter(phase, 100);
            assert_eq!((live.phase(), live.progress()), (phase, (0, 100)));
            live.advance(40);
            let seen = live.snapshot();
            assert_eq!((seen.phase, seen.done, seen.goal), (phase, 40, 100));
        }
    }

    #[test]
    fn no_two_threads_share_a_line() {
        assert_eq!((size_of::<Counts>() % 128, align_of::<Counts>()), (0, 128));
    }
}
