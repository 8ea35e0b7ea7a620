//! One step of the ladder: one server process, so many connections, everything that is measured of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
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
/// The server's address in the namespace that the swarm makes.
const TUN_SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The part of a heartbeat's interval that clients have to answer: 10 s of 30, as by default.
const PATIENCE: u32 = 3;
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
    /// For so many connections. Above a million heartbeats get rarer: each costs 6 to 10 µs of a core, and both ends have
    /// but one here.
    pub(crate) fn of(self, connections: u64) -> Self {
        let millions = u32::try_from(connections.div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1);
        Self { heartbeat: self.heartbeat * millions, beats: self.beats * millions, ..self }
    }

    /// How long the swarm has to hold its connections before it publishes.
    fn hold(self) -> Duration {
        self.settle * 2 + self.beats + self.quiet + Duration::from_secs(1)
    }
}

/// The server of a step, and where it is reached.
struct Server {
    /// When it was started here, not by the swarm.
    child: Option<Child>,
    pid: u32,
    web: SocketAddrV4,
    echo: SocketAddrV4,
    admin: SocketAddrV4,
    /// Its network is not ours.
    apart: bool,
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
    let mut server = Server::start(backend, connections, timing)?;
    let before = Before::look(&server)?;
    let load = Load {
        target: format!("ws://{}/topics/scale", server.web),
        connections,
        hold: timing.hold(),
        messages: timing.messages,
        server: None,
    };
    let swarm = Swarm::start(&load)?;
    let mut step = measure(&mut server, swarm, &load, timing, before)?;
    server.child.iter_mut().for_each(Child::kill);
    (step.backend, step.via) = (backend.to_owned(), "loopback".to_owned());
    Ok(step)
}

/// Runs a step with the clients behind a TUN device: the swarm makes a network namespace and starts the server there.
pub(crate) fn run_tun(backend: &str, connections: u64, timing: Timing) -> io::Result<Step> {
    // The swarm connects at once: what an empty server has is seen at another one.
    let before = Before::look(&Server::start(backend, connections, timing)?)?;
    let at = |port| SocketAddrV4::new(TUN_SERVER, port);
    let (web, echo, admin) = (at(8080), at(7000), at(9090));
    let listeners = [format!("http://{web}"), format!("tcp://{echo}?framing=length&app=echo"), admin.to_string()];
    let load = Load {
        target: format!("ws://{web}/topics/scale"),
        connections,
        hold: timing.hold(),
        messages: timing.messages,
        server: Some(command(backend, connections, timing, &listeners)),
    };
    // A thread, since it will move into the server's network.
    thread::scope(|scope| {
        let work = scope.spawn(|| {
            let mut swarm = Swarm::start(&load)?;
            let pid = swarm.server(START)?;
            sys::enter_namespace(pid)?;
            let mut server = Server { child: None, pid, web, echo, admin, apart: true };
            server.wait_until_it_listens(&mut swarm)?;
            measure(&mut server, swarm, &load, timing, before)
        });
        let mut step = work.join().map_err(|_| io::Error::other("the step panicked"))??;
        (step.backend, step.via) = (backend.to_owned(), "tun".to_owned());
        Ok(step)
    })
}

/// What there was before the first connection.
struct Before {
    kernel: Option<Look>,
    user: u64,
    scrape: Scrape,
    at: Instant,
}

impl Before {
    fn look(server: &Server) -> io::Result<Self> {
        let (kernel, scrape) = (Look::now().ok(), Scrape::of(server.admin)?);
        Ok(Self { kernel, user: Memory::of(server.pid)?.total(), scrape, at: Instant::now() })
    }
}

