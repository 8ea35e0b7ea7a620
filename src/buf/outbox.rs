//! What waits to be sent on one connection.
//!
//! A connection has an [`Outbox`] only while something waits. Frames of its own (replies, control frames) lie together
//! in one buffer; messages of topics are references to images that all subscribers share. The order of the pieces is
//! the order on the wire.

use std::collections::VecDeque;

use crate::message::Image;
use crate::wheel::Tick;

/// One piece of the queue.
#[derive(Debug)]
enum Piece {
    /// So many bytes of `own`, after those of the pieces before.
    Own(usize),
    /// Part of a shared image, and how many messages are in it.
    Shared(Image, u32),
}

impl Piece {
    const fn len(&self) -> usize {
        match self {
            Self::Own(len) => *len,
            Self::Shared(image, _) => image.len(),
        }
    }
}

/// What to send next.
#[derive(Debug)]
pub enum Next<'a> {
    /// Several small pieces, gathered.
    Bytes(&'a [u8]),
    /// One shared image.
    Shared(&'a Image),
}

impl Next<'_> {
    /// Bytes in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Shared(image) => image.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The outgoing queue of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
    /// The bytes of all `Piece::Own`, from `own_start` on.
    own: Vec<u8>,
    own_start: usize,
    bytes: usize,
    /// Whether the first piece has been sent in part, so that it must not be dropped.
    front_begun: bool,
    /// When the kernel last took something, or the queue began.
    pub progress: Tick,
    /// Whether the backend was asked to say when there is room.
    pub waits: bool,
    /// Whether it is on the shard's list of those to be sent in this turn.
    pub listed: bool,
    /// Control replies (pongs) in it, roughly: counted up when queued, forgotten when the queue is empty.
    pub control_replies: u32,
    /// Received bytes that were not looked at because the answers to those before them have no room.
    pub held: Vec<u8>,
    /// What it may cost beyond its bound: a past that was asked for, as far as it has not been sent.
    allowance: usize,
}

impl Outbox {
    /// Pieces up to this size are gathered into one send.
    const GATHER_PIECE_BYTES_MAX: usize = 4 * 1024;
    /// A gathered send is at most this long.
    const GATHER_BYTES_MAX: usize = 64 * 1024;

