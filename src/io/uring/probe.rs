//! Whether this kernel has what the backend needs, and if not, what exactly is missing.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, Probe, opcode};

use super::request;
use super::ring;

/// What is missing. The message says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No io_uring at all.
    #[error("this kernel has no io_uring; it needs Linux 6.7 or later, built with CONFIG_IO_URING")]
    Interface,
    /// Switched off by the administrator.
    #[error("io_uring is switched off (kernel.io_uring_disabled = {0}); run: sysctl -w kernel.io_uring_disabled=0")]
    Disabled(u8),
    /// A seccomp filter, usually a container's.
    #[error(
        "io_uring is forbidden here, probably by a container's seccomp profile; allow io_uring_setup, io_uring_enter \
         and io_uring_register"
    )]
    Forbidden,
    /// A flag of `io_uring_setup`.
    #[error("io_uring lacks the set-up flag {flag}, which is in Linux since {since}; upgrade to Linux 6.7 or later")]
    Flag {
        /// Its name.
        flag: &'static str,
        /// The first kernel that has it.
        since: &'static str,
    },
    /// A request.
    #[error("io_uring lacks the request {name}, which is in Linux since {since}; upgrade to that or later")]
    Request {
        /// Its name.
        name: &'static str,
        /// The first kernel that has it.
        since: &'static str,
    },
    /// The rings' memory is refused.
    #[error("io_uring may not lock enough memory; raise the limit (ulimit -l unlimited, or LimitMEMLOCK=infinity)")]
    Memory,
    /// Something else.
    #[error("io_uring does not start: {0}")]
    Other(String),
}

const REQUESTS: &[(u8, &str, &str)] = &[
    (opcode::PollAdd::CODE, "POLL_ADD", "5.1"),
    (opcode::Accept::CODE, "ACCEPT", "5.5"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL", "5.5"),
    (opcode::Recv::CODE, "RECV", "5.6"),
    (opcode::Send::CODE, "SEND", "5.6"),
    (opcode::Close::CODE, "CLOSE", "5.6"),
    (opcode::Shutdown::CODE, "SHUTDOWN", "5.11"),
    (opcode::SetSockOpt::CODE, "URING_CMD", "5.19"),
];

/// Tries everything that the backend relies on. Multishot accept, poll and receive, and rings of buffers, are older
/// than DEFER_TASKRUN and need no trial of their own.
///
/// # Errors
/// The first thing that is missing.
pub fn probe() -> Result<(), Missing> {
    let ring = ring::build().map_err(|error| why(&error))?;
    let mut known = Probe::new();
    ring.submitter().register_probe(&mut known).map_err(|error| Missing::Other(error.to_string()))?;
    for &(code, name, since) in REQUESTS {
        if !known.is_supported(code) {
            return Err(Missing::Request { name, since });
        }
    }
    socket_options(ring)
}

/// Whether connections can be dialled from planned sources: the backend's youngest wish, and nothing that a server needs.
pub(super) fn bind(ring: &IoUring) -> Result<(), Missing> {
    let mut known = Probe::new();
    ring.submitter().register_probe(&mut known).map_err(|error| Missing::Other(error.to_string()))?;
    match known.is_supported(opcode::Bind::CODE) {
        true => Ok(()),
        false => Err(Missing::Request { name: "BIND", since: "6.11" }),
    }
}

/// Why a ring could not be built.
pub(super) fn why(error: &io::Error) -> Missing {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Missing::Interface,
        Some(libc::EPERM | libc::EACCES) => forbidden(),
        Some(libc::EINVAL) => flag(),
        Some(libc::ENOMEM) => Missing::Memory,
        _ => Missing::Other(error.to_string()),
    }
}

fn forbidden() -> Missing {
    let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match switch.trim().parse() {
        Ok(level) if level > 0 => Missing::Disabled(level),
        _ => Missing::Forbidden,
    }
}

/// The first flag, in the order in which Linux got them, that a small ring cannot be built with.
fn flag() -> Missing {
    let mut builder = IoUring::builder();
    let mut lacks = |set: fn(&mut io_uring::Builder) -> &mut io_uring::Builder| set(&mut builder).build(8).is_err();
    if lacks(|builder| builder.setup_submit_all()) {
        return Missing::Flag { flag: "SUBMIT_ALL", since: "5.18" };
    }
    if lacks(|builder| builder.setup_coop_taskrun().setup_taskrun_flag()) {
        return Missing::Flag { flag: "COOP_TASKRUN", since: "5.19" };
    }
    if lacks(|builder| builder.setup_single_issuer()) {
        return Missing::Flag { flag: "SINGLE_ISSUER", since: "6.0" };
    }
    Missing::Flag { flag: "DEFER_TASKRUN", since: "6.1" }
}

/// The youngest thing needed: SO_LINGER by a request, without which a direct descriptor cannot be reset.
fn socket_options(mut ring: IoUring) -> Result<(), Missing> {
    let other = |error: io::Error| Missing::Other(error.to_string());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).map_err(other)?;
    ring.submitter().register_files(&[socket.as_raw_fd()]).map_err(other)?;
    let entry = request::no_linger(0).clear_flags().flags(io_uring::squeue::Flags::FIXED_FILE);
    // SAFETY: the request points to a static.
    unsafe { ring.submission().push(&entry) }.map_err(|error| Missing::Other(error.to_string()))?;
    ring.submit_and_wait(1).map_err(other)?;
    match ring.completion().next().map(|done| done.result()) {
        Some(0) => Ok(()),
        _ => Err(Missing::Request { name: "SOCKET_URING_OP_SETSOCKOPT", since: "6.7" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_all_or_says_what_it_lacks_in_one_line() {
        if let Err(missing) = probe() {
            assert!(!missing.to_string().contains('\n'), "{missing}");
        }
    }

    #[test]
    fn an_old_kernel_and_a_filter_are_told_apart() {
        assert_eq!(why(&io::Error::from_raw_os_error(libc::ENOSYS)), Missing::Interface);
        assert_eq!(why(&io::Error::from_raw_os_error(libc::ENOMEM)), Missing::Memory);
        assert!(matches!(why(&io::Error::from_raw_os_error(libc::EPERM)), Missing::Disabled(_) | Missing::Forbidden));
    }
}
