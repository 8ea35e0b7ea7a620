//! Whether a run was well, and why not.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Limit, Report};
use crate::swarm::limits::{Reason, in_words, mend_close};
use crate::swarm::summary::{grouped, time};

/// What is written: the report and the verdict.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// Whether all was reached and healthy.
    ok: bool,
    /// Why not, one line each.
    faults: Vec<String>,
}

impl Report {
    /// Whether all connections were reached and healthy.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.faults().is_empty()
    }

    /// What was not as it should be, a line for each with what mends it, the gravest first. None: all was well.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.interrupted {
            faults.push("ended by a signal before its time: let it run".to_owned());
        }
        let [connections, opened] = [self.connections, self.opened].map(grouped);
        if let Some(Limit { what, at, mend }) = &self.limit {
            faults.push(format!("{what}: that stopped it at {} of {connections} connections: {mend}", grouped(*at)));
        } else if self.opened < self.connections {
            let why = why(&self.connect.failures, mend_failure, LOG);
            faults.push(format!("only {opened} of {connections} connections opened: {why}"));
        }
        if let Some(after) = self.deserted {
            let after = time(after);
            faults.push(format!("the server ended all connections after {after}, target {}: see its log", self.target));
        }
        let was_stopped = self.was_stopped();
        let unasked = |alive: u64| if was_stopped { 0 } else { self.opened.saturating_sub(alive) };
        let lost = self.hold.lost.max(unasked(self.hold.alive_at_end + self.hold.vanished));
        if lost > 0 && self.deserted.is_none() {
            let why = why(&self.hold.losses, mend_loss, LATE);
            faults.push(format!("{} of {opened} connections were not alive at the end: {why}", grouped(lost)));
        }
        let silent = unasked(self.hold.alive_at_start);
        if silent > 0 {
            let silent = grouped(silent);
            faults.push(format!("{silent} of {opened} connections brought no data when all were open: {LATE}"));
        }
        if !was_stopped && self.echo.as_ref().is_some_and(|echo| echo.messages == 0) {
            faults.push(format!("no message came back: measure with a longer --duration, or {LATE}"));
        }
        let counted = self.counted().into_iter().filter(|(count, ..)| *count > 0);
        faults.extend(counted.map(|(count, what, mend)| format!("{} {what}: {mend}", grouped(count))));
        faults
    }

    /// Whether it ended before its time, and has not asked all of them.
    #[must_use]
    pub const fn was_stopped(&self) -> bool {
        self.limit.is_some() || self.interrupted || self.deserted.is_some()
    }

    /// What has to be zero, and what mends it.
    fn counted(&self) -> Vec<(u64, &'static str, String)> {
        let mut counted = Vec::new();
        let mut push = |count, what, mend: &str| counted.push((count, what, mend.to_owned()));
        if let Some(broadcast) = &self.broadcast {
            push(broadcast.missing, "deliveries are missing", LATE);
            push(broadcast.duplicates, "deliveries came twice", ORDER);
            push(broadcast.reordered, "deliveries came out of order", ORDER);
        }
        // Of a run that was stopped they may be under way.
        let unless_stopped = |missing| if self.was_stopped() { 0 } else { missing };
        if let Some(echo) = &self.echo {
            push(unless_stopped(echo.missing), "messages did not come back", LATE);
            push(echo.wrong, "messages came back changed, twice or out of order", ORDER);
        }
        if let Some(churn) = &self.churn {
            let held_lost = if self.deserted.is_some() { 0 } else { churn.held_lost };
            push(held_lost, "held connections were lost", &why(&self.hold.losses, mend_loss, LOG));
            push(churn.connects_failed, "connections could not come", &why(&churn.failures, mend_failure, LOG));
            push(churn.missing, "deliveries to healthy members are missing", LATE);
            push(churn.duplicates, "deliveries came twice", ORDER);
            push(churn.reordered, "deliveries came out of order", ORDER);
            push(churn.graceful_unanswered, "good-byes were not answered", LOG);
            push(churn.half_open_overlooked, "mute connections were not noticed", MUTE);
            push(unless_stopped(churn.probes_missing), "probes of healthy clients did not come back", LATE);
        }
        counted
    }

    /// As JSON, indented, with a newline at the end.
    ///
    /// # Panics
    /// Never: a report is made of what JSON has.
    #[must_use]
    pub fn to_json(&self) -> String {
        let faults = self.faults();
        let document = Document { report: self, ok: faults.is_empty(), faults };
        let mut text = serde_json::to_string_pretty(&document).expect("a report has text for keys");
        text.push('\n');
        text
    }
}

/// What mends that something has not come.
const LATE: &str = "raise --patience, send less, or look into the server's log";
/// What mends an order that the server must keep.
const ORDER: &str = "load the server without a proxy, and report it to the server's makers";
const LOG: &str = "look into the server's log";
const MUTE: &str = "raise --half-open-for above the server's heartbeat interval and timeout together";

/// The reason that most have, and what mends it.
fn why(reasons: &BTreeMap<String, u64>, mend: fn(&str) -> &'static str, unknown: &str) -> String {
    let most = reasons.iter().max_by_key(|(_, count)| **count);
    let told = |(why, count): (&String, &u64)| format!("{} ({} times): {}", in_words(why), grouped(*count), mend(why));
    most.map_or_else(|| unknown.to_owned(), told)
}

/// What mends that connections do not open for a reason of this name.
fn mend_failure(name: &str) -> &'static str {
    Reason::named(name).map_or(LOG, Reason::mend)
}

/// What mends that they end for it.
fn mend_loss(name: &str) -> &'static str {
    let code = name.strip_prefix("closed_").and_then(|code| code.parse().ok());
    match (code, Reason::named(name)) {
        (Some(code), _) => mend_close(code),
        (None, Some(reason @ (Reason::Protocol | Reason::Stuck | Reason::Memory))) => reason.mend(),
        _ => LOG,
    }
}
