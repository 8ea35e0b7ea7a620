//! The few system calls that no safe crate offers: eventfd, anonymous memory that the kernel may write to, limits, how
//! urgent a thread is.

#![allow(unsafe_code, reason = "system calls; each block says why it is sound")]

pub(crate) mod network;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::io::Wake;

/// An eventfd: a counter that can be waited for.
#[derive(Debug)]
pub(crate) struct Eventfd(File);

impl Eventfd {
    /// A new one at zero, non-blocking.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is used.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is fresh and nobody else owns it.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Back to zero.
    pub(crate) fn drain(&self) {
        let _ = (&self.0).read(&mut [0; 8]);
    }
}

impl AsRawFd for Eventfd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Eventfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wake for Eventfd {
    fn wake(&self) {
        // Fails only when the counter is at its limit, and then it is readable anyway.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }
}

/// Zeroed memory of whole pages that never moves and costs nothing until it is touched. It is reached through raw
/// pointers only, so that the kernel may write to parts that nobody has borrowed.
#[derive(Debug)]
pub(crate) struct Region {
    start: NonNull<u8>,
    len: usize,
}

impl Region {
    /// `len` bytes, at least one.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let (read_write, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping touches no memory that exists; the result is checked.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, read_write, private, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).map(|start| Self { start, len }).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// The first byte.
    pub(crate) const fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// A pointer to `len` bytes from `start` on.
    ///
    /// # Panics
    /// When they are not all inside.
    pub(crate) fn at(&self, start: usize, len: usize) -> *mut u8 {
        assert!(start <= self.len && len <= self.len - start, "inside the region");
        // SAFETY: `start` is inside the mapping or one past its end, checked above.
        unsafe { self.start.as_ptr().add(start) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, has this length, and its owner gives up all pointers with it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Takes the descriptors from 3 on that whoever started this process has passed to it, so many of those that are open, and
/// keeps them from its children. The second time there are none.
pub(crate) fn take_passed(count: usize) -> Vec<OwnedFd> {
    const FIRST: RawFd = 3;
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Vec::new();
    }
    let numbers = (FIRST..).take(count);
    // SAFETY: no pointers; it fails for a number that is no open descriptor.
    let is_open = |number: &RawFd| unsafe { libc::fcntl(*number, libc::F_SETFD, libc::FD_CLOEXEC) } >= 0;
    // SAFETY: it is open, its number was passed for this process to own, and that is believed once.
    numbers.take_while(is_open).map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect()
}

/// The soft limit on descriptors, RLIMIT_NOFILE.
pub(crate) fn descriptors_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer and outlives the call.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if done == 0 { limit.rlim_cur } else { 1024 }
}

/// CPU time used so far by all threads of a process, dead ones included, to the nanosecond.
pub(crate) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // No process has a higher number (PID_MAX_LIMIT), and in a clock's number higher ones are cut off.
    if pid > 1 << 22 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: the call writes one plain value that outlives it.
    match unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) } {
        0 => {}
        errno => return Err(io::Error::from_raw_os_error(errno)),
    }
    // SAFETY: the same.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Ok(Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos))
}

/// Puts the calling thread behind all others of the process: it takes what they leave of a core. Where one of them leaves
/// nothing it still gets on, by a fiftieth of the core or so. Fails where a sandbox forbids it.
///
/// What an EEVDF scheduler (Linux 6.6) owes to a thread it pays before it lets one run that has just woken up, so the share
/// has to be small: with a tenth a shard waited for a third of a millisecond now and then. Short slices of their own for the
/// shards (Linux 6.12) are no help: they waited for milliseconds then.
pub(crate) fn stand_back() -> io::Result<()> {
    const NICEST: i32 = 19;
    let wanted = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0),
        // It does not preempt whoever runs when it has something to do.
        sched_policy: libc::SCHED_BATCH.unsigned_abs(),
        sched_flags: 0,
        sched_nice: NICEST,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes of a plain value as that says it has; 0 is the calling thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
