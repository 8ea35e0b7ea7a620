//! What hostile clients do to others: the latency of a well-behaved client's echoes, alone and beside each attack.
//!
//! ```text
//! cargo bench --bench neighbours [-- ATTACK]
//! ```
//!
//! The server has one core; the neighbour and the attackers share the other one, with the neighbour before them. The
//! neighbour says something every millisecond; rounds of quiet and of attack alternate, and what is told is the median of
//! the rounds, so that a machine's own noise is in both. Latencies include the neighbour's own wake-ups. "Turns over 10 ms"
//! are the server's own, from `holdline_turn_seconds`. Without `--bench`, as cargo tests it, rounds are short and only
//! what must hold anywhere is asserted: every echo comes, the memory is bounded, and the server is well afterwards.
//! On a machine that has other work, that goes behind with `echo -15 > /proc/self/autogroup` in a session of the bench's own
//! (`setsid`). `HOLDLINE_BENCH_SERVER` may name another program that takes the flags of `holdline`.

#[path = "neighbours/attacks.rs"]
mod attacks;
mod common;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use attacks::Attack;
use common::report::{Table, median};
use common::sys;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const PROGRAM: &str = env!("CARGO_BIN_EXE_holdline");
/// What the server may grow by while it is attacked: some queues, some inflated messages.
const MEMORY_MAX: u64 = 128 << 20;
/// An echo that takes longer has been lost.
const PATIENCE: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(1);

/// How long and how often.
#[derive(Clone, Copy)]
struct Plan {
    round: Duration,
    rounds: usize,
}

