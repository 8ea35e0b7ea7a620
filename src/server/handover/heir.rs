//! How topics go over: the old process gathers what they leave and sends it, the new one reads it.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crossbeam::channel::{RecvTimeoutError, unbounded};

use super::PATIENCE;
use super::estate::{self, Estate};
use super::wire::{self, Kind, Nothing, PAYLOAD_BYTES_MAX};
use crate::id::ShardId;
use crate::shard::Postbox;
use crate::shard::orders::{Order, Outcome, What};

/// Sends the estate, frame by frame.
pub(super) struct Will<'a> {
    stream: &'a UnixStream,
    /// What has not been sent, of which a part that was is at the front.
    bytes: Vec<u8>,
    /// Topics and messages so far.
    pub(super) topics: usize,
    pub(super) messages: usize,
}

impl<'a> Will<'a> {
    pub(super) const fn new(stream: &'a UnixStream) -> Self {
        Self { stream, bytes: Vec::new(), topics: 0, messages: 0 }
    }

    /// Sends what the topics of all shards leave. Nothing may be published meanwhile.
    pub(super) fn topics(&mut self, shards: &Postbox) -> io::Result<()> {
        for shard in (0..shards.shards()).map(ShardId) {
            let mut from = Some(0);
            while let Some(place) = from {
                let Outcome::Legacies { legacies, next, epoch } = ask(shards, shard, place)? else {
                    return Err(wire::strange("a shard says something else than what its topics leave"));
                };
                estate::write_epoch(epoch, &mut self.bytes);
                self.topics += legacies.len();
                for legacy in &legacies {
                    self.messages += legacy.messages.len();
                    estate::write_topic(legacy, &mut self.bytes);
                    self.flush(false)?;
                }
                from = next;
            }
        }
        Ok(())
    }

    /// Sends used tokens.
    pub(super) fn used(&mut self, used: Vec<estate::Used>) -> io::Result<()> {
        for one in used {
            estate::write_used(one, &mut self.bytes);
            self.flush(false)?;
        }
        Ok(())
    }

    /// Says that this was all, and waits until the new process has it.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.flush(true)?;
        wire::send(self.stream, Kind::EstateEnd, &Nothing {}, &[])?;
        match wire::receive(self.stream)?.kind {
            Kind::Adopted => Ok(()),
            kind => Err(wire::strange(&format!("it says {kind:?}, which was not its turn"))),
        }
    }

    /// Sends all frames that are full, and the last one if it is to.
    fn flush(&mut self, all: bool) -> io::Result<()> {
        if self.bytes.len() < PAYLOAD_BYTES_MAX && !all {
            return Ok(());
        }
        let frames = self.bytes.chunks(PAYLOAD_BYTES_MAX);
        let mut sent = 0;
        for frame in frames.filter(|frame| all || frame.len() == PAYLOAD_BYTES_MAX) {
            wire::send_bytes(self.stream, Kind::Estate, frame, &[])?;
            sent += frame.len();
        }
        self.bytes.drain(..sent);
        Ok(())
    }
}

/// What the topics of a shard leave, some of them from this place on.
fn ask(shards: &Postbox, shard: ShardId, from: u32) -> io::Result<Outcome> {
    let (reports, answers) = unbounded();
    let mut order = Box::new(Order { number: 0, what: What::Legacies(from), reports });
    let deadline = Instant::now() + PATIENCE;
    while let Err(back) = shards.order(shard, order) {
        if Instant::now() > deadline {
            return Err(ErrorKind::TimedOut.into());
        }
        order = back;
        std::thread::sleep(Duration::from_millis(1));
    }
    match answers.recv_deadline(deadline) {
        Ok(report) => Ok(report.what),
        Err(RecvTimeoutError::Timeout) => Err(ErrorKind::TimedOut.into()),
        Err(RecvTimeoutError::Disconnected) => Err(wire::strange("a shard of this server has ended")),
    }
}

/// Takes over what the old process leaves, and says so. What went wrong is told beside what came.
pub(super) fn inherit(stream: &UnixStream) -> (Estate, io::Result<()>) {
    let (estate, result) = Estate::read(Frames { stream, bytes: Vec::new(), at: 0, is_over: false });
    let result = result.and_then(|()| wire::send(stream, Kind::Adopted, &Nothing {}, &[]));
    (estate, result)
}

/// The bytes of the estate, as frames bring them.
struct Frames<'a> {
    stream: &'a UnixStream,
    bytes: Vec<u8>,
    at: usize,
    is_over: bool,
}

impl Read for Frames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.bytes.len() && !self.is_over {
            let frame = wire::receive(self.stream)?;
            match frame.kind {
                Kind::Estate => (self.bytes, self.at) = (frame.payload, 0),
                Kind::EstateEnd => self.is_over = true,
                _ => return Err(io::Error::new(ErrorKind::PermissionDenied, super::taker::refusal(&frame))),
            }
        }
        let count = (&self.bytes[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::thread;

    use super::*;

    #[test]
    fn an_estate_of_many_frames_arrives_whole() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let used: Vec<estate::Used> = (0..50_000_u64).map(|n| ([n.to_be_bytes()[7]; 16], n)).collect();
        let sent = used.clone();
        let giver = thread::spawn(move || {
            let mut will = Will::new(&ours);
            will.used(sent).and_then(|()| will.end())
        });
        let (estate, result) = inherit(&theirs);
        result.unwrap();
        giver.join().unwrap().unwrap();
        assert!(estate.used == used);
    }

    #[test]
    fn a_refusal_in_the_middle_is_told() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        wire::send(&ours, Kind::Refused, &wire::Refused { reason: "no".to_owned() }, &[]).unwrap();
        assert_eq!(inherit(&theirs).1.unwrap_err().to_string(), "no");
    }
}
