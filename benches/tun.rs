//! What a client without a socket costs: CPU time and memory of this side for a connection and for a message there and
//! back over a TUN device, against the server in the device's namespace.
//!
//! ```text
//! cargo bench --bench tun [-- --connections 1000000]
//! ```
//!
//! Needs `/dev/net/tun` and the right to make network namespaces. Without `--bench`, as cargo tests it, few connections do.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use holdline::id::ConnId;
use holdline::io::tun::{Config, Namespace, Tun};
use holdline::io::{Backend, Completion, Dial, Out};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const PROGRAM: &str = env!("CARGO_BIN_EXE_holdline");
const LINE: &[u8] = b"0123456789012345678901234567890123456789012345678901234567890123\n";
/// Connections or messages that have been begun and are not done, at most.
const AT_ONCE: u32 = 2000;
/// Nothing takes so long.
const PATIENCE: Duration = Duration::from_secs(300);
const ROUNDS: usize = 3;

fn main() -> Outcome {
    let count = connections(&env::args().skip(1).collect::<Vec<_>>())?;
    let namespace = Namespace::new(count as usize)?;
    let most = count.to_string();
    let listen = ["--listen", "tcp://198.18.0.1:0?framing=line&app=echo", "--admin", "off"];
    let limits = ["--shards", "1", "--max-connections", &most, "--heartbeat-interval", "0"];
    let words = [PROGRAM, "serve", "--insecure"].into_iter().chain(listen).chain(limits).map(str::to_owned);
    let server = namespace.spawn_server(&words.collect::<Vec<_>>())?;
    let url = server.urls().iter().find_map(|url| url.strip_prefix("tcp://")).ok_or("the server listens nowhere")?;
    let address = url.split(['/', '?']).next().unwrap_or(url).parse()?;

    let mut tun = Tun::new(&namespace, Config::new(count as usize))?;
    let hello = Arc::from(LINE);
    let before = resident_bytes()?;
    measured("connect and first echo", &mut tun, count, |tun, id| tun.dial(id, address, &hello))?;
    let more = resident_bytes()?.saturating_sub(before);
    println!("{count} connections: {:.1} bytes each; {:?}", more as f64 / f64::from(count), tun.counts());
    for _ in 0..ROUNDS {
        measured("echo", &mut tun, count, |tun, id| {
            tun.send(id, Out::Bytes(LINE), id.index());
        })?;
    }
    println!("{:?}", tun.counts());
    Ok(())
}

/// How many, from the arguments: few, when cargo only tests that it works.
fn connections(arguments: &[String]) -> Outcome<u32> {
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(500);
    }
    let given = arguments.iter().position(|argument| argument == "--connections");
    given.map_or(Ok(100_000), |at| Ok(arguments.get(at + 1).ok_or("--connections needs a number")?.parse()?))
}

/// What this thread has run for.
fn cpu() -> Outcome<Duration> {
    let spent = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(spent.split(' ').next().unwrap_or_default().parse()?))
}

fn resident_bytes() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/statm")?;
    Ok(status.split(' ').nth(1).unwrap_or_default().parse::<u64>()? * 4096)
}

/// Does `begin` for each connection, a bounded number at a time, until each has brought something back.
fn each(tun: &mut Tun, count: u32, begin: impl Fn(&mut Tun, ConnId)) -> Outcome {
    let (mut begun, mut done) = (0, 0);
    let deadline = Instant::now() + PATIENCE;
    while done < count {
        while begun < count && begun - done < AT_ONCE {
            begin(tun, ConnId::new(begun, 0));
            begun += 1;
        }
        tun.flush();
        tun.wait(Some(Duration::from_millis(100)))?;
        while let Some(completion) = tun.next() {
            match completion {
                Completion::Received(_, lease) => {
                    done += 1;
                    tun.release(lease);
                }
                Completion::Failed(id, kind) => return Err(format!("{id} of {count}: {kind}").into()),
                _ => {}
            }
        }
        if Instant::now() > deadline {
            return Err(format!("{done} of {count} after {PATIENCE:?}: {:?}", tun.counts()).into());
        }
    }
    Ok(())
}

fn measured(what: &str, tun: &mut Tun, count: u32, begin: impl Fn(&mut Tun, ConnId)) -> Outcome {
    let packets = |tun: &Tun| tun.counts().packets_in + tun.counts().packets_out;
    let (start, spent, before) = (Instant::now(), cpu()?, packets(tun));
    each(tun, count, begin)?;
    let (wall, spent, packets) = (start.elapsed().as_secs_f64(), (cpu()? - spent).as_secs_f64(), packets(tun) - before);
    println!(
        "{what}: {:.0}/s, {:.1} us of client CPU each; {packets} packets, {:.0}/s of wall, {:.0}/s of client CPU",
        f64::from(count) / wall,
        spent * 1e6 / f64::from(count),
        packets as f64 / wall,
        packets as f64 / spent,
    );
    Ok(())
}
