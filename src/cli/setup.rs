//! `check-config` and `default-config`.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use super::Failure;
use crate::config::{self, Loader, Problem};
use crate::server::Prepared;

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// A TOML file, such as `holdline default-config` prints.
    file: PathBuf,
}

/// Says every problem of a file on a line of its own.
pub(super) fn check_config(args: &CheckArgs) -> Result<(), Failure> {
    let mut loader = Loader::new();
    loader.file(&args.file);
    match loader.finish() {
        Ok(config) => {
            Prepared::check_files(&config).map_err(Failure::runtime)?;
            let _ = writeln!(std::io::stdout(), "{}: ok", args.file.display());
            Ok(())
        }
        Err(mut problems) => {
            let last = problems.pop();
            for problem in problems {
                let _ = writeln!(std::io::stderr(), "holdline: {problem}");
            }
            Err(Failure::runtime(last.as_ref().map_or_else(String::new, Problem::to_string)))
        }
    }
}

/// Prints the defaults. That a reader has read enough is no failure; a disk that is full is one.
pub(super) fn default_config() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(config::default_config().as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::runtime(format_args!("cannot write: {error}, standard output: make room there")))
        }
        _ => Ok(()),
    }
}
