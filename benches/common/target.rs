//! The program under load: a child process on a core of its own, and a stopwatch that reads its CPU time.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddrV4;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::bare::{Engine, Role};
use super::client::Endpoint;
use super::sys;
use super::wire::{Protocol, bad};

/// Core of the program under load; the clients have the next one.
const SERVER_CORE: usize = 0;
const CLIENT_CORE: usize = 1;
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The command that starts the server which was built with this bench.
pub(crate) const SERVER: &str = concat!(env!("CARGO_BIN_EXE_holdline"), " serve");

/// First argument that turns a bench program into a bare loop.
pub(crate) const BARE: &str = "--bare-loop";

/// A running program; ends with this value.
pub(crate) struct Target {
    child: Child,
    /// The process that does the work, when it is not that one but a child of it.
    worker: Option<u32>,
    urls: Vec<String>,
}

impl Target {
    /// Starts a program and waits until it says `ready`.
    pub(crate) fn start(command: &[String]) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or_else(|| bad("empty command"))?;
        let mut child = spawn_pinned(Command::new(program).args(arguments).stdout(Stdio::piped()))?;
        let output = child.stdout.take();
        let mut target = Self { child, worker: None, urls: Vec::new() };
        let (lines, received) = mpsc::channel();
        // Reads for as long as the program writes, so that it never blocks on a full pipe.
        thread::spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "ready" => return Ok(target),
                Ok(line) => target.urls.extend(line.strip_prefix("listening on ").map(str::to_owned)),
                Err(_) => return Err(bad(&format!("{program} did not say `ready`"))),
            }
        }
    }

    /// Starts a bare loop: this program again, with another job.
    pub(crate) fn bare(role: Role, engine: Engine, buffer_bytes: usize) -> io::Result<Self> {
        let program = std::env::current_exe()?.to_string_lossy().into_owned();
        Self::start(&[
            program,
            BARE.to_owned(),
            role.name().to_owned(),
            engine.name().to_owned(),
            buffer_bytes.to_string(),
        ])
    }

    /// Starts a server with one shard, by a command that takes the flags of `holdline serve`.
    pub(crate) fn server(command: &str, backend: &str, connections: usize, more: &[&str]) -> io::Result<Self> {
        let connections = connections.to_string();
        let flags =
            ["--backend", backend, "--shards", "1", "--max-connections", &connections, "--admin", "127.0.0.1:0"];
        let listeners = ["--listen", "http://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0?framing=length&app=echo"];
        let words = command.split_whitespace().chain(flags).chain(listeners).chain(more.iter().copied());
        Self::start(&words.map(str::to_owned).collect::<Vec<_>>())
    }

    /// A program that was started elsewhere, whose child `worker` does the work, and ends when it is asked to.
    pub(super) const fn with_worker(child: Child, worker: u32, urls: Vec<String>) -> Self {
        Self { child, worker: Some(worker), urls }
    }

    /// Its process, the one that does the work.
    pub(crate) fn pid(&self) -> u32 {
        self.worker.unwrap_or_else(|| self.child.id())
    }

    /// Where its first listener of this scheme is, `https` for example.
    pub(crate) fn address(&self, scheme: &str) -> io::Result<std::net::SocketAddr> {
        let authority = self.urls.iter().find_map(|url| url.strip_prefix(scheme)?.strip_prefix("://"));
        let authority = authority.ok_or_else(|| bad(&format!("no {scheme} listener among {:?}", self.urls)))?;
        authority.split(['/', '?']).next().unwrap_or_default().parse().map_err(|_| bad(authority))
    }

    /// Where its pages for operators are: the server tells them last.
    pub(crate) fn admin(&self) -> io::Result<std::net::SocketAddr> {
        let authority = self.urls.iter().rev().find_map(|url| url.strip_prefix("http://"));
        let authority = authority.ok_or_else(|| bad("no admin listener"))?.trim_end_matches('/');
        authority.parse().map_err(|_| bad(authority))
    }

    /// Its first listener of the scheme that a protocol wants.
    pub(crate) fn endpoint(&self, protocol: Protocol, path: &str) -> io::Result<Endpoint> {
        let scheme = match protocol {
            Protocol::Raw => "tcp://",
            Protocol::WebSocket | Protocol::Http | Protocol::Http2 => "http://",
        };
        let authority = self.urls.iter().find_map(|url| url.strip_prefix(scheme)).or_else(|| {
            // A bare loop does not know what the client speaks.
            self.urls.first().and_then(|url| url.strip_prefix("tcp://"))
        });
        let authority = authority.ok_or_else(|| bad(&format!("no {scheme} listener among {:?}", self.urls)))?;
        let authority = authority.split(['/', '?']).next().unwrap_or_default();
        let address: SocketAddrV4 = authority.parse().map_err(|_| bad(&format!("not an IPv4 address: {authority}")))?;
        Ok(Endpoint { address, protocol, path: path.to_owned() })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.worker.is_some() {
            sys::terminate(self.child.id());
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Starts a program on the core of its own, and leaves this thread on the clients'.
pub(super) fn spawn_pinned(command: &mut Command) -> io::Result<Child> {
    // A child inherits the mask of the thread that starts it. One core is enough to be correct, not to measure.
    let alone = sys::pin(SERVER_CORE).is_ok();
    let started = command.stdin(Stdio::null()).spawn();
    if alone {
        let _ = sys::pin(CLIENT_CORE).or_else(|_| sys::pin(SERVER_CORE));
    }
    started.map_err(|error| io::Error::other(format!("{}: {error}", command.get_program().display())))
}

/// Measures from its making on what a process spends.
pub(crate) struct Stopwatch {
    pid: u32,
    started: Instant,
    cpu: Duration,
    ticks: (u64, u64),
    own: Duration,
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// User and system time of the program under load.
    pub(crate) cpu: Duration,
    /// User part of it, 0 to 1, to the precision of 10 ms ticks.
    pub(crate) user_share: f64,
    /// CPU time of the clients.
    pub(crate) client: Duration,
}

impl Stopwatch {
    pub(crate) fn start(pid: u32) -> io::Result<Self> {
        let (ticks, own) = (sys::cpu_ticks(pid)?, sys::cpu_time(std::process::id())?);
        Ok(Self { pid, ticks, own, started: Instant::now(), cpu: sys::cpu_time(pid)? })
    }

    pub(crate) fn stop(&self) -> io::Result<Cost> {
        let cpu = sys::cpu_time(self.pid)?.saturating_sub(self.cpu);
        let wall = self.started.elapsed();
        let client = sys::cpu_time(std::process::id())?.saturating_sub(self.own);
        let (user, system) = sys::cpu_ticks(self.pid)?;
        let (user, system) = (user.saturating_sub(self.ticks.0), system.saturating_sub(self.ticks.1));
        let user_share = user as f64 / (user + system).max(1) as f64;
        Ok(Cost { wall, cpu, user_share, client })
    }
}
