//! One step of the ladder: one server process, so many connections, everything that is measured of them.

use std::io;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::child::{self, Child};
use super::kernel::Look;
use super::probe::{self, Probe};
use super::results::{Echo, Heartbeats, Step, Turns, User};
use super::scrape::Scrape;
use super::swarm::{Load, PROGRAM, Swarm};
use crate::common::sys::{self, Memory};

const CORE: usize = 0;
/// Connections beside those of the swarm: the probe's, and some to spare.
const SPARE: u64 = 64;
const START: Duration = Duration::from_secs(20);
/// How often the server is asked how far it is.
const LOOK: Duration = Duration::from_millis(20);

/// How long things are watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) heartbeat: Duration,
    /// Quiet time after the last connection, before anything is measured.
    pub(crate) settle: Duration,
    /// Time over which heartbeats are measured: one round.
    pub(crate) beats: Duration,
    /// Time over which the echo of an idle server is measured.
    pub(crate) quiet: Duration,
    pub(crate) messages: u32,
}

impl Timing {
    /// How long the swarm has to hold its connections before it publishes.
    fn hold(self) -> Duration {
        self.settle * 2 + self.beats + self.quiet + Duration::from_secs(1)
    }
}

/// A server that was started here.
struct Server {
    child: Child,
    web: SocketAddrV4,
    echo: SocketAddrV4,
    admin: SocketAddrV4,
}

/// What the broadcasts looked like from outside.
#[derive(Default)]
struct Watched {
    spans: Vec<(Instant, Instant)>,
    turns: Vec<(Scrape, Scrape)>,
    peak: u64,
}

/// Runs a step over loopback.
pub(crate) fn run(backend: &str, connections: u64, timing: Timing) -> io::Result<Step> {
    let started = Instant::now();
    let mut server = Server::start(backend, connections, timing)?;
    let pid = server.child.pid();
    let (kernel, empty, fresh) = (Look::now().ok(), Memory::of(pid)?.total(), Scrape::of(server.admin)?);
    let load = Load {
        target: format!("ws://{}/topics/scale", server.web),
        connections,
        hold: timing.hold(),
        messages: timing.messages,
        server: None,
    };
    let mut swarm = Swarm::start(&load)?;
    let opened = server.wait_for(connections, &mut swarm, load.patience())?;
    let idle = server.wait_for_silence(timing.settle, &mut swarm)?;
    let kernel = kernel.zip(Look::now().ok()).map(|(before, now)| now.since(&before, connections));
    let open = Memory::of(pid)?.total();
    let (heartbeats, beaten) = server.heartbeats(timing, &idle)?;
    let probe = Probe::start(server.echo, None);
    let quiet = Instant::now();
    child::pause(timing.quiet)?;
    let quiet = [(quiet, Instant::now())];
    let watched = server.watch(&mut swarm, load.patience())?;
    let samples = probe.stop()?;
    let found = swarm.finish()?;
    let turns: Vec<_> = watched.turns.iter().map(|(from, to)| (from, to)).collect();
    let last = watched.turns.last().map_or(&beaten, |(_, to)| to);
    let turns = Turns {
        connecting: Scrape::turns(&[(&fresh, &opened)]),
        idle: Scrape::turns(&[(&idle, &beaten)]),
        broadcast: Scrape::turns(&turns),
        max_ms: last.longest_turn_ms(),
    };
    server.child.kill();
    Ok(Step {
        backend: backend.to_owned(),
        via: "loopback".to_owned(),
        connections,
        seconds: started.elapsed().as_secs_f64().round(),
        connect: found.connect.clone(),
        user: User { empty, open, peak: watched.peak.max(open) },
        kernel,
        heartbeats: Some(heartbeats),
        broadcast: found.broadcast(),
        echo: Echo { quiet: probe::within(&samples, &quiet), during: probe::within(&samples, &watched.spans) },
        turns,
    })
}

/// Of the first listener with this scheme.
fn address<'a>(mut urls: impl Iterator<Item = &'a String>, scheme: &str) -> io::Result<SocketAddrV4> {
    let authority = urls.find_map(|url| url.strip_prefix(scheme)?.split(['/', '?']).next());
    let address = authority.and_then(|authority| authority.parse().ok());
    address.ok_or_else(|| io::Error::other(format!("the server has no {scheme} listener on an IPv4 address")))
}

