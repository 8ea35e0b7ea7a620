//! The server beside bare loops that do the same work, in turns, on the same cores, under the same clients.
//!
//! ```text
//! cargo bench --bench compare -- echo                     all backends, five rounds
//! cargo bench --bench compare -- fanout --backend uring --rounds 9 --assert
//! cargo bench --bench compare -- idle --connections 200000
//! ```
//!
//! The program under load runs in a child process pinned to core 0, the clients in this one on core 1; the figure is
//! the child's CPU time per message, connection or delivery, by the scheduler's own clock, after a warm-up. With
//! `--assert` the exit status is 1 when a bound is broken. `cargo test --benches` runs everything once, tiny.

mod common;

use std::process::ExitCode;
use std::time::Duration;
use std::{env, io};

use clap::{Parser, ValueEnum};

use common::bare::{self, Engine, Role};
use common::report::{Table, median};
use common::scenario::{self, Connect, Echo, Fanout, Idle, IdleOutcome, Sample, percentile};
use common::sys;
use common::target::{BARE, SERVER, Target};
use common::wire::Protocol;

/// CPU per echoed message, against the bare io_uring loop, with one message in flight.
const ECHO_ONE_RATIO_MAX: f64 = 1.05;
/// The same with many in flight, where replies can be coalesced.
const ECHO_MANY_RATIO_MAX: f64 = 0.80;
/// Server CPU to accept, upgrade and subscribe one connection, µs.
const CONNECT_US_MAX: f64 = 20.0;
/// CPU per delivery, against the bare loop of the same system call.
const FANOUT_RATIO_MAX: f64 = 1.10;
/// User memory per idle connection, bytes.
const IDLE_BYTES_MAX: f64 = 128.0;

/// Compares the server with bare loops.
#[derive(Parser, Debug)]
#[command(name = "compare")]
struct Options {
    /// What to measure; without it everything but idle.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// The server's backends.
    #[arg(long = "backend", value_delimiter = ',', default_value = "uring,epoll")]
    backends: Vec<String>,
    /// Another server's command; it gets the same flags. "none": bare loops only.
    #[arg(long)]
    server: Option<String>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// What the clients speak to the server in `echo`.
    #[arg(long, value_enum, default_value = "websocket")]
    speak: Speak,
    /// Connections, instead of what each scenario is defined with.
    #[arg(long)]
    connections: Option<usize>,
    /// Measured messages or publications in a round, instead of what each scenario is defined with.
    #[arg(long)]
    messages: Option<u64>,
    /// Bytes of a message in `echo` (several with commas) and `fanout`.
    #[arg(long, value_delimiter = ',', default_value = "64,1024")]
    sizes: Vec<usize>,
    /// Messages in flight on each connection in `echo`.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    in_flight: Vec<usize>,
    /// Clients of `echo` send every message by itself, not all successors of a turn's replies together.
    #[arg(long)]
    scatter: bool,
    /// Bytes of the bare loops' receive buffers.
    #[arg(long, default_value_t = bare::BUFFER_BYTES)]
    bare_buffer: usize,
    /// How long `idle` holds the connections, seconds.
    #[arg(long, default_value_t = 15)]
    hold: u64,
    /// Fail when a bound is broken.
    #[arg(long)]
    assert: bool,
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    test: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Echo,
    Connect,
    Fanout,
    Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Speak {
    Websocket,
    Raw,
}

/// One column of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Bare(Engine),
    Server(String),
}

/// What went wrong. A bound counts only when it is asserted; a server that answers wrongly always does.
#[derive(Default)]
struct Verdict {
    broken: Vec<String>,
    failed: Vec<String>,
}

/// A subject and its rounds so far.
type Column = (Subject, Vec<Sample>);

impl Subject {
    fn name(&self) -> String {
        match self {
            Self::Bare(engine) => format!("bare {}", engine.name()),
            Self::Server(backend) => format!("server {backend}"),
        }
    }
}

/// One row: a load that every subject gets.
#[derive(Clone, Copy, Debug)]
enum Load {
    Echo(Echo),
    Connect(Connect),
    Fanout(Fanout),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if arguments.get(1).is_some_and(|first| first == BARE) {
        return finish(bare::main(&arguments[1..]).map(|()| true));
    }
    let mut options = Options::parse();
    println!("{}", sys::machine());
    let wanted = options.backends.len();
    options.backends = backends(&options);
    let complete = options.backends.len() == wanted;
    if options.test || (!options.bench && options.scenarios.is_empty()) {
        return finish(smoke(&mut options));
    }
    if options.scenarios.is_empty() {
        options.scenarios = vec![Scenario::Echo, Scenario::Connect, Scenario::Fanout];
    }
    let outcome = options.scenarios.iter().try_fold(true, |good, scenario| Ok(run(&options, *scenario)? && good));
    finish(outcome.map(|good| good && (complete || !options.assert)))
}

