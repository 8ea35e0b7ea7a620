//! Descriptors are the wall that epoll's connections run into; say so at the start.

use std::fs;

use super::SetupError;

/// Descriptors kept for all else: 64 for listeners, epoll instances, wakers, logs and journals, 256 for connections that
/// are being turned away.
pub const DESCRIPTORS_RESERVED: u64 = 64 + 256;

/// Checks that a process may hold that many connections, all its shards together.
///
/// # Errors
/// When RLIMIT_NOFILE, less [`DESCRIPTORS_RESERVED`], is below that.
pub fn check_descriptor_limit(connections_max_of_process: usize) -> Result<(), SetupError> {
    // Without /proc nothing is known, and accepting will tell.
    let Ok(limits) = fs::read_to_string("/proc/self/limits") else { return Ok(()) };
    check(soft_limit(&limits), connections_max_of_process as u64)
}

fn check(limit: Option<u64>, asked: u64) -> Result<(), SetupError> {
    let needed = asked.saturating_add(DESCRIPTORS_RESERVED);
    match limit {
        Some(limit) if limit < needed => Err(SetupError::DescriptorLimit { limit, asked, needed }),
        _ => Ok(()),
    }
}

/// The soft RLIMIT_NOFILE in the text of proc_pid_limits(5), which spares an unsafe call; `None` when unlimited.
fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     \n\
Max processes             31700                31700                processes \n\
Max open files            20000                1048576              files     \n";

    #[test]
    fn the_soft_limit_counts() {
        assert_eq!(soft_limit(LIMITS), Some(20_000));
        assert_eq!(soft_limit("Max open files  unlimited  unlimited  files"), None);
        assert_eq!(soft_limit(""), None);
    }

    #[test]
    fn the_reserve_is_not_for_connections() {
        assert!(check(Some(20_000), 20_000 - DESCRIPTORS_RESERVED).is_ok());
        let error = check(Some(20_000), 20_000).unwrap_err().to_string();
        for part in ["is 20000", "20000 connections", "ulimit -n 20320", "LimitNOFILE=20320"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains('\n'));
        assert!(check(None, u64::MAX).is_ok());
    }
}
