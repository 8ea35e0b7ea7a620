//! The swarm against the real server, both over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/program.rs"]
mod program;

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdline::swarm::live::{Live, Phase};
use holdline::swarm::plan::{
    App, Broadcast, Churn, Echo, Idle, Plan, Protocol, Rate, Scenario, Share, Target, Trust, Via,
};
use holdline::swarm::report::Report;
use program::{Program, holdline};

/// A server with listeners for WebSocket, lines and lengths of an echo and of a topic that the first frame names.
struct Server(Program);

impl Server {
    const LISTENERS: [&str; 5] = [
        "http://127.0.0.1:0",
        "tcp://127.0.0.1:0?framing=line&app=topic",
        "tcp://127.0.0.1:0?framing=length&app=topic",
        "tcp://127.0.0.1:0?framing=line&app=echo",
        "tcp://127.0.0.1:0?framing=length&app=echo",
    ];

    fn start(flags: &[&str]) -> Self {
        Self(Program::serve(&Self::LISTENERS, &[&["--admin", "off"], flags].concat()))
    }

    fn target(&self, protocol: Protocol, app: App) -> Target {
        let listener = match (protocol, app) {
            (Protocol::WebSocket | Protocol::Sse | Protocol::Grpc, _) => 0,
            (Protocol::Line, App::Topic) => 1,
            (Protocol::Length, App::Topic) => 2,
            (Protocol::Line, App::Echo) => 3,
            (Protocol::Length, App::Echo) => 4,
        };
        let address: SocketAddrV4 = self.0.address(listener).parse().unwrap();
        let path = if app == App::Echo { "/echo" } else { "/topics/all" };
        let is_http = protocol.greets();
        Target {
            protocol,
            tls: false,
            address,
            host: address.to_string(),
            path: if is_http { path.to_owned() } else { String::new() },
            first_frame: (!is_http && app == App::Topic).then(|| "all".to_owned()),
            app,
        }
    }

    fn plan(&self, target: Target, scenario: Scenario) -> Plan {
        Plan {
            target,
            trust: Trust::default(),
            via: Via::Loopback,
            connections: 300,
            rate: None,
            threads: 2,
            scenario,
            server_pid: Some(self.0.child.id()),
            connect_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(5),
        }
    }
}

fn run(plan: &Plan) -> Report {
    let live = Live::new(plan.crew());
    let report = holdline::swarm::run(plan, &live, &AtomicBool::new(false)).unwrap();
    assert_eq!(report.faults(), [""; 0], "{}", report.to_json());
    report
}

const ALL: [Protocol; 3] = [Protocol::WebSocket, Protocol::Line, Protocol::Length];

#[test]
fn idle_connections_live_at_both_ends_of_the_hold() {
    let server = Server::start(&["--heartbeat-interval", "200ms"]);
    for (protocol, app) in ALL.into_iter().flat_map(|protocol| [(protocol, App::Echo), (protocol, App::Topic)]) {
        let idle = Scenario::Idle(Idle { hold: Duration::from_millis(700) });
        let report = run(&server.plan(server.target(protocol, app), idle));
        assert_eq!((report.opened, report.hold.alive_at_start, report.hold.alive_at_end), (300, 300, 300));
        assert!(report.hold.pings_answered >= 300, "{protocol:?} {app:?}: {}", report.hold.pings_answered);
    }
}

#[test]
fn streams_of_events_hear_heartbeats_and_live_at_both_ends_of_the_hold() {
    let server = Server::start(&["--heartbeat-interval", "200ms"]);
    let idle = Scenario::Idle(Idle { hold: Duration::from_millis(700) });
    let report = run(&server.plan(server.target(Protocol::Sse, App::Topic), idle));
    assert_eq!((report.opened, report.hold.alive_at_start, report.hold.alive_at_end), (300, 300, 300));
    assert!(report.hold.heartbeats_heard >= 300, "{}", report.hold.heartbeats_heard);
}

#[test]
fn a_rate_may_be_slower_than_the_patience() {
    let server = Server::start(&[]);
    let patience = Duration::from_millis(400);
    let idle = Scenario::Idle(Idle { hold: Duration::ZERO });
    let plan = server.plan(server.target(Protocol::WebSocket, App::Echo), idle);
    let rate = Some(Rate::new(1.0));
    let report = run(&Plan { connections: 2, threads: 1, rate, connect_timeout: patience, patience, ..plan });
    assert!(report.opened == 2 && report.connect.seconds >= 0.9, "{}", report.to_json());
}

