//! What a run found: the JSON file, and whether all was well.
//!
//! One flat shape. A name ends in its unit; a part that does not belong to the scenario is `null`. Whether a run was
//! well ([`Report::faults`]) follows from the numbers, in `verdict` and nowhere else.

mod verdict;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::latency::{Latencies, micros, millis, round};

/// A run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// `idle`, `broadcast`, `echo` or `churn`.
    pub scenario: String,
    /// The target's URL.
    pub target: String,
    /// `loopback` or `tun`.
    pub via: String,
    /// Threads of the swarm.
    pub threads: usize,
    /// Connections that were asked for.
    pub connections: u64,
    /// Connections whose handshake completed.
    pub opened: u64,
    /// How they came to be.
    pub connect: Connect,
    /// How they lived.
    pub hold: Hold,
    /// What was published, for `broadcast`.
    pub broadcast: Option<Broadcast>,
    /// What came back, for `echo`.
    pub echo: Option<Echo>,
    /// What came and went, for `churn`.
    pub churn: Option<Churn>,
    /// The server's process, when its pid was given.
    pub server: Option<Server>,
    /// What stopped the run short.
    pub limit: Option<Limit>,
    /// Seconds from the start until the server had ended all connections, which ends a run.
    pub deserted: Option<f64>,
    /// Whether a signal did.
    pub interrupted: bool,
}

/// How connections came to be.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Connect {
    /// From the first dial to the last completed handshake.
    pub seconds: f64,
    /// Completed handshakes per second.
    pub rate: f64,
    /// Half of them took at most this, counted from the time at which their first dial was due: at a rate that is known
    /// beforehand, else it is when there was room for another handshake. Later tries take nothing from it.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// All.
    pub max_ms: f64,
    /// Connections that did not come to be.
    pub failed: u64,
    /// Tries that failed and were made again.
    pub retries: u64,
    /// Why tries failed, and how many each.
    pub failures: BTreeMap<String, u64>,
}

impl Connect {
    /// From how many were opened in what time, and what each took (guests that came later among them).
    #[must_use]
    pub fn new(opened: u64, took: Duration, each: &Latencies, failures: BTreeMap<String, u64>) -> Self {
        Self {
            seconds: round(took.as_secs_f64()),
            rate: per_second(opened, took),
            p50_ms: millis(each.at(0.5)),
            p99_ms: millis(each.at(0.99)),
            max_ms: millis(each.last()),
            failed: failures.values().sum(),
            retries: 0,
            failures,
        }
    }
}

/// How connections lived.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Hold {
    /// How long all of them were held.
    pub seconds: f64,
    /// Heartbeats of the server that were answered.
    pub pings_answered: u64,
    /// Heartbeats of the server that cannot be answered: comments in streams of events.
    pub heartbeats_heard: u64,
    /// Connections that had proven by data that they live when all were open: a message there and back, or a
    /// publication received.
    pub alive_at_start: u64,
    /// Those that did so again at the end.
    pub alive_at_end: u64,
    /// Connections that vanished after the first proof, as they were to: they are expected to hear nothing.
    pub vanished: u64,
    /// Connections that ended though nobody asked them to.
    pub lost: u64,
    /// Why, and how many each. `closed_1009` is a close frame with that code, `closed` one without or with an unusual one.
    pub losses: BTreeMap<String, u64>,
}

/// What was published and arrived. Times count from the intended time of the publication.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Broadcast {
    /// Publications.
    pub messages: u64,
    /// Bytes of each.
    pub size_bytes: usize,
    /// Deliveries: connections times messages when all is well.
    pub deliveries: u64,
    /// Deliveries that did not come in time; of a run that was stopped those that others overtook.
    pub missing: u64,
    /// Deliveries that came twice.
    pub duplicates: u64,
    /// Deliveries that came after one that was published later.
    pub reordered: u64,
    /// The first delivery of any message.
    pub first_ms: f64,
    /// Half of the deliveries of all messages.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1000.
    pub p99_9_ms: f64,
    /// The last delivery of the slowest message.
    pub last_ms: f64,
    /// Deliveries per second, from the first publication to the last delivery.
    pub rate: f64,
    /// Each of the first 128 messages, in order.
    pub each: Vec<Publication>,
}

/// One message that went to all.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Publication {
    /// Deliveries.
    pub deliveries: u64,
    /// The first delivery.
    pub first_ms: f64,
    /// Half of them.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1000.
    pub p99_9_ms: f64,
    /// The last.
    pub last_ms: f64,
}

impl Publication {
    /// From its deliveries.
    #[must_use]
    pub fn new(deliveries: &Latencies) -> Self {
        Self {
            deliveries: deliveries.count(),
            first_ms: millis(deliveries.first()),
            p50_ms: millis(deliveries.at(0.5)),
            p99_ms: millis(deliveries.at(0.99)),
            p99_9_ms: millis(deliveries.at(0.999)),
            last_ms: millis(deliveries.last()),
        }
    }
}

impl Broadcast {
    /// From all deliveries, those of each message, and the time from the first publication to the last delivery. What is
    /// missing and what came twice is the caller's to count.
    #[must_use]
    pub fn new(size_bytes: usize, all: &Latencies, each: &[Latencies], took: Duration) -> Self {
        let whole = Publication::new(all);
        Self {
            messages: each.len() as u64,
            size_bytes,
            deliveries: whole.deliveries,
            missing: 0,
            duplicates: 0,
            reordered: 0,
            first_ms: whole.first_ms,
            p50_ms: whole.p50_ms,
            p99_ms: whole.p99_ms,
            p99_9_ms: whole.p99_9_ms,
            last_ms: whole.last_ms,
            rate: per_second(whole.deliveries, took),
            each: each.iter().map(Publication::new).collect(),
        }
    }
}

