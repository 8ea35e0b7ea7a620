//! Servers inside, and what is left when all is over: nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use holdline::io::Ending;
use holdline::io::tun::{Config, Namespace, Server, Tun};

use super::crowd::{Crowd, PATIENCE};
use super::echo;

/// Turns this test program into one that makes a namespace, a device and a server, and then waits to be killed.
const HOLDER: &str = "TUN_TEST_HOLDER";

/// Starts `holdline serve` inside, with an echo of lines.
pub fn serve(namespace: &Namespace, more: &[&str]) -> (Server, SocketAddrV4) {
    let program = env!("CARGO_BIN_EXE_holdline");
    let words = [program, "serve", "--insecure", "--listen", "tcp://198.18.0.1:0?framing=line&app=echo"];
    let command: Vec<_> = words.iter().chain(more).map(|word| (*word).to_owned()).collect();
    let server = namespace.spawn_server(&command).unwrap();
    let authority = server.urls().iter().find_map(|url| url.strip_prefix("tcp://")).unwrap();
    let address = authority.split(['/', '?']).next().unwrap().parse().unwrap();
    (server, address)
}

/// The name of this thread's network namespace.
fn network() -> PathBuf {
    fs::read_link("/proc/thread-self/ns/net").unwrap()
}

/// Whether any thread of the machine is in it.
fn is_inhabited(network: &Path) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let threads = processes.filter_map(|process| fs::read_dir(process.path().join("task")).ok()).flatten().flatten();
    threads.filter_map(|thread| fs::read_link(thread.path().join("ns/net")).ok()).any(|at| at == network)
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn devices() -> String {
    fs::read_to_string("/proc/thread-self/net/dev").unwrap()
}

fn is_running(pid: u32) -> bool {
    // A zombie does not run.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_server_inside_echoes_and_nothing_is_left_of_it() {
    let setting = || fs::read_to_string("/proc/sys/net/ipv4/tcp_child_ehash_entries").unwrap_or_default();
    let before = (network(), setting(), devices().lines().count());
    let namespace = echo::namespace(100_000);
    let inside = namespace.run(network).unwrap();
    assert_ne!(inside, before.0);
    let buckets = namespace.run(|| fs::read_to_string("/proc/sys/net/ipv4/tcp_ehash_entries").unwrap()).unwrap();
    assert_eq!(buckets.trim(), "131072", "a table of its own, as large as asked for");
    let (server, address) = serve(&namespace, &[]);
    let mut crowd = Crowd::new(&namespace, Config::new(100));
    crowd.connect(100, address, b"over here\n");
    crowd.until("the echo is back", |client| client.received == b"over here\n");
    crowd.close_all(|_| Ending::Graceful);
    assert!(namespace.run(devices).unwrap().contains("holdline0"));
    drop(crowd);
    // Another test's process has each descriptor for a moment when it starts.
    until("the device is gone", || !namespace.run(devices).unwrap().contains("holdline0"));
    assert!(server.ended().unwrap().is_none());
    let pid = server.pid();
    drop(namespace);
    assert!(is_running(pid), "the server holds its namespace");
    drop(server);
    assert!(!is_running(pid));
    // A thread that has been joined is in its namespace for a moment longer, and another test's namespace may get the
    // number, and change the setting for as long as it is being made.
    until("nobody is in the namespace", || !is_inhabited(&inside));
    until("all is as before", || (network(), setting(), devices().lines().count()) == before);
}

#[test]
fn each_device_has_a_name_of_its_own_and_gives_it_back() {
    let namespace = echo::namespace(1000);
    let (address, _ends) = echo::serve(&namespace);
    let first = Tun::new(&namespace, Config::new(10)).unwrap();
    let mut second = Crowd::new(&namespace, Config::new(10));
    second.connect(10, address, b"from another block");
    second.until("the echo is back", |client| client.received == b"from another block");
    drop(first);
    let mut first = Crowd::new(&namespace, Config::new(10));
    first.connect(10, address, b"from the first");
    first.until("the echo is back", |client| client.received == b"from the first");
}

#[test]
fn a_name_is_free_again_also_while_processes_start() {
    let namespace = echo::namespace(1000);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                // It has a copy of each descriptor until it is a program of its own.
                Command::new("true").status().unwrap();
            }
        });
        let made: Result<Vec<()>, _> = (0..300).map(|_| Tun::new(&namespace, Config::new(10)).map(drop)).collect();
        is_done.store(true, Ordering::Relaxed);
        made.unwrap();
    });
}

#[test]
fn a_server_that_ends_or_cannot_be_run_is_an_error_in_one_line() {
    let namespace = echo::namespace(1000);
    for (command, why) in [(&["false"][..], "ended before it was ready: exit status: 1"), (&["/no/such"], "No such")] {
        let command: Vec<_> = command.iter().map(|word| (*word).to_owned()).collect();
        let error = namespace.spawn_server(&command).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&command[0]) && !error.contains('\n'), "{error}");
    }
    let error = Tun::new(&namespace, Config { mtu: 67, ..Config::new(1) }).unwrap_err();
    assert_eq!(error.to_string(), "an MTU has at least 68 bytes");
}

#[test]
fn a_killed_process_leaves_nothing() {
    if std::env::var_os(HOLDER).is_some() {
        hold();
    }
    let test = "tun::leftovers::a_killed_process_leaves_nothing";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(HOLDER, "1").stdout(Stdio::piped());
    let mut holder = command.spawn().unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.filter_map(|line| line.split_once("inside: ").map(|(_, words)| words.to_owned())).next();
    let line = line.expect("the holder says what it holds");
    let (pid, inside) = line.split_once(' ').unwrap();
    let (pid, inside) = (pid.parse().unwrap(), PathBuf::from(inside));
    assert!(is_running(pid) && is_inhabited(&inside));
    holder.kill().unwrap();
    holder.wait().unwrap();
    until("the server is killed too", || !is_running(pid));
    until("nobody is in the namespace", || !is_inhabited(&inside));
}

fn hold() -> ! {
    let namespace = echo::namespace(1000);
    let (server, _) = serve(&namespace, &[]);
    let _tun = Tun::new(&namespace, Config::new(10)).unwrap();
    println!("inside: {} {}", server.pid(), namespace.run(network).unwrap().display());
    loop {
        std::thread::park();
    }
}
