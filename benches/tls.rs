//! What TLS costs: memory of idle connections, CPU time of handshakes beside nginx, and of records beside rustls' own.
//!
//! ```text
//! cargo bench --bench tls                                   all of it
//! cargo bench --bench tls -- idle --connections 10000       user memory of each idle wss connection, and of each ws
//! cargo bench --bench tls -- handshakes --rounds 9 --backend uring
//! cargo bench --bench tls -- records --rounds 9             CPU time for each record, sealed and opened
//! ```
//!
//! `idle` opens WebSockets to the echo, over TLS and without, and compares the server's anonymous memory before and after.
//! The clients' keys are forgotten: they keep a socket each, and hear nothing, so heartbeats are off.
//!
//! `handshakes` makes connections one after the other, each with a handshake (TLS 1.3 and 1.2, ECDSA P-256 certificate,
//! X25519, AES-128-GCM: the client offers nothing else, and looks at what came of it), one small request and its answer, and
//! an end. `full` begins anew, `resumed` goes on from the connection before by its ticket. nginx has the same certificate, one
//! worker and tickets. The server has core 0, the clients core 1; the figure is the server's CPU time per connection, kernel
//! included. What ring takes of a full one, for a signature and for X25519, stands below: the rest is everybody's own.
//!
//! `records` seals and opens ten times as many records as `--handshakes` says, in memory and on one thread (TLS 1.3), and shows
//! that thread's CPU time for each: by our record layer, and by rustls' own with buffers of the caller's and with buffers of its
//! own. With 2,000 connections in turn (or `--connections`, where that is less) the keys that a shard keeps ready are not those
//! of the next record: it shows what it costs to keep connections small.
//!
//! `cargo test --benches` runs everything once, tiny, and says so loudly where nginx is missing.

mod common;
#[path = "tls/records.rs"]
mod records;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::client::Resumption;
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConfig, ClientConnection, HandshakeKind, StreamOwned, SupportedProtocolVersion};

use common::nginx;
use common::report::{Table, median};
use common::room::Room;
use common::sys::{self, Memory};
use common::target::{SERVER, Stopwatch, Target};

/// User memory that an idle connection may take over TLS.
const IDLE_BYTES_MAX: f64 = 2048.0;

#[derive(Parser, Debug)]
#[command(name = "tls")]
struct Options {
    /// What to measure; without it all.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// The server's backends.
    #[arg(long = "backend", value_delimiter = ',', default_value = "uring,epoll")]
    backends: Vec<String>,
    /// Idle connections.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Handshakes of a round.
    #[arg(long, default_value_t = 2000)]
    handshakes: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure without nginx, which may be missing then.
    #[arg(long)]
    without_nginx: bool,
    /// Fail when the bound on memory is broken.
    #[arg(long)]
    assert: bool,
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    test: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Idle,
    Handshakes,
    Records,
}

fn server(room: &Room, backend: &str, connections: usize) -> io::Result<Target> {
    let (certificate, key) = (room.certificate.to_string_lossy(), room.key.to_string_lossy());
    let flags = ["--listen", "https://127.0.0.1:0", "--tls-certificate", &certificate, "--tls-key", &key];
    Target::server(SERVER, backend, connections, &[&flags[..], &["--heartbeat-interval", "0"]].concat())
}

