//! A crowd of clients, to load a server with: what `holdline swarm` does.
//!
//! [`plan`] is what to do, typed; [`peer`] the client's side of each protocol, without a socket or a clock; [`live`] what
//! a terminal sees while it runs; [`report`] what is written when it is over. [`run`] leads from the one to the other:
//!
//! ```text
//!   conductor (stage; idle, broadcast, echo, churn)        one thread: a script that tells, waits and looks
//!        | orders            ^ counts
//!        v                   |
//!   workers (crowd, parts)                                 each its backend and its share of the connections
//! ```
//!
//! Nothing but orders and counts passes between threads while it runs; what was measured is added up at the end.
//!
//! Those who hold a topic publish to it themselves, but for streams of events and gRPC calls, which only hear: for these the
//! first thread has one more connection, in a role of its own, that is not counted.

mod broadcast;
mod churn;
mod crowd;
mod echo;
mod halt;
mod idle;
pub mod latency;
mod limits;
pub mod live;
mod network;
mod part;
pub mod peer;
pub mod plan;
pub mod report;
mod stage;
mod stamp;
pub mod summary;
mod tally;
mod target;
pub mod usage;
mod worker;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use self::crowd::{Manner, Role, Route};
use self::limits::Reason;
use self::live::{Live, Phase};
use self::network::Network;
use self::part::{Actor, Order};
use self::peer::Client;
use self::plan::{MESSAGE_BYTES_MIN, Plan, Protocol, Scenario, Target};
use self::report::{Connect, Report, Server};
use self::stage::{Stage, share};
use self::tally::Count;
use self::worker::{Desk, Harvest, Worker};
use crate::io::tls::{Asks, Tls};
use crate::io::{Dial, tun, uring};
use crate::time::SystemClock;

/// Handshakes in flight over all threads: half of what an accept backlog of 4,096 takes.
const WINDOW: usize = 2048;
/// Bytes that a connection may hold back, beside two messages.
const BACKLOG_BYTES_MAX: usize = 1 << 20;
/// Time to end all connections at the end of a run.
const CLOSE: Duration = Duration::from_secs(15);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No backend.
    #[error("{0}, when the swarm was set up")]
    Setup(#[from] uring::SetupError),
    /// No network.
    #[error("{0}, when the network of the swarm was set up")]
    Network(#[from] tun::SetupError),
    /// The kernel's interface failed.
    #[error("the kernel failed the swarm: {0}, in its thread {1}: see dmesg")]
    Io(#[source] io::Error, usize),
    /// No thread.
    #[error("no thread for the swarm: {0}: raise ulimit -u")]
    Thread(#[source] io::Error),
    /// No terms for TLS.
    #[error("no TLS: {0}, when the swarm was set up: please report it")]
    Tls(#[from] rustls::Error),
    /// A fault of ours.
    #[error("internal error in thread {0} of the swarm: please report it")]
    Panic(usize),
}

/// Runs a plan to its end, or until `stop`, and reports what was found. `live` must have room for [`Plan::crew`].
///
/// # Errors
/// When there is nothing to report. A server that misbehaves, or a limit that is met, is in the report.
pub fn run(plan: &Plan, live: &Live, stop: &AtomicBool) -> Result<Report, RunError> {
    let plan = &Plan { threads: plan.threads.max(1), ..plan.clone() };
    let desks: Vec<Desk> = (0..plan.crew()).map(|_| Desk::default()).collect();
    let clock = SystemClock::new();
    live.enter(Phase::Setup, 0);
    let Some(network) = &Network::new(plan, stop)? else { return Ok(headed(plan)) };
    thread::scope(|scope| {
        // Whatever happens here, nobody waits for threads that nobody leads.
        let _dismissal = Dismissal(&desks);
        let mut crew = Vec::with_capacity(desks.len());
        let number = random();
        for (index, desk) in desks.iter().enumerate() {
            let worker = Worker { manner: manner(plan, index)?, desk, counts: live.thread(index), clock, stop };
            let work = move || start(plan, network, index, worker, number);
            let thread = thread::Builder::new().name(format!("swarm-{index}"));
            crew.push(thread.spawn_scoped(scope, work).map_err(RunError::Thread)?);
        }
        let mut stage = Stage::new(plan, live, stop, &desks, clock);
        stage.server = plan.server_pid.or(network.server_pid());
        let mut report = headed(plan);
        let outcome = conduct(&mut stage, &mut report);
        stage.limit = network.fallen(report.opened).or(stage.limit.take());
        idle::lived(&stage, &mut report.hold);
        stage.conclude();
        report.deserted = stage.deserted.get().map(|after| latency::round(after.as_secs_f64()));
        stage.end(CLOSE);
        let mut harvest: Option<Harvest> = None;
        for (index, thread) in crew.into_iter().enumerate() {
            let more = thread.join().map_err(|_| RunError::Panic(index))??;
            match &mut harvest {
                Some(harvest) => harvest.merge(more),
                None => harvest = Some(more),
            }
        }
        stage.look_after();
        if let Some(harvest) = harvest {
            complete(&stage, &mut report, &harvest, outcome);
        }
        live.enter(Phase::Done, 0);
        Ok(report)
    })
}

/// Ends all threads when it goes.
struct Dismissal<'a>(&'a [Desk]);

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|desk| desk.tell(Order::End(Duration::ZERO)));
    }
}

