//! What shards say to each other.
//!
//! There are two kinds of mail, in queues of their own. [`Request`]s go to a topic's owner, and handling one may send
//! [`Delivery`]s. Handling a delivery waits for nobody: all that it can send is a queue group's message back, of which there
//! are never more than were on their way. So a shard whose deliveries find no room stops taking requests, but always takes
//! deliveries, and no circle of full queues can stop all of them.

use std::sync::Arc;

use super::orders::Order;
use super::presence::Seats;
use crate::access::Grant;
use crate::app::NotPublished;
use crate::app::Renewed;
use crate::hub::Group;
use crate::hub::members::Stay;
use crate::hub::presence::{self, MemberId, Notice};
use crate::hub::topics::{Interested, Past, Start};
use crate::id::{ConnId, ShardId};
use crate::mailbox::{self, Doorbell, Outlet, Receiver, Sender};
use crate::message::{Cursor, Kind, Message, Publisher, Topic, Wire};

/// To a topic's owner.
#[derive(Debug)]
pub enum Request {
    /// Give it an offset and hand it out.
    Publish(Publication),
    /// This shard has subscribers, who need these formats.
    Interest(Topic, Interested),
    /// This shard has none any more, of the topic itself or of a queue group.
    Disinterest(Topic, ShardId, Option<Group>),
    /// Somebody wants to know something about a topic.
    Ask(Question),
    /// Who has these seats of a topic on a shard now.
    Attend(Topic, ShardId, Seats),
    /// Nobody on this shard watches who is in a topic any more.
    Unwatch(Topic, ShardId),
    /// A message for a queue group whose members here were gone before they were given it.
    Return(Message, Group),
}

/// A message on its way to its topic's owner.
#[derive(Debug)]
pub struct Publication {
    /// The message.
    pub message: Message,
    /// What few publishers want beside.
    pub terms: Option<Box<Terms>>,
    /// A client said it, who is told when it is refused: its connection ends, if there are no terms.
    pub is_said: bool,
    /// What the client may do, with its user's name, where a receiver of hooks is told who publishes.
    pub grant: Option<Arc<Grant>>,
}

impl From<Message> for Publication {
    fn from(message: Message) -> Self {
        Self { message, terms: None, is_said: false, grant: None }
    }
}

/// What a publisher wants beside its message being published.
#[derive(Debug)]
pub struct Terms {
    /// Who wants to know what became of it.
    pub asker: Asker,
    /// Which of the asker's publications it is.
    pub number: u32,
    /// A message with this key that is in the topic's history is the same message: it is not published twice.
    pub key: Option<Box<str>>,
}

/// The connection that waits for an answer.
pub type Asker = Publisher;

/// What somebody wants to know about a topic.
#[derive(Debug)]
pub struct Question {
    /// Who.
    pub asker: Asker,
    /// About what.
    pub topic: Topic,
    /// What.
    pub about: About,
}

/// What a [`Question`] is about.
#[derive(Debug)]
pub enum About {
    /// What a subscriber gets before the live stream, and where that goes on; and the format that it reads.
    Past(Start, Wire),
    /// The state of the topic.
    Info,
    /// Who is there, now and whenever that changes: the asker's shard is told from now on.
    Watch,
    /// Who is there: those behind this one, and so many at most.
    Presence(Option<MemberId>, usize),
    /// Some of its history.
    Page {
        /// What comes after this.
        since: Option<Cursor>,
        /// So many at most.
        limit: usize,
    },
}

/// From a topic's owner.
#[derive(Debug)]
pub enum Delivery {
    /// For all subscribers of this stay, or for one member of the queue group.
    Message(Message, Stay, Option<Group>),
    /// The owner has no room for this topic, which this shard or a queue group here is interested in.
    NoRoom(Topic, Option<Group>),
    /// What those who watch who is in a topic are told.
    Presence(Arc<[Notice]>),
    /// The owner wants to know a topic's seats, or does not any more.
    Roll(Topic, bool),
    /// What a connection wanted to know.
    Answer(Box<Answer>),
}

/// What a shard sends itself: as a [`Delivery`], but on no way between shards, so that it needs no box.
#[derive(Debug)]
pub(super) enum OwnMail {
    /// For all subscribers of this stay.
    Message(Message, Stay),
    /// What those who watch who is in a topic are told.
    Presence(Arc<[Notice]>),
    /// What a connection wants to know, where that takes a while.
    Question(Question),
    /// What a connection wanted to know.
    Answer(Answer),
    /// What became of a connection's new token, by the client's number for it.
    Renewed(ConnId, u32, Renewed),
}

