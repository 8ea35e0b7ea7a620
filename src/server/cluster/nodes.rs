//! Which other nodes there are: each says three times in a lease that it lives, and at its end that it leaves.
//!
//! ```text
//!   unknown --lives, or any whisper--> known --nothing for a lease--> unknown
//!                                      known --leaves--> left, for good: a process that comes back is another node
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use async_nats::Message as NatsMessage;
use bytes::Bytes;
use futures_util::StreamExt as _;
use hashbrown::HashMap;
use tokio::time::{self, Instant};

use super::desk::Shared;
use super::plain::{envelope, headers};
use crate::cluster::envelope::Envelope;
use crate::cluster::port::{Inbound, NodeId};
use crate::metrics::ClusterDropped;

/// What a node says.
const LIVES: &[u8] = b"lives";
const LEAVES: &[u8] = b"leaves";

/// Nodes that are known.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// Until when they are there without another sign of life.
    known: RefCell<HashMap<NodeId, Instant>>,
    /// The last ones that have left.
    left: RefCell<VecDeque<NodeId>>,
}

impl Nodes {
    const KNOWN_MAX: usize = 4096;
    const LEFT_MAX: usize = 1024;

    /// Notes a sign of life. Says whether it is the first one; `None`: of a node that is none, since it has left.
    fn note(&self, node: NodeId, until: Instant) -> Option<bool> {
        let mut known = self.known.borrow_mut();
        if let Some(old) = known.get_mut(&node) {
            *old = until;
            return Some(false);
        }
        if known.len() >= Self::KNOWN_MAX || self.left.borrow().contains(&node) {
            return None;
        }
        known.insert(node, until);
        Some(true)
    }

    /// Says whether it was there.
    fn note_left(&self, node: NodeId) -> bool {
        let mut left = self.left.borrow_mut();
        if !left.contains(&node) {
            if left.len() >= Self::LEFT_MAX {
                left.pop_front();
            }
            left.push_back(node);
        }
        self.known.borrow_mut().remove(&node).is_some()
    }

    /// Takes those who were not heard of in time.
    fn take_late(&self, now: Instant) -> Vec<NodeId> {
        self.known.borrow_mut().extract_if(|_, until| *until <= now).map(|(node, _)| node).collect()
    }

    /// This process was not awake to hear the others: they have a while more.
    fn spare(&self, until: Instant) {
        self.known.borrow_mut().values_mut().for_each(|old| *old = until.max(*old));
    }

    fn next(&self) -> Option<Instant> {
        self.known.borrow().values().min().copied()
    }

    fn len(&self) -> usize {
        self.known.borrow().len()
    }
}

