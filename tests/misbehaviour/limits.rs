//! Every limit can be made to strike, and is counted when it does.

use std::io::{ErrorKind, Write};
use std::thread;
use std::time::{Duration, Instant};

use holdline::codec::http2::frame::{self, PREFACE, flag, kind};
use holdline::codec::http2::{StreamId, hpack};
use holdline::config::{Config, Networks};
use holdline::rule::{Limit, Rule};

use crate::beside_a_neighbour;
use crate::common::wire::{FIN, PING, TEXT, handshake, masked};
use crate::common::{Client, Neighbour, PATIENCE, Running};

const SOON: Duration = Duration::from_millis(300);

/// Makes a limit easy to reach.
fn lower(limit: Limit, config: &mut Config) {
    let limits = &mut config.limits;
    if limit.is_of_an_address() || [Limit::RequestRatePerAddress, Limit::RefusalRatePerAddress].contains(&limit) {
        limits.exempt = Networks::default();
    }
    match limit {
        Limit::ConnectionsMax => limits.connections_max = 2,
        Limit::AcceptRate => limits.accept_rate = 1,
        Limit::MemoryFreeBytesMin => unreachable!("nobody would be let in, see `shedding`"),
        Limit::ConnectionsPerAddressMax => limits.connections_per_address_max = 2,
        Limit::AcceptRatePerAddress => limits.accept_rate_per_address = 1,
        Limit::HandshakesMax => limits.handshakes_max = 1,
        Limit::HandshakesPerAddressMax => limits.handshakes_per_address_max = 1,
        Limit::RequestRatePerAddress => limits.request_rate_per_address = 1,
        Limit::RefusalRatePerAddress => {
            (limits.accept_rate_per_address, limits.refusal_rate_per_address) = (1, 1);
        }
        Limit::MessageRate => limits.message_rate = 50,
        Limit::MessageBytesRate => limits.message_bytes_rate = 5000,
        Limit::HandshakeTimeout => limits.handshake_timeout = SOON,
        Limit::HeadBytesMax => limits.head_bytes_max = 1000,
        Limit::HeadFieldsMax => limits.head_fields_max = 12,
        Limit::TargetBytesMax => limits.target_bytes_max = 100,
        Limit::BodyBytesMax => limits.body_bytes_max = 1000,
        Limit::BodyTimeout => limits.body_timeout = SOON,
        // Its time does not begin before the first five seconds are over.
        Limit::BodyRateMin => limits.body_rate_min = 1,
        Limit::KeepAliveRequestsMax => limits.keep_alive_requests_max = 1,
        Limit::KeepAliveTimeout => limits.keep_alive_timeout = SOON,
        Limit::MessageBytesMax => limits.message_bytes_max = 1000,
        Limit::FragmentsMax => limits.fragments_max = 2,
        Limit::EmptyFragmentsMax => limits.empty_fragments_max = 2,
        Limit::ControlRepliesMax => limits.control_replies_max = 4,
        Limit::QueueBytesMax => limits.queue_bytes_max = 16 * 1024,
        Limit::QueueBytesTotalMax => limits.queue_bytes_total_max = 4096,
        Limit::QueueStallTimeout => limits.queue_stall_timeout = SOON,
        Limit::CloseTimeout => limits.close_timeout = SOON,
        Limit::SubscriptionsMax => limits.subscriptions_max = 0,
        Limit::TopicBytesMax => limits.topic_bytes_max = 4,
        Limit::TopicsMax => limits.topics_max = 1,
        Limit::TopicRate => config.topic_rate = 1,
        Limit::GroupsMax => limits.groups_max = 1,
        Limit::HeartbeatTimeout => (limits.heartbeat_interval, limits.heartbeat_timeout) = (SOON, SOON),
        Limit::IdleTimeout => limits.idle_timeout = SOON,
        Limit::MailboxCapacity => {
            limits.mailbox_capacity = 1;
            config.shards = 2;
        }
        Limit::Http2StreamsMax => limits.http2.streams_max = 1,
        Limit::Http2SettingsTimeout => limits.http2.settings_timeout = SOON,
        Limit::Http2ResetsBurst => limits.http2.resets_burst = 1,
        Limit::Http2FramesBurst => (limits.http2.frames_burst, limits.http2.frames_rate) = (100, 1),
        Limit::Http2EmptyDataMax => limits.http2.empty_data_max = 1,
        Limit::Http2DataOverheadMax => limits.http2.data_overhead_max = 0,
        Limit::Http2ContinuationsMax => limits.http2.continuations_max = 1,
    }
}

