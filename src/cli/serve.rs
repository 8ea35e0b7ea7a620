//! `serve`: from the flags to a running server, and from signals to its end.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

use super::{Failure, doctor, panics, upgrade};
use crate::app::standard_routes;
use crate::config::{Config, Loader, Problem};
use crate::logging;
use crate::server::handover::Inherited;
use crate::server::service::Service;
use crate::server::{Prepared, Server, StartError};

/// What `--help` ends with.
const AFTER_HELP: &str = "\
Settings come from the defaults, the configuration file, the environment \
(HOLDLINE_LIMITS_MESSAGE_BYTES_MAX=32MiB) and flags; the later wins. `holdline default-config` prints all of them. \
HOLDLINE_LOG=debug shows more log lines, as --log-level does.

When every listener accepts, `listening on URL` for each, the admin page last, and then `ready` go to standard output.

SIGHUP reads the configuration anew and follows what can change without a restart; the log says what that is. A wrong \
one changes nothing.

SIGUSR2 starts this program anew with the same arguments and --upgrade: a new version takes over, this one drains. \
Sockets of systemd are taken where a listener has their address or name (LISTEN_FDS); NOTIFY_SOCKET and WATCHDOG_USEC are \
obeyed.

SIGTERM or SIGINT drains; a second one ends at once with exit status 1. Exit status: 0 after a clean drain, 1 for a \
failure while running, 2 for bad arguments or configuration.";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A TOML file, such as `holdline default-config` prints
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect, instead of the default http://127.0.0.1:8080 and tcp://127.0.0.1:7000; again for more:
    /// http://HOST:PORT or tcp://HOST:PORT?framing=line|length&app=echo|chat|topic&topic=NAME; https:// and tls:// likewise
    /// over TLS; unix:///PATH?mode=0660 is HTTP at a Unix socket
    #[arg(long, value_name = "URL")]
    listen: Vec<String>,
    /// A certificate for https:// and tls:// listeners (PEM, with its chain); again for more, the first is for clients that
    /// name no host
    #[arg(long, value_name = "FILE")]
    tls_certificate: Vec<String>,
    /// Its key (PEM); again for more, in the same order; without, each key stands in its certificate's file
    #[arg(long, value_name = "FILE")]
    tls_key: Vec<String>,
    /// Where metrics, health and a page for operators are served [default: 127.0.0.1:9090], or off
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Let clients and operators come from other machines though no authentication is configured
    #[arg(long)]
    insecure: bool,
    /// auto, epoll or uring [default: auto]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Event loops, one thread each [default: 0, one per available core]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shards: Option<String>,
    /// Connections of the whole process [default: 10000]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_connections: Option<String>,
    /// Silence after which a client is asked for a sign of life [default: 30s]; 0: never
    #[arg(long, value_name = "D")]
    heartbeat_interval: Option<String>,
    /// Time a client has to give one [default: 10s]
    #[arg(long, value_name = "D")]
    heartbeat_timeout: Option<String>,
    /// Time over which clients are sent away when the server ends [default: 30s]
    #[arg(long, value_name = "D")]
    drain: Option<String>,
    /// Time before that in which only /readyz says so [default: 0]
    #[arg(long, value_name = "D")]
    drain_delay: Option<String>,
    /// Take the listeners over from the server that runs, which then drains: no connection is refused
    #[arg(long)]
    upgrade: bool,
    /// The Unix socket for that [default: upgrade.sock in $RUNTIME_DIRECTORY]
    #[arg(long, value_name = "PATH")]
    upgrade_socket: Option<String>,
    /// Go on with a journal in which something cannot be read, without what is lost. What is put aside keeps its name with
    /// .damaged behind it
    #[arg(long)]
    journal_repair: bool,
    /// Serve the files of this directory beside the routes [default: the built-in page]
    #[arg(long, value_name = "DIR")]
    public: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// error, warn, info, debug or trace, or levels of modules: info,holdline::shard=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Args {
    /// Flags that take one value, and the keys they set.
    fn flags(&self) -> [(&'static str, &'static str, Option<&str>); 13] {
        [
            ("--admin", "admin", self.admin.as_deref()),
            ("--insecure", "insecure", self.insecure.then_some("true")),
            ("--backend", "backend", self.backend.as_deref()),
            ("--shards", "shards", self.shards.as_deref()),
            ("--max-connections", "limits.connections_max", self.max_connections.as_deref()),
            ("--heartbeat-interval", "heartbeat.interval", self.heartbeat_interval.as_deref()),
            ("--heartbeat-timeout", "heartbeat.timeout", self.heartbeat_timeout.as_deref()),
            ("--drain", "drain", self.drain.as_deref()),
            ("--drain-delay", "drain_delay", self.drain_delay.as_deref()),
            ("--upgrade-socket", "upgrade.socket", self.upgrade_socket.as_deref()),
            ("--public", "public", self.public.as_deref()),
            ("--log-format", "log.format", self.log_format.as_deref()),
            ("--log-level", "log.level", self.log_level.as_deref()),
        ]
    }

    /// The configuration after file, environment and flags.
    fn configuration(&self, reading: Reading) -> Result<Config, Vec<Problem>> {
        let mut loader = Loader::new();
        match (&self.config, reading) {
            (None, _) => {}
            (Some(path), Reading::First) => loader.file(path),
            (Some(path), Reading::Again) => loader.file_again(path),
        }
        loader.environment(std::env::vars_os());
        loader.flags("--listen", "listen", &self.listen);
        loader.flags("--tls-certificate", "tls.certificates", &self.tls_certificate);
        loader.flags("--tls-key", "tls.keys", &self.tls_key);
        for (flag, key, value) in self.flags() {
            if let Some(value) = value {
                loader.flag(flag, key, value);
            }
        }
        loader.finish()
    }
}

