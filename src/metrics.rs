//! Counters that a shard writes and anyone may read.
//!
//! Each shard has its own [`ShardMetrics`], so a count is a plain load and store on a line that no other core writes.
//! A scrape adds the shards up: its cost depends on the number of shards and metrics, not on connections.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::close::CloseReason;
use crate::rule::{Limit, Rule};

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

/// A counter for each value of an enum.
#[derive(Debug)]
struct Tally<const N: usize>([Counter; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
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
            /// Rules broken, by rule.
            violations: Tally<{ Rule::ALL.len() }>,
            /// Limits that struck, by limit.
            struck: Tally<{ Limit::ALL.len() }>,
            /// Turns, by how long they took, see [`TURN_SECONDS`]; the last are longer than all of these.
            turns: Tally<{ TURN_SECONDS.len() + 1 }>,
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
    /// Connections turned away, because of a limit or a drain.
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
    /// Streams of server-sent events held now.
    event_streams: Gauge,
    /// Endless responses of JSON lines held now.
    line_streams: Gauge,
    /// Long polls that wait now.
    polls: Gauge,
    /// gRPC calls held now.
    grpc_calls: Gauge,
    /// Connections of HTTP/2 held now.
    http2_connections: Gauge,
    /// Streams of HTTP/2 held now.
    http2_streams: Gauge,
    /// Streams of HTTP/2 that were opened.
    http2_streams_total: Counter,
    /// Publications that repeated the idempotency key of a kept message.
    duplicates_total: Counter,
    /// Messages of topics' pasts handed to subscribers who came later, or came again.
    replayed_total: Counter,
    /// Subscribers who asked for a past that was not there any more.
    resets_total: Counter,
    /// Messages that topics of this shard keep of their past now.
    history_messages: Gauge,
    /// Bytes of them.
    history_bytes: Gauge,
    /// Messages of the past that became too old.
    history_expired_total: Counter,
    /// Messages of the past that went because all topics together kept too much.
    history_evicted_total: Counter,
    /// Topics that were forgotten: nobody had used them for so long.
    topics_forgotten_total: Counter,
    /// Topics owned by this shard, with subscribers or a past.
    topics_owned: Gauge,
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

/// Upper bounds of the buckets in which turns are counted: nanoseconds, and seconds as Prometheus writes them.
const TURN_SECONDS: [(u64, &str); 9] = [
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (100_000_000, "0.1"),
];

impl ShardMetrics {
    /// Counts a turn that took so many nanoseconds.
    pub fn count_turn(&self, nanos: u64) {
        self.turns_total.add(1);
        self.turn_nanoseconds_total.add(nanos);
        self.turn_nanoseconds_max.raise(nanos);
        let longer = TURN_SECONDS.iter().take_while(|(bound, _)| nanos > *bound).count();
        self.turns.0[longer].add(1);
    }

    /// Turns that took longer than so many nanoseconds, which are the bound of a bucket: 100 µs, 250 µs and so on, see
    /// `holdline_turn_seconds`.
    #[must_use]
    pub fn turns_longer_than(&self, nanos: u64) -> u64 {
        let below = TURN_SECONDS.iter().take_while(|(bound, _)| *bound <= nanos).count();
        self.turns.0[below..].iter().map(Counter::get).sum()
    }

    /// Counts an ended connection.
    pub fn count_closed(&self, reason: CloseReason) {
        self.closed[reason as usize].add(1);
    }

    /// Connections ended for this reason.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].get()
    }

    /// Counts a broken rule, and the limit that was broken with it.
    pub fn count_violation(&self, rule: Rule) {
        self.violations.0[rule as usize].add(1);
        rule.limit().into_iter().for_each(|limit| self.strike(limit));
    }

    /// How often this rule was broken.
    #[must_use]
    pub fn violations(&self, rule: Rule) -> u64 {
        self.violations.0[rule as usize].get()
    }

    /// Counts a limit that struck.
    pub fn strike(&self, limit: Limit) {
        self.struck.0[limit as usize].add(1);
    }

    /// How often this limit struck.
    #[must_use]
    pub fn struck(&self, limit: Limit) -> u64 {
        self.struck.0[limit as usize].get()
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
        let closed = CloseReason::ALL.iter().map(|&reason| (reason.label(), self.total(|shard| shard.closed(reason))));
        family(&mut text, "closed_total", "Connections ended, by reason.", "reason", closed);
        let violations = Rule::ALL.iter().map(|&rule| (rule.label(), self.total(|shard| shard.violations(rule))));
        family(&mut text, "violations_total", "Rules broken by clients, by rule.", "rule", violations);
        let struck = Limit::ALL.iter().map(|&limit| (limit.label(), self.total(|shard| shard.struck(limit))));
        family(&mut text, "limit_struck_total", "Times a limit struck, by limit.", "limit", struck);
        self.turn_histogram(&mut text);
        text
    }
}

impl Metrics {
    /// Writes how long turns took.
    fn turn_histogram(&self, text: &mut String) {
        const NAME: &str = "holdline_turn_seconds";
        let _ = writeln!(text, "# HELP {NAME} How long the turns of the event loop took.\n# TYPE {NAME} histogram");
        for (number, shard) in self.shards.iter().enumerate() {
            let mut count = 0;
            let bounds = TURN_SECONDS.iter().map(|&(_, seconds)| seconds).chain(["+Inf"]);
            for (bucket, bound) in shard.turns.0.iter().zip(bounds) {
                count += bucket.get();
                let _ = writeln!(text, "{NAME}_bucket{{shard=\"{number}\",le=\"{bound}\"}} {count}");
            }
            let nanos = Duration::from_nanos(shard.turn_nanoseconds_total.get());
            let _ = writeln!(text, "{NAME}_sum{{shard=\"{number}\"}} {}", nanos.as_secs_f64());
            let _ = writeln!(text, "{NAME}_count{{shard=\"{number}\"}} {count}");
        }
    }
}

/// Writes a counter that has one number per value of a label.
fn family(text: &mut String, name: &str, help: &str, label: &str, values: impl Iterator<Item = (&'static str, u64)>) {
    let _ = writeln!(text, "# HELP holdline_{name} {help}\n# TYPE holdline_{name} counter");
    for (value, total) in values {
        let _ = writeln!(text, "holdline_{name}{{{label}=\"{value}\"}} {total}");
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
        metrics.shards[0].count_violation(Rule::LineTooLong);
        metrics.shards[1].strike(Limit::MessageBytesMax);
        let text = metrics.prometheus();
        assert!(text.contains("holdline_accepted_total{shard=\"0\"} 0\n"));
        assert!(text.contains("holdline_accepted_total{shard=\"1\"} 3\n"));
        assert!(text.contains("holdline_closed_total{reason=\"bad_utf8\"} 1\n"));
        assert!(text.contains("holdline_violations_total{rule=\"line_too_long\"} 1\n"));
        assert!(text.contains("holdline_limit_struck_total{limit=\"message_bytes_max\"} 2\n"));
        assert_eq!(text.matches("# TYPE ").count(), ShardMetrics::FIELDS.len() + 4);
    }

    #[test]
    fn turns_are_counted_by_their_length() {
        let metrics = Metrics::new(1);
        let nanos = [1, 1_000_000, 1_000_001, 9_999_999, 3_000_000_000];
        nanos.into_iter().for_each(|nanos| metrics.shards[0].count_turn(nanos));
        let text = metrics.prometheus();
        let buckets = [("0.0001", 1), ("0.001", 2), ("0.0025", 3), ("0.005", 3), ("0.01", 4), ("0.1", 4), ("+Inf", 5)];
        for (bound, count) in buckets {
            let line = format!("holdline_turn_seconds_bucket{{shard=\"0\",le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains("holdline_turn_seconds_count{shard=\"0\"} 5\n"));
        assert!(text.contains("holdline_turn_seconds_sum{shard=\"0\"} 3.012000001\n"), "{text}");
        assert_eq!(metrics.shards[0].turns_longer_than(10_000_000), 1);
        assert_eq!(metrics.shards[0].turns_longer_than(1_000_000), 3);
    }
}
