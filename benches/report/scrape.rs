//! The server's own numbers, from its `/metrics`.
#![allow(clippy::cast_possible_truncation, reason = "counters are whole numbers below 2^53")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use super::results::Turn;

const PATIENCE: Duration = Duration::from_secs(5);

/// What `/metrics` said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape {
    /// Sums over all shards, without the prefix `holdline_`.
    numbers: BTreeMap<String, f64>,
    /// `turn_seconds`: how many turns took at most so many seconds.
    turns: BTreeMap<Bound, f64>,
}

/// An upper bound in nanoseconds, so that it can be a key; the last is `u64::MAX`.
type Bound = u64;

impl Scrape {
    pub(crate) fn of(admin: SocketAddrV4) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(admin), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(Self::parse(body)),
            _ => Err(io::Error::other(format!("/metrics: {}", text.lines().next().unwrap_or("no answer")))),
        }
    }

    fn parse(body: &str) -> Self {
        let mut scrape = Self::default();
        for line in body.lines().filter_map(|line| line.strip_prefix("holdline_")) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let value: f64 = value.parse().unwrap_or(0.0);
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            if name == "turn_seconds_bucket" {
                let bound = labels.split_once("le=\"").map_or("", |(_, rest)| rest.split('"').next().unwrap_or(""));
                let nanos = bound.parse::<f64>().ok().filter(|bound| bound.is_finite());
                *scrape.turns.entry(nanos.map_or(u64::MAX, |it| (it * 1e9).round() as u64)).or_default() += value;
            } else {
                *scrape.numbers.entry(name.to_owned()).or_default() += value;
            }
        }
        scrape
    }

    /// One number; 0 when the server has none of that name.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.numbers.get(name).map_or(0, |value| *value as u64)
    }

    /// The longest turn so far, ms.
    pub(crate) fn longest_turn_ms(&self) -> f64 {
        self.numbers.get("turn_max_seconds").map_or(0.0, |seconds| seconds * 1e3)
    }

    /// The turns between looks, all spans together; `None` when the server does not count them by length, or had none.
    pub(crate) fn turns(spans: &[(&Self, &Self)]) -> Option<Turn> {
        let mut counts: BTreeMap<Bound, f64> = BTreeMap::new();
        for (before, after) in spans {
            for (bound, count) in &after.turns {
                *counts.entry(*bound).or_default() += count - before.turns.get(bound).copied().unwrap_or(0.0);
            }
        }
        let total = counts.values().last().copied().filter(|total| *total > 0.0)?;
        let longest = spans.last()?.1.longest_turn_ms();
        // Above the last bound only the longest of all turns is known, and no turn was longer than that.
        let at = |rank: f64| {
            let found = counts.iter().find(|(_, count)| **count >= total * rank - 1e-9).map(|(bound, _)| *bound);
            found.filter(|bound| *bound < u64::MAX).map_or(longest, |bound| (bound as f64 / 1e6).min(longest))
        };
        let (p50_ms, p99_ms, p99_9_ms, max_ms) = (at(0.5), at(0.99), at(0.999), at(1.0));
        Some(Turn { turns: total as u64, p50_ms, p99_ms, p99_9_ms, max_ms })
    }
}
