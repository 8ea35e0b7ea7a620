//! The whole server on loopback, by criterion: wall time of an echoed message and of a publication to many
//! subscribers, on both backends. CPU time, and the bare loops to hold it against, are in `compare`.
//!
//! `HOLDLINE_BENCH_SERVER` may name another command that takes the flags of `holdline serve`.

mod common;

use std::hint::black_box;
use std::time::Duration;
use std::{env, io};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

use common::scenario::{self, Echo, Fanout};
use common::target::{SERVER, Target};
use common::wire::Protocol;

const BACKENDS: [&str; 2] = ["uring", "epoll"];
const CONNECTIONS: usize = 64;
const SUBSCRIBERS: usize = 1000;
/// Messages of one iteration: enough for the connections to reach their stride.
const MESSAGES: u64 = 20_000;
/// Publications of one iteration.
const PUBLICATIONS: u64 = 10;

fn start(backend: &str) -> Option<Target> {
    let command = env::var("HOLDLINE_BENCH_SERVER").unwrap_or_else(|_| SERVER.to_owned());
    let started = Target::server(&command, backend, 4000, &[]);
    started.inspect_err(|error| eprintln!("{backend}: left out: {error}")).ok()
}

/// Time of `count` times [`MESSAGES`], from a run that may have measured some more.
fn echo(target: &Target, protocol: Protocol, size: usize, in_flight: usize, count: u64) -> io::Result<Duration> {
    let endpoint = target.endpoint(protocol, "/echo")?;
    let messages = count * MESSAGES;
    let load = Echo { connections: CONNECTIONS, size, in_flight, scatter: false, warm_up: MESSAGES / 4, messages };
    let sample = scenario::echo(&endpoint, target.pid(), load)?;
    Ok(sample.cost.wall.mul_f64(messages as f64 / sample.units as f64))
}

fn fanout(target: &Target, count: u64) -> io::Result<Duration> {
    let endpoint = target.endpoint(Protocol::WebSocket, "/topics/bench")?;
    let load = Fanout { subscribers: SUBSCRIBERS, size: 64, warm_up: 2, publications: count * PUBLICATIONS };
    Ok(scenario::fanout(&endpoint, target.pid(), load)?.cost.wall)
}

fn loopback_echo(criterion: &mut Criterion) {
    println!("{}", common::sys::machine());
    let mut group = criterion.benchmark_group("loopback echo, 64 connections");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.measurement_time(Duration::from_secs(3)).throughput(Throughput::Elements(MESSAGES));
    for backend in BACKENDS {
        let Some(target) = start(backend) else { continue };
        for (protocol, name) in [(Protocol::WebSocket, "websocket"), (Protocol::Raw, "tcp")] {
            for (size, in_flight) in [(64, 1), (64, 16), (1024, 1), (1024, 16)] {
                let id = BenchmarkId::new(backend, format!("{name}, {size} bytes, {in_flight} in flight"));
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|count| {
                        black_box(echo(&target, protocol, size, in_flight, count)).expect("the server echoes")
                    });
                });
            }
        }
    }
    group.finish();
}

fn loopback_fanout(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("loopback fan-out, 64 bytes");
    let deliveries = Throughput::Elements(SUBSCRIBERS as u64 * PUBLICATIONS);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.measurement_time(Duration::from_secs(3)).throughput(deliveries);
    for backend in BACKENDS {
        let Some(target) = start(backend) else { continue };
        group.bench_function(BenchmarkId::new(backend, format!("{SUBSCRIBERS} subscribers")), |bencher| {
            bencher.iter_custom(|count| black_box(fanout(&target, count)).expect("the server delivers"));
        });
    }
    group.finish();
}

criterion_group!(benches, loopback_echo, loopback_fanout);
criterion_main!(benches);
