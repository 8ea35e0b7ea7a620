//! What it costs to look at a server with many clients, and whom: `/metrics`, the dashboard, the admin API, and a kick.
//!
//! ```text
//! cargo bench --bench operators                                 100,000 connections
//! cargo bench --bench operators -- --connections 1000000 --backend uring
//! ```
//!
//! So many idle WebSockets are subscribed to one topic of a server with one shard on the first core; the clients and the
//! operator have the second one. A time is from the request to the last byte of the answer. "Turns up to" is the bound of the
//! bucket of `holdline_turn_seconds` that has the longest turn of the shard meanwhile: what somebody's message waits at most.
//! CPU is the server's for each request. A list goes through all pages. At the end all of one network are kicked, about half.
//!
//! Then what the server says of its memory, by purpose, beside what the kernel says. With `--assert` it fails when a scrape
//! takes 5 ms, or a turn more than 10 ms while operators look. `cargo test --benches` runs it small, without those bounds.

#![allow(clippy::cast_possible_truncation, reason = "counts of a bench are small by construction")]

mod common;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};

use common::report::{Table, median};
use common::sys;
use common::target::{SERVER, Target};
use common::wire::bad;

const PROGRAM: &str = env!("CARGO_BIN_EXE_holdline");
const PATIENCE: Duration = Duration::from_secs(60);
const SCRAPE_MAX: Duration = Duration::from_millis(5);
const TURN_MAX: f64 = 0.01;
/// Connections beside those of the crowd.
const SPARE: usize = 64;

#[derive(Parser, Debug)]
#[command(name = "operators")]
struct Options {
    /// Connections that are there.
    #[arg(long, default_value_t = 100_000)]
    connections: usize,
    /// The server's backends.
    #[arg(long = "backend", value_delimiter = ',', default_value = "uring")]
    backends: Vec<String>,
    /// How often each page is asked for.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Fail when a scrape or a turn takes too long.
    #[arg(long)]
    assert: bool,
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    test: bool,
}

/// The clients: the load generator, which ends with this value.
struct Crowd(Child);

