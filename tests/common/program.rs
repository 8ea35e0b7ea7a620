//! The program itself, for tests from outside.

#![allow(
    dead_code,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "each test uses a part of it; a test that cannot get what it needs has failed"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Nothing that a test waits for takes so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Those that this machine has.
pub fn backends() -> Vec<&'static str> {
    let uring = holdline::io::uring::probe().is_ok().then_some("uring");
    ["epoll"].into_iter().chain(uring).collect()
}

/// The program with arguments, and with what it says kept for the test.
pub fn holdline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
    clean(&mut command).args(arguments);
    command
}

/// Settings of whoever runs the tests must not become the program's.
pub fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDLINE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// A path that is gone with the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id())))
    }

    pub fn with(name: &str, text: &str) -> Self {
        let scratch = Self::new(name);
        std::fs::write(&scratch.0, text).unwrap();
        scratch
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `holdline serve` on free ports, killed with the test.
pub struct Program {
    pub child: Child,
    /// What it says after it was ready.
    pub out: BufReader<ChildStdout>,
    /// Where its listeners are, in the order given; the admin listener comes last.
    pub urls: Vec<String>,
}

impl Program {
    /// A server with these listeners. What it says on standard error is lost.
    pub fn serve(listeners: &[&str], arguments: &[&str]) -> Self {
        let listeners = listeners.iter().flat_map(|url| ["--listen", url]);
        let mut command = holdline(&["serve"]);
        command.args(listeners).args(arguments).stderr(Stdio::null());
        Self::start(command)
    }

    /// The same from a whole command, whose standard output is kept for us.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut urls = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "the server ended before it was ready");
            match line.trim_end().strip_prefix("listening on ") {
                Some(url) => urls.push(url.to_owned()),
                None => break assert_eq!(line, "ready\n"),
            }
        }
        Self { child, out, urls }
    }

    /// `HOST:PORT` of a listener.
    pub fn address(&self, number: usize) -> &str {
        let rest = self.urls[number].split_once("://").unwrap().1;
        rest.split(['?', '/']).next().unwrap()
    }

    /// What the admin listener, which there must be, says of a metric; of one with labels the sum of all that begin so.
    pub fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.address(self.urls.len() - 1)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let values = page.lines().filter(|line| line.starts_with(name));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Sends a signal, such as `-TERM`.
    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.pid()]).status().unwrap().success());
    }

    /// Waits for its end, which has to be a good one.
    pub fn ends_well(mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return assert!(status.success(), "{status}"),
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
