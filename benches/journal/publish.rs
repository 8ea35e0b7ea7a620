//! What a publication costs a whole server: over HTTP, to topics in memory of a server without a journal and of one that has it,
//! and to a durable topic, by as many publishers as wait at a time.

use std::fs;
use std::io;
use std::path::Path;

use crate::common::report::{Table, median};
use crate::common::scenario::{self, Expected, Requests, Sample};
use crate::common::sys;
use crate::common::target::{SERVER, Target};
use crate::common::wire::{self, Protocol};

const MESSAGE_BYTES: usize = 128;
/// Publishers of the comparison of topics in memory.
const PUBLISHERS: usize = 64;

/// How much is done.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) requests: u64,
}

/// What is published to, and where.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Another server, which was named, without a journal.
    Before,
    /// No journal at all.
    Memory,
    /// A topic in memory of a server that has a journal.
    Beside,
    /// A durable topic.
    Durable,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Before => "in memory, the server before",
            Self::Memory => "in memory, no journal",
            Self::Beside => "in memory, beside a journal",
            Self::Durable => "durable",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Durable => "/topics/durable/load",
            _ => "/topics/load",
        }
    }
}

/// Topics in memory in turn, each round; then durable ones. `before` is another server's command.
pub(crate) fn run(directory: &Path, effort: Effort, before: Option<&str>) -> io::Result<()> {
    let ways = [Way::Before, Way::Memory, Way::Beside];
    let mut columns: Vec<(Way, Vec<Sample>)> = ways.map(|way| (way, Vec::new())).into();
    columns.retain(|(way, _)| *way != Way::Before || before.is_some());
    for _ in 0..effort.rounds {
        for (way, samples) in &mut columns {
            samples.push(measure(directory, *way, PUBLISHERS, effort.requests, before)?);
        }
    }
    println!("POST of {MESSAGE_BYTES} bytes over HTTP, {PUBLISHERS} at a time, medians of {} rounds:", effort.rounds);
    let base = columns[0].1.clone();
    let mut table = Table::new(&["topic", "CPU µs", "user µs", "per second", "ratio"]);
    for (way, samples) in &columns {
        let ratios: Vec<_> = samples.iter().zip(&base).map(|(one, base)| one.cpu_us() / base.cpu_us()).collect();
        table.row(row(*way, samples, median(&ratios)));
    }
    table.print();

    println!("the same to a durable topic, by publishers at a time:");
    let mut table = Table::new(&["publishers", "CPU µs", "user µs", "per second", "ratio"]);
    for publishers in [1, 16, 256, 1024] {
        let samples: io::Result<Vec<_>> = (0..effort.rounds.min(3))
            .map(|_| measure(directory, Way::Durable, publishers, durable_requests(effort, publishers), before))
            .collect();
        let samples = samples?;
        let ratios: Vec<_> = samples.iter().map(|one| one.cpu_us() / middle(&base, Sample::cpu_us)).collect();
        let mut cells = row(Way::Durable, &samples, median(&ratios));
        cells[0] = publishers.to_string();
        table.row(cells);
    }
    table.print();
    Ok(())
}

/// One publisher at a time waits for the disk each time.
fn durable_requests(effort: Effort, publishers: usize) -> u64 {
    let share = publishers.min(PUBLISHERS) as u64;
    (effort.requests * share / PUBLISHERS as u64).max(100)
}

fn middle(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    median(&samples.iter().map(figure).collect::<Vec<_>>())
}

fn row(way: Way, samples: &[Sample], ratio: f64) -> Vec<String> {
    vec![
        way.name().to_owned(),
        format!("{:.2}", middle(samples, Sample::cpu_us)),
        format!("{:.2}", middle(samples, |one| one.cpu_us() * one.cost.user_share)),
        format!("{:.0}", middle(samples, Sample::rate)),
        format!("{ratio:.2}"),
    ]
}

/// One server, which begins with nothing on the disk.
fn measure(directory: &Path, way: Way, publishers: usize, requests: u64, before: Option<&str>) -> io::Result<Sample> {
    let (settings, journal) = (directory.join("server.toml"), directory.join("of-server"));
    let _ = fs::remove_dir_all(&journal);
    let mut text = "[limits]\nkeep_alive_requests_max = 1000000000\n".to_owned();
    if matches!(way, Way::Beside | Way::Durable) {
        text.push_str(&format!("[journal]\ndir = {journal:?}\n[topics.\"durable/**\"]\ndurable = true\n"));
    }
    fs::write(&settings, text)?;
    let command = before.filter(|_| way == Way::Before).unwrap_or(SERVER);
    let target = Target::server(command, "auto", publishers + 1000, &["--config", &settings.to_string_lossy()])?;
    let load = Requests {
        connections: publishers,
        in_flight: 1,
        request: wire::post(way.path(), &[b'x'; MESSAGE_BYTES]),
        expected: Expected::Place,
        warm_up: requests / 10,
        requests,
    };
    let sample = scenario::requests(&target.endpoint(Protocol::Http, "/")?, target.pid(), &load)?;
    drop(target);
    sys::settle();
    Ok(sample)
}
