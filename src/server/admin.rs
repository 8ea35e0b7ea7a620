//! The admin pages: what operators and their machines ask of a running server.
//!
//! Pages are made from the counters when they are asked for; a scrape costs the shards nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::api::Desk;
use super::reload::Reloader;
use super::{dashboard, scrape};
use crate::app::Refusal;
use crate::app::site::{Ask, Page, PageRequest, Site};
use crate::metrics::text::Format;
use crate::metrics::{ClusterMetrics, HooksMetrics, JournalMetrics, Metrics};

/// What pages say beside the counters.
pub(super) struct Surroundings<'a> {
    pub(super) phase: Phase,
    pub(super) uptime: Duration,
    pub(super) about: &'a [(&'static str, String)],
    pub(super) reloader: Option<&'a Reloader>,
    pub(super) journal: Option<&'a JournalMetrics>,
    pub(super) hooks: Option<&'a HooksMetrics>,
    pub(super) cluster: Option<&'a ClusterMetrics>,
}

impl Surroundings<'_> {
    /// The interface of the kernel's that serves.
    pub(super) fn backend(&self) -> &str {
        self.about.iter().find(|(name, _)| *name == "backend").map_or("unknown", |(_, value)| value)
    }

    /// What does not work while the rest goes on.
    pub(super) fn degraded(&self) -> Option<String> {
        let stuck = match self.cluster {
            Some(cluster) if cluster.connected.get() == 0 => Some("no connection to NATS (cluster.nats)"),
            Some(cluster) if cluster.streams_working.get() == 0 => Some("JetStream does not work; see the log"),
            _ => None,
        };
        let is_full = self.journal.is_some_and(|journal| journal.working.get() == 0);
        let full = is_full.then_some("the journal cannot be written (journal.dir)");
        let both: Vec<&str> = stuck.into_iter().chain(full).collect();
        (!both.is_empty()).then(|| both.join(", and "))
    }
}

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
    /// Where there is a journal.
    journal: Option<Arc<JournalMetrics>>,
    /// Where a receiver is told what happens.
    hooks: Option<Arc<HooksMetrics>>,
    cluster: Option<Arc<ClusterMetrics>>,
    /// Where requests of the API come in.
    desk: Option<Arc<Desk>>,
}

impl Admin {
    /// Pages over these counters. `about` goes on the front page as it is.
    #[must_use]
    pub fn new(metrics: Metrics, phase: Arc<PhaseCell>, about: Vec<(&'static str, String)>) -> Self {
        Self { metrics, phase, started: Instant::now(), about, journal: None, hooks: None, cluster: None, desk: None }
    }

    /// The same with what the journal counts.
    #[must_use]
    pub(super) fn with_journal(mut self, journal: Option<Arc<JournalMetrics>>) -> Self {
        self.journal = journal;
        self
    }

    /// The same with what is counted of a cluster.
    #[must_use]
    pub(super) fn with_cluster(mut self, cluster: Option<Arc<ClusterMetrics>>) -> Self {
        self.cluster = cluster;
        self
    }

    /// The same with what is counted of hooks.
    #[must_use]
    pub(super) fn with_hooks(mut self, hooks: Option<Arc<HooksMetrics>>) -> Self {
        self.hooks = hooks;
        self
    }

    /// The same with the API.
    #[must_use]
    pub(super) fn with_api(mut self, desk: Arc<Desk>) -> Self {
        self.desk = Some(desk);
        self
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            phase: self.phase.get(),
            uptime: self.started.elapsed(),
            about: &self.about,
            reloader: self.desk.as_ref().map(|desk| &**desk.reloader()),
            journal: self.journal.as_deref(),
            hooks: self.hooks.as_deref(),
            cluster: self.cluster.as_deref(),
        }
    }
}

impl Site for Admin {
    fn get(&self, request: &PageRequest<'_>) -> Option<Page> {
        const HTML: &str = "text/html; charset=utf-8";
        let text = |status, body: &'static str| Page::new(status, "text/plain; charset=utf-8", body);
        // Whoever takes a node out of service for what all of them miss takes out all.
        let ready = || match self.phase.get() {
            Phase::Running => match self.surroundings().degraded() {
                Some(what) => Page::new(200, "text/plain; charset=utf-8", format!("ready\ndegraded: {what}\n")),
                None => text(200, "ready\n"),
            },
            Phase::Starting => text(503, "starting\n"),
            Phase::Draining | Phase::Ended => text(503, "draining\n"),
        };
        Some(match request.path {
            "/metrics" => {
                let format = Format::accepted(request.accept);
                Page::new(200, format.content_type(), scrape::write(&self.metrics, &self.surroundings(), format))
            }
            // Whoever reads this has an event loop that turns.
            "/healthz" => text(200, "ok\n"),
            "/readyz" => ready(),
            "/" => Page::new(200, HTML, dashboard::front(&self.metrics, &self.surroundings())),
            "/api/overview" => {
                Page::new(200, "application/json", dashboard::overview(&self.metrics, &self.surroundings()))
            }
            "/admin.css" => Page::new(200, "text/css; charset=utf-8", dashboard::STYLE),
            "/admin.js" => Page::new(200, "text/javascript; charset=utf-8", dashboard::SCRIPT),
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
    fn a_node_without_its_cluster_is_ready_and_says_so() {
        let (admin, _, phase) = admin();
        let cluster = Arc::<ClusterMetrics>::default();
        let admin = admin.with_cluster(Some(Arc::clone(&cluster)));
        assert_eq!(get(&admin, "/readyz"), (503, "starting\n".to_owned()));
        phase.advance(Phase::Running);
        let degraded = (200, "ready\ndegraded: no connection to NATS (cluster.nats)\n".to_owned());
        assert_eq!(get(&admin, "/readyz"), degraded);
        cluster.connected.set(1);
        assert_eq!(get(&admin, "/readyz"), (200, "ready\n".to_owned()));
        cluster.streams_working.set(0);
        let degraded = (200, "ready\ndegraded: JetStream does not work; see the log\n".to_owned());
        assert_eq!(get(&admin, "/readyz"), degraded);
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
        assert!(
            !html.contains("src=h") && !html.contains("href=h") && !html.contains("<style"),
            "nothing from elsewhere"
        );
        assert!(!html.contains("style=") && !html.contains("onclick"), "nothing inline");
        let style = admin.get(&PageRequest::get("/admin.css")).unwrap();
        assert!(style.fields.starts_with(b"Content-Type: text/css; charset=utf-8\r\n"));
        assert!(admin.get(&PageRequest::get("/nothing")).is_none());
    }
}
