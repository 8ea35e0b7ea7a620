//! The swarm over gRPC, against the real server on both backends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/program.rs"]
mod program;

use std::net::SocketAddrV4;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use holdline::swarm::live::Live;
use holdline::swarm::plan::{
    App, Broadcast, Churn, Echo, Idle, Plan, Protocol, Rate, Scenario, Share, Target, Trust, Via,
};
use holdline::swarm::report::Report;
use program::{Program, holdline};

const BACKENDS: [&str; 2] = ["epoll", "uring"];

struct Server(Program);

impl Server {
    fn start(backend: &str, flags: &[&str]) -> Self {
        let arguments = ["--admin", "off", "--shards", "2", "--backend", backend];
        Self(Program::serve(&["http://127.0.0.1:0"], &[&arguments[..], flags].concat()))
    }

    fn plan(&self, app: App, scenario: Scenario) -> Plan {
        let address: SocketAddrV4 = self.0.address(0).parse().unwrap();
        let path = if app == App::Echo { "/echo" } else { "/topics/all" }.to_owned();
        let host = address.to_string();
        Plan {
            target: Target { protocol: Protocol::Grpc, tls: false, address, host, path, first_frame: None, app },
            trust: Trust::default(),
            via: Via::Loopback,
            connections: 200,
            rate: None,
            threads: 2,
            scenario,
            server_pid: Some(self.0.child.id()),
            connect_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(5),
        }
    }
}

fn run_any(plan: &Plan) -> Report {
    holdline::swarm::run(plan, &Live::new(plan.crew()), &AtomicBool::new(false)).unwrap()
}

fn run(plan: &Plan) -> Report {
    let report = run_any(plan);
    assert_eq!(report.faults(), [""; 0], "{}", report.to_json());
    report
}

#[test]
fn idle_calls_answer_pings_and_live_at_both_ends_of_the_hold() {
    for backend in BACKENDS {
        let server = Server::start(backend, &["--heartbeat-interval", "200ms"]);
        for app in [App::Topic, App::Echo] {
            let report = run(&server.plan(app, Scenario::Idle(Idle { hold: Duration::from_millis(700) })));
            let hold = &report.hold;
            assert_eq!((report.opened, hold.alive_at_start, hold.alive_at_end), (200, 200, 200), "{backend} {app:?}");
            assert!(hold.pings_answered >= 200 && hold.heartbeats_heard == 0, "{}", report.to_json());
        }
    }
}

#[test]
fn a_broadcast_reaches_every_call_once() {
    for backend in BACKENDS {
        let server = Server::start(backend, &[]);
        // Also some that are larger than a frame of HTTP/2: no more of them than a call's queue holds, however slowly it is read.
        for (size, messages) in [(100, 10), (40_000, 5)] {
            let broadcast = Broadcast { messages, size, interval: Duration::from_millis(20), hold: Duration::ZERO };
            let report = run(&server.plan(App::Topic, Scenario::Broadcast(broadcast)));
            let found = report.broadcast.unwrap();
            let (messages, deliveries) = (u64::from(messages), 200 * u64::from(messages));
            assert_eq!(
                (found.messages, found.deliveries, found.missing, found.duplicates),
                (messages, deliveries, 0, 0)
            );
        }
    }
}

#[test]
fn echoes_come_back_also_when_they_are_larger_than_a_window() {
    for backend in BACKENDS {
        let server = Server::start(backend, &[]);
        for (size, in_flight, rate) in [(200, 4, None), (200, 4, Some(2000.0)), (1000, 200, None), (200_000, 3, None)] {
            let (duration, warm_up) = (Duration::from_millis(300), Duration::from_millis(50));
            let echo = Echo { size, in_flight, rate: rate.map(Rate::new), duration, warm_up };
            let plan = Plan { connections: 20, ..server.plan(App::Echo, Scenario::Echo(echo)) };
            let found = run(&plan).echo.unwrap();
            assert!(found.messages > 0 && found.missing == 0 && found.wrong == 0, "{backend} {size}: {found:?}");
        }
    }
}

#[test]
fn guests_come_and_go_and_those_who_stay_do_not_notice() {
    let churn = Churn {
        held: 100,
        rate: Rate::new(100.0),
        lifetime: Duration::from_millis(300),
        duration: Duration::from_secs(2),
        abrupt: Share::new(0.2),
        half_open: Share::new(0.1),
        slow: Share::new(0.1),
        probe: None,
        probes: 1,
        half_open_for: Duration::from_secs(8),
        publish_every: Duration::from_millis(200),
    };
    // Side by side: most of the time they wait for the server to notice who went mute.
    std::thread::scope(|scope| {
        for backend in BACKENDS {
            let churn = churn.clone();
            scope.spawn(move || {
                let server = Server::start(backend, &["--heartbeat-interval", "300ms", "--heartbeat-timeout", "300ms"]);
                let plan = server.plan(App::Topic, Scenario::Churn(churn));
                let found = run(&Plan { connections: 100, ..plan }).churn.unwrap();
                let came = found.graceful + found.abrupt + found.half_open;
                assert!(found.connects >= 180 && found.connects.abs_diff(came) <= 5, "{backend}: {found:?}");
                assert!(found.abrupt >= 30 && found.slow >= 15 && found.half_open >= 15, "{found:?}");
                assert_eq!((found.half_open_detected, found.graceful_unanswered), (found.half_open, 0), "{found:?}");
                assert_eq!((found.deliveries, found.publications), (1000, 10));
            });
        }
    });
}

#[test]
fn a_call_that_the_server_ends_is_told_with_its_status() {
    let server = Server::start("epoll", &[]);
    // Above what the server takes of a message.
    let (size, second) = (2 << 20, Duration::from_secs(1));
    let echo = Scenario::Echo(Echo { size, in_flight: 1, rate: None, duration: second / 10, warm_up: Duration::ZERO });
    let plan = Plan { connections: 2, patience: second, ..server.plan(App::Echo, echo) };
    let report = run_any(&plan);
    assert_eq!(report.hold.losses.get("closed_8"), Some(&2), "{}", report.to_json());
    assert!(report.summary().contains("status 8 (RESOURCE_EXHAUSTED)"), "{}", report.summary());
}

#[test]
fn a_topic_that_the_server_does_not_take_is_a_limit() {
    let server = Server::start("epoll", &[]);
    let target = format!("grpc://{}/topics/a%20b", server.0.address(0));
    let output =
        holdline(&["swarm", "idle", "--target", &target, "--connections", "3", "--hold", "1ms"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && said.contains("400 Bad Request, for the one that publishes at ws://"),
        "{said}"
    );
}

#[test]
fn the_program_loads_calls_and_refuses_what_is_none() {
    let server = Server::start("epoll", &[]);
    let target = format!("grpc://{}/topics/t", server.0.address(0));
    let line = ["swarm", "idle", "--target", &target, "--connections", "20", "--hold", "10ms", "--json", "-"];
    let output = holdline(&line).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["opened"], &report["hold"]["alive_at_end"]), (&20.into(), &20.into()));
    assert_eq!(report["target"], target);
    for (scenario, path, expected) in [
        (
            "echo",
            "topics/t",
            "is a topic, and echoes come from an echo, flag --target: write ws:// or grpc://HOST:PORT/echo",
        ),
        ("broadcast", "echo", "nobody hears what others say there"),
        ("idle", "chat/lobby", "is a chat room"),
        ("idle", "other", "over gRPC there are an echo and topics"),
    ] {
        let target = format!("grpc://127.0.0.1:1/{path}");
        let output = holdline(&["swarm", scenario, "--target", &target]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(expected), "{said}");
    }
}
