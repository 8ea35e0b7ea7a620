//! A queue group over all shards: each job goes to one worker, whoever comes and goes.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use holdline::config::BackendChoice;

use super::common::wire::{FIN, TEXT, handshake, masked};
use super::common::{Client, Running, backends, until};
use super::{SHARDS, duration, start};

const WORKERS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    WebSocket,
    Raw,
    Events,
    Poll,
}

/// How workers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    Never,
    /// They say that they will send no more, and read to the end.
    Politely,
    /// They are killed with whatever is on its way to them.
    Killed,
}

/// What all have done.
#[derive(Default)]
struct Done {
    jobs: Mutex<BTreeMap<u64, Transport>>,
    count: AtomicU64,
    goings: AtomicU64,
    is_over: AtomicBool,
}

impl Done {
    fn job(&self, number: u64, worker: Transport) {
        let other = self.jobs.lock().unwrap().insert(number, worker);
        assert_eq!(other, None, "job {number} came to {worker:?} too");
        self.count.fetch_add(1, Ordering::Release);
    }
}

/// `None` when the server is not there any more.
fn connect(running: &Running, transport: Transport) -> Option<Client> {
    let address = running.at[usize::from(transport == Transport::Raw)];
    let mut client = Client::over(TcpStream::connect(address).ok()?);
    client.try_send_raw(request(transport).as_bytes());
    Some(client)
}

fn request(transport: Transport) -> String {
    let get = |query: &str, field: &str| {
        format!("GET /topics/jobs?group=workers{query} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n")
    };
    match transport {
        Transport::WebSocket => handshake("/topics/jobs?group=workers", ""),
        Transport::Events => get("", "Accept: text/event-stream\r\n"),
        Transport::Poll => get("&wait=200ms", ""),
        Transport::Raw => "jobs group=workers\n".to_owned(),
    }
}

/// Takes what comes next; `None` at the end.
fn next(client: &mut Client, transport: Transport, is_new: bool) -> Option<Vec<u64>> {
    if transport == Transport::WebSocket && !is_new {
        let frame = client.message()?;
        let is_job = frame.first == FIN | TEXT;
        return Some(if is_job { vec![str::from_utf8(&frame.payload).unwrap().parse().unwrap()] } else { Vec::new() });
    }
    let line = client.line()?;
    if line.starts_with("HTTP/1.1 ") {
        let mut length = 0;
        let mut field = line;
        while !field.trim_end().is_empty() {
            field = client.line()?;
            if let Some((name, value)) = field.trim_end().split_once(": ")
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.parse().unwrap();
            }
        }
        let body = client.exactly(length);
        if transport != Transport::Poll {
            return Some(Vec::new());
        }
        let items: Vec<serde_json::Value> = serde_json::from_slice(&body).ok()?;
        client.try_send_raw(request(transport).as_bytes());
        return Some(items.iter().map(|item| item["text"].as_str().unwrap().parse().unwrap()).collect());
    }
    let job = line.strip_prefix("data: ").or((transport == Transport::Raw).then_some(&line));
    Some(job.filter(|job| !job.is_empty()).map(|job| job.parse().unwrap()).into_iter().collect())
}

fn work(running: &Running, transport: Transport, going: Going, mut random: u64, done: &Done) {
    while !done.is_over.load(Ordering::Acquire) {
        let Some(mut client) = connect(running, transport) else { continue };
        let (mut is_new, mut is_going) = (true, false);
        while let Some(jobs) = next(&mut client, transport, is_new) {
            is_new = false;
            jobs.into_iter().for_each(|job| done.job(job, transport));
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let is_over = done.is_over.load(Ordering::Acquire);
            if is_going || !(is_over || going != Going::Never && random.is_multiple_of(100)) {
                continue;
            }
            done.goings.fetch_add(1, Ordering::Relaxed);
            if going == Going::Killed {
                break;
            }
            is_going = true;
            let _ = client.stream.shutdown(Shutdown::Write);
        }
    }
}

