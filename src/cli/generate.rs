//! `completions` and `man`: what shells and readers of manuals are told, made from the same flags that are parsed, so that
//! it cannot drift from them.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// bash, zsh or fish
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Where the pages go: holdline.1, holdline-serve.1, ...
    directory: PathBuf,
}

/// Prints a script for a shell. That a reader has read enough is no failure.
pub(super) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(&script(&args.shell)).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::runtime(format_args!("cannot write: {error}, standard output: make room there")))
        }
        _ => Ok(()),
    }
}

fn script(shell: &str) -> Vec<u8> {
    let shell = match shell {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "holdline", &mut script);
    script
}

/// Writes the manual into a directory, a page for the program and one for each command.
pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    for (name, page) in pages() {
        let path = args.directory.join(name);
        std::fs::write(&path, page).map_err(|error| not_written(&error, &path))?;
    }
    Ok(())
}

fn not_written(error: &std::io::Error, path: &Path) -> Failure {
    Failure::runtime(format_args!("cannot write: {error}, {}: name a directory that can be written to", path.display()))
}

/// The pages and their names.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, "holdline", &mut pages);
    pages
}

/// Adds a command's page, and those of its own commands. Flags nest two deep.
fn add_pages(command: &clap::Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        add_pages(inner, &format!("{name}-{}", inner.get_name()), pages);
    }
    let command = command.clone().display_name(name.to_owned());
    let man = Man::new(command).title(name.to_ascii_uppercase()).manual("Holdline").date("");
    let mut page = Vec::new();
    // Writing to memory does not fail.
    let _ = man.render(&mut page);
    let page = String::from_utf8_lossy(&page).replace("\n.SH EXTRA\n", "\n.SH NOTES\n");
    pages.push((format!("{name}.1"), format!("{page}{SEE_ALSO}").into_bytes()));
}

/// What every page ends with.
const SEE_ALSO: &str = "\
.SH FILES
.TP
/etc/holdline/holdline.toml
What the service of the Debian package reads. \\fBholdline default\\-config\\fR prints all that may stand there.
.SH \"SEE ALSO\"
\\fBholdline\\fR(1), \\fBholdline\\-serve\\fR(1), \\fBholdline\\-doctor\\fR(1), \\fBholdline\\-swarm\\fR(1)
";

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::*;

    /// All commands with their long flags, hidden ones left out.
    fn flags(command: &Command, name: &str, found: &mut Vec<(String, Vec<String>)>) {
        let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
        let long = shown.filter_map(clap::Arg::get_long).filter(|flag| *flag != "help" && *flag != "version");
        found.push((name.to_owned(), long.map(str::to_owned).collect()));
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            flags(inner, &format!("{name}-{}", inner.get_name()), found);
        }
    }

    fn all_flags() -> Vec<(String, Vec<String>)> {
        let mut found = Vec::new();
        flags(&Cli::command(), "holdline", &mut found);
        assert!(found.len() > 8, "{found:?}");
        found
    }

    #[test]
    fn every_command_has_a_page_with_its_flags() {
        let pages = pages();
        for (name, flags) in all_flags() {
            let page = pages.iter().find(|(page, _)| *page == format!("{name}.1")).map(|(_, text)| text.clone());
            let text = String::from_utf8(page.unwrap_or_default()).unwrap_or_default();
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}: {text}");
            for flag in flags {
                let escaped = flag.replace('-', "\\-");
                assert!(text.contains(&format!("\\-\\-{escaped}")), "{name} --{flag}");
            }
        }
        assert!(!pages.iter().any(|(name, _)| name.contains("-man.")), "what makes the pages is not in them");
    }

    #[test]
    fn every_shell_completes_every_flag() {
        for shell in ["bash", "zsh", "fish"] {
            let script = String::from_utf8(script(shell)).unwrap_or_default();
            for (command, flags) in all_flags() {
                for flag in flags {
                    let written = if shell == "fish" { format!("-l {flag}") } else { format!("--{flag}") };
                    assert!(script.contains(&written), "{shell}: {command} --{flag}");
                }
            }
        }
    }
}
