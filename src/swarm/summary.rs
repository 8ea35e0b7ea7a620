//! A report for people: what JSON has, in rows.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::limits::in_words;
use super::report::{Broadcast, Churn, Connect, Echo, EchoTimes, Report, Server};

/// Columns of the labels.
const LABEL: usize = 14;

impl Report {
    /// Rows of text with their units, a newline behind each.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut rows = Rows(format!("swarm {} via {}, {}\n", self.scenario, self.via, self.target));
        rows.connections(self);
        if let Some(broadcast) = &self.broadcast {
            rows.broadcast(broadcast);
        }
        if let Some(echo) = &self.echo {
            rows.echo(echo);
        }
        if let Some(churn) = &self.churn {
            rows.churn(churn);
        }
        if let Some(server) = &self.server {
            rows.server(server);
        }
        let faults = self.faults();
        if faults.is_empty() {
            rows.row("result", "ok");
        }
        for (index, fault) in faults.iter().enumerate() {
            rows.row(if index == 0 { "result" } else { "" }, fault);
        }
        rows.0
    }
}

/// What was not measured.
const NONE: &str = "-";

struct Rows(String);

impl Rows {
    fn row(&mut self, label: &str, text: impl AsRef<str>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{label:LABEL$}{}", text.as_ref());
    }

    fn connections(&mut self, report: &Report) {
        let Connect { seconds, rate, p50_ms, p99_ms, max_ms, retries, failed, failures } = &report.connect;
        let (opened, asked) = (grouped(report.opened), grouped(report.connections));
        self.row("connections", format!("{opened} of {asked} opened in {}, {}/s", time(*seconds), amount(*rate)));
        let [p50, p99, max] = [p50_ms, p99_ms, max_ms].map(|ms| time(ms / 1e3));
        let handshake = format!("p50 {p50}, p99 {p99}, max {max}");
        self.row("  handshake", if *max_ms > 0.0 { &handshake } else { NONE });
        if *failed + *retries > 0 {
            let (failed, retries) = (grouped(*failed), grouped(*retries));
            self.row("  failed", format!("{failed} connections; {retries} tries were repeated{}", reasons(failures)));
        }
        let hold = &report.hold;
        let checked = |alive: u64| {
            if alive == 0 && report.was_stopped() { "not checked".to_owned() } else { grouped(alive) }
        };
        let [start, end] = [hold.alive_at_start, hold.alive_at_end].map(checked);
        // Over SSE nobody can answer.
        let heartbeats = match hold.heartbeats_heard {
            0 => format!("{} pings answered", grouped(hold.pings_answered)),
            heard => format!("{} heartbeats heard", grouped(heard)),
        };
        let held = if hold.seconds > 0.0 { time(hold.seconds) } else { NONE.to_owned() };
        self.row("  held", format!("{held}; alive by data: {start} at the start, {end} at the end; {heartbeats}"));
        if hold.vanished > 0 {
            self.row("  vanished", format!("{}, as they were to", grouped(hold.vanished)));
        }
        if hold.lost > 0 {
            self.row("  lost", format!("{}{}", grouped(hold.lost), reasons(&hold.losses)));
        }
    }

    fn broadcast(&mut self, broadcast: &Broadcast) {
        let Broadcast { messages, size_bytes, deliveries, missing, duplicates, rate, .. } = broadcast;
        let (messages, deliveries) = (grouped(*messages), grouped(*deliveries));
        let [missing, duplicates, size] = [*missing, *duplicates, *size_bytes as u64].map(grouped);
        self.row(
            "broadcast",
            format!("{messages} messages of {size} B, {deliveries} deliveries, {missing} missing, {duplicates} twice"),
        );
        let [first, p50, p99, p99_9, last] =
            [broadcast.first_ms, broadcast.p50_ms, broadcast.p99_ms, broadcast.p99_9_ms, broadcast.last_ms]
                .map(|ms| time(ms / 1e3));
        let delivery = format!("first {first}, p50 {p50}, p99 {p99}, p99.9 {p99_9}, last {last}");
        self.row("  delivery", if broadcast.deliveries > 0 { &delivery } else { NONE });
        self.row("  rate", format!("{} deliveries/s", amount(*rate)));
    }

