//! Idle: connections in one topic that only answer pings, far more of them than a process may have descriptors. Then
//! one of them publishes, and every one must receive that once.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::super::client::{Client, Endpoint};
use super::super::sys::{self, Memory};
use super::super::target::{Cost, Stopwatch};
use super::super::wire::{Template, bad, sequence};

/// Most connections of one ring: it may have as many direct descriptors as the process plain ones, and a completion
/// queue of 32,768 takes one completion of each.
const RING_CONNECTIONS_MAX: usize = 20_000;
/// How long to look for a second copy of the broadcast.
const AFTERMATH: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_millis(50);
const NUMBER: u64 = 0x6964_6c65;

/// Shape of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) connections: usize,
    /// How long to hold them before the broadcast.
    pub(crate) hold: Duration,
    /// Give up when they are not all open, or the broadcast not everywhere, after this.
    pub(crate) patience: Duration,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdleOutcome {
    pub(crate) opened: Duration,
    pub(crate) before: Memory,
    pub(crate) connected: Memory,
    /// After the hold.
    pub(crate) held: Memory,
    pub(crate) after: Memory,
    /// Growth of the machine's slab caches, both ends of each connection.
    pub(crate) kernel_bytes: u64,
    pub(crate) holding: Cost,
    pub(crate) pings: u64,
    pub(crate) last_delivery: Duration,
    pub(crate) broadcast: Cost,
}

/// What the threads tell each other.
#[derive(Default)]
struct Board {
    opened: AtomicUsize,
    delivered: AtomicUsize,
    doubled: AtomicUsize,
    pings: AtomicU64,
    publish: AtomicBool,
    stop: AtomicBool,
}

/// Holds the connections against the process `pid`, then broadcasts.
pub(crate) fn idle(endpoint: &Endpoint, pid: u32, load: Idle) -> io::Result<IdleOutcome> {
    let per_ring = RING_CONNECTIONS_MAX.min(sys::descriptor_limit() as usize);
    let shares: Vec<usize> =
        (0..load.connections).step_by(per_ring).map(|from| per_ring.min(load.connections - from)).collect();
    let board = Board::default();
    let outcome = thread::scope(|scope| {
        let threads: Vec<_> = shares
            .iter()
            .enumerate()
            .map(|(index, share)| {
                let board = &board;
                scope.spawn(move || hold(endpoint, *share, index == 0, board))
            })
            .collect();
        let failed = || threads.iter().any(|thread| thread.is_finished());
        let outcome = watch(pid, load, &board, &failed);
        board.stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| bad("a client thread panicked"))??;
        }
        outcome
    })?;
    match board.doubled.load(Ordering::Relaxed) {
        0 => Ok(outcome),
        doubled => Err(bad(&format!("{doubled} connections received the broadcast more than once"))),
    }
}

/// The main thread's part: measures while the others hold.
fn watch(pid: u32, load: Idle, board: &Board, failed: &dyn Fn() -> bool) -> io::Result<IdleOutcome> {
    let wait = |what: &str, count: &AtomicUsize| {
        let started = Instant::now();
        while count.load(Ordering::Relaxed) < load.connections {
            if failed() || started.elapsed() > load.patience {
                return Err(bad(&format!("{what}: {} of {}", count.load(Ordering::Relaxed), load.connections)));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(started.elapsed())
    };
    let (before, kernel) = (Memory::of(pid)?, sys::kernel_memory());
    let opened = wait("opened", &board.opened)?;
    let connected = Memory::of(pid)?;
    let kernel_bytes = sys::kernel_memory().saturating_sub(kernel);
    let holding = Stopwatch::start(pid)?;
    thread::sleep(load.hold);
    let (holding, held) = (holding.stop()?, Memory::of(pid)?);
    let broadcast = Stopwatch::start(pid)?;
    board.publish.store(true, Ordering::Relaxed);
    let last_delivery = wait("received the broadcast", &board.delivered)?;
    let broadcast = broadcast.stop()?;
    thread::sleep(AFTERMATH);
    let (after, pings) = (Memory::of(pid)?, board.pings.load(Ordering::Relaxed));
    Ok(IdleOutcome { opened, before, connected, held, after, kernel_bytes, holding, pings, last_delivery, broadcast })
}

/// One thread's part: one ring full of connections.
fn hold(endpoint: &Endpoint, connections: usize, publisher: bool, board: &Board) -> io::Result<()> {
    let mut client = Client::new(endpoint, connections, 256)?;
    let mut message = Template::new(endpoint.protocol, 64, 1);
    let mut received = vec![false; connections];
    let (mut published, mut pings, mut left) = (false, 0, connections);
    while !board.stop.load(Ordering::Relaxed) {
        if left > 0 {
            // In pieces, so that a stop is heard and pings of those already open are answered in time.
            let piece = left.min(500);
            client.open_more(piece, 64)?;
            left -= piece;
            board.opened.fetch_add(piece, Ordering::Relaxed);
        }
        if publisher && !published && board.publish.load(Ordering::Relaxed) {
            published = true;
            client.send(0, message.patch(1, NUMBER))?;
        }
        let timeout = if left > 0 { Duration::ZERO } else { TURN };
        client.turn(Some(timeout), |at, payload| {
            if sequence(payload) != Some(NUMBER) {
                return Err(bad(&format!("connection {at} received something else: {payload:?}")));
            }
            let count = if std::mem::replace(&mut received[at], true) { &board.doubled } else { &board.delivered };
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })?;
        board.pings.fetch_add(client.pings() - pings, Ordering::Relaxed);
        pings = client.pings();
    }
    Ok(())
}
