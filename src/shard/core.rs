//! A shard without its I/O.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::batches::Batches;
use super::carrier::Aftermath;
use super::cluster::Cluster;
use super::connection::Flags;
use super::control::{Control, Phase, Publishing};
use super::durable::Durable;
use super::entrance::Entrance;
use super::gate::Gate;
use super::groups::Share;
use super::hooks::Teller;
use super::latency::Latencies;
use super::live::{Hurry, Live};
use super::log::{Ended, PeerLog};
use super::mail::{Mail, OwnMail, Publication};
use super::orders::Orders;
use super::orders::trace::Tracer;
use super::paces::{Paces, Spent};
use super::peers::Peers;
use super::permits::Rulings;
use super::presence::Attendance;
use super::silencing::Silenced;
use super::spans::Spans;
use super::standing::Review;
use super::table::Table;
use super::tops::Tops;
use super::unloading::Unload;
use super::visits::VisitLog;
use crate::app::files::{Desk, Done};
use crate::app::{Effect, Router};
use crate::buf::Outboxes;
use crate::close::CloseReason;
use crate::codec::http1::date::Date;
use crate::codec::websocket::deflate::Deflater;
use crate::config::Limits;
use crate::hub::members::Stay;
use crate::hub::{Group, Members, TopicKey, Topics};
use crate::id::{ConnId, ShardId};
use crate::message::{Image, Message, Topic};
use crate::metrics::{Metrics, ShardMetrics};
use crate::session::{Partials, Tools};
use crate::time::Instant;
use crate::wheel::{Tick, Wheel};

/// What a shard is made from.
pub struct Seed {
    /// Which shard it is.
    pub id: ShardId,
    /// The routes.
    pub router: Router,
    /// The listeners, in order of their ids.
    pub entrances: Arc<[Entrance]>,
    /// Its place among the shards.
    pub mail: Mail,
    /// What the server says, the bounds among it.
    pub control: Arc<Control>,
    /// The counters of all shards.
    pub metrics: Metrics,
}

/// All of a shard but its backend.
pub struct Core {
    pub(super) id: ShardId,
    pub(super) shards: u16,
    /// What the server may replace, and which version this is.
    pub(super) live: Arc<Live>,
    pub(super) live_version: u64,
    /// Those of `live`.
    pub(super) limits: Arc<Limits>,
    pub(super) table: Table,
    pub(super) peers: Peers,
    pub(super) paces: Paces,
    pub(super) wheel: Wheel,
    pub(super) members: Members,
    pub(super) topics: Topics,
    /// What the rules say of topics that were published to lately.
    pub(super) rulings: Rulings,
    /// Tokens that came lately.
    pub(super) gate: Gate,
    pub(super) router: Router,
    pub(super) entrances: Arc<[Entrance]>,
    pub(super) mail: Mail,
    pub(super) control: Arc<Control>,
    pub(super) metrics: Arc<ShardMetrics>,
    pub(super) all_metrics: Metrics,
    pub(super) tools: Tools,
    pub(super) deflater: Deflater,
    pub(super) partials: Partials,
    pub(super) outboxes: Outboxes,
    pub(super) log: PeerLog,
    /// What ends with this turn and is measured then.
    pub(super) latencies: Latencies,
    /// Requests that it tells of.
    pub(super) visit_log: VisitLog,
    /// What it says about traces.
    pub(super) spans: Spans,
    /// The busiest topics, the slowest consumers.
    pub(super) tops: Tops,

    pub(super) now: Instant,
    pub(super) tick: Tick,
    pub(super) unix_ms: u64,
    /// The second of `unix_ms`, as HTTP writes it.
    pub(super) date: Date,
    /// When all that had come was last read: whoever is silent since then has not merely waited for us.
    pub(super) listened: Tick,
    pub(super) phase: Phase,
    pub(super) publishing: Publishing,
    pub(super) drain: Option<Drain>,
    /// Connections may still come in.
    pub(super) listening: bool,
    /// Deadlines have come nearer.
    pub(super) hurry: Option<Hurry>,
    /// Keys or terms are others than they were.
    pub(super) review: Option<Review>,
    /// Since when there is an idle timeout.
    pub(super) idle_since: Tick,

