//! The conductor's side: tells all threads what to do, waits for what they count, and looks at the server.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::crowd::{PAUSE_LONGEST, Role};
use super::limits::Reason;
use super::live::{Live, Phase};
use super::part::Order;
use super::part::echo::{Load, Pace};
use super::part::publisher::Series;
use super::plan::{App, Plan, TunPlan, Via};
use super::report::{Limit, Usage};
use super::tally::{Count, Tally};
use super::usage;
use super::worker::Desk;
use crate::time::{Clock, Instant, SystemClock};

/// How often the conductor looks.
const LOOK: Duration = Duration::from_millis(2);
/// The first call of the roll is repeated when nobody has answered for so long; each one after it waits twice as long, so
/// that the network gets over one flood before the next.
const CALM: Duration = Duration::from_millis(500);
/// Time to look for messages that come twice.
const AFTERMATH: Duration = Duration::from_millis(500);

/// A number that has not changed for so long will not.
const SETTLED: Duration = Duration::from_millis(300);
/// Time that the server has to notice that all are gone.
const SETTLE: Duration = Duration::from_secs(5);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// It has come.
    Done,
    /// Nothing has changed for too long.
    Stuck,
    /// The user wants to stop, a thread is over, or a limit was met.
    Stopped,
}

/// All threads, from the outside.
pub(super) struct Stage<'a> {
    pub(super) plan: &'a Plan,
    pub(super) live: &'a Live,
    pub(super) stop: &'a AtomicBool,
    pub(super) desks: &'a [Desk],
    pub(super) clock: SystemClock,
    /// The server's process.
    pub(super) server: Option<u32>,
    /// The number of the next publication.
    pub(super) next: u32,
    /// What the server used, when it was looked at.
    pub(super) looks: Vec<Usage>,
    pub(super) limit: Option<Limit>,
    /// From the first dial to the last welcome.
    pub(super) opening: Duration,
    /// Echo clients beside the connections of the plan.
    others: usize,
    /// Loads that the echo clients have had.
    loads: usize,
    /// All connections of the plan have stood.
    pub(super) have_stood: bool,
    pub(super) start: Instant,
    /// Time from the start until the server had ended all connections.
    pub(super) deserted: Cell<Option<Duration>>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        live: &'a Live,
        stop: &'a AtomicBool,
        desks: &'a [Desk],
        clock: SystemClock,
    ) -> Self {
        let (looks, opening) = (Vec::new(), Duration::ZERO);
        Self {
            plan,
            live,
            stop,
            desks,
            clock,
            server: plan.server_pid,
            next: 1,
            looks,
            limit: None,
            opening,
            others: 0,
            loads: 0,
            have_stood: false,
            start: clock.now(),
            deserted: Cell::new(None),
        }
    }

    /// Counts of all threads.
    pub(super) fn tally(&self) -> Tally {
        self.desks.iter().fold(Tally::default(), |sum, desk| sum.and(&desk.read()))
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// What the connections of the target are for.
    pub(super) fn role(&self) -> Role {
        if self.plan.target.app == App::Echo { Role::Echo } else { Role::Holder }
    }

    /// Tells each thread, and returns when all have obeyed. Threads that are over do not matter.
    pub(super) fn tell(&self, order: impl Fn(usize) -> Option<Order>) {
        let tell = |(index, desk): (usize, &Desk)| {
            let before = desk.obeyed();
            order(index).map(|order| desk.tell(order)).map(|()| before)
        };
        let told: Vec<_> = self.desks.iter().enumerate().map(tell).collect();
        for (desk, before) in self.desks.iter().zip(told) {
            while before.is_some_and(|before| desk.obeyed() <= before) && !desk.is_over.load(Ordering::Relaxed) {
                thread::sleep(LOOK / 10);
            }
        }
    }

    /// Waits until it is so, as long as `progress` goes on.
    pub(super) fn until(
        &self,
        patience: Duration,
        progress: impl Fn(&Tally) -> u64,
        is_so: impl Fn(&Tally) -> bool,
    ) -> Wait {
        let (mut last, mut since) = (u64::MAX, self.now());
        loop {
            let tally = self.tally();
            if is_so(&tally) {
                return Wait::Done;
            }
            if self.is_stopped() {
                return Wait::Stopped;
            }
            let now = self.now();
            let progress = progress(&tally);
            if progress != last {
                (last, since) = (progress, now);
            } else if now.since(since) >= patience {
                return Wait::Stuck;
            }
            thread::sleep(LOOK);
        }
    }

    /// Lets time pass; false when the run is to end early.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        self.pause_looking(duration, || ())
    }

    /// The same, with a look at something now and then.
    pub(super) fn pause_looking(&self, duration: Duration, mut look: impl FnMut()) -> bool {
        let start = self.now();
        loop {
            look();
            let passed = self.now().since(start);
            self.live.advance(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
            if self.is_stopped() {
                return false;
            }
            if passed >= duration {
                return true;
            }
            thread::sleep((duration - passed).min(LOOK * 10));
        }
    }

    /// Says what goes on, for `duration`.
    pub(super) fn enter(&self, phase: Phase, duration: Duration) {
        self.live.enter(phase, u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    /// Looks at the server.
    pub(super) fn look(&mut self) {
        if let Some(usage) = self.usage() {
            self.looks.push(usage);
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.server.and_then(|pid| usage::of(pid).ok())
    }

    /// Bytes of memory that the server uses; 0 when nobody knows.
    pub(super) fn user_bytes(&self) -> u64 {
        self.usage().map_or(0, |usage| usage.user_bytes)
    }

    /// Connections that send echoes.
    pub(super) const fn echo_clients(&self) -> usize {
        if self.others > 0 { self.others } else { self.plan.connections }
    }

    /// Connections of the plan that stand.
    pub(super) fn holders(&self, tally: &Tally) -> u64 {
        tally[Count::Standing].saturating_sub(self.others as u64)
    }

    /// Gives the echo clients a load: its number.
    pub(super) fn echo(&mut self, load: impl Fn(usize) -> Load) -> usize {
        self.tell(|index| Some(Order::Echo(load(index))));
        self.loads += 1;
        self.loads - 1
    }

    /// Opens echo clients beside the connections of the plan.
    pub(super) fn open_others(&mut self, count: usize) -> bool {
        let before = self.tally()[Count::Standing];
        self.others = count;
        self.open(Role::Echo, count, |tally| tally[Count::Standing].saturating_sub(before))
    }

    /// Opens all connections of the plan; false when a limit or a stop came before.
    pub(super) fn open_all(&mut self) -> bool {
        if !self.open_publisher() {
            return false;
        }
        self.look();
        self.live.enter(Phase::Open, self.plan.connections as u64);
        let (count, role) = (self.plan.connections, self.role());
        let is_open = self.open(role, count, |tally| tally[Count::Standing]);
        self.look();
        self.have_stood = is_open;
        is_open
    }

    /// Opens the connection that publishes, where those who hold the target cannot. It is not one of theirs: neither
    /// their number nor the time that they take is changed by it.
    fn open_publisher(&mut self) -> bool {
        let Some(target) = self.plan.target.publisher() else { return true };
        let took = self.opening;
        let is_open = self.open(Role::Publisher, 1, |tally| tally[Count::Publishers]);
        self.opening = took;
        if let Some(limit) = &mut self.limit {
            limit.what = format!("{}, for the one that publishes at {target}", limit.what);
        }
        is_open
    }

    /// Opens `count` more at the plan's rate.
    pub(super) fn open(&mut self, role: Role, count: usize, standing: impl Fn(&Tally) -> u64) -> bool {
        let start = self.now();
        let goal = standing(&self.tally()) + count as u64;
        self.tell(|index| {
            let count = part_of(self.plan, role, count, index);
            let gap = self.plan.rate.map_or(Duration::ZERO, |rate| rate.due(self.plan.threads as u64));
            (count > 0).then_some(Order::Open { role, count, gap })
        });
        let progress = |tally: &Tally| tally[Count::Dials] + tally[Count::Opened];
        let is_over = |tally: &Tally| {
            self.live.advance(standing(tally));
            standing(tally) >= goal || self.obstacle().is_some()
        };
        let patience = opening_patience(self.plan);
        let mut wait = self.until(patience, progress, is_over);
        let opening = self.now().since(start);
        // Without a handshake some may stand only because the server has not yet come to refuse them.
        while !self.plan.target.protocol.greets() && wait == Wait::Done && self.obstacle().is_none() {
            if self.until(SETTLED, &standing, |tally| standing(tally) < goal) != Wait::Done {
                break;
            }
            wait = self.until(patience, progress, is_over);
        }
        self.opening += opening;
        if self.obstacle().is_some() {
            // Some may stand only because the server has not yet come to refuse them.
            self.tell(|_| Some(Order::Halt));
            self.until(SETTLED, &standing, |_| false);
        }
        let standing = standing(&self.tally());
        if let Some(cause) = self.obstacle() {
            self.stopped_by(cause, standing);
        } else if wait == Wait::Stuck {
            self.stopped_by(Reason::TimedOut.into(), standing);
        }
        standing >= goal && self.limit.is_none() && wait == Wait::Done
    }

    /// Lets every connection prove by data that it lives, and returns how many did. Those who are to vanish do so then.
    pub(super) fn call_the_roll(&mut self) -> u64 {
        self.live.enter(Phase::Check, self.plan.connections as u64);
        let alive = match self.role() {
            Role::Echo => self.call_echoes(),
            _ => self.call_holders(),
        };
        if let Via::Tun(TunPlan { vanish, .. }) = &self.plan.via
            && vanish.get() > 0.0
        {
            self.tell(|_| Some(Order::Vanish(vanish.get())));
        }
        alive
    }

    fn call_echoes(&mut self) -> u64 {
        let before = self.tally()[Count::Answered];
        let goal = self.tally()[Count::Standing];
        let load = Load { pace: Pace::Roll, in_flight: 1, measure_from: Instant::ZERO, until: Instant::ZERO };
        self.echo(|_| load);
        let answered = |tally: &Tally| tally[Count::Answered] - before;
        self.until(self.plan.patience, answered, |tally| {
            self.live.advance(answered(tally));
            answered(tally) >= goal.min(tally[Count::Standing])
        });
        let answered = answered(&self.tally());
        self.tell(|_| Some(Order::Hush));
        answered
    }

    /// The first calls reach those whom the server knows by then; the roll is called until all have heard one, or nobody
    /// has answered for the first time for as long as the plan is patient.
    fn call_holders(&mut self) -> u64 {
        let (mut calm, mut answered, mut since) = (CALM.min(self.plan.patience), 0, self.now());
        loop {
            self.publish(1, Duration::ZERO, None);
            let called = |tally: &Tally| {
                self.live.advance(tally[Count::Called]);
                tally[Count::Called] >= tally[Count::Standing] + tally[Count::Lost]
            };
            if self.until(calm, |tally| tally[Count::Heard], called) != Wait::Stuck {
                break;
            }
            let (now, called) = (self.now(), self.tally()[Count::Called]);
            if called > answered {
                (answered, since) = (called, now);
            } else if now.since(since) >= self.plan.patience {
                break;
            }
            calm = calm.saturating_mul(2).min(self.plan.patience);
        }
        // Those who had heard an earlier call hear the last one too, before anything is measured.
        self.quiet();
        self.tally()[Count::Called]
    }

    /// The same once more, when all have answered before: a single publication must reach everyone who stands.
    pub(super) fn call_again(&mut self) -> u64 {
        self.live.enter(Phase::Check, self.plan.connections as u64);
        if self.role() == Role::Echo {
            return self.call_echoes();
        }
        let before = self.tally()[Count::Heard];
        self.publish(1, Duration::ZERO, None);
        let heard = |tally: &Tally| tally[Count::Heard] - before;
        self.until(self.plan.patience, heard, |tally| {
            self.live.advance(heard(tally));
            heard(tally) >= self.holders(tally)
        });
        self.quiet();
        heard(&self.tally())
    }

    /// Measures the next `count` publications.
    pub(super) fn measure(&self, count: u32) {
        let (first, last) = (self.next, self.next.saturating_add(count.saturating_sub(1)));
        self.tell(|_| Some(Order::Measure { first, last }));
    }

    /// Ends all connections and threads, within this time.
    pub(super) fn end(&self, within: Duration) {
        self.live.enter(Phase::Close, self.tally()[Count::Open]);
        self.desks.iter().for_each(|desk| desk.tell(Order::End(within)));
    }

    /// Looks at the server when all connections are gone and it has had time to notice.
    pub(super) fn look_after(&mut self) {
        let deadline = self.now() + SETTLE;
        let Some(mut least) = self.usage() else { return };
        let mut since = self.now();
        while self.now() < deadline && self.now().since(since) < AFTERMATH && !self.stop.load(Ordering::Relaxed) {
            thread::sleep(LOOK * 10);
            let Some(usage) = self.usage() else { break };
            if usage.user_bytes < least.user_bytes {
                since = self.now();
            }
            least = usage;
        }
        self.looks.push(least);
    }

    /// Waits until no more deliveries come.
    pub(super) fn quiet(&self) {
        self.until(AFTERMATH, |tally| tally[Count::Heard] + tally[Count::Duplicates], |_| false);
    }

    /// Publishes `count` messages from `start` on, and returns the number of the first.
    pub(super) fn publish(&mut self, count: u32, interval: Duration, start: Option<Instant>) -> u32 {
        let first = self.next;
        self.next = self.next.saturating_add(count);
        self.tell(|index| (index == 0).then_some(Order::Publish(Series { first, count, start, interval })));
        first
    }
}

/// How long nothing need happen while connections open, though all is well: a dial that takes its time, the gap to the
/// next one of a slow rate, the pause before another try.
fn opening_patience(plan: &Plan) -> Duration {
    let gap = plan.rate.map_or(Duration::ZERO, |rate| rate.due(plan.threads as u64));
    plan.connect_timeout.saturating_add(plan.patience).saturating_add(gap).saturating_add(PAUSE_LONGEST)
}

/// How many of `count` connections of a role belong to a thread: probes have one to themselves.
pub(super) const fn part_of(plan: &Plan, role: Role, count: usize, index: usize) -> usize {
    match (plan.probes(), role) {
        (Some(_), Role::Echo) if index == plan.threads => count,
        (Some(_), Role::Echo) => 0,
        // The first thread publishes.
        (_, Role::Publisher) if index == 0 => count,
        (_, Role::Publisher) => 0,
        _ if index < plan.threads => share(count, plan.threads, index),
        _ => 0,
    }
}

/// How many of `count` belong to thread `index` of `threads`.
pub(super) const fn share(count: usize, threads: usize, index: usize) -> usize {
    count / threads + if index < count % threads { 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::plan::{Idle, Protocol, Rate, Scenario, Target, Trust, Via};

    #[test]
    fn a_slow_rate_is_not_a_slow_server() {
        let second = Duration::from_secs(1);
        let plan = Plan {
            target: Target {
                protocol: Protocol::Line,
                tls: false,
                address: std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1),
                host: String::new(),
                path: String::new(),
                first_frame: None,
                app: App::Echo,
            },
            trust: Trust::default(),
            via: Via::Loopback,
            connections: 3,
            rate: Some(Rate::new(0.01)),
            threads: 2,
            scenario: Scenario::Idle(Idle { hold: second }),
            server_pid: None,
            connect_timeout: second,
            patience: second,
        };
        let slow = opening_patience(&plan);
        assert!(slow >= Duration::from_secs(200 + 2), "each of two threads dials every 200 s: {slow:?}");
        let fast = opening_patience(&Plan { rate: None, ..plan });
        assert!(fast >= 2 * second + PAUSE_LONGEST, "a server may ask for a pause: {fast:?}");
    }
}
