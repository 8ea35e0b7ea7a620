//! Allocations per message.

use std::io::{Read, Write};

use holdline::app::standard_routes;
use holdline::config::{BackendChoice, Limits};

use super::counting::Watch;
use crate::common::wire::{self, BINARY, FIN, OFFER_DEFLATE, RSV1, TEXT};
use crate::common::{Client, Running, backends, config, listen, until};

/// Rounds before the steady state, and rounds that are watched.
const WARM_UP: usize = 300;
const ROUNDS: usize = 500;

/// One client that sends the same bytes again and again and gets the same answers.
struct Loop {
    client: Client,
    request: Vec<u8>,
    answer: Vec<u8>,
    room: Vec<u8>,
}

impl Loop {
    /// Sends `message` so many at a time. The answers are of the length of the first one.
    fn new(mut client: Client, message: &[u8], in_flight: usize, answer_bytes: usize) -> Self {
        client.send_raw(message);
        let answer = client.exactly(answer_bytes).repeat(in_flight);
        Self { client, request: message.repeat(in_flight), room: vec![0; answer.len()], answer }
    }

    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.client.stream.write_all(&self.request).unwrap();
            self.client.stream.read_exact(&mut self.room).unwrap();
            assert!(self.room == self.answer, "an answer differs from the first");
        }
    }
}

/// Echoes of `message`, one and sixteen in flight.
fn assert_echo_is_free(watch: &Watch, what: &str, connect: &dyn Fn() -> Client, message: &[u8], answer_bytes: usize) {
    for in_flight in [1, 16] {
        let mut client = Loop::new(connect(), message, in_flight, answer_bytes);
        client.run(WARM_UP);
        let allocations = watch.allocations(0, || client.run(ROUNDS));
        println!("{what}, {in_flight} in flight: {allocations} allocations in {} echoes", ROUNDS * in_flight);
        assert_eq!(allocations, 0, "{what}, {in_flight} in flight");
    }
}

fn echo_server(backend: BackendChoice) -> Running {
    let mut config = config(backend, 1);
    config.listeners.push(listen("tcp://127.0.0.1:0?framing=line"));
    config.listeners.push(listen("tcp://127.0.0.1:0?framing=length"));
    Running::start(&config, standard_routes())
}

#[test]
fn an_echo_over_websocket_allocates_nothing() {
    let watch = Watch::new();
    for backend in backends() {
        let running = echo_server(backend);
        for (bytes, header) in [(5, 2), (64, 2), (1024, 4)] {
            let payload = vec![b'x'; bytes];
            for opcode in [TEXT, BINARY] {
                let message = wire::masked(FIN | opcode, &payload);
                let what = format!("{}: WebSocket, {bytes} bytes, opcode {opcode}", backend.name());
                assert_echo_is_free(&watch, &what, &|| running.websocket("/echo"), &message, header + bytes);
            }
        }
    }
}

#[test]
fn an_echo_over_raw_tcp_allocates_nothing() {
    let watch = Watch::new();
    for backend in backends() {
        let running = echo_server(backend);
        for bytes in [5, 1024] {
            let payload = vec![b'x'; bytes];
            let line = [payload.as_slice(), b"\n"].concat();
            for (listener, framing, message) in [(1, "line", line), (2, "length", wire::with_length(&payload))] {
                let what = format!("{}: {framing}, {bytes} bytes", backend.name());
                assert_echo_is_free(&watch, &what, &|| running.connect(listener), &message, message.len());
            }
        }
    }
}

#[test]
fn a_compressed_echo_allocates_nothing() {
    let watch = Watch::new();
    for backend in backends() {
        let running = echo_server(backend);
        let connect = || running.connect(0).upgraded("/echo", OFFER_DEFLATE);
        let payload: Vec<u8> = b"the quick brown fox jumps over the lazy dog, ".repeat(20);
        let message = wire::masked(FIN | RSV1 | TEXT, &wire::deflated(&payload));
        let mut probe = connect();
        probe.send_raw(&message);
        let answer = probe.frame().unwrap();
        assert_eq!(answer.first, FIN | RSV1 | TEXT);
        let header = if answer.payload.len() < 126 { 2 } else { 4 };
        let what = format!("{}: compressed", backend.name());
        assert_echo_is_free(&watch, &what, &connect, &message, header + answer.payload.len());
    }
}

