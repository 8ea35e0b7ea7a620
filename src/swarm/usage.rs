//! What a process uses, read from the kernel.

use std::fs;
use std::io;
use std::time::Duration;

use super::report::Usage;
use crate::io::sys;

/// CPU time used so far by all threads of a process, dead ones included, to the nanosecond.
///
/// This is the scheduler's own sum (what schedstat shows), brought up to date by the read; `/proc/PID/stat` counts
/// ticks of 10 ms.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    sys::cpu_time(pid)
}

/// Memory and CPU time of a process now.
///
/// # Errors
/// When there is no such process, or it is hidden from us.
pub fn of(pid: u32) -> io::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let user_bytes = kilobytes(&status, "RssAnon:") + kilobytes(&status, "RssShmem:");
    Ok(Usage { user_bytes, cpu_seconds: cpu_time(pid)?.as_secs_f64() })
}

fn kilobytes(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        let before = of(std::process::id()).unwrap();
        let until = std::time::Instant::now() + Duration::from_millis(20);
        let mut sum = 0_u64;
        while std::time::Instant::now() < until {
            sum = sum.wrapping_mul(31).wrapping_add(7);
        }
        let after = of(std::process::id()).unwrap();
        assert!(before.user_bytes > 0 && after.cpu_seconds > before.cpu_seconds, "{sum}");
    }

    #[test]
    fn who_is_not_there_is_an_error() {
        assert!(of(u32::MAX >> 1).is_err() && cpu_time(u32::MAX >> 1).is_err());
    }
}
