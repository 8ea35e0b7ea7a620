//! A server inside a namespace.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::namespace::{Namespace, SetupError};
use crate::io::sys::network;

/// How long it may take until it is ready.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end by itself.
const STOP: Duration = Duration::from_secs(5);
/// How often to look whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// A process that writes `listening on URL` for each of its listeners to its standard output, and then `ready`, as
/// `holdline serve` does. Its standard error is ours.
///
/// It is asked to end (SIGTERM), and then made to, when this value is dropped, and it is killed by the kernel when this
/// process ends first.
#[derive(Debug)]
pub struct Server {
    child: Child,
    program: String,
    urls: Vec<String>,
    /// Its thread started the child, which dies with it.
    _namespace: Namespace,
}

impl Server {
    pub(super) fn spawn(namespace: &Namespace, command: &[String]) -> Result<Self, SetupError> {
        let program = command.first().cloned().unwrap_or_default();
        let failed = |why: String| SetupError::Server { program: program.clone(), why };
        let words = command.to_vec();
        let started = namespace.run(move || {
            let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
            network::spawn_bound(&mut command)
        });
        let mut child = started.flatten().map_err(|error| failed(error.to_string()))?;
        let output = child.stdout.take();
        let mut server = Self { child, program: program.clone(), urls: Vec::new(), _namespace: namespace.clone() };
        let (lines, received) = mpsc::channel();
        // Reads for as long as the process writes, so that it never waits for a full pipe.
        thread::spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        let deadline = Instant::now() + START;
        loop {
            match received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "ready" => return Ok(server),
                Ok(line) => server.urls.extend(line.strip_prefix("listening on ").map(str::to_owned)),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(failed(format!("did not say `ready` within {} s", START.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let how = server.wait_until(Instant::now() + STOP).map_or_else(String::new, |how| how.to_string());
                    return Err(failed(format!("ended before it was ready: {how}")));
                }
            }
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What was run.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Where it listens, in its own words and order.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end.
    fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
                Ok(ended) => return ended,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if self.wait_until(Instant::now() + STOP).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
