//! What a seed makes of a world: its size, its limits, its weather, and who comes.

use std::sync::Arc;
use std::time::Duration;

use super::crowd::Sketches;
use crate::app::opening::Opening;
use crate::app::site::{Page, PageRequest, Site};
use crate::app::topic::Topics;
use crate::app::{Context, Handler, Refusal, Request, Router, SlowConsumer, standard_routes};
use crate::config::{App, Config as Settings, Http2Limits, Limits, Origins, Pattern, TopicSection};
use crate::message::{Kind as MessageKind, Topic};
use crate::session::Protocol;
use crate::session::http::UpgradePolicy;
use crate::shard::{Entrance, EntranceKind, Live};
use crate::sim::{Config, Faults, Random};

/// What follows from a seed before anything happens.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) shards: u16,
    pub(super) limits: Limits,
    pub(super) net: Config,
    /// Steps of the first, wild part.
    pub(super) steps: usize,
    /// The clock jumps: who is healthy may look dead.
    pub(super) jumpy: bool,
    /// How often, in a thousand, a turn ends each phase early because time runs out.
    pub(super) hurry: u16,
    /// Queues hold all that could ever wait.
    pub(super) roomy: bool,
    /// There may be no room for another connection, or topic.
    pub(super) crowded: bool,
    /// Some topics are durable.
    pub(super) durable: bool,
    /// The drain is as wild as the beginning.
    pub(super) wild_drain: bool,
    pub(super) drain: Duration,
    pub(super) sketches: Vec<Sketch>,
    /// Who comes with many connections.
    pub(super) crowd: Sketches,
}

/// Who comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sketch {
    pub(super) role: Role,
    pub(super) manner: Manner,
    pub(super) door: Door,
    /// The step in which it connects.
    pub(super) start: usize,
    pub(super) messages: u32,
}

/// What a peer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Echo,
    /// A topic: its number, whether it hears itself, what happens when it is slow.
    Member(u8, bool, SlowConsumer),
    /// A room: its number.
    Chat(u8),
    /// Pages, and goes.
    Pages,
    Criminal(Crime),
}

/// How a peer behaves apart from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Healthy,
    /// Says good-bye in the middle.
    Leaves,
    /// Reads little and seldom.
    Slow,
    /// Reads nothing after its handshake.
    Blind,
    /// Writes nothing after its handshake.
    Mute,
    /// Vanishes in the middle.
    Abrupt,
}

/// Where a peer comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// HTTP; what it offers in `Sec-WebSocket-Extensions`.
    Web(Option<&'static str>),
    Line,
    Length,
    /// A call, over HTTP/2.
    Call,
}

/// What a peer does that it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crime {
    ReservedOpcode,
    ReservedBit,
    Unmasked,
    BadUtf8,
    TooBig,
    BadClose,
    LoneContinuation,
    Fragments,
    EmptyFragments,
    BinaryChat,
    PanicInMessage,
    PanicInOpen,
    PanicInClose,
    Garbage,
    LongHead,
    EarlyData,
    Unfinished,
    Noise,
    PingFlood,
    LongFrame,
}

impl Crime {
    const WEB: [Self; 19] = [
        Self::ReservedOpcode,
        Self::ReservedBit,
        Self::Unmasked,
        Self::BadUtf8,
        Self::TooBig,
        Self::BadClose,
        Self::LoneContinuation,
        Self::Fragments,
        Self::EmptyFragments,
        Self::BinaryChat,
        Self::PanicInMessage,
        Self::PanicInOpen,
        Self::PanicInClose,
        Self::Garbage,
        Self::LongHead,
        Self::EarlyData,
        Self::Unfinished,
        Self::Noise,
        Self::PingFlood,
    ];

    /// The close code that answers it, where there is one for certain.
    pub(super) const fn code(self) -> Option<u16> {
        Some(match self {
            Self::ReservedOpcode | Self::ReservedBit | Self::Unmasked | Self::BadClose | Self::LoneContinuation => 1002,
            Self::BadUtf8 => 1007,
            Self::TooBig => 1009,
            Self::Fragments | Self::EmptyFragments => 1008,
            Self::BinaryChat => 1003,
            Self::PanicInMessage => 1011,
            Self::PanicInClose => 1000,
            _ => return None,
        })
    }

    /// The status that answers it, likewise.
    pub(super) const fn status(self) -> Option<u16> {
        Some(match self {
            Self::PanicInOpen => 500,
            Self::Garbage | Self::EarlyData => 400,
            Self::LongHead => 431,
            Self::Unfinished => 408,
            _ => return None,
        })
    }
}

const fn ms(millis: usize) -> Duration {
    Duration::from_millis(millis as u64)
}