    /// Frames of connections' own that this batch sends; at its end, those of the connection at hand.
    pub(super) out: Vec<u8>,
    /// Where the frames of the connection at hand begin.
    pub(super) out_start: usize,
    /// The connection at hand, while its frames have not been given to the backend: more may follow from it.
    pub(super) corked: Option<ConnId>,
    /// Where frames for nobody go.
    pub(super) nowhere: Vec<u8>,
    /// What handlers want done.
    pub(super) effects: Vec<Effect>,
    /// What waits for the disk, where there is a journal.
    pub(super) durable: Option<Box<Durable>>,
    /// What is said to other nodes, where there is a cluster.
    pub(super) cluster: Option<Box<Cluster>>,
    /// Publications of this shard's connections, in order.
    pub(super) staged: VecDeque<Publication>,
    /// What they keep in memory.
    pub(super) staged_bytes: usize,
    /// Whether some of them found no room, so that whoever publishes more must wait.
    pub(super) blocked: bool,
    /// Batches of publications that wait.
    pub(super) batches: Batches,
    /// The batch of sends that is being put together: its number and its sends.
    pub(super) batch: u16,
    pub(super) sends: Vec<Send>,
    /// What the backend was asked for and may not have done before its next flush: about as many times a small send.
    pub(super) owed: usize,
    /// Images of `sends`.
    pub(super) send_images: Vec<Image>,
    /// What was taken from queue groups for `sends`.
    pub(super) shares: Vec<Share>,
    /// Entries of the table that are streams of HTTP/2.
    pub(super) streams: usize,
    /// What came of streams' bytes and is still to be carried out.
    pub(super) aftermaths: Vec<Aftermath>,
    /// Connections with something in their outbox that has not been tried yet.
    pub(super) dirty: VecDeque<ConnId>,
    /// Connections that are closing and may have come a step further.
    pub(super) closing: VecDeque<ConnId>,
    /// Connections that are not read while a mailbox is full.
    pub(super) stalled: VecDeque<ConnId>,
    /// Connections with held bytes and room for the answers again.
    pub(super) resumable: VecDeque<ConnId>,
    /// Connections that can be sent more of their file.
    pub(super) transfers: VecDeque<ConnId>,
    /// Where slow reads of files arrive: the side of the reader, and ours.
    pub(super) desk: (Desk, crossbeam::channel::Receiver<Done>),
    /// Who is where, and who watches that.
    pub(super) attendance: Attendance,
    /// Topics whose fan-out runs, served in turn.
    pub(super) fan_outs: VecDeque<TopicKey>,
    /// Messages that could not be sent straight: connection, frames, how many messages they are.
    pub(super) deferred: Vec<(ConnId, Image, u32)>,
    /// Queue groups of this shard whose turn it is to get the publication at hand.
    pub(super) own_shares: Vec<(Stay, Group)>,
    /// What this shard sends itself: answers of topics' owners, and messages that came after those.
    pub(super) own_mail: VecDeque<OwnMail>,
    /// Room for one line of an answer.
    pub(super) line: Vec<u8>,
    /// Streams of events that can begin.
    pub(super) begun: VecDeque<ConnId>,
    /// Polls that have something to tell.
    pub(super) told: Vec<ConnId>,
    /// Messages for connections that send something of their own around each.
    pub(super) private: Vec<(ConnId, Message)>,
    /// Bytes of messages of the connection that is being read, and of its streams, that handlers were given.
    pub(super) handed: usize,
    /// What the streams of the connection that is being read have published with requests.
    pub(super) posted: Spent,
    /// What they have sent in messages: of calls, and of WebSockets.
    pub(super) said: Spent,
    /// Connections that must end, and why.
    pub(super) doomed: Vec<(ConnId, CloseReason, &'static str)>,
    /// Streams that end, of connections that do or by themselves.
    pub(super) unloading: VecDeque<Unload>,
    /// Connections whose transport failed in a send.
    pub(super) broken: Vec<ConnId>,
    /// Topics that their owners have no room for.
    pub(super) evicted: Vec<(Topic, Option<Group>)>,
    /// Room to gather small pieces of an outbox.
    pub(super) gather: Vec<u8>,
    /// What operators want done.
    pub(super) orders: Orders,
    /// While somebody watches what happens.
    pub(super) tracer: Option<Box<Tracer>>,
    /// Where a receiver is told what happens.
    pub(super) hooks: Option<Box<Teller>>,
    /// Whether a phase ended on its budget.
    pub(super) unfinished: bool,
    /// Connections that are heard no more and send all the same: they are not read until the next tick.
    pub(super) resting: Vec<ConnId>,
    /// Which addresses the listening sockets do not answer.
    pub(super) silenced: Silenced,
    /// What this shard's outboxes cost.
    pub(super) queued: usize,
    /// What the other shards' outboxes and unfinished messages cost, as of the last look.
    pub(super) queued_elsewhere: usize,
}

/// One send of a batch.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) id: ConnId,
    pub(super) what: Sent,
}

