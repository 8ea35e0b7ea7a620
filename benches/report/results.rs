//! What a run found: the types of `results.json`, and what follows from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Caches of which every socket has one object, at either end; a client has a port besides.
const SOCKET: &[&str] = &["TCP", "sock_inode_cache", "filp", "dentry", "lsm_file_cache", "lsm_inode_cache"];
/// What a direct descriptor takes beside its slot.
const DIRECT: &[&str] = &["kmalloc-32"];

/// A whole run, or several put together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// Something that a reader must know first, such as that the figures are invented.
    #[serde(default)]
    pub(crate) note: Option<String>,
    pub(crate) machine: Machine,
    pub(crate) steps: Vec<Step>,
    pub(crate) bare: Vec<Bare>,
    pub(crate) left_out: Vec<LeftOut>,
}

/// Where and when.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// RLIMIT_NOFILE.
    pub(crate) descriptors: u32,
    pub(crate) commit: String,
    pub(crate) date: String,
    /// Load average at the start: what others did meanwhile.
    pub(crate) load: String,
}

/// The server at one number of connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) backend: String,
    /// `loopback` or `tun`.
    pub(crate) via: String,
    pub(crate) connections: u64,
    /// What the step took, all in all.
    pub(crate) seconds: f64,
    pub(crate) connect: Connect,
    pub(crate) user: User,
    /// `None` without the right to look.
    pub(crate) kernel: Option<Kernel>,
    pub(crate) heartbeats: Option<Heartbeats>,
    pub(crate) broadcast: Broadcast,
    pub(crate) echo: Echo,
    pub(crate) turns: Turns,
}

/// The same without a server: what the kernel takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bare {
    pub(crate) connections: u64,
    /// Pairs of sockets of which neither end waits for anything.
    pub(crate) pair: Option<Kernel>,
    /// One such socket, and one of the load generator's.
    pub(crate) swarm_pair: Option<Kernel>,
    pub(crate) connect: Option<Connect>,
    pub(crate) heartbeats: Option<Heartbeats>,
    pub(crate) broadcast: Option<Broadcast>,
}

/// A step that was not measured, or not to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    pub(crate) what: String,
    pub(crate) why: String,
    /// It was tried.
    pub(crate) failed: bool,
}

/// TCP connect to the last byte of the welcome.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Connect {
    pub(crate) seconds: f64,
    /// Per second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// User memory of the server, bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct User {
    /// Before the first connection.
    pub(crate) empty: u64,
    /// With all of them.
    pub(crate) open: u64,
    /// The most that was seen, the broadcasts included.
    pub(crate) peak: u64,
}

/// Growth of the kernel's memory, bytes per connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kernel {
    /// Sockets that there are more on the whole machine, per connection. More or fewer than the ends of a connection:
    /// others opened or closed some meanwhile, and the rest means nothing.
    pub(crate) sockets: f64,
    /// Slab caches, without those of file systems.
    pub(crate) slab: f64,
    /// Those that matter.
    pub(crate) caches: BTreeMap<String, f64>,
    /// What `MemAvailable` lost, user memory of both sides included: nothing can hide from it.
    pub(crate) available: f64,
}

/// A time without messages.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Heartbeats {
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    pub(crate) cpu_seconds: f64,
}

/// Publications to all, latencies from the intended time of each.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Broadcast {
    pub(crate) messages: u64,
    pub(crate) deliveries: u64,
    pub(crate) missing: u64,
    pub(crate) duplicates: u64,
    pub(crate) first_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p99_9_ms: f64,
    pub(crate) last_ms: f64,
}

/// What one connection of its own sees that sends a message every few milliseconds and waits for its echo.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Echo {
    /// While all are idle.
    pub(crate) quiet: Option<Latency>,
    /// While a broadcast is under way.
    pub(crate) during: Option<Latency>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) messages: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// Turns of the server's event loop, by what went on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Turns {
    /// While the connections came.
    pub(crate) connecting: Option<Turn>,
    /// While they only had their heartbeats.
    pub(crate) idle: Option<Turn>,
    pub(crate) broadcast: Option<Turn>,
    /// The longest of all.
    pub(crate) max_ms: f64,
}

/// From a histogram: the upper bounds of the buckets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) turns: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p99_9_ms: f64,
    pub(crate) max_ms: f64,
}

impl Step {
    /// As tables and pictures call it.
    pub(crate) fn name(&self) -> String {
        if self.via == "loopback" { self.backend.clone() } else { format!("{}, {}", self.backend, self.via) }
    }

