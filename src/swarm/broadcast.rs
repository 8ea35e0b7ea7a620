//! Publish to a topic that all hold: has every one heard every message, once, in order, and when?

use std::time::Duration;

use super::latency::round;
use super::live::Phase;
use super::part::subscriber::Subscribers;
use super::plan::Broadcast;
use super::report::{self, Report, per_second};
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
    /// It ended before its time.
    is_stopped: bool,
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
    Measured { start, before, after: stage.tally(), holders, is_stopped: stage.is_stopped() }
}

/// The report of publications of `size` bytes.
pub(super) fn report(measured: &Measured, size: usize, messages: u32, heard: &Subscribers) -> report::Broadcast {
    let counted = difference(measured, Count::Measured);
    let took = heard.last.since(measured.start);
    report::Broadcast {
        messages: difference(measured, Count::Published),
        deliveries: counted,
        missing: missing(&measured.before, &measured.after, measured.holders, messages.into(), measured.is_stopped),
        duplicates: difference(measured, Count::Duplicates),
        reordered: difference(measured, Count::Reordered),
        rate: per_second(counted, took),
        ..report::Broadcast::new(size, &heard.overall, &heard.messages, took)
    }
}

/// Deliveries that did not come, of `messages` to `holders`. Of a run that was stopped these are the ones that were passed
/// over: some were not published, and others may be under way.
pub(super) fn missing(before: &Tally, after: &Tally, holders: u64, messages: u64, is_stopped: bool) -> u64 {
    let count = |count: Count| after[count].saturating_sub(before[count]);
    let messages = if is_stopped { messages.min(count(Count::Published)) } else { messages };
    let missing = (holders * messages).saturating_sub(count(Count::Measured));
    let passed_over = count(Count::Skipped).saturating_sub(count(Count::Reordered));
    if is_stopped { missing.min(passed_over) } else { missing }
}

fn difference(measured: &Measured, count: Count) -> u64 {
    measured.after[count].saturating_sub(measured.before[count])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stopped_run_did_not_publish_is_not_missing() {
        let mut after = Tally::default();
        for (count, number) in
            [(Count::Published, 4), (Count::Measured, 37), (Count::Skipped, 2), (Count::Reordered, 1)]
        {
            Tally::add(&mut after, count, number);
        }
        let found = |is_stopped| missing(&Tally::default(), &after, 10, 100, is_stopped);
        assert_eq!((found(false), found(true)), (963, 1), "of the 3 that lack one was passed over");
        Tally::add(&mut after, Count::Measured, 3);
        assert_eq!(missing(&Tally::default(), &after, 10, 100, true), 0);
    }
}
