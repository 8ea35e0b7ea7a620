//! `holdline swarm` and `holdline chat` over TLS, against listeners whose certificate nobody else trusts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/program.rs"]
mod program;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use program::{Program, holdline};
use serde_json::Value;

/// A server with a certificate for localhost, and without TLS beside it.
struct Server {
    program: Program,
    folder: PathBuf,
}

impl Server {
    const LISTENERS: [&str; 4] = [
        "https://127.0.0.1:0",
        "tls://127.0.0.1:0?app=echo",
        "tls://127.0.0.1:0?framing=length&app=topic&topic=load",
        "http://127.0.0.1:0",
    ];

    fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("holdline-tools-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (folder.join("edge.pem"), folder.join("edge.key"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let flags = ["--admin", "off", "--shards", "2", "--tls-certificate", certificate.to_str().unwrap()];
        let flags = [&flags[..], &["--tls-key", key.to_str().unwrap()]].concat();
        Self { program: Program::serve(&Self::LISTENERS, &flags), folder }
    }

    fn ca(&self) -> String {
        self.folder.join("edge.pem").to_str().unwrap().to_owned()
    }

    /// A URL on the listener of that number. The certificate is not for 127.0.0.1.
    fn url(&self, scheme: &str, listener: usize, rest: &str) -> String {
        let (_, port) = self.program.address(listener).rsplit_once(':').unwrap();
        format!("{scheme}://localhost:{port}{rest}")
    }

    fn swarm(&self, scenario: &str, target: &str, flags: &[&str]) -> Output {
        let pid = self.program.pid();
        let common = ["swarm", scenario, "--target", target, "--pid", &pid, "--quiet", "--json", "-"];
        holdline(&[&common[..], flags].concat()).output().unwrap()
    }

