//! What is counted of events for a receiver elsewhere.

use super::text::{Kind, Text};
use super::{Counter, Histogram, Scale};
use crate::config::HookKind;
use crate::rule::labelled;

labelled! {
    /// Why events did not reach their receiver.
    Undelivered {
        /// A shard told more than the thread could take, or does not know whether there was something to tell.
        ShardQueue = "shard_queue",
        /// More waited than may.
        Queue = "queue",
        /// They had waited too long.
        TooOld = "too_old",
        /// The receiver answered that it will never take them.
        Refused = "refused",
        /// The server ended.
        Ended = "ended",
    }
}

/// Written by the thread that tells alone.
#[derive(Debug)]
pub struct HooksMetrics {
    /// Events by kind: those that were delivered, that were dropped, and that wait.
    pub events: [Counter; HookKind::ALL.len()],
    /// Events that the receiver has taken.
    pub delivered: Counter,
    /// Events that it has not, and will not, by reason.
    pub dropped: [Counter; Undelivered::ALL.len()],
    /// Requests that were made again, or are to be.
    pub retries: Counter,
    /// Events that wait.
    pub queued: Counter,
    /// Bytes of them.
    pub queued_bytes: Counter,
    /// From the beginning of a request to its answer, whatever that is.
    pub batch_seconds: Histogram,
}

impl Default for HooksMetrics {
    fn default() -> Self {
        let [delivered, retries, queued, queued_bytes] = std::array::from_fn(|_| Counter::default());
        Self {
            events: Default::default(),
            delivered,
            dropped: Default::default(),
            retries,
            queued,
            queued_bytes,
            batch_seconds: Histogram::new(&Scale::LATENCY),
        }
    }
}

impl HooksMetrics {
    /// Counts events that will not be delivered.
    pub fn lose(&self, why: Undelivered, events: u64) {
        self.dropped[why as usize].add(events);
    }

    /// Events that will not be delivered, for whatever reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.dropped.iter().map(Counter::get).sum()
    }

    /// Writes all of it.
    pub fn write(&self, text: &mut Text) {
        let name = "hooks_events_total";
        text.family(name, Kind::Counter, "Events for the receiver of hooks, by kind.");
        for (kind, events) in HookKind::ALL.into_iter().zip(&self.events) {
            text.sample(name, &[("kind", kind.name())], events.get());
        }
        let name = "hooks_dropped_total";
        text.family(
            name,
            Kind::Counter,
            "Events that did not reach the receiver of hooks and will not, by the reason.",
        );
        for (why, events) in Undelivered::ALL.iter().zip(&self.dropped) {
            text.sample(name, &[("why", why.label())], events.get());
        }
        for (name, kind, help, counter) in [
            ("hooks_delivered_total", Kind::Counter, "Events that the receiver of hooks has taken.", &self.delivered),
            (
                "hooks_retries_total",
                Kind::Counter,
                "Requests to the receiver of hooks that failed and are made again.",
                &self.retries,
            ),
            ("hooks_queued", Kind::Gauge, "Events that wait for the receiver of hooks.", &self.queued),
            (
                "hooks_queued_bytes",
                Kind::Gauge,
                "Bytes of events that wait for the receiver of hooks.",
                &self.queued_bytes,
            ),
        ] {
            text.one(name, kind, help, counter.get());
        }
        let name = "hooks_batch_seconds";
        text.family(name, Kind::Histogram, "From the beginning of a request to the receiver of hooks to its answer.");
        text.histogram(name, &[], &self.batch_seconds.spread());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::text::Format;

    #[test]
    fn a_scrape_shows_what_became_of_events() {
        let hooks = HooksMetrics::default();
        hooks.events[HookKind::Publish as usize].add(7);
        hooks.delivered.add(4);
        hooks.lose(Undelivered::Queue, 2);
        hooks.lose(Undelivered::Refused, 1);
        assert_eq!(hooks.lost(), 3);
        hooks.batch_seconds.observe(2_000_000);
        let mut text = Text::new(Format::Prometheus);
        hooks.write(&mut text);
        let said = text.finish();
        for line in [
            "holdline_hooks_events_total{kind=\"publish\"} 7\n",
            "holdline_hooks_events_total{kind=\"vacated\"} 0\n",
            "holdline_hooks_delivered_total 4\n",
            "holdline_hooks_dropped_total{why=\"queue\"} 2\n",
            "holdline_hooks_dropped_total{why=\"ended\"} 0\n",
            "holdline_hooks_queued 0\n",
            "holdline_hooks_batch_seconds_bucket{le=\"0.0025\"} 1\n",
        ] {
            assert!(said.contains(line), "{line}{said}");
        }
    }
}
