//! A hierarchical timing wheel: every connection of a shard may have one timer in it, and none costs an allocation.
//!
//! The wheel knows keys (indices of the shard's table) and slots; the links between the timers of a slot lie in the
//! table's own entries, reached through [`Store`]. Arming, disarming and firing are O(1).
//!
//! There is no cascade. Level 0 has a slot for each of the next 1024 ticks, so ordinary deadlines never move. Later
//! ones wait in coarser levels; such a slot opens three of its own lengths before its first deadline (77 s for level 1)
//! and is emptied into the level below [`Wheel::MOVES_PER_POP`] timers at a time, in calls that have nothing due to
//! fire. Each timer moves at most once per level.
//!
//! Invariants:
//!
//! - The cursor never passes a slot that holds timers: not a tick of level 0, not the first tick of a coarser slot.
//!   Hence all of level 0's timers in the cursor's slot are due, and a slot never holds deadlines of two rounds.
//! - A timer never fires before its deadline, and fires in the first [`Wheel::pop`] at or after it when the wheel was
//!   called as [`Wheel::next_expiry`] asks. After a stall it catches up, a bounded step per call, oldest slots first.
//!
//! What the wheel does not do: read a clock, or move a deadline because a peer was heard. The heartbeat keeps
//! `last_seen` and arms again when its timer fires.

mod bitmap;
mod place;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::bitmap::Bitmap;
use self::place::{LEVELS, OPEN, Slot};
use crate::time::Instant;

/// The length of a tick unless something else is asked for.
pub const TICK: Duration = Duration::from_millis(100);

/// A point in wheel time: ticks since the clock began. The last one, 13 years away at [`TICK`], also stands for
/// whatever is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u32);

impl Tick {
    /// The first tick that begins at or after `at`: a deadline, so that its timer never fires early.
    #[must_use]
    pub fn at_or_after(at: Instant, tick: Duration) -> Self {
        Self(u32::try_from(at.as_nanos().div_ceil(nanos(tick))).unwrap_or(u32::MAX))
    }

    /// The tick that `at` is in: the present.
    #[must_use]
    pub fn containing(at: Instant, tick: Duration) -> Self {
        Self(u32::try_from(at.as_nanos() / nanos(tick)).unwrap_or(u32::MAX))
    }

    /// When it begins.
    #[must_use]
    pub fn start(self, tick: Duration) -> Instant {
        Instant::from_nanos(u64::from(self.0).saturating_mul(nanos(tick)))
    }

    /// That many ticks later.
    #[must_use]
    pub const fn later(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks))
    }
}

