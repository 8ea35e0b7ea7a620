//! A connection's hot entry: all that is kept of an idle one.
//!
//! ```text
//!            accepted                handshake done             close begun             last completion
//!   (none) ----------->  OPENING  -------------------> OPEN -----------------> CLOSING ----------------> (none)
//!                           |                                                     ^
//!                           +-----------------------------------------------------+
//!
//!   While CLOSING: what is queued is sent, then the transport is shut for writing (SHUT), then the peer's end is
//!   awaited for `close_timeout`, then the backend is told to close (ENDED) and answers when nothing is left.
//! ```

use std::sync::Arc;

use super::answers::WaitsFor;
use super::borne::Borne;
use super::carrier::Carrier;
use super::gate::Admission;
use super::http::Later;
use super::polls::Poll;
use super::streams::Several;
use crate::access::Grant;
use crate::app::RouteId;
use crate::app::files::Transfer;
use crate::buf::Outbox;
use crate::hub::TopicKey;
use crate::id::{ConnId, ListenerId};
use crate::message::Wire;
use crate::session::{Encoder, Partial, Protocol, websocket};
use crate::time::Stamp;
use crate::wheel::{Tick, Timer};

/// Yes-or-no facts about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u16);

impl Flags {
    /// The handshake is done and the handler has opened.
    pub(super) const OPEN: Self = Self(1);
    /// It is ending.
    pub(super) const CLOSING: Self = Self(1 << 1);
    /// Nothing that comes is looked at any more.
    pub(super) const DEAF: Self = Self(1 << 2);
    /// Our side is shut for writing.
    pub(super) const SHUT: Self = Self(1 << 3);
    /// The backend was told to close it.
    pub(super) const ENDED: Self = Self(1 << 4);
    /// The peer will send no more.
    pub(super) const PEER_DONE: Self = Self(1 << 5);
    /// A sign of life was asked for, at the tick in `heard`.
    pub(super) const PINGED: Self = Self(1 << 6);
    /// Not read, until its own answers are read.
    pub(super) const PAUSED: Self = Self(1 << 7);
    /// Not read, until a mailbox has room for its publications.
    pub(super) const STALLED: Self = Self(1 << 8);
    /// A time to leave was set by the drain.
    pub(super) const DRAINING: Self = Self(1 << 9);
    /// A raw TCP connection whose first frame says what it is.
    pub(super) const NAMELESS: Self = Self(1 << 10);
    /// The transport works no more, or there is no room to end it politely.
    pub(super) const BROKEN: Self = Self(1 << 11);
    /// The socket goes as soon as the queue is empty, without waiting for the peer.
    pub(super) const AT_ONCE: Self = Self(1 << 12);
    /// It has no place among the connections, and only hears that.
    pub(super) const SHED: Self = Self(1 << 13);

    /// A request has been taken whose answer comes later; what comes meanwhile is held.
    pub(super) const WAITING: Self = Self(1 << 14);
    /// It is a stream of HTTP/2, borne by another connection: see `borne`.
    pub(super) const BORNE: Self = Self(1 << 15);

    pub(super) const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(super) const fn set(&mut self, flag: Self) {
        self.0 |= flag.0;
    }

    pub(super) const fn clear(&mut self, flag: Self) {
        self.0 &= !flag.0;
    }
}

/// A place in a topic's members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) topic: TopicKey,
    pub(super) position: u32,
}

impl Membership {
    pub(super) const NONE: Self = Self { topic: TopicKey(u32::MAX), position: 0 };

    pub(super) const fn is_some(self) -> bool {
        self.topic.0 != u32::MAX
    }
}

/// What few connections have.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Subscriptions after the first, when there are some.
    #[expect(clippy::box_collection, reason = "most have none, and each has room for this")]
    memberships: Option<Box<Vec<Membership>>>,
    /// When the peer last sent a message; kept only when there is an idle timeout.
    pub(super) spoke: Tick,
    /// What a request waits for, while `WAITING`.
    pub(super) waiting: Option<Box<Waiting>>,
    /// Of a stream of several topics, or a poll.
    pub(super) several: Option<Box<Several>>,
    /// The file that it is being sent.
    pub(super) transfer: Option<Box<Transfer>>,
    /// Of a connection that bears streams of HTTP/2.
    pub(super) carrier: Option<Box<Carrier>>,
    /// Of a stream that is borne by such a one.
    pub(super) borne: Option<Box<Borne>>,
    /// What it may do, where that is asked.
    pub(super) admission: Admission,
}

