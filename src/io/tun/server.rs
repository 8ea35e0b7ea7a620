//! A server inside a namespace.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::log::Log;
use super::namespace::{Namespace, SetupError};
use super::processes::Processes;
use crate::io::sys::network;

/// How long it may take until it is ready.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end by itself.
const STOP: Duration = Duration::from_secs(5);
/// What is said where it cannot be given a PID namespace.
const UNCONTAINED: &str = "the kernel refuses a PID namespace for the server: processes that it starts may be left when \
                           this one is killed, or when they leave its process group";
/// How often to look whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// A process that writes `listening on URL` for each of its listeners to its standard output, and then `ready`, as
/// `holdline serve` does, or one that starts such a process. What it writes to its standard error is written to ours, if
/// it is to be shown, and the last line of it is in the error when it ends too early.
///
/// It and all that it starts are asked to end (SIGTERM), and then made to, when this value is dropped, and they are
/// killed by the kernel when this process ends first: they have a PID namespace of their own, and a `/proc` that shows
/// it. Where the kernel refuses that namespace ([`Server::is_contained`]) only the process itself is killed when we end
/// without a drop, and a drop misses whoever leaves its process group. Signals of a terminal reach none of them.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: Log,
    processes: Processes,
    program: String,
    urls: Vec<String>,
    /// The process that listens.
    pid: u32,
    _keeper: Keeper,
    _namespace: Namespace,
}

/// How a server is started.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The program and its arguments.
    pub command: &'a [String],
    /// Ends the wait for `ready` when it becomes true.
    pub stop: &'a AtomicBool,
    /// Whether what it writes to its standard error is written to ours.
    pub shown: bool,
}

/// The thread that started the child, which dies with it. It ends when this value is dropped.
#[derive(Debug)]
struct Keeper(#[expect(dead_code, reason = "that it is dropped is what counts")] Sender<()>);

/// Whether a server may be given a PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enclosure {
    /// It is, where the kernel grants one.
    IfGranted,
    /// As if the kernel refused.
    #[cfg_attr(not(test), expect(dead_code, reason = "kernels refuse it, and tests"))]
    Refused,
}

impl Server {
    pub(super) fn spawn(namespace: &Namespace, launch: Launch<'_>, enclosure: Enclosure) -> Result<Self, SetupError> {
        let program = launch.command.first().cloned().unwrap_or_default();
        let started = start_inside(namespace, launch.command, enclosure);
        let failed = |error: io::Error| SetupError::Server { program: program.clone(), why: error.to_string() };
        let (mut child, is_contained, keeper) = started.map_err(failed)?;
        let lines = read_lines(child.stdout.take());
        let mut server = Self {
            processes: Processes::of(Pid::from_child(&child), is_contained),
            pid: child.id(),
            log: Log::read(child.stderr.take(), launch.shown),
            child,
            program,
            urls: Vec::new(),
            _keeper: keeper,
            _namespace: namespace.clone(),
        };
        if launch.shown && !server.is_contained() {
            let _ = writeln!(io::stderr(), "{UNCONTAINED}");
        }
        server.await_ready(&lines, launch.stop)?;
        server.pid = server.processes.listener();
        Ok(server)
    }

    fn await_ready(&mut self, lines: &Receiver<String>, stop: &AtomicBool) -> Result<(), SetupError> {
        let deadline = Instant::now() + START;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if stop.load(Ordering::Relaxed) {
                return Err(SetupError::Stopped);
            }
            if left.is_zero() {
                return Err(self.failed(format!("did not say `ready` within {} s", START.as_secs())));
            }
            match lines.recv_timeout(left.min(LOOK)) {
                Ok(line) if line == "ready" => return Ok(()),
                Ok(line) => self.urls.extend(line.strip_prefix("listening on ").map(str::to_owned)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.wait_until(Instant::now() + STOP);
                    let how = self.obituary().unwrap_or_else(|| "it closed its standard output".to_owned());
                    return Err(self.failed(format!("ended before it was ready: {how}")));
                }
            }
        }
    }

    fn failed(&self, why: String) -> SetupError {
        SetupError::Server { program: self.program.clone(), why }
    }

    /// The process that listens, by its number out here.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether nothing that it starts can outlive it, see above.
    #[must_use]
    pub const fn is_contained(&self) -> bool {
        self.processes.are_contained()
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
    pub fn ended(&self) -> io::Result<Option<ExitStatus>> {
        // It stays what it is until it is dropped, so that its number is nobody else's.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(Pid::from_child(&self.child)), options)?;
        Ok(status.map(|status| {
            let (code, signal) = (status.exit_status().unwrap_or(0), status.terminating_signal().unwrap_or(0));
            ExitStatus::from_raw(code << 8 | signal)
        }))
    }

    /// How it ended and its last words, if it has: `exit status: 1: no such file`.
    #[must_use]
    pub fn obituary(&self) -> Option<String> {
        let how = self.ended().ok().flatten()?;
        let words = self.log.last_words();
        Some(if words.is_empty() { how.to_string() } else { format!("{how}: {words}") })
    }

    /// Waits for its end.
    fn wait_until(&self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            match self.ended() {
                Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
                Ok(ended) => return ended,
                Err(_) => return None,
            }
        }
    }

    /// Waits for the end of all of its processes, which are asked to.
    fn wait_for_all(&self, deadline: Instant) {
        let is_over = || match self.ended() {
            Ok(None) => self.processes.are_deaf(),
            _ => self.processes.are_gone(),
        };
        while Instant::now() < deadline && !is_over() {
            thread::sleep(LOOK);
        }
    }
}

