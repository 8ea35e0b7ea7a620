//! The admin pages: what operators and their machines ask of a running server.
//!
//! Pages are made from the counters when they are asked for; a scrape costs the shards nothing.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::api::Desk;
use crate::app::Refusal;
use crate::app::site::{Ask, Page, PageRequest, Site};
use crate::metrics::{Counter, Metrics, ShardMetrics};

/// Where a server is in its life.
///
/// ```text
/// Starting -> Running -> Draining -> Ended
///        \________\___________________^
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Not every listener accepts yet.
    #[default]
    Starting,
    /// Every listener accepts.
    Running,
    /// Nobody is let in, clients are sent away.
    Draining,
    /// All shards have ended.
    Ended,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Starting, Self::Running, Self::Draining, Self::Ended];

    /// The name on pages and in logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }
}

/// The phase of one server, for all who ask. It only goes on, never back.
#[derive(Debug, Default)]
pub struct PhaseCell(AtomicU8);

impl PhaseCell {
    /// The phase now.
    #[must_use]
    pub fn get(&self) -> Phase {
        Phase::ALL[usize::from(self.0.load(Ordering::Acquire)).min(Phase::ALL.len() - 1)]
    }

    /// Goes on to `phase`. Says whether that was new.
    pub fn advance(&self, phase: Phase) -> bool {
        self.0.fetch_max(phase as u8, Ordering::AcqRel) < phase as u8
    }
}

/// The pages of the admin listener: `/metrics`, `/healthz`, `/readyz`, and `/` with its style.
pub struct Admin {
    metrics: Metrics,
    phase: Arc<PhaseCell>,
    started: Instant,
    /// What the front page says about this server: listeners, backend.
    about: Vec<(&'static str, String)>,
    /// Where requests of the API come in.
    desk: Option<Arc<Desk>>,
}

impl Admin {
    /// Pages over these counters. `about` goes on the front page as it is.
    #[must_use]
    pub fn new(metrics: Metrics, phase: Arc<PhaseCell>, about: Vec<(&'static str, String)>) -> Self {
        Self { metrics, phase, started: Instant::now(), about, desk: None }
    }

    /// The same with the API.
    #[must_use]
    pub(super) fn with_api(mut self, desk: Arc<Desk>) -> Self {
        self.desk = Some(desk);
        self
    }

    fn prometheus(&self) -> String {
        let mut text = self.metrics.prometheus();
        let draining = u8::from(self.phase.get() >= Phase::Draining);
        let uptime = self.started.elapsed().as_secs();
        let version = env!("CARGO_PKG_VERSION");
        for (name, help, labels, value) in [
            ("build_info", "This program.", format!("{{version=\"{version}\"}}"), 1),
            ("draining", "Whether clients are being sent away.", String::new(), u64::from(draining)),
            ("uptime_seconds", "Seconds since the start.", String::new(), uptime),
        ] {
            let _ = writeln!(text, "# HELP holdline_{name} {help}\n# TYPE holdline_{name} gauge");
            let _ = writeln!(text, "holdline_{name}{labels} {value}");
        }
        if let Some(desk) = &self.desk {
            desk.reloader().write_metrics(&mut text);
        }
        text
    }

    fn front(&self) -> String {
        let mut html = String::with_capacity(4096);
        html.push_str(HEAD);
        let phase = self.phase.get().label();
        let uptime = clock(self.started.elapsed());
        let version = env!("CARGO_PKG_VERSION");
        let _ = write!(html, "<h1>Holdline</h1><p>{version}, <b>{phase}</b> for {uptime}</p><table class=about>");
        for (name, value) in &self.about {
            let _ = write!(html, "<tr><th>{name}<td>{}", escape(value));
        }
        html.push_str("</table><div><table><tr><th><th>all");
        for shard in 0..self.metrics.shards.len() {
            let _ = write!(html, "<th>shard {shard}");
        }
        for (name, counter) in ROWS {
            let total = grouped(self.metrics.total(|shard| counter(shard).get()));
            let _ = write!(html, "<tr><th>{name}<td><b>{total}</b>");
            for shard in self.metrics.shards.iter() {
                let _ = write!(html, "<td>{}", grouped(counter(shard).get()));
            }
        }
        html.push_str(
            "</table></div>\
            <p><a href=/metrics>metrics</a> <a href=/healthz>health</a> <a href=/readyz>ready</a>",
        );
        html
    }
}

impl Site for Admin {
    fn get(&self, request: &PageRequest<'_>) -> Option<Page> {
        const HTML: &str = "text/html; charset=utf-8";
        let text = |status, body: &'static str| Page::new(status, "text/plain; charset=utf-8", body);
        let ready = || match self.phase.get() {
            Phase::Running => text(200, "ready\n"),
            Phase::Starting => text(503, "starting\n"),
            Phase::Draining | Phase::Ended => text(503, "draining\n"),
        };
        Some(match request.path {
            "/metrics" => Page::new(200, "text/plain; version=0.0.4; charset=utf-8", self.prometheus()),
            // Whoever reads this has an event loop that turns.
            "/healthz" => text(200, "ok\n"),
            "/readyz" => ready(),
            "/" => Page::new(200, HTML, self.front()),
            "/admin.css" => Page::new(200, "text/css; charset=utf-8", STYLE),
            _ => return None,
        })
    }

