//! Where a timer belongs: the wheel's arithmetic, without its lists.
//!
//! All levels are rings of [`SLOTS`] slots. A slot of level 0 is one tick; a slot of each level above is as long as
//! `2^SHIFT` slots below. Slots are aligned: slot number `n` of a level with slots of `2^s` ticks holds the deadlines
//! `n << s ..= (n << s) + 2^s - 1`, and lies at index `n % SLOTS` of the ring.
//!
//! Seen from the cursor, which stands in number `c` of a level, its numbers `c ..= c + 1023` have distinct indices. A
//! deadline goes to the lowest level where its number is among them. So level 0 reaches 1023 ticks ahead (102 s at
//! 100 ms), which is all that heartbeats and handshakes need, and nothing there ever moves.
//!
//! A deadline that does not fit below is at least 1024 numbers ahead there, so at least `1024 >> SHIFT = 4` numbers
//! ahead here: a slot within the next [`OPEN`] numbers gets no new timers, and (see the test) all of its timers fit
//! below. It is *open*: the wheel moves them down, one by one, long before the first is due.

/// Slots of a level.
pub(super) const SLOTS: u32 = 1024;

/// Each level is this many bits coarser than the one below.
pub(super) const SHIFT: u32 = 8;

/// Levels: slots of 100 ms, 26 s, 1.8 h and 19 days, which reach 102 s, 7.3 h, 78 days and all 13 years.
pub(super) const LEVELS: u32 = 4;

/// Slots this many numbers ahead of the cursor, and fewer, are open.
pub(super) const OPEN: u32 = (SLOTS >> SHIFT) - 1;

const _: () = assert!((u32::MAX >> (SHIFT * (LEVELS - 1))) < SLOTS, "the last level holds every deadline");

/// A slot of a level: `level * SLOTS + index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(pub(super) u32);

impl Slot {
    /// Slots of all levels.
    pub(super) const COUNT: u32 = LEVELS * SLOTS;

    /// The slot of `level` that holds number `number`.
    pub(super) const fn new(level: u32, number: u32) -> Self {
        Self(level * SLOTS + number % SLOTS)
    }

    /// Its level, 0 the finest.
    pub(super) const fn level(self) -> u32 {
        self.0 / SLOTS
    }

    /// Its place in the level's ring.
    pub(super) const fn index(self) -> u32 {
        self.0 % SLOTS
    }
}

/// The slot number of `tick` in `level`.
pub(super) const fn number(level: u32, tick: u32) -> u32 {
    tick >> (SHIFT * level)
}

/// The first tick of slot `number` in `level`.
pub(super) const fn start(level: u32, number: u32) -> u32 {
    number << (SHIFT * level)
}

/// Where a timer belongs that is armed (or moved) while the wheel stands at `cursor`. One that is overdue belongs to
/// the cursor's own tick.
pub(super) const fn slot(deadline: u32, cursor: u32) -> Slot {
    let deadline = if deadline < cursor { cursor } else { deadline };
    let mut level = 0;
    while level < LEVELS - 1 && number(level, deadline) - number(level, cursor) >= SLOTS {
        level += 1;
    }
    Slot::new(level, number(level, deadline))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_begin_where_the_one_below_ends() {
        assert_eq!(slot(5, 5), Slot::new(0, 5));
        assert_eq!(slot(1023, 0), Slot::new(0, 1023));
        assert_eq!(slot(1024, 0), Slot::new(1, 4));
        assert_eq!(slot(1024, 1), Slot::new(0, 0));
        assert_eq!(slot(1024 * 256 - 1, 0), Slot::new(1, 1023));
        assert_eq!(slot(1024 * 256, 0), Slot::new(2, 4));
        assert_eq!(slot(1024 * 65536 - 1, 0), Slot::new(2, 1023));
        assert_eq!(slot(1024 * 65536, 0), Slot::new(3, 4));
        assert_eq!(slot(u32::MAX, 0), Slot::new(3, 255));
    }

    #[test]
    fn what_is_overdue_belongs_to_the_cursor() {
        assert_eq!(slot(0, 5000), slot(5000, 5000));
        assert_eq!(slot(0, u32::MAX), Slot::new(0, u32::MAX));
    }

    /// Cursors and deadlines near the borders of levels as well as anywhere.
    fn tick() -> impl Strategy<Value = u32> {
        let border = (0_u32..32, 0_u32..8).prop_map(|(bits, off)| (1_u32 << bits).wrapping_add(off).wrapping_sub(4));
        prop_oneof![any::<u32>(), border]
    }

    proptest! {
        #[test]
        fn a_slot_holds_one_number_at_a_time(cursor in tick(), ahead in tick()) {
            let deadline = cursor.saturating_add(ahead);
            let slot = slot(deadline, cursor);
            let (level, ahead) = (slot.level(), number(slot.level(), deadline) - number(slot.level(), cursor));
            prop_assert!(level < LEVELS && ahead < SLOTS);
            prop_assert_eq!(slot.index(), number(level, deadline) % SLOTS);
            prop_assert_eq!(Slot::new(level, slot.index()), slot);
            prop_assert!(start(level, number(level, deadline)) <= deadline);
            // Nothing new comes into open slots.
            prop_assert!(level == 0 || ahead > OPEN);
        }

        #[test]
        fn all_that_an_open_slot_holds_fits_below(cursor in tick(), level in 1..LEVELS, ahead in 0..=OPEN, at in any::<u32>()) {
            let number = number(level, cursor) + ahead;
            let length = 1 << (SHIFT * level);
            if let Some(deadline) = number.checked_mul(length).and_then(|start| start.checked_add(at % length)) {
                prop_assert!(slot(deadline, cursor).level() < level);
            }
        }
    }
}