fn client(room: &Room, version: &'static SupportedProtocolVersion, resumes: bool) -> io::Result<Arc<ClientConfig>> {
    let mut provider = default_provider();
    provider.cipher_suites =
        vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    // The second is the certificate's own: OpenSSL wants to see it with TLS 1.2 (RFC 8422 section 5.1).
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]);
    let builder = builder.map_err(io::Error::other)?;
    let mut config = builder.with_root_certificates(Arc::clone(&room.roots)).with_no_client_auth();
    config.resumption = if resumes { Resumption::in_memory_sessions(32) } else { Resumption::disabled() };
    Ok(Arc::new(config))
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    println!("{}", sys::machine());
    if options.test || (!options.bench && options.scenarios.is_empty()) {
        (options.rounds, options.connections, options.handshakes) = (1, 50, 20);
        (options.assert, options.without_nginx) = (false, nginx::version().is_none());
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tls: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<bool> {
    let room = Room::new("tls")?;
    let wants = |scenario| options.scenarios.is_empty() || options.scenarios.contains(&scenario);
    let mut good = true;
    if wants(Scenario::Idle) {
        good &= idle(options, &room)?;
    }
    if wants(Scenario::Handshakes) {
        handshakes(options, &room)?;
    }
    if wants(Scenario::Records) {
        sys::pin(0)?;
        records::records(options.rounds, options.connections.min(2000), options.handshakes * 10)?;
        sys::unpin()?;
    }
    Ok(good || !options.assert)
}

/// A connection as a client keeps it.
fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

fn secured(at: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(tls, connect(at)?))
}

/// Asks, and reads to the end of the answer's head.
fn ask(stream: &mut (impl Read + Write), request: &[u8]) -> io::Result<()> {
    stream.write_all(request)?;
    let (mut answer, mut piece) = (Vec::new(), [0; 2048]);
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
    Ok(())
}

const UPGRADE: &[u8] = b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A WebSocket, over TLS or not, of which nothing is kept but the socket.
fn websocket(target: &Target, config: Option<&Arc<ClientConfig>>) -> io::Result<TcpStream> {
    match config {
        Some(config) => {
            let mut stream = secured(target.address("https")?, config)?;
            ask(&mut stream, UPGRADE)?;
            Ok(stream.sock)
        }
        None => {
            let mut stream = connect(target.address("http")?)?;
            ask(&mut stream, UPGRADE)?;
            Ok(stream)
        }
    }
}

/// User memory of the server for each of many idle WebSockets.
fn idle(options: &Options, room: &Room) -> io::Result<bool> {
    let (mut table, mut good) = (Table::new(&["idle", "connections", "user memory each"]), true);
    let config = client(room, &TLS13, false)?;
    for backend in &options.backends {
        for secure in [false, true] {
            let target = server(room, backend, options.connections + 1_000)?;
            let config = secure.then_some(&config);
            // What a server makes once is made.
            let mut held = (0..100).map(|_| websocket(&target, config)).collect::<io::Result<Vec<_>>>()?;
            let before = Memory::of(target.pid())?.anonymous;
            for _ in 0..options.connections {
                held.push(websocket(&target, config)?);
            }
            std::thread::sleep(Duration::from_millis(500));
            let after = Memory::of(target.pid())?.anonymous;
            let each = after.saturating_sub(before) as f64 / options.connections as f64;
            let scheme = if secure { "wss" } else { "ws" };
            table.row(vec![format!("{scheme}, {backend}"), options.connections.to_string(), format!("{each:.0} B")]);
            good &= !secure || each <= IDLE_BYTES_MAX;
            drop(held);
        }
    }
    table.print();
    Ok(good)
}