impl Plan {
    pub(super) fn new(random: &mut Random) -> Self {
        let (roomy, jumpy, crowded) = (random.chance(500), random.chance(200), random.chance(120));
        let message_bytes_max = random.within(256, 2048);
        let wild = if random.chance(250) { Faults::NONE } else { Faults::draw(random) };
        let resets = if random.chance(250) { 2 } else { 0 };
        let tight_total = !roomy && random.chance(200);
        let mut limits = Limits {
            connections_max: if crowded { random.within(3, 10) } else { 256 },
            accept_rate: if crowded { u32::try_from(random.below(30)).unwrap_or(0) } else { 0 },
            handshake_timeout: ms(random.within(2000, 4000)),
            head_bytes_max: random.within(512, 2048),
            message_bytes_max,
            fragments_max: u32::try_from(random.within(8, 20)).unwrap_or(8),
            empty_fragments_max: u32::try_from(random.within(1, 4)).unwrap_or(1),
            control_replies_max: u32::try_from(random.within(1, 16)).unwrap_or(1),
            queue_bytes_max: if roomy { 1 << 20 } else { random.within(1024, 8192) },
            queue_bytes_total_max: if tight_total { random.within(4096, 16384) } else { 1 << 30 },
            queue_stall_timeout: ms(random.within(2000, 4000)),
            close_timeout: ms(random.within(500, 2000)),
            topics_max: if crowded { random.within(1, 4) } else { 1000 },
            http2: Http2Limits {
                streams_max: u32::try_from(random.within(1, 20)).unwrap_or(20),
                stream_window: if random.chance(500) { 65_535 } else { random.within(256, 8192) },
                connection_window: random.within(65_535, 1 << 20),
                settings_timeout: ms(random.within(2000, 4000)),
                ..Http2Limits::default()
            },
            heartbeat_interval: ms(random.within(1000, 3000)),
            heartbeat_timeout: ms(random.within(2000, 3000)),
            idle_timeout: if jumpy && random.chance(300) { ms(random.within(1000, 3000)) } else { Duration::ZERO },
            mailbox_capacity: random.within(1, 8),
            ..Limits::default()
        };
        let net = Config {
            faults: Faults { resets, ..wild },
            upstream_bytes: random.within(64, 8192),
            downstream_bytes: random.within(64, 8192),
            buffer_bytes: random.within(16, 4096),
            backlog_max: 4096,
            accepts_max: random.within(1, 64),
        };
        let steps = random.within(40, 400);
        let peers = random.within(3, 24);
        let sketches = (0..peers).map(|_| Sketch::new(random, steps)).collect();
        let shards = u16::try_from(random.within(1, 4)).unwrap_or(1);
        let (drain, wild_drain) = (ms(random.within(0, 2000)), random.chance(500));
        let hurry = if random.chance(500) { 0 } else { u16::try_from(random.within(1, 1000)).unwrap_or(1000) };
        let (crowd, history) = Sketches::new(random, steps, crowded);
        limits.history = history;
        Self {
            shards,
            limits,
            net,
            steps,
            jumpy,
            hurry,
            roomy,
            crowded,
            durable: false,
            wild_drain,
            drain,
            sketches,
            crowd,
        }
    }
}

impl Sketch {
    fn new(random: &mut Random, steps: usize) -> Self {
        let offers = [
            None,
            Some("permessage-deflate"),
            Some("permessage-deflate; client_max_window_bits"),
            Some("permessage-deflate; server_max_window_bits=10"),
        ];
        let mut door = match random.below(7) {
            0 => Door::Line,
            1 => Door::Length,
            2 | 3 => Door::Call,
            _ => Door::Web(offers[random.below(offers.len())]),
        };
        let number = u8::try_from(random.below(3)).unwrap_or(0);
        let policies = [SlowConsumer::Close, SlowConsumer::DropOldest, SlowConsumer::KeepLatest];
        let policy = match door {
            Door::Web(_) if random.chance(400) => policies[random.below(3)],
            _ => SlowConsumer::Close,
        };
        let role = match random.below(20) {
            0..=2 => Role::Echo,
            // Calls know topics and echoes.
            12.. if door == Door::Call => Role::Member(number, random.chance(800), policy),
            3..=11 => Role::Member(number, !matches!(door, Door::Web(_)) || random.chance(800), policy),
            12..=14 => Role::Chat(number % 2),
            15 => {
                door = Door::Web(None);
                Role::Pages
            }
            _ => Role::Criminal(match door {
                Door::Web(_) => Crime::WEB[random.below(Crime::WEB.len())],
                _ => Crime::LongFrame,
            }),
        };
        let manner = match random.below(16) {
            _ if matches!(role, Role::Pages | Role::Criminal(_)) => Manner::Healthy,
            0..=9 => Manner::Healthy,
            10 | 11 => Manner::Leaves,
            12 => Manner::Slow,
            13 => Manner::Blind,
            14 => Manner::Mute,
            _ => Manner::Abrupt,
        };
        let start = if random.chance(600) { 0 } else { random.below(steps) };
        Self { role, manner, door, start, messages: u32::try_from(random.below(40)).unwrap_or(0) }
    }