impl Crowd {
    fn gather(target: SocketAddr, connections: usize) -> io::Result<Self> {
        let (url, count) = (format!("ws://{target}/topics/load"), connections.to_string());
        let mut command = Command::new(PROGRAM);
        command.args(["swarm", "idle", "--quiet", "--threads", "1", "--hold", "1h", "--target", &url]);
        command.args(["--connections", &count]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::die_with_parent(&mut command);
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Somebody at the admin listener.
#[derive(Clone, Copy)]
struct Operator(SocketAddr);

impl Operator {
    /// The body of an answer, and how long it took.
    fn ask(self, method: &str, path: &str, body: &str) -> io::Result<(Duration, String)> {
        let mut stream = TcpStream::connect(self.0)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let (began, mut answer) = (Instant::now(), String::new());
        stream.write_all(request.as_bytes())?;
        stream.read_to_string(&mut answer)?;
        let took = began.elapsed();
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok((took, body.to_owned())),
            _ => Err(bad(&format!("{path}: {}", answer.lines().next().unwrap_or("no answer")))),
        }
    }

    fn json(self, method: &str, path: &str, body: &str) -> io::Result<(Duration, Value)> {
        let (took, text) = self.ask(method, path, body)?;
        Ok((took, serde_json::from_str(&text).map_err(|error| bad(&format!("{path}: {error}")))?))
    }

    fn scrape(self) -> io::Result<Scrape> {
        Ok(Scrape(self.ask("GET", "/metrics", "")?.1))
    }

    /// All pages of a list: how long it took, how many pages there were, how many entries.
    fn all(self, path: &str, name: &str) -> io::Result<(Duration, usize, usize)> {
        let (mut took, mut pages, mut found, mut cursor) = (Duration::ZERO, 0, 0, String::new());
        loop {
            let (time, page) = self.json("GET", &format!("{path}{cursor}"), "")?;
            (took, pages) = (took + time, pages + 1);
            found += page[name].as_array().map_or(0, Vec::len);
            let Some(next) = page["next"].as_str() else { return Ok((took, pages, found)) };
            cursor = format!("&cursor={next}");
        }
    }
}

/// What `/metrics` said.
struct Scrape(String);

impl Scrape {
    /// The sum of all samples whose name, with labels, begins so.
    fn get(&self, name: &str) -> f64 {
        self.samples(name).map(|(_, value)| value).sum()
    }

    /// What follows the beginning of a name, and the value.
    fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let lines = self.0.lines().filter_map(move |line| line.strip_prefix(name)?.rsplit_once(' '));
        lines
            .filter(|(rest, _)| rest.is_empty() || rest.starts_with('{'))
            .filter_map(|(rest, value)| Some((rest, value.parse().ok()?)))
    }

    fn connections(&self) -> usize {
        self.get("holdline_connections") as usize
    }

    /// Turns of one shard by the bounds of their buckets, each with all that are shorter.
    fn turns(&self) -> Vec<(f64, f64)> {
        let bound = |labels: &str| labels.split_once("le=\"")?.1.split('"').next()?.parse().ok();
        let buckets = self.samples("holdline_turn_seconds_bucket");
        buckets.map(|(labels, count)| (bound(labels).unwrap_or(f64::INFINITY), count)).collect()
    }

    /// The bound of the longest turn since another scrape.
    fn longest_turn_since(&self, before: &Self) -> f64 {
        let (mut longest, mut below) = (0.0, 0.0);
        for ((bound, now), (_, then)) in self.turns().into_iter().zip(before.turns()) {
            if now - then > below {
                (longest, below) = (bound, now - then);
            }
        }
        longest
    }
}

/// A run with one backend: what it found, line by line, and what was too slow.
struct Run {
    operator: Operator,
    pid: u32,
    connections: usize,
    rounds: usize,
    table: Table,
    faults: Vec<String>,
}

impl Run {
    /// Does something and notes how long it took, and the shard's longest turn meanwhile.
    fn note(&mut self, what: &str, work: impl FnOnce() -> io::Result<(Vec<f64>, String)>) -> io::Result<()> {
        let before = self.operator.scrape()?;
        let cpu = sys::cpu_time(self.pid)?;
        let (mut times, found) = work()?;
        let cpu = sys::cpu_time(self.pid)?.saturating_sub(cpu).as_secs_f64() / times.len().max(1) as f64;
        // What the last of it caused is over when the next scrape is.
        let turn = self.operator.scrape()?.longest_turn_since(&before);
        times.sort_unstable_by(f64::total_cmp);
        let (half, most) = (median(&times), times.last().copied().unwrap_or(f64::NAN));
        if what == "GET /metrics" && half > SCRAPE_MAX.as_secs_f64() {
            self.faults.push(format!("{what} takes {:.2} ms", half * 1e3));
        }
        if turn > TURN_MAX {
            self.faults.push(format!("{what}: a turn took more than {:.0} ms", TURN_MAX * 1e3));
        }
        let millis = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
        self.table.row(vec![what.to_owned(), millis(half), millis(most), millis(cpu), millis(turn), found]);
        Ok(())
    }

    /// A page, so often.
    fn page(&mut self, path: &str) -> io::Result<()> {
        let (operator, rounds) = (self.operator, self.rounds);
        self.note(&format!("GET {path}"), || {
            let (mut times, mut bytes) = (Vec::with_capacity(rounds), 0);
            for _ in 0..rounds {
                let (took, body) = operator.ask("GET", path, "")?;
                times.push(took.as_secs_f64());
                bytes = body.len();
            }
            Ok((times, format!("{bytes} bytes")))
        })
    }

    /// A list with all its pages, which must have so many entries.
    fn list(&mut self, path: &str, expected: usize) -> io::Result<()> {
        let operator = self.operator;
        self.note(&format!("{path}, all pages"), || {
            let (took, pages, found) = operator.all(path, "connections")?;
            if found != expected {
                return Err(bad(&format!("{path}: {found} entries instead of {expected}")));
            }
            Ok((vec![took.as_secs_f64()], format!("{found} in {pages} pages")))
        })
    }