/// From the first connection to the end of the swarm.
fn measure(server: &mut Server, mut swarm: Swarm, load: &Load, timing: Timing, before: Before) -> io::Result<Step> {
    let connections = load.connections;
    let opened = server.wait_for(connections, &mut swarm, load.patience())?;
    let idle = server.wait_for_silence(timing.settle, &mut swarm)?;
    let kernel = before.kernel.zip(Look::now().ok()).map(|(before, now)| now.since(&before, connections));
    let open = Memory::of(server.pid)?.total();
    let (heartbeats, beaten) = server.heartbeats(timing, &idle)?;
    let probe = Probe::start(server.echo, server.apart.then_some(server.pid));
    let quiet = Instant::now();
    child::pause(timing.quiet)?;
    let quiet = [(quiet, Instant::now())];
    let watched = server.watch(&mut swarm, load.patience())?;
    let samples = probe.stop();
    let found = swarm.finish()?;
    let samples = samples?;
    let spans: Vec<_> = watched.turns.iter().map(|(from, to)| (from, to)).collect();
    let turns = Turns {
        connecting: Scrape::turns(&[(&before.scrape, &opened)]),
        idle: Scrape::turns(&[(&idle, &beaten)]),
        broadcast: Scrape::turns(&spans),
        max_ms: watched.turns.last().map_or(&beaten, |(_, to)| to).longest_turn_ms(),
    };
    Ok(Step {
        connections,
        seconds: before.at.elapsed().as_secs_f64().round(),
        connect: found.connect.clone(),
        user: User { empty: before.user, open, peak: watched.peak.max(open) },
        kernel,
        heartbeats: Some(heartbeats),
        broadcast: found.broadcast(),
        echo: Echo { quiet: probe::within(&samples, &quiet), during: probe::within(&samples, &watched.spans) },
        turns,
        ..Step::default()
    })
}

/// `holdline serve` with a web listener, an echo, and the address of the admin page.
fn command(backend: &str, connections: u64, timing: Timing, [web, echo, admin]: &[String; 3]) -> Vec<String> {
    let room = (connections + SPARE).to_string();
    let time = |time: Duration| format!("{}ms", time.as_millis());
    let (heartbeat, patience) = (time(timing.heartbeat), time(timing.heartbeat / PATIENCE));
    // Over TUN its address is one that the clients' network reaches.
    let flags = ["--insecure", "--backend", backend, "--shards", "1", "--max-connections", &room];
    let beats = ["--heartbeat-interval", &heartbeat, "--heartbeat-timeout", &patience];
    let listeners = ["--listen", web, "--listen", echo, "--admin", admin];
    [PROGRAM, "serve"].into_iter().chain(flags).chain(beats).chain(listeners).map(str::to_owned).collect()
}

/// Of the first listener with this scheme.
fn address<'a>(mut urls: impl Iterator<Item = &'a String>, scheme: &str) -> io::Result<SocketAddrV4> {
    let authority = urls.find_map(|url| url.strip_prefix(scheme)?.split(['/', '?']).next());
    let address = authority.and_then(|authority| authority.parse().ok());
    address.ok_or_else(|| io::Error::other(format!("the server has no {scheme} listener on an IPv4 address")))
}

impl Server {
    fn start(backend: &str, connections: u64, timing: Timing) -> io::Result<Self> {
        let listeners = ["http://127.0.0.1:0", "tcp://127.0.0.1:0?framing=length&app=echo", "127.0.0.1:0"];
        let command = command(backend, connections, timing, &listeners.map(str::to_owned));
        let mut child = Child::start(&command, Some(CORE))?;
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
        Ok(Self { pid: child.pid(), child: Some(child), web, echo, admin, apart: false })
    }

    /// A server that the swarm has started is a process before it listens.
    fn wait_until_it_listens(&mut self, swarm: &mut Swarm) -> io::Result<()> {
        let until = Instant::now() + START;
        loop {
            match Scrape::of(self.admin) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < until => {
                    swarm.still_runs()?;
                    child::pause(LOOK)?;
                }
                outcome => return outcome.map(|_| ()),
            }
        }
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
        let (cpu, started) = (sys::cpu_time(self.pid)?, Instant::now());
        child::pause(timing.beats)?;
        let (cpu, took) = (sys::cpu_time(self.pid)?.saturating_sub(cpu), started.elapsed());
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
            let looked = Scrape::of(self.admin).and_then(|now| Ok((now, sys::quick_memory(self.pid)?)));
            let (now, memory) = match looked {
                Ok(found) => found,
                // A server that the swarm has started ends with it.
                Err(_) if self.apart => break,
                Err(error) => return Err(error),
            };
            let here = Instant::now();
            watched.peak = watched.peak.max(memory);
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
        while swarm.child.ended()?.is_none() && Instant::now() < until {
            child::pause(LOOK)?;
        }
        Ok(watched)
    }
}
