//! A whole server under a seed: shards, peers of all kinds, faults, and oracles that judge what peers were told.
//!
//! [`run`] plays one world to its end. It has four parts: a wild one, where everything happens at once; a calm one, in
//! which all that is owed must arrive; one in which the dead must be found; and the drain, after which nothing may be
//! left. Everything follows from the seed, so a world that fails can be played again, see `tests/simulation.rs`.
//!
//! The oracles are in `oracles`, the peers' own strict codecs in `wire`, and what a seed decides in `plan`. That
//! the oracles can fail is shown with a [`Sabotage`].

mod calls;
mod carriage;
mod crowd;
mod intruder;
mod journal;
mod ledger;
mod line;
mod operator;
mod oracles;
mod peer;
mod plan;
mod poster;
mod reader;
mod report;
mod sabotage;
mod streams;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::report::Report;
pub use self::sabotage::{Sabotage, Trick};

use self::carriage::Lines;
use self::crowd::Crowd;
use self::journal::Journal;
use self::operator::Operator;
use self::peer::{Peer, Surroundings};
use self::plan::{Plan, entrances, live, router};
use self::wire::Zip;
use super::{Faults, HurriedClock, ManualClock, Net, Random, SimBackend};
use crate::config::Limits;
use crate::id::{ListenerId, ShardId};
use crate::mailbox::Doorbell;
use crate::metrics::Metrics;
use crate::shard::{Control, Live, Mail, Phase, Seed, Shard, Turn};
use crate::time::Clock as _;

/// How to play.
#[derive(Default)]
pub struct Options<'a> {
    /// Told of what happens.
    pub trace: Option<&'a mut dyn FnMut(fmt::Arguments<'_>)>,
    /// Breaks something, so that an oracle must fail.
    pub sabotage: Option<Sabotage>,
}

/// Plays the world of a seed.
///
/// # Errors
/// What an oracle found.
pub fn run(seed: u64, options: Options<'_>) -> Result<Report, String> {
    let mut world = World::new(seed, options);
    world.play().map_err(|fault| format!("at {} ms, step {}: {fault}", world.clock.now().as_millis(), world.step))?;
    Ok(world.report())
}

struct World<'a> {
    plan: Plan,
    random: Random,
    clock: ManualClock,
    net: Net,
    control: Arc<Control>,
    metrics: Metrics,
    doorbells: Vec<Arc<Doorbell>>,
    shards: Vec<Shard<SimBackend>>,
    /// Shards whose threads would have ended.
    done: Vec<bool>,
    peers: Vec<Peer>,
    crowd: Crowd,
    operator: Operator,
    lines: Lines,
    journal: Journal,
    zip: Zip,
    options: Options<'a>,
    /// Decides when the server is given other limits, if it ever is: apart, so that all else goes as it would without.
    reloads: Option<Random>,
    /// What the journal does, where some topics are durable: apart for the same reason.
    disk: Option<Random>,
    step: usize,
    turns: u64,
    digest: u64,
}

impl<'a> World<'a> {
    /// Rounds until nothing moves any more: far more than any world needs, and few enough to tell a livelock.
    const ROUNDS_MAX: usize = 20_000;

