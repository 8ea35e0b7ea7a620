//! `holdline doctor` from outside: what it prints on this machine, and how it exits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output};

use serde_json::Value;

/// The program under a limit of open files, which any process may lower for itself.
fn holdline(files: u32, arguments: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {files} && exec '{}' {arguments}", env!("CARGO_BIN_EXE_holdline"));
    program::clean(&mut command).args(["-c", &script]);
    command
}

fn run(files: u32, arguments: &str) -> Output {
    holdline(files, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(files: u32, arguments: &str) -> (Option<i32>, Value) {
    let output = run(files, &format!("doctor --json {arguments}"));
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

fn check<'a>(found: &'a Value, what: &str) -> &'a Value {
    found["checks"].as_array().unwrap().iter().find(|check| check["what"] == what).unwrap()
}

/// Ends a server in good order: its log is written by a thread of its own, and a killed one may not have come to its end.
fn end(child: &mut Child) {
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_few_connections_fit() {
    for backend in ["auto", "epoll"] {
        let output = run(1024, &format!("doctor --connections 100 --backend {backend}"));
        let said = text(&output.stdout);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{said}");
        assert!(said.starts_with("100 connections on ") && said.contains("\n100 fit"), "{said}");
        assert!(said.contains("RLIMIT_NOFILE: ") && said.contains("MemAvailable: 100 x ("), "{said}");
    }
}

#[test]
fn too_many_do_not_fit_and_the_wall_and_the_command_are_named() {
    let output = run(512, "doctor --backend epoll");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(
        text(&output.stderr),
        "holdline: 10,000 connections do not fit here: epoll ends at 192 (open files, RLIMIT_NOFILE): \
         mend what the table calls too small\n"
    );
    let row = said.lines().find(|line| line.starts_with("TOO SMALL  open files ")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[4..], ["512", "10,320", "192"], "{said}");
    // `ulimit -n` lowers the hard limit too.
    assert!(said.contains("-> prlimit --pid $$ --nofile=10320  # as root, or LimitNOFILE=10320 in the unit"), "{said}");
}

#[test]
fn json_parses_and_says_the_same() {
    let (status, found) = json(512, "--backend epoll --connections 193");
    assert_eq!((status, &found["fits"], &found["stops_at"]), (Some(1), &false.into(), &192.into()));
    assert_eq!(check(&found, "open files")["verdict"], "too_small");
    let (status, found) = json(512, "--backend epoll --connections 192 --shards 3");
    assert_eq!((status, &found["fits"], &found["shards"]), (Some(0), &true.into(), &3.into()));
    // This machine says how much memory it has, whatever machine it is.
    assert!(check(&found, "memory")["now"].as_u64().unwrap() > 1 << 20, "{found}");
}

#[test]
fn the_configuration_is_the_servers() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-doctor.toml", std::process::id()));
    std::fs::write(&path, "backend = \"epoll\"\nshards = 5\n[limits]\nconnections_max = 150\n").unwrap();
    let config = format!("--config '{}'", path.display());
    let (_, found) = json(1024, &config);
    assert_eq!((&found["backend"], &found["shards"], &found["connections"]), (&"epoll".into(), &5.into(), &150.into()));
    let (_, found) = json(1024, &format!("{config} --connections 7"));
    assert_eq!(found["connections"], 7);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    for (arguments, expected) in [
        ("--connections 0", "is 0, below 1, flag --connections"),
        ("--connections many", "flag --connections: write a whole number"),
        ("--connections -5", "flag --connections"),
        ("--backend kqueue", "write auto or epoll or uring"),
        ("--connection 5", "'--connections'"),
        ("--config /nowhere/holdline.toml", "/nowhere/holdline.toml"),
    ] {
        let output = run(1024, &format!("doctor {arguments}"));
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{arguments}: {said}");
        assert!(said.contains(expected) && output.stdout.is_empty(), "{arguments}: {said}");
    }
}

#[test]
fn epoll_takes_as_many_as_the_doctor_says_and_refuses_one_more() {
    let serve = "serve --backend epoll --listen http://127.0.0.1:0 --admin off --max-connections";
    let output = run(512, &format!("{serve} 193"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("ulimit -n 513"), "{}", text(&output.stderr));
    let mut child = holdline(512, &format!("{serve} 192 2>&1")).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("ready\n") {
        assert_ne!(out.read_line(&mut said).unwrap(), 0, "{said}");
    }
    end(&mut child);
    out.read_to_string(&mut said).unwrap();
    assert!(said.contains(" serving ") && !said.contains("doctor"), "{said}");
}

#[test]
fn a_server_that_is_told_to_hold_too_many_says_so_in_one_line() {
    if let Err(missing) = holdline::io::uring::probe() {
        // epoll is refused at the start instead, which the test above looks at.
        println!("NOT RUN: {missing}");
        return;
    }
    let (_, found) = json(1024, "--backend uring --connections 1000");
    let many = (2 * check(&found, "memory")["stops_at"].as_u64().unwrap()).min(4_000_000);
    let (status, found) = json(1024, &format!("--backend uring --connections {many}"));
    assert_eq!(status, Some(1), "this machine holds {many}: {found}");
    let serve = "serve --backend uring --listen http://127.0.0.1:0 --admin off --max-connections";
    let mut child = holdline(1024, &format!("{serve} {many}")).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line != "ready\n" {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0);
    }
    end(&mut child);
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("do not fit here: uring ends at ")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains("WARN") && warnings[0].contains(&format!("holdline doctor --connections {many}`")),
        "{log}"
    );
}
