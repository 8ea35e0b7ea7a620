//! Publish to a topic that all hold: has every one heard every message, once, in order, and when?

use std::time::Duration;

use super::latency::round;
use super::live::Phase;
use super::part::subscriber::Subscribers;
use super::plan::Broadcast;
use super::report::{self, Publication, Report, per_second};
use super::stage::Stage;
use super::tally::{Count, Tally};
use crate::time::Instant;

/// Time from the order to the first publication, so that it is at its time.
const LEAD: Duration = Duration::from_millis(10);

/// Publications that were measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// When the first was due.
    start: Instant,
    before: Tally,
    after: Tally,
    /// Connections that should hear each.
    holders: u64,
}

impl Measured {
    /// Who has heard the last message, and still stands.
    fn alive(&self) -> u64 {
        difference(self, Count::Last).min(self.after[Count::Standing])
    }
}

/// Publishes what the plan says.
pub(super) fn run(stage: &mut Stage<'_>, broadcast: Broadcast, report: &mut Report) -> Option<Measured> {
    report.hold.alive_at_start = stage.call_the_roll();
    let held = stage.now();
    stage.enter(Phase::Hold, broadcast.hold);
    if !stage.pause(broadcast.hold) {
        return None;
    }
    let measured = publish(stage, broadcast.messages, broadcast.interval);
    report.hold.seconds = round(stage.now().since(held).as_secs_f64());
    report.hold.alive_at_end = measured.alive();
    Some(measured)
}

/// Publishes and waits for all deliveries.
pub(super) fn publish(stage: &mut Stage<'_>, messages: u32, interval: Duration) -> Measured {
    stage.live.enter(Phase::Measure, u64::from(messages));
    stage.measure(messages);
    let before = stage.tally();
    let holders = before[Count::Standing];
    let start = stage.now() + LEAD;
    stage.publish(messages, interval, Some(start));
    let goal = before[Count::Measured] + holders * u64::from(messages);
    let progress = |tally: &Tally| tally[Count::Measured] + tally[Count::Published];
    stage.until(stage.plan.patience + interval + LEAD, progress, |tally| {
        stage.live.advance(tally[Count::Published] - before[Count::Published]);
        tally[Count::Measured] >= goal
    });
    stage.live.enter(Phase::Settle, 0);
    stage.quiet();
    Measured { start, before, after: stage.tally(), holders }
}

/// The report of publications of `size` bytes.
pub(super) fn report(measured: &Measured, size: usize, messages: u32, heard: &Subscribers) -> report::Broadcast {
    let all = Publication::new(&heard.overall);
    let (expected, counted) = (measured.holders * u64::from(messages), difference(measured, Count::Measured));
    report::Broadcast {
        messages: difference(measured, Count::Published),
        size_bytes: size,
        deliveries: counted,
        missing: expected.saturating_sub(counted),
        duplicates: difference(measured, Count::Duplicates),
        reordered: difference(measured, Count::Reordered),
        first_ms: all.first_ms,
        p50_ms: all.p50_ms,
        p99_ms: all.p99_ms,
        p99_9_ms: all.p99_9_ms,
        last_ms: all.last_ms,
        rate: per_second(counted, heard.last.since(measured.start)),
        each: heard.messages.iter().map(Publication::new).collect(),
    }
}

fn difference(measured: &Measured, count: Count) -> u64 {
    measured.after[count].saturating_sub(measured.before[count])
}
