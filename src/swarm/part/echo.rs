//! Those who send messages that come back: all once, in a closed loop, or at a rate.
//!
//! At a rate every message has a time when it should leave, by its number alone: the `k`-th of connection `c` of `n` is
//! number `k * n + c` of all. So nothing is kept for a message that is late, because its connection had too many under
//! way or the server did not read: it leaves when it can, its stamp says when it should have, and its latency counts
//! from there.

use std::time::Duration;

use hashbrown::HashMap;

use super::super::crowd::{Crowd, Heard, Member, Role};
use super::super::latency::Latencies;
use super::super::stamp::{Stamp, Template};
use super::super::tally::{Count, Tally};
use crate::io::Dial;
use crate::time::Instant;

/// Messages under way in a thread while the roll is called.
const ROLL_WINDOW: usize = 1024;
/// Messages that one connection sends in one go, however late it is.
const BATCH_MAX: u32 = 256;
/// And their bytes, when there is more than one.
const BATCH_BYTES: usize = 64 * 1024;
/// Bytes that wait to be sent, from which on an answer makes no more of them.
const STAGED_BYTES_MAX: usize = 320 * 1024;
/// Messages of all connections that are looked at in one turn, however many are due.
const DUE_PER_TURN: u64 = 16 * 1024;

/// The place of who is gone.
const NOWHERE: u32 = u32::MAX;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(in crate::swarm) struct Load {
    pub(in crate::swarm) pace: Pace,
    /// Messages under way per connection at most.
    pub(in crate::swarm) in_flight: u32,
    /// Those that are due from here on are measured.
    pub(in crate::swarm) measure_from: Instant,
    /// Nothing is due from here on.
    pub(in crate::swarm) until: Instant,
}

/// When messages are due.
#[derive(Clone, Copy, Debug)]
pub(in crate::swarm) enum Pace {
    /// One of each connection, not all at once.
    Roll,
    /// The next when one has come back.
    Closed,
    /// So many per second over all connections of the thread.
    Rate {
        /// Per second.
        per_second: f64,
        /// When the first is due.
        start: Instant,
    },
}

/// The echo clients of one thread.
#[derive(Debug)]
pub(in crate::swarm) struct Echoes {
    run: u32,
    template: Template,
    load: Option<Load>,
    /// Nothing more is due.
    is_spent: bool,
    /// Places of the connections, in the order of their turns, and the turn of each place.
    places: Vec<u32>,
    turns: Vec<u32>,
    /// How many messages had come back on connections that are gone, by their turns: the places may be somebody else's.
    came: HashMap<u32, u32>,
    /// Turns whose windows have not been full yet, in a closed loop.
    unfilled: Vec<u32>,
    /// The next message of all that comes due, or the next connection of the roll.
    cursor: u64,
    under_way: usize,
    /// Nanoseconds from when a message was due to when it came back, for each load.
    pub(in crate::swarm) latencies: Vec<Latencies>,
}

impl Load {
    /// When message `k` of the connection whose turn is `turn` of `turns` is due; `None` when that is up to answers.
    fn due(&self, k: u32, turn: u32, turns: usize) -> Option<Instant> {
        self.due_of_all(u64::from(k) * turns as u64 + u64::from(turn))
    }

    /// Counts messages that have left. In a closed loop they were not due before.
    fn count(&self, asked: u32, tally: &mut Tally) {
        tally.add(Count::Asked, u64::from(asked));
        if matches!(self.pace, Pace::Closed) {
            tally.add(Count::Due, u64::from(asked));
        }
    }

    fn is_measured(&self, now: Instant) -> bool {
        self.measure_from <= now && now < self.until
    }

    #[allow(clippy::cast_precision_loss, reason = "2^53 messages are more than a run has")]
    fn due_of_all(&self, number: u64) -> Option<Instant> {
        let Pace::Rate { per_second, start } = self.pace else { return None };
        let due = start + Duration::try_from_secs_f64(number as f64 / per_second).unwrap_or(Duration::MAX);
        (due < self.until).then_some(due)
    }
}

