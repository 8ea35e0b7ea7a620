//! What operators want of a shard: a look at its connections and topics, some of them ended, some of them watched.
//!
//! An [`Order`] comes through a queue of its own, beside the mail of the shards. Whatever walks a table is worked off in
//! steps of a few microseconds, in a part of each turn; what it came to is a [`Report`] to whoever gave the order. So a
//! look at a million connections delays no message by more than that part.
//!
//! Orders that run at the same time take turns, step by step.

mod bequest;
mod filter;
mod parting;
mod scan;
mod sight;
pub(super) mod trace;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use self::work::Work;
use crate::app::NotPublished;
use crate::hub::Group;
use crate::hub::topics::Legacy;
use crate::id::{ConnId, ShardId};
use crate::message::{Cursor, Epoch, Message, Topic};

pub use self::filter::Filter;
pub use self::trace::{Target, Trace};

/// One order to one shard.
#[derive(Debug)]
pub struct Order {
    /// What its report is known by.
    pub number: u64,
    /// What is wanted.
    pub what: What,
    /// Where the report goes.
    pub reports: Reports,
}

/// Where reports go. There is one for each order.
pub type Reports = crossbeam::channel::Sender<Report>;

/// What operators want of one shard.
#[derive(Debug)]
pub enum What {
    /// To see connections.
    Connections(Search<Filter>),
    /// To see one connection.
    Connection(ConnId),
    /// To have connections closed.
    Kick(Filter, Parting, Progress),
    /// To see topics owned here whose names begin so.
    Topics(Search<Box<str>>),
    /// To see one topic owned here.
    Topic(Topic),
    /// To have the past of a topic that is owned here end.
    EndTopic(Topic),
    /// To have its subscribers here closed, those of its groups included. It follows on [`What::EndTopic`].
    CloseTopic(Topic, Vec<Group>, Parting, Progress),
    /// To have a message published to a topic owned here.
    Publish(Message),
    /// To be told what happens.
    Trace(Box<Trace>),
    /// Not to be told any more.
    Untrace(u64),
    /// To have a request of a connection here answered.
    Respond(Box<Response>),
    /// To have what the topics owned here leave, from this place on. Nothing is published meanwhile, as
    /// [`Control::hold`](crate::shard::Control::hold) says.
    Legacies(u32),
}

/// A look at some of many.
#[derive(Clone, Debug)]
pub struct Search<F> {
    /// Which ones.
    pub filter: F,
    /// The place to begin at.
    pub from: u32,
    /// So many at most.
    pub limit: usize,
    /// Those with the greatest weight of all instead of the first ones: bytes queued for a connection, subscribers of a
    /// topic. Those of no weight are left out.
    pub top: bool,
}

/// How many connections an order has closed so far, on all shards.
pub type Progress = Arc<AtomicU64>;

/// What connections are told that are closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// A WebSocket close code.
    pub code: u16,
    /// At most [`Parting::REASON_BYTES_MAX`] bytes.
    pub reason: Arc<str>,
}

impl Parting {
    /// What a close frame has room for beside the code, RFC 6455 section 5.5.
    pub const REASON_BYTES_MAX: usize = 123;
}

/// An answer to a request that waits: JSON.
#[derive(Debug)]
pub struct Response {
    /// Whose.
    pub connection: ConnId,
    /// HTTP status.
    pub status: u16,
    /// What it is.
    pub body: Vec<u8>,
}

/// What an order came to.
#[derive(Debug)]
pub struct Report {
    /// The order's number.
    pub number: u64,
    /// The shard.
    pub shard: ShardId,
    /// What.
    pub what: Outcome,
}

/// What an order came to.
#[derive(Debug)]
pub enum Outcome {
    /// Some of many, and the place where the next look begins, if not all has been looked at.
    Found(Vec<Item>, Option<u32>),
    /// The one that was asked for, in JSON.
    One(Option<Vec<u8>>),
    /// So many connections were closed.
    Closed(u64),
    /// The topic's past has ended and this epoch begun; it has these groups. `None` when there is no such topic.
    Ended(Option<(Epoch, Vec<Group>)>),
    /// The message's place, and how many subscribers there were.
    Published(Result<(Cursor, u64), NotPublished>),
    /// What some topics leave.
    Legacies {
        /// They, in no order.
        legacies: Vec<Legacy>,
        /// The place where the next look begins, if these are not the last ones.
        next: Option<u32>,
        /// The newest epoch of any topic there was.
        epoch: Epoch,
    },
    /// It was done.
    Done,
}

/// One of many that were asked for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// What it is sorted by.
    pub weight: u64,
    /// It, in JSON.
    pub json: Vec<u8>,
}

/// The orders of a shard.
#[derive(Debug, Default)]
pub(super) struct Orders {
    running: VecDeque<Work>,
    /// Those that wait for the disk.
    parked: VecDeque<Work>,
    /// What connections are told that are closed now.
    pub(super) parting: Option<Parting>,
}

impl Orders {
    /// Orders that run at the same time. More wait in the queue.
    const RUNNING_MAX: usize = 16;

    /// Whether one more may run.
    pub(super) fn has_room(&self) -> bool {
        self.running.len() + self.parked.len() < Self::RUNNING_MAX
    }

    /// What waits for the disk is looked at again.
    pub(super) fn go_on(&mut self) {
        self.running.append(&mut self.parked);
    }

    /// Whether none runs.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}
