//! The streams of a connection: a record for each that is open, and what is left to know of the others.

use super::windows::{ReceiveWindow, SendWindow};
use crate::codec::http2::StreamId;
use crate::id::ConnId;

/// Where a stream is (RFC 9113 section 5.1), as a server sees it. Pushes are never sent, so nothing is ever reserved.
///
/// ```text
///              HEADERS                     END_STREAM of the peer
///   (idle) ---------------> Open ------------------------------> PeerEnded
///     |                      |  \                                    |
///     |  HEADERS with        |   `-- RST_STREAM of either side --.   | our END_STREAM
///     |  END_STREAM          | our END_STREAM                    |   | or RST_STREAM
///     |                      v                                   v   v
///     `--> PeerEnded      WeEnded -------------------------->  (closed)
///                             END_STREAM of the peer, RST_STREAM
/// ```
///
/// Streams in parentheses have no record: idle are those above the highest that was opened, closed are all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Both sides send.
    Open,
    /// Half-closed (remote): only we send.
    PeerEnded,
    /// Half-closed (local): only the peer sends.
    WeEnded,
}

/// One that is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    /// What we may send.
    pub(super) send: SendWindow,
    /// What the peer may send.
    pub(super) receive: ReceiveWindow,
    /// [`UNNAMED`], or the bits of its name.
    name: u64,
    /// What its body still lacks to the length that was announced, [`UNKNOWN`] if none was.
    left: u64,
    /// What its small DATA frames that are held lack.
    pub(super) lack: u16,
    pub(super) state: State,
}

// 4 bytes of number and of our window, 8 of the peer's, 8 of name and of length, 2 + 1 and padding.
const _: () = assert!(size_of::<Stream>() == 40);

/// Names have 56 bits.
const UNNAMED: u64 = u64::MAX;
const UNKNOWN: u64 = u64::MAX;

impl Stream {
    pub(super) const fn new(id: StreamId, send: SendWindow, receive: ReceiveWindow, length: Option<u64>) -> Self {
        let left = match length {
            Some(length) => length,
            None => UNKNOWN,
        };
        Self { id, send, receive, name: UNNAMED, left, lack: 0, state: State::Open }
    }

    pub(super) fn name(&self) -> Option<ConnId> {
        (self.name != UNNAMED).then(|| ConnId::from_bits(self.name))
    }

    /// Whether so much more of a body, and its end or not, is what was announced (section 8.1.1).
    pub(super) const fn announced(&mut self, bytes: u32, ends: bool) -> bool {
        if self.left == UNKNOWN {
            return true;
        }
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                left == 0 || !ends
            }
            None => false,
        }
    }
}

/// All of a connection.
#[derive(Debug)]
pub(super) struct Streams {
    /// Those that are open, by number. They are opened in that order.
    open: Vec<Stream>,
    /// The highest that was opened.
    last: StreamId,
    /// Which of the 64 odd numbers up to `last` were opened; bit 0 is `last`.
    opened: u64,
    /// Those that we reset last, on which frames may still be on their way.
    reset: Option<Box<Recent>>,
}

/// The last streams of some kind.
#[derive(Debug)]
struct Recent {
    ids: [StreamId; Recent::COUNT],
    next: usize,
}

impl Recent {
    const COUNT: usize = 30;
}

// 30 numbers of 4 bytes, and a place: there only where streams have been reset.
const _: () = assert!(size_of::<Recent>() == 128);

/// What a number stands for that no stream is open with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// Above all that were opened, or one of ours, which never are.
    Idle,
    /// It was left out.
    Skipped,
    /// We reset it a short while ago.
    Reset,
    /// It was open once.
    Closed,
}

impl Streams {
    pub(super) const fn new() -> Self {
        Self { open: Vec::new(), last: StreamId(0), opened: 0, reset: None }
    }

