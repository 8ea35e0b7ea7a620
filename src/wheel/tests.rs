#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::place::{self, SLOTS};
use super::*;

#[derive(Default)]
struct Table(Vec<Timer>);

impl Store for Table {
    fn timer(&mut self, key: u32) -> &mut Timer {
        &mut self.0[key as usize]
    }
}

/// A wheel, its timers, and what they ought to be.
struct Model {
    wheel: Wheel,
    table: Table,
    now: u32,
    armed: BTreeMap<u32, u32>,
}

impl Model {
    fn new(keys: u32) -> Self {
        let table = Table((0..keys).map(|_| Timer::new()).collect());
        Self { wheel: Wheel::new(TICK), table, now: 0, armed: BTreeMap::new() }
    }

    fn arm(&mut self, key: u32, deadline: u32) {
        self.wheel.arm(&mut self.table, key, Tick(deadline));
        self.armed.insert(key, deadline);
    }

    fn disarm(&mut self, key: u32) {
        self.wheel.disarm(&mut self.table, key);
        self.armed.remove(&key);
    }

    /// One call.
    fn pop(&mut self) -> Option<u32> {
        let key = self.wheel.pop(&mut self.table, Tick(self.now))?;
        let deadline = self.armed.remove(&key).expect("only armed timers fire, and once");
        assert!(deadline <= self.now, "key {key} is due at {deadline} and fired at {}", self.now);
        assert!(!self.table.0[key as usize].is_armed());
        Some(key)
    }

    /// All that is due, in as many calls as the wheel wants.
    fn pop_all(&mut self) -> Vec<u32> {
        let mut fired: Vec<u32> = std::iter::from_fn(|| self.pop()).collect();
        while self.wheel.next_expiry().is_some_and(|tick| tick.0 <= self.now) {
            fired.extend(std::iter::from_fn(|| self.pop()));
        }
        assert!(self.armed.values().all(|&deadline| deadline > self.now), "something due was left at {}", self.now);
        fired
    }

    /// Checks every link and bit.
    fn check(&mut self) {
        assert_eq!(self.wheel.len(), self.armed.len());
        assert_eq!(self.wheel.is_empty(), self.armed.is_empty());
        let first = self.armed.values().min().copied();
        let expiry = self.wheel.next_expiry().map(|tick| tick.0);
        assert_eq!(expiry.is_some(), first.is_some());
        assert!(expiry <= first || first.is_some_and(|first| first <= self.now), "{expiry:?} is after {first:?}");
        let mut seen = 0;
        for slot in (0..Slot::COUNT).map(Slot) {
            let occupied = self.wheel.occupied[slot.level() as usize].distance(slot.index()) == Some(0);
            let chains = self.wheel.first[slot.0 as usize];
            assert_eq!(occupied, chains != [!NONE; CHAINS as usize], "{slot:?}");
            if occupied {
                seen += (0..).zip(chains).map(|(chain, first)| self.check_chain(slot, chain, !first)).sum::<usize>();
            }
        }
        assert_eq!(seen, self.armed.len());
    }

