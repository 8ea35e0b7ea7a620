//! One ring: its queues, its table of direct descriptors, and its group of buffers.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

use super::buffers::BufferRing;
use super::probe::{self, Missing};
use super::request::Done;

/// Submissions per system call at most. More would save little: an empty call costs about 0.2 µs.
const SUBMISSIONS: u32 = 512;
/// A burst of completions. The kernel queues what is over, in slower memory; nothing is lost.
const COMPLETIONS: u32 = 4096;
/// How often a submission is tried again when the kernel is short of memory.
const TRIES: u32 = 100;

/// The builder with the flags that this backend lives by.
pub(super) fn builder(no_sqarray: bool) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun().setup_taskrun_flag();
    builder.setup_submit_all().setup_clamp().setup_cqsize(COMPLETIONS);
    if no_sqarray {
        builder.setup_no_sqarray();
    }
    builder
}

/// A ring with as much as this kernel offers.
pub(super) fn build() -> io::Result<IoUring> {
    match builder(true).build(SUBMISSIONS) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder(false).build(SUBMISSIONS),
        ring => ring,
    }
}

/// One ring.
pub(super) struct Ring {
    /// Before the buffers, so that it is dropped before them.
    io: IoUring,
    pub(super) buffers: Option<BufferRing>,
    /// Size of the table of direct descriptors.
    pub(super) slots: u32,
    /// Slots with a connection in them.
    pub(super) used: u32,
    /// Slots that accepts which are out may fill.
    pub(super) reserved: u32,
    /// Whether it is on the list of rings with something to submit.
    pub(super) listed: bool,
    /// Who fills its slots, from the first one on.
    pub(super) filler: Option<Filler>,
    /// Slots below this one have been dialled into.
    dialled: u32,
    /// Those of them that are free again.
    again: Vec<u32>,
}

/// Who fills the slots of a ring. The kernel chooses the slots of what it accepts, we choose those that we dial into,
/// and neither knows of the other's: so a ring is for the one or for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filler {
    /// Listeners.
    Accepts,
    /// Dialling.
    Dials,
}

impl Ring {
    /// A ring with an empty table; `kick`, if given, is signalled when it has completions.
    pub(super) fn new(slots: u32, kick: Option<RawFd>) -> io::Result<Self> {
        let io = build()?;
        io.submitter().register_files_sparse(slots)?;
        if let Some(kick) = kick {
            io.submitter().register_eventfd(kick)?;
        }
        // Only shutdowns run on the kernel's worker threads; two are plenty, and the default is "as many as you like".
        // A kernel that does not know this (before 5.15) has failed the probe.
        io.submitter().register_iowq_max_workers(&mut [1, 2])?;
        let (filler, again) = (None, Vec::new());
        Ok(Self { io, buffers: None, slots, used: 0, reserved: 0, listed: false, filler, dialled: 0, again })
    }

    /// Slots that nobody has and nobody may get.
    pub(super) const fn free(&self) -> u32 {
        self.slots.saturating_sub(self.used + self.reserved)
    }

    /// Whether `filler` may put a connection into it.
    pub(super) fn has_room_for(&self, filler: Filler) -> bool {
        self.free() > 0 && self.filler.is_none_or(|it| it == filler)
    }

    /// A slot to dial into, used last, first.
    pub(super) fn take_slot(&mut self) -> Option<u32> {
        if !self.has_room_for(Filler::Dials) {
            return None;
        }
        let slot = self.again.pop().unwrap_or(self.dialled);
        self.dialled = self.dialled.max(slot + 1);
        self.filler = Some(Filler::Dials);
        self.used += 1;
        Some(slot)
    }

    /// A slot is empty again.
    pub(super) fn give_slot(&mut self, slot: u32) {
        self.used = self.used.saturating_sub(1);
        if self.filler == Some(Filler::Dials) {
            debug_assert!(slot < self.dialled, "it was taken");
            self.again.push(slot);
        }
    }

