//! Which pictures a page has, from what was found.

use super::axis::{Unit, grouped};
use super::charts::{Head, Key, Lines, Mark, Row, Rows, Series, Shape};
use super::field;
use super::results::{Broadcast, Latency, Results, Step, Turn};

const URING: &str = "#2563eb";
const EPOLL: &str = "#d97706";
const TUN: &str = "#7c3aed";
const BARE: &str = "#7b8794";
const OTHERS: &str = "#b0bac5";
const LIGHT: &str = "#93c5fd";

/// A file beside the page.
pub(crate) struct Picture {
    pub(crate) file: &'static str,
    pub(crate) svg: String,
}

/// All pictures for which there is something to draw.
pub(crate) fn all(results: &Results) -> Vec<Picture> {
    let drawn = [
        ("user-memory.svg", user_memory(results)),
        ("memory.svg", memory(results)),
        ("connect.svg", connect(results)),
        ("broadcast.svg", broadcast(results)),
        ("delivery.svg", delivery(results)),
        ("echo.svg", echo(results)),
        ("turns.svg", turns(results)),
    ];
    drawn.into_iter().filter_map(|(file, svg)| Some(Picture { file, svg: svg? })).collect()
}

fn color(step: &Step) -> &'static str {
    match (step.via.as_str(), step.backend.as_str()) {
        ("loopback", "epoll") => EPOLL,
        ("loopback", _) => URING,
        _ => TUN,
    }
}

fn label(step: &Step) -> String {
    format!("{}, {}", Unit::Count.show(step.connections as f64), step.name())
}

fn key(text: &str, color: &'static str, shape: Shape) -> Key {
    Key { text: text.to_owned(), color, shape }
}

fn head(title: &str, subtitle: &str, legend: Vec<Key>) -> Head {
    Head { title: title.to_owned(), subtitle: subtitle.to_owned(), legend }
}

fn bar(label: String, strong: bool, from: f64, to: f64, color: &'static str, note: String) -> Row {
    Row { label, strong, marks: vec![Mark::Bar { from, to, color }], note, gap: false }
}

/// User memory of an idle connection, beside others.
fn user_memory(results: &Results) -> Option<String> {
    let ours = results.steps.iter().map(|step| {
        let (label, bytes) = (format!("Holdline, {}", label(step)), step.user_bytes());
        bar(label, true, 1.0, bytes, color(step), format!("{bytes:.0} B"))
    });
    let mut rows: Vec<Row> = ours.collect();
    let mut others: Vec<(&str, f64)> = field::USER_BYTES.iter().chain(field::USER_BYTES_PUBLISHED).copied().collect();
    others.sort_by(|left, right| left.1.total_cmp(&right.1));
    let others =
        others.into_iter().map(|(who, bytes)| bar(who.to_owned(), false, 1.0, bytes, OTHERS, Unit::Bytes.show(bytes)));
    let first = rows.len();
    rows.extend(others);
    if first == 0 {
        return None;
    }
    if let Some(row) = rows.get_mut(first) {
        row.gap = true;
    }
    let head = head(
        "User memory of one idle connection",
        "What the process holds beyond what it held when empty; kernel memory comes on top",
        Vec::new(),
    );
    let axis = "bytes per connection, logarithmic".to_owned();
    Some(Rows { head, unit: Unit::Bytes, log: true, axis, rows, limits: Vec::new() }.draw())
}

/// All memory of a connection, by whose it is.
fn memory(results: &Results) -> Option<String> {
    let row = |step: &Step| {
        let bare = results.bare_socket(step.connections)?;
        let (kernel, user) = (results.server_kernel_bytes(step)?.max(bare), step.user_bytes());
        let marks = vec![
            Mark::Bar { from: 0.0, to: bare, color: BARE },
            Mark::Bar { from: bare, to: kernel, color: LIGHT },
            Mark::Bar { from: kernel, to: kernel + user, color: URING },
        ];
        let note = format!("{} + {} + {user:.0} B", grouped(bare), grouped(kernel - bare));
        Some(Row { label: label(step), strong: true, marks, note, gap: false })
    };
    let mut rows: Vec<Row> = results.steps.iter().filter_map(row).collect();
    if rows.is_empty() {
        return None;
    }
    let who = "MigratoryData, published, kernel only".to_owned();
    let note = grouped(field::MIGRATORY_KERNEL) + " B";
    rows.push(Row { gap: true, ..bar(who, false, 0.0, field::MIGRATORY_KERNEL, OTHERS, note) });
    let legend = vec![
        key("a bare socket", BARE, Shape::Block),
        key("kernel memory for the backend's way to wait", LIGHT, Shape::Block),
        key("user memory", URING, Shape::Block),
    ];
    let head = head("All memory of one idle connection", "The server's end only: kernel and user space apart", legend);
    let axis = "bytes per connection".to_owned();
    Some(Rows { head, unit: Unit::Bytes, log: false, axis, rows, limits: Vec::new() }.draw())
}