/// What a connection wanted to know.
#[derive(Debug)]
pub struct Answer {
    /// Who wanted to know it.
    pub connection: ConnId,
    /// About what.
    pub topic: Topic,
    /// What.
    pub what: Answered,
}

/// What became of a question or a publication.
#[derive(Debug)]
pub enum Answered {
    /// What a subscriber gets before the live stream.
    Past(Past),
    /// A publication, by its number among those of the connection.
    Acked(u32, Ack),
    /// An answer that is ready to be sent: JSON, and the place up to which it tells.
    Json(Vec<u8>, Option<Cursor>),
    /// A publication that was refused, by its number.
    NotPublished(u32, NotPublished),
    /// A publication without a number was refused.
    Refused(NotPublished),
    /// Who is in a topic, for one who watches.
    Watched(Arc<[Notice]>),
    /// Who is in a topic; `None` where that is not kept.
    Presence(Option<Box<presence::Page>>),
    /// The owner has no room for the topic.
    NoRoom,
    /// The topic's stream does not say where it stands.
    Unavailable,
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Its place.
    pub cursor: Cursor,
    /// Subscribers that the topic had.
    pub subscribers: u64,
    /// It had been published before, there.
    pub duplicate: bool,
}

/// One shard's place in the mesh.
pub struct Mail {
    pub(super) requests: Receiver<Request>,
    pub(super) deliveries: Receiver<Delivery>,
    /// What operators want done.
    pub(super) orders: Receiver<Box<Order>>,
    /// In order of shard ids; a shard's own place is there but not used.
    pub(super) peers: Vec<Peer>,
    pub(super) doorbell: Arc<Doorbell>,
    /// Some request found no room, as of the last flush or since.
    pub(super) requests_wait: bool,
    /// Some delivery found no room, likewise.
    pub(super) deliveries_wait: bool,
}

/// The way to another shard.
pub(super) struct Peer {
    pub(super) requests: Outlet<Request>,
    pub(super) deliveries: Outlet<Delivery>,
    orders: Sender<Box<Order>>,
}

/// The way to all topics' owners for those who are no shard.
#[derive(Clone, Debug)]
pub struct Postbox {
    /// In order of shard ids.
    requests: Arc<[Sender<Request>]>,
    orders: Arc<[Sender<Box<Order>>]>,
}

impl Postbox {
    /// Gives a message to its topic's owner, and rings. Whether there was room: half of a mailbox is for the shards, who
    /// also send through it who subscribes, and should not have to wait for what comes from outside.
    #[must_use]
    pub fn publish(&self, topic: &Topic, kind: Kind, payload: &[u8]) -> bool {
        let owner = topic.owner(u16::try_from(self.requests.len()).unwrap_or(u16::MAX));
        let Some(sender) = self.requests.get(usize::from(owner.0)) else { return false };
        if sender.room() <= sender.capacity() / 2 {
            return false;
        }
        let message = Message::new(topic.clone(), kind, payload, None);
        let sent = sender.try_send(Request::Publish(message.into())).is_ok();
        sender.ring();
        sent
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.orders.len()).unwrap_or(u16::MAX)
    }

    /// Gives a shard an order, and rings.
    ///
    /// # Errors
    /// The order, when as many wait there as may; try again soon.
    pub fn order(&self, shard: ShardId, order: Box<Order>) -> Result<(), Box<Order>> {
        let Some(sender) = self.orders.get(usize::from(shard.0)) else { return Err(order) };
        let sent = sender.try_send(order);
        sender.ring();
        sent
    }
}

impl Mail {
    /// Orders that wait for a shard at most.
    const ORDERS_MAX: usize = 64;

    /// Bytes of the queues that end here.
    pub(super) fn memory(&self) -> usize {
        self.requests.memory() + self.deliveries.memory() + self.orders.memory()
    }

    /// The way for those outside of the mesh; the same from all of its shards.
    #[must_use]
    pub fn postbox(&self) -> Postbox {
        let requests = self.peers.iter().map(|peer| peer.requests.sender().clone()).collect();
        Postbox { requests, orders: self.peers.iter().map(|peer| peer.orders.clone()).collect() }
    }

