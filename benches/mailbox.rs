//! What a hop between shards costs: the queue, ringing a doorbell whose owner is awake, and waking one who sleeps in an
//! eventfd (mio's). Beside them the queue that was not chosen.

#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam::queue::SegQueue;
use holdline::io::Wake;
use holdline::mailbox::{Doorbell, Outlet, channel};

/// As large as a shard's messages: one cache line with the queue's own 8 bytes.
type Message = [u64; 7];

/// What a shard takes in one go.
const BATCH: usize = 64;

struct Eventfd(mio::Waker);

impl Wake for Eventfd {
    fn wake(&self) {
        self.0.wake().expect("an eventfd takes a wake");
    }
}

fn hop(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(criterion::Throughput::Elements(BATCH as u64));

    let doorbell = Arc::new(Doorbell::new());
    let (sender, mut receiver) = channel::<Message>(8192, Arc::clone(&doorbell));
    group.bench_function("64 hops, push and pop", |b| {
        b.iter(|| {
            for i in 0..BATCH as u64 {
                sender.try_send(black_box([i; 7])).expect("room");
            }
            for _ in 0..BATCH {
                black_box(receiver.try_recv());
            }
        });
    });

    let mut outlet = Outlet::new(sender);
    group.bench_function("64 hops through an outlet, one ring", |b| {
        b.iter(|| {
            for i in 0..BATCH as u64 {
                outlet.push(black_box([i; 7]));
            }
            outlet.flush();
            for _ in 0..BATCH {
                black_box(receiver.try_recv());
            }
        });
    });

    let (queue, count) = (SegQueue::<Message>::new(), AtomicUsize::new(0));
    group.bench_function("64 hops, SegQueue under a counter", |b| {
        b.iter(|| {
            for i in 0..BATCH as u64 {
                assert!(count.fetch_add(1, Ordering::Relaxed) < 8192);
                queue.push(black_box([i; 7]));
            }
            for _ in 0..BATCH {
                black_box(queue.pop());
                count.fetch_sub(1, Ordering::Relaxed);
            }
        });
    });

    group.throughput(criterion::Throughput::Elements(1));
    group.bench_function("ring while awake", |b| b.iter(|| doorbell.ring()));
    group.finish();
}

/// From before the push to the first message in the woken thread's hands, many times.
fn wake_up(_: &mut Criterion) {
    let rounds = if std::env::args().any(|arg| arg == "--bench") { 2000 } else { 20 };
    let mut poll = mio::Poll::new().expect("a poll");
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
    let doorbell = Arc::new(Doorbell::new());
    doorbell.connect(Arc::new(Eventfd(waker)));
    let (sender, mut receiver) = channel::<Option<Instant>>(64, Arc::clone(&doorbell));
    let sleeper = thread::spawn(move || {
        let (mut events, mut latencies) = (mio::Events::with_capacity(4), Vec::new());
        loop {
            match receiver.try_recv() {
                Some(Some(sent)) => latencies.push(sent.elapsed()),
                Some(None) => return latencies,
                None => {
                    doorbell.prepare_to_sleep();
                    if receiver.is_empty() {
                        poll.poll(&mut events, None).expect("a wait");
                    }
                    doorbell.awake();
                }
            }
        }
    });
    let mut ring_cost = Vec::new();
    for _ in 0..rounds {
        // Long enough to be sure that it sleeps.
        thread::sleep(Duration::from_micros(200));
        let begin = Instant::now();
        sender.try_send(Some(begin)).expect("room");
        sender.ring();
        ring_cost.push(begin.elapsed());
    }
    sender.try_send(None).expect("room");
    sender.ring();
    let latencies = sleeper.join().expect("the sleeper ends");
    println!("mailbox/wake-up of a sleeper: {}", quantiles(latencies));
    println!("mailbox/its cost to the ringer: {}", quantiles(ring_cost));
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    format!("median {:?}, 10 % {:?}, 90 % {:?}", at(50), at(10), at(90))
}

/// Resident bytes before and after making queues.
fn resident(_: &mut Criterion) {
    let before = resident_bytes();
    let queues: Vec<_> = (0..8).map(|_| channel::<Message>(8192, Arc::new(Doorbell::new()))).collect();
    println!("mailbox/resident per queue of 8192: {} KiB", (resident_bytes() - before) / queues.len() / 1024);
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

criterion_group!(benches, hop, wake_up, resident);
criterion_main!(benches);