/// The server's steps as one line for each name.
fn lines(results: &Results, value: impl Fn(&Step) -> f64) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    for step in &results.steps {
        let name = format!("Holdline, {}", step.name());
        let point = (step.connections as f64, value(step));
        match series.iter_mut().find(|series| series.key.text == name) {
            Some(series) => series.points.push(point),
            None => series.push(Series { key: key(&name, color(step), Shape::Line), points: vec![point] }),
        }
    }
    series
}

fn connect(results: &Results) -> Option<String> {
    let mut series = lines(results, |step| step.connect.rate);
    let bare = results.bare.iter().filter_map(|bare| Some((bare.connections as f64, bare.connect.as_ref()?.rate)));
    let points: Vec<(f64, f64)> = bare.collect();
    if !points.is_empty() {
        let key = key("bare accept loop, TCP connect alone", BARE, Shape::Dashes);
        series.push(Series { key, points });
    }
    if series.is_empty() {
        return None;
    }
    let title = "Connect rate";
    let subtitle = "TCP connect, upgrade and subscription, all at once; server and clients share the machine's cores";
    let limits =
        vec![(field::GREATWS_RATE, format!("greatws, published: {} handshakes/s", grouped(field::GREATWS_RATE)))];
    let head = head(title, subtitle, Vec::new());
    Some(Lines { head, unit: Unit::PerSecond, log: false, series, limits }.draw())
}

/// A row from the first to the last delivery.
fn spread(label: String, strong: bool, color: &'static str, found: &Broadcast) -> Row {
    let dot = |at: f64, hollow: bool| Mark::Dot { at, color, hollow };
    let marks = vec![
        Mark::Span { from: found.first_ms, to: found.last_ms, color },
        dot(found.first_ms, true),
        dot(found.p50_ms, false),
        dot(found.p99_ms, true),
        dot(found.last_ms, false),
    ];
    Row { label, strong, marks, note: Unit::Millis.show(found.last_ms), gap: false }
}

