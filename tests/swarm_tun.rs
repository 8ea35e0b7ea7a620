//! The load generator with a network of its own: runs over a TUN device, and what is left when they are over.
//!
//! They need `/dev/net/tun` and the right to make network and PID namespaces; where these are missing they fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/program.rs"]
mod program;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use program::{Scratch, holdline};
use serde_json::Value;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// What all processes of a run have in their environment.
const MARK: &str = "SWARM_TUN_TEST";

const WS: &str = "ws://198.18.0.1:8080/topics/t";
const TCP: &str = "tcp://198.18.0.1:7000?app=topic&topic=t";
const HOLDLINE: &str = env!("CARGO_BIN_EXE_holdline");
const SERVER: [&str; 9] = [
    HOLDLINE,
    "serve",
    "--insecure",
    "--listen",
    "http://198.18.0.1:8080",
    "--listen",
    "tcp://198.18.0.1:7000?app=topic",
    "--admin",
    "off",
];

/// A swarm whose processes can be told from all others.
struct Run {
    command: Command,
    mark: String,
}

impl Run {
    fn new(name: &str, arguments: &[&str], server: &[&str]) -> Self {
        let mark = format!("{name}-{}", std::process::id());
        let mut command = holdline(&[&["swarm"], arguments, &["--via", "tun", "--quiet", "--"], server].concat());
        command.env(MARK, &mark);
        Self { command, mark }
    }

    /// Those that run, by number, with their command lines.
    fn processes(&self) -> Vec<(u32, String)> {
        let mark = format!("{MARK}={}\0", self.mark);
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let read = |pid: u32, file: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        // A zombie has neither.
        let ours = pids.filter(|pid| format!("{}\0", read(*pid, "environ")).contains(&mark));
        ours.map(|pid| (pid, read(pid, "cmdline").replace('\0', " "))).collect()
    }

    /// The servers among them; scripts, and the swarm itself, have the same words behind others.
    fn servers(&self) -> Vec<u32> {
        let start = format!("{HOLDLINE} serve ");
        self.processes().into_iter().filter(|(_, line)| line.starts_with(&start)).map(|(pid, _)| pid).collect()
    }

    fn await_server(&self) {
        until("the server runs", || !self.servers().is_empty());
    }