    fn methods(&self, path: &str) -> Option<&'static str> {
        self.desk.as_ref().and_then(|_| Desk::methods(path))
    }

    fn lets_in(&self, host: &[u8]) -> Result<(), Refusal> {
        self.desk.as_ref().map_or(Ok(()), |desk| desk.lets_in(host))
    }

    fn ask(&self, ask: Ask) -> Result<(), Refusal> {
        let nothing =
            || Refusal { status: 404, code: "not_found", message: "there is nothing at this path".to_owned() };
        self.desk.as_ref().ok_or_else(nothing)?.ask(&ask)
    }
}

/// The page asks for itself again every two seconds; it needs no script. The style stands apart, as the policy that is
/// sent with every page has it.
const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=2>\
    <meta name=viewport content='width=device-width'><title>Holdline</title><link rel=icon href='data:,'>\
    <link rel=stylesheet href=/admin.css>";

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color-scheme:light dark}
table{border-collapse:collapse;margin:1rem 0}
th{text-align:left;font-weight:normal;padding-right:2rem}
div td,div tr:first-child th{text-align:right;padding:.1rem 1rem;font-variant-numeric:tabular-nums}
.about td,.about th{text-align:left;padding:.1rem 2rem .1rem 0;vertical-align:top;white-space:pre-line}
div{overflow-x:auto}
th,td{white-space:nowrap}
a{margin-right:1rem}
";

type Row = (&'static str, fn(&ShardMetrics) -> &Counter);

/// The main numbers.
const ROWS: [Row; 13] = [
    ("connections now", |shard| &shard.connections),
    ("connections accepted", |shard| &shard.accepted_total),
    ("connections refused", |shard| &shard.refused_total),
    ("subscriptions now", |shard| &shard.subscriptions),
    ("topics now", |shard| &shard.topics),
    ("messages received", |shard| &shard.messages_received_total),
    ("publications", |shard| &shard.publications_total),
    ("deliveries", |shard| &shard.deliveries_total),
    ("deliveries dropped", |shard| &shard.deliveries_dropped_total),
    ("bytes received", |shard| &shard.bytes_received_total),
    ("bytes sent", |shard| &shard.bytes_sent_total),
    ("bytes queued now", |shard| &shard.queued_bytes),
    ("longest turn, ns", |shard| &shard.turn_max_seconds),
];

/// Thousands apart: `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn clock(period: Duration) -> String {
    let seconds = period.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours}:{minutes:02}:{seconds:02}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::app::site::Body;

    fn admin() -> (Admin, Metrics, Arc<PhaseCell>) {
        let (metrics, phase) = (Metrics::new(2), Arc::new(PhaseCell::default()));
        let about = vec![("listening", "tcp://127.0.0.1:1?framing=length&app=chat".to_owned())];
        (Admin::new(metrics.clone(), Arc::clone(&phase), about), metrics, phase)
    }

    fn get(admin: &Admin, path: &str) -> (u16, String) {
        let page = admin.get(&PageRequest::get(path)).unwrap();
        let Body::Bytes(body) = page.body else { panic!("it is in memory") };
        (page.status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn ready_only_while_running() {
        let (admin, _, phase) = admin();
        for (next, expected) in [
            (Phase::Starting, (503, "starting\n")),
            (Phase::Running, (200, "ready\n")),
            (Phase::Draining, (503, "draining\n")),
            (Phase::Ended, (503, "draining\n")),
        ] {
            phase.advance(next);
            assert_eq!(get(&admin, "/readyz"), (expected.0, expected.1.to_owned()));
            assert_eq!(get(&admin, "/healthz"), (200, "ok\n".to_owned()));
        }
    }

    #[test]
    fn a_phase_never_goes_back() {
        let phase = PhaseCell::default();
        assert!(phase.advance(Phase::Draining));
        assert!(!phase.advance(Phase::Running));
        assert!(!phase.advance(Phase::Draining));
        assert_eq!(phase.get(), Phase::Draining);
    }

    #[test]
    fn the_pages_show_the_numbers() {
        let (admin, metrics, phase) = admin();
        phase.advance(Phase::Running);
        metrics.shards[0].connections.add(1_000_000);
        metrics.shards[1].connections.add(234);
        let (_, scrape) = get(&admin, "/metrics");
        assert!(scrape.contains("holdline_connections{shard=\"0\"} 1000000\n"));
        assert!(scrape.contains("holdline_draining 0\n"));
        let (status, html) = get(&admin, "/");
        assert_eq!(status, 200);
        assert!(html.contains("<b>1\u{202f}000\u{202f}234</b><td>1\u{202f}000\u{202f}000<td>234"), "{html}");
        assert!(html.contains("running") && html.contains("length&amp;app=chat"));
        assert!(!html.contains("src=") && !html.contains("<style"), "nothing from elsewhere, nothing inline");
        let style = admin.get(&PageRequest::get("/admin.css")).unwrap();
        assert!(style.fields.starts_with(b"Content-Type: text/css; charset=utf-8\r\n"));
        assert!(admin.get(&PageRequest::get("/nothing")).is_none());
    }
}
