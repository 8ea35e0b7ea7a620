//! The swarm against the real server, both over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddrV4;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use holdline::swarm::live::Live;
use holdline::swarm::plan::{App, Broadcast, Idle, Plan, Protocol, Scenario, Target, Via};
use holdline::swarm::report::Report;

/// A server process that ends with its value.
struct Server {
    child: Child,
    at: Vec<SocketAddrV4>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// With listeners for WebSocket, lines and lengths of an echo and of a topic that the first frame names.
    fn start(flags: &[&str]) -> Self {
        let listeners = [
            "http://127.0.0.1:0",
            "tcp://127.0.0.1:0?framing=line&app=topic",
            "tcp://127.0.0.1:0?framing=length&app=topic",
            "tcp://127.0.0.1:0?framing=line&app=echo",
            "tcp://127.0.0.1:0?framing=length&app=echo",
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
        command.args(["serve", "--admin", "off"]).args(flags);
        listeners.iter().for_each(|listener| {
            command.args(["--listen", listener]);
        });
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let urls = lines.take_while(|line| line != "ready");
        let address = |line: String| {
            let rest = line.split_once("://").unwrap().1;
            rest.split(['?', '/']).next().unwrap().parse().unwrap()
        };
        let at = urls.map(address).collect();
        Self { child, at }
    }

    fn target(&self, protocol: Protocol, app: App) -> Target {
        let listener = match (protocol, app) {
            (Protocol::WebSocket, _) => 0,
            (Protocol::Line, App::Topic) => 1,
            (Protocol::Length, App::Topic) => 2,
            (Protocol::Line, App::Echo) => 3,
            (Protocol::Length, App::Echo) => 4,
        };
        let address = self.at[listener];
        let path = if app == App::Echo { "/echo" } else { "/topics/all" };
        let is_websocket = protocol == Protocol::WebSocket;
        Target {
            protocol,
            address,
            host: address.to_string(),
            path: if is_websocket { path.to_owned() } else { String::new() },
            first_frame: (!is_websocket && app == App::Topic).then(|| "all".to_owned()),
            app,
        }
    }

    fn plan(&self, target: Target, scenario: Scenario) -> Plan {
        Plan {
            target,
            via: Via::Loopback,
            connections: 300,
            rate: None,
            threads: 2,
            scenario,
            server_pid: Some(self.child.id()),
            connect_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(5),
        }
    }
}

fn run(plan: &Plan) -> Report {
    let live = Live::new(plan.threads);
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
fn a_broadcast_reaches_everyone_once() {
    let server = Server::start(&[]);
    for protocol in ALL {
        let interval = Duration::from_millis(20);
        let broadcast = Broadcast { messages: 10, size: 100, interval, hold: Duration::ZERO };
        let report = run(&server.plan(server.target(protocol, App::Topic), Scenario::Broadcast(broadcast)));
        let found = report.broadcast.unwrap();
        assert_eq!((found.deliveries, found.missing, found.duplicates), (3000, 0, 0), "{protocol:?}");
        assert_eq!((found.messages, found.each.len()), (10, 10));
        assert!(found.p50_ms <= found.p99_9_ms && found.p99_9_ms <= found.last_ms && found.last_ms > 0.0);
    }
}
