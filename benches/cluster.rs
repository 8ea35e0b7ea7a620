//! What a publication costs a node of a cluster, in CPU time: beside other nodes that do not hold the topic, and beside some
//! that do. NATS hands out what others hold, so neither should make a difference to the node that it is published on. And
//! how many publications a durable topic takes, each answered when its stream has it.
//!
//! ```text
//! cargo bench --bench cluster
//! ```
//!
//! Without `--bench` (as tests run it) everything is small. It needs `nats-server`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot go on has failed")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of a bench are small")]

mod common;
#[path = "../tests/common/nats.rs"]
mod nats;

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::report::{Table, median};
use common::scenario::{self, Expected, Requests, Sample};
use common::sys;
use common::target::{SERVER, Target};
use common::wire::{self, Protocol};
use nats::Nats;

const MESSAGE_BYTES: usize = 128;
const PUBLISHERS: usize = 16;
const PLAIN: &str = "/topics/room/alone";
const DURABLE: &str = "/topics/orders/all";
/// For subscriptions to reach NATS.
const SETTLE: Duration = Duration::from_millis(200);

/// What is measured.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    topic: &'static str,
    /// Who publish, each when it has its answer to the one before.
    publishers: usize,
    others: Others,
}

/// The nodes that there are beside the one that is measured.
#[derive(Clone, Copy)]
struct Others {
    /// There is a cluster at all.
    is_cluster: bool,
    nodes: usize,
    /// They have a subscriber of the topic.
    hold: bool,
}

const fn plain(name: &'static str, is_cluster: bool, nodes: usize, hold: bool) -> Case {
    Case { name, topic: PLAIN, publishers: PUBLISHERS, others: Others { is_cluster, nodes, hold } }
}

const fn durable(name: &'static str, publishers: usize, nodes: usize) -> Case {
    Case { name, topic: DURABLE, publishers, others: Others { is_cluster: true, nodes, hold: true } }
}

const CASES: [Case; 10] = [
    plain("no cluster", false, 0, false),
    plain("1 node", true, 0, false),
    plain("2 nodes, one holds the topic", true, 1, false),
    plain("3 nodes, one holds the topic", true, 2, false),
    plain("2 nodes, both hold it", true, 1, true),
    plain("3 nodes, all hold it", true, 2, true),
    durable("durable, 1 node, 1 publisher", 1, 0),
    durable("durable, 1 node, 16 publishers", PUBLISHERS, 0),
    durable("durable, 1 node, 256 publishers", 256, 0),
    durable("durable, 3 nodes hold it, 256 publishers", 256, 2),
];
/// What others are compared with: a cluster of one node.
const BASE: usize = 1;

fn main() -> io::Result<()> {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (rounds, requests) = if is_bench { (5, 100_000) } else { (1, 500) };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, Linux {}, holdline {}", kernel.trim(), env!("CARGO_PKG_VERSION"));
    let settings = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-bench-{}.toml", std::process::id()));
    let mut samples = CASES.map(|_| Vec::new());
    for _ in 0..rounds {
        for (case, samples) in CASES.iter().zip(&mut samples) {
            samples.push(measure(&settings, *case, requests)?);
        }
    }
    fs::remove_file(&settings)?;
    println!(
        "POST of {MESSAGE_BYTES} bytes to a topic with a subscriber, {PUBLISHERS} at a time where nothing else is said, \
         medians of {rounds} rounds:"
    );
    let mut table = Table::new(&["", "CPU µs", "per second", "ratio"]);
    for (case, these) in CASES.iter().zip(&samples) {
        let middle = |figure: fn(&Sample) -> f64| median(&these.iter().map(figure).collect::<Vec<_>>());
        let ratios: Vec<_> = these.iter().zip(&samples[BASE]).map(|(one, base)| one.cpu_us() / base.cpu_us()).collect();
        table.row(vec![
            case.name.to_owned(),
            format!("{:.2}", middle(Sample::cpu_us)),
            format!("{:.0}", middle(Sample::rate)),
            format!("{:.2}", median(&ratios)),
        ]);
    }
    table.print();
    Ok(())
}

/// The cost of publishing on one node, all of them new.
fn measure(settings: &Path, case: Case, requests: u64) -> io::Result<Sample> {
    let Case { topic, publishers, others, .. } = case;
    // They wait for NATS, one by one or many together.
    let least = requests / 50;
    let requests = if topic == PLAIN { requests } else { (least / 10 * publishers as u64).clamp(least, requests) };
    let nats = others.is_cluster.then(Nats::start);
    let cluster =
        nats.as_ref().map_or(String::new(), |nats| format!("[cluster]\nnats = [{:?}]\nlease = \"1h\"\n", nats.url));
    let limits = "[limits]\nkeep_alive_requests_max = 1000000000\n";
    let topics = if topic == DURABLE { "[topics.\"orders/**\"]\ndurable = true\n" } else { "" };
    fs::write(settings, format!("{limits}{cluster}{topics}"))?;
    let node = || Target::server(SERVER, "auto", 1000, &["--config", &settings.to_string_lossy()]);
    let target = node()?;
    let others_nodes = (0..others.nodes).map(|_| node()).collect::<io::Result<Vec<_>>>()?;
    subscribe(&target, topic)?;
    if others.hold {
        others_nodes.iter().try_for_each(|node| subscribe(node, topic))?;
    }
    thread::sleep(SETTLE);
    let load = Requests {
        connections: publishers,
        in_flight: 1,
        request: wire::post(topic, &[b'x'; MESSAGE_BYTES]),
        expected: Expected::Place,
        warm_up: requests / 10,
        requests,
    };
    let sample = scenario::requests(&target.endpoint(Protocol::Http, "/")?, target.pid(), &load)?;
    drop((target, others_nodes, nats));
    sys::settle();
    Ok(sample)
}

/// A subscriber who throws away what comes, until its node ends.
fn subscribe(node: &Target, topic: &'static str) -> io::Result<()> {
    let mut stream = TcpStream::connect(node.address("http")?)?;
    write!(stream, "GET {topic}?stream=1 HTTP/1.1\r\nHost: here\r\n\r\n")?;
    thread::spawn(move || while matches!(stream.read(&mut [0; 16 << 10]), Ok(1..)) {});
    Ok(())
}