/// CPU time of a server for each of many handshakes.
fn handshakes(options: &Options, room: &Room) -> io::Result<()> {
    let mut targets = Vec::new();
    for backend in &options.backends {
        targets.push((format!("server {backend}"), server(room, backend, 1000)?));
    }
    if options.without_nginx {
        let line = "=".repeat(70);
        eprintln!("{line}\nNOTHING TO COMPARE WITH: handshakes without nginx. Install it: {}\n{line}", nginx::INSTALL);
    } else {
        let started = nginx::start_tls(&room.own.join("nginx"), &room.certificate, &room.key);
        let started = started.map_err(|error| io::Error::other(format!("{error}: {}", nginx::INSTALL)))?;
        targets.push((nginx::version().unwrap_or_default(), started));
    }
    let mut table = Table::new(&["handshakes", "version", "kind", "CPU each", "per second and core"]);
    for (version, name, resumes) in
        [(&TLS13, "1.3", false), (&TLS13, "1.3", true), (&TLS12, "1.2", false), (&TLS12, "1.2", true)]
    {
        let mut rounds = vec![Vec::new(); targets.len()];
        for _ in 0..options.rounds {
            for ((_, target), rounds) in targets.iter().zip(&mut rounds) {
                let config = client(room, version, resumes)?;
                one(target, &config)?;
                let watch = Stopwatch::start(target.pid())?;
                for _ in 0..options.handshakes {
                    let (kind, suite) = one(target, &config)?;
                    expect(kind, suite, version, resumes)?;
                }
                rounds.push(watch.stop()?.cpu.as_secs_f64() * 1e6 / options.handshakes as f64);
            }
        }
        for ((target, _), rounds) in targets.iter().zip(&rounds) {
            let micros = median(rounds);
            let kind = if resumes { "resumed" } else { "full" };
            let cells = [target.as_str(), name, kind, &format!("{micros:.1} µs"), &format!("{:.0}", 1e6 / micros)];
            table.row(cells.map(str::to_owned).to_vec());
        }
    }
    table.print();
    let (signature, exchange) = cryptography(options.handshakes)?;
    println!("of a full one ring takes {signature:.1} µs for the signature and {exchange:.1} µs for X25519\n");
    Ok(())
}

/// What is measured is what it is called.
fn expect(
    kind: Option<HandshakeKind>,
    suite: Option<CipherSuite>,
    version: &SupportedProtocolVersion,
    resumes: bool,
) -> io::Result<()> {
    let wanted = if resumes { HandshakeKind::Resumed } else { HandshakeKind::Full };
    let cipher = if *version == TLS13 {
        CipherSuite::TLS13_AES_128_GCM_SHA256
    } else {
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    };
    if (kind, suite) == (Some(wanted), Some(cipher)) {
        return Ok(());
    }
    Err(io::Error::other(format!("a handshake {kind:?} with {suite:?} instead of {wanted:?} with {cipher:?}")))
}

/// Microseconds for a signature, and for a key of X25519 and what it agrees on, each on the clients' core.
fn cryptography(times: usize) -> io::Result<(f64, f64)> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let random = SystemRandom::new();
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(|error| failed(&error))?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random);
    let key = key.map_err(|error| failed(&error))?;
    let each = |began: Instant| began.elapsed().as_secs_f64() * 1e6 / times as f64;
    let began = Instant::now();
    for _ in 0..times {
        std::hint::black_box(key.sign(&random, &[7; 130]).map_err(|error| failed(&error))?);
    }
    let signature = each(began);
    let peer = EphemeralPrivateKey::generate(&X25519, &random).and_then(|key| key.compute_public_key());
    let peer = peer.map_err(|error| failed(&error))?;
    let began = Instant::now();
    for _ in 0..times {
        let own = EphemeralPrivateKey::generate(&X25519, &random).map_err(|error| failed(&error))?;
        std::hint::black_box(own.compute_public_key().map_err(|error| failed(&error))?);
        let agreed = agreement::agree_ephemeral(own, &UnparsedPublicKey::new(&X25519, &peer), |secret| secret[0]);
        std::hint::black_box(agreed.map_err(|error| failed(&error))?);
    }
    Ok((signature, each(began)))
}

/// A connection with one request, which brings the ticket for the next.
fn one(target: &Target, config: &Arc<ClientConfig>) -> io::Result<(Option<HandshakeKind>, Option<CipherSuite>)> {
    let mut stream = secured(target.address("https")?, config)?;
    ask(&mut stream, b"GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut rest = Vec::new();
    // Not every server says good-bye.
    let _ = stream.read_to_end(&mut rest);
    let suite = stream.conn.negotiated_cipher_suite().map(|suite| suite.suite());
    Ok((stream.conn.handshake_kind(), suite))
}
