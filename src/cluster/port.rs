//! What a shard and the cluster's thread say to each other: two bounded queues for each shard.
//!
//! A shard *follows* each shared topic that it owns and that somebody subscribes to there or has asked about, and a plain one of
//! which it keeps what is published, until it is forgotten. What it hears of a topic belongs to a *follow*, a number that the
//! shard never gives twice: what comes for one that has ended is nothing.
//!
//! ```text
//!   shard                                    thread
//!   Follow(f) ------------------------------> subscribes; reads the stream's past, where there is a stream
//!       <------------------- Past(f) ...      in order, in parts; the last one says that it is the last
//!       <------------------- Heard(f) ...     a plain topic: what other nodes say
//!       <------------------- Placed(f) ...    a durable topic: the stream goes on, without a gap
//!       <------------------- Lost(f)          something was missed that cannot be had any more: what was heard has ended
//!   Say ------------------------------------> a plain topic: to all others that hold it
//!   Append(ticket) -------------------------> a durable topic: into the stream
//!       <------------------- Appended(ticket) its place, or why it has none
//!   Unfollow(f) ----------------------------> ends
//! ```
//!
//! While there is no connection to NATS the thread takes what comes and says so ([`Inbound::Away`]): a shard refuses what is
//! durable, and goes on with what is plain. With the next connection ([`Inbound::Connected`]) everything that is followed goes on
//! by itself: durable topics with `Placed` where the stream still has what was missed, and otherwise, and for plain ones, with
//! `Lost`.

use std::sync::Arc;

use crate::config::Keep;
use crate::mailbox::{self, Doorbell, Outlet, Receiver};
use crate::message::{Cursor, Epoch, Message, Topic};

/// What one shard may have on its way to the thread, and the thread to it.
pub const QUEUED_MAX: usize = 4096;

/// A node of the cluster: random for each process that runs, so that nobody takes one that has come back for the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// A shard's name for its hearing a topic for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Follow(pub u64);

/// A shard's name for a publication that wants to know its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Which one of its origin's messages to a plain topic a message is. Who hears all of one `life` one after the other, from 1 on
/// or from where it began to listen, has missed nothing of that origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// When the origin's topic was made: a greater one begins at 1 again.
    pub life: Epoch,
    /// 1, 2, 3, ...
    pub number: u64,
}

/// What there is to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// A plain topic.
    Plain,
    /// A durable topic, of which so much is to be kept: by its stream, and of it by the shard.
    Durable(Keep),
}

/// From a shard to the cluster's thread.
#[derive(Debug)]
pub enum Outbound {
    /// A topic is held here. The same topic is followed at most once at a time.
    Follow {
        /// Its name.
        follow: Follow,
        /// The topic.
        topic: Topic,
        /// What it is.
        sharing: Sharing,
        /// Whether what is whispered about it is wanted too.
        whispers: bool,
    },
    /// Nothing of this is wanted any more.
    Unfollow(Follow),
    /// A message of a plain topic that was published here, for the others; with its place here.
    Say(Message, Said),
    /// So many messages of a plain topic have been said: whoever has heard fewer has missed some. Where messages could not be
    /// said at all, because there was no connection or no room.
    SaidSoFar(Topic, Said),
    /// A message of a durable topic that wants a place.
    Append {
        /// Comes back with what became of it.
        ticket: Ticket,
        /// The message, without a place.
        message: Message,
        /// What is published with the same key again is the same message.
        key: Option<Arc<str>>,
        /// What the stream keeps, should it not exist yet.
        keep: Keep,
    },
    /// What shards of a topic's owners tell each other beside messages; lost where nobody listens. Bounded by
    /// [`WHISPER_MAX`].
    Whisper(Topic, Box<[u8]>),
}

/// Bytes of a [`Outbound::Whisper`] at most.
pub const WHISPER_MAX: usize = 64 * 1024;

