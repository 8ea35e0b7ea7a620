//! What a timer costs: arm, re-arm, fire and arm again, with a million timers and with four. Links lie in entries of 64
//! bytes, like those of the connection table, and keys come in random order, as connections do.

#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use holdline::wheel::{Store, TICK, Tick, Timer, Wheel, jitter};

/// Heartbeats every 30 s.
const INTERVAL: u32 = 300;

#[derive(Clone)]
#[repr(align(64))]
struct Entry {
    timer: Timer,
    last_seen: u32,
}

struct Table(Vec<Entry>);

impl Store for Table {
    fn timer(&mut self, key: u32) -> &mut Timer {
        &mut self.0[key as usize].timer
    }
}

struct Bench {
    wheel: Wheel,
    table: Table,
    /// Every key once, shuffled.
    keys: Vec<u32>,
    now: u32,
    worst_tick: Duration,
}

impl Bench {
    fn new(count: u32) -> Self {
        let mut keys: Vec<u32> = (0..count).collect();
        for i in (1..count).rev() {
            keys.swap(i as usize, (random(i) % (i + 1)) as usize);
        }
        let table = Table(vec![Entry { timer: Timer::new(), last_seen: 0 }; count as usize]);
        Self { wheel: Wheel::new(TICK), table, keys, now: 0, worst_tick: Duration::ZERO }
    }

    fn arm_all(&mut self) {
        for &key in &self.keys {
            self.wheel.arm(&mut self.table, key, Tick(self.now + 1 + random(key) % INTERVAL));
        }
    }

    /// Arms `count` timers (all in turn, again and again) that are not armed.
    fn insert(&mut self, count: u64) -> Duration {
        let (mut spent, mut left) = (Duration::ZERO, usize::try_from(count).unwrap_or(usize::MAX));
        while left > 0 {
            let some = &self.keys[..left.min(self.keys.len())];
            let begin = Instant::now();
            for &key in some {
                self.wheel.arm(&mut self.table, key, Tick(1 + random(key) % INTERVAL));
            }
            spent += begin.elapsed();
            left -= some.len();
            for &key in &self.keys[..] {
                self.wheel.disarm(&mut self.table, key);
            }
        }
        spent
    }

    /// Fires and arms again at least `count` timers, whole ticks at a time, and says what each of `count` cost.
    fn turn(&mut self, count: u64) -> Duration {
        let (mut fired, mut spent) = (0, Duration::ZERO);
        while fired < count {
            let begin = Instant::now();
            self.now += 1;
            while let Some(key) = self.wheel.pop(&mut self.table, Tick(self.now)) {
                self.wheel.arm(&mut self.table, key, Tick(self.now + jitter(INTERVAL, key ^ self.now)));
                fired += 1;
            }
            let tick = begin.elapsed();
            self.worst_tick = self.worst_tick.max(tick);
            spent += tick;
        }
        spent.mul_f64(count as f64 / fired as f64)
    }
}

fn random(seed: u32) -> u32 {
    jitter(u32::MAX / 2, seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x2545_f491) >> 7
}

/// Whether this run is only to show that it works: `cargo test --benches` does not pass `--bench`.
fn smoke() -> bool {
    let has = |flag| std::env::args().any(|arg| arg == flag);
    has("--test") || !has("--bench")
}

fn wheel(c: &mut Criterion) {
    let counts: &[u32] = if smoke() { &[10_000] } else { &[1_000_000, 4_000_000] };
    let mut group = c.benchmark_group("wheel");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(1));
    for &count in counts {
        let mut bench = Bench::new(count);
        group.bench_function(BenchmarkId::new("insert", count), |b| {
            b.iter_custom(|iterations| bench.insert(iterations))
        });
        bench.arm_all();
        let mut i = 0;
        group.bench_function(BenchmarkId::new("refresh by re-arming", count), |b| {
            b.iter(|| {
                let key = bench.keys[i];
                i = (i + 1) % bench.keys.len();
                bench.wheel.arm(&mut bench.table, key, Tick(1 + random(key) % INTERVAL));
            });
        });
        group.bench_function(BenchmarkId::new("refresh of last_seen only", count), |b| {
            b.iter(|| {
                let key = bench.keys[i];
                i = (i + 1) % bench.keys.len();
                black_box(&mut bench.table.0[key as usize]).last_seen = key;
            });
        });

        bench.turn(2 * u64::from(count));
        bench.worst_tick = Duration::ZERO;
        group.bench_function(BenchmarkId::new("expire and re-arm", count), |b| {
            b.iter_custom(|iterations| bench.turn(iterations));
        });
        println!("wheel/expire and re-arm/{count}: worst tick {:?}, uncapped", bench.worst_tick);
        drop(bench);
        println!("wheel/all at one instant/{count}: {:?}", same_instant(count));
    }
    group.finish();
}

/// Every timer due on the same tick, fired and armed again in turns of 1024: the whole and the longest turn.
fn same_instant(count: u32) -> (Duration, Duration) {
    let mut bench = Bench::new(count);
    for &key in &bench.keys {
        bench.wheel.arm(&mut bench.table, key, Tick(INTERVAL));
    }
    let (begin, mut worst) = (Instant::now(), Duration::ZERO);
    while bench.wheel.next_expiry() <= Some(Tick(INTERVAL)) {
        let turn = Instant::now();
        for _ in 0..1024 {
            let Some(key) = bench.wheel.pop(&mut bench.table, Tick(INTERVAL)) else { break };
            bench.wheel.arm(&mut bench.table, key, Tick(INTERVAL + jitter(INTERVAL, key)));
        }
        worst = worst.max(turn.elapsed());
    }
    (begin.elapsed(), worst)
}

criterion_group!(benches, wheel);
criterion_main!(benches);
