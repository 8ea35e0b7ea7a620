//! Counters that a shard writes and anyone may read.
//!
//! Each shard has its own [`ShardMetrics`], so a count is a plain load and store on a line that no other core writes.
//! A scrape adds the shards up: its cost depends on the number of shards and metrics, not on connections.

mod cluster;
mod glance;
mod histogram;
mod hooks;
mod journal;
mod label;
mod shard;
pub mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::shard::{FAMILIES, Number};
use self::text::{Kind, Text};

pub use self::cluster::{ClusterDropped, ClusterMetrics};
pub use self::glance::{Glance, LostConsumer, Pane, SlowConsumer, TopTopic};
pub use self::histogram::{Histogram, Scale, Spread};
pub use self::hooks::{HooksMetrics, Undelivered};
pub use self::journal::JournalMetrics;
pub use self::label::{Protocol, Purpose};
pub use self::shard::ShardMetrics;

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

    /// A histogram of all shards together.
    pub fn spread(&self, field: impl Fn(&ShardMetrics) -> &Histogram) -> Spread {
        let mut spreads = self.shards.iter().map(|shard| field(shard).spread());
        let first = spreads.next().unwrap_or(Spread::empty(&Scale::LATENCY));
        spreads.fold(first, |all, one| all.plus(&one))
    }

    /// Writes all of it: numbers and histograms of each shard, what has labels of its own of all together.
    pub fn write(&self, text: &mut Text) {
        let numbers: Vec<String> = (0..self.shards.len()).map(|number| number.to_string()).collect();
        let shards = || self.shards.iter().zip(&numbers).map(|(shard, number)| (shard, [("shard", number.as_str())]));
        for &(name, help, kind, field) in ShardMetrics::NUMBERS {
            text.family(name, kind.exported(), help.trim());
            for (shard, labels) in shards() {
                match (kind, field(shard).get()) {
                    (Number::Seconds, nanos) => text.sample(name, &labels, shard::seconds(nanos)),
                    (_, number) => text.sample(name, &labels, number),
                }
            }
        }
        for &(name, help, _, field) in ShardMetrics::HISTOGRAMS {
            text.family(name, Kind::Histogram, help.trim());
            shards().for_each(|(shard, labels)| text.histogram(name, &labels, &field(shard).spread()));
        }
        for family in FAMILIES {
            text.family(family.name, family.kind, family.help.trim());
            for (place, value) in (family.values)().into_iter().enumerate() {
                text.sample(family.name, &[(family.label, value)], self.total(|shard| (family.number)(shard, place)));
            }
        }
    }

    /// The Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = Text::new(text::Format::Prometheus);
        self.write(&mut text);
        text.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::CloseReason;
    use crate::rule::{Limit, Rule};

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
        let families = ShardMetrics::NUMBERS.len() + ShardMetrics::HISTOGRAMS.len() + FAMILIES.len();
        assert_eq!(text.matches("# TYPE ").count(), families);
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
