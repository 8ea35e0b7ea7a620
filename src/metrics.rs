//! Counters that a shard writes and anyone may read.
//!
//! Each shard has its own [`ShardMetrics`], so a count is a plain load and store on a line that no other core writes.
//! A scrape adds the shards up: its cost depends on the number of shards and metrics, not on connections.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::close::CloseReason;

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only the owning shard may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts (gauges). Only the owning shard may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Sets (gauges). Only the owning shard may call this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Keeps the larger. Only the owning shard may call this.
    pub fn raise(&self, n: u64) {
        if n > self.get() {
            self.0.store(n, Ordering::Relaxed);
        }
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a metric only grows.
#[derive(Clone, Copy)]
enum Type {
    Counter,
    Gauge,
}

macro_rules! shard_metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident,)*) => {
        /// What one shard counts.
        #[derive(Debug, Default)]
        pub struct ShardMetrics {
            $($(#[doc = $help])+ pub $name: Counter,)*
            /// Connections ended, by reason.
            closed: [Counter; CloseReason::ALL.len()],
        }

        impl ShardMetrics {
            const FIELDS: &[(&str, &str, Type, fn(&Self) -> &Counter)] = &[
                $((stringify!($name), concat!($($help),+), Type::$kind, |metrics| &metrics.$name),)*
            ];
        }
    };
}

shard_metrics! {
    /// Connections held now.
    connections: Gauge,
    /// Connections accepted.
    accepted_total: Counter,
    /// Connections turned away because the table was full.
    refused_total: Counter,
    /// Failed attempts to accept, for want of descriptors or memory.
    accept_failures_total: Counter,
    /// Handshakes completed.
    handshakes_total: Counter,
    /// HTTP requests answered with an error.
    http_errors_total: Counter,
    /// HTTP requests answered.
    http_requests_total: Counter,
    /// Messages received from clients.
    messages_received_total: Counter,
    /// Bytes received from clients.
    bytes_received_total: Counter,
    /// Bytes handed to the kernel or a queue for clients.
    bytes_sent_total: Counter,
    /// Messages that got an offset here.
    publications_total: Counter,
    /// Messages handed to subscribers.
    deliveries_total: Counter,
    /// Messages that could not be delivered because the subscriber was too slow.
    deliveries_dropped_total: Counter,
    /// Subscriptions held now.
    subscriptions: Gauge,
    /// Topics with subscribers on this shard.
    topics: Gauge,
    /// Heartbeats sent.
    heartbeats_sent_total: Counter,
    /// Bytes in outgoing queues now.
    queued_bytes: Gauge,
    /// Bytes of unfinished incoming messages now, looked at ten times a second.
    unfinished_bytes: Gauge,
    /// Connections with a queue now.
    queued_connections: Gauge,
    /// Sends that the kernel did not take whole.
    short_sends_total: Counter,
    /// Times a connection was no longer read because its own replies were not read.
    reading_paused_total: Counter,
    /// Times a publisher was paused because a mailbox was full.
    publisher_paused_total: Counter,
    /// Times a message had to wait because a mailbox was full.
    mailbox_full_total: Counter,
    /// Subscriptions refused by a limit.
    subscriptions_refused_total: Counter,
    /// Handlers that panicked.
    handler_panics_total: Counter,
    /// Log lines left out because a peer caused too many.
    log_lines_suppressed_total: Counter,
    /// Turns of the event loop.
    turns_total: Counter,
    /// Nanoseconds spent in turns.
    turn_nanoseconds_total: Counter,
    /// Longest turn, nanoseconds.
    turn_nanoseconds_max: Gauge,
}

impl ShardMetrics {
    /// Counts an ended connection.
    pub fn count_closed(&self, reason: CloseReason) {
        self.closed[reason as usize].add(1);
    }

    /// Connections ended for this reason.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].get()
    }
}

/// The metrics of all shards.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// In order of shard ids.
    pub shards: Arc<[Arc<ShardMetrics>]>,
}

impl Metrics {
    /// Zeros for so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self { shards: (0..shards).map(|_| Arc::default()).collect() }
    }

    /// A number of all shards together.
    pub fn total(&self, field: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.wrapping_add(field(shard)))
    }

    /// The Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = String::with_capacity(8 * 1024);
        for &(name, help, kind, field) in ShardMetrics::FIELDS {
            let kind = match kind {
                Type::Counter => "counter",
                Type::Gauge => "gauge",
            };
            let _ = writeln!(text, "# HELP holdline_{name} {}", help.trim());
            let _ = writeln!(text, "# TYPE holdline_{name} {kind}");
            for (number, shard) in self.shards.iter().enumerate() {
                let _ = writeln!(text, "holdline_{name}{{shard=\"{number}\"}} {}", field(shard).get());
            }
        }
        text.push_str("# HELP holdline_closed_total Connections ended, by reason.\n");
        text.push_str("# TYPE holdline_closed_total counter\n");
        for reason in CloseReason::ALL {
            let total = self.total(|shard| shard.closed(reason));
            let _ = writeln!(text, "holdline_closed_total{{reason=\"{reason}\"}} {total}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_every_metric_of_every_shard() {
        let metrics = Metrics::new(2);
        metrics.shards[1].accepted_total.add(3);
        metrics.shards[0].count_closed(CloseReason::BadUtf8);
        let text = metrics.prometheus();
        assert!(text.contains("holdline_accepted_total{shard=\"0\"} 0\n"));
        assert!(text.contains("holdline_accepted_total{shard=\"1\"} 3\n"));
        assert!(text.contains("holdline_closed_total{reason=\"bad_utf8\"} 1\n"));
        assert_eq!(text.matches("# TYPE ").count(), ShardMetrics::FIELDS.len() + 1);
    }
}
