//! Every limit can be made to strike, and is counted when it does.

use std::io::{ErrorKind, Write};
use std::thread;
use std::time::{Duration, Instant};

use holdline::config::Config;
use holdline::rule::{Limit, Rule};

use crate::beside_a_neighbour;
use crate::common::wire::{BINARY, FIN, PING, TEXT, handshake, masked};
use crate::common::{Client, Neighbour, PATIENCE, Running};

const SOON: Duration = Duration::from_millis(300);

/// What makes the limit low, and who then meets it.
type Case = (fn(&mut Config), fn(&Running, &mut Neighbour));

/// What makes the limit easy to reach, and who runs into it.
#[expect(clippy::too_many_lines, reason = "a table with an entry for each limit")]
fn case(limit: Limit) -> Case {
    match limit {
        Limit::ConnectionsMax => (
            |config| config.limits.connections_max = 2,
            |running, neighbour| {
                let _second = running.connect(0);
                let _third = running.connect(0);
                wait(limit_of(Limit::ConnectionsMax, running), neighbour);
            },
        ),
        Limit::HandshakeTimeout => (
            |config| config.limits.handshake_timeout = SOON,
            |running, neighbour| {
                let _silent = running.connect(0);
                wait(limit_of(Limit::HandshakeTimeout, running), neighbour);
            },
        ),
        Limit::HeadBytesMax => (
            |config| config.limits.head_bytes_max = 1000,
            |running, neighbour| {
                let field = format!("X: {}\r\n", "x".repeat(1000));
                running.connect(0).send_raw(handshake("/echo", &field).as_bytes());
                wait(limit_of(Limit::HeadBytesMax, running), neighbour);
            },
        ),
        Limit::HeadFieldsMax => (
            |config| config.limits.head_fields_max = 12,
            |running, neighbour| {
                running.connect(0).send_raw(handshake("/echo", &"X: y\r\n".repeat(12)).as_bytes());
                wait(limit_of(Limit::HeadFieldsMax, running), neighbour);
                assert_eq!(running.count(|shard| shard.violations(Rule::TooManyFields)), 1);
            },
        ),
        Limit::MessageBytesMax => (
            |config| config.limits.message_bytes_max = 1000,
            |running, neighbour| {
                running.websocket("/echo").send_binary(&[0; 1001]);
                wait(limit_of(Limit::MessageBytesMax, running), neighbour);
                assert_eq!(running.count(|shard| shard.violations(Rule::MessageTooBig)), 1);
            },
        ),
        Limit::FragmentsMax => (
            |config| config.limits.fragments_max = 2,
            |running, neighbour| {
                let mut client = running.websocket("/echo");
                [TEXT, 0, 0].into_iter().for_each(|opcode| client.send_frame(opcode, b"x"));
                wait(limit_of(Limit::FragmentsMax, running), neighbour);
            },
        ),
        Limit::EmptyFragmentsMax => (
            |config| config.limits.empty_fragments_max = 2,
            |running, neighbour| {
                let mut client = running.websocket("/echo");
                [TEXT, 0, 0].into_iter().for_each(|opcode| client.send_frame(opcode, b""));
                wait(limit_of(Limit::EmptyFragmentsMax, running), neighbour);
            },
        ),
        Limit::ControlRepliesMax => (
            |_| {},
            |running, neighbour| {
                let client = Client::with_small_window(running.at[0]).upgraded("/echo", "");
                push(
                    client,
                    &masked(FIN | PING, b"are you there?"),
                    limit_of(Limit::ControlRepliesMax, running),
                    neighbour,
                );
            },
        ),
        Limit::QueueBytesMax => (
            |config| config.limits.queue_bytes_max = 16 * 1024,
            |running, neighbour| {
                publish(running, "/topics/busy", limit_of(Limit::QueueBytesMax, running), neighbour);
            },
        ),
        Limit::QueueBytesTotalMax => (
            |config| config.limits.queue_bytes_total_max = 4096,
            |running, neighbour| {
                publish(running, "/topics/busy", limit_of(Limit::QueueBytesTotalMax, running), neighbour);
            },
        ),
        Limit::QueueStallTimeout => (
            |config| config.limits.queue_stall_timeout = SOON,
            |running, neighbour| {
                publish(running, "/oldest/busy", limit_of(Limit::QueueStallTimeout, running), neighbour);
            },
        ),
        Limit::CloseTimeout => (
            |config| config.limits.close_timeout = SOON,
            |running, neighbour| {
                let mut deaf = running.websocket("/chat/lobby");
                deaf.send_frame(FIN | BINARY, b"chats take text");
                wait(limit_of(Limit::CloseTimeout, running), neighbour);
                drop(deaf);
            },
        ),
        Limit::SubscriptionsMax => (
            |config| config.limits.subscriptions_max = 0,
            |running, neighbour| {
                assert_eq!(running.websocket("/topics/news").close_code(), Some(1008));
                wait(limit_of(Limit::SubscriptionsMax, running), neighbour);
            },
        ),
        Limit::TopicBytesMax => (
            |config| config.limits.topic_bytes_max = 4,
            |running, neighbour| {
                let mut client = running.connect(0);
                client.send_raw(handshake("/topics/fives", "").as_bytes());
                assert_eq!(client.answer().status, 400);
                wait(limit_of(Limit::TopicBytesMax, running), neighbour);
                assert_eq!(running.count(|shard| shard.violations(Rule::TopicTooLong)), 1);
            },
        ),
        Limit::TopicsMax => (
            |config| config.limits.topics_max = 1,
            |running, neighbour| {
                let _first = running.websocket("/topics/first");
                assert_eq!(running.websocket("/topics/second").close_code(), Some(1013));
                wait(limit_of(Limit::TopicsMax, running), neighbour);
            },
        ),
        Limit::HeartbeatTimeout => (
            |config| (config.limits.heartbeat_interval, config.limits.heartbeat_timeout) = (SOON, SOON),
            |running, neighbour| {
                let _mute = running.websocket("/echo");
                wait(limit_of(Limit::HeartbeatTimeout, running), neighbour);
            },
        ),
        Limit::IdleTimeout => (
            |config| config.limits.idle_timeout = SOON,
            |running, neighbour| {
                let _idle = running.websocket("/echo");
                wait(limit_of(Limit::IdleTimeout, running), neighbour);
            },
        ),
        Limit::MailboxCapacity => (
            |config| (config.shards, config.limits.mailbox_capacity) = (2, 1),
            |running, neighbour| {
                // On which shard they are is the kernel's choice: some are not on the topic's.
                let mut publishers: Vec<_> = (0..16).map(|_| running.websocket("/topics/busy?echo=0")).collect();
                let many = masked(FIN | TEXT, b"news").repeat(100);
                publishers.iter_mut().for_each(|publisher| publisher.send_raw(&many));
                wait(limit_of(Limit::MailboxCapacity, running), neighbour);
            },
        ),
    }
}

fn limit_of(limit: Limit, running: &Running) -> impl Fn() -> bool {
    move || running.count(|shard| shard.struck(limit)) > 0
}

/// Until it has struck, with the neighbour well.
fn wait(struck: impl Fn() -> bool, neighbour: &mut Neighbour) {
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
fn publish(running: &Running, path: &str, struck: impl Fn() -> bool, neighbour: &mut Neighbour) {
    let _slow = Client::with_small_window(running.at[0]).upgraded(path, "");
    let publisher = running.websocket("/topics/busy?echo=0");
    push(publisher, &masked(FIN | TEXT, &[b'x'; 1000]), struck, neighbour);
}

#[test]
fn every_limit_strikes_and_is_counted() {
    thread::scope(|scope| {
        for &limit in Limit::ALL {
            let (adjust, run_into_it) = case(limit);
            let named = thread::Builder::new().name(limit.label().to_owned());
            named.spawn_scoped(scope, move || beside_a_neighbour(adjust, run_into_it)).unwrap();
        }
    });
}
