//! What a caller says, and what it makes of what a server says, whole and in pieces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;

use super::*;
use crate::codec::grpc;
use crate::codec::http2::frame::flag;
use crate::codec::http2::response;

const LIMIT: usize = 1000;
const ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";
const GRPC: (&[u8], &[u8]) = (b"content-type", b"application/grpc+proto");

fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(kind, flags, StreamId(stream), payload, &mut out);
    out
}

fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame_of(kind::SETTINGS, 0, 0, &payload)
}

fn head(status: u16, fields: &[(&[u8], &[u8])], ends: bool) -> Vec<u8> {
    let mut out = Vec::new();
    response::write_head(STREAM, status, fields.iter().copied(), ends, &mut out);
    out
}

fn trailers(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    response::write_trailers(STREAM, fields.iter().copied(), &mut out);
    out
}

fn message(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    grpc::encode(payload, &mut out);
    out
}

fn data(payload: &[u8]) -> Vec<u8> {
    frame_of(kind::DATA, 0, 1, payload)
}

/// Settings and a head: what opens a call.
fn welcome() -> Vec<u8> {
    [settings(&[(3, 100)]), head(200, &[GRPC], false)].concat()
}

/// An event as a line of a transcript.
fn told(event: &Event<'_>) -> String {
    match event {
        Event::Message(payload) => format!("message {}", String::from_utf8_lossy(payload)),
        Event::Settings(Settings { initial_window }) => format!("settings {initial_window:?}"),
        event => format!("{event:?}"),
    }
}

/// What is heard of pieces, and what was answered.
fn read(hearing: &mut Hearing, pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>, Option<Broken>) {
    let (mut heard, mut out) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match hearing.next(&mut rest, LIMIT, &mut out) {
                Ok(Some(event)) => heard.push(told(&event)),
                Ok(None) => break assert!(rest.is_empty(), "all is done with"),
                Err(broken) => return (heard, out, Some(broken)),
            }
        }
    }
    (heard, out, None)
}

fn hear(bytes: &[u8]) -> (Vec<String>, Option<Broken>) {
    let (heard, _, broken) = read(&mut Hearing::default(), &[bytes]);
    (heard, broken)
}

/// A call that is open.
fn open() -> Hearing {
    let mut hearing = Hearing::default();
    let (heard, _, broken) = read(&mut hearing, &[&welcome()]);
    assert_eq!((heard.last().map(String::as_str), broken), (Some("Opened"), None));
    hearing
}

/// A whole call, and what is heard of it.
fn whole_call() -> (Vec<u8>, Vec<&'static str>) {
    let padded = [&[3][..], &message(b"padded"), &[0; 3]].concat();
    let long = message(b"in three frames");
    let bytes = [
        settings(&[(4, 70_000)]),
        frame_of(kind::SETTINGS, flag::ACK, 0, &[]),
        frame_of(kind::WINDOW_UPDATE, 0, 0, &1000_u32.to_be_bytes()),
        head(103, &[(b"link", b"x")], false),
        head(200, &[GRPC], false),
        data(&[message(b"one"), message(b""), message(b"three")].concat()),
        frame_of(kind::PRIORITY, 0, 1, &[0; 5]),
        frame_of(kind::DATA, flag::PADDED, 1, &padded),
        data(&long[..3]),
        frame_of(kind::PING, 0, 0, b"01234567"),
        data(&long[3..9]),
        data(b""),
        frame_of(99, 0, 7, b"of another time"),
        frame_of(kind::WINDOW_UPDATE, 0, 1, &5_u32.to_be_bytes()),
        data(&[&long[9..], &message(b"five")].concat()),
        frame_of(kind::GOAWAY, 0, 0, &[0; 8]),
        trailers(&[(b"grpc-status", b"14"), (b"grpc-message", b"no r%C3%B6%20m%")]),
    ];
    let heard = vec![
        "settings Some(70000)",
        "Window { of_stream: false, bytes: 1000 }",
        "Opened",
        "message one",
        "message ",
        "message three",
        "message padded",
        "Ping",
        "Window { of_stream: true, bytes: 5 }",
        "message in three frames",
        "message five",
        "GoAway",
        "Ended(Status(14, \"no rö m%\"))",
    ];
    (bytes.concat(), heard)
}

#[test]
fn a_call_is_heard_wherever_it_is_cut() {
    let (bytes, expected) = whole_call();
    let answers = [ACK, b"\0\0\x08\x06\x01\0\0\0\x0001234567"].concat();
    for cut in 0..=bytes.len() {
        let (heard, out, broken) = read(&mut Hearing::default(), &[&bytes[..cut], &bytes[cut..]]);
        assert_eq!((heard, broken), (expected.iter().map(|line| (*line).to_owned()).collect(), None), "cut at {cut}");
        assert_eq!(out, answers, "cut at {cut}");
    }
    let (heard, ..) = read(&mut Hearing::default(), &bytes.chunks(1).collect::<Vec<_>>());
    assert_eq!(heard, expected);
}

