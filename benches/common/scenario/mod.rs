//! What clients do to a server, and what is measured of it.

use std::time::Duration;

use super::target::Cost;

mod connect;
mod echo;
mod fanout;
mod idle;
mod requests;

pub(crate) use connect::{Connect, connect};
pub(crate) use echo::{Echo, echo};
pub(crate) use fanout::{Fanout, fanout};
pub(crate) use idle::{Idle, IdleOutcome, idle};
pub(crate) use requests::{Expected, Requests, requests};

/// One measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Messages, connections, deliveries or requests.
    pub(crate) units: u64,
    pub(crate) cost: Cost,
    /// For a fan-out: from the publication to the last subscriber, one for each publication.
    pub(crate) last_delivery: Vec<Duration>,
}

impl Sample {
    /// Server CPU per unit in µs.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cost.cpu.as_secs_f64() * 1e6 / self.units.max(1) as f64
    }

    /// Units per second of wall time.
    pub(crate) fn rate(&self) -> f64 {
        self.units as f64 / self.cost.wall.as_secs_f64()
    }
}

/// The value below which the share `rank` (0 to 1) of the values lies.
pub(crate) fn percentile(values: &mut [Duration], rank: f64) -> Duration {
    values.sort_unstable();
    let at = (values.len() as f64 * rank).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or_default()
}