    /// Checks one chain and says how long it is.
    fn check_chain(&self, slot: Slot, chain: u32, mut key: u32) -> usize {
        let (mut prev, mut seen) = (FIRST | slot.0, 0);
        while key != NONE {
            let timer = &self.table.0[key as usize];
            let may_be_stale = slot == Slot::new(0, self.wheel.cursor) && prev & FIRST != 0;
            assert!(timer.prev == prev || may_be_stale && timer.prev != NONE);
            assert_eq!(key % CHAINS, chain);
            assert_eq!(timer.deadline(), self.armed.get(&key).copied().map(Tick));
            let number = place::number(slot.level(), timer.tick.max(self.wheel.cursor));
            assert_eq!(number % SLOTS, slot.index(), "{slot:?} holds {timer:?}");
            (prev, key) = (key, timer.next);
            seen += 1;
        }
        seen
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// Key, and ticks from now; late ones are in the past.
    Arm(u32, u32),
    ArmLate(u32, u32),
    Disarm(u32),
    /// Let time pass and fire all.
    Advance(u32),
    /// Let time pass and fire some only.
    AdvanceCapped(u32, usize),
    /// Fire all of the time that the wheel asks for next.
    Follow,
}

/// Numbers of any size, each size as likely.
fn ticks(bits: u32) -> impl Strategy<Value = u32> {
    (0..=bits, any::<u32>()).prop_map(|(bits, random)| random & 1_u32.checked_shl(bits).map_or(u32::MAX, |b| b - 1))
}

/// A few per chain.
const KEYS: u32 = 48;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..KEYS, ticks(31)).prop_map(|(key, ahead)| Op::Arm(key, ahead)),
        4 => (0..KEYS, 200..700_u32).prop_map(|(key, ahead)| Op::Arm(key, ahead)),
        1 => (0..KEYS, ticks(31)).prop_map(|(key, ago)| Op::ArmLate(key, ago)),
        3 => (0..KEYS).prop_map(Op::Disarm),
        4 => ticks(28).prop_map(Op::Advance),
        2 => (ticks(20), 0..4_usize).prop_map(|(step, cap)| Op::AdvanceCapped(step, cap)),
        4 => Just(Op::Follow),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn agrees_with_a_map(ops in prop::collection::vec(op(), 1..150)) {
        let mut model = Model::new(KEYS);
        let last = ops.len() - 1;
        for (i, op) in ops.into_iter().enumerate() {
            match op {
                Op::Arm(key, ahead) => model.arm(key, model.now.saturating_add(ahead)),
                Op::ArmLate(key, ago) => model.arm(key, model.now.saturating_sub(ago)),
                Op::Disarm(key) => model.disarm(key),
                Op::Advance(step) => {
                    model.now = model.now.saturating_add(step);
                    model.pop_all();
                }
                Op::AdvanceCapped(step, cap) => {
                    model.now = model.now.saturating_add(step);
                    for _ in 0..cap {
                        model.pop();
                    }
                }
                Op::Follow => {
                    model.now = model.wheel.next_expiry().map_or(model.now, |tick| tick.0.max(model.now));
                    model.pop_all();
                }
            }
            // Every slot is looked at, which takes a while.
            if i % 8 == 0 || i == last {
                model.check();
            }
        }
    }

    #[test]
    fn fires_on_the_tick_when_called_as_asked(ahead in prop::collection::vec(ticks(32), 1..60), begin in ticks(32)) {
        let mut model = Model::new(60);
        model.now = begin;
        model.pop_all();
        for (key, ahead) in (0..).zip(ahead) {
            model.arm(key, begin.saturating_add(ahead));
        }
        while let Some(Tick(next)) = model.wheel.next_expiry() {
            prop_assert!(next > model.now || next == begin);
            model.now = next;
            let due: Vec<u32> = model.armed.iter().filter(|&(_, &at)| at == next).map(|(&key, _)| key).collect();
            let mut fired = model.pop_all();
            fired.sort_unstable();
            prop_assert_eq!(fired, due);
        }
        prop_assert!(model.armed.is_empty());
    }
}

#[test]
fn one_timer_fires_on_its_tick_and_not_before() {
    for deadline in
        [1, 2, 299, 300, 1023, 1024, 1025, 2047, 2048, 65_535, 65_536, 262_143, 262_144, 1 << 26, u32::MAX - 1]
    {
        let mut model = Model::new(1);
        model.arm(0, deadline);
        for now in [deadline.saturating_sub(1024), deadline - 1, deadline] {
            model.now = now;
            assert_eq!(model.pop_all().len(), usize::from(now == deadline), "{deadline} at {now}");
        }
    }
}

#[test]
fn a_deadline_in_the_past_fires_at_the_next_call() {
    let mut model = Model::new(2);
    model.now = 70_000;
    model.pop_all();
    model.arm(0, 3);
    model.arm(1, 70_000);
    assert_eq!(model.wheel.next_expiry(), Some(Tick(70_000)));
    assert_eq!(model.pop_all().len(), 2);
    assert_eq!(model.wheel.next_expiry(), None);
}

#[test]
fn time_that_goes_back_fires_nothing() {
    let mut model = Model::new(1);
    model.now = 500;
    model.pop_all();
    model.arm(0, 100);
    model.now = 99;
    assert_eq!(model.pop(), None);
}