/// Runs into it. Returns the clients that must stay until it strikes.
fn run_into(limit: Limit, running: &Running, neighbour: &mut Neighbour) -> Vec<Client> {
    let fragments = |payload: &[u8]| {
        let mut client = running.websocket("/echo");
        [TEXT, 0, 0].into_iter().for_each(|opcode| client.send_frame(opcode, payload));
        vec![client]
    };
    let requesting = |path: &str, fields: &str| {
        let mut client = running.connect(0);
        client.send_raw(handshake(path, fields).as_bytes());
        vec![client]
    };
    let posting = |length: usize| {
        let mut client = running.connect(0);
        client.send_raw(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").as_bytes());
        vec![client]
    };
    match limit {
        Limit::TargetBytesMax => requesting(&format!("/echo?{}", "x".repeat(100)), ""),
        Limit::BodyBytesMax => posting(1001),
        Limit::BodyTimeout | Limit::BodyRateMin => posting(1000),
        Limit::KeepAliveRequestsMax | Limit::KeepAliveTimeout => posting(0),
        Limit::ConnectionsMax => vec![running.connect(0), running.connect(0)],
        Limit::AcceptRate
        | Limit::ConnectionsPerAddressMax
        | Limit::AcceptRatePerAddress
        | Limit::RefusalRatePerAddress
        | Limit::HandshakesMax
        | Limit::HandshakesPerAddressMax => vec![running.connect(0), running.connect(0)],
        Limit::RequestRatePerAddress => {
            let mut client = running.connect(0);
            client.send_raw(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2).as_slice());
            vec![client]
        }
        Limit::MessageRate => {
            let mut client = running.websocket("/echo");
            client.send_raw(&masked(FIN | TEXT, b"again").repeat(60));
            vec![client]
        }
        Limit::MessageBytesRate => {
            let mut client = running.websocket("/echo");
            client.send_binary(&[0; 6000]);
            vec![client]
        }
        Limit::MemoryFreeBytesMin => Vec::new(),
        Limit::HandshakeTimeout => vec![running.connect(0)],
        Limit::HeadBytesMax => requesting("/echo", &format!("X: {}\r\n", "x".repeat(1000))),
        Limit::HeadFieldsMax => requesting("/echo", &"X: y\r\n".repeat(12)),
        Limit::TopicBytesMax => requesting("/topics/fives", ""),
        Limit::FragmentsMax => fragments(b"x"),
        Limit::EmptyFragmentsMax => fragments(b""),
        Limit::MessageBytesMax => {
            let mut client = running.websocket("/echo");
            client.send_binary(&[0; 1001]);
            vec![client]
        }
        Limit::ControlRepliesMax => {
            let client = Client::with_small_window(running.at[0]).upgraded("/echo", "");
            push(client, &masked(FIN | PING, b"are you there?"), struck(limit, running), neighbour);
            Vec::new()
        }
        Limit::QueueBytesMax | Limit::QueueBytesTotalMax => publish(running, "/topics/busy", limit, neighbour),
        Limit::QueueStallTimeout => publish(running, "/oldest/busy", limit, neighbour),
        Limit::CloseTimeout => {
            let mut deaf = running.websocket("/chat/lobby");
            deaf.send_binary(b"chats take text");
            vec![deaf]
        }
        Limit::SubscriptionsMax => vec![running.websocket("/topics/news")],
        Limit::TopicsMax => vec![running.websocket("/topics/first"), running.websocket("/topics/second")],
        Limit::TopicRate => {
            let mut client = running.websocket("/topics/busy");
            (0..2).for_each(|_| client.send_text("news"));
            vec![client]
        }
        Limit::GroupsMax => {
            vec![running.websocket("/topics/jobs?group=one"), running.websocket("/topics/jobs?group=two")]
        }
        Limit::HeartbeatTimeout | Limit::IdleTimeout => vec![running.websocket("/echo")],
        Limit::MailboxCapacity => {
            // On which shard they are is the kernel's choice: some are not on the topic's.
            let mut publishers: Vec<_> = (0..16).map(|_| running.websocket("/topics/busy?echo=0")).collect();
            let many = masked(FIN | TEXT, b"news").repeat(100);
            publishers.iter_mut().for_each(|publisher| publisher.send_raw(&many));
            publishers
        }
        Limit::Http2StreamsMax
        | Limit::Http2SettingsTimeout
        | Limit::Http2ResetsBurst
        | Limit::Http2FramesBurst
        | Limit::Http2EmptyDataMax
        | Limit::Http2DataOverheadMax
        | Limit::Http2ContinuationsMax => vec![run_into_http2(limit, running)],
    }
}