    /// Whether it can bind, which only planned sources need.
    pub(super) fn can_bind(&self) -> Result<(), Missing> {
        probe::bind(&self.io)
    }

    /// Makes sure that `count` requests go into one submission.
    pub(super) fn make_room(&mut self, count: usize) -> io::Result<()> {
        let queue = self.io.submission();
        let room = queue.capacity() - queue.len();
        drop(queue);
        if room < count { self.submit(false) } else { Ok(()) }
    }

    /// Queues a request. When the queue is full, what is in it is submitted first.
    ///
    /// # Safety
    /// Memory that the request points to must stay valid, and in nobody's hands if the kernel writes to it, until the
    /// request completes; for a request that cannot wait (a send or receive with MSG_DONTWAIT) until it is submitted.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise.
        while unsafe { self.io.submission().push(entry) }.is_err() {
            self.submit(false)?;
        }
        Ok(())
    }

    /// Submits all that is queued. `reap` also runs the work that the kernel has deferred, so that its completions
    /// can be seen.
    pub(super) fn submit(&mut self, reap: bool) -> io::Result<()> {
        let flags = if reap { EnterFlags::GETEVENTS.bits() } else { 0 };
        for _ in 0..TRIES {
            let queued = u32::try_from(self.io.submission().len()).unwrap_or(u32::MAX);
            // SAFETY: no argument is passed, so there is none to be wrong.
            let entered = unsafe { self.io.submitter().enter::<libc::sigset_t>(queued, 0, flags, None) };
            match entered {
                Ok(_) if self.io.submission().is_empty() => return Ok(()),
                Ok(_) => {}
                Err(error) if passes(&error) => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        if self.io.submission().is_empty() { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
    }

    /// Submits all that is queued and waits for a completion, for `timeout` at most.
    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let waited = match timeout {
            None => self.io.submit_and_wait(1),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                self.io.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
            }
        };
        match waited {
            Err(error) if passes(&error) || error.raw_os_error() == Some(libc::ETIME) => Ok(()),
            waited => waited.map(drop),
        }
    }

    /// Whether the kernel has deferred work or completions that do not fit: enter it to see them.
    pub(super) fn has_deferred(&mut self) -> bool {
        let queue = self.io.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether completions are there now.
    pub(super) fn has_done(&mut self) -> bool {
        !self.io.completion().is_empty()
    }

    /// Takes completions out, as many as fit.
    pub(super) fn take(&mut self, into: &mut Batch) {
        let entries = self.io.completion().fill(&mut into.raw).len();
        into.len = entries;
    }

    /// Registers the group of buffers for multishot receives, once.
    pub(super) fn with_buffers(&mut self) -> io::Result<()> {
        if self.buffers.is_some() {
            return Ok(());
        }
        let buffers = BufferRing::new()?;
        let (address, count) = (buffers.address(), BufferRing::COUNT);
        // SAFETY: the memory has `count` entries, lies in this ring until both are dropped, and the ring goes first.
        unsafe { self.io.submitter().register_buf_ring_with_flags(address, count, BufferRing::GROUP, 0) }?;
        self.buffers = Some(buffers);
        Ok(())
    }
}

/// Whether to try again: a signal came, or the kernel is short of memory or has completions to get rid of first.
fn passes(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// Completions copied out of a ring, so that they can be handled while requests are queued.
pub(super) struct Batch {
    raw: [MaybeUninit<cqueue::Entry>; Self::MAX],
    len: usize,
}

impl Batch {
    const MAX: usize = 64;

    pub(super) const fn new() -> Self {
        Self { raw: [const { MaybeUninit::uninit() }; Self::MAX], len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, index: usize) -> Done {
        assert!(index < self.len, "inside the batch");
        // SAFETY: the first `len` entries were written by the last `take`.
        Done::new(unsafe { self.raw[index].assume_init_ref() })
    }
}