    fn await_nobody(&self) {
        until("nothing is left", || self.processes().is_empty());
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

fn said(output: &Output) -> (String, String) {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).unwrap());
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

/// A run that was well, and its report.
fn report(name: &str, arguments: &[&str], server: &[&str]) -> Value {
    let mut run = Run::new(name, &[arguments, &["--json", "-"]].concat(), server);
    let output = run.command.output().unwrap();
    let (out, err) = said(&output);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {out} {err}");
    run.await_nobody();
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    assert_eq!((&report["via"], &report["ok"], &report["limit"]), (&"tun".into(), &true.into(), &Value::Null));
    report
}

#[test]
fn idle_connections_are_found_alive_behind_a_device() {
    let path = ["--rtt", "4ms", "--reorder", "1%"];
    let echo = "ws://198.18.0.1:8080/echo";
    let grpc = ["grpc://198.18.0.1:8080/echo", "grpc://198.18.0.1:8080/topics/t"];
    for (target, path) in [(echo, &path[..]), (TCP, &[]), (grpc[0], &path), (grpc[1], &[])] {
        let arguments = ["idle", "--target", target, "--connections", "200", "--hold", "200ms"];
        let report = report("idle", &[&arguments[..], path].concat(), &SERVER);
        let hold = &report["hold"];
        assert_eq!(
            (&report["opened"], &hold["alive_at_start"], &hold["alive_at_end"]),
            (&200.into(), &200.into(), &200.into())
        );
        assert!(report["server"]["held"]["user_bytes"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_broadcast_reaches_each_once_over_a_bad_path() {
    let arguments =
        ["broadcast", "--target", WS, "--connections", "100", "--messages", "5", "--interval", "20ms", "--loss", "2%"];
    let report = report("broadcast", &arguments, &SERVER);
    let broadcast = &report["broadcast"];
    assert_eq!(
        (&broadcast["deliveries"], &broadcast["missing"], &broadcast["duplicates"]),
        (&500.into(), &0.into(), &0.into())
    );
}

#[test]
fn those_who_vanish_were_there_and_are_not_missed() {
    for target in [WS, TCP] {
        let messages = ["--messages", "4", "--interval", "100ms", "--vanish", "50%", "--connect-timeout", "2s"];
        let arguments = [&["broadcast", "--target", target, "--connections", "20"][..], &messages].concat();
        let report = report("vanish", &arguments, &SERVER);
        let (hold, broadcast) = (&report["hold"], &report["broadcast"]);
        assert_eq!((&report["opened"], &report["connect"]["retries"]), (&20.into(), &0.into()), "{target}");
        assert_eq!((&hold["alive_at_start"], &hold["vanished"], &hold["lost"]), (&20.into(), &10.into(), &0.into()));
        assert_eq!((&broadcast["deliveries"], &broadcast["missing"]), (&40.into(), &0.into()), "{target}");
    }
    let idle = ["idle", "--target", WS, "--connections", "20", "--hold", "1s", "--vanish", "25%"];
    let hold = &report("vanish", &idle, &SERVER)["hold"];
    assert_eq!((&hold["vanished"], &hold["alive_at_end"]), (&5.into(), &15.into()));
}

/// Stands before the server, which it starts, and waits for it.
const WRAPPER: &str = "\"$@\" & wait";

fn wrapped() -> Vec<&'static str> {
    ["bash", "-c", WRAPPER, "wrapper"].into_iter().chain(SERVER).collect()
}

#[test]
fn a_server_behind_a_script_is_the_one_that_is_looked_at_and_goes_with_the_swarm() {
    let file = Scratch::new("wrapped.json");
    let idle = ["idle", "--target", WS, "--connections", "1000", "--json", file.path(), "--hold"];
    let mut run = Run::new("wrapped", &[&idle[..], &["1h"]].concat(), &wrapped());
    let mut child = run.command.spawn().unwrap();
    run.await_server();
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    run.await_nobody();
    let mut run = Run::new("wrapped", &[&idle[..], &["1s"]].concat(), &wrapped());
    let mut child = run.command.spawn().unwrap();
    let mut servers = Vec::new();
    until("it is over", || {
        servers.extend(run.servers());
        child.try_wait().unwrap().is_some()
    });
    let report: Value = serde_json::from_str(&fs::read_to_string(file.path()).unwrap()).unwrap();
    let (server, pid) = (&report["server"], report["server"]["pid"].as_u64().unwrap());
    assert!(servers.iter().any(|server| u64::from(*server) == pid), "{pid} is none of {servers:?}");
    assert!(report["ok"] == true && server["user_bytes_per_connection"].as_f64().unwrap() > 0.0, "{report:#}");
    run.await_nobody();
}

#[test]
fn a_killed_swarm_leaves_nothing() {
    for server in [SERVER.to_vec(), wrapped()] {
        let arguments = ["idle", "--target", WS, "--connections", "10", "--hold", "1h"];
        let mut run = Run::new("killed", &arguments, &server);
        let mut child = run.command.spawn().unwrap();
        run.await_server();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        run.await_nobody();
    }
}

#[test]
fn a_stop_is_heard_while_the_server_starts() {
    let file = Scratch::new("slow.json");
    let arguments = ["idle", "--target", WS, "--connections", "10", "--json", file.path()];
    let mut run = Run::new("slow", &arguments, &["sleep", "600"]);
    let mut child = run.command.spawn().unwrap();
    until("the server is there", || run.processes().len() == 2);
    let begun = Instant::now();
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    run.await_nobody();
    let report: Value = serde_json::from_str(&fs::read_to_string(file.path()).unwrap()).unwrap();
    let found = (&report["interrupted"], &report["opened"], &report["connections"], &report["scenario"]);
    assert_eq!(found, (&true.into(), &0.into(), &10.into(), &"idle".into()));
}

#[test]
fn what_a_quiet_server_says_is_kept_for_the_error() {
    let arguments = ["idle", "--target", WS, "--connections", "10", "--hold", "10ms"];
    let talkative = ["bash", "-c", "echo much >&2; exec \"$@\"", "talkative"];
    let output = Run::new("quiet", &arguments, &[&talkative, &SERVER[..]].concat()).command.output().unwrap();
    assert_eq!((output.status.code(), said(&output).1.as_str()), (Some(0), ""));
    let broken = ["bash", "-c", "echo first >&2; echo it is too small >&2; exit 3"];
    let output = Run::new("quiet", &arguments, &broken).command.output().unwrap();
    let (_, err) = said(&output);
    assert_eq!((output.status.code(), err.lines().count()), (Some(1), 1), "{err}");
    assert!(err.contains("server `bash`: ended before it was ready: exit status: 3: it is too small"), "{err}");
    // One that ends later is what stopped the run.
    let brief = ["bash", "-c", "\"$@\" & sleep 3; kill -9 $!; echo it fell over >&2; exit 4", "brief"];
    let arguments = ["idle", "--target", WS, "--connections", "10", "--hold", "6s", "--patience", "1s"];
    let output = Run::new("quiet", &arguments, &[&brief, &SERVER[..]].concat()).command.output().unwrap();
    let (_, err) = said(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    let expected = "the server, which ended by itself (exit status: 4: it fell over): that stopped it at 10 of 10";
    assert!(err.contains(expected), "{err}");
}

#[test]
fn what_the_network_has_no_place_for_is_refused_with_its_flag() {
    let loopback = "ws://127.0.0.1:8080/topics/t";
    for (arguments, expected) in [
        (&["idle", "--target", loopback][..], "target is 127.0.0.1:8080, and in its network the server has 198.18.0.1"),
        (&["idle", "--target", WS, "--threads", "17"], "threads is 17, above 16, flag --threads: write"),
        (
            &["churn", "--target", WS, "--probe", "ws://127.0.0.1:8080/echo"],
            "probe is 127.0.0.1:8080, and in its network the server has 198.18.0.1, flag --probe: write",
        ),
        (
            &["churn", "--target", WS, "--threads", "16", "--probe", "ws://198.18.0.1:8080/echo"],
            "threads is 16, above 15, flag --threads: write",
        ),
    ] {
        let output = Run::new("refused", arguments, &SERVER).command.output().unwrap();
        let (_, err) = said(&output);
        assert_eq!((output.status.code(), err.lines().count()), (Some(2), 1), "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
}
