//! What hostile clients do to others: the latency of a well-behaved client's echoes, alone and beside each attack.
//!
//! ```text
//! cargo bench --bench neighbours
//! cargo bench --bench neighbours -- "slow read" --backend epoll --rounds 9
//! cargo bench --bench neighbours -- --assert --write docs/neighbours.md
//! ```
//!
//! The server has one core; the neighbour and the attackers share the other one, with the neighbour before them. The
//! neighbour says something every millisecond; rounds of quiet and of attack alternate, and what is told is the median of
//! the rounds, so that a machine's own noise is in both. A latency is from the neighbour's send to the moment at which the
//! kernel had the echo for it (`SO_TIMESTAMPNS`): how long the attackers, who share its core, keep it from looking is no
//! matter of the server's. "Turns over 10 ms" are the server's own, from `holdline_turn_seconds`. Without `--bench`, as cargo tests it, rounds are short and only
//! what must hold anywhere is asserted: every echo comes, the memory is bounded, and the server is well afterwards.
//! `--assert` also fails where the p99 of a neighbour is more than twice what it is alone.
//! On a machine that has other work, that goes behind with `echo -15 > /proc/self/autogroup` in a session of the bench's own
//! (`setsid`). `HOLDLINE_BENCH_SERVER` may name another program that takes the flags of `holdline`.

#[path = "neighbours/attacks.rs"]
mod attacks;
mod common;
#[path = "neighbours/http2.rs"]
mod http2;
#[path = "neighbours/tls.rs"]
mod tls;

use std::cell::Cell;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

use clap::Parser;

use attacks::{Aim, Attack};
use common::report::{Table, median};
use common::sys;
use tls::Trust;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const PROGRAM: &str = env!("CARGO_BIN_EXE_holdline");
/// What the server may grow by while it is attacked: some queues, some inflated messages.
const MEMORY_MAX: u64 = 128 << 20;
/// An echo that takes longer has been lost.
const PATIENCE: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(1);

/// A neighbour's p99 beside an attack, as a multiple of what it is alone.
const RATIO_MAX: f64 = 2.0;

#[derive(Parser, Debug)]
#[command(name = "neighbours")]
struct Options {
    /// Attacks whose name has this in it; without it all.
    attack: Option<String>,
    /// The server's backends.
    #[arg(long = "backend", value_delimiter = ',', default_value = "uring,epoll")]
    backends: Vec<String>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Milliseconds of a round.
    #[arg(long, default_value_t = 2000)]
    round_ms: u64,
    /// Fail when a neighbour waits more than twice as long as alone.
    #[arg(long)]
    assert: bool,
    /// Write a page with the results.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    test: bool,
}

impl Options {
    const fn round(&self) -> Duration {
        Duration::from_millis(self.round_ms)
    }
}

/// `holdline serve` on the first core.
struct Server {
    child: Child,
    aim: Aim,
    admin: SocketAddr,
}

impl Server {
    fn start(backend: &str, trust: &Trust) -> Outcome<Self> {
        let listeners = ["serve", "--listen", "http://127.0.0.1:0", "--listen", "https://127.0.0.1:0"];
        let others = ["--admin", "127.0.0.1:0", "--shards", "1", "--backend", backend];
        let program = env::var("HOLDLINE_BENCH_SERVER").unwrap_or_else(|_| PROGRAM.to_owned());
        let mut command = Command::new(program);
        // Settings of whoever runs this are not the server's.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDLINE_")) {
            command.env_remove(name);
        }
        // Addresses of this machine are like any others.
        command.args(listeners).args(others);
        command.arg("--tls-certificate").arg(&trust.room.certificate).arg("--tls-key").arg(&trust.room.key);
        command.env("HOLDLINE_LIMITS_EXEMPT", "127.0.0.1");
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        sys::die_with_parent(&mut command);
        sys::pin(0)?;
        let child = command.spawn();
        sys::unpin()?;
        let mut child = child?;
        let mut addresses = Vec::new();
        for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
            let line = line?;
            let Some((_, address)) = line.strip_prefix("listening on ").and_then(|url| url.split_once("://")) else {
                break;
            };
            addresses.push(address.trim_end_matches('/').parse()?);
        }
        let [plain, tls, admin] = addresses[..] else {
            return Err(format!("{backend}: the server does not start").into());
        };
        Ok(Self { child, aim: Aim { plain, tls, hello: trust.hello()? }, admin })
    }

    fn memory(&self) -> Outcome<u64> {
        Ok(sys::Memory::of(self.child.id())?.total())
    }

    /// Turns that took longer than ten milliseconds so far.
    fn long_turns(&self) -> Outcome<u64> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
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

