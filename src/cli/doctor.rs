//! `doctor`: what on this machine would cap N connections, and the command that mends it.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{Failure, serve};
use crate::config::{BackendChoice, Config, Loader};
use crate::doctor::{Diagnosis, Facts, Needs, diagnose};
use crate::io::uring;

/// What `--help` ends with.
const AFTER_HELP: &str = "\
A wall ends it: at `stops at` connections the next one is refused. What is slow holds, but shows when all clients come, \
speak or leave at once. Run it as the user and under the limits that the server gets.

Exit status: 0 when N fit, 1 when they do not, 2 for bad arguments or configuration.";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Connections to hold [default: limits.connections_max, 10000]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    connections: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A TOML file, such as `serve` reads
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// auto, epoll or uring [default: auto]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Event loops, one thread each [default: 0, one per available core]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shards: Option<String>,
}

impl Args {
    fn configuration(&self, environment: std::env::VarsOs) -> Result<Config, Failure> {
        let mut loader = Loader::new();
        if let Some(path) = &self.config {
            loader.file(path);
        }
        loader.environment(environment);
        let flags = [
            ("--connections", "limits.connections_max", &self.connections),
            ("--backend", "backend", &self.backend),
            ("--shards", "shards", &self.shards),
        ];
        for (flag, key, value) in flags {
            if let Some(value) = value {
                loader.flag(flag, key, value);
            }
        }
        loader.finish().map_err(|problems| Failure::usage(serve::first_of(&problems)))
    }
}

/// Looks at this machine and says what it found.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = args.configuration(std::env::vars_os())?;
    let uring = uring::probe().map_err(|missing| missing.to_string());
    let diagnosis = diagnose(&Facts::read(Path::new("/"), uring), &Needs::new(&config));
    print(&diagnosis, args.json)?;
    if diagnosis.fits { Ok(()) } else { Err(Failure::runtime(unfit(&diagnosis))) }
}

fn unfit(diagnosis: &Diagnosis) -> String {
    let warning = diagnosis.warning().unwrap_or_default();
    let what = warning.split("; see ").next().unwrap_or_default();
    format!("{what}: mend what the table calls too small")
}

fn print(diagnosis: &Diagnosis, json: bool) -> Result<(), Failure> {
    let text = if json {
        let text = serde_json::to_string_pretty(diagnosis);
        text.map_err(|error| {
            Failure::runtime(format_args!("cannot write JSON: {error}, in holdline: please report it"))
        })? + "\n"
    } else {
        diagnosis.to_string()
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::runtime(format_args!("cannot write: {error}, standard output: make room there")))
        }
        _ => Ok(()),
    }
}

/// What a server that is about to hold `config`'s connections on `backend` should be warned of, in one line.
pub(super) fn warning(config: &Config, backend: BackendChoice) -> Option<String> {
    // A server that runs on io_uring has probed it.
    let uring = if backend == BackendChoice::Uring { Ok(()) } else { Err("not in use".to_owned()) };
    diagnose(&Facts::read(Path::new("/"), uring), &Needs { backend, ..Needs::new(config) }).warning()
}