/// Starts the child on a thread of its own inside. Also: whether it has a PID namespace.
fn start_inside(namespace: &Namespace, command: &[String], enclosure: Enclosure) -> io::Result<(Child, bool, Keeper)> {
    let words = command.to_vec();
    let (started, child) = mpsc::sync_channel(1);
    let (keeper, end) = mpsc::channel();
    let keep = move || {
        let _ = started.send(start(&words, enclosure));
        // Nothing is ever sent.
        let _ = Receiver::<()>::recv(&end);
    };
    // A thread of that namespace starts in it.
    namespace.run(|| thread::Builder::new().name("server".to_owned()).spawn(keep)).flatten()?;
    let (child, is_enclosed) = child.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
    Ok((child, is_enclosed, Keeper(keeper)))
}

/// Reads for as long as the process writes, so that it never waits for a full pipe.
fn read_lines(output: Option<ChildStdout>) -> Receiver<String> {
    let (lines, received) = mpsc::channel();
    thread::spawn(move || {
        for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    received
}

/// Starts the child of this thread, which ends with it. Also: whether it has a PID namespace.
fn start(words: &[String], enclosure: Enclosure) -> io::Result<(Child, bool)> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let is_enclosed = enclosure == Enclosure::IfGranted && network::enclose_children().is_ok();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    network::spawn_bound(&mut command, is_enclosed).map(|child| (child, is_enclosed))
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.ended(), Ok(None)) {
            self.processes.ask_to_end();
            self.wait_for_all(Instant::now() + STOP);
        }
        // Also when the first has ended: others may be left of its group.
        self.processes.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::fs;

    use super::*;

    /// A script that starts another process, which says that it is ready and heeds SIGTERM, and waits for it.
    const WRAPPER: &str =
        "(trap 'sleep 0.3; touch $DONE; exit 0' TERM; echo ready; read _ < <(sleep 600)) 2>/dev/null & wait";

    fn is_running(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// All processes of the machine with this in their environment.
    fn marked(mark: &str) -> Vec<u32> {
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let has_mark = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|part| part == mark.as_bytes())
        };
        pids.filter(has_mark).filter(|pid| is_running(*pid)).collect()
    }

    #[test]
    fn what_a_server_starts_ends_with_it_also_without_a_pid_namespace() {
        let namespace = Namespace::new(1000).unwrap();
        for (enclosure, contained) in [(Enclosure::IfGranted, true), (Enclosure::Refused, false)] {
            let mark = format!("TUN_SERVER_MARK={}-{contained}", std::process::id());
            let done = std::env::temp_dir().join(format!("holdline-server-{}-{contained}", std::process::id()));
            let command = ["env", &mark, &format!("DONE={}", done.display()), "bash", "-c", WRAPPER].map(str::to_owned);
            let server = Server::spawn(
                &namespace,
                Launch { command: &command, stop: &AtomicBool::new(false), shown: true },
                enclosure,
            )
            .unwrap();
            assert_eq!(server.is_contained(), contained);
            assert!(marked(&mark).len() >= 2, "a wrapper and what it started");
            assert_eq!(server.ended().unwrap(), None);
            let begun = Instant::now();
            drop(server);
            assert!(begun.elapsed() < STOP, "they were asked to end, and did");
            fs::remove_file(done).unwrap_or_else(|error| panic!("it had its time to end: {error}"));
            let deadline = Instant::now() + STOP;
            while !marked(&mark).is_empty() {
                assert!(Instant::now() < deadline, "left: {:?}", marked(&mark));
            }
        }
    }

    #[test]
    fn who_does_not_hear_is_killed_at_once() {
        let namespace = Namespace::new(1000).unwrap();
        let command = ["bash", "-c", "echo ready; exec sleep 600"].map(str::to_owned);
        let server = namespace.spawn_server(&command).unwrap();
        let (pid, begun) = (server.pid(), Instant::now());
        assert!(server.is_contained() && is_running(pid));
        drop(server);
        assert!(!is_running(pid) && begun.elapsed() < STOP);
    }

    #[test]
    fn its_own_processes_are_in_its_proc() {
        let namespace = Namespace::new(1000).unwrap();
        let script =
            "echo listening on $$:$(cut -d' ' -f1 /proc/$$/stat);                       echo ready; exec sleep 600";
        let command = ["bash", "-c", script].map(str::to_owned);
        let server = namespace.spawn_server(&command).unwrap();
        assert_eq!(server.urls(), ["1:1"]);
        assert!(server.pid() > 1, "{}", server.pid());
    }
}