/// A request that is answered later.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// How the answer has to be.
    pub(super) later: Later,
    /// What it waits for.
    pub(super) waits_for: WaitsFor,
    /// Of a poll.
    pub(super) poll: Option<Box<Poll>>,
}

/// Bytes beside the hot entry of an idle connection that has shown a token: 6 boxes 48; the grant 8, its end and facts 8; when
/// it spoke 4.
const EXTRA_BYTES: usize = 72;

const _: () = assert!(size_of::<Extra>() == EXTRA_BYTES);

impl Extra {
    /// Room for what a request waits for.
    pub(super) fn waiting(&mut self) -> &mut Waiting {
        self.waiting.get_or_insert_default()
    }

    /// What is kept of a poll, if it is one.
    pub(super) fn poll(&self) -> Option<&Poll> {
        self.waiting.as_deref()?.poll.as_deref()
    }

    /// Subscriptions after the first.
    pub(super) fn memberships(&mut self) -> &mut Vec<Membership> {
        self.memberships.get_or_insert_default()
    }

    /// The last of them, which goes.
    pub(super) fn pop_membership(&mut self) -> Option<Membership> {
        let memberships = self.memberships.as_deref_mut()?;
        let last = memberships.pop();
        if memberships.is_empty() {
            self.memberships = None;
        }
        last
    }

    /// The answer that a request waits for is its connection's last.
    pub(super) fn answer_last(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.later.keep_alive = false);
    }

    /// Whether a request waits for an answer.
    pub(super) fn asks(&self) -> bool {
        self.waiting.as_deref().is_some_and(|waiting| !matches!(waiting.waits_for, WaitsFor::Nothing))
    }
}

/// The hot entry.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) partial: Option<Box<Partial>>,
    pub(super) outbox: Option<Box<Outbox>>,
    pub(super) extra: Option<Box<Extra>>,
    pub(super) timer: Timer,
    /// The first subscription.
    pub(super) membership: Membership,
    /// When the peer was last heard; when it was asked for a sign of life, while `PINGED`; when the time for its request
    /// began, until it is `OPEN`.
    pub(super) heard: Tick,
    /// The handler's name for its state; the number of requests answered, until it is `OPEN`.
    pub(super) state: u32,
    /// 24 bits of generation, 8 bits of listener.
    origin: u32,
    /// The batch of sends that last had one of this connection's.
    pub(super) batch: u16,
    pub(super) route: RouteId,
    pub(super) flags: Flags,
    pub(super) websocket: websocket::State,
    pub(super) protocol: Protocol,
}

/// Size of a slot in the table, free or taken: what an idle connection costs there. 3 boxes 24; timer 12; membership 8;
/// heard, state, origin 12; batch, route, flags 6; WebSocket's bits and the protocol 2. The protocol's unused values
/// tell a free slot from a taken one.
pub(super) const HOT_BYTES: usize = 64;

const _: () = assert!(size_of::<Connection>() == HOT_BYTES);
const _: () = assert!(size_of::<Option<Connection>>() == HOT_BYTES);

impl Connection {
    pub(super) fn new(generation: u32, listener: ListenerId, protocol: Protocol, now: Tick) -> Self {
        debug_assert!(generation >> ConnId::GENERATION_BITS == 0);
        Self {
            partial: None,
            outbox: None,
            extra: None,
            timer: Timer::new(),
            membership: Membership::NONE,
            heard: now,
            state: 0,
            origin: generation | u32::from(listener.0) << ConnId::GENERATION_BITS,
            batch: 0,
            route: RouteId(0),
            flags: Flags::default(),
            websocket: websocket::State::default(),
            protocol,
        }
    }

    /// Notes when it was accepted. The place is free until there is a subscription.
    pub(super) const fn set_arrived(&mut self, stamp: Stamp) {
        self.membership = Membership { position: stamp.bits(), ..Membership::NONE };
    }

    /// When it was accepted, as long as nothing has been made of it.
    pub(super) fn take_arrived(&mut self) -> Stamp {
        if self.membership.is_some() || self.flags.has(Flags::OPEN) {
            return Stamp::NONE;
        }
        let stamp = Stamp::from_bits(self.membership.position);
        self.membership = Membership::NONE;
        stamp
    }

    /// Tells it from those who had its index before.
    pub(super) const fn generation(&self) -> u32 {
        self.origin & ((1 << ConnId::GENERATION_BITS) - 1)
    }

    /// Where it came in.
    pub(super) fn listener(&self) -> ListenerId {
        ListenerId(self.origin.to_be_bytes()[0])
    }