    fn echo(&mut self, echo: &Echo) {
        let Echo { messages, missing, wrong, size_bytes, in_flight, seconds, intended_rate, rate, .. } = echo;
        let [messages, missing, wrong, size] = [*messages, *missing, *wrong, *size_bytes as u64].map(grouped);
        let load = intended_rate.map_or_else(
            || format!("{} in flight per connection", grouped(*in_flight as u64)),
            |rate| format!("{}/s asked for", amount(rate)),
        );
        let seconds = time(*seconds);
        self.row(
            "echo",
            format!("{messages} messages of {size} B due in {seconds}, {missing} missing, {wrong} wrong; {load}"),
        );
        self.row("  rate", format!("{} messages/s", amount(*rate)));
        self.row("  latency", times(&echo.times));
        if let Some(cpu) = echo.server_cpu_us_per_message {
            self.row("  server CPU", format!("{cpu:.2} us per message"));
        }
    }

    fn churn(&mut self, churn: &Churn) {
        let (connects, failed) = (grouped(churn.connects), grouped(churn.connects_failed));
        let (rate, intended, seconds) = (amount(churn.rate), amount(churn.intended_rate), time(churn.seconds));
        self.row("churn", format!("{connects} came in {seconds}, {rate}/s of {intended}/s; {failed} could not"));
        // Slow ones that the server lets be say good-bye as the others do.
        let bade = churn.graceful.saturating_sub(churn.slow.saturating_sub(churn.slow_ended));
        let [bade, abrupt, half_open, slow] = [bade, churn.abrupt, churn.half_open, churn.slow].map(grouped);
        self.row(
            "  left",
            format!("{bade} with a good-bye, {abrupt} abruptly; {half_open} went mute, {slow} were slow"),
        );
        let (held, lost) = (grouped(churn.held), grouped(churn.held_lost));
        self.row("  stayed", format!("{held}, of which {lost} were lost"));
        let [deliveries, missing, twice] = [churn.deliveries, churn.missing, churn.duplicates].map(grouped);
        self.row("  delivered", format!("{deliveries} to healthy members, {missing} missing, {twice} twice"));
        if churn.half_open > 0 {
            let [noticed, missed] = [churn.half_open_detected, churn.half_open_overlooked].map(grouped);
            let text = match churn.half_open_unnoticeable {
                0 => format!("the server ended {noticed} of them in time, {missed} not"),
                rest => format!("the server ended {noticed} of them; {} stood, as over SSE they may", grouped(rest)),
            };
            self.row("  mute", text);
        }
        if churn.slow > 0 {
            let [ended, rest] = [churn.slow_ended, churn.slow.saturating_sub(churn.slow_ended)].map(grouped);
            self.row("  slow", format!("the server ended {ended} of them, {rest} said good-bye after their time"));
        }
        if churn.server_bytes_before > 0 {
            let [before, peak, after] =
                [churn.server_bytes_before, churn.server_bytes_peak, churn.server_bytes_after].map(bytes);
            self.row("  memory", format!("{before} before, {peak} at most, {after} when all were gone"));
        }
        if let Some(idle) = &churn.probe_idle {
            self.row("  echo before", times(idle));
        }
        if let Some(probe) = &churn.probe {
            let (probes, missing) = (grouped(churn.probes), grouped(churn.probes_missing));
            self.row("  echo during", format!("{}; {probes} probes, {missing} missing", times(probe)));
        }
    }

    fn server(&mut self, server: &Server) {
        let [before, held, after] = [server.before, server.held, server.after].map(|usage| bytes(usage.user_bytes));
        let each = server.user_bytes_per_connection;
        self.row("server", format!("memory {before} before, {held} held, {after} after"));
        self.row("  grew by", format!("{each:.1} B per connection; one that had held some before grows by less"));
        let cpu = time(server.after.cpu_seconds - server.before.cpu_seconds);
        self.row("  CPU", format!("{cpu}, pid {}", server.pid));
    }
}

fn times(times: &EchoTimes) -> String {
    let [p50, p90, p99, p99_9, max] =
        [times.p50_us, times.p90_us, times.p99_us, times.p99_9_us, times.max_us].map(|us| time(us / 1e6));
    format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}, max {max}")
}

/// Why, and how often, to append: the commonest first.
fn reasons(reasons: &BTreeMap<String, u64>) -> String {
    let mut each: Vec<_> = reasons.iter().collect();
    each.sort_by_key(|(_, count)| Reverse(**count));
    let each: Vec<String> =
        each.into_iter().map(|(why, count)| format!("{} {}", grouped(*count), in_words(why))).collect();
    if each.is_empty() { String::new() } else { format!(": {}", each.join(", ")) }
}

