//! Cores, clocks and memory of this process and of others, read from the kernel.

use std::fs;
use std::io;
use std::mem;
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
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}, commit {}, load {load} at the start", kernel.trim(), commit())
}

fn commit() -> String {
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
