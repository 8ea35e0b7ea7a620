//! Calls of gRPC that echo, beside a server of tonic, in turns, on the same cores, under the same clients.
//!
//! ```text
//! cargo bench --bench grpc                                   everything, five rounds
//! cargo bench --bench grpc -- streams --backend uring --rounds 9 --assert
//! cargo bench --bench grpc -- idle --connections 10000
//! ```
//!
//! All messages go over one connection: one stream with one message in flight, one stream with many, many streams with
//! one each. A server runs in a process pinned to core 0, the clients in this one on core 1; the figure is the server's
//! CPU time per message that was received and echoed, kernel included, after a warm-up, and the ratio is to tonic's. A
//! bare loop that echoes as many bytes on one connection without looking at them shows what of it is the kernel's.
//! `idle` opens connections with one call each and prints how far the server's memory grew. With `--assert` the exit
//! status is 1 when a bound is broken. `cargo test --benches` runs everything once, tiny.

mod common;

mod grpc {
    pub(crate) mod calls;
    pub(crate) mod idle;
    pub(crate) mod rival;
}

use std::process::ExitCode;
use std::time::Duration;
use std::{env, io};

use clap::{Parser, ValueEnum};

use common::bare::{self, Engine, Role};
use common::http2;
use common::report::{Table, median};
use common::scenario::{self, Echo, Sample};
use common::sys::{self, Memory};
use common::target::{BARE, SERVER, Target};
use common::wire::Protocol;
use grpc::calls::{Calls, calls};
use grpc::idle::{Idle, IdleOutcome, capacity, idle};
use grpc::rival::{self, RIVAL};

/// CPU per message, against tonic.
const RATIO_MAX: f64 = 0.5;
/// User memory per idle connection with one open call, bytes.
const IDLE_BYTES_MAX: f64 = 1024.0;
/// Bytes of the bare loop's buffer: the largest burst that is usual here, whole.
const BARE_BUFFER_BYTES: usize = 128 * 1024;
/// Connections of `idle` with each server.
const IDLE_CONNECTIONS: usize = 2_000;

/// Compares calls of gRPC with tonic.
#[derive(Parser, Debug)]
#[command(name = "grpc")]
struct Options {
    /// What to measure; without it all.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// The server's backends.
    #[arg(long = "backend", value_delimiter = ',', default_value = "uring,epoll")]
    backends: Vec<String>,
    /// Another server's command; it gets the same flags. "none": tonic and the bare loop alone.
    #[arg(long, default_value = SERVER)]
    server: String,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes of a message.
    #[arg(long, value_delimiter = ',', default_value = "32,1024")]
    sizes: Vec<usize>,
    /// Measured messages in a round, instead of what each scenario is defined with.
    #[arg(long)]
    messages: Option<u64>,
    /// Messages in flight on the one stream of `burst`.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Streams of `streams`.
    #[arg(long, default_value_t = 100)]
    streams: usize,
    /// Connections of `idle`.
    #[arg(long, default_value_t = IDLE_CONNECTIONS)]
    connections: usize,
    /// How long `idle` holds them, seconds.
    #[arg(long, default_value_t = 5)]
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
    /// One stream, one message in flight.
    One,
    /// One stream, many messages in flight.
    Burst,
    /// Many streams, one message in flight on each.
    Streams,
    /// Many connections with one stream each, which say nothing.
    Idle,
}

/// One column of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Server(String),
    Rival,
    /// No server of gRPC at all: the floor.
    Bare,
}

/// A subject and its rounds so far.
type Column = (Subject, Vec<Sample>);

impl Subject {
    fn name(&self) -> String {
        match self {
            Self::Server(backend) => format!("server {backend}"),
            Self::Rival => "tonic".to_owned(),
            Self::Bare => "bare epoll".to_owned(),
        }
    }

