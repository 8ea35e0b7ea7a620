//! Flow control (RFC 9113 section 5.2): how much each side may still send.

/// The largest window (section 6.9.1).
pub(super) const WINDOW_MAX: u32 = (1 << 31) - 1;

/// What every window is at first (section 6.9.2).
pub(super) const WINDOW_FIRST: u32 = 65_535;

/// How much we may send. Below zero after the peer made all windows smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendWindow(i32);

/// A window would be over [`WINDOW_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl SendWindow {
    /// Of so many bytes, at most [`WINDOW_MAX`].
    pub(super) fn new(bytes: u32) -> Self {
        Self(i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    /// Bytes that may be sent.
    pub(super) fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Takes what is sent, at most [`SendWindow::room`].
    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.room());
        self.0 = self.0.saturating_sub(i32::try_from(bytes).unwrap_or(i32::MAX));
    }

    /// It grows, or shrinks. Whether there was no room and is now: only then somebody may wait for it.
    pub(super) fn opens(&mut self, bytes: i64) -> Result<bool, TooLarge> {
        let before = self.room();
        self.shift(bytes)?;
        Ok(before == 0 && self.room() > 0)
    }

    /// It grows, or shrinks when the peer changes the first size of all windows. It cannot go below -[`WINDOW_MAX`]: what
    /// has been sent was within an earlier first size.
    pub(super) fn shift(&mut self, bytes: i64) -> Result<(), TooLarge> {
        let bytes = i64::from(self.0) + bytes;
        self.0 = i32::try_from(bytes.max(-i64::from(WINDOW_MAX))).map_err(|_| TooLarge)?;
        Ok(())
    }
}

/// How much the peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveWindow {
    left: u32,
    /// Done with, and not given back yet.
    credit: u32,
}

impl ReceiveWindow {
    /// Of so many bytes, at most [`WINDOW_MAX`].
    pub(super) const fn new(bytes: u32) -> Self {
        Self { left: bytes, credit: 0 }
    }

    /// Takes what comes, if that fits.
    pub(super) const fn take(&mut self, bytes: u32) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Bytes of a window of `size` that have come and are not done with.
    pub(super) const fn held(self, size: u32) -> u32 {
        size.saturating_sub(self.left).saturating_sub(self.credit)
    }

    /// So many bytes are done with; no more than are held count. Returns by how much the peer's window is to grow, once
    /// half of it is used: more often would be a frame for each message, less often a peer that waits.
    pub(super) fn give_back(&mut self, bytes: u32, size: u32) -> Option<u32> {
        self.credit += bytes.min(self.held(size));
        if self.credit == 0 || self.credit < size / 2 {
            return None;
        }
        let grown = std::mem::take(&mut self.credit);
        self.left += grown;
        Some(grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Dice;

    #[test]
    fn a_window_shrinks_below_zero_and_grows_no_further_than_31_bits_6_9_2() {
        let mut window = SendWindow::new(100);
        window.take(100);
        assert_eq!(window.shift(-60), Ok(()));
        assert_eq!((window, window.room()), (SendWindow(-60), 0));
        assert_eq!(window.shift(i64::from(WINDOW_MAX)), Ok(()));
        assert_eq!(window.shift(60), Ok(()), "2^31 - 1 is a window");
        assert_eq!(window.shift(1), Err(TooLarge));
    }

    #[test]
    fn half_a_window_is_given_back_at_once() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.take(60));
        assert!(!window.take(41));
        assert_eq!(window.give_back(49, 100), None);
        assert_eq!(window.held(100), 11);
        assert_eq!(window.give_back(500, 100), Some(60), "no more than has come");
        assert_eq!(window, ReceiveWindow::new(100));
    }

    /// Both ends of one window, in any order of events: what the sender thinks it may send always fits, what is held never
    /// exceeds the window, and after all is consumed at least half of it is open.
    #[test]
    fn both_ends_agree() {
        for seed in 0..500 {
            let mut dice = Dice::new(seed);
            let size = u32::try_from(dice.below(100_000)).expect("it fits") + 1;
            let (mut sender, mut receiver) = (SendWindow::new(size), ReceiveWindow::new(size));
            let (mut held, mut updates) = (0, Vec::new());
            for _ in 0..200 {
                match dice.below(3) {
                    0 => {
                        let bytes = dice.below(sender.room() + 1);
                        sender.take(bytes);
                        assert!(receiver.take(bytes.try_into().expect("it fits")), "seed {seed}");
                        held += bytes;
                    }
                    1 => {
                        let bytes = dice.below(held + 1);
                        held -= bytes;
                        updates.extend(receiver.give_back(bytes.try_into().expect("it fits"), size));
                    }
                    _ => updates.drain(..).for_each(|grown| sender.shift(i64::from(grown)).expect("it fits")),
                }
                assert_eq!(receiver.held(size) as usize, held);
                assert!(held <= size as usize);
            }
            updates.extend(receiver.give_back(held.try_into().expect("it fits"), size));
            updates.drain(..).for_each(|grown| sender.shift(i64::from(grown)).expect("it fits"));
            assert!(sender.room() >= size as usize / 2, "seed {seed}: no deadlock");
        }
    }
}
