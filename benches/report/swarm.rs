//! The load generator as a child process: its command line, and what it says in its JSON file.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use serde::Deserialize;

use super::child::{self, Child};
use super::results::{Broadcast, Connect};
use crate::common::sys;

/// The program that was built with this bench.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_holdline");
/// Core of the clients; the server has the one before.
const CORE: usize = 1;
/// Bytes of a message.
const SIZE: &str = "64";

/// What a run of the swarm does: opens, holds, publishes.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) target: String,
    pub(crate) connections: u64,
    pub(crate) hold: Duration,
    pub(crate) messages: u32,
    /// The server's command, to be started on the other side of a TUN device.
    pub(crate) server: Option<Vec<String>>,
}

/// What it found.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Found {
    ok: bool,
    #[serde(default)]
    faults: Vec<String>,
    connections: u64,
    opened: u64,
    pub(crate) connect: Connect,
    broadcast: Option<Broadcast>,
}

/// A running swarm.
pub(crate) struct Swarm {
    pub(crate) child: Child,
    file: PathBuf,
    load: Load,
}

impl Load {
    /// Time between two messages: enough for one to be everywhere before the next, also on a machine that others use.
    fn interval(&self) -> Duration {
        Duration::from_millis(500).max(Duration::from_micros(30 * self.connections))
    }

    /// The longest that a run can take.
    pub(crate) fn patience(&self) -> Duration {
        let opening = Duration::from_secs(60) + Duration::from_micros(200 * self.connections);
        opening + self.hold + self.interval() * (self.messages + 4) + Duration::from_secs(60)
    }

    fn command(&self, file: &str) -> Vec<String> {
        let millis = |time: Duration| format!("{}ms", time.as_millis());
        let flags = [
            ("--target", self.target.clone()),
            ("--connections", self.connections.to_string()),
            ("--threads", "1".to_owned()),
            ("--hold", millis(self.hold)),
            ("--messages", self.messages.to_string()),
            ("--size", SIZE.to_owned()),
            ("--interval", millis(self.interval())),
            ("--patience", "60s".to_owned()),
            ("--json", file.to_owned()),
        ];
        let mut command: Vec<String> = [PROGRAM, "swarm", "broadcast"].map(str::to_owned).to_vec();
        command.extend(flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        if let Some(server) = &self.server {
            command.extend(["--via", "tun", "--"].map(str::to_owned));
            command.extend(server.iter().cloned());
        }
        command
    }
}

impl Swarm {
    pub(crate) fn start(load: &Load) -> io::Result<Self> {
        let file = env::temp_dir().join(format!("holdline-report-{}.json", std::process::id()));
        let _ = fs::remove_file(&file);
        // A server that it starts would be on the same core.
        let core = load.server.is_none().then_some(CORE);
        let child = Child::start(&load.command(&file.to_string_lossy()), core)?;
        Ok(Self { child, file, load: load.clone() })
    }

    /// Fails when it has ended before its time.
    pub(crate) fn still_runs(&mut self) -> io::Result<()> {
        match self.child.ended()? {
            None => Ok(()),
            Some(status) => Err(self.child.failed(&format!("swarm ended too early with {status}"))),
        }
    }

    /// The process of the server that it starts.
    pub(crate) fn server(&mut self, patience: Duration) -> io::Result<u32> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(pid) = sys::child_of(self.child.pid())? {
                return Ok(pid);
            }
            self.still_runs()?;
            child::pause(Duration::from_millis(10))?;
        }
        Err(io::Error::other("the swarm starts no server"))
    }

    /// Its findings, once it has ended.
    pub(crate) fn finish(mut self) -> io::Result<Found> {
        let Ok(text) = fs::read_to_string(&self.file) else {
            return Err(self.child.failed("swarm left no report"));
        };
        read(&text, &self.load)
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // It writes what it has when it is told to end.
        self.child.end();
        let _ = fs::remove_file(&self.file);
    }
}

/// The findings of a run that did what it was told and lost nothing; anything else is an error.
pub(crate) fn read(text: &str, load: &Load) -> io::Result<Found> {
    let found: Found =
        serde_json::from_str(text).map_err(|error| io::Error::other(format!("the swarm's report: {error}")))?;
    if let Some(fault) = found.faults.first() {
        return Err(io::Error::other(format!("swarm: {fault}")));
    }
    let Found { ok, connections, opened, .. } = found;
    let broadcast = found.broadcast();
    let due = load.connections * u64::from(load.messages);
    let whole = broadcast.deliveries == due && broadcast.missing == 0 && broadcast.duplicates == 0;
    if !ok || !whole || connections != load.connections || opened != connections {
        let Broadcast { deliveries, missing, duplicates, .. } = broadcast;
        return Err(io::Error::other(format!(
            "swarm: {opened} of {connections} connections opened, {deliveries} of {due} deliveries, {missing} missing, \
             {duplicates} doubled"
        )));
    }
    Ok(found)
}

impl Found {
    pub(crate) fn broadcast(&self) -> Broadcast {
        self.broadcast.clone().unwrap_or_default()
    }
}