/// From the cluster's thread to a shard.
#[derive(Debug)]
pub enum Inbound {
    /// There is a connection. All that is followed goes on.
    Connected {
        /// Bytes that a payload may have.
        payload_max: usize,
    },
    /// There is none. Durable publishing is off until [`Inbound::Connected`].
    Away,
    /// A plain topic is heard from now on.
    Following(Follow),
    /// The past of a durable topic's stream, in order: of all parts together as much as is to be kept, the newest. Comes once for
    /// each follow. Two messages that are no neighbours have a hole between them: what is before it is no past.
    /// A stream that does not exist yet, since nobody has published, stands at 0:0; its first message is no loss.
    Past {
        /// Whose.
        follow: Follow,
        /// The next messages.
        messages: Vec<Stored>,
        /// There are no more: the topic stands here, and the stream goes on with [`Inbound::Placed`].
        end: Option<Cursor>,
    },
    /// A message of a plain topic that was published on another node. It has no place here yet.
    Heard {
        /// Whose.
        follow: Follow,
        /// Where it was published.
        node: NodeId,
        /// Which one of those.
        said: Said,
        /// The message; `None` for [`Outbound::SaidSoFar`].
        message: Option<Message>,
    },
    /// The next message of a durable topic: the one behind the last that this follow had.
    Placed(Follow, Stored),
    /// Something of a topic was missed and cannot be had any more. A durable topic goes on behind this place, which may be
    /// another stream's; a plain one begins a new past.
    Lost(Follow, Option<Cursor>),
    /// What became of an [`Outbound::Append`].
    Appended(Ticket, Result<Appended, NotAppended>),
    /// [`Outbound::Whisper`] of another node, about a topic that is followed.
    Whispered(Follow, NodeId, Box<[u8]>),
    /// A node has come: it may not know what was whispered before.
    Came(NodeId),
    /// A node has left, or was not heard of for the lease: what it said of its own members holds no more.
    Gone(NodeId),
    /// A lease has passed: what this node says of its own members is said again.
    Renew,
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub struct Stored {
    /// With its place and time. Where a connection of this process published it, with its publisher.
    pub message: Message,
    /// The key that it was published with.
    pub key: Option<Arc<str>>,
}

/// The place of a message in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place; that of the first one when it is a duplicate.
    pub cursor: Cursor,
    /// The stream had a message with its key.
    pub duplicate: bool,
}

/// Why a message has no place in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAppended {
    /// NATS cannot be reached, or has no JetStream, or did not answer in time: the message may have a place all the same.
    #[error("the cluster's stream cannot be reached")]
    Away,
    /// The stream takes no more (its disk, its account's bounds).
    #[error("the cluster's stream has no room")]
    NoRoom,
    /// The message is larger than NATS takes.
    #[error("larger than the cluster takes")]
    TooLarge,
}

/// A shard's end.
#[derive(Debug)]
pub struct ShardEnd {
    /// Which node this is.
    pub node: NodeId,
    /// What it says. Flushed, and so rung, at most once a turn.
    pub outbound: Outlet<Outbound>,
    /// What it is told. Rings the shard's doorbell.
    pub inbound: Receiver<Inbound>,
}

/// The thread's end of one shard.
#[derive(Debug)]
pub struct ThreadEnd {
    /// What the shard says.
    pub outbound: Receiver<Outbound>,
    /// What it is told. Where there is no room the thread waits, and NATS holds back what is behind.
    pub inbound: Outlet<Inbound>,
}

/// Two ends: the shard's doorbell is rung by what comes in, the thread's by what goes out.
#[must_use]
pub fn pair(node: NodeId, shard: Arc<Doorbell>, thread: Arc<Doorbell>) -> (ShardEnd, ThreadEnd) {
    let (outbound, to_say) = mailbox::channel(QUEUED_MAX, thread);
    let (inbound, heard) = mailbox::channel(QUEUED_MAX, shard);
    (
        ShardEnd { node, outbound: Outlet::new(outbound), inbound: heard },
        ThreadEnd { outbound: to_say, inbound: Outlet::new(inbound) },
    )
}
