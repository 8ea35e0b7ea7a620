//! What the threads count, and how the conductor sees it while they count.

use std::ops::Index;
use std::sync::atomic::{AtomicU64, Ordering};

use super::limits::{CLOSE_CODES, Cause, Reason};

/// What is counted. All but [`Count::Open`], [`Count::Standing`],
/// [`Count::Publishers`] and [`Count::Guests`] only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Count {
    /// Connections that were tried, each try counts.
    Dials,
    /// Tries that failed and are made again.
    Retries,
    /// Connections that were given up.
    GivenUp,
    /// Handshakes completed, guests and those that were lost since included.
    Opened,
    /// Holders and echo clients whose handshake is complete.
    Standing,
    /// The same with guests.
    Open,
    /// Connections that ended though nobody here asked for it, guests that misbehave apart.
    Lost,
    /// Connections that vanished because they should.
    Vanished,
    /// Heartbeats answered.
    Pings,
    /// Heartbeats heard where nobody can answer.
    Heartbeats,
    /// Connections that publish for those who only hear, and are open (it shrinks, too).
    Publishers,
    /// Bytes that came.
    Bytes,
    /// Bytes that were sent, behind the first ones of each connection.
    BytesSent,
    /// Connections that have heard a message of this run.
    Called,
    /// Publications sent.
    Published,
    /// Deliveries, each message once for each connection.
    Heard,
    /// Those of them that are measured: calls of the roll can be late.
    Measured,
    /// Those of them that are of the last message.
    Last,
    /// Deliveries that were passed over and have not come since.
    Skipped,
    /// Deliveries that came again.
    Duplicates,
    /// Deliveries that came after a later one.
    Reordered,
    /// Messages of somebody else.
    Foreign,
    /// Echo messages that were due.
    Due,
    /// Loads of echo messages of which nothing more will be due.
    Spent,
    /// Echo messages sent.
    Asked,
    /// Echo messages that came back.
    Answered,
    /// Those of them that came back in the time in which it is measured, whenever they were due.
    Timely,
    /// Echo messages that came back changed, twice, or after later ones.
    Wrong,
    /// Echo messages that had not come back at the end, or before later ones, and are measured with the time that they had
    /// taken so far.
    Late,
    /// Guests that are there, or on their way (it shrinks, too).
    Guests,
    /// Guests that came.
    Came,
    /// Guests that left in peace.
    Left,
    /// Guests that left with a reset.
    Reset,
    /// Guests that went mute.
    Muted,
    /// Guests that stopped reading.
    Slowed,
    /// Slow guests that the server has ended.
    Cut,
    /// Mute guests that the server has ended.
    Detected,
    /// Mute guests that the server had not ended after the time it was given.
    Overlooked,
    /// Guests that the server ended, or that did not get in.
    Turned,
    /// Guests whose good-bye was not answered, or with a reset.
    Unanswered,
}

const COUNTS: usize = Count::Unanswered as usize + 1;
const CODES: usize = COUNTS + 2 * Reason::COUNT;
const CELLS: usize = CODES + CLOSE_CODES.len();

/// Counts of one thread, or of all together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally([u64; CELLS]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; CELLS])
    }
}

impl Tally {
    pub(super) const fn add(&mut self, count: Count, by: u64) {
        self.0[count as usize] += by;
    }

    pub(super) const fn one(&mut self, count: Count) {
        self.add(count, 1);
    }

    pub(super) const fn less(&mut self, count: Count) {
        let cell = &mut self.0[count as usize];
        *cell = cell.saturating_sub(1);
    }

    /// With the counts of another thread.
    #[must_use]
    pub(super) fn and(mut self, other: &Self) -> Self {
        for (cell, more) in self.0.iter_mut().zip(other.0) {
            *cell += more;
        }
        self
    }

    /// A try that failed.
    pub(super) const fn failed(&mut self, reason: Reason) {
        self.0[COUNTS + reason as usize] += 1;
    }

    /// A connection that was lost.
    pub(super) fn lost(&mut self, cause: Cause) {
        let place = CLOSE_CODES.iter().position(|code| cause.code == Some(*code));
        self.0[place.map_or(COUNTS + Reason::COUNT + cause.reason as usize, |place| CODES + place)] += 1;
    }

    /// Failed tries by reason, without zeros.
    pub(super) fn failures(&self) -> impl Iterator<Item = (Reason, u64)> {
        by_reason(&self.0[COUNTS..COUNTS + Reason::COUNT])
    }

    /// Lost connections by reason, without zeros and without those whose close codes are told apart.
    pub(super) fn losses(&self) -> impl Iterator<Item = (Reason, u64)> {
        by_reason(&self.0[COUNTS + Reason::COUNT..CODES])
    }

    /// Lost connections by their close codes, without zeros.
    pub(super) fn closes(&self) -> impl Iterator<Item = (u16, u64)> {
        CLOSE_CODES.into_iter().zip(self.0[CODES..].iter().copied()).filter(|(_, count)| *count > 0)
    }
}

fn by_reason(cells: &[u64]) -> impl Iterator<Item = (Reason, u64)> {
    Reason::ALL.into_iter().zip(cells.iter().copied()).filter(|(_, count)| *count > 0)
}

impl Index<Count> for Tally {
    type Output = u64;

    fn index(&self, count: Count) -> &u64 {
        &self.0[count as usize]
    }
}

/// One thread's counts as others see them, written once a turn.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Board([AtomicU64; CELLS]);

impl Default for Board {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; CELLS])
    }
}

impl Board {
    /// Shows what differs from the last time.
    pub(super) fn show(&self, tally: &Tally) {
        for (cell, value) in self.0.iter().zip(tally.0) {
            if cell.load(Ordering::Relaxed) != value {
                cell.store(value, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn read(&self) -> Tally {
        let mut tally = Tally::default();
        for (value, cell) in tally.0.iter_mut().zip(&self.0) {
            *value = cell.load(Ordering::Relaxed);
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_shows_what_was_counted() {
        let (mut tally, board) = (Tally::default(), Board::default());
        Tally::add(&mut tally, Count::Heard, 5);
        tally.one(Count::Unanswered);
        tally.failed(Reason::Refused);
        tally.lost(Reason::ALL[Reason::COUNT - 1].into());
        [Some(4001), Some(1000), Some(3333), None].into_iter().for_each(|code| tally.lost(Cause::closed(code)));
        board.show(&tally);
        let both = board.read().and(&tally);
        assert_eq!((both[Count::Heard], both[Count::Unanswered], both[Count::Lost]), (10, 2, 0));
        assert_eq!(both.failures().collect::<Vec<_>>(), [(Reason::Refused, 2)]);
        assert_eq!(both.losses().collect::<Vec<_>>(), [(Reason::Closed, 4), (Reason::Other, 2)]);
        assert_eq!(both.closes().collect::<Vec<_>>(), [(1000, 2), (4001, 2)]);
    }
}
