//! Requests over HTTP/1.1 beside nginx, in turns, on the same cores, under the same clients.
//!
//! ```text
//! cargo bench --bench http                         both scenarios, five rounds
//! cargo bench --bench http -- get --backend uring --rounds 9 --assert
//! cargo bench --bench http -- post --without-nginx
//! ```
//!
//! `get` asks for a file of 1 KiB, by keep-alive connections. nginx serves the same directory in several tunings
//! ([`Tuning`]), and the ratio is to the cheapest of them. `post` publishes 128 bytes to a topic and waits until their
//! place is known; nginx answers the same request with `return 200`, the floor of what a request costs there.
//!
//! Each server runs in processes pinned to core 0, the clients in this one on core 1; the figure is the server's CPU
//! time per request, kernel included, after a warm-up. Without nginx the exit status is 1, unless `--without-nginx` says
//! that it may be missing. `cargo test --benches` runs everything once, tiny, with whatever is there.

mod common;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use common::nginx::{self, Tuning};
use common::report::{Table, median};
use common::scenario::{self, Expected, Requests, Sample};
use common::sys;
use common::target::{SERVER, Target};
use common::wire::{self, Protocol};

/// CPU per GET, against nginx in its cheapest tuning.
const GET_RATIO_MAX: f64 = 1.0;
const FILE_BYTES: usize = 1024;
const FILE_PATH: &str = "/1k.bin";
const MESSAGE_BYTES: usize = 128;
const TOPIC_PATH: &str = "/topics/load";

/// Compares requests over HTTP with nginx.
#[derive(Parser, Debug)]
#[command(name = "http")]
struct Options {
    /// What to measure; without it all.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// The server's backends.
    #[arg(long = "backend", value_delimiter = ',', default_value = "uring,epoll")]
    backends: Vec<String>,
    /// Another server's command; it gets the same flags.
    #[arg(long, default_value = SERVER)]
    server: String,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Measured requests in a round.
    #[arg(long, default_value_t = 200_000)]
    requests: u64,
    /// Requests in flight on each connection in `get`.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    in_flight: Vec<usize>,
    /// Measure without nginx, which may be missing then.
    #[arg(long)]
    without_nginx: bool,
    /// Fail when the bound is broken.
    #[arg(long)]
    assert: bool,
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    test: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Get,
    Post,
}

/// One column of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Server(String),
    Nginx(Tuning),
}

/// A subject and its rounds so far.
type Column = (Subject, Vec<Sample>);

/// Where the files of a run are.
struct Room {
    own: PathBuf,
    public: PathBuf,
    settings: PathBuf,
    file: Vec<u8>,
}

impl Subject {
    fn name(&self) -> String {
        match self {
            Self::Server(backend) => format!("server {backend}"),
            Self::Nginx(tuning) => tuning.name().to_owned(),
        }
    }
}

