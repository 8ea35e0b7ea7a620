//! Whole servers in memory, one per seed: see `holdline::sim::world`.
//!
//! `SIMULATION_SEEDS=N` plays so many seeds (10,000 unless told), `SIMULATION_SEED=N` plays one and says what happens in
//! it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "simulation/batches.rs"]
mod batches;
#[path = "simulation/calls.rs"]
mod calls;
#[path = "simulation/cluster.rs"]
mod cluster;
#[path = "simulation/durable.rs"]
mod durable;
#[path = "simulation/journal.rs"]
mod journal;
#[path = "simulation/lives.rs"]
mod lives;
#[path = "simulation/operators.rs"]
mod operators;
#[path = "simulation/ordered.rs"]
mod ordered;
#[path = "simulation/ordered_worlds.rs"]
mod ordered_worlds;
#[path = "simulation/presence.rs"]
mod presence;
#[path = "simulation/resuming.rs"]
mod resuming;
#[path = "simulation/scene.rs"]
mod scene;
#[path = "simulation/scenes.rs"]
mod scenes;
#[path = "simulation/streams.rs"]
mod streams;

use std::collections::BTreeSet;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use holdline::sim::world::{Options, Report, Sabotage, Trick, run};

const SEEDS: u64 = 10_000;

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}, not a number")))
}

/// Plays a world; a panic in it is a failure like any other.
fn play(seed: u64, options: Options<'_>) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, options))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("?")))
    })
}

fn replay(seed: u64) -> Report {
    let mut trace = |what: std::fmt::Arguments<'_>| eprintln!("{what}");
    match play(seed, Options { trace: Some(&mut trace), sabotage: None }) {
        Ok(report) => report,
        Err(fault) => panic!("seed {seed}: {fault}"),
    }
}

#[test]
fn every_seed_keeps_its_promises() {
    if let Some(seed) = variable("SIMULATION_SEED") {
        eprintln!("{:?}", replay(seed));
        return;
    }
    let seeds = variable("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let (next, failures, reports) = (AtomicU64::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failures.lock().unwrap().len() >= 10 {
                        break;
                    }
                    match play(seed, Options::default()) {
                        Ok(report) => reports.lock().unwrap().push(report),
                        Err(fault) => failures.lock().unwrap().push((seed, fault)),
                    }
                }
            });
        }
    });
    let (mut failures, reports) = (failures.into_inner().unwrap(), reports.into_inner().unwrap());
    let took = began.elapsed().as_secs_f64();
    eprintln!("{} seeds in {took:.1} s, {:.0} a second", reports.len(), reports.len() as f64 / took);
    failures.sort();
    for (seed, fault) in &failures {
        let fault: String = fault.chars().take(600).collect();
        eprintln!("seed {seed}: {fault}\n  replay: SIMULATION_SEED={seed} cargo test --test simulation every_seed\n");
    }
    assert!(failures.is_empty(), "{} seeds failed", failures.len());
    if seeds >= 1000 {
        covers_what_it_is_for(&reports);
    }
}

/// Enough worlds between them see everything that a world can see.
fn covers_what_it_is_for(reports: &[Report]) {
    let codes: BTreeSet<u16> = reports.iter().flat_map(|report| report.codes.iter().copied()).collect();
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1013, 4000, 4001] {
        assert!(codes.contains(&code), "nobody was closed with {code}");
    }
    for (at, name) in Report::RARE.into_iter().enumerate() {
        let total: u64 = reports.iter().map(|report| report.rare[at]).sum();
        eprintln!("{name}: {total}");
        assert!(total > 0, "{name} never grew");
    }
    let (turns, seen) = (reports.iter().map(|report| report.turns), reports.iter().map(|report| report.seen));
    eprintln!("turns: {}, messages: {}", turns.sum::<u64>(), seen.sum::<u64>());
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..50 {
        assert_eq!(play(seed, Options::default()), play(seed, Options::default()), "seed {seed}");
    }
}

#[test]
fn the_oracles_see_what_is_broken() {
    for trick in Trick::FRAMES {
        let (mut struck, mut seen) = (0, 0);
        for seed in 0..200 {
            let sabotage = Sabotage::new(trick, usize::try_from(20 + seed % 60).unwrap());
            match play(seed, Options { trace: None, sabotage: Some(sabotage) }) {
                Ok(report) => struck += usize::from(report.sabotaged),
                Err(_) => {
                    struck += 1;
                    seen += 1;
                }
            }
        }
        eprintln!("{trick:?}: {seen} of {struck} seen");
        assert!(struck >= 60, "{trick:?} was tried only {struck} times");
        // Of two strangers' messages that only one peer sees nobody can say which came first, and of the last message
        // before a connection breaks nobody can say that it is missing. Of a call's frames some are acknowledgements, which come
        // in any order among messages.
        assert!(seen * 10 >= struck * 7, "{trick:?}: {seen} of {struck} seen");
    }
}

/// What readers who resume, workers and publishers are told: some of it is rare, so that more worlds are tried, and the first
/// time is the time for it.
#[test]
fn the_oracles_see_lies() {
    for trick in Trick::WORDS {
        let (mut struck, mut seen) = (0, 0);
        for seed in 0..600 {
            if struck == 40 {
                break;
            }
            let sabotage = Sabotage::new(trick, usize::try_from(seed % 5).unwrap());
            match play(seed, Options { trace: None, sabotage: Some(sabotage) }) {
                Ok(report) => struck += usize::from(report.sabotaged),
                Err(_) => (struck, seen) = (struck + 1, seen + 1),
            }
        }
        eprintln!("{trick:?}: {seen} of {struck} seen");
        assert!(struck >= 15, "{trick:?} was tried only {struck} times");
        // A reader whose connection ends before the next message, a group whose members go, or that nobody else is told of
        // the place, hides it.
        assert!(seen * 10 >= struck * 5, "{trick:?}: {seen} of {struck} seen");
    }
}
