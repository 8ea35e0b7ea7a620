//! The cluster's thread against a real nats-server, through the queues that shards have.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/nats.rs"]
mod nats;
#[path = "cluster/node.rs"]
mod node;
#[path = "common/program.rs"]
mod program;
#[path = "cluster/secured.rs"]
mod secured;
#[path = "cluster/serving.rs"]
mod serving;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use holdline::cluster::names::Names;
use holdline::cluster::port::{Appended, Inbound, NodeId, NotAppended, Outbound, Said};
use holdline::mailbox::Doorbell;
use holdline::message::{Cursor, Epoch, Kind, Message, Offset};
use holdline::metrics::ClusterMetrics;
use holdline::server::cluster::{ClusterError, Clustering, Settings};

use nats::Nats;
use node::{Node, PATIENCE, settings, text, topic};

#[test]
fn plain_messages_reach_those_who_follow_and_nobody_else() {
    let nats = Nats::start();
    let (mut a, mut b, mut c) =
        (Node::connected(1, &nats.url), Node::connected(2, &nats.url), Node::connected(3, &nats.url));
    let follows = [a.hear("room/1"), b.hear("room/1")];
    c.hear("room/2");
    for number in 1..=3 {
        let message = Message::new(topic("room/1"), Kind::Text, format!("{number}").as_bytes(), None);
        a.say(Outbound::Say(message, Said { life: Epoch(7), number }));
    }
    a.say(Outbound::SaidSoFar(topic("room/1"), Said { life: Epoch(7), number: 5 }));
    for number in [1, 2, 3, 5] {
        match b.next() {
            Inbound::Heard { follow, node, said, message } => {
                assert_eq!((follow, node, said), (follows[1], a.id, Said { life: Epoch(7), number }));
                assert_eq!(message.as_ref().map(text), (number < 5).then(|| number.to_string()));
            }
            other => panic!("{other:?}"),
        }
    }
    // Binary, and with a name that NATS would not have.
    let odd = "a *.>/ü";
    let follow = b.hear(&odd.replace(' ', "_"));
    let message = Message::new(topic(&odd.replace(' ', "_")), Kind::Binary, &[0, 255], None);
    a.say(Outbound::Say(message, Said { life: Epoch(7), number: 1 }));
    let heard = b.until("it", |what| match what {
        Inbound::Heard { follow: of, message: Some(message), .. } if *of == follow => Some(message.clone()),
        _ => None,
    });
    assert_eq!((heard.kind(), heard.payload()), (Kind::Binary, &[0_u8, 255][..]));
    a.say(Outbound::Whisper(topic("room/1"), [1, 2].into()));
    b.until("a whisper", |what| match what {
        Inbound::Whispered(follow, node, bytes) => {
            assert_eq!((*follow, *node, &bytes[..]), (follows[1], NodeId(1), &[1, 2][..]));
            Some(())
        }
        _ => None,
    });
    // Who follows no more hears no more; others, and who said it himself, have heard nothing.
    b.say(Outbound::Unfollow(follows[1]));
    b.hear("room/3");
    let message = Message::new(topic("room/1"), Kind::Text, b"late", None);
    a.say(Outbound::Say(message, Said { life: Epoch(7), number: 6 }));
    let message = Message::new(topic("room/3"), Kind::Text, b"marker", None);
    a.say(Outbound::Say(message, Said { life: Epoch(7), number: 1 }));
    match b.next() {
        Inbound::Heard { message: Some(message), .. } => assert_eq!(text(&message), "marker"),
        other => panic!("{other:?}"),
    }
    for silent in [&mut a, &mut c] {
        while let Some(heard) = silent.end.inbound.try_recv() {
            assert!(matches!(heard, Inbound::Came(_) | Inbound::Renew), "{heard:?}");
        }
    }
}

#[test]
fn nodes_know_of_each_other_until_they_leave() {
    let nats = Nats::start();
    let (mut a, mut b) = (Node::connected(1, &nats.url), Node::connected(2, &nats.url));
    assert_eq!((a.news_of_nodes(), b.news_of_nodes()), ((NodeId(2), true), (NodeId(1), true)));
    a.clustering.end();
    assert_eq!(b.news_of_nodes(), (NodeId(1), false), "it said so");
    // What a node says of its own members is said again once in a lease.
    while !matches!(b.next_of_all(), Inbound::Renew) {}
}

