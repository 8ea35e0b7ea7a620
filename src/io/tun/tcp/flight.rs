//! What a connection costs while something of it is not acknowledged: a [`Flight`], and alarms for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::io::Out;
use crate::time::Instant;

/// Bytes that may have to be sent again.
#[derive(Debug, Default)]
pub(super) enum Unacked {
    /// None.
    #[default]
    Empty,
    /// Part of what many connections share, from the first index to the second.
    Shared(Arc<[u8]>, usize, usize),
    /// A copy; what lies before the index is acknowledged.
    Own(Vec<u8>, usize),
}

impl Unacked {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Shared(bytes, start, end) => &bytes[*start..*end],
            Self::Own(bytes, start) => &bytes[*start..],
        }
    }

    /// Adds the first `len` bytes of `out`.
    pub(super) fn push(&mut self, out: Out<'_>, len: usize) {
        let more = match (&*self, out) {
            (Self::Empty, Out::Shared(bytes, start, _)) => {
                *self = Self::Shared(Arc::clone(bytes), start, start + len);
                return;
            }
            (_, Out::Shared(bytes, start, _)) => &bytes[start..start + len],
            (_, Out::Bytes(bytes)) => &bytes[..len],
        };
        if let Self::Own(bytes, start) = self {
            // What is acknowledged goes when it is the larger part, so that each byte moves once at most.
            if *start > bytes.len() / 2 {
                bytes.drain(..*start);
                *start = 0;
            }
            bytes.extend_from_slice(more);
        } else {
            let bytes = [self.bytes(), more].concat();
            *self = Self::Own(bytes, 0);
        }
    }

    /// Forgets the first `len` bytes, or all if there are fewer.
    pub(super) fn forget(&mut self, len: usize) {
        if len >= self.bytes().len() {
            *self = Self::Empty;
            return;
        }
        match self {
            Self::Empty => {}
            Self::Shared(_, start, _) | Self::Own(_, start) => *start += len,
        }
    }
}

/// The sender's half of a busy connection.
#[derive(Debug)]
pub(super) struct Flight {
    /// Whose it is.
    pub(super) index: u32,
    /// SND.UNA.
    pub(super) first: u32,
    /// Up to here was sent when a loss showed: until it is acknowledged, each partial acknowledgement tells of the next
    /// hole (RFC 6582).
    pub(super) recover: u32,
    /// Bytes from `first` on, sent or not. The SYN, which comes before them, is not counted.
    pub(super) unacked: Unacked,
    /// A FIN follows the bytes.
    pub(super) fin: bool,
    /// How often in a row the alarm went.
    pub(super) tries: u8,
    /// Duplicate acknowledgements in a row; before the handshake: whether an old connection was in the way.
    pub(super) duplicates: u8,
    /// Which alarm counts.
    pub(super) alarm: u32,
}

impl Flight {
    pub(super) const fn new(index: u32, first: u32) -> Self {
        let (fin, tries, duplicates, alarm) = (false, 0, 0, 0);
        Self { index, first, recover: first, unacked: Unacked::Empty, fin, tries, duplicates, alarm }
    }

    /// Sequence numbers that its bytes and its FIN take.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.unacked.bytes().len()).unwrap_or(u32::MAX).saturating_add(u32::from(self.fin))
    }
}

/// An alarm, which counts only if its flight still names it.
#[derive(Clone, Copy, Debug)]
struct Alarm {
    due: Instant,
    flight: u32,
    serial: u32,
}

/// Alarms at a few fixed distances. Those of one distance are due in the order in which they were set, so each distance
/// has a queue, and nothing is ever sorted or taken out of the middle: an alarm that counts no more is passed over when
/// it is due. There are as many as segments were sent within their distance.
#[derive(Debug)]
pub(super) struct Alarms {
    queues: [VecDeque<Alarm>; Self::LEVELS as usize],
    distance: Duration,
    serial: u32,
}

impl Alarms {
    /// Distances; each is twice the one before.
    pub(super) const LEVELS: u8 = 8;

    /// None yet. `distance` is the shortest.
    pub(super) fn new(distance: Duration) -> Self {
        Self { queues: Default::default(), distance, serial: 0 }
    }

    /// Sets the alarm of a flight; the one before counts no more.
    pub(super) fn set(&mut self, key: u32, flight: &mut Flight, level: u8, now: Instant) {
        let level = level.min(Self::LEVELS - 1);
        self.serial = self.serial.wrapping_add(1);
        flight.alarm = self.serial;
        let due = now + self.distance * (1 << level);
        self.queues[usize::from(level)].push_back(Alarm { due, flight: key, serial: self.serial });
    }

    /// The next that is due and of a flight that is `live`, with its key.
    pub(super) fn take(&mut self, now: Instant, live: impl Fn(u32, u32) -> bool) -> Option<u32> {
        for queue in &mut self.queues {
            while let Some(alarm) = queue.front().copied().filter(|alarm| alarm.due <= now) {
                queue.pop_front();
                if live(alarm.flight, alarm.serial) {
                    return Some(alarm.flight);
                }
            }
        }
        None
    }

    /// When the next one is due. Those at the front that count no more are dropped.
    pub(super) fn next(&mut self, live: impl Fn(u32, u32) -> bool) -> Option<Instant> {
        for queue in &mut self.queues {
            while queue.front().is_some_and(|alarm| !live(alarm.flight, alarm.serial)) {
                queue.pop_front();
            }
        }
        self.queues.iter().filter_map(|queue| queue.front()).map(|alarm| alarm.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_added_behind_and_forgotten_in_front() {
        let shared: Arc<[u8]> = Arc::from(&b"0123456789"[..]);
        let mut unacked = Unacked::default();
        unacked.push(Out::Shared(&shared, 2, 9), 3);
        assert!(matches!(unacked, Unacked::Shared(..)));
        unacked.forget(1);
        assert_eq!(unacked.bytes(), b"34");
        unacked.push(Out::Bytes(b"abc"), 2);
        unacked.push(Out::Shared(&shared, 0, 10), 1);
        assert_eq!(unacked.bytes(), b"34ab0");
        unacked.forget(4);
        unacked.push(Out::Bytes(b"xyz"), 3);
        assert_eq!(unacked.bytes(), b"0xyz");
        unacked.forget(100);
        assert!(matches!(unacked, Unacked::Empty));
    }

    #[test]
    fn an_alarm_goes_once_when_it_is_due_and_counts() {
        let mut alarms = Alarms::new(Duration::from_millis(100));
        let (mut near, mut far) = (Flight::new(0, 0), Flight::new(1, 0));
        alarms.set(0, &mut near, 0, Instant::ZERO);
        alarms.set(1, &mut far, 2, Instant::ZERO);
        alarms.set(0, &mut near, 0, Instant::from_millis(50));
        let (near, far) = (near.alarm, far.alarm);
        let live = |key, serial| serial == if key == 0 { near } else { far };
        assert_eq!(alarms.take(Instant::from_millis(149), live), None);
        assert_eq!(alarms.next(live), Some(Instant::from_millis(150)));
        assert_eq!(alarms.take(Instant::from_millis(150), live), Some(0));
        assert_eq!(alarms.take(Instant::from_millis(400), live), Some(1));
        assert_eq!(alarms.next(live), None);
    }
}
