//! A real nats-server, on a port of its own, with JetStream.

#![allow(clippy::unwrap_used, missing_docs, dead_code, unreachable_pub, reason = "a test that cannot go on has failed")]

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use holdline::io::tun::Namespace;

/// It is killed with this value.
pub struct Nats {
    pub url: String,
    port: u16,
    store: PathBuf,
    arguments: Vec<String>,
    /// Where it lives, if not where the test does.
    inside: Option<Namespace>,
    child: Option<Child>,
}

impl Nats {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_at(free_port(), None, arguments)
    }

    /// One in a network of its own, where it listens on all addresses.
    pub fn start_inside(inside: &Namespace) -> Self {
        Self::start_at(4222, Some(inside.clone()), &[])
    }

    fn start_at(port: u16, inside: Option<Namespace>, arguments: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let store = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("nats-{}-{number}", std::process::id()));
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut nats = Self { url: format!("nats://127.0.0.1:{port}"), port, store, arguments, inside, child: None };
        nats.start_again();
        nats
    }

    /// Starts it, on the same port.
    pub fn start_again(&mut self) {
        let (address, port) = (if self.inside.is_some() { "0.0.0.0" } else { "127.0.0.1" }, self.port);
        let mut command = Command::new("nats-server");
        command.args(["--addr", address, "--port", &port.to_string(), "--jetstream"]).args(&self.arguments);
        command.arg("--store_dir").arg(&self.store).stdout(Stdio::null()).stderr(Stdio::null());
        let child = self.there(move || command.spawn());
        let mut child =
            child.unwrap_or_else(|error| panic!("nats-server is needed ({error}): apt-get install nats-server"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.there(move || TcpStream::connect(("127.0.0.1", port))).is_err() {
            assert!(Instant::now() < deadline, "nats-server does not begin");
            assert_eq!(child.try_wait().unwrap(), None, "nats-server ended");
            thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
    }

    /// Does something where it lives.
    fn there<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        match &self.inside {
            Some(inside) => inside.run(job).unwrap(),
            None => job(),
        }
    }

    /// Sends a signal, such as `-STOP`.
    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.pid()]).status().unwrap().success());
    }

    /// Has it end by itself, with all that it has on the disk.
    pub fn end(&mut self) {
        self.signal("-TERM");
        self.child.take().into_iter().for_each(|mut child| drop(child.wait()));
    }

    /// Kills it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Copies what it has stored to somewhere else, or back from there. It does not run.
    pub fn copy_store(&self, back: bool) {
        let aside = self.store.with_extension("aside");
        let (from, to) = if back { (&aside, &self.store) } else { (&self.store, &aside) };
        let _ = std::fs::remove_dir_all(to);
        let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
        assert!(copied.success());
    }

    pub fn pid(&self) -> String {
        self.child.as_ref().unwrap().id().to_string()
    }
}

/// A port of none of those that the kernel gives to whoever asks for any (from 32,768 on), so that nobody has it when a server
/// has ended and begins again. Tests of other processes begin to look elsewhere.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut ports = std::iter::repeat_with(|| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(61));
        12_000 + u16::try_from(number % 20_000).unwrap()
    });
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.store);
        let _ = std::fs::remove_dir_all(self.store.with_extension("aside"));
    }
}