/// A message that comes in two reads is put together in a partial of the shard's.
#[test]
fn a_message_in_pieces_allocates_nothing() {
    let watch = Watch::new();
    for backend in backends() {
        let running = echo_server(backend);
        let mut client = running.websocket("/echo");
        let message = wire::masked(FIN | TEXT, &[b'x'; 100]);
        let (first, second) = message.split_at(30);
        let run = |client: &mut Client, rounds| {
            let mut room = [0; 102];
            for _ in 0..rounds {
                let before = running.count(|shard| shard.bytes_received_total.get());
                client.stream.write_all(first).unwrap();
                until("the first piece is there", || running.count(|shard| shard.bytes_received_total.get()) > before);
                client.stream.write_all(second).unwrap();
                client.stream.read_exact(&mut room).unwrap();
            }
        };
        run(&mut client, 20);
        assert_eq!(watch.allocations(0, || run(&mut client, 20)), 0, "{}", backend.name());
    }
}

/// One publisher and its audience over so many shards: one allocation for each publication, whoever listens.
fn assert_publication_costs_one(backend: BackendChoice, shards: usize) {
    const SUBSCRIBERS: usize = 24;
    let watch = Watch::new();
    let running = Running::start(&config(backend, shards), standard_routes());
    let mut audience: Vec<Client> = (0..SUBSCRIBERS).map(|_| running.websocket("/topics/news")).collect();
    let mut publisher = running.websocket("/topics/news?echo=0");
    until("all are members", || running.count(|shard| shard.subscriptions.get()) == SUBSCRIBERS as u64 + 1);
    let busy = running.server.metrics().shards.iter().filter(|shard| shard.subscriptions.get() > 0).count();
    assert_eq!(busy, shards, "every shard has subscribers");
    let message = wire::masked(FIN | TEXT, &[b'x'; 100]);
    let mut room = [0; 102];
    let mut run = |rounds| {
        for _ in 0..rounds {
            publisher.stream.write_all(&message).unwrap();
            for client in &mut audience {
                client.stream.read_exact(&mut room).unwrap();
            }
        }
    };
    // Until the topic's history is full: its list does not grow any more.
    run(Limits::default().history.messages_max + 1);
    let allocations = watch.allocations(ROUNDS as u64, || run(ROUNDS));
    println!("{}, {shards} shards: {allocations} allocations for {ROUNDS} publications", backend.name());
    assert_eq!(allocations, ROUNDS as u64, "{}, {shards} shards", backend.name());
}

#[test]
fn a_publication_allocates_once_on_one_shard() {
    backends().into_iter().for_each(|backend| assert_publication_costs_one(backend, 1));
}

#[test]
fn a_publication_allocates_once_over_several_shards() {
    for backend in backends() {
        assert_publication_costs_one(backend, 2);
        assert_publication_costs_one(backend, 3);
    }
}

/// Messages that wait together go out as one piece, which is one more allocation for all of them.
#[test]
fn a_burst_of_publications_allocates_once_more() {
    const BURST: usize = 16;
    let watch = Watch::new();
    for backend in backends() {
        let running = Running::start(&config(backend, 1), standard_routes());
        let mut audience: Vec<Client> = (0..8).map(|_| running.websocket("/topics/news")).collect();
        let mut publisher = running.websocket("/topics/news?echo=0");
        let message = wire::masked(FIN | TEXT, &[b'x'; 100]).repeat(BURST);
        let mut room = [0; 102 * BURST];
        let mut run = |rounds| {
            for _ in 0..rounds {
                publisher.stream.write_all(&message).unwrap();
                for client in &mut audience {
                    client.stream.read_exact(&mut room).unwrap();
                }
            }
        };
        run(100);
        // A burst may come in two reads now and then, which makes two pieces.
        let allowed = (ROUNDS * (BURST + 2)) as u64;
        let allocations = watch.allocations(allowed, || run(ROUNDS));
        println!("{}: {allocations} allocations for {} publications", backend.name(), ROUNDS * BURST);
        assert!(allocations <= allowed, "{}: {allocations}", backend.name());
    }
}
