//! What the kernel alone takes: bare loops at the same number of connections, under the same clients.

use std::time::{Duration, Instant};
use std::{io, iter};

use super::child::{self, Child};
use super::kernel::Look;
use super::results::{Bare, Heartbeats, Kernel};
use super::step::Timing;
use super::swarm::{Load, Swarm};
use crate::common::bare::{DIAL, Engine, Role};
use crate::common::sys;
use crate::common::target::BARE;

const CORES: (usize, usize) = (0, 1);
const START: Duration = Duration::from_secs(20);

/// A bare loop in a process of its own.
struct Loop {
    child: Child,
    address: String,
}

impl Loop {
    fn start() -> io::Result<Self> {
        let words = [BARE, Role::Fanout.name(), Engine::UringMany.name(), "512"];
        let mut child = Child::start(&own_command(&words)?, Some(CORES.0))?;
        let address = child.line_with("listening on tcp://", START)?;
        child.line_with("ready", START)?;
        Ok(Self { child, address })
    }

    /// Asks until it has so many connections.
    fn wait_for(
        &mut self,
        connections: u64,
        patience: Duration,
        mut fine: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let until = Instant::now() + patience;
        loop {
            self.child.tell("count")?;
            let count: u64 = self.child.line_with("count ", START)?.parse().unwrap_or(0);
            if count >= connections {
                return Ok(());
            }
            fine()?;
            if Instant::now() > until {
                return Err(io::Error::other(format!("only {count} of {connections} connections after {patience:?}")));
            }
            child::pause(Duration::from_millis(100))?;
        }
    }
}

/// This program again, with another job.
fn own_command(words: &[&str]) -> io::Result<Vec<String>> {
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    Ok(iter::once(program.as_str()).chain(words.iter().copied()).map(str::to_owned).collect())
}

/// Kernel memory of pairs of sockets that do nothing and wait for nothing.
pub(crate) fn pair(connections: u64) -> io::Result<Kernel> {
    let mut server = Loop::start()?;
    let before = Look::now()?;
    let words = [DIAL, server.address.as_str(), &connections.to_string()];
    let mut clients = Child::start(&own_command(&words)?, Some(CORES.1))?;
    let patience = Duration::from_secs(60) + Duration::from_micros(200 * connections);
    clients.line_with("open ", patience)?;
    server.wait_for(connections, START, || Ok(()))?;
    child::pause(Duration::from_millis(500))?;
    let kernel = Look::now()?.since(&before, connections);
    clients.kill();
    server.child.kill();
    Ok(kernel)
}

/// The swarm against a loop that accepts, then sends heartbeats, then sends what is published to all.
pub(crate) fn topic(connections: u64, timing: Timing, bare: &mut Bare) -> io::Result<()> {
    let mut server = Loop::start()?;
    let before = Look::now().ok();
    let checks = timing.settle + Duration::from_micros(30 * connections);
    let load = Load {
        target: format!("tcp://{}?framing=length&app=topic", server.address),
        connections,
        hold: checks * 2 + timing.beats + Duration::from_secs(5),
        messages: timing.messages,
        server: None,
    };
    let mut swarm = Swarm::start(&load)?;
    server.wait_for(connections, load.patience(), || swarm.still_runs())?;
    // Not one of them waits for anything yet, on this side.
    bare.swarm_pair = before.zip(Look::now().ok()).map(|(before, now)| now.since(&before, connections));
    server.child.tell("receive")?;
    child::pause(checks)?;
    swarm.still_runs()?;
    bare.heartbeats = Some(heartbeats(&mut server, connections, timing)?);
    let until = Instant::now() + load.patience();
    while swarm.child.ended()?.is_none() {
        child::pause(Duration::from_millis(50))?;
        if Instant::now() > until {
            return Err(io::Error::other("the swarm does not end"));
        }
        if server.child.ended()?.is_some() {
            return Err(server.child.failed("ended early"));
        }
    }
    let found = swarm.finish()?;
    bare.connect = Some(found.connect.clone());
    bare.broadcast = Some(found.broadcast());
    server.child.kill();
    Ok(())
}

fn heartbeats(server: &mut Loop, connections: u64, timing: Timing) -> io::Result<Heartbeats> {
    let (cpu, started) = (sys::cpu_time(server.child.pid())?, Instant::now());
    server.child.tell(&format!("beat {}", timing.beats.as_secs_f64()))?;
    let line = server.child.line_with("beaten ", timing.beats + START)?;
    let (cpu, took) = (sys::cpu_time(server.child.pid())?.saturating_sub(cpu), started.elapsed());
    let mut counts = line.split_whitespace().map(|count| count.parse::<u64>().unwrap_or(0));
    let (sent, answered) = (counts.next().unwrap_or(0), counts.next().unwrap_or(0));
    if sent != connections || answered != sent {
        return Err(io::Error::other(format!("bare heartbeats: {sent} sent and {answered} answered of {connections}")));
    }
    Ok(Heartbeats { seconds: took.as_secs_f64(), sent, cpu_seconds: cpu.as_secs_f64() })
}
