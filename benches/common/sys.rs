//! Cores, clocks and memory of this process and of others, read from the kernel.

use std::fs;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Binds the calling thread, and every thread and process it starts from now on, to one core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is a plain bit set; the kernel reads size_of bytes of it.
    let status = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &set)
    };
    check(status).map(drop)
}

/// Allows the calling thread all cores again.
pub(crate) fn unpin() -> io::Result<()> {
    // SAFETY: as in `pin`; the kernel leaves out cores that are not there.
    let status = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        (0..libc::CPU_SETSIZE as usize).for_each(|core| libc::CPU_SET(core, &mut set));
        libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &set)
    };
    check(status).map(drop)
}

/// Has a program that will be started told to end (SIGTERM) when the thread that starts it ends.
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl takes two integers and touches no memory: it may run between fork and exec.
    unsafe {
        command.pre_exec(|| check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM)).map(drop));
    }
}

/// Asks a child of this process to end.
pub(crate) fn terminate(child: u32) {
    // SAFETY: takes two integers, touches no memory.
    unsafe { libc::kill(child.cast_signed(), libc::SIGTERM) };
}

/// Puts the calling thread before others where that is allowed.
pub(crate) fn raise_priority(nice: i32) {
    // SAFETY: takes integers, touches no memory; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// Has the kernel note when bytes arrive at a socket, for [`receive_stamped`].
pub(crate) fn stamp_arrivals(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(mem::size_of_val(&on)).unwrap_or(0);
    // SAFETY: the kernel reads one integer, which outlives the call.
    let status = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, (&raw const on).cast(), length)
    };
    check(status).map(drop)
}

/// Receives, and says when the last of the bytes arrived at this machine's socket, since 1970.
pub(crate) fn receive_stamped(socket: &impl AsRawFd, bytes: &mut [u8]) -> io::Result<(usize, Option<Duration>)> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = [0_u64; 8];
    // SAFETY: a message header is plain numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), mem::size_of_val(&control));
    // SAFETY: the header points to a buffer and to room for control messages that outlive the call.
    let read = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled the header in; the first control message lies in `control`, or there is none.
    let stamp = unsafe {
        libc::CMSG_FIRSTHDR(&raw const message).as_ref().filter(|first| first.cmsg_type == libc::SCM_TIMESTAMPNS).map(
            |first| {
                let time: libc::timespec = libc::CMSG_DATA(first).cast::<libc::timespec>().read_unaligned();
                Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
            },
        )
    };
    Ok((read, stamp))
}

/// Moves the calling thread into the network namespace of a process.
pub(crate) fn enter_namespace(pid: u32) -> io::Result<()> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?;
    // SAFETY: the descriptor is open, the call touches no memory.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// CPU time used so far by all threads of a process, dead ones included, to the nanosecond.
pub(crate) fn cpu_time(pid: u32) -> io::Result<Duration> {
    holdline::swarm::usage::cpu_time(pid)
}

/// User and system ticks of a process, from `/proc/PID/stat`: too coarse for a sum, good enough for the split.
pub(crate) fn cpu_ticks(pid: u32) -> io::Result<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses and may hold spaces; user and system are fields 14 and 15.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_whitespace().skip(11).map(|field| field.parse().unwrap_or(0));
    Ok((fields.next().unwrap_or(0), fields.next().unwrap_or(0)))
}

/// User memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Private pages without a file behind them: heap, stacks, anonymous mappings.
    pub(crate) anonymous: u64,
    /// Shared pages without a file: where some allocators and rings live.
    pub(crate) shared: u64,
    /// Private pages that were written: anonymous ones and the written parts of the program's image.
    pub(crate) private_dirty: u64,
}

impl Memory {
    /// Reads `/proc/PID/status` and `/proc/PID/smaps_rollup`.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        Ok(Self {
            anonymous: kilobytes(&status, "RssAnon:"),
            shared: kilobytes(&status, "RssShmem:"),
            private_dirty: kilobytes(&rollup, "Private_Dirty:"),
        })
    }

    /// What a reader would call "its memory": the larger of the two ways to count private pages, and the shared ones.
    pub(crate) fn total(self) -> u64 {
        self.anonymous.max(self.private_dirty) + self.shared
    }
}

fn kilobytes(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Bytes of the kernel's slab caches and of TCP's buffers: what connections cost beside user memory.
pub(crate) fn kernel_memory() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kilobytes(&meminfo, "Slab:")
}

/// Has the kernel write what it has not written yet: unwritten pages of a program that was just built look like its own
/// memory.
pub(crate) fn sync() {
    // SAFETY: takes nothing, touches no memory.
    unsafe { libc::sync() };
}

/// Bytes that programs can still have without swapping.
pub(crate) fn available_memory() -> u64 {
    kilobytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable:")
}

/// Bytes of the whole machine.
pub(crate) fn total_memory() -> u64 {
    kilobytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:")
}

/// Private and shared pages without a file of a process, without the walk over all mappings that [`Memory::of`] does
/// and that holds the process up.
pub(crate) fn quick_memory(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(kilobytes(&status, "RssAnon:") + kilobytes(&status, "RssShmem:"))
}

/// A child process of a process.
pub(crate) fn child_of(parent: u32) -> io::Result<Option<u32>> {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold spaces; state and parent come after it.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1).and_then(|word| word.parse().ok()) == Some(parent)
    };
    let entries = fs::read_dir("/proc")?.map_while(Result::ok);
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_child))
}

/// TCP sockets of this namespace that the kernel holds.
pub(crate) fn sockets() -> usize {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let words = text.lines().find(|line| line.starts_with("TCP:")).map(str::split_whitespace);
    let mut words = words.into_iter().flatten().skip_while(|word| *word != "alloc").skip(1);
    words.next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Largest descriptor number plus one that this process may have; also the most direct descriptors of one ring.
pub(crate) fn descriptor_limit() -> u32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one plain struct that outlives it.
    let status = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if status == 0 { u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX) } else { 1024 }
}

/// Turns the C convention of -1 and errno into a result.
pub(crate) fn check(status: libc::c_int) -> io::Result<libc::c_int> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}

/// Machine, kernel, commit and how busy others keep it, in one line, to stand above every table.
pub(crate) fn machine() -> String {
    let (model, kernel, load) = (processor(), kernel_release(), load());
    format!("{model}, {} cores, Linux {kernel}, commit {}, load {load} at the start", cores(), commit())
}

pub(crate) fn processor() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    model.trim_start_matches([' ', '\t', ':']).to_owned()
}

pub(crate) fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The load average over one minute.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

pub(crate) fn commit() -> String {
    let output = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// Waits until sockets of an earlier run are gone, so that their end is not measured with the next one.
pub(crate) fn settle() {
    let deadline = Instant::now() + Duration::from_secs(10);
    let in_use = || {
        let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
        let words = text.lines().find(|line| line.starts_with("TCP:")).map(str::split_whitespace);
        words.and_then(|mut words| words.nth(2)?.parse::<usize>().ok()).unwrap_or(0)
    };
    let mut before = in_use();
    loop {
        thread::sleep(Duration::from_millis(50));
        let now = in_use();
        if now >= before || Instant::now() > deadline {
            return;
        }
        before = now;
    }
}
