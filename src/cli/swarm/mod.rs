//! `swarm`: a crowd of clients. From flags to a plan, from a report to an exit status.
//!
//! The swarm runs on threads of its own. The main thread shows how far it is and hears signals: the first asks it to
//! end early, which still makes a report; a second one ends the program.

mod flags;
mod output;
mod progress;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::flags::{BroadcastArgs, ChurnArgs, Common, EchoArgs, IdleArgs};
use self::output::Output;
use self::progress::Progress;
use super::{Failure, panics};
use crate::swarm::live::Live;
use crate::swarm::plan::Plan;
use crate::swarm::report::Report;
use crate::swarm::{self, RunError};

const AFTER_HELP: &str = "\
Examples:
  holdline swarm idle --target ws://127.0.0.1:8080/echo --connections 100k --hold 1m
  holdline swarm broadcast --target ws://127.0.0.1:8080/topics/load --connections 100k
  holdline swarm broadcast --target http://127.0.0.1:8080/topics/load --connections 100k    (SSE)
  holdline swarm idle --target grpc://127.0.0.1:8080/topics/load --connections 20k --pid 4711
  holdline swarm echo --target ws://127.0.0.1:8080/echo --message-rate 50k/s --pid 4711
  holdline swarm churn --target ws://127.0.0.1:8080/topics/load --churn 500/s --abrupt 20%
  holdline swarm idle --target wss://localhost:8443/echo --ca ca.pem --connections 10k --pid 4711
  holdline swarm idle --target ws://198.18.0.1:8080/echo --connections 1M --via tun --rtt 20ms \\
    -- holdline serve --insecure --listen http://198.18.0.1:8080 --max-connections 2000000

A connection counts when its handshake is complete, and it is alive when data came through it. Latency counts from \
the time at which a message was due, not from when it could leave: a server that stalls cannot hide it.

While it runs, in/s and out/s are messages received and sent per second, heartbeats not among them. The memory per \
connection is what the server grew by while all were held: one that has held as many before keeps the pages, and \
grows by less or nothing. Start it anew to measure that.

A target http://HOST:PORT/topics/NAME is held over SSE, where clients only hear: one WebSocket to ws://HOST:PORT/topics/NAME \
beside them publishes, and is not counted. A server cannot notice who goes mute there: --half-open tells, and is no fault.

A target grpc://HOST:PORT/topics/NAME or /echo is one call of holdline.v1.Edge on each connection, over HTTP/2. \
Those who hold a topic hear, and the same WebSocket as with SSE publishes.

A target wss://, https://, grpcs:// or tls:// is spoken to over TLS: each connection makes a handshake of its own, whose work \
is much like the server's own, and keeps its keys but no buffer. A server with a certificate of its own needs --ca or --insecure.

A target in 127.0.0.0/8 is reached from many source addresses, and the connections take no descriptors of this \
process: millions fit. Start the server with a --max-connections above --connections.

The summary goes to standard output, what happens meanwhile to standard error. SIGINT or SIGTERM ends it early, with \
a report of what there was; a second one ends it at once. Exit status: 0 when all connections were reached and \
healthy, 1 when not (one line says why), 2 for bad arguments.";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    scenario: ScenarioArgs,
}

#[derive(Debug, clap::Subcommand)]
enum ScenarioArgs {
    /// Open connections and hold them: each answers heartbeats, and proves by data that it lives, before and after
    Idle(IdleArgs),
    /// Publish to a topic that all connections hold, and see that each gets every message once
    Broadcast(BroadcastArgs),
    /// Send messages and measure how long they take to come back
    Echo(EchoArgs),
    /// Let connections come and go, well and badly behaved, beside others that stay
    Churn(ChurnArgs),
}

impl ScenarioArgs {
    fn common(&self) -> &Common {
        match self {
            Self::Idle(args) => &args.common,
            Self::Broadcast(args) => &args.common,
            Self::Echo(args) => &args.common,
            Self::Churn(args) => &args.common,
        }
    }

    fn plan(&self) -> Result<Plan, Failure> {
        match self {
            Self::Idle(args) => args.plan(),
            Self::Broadcast(args) => args.plan(),
            Self::Echo(args) => args.plan(),
            Self::Churn(args) => args.plan(),
        }
    }
}

/// Runs a swarm to its end.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let common = args.scenario.common();
    let plan = args.scenario.plan()?;
    let output = Output::open(common.json.as_deref())?;
    let signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| Failure::runtime(format_args!("cannot handle signals: {error}, at the start: try again")))?;
    let progress = Progress::new(plan.connections, common.quiet);
    let report = follow(plan, signals, progress)?;
    // With the JSON on standard output, what is for people must not be in between.
    let summary = report.summary();
    let told = match output {
        Output::Standard => io::stderr().write_all(summary.as_bytes()),
        _ => tell(&summary),
    };
    output.write(&report.to_json())?;
    verdict(&report)?;
    told.map_err(|error| {
        Failure::runtime(format_args!("cannot write the summary: {error}, standard output: make room there"))
    })
}