/// What was sent, so that what the kernel did not take can be kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sent {
    /// These bytes of `out`.
    Bytes { start: usize, end: usize },
    /// An image of `send_images` with so many messages.
    Image { index: usize, messages: u32 },
    /// One of `shares`.
    Share { index: usize },
    /// So many bytes of the connection's outbox.
    Outbox { bytes: usize },
    /// Nothing any more.
    Done,
}

/// A drain that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    pub(super) began: Tick,
    pub(super) ticks: u32,
    /// When the listeners close.
    pub(super) shuts: Option<Tick>,
    /// Since when nobody comes in any more.
    pub(super) shut: Option<Tick>,
    /// Connections below this index have been given their time to leave.
    pub(super) cursor: u32,
    pub(super) index_end: u32,
}

impl Core {
    /// Bytes of messages that may wait for one group's members.
    const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

    /// Streams of all connections together: as many as there may be connections, and enough for one at least.
    pub(super) fn streams_max(limits: &Limits) -> usize {
        limits.connections_max.max(limits.http2.streams_max as usize)
    }

    /// For connections, those that are turned away, and streams.
    fn table(limits: &Limits) -> Table {
        let connections_max = limits.connections_max.saturating_add(Control::SHED_MAX);
        Table::new(connections_max, connections_max.saturating_add(Self::streams_max(limits)))
    }

    pub(super) fn new(seed: Seed) -> Self {
        let Seed { id, router, entrances, mail, control, metrics } = seed;
        let (live_version, live) = (control.live_version(), control.live());
        control.listens();
        let limits = Arc::clone(&live.limits);
        let shards = u16::try_from(metrics.shards.len()).unwrap_or(u16::MAX);
        let desk = Desk::new(mail.doorbell());
        Self {
            id,
            shards,
            table: Self::table(&limits),
            paces: Paces::default(),
            peers: Peers::new(limits.connections_max.saturating_add(Control::SHED_MAX)),
            wheel: Wheel::new(crate::wheel::TICK),
            members: Members::new(limits.topics_max, Self::GROUP_BYTES_MAX),
            topics: Topics::new(&live.rules, &limits, shards),
            rulings: Rulings::default(),
            gate: Gate::default(),
            router,
            entrances,
            mail,
            control,
            metrics: Arc::clone(&metrics.shards[usize::from(id.0)]),
            all_metrics: metrics,
            tools: Tools::default(),
            deflater: Deflater::default(),
            partials: Partials::default(),
            outboxes: Outboxes::default(),
            log: PeerLog::new(id),
            latencies: Latencies::default(),
            visit_log: VisitLog::default(),
            spans: Spans::new(id),
            tops: Tops::new(),
            live,
            live_version,
            limits,
            now: Instant::ZERO,
            tick: Tick(0),
            unix_ms: 0,
            date: Date::from_unix(0),
            listened: Tick::default(),
            phase: Phase::Running,
            publishing: Publishing::Open,
            drain: None,
            listening: true,
            hurry: None,
            review: None,
            idle_since: Tick(0),
            out: Vec::new(),
            out_start: 0,
            corked: None,
            nowhere: Vec::new(),
            effects: Vec::new(),
            durable: None,
            cluster: None,
            staged: VecDeque::new(),
            staged_bytes: 0,
            batches: Batches::default(),
            blocked: false,
            batch: 1,
            sends: Vec::new(),
            owed: 0,
            send_images: Vec::new(),
            shares: Vec::new(),
            streams: 0,
            aftermaths: Vec::new(),
            dirty: VecDeque::new(),
            closing: VecDeque::new(),
            stalled: VecDeque::new(),
            resumable: VecDeque::new(),
            transfers: VecDeque::new(),
            desk,
            attendance: Attendance::default(),
            fan_outs: VecDeque::new(),
            deferred: Vec::new(),
            own_shares: Vec::new(),
            own_mail: VecDeque::new(),
            line: Vec::new(),
            begun: VecDeque::new(),
            told: Vec::new(),
            private: Vec::new(),
            handed: 0,
            posted: Spent::default(),
            said: Spent::default(),
            doomed: Vec::new(),
            unloading: VecDeque::new(),
            broken: Vec::new(),
            evicted: Vec::new(),
            gather: Vec::new(),
            orders: Orders::default(),
            tracer: None,
            hooks: None,
            unfinished: false,
            resting: Vec::new(),
            silenced: Silenced::default(),
            queued: 0,
            queued_elsewhere: 0,
        }
    }