/// The same over HTTP/2, in frames.
fn run_into_http2(limit: Limit, running: &Running) -> Client {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut bytes = Vec::new();
        frame::write(kind, flags, StreamId(stream), payload, &mut bytes);
        bytes
    };
    let mut block = Vec::new();
    for (name, value) in [(":method", "POST"), (":scheme", "http"), (":path", "/echo"), (":authority", "a")] {
        hpack::encode(name.as_bytes(), value.as_bytes(), &mut block);
    }
    let open = |stream| frame(kind::HEADERS, flag::END_HEADERS, stream, &block);
    let reset = |stream| frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    let frames = match limit {
        Limit::Http2StreamsMax => [open(1), open(3)].concat(),
        Limit::Http2ResetsBurst => [open(1), reset(1), open(3), reset(3)].concat(),
        Limit::Http2FramesBurst => frame(kind::PING, 0, 0, &[0; 8]).repeat(101),
        Limit::Http2EmptyDataMax => [open(1), frame(kind::DATA, 0, 1, &[]).repeat(2)].concat(),
        Limit::Http2DataOverheadMax => [open(1), frame(kind::DATA, 0, 1, b"x")].concat(),
        Limit::Http2ContinuationsMax => {
            [frame(kind::HEADERS, 0, 1, &block), frame(kind::CONTINUATION, 0, 1, &[]).repeat(2)].concat()
        }
        // Ours are not acknowledged.
        _ => Vec::new(),
    };
    let mut client = running.connect(0);
    client.send_raw(&[&PREFACE[..], &frame(kind::SETTINGS, 0, 0, &[]), &frames].concat());
    client
}

/// The rule that is broken with it, where a rule is.
fn rule(limit: Limit) -> Option<Rule> {
    let of_websockets = |rule: &Rule| !matches!(rule, Rule::InflatedTooBig | Rule::LineTooLong | Rule::FrameTooLong);
    Rule::ALL.iter().copied().filter(of_websockets).find(|rule| rule.limit() == Some(limit))
}

fn struck(limit: Limit, running: &Running) -> impl Fn() -> bool {
    move || running.count(|shard| shard.struck(limit)) > 0
}

/// Until it has struck, with the neighbour well.
fn wait_until(struck: impl Fn() -> bool, neighbour: &mut Neighbour) {
    let deadline = Instant::now() + PATIENCE;
    while !struck() {
        assert!(Instant::now() < deadline, "it does not strike");
        neighbour.is_well();
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sends the same frame without reading anything.
fn push(client: Client, frame: &[u8], struck: impl Fn() -> bool, neighbour: &mut Neighbour) {
    client.stream.set_nonblocking(true).unwrap();
    let (frames, deadline, mut at) = (frame.repeat(500), Instant::now() + PATIENCE, 0);
    while !struck() {
        assert!(Instant::now() < deadline, "it does not strike");
        match (&client.stream).write(&frames[at..]) {
            Ok(taken) => at = (at + taken) % frames.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => neighbour.is_well(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Publishes to someone who reads nothing.
fn publish(running: &Running, path: &str, limit: Limit, neighbour: &mut Neighbour) -> Vec<Client> {
    let slow = Client::with_small_window(running.at[0]).upgraded(path, "");
    let publisher = running.websocket("/topics/busy?echo=0");
    push(publisher, &masked(FIN | TEXT, &[b'x'; 1000]), struck(limit, running), neighbour);
    vec![slow]
}

#[test]
fn every_limit_strikes_and_is_counted() {
    let strike = |limit| {
        let adjust = |config: &mut Config| lower(limit, config);
        beside_a_neighbour(adjust, |running, neighbour| {
            let clients = run_into(limit, running, neighbour);
            wait_until(struck(limit, running), neighbour);
            if let Some(rule) = rule(limit) {
                assert_eq!(running.count(|shard| shard.violations(rule)), 1, "{rule:?}");
            }
            drop(clients);
        });
    };
    thread::scope(|scope| {
        for &limit in Limit::ALL.iter().filter(|&&limit| limit != Limit::MemoryFreeBytesMin) {
            let named = thread::Builder::new().name(limit.label().to_owned());
            named.spawn_scoped(scope, move || strike(limit)).unwrap();
        }
    });
}
