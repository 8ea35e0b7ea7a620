//! What on this machine stands in the way of N connections, and the command that mends it.
//!
//! [`Facts::read`] reads what the kernel says about itself, from a root that a test can choose; [`diagnose`] is pure and
//! compares that with what N connections need. There are two kinds of [`Check`]:
//!
//! - a **wall** ends it: at `stops_at` connections the next one is refused, or the machine is out of memory;
//! - a **storm** check bounds what happens when all clients come, speak or leave at once. A value that is too small makes
//!   that slow or loses last words, but no connection that stands.
//!
//! The smallest wall is where this machine stops. What could not be read stops nothing and is reported as unknown.
//!
//! It leaves out what is not the machine's own: firewalls, load balancers, the network cards' interrupts.

mod amount;
mod descriptors;
mod facts;
mod room;
mod storm;
#[cfg(test)]
mod tests;
mod text;

use serde::Serialize;

use crate::config::{BackendChoice, Config};

pub use crate::host::{Cgroups, Level, Limit};

pub use self::amount::Amount;
pub use self::facts::{Conntrack, Facts, Files, Memory, Net, Process};

/// What is to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Connections of the whole process.
    pub connections: u64,
    /// On what.
    pub backend: BackendChoice,
    /// Shards, 0 for one per core.
    pub shards: u64,
    /// What outgoing queues may take when clients read slowly, bytes.
    pub queue_bytes: u64,
    /// What topics may keep of their past, bytes.
    pub history_bytes: u64,
}

impl Needs {
    /// What a server with this configuration needs.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self {
            connections: config.limits.connections_max as u64,
            backend: config.backend,
            shards: config.shards as u64,
            queue_bytes: config.limits.queue_bytes_total_max as u64,
            history_bytes: config.limits.history.bytes_total_max as u64,
        }
    }

    /// What may come on top of idle connections, bytes.
    const fn more_bytes(self) -> u64 {
        self.queue_bytes.saturating_add(self.history_bytes)
    }

    /// With as many shards as a server would start.
    fn settled(self, facts: &Facts) -> Self {
        let quota = facts.cgroups.cpu_percent.map_or(u64::MAX, |percent| percent / 100);
        let cores = facts.process.cores.unwrap_or(1).min(quota).max(1);
        Self { shards: if self.shards == 0 { cores } else { self.shards }, ..self }
    }
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Enough.
    Ok,
    /// A wall that stands before N.
    TooSmall,
    /// It holds, but a storm makes it slow, or it has nothing to spare.
    Slow,
    /// It could not be read.
    Unknown,
    /// Good to know, nothing to compare.
    Note,
}

impl Verdict {
    /// As the table has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::TooSmall => "TOO SMALL",
            Self::Slow => "slow",
            Self::Unknown => "unknown",
            Self::Note => "note",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is.
    pub what: &'static str,
    /// The kernel's name for it.
    pub setting: String,
    /// What it is now.
    pub now: Amount,
    /// What N connections need.
    pub needs: Amount,
    /// How that was calculated.
    pub arithmetic: String,
    /// Connections at which it ends; none: it does not end them.
    #[serde(serialize_with = "amount::serialize_limit")]
    pub stops_at: Limit,
    /// Whether it is enough.
    pub verdict: Verdict,
    /// The command that mends it, for a shell; where to keep that, and what else there is, stands in a comment behind.
    pub mend: Option<String>,
}

impl Check {
    /// A wall. `stops_at` says how many connections `now` is good for.
    fn wall(what: &'static str, setting: impl Into<String>, stops_at: Limit, needs: &Needs) -> Self {
        let verdict = match stops_at {
            Limit::Unknown => Verdict::Unknown,
            stops_at if stops_at.is_below(needs.connections) => Verdict::TooSmall,
            _ => Verdict::Ok,
        };
        let (now, needs) = (Amount::Unknown, Amount::None);
        Self { what, setting: setting.into(), now, needs, arithmetic: String::new(), stops_at, verdict, mend: None }
    }

    /// A value that a storm needs.
    fn storm(what: &'static str, setting: &str, now: Option<u64>, needs: u64) -> Self {
        let verdict = match now {
            None => Verdict::Unknown,
            Some(now) if now < needs => Verdict::Slow,
            Some(_) => Verdict::Ok,
        };
        let setting = setting.to_owned();
        let (now, needs) = (now.map_or(Amount::Unknown, Amount::Count), Amount::Count(needs));
        Self { what, setting, now, needs, arithmetic: String::new(), stops_at: Limit::Unlimited, verdict, mend: None }
    }

