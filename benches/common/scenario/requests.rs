//! Requests: every connection keeps a number of HTTP requests in flight; each answer is checked and followed by another
//! request.

use std::io;

use super::super::client::{Client, Endpoint};
use super::super::target::Stopwatch;
use super::super::wire::bad;
use super::Sample;

/// Shape of the load.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    pub(crate) connections: usize,
    /// Requests of one connection that have no answer yet.
    pub(crate) in_flight: usize,
    /// The bytes of one.
    pub(crate) request: Vec<u8>,
    pub(crate) expected: Expected,
    pub(crate) warm_up: u64,
    /// Measured requests, after the warm-up.
    pub(crate) requests: u64,
}

/// What the body of every answer has to be.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Body(Vec<u8>),
    /// A publication's place: JSON with an offset that is over the one before it.
    Place,
}

/// One connection.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// The last offset that it was told.
    offset: u64,
    /// Answers of this turn, whose successors leave in one send.
    due: usize,
}

/// Runs the load against the process `pid` and measures what it spends after the warm-up.
pub(crate) fn requests(endpoint: &Endpoint, pid: u32, load: &Requests) -> io::Result<Sample> {
    let mut client = Client::new(endpoint, load.connections, 32 * 1024)?;
    client.open_more(load.connections, load.connections)?;
    let burst = load.request.repeat(load.in_flight);
    let mut lanes = vec![Lane { due: load.in_flight, ..Lane::default() }; load.connections];
    let mut dirty: Vec<usize> = (0..load.connections).collect();
    let mut answers = 0;
    let mut stopwatch: Option<(Stopwatch, u64)> = None;
    loop {
        for at in dirty.drain(..) {
            let count = std::mem::take(&mut lanes[at].due);
            client.send(at, &burst[..count * load.request.len()])?;
        }
        client.turn(None, |at, body| {
            let lane = &mut lanes[at];
            check(lane, &load.expected, body)?;
            lane.due += 1;
            if lane.due == 1 {
                dirty.push(at);
            }
            answers += 1;
            Ok(())
        })?;
        match &stopwatch {
            None if answers >= load.warm_up => stopwatch = Some((Stopwatch::start(pid)?, answers)),
            Some((running, before)) if answers - before >= load.requests => {
                return Ok(Sample { units: answers - before, cost: running.stop()?, ..Sample::default() });
            }
            _ => {}
        }
    }
}

fn check(lane: &mut Lane, expected: &Expected, body: &[u8]) -> io::Result<()> {
    let is_right = match expected {
        Expected::Body(expected) => body == expected,
        Expected::Place => match offset(body) {
            Some(offset) => std::mem::replace(&mut lane.offset, offset) < offset,
            None => false,
        },
    };
    if is_right { Ok(()) } else { Err(bad(&format!("an unexpected answer: {}", String::from_utf8_lossy(body)))) }
}

fn offset(body: &[u8]) -> Option<u64> {
    let text = str::from_utf8(body).ok()?;
    let (_, behind) = text.split_once("\"offset\":")?;
    behind.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
}
