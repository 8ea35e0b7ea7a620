//! Connections that are turned away: they hear why in time, however many they are, and nobody else notices.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use holdline::app::standard_routes;
use holdline::config::Config;
use holdline::rule::Limit;

use crate::beside_a_neighbour;
use crate::common::wire::handshake;
use crate::common::{Client, Running, backends, config, listen, until};

const LINES: usize = 1;

/// Room for the neighbour alone.
fn full(config: &mut Config) {
    config.listeners.push(listen("tcp://127.0.0.1:0?framing=line&app=echo"));
    config.limits.connections_max = 1;
}

/// All that comes until the end, which is no reset.
fn all_of(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn is_reset(mut stream: &TcpStream) -> bool {
    stream.read_to_end(&mut Vec::new()).is_err()
}

fn is_refusal(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    let retry = answer.lines().find_map(|line| line.strip_prefix("Retry-After: ")).unwrap();
    assert!((1..=5).contains(&retry.parse().unwrap()), "{retry} s");
    assert!(answer.contains("\r\nConnection: close\r\n") && answer.contains("{\"error\":{\"code\":\"unavailable\","));
}

#[test]
fn an_http_client_hears_that_it_is_turned_away_and_when_to_come_back() {
    beside_a_neighbour(full, |running, _| {
        for piece in [1, 20, 1000] {
            let mut client = running.connect(0);
            handshake("/echo", "").as_bytes().chunks(piece).for_each(|bytes| client.send_raw(bytes));
            is_refusal(&all_of(&client.stream));
        }
        assert_eq!(running.count(|shard| shard.struck(Limit::ConnectionsMax)), 3);
        assert_eq!(running.count(|shard| shard.refused_total.get()), 3);
        assert_eq!((running.connections(), running.count(|shard| shard.accepted_total.get())), (1, 1));
    });
}

#[test]
fn a_client_that_says_nothing_is_told_and_does_not_stay() {
    beside_a_neighbour(full, |running, neighbour| {
        let (begin, client) = (Instant::now(), running.connect(0));
        client.stream.set_nonblocking(true).unwrap();
        let mut first = [0; 4096];
        let read = loop {
            match (&client.stream).read(&mut first) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => neighbour.is_well(),
                read => break read.unwrap(),
            }
        };
        is_refusal(std::str::from_utf8(&first[..read]).unwrap());
        assert!(begin.elapsed() < Duration::from_secs(10));
        // It does not close its end either, which costs it the connection: what it sends finds nobody.
        let deadline = Instant::now() + Duration::from_secs(10);
        while (&client.stream).write(b"x").is_ok() {
            assert!(Instant::now() < deadline, "it is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn a_raw_client_gets_a_clean_end_though_it_has_sent_something() {
    beside_a_neighbour(full, |running, _| {
        for _ in 0..20 {
            let mut client = running.connect(LINES);
            client.send_raw(b"hello\n");
            assert_eq!(all_of(&client.stream), "");
        }
        until("all are counted", || running.count(|shard| shard.refused_total.get()) == 20);
    });
}

#[test]
fn a_storm_of_them_is_bounded_and_the_rest_is_reset() {
    beside_a_neighbour(full, |running, neighbour| {
        // The reset may be there before `connect` has returned.
        let crowd: Vec<_> = (0..1000).map(|_| TcpStream::connect(running.at[0])).collect();
        until("all are counted", || running.count(|shard| shard.refused_total.get()) == 1000);
        neighbour.is_well();
        let was_reset = |client: &std::io::Result<TcpStream>| match client {
            Ok(client) => is_reset(client),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        let reset = crowd.iter().filter(|client| was_reset(client)).count();
        assert!((100..1000).contains(&reset), "{reset} were reset");
        drop(crowd);
        until("there is a place again", || {
            let mut late = running.connect(0);
            late.try_send_raw(handshake("/echo", "").as_bytes());
            late.stream.read_exact(&mut [0; 12]).is_ok()
        });
    });
}

#[test]
fn more_than_the_rate_are_turned_away_and_taken_in_later() {
    let adjust = |config: &mut Config| config.limits.accept_rate = 5;
    beside_a_neighbour(adjust, |running, _| {
        let status = |client: &mut Client| {
            client.send_raw(handshake("/echo", "").as_bytes());
            client.answer().status
        };
        let statuses: Vec<u16> = (0..20).map(|_| status(&mut running.connect(0))).collect();
        let taken = statuses.iter().filter(|&&status| status == 101).count();
        assert!((4..16).contains(&taken) && statuses.contains(&503), "{statuses:?}");
        until("there is room again", || status(&mut running.connect(0)) == 101);
        assert!(running.count(|shard| shard.struck(Limit::AcceptRate)) >= 4);
    });
}

#[test]
fn without_memory_nobody_is_let_in() {
    for backend in backends() {
        let mut config = config(backend, 1);
        config.limits.memory_free_bytes_min = 1 << 50;
        let running = Running::start(&config, standard_routes());
        until("it notices", || {
            let mut client = running.connect(0);
            client.send_raw(handshake("/echo", "").as_bytes());
            client.answer().status == 503
        });
        assert!(running.count(|shard| shard.struck(Limit::MemoryFreeBytesMin)) > 0);
        assert!(running.count(|shard| shard.struck(Limit::ConnectionsMax)) == 0);
    }
}