    /// Bytes that wait to be sent.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// What the queue costs: its bytes, and what it takes to keep them apart, which is more where messages are tiny.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.bytes + self.pieces.len() * size_of::<Piece>()
    }

    /// What all of it costs, held bytes included.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.cost() + self.held.len()
    }

    /// Bytes that no other connection shares.
    #[must_use]
    pub const fn own_bytes(&self) -> usize {
        self.own.len() + self.held.len()
    }

    /// What another message of that length would add to the cost.
    #[must_use]
    pub const fn cost_of(bytes: usize) -> usize {
        bytes + size_of::<Piece>()
    }

    /// What it may cost beyond its bound.
    #[must_use]
    pub fn allowance(&self) -> usize {
        self.allowance.min(self.cost())
    }

    /// Lets it cost so much more, until as much has been sent.
    pub const fn allow(&mut self, cost: usize) {
        self.allowance += cost;
    }

    /// Queues frames of the connection's own.
    pub fn push_own(&mut self, bytes: &[u8]) {
        self.write_own(|own| own.extend_from_slice(bytes));
    }

    /// Queues what `write` appends, and says how many bytes that are.
    pub fn write_own(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.own.len();
        write(&mut self.own);
        let bytes = self.own.len() - before;
        self.bytes += bytes;
        if bytes == 0 {
            return 0;
        }
        if let Some(Piece::Own(len)) = self.pieces.back_mut() {
            *len += bytes;
        } else {
            self.pieces.push_back(Piece::Own(bytes));
        }
        bytes
    }

    /// Queues a shared image that holds so many messages.
    pub fn push_shared(&mut self, image: Image, messages: u32) {
        if !image.is_empty() {
            self.bytes += image.len();
            self.pieces.push_back(Piece::Shared(image, messages));
        }
    }

    /// Puts the rest of an image that was sent in part before everything else.
    pub fn put_back_shared(&mut self, image: Image, messages: u32) {
        debug_assert!(!self.front_begun, "only one send of a connection is on its way at a time");
        if !image.is_empty() {
            self.bytes += image.len();
            self.pieces.push_front(Piece::Shared(image, messages));
            self.front_begun = true;
        }
    }

    /// Puts the rest of frames that were sent in part before everything else.
    pub fn put_back_own(&mut self, bytes: &[u8]) {
        debug_assert!(!self.front_begun, "only one send of a connection is on its way at a time");
        if bytes.is_empty() {
            return;
        }
        self.own.splice(self.own_start..self.own_start, bytes.iter().copied());
        self.bytes += bytes.len();
        self.pieces.push_front(Piece::Own(bytes.len()));
        self.front_begun = true;
    }

    /// What to send next: one big image by itself, or as many small pieces as fit, gathered in `room`.
    pub fn next<'a>(&'a self, room: &'a mut Vec<u8>) -> Next<'a> {
        self.next_within(room, Self::GATHER_BYTES_MAX)
    }

    /// The same, with so many bytes gathered at most; of one image only as many are meant.
    pub fn next_within<'a>(&'a self, room: &'a mut Vec<u8>, bytes_max: usize) -> Next<'a> {
        let bytes_max = bytes_max.min(Self::GATHER_BYTES_MAX);
        match self.pieces.front() {
            None => return Next::Bytes(&[]),
            Some(Piece::Shared(image, _))
                if image.len() > Self::GATHER_PIECE_BYTES_MAX.min(bytes_max) || self.pieces.len() == 1 =>
            {
                return Next::Shared(image);
            }
            Some(Piece::Own(len)) if self.pieces.len() == 1 => {
                let len = (*len).min(bytes_max);
                return Next::Bytes(&self.own[self.own_start..self.own_start + len]);
            }
            Some(_) => {}
        }
        room.clear();
        let mut own_start = self.own_start;
        for piece in &self.pieces {
            match piece {
                Piece::Own(len) => {
                    let len = (*len).min(bytes_max - room.len());
                    room.extend_from_slice(&self.own[own_start..own_start + len]);
                    own_start += len;
                }
                Piece::Shared(image, _) => {
                    if image.len() > Self::GATHER_PIECE_BYTES_MAX.min(bytes_max - room.len()) {
                        break;
                    }
                    room.extend_from_slice(image.as_slice());
                }
            }
            if room.len() == bytes_max {
                break;
            }
        }
        Next::Bytes(room)
    }

    /// Forgets the first `sent` bytes: the kernel has them.
    pub fn advance(&mut self, mut sent: usize) {
        debug_assert!(sent <= self.bytes);
        self.bytes -= sent;
        self.allowance = self.allowance.saturating_sub(sent);
        while sent > 0 {
            let Some(front) = self.pieces.front_mut() else { break };
            let taken = sent.min(front.len());
            sent -= taken;
            match front {
                Piece::Own(len) => {
                    *len -= taken;
                    self.own_start += taken;
                }
                Piece::Shared(image, _) => image.start += taken,
            }
            self.front_begun = front.len() > 0;
            if !self.front_begun {
                self.pieces.pop_front();
            }
        }
        if self.own_start == self.own.len() {
            self.own.clear();
            self.own_start = 0;
        } else if self.own_start > self.own.len() / 2 {
            self.own.drain(..self.own_start);
            self.own_start = 0;
        }
    }

    /// Drops the oldest messages of topics until the queue costs at most `cost_max`, if there are enough of them. What has
    /// been sent in part, and the connection's own frames, stay. Returns how many messages were dropped.
    pub fn drop_oldest(&mut self, cost_max: usize) -> u64 {
        let mut dropped = 0;
        let mut index = usize::from(self.front_begun);
        while self.cost() > cost_max && index < self.pieces.len() {
            if let Piece::Shared(image, messages) = &self.pieces[index] {
                self.bytes -= image.len();
                dropped += u64::from(*messages);
                self.pieces.remove(index);
            } else {
                index += 1;
            }
        }
        dropped
    }

    /// Drops everything that has not been begun. Used before a last frame, when the peer does not read.
    pub fn drop_all(&mut self) -> u64 {
        let dropped = self.drop_oldest(0);
        let keep_own = match self.pieces.front() {
            Some(Piece::Own(len)) if self.front_begun => *len,
            _ => 0,
        };
        self.own.truncate(self.own_start + keep_own);
        self.pieces.truncate(usize::from(self.front_begun));
        self.bytes = self.pieces.front().map_or(0, Piece::len);
        dropped
    }
}

/// Spare [`Outbox`]es of a shard.
#[derive(Debug, Default)]
pub struct Outboxes {
    // Boxed on purpose: a connection's hot entry holds the box, 8 bytes.
    #[allow(clippy::vec_box, reason = "the boxes themselves are what is reused")]
    spare: Vec<Box<Outbox>>,
}

