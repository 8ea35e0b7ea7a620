//! What is said of metrics elsewhere, against what `/metrics` has: the list in docs, the Grafana dashboard, the alerts,
//! the pages for users.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Running, backends, config, listen};
use holdline::app::standard_routes;

/// A running server's answer to a GET on its admin listener.
fn get(running: &Running, path: &str) -> String {
    let url = running.server.listening().pop().unwrap();
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn start() -> Running {
    let mut config = config(backends()[0], 2);
    config.admin = Some("127.0.0.1:0".parse().unwrap());
    // What is told of TLS is in the list too.
    config.listeners.push(listen("https://127.0.0.1:0"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut file = tempfile();
    write!(file.1, "{}{}", made.cert.pem(), made.signing_key.serialize_pem()).unwrap();
    config.tls.certificates.push(file.0.clone());
    // And what is told of the journal, where there can be one.
    let journal = tempfile().0.with_extension("journal");
    config.journal.dir = holdline::io::uring::probe().is_ok().then(|| journal.clone());
    // And of hooks. Nobody is there.
    config.hooks.url = "http://127.0.0.1:9/".parse().ok();
    config.cluster.nats = vec![holdline::config::NatsUrl::parse("nats://127.0.0.1:9").unwrap()];
    let running = Running::start(&config, standard_routes());
    let _ = fs::remove_dir_all(journal);
    fs::remove_file(file.0).unwrap();
    running
}

/// A file that no other test has.
fn tempfile() -> (PathBuf, fs::File) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("holdline-metrics-{}-{number}.pem", std::process::id()));
    (path.clone(), fs::File::create(path).unwrap())
}

fn file(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A family of metrics: its type, its meaning, the labels that it has.
type Families = BTreeMap<String, (String, String, BTreeSet<String>)>;

fn families(scrape: &str) -> Families {
    let mut all = Families::new();
    for line in scrape.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            assert!(
                all.insert(name.to_owned(), (String::new(), help.to_owned(), BTreeSet::new())).is_none(),
                "{name} twice"
            );
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.clone_into(&mut all.get_mut(name).unwrap().0);
        } else if let Some((name, labels)) = line.split_once('{') {
            let name = family_of(name, &all);
            let labels = labels.rsplit_once('}').unwrap().0.split("\",").map(|label| label.split('=').next().unwrap());
            all.get_mut(&name).unwrap().2.extend(labels.filter(|label| *label != "le").map(str::to_owned));
        }
    }
    all
}

/// `holdline_turn_seconds` of `holdline_turn_seconds_bucket`.
fn family_of(name: &str, all: &Families) -> String {
    let parts = ["_bucket", "_sum", "_count"];
    let stems = parts.iter().filter_map(|part| name.strip_suffix(part));
    let mut histograms = stems.filter(|stem| all.get(*stem).is_some_and(|family| family.0 == "histogram"));
    histograms.next().unwrap_or(name).to_owned()
}

/// Names of metrics in any text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("holdline_")).map(str::to_owned).collect()
}

#[test]
fn dashboards_alerts_and_pages_name_metrics_that_are_there() {
    let all = families(&get(&start(), "/metrics"));
    let pages = ["README.md", "docs/operations.md", "docs/settings.md", "docs/protocols.md"];
    for path in ["tuning/grafana-dashboard.json", "tuning/alerts.yml"].into_iter().chain(pages) {
        let used = names(&file(path));
        let names_none = ["README.md", "docs/protocols.md"].contains(&path);
        assert!(used.len() > 2 || names_none, "{path} names some");
        for name in used {
            assert!(all.contains_key(&family_of(&name, &all)), "{path} names {name}, which /metrics does not have");
        }
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_takes() {
    let dashboard: serde_json::Value = serde_json::from_str(&file("tuning/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<_> =
        panels.iter().filter(|panel| panel["type"] == "row").map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!(rows, ["Overview", "Latency", "Memory", "Errors and limits", "Shards"]);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(!panel["targets"].as_array().unwrap().is_empty());
    }
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
}

/// With `HOLDLINE_BLESS=1` the list is written anew.
#[test]
fn the_list_in_docs_is_what_is_served() {
    const PATH: &str = "docs/metrics.md";
    let mut list =
        "# Metrics\n\nAll that `/metrics` of the admin listener has. `tests/metrics.rs` makes this list.\n\n\
        | name | type | labels | what it is |\n|---|---|---|---|\n"
            .to_owned();
    for (name, (kind, help, labels)) in families(&get(&start(), "/metrics")) {
        let labels: Vec<_> = labels.into_iter().collect();
        writeln!(list, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
    }
    if std::env::var_os("HOLDLINE_BLESS").is_some() {
        fs::write(format!("{}/{PATH}", env!("CARGO_MANIFEST_DIR")), &list).unwrap();
    }
    assert!(file(PATH) == list, "{PATH} is old: HOLDLINE_BLESS=1 cargo test --test metrics");
}

/// It depends on shards and metrics, not on who is connected: what stands in topics and tables is never looked at. What it
/// takes is measured by `cargo bench --bench operators`.
#[test]
fn a_scrape_is_as_long_for_many_as_for_nobody() {
    let running = start();
    let lines = || get(&running, "/metrics").lines().count();
    let before = lines();
    let clients: Vec<_> = (0..200).map(|number| running.websocket(&format!("/topics/t{number}"))).collect();
    assert_eq!(running.connections(), clients.len() as u64);
    assert_eq!(lines(), before);
}
