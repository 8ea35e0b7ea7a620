//! Messages there and back, in a closed loop or at a rate, counted from their intended times.

use std::time::Duration;

use super::crowd::Role;
use super::latency::Latencies;
use super::live::Phase;
use super::part::Order;
use super::part::echo::{Load, Pace};
use super::plan::{Echo, Rate};
use super::report::{self, EchoTimes, Report, per_second};
use super::stage::{Stage, part_of};
use super::tally::{Count, Tally};

/// Time from the order to the first message, so that all threads begin together.
const LEAD: Duration = Duration::from_millis(10);

/// A load that was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Which of the threads' histograms it is.
    pub(super) load: usize,
    before: Tally,
    pub(super) after: Tally,
    took: Duration,
    /// CPU time of the server and messages in that time.
    cpu: Option<(f64, u64)>,
}

impl Measured {
    /// Messages that came back while it was measured.
    fn timely(&self) -> u64 {
        self.after[Count::Timely] - self.before[Count::Timely]
    }

    /// Messages that came back, but not as they left.
    fn wrong(&self) -> u64 {
        self.after[Count::Wrong] - self.before[Count::Wrong]
    }

    /// Messages that were due and did not come back.
    pub(super) fn missing(&self) -> u64 {
        let due = self.after[Count::Due] - self.before[Count::Due];
        due.saturating_sub(self.after[Count::Answered] - self.before[Count::Answered])
    }
}

/// Sends what the plan says.
pub(super) fn run(stage: &mut Stage<'_>, echo: Echo, report: &mut Report) -> Measured {
    report.hold.alive_at_start = stage.call_the_roll();
    let held = stage.now();
    let before = stage.tally();
    let load = begin(stage, echo.rate, in_flight(echo.in_flight), echo.warm_up, echo.duration);
    stage.enter(Phase::WarmUp, echo.warm_up);
    stage.pause(echo.warm_up + LEAD);
    stage.enter(Phase::Measure, echo.duration);
    let (cpu, start, answered) = (stage.usage(), stage.now(), stage.tally()[Count::Answered]);
    stage.pause(echo.duration);
    // What the threads count as timely ends with the time that was asked for.
    let took = stage.now().since(start).min(echo.duration);
    let messages = stage.tally()[Count::Answered] - answered;
    let cpu = cpu.zip(stage.usage()).map(|(from, to)| (to.cpu_seconds - from.cpu_seconds, messages));
    let after = finish(stage, before);
    report.hold.seconds = super::latency::round(stage.now().since(held).as_secs_f64());
    report.hold.alive_at_end = stage.call_again();
    Measured { load, before, after, took, cpu }
}

fn in_flight(messages: usize) -> u32 {
    u32::try_from(messages).unwrap_or(u32::MAX)
}

/// Begins a load on all threads: the number of its histograms. A rate is over all connections.
pub(super) fn begin(
    stage: &mut Stage<'_>,
    rate: Option<Rate>,
    in_flight: u32,
    warm_up: Duration,
    duration: Duration,
) -> usize {
    let start = stage.now() + LEAD;
    let measure_from = start + warm_up;
    let (plan, clients) = (stage.plan, stage.echo_clients());
    stage.echo(|index| {
        #[allow(clippy::cast_precision_loss, reason = "connections are below 2^53")]
        let part = part_of(plan, Role::Echo, clients, index) as f64 / clients.max(1) as f64;
        let pace = rate.map_or(Pace::Closed, |rate| Pace::Rate { per_second: rate.get() * part, start });
        Load { pace, in_flight, measure_from, until: measure_from + duration }
    })
}

/// Waits for late answers, and ends the load.
pub(super) fn finish(stage: &Stage<'_>, before: Tally) -> Tally {
    stage.live.enter(Phase::Settle, 0);
    let under_way = |tally: &Tally| {
        let due = tally[Count::Due] - before[Count::Due];
        due.saturating_sub(tally[Count::Answered] - before[Count::Answered])
    };
    let spent = before[Count::Spent] + stage.desks.len() as u64;
    stage.until(
        stage.plan.patience,
        |tally| tally[Count::Answered] + tally[Count::Spent],
        |tally| tally[Count::Spent] >= spent && under_way(tally) == 0,
    );
    // What comes from now on is not waited for, and is counted nowhere.
    stage.tell(|_| Some(Order::Hush));
    stage.tally()
}

/// The report of a load.
pub(super) fn report(measured: &Measured, echo: Echo, latencies: &Latencies, late: u64) -> report::Echo {
    #[allow(clippy::cast_precision_loss, reason = "no run counts to 2^53")]
    let each = |(cpu, messages): (f64, u64)| super::latency::round(cpu * 1e6 / messages.max(1) as f64);
    let messages = latencies.count().saturating_sub(late);
    report::Echo {
        messages,
        missing: measured.missing(),
        wrong: measured.wrong(),
        size_bytes: echo.size,
        in_flight: echo.in_flight,
        seconds: super::latency::round(measured.took.as_secs_f64()),
        intended_rate: echo.rate.map(Rate::get),
        rate: per_second(measured.timely(), measured.took),
        times: EchoTimes::new(latencies),
        server_cpu_us_per_message: measured.cpu.map(each),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_answers_are_no_rate() {
        let (mut latencies, mut after) = (Latencies::new(), Tally::default());
        (0..1000).for_each(|_| latencies.record(1));
        for (count, number) in [(Count::Due, 1100), (Count::Answered, 1000), (Count::Timely, 600)] {
            Tally::add(&mut after, count, number);
        }
        let took = Duration::from_secs(2);
        let measured = Measured { load: 0, before: Tally::default(), after, took, cpu: None };
        let echo = Echo { size: 64, in_flight: 1, rate: Some(Rate::new(550.0)), duration: took, warm_up: LEAD };
        let found = report(&measured, echo, &latencies, 100);
        assert_eq!((found.messages, found.missing, found.rate.to_string().as_str()), (900, 100, "300"));
    }
}
