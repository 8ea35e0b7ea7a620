//! `check-config` and `default-config`.

use std::io::Write;
use std::path::PathBuf;

use super::Failure;
use crate::config::{self, Loader, Problem};

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
        Ok(_) => {
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

pub(super) fn default_config() {
    let _ = std::io::stdout().write_all(config::default_config().as_bytes());
}