/// Whether the configuration is read for a server that starts, or for one that runs.
#[derive(Clone, Copy)]
enum Reading {
    First,
    Again,
}

/// One line for all problems.
pub(super) fn first_of(problems: &[Problem]) -> String {
    let first = problems.first().map_or_else(String::new, Problem::to_string);
    match problems.len() {
        0 | 1 => first,
        all => format!("{first} (the first of {all} errors; `holdline check-config` tells those of a file)"),
    }
}

/// Runs the server until it has drained.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    // Before anything else is opened.
    let mut inherited = Inherited::from_environment().map_err(Failure::runtime)?;
    let config = args.configuration(Reading::First).map_err(|problems| Failure::usage(first_of(&problems)))?;
    logging::start(&config);
    // Before the server says that it is ready: whoever sends a signal then must not find it deaf.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])
        .map_err(|error| Failure::runtime(format_args!("cannot handle signals: {error}, at the start: try again")))?;
    let service = Arc::new(Service::from_environment());
    let upgrades = upgrade::socket(&config, std::env::var_os("RUNTIME_DIRECTORY"));
    // A server that could not start anyway asks nobody to make room.
    let prepared = Prepared::new(&config).map_err(not_started)?.repairing(args.journal_repair);
    let predecessor = upgrade::call(args.upgrade, upgrades.as_deref(), &mut inherited)?;
    let started = prepared.start(standard_routes(), inherited, predecessor.as_ref());
    let server = Arc::new(started.map_err(not_started)?);
    let source = args.clone();
    server.reloader().read_from(Box::new(move || source.configuration(Reading::Again)));
    let (backend, shards) = (server.backend().name(), server.metrics().shards.len());
    tracing::info!(backend, shards, connections_max = config.limits.connections_max, "serving");
    if let Some(warning) = doctor::warning(&config, server.backend()) {
        tracing::warn!("{warning}");
    }
    let giver = upgrade::offer(upgrades.as_deref(), predecessor.is_some(), &server, &config, &service)?;
    announce(&server.listening());
    service.ready(&server);

    let waiter = {
        let (server, signals) = (Arc::clone(&server), signals.handle());
        let wait = move || {
            let result = server.wait();
            signals.close();
            result
        };
        let spawned = thread::Builder::new().name("wait".to_owned()).spawn(wait);
        spawned.map_err(|error| Failure::runtime(format_args!("no thread: {error}, at the start: raise ulimit -u")))?
    };
    obey(&mut signals, &server, &service)?;
    drop(giver);
    match waiter.join() {
        Ok(Ok(())) => {
            tracing::info!("ended: all connections are closed");
            Ok(())
        }
        Ok(Err(error)) => Err(Failure::runtime(error)),
        Err(panic) => {
            let what = panics::panic_message(&*panic);
            Err(Failure::runtime(format_args!("internal error: {what}, in the server: please report it")))
        }
    }
}

/// A directory that cannot be served is a matter of the configuration, all else of the machine.
fn not_started(error: StartError) -> Failure {
    match error {
        StartError::Public { .. } | StartError::Tls(_) => Failure::usage(error),
        _ => Failure::runtime(error),
    }
}

/// Tells whoever started the server. That nobody listens is no failure.
fn announce(urls: &[String]) {
    let mut lines: String = urls.iter().map(|url| format!("listening on {url}\n")).collect();
    lines.push_str("ready\n");
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
}

/// Does what signals ask for until the server has ended.
fn obey(signals: &mut Signals, server: &Server, service: &Service) -> Result<(), Failure> {
    let mut draining = false;
    for signal in signals.forever() {
        match signal {
            // The log hears what came of it.
            SIGHUP => {
                service.reloading();
                let _ = server.reloader().reload();
                service.reloaded("serving");
            }
            SIGUSR2 => upgrade::start(&server.reloader().running()),
            _ if draining => {
                server.abort();
                let what = "ended by a second signal, during the drain: give it the time of --drain to end cleanly";
                return Err(Failure::runtime(what));
            }
            _ => {
                draining = true;
                let connections = server.metrics().total(|shard| shard.connections.get());
                let config = server.reloader().running();
                let period = config.drain;
                tracing::info!(connections, ?period, "draining; another signal ends at once");
                service.stopping();
                server.drain_after(config.drain_delay, period);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn every_flag_sets_a_key() {
        let arguments = "serve --admin off --insecure --backend epoll --shards 2 --max-connections 7 --heartbeat-interval 1s \
                         --heartbeat-timeout 2s --drain 3s --drain-delay 4s --upgrade-socket /run/u --log-format json --public /srv \
                         --log-level warn --listen tcp://127.0.0.1:0";
        let args = Wrapper::parse_from(arguments.split_whitespace()).args;
        let mut loader = Loader::new();
        loader.flags("--listen", "listen", &args.listen);
        for (flag, key, value) in args.flags() {
            loader.flag(flag, key, value.unwrap_or_default());
        }
        let config = loader.finish().unwrap_or_default();
        assert!(config.insecure);
        assert_eq!((config.admin, config.shards, config.limits.connections_max), (None, 2, 7));
        assert_eq!((config.drain.as_secs(), config.limits.heartbeat_timeout.as_secs()), (3, 2));
        assert_eq!((config.listeners.len(), config.limits.heartbeat_interval.as_secs()), (1, 1));
        assert_eq!(config.public.as_deref(), Some("/srv".as_ref()));
        assert_eq!((config.backend.name(), config.log_format.name()), ("epoll", "json"));
        assert_eq!((config.drain_delay.as_secs(), config.upgrade_socket.as_deref()), (4, Some("/run/u".as_ref())));
        assert_eq!(config.log_filter.as_str(), "warn");
    }
}