/// `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate: whole when it is large.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is not negative, and saturates")]
#[must_use]
pub fn amount(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { grouped(rate.round() as u64) }
}

/// A time of so many seconds in the unit that suits it.
#[must_use]
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 120.0 => format!("{:.1} min", s / 60.0),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.1} ms", s * 1e3),
        s if s > 0.0 => format!("{:.0} us", s * 1e6),
        _ => "0 s".to_owned(),
    }
}

/// `1.5 MiB`.
#[allow(clippy::cast_precision_loss, reason = "for people")]
#[must_use]
pub fn bytes(count: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.iter().find(|(_, size)| count >= *size);
    unit.map_or_else(|| format!("{count} B"), |(name, size)| format!("{:.1} {name}", count as f64 / *size as f64))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::swarm::latency::Latencies;
    use crate::swarm::report::{Hold, Limit, Usage};

    /// Ten connections that were all well.
    fn good() -> Report {
        let mut each = Latencies::new();
        (1..=10).for_each(|n| each.record(n * 1_000_000));
        let mut all = each.clone();
        all.merge(&each);
        Report {
            scenario: "broadcast".to_owned(),
            target: "ws://127.0.0.1:8080/topics/load".to_owned(),
            via: "loopback".to_owned(),
            threads: 1,
            connections: 10,
            opened: 10,
            connect: Connect::new(10, Duration::from_millis(500), &each, BTreeMap::new()),
            hold: Hold { seconds: 2.0, alive_at_start: 10, alive_at_end: 10, ..Hold::default() },
            broadcast: Some(Broadcast::new(128, &all, &[each.clone(), each], Duration::from_secs(1))),
            ..Report::default()
        }
    }

    #[test]
    fn a_summary_has_rows_with_units() {
        let mut report = good();
        let usage = |user_bytes, cpu_seconds| Usage { user_bytes, cpu_seconds };
        report.server =
            Some(Server::new(7, [usage(1 << 20, 1.0), usage((1 << 20) + 640, 1.5), usage(1 << 20, 2.0)], 10));
        let expected = "\
swarm broadcast via loopback, ws://127.0.0.1:8080/topics/load
connections   10 of 10 opened in 500.0 ms, 20.0/s
  handshake   p50 5.0 ms, p99 10.0 ms, max 10.0 ms
  held        2.00 s; alive by data: 10 at the start, 10 at the end; 0 pings answered
broadcast     2 messages of 128 B, 20 deliveries, 0 missing, 0 twice
  delivery    first 1.0 ms, p50 5.0 ms, p99 10.0 ms, p99.9 10.0 ms, last 10.0 ms
  rate        20.0 deliveries/s
server        memory 1.0 MiB before, 1.0 MiB held, 1.0 MiB after
  grew by     64.0 B per connection; one that had held some before grows by less
  CPU         1.00 s, pid 7
result        ok
";
        assert_eq!(report.summary(), expected);
    }

    #[test]
    #[allow(clippy::type_complexity, reason = "a table of what spoils a report, and what is said then")]
    fn every_fault_is_told_and_none_is_ok() {
        let faults: [(fn(&mut Report), &str); 13] = [
            (|report| report.opened = 9, "only 9 of 10 connections opened"),
            (|report| report.hold.lost = 1, "1 of 10 connections were not alive at the end"),
            (|report| report.hold.alive_at_start = 8, "2 of 10 connections brought no data"),
            (|report| report.hold.alive_at_end = 7, "3 of 10 connections were not alive at the end"),
            (
                |report| report.broadcast = Some(Broadcast { missing: 4, ..Broadcast::default() }),
                "4 deliveries are missing",
            ),
            (
                |report| report.broadcast = Some(Broadcast { duplicates: 1, ..Broadcast::default() }),
                "1 deliveries came twice",
            ),
            (|report| report.echo = Some(Echo::default()), "no message came back"),
            (
                |report| report.echo = Some(Echo { messages: 1, wrong: 3, ..Echo::default() }),
                "3 messages came back changed",
            ),
            (|report| report.churn = Some(Churn { held_lost: 2, ..Churn::default() }), "2 held connections were lost"),
            (|report| report.interrupted = true, "ended by a signal"),
            (
                |report| (report.deserted, report.hold.lost, report.hold.alive_at_end) = (Some(2.3), 10, 0),
                "the server ended all connections after 2.30 s, target ws://127.0.0.1:8080/topics/load: see its log",
            ),
            (
                |report| (report.hold.lost, report.hold.losses) = (2, BTreeMap::from([("closed_1009".to_owned(), 2)])),
                "2 of 10 connections were not alive at the end: closed by the server with code 1009 (2 times): ask for a smaller --size",
            ),
            (
                |report| {
                    let failures = BTreeMap::from([("places".to_owned(), 7)]);
                    report.churn = Some(Churn { connects_failed: 7, failures, ..Churn::default() });
                },
                "7 connections could not come: no place for another guest (7 times): lower --churn",
            ),
        ];
        assert!(good().ok() && good().to_json().contains("\"ok\": true"));
        for (spoil, expected) in faults {
            let mut report = good();
            spoil(&mut report);
            assert!(!report.ok() && report.to_json().contains("\"ok\": false"), "{expected}");
            assert!(report.summary().contains(expected), "{expected}: {}", report.summary());
            let told = report.faults().into_iter().find(|fault| fault.contains(expected)).unwrap_or_default();
            assert!(told.contains(": "), "how to mend it: {told}");
        }
    }

    #[test]
    fn what_was_not_measured_is_not_zero() {
        let hold = Hold { seconds: 1.0, alive_at_start: 10, ..Hold::default() };
        let echo = Echo { messages: 5, missing: 3, size_bytes: 2 << 20, ..Echo::default() };
        let stopped = Report { interrupted: true, hold, echo: Some(echo), broadcast: None, ..good() };
        let summary = stopped.summary();
        assert!(summary.contains("alive by data: 10 at the start, not checked at the end"), "{summary}");
        assert!(summary.contains(" 2,097,152 B "), "{summary}");
        assert_eq!(stopped.faults(), ["ended by a signal before its time: let it run"]);
        let (connect, broadcast) = (Connect::default(), Some(Broadcast::default()));
        let nothing = Report { opened: 0, connect, broadcast, hold: Hold::default(), ..good() };
        let summary = nothing.summary();
        for row in ["  handshake   -\n", "  held        -; ", "  delivery    -\n"] {
            assert!(summary.contains(row), "{row} in {summary}");
        }
    }

    #[test]
    fn those_who_came_to_a_churn_add_up() {
        let churn = Churn {
            connects: 623,
            graceful: 448,
            abrupt: 120,
            half_open: 29,
            half_open_detected: 29,
            slow: 29,
            slow_ended: 26,
            ..Churn::default()
        };
        let summary = Report { churn: Some(churn), ..good() }.summary();
        for row in [
            "  left        445 with a good-bye, 120 abruptly; 29 went mute, 29 were slow\n",
            "  mute        the server ended 29 of them in time, 0 not\n",
            "  slow        the server ended 26 of them, 3 said good-bye after their time\n",
        ] {
            assert!(summary.contains(row), "{row} in {summary}");
        }
    }

    #[test]
    fn a_limit_is_told_with_its_count_and_how_to_mend_it() {
        let mut report = Report { opened: 4, hold: Hold::default(), ..good() };
        let limit = Limit { what: "no free port".to_owned(), at: 4, mend: "widen the range".to_owned() };
        report.limit = Some(limit);
        let faults = report.faults();
        assert_eq!(faults, ["no free port: that stopped it at 4 of 10 connections: widen the range"]);
    }

    #[test]
    fn the_json_is_one_flat_documented_shape() {
        let report = Report { echo: Some(Echo { messages: 1, ..Echo::default() }), ..good() };
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap_or_default();
        for (pointer, expected) in [
            ("/scenario", serde_json::json!("broadcast")),
            ("/connections", 10.into()),
            ("/connect/rate", 20.0.into()),
            ("/hold/alive_at_end", 10.into()),
            ("/broadcast/each/1/deliveries", 10.into()),
            ("/echo/messages", 1.into()),
            ("/echo/p99_9_us", 0.0.into()),
            ("/churn", serde_json::Value::Null),
            ("/limit", serde_json::Value::Null),
            ("/ok", true.into()),
        ] {
            assert_eq!(json.pointer(pointer), Some(&expected), "{pointer} in {json:#}");
        }
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 2e-6, 0.0015, 0.9996, 1.5, 150.0].map(time),
            ["0 s", "2 us", "1.5 ms", "999.6 ms", "1.50 s", "2.5 min"]
        );
        assert_eq!([0, 1536, 3 << 30].map(bytes), ["0 B", "1.5 KiB", "3.0 GiB"]);
        assert_eq!([0.25, 99.94, 1234.5].map(amount), ["0.2", "99.9", "1,235"].map(str::to_owned));
    }
}