    /// User memory of one connection, bytes.
    pub(crate) fn user_bytes(&self) -> f64 {
        self.user.open.saturating_sub(self.user.empty) as f64 / self.connections.max(1) as f64
    }

    /// The same at its worst.
    pub(crate) fn user_peak_bytes(&self) -> f64 {
        self.user.peak.saturating_sub(self.user.empty) as f64 / self.connections.max(1) as f64
    }
}

impl Kernel {
    /// Whether the sockets that came are those of the connections, one or two for each: a hundredth of them is
    /// worth 40 bytes a connection.
    pub(crate) fn is_alone(&self, ends: f64) -> bool {
        (self.sockets - ends).abs() <= 0.01 * ends
    }

    /// What some caches have grown by, bytes per connection.
    fn of(&self, caches: &[&str]) -> f64 {
        caches.iter().filter_map(|name| self.caches.get(*name)).sum()
    }
}

impl Heartbeats {
    /// CPU time per wall time, 0 to 1 for one core.
    pub(crate) fn share(&self) -> f64 {
        self.cpu_seconds / self.seconds.max(1e-9)
    }
}

impl Results {
    /// Puts what several files have into one; the first says where and when.
    pub(crate) fn merge(all: Vec<Self>) -> Self {
        let mut parts = all.into_iter();
        let mut whole = parts.next().unwrap_or_default();
        for part in parts {
            whole.note = whole.note.or(part.note);
            whole.steps.extend(part.steps);
            whole.bare.extend(part.bare);
            whole.left_out.extend(part.left_out);
        }
        whole.sort();
        whole
    }

    /// By via and backend, then by size.
    pub(crate) fn sort(&mut self) {
        let rank = |step: &Step| (step.via != "loopback", step.backend != "uring");
        self.steps.sort_by_key(|step| (rank(step), step.connections));
        self.bare.sort_by_key(|bare| bare.connections);
    }

    /// The bare loops at exactly this number.
    pub(crate) fn bare(&self, connections: u64) -> Option<&Bare> {
        self.bare.iter().find(|bare| bare.connections == connections)
    }

    /// One socket that waits for nothing, bytes: the nearest that was measured.
    pub(crate) fn bare_socket(&self, connections: u64) -> Option<f64> {
        self.nearest(connections, |bare| bare.pair.as_ref()).map(|pair| pair.of(SOCKET) / 2.0)
    }

    /// What the kernel holds for the server's end of a connection, bytes: for a loopback pair without the load
    /// generator's end, which is what a pair of it and a bare direct descriptor holds without that.
    pub(crate) fn server_kernel_bytes(&self, step: &Step) -> Option<f64> {
        let kernel = step.kernel.as_ref()?;
        if step.via != "loopback" {
            return kernel.is_alone(1.0).then_some(kernel.slab);
        }
        let swarm_pair = self.nearest(step.connections, |bare| bare.swarm_pair.as_ref())?;
        let pair = self.nearest(step.connections, |bare| bare.pair.as_ref())?;
        let direct = (pair.of(SOCKET) + pair.of(DIRECT)) / 2.0;
        let bytes = kernel.is_alone(2.0).then_some(kernel.slab - (swarm_pair.slab - direct));
        // Less than a bare socket is what others have freed meanwhile.
        bytes.filter(|bytes| self.bare_socket(step.connections).is_none_or(|bare| *bytes >= bare))
    }

    /// How much longer the last delivery takes than by a bare loop at the same number.
    pub(crate) fn last_ratio(&self, step: &Step) -> Option<f64> {
        let bare = self.bare(step.connections)?.broadcast.as_ref()?;
        (step.via == "loopback" && bare.last_ms > 0.0).then(|| step.broadcast.last_ms / bare.last_ms)
    }

    /// CPU share of heartbeats beyond what the kernel takes to send them.
    pub(crate) fn heartbeat_excess(&self, step: &Step) -> Option<f64> {
        let bare = self.bare(step.connections)?.heartbeats.as_ref()?;
        let ours = step.heartbeats.as_ref()?;
        (step.via == "loopback").then(|| ours.share() - bare.share())
    }

    fn nearest<'a>(&'a self, connections: u64, part: impl Fn(&'a Bare) -> Option<&'a Kernel>) -> Option<&'a Kernel> {
        let known = self.bare.iter().filter_map(|bare| Some((bare.connections, part(bare)?)));
        let known = known.filter(|(_, kernel)| kernel.is_alone(2.0));
        known.min_by_key(|(count, _)| count.abs_diff(connections)).map(|(_, kernel)| kernel)
    }
}
