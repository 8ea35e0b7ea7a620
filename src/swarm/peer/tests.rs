//! What a client says, and what it makes of what a server says, whole or in pieces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;

use super::*;
use crate::codec::Kind;
use crate::codec::websocket::frame::Header;
use crate::swarm::plan::App;

const LIMIT: usize = 300;
const CALLS: &str = "what is heard in a call is tested where it is heard";

fn target(protocol: Protocol, topic: Option<&str>) -> Target {
    Target {
        protocol,
        tls: false,
        address: "127.0.0.1:8080".parse().unwrap(),
        host: "127.0.0.1:8080".to_owned(),
        path: "/topics/load".to_owned(),
        first_frame: topic.map(str::to_owned),
        app: App::Topic,
    }
}

fn client(protocol: Protocol) -> Client {
    Client::new(&target(protocol, None), [9; 16], LIMIT)
}

fn any_protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::WebSocket), Just(Protocol::Sse), Just(Protocol::Line), Just(Protocol::Length)]
}

/// What a server may say, with the bytes it says it in.
#[derive(Clone, Debug)]
enum Said {
    Message(String),
    Heartbeat,
    Pong,
    Close(u16, String),
}

fn any_said() -> impl Strategy<Value = Said> {
    prop_oneof![
        6 => "[ -~]{1,300}".prop_map(Said::Message),
        1 => Just(Said::Heartbeat),
        1 => Just(Said::Pong),
        1 => (3000_u16..5000, "[a-zä]{0,40}").prop_map(|(code, reason)| Said::Close(code, reason)),
    ]
}

fn encode(protocol: Protocol, said: &Said, out: &mut Vec<u8>) {
    let control = |opcode, payload: &[u8], out: &mut Vec<u8>| {
        out.extend_from_slice(Header::control(opcode, payload.len()).as_slice());
        out.extend_from_slice(payload);
    };
    match (protocol, said) {
        (Protocol::WebSocket, Said::Message(text)) => {
            out.extend_from_slice(Header::message(Kind::Text, text.len(), false).as_slice());
            out.extend_from_slice(text.as_bytes());
        }
        (Protocol::WebSocket, Said::Heartbeat) => control(Opcode::Ping, b"p", out),
        (Protocol::WebSocket, Said::Pong) => control(Opcode::Pong, b"", out),
        (Protocol::WebSocket, Said::Close(code, reason)) => {
            control(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat(), out);
        }
        (Protocol::Sse, Said::Message(text)) => {
            out.extend_from_slice(format!("id: 1:7\r\ndata: {text}\r\n\r\n").as_bytes());
        }
        (Protocol::Sse, _) => out.extend_from_slice(b":\n"),
        (Protocol::Line, Said::Message(text)) => line::encode(text.as_bytes(), out),
        (Protocol::Line, _) => out.push(b'\n'),
        (Protocol::Length, Said::Message(text)) => length::encode(text.as_bytes(), out),
        (Protocol::Length, _) => length::encode(b"", out),
        (Protocol::Grpc, _) => unreachable!("{CALLS}"),
    }
}

/// A frame in words. Over SSE a message is an event, which is told by its data.
fn told(frame: Frame<'_>) -> String {
    match frame {
        Frame::Event(event) => event.data().map_or("no data".to_owned(), |data| format!("{:?}", Frame::Message(&data))),
        frame => format!("{frame:?}"),
    }
}

fn expected(protocol: Protocol, said: &Said) -> String {
    format!(
        "{:?}",
        match (protocol, said) {
            (_, Said::Message(text)) => Frame::Message(text.as_bytes()),
            (Protocol::Sse, _) => Frame::Comment,
            (Protocol::WebSocket, Said::Heartbeat) => Frame::Ping(b"p"),
            (Protocol::WebSocket, Said::Pong) => Frame::Pong,
            (Protocol::WebSocket, Said::Close(code, reason)) => Frame::Close(Some(*code), reason),
            (Protocol::Line | Protocol::Length, _) => Frame::Ping(b""),
            (Protocol::Grpc, _) => unreachable!("{CALLS}"),
        }
    )
}

/// What a client sees of pieces, as the engine reads them: what is not whole is kept.
fn read(client: &Client, pieces: &[&[u8]]) -> (Vec<String>, Option<Broken>) {
    let (mut kept, mut seen) = (Vec::new(), Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        let mut done = 0;
        loop {
            match client.next(&kept[done..]) {
                Ok(Some((frame, bytes))) => {
                    assert!(bytes > 0 && bytes <= kept.len() - done, "a frame lies inside of what was shown");
                    // A newline may come after its carriage return.
                    if frame != Frame::Blank {
                        seen.push(told(frame));
                    }
                    done += bytes;
                }
                Ok(None) => break,
                Err(broken) => return (seen, Some(broken)),
            }
        }
        kept.drain(..done);
        assert!(kept.len() <= client.kept_bytes_max(), "{} bytes kept", kept.len());
    }
    (seen, None)
}

fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn wherever_it_is_cut_the_frames_are_the_same(
        protocol in any_protocol(),
        said in prop::collection::vec(any_said(), 0..12),
        cuts: Vec<prop::sample::Index>,
    ) {
        let mut bytes = Vec::new();
        said.iter().for_each(|said| encode(protocol, said, &mut bytes));
        let expected: Vec<String> = said.iter().map(|said| expected(protocol, said)).collect();
        prop_assert_eq!(read(&client(protocol), &cut(&bytes, &cuts)), (expected, None));
    }

    #[test]
    fn anything_is_survived_and_reads_the_same_in_pieces(
        protocol in any_protocol(),
        // Bytes that begin frames more often than chance would.
        bytes in prop::collection::vec(prop_oneof![
            any::<u8>(), prop::sample::select(&b"\x81\x82\x88\x89\x8a\x7e\x7f\0\n\r\x02\x01data:"[..])
        ], 0..2000),
        cuts: Vec<prop::sample::Index>,
    ) {
        let client = client(protocol);
        let whole = read(&client, &[&bytes]);
        let (seen, broken) = read(&client, &cut(&bytes, &cuts));
        prop_assert_eq!(&seen, &whole.0);
        prop_assert_eq!(broken.is_some(), whole.1.is_some());
        let _ = client.open(&bytes);
    }
}

#[test]
fn what_a_client_sends_first() {
    let hello = |protocol, topic| Client::new(&target(protocol, topic), [1; 16], LIMIT).hello().to_vec();
    let request = String::from_utf8(hello(Protocol::WebSocket, None)).unwrap();
    assert!(request.starts_with("GET /topics/load HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"), "{request}");
    let request = String::from_utf8(hello(Protocol::Sse, None)).unwrap();
    assert!(request.starts_with("GET /topics/load HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"), "{request}");
    assert!(request.contains("\r\nAccept: text/event-stream\r\n") && request.ends_with("\r\n\r\n"), "{request}");
    let call = hello(Protocol::Grpc, None);
    assert!(
        call.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") && call.ends_with(b"\x12\x06\x0a\x04load"),
        "{call:?}"
    );
    assert_eq!(hello(Protocol::Line, Some("load")), b"load\n");
    assert_eq!(hello(Protocol::Length, Some("load")), b"\0\0\0\x04load");
    assert_eq!(hello(Protocol::Line, None), b"");
}

#[test]
fn only_the_proof_for_our_key_opens() {
    let client = client(Protocol::WebSocket);
    let welcome = |accept: &[u8]| {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
        [&head[..], b"Sec-WebSocket-Accept: ", accept, b"\r\n\r\n"].concat()
    };
    let good = welcome(&accept_key(&client::key([9; 16])));
    for end in 0..good.len() {
        assert_eq!(client.open(&good[..end]), Ok(None));
    }
    assert_eq!(client.open(&[&good[..], b"\x81\x01a"].concat()), Ok(Some(Welcome { bytes: good.len(), body: None })));
    let bad = client.open(&welcome(&accept_key(&client::key([8; 16])))).unwrap_err();
    assert!(matches!(bad, Broken::NotWebSocket(_)), "{bad}");
    assert_eq!(self::client(Protocol::Line).open(b""), Ok(Some(Welcome { bytes: 0, body: None })));
}

