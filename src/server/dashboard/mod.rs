//! The dashboard: a page that works without a script as a table, and with it draws itself from `/api/overview`.
//!
//! Everything on it comes from counters and from what shards have put behind their panes. Looking at it costs no shard a
//! turn.

mod overview;

use std::fmt::Write;
use std::time::Duration;

use super::admin::Surroundings;
use super::scrape::BUILD;
use crate::metrics::{Counter, Metrics, Protocol, ShardMetrics};

pub(super) use self::overview::overview;

/// The page's script, which asks for the overview every second.
pub(super) const SCRIPT: &str = include_str!("dashboard.js");
/// The page's style.
pub(super) const STYLE: &str = include_str!("dashboard.css");

/// What stands around the tables. Without a script the page asks for itself again every two seconds.
const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
    <meta name=viewport content='width=device-width,initial-scale=1'><title>Holdline</title><link rel=icon href='data:,'>\
    <link rel=stylesheet href=/admin.css><noscript><meta http-equiv=refresh content=2></noscript>\
    <script src=/admin.js defer></script><body>";

type Row = (&'static str, fn(&ShardMetrics) -> &Counter);

/// The main numbers.
const ROWS: [Row; 12] = [
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
];

/// The page.
pub(super) fn front(metrics: &Metrics, around: &Surroundings<'_>) -> String {
    let mut html = String::with_capacity(8192);
    html.push_str(HEAD);
    let (phase, uptime) = (around.phase.label(), clock(around.uptime));
    let degraded = around.degraded().map_or_else(String::new, |what| format!("Degraded: {what}"));
    let hidden = if degraded.is_empty() { " hidden" } else { "" };
    let _ = write!(
        html,
        "<header><h1>Holdline</h1><p><span id=phase class={phase}>{phase}</span> for <span id=uptime>{uptime}</span>, \
         version {}<p id=degraded{hidden}>{degraded}<p id=stale hidden>No answer from the server: these are old numbers.</header>\
         <main id=live hidden></main><section id=plain><div class=wide><table><tr><th><th>all",
        BUILD[0].1
    );
    for shard in 0..metrics.shards.len() {
        let _ = write!(html, "<th>shard {shard}");
    }
    let mut row = |name: &str, numbers: &dyn Fn(&ShardMetrics) -> u64| {
        let _ = write!(html, "<tr><th>{name}<td><b>{}</b>", grouped(metrics.total(numbers)));
        metrics.shards.iter().for_each(|shard| {
            let _ = write!(html, "<td>{}", grouped(numbers(shard)));
        });
    };
    ROWS.iter().for_each(|(name, counter)| row(name, &|shard| counter(shard).get()));
    for protocol in Protocol::ALL {
        row(&format!("{} now", protocol.label()), &|shard| shard.speakers(*protocol).0);
    }
    row("longest turn, µs", &|shard| shard.turn_max_seconds.get() / 1000);
    html.push_str("</table></div></section><footer><table class=about>");
    let build = BUILD.iter().skip(1).filter(|(_, value)| !value.is_empty()).map(|(name, value)| (*name, *value));
    for (name, value) in around.about.iter().map(|(name, value)| (*name, value.as_str())).chain(build) {
        let _ = write!(html, "<tr><th>{name}<td>{}", escape(value));
    }
    html.push_str(
        "</table><p><a href=/metrics>metrics</a> <a href=/api/overview>overview</a> <a href=/healthz>health</a> \
        <a href=/readyz>ready</a></footer>",
    );
    html
}

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