impl Server {
    fn start(backend: &str, connections: u64, timing: Timing) -> io::Result<Self> {
        let (room, heartbeat) = ((connections + SPARE).to_string(), format!("{}ms", timing.heartbeat.as_millis()));
        let flags = ["--backend", backend, "--shards", "1", "--max-connections", &room, "--admin", "127.0.0.1:0"];
        let more = ["--heartbeat-interval", &heartbeat, "--listen", "http://127.0.0.1:0"];
        let echo = ["--listen", "tcp://127.0.0.1:0?framing=length&app=echo"];
        let words = [PROGRAM, "serve"].into_iter().chain(flags).chain(more).chain(echo);
        let mut child = Child::start(&words.map(str::to_owned).collect::<Vec<_>>(), CORE)?;
        let mut urls = Vec::new();
        loop {
            match child.line(START)? {
                line if line == "ready" => break,
                line => urls.extend(line.strip_prefix("listening on ").map(str::to_owned)),
            }
        }
        let web = address(urls.iter(), "http://")?;
        let echo = address(urls.iter(), "tcp://")?;
        // The admin page comes last.
        let admin = address(urls.iter().rev(), "http://")?;
        Ok(Self { child, web, echo, admin })
    }

    /// Asks until all connections are there.
    fn wait_for(&mut self, connections: u64, swarm: &mut Swarm, patience: Duration) -> io::Result<Scrape> {
        let until = Instant::now() + patience;
        loop {
            let scrape = Scrape::of(self.admin)?;
            if scrape.get("subscriptions") >= connections {
                return Ok(scrape);
            }
            swarm.still_runs()?;
            if Instant::now() > until {
                let open = scrape.get("subscriptions");
                return Err(io::Error::other(format!("only {open} of {connections} connections after {patience:?}")));
            }
            child::pause(LOOK * 5)?;
        }
    }

    /// Asks until no message has gone out for a while: the swarm checks that all live before it holds them.
    fn wait_for_silence(&mut self, silence: Duration, swarm: &mut Swarm) -> io::Result<Scrape> {
        let mut last = Scrape::of(self.admin)?;
        let mut since = Instant::now();
        while since.elapsed() < silence {
            child::pause(LOOK * 5)?;
            swarm.still_runs()?;
            let now = Scrape::of(self.admin)?;
            if now.get("deliveries_total") != last.get("deliveries_total") {
                since = Instant::now();
            }
            last = now;
        }
        Ok(last)
    }

    fn heartbeats(&mut self, timing: Timing, before: &Scrape) -> io::Result<(Heartbeats, Scrape)> {
        let (cpu, started) = (sys::cpu_time(self.child.pid())?, Instant::now());
        child::pause(timing.beats)?;
        let (cpu, took) = (sys::cpu_time(self.child.pid())?.saturating_sub(cpu), started.elapsed());
        let after = Scrape::of(self.admin)?;
        let sent = after.get("heartbeats_sent_total") - before.get("heartbeats_sent_total");
        Ok((Heartbeats { seconds: took.as_secs_f64(), sent, cpu_seconds: cpu.as_secs_f64() }, after))
    }

    /// Looks on while the swarm publishes, until it ends.
    fn watch(&mut self, swarm: &mut Swarm, patience: Duration) -> io::Result<Watched> {
        let mut watched = Watched::default();
        let until = Instant::now() + patience;
        let (mut last, mut at) = (Scrape::of(self.admin)?, Instant::now());
        let mut under_way = false;
        while swarm.child.ended()?.is_none() {
            child::pause(LOOK)?;
            if Instant::now() > until {
                return Err(io::Error::other(format!("the swarm does not end after {patience:?}")));
            }
            let (now, here) = (Scrape::of(self.admin)?, Instant::now());
            watched.peak = watched.peak.max(sys::quick_memory(self.child.pid())?);
            if now.get("deliveries_total") == last.get("deliveries_total") {
                under_way = false;
            } else if under_way {
                watched.spans.last_mut().into_iter().for_each(|span| span.1 = here);
                watched.turns.last_mut().into_iter().for_each(|turns| turns.1 = now.clone());
            } else {
                under_way = true;
                watched.spans.push((at, here));
                watched.turns.push((last, now.clone()));
            }
            (last, at) = (now, here);
        }
        Ok(watched)
    }
}

/// Runs a step with the clients behind a TUN device.
pub(crate) fn run_tun(connections: u64, timing: Timing) -> io::Result<Step> {
    let _ = (connections, timing);
    Err(io::Error::other("not yet"))
}