impl Shared {
    /// Hears the others, and says that this node lives, until it is dropped.
    pub(super) async fn watch_nodes(self: Rc<Self>) {
        let lease = self.settings.lease;
        let Ok(mut heard) = self.client.subscribe(self.settings.names.nodes()).await else {
            return self.metrics.drop_one(ClusterDropped::Refused);
        };
        let mut link = self.link.clone();
        let (mut beat, mut renewal) = (Instant::now(), Instant::now() + lease);
        loop {
            let due = beat.min(renewal).min(self.nodes.next().unwrap_or(renewal));
            tokio::select! {
                biased;
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if link.borrow_and_update().is_up {
                        beat = Instant::now();
                    }
                }
                said = heard.next() => match said {
                    // It may not know this one.
                    Some(said) => if self.hear_node(&said).await { beat = Instant::now() },
                    None => return,
                },
                () = time::sleep_until(due) => {
                    let now = Instant::now();
                    if now.duration_since(due) > lease / 3 {
                        self.nodes.spare(now + lease / 3);
                    }
                    if beat <= now {
                        self.say_of_node(LIVES).await;
                        beat = now + lease / 3;
                    }
                    self.drop_late(now).await;
                    if renewal <= now {
                        renewal = now + lease;
                        self.tell_all(|| Inbound::Renew).await;
                    }
                }
            }
        }
    }

    /// Takes what a node says of itself. Says whether it is new.
    async fn hear_node(&self, said: &NatsMessage) -> bool {
        let node = envelope(said.headers.as_ref()).map(|envelope| envelope.node);
        let Some(node) = node.filter(|&node| node != self.node) else {
            self.metrics.drop_one(ClusterDropped::Foreign);
            return false;
        };
        if said.payload[..] != *LEAVES {
            return self.meet(node).await == Some(true);
        }
        if self.nodes.note_left(node) {
            tracing::info!(node = format!("{:016x}", node.0), "another node has left the cluster");
            self.tell_gone(node).await;
        }
        false
    }

    /// Notes that a node lives, and tells shards of one that is new. Says whether it is; `None`: it has left.
    pub(super) async fn meet(&self, node: NodeId) -> Option<bool> {
        let is_new = self.nodes.note(node, Instant::now() + self.settings.lease)?;
        if is_new {
            tracing::info!(node = format!("{:016x}", node.0), "another node is in the cluster");
            self.metrics.nodes.set(self.nodes.len() as u64);
            self.tell_all(|| Inbound::Came(node)).await;
        }
        Some(is_new)
    }

    async fn drop_late(&self, now: Instant) {
        for node in self.nodes.take_late(now) {
            tracing::warn!(node = format!("{:016x}", node.0), "another node is not heard of any more");
            self.tell_gone(node).await;
        }
    }

    async fn tell_gone(&self, node: NodeId) {
        self.metrics.nodes.set(self.nodes.len() as u64);
        self.tell_all(|| Inbound::Gone(node)).await;
    }

    async fn tell_all(&self, what: impl Fn() -> Inbound) {
        for seat in &self.seats {
            seat.post(what()).await;
        }
    }

    /// Tells the others that this node is no more.
    pub(super) async fn leave(&self) {
        self.say_of_node(LEAVES).await;
    }

    async fn say_of_node(&self, what: &'static [u8]) {
        if self.is_up() {
            let (subject, headers) = (self.settings.names.nodes(), headers(&Envelope::bare(self.node, None)));
            let _ =
                self.unless_away(self.client.publish_with_headers(subject, headers, Bytes::from_static(what))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_node_is_there_for_a_lease_after_its_last_word() {
        let (nodes, now, lease) = (Nodes::default(), Instant::now(), Duration::from_secs(10));
        assert_eq!(nodes.note(NodeId(2), now + lease), Some(true));
        assert_eq!(nodes.note(NodeId(2), now + 2 * lease), Some(false));
        assert_eq!(nodes.note(NodeId(3), now + 3 * lease), Some(true));
        assert_eq!((nodes.take_late(now + lease), nodes.next()), (vec![], Some(now + 2 * lease)));
        assert_eq!(nodes.take_late(now + 2 * lease), [NodeId(2)]);
        assert_eq!(nodes.note(NodeId(2), now + 3 * lease), Some(true), "it was cut off, and comes back");
        nodes.spare(now + 4 * lease);
        assert_eq!((nodes.take_late(now + 3 * lease), nodes.len()), (vec![], 2));
    }

    #[test]
    fn who_has_left_does_not_come_back() {
        let (nodes, now) = (Nodes::default(), Instant::now());
        assert_eq!(nodes.note(NodeId(2), now), Some(true));
        assert!(nodes.note_left(NodeId(2)) && !nodes.note_left(NodeId(2)));
        assert_eq!((nodes.note(NodeId(2), now), nodes.len()), (None, 0), "a late whisper makes no ghost");
        for node in 10..5000 {
            nodes.note_left(NodeId(node));
            nodes.note(NodeId(node + 100_000), now);
        }
        assert_eq!((nodes.left.borrow().len(), nodes.len()), (Nodes::LEFT_MAX, Nodes::KNOWN_MAX));
    }
}