impl Room {
    /// Writes the file that is served, and the settings.
    fn new() -> io::Result<Self> {
        let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("http-bench-{}", std::process::id()));
        let (public, settings) = (own.join("public"), own.join("holdline.toml"));
        fs::create_dir_all(&public)?;
        let file: Vec<u8> = (b'a'..=b'z').cycle().take(FILE_BYTES).collect();
        fs::write(public.join(&FILE_PATH[1..]), &file)?;
        fs::write(&settings, "[limits]\nkeep_alive_requests_max = 1000000000\n")?;
        Ok(Self { own, public, settings, file })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.own);
    }
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    println!("{}", sys::machine());
    if options.test || (!options.bench && options.scenarios.is_empty()) {
        (options.rounds, options.connections, options.requests) = (1, 8, 2000);
        (options.assert, options.without_nginx) = (false, nginx::version().is_none());
    }
    match run(&mut options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("http: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all; whether all is well.
fn run(options: &mut Options) -> io::Result<bool> {
    let room = Room::new()?;
    let nginx = nginx::version().filter(|_| !options.without_nginx);
    match &nginx {
        Some(version) => println!("{version}"),
        None if options.without_nginx => {}
        None => {
            let line = "=".repeat(70);
            eprintln!("{line}\nNGINX IS MISSING: nothing to compare with. Install it: {}\n{line}", nginx::INSTALL);
            return Ok(false);
        }
    }
    if options.scenarios.is_empty() {
        options.scenarios = vec![Scenario::Get, Scenario::Post];
    }
    let servers: Vec<Subject> = backends(options, &room).into_iter().map(Subject::Server).collect();
    let complete = servers.len() == options.backends.len();
    let mut good = complete || !options.assert;
    for scenario in &options.scenarios {
        for load in loads(options, *scenario, &room) {
            let rivals = rivals(*scenario).iter().filter(|_| nginx.is_some());
            let subjects = servers.iter().chain(rivals).cloned();
            let columns = subjects.map(|subject| (subject, Vec::new())).collect();
            good &= run_load(options, *scenario, &load, columns, &room)? || !options.assert;
        }
    }
    Ok(good)
}

/// What a scenario is compared with; the ratio is to the cheapest of them.
const fn rivals(scenario: Scenario) -> &'static [Subject] {
    match scenario {
        Scenario::Get => &[
            Subject::Nginx(Tuning::Buffered),
            Subject::Nginx(Tuning::NoPush),
            Subject::Nginx(Tuning::FileCache),
            Subject::Nginx(Tuning::Sendfile),
        ],
        Scenario::Post => &[Subject::Nginx(Tuning::Sendfile)],
    }
}

/// Leaves out what does not start, and says so: a kernel without io_uring.
fn backends(options: &Options, room: &Room) -> Vec<String> {
    let starts = |backend: &&String| match start_server(options, backend, room) {
        Ok(_) => true,
        Err(error) => {
            println!("server {backend} is left out: {error}");
            false
        }
    };
    options.backends.iter().filter(starts).cloned().collect()
}

fn start_server(options: &Options, backend: &str, room: &Room) -> io::Result<Target> {
    let (public, settings) = (room.public.to_string_lossy(), room.settings.to_string_lossy());
    let flags = ["--config", &settings, "--public", &public];
    Target::server(&options.server, backend, options.connections + 1000, &flags)
}

fn loads(options: &Options, scenario: Scenario, room: &Room) -> Vec<Requests> {
    let load = |request, expected, in_flight| {
        let (connections, requests, warm_up) = (options.connections, options.requests, options.requests / 10);
        Requests { connections, in_flight, request, expected, warm_up, requests }
    };
    match scenario {
        Scenario::Get => {
            let get = |count: &usize| load(wire::get(FILE_PATH), Expected::Body(room.file.clone()), *count);
            options.in_flight.iter().map(get).collect()
        }
        Scenario::Post => vec![load(wire::post(TOPIC_PATH, &[b'x'; MESSAGE_BYTES]), Expected::Place, 1)],
    }
}

/// All rounds of one load, each subject in turn within a round; whether the bound holds.
fn run_load(
    options: &Options,
    scenario: Scenario,
    load: &Requests,
    mut columns: Vec<Column>,
    room: &Room,
) -> io::Result<bool> {
    let what = match scenario {
        Scenario::Get => format!("GET of a file of {FILE_BYTES} bytes"),
        Scenario::Post => format!("POST of {MESSAGE_BYTES} bytes"),
    };
    let Requests { connections, in_flight, requests, .. } = load;
    println!("{what}: {connections} connections, {in_flight} in flight, {requests} requests a round");
    let mut rounds = Table::new(&["round", "subject", "CPU µs", "user µs", "per second", "client busy"]);
    for round in 1..=options.rounds {
        for (subject, samples) in &mut columns {
            let sample = measure(options, subject, load, room)
                .map_err(|error| io::Error::other(format!("{what}: {}: {error}", subject.name())))?;
            rounds.row(round_row(round, subject, &sample));
            samples.push(sample);
        }
    }
    rounds.print();
    Ok(summarize(scenario, &columns))
}

/// One server, one measurement.
fn measure(options: &Options, subject: &Subject, load: &Requests, room: &Room) -> io::Result<Sample> {
    let mut load = load.clone();
    let target = match subject {
        Subject::Server(backend) => start_server(options, backend, room)?,
        Subject::Nginx(tuning) => {
            if matches!(load.expected, Expected::Place) {
                load.expected = Expected::Body(nginx::POSTED.to_vec());
            }
            nginx::start(&room.own.join("nginx"), &room.public, *tuning)?
        }
    };
    let endpoint = target.endpoint(Protocol::Http, FILE_PATH)?;
    let sample = scenario::requests(&endpoint, target.pid(), &load)?;
    drop(target);
    sys::settle();
    Ok(sample)
}

fn round_row(round: usize, subject: &Subject, sample: &Sample) -> Vec<String> {
    vec![
        round.to_string(),
        subject.name(),
        format!("{:.3}", sample.cpu_us()),
        format!("{:.3}", sample.cpu_us() * sample.cost.user_share),
        format!("{:.0}", sample.rate()),
        format!("{:.0} %", 100.0 * sample.cost.client.as_secs_f64() / sample.cost.wall.as_secs_f64()),
    ]
}

/// Medians of all rounds, with the median ratio to nginx; whether the bound holds.
fn summarize(scenario: Scenario, columns: &[Column]) -> bool {
    let middle =
        |rounds: &[Sample], figure: &dyn Fn(&Sample) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
    let cpu_us = |rounds: &[Sample]| middle(rounds, &Sample::cpu_us);
    let rivals = columns.iter().filter(|(subject, _)| matches!(subject, Subject::Nginx(_)));
    let base = rivals.min_by(|(_, one), (_, other)| cpu_us(one).total_cmp(&cpu_us(other)));
    let mut holds = true;
    let mut table = Table::new(&["median", "CPU µs", "user µs", "per second", "ratio", "bound"]);
    for (subject, rounds) in columns {
        // By round, so that a machine that others slow down for a while does not bend it.
        let pairs = base.iter().flat_map(|(_, base)| rounds.iter().zip(base));
        let ratio = median(&pairs.map(|(ours, base)| ours.cpu_us() / base.cpu_us()).collect::<Vec<_>>());
        let is_bounded = scenario == Scenario::Get && matches!(subject, Subject::Server(_));
        if is_bounded && ratio > GET_RATIO_MAX {
            println!("BROKEN: {}: {ratio:.3} of nginx, at most {GET_RATIO_MAX:.2}", subject.name());
            holds = false;
        }
        table.row(vec![
            subject.name(),
            format!("{:.3}", cpu_us(rounds)),
            format!("{:.3}", middle(rounds, &|sample| sample.cpu_us() * sample.cost.user_share)),
            format!("{:.0}", middle(rounds, &Sample::rate)),
            format!("{ratio:.3}"),
            if is_bounded { format!("{GET_RATIO_MAX:.2}") } else { String::new() },
        ]);
    }
    table.print();
    holds
}
