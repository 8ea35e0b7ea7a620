//! The page: Markdown around tables and pictures.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use super::axis::{Unit, grouped};
use super::field;
use super::pictures::{self, Picture};
use super::results::{Results, Step};

/// Kernel memory beyond a bare socket that a connection may take, bytes, and the tolerance of the measurement.
const KERNEL_EXTRA: f64 = 310.0;
const KERNEL_TOLERANCE: f64 = 1.05;

/// Writes the page and its pictures into a folder, and removes pictures that have nothing to show any more.
pub(crate) fn write(results: &Results, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let pictures = pictures::all(results);
    for entry in fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()? {
        if entry.path().extension().is_some_and(|extension| extension == "svg") {
            fs::remove_file(entry.path())?;
        }
    }
    for Picture { file, svg } in &pictures {
        fs::write(folder.join(file), svg)?;
    }
    fs::write(folder.join("README.md"), text(results, &pictures))
}

/// The Markdown.
fn text(results: &Results, pictures: &[Picture]) -> String {
    let mut page = String::new();
    intro(&mut page, results);
    summary(&mut page, results);
    let shown = |file: &str, alt: &str| {
        let known = pictures.iter().any(|picture| picture.file == file);
        if known { format!("![{alt}]({file})\n\n") } else { String::new() }
    };
    page.push_str("## Memory\n\n");
    page.push_str(&shown("user-memory.svg", "User memory per connection beside other servers"));
    page.push_str(&shown("memory.svg", "Kernel and user memory per connection"));
    memory(&mut page, results);
    page.push_str("## Connecting\n\n");
    page.push_str(&shown("connect.svg", "Connect rate over the number of connections"));
    connecting(&mut page, results);
    page.push_str("## Broadcast\n\n");
    page.push_str(&shown("broadcast.svg", "First to last delivery of a broadcast"));
    broadcast(&mut page, results);
    page.push_str(&shown("delivery.svg", "Time of a broadcast per receiver beside other servers"));
    page.push_str("## Latency of others meanwhile\n\n");
    page.push_str(&shown("echo.svg", "Echo latency of one connection, idle and during a broadcast"));
    page.push_str(&shown("turns.svg", "Turn times of the event loop"));
    latency(&mut page, results);
    page.push_str("## Heartbeats\n\n");
    heartbeats(&mut page, results);
    left_out(&mut page, results);
    published(&mut page);
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

/// A Markdown table; nothing when it has no rows.
fn table(page: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        page.push_str("Nothing was measured.\n\n");
        return;
    }
    let rule = head.iter().enumerate().map(|(at, _)| if at == 0 { "---" } else { "---:" });
    let _ = writeln!(page, "| {} |\n| {} |", head.join(" | "), rule.collect::<Vec<_>>().join(" | "));
    for row in rows {
        let _ = writeln!(page, "| {} |", row.iter().map(|cell| cell.replace('|', "/")).collect::<Vec<_>>().join(" | "));
    }
    page.push('\n');
}

fn intro(page: &mut String, results: &Results) {
    let machine = &results.machine;
    page.push_str("# How far it goes\n\n");
    if let Some(note) = &results.note {
        let _ = writeln!(page, "> **{note}**\n");
    }
    let memory = machine.memory_bytes as f64 / f64::from(1 << 30);
    let _ = writeln!(
        page,
        "WebSocket connections in one server process with one shard, all in one topic, heartbeats every 30 s, to be answered in \
         10 s (above a million connections so much for each million). Measured \
         {} on {}, {} cores, {memory:.0} GiB, Linux {}, RLIMIT_NOFILE {}, commit {}, load {} at the start. Server and \
         clients share the machine: the server has the first core, the clients have the second. `loopback` is the \
         kernel's TCP at both ends; with `tun` the clients are a TCP of their own outside the kernel.\n",
        machine.date,
        machine.processor,
        machine.cores,
        machine.kernel,
        grouped(f64::from(machine.descriptors)),
        machine.commit,
        machine.load,
    );
    let _ = writeln!(
        page,
        "One command makes this page anew, figures and pictures (a million connections want 10 GB and ten minutes):\n\n\
         ```sh\ncargo bench --bench report -- {}\n```\n\n\
         The figures themselves are in [results.json](results.json), which `--plot-only` draws again.\n",
        flags(results),
    );
}

/// What the command is told to measure the same steps.
fn flags(results: &Results) -> String {
    let steps = |is_loopback: bool| {
        let mut steps: Vec<u64> = results.bare.iter().filter(|_| is_loopback).map(|bare| bare.connections).collect();
        let measured = results.steps.iter().filter(|step| (step.via == "loopback") == is_loopback);
        steps.extend(measured.map(|step| step.connections));
        steps.sort_unstable();
        steps.dedup();
        steps
            .iter()
            .map(|step| Unit::Count.show(*step as f64).replace([' ', '\u{a0}'], ""))
            .collect::<Vec<_>>()
            .join(",")
    };
    let (loopback, tun) = (steps(true), steps(false));
    let loopback = if loopback.is_empty() { "none".to_owned() } else { loopback };
    if tun.is_empty() { format!("--steps {loopback}") } else { format!("--steps {loopback} --tun {tun}") }
}