#[test]
fn only_an_endless_stream_of_events_opens() {
    let client = client(Protocol::Sse);
    for (fields, body) in [("", Body::until_close()), ("Transfer-Encoding: chunked\r\n", Body::chunked())] {
        let good = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{fields}\r\n");
        assert_eq!(client.open(&good.as_bytes()[..good.len() - 1]), Ok(None));
        let welcome = Welcome { bytes: good.len(), body: Some(body) };
        assert_eq!(client.open(format!("{good}data").as_bytes()), Ok(Some(welcome)));
    }
    let bad = client.open(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n").unwrap_err();
    assert!(matches!(bad, Broken::NotEventStream(_)) && !bad.mend().is_empty(), "{bad}");
    let no = client.open(b"HTTP/1.1 503 X\r\nRetry-After: 3\r\n\r\n");
    assert_eq!(no, Err(Broken::Declined { status: 503, retry_after: Some(3) }));
}

#[test]
fn a_no_is_told_with_its_status_and_a_way_out() {
    let client = client(Protocol::WebSocket);
    for (head, status, retry_after, said) in [
        ("503 X\r\nRetry-After: 3", 503, Some(3), "the server answered 503 Service Unavailable"),
        ("403 X", 403, None, "the server answered 403 Forbidden"),
        ("404 X", 404, None, "the server answered 404 Not Found"),
        ("426 X", 426, None, "the server answered 426 Upgrade Required"),
        ("200 X", 200, None, "the server answered 200 OK"),
    ] {
        let broken = client.open(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()).unwrap_err();
        assert_eq!(broken, Broken::Declined { status, retry_after });
        assert_eq!(broken.to_string(), said);
        assert!(!broken.mend().is_empty());
    }
}

#[test]
fn what_no_server_may_send_is_told() {
    for (protocol, bytes, expected) in [
        (Protocol::WebSocket, &[0x81, 0x80][..], Broken::Frame(BadFrame::Masked)),
        (Protocol::WebSocket, &[0x01, 1, b'a'], Broken::Fragmented),
        (Protocol::WebSocket, &[0x80, 1, b'a'], Broken::Fragmented),
        (Protocol::WebSocket, &[0x88, 1, 3], Broken::Close(CloseError::HalfACode)),
        (Protocol::WebSocket, &[0x88, 2, 3, 0xed], Broken::Close(CloseError::BadCode(1005))),
        (Protocol::WebSocket, &[0x82, 126, 1, 45], Broken::TooLong(LIMIT)),
        (Protocol::WebSocket, &[0x82, 127, 127, 255, 255, 255, 255, 255, 255, 255], Broken::TooLong(LIMIT)),
        (Protocol::Length, &[0, 0, 1, 45], Broken::TooLong(LIMIT)),
        (Protocol::Length, &[255, 255, 255, 255], Broken::TooLong(LIMIT)),
        (Protocol::Line, &[b'a'; 303], Broken::TooLong(LIMIT)),
        (Protocol::Sse, &[b':'; 1325], Broken::TooLong(LIMIT)),
        (Protocol::Sse, &[&b"data:"[..], &[b'a'; 1318], b"\n\n"].concat(), Broken::TooLong(LIMIT)),
    ] {
        assert_eq!(client(protocol).next(bytes), Err(expected), "{bytes:?}");
    }
    assert_eq!(client(Protocol::Line).next(&[b'a'; 302]), Ok(None), "a CR and a newline may follow");
    assert_eq!(client(Protocol::Sse).next(&[b':'; 1324]), Ok(None), "an id and other fields may stand in an event");
}

#[test]
fn masks_differ_from_message_to_message() {
    let mut client = client(Protocol::WebSocket);
    let masks: std::collections::HashSet<Vec<u8>> = (0..1000)
        .map(|_| {
            let mut out = Vec::new();
            client.message(b"x", None, &mut out);
            out[2..6].to_vec()
        })
        .collect();
    assert_eq!(masks.len(), 1000);
    assert!(!masks.contains(&vec![0; 4]));
}

#[test]
fn over_sse_a_client_says_nothing() {
    let (mut client, mut out) = (client(Protocol::Sse), Vec::new());
    client.message(b"a message", None, &mut out);
    client.pong(b"", &mut out);
    client.close(&mut out);
    assert_eq!((out, client.says_good_bye()), (Vec::new(), false));
    assert_eq!(client.next(b": heartbeat\n\n"), Ok(Some((Frame::Comment, 12))));
}

#[test]
fn in_a_call_messages_are_read_by_the_method() {
    let topic = client(Protocol::Grpc);
    let message = b"\x12\x07\x12\x02\x08\x01\x22\x01a";
    assert_eq!(topic.payload(message), Ok(Some(&b"a"[..])));
    assert_eq!(topic.payload(b"\x1a\x03\x0a\x01t"), Ok(None), "a subscription has begun");
    assert_eq!(topic.payload(b"\x3a\x03\x0a\x01t"), Err(Broken::NotSubscribed));
    assert_eq!(topic.payload(b"\x12"), Err(Broken::Message(BadMessage)));
    let target = Target { app: App::Echo, ..target(Protocol::Grpc, None) };
    let (mut echo, mut call, mut out) = (Client::new(&target, [9; 16], LIMIT), Speaking::new(), Vec::new());
    assert!(echo.speaks_on_call() && !topic.speaks_on_call());
    echo.message(b"a message", Some(&mut call), &mut out);
    assert_eq!(echo.payload(&out[14..]), Ok(Some(&b"a message"[..])));
    out.clear();
    echo.close(&mut out);
    assert!(!out.is_empty() && echo.says_good_bye());
}

#[test]
fn raw_tcp_has_heartbeats_and_no_good_bye() {
    for (protocol, empty) in [(Protocol::Line, &b"\n"[..]), (Protocol::Length, b"\0\0\0\0")] {
        let (mut client, mut out) = (client(protocol), Vec::new());
        assert_eq!(client.next(empty), Ok(Some((Frame::Ping(b""), empty.len()))));
        client.pong(b"", &mut out);
        client.close(&mut out);
        assert_eq!(out, empty);
    }
}