    /// Ends all of half the clients' network.
    fn kick(&mut self) -> io::Result<()> {
        let (operator, connections) = (self.operator, self.connections);
        let (_, one) = operator.json("GET", "/api/connections?limit=1", "")?;
        let address = one["connections"][0]["address"].as_str().and_then(|address| address.rsplit_once('.'));
        let (network, _) = address.ok_or_else(|| bad("a connection without an address"))?;
        let wish = json!({ "address": format!("{network}.0/25"), "reason": "bench" }).to_string();
        self.note("POST /api/kick, half", || {
            let (began, (_, answer)) = (Instant::now(), operator.json("POST", "/api/kick", &wish)?);
            let left = || Ok::<_, io::Error>(operator.scrape()?.connections());
            let closed = answer["closed"].as_u64().unwrap_or(0) as usize;
            if answer["done"] != true || closed < connections / 4 {
                return Err(bad(&format!("the kick: {answer}")));
            }
            let took = began.elapsed().as_secs_f64();
            until("those who were kicked are gone", || Ok(left()? <= connections - closed))?;
            Ok((vec![took], format!("{closed} closed")))
        })
    }

    /// What the server says of its memory, beside what the kernel says.
    fn memory(&self) -> io::Result<()> {
        let scrape = self.operator.scrape()?;
        let mut purposes: Vec<(String, f64)> = scrape
            .samples("holdline_memory_bytes")
            .map(|(labels, bytes)| (labels.split('"').nth(1).unwrap_or(labels).to_owned(), bytes))
            .collect();
        let told: f64 = purposes.iter().map(|(_, bytes)| bytes).sum();
        let resident = scrape.get("holdline_process_resident_memory_bytes");
        purposes.retain(|(_, bytes)| *bytes > 0.0);
        purposes.sort_unstable_by(|one, other| other.1.total_cmp(&one.1));
        purposes.push(("all of these".to_owned(), told));
        purposes.push(("resident, as the kernel says".to_owned(), resident));
        let mut table = Table::new(&["memory", "KiB", "bytes for each connection"]);
        for (purpose, bytes) in purposes {
            let each = format!("{:.1}", bytes / self.connections as f64);
            table.row(vec![purpose, format!("{:.0}", bytes / 1024.0), each]);
        }
        table.print();
        Ok(())
    }
}

/// Waits for something.
fn until(what: &str, mut is_so: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE * 3;
    while !is_so()? {
        if Instant::now() > deadline {
            return Err(bad(&format!("waited in vain: {what}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// One backend. Returns what was too slow.
fn measure(backend: &str, options: &Options) -> io::Result<Vec<String>> {
    let connections = options.connections;
    // Heartbeats would be turns of their own.
    let flags = ["--heartbeat-interval", "1h", "--heartbeat-timeout", "1h", "--log-level", "error"];
    let server = Target::server(SERVER, backend, connections + SPARE, &flags)?;
    let operator = Operator(server.admin()?);
    let _crowd = Crowd::gather(server.address("http")?, connections)?;
    until("all are connected", || Ok(operator.scrape()?.get("holdline_subscriptions") as usize >= connections))?;
    let table = Table::new(&["request", "median", "most", "CPU", "turns up to", "answer"]);
    let mut run = Run { operator, pid: server.pid(), connections, rounds: options.rounds, table, faults: Vec::new() };
    for path in ["/metrics", "/api/overview", "/", "/api/connections?limit=100", "/api/connections?limit=1000"] {
        run.page(path)?;
    }
    run.list("/api/connections?limit=1000", connections)?;
    run.list("/api/connections?user=nobody", 0)?;
    run.list("/api/connections?address=192.0.2.1", 0)?;
    run.page("/api/connections?sort=queue")?;
    run.page("/api/topics?sort=subscribers")?;
    println!("{backend}, {connections} connections");
    run.memory()?;
    run.kick()?;
    run.table.print();
    Ok(run.faults)
}

fn main() -> io::Result<ExitCode> {
    let mut options = Options::parse();
    if !options.bench {
        (options.connections, options.rounds) = (400, 3);
        options.backends = vec!["uring".to_owned(), "epoll".to_owned()];
    }
    // Before all else on this machine, where that is allowed.
    sys::raise_priority(-15);
    println!("{}", sys::machine());
    let mut faults = Vec::new();
    for backend in &options.backends {
        if backend == "uring" && holdline::io::uring::probe().is_err() {
            println!("uring: left out, this kernel does not have it");
            continue;
        }
        faults.extend(measure(backend, &options)?.into_iter().map(|fault| format!("{backend}: {fault}")));
    }
    faults.iter().for_each(|fault| println!("{fault}"));
    Ok(if options.assert && !faults.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