/// `holdline serve` on the first core.
struct Server {
    child: Child,
    at: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    fn start(backend: &str) -> Outcome<Self> {
        let arguments =
            ["serve", "--listen", "http://127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1", "--backend"];
        let program = env::var("HOLDLINE_BENCH_SERVER").unwrap_or_else(|_| PROGRAM.to_owned());
        let mut command = Command::new(program);
        // Settings of whoever runs this are not the server's.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDLINE_")) {
            command.env_remove(name);
        }
        // Addresses of this machine are like any others.
        command.args(arguments).arg(backend).env("HOLDLINE_LIMITS_EXEMPT", "127.0.0.1");
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        sys::die_with_parent(&mut command);
        sys::pin(0)?;
        let child = command.spawn();
        sys::unpin()?;
        let mut child = child?;
        let mut urls = Vec::new();
        for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
            let line = line?;
            match line.strip_prefix("listening on http://") {
                Some(address) => urls.push(address.trim_end_matches('/').parse()?),
                None => break,
            }
        }
        let [at, admin] = urls[..] else { return Err(format!("{backend}: the server does not start").into()) };
        Ok(Self { child, at, admin })
    }

    fn memory(&self) -> Outcome<u64> {
        Ok(sys::Memory::of(self.child.id())?.total())
    }

    /// Turns that took longer than ten milliseconds so far.
    fn long_turns(&self) -> Outcome<u64> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let bucket = |le: &str| {
            let name = format!("holdline_turn_seconds_bucket{{shard=\"0\",le=\"{le}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).ok_or("no such bucket")
        };
        Ok(bucket("+Inf")? - bucket("0.01")?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The well-behaved client.
struct Neighbour(TcpStream);

impl Neighbour {
    fn new(to: SocketAddr) -> Outcome<Self> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(
            b"GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        Ok(Self(stream))
    }

    /// Says something every millisecond for so long. The times until it came back, in microseconds, sorted.
    fn listen(&mut self, time: Duration) -> Outcome<Vec<f64>> {
        let said = [&[0x82, 0x80 | 64, 0, 0, 0, 0][..], &[b'n'; 64]].concat();
        let (begin, mut times, mut back) = (Instant::now(), Vec::new(), [0; 66]);
        while begin.elapsed() < time {
            let sent = Instant::now();
            self.0.write_all(&said)?;
            self.0.read_exact(&mut back)?;
            if back[0] != 0x82 || back[2..] != [b'n'; 64] {
                return Err("the echo is something else".into());
            }
            times.push(sent.elapsed().as_secs_f64() * 1e6);
            thread::sleep(EVERY.saturating_sub(sent.elapsed()));
        }
        times.sort_unstable_by(f64::total_cmp);
        Ok(times)
    }
}

/// The time that so many in a hundred stay below.
fn quantile(times: &[f64], percent: usize) -> f64 {
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// What came of one attack.
#[derive(Default)]
struct Found {
    idle: Vec<f64>,
    attacked: Vec<f64>,
    halves: Vec<f64>,
    worst: f64,
    grown: u64,
    long_turns: u64,
    done: u64,
}

/// Runs one attack, in rounds with quiet between.
fn measure(backend: &str, attack: Attack, plan: Plan) -> Outcome<Found> {
    let server = Server::start(backend)?;
    sys::pin(1)?;
    let mut neighbour = Neighbour::new(server.at)?;
    neighbour.listen(plan.round / 4)?;
    let (before, mut found) = (server.memory()?, Found::default());
    for _ in 0..plan.rounds {
        found.idle.push(quantile(&neighbour.listen(plan.round)?, 99));
        let long_turns = server.long_turns()?;
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let times = thread::scope(|scope| {
            scope.spawn(|| {
                sys::raise_priority(19);
                attack.run(server.at, &stop, &done);
            });
            let times = neighbour.listen(plan.round);
            found.grown = found.grown.max(server.memory().unwrap_or(0).saturating_sub(before));
            stop.store(true, Ordering::Relaxed);
            times
        })?;
        found.long_turns += server.long_turns()? - long_turns;
        found.done += done.into_inner();
        found.attacked.push(quantile(&times, 99));
        found.halves.push(quantile(&times, 50));
        found.worst = found.worst.max(quantile(&times, 100));
        // What the attackers left behind is taken away first.
        thread::sleep(plan.round / 4);
    }
    sys::unpin()?;
    Ok(found)
}

fn main() -> Outcome {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let is_bench = arguments.iter().any(|word| word == "--bench");
    let short = Plan { round: Duration::from_millis(400), rounds: 1 };
    let plan = if is_bench { Plan { round: Duration::from_secs(2), rounds: 5 } } else { short };
    let wanted = arguments.iter().find(|word| !word.starts_with('-'));
    // The server and the neighbour before all else on this machine, where that is allowed; the attackers behind.
    sys::raise_priority(-15);
    println!("{}", sys::machine());
    println!("echoes of 64 bytes, one every millisecond; microseconds, medians of {} rounds\n", plan.rounds);
    let head =
        ["attack", "backend", "p99 alone", "p50", "p99", "ratio", "worst", "turns > 10 ms", "memory", "attempts/s"];
    let mut table = Table::new(&head);
    for attack in Attack::ALL {
        if wanted.is_some_and(|wanted| !attack.name().contains(wanted.as_str())) {
            continue;
        }
        for backend in ["uring", "epoll"] {
            if backend == "uring" && holdline::io::uring::probe().is_err() {
                continue;
            }
            let found = measure(backend, attack, plan)?;
            if found.grown > MEMORY_MAX {
                return Err(format!("{backend}, {}: it has grown by {} bytes", attack.name(), found.grown).into());
            }
            let ratios: Vec<f64> = found.attacked.iter().zip(&found.idle).map(|(under, alone)| under / alone).collect();
            let seconds = plan.round.as_secs_f64() * plan.rounds as f64;
            table.row(vec![
                attack.name().to_owned(),
                backend.to_owned(),
                format!("{:.0}", median(&found.idle)),
                format!("{:.0}", median(&found.halves)),
                format!("{:.0}", median(&found.attacked)),
                format!("{:.2}", median(&ratios)),
                format!("{:.0}", found.worst),
                found.long_turns.to_string(),
                format!("+{:.1} MiB", found.grown as f64 / f64::from(1 << 20)),
                format!("{:.0}", found.done as f64 / seconds),
            ]);
        }
    }
    table.print();
    Ok(())
}
