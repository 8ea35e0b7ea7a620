//! A node with one shard, which is the test: what it says to the cluster's thread, and what it is told.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use holdline::cluster::names::Names;
use holdline::cluster::port::{Appended, Follow, Inbound, NodeId, NotAppended, Outbound, ShardEnd, Sharing, Ticket};
use holdline::config::{Keep, NatsUrl};
use holdline::mailbox::Doorbell;
use holdline::message::{Cursor, Kind, Message, Topic};
use holdline::metrics::ClusterMetrics;
use holdline::server::cluster::{Clustering, Settings};

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const KEEP: Keep = Keep { messages_max: 1000, bytes_max: 1 << 20, age_max: Duration::from_secs(3600) };

pub fn topic(name: &str) -> Topic {
    Topic::parse(name.as_bytes(), 255).unwrap()
}

pub fn settings(url: &str) -> Settings {
    Settings {
        nats: vec![NatsUrl::parse(url).unwrap()],
        credentials: None,
        ca_file: None,
        name: "test".to_owned(),
        names: Names::new("test"),
        replicas: 1,
        in_memory: true,
        lease: Duration::from_secs(3),
    }
}

/// A node with one shard, which is the test.
pub struct Node {
    pub id: NodeId,
    pub end: ShardEnd,
    pub clustering: Clustering,
    follows: u64,
    /// What came while something else was waited for.
    pub aside: VecDeque<Inbound>,
}

impl Node {
    pub fn start(number: u64, url: &str) -> Self {
        Self::with(number, settings(url))
    }

    pub fn with(number: u64, settings: Settings) -> Self {
        let id = NodeId(number);
        let started = Clustering::start(settings, id, &[Arc::<Doorbell>::default()], Arc::<ClusterMetrics>::default());
        let (clustering, mut ends) = started.unwrap();
        Self { id, end: ends.remove(0), clustering, follows: 0, aside: VecDeque::new() }
    }

    /// One that has its connection.
    pub fn connected(number: u64, url: &str) -> Self {
        let mut node = Self::start(number, url);
        node.until("a connection", |what| matches!(what, Inbound::Connected { .. }).then_some(()));
        node
    }

    pub fn say(&mut self, what: Outbound) {
        self.end.outbound.push(what);
        self.end.outbound.flush();
    }

    /// The next thing that is not about which nodes there are.
    pub fn next(&mut self) -> Inbound {
        loop {
            match self.next_of_all() {
                Inbound::Came(_) | Inbound::Gone(_) | Inbound::Renew => {}
                other => return other,
            }
        }
    }

    /// The next node that has come, or gone.
    pub fn news_of_nodes(&mut self) -> (NodeId, bool) {
        loop {
            match self.next_of_all() {
                Inbound::Came(node) => return (node, true),
                Inbound::Gone(node) => return (node, false),
                _ => {}
            }
        }
    }

    pub fn next_of_all(&mut self) -> Inbound {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.end.inbound.try_recv() {
                Some(what) => return what,
                None => assert!(Instant::now() < deadline, "nothing comes"),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for something, and lays aside what comes before it.
    pub fn until<T>(&mut self, what: &str, is: impl Fn(&Inbound) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{what} does not come");
            let next = self.next();
            if let Some(found) = is(&next) {
                return found;
            }
            self.aside.push_back(next);
        }
    }

    /// The first one of its kind, whether it has come already or not.
    pub fn first<T>(&mut self, what: &str, is: impl Fn(&Inbound) -> Option<T>) -> T {
        match self.aside.iter().enumerate().find_map(|(place, inbound)| Some((place, is(inbound)?))) {
            Some((place, found)) => {
                self.aside.remove(place);
                found
            }
            None => self.until(what, is),
        }
    }

    pub fn follow(&mut self, name: &str, sharing: Sharing) -> Follow {
        self.follows += 1;
        let follow = Follow(self.follows);
        self.say(Outbound::Follow { follow, topic: topic(name), sharing, whispers: true });
        follow
    }

    /// Follows a plain topic, and waits until it is heard.
    pub fn hear(&mut self, name: &str) -> Follow {
        let follow = self.follow(name, Sharing::Plain);
        self.until("a follow", |what| matches!(what, Inbound::Following(one) if *one == follow).then_some(()));
        follow
    }

    /// Follows a durable topic: the texts of its past, and where it stands.
    pub fn join(&mut self, name: &str) -> (Vec<(u64, String)>, Cursor) {
        let follow = self.follow(name, Sharing::Durable(KEEP));
        let mut past = Vec::new();
        loop {
            match self.next() {
                Inbound::Past { follow: of, messages, end } => {
                    assert_eq!(of, follow);
                    past.extend(messages.iter().map(|stored| (stored.message.offset.0, text(&stored.message))));
                    if let Some(cursor) = end {
                        return (past, cursor);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn append(&mut self, ticket: u64, name: &str, said: &str, key: Option<&str>) {
        let message = Message::new(topic(name), Kind::Text, said.as_bytes(), None);
        let key = key.map(Arc::from);
        self.say(Outbound::Append { ticket: Ticket(ticket), message, key, keep: KEEP });
    }

    pub fn appended(&mut self, ticket: u64) -> Result<Appended, NotAppended> {
        self.first("an answer", |what| match what {
            Inbound::Appended(of, result) if *of == Ticket(ticket) => Some(*result),
            _ => None,
        })
    }

    /// The next message of a durable topic.
    pub fn placed(&mut self) -> (u64, String) {
        self.first("a message", |what| match what {
            Inbound::Placed(_, stored) => Some((stored.message.offset.0, text(&stored.message))),
            Inbound::Lost(_, cursor) => panic!("lost, up to {cursor:?}"),
            _ => None,
        })
    }
}

pub fn text(message: &Message) -> String {
    String::from_utf8(message.payload().to_vec()).unwrap()
}
