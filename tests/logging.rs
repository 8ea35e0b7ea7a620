//! What peers do wrong is logged at a bounded rate, and what is left out is counted. A process of its own: shards log to
//! the process's subscriber.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot get what it needs has failed")]

mod common;
#[path = "common/log.rs"]
mod log;

use std::time::Instant;

use common::{Running, backends, config, until};
use holdline::app::standard_routes;
use holdline::rule::Rule;
use log::Lines;

/// What lines about closed connections have in them.
const ABOUT: &str = "connection closed";

#[test]
fn a_flood_of_offences_writes_few_lines_and_counts_the_others() {
    const FLOOD: u64 = 300;
    let lines = Lines::start();
    for backend in backends() {
        lines.take(ABOUT);
        let (running, began) = (Running::start(&config(backend, 1), standard_routes()), Instant::now());
        for _ in 0..FLOOD {
            let mut client = running.connect(0);
            client.send_raw(b"\0\0\0\0");
            client.end();
        }
        until("all are counted", || running.count(|shard| shard.violations(Rule::NotHttp)) == FLOOD);
        let suppressed = running.count(|shard| shard.log_lines_suppressed_total.get());
        let written = lines.take(ABOUT);
        // Fifty at once and ten a second.
        let most = 50 + 10 * (began.elapsed().as_secs() + 1);
        assert!((50..=most).contains(&(written.len() as u64)), "{} lines", written.len());
        assert_eq!(written.len() as u64 + suppressed, FLOOD);
        assert!(
            written[0].contains("bad_handshake") && written[0].contains("not an HTTP/1.1 request"),
            "{}",
            written[0]
        );

        // The next line that may be written tells how many are missing.
        let tells = |line: &String| !line.contains("suppressed=0");
        until("a line tells of the others", || {
            running.connect(0).send_raw(b"\0");
            lines.take(ABOUT).iter().any(tells)
        });
    }
}