/// Never 0.
fn nanos(tick: Duration) -> u64 {
    u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// No neighbour. No key is that large.
const NONE: u32 = u32::MAX;

/// Set in [`Timer::prev`] of the first timer of a chain; the bits below are the slot then.
const FIRST: u32 = 1 << 31;

/// Chains of a slot. To walk one chain is to wait for memory at each step, because a timer's address is in the one
/// before it; [`Wheel::pop`] takes from several in turn, after touching all of them at once, so that their misses
/// overlap (1 M timers: 3 times as fast).
const CHAINS: u32 = 16;

/// One cache line.
type Chains = [u32; CHAINS as usize];

/// One timer: its deadline and its neighbours in its slot. It lies in the table entry of the connection that it is for,
/// which is not removed while the timer is armed.
#[derive(Clone, Debug)]
pub struct Timer {
    /// The key before it in its chain; or [`FIRST`] and the slot; or [`NONE`] when it is not armed. In the first timer of
    /// a chain in the cursor's slot it may be the key of one that has fired.
    prev: u32,
    /// The key after it in its chain, or [`NONE`].
    next: u32,
    /// The deadline.
    tick: u32,
}

// Two links and a deadline, 4 bytes each: part of the 64 bytes of a connection's hot entry.
const _: () = assert!(size_of::<Timer>() == 12);

impl Timer {
    /// Not armed.
    #[must_use]
    pub const fn new() -> Self {
        Self { prev: NONE, next: NONE, tick: 0 }
    }

    /// Whether it is in a wheel.
    #[must_use]
    pub const fn is_armed(&self) -> bool {
        self.prev != NONE
    }

    /// When it fires; `None` when it is not armed.
    #[must_use]
    pub const fn deadline(&self) -> Option<Tick> {
        if self.is_armed() { Some(Tick(self.tick)) } else { None }
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the timers are. The wheel asks only for keys that it was given in [`Wheel::arm`] and [`Wheel::disarm`].
pub trait Store {
    /// The timer of `key`, the same one each time.
    fn timer(&mut self, key: u32) -> &mut Timer;
}

/// The wheel of one shard. 256 KiB, of which it touches the slots that it uses, usually 64 KiB.
#[derive(Debug)]
pub struct Wheel {
    /// The complement of the first key of each slot's chains. So an empty chain ([`NONE`]) is 0, and memory that the
    /// kernel hands out zeroed need not be touched.
    first: Box<[Chains]>,
    /// Which slots of each level have one.
    occupied: [Bitmap; LEVELS as usize],
    /// Every tick before this one is done; this one perhaps.
    cursor: u32,
    armed: usize,
    /// Which chain is next.
    turn: u32,
    tick: Duration,
}

impl Wheel {
    /// Keys are less than this: a bit of a link is the wheel's.
    pub const KEYS_MAX: u32 = FIRST;

    /// How many timers one [`Wheel::pop`] moves to a finer level at most, a few microseconds' work.
    pub const MOVES_PER_POP: u32 = 64;

    /// Bytes of its slots.
    #[must_use]
    pub const fn memory(&self) -> usize {
        size_of_val(&*self.first)
    }

    /// An empty wheel that turns by `tick`, usually [`TICK`].
    #[must_use]
    pub fn new(tick: Duration) -> Self {
        let first = vec![[!NONE; CHAINS as usize]; Slot::COUNT as usize].into_boxed_slice();
        Self { first, occupied: Default::default(), cursor: 0, armed: 0, turn: 0, tick }
    }

    /// The deadline that `at` is: rounded up, so that a timer never fires early.
    #[must_use]
    pub fn tick_of(&self, at: Instant) -> Tick {
        Tick::at_or_after(at, self.tick)
    }

    /// The present, for [`Wheel::pop`]: rounded down, for the same reason.
    #[must_use]
    pub fn now_of(&self, at: Instant) -> Tick {
        Tick::containing(at, self.tick)
    }

    /// When `tick` begins.
    #[must_use]
    pub fn instant_of(&self, tick: Tick) -> Instant {
        tick.start(self.tick)
    }

    /// How many ticks `duration` takes, rounded up.
    #[must_use]
    pub fn ticks_in(&self, duration: Duration) -> u32 {
        self.tick_of(Instant::ZERO + duration).0
    }

    /// How many ticks ago the oldest deadline was that has passed and not fired; 0 when there is none.
    #[must_use]
    pub const fn behind(&self, now: Tick) -> u32 {
        now.0.saturating_sub(self.cursor)
    }

    /// How many timers are armed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.armed
    }

    /// Whether none is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Arms the timer of `key`, which is less than [`Wheel::KEYS_MAX`]; if it is armed, for the new deadline instead. A
    /// deadline in the past fires at the next [`Wheel::pop`].
    pub fn arm(&mut self, store: &mut impl Store, key: u32, deadline: Tick) {
        debug_assert!(key < Self::KEYS_MAX, "key {key} leaves no bit for the wheel");
        self.disarm(store, key);
        self.armed += 1;
        self.link(store, key, deadline.0);
    }

    /// Disarms the timer of `key`; nothing happens when it is not armed.
    pub fn disarm(&mut self, store: &mut impl Store, key: u32) {
        if store.timer(key).is_armed() {
            self.armed -= 1;
            self.unlink(store, key);
        }
    }

    /// The next timer that is due at `now`, disarmed. Call it until there is none, or until the turn has no more time
    /// for timers: the next call goes on where this one was.
    ///
    /// After a stall of more than a minute, timers beyond level 0 may be due to move before others can fire: then `None`
    /// may also mean that this call has moved its [`Wheel::MOVES_PER_POP`]. [`Wheel::next_expiry`] says when the
    /// wheel wants the next call, and that is not after `now` while anything is left to do.
    pub fn pop(&mut self, store: &mut impl Store, now: Tick) -> Option<u32> {
        let now = now.0;
        if now < self.cursor {
            return None;
        }
        let mut moves = 0;
        loop {
            let slot = Slot::new(0, self.cursor);
            if let Some(key) = self.first_of(store, slot) {
                self.armed -= 1;
                self.unlink_first(store, key, slot);
                return Some(key);
            }
            if let Some(slot) = self.open_slot(0) {
                if let Some(key) = self.fire_or_move(store, slot, now) {
                    return Some(key);
                }
                moves += 1;
                if moves == Self::MOVES_PER_POP {
                    return None;
                }
            } else {
                match self.next_start() {
                    Some(start) if start <= now => self.cursor = start,
                    _ => break,
                }
            }
        }
        self.cursor = now;
        self.move_ahead(store, moves);
        None
    }

    /// When the wheel wants to be called again at the latest, `None` when nothing is armed. It is never later than the
    /// first deadline; it may be earlier, to move timers to a finer level.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Tick> {
        let fine = self.occupied[0].distance(self.cursor).map(|ahead| self.cursor.saturating_add(ahead));
        let coarse = (1..LEVELS).filter_map(|level| {
            let number = self.first_number(level)?;
            Some(place::start(level, number.saturating_sub(OPEN)).max(self.cursor))
        });
        coarse.chain(fine).min().map(Tick)
    }

    /// Moves timers of open slots to finer levels before they are due, up to the limit for this call.
    fn move_ahead(&mut self, store: &mut impl Store, moves: u32) {
        for _ in moves..Self::MOVES_PER_POP {
            match self.open_slot(OPEN) {
                Some(slot) => self.fire_or_move(store, slot, self.cursor),
                None => return,
            };
        }
    }

    /// Takes the first timer out of a coarse slot: due at `now`, or moved to a finer level.
    fn fire_or_move(&mut self, store: &mut impl Store, slot: Slot, now: u32) -> Option<u32> {
        let key = self.first_of(store, slot)?;
        let deadline = store.timer(key).tick;
        self.unlink(store, key);
        if deadline <= now {
            self.armed -= 1;
            return Some(key);
        }
        self.link(store, key, deadline);
        None
    }

    /// The first timer of the next chain of `slot` that has any.
    fn first_of(&mut self, store: &mut impl Store, slot: Slot) -> Option<u32> {
        let chains = &self.first[slot.0 as usize];
        self.turn = (self.turn + 1) % CHAINS;
        if self.turn == 0 {
            // One after the other these would each cost a miss, here they cost little more than one together.
            let touched = chains.iter().filter(|&&key| key != !NONE).fold(0, |sum, &key| sum ^ store.timer(!key).next);
            std::hint::black_box(touched);
        }
        (0..CHAINS).map(|chain| !chains[((self.turn + chain) % CHAINS) as usize]).find(|&key| key != NONE)
    }

    /// A coarse slot that holds timers and is at most `ahead` numbers ahead of the cursor.
    fn open_slot(&self, ahead: u32) -> Option<Slot> {
        (1..LEVELS).find_map(|level| {
            let number = self.first_number(level)?;
            (number - place::number(level, self.cursor) <= ahead).then(|| Slot::new(level, number))
        })
    }

    /// The first tick that the cursor must not pass: a tick with timers, or where a coarse slot with timers begins.
    fn next_start(&self) -> Option<u32> {
        (0..LEVELS).filter_map(|level| Some(place::start(level, self.first_number(level)?))).min()
    }

    /// The number of the first slot of `level`, from the cursor on, that holds timers.
    fn first_number(&self, level: u32) -> Option<u32> {
        let bits = &self.occupied[level as usize];
        if bits.is_empty() {
            return None;
        }
        let number = place::number(level, self.cursor);
        bits.distance(number).map(|ahead| number + ahead)
    }

    /// Puts a timer that is in no slot at the front of the slot where it belongs now.
    fn link(&mut self, store: &mut impl Store, key: u32, deadline: u32) {
        let slot = place::slot(deadline, self.cursor);
        let chain = key % CHAINS;
        let next = !std::mem::replace(&mut self.first[slot.0 as usize][chain as usize], !key);
        *store.timer(key) = Timer { prev: FIRST | slot.0, next, tick: deadline };
        if next == NONE {
            self.occupied[slot.level() as usize].set(slot.index());
        } else {
            store.timer(next).prev = key;
        }
    }

    /// Takes an armed timer out of its slot. The slot need not be searched for: the first timer of a chain knows it, or
    /// is in the cursor's slot, and to the others it does not matter.
    fn unlink(&mut self, store: &mut impl Store, key: u32) {
        let at_cursor = Slot::new(0, self.cursor);
        if self.first[at_cursor.0 as usize][(key % CHAINS) as usize] == !key {
            self.unlink_first(store, key, at_cursor);
            return;
        }
        let timer = store.timer(key);
        let (prev, next) = (timer.prev, timer.next);
        timer.prev = NONE;
        if next != NONE {
            store.timer(next).prev = prev;
        }
        if prev & FIRST == 0 {
            store.timer(prev).next = next;
        } else {
            self.begin_chain(Slot(prev & !FIRST), key % CHAINS, next);
        }
    }

    /// Takes the first timer of a chain out of the cursor's slot. What its neighbour says about `prev` is wrong from now
    /// on, and it does not matter: writing there would cost a miss, and each timer of this slot fires soon.
    fn unlink_first(&mut self, store: &mut impl Store, key: u32, slot: Slot) {
        let timer = store.timer(key);
        timer.prev = NONE;
        let next = timer.next;
        self.begin_chain(slot, key % CHAINS, next);
    }

    /// Makes `key`, or nothing, the first of a chain that has lost its first one.
    fn begin_chain(&mut self, slot: Slot, chain: u32, key: u32) {
        let chains = &mut self.first[slot.0 as usize];
        chains[chain as usize] = !key;
        if *chains == [!NONE; CHAINS as usize] {
            self.occupied[slot.level() as usize].clear(slot.index());
        }
    }
}

/// An interval of `interval_ticks`, made up to 10 % shorter or longer by a hash of `seed` (a key, or a key and a count),
/// so that connections that came together do not stay together. Under 10 ticks there is nothing to spread.
#[must_use]
pub fn jitter(interval_ticks: u32, seed: u32) -> u32 {
    // The finalizer of MurmurHash3 (Appleby): neighbouring seeds give unrelated values.
    let hash = (seed ^ seed >> 16).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    let hash = hash ^ hash >> 16;
    let tenth = interval_ticks / 10;
    let spread = (u64::from(hash) * (2 * u64::from(tenth) + 1)) >> 32;
    (interval_ticks - tenth).saturating_add(u32::try_from(spread).unwrap_or(u32::MAX))
}