    fn new(seed: u64, options: Options<'a>) -> Self {
        let (mut random, mut reloads) = (Random::new(seed), Random::new(!seed));
        let reloads = reloads.chance(250).then_some(reloads);
        let mut plan = Plan::new(&mut random);
        let mut disk = Random::new(seed ^ 0xd15c);
        plan.durable = disk.chance(300);
        let disk = plan.durable.then_some(disk);
        let mut journal = Journal::default();
        let net = Net::new(random.bits(), plan.net);
        let (control, metrics) = (Arc::new(Control::new(live(&plan))), Metrics::new(plan.shards.into()));
        let mails = Mail::mesh(plan.shards, plan.limits.mailbox_capacity);
        let doorbells = mails.iter().map(Mail::doorbell).collect();
        let operator = Operator::new(seed, mails[0].postbox());
        let (entrances, router) = (entrances(), router());
        let shards = (0..).zip(mails).map(|(number, mail)| {
            let seed = Seed {
                id: ShardId(number),
                router: router.fresh(),
                entrances: Arc::clone(&entrances),
                mail,
                control: Arc::clone(&control),
                metrics: metrics.clone(),
            };
            let mut backend = net.backend();
            (0..).take(entrances.len()).for_each(|listener| backend.open(ListenerId(listener)));
            let doorbell = seed.mail.doorbell();
            let mut shard = Shard::new(backend, seed);
            if plan.durable {
                shard.join_journal(journal.join(doorbell));
            }
            shard
        });
        let shards: Vec<_> = shards.collect();
        let peers = (0..).zip(&plan.sketches).map(|(number, sketch)| Peer::new(number, *sketch)).collect();
        Self {
            done: vec![false; shards.len()],
            crowd: Crowd::new(&plan.crowd),
            operator,
            plan,
            random,
            clock: ManualClock::new(),
            net,
            control,
            metrics,
            doorbells,
            shards,
            peers,
            lines: Lines::default(),
            journal,
            zip: Zip::default(),
            options,
            reloads,
            disk,
            step: 0,
            turns: 0,
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        if let Some(trace) = &mut self.options.trace {
            trace(format_args!("{:#?}", self.plan));
        }
        for _ in 0..self.plan.steps {
            self.wild_step()?;
        }
        self.control.set_starved(false);
        self.replace(self.plan.limits.clone());
        self.step = usize::MAX >> 1; // whoever has not come yet comes now
        self.net.set_faults(Faults::NONE);
        self.quiesce()?;
        self.settled()?;
        self.bury()?;
        self.drain()?;
        self.nothing_left()
    }

    /// Peers and shards in some order, then some time.
    fn wild_step(&mut self) -> Result<(), String> {
        self.step += 1;
        self.operator.poll()?;
        self.poll_peers(false, 700)?;
        for _ in 0..self.random.within(1, 3) {
            self.turn_shards(800)?;
        }
        let millis = match self.random.below(20) {
            0..=9 => 0,
            10..=16 => self.random.below(20),
            17..=18 => self.random.below(100),
            _ if self.plan.jumpy => self.random.below(5000),
            _ => 1,
        };
        if self.random.chance(20) {
            let skew = i64::try_from(self.random.below(100_000)).unwrap_or(0);
            self.clock.jump_unix(skew - 50_000);
        }
        if self.plan.crowded && self.random.chance(50) {
            self.control.set_starved(self.random.chance(300));
        }
        self.reload();
        self.advance(millis);
        if self.step.is_multiple_of(4) { self.audit() } else { Ok(()) }
    }

    /// Has the shards follow other times, now and then: what has no deadline any more must get one again.
    fn reload(&mut self) {
        let Some(random) = &mut self.reloads else { return };
        if !random.chance(30) {
            return;
        }
        let mut limits = self.plan.limits.clone();
        for time in [&mut limits.heartbeat_interval, &mut limits.idle_timeout] {
            *time *= [0, 1, 5][random.below(3)];
        }
        for time in [&mut limits.handshake_timeout, &mut limits.keep_alive_timeout, &mut limits.queue_stall_timeout] {
            *time *= [1, 1, 5][random.below(3)];
        }
        self.replace(limits);
    }

    fn replace(&self, limits: Limits) {
        self.control.replace(Live { limits: Arc::new(limits), ..live(&self.plan) });
        self.doorbells.iter().for_each(|doorbell| doorbell.ring());
    }

    fn advance(&mut self, millis: usize) {
        self.clock.advance(Duration::from_millis(millis as u64));
    }

    fn poll_peers(&mut self, calm: bool, chance: u16) -> Result<u64, String> {
        let first = self.random.below(self.peers.len());
        self.lines.blow(calm);
        let mut moved = 0;
        for at in 0..self.peers.len() {
            let at = (first + at) % self.peers.len();
            if !self.random.chance(chance) {
                continue;
            }
            let mut around = Surroundings {
                net: &self.net,
                random: &mut self.random,
                lines: &mut self.lines,
                zip: &mut self.zip,
                sabotage: &mut self.options.sabotage,
                now: self.clock.now(),
                message_bytes_max: self.plan.limits.message_bytes_max,
                calm,
                moved: 0,
            };
            let peer = &mut self.peers[at];
            let before = (peer.stage, peer.seen.len());
            peer.poll(self.step, &mut around).map_err(|fault| format!("peer {at} ({:?}): {fault}", peer.sketch))?;
            moved += around.moved;
            self.digest = (self.digest ^ around.moved).wrapping_mul(0x0100_0000_01b3);
            let is_new = before.1 == 0 && !peer.seen.is_empty() && peer.synced.is_none();
            if before != (peer.stage, peer.seen.len()) {
                let (stage, code, end, status) = (peer.stage, peer.code, peer.end, peer.status);
                let seen = peer.seen[before.1..].to_vec();
                self.tell(format_args!("peer {at}: {stage:?} {status:?} {code:?} {end:?} saw {seen:?}"));
            }
            if is_new {
                self.sync(at);
            }
        }
        Ok(moved + self.poll_crowd(calm, chance)?)
    }

    fn poll_crowd(&mut self, calm: bool, chance: u16) -> Result<u64, String> {
        let mut around = Surroundings {
            net: &self.net,
            random: &mut self.random,
            lines: &mut self.lines,
            zip: &mut self.zip,
            sabotage: &mut self.options.sabotage,
            now: self.clock.now(),
            message_bytes_max: self.plan.limits.message_bytes_max,
            calm,
            moved: 0,
        };
        let stays = self.control.phase() != Phase::Running;
        self.crowd.poll(self.step, stays, chance, &self.peers, &mut around)?;
        around.lines.poll()?;
        // In a drain the clock may jump over the time that a server waits for the disk.
        let is_quick = calm || stays;
        let written = self.disk.as_mut().map_or(0, |random| self.journal.work(random, is_quick));
        let moved = around.moved + around.lines.blow(calm) + written;
        self.digest = (self.digest ^ moved).wrapping_mul(0x0100_0000_01b3);
        Ok(moved)
    }

    /// From here on this peer must see everything.
    fn sync(&mut self, at: usize) {
        let sent = self.peers.iter().map(|peer| peer.sent).collect();
        self.peers[at].synced = Some(sent);
    }

    fn turn_shards(&mut self, chance: u16) -> Result<(), String> {
        let first = self.random.below(self.shards.len());
        for at in 0..self.shards.len() {
            let at = (first + at) % self.shards.len();
            if self.done[at] || !self.random.chance(chance) {
                continue;
            }
            self.turns += 1;
            let turn = if self.random.chance(self.plan.hurry) {
                let step = Duration::from_micros(self.random.within(1, 2000) as u64);
                self.shards[at].turn(&HurriedClock::new(&self.clock, step))
            } else {
                self.shards[at].turn(&self.clock)
            };
            let turn = turn.map_err(|error| error.to_string())?;
            self.done[at] = turn == Turn::Done;
        }
        Ok(())
    }

    /// Goes on, without time passing, until nothing moves any more.
    fn quiesce(&mut self) -> Result<(), String> {
        let (mut still, mut last) = (0, (0, false));
        for _ in 0..Self::ROUNDS_MAX {
            let moved = self.poll_peers(true, 1000)?;
            let has_work = |shard: &mut Shard<SimBackend>| shard.backend().has_work() || shard.is_busy();
            let at_work = self.shards.iter_mut().zip(&self.done).any(|(shard, done)| !done && has_work(shard));
            self.turn_shards(1000)?;
            last = (moved, at_work);
            still = if moved > 0 || at_work { 0 } else { still + 1 };
            if still == 3 {
                return self.audit_quiet();
            }
        }
        Err(format!("it never comes to rest: {last:?}"))
    }

    fn audit(&self) -> Result<(), String> {
        for (at, shard) in self.shards.iter().enumerate() {
            shard.audit().map_err(|fault| format!("shard {at}: {fault}"))?;
        }
        Ok(())
    }

    /// At rest, no shard has anything to do: it would spin.
    fn audit_quiet(&self) -> Result<(), String> {
        for (at, shard) in self.shards.iter().enumerate().filter(|(at, _)| !self.done[*at]) {
            let audit = shard.audit().map_err(|fault| format!("shard {at}: {fault}"))?;
            if audit.busy || audit.staged_mail > 0 || audit.unanswered > 0 {
                return Err(format!("shard {at} spins, or waits in vain: {audit:?}"));
            }
        }
        Ok(())
    }

    /// At rest: everything that is owed has come, and what is said now comes to all.
    fn settled(&mut self) -> Result<(), String> {
        self.operator.at_rest()?;
        oracles::one_order(&self.peers, &self.plan)?;
        oracles::all_came(&self.peers, &self.plan)?;
        oracles::just_ends(&self.peers, &self.plan, false)?;
        self.crowd.at_rest(&self.peers)?;
        self.last_words()
    }

    /// Every well peer says something, and every well peer of its topic hears it.
    fn last_words(&mut self) -> Result<(), String> {
        for at in 0..self.peers.len() {
            if self.peers[at].is_well() && self.peers[at].synced.is_none() {
                self.sync(at);
            }
        }
        self.crowd.before_last_words(&self.peers);
        for at in 0..self.peers.len() {
            if !self.peers[at].is_well() {
                continue;
            }
            let mut around = Surroundings {
                net: &self.net,
                random: &mut self.random,
                lines: &mut self.lines,
                zip: &mut self.zip,
                sabotage: &mut None,
                now: self.clock.now(),
                message_bytes_max: self.plan.limits.message_bytes_max,
                calm: true,
                moved: 0,
            };
            self.peers[at].say(&mut around);
        }
        self.quiesce()?;
        oracles::one_order(&self.peers, &self.plan)?;
        oracles::all_came(&self.peers, &self.plan)?;
        self.crowd.after_last_words(&self.peers)
    }

    /// Time passes, in small steps; whoever is dead must be found in time.
    fn bury(&mut self) -> Result<(), String> {
        let limits = &self.plan.limits;
        let heartbeat = limits.heartbeat_interval + limits.heartbeat_interval / 10 + limits.heartbeat_timeout;
        let longest = heartbeat.max(limits.queue_stall_timeout).max(limits.handshake_timeout) + limits.close_timeout;
        // Each of up to three deadlines is rounded up to a tick, and looked at up to a step after it.
        let end = self.clock.now() + longest + 8 * crate::wheel::TICK;
        while self.clock.now() < end {
            let millis = self.random.within(50, 100);
            self.advance(millis);
            self.quiesce()?;
        }
        self.tell(format_args!("the dead must be gone"));
        oracles::dead_are_gone(&self.peers)?;
        self.settled()
    }

    fn drain(&mut self) -> Result<(), String> {
        self.tell(format_args!("drain"));
        let limits = &self.plan.limits;
        let patience = self.plan.drain + limits.close_timeout + limits.queue_stall_timeout + Duration::from_secs(2);
        self.control.drain(self.plan.drain);
        self.doorbells.iter().for_each(|doorbell| doorbell.ring());
        // As a thread's wait does, a look at the phase comes at the latest when the wait is over.
        if self.plan.wild_drain {
            self.net.set_faults(self.plan.net.faults);
            for _ in 0..20 {
                self.wild_step()?;
            }
            self.net.set_faults(Faults::NONE);
            self.step = usize::MAX >> 1;
        }
        let end = self.clock.now() + patience;
        let mut rounds = 0_usize;
        while !self.done.iter().all(|done| *done) {
            if self.clock.now() > end {
                let audits: Vec<_> = self.shards.iter().map(Shard::audit).collect();
                return Err(format!("the drain does not end: {:?}, {audits:?}", self.done));
            }
            rounds += 1;
            if rounds.is_multiple_of(4) {
                self.last_words()?;
            } else {
                self.quiesce()?;
            }
            self.advance(50);
        }
        oracles::one_order(&self.peers, &self.plan)?;
        oracles::just_ends(&self.peers, &self.plan, true)
    }

    /// After the drain nothing is held, and the books are balanced.
    fn nothing_left(&mut self) -> Result<(), String> {
        for _ in 0..200 {
            self.done.fill(false);
            self.turn_shards(1000)?;
        }
        for (at, shard) in self.shards.iter().enumerate() {
            let audit = shard.audit().map_err(|fault| format!("shard {at}: {fault}"))?;
            let held = (audit.connections, audit.streams, audit.unfinished_bytes, audit.timers, shard.core().topics());
            if held != (0, 0, 0, 0, (0, 0)) {
                return Err(format!("shard {at} still holds {held:?} after the drain"));
            }
        }
        let closed = |metrics: &crate::metrics::ShardMetrics| {
            crate::close::CloseReason::ALL.into_iter().map(|reason| metrics.closed(reason)).sum()
        };
        let (accepted, closed) = (self.metrics.total(|shard| shard.accepted_total.get()), self.metrics.total(closed));
        if accepted != closed {
            return Err(format!("{accepted} connections were accepted, {closed} closed"));
        }
        let held = [
            self.metrics.total(|shard| shard.queued_bytes.get()),
            self.metrics.total(|shard| shard.http2_connections.get()),
            self.metrics.total(|shard| shard.http2_streams.get()),
            self.net.held_by_servers() as u64,
        ];
        if held != [0; 4] {
            return Err(format!("queued bytes, connections of HTTP/2, streams, sockets after the drain: {held:?}"));
        }
        Ok(())
    }

    fn tell(&mut self, what: fmt::Arguments<'_>) {
        if let Some(trace) = &mut self.options.trace {
            trace(format_args!("{:>6} ms: {what}", self.clock.now().as_millis()));
        }
    }
}
