//! What a person sees while it runs: a bar on a terminal, a line now and then anywhere else.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::swarm::live::{Live, Phase, Snapshot};
use crate::swarm::summary::{amount, bytes, grouped};

/// Time over which rates are taken.
const WINDOW: Duration = Duration::from_secs(1);
/// Time from one line to the next where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Setting up is worth a line when it takes longer than this.
const SETUP_SOON: Duration = Duration::from_secs(1);
/// Columns of a bar: with its label it leaves a narrow terminal room for what matters.
const BAR: u64 = 8;

/// Shows a [`Live`] on standard error.
pub(super) struct Progress {
    view: View,
    connections: u64,
    /// The first look.
    start: Option<Instant>,
    /// Looks within the last [`WINDOW`], and the one before.
    seen: VecDeque<(Instant, Snapshot)>,
}

enum View {
    Bar(ProgressBar),
    Lines { last: Option<(Instant, Phase)> },
    Nothing,
}

impl Progress {
    pub(super) fn new(connections: usize, quiet: bool) -> Self {
        let view = if quiet {
            View::Nothing
        } else if std::io::stderr().is_terminal() {
            View::Bar(bar())
        } else {
            View::Lines { last: None }
        };
        Self { view, connections: connections as u64, start: None, seen: VecDeque::new() }
    }