#[test]
fn a_durable_topic_has_one_order_and_a_past_everywhere() {
    let nats = Nats::start();
    let (mut a, mut b) = (Node::connected(1, &nats.url), Node::connected(2, &nats.url));
    // Who only listens makes no stream.
    let (past, start) = a.join("orders/1");
    assert_eq!((past, start), (vec![], Cursor { epoch: Epoch(0), offset: Offset(0) }));
    for ticket in 1..=300 {
        a.append(2 * ticket, "orders/1", &format!("a{ticket}"), None);
        b.append(2 * ticket, "orders/1", &format!("b{ticket}"), None);
    }
    let order: Vec<_> = (0..600).map(|_| a.placed()).collect();
    assert!(order.iter().map(|(offset, _)| *offset).eq(1..=600), "offsets are the stream's");
    for node in ["a", "b"] {
        let own: Vec<_> = order.iter().filter_map(|(_, said)| said.strip_prefix(node)?.parse::<u32>().ok()).collect();
        assert!(own.into_iter().eq(1..=300_u32), "a publisher's order holds");
    }
    for ticket in 1..=300_u64 {
        let Appended { cursor, duplicate } = b.appended(2 * ticket).unwrap();
        assert!(cursor.epoch > start.epoch && !duplicate);
        assert_eq!(order[usize::try_from(cursor.offset.0).unwrap() - 1].1, format!("b{ticket}"));
    }
    // Who joins later has the same past under the same epoch, as much as is kept.
    let (past, cursor) = b.join("orders/1");
    assert_eq!((past, cursor.offset), (order, Offset(600)));
    // What is published with a key again is the same message.
    a.append(1, "orders/1", "once", Some("key"));
    b.append(1, "orders/1", "once", Some("key"));
    let two = [a.appended(1).unwrap(), b.appended(1).unwrap()];
    assert_eq!((two[0].cursor, two[1].cursor.offset), (two[1].cursor, Offset(601)));
    assert_eq!(two.iter().filter(|one| one.duplicate).count(), 1);
    assert_eq!((a.placed().0, b.placed().0), (601, 601));
    // What NATS does not take is refused, and nothing else.
    a.append(3, "orders/1", &"x".repeat(2 << 20), None);
    a.append(5, "orders/1", "small", None);
    assert_eq!(a.appended(3), Err(NotAppended::TooLarge));
    assert_eq!((a.appended(5).unwrap().cursor.offset, a.placed().0), (Offset(602), 602));
}

#[test]
fn a_nats_that_goes_and_comes_back_leaves_no_gap() {
    let mut nats = Nats::start();
    let (mut a, mut b) = (Node::connected(1, &nats.url), Node::connected(2, &nats.url));
    b.join("orders/1");
    let plain = b.hear("room/1");
    a.append(1, "orders/1", "before", None);
    a.appended(1).unwrap();
    assert_eq!(b.placed(), (1, "before".to_owned()));
    nats.stop();
    for node in [&mut a, &mut b] {
        node.until("the end", |what| matches!(what, Inbound::Away).then_some(()));
    }
    a.append(2, "orders/1", "refused", None);
    assert_eq!(a.appended(2), Err(NotAppended::Away));
    nats.start_again();
    for node in [&mut a, &mut b] {
        node.until("a connection", |what| matches!(what, Inbound::Connected { .. }).then_some(()));
    }
    // Its memory is gone, and so is the stream: that is told.
    b.first("that plain messages may be lost", |what| match what {
        Inbound::Lost(follow, None) => (*follow == plain).then_some(()),
        _ => None,
    });
    b.first("that the stream is lost", |what| match what {
        Inbound::Lost(_, Some(cursor)) => (*cursor == Cursor { epoch: Epoch(0), offset: Offset(0) }).then_some(()),
        _ => None,
    });
    let deadline = Instant::now() + PATIENCE;
    loop {
        a.append(3, "orders/1", "after", None);
        match a.appended(3) {
            Ok(appended) => break assert_eq!(appended.cursor.offset, Offset(1)),
            Err(_) => assert!(Instant::now() < deadline),
        }
    }
    assert_eq!(b.placed(), (1, "after".to_owned()));
}

/// Says something to NATS that is no node's, and waits until it is taken.
fn say_raw(nats: &Nats, commands: &[u8]) {
    let mut raw = TcpStream::connect(nats.url.strip_prefix("nats://").unwrap()).unwrap();
    raw.set_read_timeout(Some(PATIENCE)).unwrap();
    raw.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n").unwrap();
    raw.write_all(commands).unwrap();
    raw.write_all(b"PING\r\n").unwrap();
    let mut said = BufReader::new(raw).lines().map(Result::unwrap);
    assert!(said.any(|line| line == "PONG"), "NATS takes it");
}

/// A publication with headers, as it goes over the wire.
fn with_headers(subject: &str, headers: &str, payload: &[u8]) -> Vec<u8> {
    let headers = format!("NATS/1.0\r\n{headers}\r\n\r\n");
    let first = format!("HPUB {subject} {} {}\r\n{headers}", headers.len(), headers.len() + payload.len());
    [first.as_bytes(), payload, b"\r\n"].concat()
}

