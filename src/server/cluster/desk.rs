//! Where what shards say is taken, and what all tasks share.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use hashbrown::HashMap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{self, AbortHandle};
use tokio::time;

use super::Settings;
use super::link::{self, Line, Link, Settling};
use super::nodes::Nodes;
use super::writer::Append;
use crate::cluster::envelope::HEADERS_MAX;
use crate::cluster::port::{Follow, Inbound, NodeId, Outbound, Sharing, ThreadEnd};
use crate::io::Wake;
use crate::mailbox::{Doorbell, Outlet, Receiver};
use crate::message::Topic;
use crate::metrics::{ClusterDropped, ClusterMetrics};
use crate::server::control::Ending;

/// What is taken of one shard before it is the next one's turn.
const ROUND: usize = 256;
/// What may wait for a shard's queue before whoever posts waits for room.
const STAGED_MAX: usize = 64;
/// Between two looks for room.
const LOOK: Duration = Duration::from_millis(1);
/// Between two lines of the log about one kind of trouble.
const SAID: Duration = Duration::from_secs(10);
/// For an answer of JetStream.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Publications that may wait for their places.
const IN_FLIGHT_MAX: usize = 1 << 20;
/// For what is said last.
const FAREWELL: Duration = Duration::from_secs(2);

/// One shard, as tasks see it.
pub(super) struct Seat {
    inbound: RefCell<Outlet<Inbound>>,
}

impl Seat {
    /// Tells a shard something, and waits while it has no room.
    pub(super) async fn post(&self, what: Inbound) {
        {
            let mut inbound = self.inbound.borrow_mut();
            inbound.push(what);
            inbound.flush();
        }
        while !self.has_room() {
            time::sleep(LOOK).await;
            self.inbound.borrow_mut().flush();
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.inbound.borrow().staged() < STAGED_MAX
    }
}

/// What all tasks share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) node: NodeId,
    pub(super) client: Client,
    pub(super) jetstream: Context,
    pub(super) link: watch::Receiver<Link>,
    pub(super) metrics: Arc<ClusterMetrics>,
    pub(super) settling: Settling,
    /// All shards.
    pub(super) seats: Vec<Rc<Seat>>,
    /// The other nodes.
    pub(super) nodes: Nodes,
    /// How often streams have got another epoch.
    pub(super) renewed: Cell<u64>,
    /// Topics of which it is not known whether NATS has lost something, by how many look.
    doubts: RefCell<HashMap<Topic, usize>>,
    said: Cell<Option<Instant>>,
}

impl Shared {
    pub(super) fn is_up(&self) -> bool {
        self.link.borrow().is_up && link::is_up(&self.client)
    }

    /// Waits for NATS' client to take something, but not until a connection that is lost is back.
    pub(super) async fn unless_away<T, E>(
        &self,
        taken: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ClusterDropped> {
        let mut link = self.link.clone();
        let is_away = link.wait_for(|link| !link.is_up);
        tokio::select! {
            biased;
            taken = taken => taken.map_err(|_| ClusterDropped::Refused),
            _ = is_away => Err(ClusterDropped::Away),
        }
    }

    /// Whether somebody looks whether NATS has lost something of a topic.
    pub(super) fn is_doubted(&self, topic: &Topic) -> bool {
        self.doubts.borrow().contains_key(topic)
    }

    /// Whether the log may have another line about what does not work.
    pub(super) fn may_complain(&self) -> bool {
        let may = self.said.get().is_none_or(|said| said.elapsed() > SAID);
        if may {
            self.said.set(Some(Instant::now()));
        }
        may
    }
}

/// It is being looked whether NATS has lost something of a topic, as long as there is this.
pub(super) struct Doubt {
    shared: Rc<Shared>,
    topic: Topic,
}

impl Doubt {
    pub(super) fn new(shared: &Rc<Shared>, topic: &Topic) -> Self {
        *shared.doubts.borrow_mut().entry(topic.clone()).or_default() += 1;
        Self { shared: Rc::clone(shared), topic: topic.clone() }
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        let mut doubts = self.shared.doubts.borrow_mut();
        if let Some(count) = doubts.get_mut(&self.topic) {
            *count -= 1;
            if *count == 0 {
                doubts.remove(&self.topic);
            }
        }
    }
}

struct Bell(Arc<Notify>);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// The desk.
pub(super) struct Desk {
    shared: Rc<Shared>,
    seats: Vec<(Rc<Seat>, Receiver<Outbound>)>,
    doorbell: Arc<Doorbell>,
    bell: Arc<Notify>,
    follows: HashMap<(usize, Follow), AbortHandle>,
    writers: HashMap<Topic, mpsc::UnboundedSender<Append>>,
}

impl Desk {
    pub(super) fn new(
        settings: Settings,
        node: NodeId,
        line: Line,
        seats: Vec<ThreadEnd>,
        doorbell: Arc<Doorbell>,
        metrics: Arc<ClusterMetrics>,
    ) -> Self {
        let bell = Arc::new(Notify::new());
        doorbell.connect(Arc::new(Bell(Arc::clone(&bell))));
        let (client, (known, link)) = (line.client.clone(), watch::channel(Link::default()));
        task::spawn_local(line.watch(known));
        // What is not answered in that time is refused; how much waits is bounded by shards.
        let jetstream = ContextBuilder::new().timeout(PATIENCE).ack_timeout(PATIENCE).max_ack_inflight(IN_FLIGHT_MAX);
        let jetstream = jetstream.build(client.clone());
        let seat = |end: ThreadEnd| (Rc::new(Seat { inbound: end.inbound.into() }), end.outbound);
        let seats: Vec<_> = seats.into_iter().map(seat).collect();
        let all = seats.iter().map(|(seat, _)| Rc::clone(seat)).collect();
        let shared = Rc::new(Shared {
            settings,
            node,
            client,
            jetstream,
            link,
            metrics,
            settling: Settling::default(),
            seats: all,
            nodes: Nodes::default(),
            renewed: Cell::new(0),
            doubts: RefCell::default(),
            said: Cell::new(None),
        });
        Self { shared, seats, doorbell, bell, follows: HashMap::new(), writers: HashMap::new() }
    }

