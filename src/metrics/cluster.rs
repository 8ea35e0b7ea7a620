//! What is counted of a cluster.

use super::text::{Kind, Text};
use super::{Counter, Histogram, Scale};
use crate::rule::labelled;

labelled! {
    /// Why messages between nodes went nowhere.
    ClusterDropped {
        /// There was no connection.
        Away = "away",
        /// They were none of this cluster's.
        Foreign = "foreign",
        /// NATS' client took no more.
        Refused = "refused",
    }
}

/// Written by the cluster's thread alone.
#[derive(Debug)]
pub struct ClusterMetrics {
    /// Whether there is a connection to NATS.
    pub connected: Counter,
    /// Connections so far.
    pub connections: Counter,
    /// Other nodes that are there.
    pub nodes: Counter,
    /// Whether streams of durable topics could be read and written the last time: 1 or 0.
    pub streams_working: Counter,
    /// Topics that are heard.
    pub followed: Counter,
    /// Messages to other nodes, and bytes of their payloads.
    said: [Counter; 2],
    /// The same of those from NATS.
    heard: [Counter; 2],
    dropped: [Counter; ClusterDropped::ALL.len()],
    /// Messages of durable topics that were missed, and read from their streams.
    pub gaps: Counter,
    /// Topics of which something was missed for good.
    pub lost: Counter,
    /// From a publication's going to its stream to its place.
    pub append_seconds: Histogram,
}

impl Default for ClusterMetrics {
    fn default() -> Self {
        let [connected, connections, nodes, streams_working] = std::array::from_fn(|_| Counter::default());
        let [followed, gaps, lost] = std::array::from_fn(|_| Counter::default());
        streams_working.set(1);
        Self {
            connected,
            connections,
            nodes,
            streams_working,
            followed,
            said: Default::default(),
            heard: Default::default(),
            dropped: Default::default(),
            gaps,
            lost,
            append_seconds: Histogram::new(&Scale::LATENCY),
        }
    }
}

impl ClusterMetrics {
    /// Counts a message to others.
    pub fn said(&self, bytes: usize) {
        self.said[0].add(1);
        self.said[1].add(bytes as u64);
    }

    /// Counts a message of others.
    pub fn heard(&self, bytes: usize) {
        self.heard[0].add(1);
        self.heard[1].add(bytes as u64);
    }

    /// Counts a message that goes nowhere.
    pub fn drop_one(&self, why: ClusterDropped) {
        self.dropped[why as usize].add(1);
    }

    /// Writes all of it.
    pub fn write(&self, text: &mut Text) {
        for (name, help, place) in [
            ("cluster_messages_total", "Messages of topics between this node and NATS.", 0),
            ("cluster_bytes_total", "Bytes of the payloads of messages between this node and NATS.", 1),
        ] {
            text.family(name, Kind::Counter, help);
            text.sample(name, &[("direction", "out")], self.said[place].get());
            text.sample(name, &[("direction", "in")], self.heard[place].get());
        }
        let name = "cluster_dropped_total";
        text.family(name, Kind::Counter, "Messages between nodes that went nowhere, by the reason.");
        for (why, dropped) in ClusterDropped::ALL.iter().zip(&self.dropped) {
            text.sample(name, &[("why", why.label())], dropped.get());
        }
        for (name, kind, help, counter) in [
            ("cluster_connected", Kind::Gauge, "Whether there is a connection to NATS.", &self.connected),
            ("cluster_connections_total", Kind::Counter, "Connections to NATS so far.", &self.connections),
            ("cluster_nodes", Kind::Gauge, "Other nodes of the cluster that are there.", &self.nodes),
            (
                "cluster_streams_working",
                Kind::Gauge,
                "Whether streams of durable topics could be read and written the last time.",
                &self.streams_working,
            ),
            ("cluster_followed_topics", Kind::Gauge, "Topics that are heard from other nodes.", &self.followed),
            (
                "cluster_gaps_total",
                Kind::Counter,
                "Times that messages of a durable topic were missed and read from its stream.",
                &self.gaps,
            ),
            (
                "cluster_lost_total",
                Kind::Counter,
                "Times that something of a topic was missed and could not be had any more.",
                &self.lost,
            ),
        ] {
            text.one(name, kind, help, counter.get());
        }
        let name = "cluster_append_seconds";
        text.family(name, Kind::Histogram, "From a publication's going to its stream to its place.");
        text.histogram(name, &[], &self.append_seconds.spread());
    }
}