fn count(step: &Step) -> String {
    grouped(step.connections as f64)
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn ms(value: f64) -> String {
    Unit::Millis.show(value)
}

fn summary(page: &mut String, results: &Results) {
    let row = |step: &Step| {
        let broadcast = &step.broadcast;
        let heard = broadcast.deliveries > 0 && broadcast.missing == 0 && broadcast.duplicates == 0;
        vec![
            count(step),
            step.name(),
            format!("{:.0} B", step.user_bytes()),
            or_dash(results.server_kernel_bytes(step).map(|bytes| format!("{} B", grouped(bytes)))),
            format!("{}/s", grouped(step.connect.rate)),
            ms(broadcast.last_ms),
            if heard { "yes".to_owned() } else { "**no**".to_owned() },
            ms(step.turns.max_ms),
        ]
    };
    let head = [
        "connections",
        "backend",
        "user memory each",
        "kernel memory each",
        "connects",
        "last delivery",
        "each heard exactly once",
        "longest turn",
    ];
    table(page, &head, results.steps.iter().map(row));
}

fn memory(page: &mut String, results: &Results) {
    page.push_str(
        "Kernel memory is the growth of the slab caches, those of file systems left out. Over loopback both ends are in \
         one kernel: the clients' end is measured against a loop that only accepts, and taken off. A bare socket is half \
         of a pair of which neither end waits for anything, its descriptor and its client's port not counted. A dash: \
         other programs opened or closed sockets meanwhile, or the connections were fewer than 5,000, whose share is lost \
         in what the machine does besides. `within` says whether the kernel memory stays within 5 % of \
         the bare socket plus 310 bytes.\n\n",
    );
    let row = |step: &Step| {
        let (bare, kernel) = (results.bare_socket(step.connections), results.server_kernel_bytes(step));
        let within = bare.zip(kernel).map(|(bare, kernel)| kernel <= (bare + KERNEL_EXTRA) * KERNEL_TOLERANCE);
        let bytes = |bytes: f64| format!("{} B", grouped(bytes));
        vec![
            count(step),
            step.name(),
            format!("{:.1} B", step.user_bytes()),
            format!("{:.1} B", step.user_peak_bytes()),
            or_dash(bare.map(bytes)),
            or_dash(kernel.map(bytes)),
            or_dash(within.map(|within| if within { "yes".to_owned() } else { "**no**".to_owned() })),
            or_dash(step.kernel.as_ref().map(|kernel| bytes(kernel.available))),
        ]
    };
    let head = [
        "connections",
        "backend",
        "user, open",
        "user, at most",
        "bare socket",
        "kernel, server's end",
        "within",
        "all that the machine lost, both ends",
    ];
    table(page, &head, results.steps.iter().map(row));
    caches(page, results);
}

/// What the kernel holds, by cache, for the largest step that has everything to compare with.
fn caches(page: &mut String, results: &Results) {
    let known = |step: &&Step| results.bare(step.connections).is_some_and(|bare| bare.pair.is_some());
    let Some(step) =
        results.steps.iter().filter(|step| step.via == "loopback").filter(known).max_by_key(|it| it.connections)
    else {
        return;
    };
    let Some((bare, kernel)) = results.bare(step.connections).zip(step.kernel.as_ref()) else { return };
    let of = |looked: Option<&super::results::Kernel>, name: &str| {
        looked.map_or(0.0, |it| it.caches.get(name).copied().unwrap_or(0.0))
    };
    let _ = writeln!(page, "By cache, bytes per pair of {} connections ({}):\n", count(step), step.name());
    let names = kernel.caches.iter().filter(|(_, bytes)| **bytes >= 8.0);
    let rows = names.map(|(name, bytes)| {
        vec![
            name.clone(),
            grouped(of(bare.pair.as_ref(), name)),
            grouped(of(bare.swarm_pair.as_ref(), name)),
            grouped(*bytes),
        ]
    });
    table(page, &["cache", "bare pair", "bare socket and client", "server and client"], rows);
}

fn connecting(page: &mut String, results: &Results) {
    let row = |step: &Step| {
        let connect = &step.connect;
        let bare = results.bare(step.connections).and_then(|bare| bare.connect.as_ref());
        vec![
            count(step),
            step.name(),
            format!("{:.1} s", connect.seconds),
            format!("{}/s", grouped(connect.rate)),
            or_dash(bare.map(|bare| format!("{}/s", grouped(bare.rate)))),
            ms(connect.p50_ms),
            ms(connect.p99_ms),
            ms(connect.max_ms),
        ]
    };
    let head = ["connections", "backend", "all open after", "rate", "bare accept loop", "p50", "p99", "longest"];
    table(page, &head, results.steps.iter().map(row));
    page.push_str("Server CPU of one connect and upgrade, others on a machine of this kind:\n\n");
    let rows = field::CONNECT_US.iter().map(|(who, us)| vec![(*who).to_owned(), format!("{us:.0} µs")]);
    table(page, &["server", "CPU"], rows);
}

fn broadcast(page: &mut String, results: &Results) {
    page.push_str(
        "A 64-byte message to every connection. The bare loop sends to as many raw TCP connections, by io_uring, out of \
         as many rings, to the same clients. Percentiles are over all deliveries, first and last the worst of all \
         publications.\n\n",
    );
    let row = |step: &Step| {
        let found = &step.broadcast;
        let bare = results.bare(step.connections).and_then(|bare| bare.broadcast.as_ref());
        vec![
            count(step),
            step.name(),
            found.messages.to_string(),
            format!("{} / {}", grouped(found.missing as f64), grouped(found.duplicates as f64)),
            ms(found.first_ms),
            ms(found.p50_ms),
            ms(found.p99_ms),
            ms(found.p99_9_ms),
            ms(found.last_ms),
            or_dash(bare.map(|bare| ms(bare.last_ms))),
            or_dash(results.last_ratio(step).map(|ratio| format!("{ratio:.2}"))),
        ]
    };
    let head = [
        "connections",
        "backend",
        "messages",
        "missing / doubled",
        "first",
        "p50",
        "p99",
        "p99.9",
        "last",
        "bare loop, last",
        "ratio",
    ];
    table(page, &head, results.steps.iter().map(row));
}

fn latency(page: &mut String, results: &Results) {
    let row = |step: &Step| {
        let (quiet, during, turns) = (step.echo.quiet.as_ref(), step.echo.during.as_ref(), &step.turns);
        let turn = |turn: &Option<super::results::Turn>| {
            or_dash(turn.as_ref().map(|turn| format!("{} / {}", ms(turn.p99_9_ms), ms(turn.max_ms))))
        };
        let echo = |found: Option<&super::results::Latency>| {
            or_dash(found.map(|it| format!("{} / {} / {}", ms(it.p50_ms), ms(it.p99_ms), ms(it.max_ms))))
        };
        vec![
            count(step),
            step.name(),
            echo(quiet),
            echo(during),
            turn(&turns.connecting),
            turn(&turns.idle),
            turn(&turns.broadcast),
            ms(turns.max_ms),
        ]
    };
    let head = [
        "connections",
        "backend",
        "echo, idle: p50 / p99 / longest",
        "echo during a broadcast",
        "turns, connecting: p99.9 / longest",
        "turns, idle",
        "turns, broadcast",
        "longest turn",
    ];
    table(page, &head, results.steps.iter().map(row));
    page.push_str("Turn times but the last are upper bounds of a histogram's buckets.\n\n");
}

fn heartbeats(page: &mut String, results: &Results) {
    page.push_str(
        "CPU of the server's process while all connections only had their heartbeats, kernel included, of one core. The \
         bare loop sends as many small frames in the same time and receives as many answers.\n\n",
    );
    let row = |step: &Step| {
        let ours = step.heartbeats.as_ref()?;
        let bare = results.bare(step.connections).and_then(|bare| bare.heartbeats.as_ref());
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        Some(vec![
            count(step),
            step.name(),
            format!("{} in {:.0} s", grouped(ours.sent as f64), ours.seconds),
            percent(ours.share()),
            or_dash(bare.map(|bare| percent(bare.share()))),
            or_dash(results.heartbeat_excess(step).map(percent)),
        ])
    };
    let head = ["connections", "backend", "heartbeats", "CPU", "bare loop", "beyond it"];
    table(page, &head, results.steps.iter().filter_map(row));
}

fn left_out(page: &mut String, results: &Results) {
    if results.left_out.is_empty() {
        return;
    }
    page.push_str("## Not here\n\n");
    for item in &results.left_out {
        let how = if item.failed { "failed" } else { "left out" };
        let _ = writeln!(page, "- {}, {how}: {}", item.what, item.why);
    }
    page.push('\n');
}

fn published(page: &mut String) {
    page.push_str(
        "## Others\n\nPublished by their makers, on machines of their own. The grey bars above without `published` were \
         measured with the same load on a machine of this kind, a broadcast to 15,000.\n\n",
    );
    let rows = field::PUBLISHED.iter().map(|it| {
        let who = if it.year.is_empty() { it.who.to_owned() } else { format!("{} ({})", it.who, it.year) };
        let cells = [it.connections, it.machine, it.memory, it.else_said];
        let cells = cells.iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { (*cell).to_owned() });
        [who].into_iter().chain(cells).collect()
    });
    table(page, &["who", "connections", "machine", "memory per connection", "and"], rows);
}