/// How many jobs are done when no more are: those that are not were in the sockets of workers that were killed.
fn settled(done: &Done) -> u64 {
    let count = || done.count.load(Ordering::Acquire);
    let mut before = count();
    loop {
        thread::sleep(Duration::from_millis(100));
        match count() {
            now if now == before => return now,
            now => before = now,
        }
    }
}

fn assert_shared(backend: BackendChoice, going: Going) {
    let running = start(backend, 0);
    let done = Done::default();
    let kinds = [Transport::WebSocket, Transport::Raw, Transport::Events, Transport::Poll];
    // Polls come and go by themselves: fairness is about those who stay.
    let kinds = if going == Going::Never { &kinds[..3] } else { &kinds[..] };
    let (mut said, mut lost) = (0, 0);
    thread::scope(|scope| {
        for number in 0..WORKERS * kinds.len() {
            let (running, done) = (&running, &done);
            // One of each kind stays, so that the group never ends.
            let going = if number < kinds.len() { Going::Never } else { going };
            scope.spawn(move || work(running, kinds[number % kinds.len()], going, number as u64 + 1, done));
        }
        // Polls are members now and then.
        let members = (WORKERS * 3) as u64;
        until("all are members", || running.count(|shard| shard.subscriptions.get()) >= members);
        let weights: Vec<u64> = running.server.metrics().shards.iter().map(|one| one.subscriptions.get()).collect();
        let mut publisher = running.websocket("/topics/jobs?echo=0&group=none");
        let end = Instant::now() + duration();
        while Instant::now() < end {
            let frames = (said + 1..=said + 20).flat_map(|job| masked(FIN | TEXT, job.to_string().as_bytes()));
            publisher.send_raw(&frames.collect::<Vec<_>>());
            said += 20;
            thread::sleep(Duration::from_millis(2));
        }
        // Each job is also dropped once: its publisher is alone in its own group, and does not want it.
        let given = || {
            let given = running.count(|shard| shard.deliveries_total.get());
            [given, running.count(|shard| shard.deliveries_dropped_total.get())]
        };
        if going == Going::Killed {
            until("all is given out", || given().iter().sum::<u64>() >= 2 * said);
            lost = said - settled(&done);
        } else {
            until("all is done", || done.count.load(Ordering::Acquire) == said);
        }
        until("what is lost was on its way to somebody", || given() == [said, said]);
        if going == Going::Never {
            assert_fair(&running, &weights, said);
        }
        done.is_over.store(true, Ordering::Release);
        // Whoever waits for the next job gets one, and sees that it is over.
        drop(publisher);
        running.server.drain(Duration::ZERO);
    });
    let goings = done.goings.load(Ordering::Relaxed);
    println!("{}, {going:?}: {said} jobs, {goings} went, {lost} lost", backend.name());
    assert!(going == Going::Never || goings > 20, "{goings} went");
    assert!(lost == 0 || going == Going::Killed);
    // A killed worker takes with it what its socket held.
    assert!(lost < said / 5, "{lost} of {said} are lost with {goings} workers");
}

/// Each shard's workers get what their number is of all, within a third: a poll is no member from one answer to its next
/// request, so a shard with more of them counts for less.
fn assert_fair(running: &Running, weights: &[u64], said: u64) {
    let all: u64 = weights.iter().sum();
    assert_eq!(weights.len(), SHARDS);
    for (shard, weight) in running.server.metrics().shards.iter().zip(weights) {
        let (got, due) = (shard.deliveries_total.get() as f64, (said * weight / all) as f64);
        assert!((got - due).abs() <= due / 3.0, "{got} jobs for {weight} of {all} workers, of {said}");
    }
}

#[test]
fn a_groups_messages_are_shared_fairly() {
    backends().into_iter().for_each(|backend| assert_shared(backend, Going::Never));
}

#[test]
fn who_leaves_a_group_politely_takes_nothing_along() {
    backends().into_iter().for_each(|backend| assert_shared(backend, Going::Politely));
}

#[test]
fn who_is_killed_takes_along_only_what_was_on_its_way() {
    backends().into_iter().for_each(|backend| assert_shared(backend, Going::Killed));
}