    /// Shows what there is now.
    pub(super) fn show(&mut self, live: &Live, now: Instant) {
        let snapshot = live.snapshot();
        self.seen.push_back((now, snapshot));
        while self.seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.seen.pop_front();
        }
        let (since, before) = self.seen.front().copied().unwrap_or((now, snapshot));
        let text = || describe(&before, &snapshot, now.duration_since(since), self.connections);
        let passed = now.duration_since(*self.start.get_or_insert(now));
        match &mut self.view {
            // All of it in one message: each setter draws, and the bar of one phase must not stand behind another's name.
            View::Bar(bar) => bar.set_message(line(&snapshot, self.connections, passed, &text())),
            View::Lines { last } => {
                let due =
                    last.is_none_or(|(at, phase)| phase != snapshot.phase || now.duration_since(at) >= LINE_INTERVAL);
                if due && (snapshot.phase != Phase::Setup || passed >= SETUP_SOON) {
                    *last = Some((now, snapshot.phase));
                    // Nobody listens: no reason to stop.
                    let _ = writeln!(std::io::stderr(), "{}: {}", snapshot.phase.name(), text());
                }
            }
            View::Nothing => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(10));
    bar.set_style(ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// The line of a terminal. Where nobody knows how long it takes, it has no bar.
fn line(snapshot: &Snapshot, connections: u64, passed: Duration, text: &str) -> String {
    let (name, seconds) = (snapshot.phase.name(), passed.as_secs());
    let (done, goal) = extent(snapshot, connections);
    let Some(full) = (done.min(goal) * BAR).checked_div(goal) else { return format!("{name:>10} {seconds}s {text}") };
    let full = usize::try_from(full).unwrap_or(0);
    format!("{name:>10} [{:8}] {seconds}s {text}", "=".repeat(full))
}

/// How far the bar is, of what: the connections while they come and go, else what the run says.
fn extent(snapshot: &Snapshot, connections: u64) -> (u64, u64) {
    match snapshot.phase {
        Phase::Setup | Phase::Open => (snapshot.opened.min(connections), connections),
        Phase::Close => (snapshot.goal.saturating_sub(snapshot.alive), snapshot.goal),
        Phase::Done => (1, 1),
        _ => (snapshot.done, snapshot.goal),
    }
}

/// What happened from `before` to `now`, as one line.
fn describe(before: &Snapshot, now: &Snapshot, elapsed: Duration, connections: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let rate = |count: fn(&Snapshot) -> u64| {
        let grown = count(now).saturating_sub(count(before)) as f64;
        if elapsed.is_zero() { 0.0 } else { grown / elapsed.as_secs_f64() }
    };
    let mut parts = Vec::new();
    // What is wrong comes first: a narrow terminal cuts the rest.
    for (count, what) in [(now.lost, "lost"), (now.failed, "failed")] {
        if count > 0 {
            parts.push(format!("{} {what}", grouped(count)));
        }
    }
    match now.phase {
        Phase::Settle if now.goal > 0 => {
            // Only a churn knows, in milliseconds.
            parts.push(format!(
                "waiting for guests to end, up to {} s more",
                now.goal.saturating_sub(now.done).div_ceil(1000)
            ));
            parts.push(format!("{} alive", grouped(now.alive)));
        }
        Phase::Setup | Phase::Open => {
            parts.push(format!("{} of {} open", grouped(now.opened), grouped(connections)));
            parts.push(format!("{}/s", amount(rate(|at| at.opened))));
            parts.push(format!("{} opening", grouped(now.opening)));
        }
        _ => {
            parts.push(format!("{} alive", grouped(now.alive)));
            parts.push(format!("{} in/s, {} out/s", amount(rate(|at| at.received)), amount(rate(|at| at.sent))));
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and saturates")]
            let flow = rate(|at| at.bytes_received + at.bytes_sent) as u64;
            parts.push(format!("{}/s", bytes(flow)));
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_rates_of_the_last_second() {
        let before = Snapshot { phase: Phase::Open, opened: 1000, ..Snapshot::default() };
        let now = Snapshot { opened: 16_000, opening: 64, failed: 3, ..before };
        assert_eq!(
            describe(&before, &now, Duration::from_millis(500), 100_000),
            "3 failed, 16,000 of 100,000 open, 30,000/s, 64 opening"
        );
        let held = Snapshot { phase: Phase::Hold, alive: 7, received: 20, bytes_received: 2048, lost: 1, ..now };
        assert_eq!(
            describe(&now, &held, Duration::from_secs(1), 100_000),
            "1 lost, 3 failed, 7 alive, 20.0 in/s, 0.0 out/s, 2.0 KiB/s"
        );
        assert!(describe(&now, &now, Duration::ZERO, 1).contains(" 0.0/s"));
    }

    #[test]
    fn the_bar_is_about_connections_first() {
        let live = Live::new(1);
        live.enter(Phase::Open, 0);
        live.thread(0).opened.add(12);
        assert_eq!(extent(&live.snapshot(), 10), (10, 10));
        live.enter(Phase::Hold, 5000);
        live.advance(1200);
        assert_eq!(extent(&live.snapshot(), 10), (1200, 5000));
        live.thread(0).alive.set(15);
        live.enter(Phase::Close, 20);
        assert_eq!(extent(&live.snapshot(), 10), (5, 20), "those that are gone");
    }

    #[test]
    fn a_narrow_terminal_shows_what_matters() {
        let held =
            Snapshot { phase: Phase::WarmUp, alive: 20_000, lost: 17, done: 500, goal: 1000, ..Snapshot::default() };
        let text = describe(&held, &held, Duration::from_secs(1), 20_000);
        let shown = line(&held, 20_000, Duration::from_secs(75), &text);
        assert!(shown.starts_with("warming up [====    ] 75s 17 lost, 20,000 alive, 0.0 in/s"), "{shown}");
        assert!(shown.find("17 lost").is_some_and(|at| at + 7 <= 40) && shown.len() <= 80, "{shown}");
        let settling = Snapshot { phase: Phase::Settle, done: 12_400, goal: 57_000, alive: 3, ..held };
        assert_eq!(
            describe(&held, &settling, Duration::from_secs(1), 3),
            "17 lost, waiting for guests to end, up to 45 s more, 3 alive"
        );
        let unknown = line(&Snapshot { goal: 0, ..settling }, 3, Duration::ZERO, "");
        assert!(unknown.starts_with("  settling 0s"), "no bar that never moves: {unknown}");
    }

    #[test]
    fn a_window_is_about_a_second() {
        let (mut progress, live, start) = (Progress::new(10, true), Live::new(1), Instant::now());
        for tenth in 0..50 {
            progress.show(&live, start + Duration::from_millis(100 * tenth));
        }
        let kept = progress.seen.len();
        assert!((10..=12).contains(&kept), "{kept}");
    }
}