#[test]
fn somebody_who_listens_to_everything_changes_nothing() {
    let mut nats = Nats::start();
    let listen = |nats: &Nats| {
        let mut raw = TcpStream::connect(nats.url.strip_prefix("nats://").unwrap()).unwrap();
        raw.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB > 1\r\nPING\r\n").unwrap();
        BufReader::new(raw.try_clone().unwrap()).lines().map(Result::unwrap).find(|line| line == "PONG").unwrap();
        raw
    };
    let _listener = listen(&nats);
    let (mut a, mut b) = (Node::connected(1, &nats.url), Node::connected(2, &nats.url));
    let follow = b.hear("room/1");
    nats.stop();
    a.until("the end", |what| matches!(what, Inbound::Away).then_some(()));
    nats.start_again();
    let _listener = listen(&nats);
    a.until("a connection", |what| matches!(what, Inbound::Connected { .. }).then_some(()));
    b.first("that something may be lost", |what| matches!(what, Inbound::Lost(..)).then_some(()));
    let message = Message::new(topic("room/1"), Kind::Text, b"on", None);
    a.say(Outbound::Say(message, Said { life: Epoch(7), number: 1 }));
    b.first("it", |what| match what {
        Inbound::Heard { follow: of, message: Some(message), .. } => (*of == follow).then(|| text(message)),
        _ => None,
    });
}

#[test]
fn what_is_no_nodes_is_dropped_or_has_its_place() {
    let nats = Nats::start();
    let mut a = Node::connected(0xa, &nats.url);
    let plain = a.hear("room/1");
    a.join("orders/1");
    let foreign = [
        b"PUB test.t.room.1 5\r\nhello\r\n".to_vec(),
        with_headers("test.t.room.1", "Holdline: ", b"x"),
        with_headers("test.t.room.1", "Holdline: zz t 1 - 1:1", b"x"),
        with_headers("test.t.room.1", "Holdline: b t 1 - -", b"without a number"),
        with_headers("test.t.room.1", "Holdline: a t 1 - 1:1", b"says that it is this node"),
        with_headers("test.t.room.1", &format!("Holdline: b t 1 - 1:1 {}", "x".repeat(5000)), b"long"),
        with_headers("test.w.room.1", "Holdline: b - 0 - -", &vec![7; 100_000]),
        b"PUB test.w.room.1 1\r\nx\r\n".to_vec(),
        b"PUB test.o.orders.1 1\r\nx\r\n".to_vec(),
        with_headers("test.o.orders.1", "Nats-Sequence: -7", b"x"),
        // What is good comes behind all that; text that is none is told as what it is.
        with_headers("test.t.room.1", "Holdline: b t 1 0.1 9:1", b"\xff"),
    ];
    say_raw(&nats, &foreign.concat());
    match a.next() {
        Inbound::Heard { follow, node, said, message: Some(message) } => {
            assert_eq!((follow, node, said), (plain, NodeId(0xb), Said { life: Epoch(9), number: 1 }));
            assert_eq!((message.kind(), message.payload(), message.publisher), (Kind::Binary, &b"\xff"[..], None));
        }
        other => panic!("{other:?}"),
    }
    // Who writes into a stream has a place there, and so it is a message.
    a.append(1, "orders/1", "own", None);
    a.appended(1).unwrap();
    say_raw(&nats, b"PUB test.d.orders.1 5\r\nhello\r\n");
    assert_eq!([a.placed(), a.placed()], [(1, "own".to_owned()), (2, "hello".to_owned())]);
    // A number that the stream does not have is none of its messages, and nothing is lost.
    say_raw(&nats, &with_headers("test.o.orders.1", "Nats-Sequence: 9223372036854775807", b"x"));
    say_raw(&nats, &with_headers("test.o.orders.1", "Nats-Sequence: 3", b"x"));
    a.append(2, "orders/1", "on", None);
    assert_eq!(a.placed(), (3, "on".to_owned()));
    assert!(a.aside.iter().all(|what| !matches!(what, Inbound::Lost(..))), "{:?}", a.aside);
}