    /// Starts it with room for so many connections, each with a call or more.
    fn start(&self, options: &Options, connections: usize) -> io::Result<Target> {
        match self {
            // A stream has an entry in the table of connections.
            Self::Server(backend) => Target::server(&options.server, backend, 2 * connections + 1000, &[]),
            Self::Rival => rival::start(),
            Self::Bare => Target::bare(Role::Echo, Engine::Epoll, BARE_BUFFER_BYTES),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let outcome = match arguments.get(1).map(String::as_str) {
        Some(RIVAL) => rival::main().map(|()| true),
        Some(BARE) => bare::main(&arguments[1..]).map(|()| true),
        _ => compare(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("grpc: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> io::Result<bool> {
    let mut options = Options::parse();
    println!("{}", sys::machine());
    println!("beside {}", rival::versions());
    if options.test || (!options.bench && options.scenarios.is_empty()) {
        (options.rounds, options.messages, options.streams) = (1, Some(2000), 16);
        (options.connections, options.hold, options.assert) = (100, 0, false);
    }
    run(&mut options)
}

/// Runs all; whether all is well.
fn run(options: &mut Options) -> io::Result<bool> {
    if options.scenarios.is_empty() {
        options.scenarios = Scenario::value_variants().to_vec();
    }
    let servers = servers(options);
    let mut good = servers.len() == options.backends.len() || !options.assert;
    let subjects: Vec<Subject> = servers.into_iter().chain([Subject::Rival, Subject::Bare]).collect();
    for scenario in &options.scenarios {
        good &= match loads(options, *scenario) {
            None => run_idle(options, &subjects)?,
            Some(loads) => {
                let holds = loads.into_iter().map(|load| run_load(options, load, &subjects));
                holds.collect::<io::Result<Vec<bool>>>()?.into_iter().all(|holds| holds)
            }
        } || !options.assert;
    }
    Ok(good)
}

/// Leaves out what does not start, and says so: a kernel without io_uring.
fn servers(options: &Options) -> Vec<Subject> {
    let wanted = options.backends.iter().filter(|_| options.server != "none").cloned().map(Subject::Server);
    let starts = |subject: &Subject| match subject.start(options, 1) {
        Ok(_) => true,
        Err(error) => {
            println!("{} is left out: {error}", subject.name());
            false
        }
    };
    wanted.filter(starts).collect()
}

/// The messages of a scenario, if it has any.
fn loads(options: &Options, scenario: Scenario) -> Option<Vec<Calls>> {
    let (streams, in_flight, messages) = match scenario {
        Scenario::One => (1, 1, 100_000),
        Scenario::Burst => (1, options.in_flight, 1_000_000),
        Scenario::Streams => (options.streams, 1, 1_000_000),
        Scenario::Idle => return None,
    };
    let messages = options.messages.unwrap_or(messages);
    let load = |size: &usize| Calls { streams, size: *size, in_flight, warm_up: messages / 10, messages };
    Some(options.sizes.iter().map(load).collect())
}

/// All rounds of one load, each subject in turn within a round; whether the bound holds.
fn run_load(options: &Options, load: Calls, subjects: &[Subject]) -> io::Result<bool> {
    let Calls { streams, size, in_flight, messages, .. } = load;
    let what = format!("{streams} stream(s), {in_flight} in flight on each, {size} bytes");
    println!("echo: {what}, {messages} messages a round");
    let mut columns: Vec<Column> = subjects.iter().map(|subject| (subject.clone(), Vec::new())).collect();
    let mut rounds = Table::new(&["round", "subject", "CPU µs", "user µs", "per second", "server busy", "client busy"]);
    for round in 1..=options.rounds {
        for (subject, samples) in &mut columns {
            let sample = measure(options, subject, load)
                .map_err(|error| io::Error::other(format!("{what}: {}: {error}", subject.name())))?;
            rounds.row(round_row(round, subject, &sample));
            samples.push(sample);
        }
    }
    rounds.print();
    Ok(summarize(&columns))
}

/// One server, one measurement.
fn measure(options: &Options, subject: &Subject, load: Calls) -> io::Result<Sample> {
    let target = subject.start(options, load.streams)?;
    let sample = match subject {
        Subject::Bare => {
            let Calls { streams, size, in_flight, warm_up, messages } = load;
            let (size, in_flight) = (http2::HEAD_BYTES + http2::Message::new(size).len(), streams * in_flight);
            let load = Echo { connections: 1, size, in_flight, scatter: false, warm_up, messages };
            scenario::echo(&target.endpoint(Protocol::Raw, "")?, target.pid(), load)?
        }
        _ => calls(&target.endpoint(Protocol::Http2, rival::PATH)?, target.pid(), load)?,
    };
    drop(target);
    sys::settle();
    Ok(sample)
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

/// Medians of all rounds, with the median ratio to tonic; whether the bound holds.
fn summarize(columns: &[Column]) -> bool {
    let middle =
        |rounds: &[Sample], figure: &dyn Fn(&Sample) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
    let rival = columns.iter().find(|(subject, _)| *subject == Subject::Rival);
    let mut holds = true;
    let mut table = Table::new(&["median", "CPU µs", "user µs", "per second", "ratio", "bound", "user ratio"]);
    let user_us = |sample: &Sample| sample.cpu_us() * sample.cost.user_share;
    for (subject, rounds) in columns {
        // By round, so that a machine that others slow down for a while does not bend it.
        let ratio = |figure: &dyn Fn(&Sample) -> f64| {
            let pairs = rival.iter().flat_map(|(_, rival)| rounds.iter().zip(rival));
            median(&pairs.map(|(ours, rival)| figure(ours) / figure(rival)).collect::<Vec<_>>())
        };
        let (ratio, user_ratio) = (ratio(&Sample::cpu_us), ratio(&user_us));
        let is_bounded = matches!(subject, Subject::Server(_));
        if is_bounded && ratio > RATIO_MAX {
            println!("BROKEN: {}: {ratio:.3} of tonic, at most {RATIO_MAX:.2}", subject.name());
            holds = false;
        }
        table.row(vec![
            subject.name(),
            format!("{:.3}", middle(rounds, &Sample::cpu_us)),
            format!("{:.3}", middle(rounds, &user_us)),
            format!("{:.0}", middle(rounds, &Sample::rate)),
            format!("{ratio:.3}"),
            if is_bounded { format!("{RATIO_MAX:.2}") } else { String::new() },
            format!("{user_ratio:.3}"),
        ]);
    }
    table.print();
    holds
}

/// Idle connections with each server, once; whether the bound holds.
fn run_idle(options: &Options, subjects: &[Subject]) -> io::Result<bool> {
    let (connections, hold) = (options.connections, Duration::from_secs(options.hold));
    let load = Idle { connections, hold, size: 32 };
    println!("idle: {connections} connections with one open call each, bytes of user memory per connection");
    let mut outcomes = Vec::new();
    for subject in subjects.iter().filter(|subject| **subject != Subject::Bare) {
        let outcome = measure_idle(options, subject, load)
            .map_err(|error| io::Error::other(format!("idle, {}: {error}", subject.name())))?;
        outcomes.push((subject, outcome));
    }
    let rival = outcomes.iter().find(|(subject, _)| **subject == Subject::Rival).map(|(_, outcome)| outcome);
    let rival = rival.map_or(f64::NAN, |outcome| grown(outcome, outcome.held, connections));
    let mut holds = true;
    let mut table = Table::new(&["subject", "open", "held", "echoed", "ratio", "pings", "CPU held", "slab, both ends"]);
    for (subject, outcome) in &outcomes {
        let worst = grown(outcome, outcome.opened, connections).max(grown(outcome, outcome.held, connections));
        if **subject != Subject::Rival && worst > IDLE_BYTES_MAX {
            println!("BROKEN: {}: {worst:.0} bytes, at most {IDLE_BYTES_MAX:.0}", subject.name());
            holds = false;
        }
        table.row(idle_row(subject, outcome, connections, rival));
    }
    table.print();
    Ok(holds)
}

/// Bytes by which a server has grown, per connection.
fn grown(outcome: &IdleOutcome, memory: Memory, connections: usize) -> f64 {
    memory.total().saturating_sub(outcome.before.total()) as f64 / connections.max(1) as f64
}

fn idle_row(subject: &Subject, outcome: &IdleOutcome, connections: usize, rival: f64) -> Vec<String> {
    let grown = |memory| grown(outcome, memory, connections);
    let busy = outcome.holding.cpu.as_secs_f64() / outcome.holding.wall.as_secs_f64().max(1e-9);
    vec![
        subject.name(),
        format!("{:.0}", grown(outcome.opened)),
        format!("{:.0}", grown(outcome.held)),
        format!("{:.0}", grown(outcome.echoed)),
        format!("{:.4}", grown(outcome.held) / rival),
        outcome.pings.to_string(),
        format!("{:.2} %", 100.0 * busy),
        format!("{:.0}", outcome.kernel_bytes as f64 / connections.max(1) as f64),
    ]
}

fn measure_idle(options: &Options, subject: &Subject, load: Idle) -> io::Result<IdleOutcome> {
    let target = subject.start(options, capacity(load))?;
    let endpoint = target.endpoint(Protocol::Http2, rival::PATH)?;
    let outcome = idle(&endpoint, target.pid(), load)?;
    drop(target);
    sys::settle();
    Ok(outcome)
}