    pub(super) const fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) const fn last(&self) -> StreamId {
        self.last
    }

    pub(super) const fn memory(&self) -> usize {
        let reset = if self.reset.is_some() { size_of::<Recent>() } else { 0 };
        self.open.capacity() * size_of::<Stream>() + reset
    }

    fn place(&self, id: StreamId) -> Option<usize> {
        // Often there is one, or the last is meant.
        match self.open.last() {
            Some(stream) if stream.id == id => Some(self.open.len() - 1),
            _ => self.open.binary_search_by_key(&id, |stream| stream.id).ok(),
        }
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.place(id).map(|place| &self.open[place])
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.place(id).map(|place| &mut self.open[place])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.open.iter()
    }

    /// Those below this number.
    pub(super) fn below(&self, id: StreamId) -> impl DoubleEndedIterator<Item = &Stream> {
        let end = self.open.partition_point(|stream| stream.id < id);
        self.open[..end].iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.open.iter_mut()
    }

    pub(super) fn set_name(&mut self, id: StreamId, name: ConnId) {
        if let Some(stream) = self.get_mut(id) {
            stream.name = name.bits();
        }
    }

    /// What a number is that [`Streams::get`] does not find.
    pub(super) fn absent(&self, id: StreamId) -> Absent {
        if id > self.last || id.0.is_multiple_of(2) {
            return Absent::Idle;
        }
        if self.reset.as_ref().is_some_and(|recent| recent.ids.contains(&id)) {
            return Absent::Reset;
        }
        // Of what is further back nobody knows any more; it has most likely been open.
        match self.opened.checked_shr((self.last.0 - id.0) / 2) {
            Some(bits) if bits & 1 == 0 => Absent::Skipped,
            _ => Absent::Closed,
        }
    }

    /// Notes that a number above all others is used: an odd one.
    pub(super) fn begin(&mut self, id: StreamId) {
        debug_assert!(id > self.last && id.0 % 2 == 1);
        // Of the first one, the distance to 0 is rounded up: there is nothing that could be shifted wrongly.
        self.opened = self.opened.checked_shl((id.0 - self.last.0).div_ceil(2)).unwrap_or(0) | 1;
        self.last = id;
    }

    /// Opens one, whose number has begun.
    pub(super) fn open(&mut self, stream: Stream) {
        debug_assert!(self.open.last().is_none_or(|last| last.id < stream.id));
        if self.open.len() == self.open.capacity() {
            // One stream for most connections; half as many again for others.
            self.open.reserve_exact((self.open.len() / 2).max(1));
        }
        self.open.push(stream);
    }

    /// Forgets one.
    pub(super) fn close(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.open.remove(self.place(id)?);
        if self.open.is_empty() {
            self.open = Vec::new();
        }
        Some(stream)
    }

    /// Notes that we reset one.
    pub(super) fn note_reset(&mut self, id: StreamId) {
        let new = || Box::new(Recent { ids: [StreamId::CONNECTION; Recent::COUNT], next: 0 });
        let recent = self.reset.get_or_insert_with(new);
        recent.ids[recent.next] = id;
        recent.next = (recent.next + 1) % Recent::COUNT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(ids: &[u32]) -> Streams {
        let mut streams = Streams::new();
        for &id in ids {
            streams.begin(StreamId(id));
            streams.open(Stream::new(StreamId(id), SendWindow::new(9), ReceiveWindow::new(9), None));
        }
        streams
    }

    #[test]
    fn a_number_that_was_left_out_is_not_one_that_was_closed_5_1_1() {
        let mut streams = with(&[1, 5, 7]);
        streams.close(StreamId(5));
        streams.note_reset(StreamId(1));
        streams.close(StreamId(1));
        let absent = [1, 3, 5, 9].map(|id| streams.absent(StreamId(id)));
        assert_eq!(absent, [Absent::Reset, Absent::Skipped, Absent::Closed, Absent::Idle]);
        streams.begin(StreamId(7 + 2 * 64));
        assert_eq!(streams.absent(StreamId(7)), Absent::Closed, "too far back to be known");
        assert_eq!(streams.absent(StreamId(9)), Absent::Skipped);
    }

    #[test]
    fn one_stream_costs_one_record_and_none_costs_nothing() {
        let mut streams = with(&[1]);
        assert_eq!(streams.memory(), 40);
        streams.close(StreamId(1));
        assert_eq!(streams.memory(), 0);
        assert!(with(&(0..100).map(|n| 2 * n + 1).collect::<Vec<_>>()).memory() < 150 * 40);
    }

    #[test]
    fn a_body_is_as_long_as_announced_8_1_1() {
        let new = |length| Stream::new(StreamId(1), SendWindow::new(0), ReceiveWindow::new(0), length);
        let mut stream = new(Some(5));
        assert!(stream.announced(3, false));
        assert!(stream.announced(2, true));
        assert!(!new(Some(5)).announced(6, false));
        assert!(!new(Some(5)).announced(4, true));
        assert!(new(None).announced(u32::MAX, true));
    }

    #[test]
    fn the_ring_keeps_the_last_ones() {
        let mut streams = with(&[101]);
        (0..=30).for_each(|n| streams.note_reset(StreamId(2 * n + 1)));
        assert_eq!(streams.absent(StreamId(3)), Absent::Reset);
        assert_ne!(streams.absent(StreamId(1)), Absent::Reset);
    }
}
