//! The load generator from outside: flags that cannot be, and runs against a real server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use program::{Program, Scratch, holdline};
use serde_json::Value;

fn swarm(arguments: &[&str]) -> Output {
    holdline(&[&["swarm"], arguments].concat()).output().unwrap()
}

/// The last line of standard error, which names the program.
fn said(output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    let last = said.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("holdline: "), "{said}");
    last
}

fn refused(arguments: &[&str]) -> String {
    let output = swarm(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    assert_eq!((output.stderr.iter().filter(|byte| **byte == b'\n').count(), output.stdout.len()), (1, 0));
    said(&output)
}

/// A server for whatever a swarm may load.
struct Server(Program);

impl Server {
    const LISTENERS: [&str; 4] = [
        "http://127.0.0.1:0",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:0?app=topic",
        "tcp://127.0.0.1:0?framing=length&app=topic",
    ];

    fn start(arguments: &[&str]) -> Self {
        Self(Program::serve(&Self::LISTENERS, &[&["--shards", "2", "--admin", "off"], arguments].concat()))
    }

    fn ws(&self, path: &str) -> String {
        format!("{}{path}", self.0.urls[0].replace("http://", "ws://"))
    }
}

/// A run that was well, and its report.
fn report(arguments: &[&str]) -> Value {
    let output = swarm(&[arguments, &["--json", "-"]].concat());
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {text} {said}");
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(
        (&report["ok"], &report["limit"], &report["faults"]),
        (&true.into(), &Value::Null, &Value::Array(vec![]))
    );
    report
}

#[test]
fn bad_flags_are_refused_in_one_line() {
    const ECHO: &str = "ws://127.0.0.1:1/echo";
    for (arguments, expected) in [
        (&["idle"][..], "--target <URL>, on the command line: see `holdline swarm idle --help`"),
        (&[], "`holdline swarm` does not say what to do, on the command line: see `holdline swarm --help`"),
        (&["idel", "--target", ECHO], "'idle'"),
        (&["idle", "--target", "here"], "target is \"here\", not a URL, flag --target: write ws://HOST:PORT/echo"),
        (&["idle", "--target", "https://127.0.0.1:1/echo"], "over SSE a client only hears"),
        (
            &["idle", "--target", "wss://127.0.0.1:1/echo", "--ca", "/none"],
            "/none, flag --ca: name a file of CA certificates",
        ),
        (&["idle", "--target", ECHO, "--ca", "a", "--insecure"], "--insecure"),
        (&["idle", "--target", "ws://127.0.0.1:1/chat/a"], "flag --target: write /topics/chat/a"),
        (&["idle", "--target", ECHO, "--connections", "0"], "connections is 0, below 1, flag --connections: write"),
        (&["idle", "--target", ECHO, "--connections", "-5"], "connections is \"-5\", flag --connections"),
        (&["idle", "--target", ECHO, "--rate", "0"], "rate is 0, which never begins, flag --rate: write"),
        (&["churn", "--target", ECHO, "--abrupt", "1.5"], "abrupt is 1.5, above 1, flag --abrupt: write a share"),
        (&["broadcast", "--target", ECHO], "nobody hears what others say there, flag --target"),
        (&["idle", "--target", ECHO, "--conections", "1"], "'--connections'"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn a_path_that_cannot_be_written_is_found_before_the_run() {
    // Somebody listens there; nobody may come.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = format!("ws://{}/echo", listener.local_addr().unwrap());
    let said = refused(&["idle", "--target", &target, "--json", "/nowhere/at/all/report.json"]);
    assert!(said.contains("cannot write /nowhere/at/all/report.json") && said.contains("flag --json"), "{said}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn help_has_examples() {
    for arguments in [&["--help"][..], &["idle", "--help"], &["broadcast", "--help"], &["echo", "--help"]] {
        let output = swarm(arguments);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    }
    let help = String::from_utf8(swarm(&["--help"]).stdout).unwrap();
    let patience = String::from_utf8(swarm(&["idle", "--help"]).stdout).unwrap();
    assert!(patience.contains("How long nothing at all may come"), "{patience}");
    for scenario in ["idle", "broadcast", "echo", "churn"] {
        assert!(help.contains(&format!("\n  holdline swarm {scenario} --")), "{help}");
    }
}

#[test]
fn nobody_there_is_a_failure_that_says_so() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = Scratch::new("nobody.json");
    let target = format!("ws://{address}/echo");
    let output =
        swarm(&["idle", "--target", &target, "--connections", "5", "--hold", "1ms", "--quiet", "--json", file.path()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains(" 0 of 5 connections"), "{}", said(&output));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(file.path()).unwrap()).unwrap();
    assert_eq!((&report["ok"], &report["opened"]), (&false.into(), &0.into()));
}

#[test]
fn a_path_that_is_not_there_is_told_as_the_server_says_it() {
    let server = Server::start(&[]);
    let output = swarm(&["idle", "--target", &server.ws("/nowhere"), "--app", "echo", "--connections", "3", "--quiet"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let expected = "the server answered 404 Not Found: that stopped it at 0 of 3 connections: check the target's path";
    assert!(said(&output).contains(expected), "{}", said(&output));
}

#[test]
fn idle_connections_are_found_alive() {
    let server = Server::start(&["--heartbeat-interval", "100ms"]);
    for target in [
        server.ws("/echo"),
        server.ws("/topics/idle"),
        server.0.urls[1].clone(),
        format!("{}&topic=i", server.0.urls[2]),
    ] {
        let report =
            report(&["idle", "--target", &target, "--connections", "200", "--hold", "500ms", "--pid", &server.0.pid()]);
        assert_eq!((&report["scenario"], &report["opened"]), (&"idle".into(), &200.into()), "{target}");
        assert_eq!((&report["hold"]["alive_at_start"], &report["hold"]["alive_at_end"]), (&200.into(), &200.into()));
        assert!(report["hold"]["pings_answered"].as_u64().unwrap() >= 200, "{target}: {report:#}");
        assert!(report["connect"]["rate"].as_f64().unwrap() > 0.0);
        assert!(report["server"]["held"]["user_bytes"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_broadcast_reaches_each_once() {
    let server = Server::start(&[]);
    for target in
        [server.ws("/topics/b"), format!("{}&topic=b", server.0.urls[2]), format!("{}&topic=b", server.0.urls[3])]
    {
        let report = report(&[
            "broadcast",
            "--target",
            &target,
            "--connections",
            "300",
            "--messages",
            "7",
            "--interval",
            "10ms",
            "--size",
            "1KiB",
        ]);
        let broadcast = &report["broadcast"];
        assert_eq!(
            (&broadcast["messages"], &broadcast["deliveries"]),
            (&7.into(), &2100.into()),
            "{target}: {report:#}"
        );
        assert_eq!((&broadcast["missing"], &broadcast["duplicates"]), (&0.into(), &0.into()));
        let at = |name: &str| broadcast[name].as_f64().unwrap();
        assert!(0.0 < at("first_ms") && at("first_ms") <= at("p50_ms") && at("p50_ms") <= at("p99_ms"));
        assert!(at("p99_ms") <= at("p99_9_ms") && at("p99_9_ms") <= at("last_ms"));
        assert_eq!(broadcast["each"].as_array().unwrap().len(), 7);
    }
}

#[test]
fn echoes_come_back_in_a_closed_loop_and_at_a_rate() {
    let server = Server::start(&[]);
    let pid = server.0.pid();
    let line = ["echo", "--connections", "20", "--duration", "500ms", "--warm-up", "100ms", "--pid", &pid];
    for target in [server.ws("/echo"), server.0.urls[1].clone()] {
        let closed = report(&[&line[..], &["--target", &target, "--in-flight", "4"]].concat());
        assert!(closed["echo"]["messages"].as_u64().unwrap() >= 80, "{closed:#}");
        assert!(closed["echo"]["server_cpu_us_per_message"].as_f64().is_some(), "{closed:#}");
        let open = report(&[&line[..], &["--target", &target, "--message-rate", "1k/s"]].concat());
        let rate = open["echo"]["rate"].as_f64().unwrap();
        assert!((500.0..1500.0).contains(&rate) && open["echo"]["intended_rate"] == 1000.0, "{open:#}");
    }
}

#[test]
fn a_churn_leaves_the_others_alone() {
    let server = Server::start(&["--heartbeat-interval", "1s", "--heartbeat-timeout", "1s"]);
    let probe = server.ws("/echo");
    let report = report(&[
        "churn",
        "--target",
        &server.ws("/topics/c"),
        "--connections",
        "50",
        "--churn",
        "200/s",
        "--lifetime",
        "200ms",
        "--half-open-for",
        "5s",
        "--duration",
        "2s",
        "--abrupt",
        "30%",
        "--half-open",
        "10%",
        "--slow",
        "10%",
        "--probe",
        &probe,
        "--probes",
        "3",
    ]);
    let churn = &report["churn"];
    assert!(churn["connects"].as_u64().unwrap() >= 200, "{report:#}");
    for way in ["graceful", "abrupt", "half_open", "slow", "deliveries", "probes"] {
        assert!(churn[way].as_u64().unwrap() > 0, "{way}: {report:#}");
    }
    assert_eq!((&churn["half_open_overlooked"], &churn["reordered"]), (&0.into(), &0.into()));
    assert_eq!((&churn["held"], &churn["held_lost"], &churn["missing"]), (&50.into(), &0.into(), &0.into()));
    assert!(churn["probe"]["p99_us"].as_f64().unwrap() > 0.0 && churn["probe_idle"]["p99_us"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_full_server_is_the_limit_that_is_told() {
    let server = Server::start(&["--max-connections", "40"]);
    let file = Scratch::new("full.json");
    let output = swarm(&[
        "idle",
        "--target",
        &server.ws("/echo"),
        "--connections",
        "100",
        "--hold",
        "10ms",
        "--quiet",
        "--connect-timeout",
        "2s",
        "--patience",
        "2s",
        "--json",
        file.path(),
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = said(&output);
    assert!(
        said.contains(": that stopped it at 40 of 100 connections: ") && said.contains("--max-connections"),
        "{said}"
    );
    let report: Value = serde_json::from_str(&std::fs::read_to_string(file.path()).unwrap()).unwrap();
    assert_eq!((&report["ok"], &report["limit"]["at"]), (&false.into(), &40.into()));
}

/// Waits until standard error says this.
fn await_line(err: &mut impl BufRead, expected: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut said = String::new();
    while !said.lines().any(|line| line.starts_with(expected)) {
        assert!(err.read_line(&mut said).unwrap() > 0 && Instant::now() < deadline, "{expected} is not in {said}");
    }
    said
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_signal_ends_it_early_with_a_report_and_leaves_no_file_beside_it() {
    let server = Server::start(&[]);
    let file = Scratch::new("signal.json");
    let target = server.ws("/echo");
    for name in ["INT", "TERM"] {
        let line = ["swarm", "idle", "--target", &target, "--connections", "10", "--hold", "1h", "--json", file.path()];
        let mut child = holdline(&line).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        await_line(&mut err, "holding: ");
        signal(&child, name);
        let mut rest = String::new();
        err.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{rest}");
        assert!(rest.contains("holdline: ended by a signal before its time"), "{rest}");
        let report: Value = serde_json::from_str(&std::fs::read_to_string(file.path()).unwrap()).unwrap();
        assert_eq!(
            (&report["ok"], &report["interrupted"], &report["opened"]),
            (&false.into(), &true.into(), &10.into())
        );
        assert!(String::from_utf8(output.stdout).unwrap().starts_with("swarm idle via loopback"));
    }
}

/// Waits for the end of a program that should end by itself, and ends it when it does not.
fn await_end(mut child: Child) -> Output {
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("it goes on: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn a_signal_while_thousands_are_being_dialled_ends_it() {
    // Nobody accepts: thousands stay in the opening.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("ws://{}/echo", listener.local_addr().unwrap());
    let mut child = holdline(&["swarm", "idle", "--target", &target, "--connections", "50k"]).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    await_line(&mut err, "opening: ");
    signal(&child, "INT");
    let output = await_end(child);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("ended by a signal before its time"));
}

#[test]
fn a_server_that_goes_ends_it() {
    for scenario in [&["idle", "--hold", "1h"][..], &["churn", "--duration", "1h", "--lifetime", "1h"]] {
        let mut server = Server::start(&[]);
        let line = ["--target", &server.ws("/topics/g"), "--connections", "100"];
        let mut child = holdline(&[&["swarm"], scenario, &line].concat()).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        await_line(&mut err, if scenario[0] == "idle" { "holding: " } else { "measuring: " });
        server.0.child.kill().unwrap();
        let output = await_end(child);
        assert_eq!(output.status.code(), Some(1));
        let mut rest = String::new();
        err.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("holdline: the server ended all connections after "), "{rest}");
        assert!(rest.contains(&format!(", target {}: see its log", line[1])), "{rest}");
    }
}

#[test]
fn a_server_that_goes_while_it_is_opened_is_not_taken_for_nobody() {
    let mut server = Server::start(&[]);
    let line = ["swarm", "idle", "--target", &server.ws("/echo"), "--connections", "1M", "--rate", "900/s"];
    let mut child = holdline(&line).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let said = await_line(&mut err, "opening: ");
    assert!(!said.contains("setting up"), "nothing has been set up for long: {said}");
    await_line(&mut err, "opening: 4,");
    server.0.child.kill().unwrap();
    let output = await_end(child);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("a server that has stopped listening: that stopped it at "), "{text}");
    assert!(!text.contains(" 0 of 1,000,000 opened") && !text.contains("of 0 connections"), "{text}");
}

#[test]
fn a_summary_that_cannot_be_written_is_a_failure() {
    let server = Server::start(&[]);
    let target = server.ws("/echo");
    let mut command = holdline(&["swarm", "idle", "--target", &target, "--connections", "5", "--hold", "1ms"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.arg("--quiet").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains("cannot write the summary: ") && said.contains(", standard output: make room"), "{said}");
}

#[test]
fn http_where_raw_tcp_is_asked_for_is_told() {
    let server = Server::start(&[]);
    let target = format!("tcp://{}", server.0.address(0));
    let output = swarm(&["idle", "--target", &target, "--connections", "50", "--quiet"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = said(&output);
    assert!(said.contains("an HTTP server where raw TCP is asked for: that stopped it at "), "{said}");
    assert!(said.contains("load it as ws://HOST:PORT"), "{said}");
    assert!(String::from_utf8(output.stdout).unwrap().contains(" 0 pings answered"));
}
