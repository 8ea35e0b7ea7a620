//! Programs that a run starts: what they say, what they are told, and that none of them outlives the run.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child as Process, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::sys;

/// How often waiting looks up.
const LOOK: Duration = Duration::from_millis(20);
/// Time that a program has to clean up when it is told to end.
const END: Duration = Duration::from_secs(10);
/// Lines of standard error that are kept.
const ERRORS: usize = 20;

/// Set by Ctrl-C and SIGTERM.
fn stop() -> &'static Arc<AtomicBool> {
    static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    STOP.get_or_init(Arc::default)
}

/// From now on Ctrl-C and SIGTERM make every wait fail, so that the run ends in order.
pub(crate) fn watch_signals() -> io::Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(stop()))?;
    }
    Ok(())
}

/// Whether the run was told to end.
pub(crate) fn stopped() -> bool {
    stop().load(Ordering::Relaxed)
}

/// Fails when the run was told to end.
pub(crate) fn go_on() -> io::Result<()> {
    if stopped() { Err(io::Error::other("told to end")) } else { Ok(()) }
}

/// Sleeps; fails early when the run is told to end.
pub(crate) fn pause(time: Duration) -> io::Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        go_on()?;
        thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
    }
    go_on()
}

/// A running program, in a process group of its own: Ctrl-C reaches it through this program only.
pub(crate) struct Child {
    name: String,
    process: Process,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Arc<Mutex<VecDeque<String>>>,
}

impl Child {
    /// Starts a program, on one core if that is wanted and there are several.
    pub(crate) fn start(command: &[String], core: Option<usize>) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("empty command"))?;
        let mut command = Command::new(program);
        command.args(arguments).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::die_with_parent(&mut command);
        // A child inherits the mask of the thread that starts it. One core is enough to be correct, not to measure.
        let pinned = core.is_some_and(|core| sys::pin(core).is_ok());
        let started = command.spawn();
        if pinned {
            sys::unpin()?;
        }
        let name = program.rsplit('/').next().unwrap_or(program).to_owned();
        let mut process = started.map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        let (sender, lines) = mpsc::channel();
        let (output, errors_out) = (process.stdout.take(), process.stderr.take());
        thread::spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&errors);
        thread::spawn(move || {
            for line in errors_out.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_back(line);
                if kept.len() > ERRORS {
                    kept.pop_front();
                }
            }
        });
        let input = process.stdin.take();
        Ok(Self { name, process, input, lines, errors })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        let input = self.input.as_mut().ok_or_else(|| io::Error::other("standard input is closed"))?;
        writeln!(input, "{line}")
    }

    /// The next line of its standard output.
    pub(crate) fn line(&mut self, patience: Duration) -> io::Result<String> {
        let until = Instant::now() + patience;
        loop {
            go_on()?;
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(RecvTimeoutError::Timeout) => return Err(self.failed(&format!("said nothing for {patience:?}"))),
                Err(RecvTimeoutError::Disconnected) => return Err(self.failed("ended early")),
            }
        }
    }

    /// What follows a word at the start of a line; other lines are passed over.
    pub(crate) fn line_with(&mut self, word: &str, patience: Duration) -> io::Result<String> {
        let until = Instant::now() + patience;
        loop {
            let line = self.line(until.saturating_duration_since(Instant::now()))?;
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// Its exit status if it has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// An error with what the program wrote last to standard error.
    pub(crate) fn failed(&mut self, what: &str) -> io::Error {
        // What it wrote just before its end may be on its way.
        if let Ok(Some(_)) = self.ended() {
            thread::sleep(LOOK);
        }
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let last = errors.iter().rev().find(|line| !line.trim().is_empty());
        let last = last.map_or_else(String::new, |line| format!(": {}", line.trim()));
        io::Error::other(format!("{} {what}{last}", self.name))
    }
}

impl Child {
    /// Ends it and waits for that; it may have made things that only it can remove.
    pub(crate) fn end(&mut self) {
        drop(self.input.take());
        if matches!(self.process.try_wait(), Ok(None)) {
            sys::terminate(self.process.id());
        }
        let until = Instant::now() + END;
        while Instant::now() < until {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(LOOK);
        }
        self.kill();
    }

    /// Ends it at once, without its leave.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}