#[test]
fn a_broadcast_reaches_everyone_once() {
    let server = Server::start(&[]);
    for protocol in ALL.into_iter().chain([Protocol::Sse]) {
        let interval = Duration::from_millis(20);
        let broadcast = Broadcast { messages: 10, size: 100, interval, hold: Duration::ZERO };
        let report = run(&server.plan(server.target(protocol, App::Topic), Scenario::Broadcast(broadcast)));
        let found = report.broadcast.unwrap();
        assert_eq!((found.deliveries, found.missing, found.duplicates), (3000, 0, 0), "{protocol:?}");
        assert_eq!((found.messages, found.each.len()), (10, 10));
        assert!(found.p50_ms <= found.p99_9_ms && found.p99_9_ms <= found.last_ms && found.last_ms > 0.0);
    }
}

#[test]
fn what_was_not_published_when_it_was_stopped_is_not_missing() {
    let server = Server::start(&[]);
    let (messages, interval) = (100_000, Duration::from_millis(5));
    let broadcast = Scenario::Broadcast(Broadcast { messages, size: 100, interval, hold: Duration::ZERO });
    let plan = server.plan(server.target(Protocol::WebSocket, App::Topic), broadcast);
    let report = stopped(&plan, |live| live.phase() == Phase::Measure && live.progress().0 >= 20);
    assert_eq!(report.faults(), ["ended by a signal before its time: let it run"], "{}", report.to_json());
    let found = report.broadcast.unwrap();
    assert!(found.messages >= 20 && found.deliveries >= 300 && found.missing == 0, "{found:?}");
}

#[test]
fn echoes_come_back_in_a_closed_loop_and_at_a_rate() {
    let server = Server::start(&[]);
    let (duration, warm_up) = (Duration::from_millis(500), Duration::from_millis(100));
    for (protocol, rate) in ALL.into_iter().flat_map(|protocol| [(protocol, None), (protocol, Some(2000.0))]) {
        let echo = Echo { size: 200, in_flight: 4, rate: rate.map(Rate::new), duration, warm_up };
        let plan = Plan { connections: 50, ..server.plan(server.target(protocol, App::Echo), Scenario::Echo(echo)) };
        let found = run(&plan).echo.unwrap();
        assert!(found.messages > 0 && found.missing == 0 && found.server_cpu_us_per_message.unwrap() > 0.0);
        let times = found.times;
        assert!(times.p50_us > 0.0 && times.p50_us <= times.p99_us && times.p99_9_us <= times.max_us);
        if rate.is_some() {
            assert!(found.messages.abs_diff(1000) <= 2, "{protocol:?}: {} of 1000", found.messages);
        }
    }
}

#[test]
fn windows_of_large_messages_are_filled_as_the_server_reads() {
    let server = Server::start(&[]);
    for rate in [None, Some(Rate::new(200.0))] {
        let (duration, warm_up) = (Duration::from_millis(300), Duration::ZERO);
        let echo = Scenario::Echo(Echo { size: 800_000, in_flight: 16, rate, duration, warm_up });
        let plan = Plan { connections: 2, ..server.plan(server.target(Protocol::WebSocket, App::Echo), echo) };
        let found = run(&plan).echo.unwrap();
        assert!(found.messages > 0, "{found:?}");
    }
}

#[test]
fn a_close_is_told_with_its_code() {
    let server = Server::start(&[]);
    // Above what the server takes of a message.
    let (size, second) = (2 << 20, Duration::from_secs(1));
    let echo = Scenario::Echo(Echo { size, in_flight: 1, rate: None, duration: second / 10, warm_up: Duration::ZERO });
    let plan = server.plan(server.target(Protocol::WebSocket, App::Echo), echo);
    let plan = Plan { connections: 2, patience: second, ..plan };
    let report = holdline::swarm::run(&plan, &Live::new(2), &AtomicBool::new(false)).unwrap();
    assert_eq!(report.hold.losses.get("closed_1009"), Some(&2), "{}", report.to_json());
}

#[test]
fn what_is_given_up_did_not_come_back() {
    let server = Server::start(&[]);
    // More than it can do in that time, and no patience.
    let (rate, duration) = (Some(Rate::new(5e6)), Duration::from_millis(400));
    let echo = Scenario::Echo(Echo { size: 64, in_flight: 64, rate, duration, warm_up: Duration::ZERO });
    let plan = server.plan(server.target(Protocol::WebSocket, App::Echo), echo);
    let report = holdline::swarm::run(
        &Plan { connections: 20, patience: Duration::from_millis(100), ..plan },
        &Live::new(2),
        &AtomicBool::new(false),
    );
    let found = report.unwrap().echo.unwrap();
    assert!(found.messages > 0 && found.messages + found.missing <= 2_000_000, "{found:?}");
}

#[test]
fn guests_come_and_go_and_those_who_stay_do_not_notice() {
    let server = Server::start(&["--heartbeat-interval", "300ms", "--heartbeat-timeout", "300ms"]);
    // Side by side: most of the time they wait for the server to notice who went mute.
    std::thread::scope(|scope| {
        let server = &server;
        for protocol in ALL.into_iter().chain([Protocol::Sse]) {
            scope.spawn(move || churn(server, protocol));
        }
    });
}

