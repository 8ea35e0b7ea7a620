//! All steps, one after another: which of them fit, and what becomes of those that fail.

use std::io;
use std::time::{Duration, Instant};

use super::axis::{Unit, grouped};
use super::baseline;
use super::child;
use super::kernel::Look;
use super::results::{Bare, Kernel, LeftOut, Machine, Results, Step};
use super::step::{self, Timing};
use crate::common::sys;

/// Both ends of a loopback connection and what their processes hold, bytes.
const PAIR_BYTES: u64 = 9_000;
/// The server's end alone, and the few bytes of the client's, bytes.
const TUN_BYTES: u64 = 4_200;
/// What is left to everything else.
const RESERVE_BYTES: u64 = 1 << 30;
/// From so many connections on their kernel memory stands out.
const CONNECTIONS_MIN: u64 = 5_000;
/// Descriptors of a server beside its connections.
const DESCRIPTORS: u64 = 200;
/// Longest wait for the sockets of the step before.
const SETTLE: Duration = Duration::from_secs(90);
/// Time after which no more of them go.
const STILL: Duration = Duration::from_secs(3);

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Ladder {
    pub(crate) steps: Vec<u64>,
    pub(crate) tun: Vec<u64>,
    pub(crate) backends: Vec<String>,
    pub(crate) timing: Timing,
}

impl Ladder {
    /// Climbs. A step that does not fit or fails is named in the results; only being told to end is an error.
    pub(crate) fn run(&self) -> io::Result<Results> {
        let mut results = Results { machine: machine(), ..Results::default() };
        sys::sync();
        if let Err(error) = Look::now() {
            results.leave_out("kernel memory", &error.to_string(), true);
        }
        for connections in &self.steps {
            self.size(*connections, &mut results)?;
        }
        for connections in &self.tun {
            self.tun(*connections, &mut results)?;
        }
        results.sort();
        Ok(results)
    }

    /// One size with the clients outside the kernel.
    fn tun(&self, connections: u64, results: &mut Results) -> io::Result<()> {
        for backend in &self.backends {
            let what = format!("{}, {backend}, tun", Unit::Count.show(connections as f64));
            if let Err(why) = descriptors(backend, connections).and_then(|()| room(connections, TUN_BYTES)) {
                results.leave_out(&what, &why, false);
                continue;
            }
            let step = || step::run_tun(backend, connections, self.timing.of(connections));
            results.attempt(&what, step, |it, step| it.add(step, &what))?;
        }
        Ok(())
    }

    /// One size: what the kernel takes, then every backend.
    fn size(&self, connections: u64, results: &mut Results) -> io::Result<()> {
        let short = Unit::Count.show(connections as f64);
        if let Err(why) = room(connections, PAIR_BYTES) {
            results.leave_out(&format!("{short}, loopback"), &why, false);
            return Ok(());
        }
        let mut bare = Bare { connections, ..Bare::default() };
        let what = format!("{short}, bare sockets");
        let pair = |it: &mut Results, pair| {
            it.check_alone(&what, connections, Some(&pair), 2.0);
            bare.pair = Some(pair);
        };
        results.attempt(&what, || baseline::pair(connections), pair)?;
        let what = format!("{short}, bare loop");
        results.attempt(&what, || baseline::topic(connections, self.timing.of(connections), &mut bare), |_, ()| ())?;
        results.check_alone(&what, connections, bare.swarm_pair.as_ref(), 2.0);
        results.bare.push(bare);
        for backend in &self.backends {
            let what = format!("{short}, {backend}");
            if let Err(why) = descriptors(backend, connections) {
                results.leave_out(&what, &why, false);
                continue;
            }
            let step = || step::run(backend, connections, self.timing.of(connections));
            results.attempt(&what, step, |it, step| it.add(step, &what))?;
        }
        Ok(())
    }
}