    /// Queues of `capacity` between so many shards.
    #[must_use]
    pub fn mesh(shards: u16, capacity: usize) -> Vec<Self> {
        let doorbells: Vec<_> = (0..shards).map(|_| Arc::new(Doorbell::new())).collect();
        let requests: Vec<_> = doorbells.iter().map(|bell| mailbox::channel(capacity, Arc::clone(bell))).collect();
        let deliveries: Vec<_> = doorbells.iter().map(|bell| mailbox::channel(capacity, Arc::clone(bell))).collect();
        let orders = doorbells.iter().map(|bell| mailbox::channel(Self::ORDERS_MAX, Arc::clone(bell)));
        let (order_senders, order_receivers): (Vec<_>, Vec<_>) = orders.unzip();
        let (request_senders, request_receivers): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let (delivery_senders, delivery_receivers): (Vec<_>, Vec<_>) = deliveries.into_iter().unzip();
        let receivers = request_receivers.into_iter().zip(delivery_receivers).zip(order_receivers).zip(doorbells);
        let mails = receivers.map(|(((requests, deliveries), orders), doorbell)| {
            let senders = request_senders.iter().zip(&delivery_senders).zip(&order_senders);
            let peers = senders.map(|((requests, deliveries), orders)| Peer {
                requests: Outlet::new(requests.clone()),
                deliveries: Outlet::new(deliveries.clone()),
                orders: orders.clone(),
            });
            Self {
                requests,
                deliveries,
                orders,
                peers: peers.collect(),
                doorbell,
                requests_wait: false,
                deliveries_wait: false,
            }
        });
        mails.collect()
    }

    /// What wakes this shard.
    #[must_use]
    pub fn doorbell(&self) -> Arc<Doorbell> {
        Arc::clone(&self.doorbell)
    }

    /// Requests that found no room.
    pub(super) fn staged_requests(&self) -> usize {
        self.peers.iter().map(|peer| peer.requests.staged()).sum()
    }

    /// Deliveries that found no room.
    pub(super) fn staged_deliveries(&self) -> usize {
        self.peers.iter().map(|peer| peer.deliveries.staged()).sum()
    }

    /// Sends or stages a request. Not for a shard's own place.
    pub(super) fn request(&mut self, to: ShardId, request: Request) {
        let outlet = &mut self.peers[usize::from(to.0)].requests;
        outlet.push(request);
        self.requests_wait |= outlet.staged() > 0;
    }

    /// Sends or stages a delivery. Not for a shard's own place.
    pub(super) fn deliver(&mut self, to: ShardId, delivery: Delivery) {
        let outlet = &mut self.peers[usize::from(to.0)].deliveries;
        outlet.push(delivery);
        self.deliveries_wait |= outlet.staged() > 0;
    }

    /// Wakes all others that sleep.
    pub(super) fn ring_all(&self) {
        self.peers.iter().for_each(|peer| peer.requests.ring());
    }

    /// Moves what was staged as far as there is room, and rings those who sleep.
    pub(super) fn flush(&mut self) {
        for peer in &mut self.peers {
            peer.requests.flush();
            peer.deliveries.flush();
        }
        self.requests_wait = self.staged_requests() > 0;
        self.deliveries_wait = self.staged_deliveries() > 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn who_is_outside_fills_half_of_the_owners_mailbox() {
        let mut mails = Mail::mesh(3, 16);
        let postbox = mails[1].postbox();
        let topic = Topic::parse(b"news", Topic::BYTES_MAX).unwrap();
        let taken = (0..20_u8).filter(|number| postbox.publish(&topic, Kind::Binary, &[*number])).count();
        assert_eq!(taken, 8);
        let owner = usize::from(topic.owner(3).0);
        for number in 0..8_u8 {
            let Some(Request::Publish(Publication { message, .. })) = mails[owner].requests.try_recv() else {
                panic!("it came")
            };
            assert_eq!((message.topic.as_str(), message.payload()), ("news", &[number][..]));
            assert_eq!(message.publisher, None);
        }
        assert!(mails.iter().all(|mail| mail.requests.is_empty() && mail.deliveries.is_empty()));
        assert!(postbox.publish(&topic, Kind::Text, b"there is room again"));
    }
}
