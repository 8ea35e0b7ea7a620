//! Spans of messages that belong to a recorded trace: their publication, and their fan-out on each shard.
//!
//! ```text
//!   the publisher's span --> publish (the topic's owner) --> deliver (each shard with subscribers)
//!                                         \
//!                                          +--> what subscribers are told as their parent
//! ```
//!
//! A span is one event of `tracing` with the target [`TARGET`]: a line for those who log it, and what the exporter takes.
//! Messages without a trace cost a comparison with zero. Publishers decide what is recorded, so spans are rationed.

use tracing::Level;

use crate::codec::trace::Parent;
use crate::id::ShardId;
use crate::message::Message;
use crate::metrics::ShardMetrics;
use crate::rate::TokenBucket;
use crate::time::Instant;

/// The target of these events.
pub const TARGET: &str = "holdline::trace";

/// What a shard tells of traces.
#[derive(Debug)]
pub(super) struct Spans {
    shard: ShardId,
    bucket: TokenBucket,
    /// Spans so far: no two of a shard have the same.
    count: u64,
}

/// When something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// Milliseconds of Unix time at which it began.
    pub(super) begin_ms: u64,
    /// The same for its end, in nanoseconds.
    pub(super) end_ns: u64,
}

impl Spans {
    const PER_SECOND: u32 = 200;
    const BURST: u32 = 1000;

    /// Those of a shard.
    pub(super) const fn new(shard: ShardId) -> Self {
        Self { shard, bucket: TokenBucket::new(Self::PER_SECOND, Self::BURST), count: 0 }
    }

    /// Begins a span of a message, if it is to be told: its parent and its own number.
    pub(super) fn begin(&mut self, message: &Message, now: Instant, metrics: &ShardMetrics) -> Option<(Parent, u64)> {
        if !message.is_sampled() || !tracing::enabled!(target: TARGET, Level::DEBUG) {
            return None;
        }
        if !self.bucket.take(now) {
            metrics.spans_suppressed_total.add(1);
            return None;
        }
        let parent = message.trace()?.parent;
        self.count += 1;
        Some((parent, self.number(parent, now)))
    }

    /// A number for a span that no other of the trace has, but by chance: what tells two spans apart, mixed well
    /// (splitmix64, Steele, Lea and Flood).
    fn number(&self, parent: Parent, now: Instant) -> u64 {
        let seed = parent.span ^ now.as_nanos().rotate_left(20) ^ u64::from(self.shard.0).rotate_left(48) ^ self.count;
        let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31).max(1)
    }

    /// Tells a span. `reached`: the subscribers that it is about.
    pub(super) fn tell(
        &self,
        name: &str,
        (parent, span): (Parent, u64),
        message: &Message,
        times: Times,
        reached: u64,
    ) {
        let Times { begin_ms, end_ns } = times;
        let begin_ns = begin_ms.saturating_mul(1_000_000);
        tracing::debug!(
            target: TARGET,
            name,
            trace_id = format_args!("{:032x}", parent.trace),
            span_id = format_args!("{span:016x}"),
            parent_id = format_args!("{:016x}", parent.span),
            begin_ns,
            end_ns = end_ns.max(begin_ns),
            topic = message.topic.as_str(),
            offset = message.offset.0,
            reached,
            shard = self.shard.0,
            "span"
        );
    }
}

/// An instant as nanoseconds of Unix time. `turn` was at the millisecond `unix_ms`.
pub(super) fn unix_ns(instant: Instant, turn: Instant, unix_ms: u64) -> u64 {
    let since = u64::try_from(instant.since(turn).as_nanos()).unwrap_or(0);
    unix_ms.saturating_mul(1_000_000).saturating_add(since)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;
    use crate::codec::trace::Trace;
    use crate::message::{Kind, Topic};

    fn message(flags: &str) -> Message {
        let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        let topic = Topic::parse(b"news", Topic::BYTES_MAX).expect("a topic");
        Message::traced(topic, Kind::Text, b"hi", None, Trace::parse(parent.as_bytes(), None))
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged during `work`.
    fn logged(level: Level, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(move || writer.clone());
        tracing::subscriber::with_default(log.finish(), work);
        let bytes = std::mem::take(&mut *lines.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn only_what_is_sampled_and_asked_for_is_told() {
        let metrics = ShardMetrics::default();
        let begun = |level, flags| {
            let mut begun = None;
            logged(level, || begun = Spans::new(ShardId(0)).begin(&message(flags), Instant::ZERO, &metrics));
            begun.is_some()
        };
        assert!(begun(Level::DEBUG, "01"));
        assert!(!begun(Level::DEBUG, "00") && !begun(Level::INFO, "01"));
    }

    #[test]
    fn a_flood_of_spans_is_rationed_and_counted() {
        let (metrics, mut spans) = (ShardMetrics::default(), Spans::new(ShardId(0)));
        logged(Level::DEBUG, || {
            let numbers: std::collections::HashSet<u64> = (0..1500)
                .filter_map(|_| spans.begin(&message("01"), Instant::ZERO, &metrics))
                .map(|(_, n)| n)
                .collect();
            assert_eq!((numbers.len(), metrics.spans_suppressed_total.get()), (1000, 500));
        });
    }

    #[test]
    fn a_span_is_a_line() {
        let line = logged(Level::DEBUG, || {
            let (mut spans, message) = (Spans::new(ShardId(3)), message("01"));
            let span = spans.begin(&message, Instant::ZERO, &ShardMetrics::default()).expect("a span");
            spans.tell("publish", span, &message, Times { begin_ms: 5, end_ns: 0 }, 7);
        });
        for part in [
            "holdline::trace: span name=\"publish\" trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=",
            " parent_id=00f067aa0ba902b7 begin_ns=5000000 end_ns=5000000 topic=\"news\" offset=0 reached=7 shard=3",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
}
