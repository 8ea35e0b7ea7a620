//! Upgrades, as the command line has them: who is followed, and who may follow.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use super::Failure;
use crate::config::Config;
use crate::server::Server;
use crate::server::handover::{Giver, Inherited, Predecessor};
use crate::server::service::Service;

/// The Unix socket for upgrades, if there shall be one. `directory`: the first of what systemd made for this service.
pub(super) fn socket(config: &Config, directory: Option<OsString>) -> Option<PathBuf> {
    let of_directory = || {
        let directory = directory?;
        let first = directory.to_str()?.split(':').next().filter(|first| !first.is_empty())?;
        Some(Path::new(first).join("upgrade.sock"))
    };
    config.upgrade_socket.clone().or_else(of_directory)
}

/// Calls the server that runs, if it shall be followed and there is one.
pub(super) fn call(
    wanted: bool,
    socket: Option<&Path>,
    inherited: &mut Inherited,
) -> Result<Option<Predecessor>, Failure> {
    if !wanted {
        return Ok(None);
    }
    let Some(socket) = socket else {
        return Err(Failure::usage(
            "--upgrade needs to know where the running server is, on the command line: set upgrade.socket for both, or \
             --upgrade-socket PATH",
        ));
    };
    let predecessor = Predecessor::call(socket, inherited).map_err(Failure::runtime)?;
    if predecessor.is_none() {
        tracing::info!(socket = %socket.display(), "no server is there to be followed; this is the first");
    }
    Ok(predecessor)
}

/// Lets others follow this server.
pub(super) fn offer(
    socket: Option<&Path>,
    follows: bool,
    server: &Arc<Server>,
    config: &Config,
    service: &Arc<Service>,
) -> Result<Option<Giver>, Failure> {
    let Some(socket) = socket else { return Ok(None) };
    let (service, period) = (Arc::clone(service), config.drain);
    let on_ready = move |pid| {
        service.followed_by(pid);
        tracing::info!(pid, ?period, "a new process has taken over; draining");
    };
    match Giver::start(socket, follows, server, period, on_ready) {
        Ok(giver) => Ok(Some(giver)),
        // Clients are served already, and would be thrown out.
        Err(error) if follows => {
            tracing::error!("{error}; this server cannot be followed");
            Ok(None)
        }
        Err(error) => Err(Failure::runtime(error)),
    }
}

/// Starts this program anew, to follow this process.
pub(super) fn start(config: &Config) {
    if socket(config, std::env::var_os("RUNTIME_DIRECTORY")).is_none() {
        return tracing::error!("SIGUSR2: there is no socket for an upgrade: set upgrade.socket and start anew");
    }
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if !arguments.iter().any(|argument| argument == OsStr::new("--upgrade")) {
        arguments.push("--upgrade".into());
    }
    let mut command = Command::new(program());
    command.args(arguments);
    // What was meant for this process alone.
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    let watch = move || match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => {
            tracing::error!(%status, "the new process has ended; this server goes on if it was not taken over")
        }
        Err(error) => tracing::error!(%error, program = %program().display(), "cannot start the new process"),
    };
    tracing::info!("starting a new process");
    if let Err(error) = thread::Builder::new().name("successor".to_owned()).spawn(watch) {
        tracing::error!(%error, "cannot start the new process");
    }
}

/// The file of this program, also where another one has replaced it.
fn program() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| "holdline".into());
    let replaced = path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    replaced.unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_the_configured_one_or_in_the_runtime_directory() {
        let (bare, set) = (Config::default(), Config { upgrade_socket: Some("/run/u".into()), ..Config::default() });
        let at = |config, directory: Option<&str>| socket(config, directory.map(OsString::from));
        assert_eq!(at(&bare, None), None);
        assert_eq!(at(&bare, Some("")), None);
        assert_eq!(at(&bare, Some("/run/a:/run/b")), Some("/run/a/upgrade.sock".into()));
        assert_eq!(at(&set, Some("/run/a")), Some("/run/u".into()));
        assert_eq!(at(&set, None), Some("/run/u".into()));
    }
}
