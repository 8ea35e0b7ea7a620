//! The scale report: a ladder of connection counts for every backend, beside bare loops, and a page with pictures.
//!
//! ```text
//! cargo bench --bench report                                      10k,100k,1M on all backends, into docs/scale
//! cargo bench --bench report -- --steps 10k --backends uring --out /tmp/scale
//! cargo bench --bench report -- --steps 10k,100k,1M --tun 5M      with the clients behind a TUN device
//! cargo bench --bench report -- --plot-only docs/scale/results.json
//! ```
//!
//! Each step is a server process on the first core under `holdline swarm` on the second. Needs root for the kernel's
//! memory, 10 GB and about ten minutes for a million. A step that does not fit or fails is named on the page; then the
//! exit status is 1 if it failed. `cargo test --benches` climbs a tiny ladder and draws it.

mod common;

mod report {
    pub(crate) mod axis;
    pub(crate) mod baseline;
    pub(crate) mod charts;
    pub(crate) mod child;
    pub(crate) mod field;
    pub(crate) mod kernel;
    pub(crate) mod ladder;
    pub(crate) mod page;
    pub(crate) mod pictures;
    pub(crate) mod probe;
    pub(crate) mod results;
    pub(crate) mod scrape;
    pub(crate) mod smoke;
    pub(crate) mod step;
    pub(crate) mod svg;
    pub(crate) mod swarm;
}

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, io};

use clap::Parser;

use common::bare::{self, DIAL};
use common::target::BARE;
use report::ladder::Ladder;
use report::results::Results;
use report::step::Timing;
use report::{child, page, smoke};

/// Where the page of the project is.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scale");

/// Climbs a ladder of connection counts and writes a page about it. A step of 10,000 takes some two minutes with the bare
/// loops beside it, a million ten minutes and 10 GB, five million over TUN a quarter of an hour and 22 GB.
#[derive(Parser, Debug)]
#[command(name = "report", bin_name = "cargo bench --bench report --")]
struct Options {
    /// Numbers of connections over loopback, such as 10k,100k,1M; `none`: none.
    #[arg(long, value_delimiter = ',', default_value = "10k,100k,1M")]
    steps: Vec<String>,
    /// Numbers of connections with the clients behind a TUN device.
    #[arg(long, value_delimiter = ',')]
    tun: Vec<String>,
    /// The server's backends.
    #[arg(long, value_delimiter = ',', default_value = "uring,epoll")]
    backends: Vec<String>,
    /// The folder of the page, its pictures and results.json; docs/scale, or where the first FILE is.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Measure nothing, draw what these files have.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    plot_only: Vec<PathBuf>,
    /// Publications to all connections in each step.
    #[arg(long, default_value_t = 3)]
    messages: u32,
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    test: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let outcome = match arguments.get(1).map(String::as_str) {
        Some(BARE | DIAL) => bare::main(&arguments[1..]).map(|()| true),
        _ => run(&Options::parse()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("report: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything that was tried went well.
fn run(options: &Options) -> io::Result<bool> {
    child::watch_signals()?;
    if !options.plot_only.is_empty() {
        return plot(options).map(|()| true);
    }
    if options.test || !options.bench {
        return smoke::run().map(|()| true);
    }
    let steps = options.steps.iter().filter(|step| *step != "none");
    let ladder = Ladder {
        steps: steps.map(|step| count(step)).collect::<io::Result<_>>()?,
        tun: options.tun.iter().map(|step| count(step)).collect::<io::Result<_>>()?,
        backends: options.backends.clone(),
        timing: Timing {
            heartbeat: Duration::from_secs(30),
            settle: Duration::from_secs(3),
            beats: Duration::from_secs(30),
            quiet: Duration::from_secs(5),
            messages: options.messages.max(1),
        },
    };
    let results = ladder.run()?;
    let out = options.out.as_deref().unwrap_or(Path::new(PAGE));
    write(&results, out)?;
    Ok(!results.left_out.iter().any(|item| item.failed))
}

fn plot(options: &Options) -> io::Result<()> {
    let all = options.plot_only.iter().map(|file| read(file)).collect::<io::Result<Vec<Results>>>()?;
    let beside = options.plot_only.first().and_then(|file| file.parent()).unwrap_or(Path::new(PAGE));
    let out = options.out.as_deref().unwrap_or(beside);
    page::write(&Results::merge(all), out)?;
    println!("{}", out.join("README.md").display());
    Ok(())
}

fn read(file: &Path) -> io::Result<Results> {
    let named = |what: String| io::Error::other(format!("{}: {what}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| named(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| named(error.to_string()))
}

/// Results, page and pictures.
fn write(results: &Results, out: &Path) -> io::Result<()> {
    page::write(results, out)?;
    let text = serde_json::to_string_pretty(results).map_err(io::Error::other)?;
    fs::write(out.join("results.json"), text + "\n")?;
    println!("{}", out.join("README.md").display());
    Ok(())
}

/// `10k`, `1M`, `5000`.
fn count(text: &str) -> io::Result<u64> {
    let (number, factor) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1_000),
        None => text.strip_suffix('M').map_or((text, 1), |number| (number, 1_000_000)),
    };
    let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).filter(|number| *number > 0);
    number.ok_or_else(|| io::Error::other(format!("{text} is no number of connections: write 5000, 10k or 1M")))
}
