//! Allocations per HTTP request.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use holdline::app::standard_routes;
use holdline::config::Limits;

use super::counting::Watch;
use crate::common::{Client, Running, backends, config};

const ROUNDS: usize = 500;
/// A message, its topic, and the notes on whom to tell its place.
const POST_ALLOCATIONS: u64 = 3;

/// Sends `request` so many times, and reads an answer to each; whether each is a 200.
fn ask(client: &mut Client, request: &[u8], in_flight: usize, rounds: usize) {
    let burst = request.repeat(in_flight);
    let mut room = [0; 64 * 1024];
    for _ in 0..rounds {
        client.stream.write_all(&burst).unwrap();
        let (mut end, mut from) = (0, 0);
        for _ in 0..in_flight {
            while answer_end(&room[from..end]).is_none() {
                end += match client.stream.read(&mut room[end..]) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                    read => read.unwrap(),
                };
            }
            from += answer_end(&room[from..end]).unwrap();
        }
        assert_eq!(from, end, "nothing comes that was not asked for");
    }
}

/// Where a whole answer ends.
fn answer_end(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = str::from_utf8(&bytes[..head]).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    let (_, length) = text.split_once("Content-Length: ").unwrap();
    let end = head + 4 + length.lines().next().unwrap().parse::<usize>().unwrap();
    (end <= bytes.len()).then_some(end)
}

#[test]
fn a_file_in_memory_is_served_without_an_allocation() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("allocations-{}", std::process::id()));
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("a.txt"), [b'x'; 1024]).unwrap();
    let watch = Watch::new();
    for backend in backends() {
        let mut config = config(backend, 1);
        config.limits.keep_alive_requests_max = 1_000_000_000;
        config.public = Some(root.clone());
        let running = Running::start(&config, standard_routes());
        let request = b"GET /a.txt HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\n\r\n";
        for in_flight in [1, 16] {
            let mut client = running.connect(0);
            ask(&mut client, request, in_flight, 100);
            // Once a second it is compared with the disk, which takes its path and those of its siblings.
            let most = (0..3).map(|_| watch.allocations(0, || ask(&mut client, request, in_flight, 50))).min();
            println!("{}, {in_flight} in flight: {most:?} allocations in {} requests", backend.name(), 50 * in_flight);
            assert_eq!(most, Some(0), "{}, {in_flight} in flight", backend.name());
        }
    }
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_post_allocates_its_message_and_little_more() {
    let watch = Watch::new();
    for backend in backends() {
        let mut config = config(backend, 1);
        config.limits.keep_alive_requests_max = 1_000_000_000;
        let running = Running::start(&config, standard_routes());
        let head = "POST /topics/load HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n";
        let request = [head.as_bytes(), &[b'x'; 128]].concat();
        let mut client = running.connect(0);
        // Until the topic's history is full: its list does not grow any more.
        ask(&mut client, &request, 1, Limits::default().history.messages_max + 1);
        let allowed = POST_ALLOCATIONS * ROUNDS as u64;
        let allocations = watch.allocations(allowed, || ask(&mut client, &request, 1, ROUNDS));
        println!("{}: {allocations} allocations in {ROUNDS} requests", backend.name());
        assert_eq!(allocations, allowed, "{}", backend.name());
    }
}