    /// Takes what comes until it is told to end, and then what has come before that.
    pub(super) async fn run(mut self, ending: Ending) {
        let shared = Rc::clone(&self.shared);
        let tasks = [
            task::spawn_local(tell_link(Rc::clone(&self.shared))),
            task::spawn_local(Rc::clone(&self.shared).watch_nodes()),
            task::spawn_local(async move { shared.settling.work(&shared.client).await }),
        ];
        loop {
            let is_last = ending.is_told();
            if self.gather().await {
                task::yield_now().await;
            } else if is_last {
                break;
            } else {
                self.sleep(&ending).await;
            }
        }
        tasks.iter().for_each(|task| task.abort());
        self.follows.drain().for_each(|(_, task)| task.abort());
        let farewell = async {
            self.shared.leave().await;
            self.shared.client.flush().await
        };
        let _ = time::timeout(FAREWELL, farewell).await;
    }

    /// Takes some of what shards have. Says whether there may be more.
    async fn gather(&mut self) -> bool {
        let mut is_more = false;
        for seat in 0..self.seats.len() {
            for taken in 1..=ROUND {
                let Some(what) = self.seats[seat].1.try_recv() else { break };
                self.take(seat, what).await;
                is_more |= taken == ROUND;
            }
        }
        self.shared.metrics.followed.set(self.follows.len() as u64);
        is_more
    }

    async fn take(&mut self, place: usize, what: Outbound) {
        let (shared, seat) = (Rc::clone(&self.shared), Rc::clone(&self.seats[place].0));
        match what {
            Outbound::Follow { follow, topic, sharing, whispers } => {
                let task = match sharing {
                    Sharing::Plain => task::spawn_local(shared.follow_plain(seat, follow, topic, whispers)),
                    Sharing::Durable(keep) => {
                        task::spawn_local(shared.follow_ordered(seat, (follow, whispers), topic, keep))
                    }
                };
                self.follows.insert((place, follow), task.abort_handle());
            }
            Outbound::Unfollow(follow) => {
                self.follows.remove(&(place, follow)).into_iter().for_each(|task| task.abort());
            }
            Outbound::Say(message, said) => shared.say(&message.topic, Some(&message), said).await,
            Outbound::SaidSoFar(topic, said) => shared.say(&topic, None, said).await,
            Outbound::Append { ticket, message, key, keep } => {
                self.append(Append { since: Instant::now(), seat, ticket, message, key, keep });
            }
            Outbound::Whisper(topic, bytes) => shared.whisper(&topic, bytes).await,
        }
    }

    /// Gives a publication to its topic's writer.
    fn append(&mut self, append: Append) {
        let topic = append.message.topic.clone();
        let back = match self.writers.get(&topic) {
            Some(writer) => writer.send(append).map_err(|back| back.0),
            None => Err(append),
        };
        if let Err(append) = back {
            self.writers.retain(|_, writer| !writer.is_closed());
            let (writer, appends) = mpsc::unbounded_channel();
            task::spawn_local(Rc::clone(&self.shared).write(topic.clone(), appends));
            let _ = writer.send(append);
            self.writers.insert(topic, writer);
        }
    }

    /// Sleeps until something comes.
    async fn sleep(&self, ending: &Ending) {
        self.doorbell.prepare_to_sleep();
        if self.seats.iter().all(|(_, outbound)| outbound.is_empty()) {
            let woken = pin!(self.bell.notified());
            let told = pin!(ending.told());
            tokio::select! {
                () = woken => {}
                () = told => {}
            }
        }
        self.doorbell.awake();
    }
}

/// Tells all shards when there is a connection, and when there is none.
async fn tell_link(shared: Rc<Shared>) {
    let (mut link, mut told) = (shared.link.clone(), None);
    loop {
        let now = *link.borrow_and_update();
        if told != Some((now.is_up, now.number)) {
            told = Some((now.is_up, now.number));
            shared.metrics.connected.set(u64::from(now.is_up));
            shared.metrics.connections.set(now.number);
            for seat in &shared.seats {
                let payload_max = shared.client.max_payload().saturating_sub(HEADERS_MAX);
                let news = if now.is_up { Inbound::Connected { payload_max } } else { Inbound::Away };
                seat.post(news).await;
            }
        }
        if link.changed().await.is_err() {
            return;
        }
    }
}