impl Results {
    fn leave_out(&mut self, what: &str, why: &str, failed: bool) {
        println!("{what}: {}: {why}", if failed { "failed" } else { "left out" });
        self.left_out.push(LeftOut { what: what.to_owned(), why: why.to_owned(), failed });
    }

    fn add(&mut self, step: Step, what: &str) {
        let ends = if step.via == "loopback" { 2.0 } else { 1.0 };
        self.check_alone(what, step.connections, step.kernel.as_ref(), ends);
        self.steps.push(step);
    }

    /// Names kernel memory that cannot be told apart from that of other programs. Of a few connections it never can.
    fn check_alone(&mut self, what: &str, connections: u64, kernel: Option<&Kernel>, ends: f64) {
        if let Some(kernel) = kernel.filter(|kernel| connections >= CONNECTIONS_MIN && !kernel.is_alone(ends)) {
            let why = format!(
                "{:.2} sockets came for each connection instead of {ends}: others use the machine",
                kernel.sockets
            );
            self.leave_out(&format!("kernel memory, {what}"), &why, true);
        }
    }

    /// Does one thing on a machine that has forgotten the one before, and notes a failure.
    fn attempt<T>(
        &mut self,
        what: &str,
        work: impl FnOnce() -> io::Result<T>,
        then: impl FnOnce(&mut Self, T),
    ) -> io::Result<()> {
        child::go_on()?;
        let (sockets, started) = (sys::sockets(), Instant::now());
        println!("{what}: under way");
        match work() {
            Ok(found) => {
                println!("{what}: done in {:.0} s", started.elapsed().as_secs_f64());
                then(self, found);
            }
            Err(error) => {
                child::go_on()?;
                self.leave_out(what, &error.to_string(), true);
            }
        }
        forget(sockets)
    }
}

/// Waits until the sockets of a step are gone, so that their end is not measured with the next one: until there are as
/// few as before, or no fewer for a while, since others may have come.
fn forget(before: usize) -> io::Result<()> {
    let until = Instant::now() + SETTLE;
    let (mut fewest, mut since) = (sys::sockets(), Instant::now());
    while fewest > before + 100 && since.elapsed() < STILL && Instant::now() < until {
        child::pause(Duration::from_millis(100))?;
        let now = sys::sockets();
        if now < fewest {
            (fewest, since) = (now, Instant::now());
        }
    }
    // Sockets and descriptors are freed by RCU, a moment later.
    child::pause(Duration::from_millis(500))
}

/// Whether there is memory for so many connections; if not, the arithmetic.
fn room(connections: u64, each: u64) -> Result<(), String> {
    let (need, available) = (connections * each + RESERVE_BYTES, sys::available_memory());
    if need <= available {
        return Ok(());
    }
    let gigabytes = |bytes: u64| Unit::Bytes.show(bytes as f64);
    Err(format!(
        "{} x {} B + {} for everything else = {}, and {} are available",
        grouped(connections as f64),
        grouped(each as f64),
        gigabytes(RESERVE_BYTES),
        gigabytes(need),
        gigabytes(available)
    ))
}

/// Whether a backend may have so many descriptors.
fn descriptors(backend: &str, connections: u64) -> Result<(), String> {
    let limit = u64::from(sys::descriptor_limit());
    if backend != "epoll" || connections + DESCRIPTORS <= limit {
        return Ok(());
    }
    Err(format!(
        "every connection is a descriptor, and RLIMIT_NOFILE is {}: `ulimit -n {}` where that is allowed",
        grouped(limit as f64),
        connections + DESCRIPTORS
    ))
}

fn machine() -> Machine {
    Machine {
        processor: sys::processor(),
        cores: sys::cores(),
        memory_bytes: sys::total_memory(),
        kernel: sys::kernel_release(),
        descriptors: sys::descriptor_limit(),
        commit: sys::commit(),
        date: today(),
        load: sys::load(),
    }
}

/// The date in UTC, `2026-01-31`.
fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut days = since.as_secs() / 86_400;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, days + 1)
}