/// Messages there and back. Times count from the intended time of sending.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Echo {
    /// Messages that were due while it was measured and came back, late ones included.
    pub messages: u64,
    /// Messages that did not come back in time, or not before later ones, or changed.
    pub missing: u64,
    /// Messages that came back changed, twice, or after later ones.
    pub wrong: u64,
    /// Bytes of each.
    pub size_bytes: usize,
    /// Messages under way per connection at most.
    pub in_flight: usize,
    /// How long it was measured.
    pub seconds: f64,
    /// Messages per second that were asked for; `null`: as many as come back.
    pub intended_rate: Option<f64>,
    /// Messages per second that came back while it was measured.
    pub rate: f64,
    /// The times.
    #[serde(flatten)]
    pub times: EchoTimes,
    /// CPU time of the server per message, when its pid was given.
    pub server_cpu_us_per_message: Option<f64>,
}

/// The times of echoes, from the intended time of sending.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct EchoTimes {
    /// Half of them.
    pub p50_us: f64,
    /// 90 of 100.
    pub p90_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1000.
    pub p99_9_us: f64,
    /// All.
    pub max_us: f64,
}

impl EchoTimes {
    /// From all of them.
    #[must_use]
    pub fn new(each: &Latencies) -> Self {
        Self {
            p50_us: micros(each.at(0.5)),
            p90_us: micros(each.at(0.9)),
            p99_us: micros(each.at(0.99)),
            p99_9_us: micros(each.at(0.999)),
            max_us: micros(each.last()),
        }
    }
}

/// Connections that came and went beside those that stayed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Churn {
    /// How long it went on.
    pub seconds: f64,
    /// Connections that stayed.
    pub held: u64,
    /// Those of them that were lost.
    pub held_lost: u64,
    /// Connects per second that were asked for.
    pub intended_rate: f64,
    /// Connects per second that completed.
    pub rate: f64,
    /// Connections that came and completed their handshake.
    pub connects: u64,
    /// Connections that did not, or that the server ended before their time.
    pub connects_failed: u64,
    /// Why, and how many each.
    pub failures: BTreeMap<String, u64>,
    /// Connections that left with a good-bye.
    pub graceful: u64,
    /// Those of them whose good-bye the server did not answer in time, or with a reset.
    pub graceful_unanswered: u64,
    /// Connections that left with a reset.
    pub abrupt: u64,
    /// Connections that went mute.
    pub half_open: u64,
    /// Mute ones that the server ended.
    pub half_open_detected: u64,
    /// Mute ones that it had not ended in the time that it was given.
    pub half_open_overlooked: u64,
    /// The same over SSE, where no answer is ever due: nothing tells a server of them before what it sends has no room.
    pub half_open_unnoticeable: u64,
    /// Connections that stopped to read.
    pub slow: u64,
    /// Those of them that the server ended.
    pub slow_ended: u64,
    /// Publications to those who stayed, on a topic.
    pub publications: u64,
    /// Deliveries to healthy members.
    pub deliveries: u64,
    /// Deliveries that a healthy member did not get in time.
    pub missing: u64,
    /// Deliveries that came twice.
    pub duplicates: u64,
    /// Deliveries that came out of order.
    pub reordered: u64,
    /// Probes of healthy clients that came back.
    pub probes: u64,
    /// Probes that did not in time.
    pub probes_missing: u64,
    /// Their times before the churn; `null` without an echo target.
    pub probe_idle: Option<EchoTimes>,
    /// Their times during it.
    pub probe: Option<EchoTimes>,
    /// The 99th percentile during it, divided by that before.
    pub probe_p99_ratio: Option<f64>,
    /// Memory of the server before the churn, when its pid was given; 0 else.
    pub server_bytes_before: u64,
    /// The most during it.
    pub server_bytes_peak: u64,
    /// When all who had come were gone.
    pub server_bytes_after: u64,
}

/// The server's process.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Server {
    /// Its number.
    pub pid: u32,
    /// Before the first connection.
    pub before: Usage,
    /// While all connections were held.
    pub held: Usage,
    /// After the last connection was closed.
    pub after: Usage,
    /// Memory per connection: what it grew by from before to held.
    pub user_bytes_per_connection: f64,
}

impl Server {
    /// From three looks at it. `connections` were open at the second.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "bytes of a machine are below 2^53")]
    pub fn new(pid: u32, [before, held, after]: [Usage; 3], connections: u64) -> Self {
        let grown = held.user_bytes as f64 - before.user_bytes as f64;
        let each = if connections == 0 { 0.0 } else { round(grown / connections as f64) };
        Self { pid, before, held, after, user_bytes_per_connection: each }
    }
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Anonymous and shared memory in RAM (`RssAnon` and `RssShmem` in proc(5)).
    pub user_bytes: u64,
    /// User and system time of all threads.
    pub cpu_seconds: f64,
}

/// What stopped a run short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// Which limit, as a clause: `no free source address and port`.
    pub what: String,
    /// Connections that were open then.
    pub at: u64,
    /// How to mend it.
    pub mend: String,
}

#[allow(clippy::cast_precision_loss, reason = "no run counts to 2^53")]
pub(super) fn per_second(count: u64, took: Duration) -> f64 {
    if took.is_zero() { 0.0 } else { round(count as f64 / took.as_secs_f64()) }
}