impl Outboxes {
    const SPARE_MAX: usize = 1024;
    const SPARE_BYTES_MAX: usize = 16 * 1024;

    /// An empty one.
    pub fn take(&mut self, now: Tick) -> Box<Outbox> {
        let mut outbox = self.spare.pop().unwrap_or_default();
        outbox.progress = now;
        outbox
    }

    /// Takes one back; big buffers are freed.
    pub fn give(&mut self, mut outbox: Box<Outbox>) {
        if self.spare.len() == Self::SPARE_MAX
            || outbox.own.capacity() > Self::SPARE_BYTES_MAX
            || outbox.held.capacity() > 0
        {
            return;
        }
        outbox.pieces.clear();
        outbox.pieces.shrink_to(64);
        outbox.own.clear();
        let (pieces, own) = (std::mem::take(&mut outbox.pieces), std::mem::take(&mut outbox.own));
        *outbox = Outbox { pieces, own, ..Outbox::default() };
        self.spare.push(outbox);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn image(bytes: &[u8]) -> Image {
        Image::from(bytes.to_vec())
    }

    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        let mut room = Vec::new();
        while !outbox.is_empty() {
            let sent = {
                let next = outbox.next(&mut room);
                let bytes = match &next {
                    Next::Bytes(bytes) => bytes,
                    Next::Shared(image) => image.as_slice(),
                };
                let sent = bytes.len().min(step);
                assert!(sent > 0, "a queue that is not empty has something to send");
                all.extend_from_slice(&bytes[..sent]);
                sent
            };
            outbox.advance(sent);
        }
        all
    }

    #[test]
    fn pieces_leave_in_order_whatever_the_kernel_takes() {
        for step in [1, 2, 3, 7, 1000, usize::MAX] {
            let mut outbox = Outbox::default();
            outbox.push_own(b"a");
            outbox.push_own(b"bc");
            outbox.push_shared(image(b"def"), 1);
            outbox.push_own(b"g");
            outbox.push_shared(image(&[b'x'; 9000]), 1);
            outbox.push_own(b"end");
            let bytes = outbox.bytes();
            let all = drain(&mut outbox, step);
            assert_eq!(all.len(), bytes);
            assert!(all.starts_with(b"abcdefgxxx") && all.ends_with(b"xxxend"), "step {step}");
        }
    }

    #[test]
    fn the_rest_of_a_short_send_goes_first() {
        let mut outbox = Outbox::default();
        outbox.push_own(b"later");
        outbox.put_back_own(b"now ");
        assert_eq!(drain(&mut outbox, 3), b"now later");
        outbox.push_own(b"later");
        outbox.put_back_shared(image(b"now "), 1);
        assert_eq!(drain(&mut outbox, 3), b"now later");
    }

    #[test]
    fn dropping_spares_what_was_begun_and_what_is_our_own() {
        let mut outbox = Outbox::default();
        outbox.push_shared(image(b"begun"), 1);
        outbox.push_shared(image(b"old"), 2);
        outbox.push_own(b"pong");
        outbox.push_shared(image(b"new"), 3);
        outbox.advance(2);
        let after_one = outbox.cost() - Outbox::cost_of(3);
        assert_eq!(outbox.drop_oldest(after_one), 2);
        assert_eq!(outbox.bytes(), 3 + 4 + 3);
        assert_eq!(outbox.drop_oldest(0), 3);
        assert_eq!(drain(&mut outbox, 100), b"gunpong");
    }

    #[test]
    fn tiny_messages_cost_more_than_their_bytes() {
        let mut outbox = Outbox::default();
        (0..1000).for_each(|_| outbox.push_shared(image(b"x"), 1));
        outbox.held.extend_from_slice(b"held");
        assert_eq!((outbox.bytes(), outbox.cost()), (1000, 1000 * Outbox::cost_of(1)));
        assert_eq!((outbox.memory(), outbox.own_bytes()), (outbox.cost() + 4, 4));
        drain(&mut outbox, 100);
        assert_eq!(outbox.cost(), 0);
    }

    #[test]
    fn drop_all_keeps_only_the_begun_piece() {
        let mut outbox = Outbox::default();
        outbox.push_own(b"begun");
        outbox.push_shared(image(b"old"), 1);
        outbox.push_own(b"pong");
        outbox.advance(2);
        outbox.drop_all();
        outbox.push_own(b"!");
        assert_eq!(drain(&mut outbox, 100), b"gun!");
    }
}
