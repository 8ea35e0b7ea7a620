//! One address that wants too much: it is held back or turned away, and nobody elsewhere notices.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use holdline::config::{Config, Networks, OverRate};
use holdline::rule::Limit;

use crate::beside_a_neighbour;
use crate::common::wire::{FIN, TEXT, handshake, masked};
use crate::common::{Client, Running, until};

/// Where the crowd comes from; the neighbour is at 127.0.0.1.
const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn from_crowd(running: &Running) -> Client {
    Client::connect_from(CROWD, running.at[0])
}

/// Counts addresses of this machine too.
fn strict(config: &mut Config) {
    config.limits.exempt = Networks::default();
}

fn refused(limit: Limit, running: &Running) -> u64 {
    running.count(|shard| shard.struck(limit))
}

#[test]
fn an_address_has_so_many_connections_and_no_more() {
    let adjust = |config: &mut Config| {
        strict(config);
        config.limits.connections_per_address_max = 5;
    };
    beside_a_neighbour(adjust, |running, neighbour| {
        let mut crowd: Vec<_> = (0..5).map(|_| from_crowd(running).upgraded("/echo", "")).collect();
        for _ in 0..10 {
            let mut late = from_crowd(running);
            late.send_raw(handshake("/echo", "").as_bytes());
            let answer = late.answer();
            assert_eq!(answer.status, 429, "{}", answer.head);
            assert!(answer.head.contains("Retry-After: "), "{}", answer.head);
            neighbour.is_well();
        }
        assert_eq!(refused(Limit::ConnectionsPerAddressMax, running), 10);
        crowd.pop();
        until("one has gone", || running.connections() == 5);
        crowd.push(from_crowd(running).upgraded("/echo", ""));
    });
}

#[test]
fn half_requests_of_one_address_leave_room_for_others() {
    let adjust = |config: &mut Config| {
        strict(config);
        config.limits.handshakes_per_address_max = 4;
        config.limits.connections_max = 6;
    };
    beside_a_neighbour(adjust, |running, neighbour| {
        let mut slow: Vec<_> = (0..4).map(|_| from_crowd(running)).collect();
        slow.iter_mut().for_each(|client| client.send_raw(b"GET /echo HTTP/1.1\r\nHost: a\r\n"));
        until("they are in", || running.connections() == 5);
        let more: Vec<_> = (0..20).map(|_| from_crowd(running)).collect();
        until("the others are refused", || refused(Limit::HandshakesPerAddressMax, running) == 20);
        drop(running.websocket("/echo"));
        neighbour.is_well();
        // Whoever has said all it had to is no handshake any more.
        let mut first = slow.remove(0);
        first.send_raw(b"\r\n");
        assert_eq!(first.answer().status, 426);
        until("its place is free", || running.connections() == 4);
        drop(from_crowd(running).upgraded("/echo", ""));
        drop(more);
    });
}

#[test]
fn an_address_comes_so_often_and_no_more() {
    let adjust = |config: &mut Config| {
        strict(config);
        config.limits.accept_rate_per_address = 10;
    };
    beside_a_neighbour(adjust, |running, neighbour| {
        let begin = Instant::now();
        let crowd: Vec<_> = (0..100).map(|_| from_crowd(running)).collect();
        until("all are in or refused", || refused(Limit::AcceptRatePerAddress, running) + running.connections() == 101);
        let seconds = begin.elapsed().as_secs() + 1;
        assert!(running.connections() <= 1 + 10 + 10 * seconds, "{}", running.connections());
        neighbour.is_well();
        drop(crowd);
    });
}

