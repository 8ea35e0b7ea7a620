//! Clients behind a proxy that says who they are, on both backends.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot get what it needs has failed")]

mod common;

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use common::{Client, Neighbour, Running, backends, config, listen, until};
use holdline::app::standard_routes;
use holdline::close::CloseReason;
use holdline::codec::proxy::HEADER_MAX;
use holdline::config::{Config, Networks};
use holdline::rule::{Limit, Rule};

const HTTP: usize = 1;
const LINES: usize = 2;
const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\n";
const REQUEST: &[u8] = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &len, rest].concat()
}

/// The same, of a client at this address.
fn of(client: [u8; 4]) -> Vec<u8> {
    v2(0x21, 0x11, &[&client[..], &[10, 0, 0, 1, 0x30, 0x39, 1, 0xbb]].concat())
}

/// Runs `test` on a server of each backend with a plain listener, and two that are behind a proxy on this machine.
fn behind_a_proxy(adjust: impl Fn(&mut Config), test: impl Fn(&Running)) {
    for backend in backends() {
        let mut config = config(backend, 1);
        config.listeners.push(listen("http://127.0.0.1:0?proxy=on"));
        config.listeners.push(listen("tcp://127.0.0.1:0?framing=line&app=echo&proxy=on"));
        config.proxies = Networks(vec!["127.0.0.1".parse().unwrap()]);
        config.limits.close_timeout = Duration::from_millis(500);
        adjust(&mut config);
        let running = Running::start(&config, standard_routes());
        let mut neighbour = Neighbour::new(&running);
        test(&running);
        neighbour.is_well();
        until("only the neighbour is left", || running.connections() == 1);
    }
}

fn is_served(client: &mut Client) {
    client.send_raw(REQUEST);
    assert_eq!(client.answer().status, 200);
}

