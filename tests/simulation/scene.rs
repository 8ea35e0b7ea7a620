//! Shards on a simulated network whose every turn is scripted.

use std::sync::Arc;
use std::time::Duration;

use holdline::app::opening::Opening;
use holdline::app::site::DemoSite;
use holdline::app::standard_routes;
use holdline::cluster::port::{self, NodeId, ThreadEnd};
use holdline::config::{App, Limits};
use holdline::id::{ListenerId, ShardId};
use holdline::mailbox::Doorbell;
use holdline::message::Topic;
use holdline::metrics::Metrics;
use holdline::session::Protocol;
use holdline::shard::{Control, Entrance, EntranceKind, Live, Mail, Postbox, Seed, Shard, Turn};
use holdline::sim::{Client, Config, ManualClock, Net, SimBackend};

pub(super) const LINES: ListenerId = ListenerId(0);
pub(super) const WEB: ListenerId = ListenerId(1);

pub(super) struct Scene {
    pub(super) net: Net,
    pub(super) clock: ManualClock,
    pub(super) control: Arc<Control>,
    pub(super) metrics: Metrics,
    pub(super) shards: Vec<Shard<SimBackend>>,
    pub(super) done: Vec<bool>,
    pub(super) doorbells: Vec<Arc<Doorbell>>,
    /// The way for operators.
    pub(super) postbox: Postbox,
}

impl Scene {
    pub(super) fn new(shards: u16, limits: Limits) -> Self {
        let limits = Limits { connections_max: limits.connections_max.min(100), ..limits };
        Self::with(shards, Live::new(limits), Net::new(1, Config::default()))
    }

    /// Makes it a node of a cluster: where each shard's cluster would be.
    pub(super) fn join_cluster(&mut self, id: NodeId) -> Vec<ThreadEnd> {
        let join = |(doorbell, shard): (&Arc<Doorbell>, &mut Shard<SimBackend>)| {
            let (here, end) = port::pair(id, Arc::clone(doorbell), Arc::new(Doorbell::new()));
            shard.join_cluster(here);
            end
        };
        self.doorbells.iter().zip(&mut self.shards).map(join).collect()
    }

    pub(super) fn with(shards: u16, live: Live, net: Net) -> Self {
        let lines = EntranceKind::Tcp { protocol: Protocol::Line, opening: Opening::new(App::Topic, None) };
        let web = EntranceKind::Http { site: Arc::new(DemoSite), routes: true };
        let entrances: Arc<[Entrance]> =
            [lines, web].map(|kind| Entrance { url: String::new(), kind, proxied: false }).into();
        let mails = Mail::mesh(shards, live.limits.mailbox_capacity);
        let (postbox, doorbells) = (mails[0].postbox(), mails.iter().map(Mail::doorbell).collect());
        let (control, metrics) = (Arc::new(Control::new(live)), Metrics::new(shards.into()));
        let shards = (0..).zip(mails).map(|(number, mail)| {
            let mut backend = net.backend();
            backend.open(LINES);
            backend.open(WEB);
            let seed = Seed {
                id: ShardId(number),
                router: standard_routes(),
                entrances: Arc::clone(&entrances),
                mail,
                control: Arc::clone(&control),
                metrics: metrics.clone(),
            };
            Shard::new(backend, seed)
        });
        let shards: Vec<_> = shards.collect();
        let (done, clock) = (vec![false; shards.len()], ManualClock::new());
        Self { done, net, clock, control, metrics, shards, doorbells, postbox }
    }

    pub(super) fn turn(&mut self, shard: usize) {
        if !self.done[shard] {
            self.done[shard] = self.shards[shard].turn(&self.clock).unwrap() == Turn::Done;
        }
    }

    /// The shards' books are right.
    pub(super) fn audit(&self) {
        self.shards.iter().for_each(|shard| assert_eq!(shard.audit().map(|_| ()), Ok(())));
    }

    pub(super) fn rest(&mut self) {
        (0..10).for_each(|_| (0..self.shards.len()).for_each(|shard| self.turn(shard)));
    }

    pub(super) fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 50 {
            self.clock.advance(Duration::from_millis(50));
            self.rest();
        }
    }

    pub(super) fn connect(&mut self, shard: usize, listener: ListenerId, first: &str) -> Client {
        let mut client = self.net.connect_to(shard, listener).unwrap();
        assert_eq!(client.write(first.as_bytes()), first.len());
        client
    }

    /// A member of a topic, on a shard.
    pub(super) fn member(&mut self, shard: usize, topic: &str) -> Client {
        self.connect(shard, LINES, &format!("{topic}\n"))
    }
}

/// A topic that this shard owns, one of several.
pub(super) fn topic_of(shard: u16, shards: u16, nth: usize) -> String {
    let owned = |name: &String| Topic::parse(name.as_bytes(), 255).unwrap().owner(shards) == ShardId(shard);
    (0..).map(|number| format!("t{number}")).filter(owned).nth(nth).unwrap()
}

/// An opening handshake.
pub(super) fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