    /// How messages are encoded for this peer.
    pub(super) fn encoder(&self) -> Encoder {
        let window_bits = self.websocket.window_bits();
        let wire = match self.protocol {
            Protocol::Line => Wire::Line,
            Protocol::Length => Wire::Length,
            Protocol::WebSocket if self.websocket.is_json() => Wire::WebSocketJson,
            Protocol::WebSocket if window_bits == 15 => Wire::WebSocketDeflate,
            Protocol::Http | Protocol::Http2 | Protocol::WebSocket => Wire::WebSocket,
            Protocol::Grpc => Wire::Grpc,
            Protocol::Sse => Wire::Sse,
            Protocol::SseMany => Wire::SseMany,
            Protocol::JsonStream => Wire::JsonStream,
            Protocol::JsonLines => Wire::JsonLines,
            Protocol::Poll => Wire::Json,
        };
        Encoder { wire, window_bits }
    }

    /// Whether its bytes are looked at, and not left in the kernel for a while.
    pub(super) const fn is_read(&self) -> bool {
        !self.flags.has(Flags::PAUSED) && !self.flags.has(Flags::STALLED) && !self.flags.has(Flags::WAITING)
    }

    /// Whether nothing is queued for it and the kernel may take more.
    pub(super) fn is_ready(&self) -> bool {
        self.outbox.as_deref().is_none_or(|outbox| outbox.is_empty() && !outbox.waits)
    }

    /// What bears it, if it is a stream.
    pub(super) fn borne(&mut self) -> Option<&mut Borne> {
        self.extra.as_deref_mut()?.borne.as_deref_mut()
    }

    /// What it may do; `None`: everything.
    pub(super) fn grant(&self) -> Option<&Arc<Grant>> {
        self.extra.as_deref()?.admission.grant.as_ref()
    }

    /// The same with its end, where there may be one.
    pub(super) fn admission(&mut self) -> Option<&mut Admission> {
        self.extra.as_deref_mut().map(|extra| &mut extra.admission)
    }

    /// The streams that it bears, if it is a connection of HTTP/2.
    pub(super) fn carrier(&mut self) -> Option<&mut Carrier> {
        self.extra.as_deref_mut()?.carrier.as_deref_mut()
    }

    /// Whether it is a stream all of whose response has been written.
    pub(super) fn is_answered(&self) -> bool {
        let borne = self.extra.as_deref().and_then(|extra| extra.borne.as_deref());
        borne.is_some_and(|borne| borne.ending)
    }

    /// Whether it is a stream whose request has been taken, and whose whole answer is written or will be without its peer.
    pub(super) fn is_being_answered(&self) -> bool {
        let asks = self.flags.has(Flags::WAITING) && self.extra.as_deref().is_some_and(Extra::asks);
        asks || self.is_transferring() || self.is_answered()
    }

    /// Whether it is a stream whose request has not come whole.
    pub(super) fn is_asking(&self) -> bool {
        let is_request = self.protocol == Protocol::Http && !self.flags.has(Flags::OPEN);
        is_request && self.flags.has(Flags::BORNE) && !self.flags.has(Flags::CLOSING) && self.partial.is_some()
    }

    /// The file that it is being sent, if any.
    pub(super) fn transfer(&mut self) -> Option<&mut Transfer> {
        self.extra.as_deref_mut()?.transfer.as_deref_mut()
    }

    /// Whether a file is being sent to it.
    pub(super) fn is_transferring(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.transfer.is_some())
    }

    /// Whether its last request has been answered and nothing of another has come.
    pub(super) fn is_between_requests(&self) -> bool {
        self.state > 0 && self.partial.is_none() && self.outbox.is_none() && !self.flags.has(Flags::WAITING)
    }

    /// All its subscriptions.
    pub(super) fn memberships(&self) -> impl Iterator<Item = Membership> + '_ {
        let first = self.membership.is_some().then_some(self.membership);
        let more = self.extra.iter().flat_map(|extra| extra.memberships.iter().flat_map(|all| all.iter().copied()));
        first.into_iter().chain(more)
    }

    /// Notes its new place in a topic's members.
    pub(super) fn moved(&mut self, to: Membership) {
        if self.membership.topic == to.topic {
            self.membership = to;
        } else if let Some(extra) = &mut self.extra {
            let all = extra.memberships.iter_mut().flat_map(|all| all.iter_mut());
            all.filter(|old| old.topic == to.topic).for_each(|old| *old = to);
        }
    }

    /// Notes that the peer gave a sign of life.
    pub(super) fn hear(&mut self, now: Tick) {
        self.heard = now;
        self.flags.clear(Flags::PINGED);
    }
}
