//! Connections with one open call each that say nothing, and what the server keeps in memory for them: after the calls
//! are open, after a while, and after each has had one message echoed.

use std::io;
use std::time::{Duration, Instant};

use crate::common::client::{Client, Endpoint};
use crate::common::http2::{self, Frame, HEAD_BYTES, Message};
use crate::common::sys::{self, Memory};
use crate::common::target::{Cost, Stopwatch};
use crate::common::wire::bad;

/// Connections before those that are measured: what a server allocates once is there when the measurement begins.
const WARM_UP: usize = 100;
/// Connections whose calls are opened together, and those that are on their way at a time.
const PIECE: usize = 250;
const WINDOW: usize = 64;
const TURN: Duration = Duration::from_millis(50);
/// Time after which a server has done what it does by itself.
const SETTLE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);

/// Shape of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) connections: usize,
    pub(crate) hold: Duration,
    /// Bytes of the field of the message at the end.
    pub(crate) size: usize,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdleOutcome {
    pub(crate) before: Memory,
    pub(crate) opened: Memory,
    pub(crate) held: Memory,
    pub(crate) echoed: Memory,
    /// Growth of the machine's slab caches, both ends of each connection.
    pub(crate) kernel_bytes: u64,
    pub(crate) holding: Cost,
    pub(crate) pings: u64,
}

/// Connections a server must have room for.
pub(crate) const fn capacity(load: Idle) -> usize {
    load.connections + WARM_UP
}

/// Holds the connections against the process `pid`.
pub(crate) fn idle(endpoint: &Endpoint, pid: u32, load: Idle) -> io::Result<IdleOutcome> {
    let mut crowd = Crowd::new(endpoint, load)?;
    crowd.open(WARM_UP)?;
    crowd.echo()?;
    crowd.hold(SETTLE)?;
    let (before, kernel) = (Memory::of(pid)?, sys::kernel_memory());
    crowd.open(load.connections)?;
    crowd.hold(SETTLE)?;
    let (opened, kernel_bytes) = (Memory::of(pid)?, sys::kernel_memory().saturating_sub(kernel));
    let stopwatch = Stopwatch::start(pid)?;
    crowd.hold(load.hold)?;
    let (holding, held) = (stopwatch.stop()?, Memory::of(pid)?);
    crowd.echo()?;
    crowd.hold(SETTLE)?;
    let (echoed, pings) = (Memory::of(pid)?, crowd.client.pings());
    Ok(IdleOutcome { before, opened, held, echoed, kernel_bytes, holding, pings })
}

struct Crowd {
    client: Client,
    /// What each connection says first: acknowledgement of settings, the head of a call, and a ping, whose answer
    /// says that the server has come that far.
    opening: Vec<u8>,
    /// What each one says later.
    speech: Vec<u8>,
    state: State,
}

/// What came.
struct State {
    message: Message,
    echo: Vec<u8>,
    /// Bytes of the echo that each connection still waits for.
    missing: Vec<usize>,
    opened: usize,
    echoing: usize,
}

impl Crowd {
    fn new(endpoint: &Endpoint, load: Idle) -> io::Result<Self> {
        let client = Client::new(endpoint, capacity(load), 1024)?;
        let opening = [
            http2::frame(http2::SETTINGS, http2::ACK, 0, &[]),
            http2::call(1, &endpoint.address.to_string(), &endpoint.path),
            http2::frame(http2::PING, 0, 0, b"are open"),
        ]
        .concat();
        let message = Message::new(load.size);
        let mut speech = Vec::new();
        message.write(1, 0, &mut speech);
        let echo = speech[HEAD_BYTES..].to_vec();
        let state = State { message, echo, missing: Vec::new(), opened: 0, echoing: 0 };
        Ok(Self { client, opening, speech, state })
    }

    /// Opens so many more connections and their calls.
    fn open(&mut self, count: usize) -> io::Result<()> {
        let goal = self.state.missing.len() + count;
        while self.state.missing.len() < goal {
            let from = self.state.missing.len();
            let piece = PIECE.min(goal - from);
            self.state.missing.resize(from + piece, 0);
            self.client.open_with(piece, WINDOW, |at, frame| self.state.receive(at, frame))?;
            (from..from + piece).try_for_each(|at| self.client.send(at, &self.opening))?;
            self.wait("opened their calls", |state| state.missing.len() - state.opened)?;
        }
        Ok(())
    }

    /// Has every call say one message and waits for its echo.
    fn echo(&mut self) -> io::Result<()> {
        self.state.missing.fill(self.state.message.len());
        self.state.echoing = self.state.missing.len();
        for at in 0..self.state.missing.len() {
            self.client.send(at, &self.speech)?;
        }
        self.wait("had their message echoed", |state| state.echoing)
    }

    fn wait(&mut self, what: &str, missing: impl Fn(&State) -> usize) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while missing(&self.state) > 0 {
            if Instant::now() > deadline {
                return Err(bad(&format!("{} connections have not {what}", missing(&self.state))));
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Answers pings for a while.
    fn hold(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.client.turn(Some(TURN), |at, frame| self.state.receive(at, frame))
    }
}

impl State {
    fn receive(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let frame = Frame::head(bytes).ok_or_else(|| bad("less than a frame"))?;
        let payload = &bytes[HEAD_BYTES..];
        match frame.kind {
            // Those that are not answers are handed out as pings.
            http2::PING => self.opened += 1,
            http2::HEADERS => http2::check_answer(frame, payload)?,
            http2::DATA => {
                let piece = http2::data(frame, payload)?;
                let missing = self.missing[at];
                let wanted = &self.echo[self.echo.len() - missing..];
                if !wanted.starts_with(piece) || frame.flags & http2::END_STREAM != 0 {
                    return Err(bad(&format!("connection {at}: not an echo: {piece:?}")));
                }
                self.missing[at] -= piece.len();
                self.echoing -= usize::from(self.missing[at] == 0 && missing > 0);
            }
            http2::RST_STREAM => return Err(bad(&format!("connection {at}: its call was reset: {payload:?}"))),
            _ => {}
        }
        Ok(())
    }
}
