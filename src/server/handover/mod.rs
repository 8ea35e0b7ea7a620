//! From one process to the next without a refused connection.
//!
//! The running server listens on a Unix socket. A new one that is started with `--upgrade` calls there and is given the
//! listening sockets themselves (SCM_RIGHTS), so that the kernel's queues of waiting connections go over with them:
//!
//! ```text
//!   new                                   old
//!    |  hello  ---------------------------> |   is it this user, this version?
//!    |  <------------------- offer, sockets |
//!   binds what else it needs, starts        |   serves
//!    |  ready, which it takes ------------> |   holds publications back
//!    |  <----------------------------- estate
//!    |  adopted --------------------------> |   takes nobody in any more, refuses publications
//!    |  <----------------------------- yours|
//!   takes them in                           |   drains
//! ```
//!
//! Until it is ready the new one takes nobody in, and sockets of its own do not listen: if it fails before, nothing has
//! happened. All sockets of a listener go over, also when the new process has fewer shards: closing one that others can
//! reach by SO_REUSEPORT would reset those who wait in its queue.
//!
//! The estate is where the topics stand and what is kept of them. Between its first byte and its last nothing is
//! published; what was published before is in it, and what comes afterwards is published by the new process. So there is
//! one order of each topic across both, and who resumes at the new process goes on where the old one ended.

mod estate;
mod giver;
mod heir;
mod inherited;
mod taker;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use estate::Estate;
pub use giver::Giver;
pub(super) use inherited::Passed;
pub use inherited::{ActivationError, Inherited};
pub use taker::Predecessor;
pub(super) use wire::Offered;

/// For what a process answers at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// For a new process to start: it may have large tables to make.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// Why no hand-over is possible.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Somebody else is there.
    #[error("another server is at the upgrade socket, {}: start with --upgrade to follow it, or set another upgrade.socket", .0.display())]
    Taken(PathBuf),
    /// The file cannot be used.
    #[error("cannot listen for upgrades: {error}, {}: set another upgrade.socket", path.display())]
    Socket {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// The running server gives nothing.
    #[error("cannot take over from the running server: {what}, {}: stop it and start without --upgrade", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it said, or what went wrong.
        what: String,
    },
}

impl HandoverError {
    fn socket(path: &Path, error: std::io::Error) -> Self {
        Self::Socket { path: path.to_owned(), error }
    }

    fn refused(path: &Path, what: impl ToString) -> Self {
        Self::Refused { path: path.to_owned(), what: what.to_string() }
    }
}
