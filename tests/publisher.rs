//! Publishing from threads of the program, beside the server's clients.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;

use std::thread;
use std::time::Duration;

use common::wire::{BINARY, CLOSE, FIN};
use common::{Client, Running, backends, config, until};
use holdline::app::standard_routes;
use holdline::config::BackendChoice;
use holdline::message::{Kind, Topic};
use holdline::server::PublishError;

fn topic() -> Topic {
    Topic::parse(b"news", Topic::BYTES_MAX).unwrap()
}

fn running(backend: BackendChoice, mailbox_capacity: usize) -> Running {
    let mut config = config(backend, 2);
    config.limits.mailbox_capacity = mailbox_capacity;
    config.limits.queue_bytes_max = 16 * 1024 * 1024;
    Running::start(&config, standard_routes())
}

/// Clients of the topic that hear all that is published from now on.
fn subscribers(running: &Running, count: usize) -> Vec<Client> {
    let mut clients: Vec<_> = (0..count).map(|_| running.websocket("/topics/news")).collect();
    for client in &mut clients {
        client.send_text("I am here");
        while client.text() != "I am here" {}
    }
    clients.iter_mut().for_each(|client| client.send_text("all are here"));
    for client in &mut clients {
        (0..count).for_each(|_| while client.text() != "all are here" {});
    }
    clients
}

#[test]
fn all_subscribers_hear_it_in_one_order_with_what_clients_publish() {
    const EACH: usize = 200;
    for backend in backends() {
        let running = running(backend, 8192);
        let mut clients = subscribers(&running, 4);
        let mut voice = running.websocket("/topics/news?echo=0");
        let publisher = running.server.publisher();
        // It stays until all is heard: who leaves with messages unread resets the connection, and may take its own along.
        let speak = &mut voice;
        thread::scope(|scope| {
            for name in ["a", "b"] {
                let publisher = publisher.clone();
                scope.spawn(move || {
                    for number in 0..EACH {
                        publisher.publish(&topic(), Kind::Text, format!("{name} {number}").as_bytes()).unwrap();
                    }
                });
            }
            scope.spawn(move || (0..EACH).for_each(|number| speak.send_text(&format!("c {number}"))));
        });
        let heard: Vec<Vec<String>> =
            clients.iter_mut().map(|client| (0..3 * EACH).map(|_| client.text()).collect()).collect();
        assert!(heard.windows(2).all(|pair| pair[0] == pair[1]), "one order for all");
        for name in ["a ", "b ", "c "] {
            let numbers = heard[0].iter().filter_map(|text| text.strip_prefix(name)?.parse::<usize>().ok());
            assert!(numbers.eq(0..EACH), "each publisher's own order");
        }
        publisher.publish(&topic(), Kind::Binary, b"\xff").unwrap();
        assert_eq!(clients[0].message().unwrap().first, FIN | BINARY);
    }
}

#[test]
fn it_never_waits_and_what_is_taken_is_published() {
    for backend in backends() {
        let running = running(backend, 2);
        let mut client = subscribers(&running, 1).remove(0);
        let before = running.count(|shard| shard.publications_total.get());
        let publisher = running.server.publisher();
        let (mut taken, mut full) = (0, 0);
        while (full == 0 || taken < 100) && full < 100_000_000 {
            match publisher.publish(&topic(), Kind::Text, taken.to_string().as_bytes()) {
                Ok(()) => taken += 1,
                Err(error) => {
                    assert_eq!(error, PublishError::Full);
                    full += 1;
                }
            }
        }
        (0..taken).for_each(|number| assert_eq!(client.text(), number.to_string()));
        until("all are counted", || running.count(|shard| shard.publications_total.get()) == before + taken);
    }
}

#[test]
fn it_works_during_the_drain_and_not_after_the_end() {
    for backend in backends() {
        let running = running(backend, 8192);
        let mut client = subscribers(&running, 1).remove(0);
        let publisher = running.server.publisher();
        running.server.drain(Duration::from_secs(2));
        publisher.publish(&topic(), Kind::Text, b"we are closing").unwrap();
        assert_eq!(client.text(), "we are closing");
        assert_eq!(client.close_code(), Some(1001));
        client.send_frame(FIN | CLOSE, &1001_u16.to_be_bytes());
        running.server.wait().unwrap();
        assert_eq!(publisher.publish(&topic(), Kind::Text, b"anyone?"), Err(PublishError::Ended));
        drop(running);
        assert_eq!(publisher.publish(&topic(), Kind::Text, b"anyone?"), Err(PublishError::Ended));
    }
}

#[test]
fn messages_have_the_limit_of_all_messages() {
    for backend in backends() {
        let running = running(backend, 8192);
        let (publisher, limit) = (running.server.publisher(), 1024 * 1024);
        assert_eq!(publisher.publish(&topic(), Kind::Binary, &vec![0; limit]), Ok(()));
        let refused = publisher.publish(&topic(), Kind::Binary, &vec![0; limit + 1]);
        assert_eq!(refused, Err(PublishError::TooBig(limit + 1, limit)));
    }
}