/// What has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    /// A message as it left. Those before it that have not come will not: there is one order.
    Whole(Stamp),
    /// The message of this number, changed.
    Changed(u32),
    /// What had come before, or was passed over.
    Again,
    /// Nothing that belongs to this load.
    Foreign,
}

/// Messages that have not come back.
const fn under_way(member: &Member) -> u32 {
    member.sent.wrapping_add(1).wrapping_sub(member.next)
}

/// Messages that have come back.
const fn came(member: &Member) -> u32 {
    member.next.saturating_sub(1)
}

impl Echoes {
    pub(in crate::swarm) fn new(run: u32, size: usize) -> Self {
        Self {
            run,
            template: Template::new(run, size),
            load: None,
            is_spent: false,
            places: Vec::new(),
            turns: Vec::new(),
            came: HashMap::new(),
            unfilled: Vec::new(),
            cursor: 0,
            under_way: 0,
            latencies: Vec::new(),
        }
    }

    /// Whether answers are being waited for.
    pub(in crate::swarm) const fn is_measuring(&self) -> bool {
        self.load.is_some() && !self.places.is_empty()
    }

    /// Adds what another thread has found.
    pub(in crate::swarm) fn merge(&mut self, other: &Self) {
        for (mine, more) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.merge(more);
        }
    }

    /// Begins another load with all echo clients that are open. Answers to earlier ones are no longer waited for.
    pub(in crate::swarm) fn begin<B: Dial>(&mut self, load: Load, crowd: &mut Crowd<B>) {
        self.hush(crowd);
        // Another run for each load: a late answer is then nobody's.
        self.run = self.run.wrapping_add(1);
        self.template = self.template.of_run(self.run);
        self.latencies.push(Latencies::new());
        (self.cursor, self.under_way) = (0, 0);
        self.places.clear();
        self.came.clear();
        self.unfilled.clear();
        self.turns.resize(crowd.places() as usize, 0);
        for place in 0..crowd.places() {
            if let Some(member) = crowd.standing_mut(place).filter(|member| member.role() == Role::Echo) {
                member.count_anew();
                self.turns[place as usize] = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
                self.places.push(place);
            }
        }
        (self.load, self.is_spent) = (Some(load), false);
        if matches!(load.pace, Pace::Closed) {
            self.unfilled.extend((0..).take(self.places.len()));
            self.fill_windows(&load, crowd);
        }
    }

    /// Sends as much as connections take: the rest follows when they have room.
    fn fill_windows<B: Dial>(&mut self, load: &Load, crowd: &mut Crowd<B>) {
        let mut unfilled = std::mem::take(&mut self.unfilled);
        unfilled.retain(|turn| !self.fill_window(*turn, load, crowd));
        self.unfilled = unfilled;
    }

    /// Whether it is full, or its connection gone.
    fn fill_window<B: Dial>(&mut self, turn: u32, load: &Load, crowd: &mut Crowd<B>) -> bool {
        let place = self.places[turn as usize];
        loop {
            let Some(asked) = self.send_batch(place, turn, load, crowd) else { return place == NOWHERE };
            if asked == 0 {
                return true;
            }
        }
    }

    /// Lets a connection send what is due and fits; `None` when it has no room, or is gone.
    fn send_batch<B: Dial>(&mut self, place: u32, turn: u32, load: &Load, crowd: &mut Crowd<B>) -> Option<u32> {
        let (now, turns, template) = (crowd.now(), self.places.len(), &mut self.template);
        let mut asked = 0;
        let sent = crowd.send(place, |member, client, out| {
            asked = catch_up(load, member, (turn, turns), now, batch(template), |member, number, due| {
                client.message(template.stamp(number, due), member.speaking(), out);
            });
        });
        load.count(asked, &mut crowd.tally);
        sent.then_some(asked)
    }

    /// A connection is gone, and what was due on it does not come back.
    pub(in crate::swarm) fn gone(&mut self, index: u32, member: &Member) {
        let Some(turn) = self.turn(index) else { return };
        self.places[turn as usize] = NOWHERE;
        self.came.insert(turn, came(member));
    }

    /// The turn of the connection at a place, when it has one.
    fn turn(&self, index: u32) -> Option<u32> {
        let turn = *self.turns.get(index as usize)?;
        (self.places.get(turn as usize) == Some(&index)).then_some(turn)
    }

    /// Sends no more. What was due and has not come back by now is measured with the time that it has taken so far.
    pub(in crate::swarm) fn hush<B: Dial>(&mut self, crowd: &mut Crowd<B>) {
        let Some(load) = self.load.take() else { return };
        let Some(latencies) = self.latencies.last_mut().filter(|_| matches!(load.pace, Pace::Rate { .. })) else {
            return;
        };
        let (now, turns) = (crowd.now(), self.places.len());
        for (turn, place) in (0..).zip(&self.places) {
            let stands = crowd.standing(*place).map(came);
            let came = stands.or_else(|| self.came.get(&turn).copied()).unwrap_or(0);
            let late = (came..).map_while(|k| load.due(k, turn, turns)).take_while(|due| *due <= now);
            late.filter(|due| *due >= load.measure_from).for_each(|due| {
                crowd.tally.one(Count::Late);
                latencies.record(now.since(due).as_nanos().try_into().unwrap_or(u64::MAX));
            });
        }
    }

    /// When the next message is due.
    pub(in crate::swarm) fn due(&self) -> Option<Instant> {
        let load = self.load.as_ref()?;
        match load.pace {
            Pace::Rate { .. } if !self.places.is_empty() => load.due_of_all(self.cursor),
            Pace::Roll if self.has_roll() => Some(Instant::ZERO),
            _ => None,
        }
    }

    fn has_roll(&self) -> bool {
        self.under_way < ROLL_WINDOW && self.cursor < self.places.len() as u64
    }

    /// Sends what is due.
    pub(in crate::swarm) fn send_due<B: Dial>(&mut self, crowd: &mut Crowd<B>) {
        let Some(load) = self.load else { return };
        let (now, turns) = (crowd.now(), self.places.len());
        self.send_load(load, now, turns, crowd);
        let is_spent = match load.pace {
            Pace::Closed => now >= load.until,
            Pace::Roll => self.cursor >= turns as u64,
            Pace::Rate { .. } => turns == 0 || load.due_of_all(self.cursor).is_none(),
        };
        if is_spent && !std::mem::replace(&mut self.is_spent, true) {
            crowd.tally.one(Count::Spent);
        }
    }

    fn send_load<B: Dial>(&mut self, load: Load, now: Instant, turns: usize, crowd: &mut Crowd<B>) {
        match load.pace {
            Pace::Closed => self.fill_windows(&load, crowd),
            Pace::Roll => {
                while self.has_roll() {
                    let place = self.places[usize::try_from(self.cursor).unwrap_or(0)];
                    self.cursor += 1;
                    crowd.tally.one(Count::Due);
                    self.under_way += usize::from(self.send(place, now, crowd));
                }
            }
            Pace::Rate { .. } if turns == 0 => {}
            Pace::Rate { .. } => {
                let end = self.cursor + DUE_PER_TURN;
                while self.cursor < end && load.due_of_all(self.cursor).is_some_and(|due| due <= now) {
                    let turn = self.cursor % turns as u64;
                    self.cursor += 1;
                    crowd.tally.one(Count::Due);
                    let turn = u32::try_from(turn).unwrap_or(0);
                    self.send_batch(self.places[turn as usize], turn, &load, crowd);
                }
            }
        }
    }

    fn send<B: Dial>(&mut self, place: u32, due: Instant, crowd: &mut Crowd<B>) -> bool {
        let template = &mut self.template;
        let sent = crowd.send(place, |member, client, out| {
            member.sent = member.sent.wrapping_add(1);
            client.message(template.stamp(member.sent, due), member.speaking(), out);
        });
        crowd.tally.add(Count::Asked, u64::from(sent));
        sent
    }

    /// A message came back.
    #[inline]
    pub(in crate::swarm) fn hear(&mut self, index: u32, member: &mut Member, payload: &[u8], heard: &mut Heard<'_>) {
        let Some(load) = self.load else {
            heard.tally.one(Count::Foreign);
            return;
        };
        match self.tell(member, payload) {
            Back::Foreign => heard.tally.one(Count::Foreign),
            Back::Again => heard.tally.one(Count::Wrong),
            Back::Changed(number) => {
                heard.tally.one(Count::Wrong);
                self.pass_over(index, member, number.wrapping_add(1), &load, heard);
                self.answer(index, member, &load, heard);
            }
            Back::Whole(stamp) => {
                if stamp.number != member.next {
                    self.pass_over(index, member, stamp.number, &load, heard);
                }
                member.next = stamp.number.wrapping_add(1);
                heard.tally.one(Count::Answered);
                heard.tally.add(Count::Timely, u64::from(load.is_measured(heard.now)));
                self.record(stamp.due, &load, heard.now);
                self.answer(index, member, &load, heard);
            }
        }
    }

    #[inline]
    fn tell(&self, member: &Member, payload: &[u8]) -> Back {
        let under_way = under_way(member);
        let Some(stamp) = Stamp::read(payload) else {
            let is_ours = under_way > 0 && payload.len() == self.template.len();
            return if is_ours { Back::Changed(member.next) } else { Back::Foreign };
        };
        let ahead = stamp.number.wrapping_sub(member.next);
        match (stamp.run == self.run, ahead < under_way) {
            (false, _) => Back::Foreign,
            (true, true) if self.template.is_like(payload) => Back::Whole(stamp),
            (true, true) => Back::Changed(stamp.number),
            // It never left.
            (true, false) if ahead <= u32::MAX / 2 && under_way > 0 => Back::Changed(member.next),
            (true, false) => Back::Again,
        }
    }

    /// What has not come before `next` does not come any more.
    fn pass_over(&mut self, index: u32, member: &mut Member, next: u32, load: &Load, heard: &mut Heard<'_>) {
        if let Some(turn) = self.turn(index) {
            let turns = self.places.len();
            for due in (member.next..next).filter_map(|number| load.due(number - 1, turn, turns)) {
                heard.tally.add(Count::Late, u64::from(due >= load.measure_from));
                self.record(due, load, heard.now);
            }
        }
        member.next = next;
    }

    #[inline]
    fn record(&mut self, due: Instant, load: &Load, now: Instant) {
        if due >= load.measure_from
            && let Some(latencies) = self.latencies.last_mut()
        {
            latencies.record(now.as_nanos().saturating_sub(due.as_nanos()));
        }
    }

    /// What an answer makes room for.
    fn answer(&mut self, index: u32, member: &mut Member, load: &Load, heard: &mut Heard<'_>) {
        if matches!(load.pace, Pace::Roll) {
            self.under_way = self.under_way.saturating_sub(1);
            return;
        }
        let Some(turn) = self.turn(index) else { return };
        // What has no room now follows with the next answer: what waits is not answered yet.
        if member.holds_back() || heard.answer.len() >= STAGED_BYTES_MAX {
            return;
        }
        let batch = batch(&self.template);
        let asked = catch_up(load, member, (turn, self.places.len()), heard.now, batch, |member, number, due| {
            heard.client.message(self.template.stamp(number, due), member.speaking(), heard.answer);
        });
        load.count(asked, heard.tally);
    }
}

/// Messages of one go.
fn batch(template: &Template) -> u32 {
    u32::try_from(BATCH_BYTES / template.len().max(1)).unwrap_or(BATCH_MAX).clamp(1, BATCH_MAX)
}

/// Lets a connection send what is due and fits, and returns how many messages that were.
fn catch_up(
    load: &Load,
    member: &mut Member,
    (turn, turns): (u32, usize),
    now: Instant,
    batch: u32,
    mut send: impl FnMut(&mut Member, u32, Instant),
) -> u32 {
    let mut sent = 0;
    while sent < batch && under_way(member) < load.in_flight {
        let due = match load.pace {
            Pace::Roll => None,
            Pace::Closed => (now < load.until).then_some(now),
            Pace::Rate { .. } => load.due(member.sent, turn, turns).filter(|due| *due <= now),
        };
        let Some(due) = due else { break };
        member.sent = member.sent.wrapping_add(1);
        send(member, member.sent, due);
        sent += 1;
    }
    sent
}
