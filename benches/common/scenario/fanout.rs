//! Fan-out: one connection publishes, all of them (itself too) receive. The next message leaves when the last arrived.

use std::io;
use std::time::Instant;

use super::super::client::{Client, Endpoint};
use super::super::target::Stopwatch;
use super::super::wire::{Template, bad, sequence};
use super::Sample;

/// Shape of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fanout {
    pub(crate) subscribers: usize,
    /// Bytes of a message; see [`Template::new`].
    pub(crate) size: usize,
    pub(crate) warm_up: u64,
    /// Measured publications, after the warm-up.
    pub(crate) publications: u64,
}

/// Runs the load against the process `pid` and measures what it spends after the warm-up.
pub(crate) fn fanout(endpoint: &Endpoint, pid: u32, load: Fanout) -> io::Result<Sample> {
    let mut client = Client::new(endpoint, load.subscribers, 512)?;
    client.open_more(load.subscribers, 64)?;
    let mut message = Template::new(endpoint.protocol, load.size, 1);
    let mut received = vec![0_u64; load.subscribers];
    let mut last_delivery = Vec::new();
    for number in 0..load.warm_up {
        publish(&mut client, &mut message, number, &mut received)?;
    }
    let stopwatch = Stopwatch::start(pid)?;
    for number in load.warm_up..load.warm_up + load.publications {
        let published = Instant::now();
        publish(&mut client, &mut message, number, &mut received)?;
        last_delivery.push(published.elapsed());
    }
    let units = load.publications * load.subscribers as u64;
    Ok(Sample { units, cost: stopwatch.stop()?, last_delivery })
}

/// Publishes one message and returns when every subscriber has received it, exactly once.
fn publish(client: &mut Client, message: &mut Template, number: u64, received: &mut [u64]) -> io::Result<()> {
    let payload_bytes = message.payload_bytes;
    client.send(0, message.patch(1, number))?;
    let mut missing = received.len();
    while missing > 0 {
        client.turn(None, |at, payload| {
            let found = sequence(payload);
            if payload.len() != payload_bytes || found != Some(received[at]) || received[at] != number {
                return Err(bad(&format!("subscriber {at}: message {found:?} instead of {}", received[at])));
            }
            received[at] += 1;
            missing -= 1;
            Ok(())
        })?;
    }
    Ok(())
}