#[test]
fn between_messages_a_number_is_all_there_is() {
    let bytes = data(&[message(b"one"), message(b"two")].concat());
    for cut in 0..bytes.len() {
        let mut hearing = open();
        assert!(hearing.is_at_rest() && hearing.used() == 0);
        read(&mut hearing, &[&bytes[..cut]]);
        assert_eq!(hearing.is_at_rest(), cut == 0, "cut at {cut}");
        read(&mut hearing, &[&bytes[cut..]]);
        assert!(hearing.is_at_rest(), "cut at {cut}");
        let mut again = Hearing::resumed(hearing.used());
        assert_eq!(read(&mut again, &[&data(&message(b"three"))]).0, ["message three"]);
        assert_eq!(again.used(), 26);
    }
    assert!(!Hearing::default().is_at_rest(), "a call that is not open is not at rest");
}

#[test]
fn what_was_heard_is_credited_when_it_is_half_a_window() {
    let (mut hearing, mut out) = (open(), Vec::new());
    let frame = data(&[0; 16_384 / 5 * 5]);
    let bytes = u32::try_from(frame.len() - 9).unwrap();
    for _ in 0..WINDOW / 2 / bytes {
        read(&mut hearing, &[&frame]);
        hearing.credit(&mut out);
    }
    assert_eq!(out, b"", "{}", hearing.used());
    read(&mut hearing, &[&frame]);
    hearing.credit(&mut out);
    let credit = (WINDOW / 2 / bytes + 1) * bytes;
    let update = |stream| frame_of(kind::WINDOW_UPDATE, 0, stream, &credit.to_be_bytes());
    assert_eq!((out, hearing.used()), ([update(1), update(0)].concat(), 0));
}

#[test]
fn a_call_that_is_not_taken_says_why() {
    let status = |fields: &[(&[u8], &[u8])]| [settings(&[]), head(200, fields, true)].concat();
    for (bytes, expected) in [
        (status(&[GRPC, (b"grpc-status", b"12"), (b"grpc-message", b"no")]), "Ended(Status(12, \"no\"))"),
        (status(&[GRPC]), "Ended(Status(2, \"the call ended without a status\"))"),
        ([settings(&[]), head(503, &[(b"retry-after", b"7")], false)].concat(), "Ended(Declined(503, Some(7)))"),
        ([settings(&[]), head(404, &[], true)].concat(), "Ended(Declined(404, None))"),
        ([settings(&[]), frame_of(kind::RST_STREAM, 0, 1, &[0, 0, 0, 7])].concat(), "Ended(Reset(7))"),
        (
            [welcome(), frame_of(kind::DATA, flag::END_STREAM, 1, &[])].concat(),
            "Ended(Status(2, \"the call ended without a status\"))",
        ),
    ] {
        let (heard, broken) = hear(&[&bytes[..], b"whatever follows"].concat());
        assert_eq!((heard.last().map(String::as_str), broken), (Some(expected), None));
    }
}

#[test]
fn the_last_messages_may_end_the_stream() {
    let last = frame_of(kind::DATA, flag::END_STREAM, 1, &message(b"last"));
    let (heard, broken) = hear(&[welcome(), last].concat());
    let expected = ["message last", "Ended(Status(2, \"the call ended without a status\"))"];
    assert_eq!((&heard[2..], broken), (&expected.map(str::to_owned)[..], None));
}

