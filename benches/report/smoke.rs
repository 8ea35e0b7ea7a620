//! A tiny ladder and its page, as a test: that everything still works, not how fast.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::ladder::Ladder;
use super::page;
use super::results::{Results, Step};
use super::step::Timing;
use super::swarm::{self, Load};

const STEPS: [u64; 2] = [50, 200];
/// Clients behind a TUN device, which need nothing of the kernel.
const TUN: u64 = 100;
const MESSAGES: u32 = 2;

/// Fails when a step fails, when something is not measured, or when the page lacks something.
pub(crate) fn run() -> io::Result<()> {
    a_loss_is_an_error()?;
    let timing = Timing {
        heartbeat: Duration::from_secs(1),
        settle: Duration::from_millis(300),
        beats: Duration::from_secs(2),
        quiet: Duration::from_millis(300),
        messages: MESSAGES,
    };
    let backends = vec!["uring".to_owned(), "epoll".to_owned()];
    let ladder = Ladder { steps: STEPS.to_vec(), tun: vec![TUN], backends, timing };
    let results = ladder.run()?;
    // Kernel memory can be read by root only and is the whole machine's: said aloud by the ladder, no failure of it.
    let bad = results.left_out.iter().find(|item| item.failed && !item.what.starts_with("kernel memory"));
    if let Some(item) = bad {
        return Err(io::Error::other(format!("{}: {}", item.what, item.why)));
    }
    results.steps.iter().try_for_each(complete)?;
    let steps = |via: &str| results.steps.iter().filter(|step| step.via == via).count();
    check(steps("loopback") == 2 * STEPS.len() && results.bare.len() == STEPS.len(), "a step is missing")?;
    check(steps("tun") == 2, "a step over a TUN device is missing")?;
    let heard = |bare: &super::results::Bare| bare.broadcast.as_ref().is_some_and(|found| found.deliveries > 0);
    check(results.bare.iter().all(heard), "a bare loop is missing")?;
    draw(&results)
}

/// What cannot be zero when it was measured.
fn complete(step: &Step) -> io::Result<()> {
    let what = |part: &str| format!("{} connections, {}: {part}", step.connections, step.backend);
    let heartbeats = step.heartbeats.as_ref().map_or(0, |found| found.sent);
    check(step.connect.rate > 0.0, &what("no connect rate"))?;
    check(heartbeats >= step.connections, &what("fewer heartbeats than connections"))?;
    check(step.broadcast.deliveries == step.connections * u64::from(MESSAGES), &what("deliveries are missing"))?;
    check(step.broadcast.last_ms >= step.broadcast.first_ms && step.broadcast.last_ms > 0.0, &what("no latency"))?;
    check(step.echo.quiet.is_some() && step.echo.during.is_some(), &what("no echo"))?;
    check(step.turns.max_ms > 0.0, &what("no turn time"))
}

fn draw(results: &Results) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    page::write(results, &folder)?;
    let page = std::fs::read_to_string(folder.join("README.md"))?;
    check(page.matches(".svg)").count() >= 6, "the page lacks pictures")?;
    for file in page.split(['(', ')']).filter(|part| part.ends_with(".svg")) {
        let svg = std::fs::read_to_string(folder.join(file))?;
        let balanced = svg.matches("<text").count() == svg.matches("</text>").count();
        check(svg.ends_with("</svg>\n") && balanced && !svg.contains("NaN") && !svg.contains("inf\""), file)?;
    }
    println!("{}", folder.join("README.md").display());
    Ok(())
}

/// A swarm that reports a missing message, or less than was asked for, must fail its step.
fn a_loss_is_an_error() -> io::Result<()> {
    let load = Load { target: String::new(), connections: 2, hold: Duration::ZERO, messages: 3, server: None };
    let report = |missing: u64, deliveries: u64, ok: bool| {
        format!(
            r#"{{"ok": {ok}, "connections": 2, "opened": 2,
                "connect": {{"seconds": 1.0, "rate": 2.0, "p50_ms": 1.0, "p99_ms": 1.0, "max_ms": 1.0}},
                "broadcast": {{"messages": 3, "deliveries": {deliveries}, "missing": {missing}, "duplicates": 0,
                    "first_ms": 1.0, "p50_ms": 1.0, "p99_ms": 1.0, "p99_9_ms": 1.0, "last_ms": 1.0}}}}"#
        )
    };
    swarm::read(&report(0, 6, true), &load)?;
    for (missing, deliveries, ok) in [(1, 6, true), (0, 5, true), (1, 5, false), (0, 6, false)] {
        check(swarm::read(&report(missing, deliveries, ok), &load).is_err(), "a lost message is not noticed")?;
    }
    Ok(())
}

fn check(good: bool, what: &str) -> io::Result<()> {
    if good { Ok(()) } else { Err(io::Error::other(what.to_owned())) }
}