#[test]
fn requests_beyond_the_rate_are_answered_with_429() {
    let adjust = |config: &mut Config| {
        strict(config);
        config.limits.request_rate_per_address = 3;
    };
    beside_a_neighbour(adjust, |running, neighbour| {
        let mut statuses = Vec::new();
        for _ in 0..12 {
            let mut client = from_crowd(running);
            client.send_raw(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            let answer = client.answer();
            if answer.status == 429 {
                assert!(answer.head.contains("\r\nRetry-After: 1\r\n"), "{}", answer.head);
            }
            statuses.push(answer.status);
            neighbour.is_well();
        }
        assert_eq!(&statuses[..3], [200; 3], "a second's worth at once");
        assert!(statuses.contains(&429) && statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
        assert!(refused(Limit::RequestRatePerAddress, running) > 0);
    });
}

#[test]
fn who_publishes_with_requests_too_fast_is_read_later_and_answered_all_the_same() {
    let adjust = |config: &mut Config| {
        config.limits.message_rate = 20;
        config.limits.message_rate_policy = OverRate::Close;
    };
    beside_a_neighbour(adjust, |running, neighbour| {
        let mut client = running.connect(0);
        for number in 1..=30 {
            client.send_raw(b"POST /topics/news HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            let answer = client.answer();
            assert_eq!(answer.status, 200, "{number}: {}", answer.head);
        }
        assert!(refused(Limit::MessageRate, running) > 0);
        neighbour.is_well();
    });
}

#[test]
fn who_sends_too_fast_is_read_later_and_loses_nothing() {
    let adjust = |config: &mut Config| {
        config.listeners.push(crate::common::listen("tcp://127.0.0.1:0?framing=line&app=echo"));
        config.limits.message_rate = 100;
    };
    beside_a_neighbour(adjust, |running, neighbour| {
        let begin = Instant::now();
        let (mut fast, mut lines) = (running.websocket("/echo"), running.connect(1));
        for number in 0..250 {
            fast.send_text(&number.to_string());
            lines.send_raw(format!("{number}\n").as_bytes());
        }
        neighbour.is_well();
        for number in 0..250 {
            assert_eq!(fast.text(), number.to_string());
            assert_eq!(lines.line().as_deref(), Some(&*number.to_string()));
        }
        // What was read before is in: the next message waits until the rest of the 250 have been paid for.
        fast.send_text("last");
        assert_eq!(fast.text(), "last");
        assert!(begin.elapsed() > Duration::from_millis(1400), "{:?}", begin.elapsed());
        assert!(refused(Limit::MessageRate, running) >= 2);
    });
}

#[test]
fn who_sends_too_fast_is_closed_where_the_policy_says_so() {
    let adjust = |config: &mut Config| {
        config.limits.message_rate = 10;
        config.limits.message_bytes_rate = 10_000;
        config.limits.message_rate_policy = OverRate::Close;
    };
    beside_a_neighbour(adjust, |running, _| {
        let mut fast = running.websocket("/echo");
        fast.send_raw(&masked(FIN | TEXT, b"again").repeat(11));
        assert_eq!(fast.close_code(), Some(1008));
        let mut large = running.websocket("/echo");
        large.send_binary(&[0; 10_001]);
        assert_eq!(large.close_code(), Some(1008));
        assert_eq!(refused(Limit::MessageRate, running), 1);
        assert_eq!(refused(Limit::MessageBytesRate, running), 1);
    });
}

#[test]
fn an_address_that_comes_too_often_uses_up_nothing_of_the_others() {
    let adjust = |config: &mut Config| {
        strict(config);
        (config.limits.accept_rate, config.limits.accept_rate_per_address) = (60, 10);
        config.limits.refusal_rate_per_address = 0;
    };
    beside_a_neighbour(adjust, |running, neighbour| {
        let crowd: Vec<_> = (0..200).map(|_| from_crowd(running)).collect();
        until("all are in or refused", || refused(Limit::AcceptRatePerAddress, running) + running.connections() == 201);
        drop(running.websocket("/echo"));
        neighbour.is_well();
        assert_eq!(refused(Limit::AcceptRate, running), 0);
        drop(crowd);
    });
}

#[test]
fn who_comes_again_however_often_it_is_refused_is_not_answered_for_a_while() {
    let adjust = |config: &mut Config| {
        strict(config);
        (config.limits.accept_rate_per_address, config.limits.refusal_rate_per_address) = (10, 20);
    };
    beside_a_neighbour(adjust, |running, neighbour| {
        let silenced = || refused(Limit::RefusalRatePerAddress, running);
        let mut friend = from_crowd(running).upgraded("/echo", "");
        let mut come = 0;
        while running.is_answered(CROWD) {
            come += 1;
            assert!(come < 10_000, "always answered");
        }
        let begin = Instant::now();
        assert!(refused(Limit::AcceptRatePerAddress, running) > 20 && silenced() == 1);
        // Nobody else notices, nor who was there before.
        neighbour.is_well();
        friend.send_text("hello");
        assert_eq!(friend.text(), "hello");
        let mut other = Client::connect_from(Ipv4Addr::new(127, 0, 0, 3), running.at[0]).upgraded("/echo", "");
        other.send_text("hello");
        assert_eq!(other.text(), "hello");
        // A second later it is forgiven, and what it may have it gets.
        until("it is answered again", || running.is_answered(CROWD));
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        let mut again = from_crowd(running).upgraded("/echo", "");
        again.send_text("hello");
        assert_eq!(again.text(), "hello");
    });
}
