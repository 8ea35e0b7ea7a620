//! Connections that come and go, well and badly behaved, beside others that stay and must not notice.

use std::time::Duration;

use super::crowd::Role;
use super::latency::{Latencies, round};
use super::live::Phase;
use super::part::Order;
use super::part::guest::Invitation;
use super::plan::{App, Churn, Protocol, Rate};
use super::report::{self, EchoTimes, Report, per_second};
use super::stage::Stage;
use super::tally::{Count, Tally};
use super::worker::Harvest;
use super::{broadcast, echo, named};

/// Messages per second of all healthy clients that measure echoes.
const PROBE_RATE: f64 = 500.0;
/// Messages under way per such client at most: those that are late leave when there is room, and count as late.
const PROBES_IN_FLIGHT: u32 = 64;
/// How long the probes run before the churn.
const IDLE_MIN: Duration = Duration::from_secs(2);
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Time for those who said good-bye to be gone.
const FAREWELL: Duration = Duration::from_secs(15);
/// How often the server's memory is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// What was measured.
pub(super) struct Measured {
    took: Duration,
    holders: u64,
    publications: u64,
    before: Tally,
    after: Tally,
    /// Echo loads before and during the churn.
    probes: Option<[(usize, u64); 2]>,
    memory: [u64; 3],
    /// It ended before its time.
    is_stopped: bool,
}

/// Lets guests come and go.
pub(super) fn run(stage: &mut Stage<'_>, churn: &Churn, report: &mut Report) -> Option<Measured> {
    report.hold.alive_at_start = stage.call_the_roll();
    let holders = stage.tally()[Count::Standing];
    let held = stage.now();
    let others = stage.plan.probes();
    if others.is_some_and(|probes| !stage.open_others(probes)) {
        return None;
    }
    let has_probes = others.is_some() || stage.role() == Role::Echo;
    let rate = Rate::new(PROBE_RATE);
    let idle = (churn.duration / 10).clamp(IDLE_MIN, IDLE_MAX);
    let quiet = has_probes.then(|| probe(stage, rate, idle)).flatten();

    let before = stage.tally();
    let memory_before = stage.user_bytes();
    let load = has_probes.then(|| echo::begin(stage, Some(rate), PROBES_IN_FLIGHT, Duration::ZERO, churn.duration));
    let start = stage.now();
    invite(stage, churn);
    let publications = if stage.plan.target.app == App::Topic { publish(stage, churn) } else { 0 };
    stage.enter(Phase::Measure, churn.duration);
    let mut peak = memory_before;
    stage.pause_looking(churn.duration, || peak = peak.max(stage.user_bytes()));
    let took = stage.now().since(start);
    let after_probes = has_probes.then(|| echo::finish(stage, before));
    let peak = see_off(stage, churn, holders * publications, before, peak);
    let (after, is_stopped) = (stage.tally(), stage.is_stopped());
    let memory = [memory_before, peak, stage.user_bytes()];
    report.hold.seconds = round(stage.now().since(held).as_secs_f64());
    report.hold.alive_at_end = stage.call_again();
    let during = load.zip(after_probes).map(|(load, after)| (load, missing(&before, &after)));
    let probes = quiet.zip(during).map(|(quiet, during)| [quiet, during]);
    Some(Measured { took, holders, publications, before, after, probes, memory, is_stopped })
}

/// The probes alone: their load, and how many did not come back. `None` when there is no time for them.
fn probe(stage: &mut Stage<'_>, rate: Rate, duration: Duration) -> Option<(usize, u64)> {
    let before = stage.tally();
    let load = echo::begin(stage, Some(rate), PROBES_IN_FLIGHT, Duration::ZERO, duration);
    stage.enter(Phase::WarmUp, duration);
    let is_done = stage.pause(duration);
    let after = echo::finish(stage, before);
    is_done.then_some((load, missing(&before, &after)))
}

/// Messages that were due and did not come back.
fn missing(before: &Tally, after: &Tally) -> u64 {
    let due = after[Count::Due] - before[Count::Due];
    due.saturating_sub(after[Count::Answered] - before[Count::Answered])
}

fn invite(stage: &Stage<'_>, churn: &Churn) {
    let threads = stage.plan.threads;
    let start = stage.now();
    let invitation = Invitation {
        gap: churn.rate.due(threads as u64),
        start,
        until: start + churn.duration,
        lifetime: churn.lifetime,
        mute_for: churn.half_open_for,
        abrupt: churn.abrupt.get(),
        mute: churn.half_open.get(),
        slow: churn.slow.get(),
    };
    stage.tell(|index| {
        // The threads take turns.
        let offset = churn.rate.due(index as u64);
        (index < threads).then_some(Order::Invite(Invitation { start: start + offset, ..invitation }))
    });
}

