//! Echo: every connection keeps a number of messages in flight; each reply is checked and answered with a new message.

use std::io;

use super::super::client::{Client, Endpoint};
use super::super::target::Stopwatch;
use super::super::wire::{Template, bad, sequence};
use super::Sample;

/// Shape of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo {
    pub(crate) connections: usize,
    /// Bytes of a message; see [`Template::new`].
    pub(crate) size: usize,
    /// Messages of one connection that have no reply yet.
    pub(crate) in_flight: usize,
    /// Every message leaves in a send of its own. Without it the successors of all replies that one turn brought leave
    /// in one send: the next burst arrives whole, and even a bare loop coalesces perfectly.
    pub(crate) scatter: bool,
    pub(crate) warm_up: u64,
    /// Measured messages, after the warm-up.
    pub(crate) messages: u64,
}

/// One connection's place in its own order of messages.
struct Lane {
    frames: Template,
    sent: u64,
    received: u64,
    /// Replies of this turn. Their successors leave in one send, whatever the number of reads that brought them.
    due: usize,
}

/// Runs the load against the process `pid` and measures what it spends after the warm-up.
pub(crate) fn echo(endpoint: &Endpoint, pid: u32, load: Echo) -> io::Result<Sample> {
    let mut client = Client::new(endpoint, load.connections, 16 * 1024)?;
    client.open_more(load.connections, load.connections)?;
    let lane = || Lane {
        frames: Template::new(endpoint.protocol, load.size, load.in_flight),
        sent: 0,
        received: 0,
        due: load.in_flight,
    };
    let mut lanes: Vec<Lane> = (0..load.connections).map(|_| lane()).collect();
    let mut dirty: Vec<usize> = (0..load.connections).collect();
    let mut replies = 0;
    let mut stopwatch: Option<(Stopwatch, u64)> = None;
    loop {
        for at in dirty.drain(..) {
            let lane = &mut lanes[at];
            let count = std::mem::take(&mut lane.due);
            let bytes = lane.frames.patch(count, lane.sent);
            let piece_bytes = if load.scatter { bytes.len() / count } else { bytes.len() };
            bytes.chunks(piece_bytes).try_for_each(|piece| client.send(at, piece))?;
            lane.sent += count as u64;
        }
        client.turn(None, |at, payload| {
            let lane = &mut lanes[at];
            check(lane, at, payload)?;
            lane.received += 1;
            lane.due += 1;
            if lane.due == 1 {
                dirty.push(at);
            }
            replies += 1;
            Ok(())
        })?;
        match &stopwatch {
            None if replies >= load.warm_up => stopwatch = Some((Stopwatch::start(pid)?, replies)),
            Some((running, before)) if replies - before >= load.messages => {
                return Ok(Sample { units: replies - before, cost: running.stop()?, ..Sample::default() });
            }
            _ => {}
        }
    }
}

fn check(lane: &Lane, at: usize, payload: &[u8]) -> io::Result<()> {
    let number = sequence(payload);
    if payload.len() == lane.frames.payload_bytes && number == Some(lane.received) {
        return Ok(());
    }
    let (length, wanted) = (payload.len(), lane.received);
    Err(bad(&format!("connection {at}: {length} bytes numbered {number:?} instead of reply {wanted}")))
}