#[test]
fn a_capped_turn_is_continued_in_order() {
    let mut model = Model::new(100);
    for key in 0..100 {
        model.arm(key, 10 + key / 10);
    }
    model.now = 50;
    let mut order = Vec::new();
    for _turn in 0..20 {
        order.extend((0..5).filter_map(|_| model.pop()).map(|key| key / 10));
        assert!(model.wheel.is_empty() || model.wheel.next_expiry() <= Some(Tick(50)));
    }
    assert_eq!(order.len(), 100);
    assert!(order.is_sorted());
}

#[test]
fn armed_again_inside_its_own_slot() {
    let mut model = Model::new(3);
    for key in [0, 1, 2, 1, 2, 0, 0] {
        model.arm(key, 7);
        model.check();
    }
    model.disarm(1);
    model.disarm(1);
    model.check();
    model.now = 7;
    assert_eq!(model.pop_all().len(), 2);
}

#[test]
fn a_full_coarse_slot_is_moved_in_bounded_steps_and_in_time() {
    const KEYS: u32 = 5000;
    let mut model = Model::new(KEYS);
    for key in 0..KEYS {
        model.arm(key, 2048 + key % 256);
    }
    let mut fired = 0;
    while let Some(Tick(next)) = model.wheel.next_expiry() {
        model.now = next.max(model.now);
        let fine_before = in_level_0(&model);
        while model.pop().is_some() {
            fired += 1;
        }
        assert!(in_level_0(&model).saturating_sub(fine_before) <= Wheel::MOVES_PER_POP as usize);
        assert!(model.armed.values().all(|&deadline| deadline > model.now), "late at {}", model.now);
        assert!(model.now < 2048 || model.wheel.occupied[1].is_empty(), "not moved in time");
    }
    assert_eq!(fired, KEYS);
}

#[test]
fn a_stall_is_caught_up_with_in_bounded_steps() {
    const KEYS: u32 = 5000;
    let mut model = Model::new(KEYS);
    for key in 0..KEYS {
        model.arm(key, 2048 + 256 * (key % 2));
    }
    // Both slots of level 1 are whole, the second begins now and ends later.
    model.now = 2304;
    let mut calls = 0;
    while model.wheel.next_expiry() <= Some(Tick(2304)) && !model.wheel.is_empty() {
        model.pop();
        calls += 1;
    }
    assert!(model.armed.is_empty());
    assert!(calls >= KEYS);
}

fn in_level_0(model: &Model) -> usize {
    let mut count = 0;
    for &first in model.wheel.first[..SLOTS as usize].iter().flatten() {
        let mut key = !first;
        while key != NONE {
            count += 1;
            key = model.table.0[key as usize].next;
        }
    }
    count
}

#[test]
fn deadlines_round_up_and_the_present_rounds_down() {
    let wheel = Wheel::new(TICK);
    let at = |nanos| Instant::from_nanos(nanos);
    assert_eq!(wheel.tick_of(at(0)), Tick(0));
    assert_eq!(wheel.tick_of(at(1)), Tick(1));
    assert_eq!(wheel.tick_of(at(100_000_000)), Tick(1));
    assert_eq!(wheel.tick_of(at(100_000_001)), Tick(2));
    assert_eq!(wheel.now_of(at(99_999_999)), Tick(0));
    assert_eq!(wheel.now_of(at(100_000_000)), Tick(1));
    assert_eq!(wheel.instant_of(Tick(3)), Instant::from_millis(300));
    assert_eq!(wheel.ticks_in(Duration::from_secs(30)), 300);
    assert_eq!(wheel.tick_of(at(u64::MAX)), Tick(u32::MAX));
    assert_eq!(wheel.now_of(at(u64::MAX)), Tick(u32::MAX));
    assert_eq!(Tick(u32::MAX).later(1), Tick(u32::MAX));
    assert_eq!(Wheel::new(Duration::ZERO).instant_of(Tick(5)), at(5));
}

#[test]
fn jitter_spreads_evenly_within_a_tenth() {
    for interval in [0, 1, 9, 10, 300, 600, u32::MAX] {
        for seed in 0..1000 {
            let spread = jitter(interval, seed);
            assert!(spread >= interval - interval / 10);
            assert!(spread <= interval.saturating_add(interval / 10));
        }
    }
    let mut counts = [0_u32; 61];
    for seed in 0..61_000 {
        counts[jitter(300, seed) as usize - 270] += 1;
    }
    assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
}