    /// Connections held, those included that are being turned away.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.table.len() - self.streams
    }

    /// Topics with subscribers here, topics owned here that have subscribers somewhere. Of others the past is kept.
    #[must_use]
    pub fn topics(&self) -> (usize, usize) {
        (self.members.len(), self.topics.interested())
    }

    /// Sets the connection's timer if it is not set to an earlier time.
    pub(super) fn arm_by(&mut self, id: ConnId, deadline: Tick) {
        let sooner = self
            .table
            .get(id)
            .is_some_and(|connection| connection.timer.deadline().is_none_or(|armed| deadline < armed));
        if sooner {
            self.wheel.arm(&mut self.table, id.index(), deadline);
        }
    }

    /// Sets the connection's timer.
    pub(super) fn arm(&mut self, id: ConnId, deadline: Tick) {
        if self.table.get(id).is_some() {
            self.wheel.arm(&mut self.table, id.index(), deadline);
        }
    }

    /// The tick at which `duration` from now is over.
    pub(super) fn after(&self, duration: Duration) -> Tick {
        self.wheel.tick_of(self.now + duration)
    }

    /// Frames of the connection at hand, so far.
    pub(super) fn output(&self) -> &[u8] {
        &self.out[self.out_start..]
    }

    /// Whether its end has begun, or there is none such.
    pub(super) fn is_ending(&self, id: ConnId) -> bool {
        self.table.get(id).is_none_or(|connection| connection.flags.has(Flags::CLOSING) || connection.is_answered())
    }

    /// Whether a flag of a connection is set; `false` when there is no such connection.
    pub(super) fn flag(&self, id: ConnId, flag: Flags) -> bool {
        self.table.get(id).is_some_and(|connection| connection.flags.has(flag))
    }

    /// Sets a flag.
    pub(super) fn set(&mut self, id: ConnId, flag: Flags) {
        if let Some(connection) = self.table.get_mut(id) {
            connection.flags.set(flag);
        }
    }

    /// Notes why a connection ends, once, and says so in the log at a bounded rate.
    pub(super) fn report(&mut self, id: ConnId, reason: CloseReason, detail: &str) {
        if self.flag(id, Flags::SHED) {
            // It was counted when it came, and a storm of them is one line of the server's.
            return;
        }
        if !self.flag(id, Flags::BORNE) {
            self.metrics.count_closed(reason);
        }
        if reason == CloseReason::SlowConsumer {
            self.note_lost(id);
        }
        if self.log.hears_of(reason) {
            let (peer, user) = (self.whence(id), self.user(id).map(str::to_owned));
            self.log.closed(self.now, &self.metrics, &Ended { id, peer, user: user.as_deref(), reason, detail });
        }
        self.trace_close(id, reason, detail);
    }
}