fn tell(summary: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(summary.as_bytes())?;
    out.flush()
}

/// Time from one look at the swarm to the next.
const TICK: Duration = Duration::from_millis(50);

/// Shows how it goes until there is a report.
fn follow(plan: Plan, mut signals: Signals, mut progress: Progress) -> Result<Report, Failure> {
    let (live, stop) = (Arc::new(Live::new(plan.crew())), Arc::new(AtomicBool::new(false)));
    let engine = {
        let (live, stop, main) = (Arc::clone(&live), Arc::clone(&stop), thread::current());
        let work = move || {
            let result = swarm::run(&plan, &live, &stop);
            main.unpark();
            result
        };
        let spawned = thread::Builder::new().name("swarm".to_owned()).spawn(work);
        spawned.map_err(|error| Failure::runtime(format_args!("no thread: {error}, at the start: raise ulimit -u")))?
    };
    while !engine.is_finished() {
        for _ in signals.pending() {
            if stop.swap(true, Ordering::Relaxed) {
                let what = "ended by a second signal, during the swarm: give it time to close its connections";
                return Err(Failure::runtime(what));
            }
        }
        progress.show(&live, Instant::now());
        thread::park_timeout(TICK);
    }
    drop(progress);
    finish(engine.join(), stop.load(Ordering::Relaxed))
}

fn finish(ended: thread::Result<Result<Report, RunError>>, interrupted: bool) -> Result<Report, Failure> {
    match ended {
        Ok(result) => result.map(|report| Report { interrupted, ..report }).map_err(Failure::runtime),
        Err(panic) => {
            let what = panics::panic_message(&*panic);
            Err(Failure::runtime(format_args!("internal error: {what}, in the swarm: please report it")))
        }
    }
}

