//! What a connection and a packet cost this side. Not part of a normal run:
//! `cargo test --release --test tun -- --ignored --nocapture load`, with `TUN_LOAD` connections.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdline::id::ConnId;
use holdline::io::tun::{Config, Tun};
use holdline::io::{Backend, Completion, Dial, Out};

use super::{echo, leftovers};

const AT_ONCE: u32 = 2000;
const LINE: &[u8] = b"0123456789012345678901234567890123456789012345678901234567890123\n";

/// What this thread has run for.
fn cpu() -> Duration {
    let spent = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(spent.split(' ').next().unwrap().parse().unwrap())
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Does `begin` for each connection, a bounded number at a time, until `is_done` was true of a completion of each.
fn each(tun: &mut Tun, count: u32, begin: impl Fn(&mut Tun, ConnId), is_done: impl Fn(&Completion) -> bool) {
    let (mut begun, mut done) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(300);
    while done < count {
        while begun < count && begun - done < AT_ONCE {
            begin(tun, ConnId::new(begun, 0));
            begun += 1;
        }
        tun.flush();
        assert!(tun.next_short().is_none());
        tun.wait(Some(Duration::from_millis(100))).unwrap();
        while let Some(completion) = tun.next() {
            done += u32::from(is_done(&completion));
            match completion {
                Completion::Received(_, lease) => tun.release(lease),
                Completion::Failed(id, kind) => panic!("{id} of {count}: {kind}"),
                _ => {}
            }
        }
        assert!(Instant::now() < deadline, "{done} of {count}: {:?}", tun.counts());
    }
}

fn measured(what: &str, tun: &mut Tun, count: u32, work: impl FnOnce(&mut Tun)) {
    let packets = |tun: &Tun| tun.counts().packets_in + tun.counts().packets_out;
    let (start, spent, before) = (Instant::now(), cpu(), packets(tun));
    work(tun);
    let (wall, spent, packets) = (start.elapsed().as_secs_f64(), (cpu() - spent).as_secs_f64(), packets(tun) - before);
    println!(
        "{what}: {:.0}/s, {:.1} us of client CPU each; {packets} packets, {:.0}/s of wall, {:.0}/s of client CPU",
        f64::from(count) / wall,
        spent * 1e6 / f64::from(count),
        packets as f64 / wall,
        packets as f64 / spent,
    );
}

#[test]
#[ignore = "a measurement"]
fn load() {
    let count: u32 = std::env::var("TUN_LOAD").map_or(100_000, |count| count.parse().unwrap());
    let namespace = echo::namespace(count as usize);
    let connections = count.to_string();
    let more = ["--shards", "1", "--max-connections", &connections, "--admin", "off", "--drain", "1ms"];
    let (_server, address) = leftovers::serve(&namespace, &more);
    let mut tun = Tun::new(&namespace, Config::new(count as usize)).unwrap();
    let hello = Arc::from(LINE);
    let before = resident_bytes();
    measured("connect and first echo", &mut tun, count, |tun| {
        let is_back = |completion: &Completion| matches!(completion, Completion::Received(..));
        each(tun, count, |tun, id| tun.dial(id, address, &hello), is_back);
    });
    let more = resident_bytes().saturating_sub(before);
    println!("{count} connections: {:.1} bytes each; {:?}", more as f64 / f64::from(count), tun.counts());
    for _ in 0..3 {
        measured("echo", &mut tun, count, |tun| {
            let is_back = |completion: &Completion| matches!(completion, Completion::Received(..));
            each(tun, count, |tun, id| tun.send(id, Out::Bytes(LINE), id.index()), is_back);
        });
    }
    println!("{:?}", tun.counts());
}