fn finish(outcome: io::Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything once and tiny: that it still works, not how fast.
fn smoke(options: &mut Options) -> io::Result<bool> {
    options.rounds = 1;
    options.hold = 1;
    options.assert = false;
    let mut good = true;
    for scenario in [Scenario::Echo, Scenario::Connect, Scenario::Fanout, Scenario::Idle] {
        options.connections = Some(if scenario == Scenario::Echo { 8 } else { 100 });
        options.messages = Some(if scenario == Scenario::Echo { 2000 } else { 5 });
        good &= run(options, scenario)?;
    }
    Ok(good)
}

/// Leaves out what does not start, and says so: a kernel without io_uring, a build without a server.
fn backends(options: &Options) -> Vec<String> {
    let starts = |backend: &&String| match start_server(options, backend, 1000, &[]) {
        Ok(_) => true,
        Err(error) => {
            println!("server {backend} is left out: {error}");
            false
        }
    };
    let wanted = options.backends.iter().filter(|_| options.server.as_deref() != Some("none"));
    wanted.filter(starts).cloned().collect()
}

/// Runs one scenario; whether all is well.
fn run(options: &Options, scenario: Scenario) -> io::Result<bool> {
    let mut verdict = Verdict::default();
    match scenario {
        Scenario::Idle => run_idle(options, &mut verdict),
        _ => loads(options, scenario).into_iter().try_for_each(|load| run_load(options, load, &mut verdict))?,
    }
    verdict.broken.iter().for_each(|line| println!("BROKEN: {line}"));
    verdict.failed.iter().for_each(|line| println!("FAILED: {line}"));
    Ok(verdict.failed.is_empty() && (verdict.broken.is_empty() || !options.assert))
}

fn loads(options: &Options, scenario: Scenario) -> Vec<Load> {
    let connections = |default| options.connections.unwrap_or(default);
    match scenario {
        Scenario::Echo => {
            let pairs =
                options.sizes.iter().flat_map(|size| options.in_flight.iter().map(move |count| (*size, *count)));
            let load = |(size, in_flight)| {
                let messages = options.messages.unwrap_or(if in_flight == 1 { 200_000 } else { 2_000_000 });
                let (warm_up, scatter) = (messages / 10, options.scatter);
                Load::Echo(Echo { connections: connections(64), size, in_flight, scatter, warm_up, messages })
            };
            pairs.map(load).collect()
        }
        Scenario::Connect => {
            let count = connections(10_000);
            vec![Load::Connect(Connect { warm_up: count / 10, connections: count, window: 64 })]
        }
        Scenario::Fanout => {
            let publications = options.messages.unwrap_or(50);
            let (subscribers, size) = (connections(10_000), options.sizes.first().copied().unwrap_or(64));
            vec![Load::Fanout(Fanout { subscribers, size, warm_up: 5, publications })]
        }
        Scenario::Idle => Vec::new(),
    }
}

/// All rounds of one load, each subject in turn within a round.
fn run_load(options: &Options, load: Load, verdict: &mut Verdict) -> io::Result<()> {
    println!("{}", describe(load));
    let servers = options.backends.iter().cloned().map(Subject::Server);
    let subjects = Engine::ALL.into_iter().map(Subject::Bare).chain(servers);
    let mut columns: Vec<Column> = subjects.map(|subject| (subject, Vec::new())).collect();
    let mut rounds = Table::new(&["round", "subject", "CPU µs", "user µs", "per second", "server busy", "client busy"]);
    for round in 1..=options.rounds {
        for (subject, samples) in &mut columns {
            match measure(options, subject, load) {
                Ok(sample) => {
                    rounds.row(round_row(round, subject, &sample));
                    samples.push(sample);
                }
                Err(error) if matches!(subject, Subject::Server(_)) => {
                    verdict.failed.push(format!("{}: {}: {error}", describe(load), subject.name()));
                }
                Err(error) => return Err(error),
            }
        }
        columns.retain(|(_, samples)| samples.len() == round);
    }
    rounds.print();
    verdict.broken.extend(summarize(load, &columns));
    Ok(())
}

fn describe(load: Load) -> String {
    match load {
        Load::Echo(Echo { connections, size, in_flight, scatter, messages, .. }) => {
            let how = if scatter { ", scattered" } else { "" };
            format!(
                "echo: {connections} connections, {size} bytes, {in_flight} in flight{how}, {messages} messages a round"
            )
        }
        Load::Connect(Connect { connections, window, .. }) => {
            format!("connect and upgrade: {connections} connections a round, {window} at a time")
        }
        Load::Fanout(Fanout { subscribers, size, publications, .. }) => {
            format!("fan-out: {size} bytes to {subscribers} subscribers, {publications} publications a round")
        }
    }
}

/// One child process, one measurement.
fn measure(options: &Options, subject: &Subject, load: Load) -> io::Result<Sample> {
    let speak = if options.speak == Speak::Raw { Protocol::Raw } else { Protocol::WebSocket };
    let bare = |role, engine: &Engine| Target::bare(role, *engine, options.bare_buffer);
    let server = |backend: &String| start_server(options, backend, capacity(load), &[]);
    let (target, protocol) = match (subject, load) {
        (Subject::Bare(engine), Load::Echo(_)) => (bare(Role::Echo, engine)?, Protocol::Raw),
        (Subject::Bare(engine), Load::Connect(_)) => (bare(Role::Upgrade, engine)?, Protocol::WebSocket),
        (Subject::Bare(engine), Load::Fanout(_)) => (bare(Role::Fanout, engine)?, Protocol::Raw),
        (Subject::Server(backend), Load::Echo(_)) => (server(backend)?, speak),
        (Subject::Server(backend), _) => (server(backend)?, Protocol::WebSocket),
    };
    let path = if matches!(load, Load::Echo(_)) { "/echo" } else { "/topics/bench" };
    let endpoint = target.endpoint(protocol, path)?;
    let sample = match load {
        Load::Echo(load) => scenario::echo(&endpoint, target.pid(), load),
        Load::Connect(load) => scenario::connect(&endpoint, target.pid(), load),
        Load::Fanout(load) => scenario::fanout(&endpoint, target.pid(), load),
    }?;
    drop(target);
    sys::settle();
    Ok(sample)
}

/// Connections of a load, with room for those of the run before that are still closing.
fn capacity(load: Load) -> usize {
    1000 + match load {
        Load::Echo(load) => load.connections,
        Load::Connect(load) => load.warm_up + load.connections,
        Load::Fanout(load) => load.subscribers,
    }
}

fn start_server(options: &Options, backend: &str, connections: usize, more: &[&str]) -> io::Result<Target> {
    Target::server(options.server.as_deref().unwrap_or(SERVER), backend, connections, more)
}

fn round_row(round: usize, subject: &Subject, sample: &Sample) -> Vec<String> {
    let share = |part: Duration| format!("{:.0} %", 100.0 * part.as_secs_f64() / sample.cost.wall.as_secs_f64());
    vec![
        round.to_string(),
        subject.name(),
        format!("{:.3}", sample.cpu_us()),
        format!("{:.3}", sample.cpu_us() * sample.cost.user_share),
        format!("{:.0}", sample.rate()),
        share(sample.cost.cpu),
        share(sample.cost.client),
    ]
}

/// Medians of all rounds, with the median ratio to the bare loop that counts; what broke a bound.
fn summarize(load: Load, columns: &[Column]) -> Vec<String> {
    let median_by =
        |rounds: &[Sample], figure: &dyn Fn(&Sample) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
    let bare = |engine| {
        columns.iter().find(|(subject, _)| *subject == Subject::Bare(engine)).map_or(&[][..], |(_, rounds)| rounds)
    };
    let mut broken = Vec::new();
    let mut table =
        Table::new(&["median", "CPU µs", "user µs", "per second", "ratio", "bound", "last p50", "last p99"]);
    for (subject, rounds) in columns {
        let cpu_us = median_by(rounds, &Sample::cpu_us);
        let user_us = median_by(rounds, &|sample| sample.cpu_us() * sample.cost.user_share);
        // By round, so that a machine that others slow down for a while does not bend it.
        let base = bare(baseline(load, subject));
        let ratios: Vec<f64> = rounds.iter().zip(base).map(|(ours, bare)| ours.cpu_us() / bare.cpu_us()).collect();
        let ratio = median(&ratios);
        let (value, bound, unit) = bound(load, cpu_us, ratio);
        let is_server = matches!(subject, Subject::Server(_));
        if is_server && value > bound {
            broken.push(format!("{}: {}: {value:.2}{unit}, at most {bound:.2}{unit}", describe(load), subject.name()));
        }
        let mut last: Vec<Duration> = rounds.iter().flat_map(|sample| sample.last_delivery.clone()).collect();
        let mut last = |rank| match last.is_empty() {
            true => String::new(),
            false => format!("{:.1} ms", percentile(&mut last, rank).as_secs_f64() * 1e3),
        };
        table.row(vec![
            subject.name(),
            format!("{cpu_us:.3}"),
            format!("{user_us:.3}"),
            format!("{:.0}", median_by(rounds, &Sample::rate)),
            format!("{ratio:.3}"),
            if is_server { format!("{bound:.2}{unit}") } else { String::new() },
            last(0.50),
            last(0.99),
        ]);
    }
    table.print();
    broken
}

/// The bare loop that a subject is measured by: io_uring for both backends, but in a fan-out the subject's own system
/// call, since there all else is the kernel's send.
fn baseline(load: Load, subject: &Subject) -> Engine {
    let epoll = match subject {
        Subject::Bare(engine) => *engine == Engine::Epoll,
        Subject::Server(backend) => backend == "epoll",
    };
    if epoll && matches!(load, Load::Fanout(_)) { Engine::Epoll } else { Engine::Uring }
}

/// What is bounded, by what, and its unit.
fn bound(load: Load, cpu_us: f64, ratio: f64) -> (f64, f64, &'static str) {
    match load {
        Load::Echo(Echo { in_flight: 1, .. }) => (ratio, ECHO_ONE_RATIO_MAX, ""),
        Load::Echo(_) => (ratio, ECHO_MANY_RATIO_MAX, ""),
        Load::Connect(_) => (cpu_us, CONNECT_US_MAX, " µs"),
        Load::Fanout(_) => (ratio, FANOUT_RATIO_MAX, ""),
    }
}

/// Idle connections on each backend that can hold them; there is no bare loop to compare memory with.
fn run_idle(options: &Options, verdict: &mut Verdict) {
    let connections = options.connections.unwrap_or(200_000);
    for backend in &options.backends {
        if backend == "epoll" && connections + 1000 > sys::descriptor_limit() as usize {
            println!("idle: server epoll: {connections} connections are more than descriptors, left out\n");
            continue;
        }
        match measure_idle(options, backend, connections) {
            Ok(outcome) => verdict.broken.extend(report_idle(backend, connections, &outcome)),
            Err(error) => verdict.failed.push(format!("idle: server {backend}: {error}")),
        }
    }
}

fn measure_idle(options: &Options, backend: &str, connections: usize) -> io::Result<IdleOutcome> {
    let flags = ["--heartbeat-interval", "10s", "--heartbeat-timeout", "10s"];
    let target = start_server(options, backend, connections + 1000, &flags)?;
    let endpoint = target.endpoint(Protocol::WebSocket, "/topics/all")?;
    let load = Idle { connections, hold: Duration::from_secs(options.hold), patience: Duration::from_secs(120) };
    let outcome = scenario::idle(&endpoint, target.pid(), load);
    drop(target);
    sys::settle();
    outcome
}

fn report_idle(backend: &str, connections: usize, outcome: &IdleOutcome) -> Option<String> {
    let each = |bytes: u64| bytes as f64 / connections as f64;
    let grown = |memory: sys::Memory| each(memory.total().saturating_sub(outcome.before.total()));
    println!("idle: server {backend}: {connections} connections in one topic, open after {:.1?}", outcome.opened);
    let mut table = Table::new(&["memory", "anonymous", "private dirty", "shared", "bytes per connection"]);
    let moments = [
        ("empty", outcome.before),
        ("connected", outcome.connected),
        ("held", outcome.held),
        ("broadcast", outcome.after),
    ];
    for (moment, memory) in moments {
        let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
        let cells = [kib(memory.anonymous), kib(memory.private_dirty), kib(memory.shared)];
        table.row([moment.to_owned()].into_iter().chain(cells).chain([format!("{:.1}", grown(memory))]).collect());
    }
    table.print();
    println!("kernel slab, both ends: {:.0} bytes per connection", each(outcome.kernel_bytes));
    let percent = 100.0 * outcome.holding.cpu.as_secs_f64() / outcome.holding.wall.as_secs_f64().max(1e-9);
    println!("holding for {:.1?}: {percent:.2} % of a core, {} pings", outcome.holding.wall, outcome.pings);
    let delivery_us = outcome.broadcast.cpu.as_secs_f64() * 1e6 / connections as f64;
    println!("broadcast: {delivery_us:.2} µs CPU per delivery, last after {:.1?}, each once\n", outcome.last_delivery);
    let worst = grown(outcome.connected).max(grown(outcome.held));
    (worst > IDLE_BYTES_MAX)
        .then(|| format!("idle: server {backend}: {worst:.1} bytes per connection, at most {IDLE_BYTES_MAX}"))
}
