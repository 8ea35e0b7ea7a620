//! Connect: connections that connect, upgrade and wait for the 101, a bounded number at a time, and stay.

use std::io;

use super::super::client::{Client, Endpoint};
use super::super::target::Stopwatch;
use super::Sample;

/// Shape of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connect {
    pub(crate) warm_up: usize,
    /// Measured connections, after the warm-up.
    pub(crate) connections: usize,
    /// Connections that are on their way at a time.
    pub(crate) window: usize,
}

/// Runs the load against the process `pid` and measures what it spends after the warm-up.
pub(crate) fn connect(endpoint: &Endpoint, pid: u32, load: Connect) -> io::Result<Sample> {
    let mut client = Client::new(endpoint, load.warm_up + load.connections, 512)?;
    client.open_more(load.warm_up, load.window)?;
    let stopwatch = Stopwatch::start(pid)?;
    client.open_more(load.connections, load.window)?;
    Ok(Sample { units: load.connections as u64, cost: stopwatch.stop()?, ..Sample::default() })
}