/// Says that a thread is over, also when it panicked.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One thread. Its backend is made here, since a ring belongs to the thread that made it.
fn start(plan: &Plan, network: &Network, index: usize, worker: Worker<'_>, run: u32) -> Result<Harvest, RunError> {
    let _over = Over(&worker.desk.is_over);
    let actor = Actor::new(run, plan.message_bytes().max(MESSAGE_BYTES_MIN));
    let places = worker.manner.places;
    let asks: Vec<Asks> = worker.manner.routes.iter().filter_map(|route| route.asks.clone()).collect();
    let result = match network {
        Network::Loopback => over(asks, network::rings(places, index)?, worker, actor),
        Network::Tun { namespace, path, .. } => over(asks, network::device(namespace, path, places)?, worker, actor),
    };
    result.map_err(|error| RunError::Io(error, index))
}

/// Works over TLS where anybody is asked for it.
fn over<B: Dial>(asks: Vec<Asks>, backend: B, worker: Worker<'_>, actor: Actor) -> io::Result<Harvest> {
    if asks.is_empty() {
        return worker.run(backend, actor);
    }
    worker.run(Tls::calls(backend, asks, Arc::default()), actor)
}

/// Where the connections to a target go.
fn route(plan: &Plan, target: &Target) -> Result<Route, rustls::Error> {
    let client = Client::new(target, random_bytes(), plan.message_bytes_max());
    let asks = target.tls.then(|| asks(plan, target, client.hello())).transpose()?;
    Ok(Route { client, address: target.address, greets: target.protocol.greets(), asks })
}

/// How a target is asked for TLS.
fn asks(plan: &Plan, target: &Target, hello: &Arc<[u8]>) -> Result<Asks, rustls::Error> {
    let protocols: &[&str] = match target.protocol {
        Protocol::WebSocket | Protocol::Sse => &["http/1.1"],
        Protocol::Grpc => &["h2"],
        Protocol::Line | Protocol::Length => &[],
    };
    let name = target.server_name().ok_or_else(|| rustls::Error::General("a host that has no name".to_owned()))?;
    Ok(Asks { address: target.address, hello: Arc::clone(hello), config: plan.trust.config(protocols)?, name })
}