#[test]
fn a_stream_that_is_deleted_is_made_anew_and_nothing_of_both_is_mixed() {
    let nats = Nats::start();
    let (mut a, mut b) = (Node::connected(1, &nats.url), Node::connected(2, &nats.url));
    let (_, mut start) = b.join("orders/1");
    for ticket in 1..=3 {
        a.append(ticket, "orders/1", "before", None);
        let cursor = a.appended(ticket).unwrap().cursor;
        assert!(cursor.offset == Offset(ticket) && cursor.epoch >= start.epoch);
        start = cursor;
        assert_eq!(b.placed().0, ticket);
    }
    let name = Names::new("test").stream(&topic("orders/1"));
    say_raw(&nats, format!("PUB $JS.API.STREAM.DELETE.{name} none 0\r\n\r\n").as_bytes());
    // The publisher is told that it has failed until there is one again.
    let (deadline, mut ticket) = (Instant::now() + PATIENCE, 10);
    let first = loop {
        ticket += 1;
        a.append(ticket, "orders/1", "after", None);
        match a.appended(ticket) {
            Ok(appended) => break appended.cursor,
            Err(why) => assert!(why == NotAppended::Away && Instant::now() < deadline, "{why:?}"),
        }
    };
    assert!(first.epoch > start.epoch && first.offset == Offset(1), "{first:?}");
    let lost = b.first("that the stream is another one", |what| match what {
        Inbound::Lost(_, cursor) => *cursor,
        _ => None,
    });
    // All that it has is told.
    assert_eq!(lost, Cursor { offset: Offset(0), ..first });
    a.append(100, "orders/1", "and on", None);
    assert_eq!(a.appended(100).unwrap().cursor, Cursor { offset: Offset(2), ..first });
    assert_eq!([b.placed(), b.placed()], [(1, "after".to_owned()), (2, "and on".to_owned())]);
}

#[test]
fn numbers_that_nats_gives_again_have_another_epoch() {
    // Whether something is published before anybody has looked, or after.
    for is_early in [false, true] {
        let mut nats = Nats::start();
        let url = nats.url.clone();
        let on_disk = |number| {
            let mut node = Node::with(number, Settings { in_memory: false, ..settings(&url) });
            node.until("a connection", |what| matches!(what, Inbound::Connected { .. }).then_some(()));
            node
        };
        let (mut a, mut b) = (on_disk(1), on_disk(2));
        b.join("orders/1");
        for ticket in 1..=2 {
            a.append(ticket, "orders/1", "kept", None);
            a.appended(ticket).unwrap();
            assert_eq!(b.placed(), (ticket, "kept".to_owned()));
        }
        nats.end();
        nats.copy_store(false);
        nats.start_again();
        let (deadline, mut ticket) = (Instant::now() + PATIENCE, 2);
        let lost = loop {
            ticket += 1;
            a.append(ticket, "orders/1", "lost", None);
            match a.appended(ticket) {
                Ok(appended) => break appended.cursor,
                Err(_) => assert!(Instant::now() < deadline),
            }
        };
        assert_eq!((lost.offset, b.placed()), (Offset(3), (3, "lost".to_owned())));
        nats.stop();
        nats.copy_store(true);
        nats.start_again();
        if is_early {
            say_raw(&nats, b"PUB test.d.orders.1 5\r\nother\r\n");
        }
        let cursor = b.first("that something is lost", |what| match what {
            Inbound::Lost(_, cursor) => *cursor,
            _ => None,
        });
        // It begins anew with all that there is.
        assert!(cursor.epoch > lost.epoch && cursor.offset == Offset(0), "{cursor:?}");
        assert_eq!([b.placed(), b.placed()], [(1, "kept".to_owned()), (2, "kept".to_owned())]);
        if is_early {
            assert_eq!(b.placed(), (3, "other".to_owned()));
        }
        // Publishers are told places of it, and whoever comes later finds the same one.
        let next = 3 + u64::from(is_early);
        a.append(1000, "orders/1", "next", None);
        assert_eq!(a.appended(1000).unwrap().cursor, Cursor { offset: Offset(next), ..cursor });
        assert_eq!(b.placed(), (next, "next".to_owned()));
        let mut c = on_disk(3);
        let (past, at) = c.join("orders/1");
        assert_eq!((at, past.len() as u64), (Cursor { offset: Offset(next), ..cursor }, next));
    }
}

#[test]
fn wrong_credentials_are_told_and_a_nats_that_is_not_there_is_waited_for() {
    let nats = Nats::start_with(&["--user", "ann", "--pass", "right"]);
    let start = |url: &str| {
        let metrics = Arc::<ClusterMetrics>::default();
        Clustering::start(settings(url), NodeId(1), &[Arc::<Doorbell>::default()], metrics).map(drop)
    };
    let wrong = nats.url.replace("://", "://ann:wrong@");
    // On a machine that is busy NATS may close before it has been shown anything: then it counts as away.
    let error = (0..5).find_map(|_| start(&wrong).err()).unwrap();
    assert!(matches!(error, ClusterError::Refused { .. }));
    let line = error.to_string();
    assert!(line.contains("turned this node away") && line.contains("cluster.nats"), "{line}");
    assert!(!line.contains("wrong") && !line.contains("ann"), "no secret is told: {line}");
    drop(Node::connected(1, &nats.url.replace("://", "://ann:right@")));

    let mut late = Nats::start();
    late.stop();
    let mut node = Node::start(1, &late.url);
    node.until("that it is away", |what| matches!(what, Inbound::Away).then_some(()));
    late.start_again();
    node.until("a connection", |what| matches!(what, Inbound::Connected { .. }).then_some(()));
    node.clustering.end();
}
