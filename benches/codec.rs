//! The WebSocket codec and session: what a message costs before anything is done with it.
//!
//! `cargo bench --bench codec`. Each input is copied into the receive buffer before it is parsed, as a kernel would,
//! since unmasking changes it; `copy` is what that copy alone costs, to be subtracted.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use holdline::codec::websocket::deflate::{Deflater, Inflater};
use holdline::codec::websocket::{mask, utf8};
use holdline::config::Limits;
use holdline::message::{Kind, Wire};
use holdline::session::websocket::{State, encode_message, receive};
use holdline::session::{Encoder, Env, Flow, Partials, Tools};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(len @ 0..126) => frame.push(0x80 | len.to_be_bytes()[1]),
        Ok(len) => frame.extend([&[0x80 | 126], len.to_be_bytes().as_slice()].concat()),
        Err(_) => frame.extend([&[0x80 | 127], (payload.len() as u64).to_be_bytes().as_slice()].concat()),
    }
    frame.extend_from_slice(&KEY);
    let body = frame.len();
    frame.extend_from_slice(payload);
    mask::unmask(&mut frame[body..], KEY, 0);
    frame
}

/// 1 KiB that looks like what applications send.
fn json() -> Vec<u8> {
    let mut text = Vec::new();
    for n in 0_u32..40 {
        let price = n.wrapping_mul(2_654_435_761) % 100_000;
        text.extend_from_slice(format!("{{\"id\":{n},\"price\":{price},\"name\":\"item {}\"}},", n % 7).as_bytes());
    }
    text.truncate(1024);
    text
}

fn decode(criterion: &mut Criterion) {
    let limits = Limits::default();
    let (mut tools, mut partials) = (Tools::default(), Partials::default());
    let mut group = criterion.benchmark_group("decode");
    let text = b"{\"user\":\"somebody\",\"text\":\"what people say in a chat, mostly\"}...";
    let cases = [
        ("16 x 64 B binary", frame(0x82, &text[..64]).repeat(16)),
        ("16 x 64 B text", frame(0x81, &text[..64]).repeat(16)),
        ("16 x 64 B greek", frame(0x81, &"κόσμε! ".repeat(6).as_bytes()[..64]).repeat(16)),
        ("64 KiB binary", frame(0x82, &vec![7; 65_536])),
        ("64 KiB text", frame(0x81, &vec![b'7'; 65_536])),
    ];
    for (name, stream) in cases {
        let mut buffer = stream.clone();
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(format!("{name}, copy"), |bencher| {
            bencher.iter(|| black_box(&mut buffer).copy_from_slice(black_box(&stream)));
        });
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                buffer.copy_from_slice(black_box(&stream));
                let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
                receive(&mut State::open(0), &mut None, &mut buffer, &mut env, |event| {
                    black_box(&event);
                    Flow::Continue
                })
            });
        });
    }
    // The same as the first, but each buffer ends inside a frame.
    let stream = frame(0x82, &text[..64]).repeat(16);
    let mut buffer = stream.clone();
    group.throughput(Throughput::Bytes(stream.len() as u64));
    group.bench_function("16 x 64 B binary, cut in 2", |bencher| {
        let (mut state, mut partial) = (State::open(0), None);
        bencher.iter(|| {
            buffer.copy_from_slice(black_box(&stream));
            let (head, tail) = buffer.split_at_mut(600);
            for piece in [head, tail] {
                let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
                let used = receive(&mut state, &mut partial, piece, &mut env, |event| {
                    black_box(&event);
                    Flow::Continue
                });
                black_box(used.is_ok());
            }
        });
    });
    let tiny = [frame(0x02, b"x"), frame(0x00, b"x").repeat(998), frame(0x80, b"x")].concat();
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1000 fragments of 1 B", |bencher| {
        bencher.iter_batched_ref(
            || tiny.clone(),
            |buffer| {
                let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
                receive(&mut State::open(0), &mut None, buffer, &mut env, |_| Flow::Continue)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn pieces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pieces");
    for len in [64, 1024, 65_536] {
        let mut bytes = vec![b'a'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("unmask {len} B"), |bencher| {
            bencher.iter(|| mask::unmask(black_box(&mut bytes), black_box(KEY), 0));
        });
        let text = vec![b'a'; len];
        group.bench_function(format!("utf8 {len} B"), |bencher| bencher.iter(|| utf8::check(black_box(&text))));
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let (mut tools, json) = (Tools::default(), json());
    let mut out = Vec::with_capacity(128 * 1024);
    let large = vec![7; 65_536];
    for (name, payload, window_bits) in [
        ("64 B", &json[..64], 0),
        ("1 KiB", &json[..], 0),
        ("64 KiB", &large[..], 0),
        ("1 KiB, deflated", &json[..], 15),
    ] {
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(name, |bencher| {
            let encoder = Encoder { wire: Wire::WebSocket, window_bits };
            bencher.iter(|| {
                out.clear();
                encode_message(encoder, Kind::Text, black_box(payload), &mut tools.deflater, &mut out);
            });
        });
    }
    group.finish();
}

fn compress(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deflate");
    let (json, mut deflater, mut inflater) = (json(), Deflater::default(), Inflater::default());
    let mut out = Vec::with_capacity(4096);
    group.throughput(Throughput::Bytes(json.len() as u64));
    for window_bits in [9, 15] {
        group.bench_function(format!("deflate 1 KiB, window {window_bits}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                deflater.compress(black_box(&json), window_bits, &mut out)
            });
        });
    }
    let compressed = out.clone();
    println!("1 KiB of JSON becomes {} bytes", compressed.len());
    group.bench_function("inflate to 1 KiB", |bencher| {
        bencher.iter(|| {
            out.clear();
            inflater.inflate(black_box(&compressed), 65_536, &mut out)
        });
    });
    group.finish();
}

criterion_group!(benches, decode, pieces, encode, compress);
criterion_main!(benches);