/// How the connections of one thread behave.
fn manner(plan: &Plan, index: usize) -> Result<Manner, rustls::Error> {
    let threads = plan.threads;
    let (main, echo) = (route(plan, &plan.target)?, route(plan, plan.echo_target())?);
    let publisher = plan.target.publisher();
    let (publish, publishers) = match &publisher {
        Some(target) => (route(plan, target)?, Role::Publisher),
        None => (main.clone(), Role::Holder),
    };
    Ok(Manner {
        // By role: holders, echo clients, guests, the publisher.
        routes: [main.clone(), echo, main, publish],
        publishers,
        places: 1
            + usize::from(publisher.is_some())
            + match plan.probes() {
                Some(probes) if index == threads => probes,
                _ => share(plan.connections, threads, index) + plan.places_beside(threads),
            },
        window: (WINDOW / threads).max(1),
        timeout: plan.connect_timeout,
        // A message may wait whole while another one is under way.
        backlog_bytes_max: BACKLOG_BYTES_MAX + 2 * plan.message_bytes(),
    })
}

/// What a scenario measured, to be put together with what the threads found.
enum Outcome {
    /// Nothing more than the report has already.
    Plain,
    /// Publications.
    Published(broadcast::Measured, u32),
    /// Messages there and back.
    Echoed(echo::Measured, plan::Echo),
    /// Guests.
    Churned(Box<churn::Measured>, plan::Churn),
}

/// A report that says what it is of, and nothing yet.
fn headed(plan: &Plan) -> Report {
    Report {
        scenario: plan.scenario.name().to_owned(),
        target: plan.target.to_string(),
        via: plan.via.name().to_owned(),
        threads: plan.threads,
        connections: plan.connections as u64,
        ..Report::default()
    }
}

/// Leads the threads through the scenario.
fn conduct(stage: &mut Stage<'_>, report: &mut Report) -> Outcome {
    let is_open = stage.open_all();
    report.opened = stage.tally()[Count::Opened];
    if !is_open {
        return Outcome::Plain;
    }
    match &stage.plan.scenario {
        Scenario::Idle(idle) => {
            idle::run(stage, *idle, report);
            Outcome::Plain
        }
        Scenario::Broadcast(broadcast) => broadcast::run(stage, *broadcast, report)
            .map_or(Outcome::Plain, |measured| Outcome::Published(measured, broadcast.messages)),
        Scenario::Echo(echo) => Outcome::Echoed(echo::run(stage, *echo, report), *echo),
        Scenario::Churn(churn) => churn::run(stage, churn, report)
            .map_or(Outcome::Plain, |measured| Outcome::Churned(Box::new(measured), churn.clone())),
    }
}

/// Puts the rest into the report.
fn complete(stage: &Stage<'_>, report: &mut Report, harvest: &Harvest, outcome: Outcome) {
    report.connect = Connect::new(report.opened, stage.opening, &harvest.connect, named(harvest.tally.failures()));
    report.connect.retries = harvest.tally[Count::Retries];
    report.connect.failed = harvest.tally[Count::GivenUp];
    report.limit.clone_from(&stage.limit);
    if let (Some(pid), [before, held, .., after]) = (stage.server, stage.looks.as_slice()) {
        report.server = Some(Server::new(pid, [*before, *held, *after], report.opened));
    }
    match outcome {
        Outcome::Plain => {}
        Outcome::Published(measured, messages) => {
            let size = stage.plan.message_bytes();
            report.broadcast = Some(broadcast::report(&measured, size, messages, &harvest.actor.subscribers));
        }
        Outcome::Echoed(measured, echo) => {
            let late = harvest.tally[Count::Late];
            report.echo = harvest
                .actor
                .echoes
                .latencies
                .get(measured.load)
                .map(|latencies| echo::report(&measured, echo, latencies, late));
        }
        Outcome::Churned(measured, churn) => {
            report.churn = Some(churn::report(&measured, &churn, harvest, stage.plan.target.protocol));
        }
    }
}

/// Reasons by their names.
fn named(reasons: impl Iterator<Item = (Reason, u64)>) -> BTreeMap<String, u64> {
    reasons.map(|(reason, count)| (reason.name().to_owned(), count)).collect()
}

/// Differs from run to run.
fn random() -> u32 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(random >> 32).unwrap_or(0)
}

fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.chunks_exact_mut(4).for_each(|four| four.copy_from_slice(&random().to_ne_bytes()));
    bytes
}