/// A connection, over TLS or not.
trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// A socket that notes when what it has read last arrived, since 1970.
struct Stamped {
    socket: TcpStream,
    arrived: Rc<Cell<Option<Duration>>>,
}

impl Read for Stamped {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (read, arrived) = sys::receive_stamped(&self.socket, bytes)?;
        self.arrived.set(arrived);
        Ok(read)
    }
}

impl Write for Stamped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// The well-behaved client.
struct Neighbour {
    stream: Box<dyn Wire>,
    arrived: Rc<Cell<Option<Duration>>>,
}

impl Neighbour {
    /// One over TLS, if there is whom to trust.
    fn new(aim: &Aim, trust: Option<&Trust>) -> Outcome<Self> {
        let socket = TcpStream::connect(if trust.is_some() { aim.tls } else { aim.plain })?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        sys::stamp_arrivals(&socket)?;
        let arrived = Rc::default();
        let socket = Stamped { socket, arrived: Rc::clone(&arrived) };
        let mut stream: Box<dyn Wire> = match trust {
            Some(trust) => Box::new(trust.wrap(socket)?),
            None => Box::new(socket),
        };
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
        Ok(Self { stream, arrived })
    }

    /// Says something every millisecond for so long. The times until it came back, in microseconds, sorted.
    fn listen(&mut self, time: Duration) -> Outcome<Vec<f64>> {
        let said = [&[0x82, 0x80 | 64, 0, 0, 0, 0][..], &[b'n'; 64]].concat();
        let (begin, mut times, mut back) = (Instant::now(), Vec::new(), [0; 66]);
        while begin.elapsed() < time {
            let sent = Instant::now();
            let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
            self.stream.write_all(&said)?;
            self.stream.flush()?;
            self.stream.read_exact(&mut back)?;
            if back[0] != 0x82 || back[2..] != [b'n'; 64] {
                return Err("the echo is something else".into());
            }
            let arrived = self.arrived.get().ok_or("the kernel does not say when the echo came")?;
            times.push(arrived.saturating_sub(since).as_secs_f64() * 1e6);
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
fn measure(backend: &str, case: Case, trust: &Trust, options: &Options) -> Outcome<Found> {
    let server = Server::start(backend, trust)?;
    sys::pin(1)?;
    let (attack, round) = (case.attack, options.round());
    let mut neighbour = Neighbour::new(&server.aim, case.over_tls.then_some(trust))?;
    neighbour.listen(round / 4)?;
    let (before, mut found) = (server.memory()?, Found::default());
    for _ in 0..options.rounds {
        found.idle.push(quantile(&neighbour.listen(round)?, 99));
        let long_turns = server.long_turns()?;
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let times = thread::scope(|scope| {
            scope.spawn(|| {
                sys::raise_priority(19);
                attack.run(&server.aim, &stop, &done);
            });
            let times = neighbour.listen(round);
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
        thread::sleep(round / 4);
    }
    sys::unpin()?;
    Ok(found)
}

/// An attack, and who lives beside it.
#[derive(Clone, Copy)]
struct Case {
    attack: Attack,
    over_tls: bool,
}

impl Case {
    fn all(options: &Options) -> Vec<Self> {
        let is_wanted =
            |attack: &Attack| options.attack.as_ref().is_none_or(|part| attack.name().contains(part.as_str()));
        let wanted = Attack::ALL.into_iter().filter(is_wanted);
        let both = |attack: Attack| {
            let plain = Self { attack, over_tls: false };
            [Some(plain), attack.is_tls().then_some(Self { over_tls: true, ..plain })]
        };
        wanted.flat_map(both).flatten().collect()
    }
}

impl Found {
    /// How much longer the neighbour waits than alone.
    fn ratio(&self) -> f64 {
        let ratios: Vec<f64> = self.attacked.iter().zip(&self.idle).map(|(under, alone)| under / alone).collect();
        median(&ratios)
    }

    fn row(&self, case: Case, backend: &str, options: &Options) -> Vec<String> {
        let seconds = options.round().as_secs_f64() * options.rounds as f64;
        vec![
            case.attack.name().to_owned(),
            if case.over_tls { "wss" } else { "ws" }.to_owned(),
            backend.to_owned(),
            format!("{:.0}", median(&self.idle)),
            format!("{:.0}", median(&self.halves)),
            format!("{:.0}", median(&self.attacked)),
            format!("{:.2}", self.ratio()),
            format!("{:.0}", self.worst),
            self.long_turns.to_string(),
            format!("+{:.1} MiB", self.grown as f64 / f64::from(1 << 20)),
            format!("{:.0}", self.done as f64 / seconds),
        ]
    }
}

/// The page that `--write` makes.
fn page(machine: &str, table: &Table, options: &Options) -> String {
    format!(
        "# What hostile clients do to others\n\n\
         Written by `cargo bench --bench neighbours -- --write FILE`; what it does is in `benches/neighbours.rs`.\n\n\
         {machine}\n\n\
         A neighbour says 64 bytes every millisecond and waits for the echo, in {} rounds of {} ms alone and as many beside\n\
         each attack. Times are in microseconds, from its send to the arrival of the echo at its socket, medians of the rounds; the ratio is that of the p99 beside the attack to the\n\
         p99 alone, and should stay below {RATIO_MAX}. Memory is what the server grew by at most.\n\n{}",
        options.rounds,
        options.round_ms,
        table.markdown()
    )
}

fn main() -> Outcome {
    let mut options = Options::parse();
    if options.test || !options.bench {
        (options.rounds, options.round_ms, options.assert) = (1, 150, false);
    }
    let trust = Trust::new()?;
    // The server and the neighbour before all else on this machine, where that is allowed; the attackers behind.
    sys::raise_priority(-15);
    let machine = sys::machine();
    println!("{machine}");
    println!("echoes of 64 bytes, one every millisecond; microseconds, medians of {} rounds\n", options.rounds);
    let head = [
        "attack",
        "neighbour",
        "backend",
        "p99 alone",
        "p50",
        "p99",
        "ratio",
        "worst",
        "turns > 10 ms",
        "memory",
        "attempts/s",
    ];
    let (mut table, mut over) = (Table::new(&head), Vec::new());
    for case in Case::all(&options) {
        let name = case.attack.name();
        for backend in &options.backends {
            if backend == "uring" && holdline::io::uring::probe().is_err() {
                continue;
            }
            let found =
                measure(backend, case, &trust, &options).map_err(|error| format!("{backend}, {name}: {error}"))?;
            if found.grown > MEMORY_MAX {
                return Err(format!("{backend}, {name}: it has grown by {} bytes", found.grown).into());
            }
            if found.ratio() > RATIO_MAX {
                over.push(format!("{name} on {backend}: {:.2}", found.ratio()));
            }
            table.row(found.row(case, backend, &options));
        }
    }
    table.print();
    if let Some(file) = &options.write {
        fs::write(file, page(&machine, &table, &options))?;
    }
    match over.is_empty() || !options.assert {
        true => Ok(()),
        false => {
            Err(format!("neighbours wait more than {RATIO_MAX} times as long as alone: {}", over.join("; ")).into())
        }
    }
}