    /// A run in which all went well, and its report.
    fn report(&self, scenario: &str, target: &str, flags: &[&str]) -> Value {
        let output = self.swarm(scenario, target, &[&["--ca", &self.ca()], flags].concat());
        assert_eq!(output.status.code(), Some(0), "{scenario} {target}: {output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["ok"], &report["limit"]), (&true.into(), &Value::Null), "{report}");
        report
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_crowd_is_held_over_tls_whatever_it_speaks() {
    let server = Server::start("idle");
    for target in [
        server.url("wss", 0, "/echo"),
        server.url("https", 0, "/topics/held"),
        server.url("grpcs", 0, "/topics/held"),
        server.url("tls", 1, "?framing=line&app=echo"),
        server.url("tls", 2, "?framing=length&app=topic&topic=load"),
    ] {
        let report = server.report("idle", &target, &["--connections", "100", "--threads", "2", "--hold", "100ms"]);
        assert_eq!((&report["opened"], report["target"].as_str()), (&100.into(), Some(target.as_str())));
    }
}

#[test]
fn everyone_hears_what_is_published() {
    let server = Server::start("broadcast");
    for (scheme, size) in [("wss", "128"), ("wss", "100000"), ("https", "128"), ("grpcs", "1000")] {
        let target = server.url(scheme, 0, &format!("/topics/{scheme}-{size}"));
        let flags = ["--connections", "50", "--messages", "5", "--size", size, "--interval", "20ms"];
        let report = server.report("broadcast", &target, &flags);
        assert_eq!(report["broadcast"]["deliveries"], 250, "{report}");
    }
}

#[test]
fn echoes_come_back() {
    let server = Server::start("echo");
    for (target, size) in [
        (server.url("wss", 0, "/echo"), "64"),
        (server.url("wss", 0, "/echo"), "200000"),
        (server.url("grpcs", 0, "/echo"), "64"),
        (server.url("tls", 1, "?app=echo"), "64"),
    ] {
        let flags = ["--connections", "20", "--duration", "200ms", "--warm-up", "0", "--size", size];
        let report = server.report("echo", &target, &flags);
        assert!(report["echo"]["messages"].as_u64() > Some(20), "{report}");
    }
}

#[test]
fn guests_come_and_go_beside_probes_without_tls() {
    let server = Server::start("churn");
    let (target, probe) = (server.url("wss", 0, "/topics/churn"), server.url("ws", 3, "/echo"));
    let flags =
        ["--connections", "50", "--churn", "100/s", "--lifetime", "100ms", "--duration", "1s", "--probe", &probe];
    let flags = [&flags[..], &["--abrupt", "0.3", "--publish-every", "100ms"]].concat();
    let report = server.report("churn", &target, &flags);
    assert!(report["churn"]["connects"].as_u64() > Some(50), "{report}");
}

#[test]
fn a_certificate_is_taken_from_those_who_are_trusted_and_for_its_host_alone() {
    let server = Server::start("trust");
    let few = ["--connections", "3", "--hold", "0", "--connect-timeout", "5s"];
    let wss = server.url("wss", 0, "/echo");
    let by_address = wss.replace("localhost", "127.0.0.1");
    let ca = server.ca();
    for (target, trust) in [(&wss, &[][..]), (&by_address, &["--ca", &ca])] {
        let output = server.swarm("idle", target, &[&few[..], trust].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("TLS or certificate is not taken") && said.contains("--ca"), "{said}");
    }
    for target in [&wss, &by_address] {
        let output = server.swarm("idle", target, &[&few[..], &["--insecure"]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    // No TLS on the other side, and none on ours.
    for target in [server.url("wss", 3, "/echo"), server.url("ws", 0, "/echo")] {
        let output = server.swarm("idle", &target, &[&few[..], &["--insecure"]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
}

/// Says lines to a chat and returns what it printed.
fn chat(url: &str, flags: &[&str], lines: &str) -> Output {
    let mut command = holdline(&[&["chat", url], flags].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn terminals_chat_over_every_protocol() {
    let server = Server::start("chat");
    let ca = server.ca();
    let trust = ["--ca", &ca];
    let long = "x".repeat(100_000);
    for (url, said) in [
        (server.url("wss", 0, "/chat/a?name=ann"), format!("ann joined the chat\nann: hello\nann: {long}\n")),
        (server.url("https", 0, "/echo"), format!("hello\n{long}\n")),
        (server.url("tls", 1, ""), format!("hello\n{long}\n")),
        (server.url("grpcs", 0, "/topics/t"), format!("hello\n{long}\n")),
    ] {
        let output = chat(&url, &trust, &format!("hello\n{long}\n"));
        assert_eq!(output.status.code(), Some(0), "{url}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{url}");
    }
}

#[test]
fn a_terminal_hears_a_crowd_and_a_member_without_tls() {
    let server = Server::start("heard");
    let (ca, url) = (server.ca(), server.url("wss", 0, "/chat/b?name=ann"));
    let mut ann = holdline(&["chat", &url, "--ca", &ca]);
    let mut ann = ann.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut heard = BufReader::new(ann.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(heard.next().unwrap(), "ann joined the chat");
    let lines: String = (0..500).map(|number| format!("line {number}\n")).collect();
    let output = chat(&server.url("ws", 3, "/chat/b?name=bob"), &[], &lines);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(heard.next().unwrap(), "bob joined the chat");
    for number in 0..500 {
        assert_eq!(heard.next().unwrap(), format!("bob: line {number}"));
    }
    drop(ann.stdin.take());
    assert_eq!(ann.wait().unwrap().code(), Some(0));
}

#[test]
fn a_chat_says_whom_it_does_not_trust() {
    let server = Server::start("wary");
    let url = server.url("wss", 0, "/chat/a?name=ann");
    let output = chat(&url, &[], "hello\n");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("UnknownIssuer") && said.contains("--ca FILE"), "{said}");
    let plain = chat(&server.url("wss", 3, "/chat/a"), &["--insecure"], "hello\n");
    let said = String::from_utf8(plain.stderr).unwrap();
    assert!(plain.status.code() == Some(1) && said.contains("check that the port speaks TLS"), "{said}");
    let output = chat(&url, &["--insecure"], "hello\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ann joined the chat\nann: hello\n");
}
