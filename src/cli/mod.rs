//! The command line: flags, standard streams and the exit status, nothing else.
//!
//! Exit status: 0 when all went well (for `serve`: a clean drain), 1 for a failure while running, a second signal during
//! a drain among them, 2 for bad arguments or configuration. A failure is one line on standard error:
//! `holdline: what, where: how to mend it`.

mod chat;
mod doctor;
mod generate;
mod health;
mod panics;
mod serve;
mod setup;
mod swarm;
mod trust;
mod upgrade;

use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

/// Holds millions of long-lived connections on one Linux machine and moves messages between them.
#[derive(Debug, Parser)]
#[command(name = "holdline", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(Box<serve::Args>),
    /// Tell what on this machine stands in the way of N connections, and what mends it.
    Doctor(doctor::Args),
    /// Chat from the terminal: lines of standard input go in, messages come out.
    Chat(chat::Args),
    /// Load a server with a crowd of clients: idle, broadcast, echo or churn.
    Swarm(Box<swarm::Args>),
    /// Check a configuration file: exit 0, or 1 with every error and its line.
    CheckConfig(setup::CheckArgs),
    /// Print the whole configuration with comments and defaults.
    DefaultConfig,
    /// Ask a server on this machine whether it is well: exit 0, or 1.
    Health(health::Args),
    /// Print what makes a shell complete commands and flags.
    Completions(generate::CompletionsArgs),
    /// Write the manual's pages into a directory.
    #[command(hide = true)]
    Man(generate::ManArgs),
}

/// Why the program ends without success.
#[derive(Debug)]
struct Failure {
    status: u8,
    line: String,
}

impl Failure {
    /// Something failed while running.
    fn runtime(line: impl fmt::Display) -> Self {
        Self { status: 1, line: one_line(&line.to_string()) }
    }

    /// Arguments or configuration that cannot be used.
    fn usage(line: impl fmt::Display) -> Self {
        Self { status: 2, line: one_line(&line.to_string()) }
    }
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    panics::install_panic_hook();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let result = match Cli::try_parse_from(&arguments) {
        Ok(cli) => catch_unwind(AssertUnwindSafe(|| run(cli))).unwrap_or_else(|panic| {
            let what = panics::panic_message(&*panic);
            Err(Failure::runtime(format_args!("internal error: {what}, in holdline: please report it")))
        }),
        Err(error) => refuse(&error, &named(arguments.iter().filter_map(|argument| argument.to_str()))),
    };
    crate::logging::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A closed standard error is no reason to panic.
            let _ = writeln!(std::io::stderr(), "holdline: {}", failure.line);
            ExitCode::from(failure.status)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Swarm(args) => swarm::run(&args),
        Command::CheckConfig(args) => setup::check_config(&args),
        Command::DefaultConfig => setup::default_config(),
        Command::Health(args) => health::run(&args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
    }
}

/// The program and the commands that the arguments begin with: `holdline swarm idle`.
fn named<'a>(arguments: impl Iterator<Item = &'a str>) -> String {
    let (mut command, mut named) = (&Cli::command(), "holdline".to_owned());
    for argument in arguments.skip(1) {
        let Some(found) = command.find_subcommand(argument) else { break };
        command = found;
        named.extend([" ", argument]);
    }
    named
}

/// Help and the version go out as clap writes them; what is wrong with the arguments becomes one line. `named` is the
/// command that was given.
fn refuse(error: &clap::Error, named: &str) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            Ok(())
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if named == "holdline" => Err(Failure::usage(
            "no command given, on the command line: `holdline serve` runs the server, `holdline --help` tells the rest",
        )),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Err(Failure::usage(format_args!(
            "`{named}` does not say what to do, on the command line: see `{named} --help`"
        ))),
        _ => Err(Failure::usage(argument_error(&error.render().to_string(), named))),
    }
}

/// From clap's paragraphs: the first says what is wrong, a `tip:` how to mend it. `named` is the command that was given.
fn argument_error(rendered: &str, named: &str) -> String {
    let mut paragraphs = rendered.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    let what = paragraphs.next().unwrap_or("bad arguments");
    let what = one_line(what.strip_prefix("error: ").unwrap_or(what));
    // What may be written behind `--` is known to those who look for it; a flag that does not exist is not that.
    let mut tips = paragraphs.filter_map(|paragraph| paragraph.strip_prefix("tip: ")?.lines().next());
    let tip = tips.find(|tip| !tip.starts_with("to pass "));
    let mend = tip.map_or_else(|| format!("see `{named} --help`"), str::to_owned);
    format!("{what}, on the command line: {mend}")
}

/// Without line breaks and other control characters.
fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_control()).map(str::trim).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn refused(arguments: &[&str]) -> String {
        let named = named(arguments.iter().copied());
        let failure = refuse(&Cli::try_parse_from(arguments).unwrap_err(), &named).unwrap_err();
        assert_eq!(failure.status, 2);
        failure.line
    }

    #[test]
    fn the_flags_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_arguments_become_one_line() {
        assert_eq!(
            refused(&["holdline", "serve", "--shard", "1"]),
            "unexpected argument '--shard' found, on the command line: a similar argument exists: '--shards'"
        );
        assert_eq!(
            refused(&["holdline", "serve", "--nothing-like-it"]),
            "unexpected argument '--nothing-like-it' found, on the command line: see `holdline serve --help`"
        );
        assert!(
            refused(&["holdline", "check-config"]).contains("<FILE>, on the command line: see `holdline check-config")
        );
        for wrong in [["--bogus", "1"], ["--hold", "-5s"]] {
            let said =
                refused(&[&["holdline", "swarm", "idle", "--target", "ws://127.0.0.1:1/echo"], &wrong[..]].concat());
            assert!(said.ends_with(" found, on the command line: see `holdline swarm idle --help`"), "{said}");
        }
        assert!(refused(&["holdline"]).starts_with("no command given, on the command line: "));
        assert!(refused(&["holdline", "serve", "--drain"]).ends_with("see `holdline serve --help`"));
        assert!(refused(&["holdline", "swarm", "idle"]).ends_with("see `holdline swarm idle --help`"));
        assert!(
            refused(&["holdline", "swarm"]).starts_with("`holdline swarm` does not say what to do, on the command")
        );
        assert!(refused(&["holdline", "--nothing"]).ends_with("see `holdline --help`"));
        assert!(refused(&["holdline", "serv"]).contains("'serve'"));
    }

    #[test]
    fn failures_are_one_line() {
        assert_eq!(Failure::runtime("a\n\n b\x1b[31m").line, "a b [31m");
    }
}