#[test]
fn what_no_server_may_say_is_told() {
    let open = |frame: Vec<u8>| [welcome(), frame].concat();
    let mut long = settings(&[]);
    long.extend(head(200, &[GRPC, (b"x", &[b'a'; 9000])], false));
    for (bytes, expected) in [
        (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), Broken::NotHttp2),
        (b"SSH-2.0-x\r\n".to_vec(), Broken::NotHttp2),
        (head(200, &[GRPC], false), Broken::NotHttp2),
        (frame_of(kind::PING, 0, 0, &[0; 8]), Broken::NotHttp2),
        ([settings(&[]), head(200, &[(b"content-type", b"text/html")], false)].concat(), Broken::NotGrpc),
        ([settings(&[]), frame_of(kind::HEADERS, 0, 1, b"\x88")].concat(), Broken::LongHead),
        (long, Broken::LongHead),
        ([settings(&[]), frame_of(kind::HEADERS, flag::END_HEADERS, 1, b"\xff")].concat(), Broken::Head),
        ([settings(&[]), frame_of(kind::HEADERS, flag::END_HEADERS, 1, b"\xbe")].concat(), Broken::Head),
        ([settings(&[]), head(103, &[], true)].concat(), Broken::Head),
        ([settings(&[]), data(&message(b"too early"))].concat(), Broken::Frame),
        (settings(&[(4, 1 << 31)]), Broken::Window),
        (frame_of(kind::SETTINGS, 0, 0, &[0; 5]), Broken::Frame),
        (open(frame_of(kind::SETTINGS, flag::ACK, 0, &[0; 6])), Broken::Frame),
        (open(frame_of(kind::SETTINGS, 0, 1, &[])), Broken::Frame),
        (open(head(200, &[GRPC], false)), Broken::Head),
        (open(frame_of(kind::PING, 0, 0, &[0; 7])), Broken::Frame),
        (open(frame_of(kind::PING, 0, 1, &[0; 8])), Broken::Frame),
        (open(frame_of(kind::WINDOW_UPDATE, 0, 1, &[0; 4])), Broken::Frame),
        (open(frame_of(kind::RST_STREAM, 0, 1, &[0; 3])), Broken::Frame),
        (open(frame_of(kind::RST_STREAM, 0, 3, &[0; 4])), Broken::Frame),
        (open(frame_of(kind::GOAWAY, 0, 0, &[0; 7])), Broken::Frame),
        (open(frame_of(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0, 0, 0, 2, 0x88])), Broken::Frame),
        (open(frame_of(kind::CONTINUATION, flag::END_HEADERS, 1, b"\x88")), Broken::Frame),
        (open(frame_of(kind::DATA, 0, 3, &message(b"x"))), Broken::Frame),
        (open(frame_of(kind::DATA, flag::PADDED, 1, &[5, 0])), Broken::Frame),
        (open(frame_of(kind::DATA, flag::PADDED, 1, &[])), Broken::Frame),
        (open(frame_of(kind::HEADERS, flag::END_HEADERS | flag::PADDED, 1, &[9, 0x88])), Broken::Frame),
        (open(data(b"\x01\0\0\0\x01x")), Broken::Encoding),
        (open(data(b"\0\0\0\x03\xe9")), Broken::TooLong(1001)),
        (open(b"\0\x40\x01\0\0\0\0\0\x01".to_vec()), Broken::FrameTooLong),
    ] {
        let whole = hear(&bytes).1;
        assert_eq!(whole, Some(expected), "{bytes:?}");
        let (.., in_pieces) = read(&mut Hearing::default(), &bytes.chunks(1).collect::<Vec<_>>());
        assert_eq!(in_pieces, whole, "{bytes:?}");
    }
}

#[test]
fn more_than_the_window_is_told() {
    let mut hearing = open();
    let frame = data(&[0; 16_380]);
    let heard = (0..100).map(|_| read(&mut hearing, &[&frame]).2).take_while(Option::is_none).count();
    assert_eq!(heard, WINDOW as usize / 16_380);
}

proptest! {
    #[test]
    fn anything_is_survived_and_reads_the_same_in_pieces(
        frames in prop::collection::vec((0_u8..11, any::<u8>(), 0_u32..3, any::<Vec<u8>>()), 0..12),
        is_open: bool,
        cuts: Vec<prop::sample::Index>,
    ) {
        let mut bytes = if is_open { welcome() } else { settings(&[]) };
        frames.iter().for_each(|(kind, flags, stream, payload)| bytes.extend(frame_of(*kind, *flags, *stream, payload)));
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let whole = read(&mut Hearing::default(), &[&bytes]);
        prop_assert_eq!(read(&mut Hearing::default(), &pieces), whole);
    }
}

#[test]
fn a_hello_says_who_calls_what() {
    let subscription = client::Subscription { topic: "t", ..client::Subscription::default() };
    for (method, path, rest) in [
        (Method::Echo, &b"/holdline.v1.Edge/Echo"[..], 0),
        (Method::Connect(subscription), b"/holdline.v1.Edge/Connect", 9 + 5 + 2 + 2 + 3),
    ] {
        let bytes = hello(&method, "h:1", false);
        let rest_of = bytes.strip_prefix(PREFACE).unwrap();
        let windows = [settings(&[(1, 0), (2, 0), (4, WINDOW)]), frame_of(8, 0, 0, &(WINDOW - 65_535).to_be_bytes())];
        let head = rest_of.strip_prefix(windows.concat().as_slice()).unwrap();
        let header = frame::Header::parse(head.first_chunk().unwrap());
        assert_eq!((header.kind, header.flags, header.stream), (kind::HEADERS, flag::END_HEADERS, STREAM));
        assert_eq!(head.len() - 9 - header.length as usize, rest);
        let mut fields = Vec::new();
        let mut decoder = crate::codec::http2::Decoder::new(0);
        let bounds = crate::codec::http2::hpack::Bounds { bytes_max: 1000, fields_max: 10 };
        let block = &head[9..9 + header.length as usize];
        decoder
            .decode(block, bounds, &mut Vec::new(), |name, value| fields.push((name.to_vec(), value.to_vec())))
            .unwrap();
        let field = |name: &[u8]| fields.iter().find(|field| field.0 == name).map(|field| field.1.as_slice());
        assert_eq!((field(b":method"), field(b":path")), (Some(&b"POST"[..]), Some(path)));
        assert_eq!((field(b":scheme"), field(b":authority")), (Some(&b"http"[..]), Some(&b"h:1"[..])));
        assert_eq!((field(b"te"), field(b"content-type")), (Some(&b"trailers"[..]), Some(&b"application/grpc"[..])));
    }
}