fn churn(server: &Server, protocol: Protocol) {
    let churn = Churn {
        held: 100,
        rate: Rate::new(200.0),
        lifetime: Duration::from_millis(300),
        duration: Duration::from_secs(2),
        abrupt: Share::new(0.2),
        half_open: Share::new(0.1),
        slow: Share::new(0.1),
        probe: Some(server.target(if protocol == Protocol::Sse { Protocol::WebSocket } else { protocol }, App::Echo)),
        probes: 5,
        half_open_for: Duration::from_secs(8),
        publish_every: Duration::from_millis(200),
    };
    let mut target = server.target(protocol, App::Topic);
    // A topic for each: nobody else publishes there.
    target.path = target.path.replace("all", protocol.name());
    target.first_frame = target.first_frame.map(|_| protocol.name().to_owned());
    let report = run(&Plan { connections: 100, ..server.plan(target, Scenario::Churn(churn)) });
    let found = report.churn.unwrap();
    let came = found.graceful + found.abrupt + found.half_open;
    assert!(found.connects >= 380 && found.connects.abs_diff(came) <= 5, "{protocol:?}: {found:?}");
    assert!(found.abrupt >= 70 && found.slow >= 35, "{found:?}");
    // Nobody answers on a stream of events, so who reads it no more is like one who has nothing to say.
    let noticed = if protocol == Protocol::Sse { 0 } else { found.half_open };
    assert!(found.half_open >= 35 && found.half_open_detected == noticed, "{found:?}");
    assert_eq!((found.deliveries, found.publications), (1000, 10));
    assert!(found.probes >= 990 && found.probe.is_some() && found.probe_idle.is_some(), "{found:?}");
    assert!(found.server_bytes_peak > 0);
}

#[test]
fn a_limit_is_named_with_the_count_at_which_it_struck() {
    let server = Server::start(&["--max-connections", "100"]);
    for protocol in ALL {
        let idle = Scenario::Idle(Idle { hold: Duration::ZERO });
        let plan = server.plan(server.target(protocol, App::Topic), idle);
        let report = holdline::swarm::run(&plan, &Live::new(2), &AtomicBool::new(false)).unwrap();
        let limit = report.limit.clone().unwrap();
        assert_eq!(limit.at, 100, "{protocol:?}: {}", report.to_json());
        assert!(limit.what.contains("server") && limit.mend.contains("--max-connections"), "{limit:?}");
        assert!(report.connect.retries > 0 && !report.ok());
    }
}

#[test]
fn nobody_at_the_target_is_a_limit_at_zero() {
    let server = Server::start(&[]);
    let idle = Scenario::Idle(Idle { hold: Duration::ZERO });
    let plan = server.plan(server.target(Protocol::WebSocket, App::Echo), idle);
    drop(server);
    let report = holdline::swarm::run(&plan, &Live::new(2), &AtomicBool::new(false)).unwrap();
    let limit = report.limit.unwrap();
    assert_eq!((limit.at, limit.what.as_str()), (0, "a target where nobody listens"));
}

#[test]
fn the_program_says_which_limit_it_was_and_fails() {
    let server = Server::start(&["--max-connections", "50"]);
    let target = format!("ws://{}/topics/all", server.0.address(0));
    let swarm = ["swarm", "idle", "--quiet", "--connections", "60", "--target", &target];
    let output = holdline(&swarm).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("stopped it at 50 of 60 connections: raise the server's"), "{said}");
}

/// A run that is stopped when it has come so far.
fn stopped(plan: &Plan, is_far: impl Fn(&Live) -> bool) -> Report {
    let (live, stop) = (Live::new(plan.crew()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let swarm = scope.spawn(|| holdline::swarm::run(plan, &live, &stop));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_far(&live) {
            assert!(Instant::now() < deadline, "it gets there in the end");
            std::thread::yield_now();
        }
        let at = Instant::now();
        stop.store(true, Ordering::Relaxed);
        let report = swarm.join().unwrap().unwrap();
        assert!(at.elapsed() < Duration::from_millis(1500), "{:?}", at.elapsed());
        Report { interrupted: true, ..report }
    })
}

#[test]
fn a_stop_ends_it_within_a_second_with_a_report() {
    let server = Server::start(&[]);
    let idle = Scenario::Idle(Idle { hold: Duration::from_secs(3600) });
    let plan = server.plan(server.target(Protocol::WebSocket, App::Topic), idle);
    let report = stopped(&plan, |live| live.phase() == Phase::Hold);
    assert_eq!((report.opened, report.hold.alive_at_start), (300, 300));
}