/// One line for all that was not well.
fn verdict(report: &Report) -> Result<(), Failure> {
    let faults = report.faults();
    let Some(first) = faults.first() else { return Ok(()) };
    Err(Failure::runtime(match faults.len() {
        1 => first.clone(),
        all => format!("{first} (the first of {all} faults, which the summary tells)"),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use clap::Parser;

    use super::*;
    use crate::swarm::plan::{App, Protocol, Scenario, Via};

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        args: Args,
    }

    fn plan(line: &str) -> Result<Plan, String> {
        let parsed = Wrapper::try_parse_from(format!("swarm {line}").split_whitespace()).unwrap();
        parsed.args.scenario.plan().map_err(|failure| {
            assert_eq!(failure.status, 2);
            failure.line
        })
    }

    #[test]
    fn flags_become_a_plan() {
        let line = "churn --target tcp://127.0.0.1:7?framing=length&app=topic&topic=t --connections 200k --rate 30k/s \
                    --threads 2 --connect-timeout 3s --patience 4s --churn 5k/s --lifetime 2s --duration 10m \
                    --abrupt 10% --half-open 0.2 --slow 0 --probe ws://127.0.0.1:8/echo --probes 3";
        let plan = plan(line).unwrap();
        assert_eq!((plan.connections, plan.threads, plan.rate.unwrap().get()), (200_000, 2, 30_000.0));
        assert_eq!((plan.connect_timeout.as_secs(), plan.patience.as_secs(), plan.server_pid), (3, 4, None));
        assert_eq!((plan.target.protocol, plan.target.app), (Protocol::Length, App::Topic));
        let Scenario::Churn(churn) = plan.scenario else { panic!("churn") };
        assert_eq!((churn.held, churn.rate.get(), churn.probes), (200_000, 5000.0, 3));
        assert_eq!((churn.abrupt.get(), churn.half_open.get(), churn.slow.get()), (0.1, 0.2, 0.0));
        assert_eq!((churn.lifetime.as_secs(), churn.duration.as_secs()), (2, 600));
        assert_eq!(churn.probe.unwrap().address.port(), 8);
    }

    #[test]
    fn defaults_are_a_plan_for_each_scenario() {
        for (scenario, path) in [
            ("idle", "ws://127.0.0.1:1/echo"),
            ("broadcast", "ws://127.0.0.1:1/topics/t"),
            ("echo", "ws://127.0.0.1:1/echo"),
            ("churn", "ws://127.0.0.1:1/topics/t"),
            ("idle", "http://127.0.0.1:1/topics/t"),
            ("broadcast", "http://127.0.0.1:1/topics/t"),
            ("churn", "sse://127.0.0.1:1/topics/t"),
        ] {
            let plan = plan(&format!("{scenario} --target {path} --connections 3")).unwrap();
            assert_eq!((plan.scenario.name(), plan.connections), (scenario, 3));
            assert!((1..=3).contains(&plan.threads) && matches!(plan.via, Via::Loopback));
        }
    }

    #[test]
    fn a_network_of_its_own_comes_with_a_server() {
        let line = "idle --target ws://198.18.0.1:8080/echo --via tun --rtt 20ms --loss 1% --reorder 0.1 --vanish 0 \
                    -- holdline serve --insecure --listen http://198.18.0.1:8080";
        let Via::Tun(tun) = plan(line).unwrap().via else { panic!("tun") };
        assert_eq!((tun.rtt.as_millis(), tun.loss.get(), tun.reorder.get()), (20, 0.01, 0.1));
        assert_eq!(tun.server, ["holdline", "serve", "--insecure", "--listen", "http://198.18.0.1:8080"]);
    }

    #[test]
    fn what_cannot_be_is_told_with_its_flag() {
        let echo = "--target ws://127.0.0.1:1/echo";
        let topic = "--target ws://127.0.0.1:1/topics/t";
        for (line, expected) in [
            ("idle --target nowhere", "target is \"nowhere\", not a URL, flag --target: write ws://"),
            ("idle --target https://h:1/echo", "over SSE a client only hears"),
            (
                "idle --target wss://127.0.0.1:1/echo --ca /nowhere",
                "/nowhere, flag --ca: name a file of CA certificates",
            ),
            (&*format!("idle {echo} --connections 0"), "connections is 0, below 1, flag --connections"),
            (&*format!("idle {echo} --connections lots"), "connections is \"lots\", flag --connections"),
            (&*format!("idle {echo} --rate 0"), "rate is 0, which never begins, flag --rate"),
            (&*format!("idle {echo} --threads 1000"), "above 256, flag --threads"),
            (&*format!("idle {echo} --hold 30"), "hold is \"30\", without a unit, flag --hold"),
            (&*format!("idle {echo} --via netem"), "via is \"netem\", flag --via: write loopback or tun"),
            (
                &*format!("idle {echo} --rtt 1ms"),
                "--rtt needs a network of its own, on the command line: add --via tun",
            ),
            (&*format!("idle {echo} --via tun"), "no server to start in the namespace, behind --: add it"),
            (&*format!("idle {echo} -- serve"), "only for tun, behind --"),
            (&*format!("idle {echo} --pid 0"), "pid is \"0\", flag --pid"),
            (&*format!("idle {echo} --pid 4294967295"), "there is no such process, flag --pid"),
            (&*format!("idle {echo} --app chat"), "app is \"chat\", flag --app: write echo or topic"),
            (&*format!("idle {echo} --patience 0"), "patience is 0s, below 1ms, flag --patience"),
            (&*format!("broadcast {echo}"), "target echoes, and nobody hears"),
            ("idle --target http://127.0.0.1:1/echo", "target echoes, and over SSE a client only hears"),
            ("echo --target http://127.0.0.1:1/topics/t", "target is a topic, and echoes come from an echo"),
            ("idle --target http://127.0.0.1:1/own --app echo", "over SSE a client only hears"),
            (&*format!("broadcast {topic} --size 1"), "size is 1, below 64, flag --size"),
            (&*format!("broadcast {topic} --messages 0"), "messages is 0, below 1, flag --messages"),
            (&*format!("echo {topic}"), "target is a topic, and echoes come from an echo, flag --target"),
            (&*format!("echo {echo} --in-flight 0"), "in-flight is 0, below 1, flag --in-flight"),
            (&*format!("echo {echo} --message-rate x"), "message-rate is \"x\", flag --message-rate"),
            (&*format!("churn {topic} --abrupt 1.5"), "abrupt is 1.5, above 1, flag --abrupt: write a share"),
            (&*format!("churn {topic} --abrupt 0.6 --slow 0.6"), "1.2 together, above 1"),
            (&*format!("churn {topic} --probe ws://127.0.0.1:1/topics/t"), "probe is a topic"),
            (&*format!("churn {topic} --churn -5"), "churn is -5, which never begins, flag --churn"),
        ] {
            let said = plan(line).unwrap_err();
            assert!(said.contains(expected), "{line}: {said}");
        }
    }

    #[test]
    fn the_verdict_is_one_line() {
        assert!(verdict(&Report::default()).is_ok());
        let report = Report { connections: 5, interrupted: true, ..Report::default() };
        let failure = verdict(&report).unwrap_err();
        assert_eq!(failure.status, 1);
        let expected = "ended by a signal before its time: let it run (the first of 2 faults, which the summary tells)";
        assert_eq!(failure.line, expected);
    }
}