    /// The listener and, for HTTP, the path; for raw TCP, what the first frame must be.
    pub(super) fn way_in(&self, number: u32) -> (u8, String) {
        let length = u8::from(self.door == Door::Length);
        match (self.door, self.role) {
            (Door::Call, _) => (0, String::new()),
            (Door::Web(_), role) => (0, web_path(role, number)),
            (_, Role::Member(0, ..)) => (3 + length, String::new()),
            (_, Role::Member(topic, ..)) => (5 + length, format!("t{topic}")),
            (_, Role::Chat(0)) => (7 + length, format!("c{number}")),
            (_, Role::Chat(room)) => (9 + length, format!("r{room} c{number}")),
            _ => (1 + length, String::new()),
        }
    }

    /// The topic that it is a member of.
    pub(super) fn topic(&self) -> Option<String> {
        match self.role {
            Role::Member(topic, ..) => Some(format!("t{topic}")),
            Role::Chat(room) => Some(format!("chat/r{room}")),
            _ => None,
        }
    }
}

fn web_path(role: Role, number: u32) -> String {
    match role {
        Role::Member(topic, echo, policy) => {
            let route = match policy {
                SlowConsumer::Close => "topics",
                SlowConsumer::DropOldest => "oldest",
                SlowConsumer::KeepLatest => "latest",
            };
            format!("/{route}/t{topic}{}", if echo { "" } else { "?echo=0" })
        }
        Role::Chat(room) => format!("/chat/r{room}?name=c{number}"),
        Role::Criminal(Crime::BinaryChat) => format!("/chat/r9?name=c{number}"),
        Role::Criminal(Crime::PanicInOpen) => "/touchy/open".into(),
        Role::Criminal(Crime::PanicInMessage) => "/touchy/message".into(),
        Role::Criminal(Crime::PanicInClose) => "/touchy/close".into(),
        Role::Pages => "/page".into(),
        Role::Echo | Role::Criminal(_) => "/echo".into(),
    }
}

/// The routes of every world.
pub(super) fn router() -> Router {
    standard_routes()
        .route_with("/oldest/{topic}", Topics, SlowConsumer::DropOldest)
        .route_with("/latest/{topic}", Topics, SlowConsumer::KeepLatest)
        .route("/touchy/{when}", Touchy)
}

/// What the server of a world may replace, as it begins.
pub(super) fn live(plan: &Plan) -> Live {
    let origins = Origins { any: true, ..Origins::default() };
    let policy = UpgradePolicy { origins, subprotocols: Vec::new(), deflate: true };
    let durable = |name: &str| {
        let section = Pattern::parse(name).map(TopicSection::new);
        section.map(|section| TopicSection { durable: Some(true), ..section })
    };
    let topics = ["t0", "t2", "chat/*"].into_iter().filter(|_| plan.durable).filter_map(|name| durable(name).ok());
    let config = Settings { limits: plan.limits.clone(), topics: topics.collect(), ..Settings::default() };
    Live { policy, ..Live::of(&config) }
}

/// The listeners of every world, see [`Sketch::way_in`].
pub(super) fn entrances() -> Arc<[Entrance]> {
    let web = EntranceKind::Http { site: Arc::new(OnePage), routes: true };
    let topic = |name: &str| Topic::parse(name.as_bytes(), Topic::BYTES_MAX).ok();
    let apps =
        [(App::Echo, None), (App::Topic, topic("t0")), (App::Topic, None), (App::Chat, topic("r0")), (App::Chat, None)];
    let raw = apps.iter().flat_map(|(app, topic)| {
        [Protocol::Line, Protocol::Length]
            .map(|protocol| EntranceKind::Tcp { protocol, opening: Opening::new(*app, topic.as_ref()) })
    });
    let kinds = std::iter::once(web).chain(raw);
    kinds.map(|kind| Entrance { url: String::new(), kind, proxied: false }).collect()
}

/// A site of one page.
struct OnePage;

/// What is on it.
pub(super) const PAGE: &[u8] = &[b'x'; 700];

impl Site for OnePage {
    fn get(&self, request: &PageRequest<'_>) -> Option<Page> {
        (request.path == "/page").then(|| Page::new(200, "text/plain", PAGE))
    }
}

/// Panics when its path says so, without a word on standard error.
#[derive(Clone)]
struct Touchy;

impl Touchy {
    fn panic() -> ! {
        std::panic::resume_unwind(Box::new("deliberately"))
    }
}

impl Handler for Touchy {
    type State = u8;

    fn open(&mut self, state: &mut u8, request: &Request<'_>, context: &mut Context<'_>) -> Result<(), Refusal> {
        context.send_text("never seen when open panics");
        match request.param {
            "open" => Self::panic(),
            "close" => *state = 1,
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, state: &mut u8, _kind: MessageKind, _payload: &[u8], _context: &mut Context<'_>) {
        if *state == 0 {
            Self::panic();
        }
    }

    fn close(&mut self, state: &mut u8, _reason: crate::close::CloseReason, _context: &mut Context<'_>) {
        if *state == 1 {
            Self::panic();
        }
    }
}
