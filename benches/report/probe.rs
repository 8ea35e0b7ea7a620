//! What a healthy connection feels: one that sends a message every few milliseconds and waits for its echo.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::results::Latency;
use crate::common::scenario::percentile;
use crate::common::sys;

const EVERY: Duration = Duration::from_millis(5);
const SIZE: usize = 64;
/// The length that stands before the rest.
const LENGTH: u32 = 60;
/// Longest wait for one echo.
const PATIENCE: Duration = Duration::from_secs(60);
/// Above others' threads: what is measured is the server, not who gets the clients' core.
const NICE: i32 = -15;

/// When a message was meant to leave, and how long after that its echo was there.
type Sample = (Instant, Duration);

/// A thread with a connection.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Vec<Sample>>>,
}

impl Probe {
    /// Connects to a raw TCP echo with a length before each message; in the network namespace of a process, if given.
    pub(crate) fn start(echo: SocketAddrV4, namespace: Option<u32>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&stop);
        Self { stop, thread: thread::spawn(move || run(echo, namespace, &heard)) }
    }

    /// All it has measured.
    pub(crate) fn stop(self) -> io::Result<Vec<Sample>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the probe panicked"))?
    }
}

fn run(echo: SocketAddrV4, namespace: Option<u32>, stop: &AtomicBool) -> io::Result<Vec<Sample>> {
    sys::raise_priority(NICE);
    namespace.map_or(Ok(()), sys::enter_namespace)?;
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(echo), PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut message = vec![b'p'; SIZE];
    message[..4].copy_from_slice(&LENGTH.to_be_bytes());
    let mut samples = Vec::new();
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        message[4..12].copy_from_slice(&(samples.len() as u64).to_be_bytes());
        let mut answer = [0; SIZE];
        match stream.write_all(&message).and_then(|()| stream.read_exact(&mut answer)) {
            // A server that the swarm has started ends before we are told to.
            Err(_) if namespace.is_some() => break,
            done => done?,
        }
        if answer[..] != message[..] {
            return Err(io::Error::other("the probe's echo is not what it sent"));
        }
        // From the intended time: a message that has to wait for the one before it has waited.
        samples.push((due, due.elapsed()));
        due += EVERY;
    }
    Ok(samples)
}

/// The latencies of messages that were meant to leave in one of the spans; `None` when there are none.
pub(crate) fn within(samples: &[Sample], spans: &[(Instant, Instant)]) -> Option<Latency> {
    let inside = |at: Instant| spans.iter().any(|(from, to)| (*from..=*to).contains(&at));
    let mut times: Vec<Duration> = samples.iter().filter(|(at, _)| inside(*at)).map(|(_, time)| *time).collect();
    let messages = times.len() as u64;
    let mut at = |rank| percentile(&mut times, rank).as_secs_f64() * 1e3;
    (messages > 0).then(|| Latency { messages, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) })
}