/// Publishes now and then until the churn ends: how often.
fn publish(stage: &mut Stage<'_>, churn: &Churn) -> u64 {
    let interval = churn.publish_every;
    let count = churn.duration.as_nanos() / interval.as_nanos().max(1);
    let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    stage.measure(count);
    let start = stage.now() + interval.min(churn.duration) / 2;
    stage.publish(count, interval, Some(start));
    u64::from(count)
}

/// Waits until all guests are gone and all publications have come: the most memory meanwhile.
fn see_off(stage: &Stage<'_>, churn: &Churn, deliveries: u64, before: Tally, peak: u64) -> u64 {
    let (start, within) = (stage.now(), churn.half_open_for.max(churn.lifetime) + FAREWELL);
    stage.enter(Phase::Settle, within);
    let goal = before[Count::Measured] + deliveries;
    let patience = churn.half_open_for + FAREWELL + stage.plan.patience;
    let progress = |tally: &Tally| tally[Count::Measured] + tally[Count::Guests];
    stage.until(patience, progress, |tally| {
        stage.live.advance(u64::try_from(stage.now().since(start).as_millis()).unwrap_or(u64::MAX));
        tally[Count::Guests] == 0 && tally[Count::Measured] >= goal
    });
    stage.enter(Phase::Settle, Duration::ZERO);
    stage.quiet();
    // The server gives memory back when its own timers have fired.
    let start = stage.now();
    let mut least = stage.user_bytes();
    while stage.user_bytes() > 0 && stage.now().since(start) < FAREWELL / 3 && stage.pause(LOOK) {
        least = least.min(stage.user_bytes());
    }
    peak.max(least)
}

/// The report.
pub(super) fn report(measured: &Measured, churn: &Churn, harvest: &Harvest, protocol: Protocol) -> report::Churn {
    let count = |count: Count| measured.after[count].saturating_sub(measured.before[count]);
    let latencies = &harvest.actor.echoes.latencies;
    let times = |load: usize| latencies.get(load).map(EchoTimes::new);
    let answered = |load: usize| latencies.get(load).map_or(0, Latencies::count);
    let [idle, during] = measured.probes.map_or([None; 2], |probes| probes.map(Some));
    let Measured { holders, publications, is_stopped, .. } = *measured;
    let overlooked = count(Count::Overlooked);
    let [half_open_overlooked, half_open_unnoticeable] =
        if protocol == Protocol::Sse { [0, overlooked] } else { [overlooked, 0] };
    let [memory_before, memory_peak, memory_after] = measured.memory;
    let mut failures = named(measured.after.failures());
    for (reason, before) in named(measured.before.failures()) {
        failures.entry(reason).and_modify(|count| *count = count.saturating_sub(before));
    }
    failures.retain(|_, count| *count > 0);
    let (probe_idle, probe) = (idle.and_then(|(load, _)| times(load)), during.and_then(|(load, _)| times(load)));
    report::Churn {
        seconds: round(measured.took.as_secs_f64()),
        held: churn.held as u64,
        held_lost: count(Count::Lost),
        intended_rate: churn.rate.get(),
        rate: per_second(count(Count::Came), measured.took),
        connects: count(Count::Came),
        connects_failed: count(Count::Turned),
        failures,
        graceful: count(Count::Left),
        graceful_unanswered: count(Count::Unanswered),
        abrupt: count(Count::Reset),
        half_open: count(Count::Muted),
        half_open_detected: count(Count::Detected),
        half_open_overlooked,
        half_open_unnoticeable,
        slow: count(Count::Slowed),
        slow_ended: count(Count::Cut),
        publications: count(Count::Published),
        deliveries: count(Count::Measured),
        missing: broadcast::missing(&measured.before, &measured.after, holders, publications, is_stopped),
        duplicates: count(Count::Duplicates),
        reordered: count(Count::Reordered),
        probes: during.map_or(0, |(load, missing)| answered(load).saturating_sub(missing)),
        probes_missing: idle.map_or(0, |(_, missing)| missing) + during.map_or(0, |(_, missing)| missing),
        probe_p99_ratio: probe_idle.zip(probe).map(|(idle, churn)| round(churn.p99_us / idle.p99_us.max(0.001))),
        probe_idle,
        probe,
        server_bytes_before: memory_before,
        server_bytes_peak: memory_peak,
        server_bytes_after: memory_after,
    }
}