/// What was said: the lengths of the DATA frames, and their bytes.
fn said(mut out: &[u8]) -> (Vec<usize>, Vec<u8>) {
    let (mut lengths, mut bytes) = (Vec::new(), Vec::new());
    while let Some((header, rest)) = out.split_first_chunk() {
        let header = frame::Header::parse(header);
        assert_eq!((header.kind, header.flags, header.stream), (kind::DATA, 0, STREAM));
        let (payload, rest) = rest.split_at(header.length as usize);
        lengths.push(payload.len());
        bytes.extend_from_slice(payload);
        out = rest;
    }
    (lengths, bytes)
}

#[test]
fn long_messages_are_said_in_frames_and_within_both_windows() {
    let (mut speaking, mut out) = (Speaking::new(), Vec::new());
    let payload: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    speaking.message(b"head", &payload, &mut out);
    assert_eq!(said(&out).0, [16_384, 16_384, 16_384, 16_383], "the first windows have 65,535 bytes");
    assert_eq!(speaking.waiting(), 100_009 - 65_535);
    speaking.message(b"", b"behind it", &mut out);
    let mut note = |event: Event<'_>, out: &mut Vec<u8>| speaking.note(&event, out).unwrap();
    note(Event::Window { of_stream: true, bytes: 1 << 20 }, &mut out);
    assert_eq!(said(&out).1.len(), 65_535, "the connection's window is empty");
    note(Event::Window { of_stream: false, bytes: 1 }, &mut out);
    assert_eq!(said(&out).0.last(), Some(&1));
    note(Event::Window { of_stream: false, bytes: 1 << 20 }, &mut out);
    let whole = [message(&[b"head", payload.as_slice()].concat()), message(b"behind it")].concat();
    assert_eq!((said(&out).1, speaking.waiting()), (whole, 0));
}

#[test]
fn a_window_may_shrink_below_zero() {
    let (mut speaking, mut out) = (Speaking::new(), Vec::new());
    speaking.message(b"", &[0; 995], &mut out);
    out.clear();
    let settings = |window| Event::Settings(Settings { initial_window: Some(window) });
    speaking.note(&settings(600), &mut out).unwrap();
    speaking.message(b"", b"wait", &mut out);
    speaking.note(&Event::Window { of_stream: true, bytes: 400 }, &mut out).unwrap();
    assert_eq!(out, b"", "600 - 1000 + 400 is nothing");
    speaking.note(&settings(1009), &mut out).unwrap();
    assert_eq!(said(&out).1, message(b"wait"));
}

#[test]
fn a_window_beyond_all_is_told() {
    let (mut speaking, mut out) = (Speaking::new(), Vec::new());
    for of_stream in [true, false] {
        let most = Event::Window { of_stream, bytes: StreamId::MAX - 65_535 };
        assert_eq!(speaking.note(&most, &mut out), Ok(()));
        let more = Event::Window { of_stream, bytes: 1 };
        assert_eq!(speaking.note(&more, &mut out), Err(Broken::Window));
    }
    let settings = Event::Settings(Settings { initial_window: Some(65_536) });
    assert_eq!(speaking.note(&settings, &mut out), Err(Broken::Window), "it grows the stream that is open");
}

#[test]
fn the_end_waits_for_what_is_said_before_it() {
    let end = frame_of(kind::DATA, flag::END_STREAM, 1, &[]);
    let (mut speaking, mut out) = (Speaking::new(), Vec::new());
    speaking.finish(&mut out);
    assert_eq!(out, end);
    let (mut speaking, mut out) = (Speaking::new(), Vec::new());
    speaking.message(b"", &[0; 65_531], &mut out);
    out.clear();
    speaking.finish(&mut out);
    assert_eq!(out, b"");
    for of_stream in [true, false] {
        speaking.note(&Event::Window { of_stream, bytes: 100 }, &mut out).unwrap();
    }
    assert_eq!(out, [data(&[0]), end].concat());
}

#[test]
fn a_good_bye_ends_the_stream_and_the_connection() {
    let mut out = Vec::new();
    write_good_bye(&mut out);
    let expected = [frame_of(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), frame_of(kind::GOAWAY, 0, 0, &[0; 8])];
    assert_eq!(out, expected.concat());
}
