//! Open, hold, and be found alive by data at both ends of the hold.

use super::latency::round;
use super::live::Phase;
use super::plan::Idle;
use super::report::{Hold, Report};
use super::stage::Stage;
use super::tally::Count;

/// Holds what is open.
pub(super) fn run(stage: &mut Stage<'_>, idle: Idle, report: &mut Report) {
    report.hold.alive_at_start = stage.call_the_roll();
    let start = stage.now();
    stage.enter(Phase::Hold, idle.hold);
    let is_held = stage.pause(idle.hold);
    report.hold.seconds = round(stage.now().since(start).as_secs_f64());
    if is_held {
        report.hold.alive_at_end = stage.call_again();
    }
}

/// What can be said of the connections that stayed, in every scenario.
pub(super) fn lived(stage: &Stage<'_>, hold: &mut Hold) {
    let tally = stage.tally();
    hold.pings_answered = tally[Count::Pings];
    hold.heartbeats_heard = tally[Count::Heartbeats];
    hold.lost = tally[Count::Lost];
    hold.vanished = tally[Count::Vanished];
    hold.losses = super::named(tally.losses());
    hold.losses.extend(tally.closes().map(|(code, count)| (format!("closed_{code}"), count)));
}