/// The end comes without a word: a reset, or nothing.
fn is_turned_off(mut client: Client) {
    let mut said = Vec::new();
    let _ = client.stream.read_to_end(&mut said);
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn a_header_of_either_version_goes_before_everything() {
    behind_a_proxy(
        |_| {},
        |running| {
            let headers =
                [LINE.to_vec(), b"PROXY UNKNOWN\r\n".to_vec(), of([192, 0, 2, 1]), v2(0x20, 0, &[]), v2(0x21, 0, &[])];
            for header in headers {
                let mut client = running.connect(HTTP);
                client.send_raw(&header);
                is_served(&mut client);
                is_served(&mut client);
                let mut lines = running.connect(LINES);
                lines.send_raw(&[&header[..], b"one\ntwo\n"].concat());
                assert_eq!((lines.line().as_deref(), lines.line().as_deref()), (Some("one"), Some("two")));
            }
            let mut client = running.connect(HTTP);
            client.send_raw(&of([192, 0, 2, 1]));
            let mut client = client.upgraded("/echo", "");
            client.send_text("hello");
            assert_eq!(client.text(), "hello");
        },
    );
}

#[test]
fn a_header_in_pieces_is_put_together() {
    behind_a_proxy(
        |_| {},
        |running| {
            let long = v2(0x21, 0x11, &[&[192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 1, 0xbb][..], &[7; 3000]].concat());
            for (header, piece) in [(LINE, 1), (LINE, 7), (&*of([192, 0, 2, 1]), 1), (&*long, 1000)] {
                let mut client = running.connect(HTTP);
                for bytes in [header, REQUEST].concat().chunks(piece) {
                    client.send_raw(bytes);
                    thread::sleep(Duration::from_millis(1));
                }
                assert_eq!(client.answer().status, 200);
            }
        },
    );
}

#[test]
fn what_is_no_header_is_turned_off_and_counted() {
    behind_a_proxy(
        |_| {},
        |running| {
            let cases: [(&[u8], Rule); 5] = [
                (REQUEST, Rule::ProxyMissing),
                (b"\x16\x03\x01\x02\x00\x01\x00", Rule::ProxyMissing),
                (b"PROXY TCP4 192.0.2.1 10.0.0.1 12345\r\n", Rule::ProxyMalformed),
                (&v2(0x21, 0x12, &[0; 12]), Rule::ProxyMalformed),
                (&v2(0x21, 0x11, &[0; HEADER_MAX])[..16], Rule::ProxyTooLong),
            ];
            let mut seen = 0;
            for listener in [HTTP, LINES] {
                for (bytes, rule) in cases {
                    let before = running.count(|shard| shard.violations(rule));
                    let mut client = running.connect(listener);
                    client.try_send_raw(bytes);
                    is_turned_off(client);
                    assert_eq!(running.count(|shard| shard.violations(rule)), before + 1, "{rule:?}");
                    seen += 1;
                }
            }
            assert_eq!(running.closed(CloseReason::BadHandshake), seen);
        },
    );
}

#[test]
fn a_header_that_does_not_come_has_the_time_of_a_handshake() {
    let adjust = |config: &mut Config| config.limits.handshake_timeout = Duration::from_millis(300);
    behind_a_proxy(adjust, |running| {
        for listener in [HTTP, LINES] {
            let mut client = running.connect(listener);
            client.send_raw(&LINE[..20]);
            client.end();
        }
        assert_eq!(running.count(|shard| shard.struck(Limit::HandshakeTimeout)), 2);
        // Whoever leaves before it has come leaves nothing behind.
        for _ in 0..50 {
            let mut client = running.connect(HTTP);
            client.send_raw(&LINE[..20]);
        }
    });
}

#[test]
fn others_may_not_speak_for_anybody() {
    behind_a_proxy(
        |_| {},
        |running| {
            let mut stranger = Client::connect_from(Ipv4Addr::new(127, 0, 0, 9), running.at[HTTP]);
            let _ = stranger.stream.write_all(&[LINE, REQUEST].concat());
            is_turned_off(stranger);
            assert_eq!(running.count(|shard| shard.violations(Rule::ProxyUntrusted)), 1);
            assert_eq!(running.count(|shard| shard.refused_total.get()), 1);
            is_served(&mut Client::connect_from(Ipv4Addr::new(127, 0, 0, 9), running.at[0]));
        },
    );
}

#[test]
fn limits_are_the_clients_and_not_the_proxys() {
    let adjust = |config: &mut Config| {
        config.limits.exempt = Networks::default();
        config.limits.connections_per_address_max = 3;
    };
    behind_a_proxy(adjust, |running| {
        let from = |client: [u8; 4]| {
            let mut connection = running.connect(HTTP);
            connection.send_raw(&of(client));
            connection
        };
        let mut many: Vec<_> = (0..30).map(|number| from([192, 0, 2, number / 3]).upgraded("/echo", "")).collect();
        let mut late = from([192, 0, 2, 0]);
        late.send_raw(REQUEST);
        let answer = late.answer();
        assert_eq!(answer.status, 429, "{}", answer.head);
        assert!(answer.head.contains("Retry-After: "), "{}", answer.head);
        late.end();
        let mut late = running.connect(LINES);
        late.send_raw(&of([192, 0, 2, 0]));
        assert_eq!(late.line(), None, "a clean end");
        assert_eq!(running.count(|shard| shard.struck(Limit::ConnectionsPerAddressMax)), 2);
        assert_eq!(running.count(|shard| shard.refused_total.get()), 2);
        drop(many.remove(0));
        until("one has gone", || running.connections() == 30);
        many.push(from([192, 0, 2, 0]).upgraded("/echo", ""));
        // The proxy's own words count at its own address.
        let mut checks: Vec<_> = (0..2).map(|_| running.connect(HTTP)).collect();
        checks.iter_mut().for_each(|check| {
            check.send_raw(&v2(0x20, 0, &[]));
            is_served(check);
        });
    });
}
