//! What a run goes over: the kernel's loopback device, or a network namespace with a server in it.

use std::sync::atomic::AtomicBool;

use crate::io::tun::{self, Config, Launch, Namespace, Path, Server, Tun};
use crate::io::uring::{self, Sources, Uring};

use super::plan::{Plan, TunPlan, Via};
use super::report::Limit;

/// The network of a run. It is made before the threads, and goes after them.
pub(super) enum Network {
    /// Sockets of this kernel.
    Loopback,
    /// A namespace. The server goes first.
    Tun {
        /// The process inside.
        server: Box<Server>,
        namespace: Namespace,
        path: Path,
    },
}

impl Network {
    /// Makes what the plan asks for. `None`: it was stopped meanwhile.
    pub(super) fn new(plan: &Plan, stop: &AtomicBool) -> Result<Option<Self>, tun::SetupError> {
        let Via::Tun(tun) = &plan.via else { return Ok(Some(Self::Loopback)) };
        let namespace = Namespace::new(plan.connections)?;
        let command: Vec<String> = tun.server.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        match namespace.launch_server(Launch { command: &command, stop, shown: !tun.quiet }) {
            Ok(server) => Ok(Some(Self::Tun { server: Box::new(server), namespace, path: path(tun) })),
            Err(tun::SetupError::Stopped) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The server's process, where it is ours.
    pub(super) fn server_pid(&self) -> Option<u32> {
        match self {
            Self::Loopback => None,
            Self::Tun { server, .. } => Some(server.pid()),
        }
    }

    /// What became of the server, when it is ours and has ended by itself.
    pub(super) fn fallen(&self, at: u64) -> Option<Limit> {
        let Self::Tun { server, .. } = self else { return None };
        let how = server.obituary()?;
        let mend = "see what it says on standard error, without --quiet".to_owned();
        Some(Limit { what: format!("the server, which ended by itself ({how})"), at, mend })
    }
}

fn path(tun: &TunPlan) -> Path {
    Path {
        rtt: tun.rtt,
        reorder: tun.reorder.get(),
        loss_out: tun.loss.get(),
        loss_in: tun.loss.get(),
        ..Path::default()
    }
}

/// The rings of one thread.
pub(super) fn rings(places: usize, index: usize) -> Result<Uring, uring::SetupError> {
    // Addresses that belong to this thread of this process: who shares them by chance only tries more of them.
    let lane = (std::process::id() as usize).wrapping_mul(64).wrapping_add(index) & 0xffff;
    let sources = Sources::Loopback { lane: u16::try_from(lane).unwrap_or(0) };
    // No connection of a crowd is busy for long, and to find a poll among thousands, to replace it, costs more than is won.
    Uring::new(uring::Config { sources, promote_after: u32::MAX, ..uring::Config::new(places) })
}

/// The device of one thread.
pub(super) fn device(namespace: &Namespace, path: &Path, places: usize) -> Result<Tun, tun::SetupError> {
    Tun::new(namespace, Config { path: *path, ..Config::new(places) })
}
