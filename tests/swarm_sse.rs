//! The swarm over server-sent events, against a small server that can be made to err.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/events.rs"]
mod events;
#[path = "common/program.rs"]
mod program;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use events::{Behaviour, Events};
use holdline::swarm::live::Live;
use holdline::swarm::plan::{App, Broadcast, Churn, Idle, Plan, Protocol, Rate, Scenario, Share, Target, Trust, Via};
use holdline::swarm::report::Report;
use program::holdline;
use serde_json::Value;

fn plan(server: &Events, scenario: Scenario) -> Plan {
    let (address, host) = (server.address, server.address.to_string());
    let path = "/topics/t".to_owned();
    Plan {
        target: Target { protocol: Protocol::Sse, tls: false, address, host, path, first_frame: None, app: App::Topic },
        trust: Trust::default(),
        via: Via::Loopback,
        connections: 60,
        rate: Some(Rate::new(2000.0)),
        threads: 2,
        scenario,
        server_pid: None,
        connect_timeout: Duration::from_secs(5),
        patience: Duration::from_secs(2),
    }
}

fn run(plan: &Plan) -> Report {
    holdline::swarm::run(plan, &Live::new(plan.crew()), &AtomicBool::new(false)).unwrap()
}

fn broadcast(messages: u32) -> Scenario {
    let interval = Duration::from_millis(20);
    Scenario::Broadcast(Broadcast { messages, size: 100, interval, hold: Duration::ZERO })
}

fn both() -> [Behaviour; 2] {
    [false, true].map(|is_chunked| Behaviour { is_chunked, ..Behaviour::default() })
}

#[test]
fn idle_streams_live_at_both_ends_of_the_hold() {
    for behaviour in both() {
        let server = Events::start(behaviour);
        let report = run(&plan(&server, Scenario::Idle(Idle { hold: Duration::from_millis(500) })));
        assert_eq!(report.faults(), [""; 0], "{}", report.to_json());
        assert_eq!((report.opened, report.hold.alive_at_start, report.hold.alive_at_end), (60, 60, 60));
        assert!(report.hold.heartbeats_heard >= 60 && report.hold.pings_answered == 0, "{}", report.to_json());
        assert!(report.summary().contains(" heartbeats heard"), "{}", report.summary());
        assert_eq!(server.opened(), [60, 1], "the publisher comes beside those who are counted");
    }
}

#[test]
fn a_broadcast_reaches_every_stream_once() {
    for behaviour in both() {
        let server = Events::start(behaviour);
        let report = run(&plan(&server, broadcast(10)));
        assert_eq!(report.faults(), [""; 0], "{}", report.to_json());
        let found = report.broadcast.unwrap();
        assert_eq!((found.messages, found.deliveries, found.missing, found.duplicates), (10, 600, 0, 0));
    }
}

#[test]
fn what_a_stream_misses_and_gets_twice_is_found() {
    let server = Events::start(Behaviour { skips: Some(8), doubles: Some(9), ..Behaviour::default() });
    let report = run(&plan(&server, broadcast(20)));
    let found = report.broadcast.as_ref().unwrap();
    assert_eq!((found.missing, found.duplicates, found.deliveries), (1, 1, 1199), "{}", report.to_json());
    assert!(!report.ok());
}

#[test]
fn a_publisher_that_is_lost_comes_back() {
    let server = Events::start(Behaviour { drops_publisher: Some(1), is_chunked: true, ..Behaviour::default() });
    let idle = Scenario::Idle(Idle { hold: Duration::from_millis(300) });
    let report = run(&plan(&server, idle));
    assert_eq!(report.faults(), [""; 0], "{}", report.to_json());
    assert_eq!((report.hold.lost, report.connect.retries, server.opened()), (0, 1, [60, 2]));
}

#[test]
fn guests_come_and_go_and_those_who_stay_do_not_notice() {
    let churn = Churn {
        held: 60,
        rate: Rate::new(100.0),
        lifetime: Duration::from_millis(300),
        duration: Duration::from_secs(2),
        abrupt: Share::new(0.2),
        half_open: Share::new(0.1),
        slow: Share::new(0.1),
        probe: None,
        probes: 1,
        half_open_for: Duration::from_millis(500),
        publish_every: Duration::from_millis(200),
    };
    for behaviour in both() {
        let server = Events::start(behaviour);
        let report = run(&plan(&server, Scenario::Churn(churn.clone())));
        assert_eq!(report.faults(), [""; 0], "{}", report.to_json());
        let found = report.churn.unwrap();
        let came = found.graceful + found.abrupt + found.half_open;
        assert!(found.connects >= 180 && found.connects.abs_diff(came) <= 5, "{found:?}");
        assert!(found.abrupt >= 30 && found.slow >= 15 && found.half_open >= 15, "{found:?}");
        assert_eq!((found.half_open_detected, found.half_open_unnoticeable), (0, found.half_open), "{found:?}");
        assert_eq!((found.deliveries, found.publications, found.graceful_unanswered), (600, 10, 0));
    }
}

#[test]
fn a_server_that_declines_is_told_by_its_status() {
    let no = Behaviour { refusal: Some("406 Not Acceptable"), ..Behaviour::default() };
    let one_way = Behaviour { is_one_way: true, ..Behaviour::default() };
    for (behaviour, expected) in [
        (no, "the server answered 406 Not Acceptable".to_owned()),
        (one_way, "the server answered 404 Not Found, for the one that publishes at ws://".to_owned()),
    ] {
        let server = Events::start(behaviour);
        let report = run(&plan(&server, Scenario::Idle(Idle { hold: Duration::ZERO })));
        let limit = report.limit.clone().unwrap();
        assert!(limit.what.starts_with(&expected) && limit.at == 0, "{limit:?}");
        assert!(!report.ok() && report.opened == 0, "{}", report.to_json());
    }
}

#[test]
fn the_program_takes_http_for_sse() {
    let server = Events::start(Behaviour { is_chunked: true, ..Behaviour::default() });
    for scheme in ["http", "sse"] {
        let target = format!("{scheme}://{}/topics/t", server.address);
        let line = ["swarm", "idle", "--target", &target, "--connections", "20", "--hold", "10ms", "--json", "-"];
        let output = holdline(&line).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["opened"], &report["hold"]["alive_at_end"]), (&20.into(), &20.into()));
        assert_eq!(report["target"], format!("http://{}/topics/t", server.address));
    }
}

#[test]
fn echoes_are_refused_with_the_reason() {
    for (scenario, path, expected) in [
        (
            "echo",
            "topics/t",
            "is a topic, and echoes come from an echo, flag --target: write ws:// or grpc://HOST:PORT/echo",
        ),
        (
            "idle",
            "echo",
            "over SSE a client only hears: it has nothing that could come back, flag --target: write ws://",
        ),
        ("idle", "topics/a,b", "is a stream of several topics"),
    ] {
        let target = format!("http://127.0.0.1:1/{path}");
        let output = holdline(&["swarm", scenario, "--target", &target]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(expected), "{said}");
    }
}
