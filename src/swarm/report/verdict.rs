//! Whether a run was well, and why not.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Limit, Report};
use crate::swarm::summary::grouped;

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

    /// What was not as it should be, a line for each, the gravest first. None: all was well.
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
            let why = commonest(&self.connect.failures);
            faults.push(format!("only {opened} of {connections} connections opened{why}"));
        }
        // A run that was stopped has not asked all of them.
        let was_stopped = self.limit.is_some() || self.interrupted;
        let unasked = |alive: u64| if was_stopped { 0 } else { self.opened.saturating_sub(alive) };
        let lost = self.hold.lost.max(unasked(self.hold.alive_at_end));
        if lost > 0 {
            let why = commonest(&self.hold.losses);
            faults.push(format!("{} of {opened} connections were not alive at the end{why}", grouped(lost)));
        }
        let silent = unasked(self.hold.alive_at_start);
        if silent > 0 {
            let silent = grouped(silent);
            faults.push(format!("{silent} of {opened} connections gave no sign of life when all were open"));
        }
        if !was_stopped && self.echo.as_ref().is_some_and(|echo| echo.messages == 0) {
            faults.push("no message came back".to_owned());
        }
        let counted = self.counted().into_iter().filter(|(count, _)| *count > 0);
        faults.extend(counted.map(|(count, what)| format!("{} {what}", grouped(count))));
        faults
    }

    /// What has to be zero.
    fn counted(&self) -> Vec<(u64, &'static str)> {
        let mut counted = Vec::new();
        if let Some(broadcast) = &self.broadcast {
            counted.push((broadcast.missing, "deliveries are missing"));
            counted.push((broadcast.duplicates, "deliveries came twice"));
            counted.push((broadcast.reordered, "deliveries came out of order"));
        }
        if let Some(echo) = &self.echo {
            // Of a run that was stopped they may be under way.
            let missing = if self.interrupted { 0 } else { echo.missing };
            counted.push((missing, "messages did not come back"));
            counted.push((echo.wrong, "messages came back changed, twice or out of order"));
        }
        if let Some(churn) = &self.churn {
            counted.push((churn.held_lost, "held connections were lost"));
            counted.push((churn.connects_failed, "connections could not come"));
            counted.push((churn.missing, "deliveries to healthy members are missing"));
            counted.push((churn.duplicates, "deliveries came twice"));
            counted.push((churn.reordered, "deliveries came out of order"));
            counted.push((churn.graceful_unanswered, "good-byes were not answered"));
            counted.push((churn.half_open_overlooked, "mute connections were not noticed"));
            let missing = if self.interrupted { 0 } else { churn.probes_missing };
            counted.push((missing, "probes of healthy clients did not come back"));
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

/// The reason that most have, to append.
fn commonest(reasons: &BTreeMap<String, u64>) -> String {
    let most = reasons.iter().max_by_key(|(_, count)| **count);
    most.map_or_else(String::new, |(why, count)| format!(": {why} ({} times)", grouped(*count)))
}