    /// Something to know.
    fn note(what: &'static str, setting: &str, now: Amount, arithmetic: impl Into<String>) -> Self {
        let verdict = if now == Amount::Unknown { Verdict::Unknown } else { Verdict::Note };
        let (setting, arithmetic) = (setting.to_owned(), arithmetic.into());
        Self { what, setting, now, needs: Amount::None, arithmetic, stops_at: Limit::Unlimited, verdict, mend: None }
    }

    fn amounts(self, now: Amount, needs: Amount) -> Self {
        Self { now, needs, ..self }
    }

    fn because(self, arithmetic: impl Into<String>) -> Self {
        Self { arithmetic: arithmetic.into(), ..self }
    }

    /// The command is kept only where something is to be mended.
    fn mended_by(self, command: impl FnOnce() -> String) -> Self {
        let is_wrong = matches!(self.verdict, Verdict::TooSmall | Verdict::Slow);
        Self { mend: is_wrong.then(command), ..self }
    }

    /// Something that is no wall for this N but leaves nothing to spare.
    fn slow_if(self, is_slow: bool) -> Self {
        let verdict = if is_slow && self.verdict == Verdict::Ok { Verdict::Slow } else { self.verdict };
        Self { verdict, ..self }
    }
}

/// How far a backend gets here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// `uring` or `epoll`.
    pub backend: &'static str,
    /// Connections at which it ends.
    #[serde(serialize_with = "amount::serialize_limit")]
    pub stops_at: Limit,
    /// The wall that ends it.
    pub because: Option<String>,
}

impl Outlook {
    fn new(backend: BackendChoice, walls: &[Check]) -> Self {
        let stops_at = walls.iter().fold(Limit::Unknown, |least, wall| least.min(wall.stops_at));
        let is_it = |wall: &&Check| matches!(stops_at, Limit::At(_)) && wall.stops_at == stops_at;
        let because = walls.iter().find(is_it).map(|wall| format!("{}, {}", wall.what, wall.setting));
        Self { backend: backend.name(), stops_at, because }
    }
}

/// The whole finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// N.
    pub connections: u64,
    /// Whether N fit, as far as is known.
    pub fits: bool,
    /// The backend that would serve: what `auto` takes, or the one asked for.
    pub backend: &'static str,
    /// Event loops.
    pub shards: u64,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Connections at which this machine ends, on that backend.
    #[serde(serialize_with = "amount::serialize_limit")]
    pub stops_at: Limit,
    /// The wall that ends it.
    pub because: Option<String>,
    /// The same for each backend.
    pub backends: Vec<Outlook>,
    /// All that was looked at: walls first, then storms, then what is good to know.
    pub checks: Vec<Check>,
}

/// Compares what there is with what is needed.
#[must_use]
pub fn diagnose(facts: &Facts, needs: &Needs) -> Diagnosis {
    let needs = needs.settled(facts);
    let backend = match needs.backend {
        BackendChoice::Auto if facts.uring.is_ok() => BackendChoice::Uring,
        BackendChoice::Auto => BackendChoice::Epoll,
        chosen => chosen,
    };
    let both = [BackendChoice::Uring, BackendChoice::Epoll];
    let backends = both.map(|backend| Outlook::new(backend, &walls(facts, &Needs { backend, ..needs })));
    let mut checks = walls(facts, &Needs { backend, ..needs });
    let own = Outlook::new(backend, &checks);
    if needs.backend == BackendChoice::Auto {
        checks.extend(descriptors::fallback(facts));
    }
    checks.extend(storm::checks(facts, &needs));
    checks.extend(storm::notes(facts, &needs));
    Diagnosis {
        connections: needs.connections,
        fits: !own.stops_at.is_below(needs.connections),
        backend: own.backend,
        shards: needs.shards,
        kernel: facts.kernel.clone(),
        stops_at: own.stops_at,
        because: own.because,
        backends: backends.into(),
        checks,
    }
}

/// All that can end it on the backend of `needs`.
fn walls(facts: &Facts, needs: &Needs) -> Vec<Check> {
    let mut walls = match needs.backend {
        BackendChoice::Epoll => descriptors::epoll(facts, needs),
        BackendChoice::Uring | BackendChoice::Auto => descriptors::uring(facts, needs),
    };
    walls.extend(room::walls(facts, needs));
    walls
}