/// All sizes that have something, in order.
fn sizes(results: &Results) -> Vec<u64> {
    let steps = results.steps.iter().map(|step| step.connections);
    let mut sizes: Vec<u64> = steps.chain(results.bare.iter().map(|bare| bare.connections)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn broadcast(results: &Results) -> Option<String> {
    let mut rows = Vec::new();
    for size in sizes(results) {
        let first = rows.len();
        let bare = results.bare(size).and_then(|bare| bare.broadcast.as_ref());
        let name = || format!("{}, bare send loop", Unit::Count.show(size as f64));
        rows.extend(bare.map(|found| spread(name(), false, BARE, found)));
        let steps = results.steps.iter().filter(|step| step.connections == size && step.broadcast.deliveries > 0);
        rows.extend(steps.map(|step| spread(label(step), true, color(step), &step.broadcast)));
        if let Some(row) = rows.get_mut(first) {
            row.gap = first > 0;
        }
    }
    if rows.is_empty() {
        return None;
    }
    let legend = vec![key("hollow: first and p99", URING, Shape::Hollow), key("full: p50 and last", URING, Shape::Dot)];
    let subtitle = "When each connection has it, from the time at which it was meant to be published";
    let head = head("One message to every connection", subtitle, legend);
    let axis = "time since the publication, logarithmic".to_owned();
    Some(Rows { head, unit: Unit::Millis, log: true, axis, rows, limits: Vec::new() }.draw())
}

/// Time of a broadcast for each receiver, beside others.
fn delivery(results: &Results) -> Option<String> {
    let micros = |last_ms: f64, receivers: f64| last_ms * 1e3 / receivers.max(1.0);
    let row =
        |label: String, strong: bool, us: f64, color| bar(label, strong, 0.0, us / 1e3, color, format!("{us:.2} µs"));
    let ours = results.steps.iter().filter(|step| step.broadcast.deliveries > 0).map(|step| {
        let us = micros(step.broadcast.last_ms, step.connections as f64);
        row(format!("Holdline, {}", label(step)), true, us, color(step))
    });
    let mut rows: Vec<Row> = ours.collect();
    let first = rows.len();
    if first == 0 {
        return None;
    }
    let bare = results.bare.iter().filter_map(|bare| {
        let us = micros(bare.broadcast.as_ref()?.last_ms, bare.connections as f64);
        Some(row(format!("bare send loop, {}", Unit::Count.show(bare.connections as f64)), false, us, BARE))
    });
    rows.extend(bare);
    let measured = field::LAST_MS.iter().skip(2);
    let others = measured.map(|(who, last)| row(format!("{who}, 15 k"), false, micros(*last, field::LAST_OF), OTHERS));
    let second = rows.len();
    rows.extend(others);
    let phoenix = micros(field::PHOENIX.1, field::PHOENIX.0);
    rows.push(row("Phoenix, 2 M, 40 cores, published".to_owned(), false, phoenix, OTHERS));
    for at in [first, second] {
        if let Some(row) = rows.get_mut(at) {
            row.gap = true;
        }
    }
    let subtitle = "Last delivery divided by the number of receivers; one core sends, clients on the other";
    let head = head("Time of a broadcast per receiver", subtitle, Vec::new());
    let axis = "time per receiver".to_owned();
    Some(Rows { head, unit: Unit::Millis, log: false, axis, rows, limits: Vec::new() }.draw())
}

fn latency(label: String, strong: bool, color: &'static str, found: &Latency) -> Row {
    let marks = vec![
        Mark::Span { from: found.p50_ms, to: found.max_ms, color },
        Mark::Dot { at: found.p50_ms, color, hollow: false },
        Mark::Dot { at: found.p99_ms, color, hollow: true },
        Mark::Dot { at: found.max_ms, color, hollow: false },
    ];
    let note = format!("p99 {}", Unit::Millis.show(found.p99_ms));
    Row { label, strong, marks, note, gap: !strong }
}

fn echo(results: &Results) -> Option<String> {
    let mut rows = Vec::new();
    for step in &results.steps {
        let quiet = step.echo.quiet.as_ref();
        let during = step.echo.during.as_ref();
        rows.extend(quiet.map(|found| latency(format!("{}, idle", label(step)), false, BARE, found)));
        rows.extend(during.map(|found| latency(format!("{}, broadcast", label(step)), true, color(step), found)));
    }
    if rows.is_empty() {
        return None;
    }
    let legend = vec![key("full: p50 and longest", URING, Shape::Dot), key("hollow: p99", URING, Shape::Hollow)];
    let subtitle = "Echo of 64 bytes on one more connection, every 5 ms, from the time at which it was meant to leave";
    let head = head("What a healthy connection feels", subtitle, legend);
    let axis = "echo latency, logarithmic".to_owned();
    Some(Rows { head, unit: Unit::Millis, log: true, axis, rows, limits: Vec::new() }.draw())
}

fn turn(label: String, color: &'static str, found: &Turn) -> Row {
    let marks = vec![
        Mark::Span { from: found.p50_ms, to: found.max_ms, color },
        Mark::Dot { at: found.p50_ms, color, hollow: false },
        Mark::Dot { at: found.p99_9_ms, color, hollow: true },
        Mark::Dot { at: found.max_ms, color, hollow: false },
    ];
    Row { label, strong: true, marks, note: format!("≤ {}", Unit::Millis.show(found.max_ms)), gap: false }
}

fn turns(results: &Results) -> Option<String> {
    let mut rows = Vec::new();
    for step in &results.steps {
        let first = rows.len();
        let phases =
            [("connecting", &step.turns.connecting), ("idle", &step.turns.idle), ("broadcast", &step.turns.broadcast)];
        let phases = phases.into_iter().filter_map(|(phase, found)| Some((phase, found.as_ref()?)));
        rows.extend(phases.map(|(phase, found)| turn(format!("{}, {phase}", label(step)), color(step), found)));
        if rows.len() == first && step.turns.max_ms > 0.0 {
            let max = step.turns.max_ms;
            let marks = vec![Mark::Dot { at: max, color: color(step), hollow: false }];
            rows.push(Row { label: label(step), strong: true, marks, note: Unit::Millis.show(max), gap: false });
        }
        if let Some(row) = rows.get_mut(first) {
            row.gap = first > 0;
        }
    }
    if rows.is_empty() {
        return None;
    }
    let legend = vec![key("full: p50 and longest", URING, Shape::Dot), key("hollow: p99.9", URING, Shape::Hollow)];
    let head = head("Turns of the event loop", "How long everything else has to wait", legend);
    let axis = "time of a turn, logarithmic".to_owned();
    let limits = vec![(10.0, "10 ms".to_owned())];
    Some(Rows { head, unit: Unit::Millis, log: true, axis, rows, limits }.draw())
}
