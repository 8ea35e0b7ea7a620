//! What a real server tells a receiver of hooks, and what it does when that is slow, away or somebody else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/nats.rs"]
mod nats;
#[path = "common/program.rs"]
mod program;
#[path = "common/receiver.rs"]
mod receiver;
#[path = "common/wire.rs"]
#[allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a part of it is used")]
mod wire;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use nats::Nats;
use program::{PATIENCE, Program, Scratch, backends, holdline, until};
use receiver::Receiver;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use wire::{CLOSE, FIN, TEXT, handshake, masked};

const KEYS: &str = "[[key]]\nname = \"ann\"\nkey = \"a-key-that-nobody-guesses-0123456789\"\nsubscribe = [\"**\"]\npublish = [\"**\"]\n";

/// A server with these hooks.
fn serve(backend: &str, settings: &Scratch) -> Program {
    let mut command = holdline(&["serve", "--config", settings.path(), "--backend", backend, "--shards", "2"]);
    command.args(["--listen", "http://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0?framing=line&app=topic&topic=news"]);
    command.args(["--admin", "127.0.0.1:0", "--drain", "1s"]).stderr(Stdio::null());
    Program::start(command)
}

fn settings(name: &str, hooks: &str) -> Scratch {
    Scratch::with(&format!("hooks-{name}.toml"), &format!("[hooks]\nbatch_delay = \"20ms\"\n{hooks}\n"))
}

fn connect(address: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

/// Asks, and reads the head of the answer.
fn ask(address: &str, request: &str) -> BufReader<TcpStream> {
    let mut stream = connect(address);
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101") || head.starts_with("HTTP/1.1 200"), "{head}");
    stream
}

fn post(address: &str, topic: &str, text: &str) {
    let length = text.len();
    ask(address, &format!("POST /topics/{topic} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n{text}"));
}

/// The kinds of a connection's events, in the order in which they came.
fn kinds(receiver: &Receiver, protocol: &str) -> Vec<String> {
    let its = receiver.events.iter().filter(|event| event["protocol"] == protocol);
    its.map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_kind_is_told_of_each_protocol() {
    for backend in backends() {
        let mut receiver = Receiver::start(None);
        let keys = Scratch::with("hooks-keys.toml", KEYS);
        let settings = settings(
            "kinds",
            &format!(
                "url = \"http://127.0.0.1:{}/in\"\npayload = true\nsecret_file = \"tests/keys/hook-secret\"\n\
                 events = [\"connect\", \"disconnect\", \"subscribe\", \"unsubscribe\", \"publish\", \"occupied\", \"vacated\"]\n\
                 [auth]\napi_keys = {:?}\nanonymous_subscribe = [\"**\"]\nanonymous_publish = [\"**\"]",
                receiver.port,
                keys.path()
            ),
        );
        let program = serve(backend, &settings);
        let (web, lines) = (program.address(0).to_owned(), program.address(1).to_owned());

        let mut websocket =
            ask(&web, &handshake("/topics/news", "X-API-Key: a-key-that-nobody-guesses-0123456789\r\n"));
        receiver.await_kind("subscribe", 1);
        let stream = ask(&web, "GET /topics/news HTTP/1.1\r\nHost: here\r\nAccept: text/event-stream\r\n\r\n");
        receiver.await_kind("subscribe", 2);
        let mut line = connect(&lines);
        line.get_mut().write_all(b"AUTH\n").unwrap();
        receiver.await_kind("subscribe", 3);
        post(&web, "news", "posted");
        receiver.await_kind("publish", 1);
        websocket.get_mut().write_all(&masked(FIN | TEXT, b"said")).unwrap();
        receiver.await_kind("publish", 2);
        websocket.get_mut().write_all(&masked(FIN | CLOSE, &1000_u16.to_be_bytes())).unwrap();
        receiver.await_kind("disconnect", 1);
        drop((stream, line));
        receiver.await_kind("vacated", 1);
        receiver.await_kind("disconnect", 3);

        let [whole, half] = [&["connect", "subscribe", "unsubscribe", "disconnect"][..], &["posted", "said"][..]];
        for protocol in ["websocket", "sse", "tcp_line"] {
            assert_eq!(kinds(&receiver, protocol), whole, "{protocol}");
        }
        let published = receiver.of("publish");
        assert_eq!(published.iter().map(|event| event["text"].as_str().unwrap()).collect::<Vec<_>>(), half);
        let socket = receiver.of("connect")[0];
        assert_eq!((&socket["user"], &published[1]["connection"]), (&"ann".into(), &socket["connection"]));
        assert_eq!((&published[0]["user"], &published[1]["user"]), (&Value::Null, &"ann".into()));
        assert!(socket["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{socket}");
        for (number, event) in (1..).zip(&published) {
            let said = (&event["topic"], &event["offset"], &event["subscribers"]);
            assert_eq!(said, (&"news".into(), &number.into(), &3.into()), "{event}");
            assert!(event["epoch"].as_u64().unwrap() > 0 && event["time"].as_u64().unwrap() > 0, "{event}");
        }
        let gone = receiver.of("disconnect")[0];
        assert_eq!((&gone["reason"], &gone["code"]), (&"normal".into(), &1000.into()));
        assert_eq!([receiver.of("occupied").len(), receiver.of("vacated").len()], [1, 1]);
        assert_eq!(receiver.of("vacated")[0]["topic"], "news");
        assert_eq!(receiver.events.len(), 4 * 3 + 2 + 2, "a POST is no connection: {:#?}", receiver.events);
        let mut ids: Vec<_> = receiver.events.iter().map(|event| event["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), receiver.events.len());
        // Counted when the answer is there.
        until("all are counted", || program.metric("holdline_hooks_delivered_total") == 16);
        assert_eq!(program.metric("holdline_hooks_events_total"), 16);
    }
}

#[test]
fn only_what_is_wanted_is_told() {
    let mut receiver = Receiver::start(None);
    let settings = settings(
        "wanted",
        &format!(
            "url = \"http://127.0.0.1:{}\"\nevents = [\"publish\", \"occupied\"]\ntopics = [\"room/*\"]",
            receiver.port
        ),
    );
    let program = serve(backends()[0], &settings);
    let web = program.address(0).to_owned();
    let socket = ask(&web, &handshake("/topics/news", ""));
    post(&web, "news", "not told");
    let poll = connect(&web);
    poll.get_ref().write_all(b"GET /topics/room/1?wait=30s HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    receiver.await_kind("occupied", 1);
    post(&web, "room/1", "told");
    receiver.await_kind("publish", 1);
    assert_eq!(receiver.events.len(), 2, "{:#?}", receiver.events);
    let event = receiver.of("publish")[0];
    assert_eq!((&event["topic"], &event["bytes"], &event["text"]), (&"room/1".into(), &4.into(), &Value::Null));
    drop(socket);
}

#[test]
fn a_drain_tells_how_it_ended() {
    let mut receiver = Receiver::start(None);
    let settings = settings("drain", &format!("url = \"http://127.0.0.1:{}\"\nbatch_delay = \"1m\"", receiver.port));
    let text = fs::read_to_string(settings.path()).unwrap().replacen("batch_delay = \"20ms\"\n", "", 1);
    fs::write(settings.path(), text).unwrap();
    let program = serve(backends()[0], &settings);
    let socket = ask(program.address(0), &handshake("/topics/news", ""));
    until("it is there", || program.metric("holdline_hooks_events_total{kind=\"subscribe\"}") == 1);
    program.signal("-TERM");
    program.ends_well();
    receiver.await_kind("vacated", 1);
    let told: Vec<_> = receiver.events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    let mut sorted = told.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["connect", "disconnect", "occupied", "subscribe", "unsubscribe", "vacated"], "{told:?}");
    assert_eq!(receiver.of("disconnect")[0]["reason"], "going_away");
    assert_eq!(receiver.all.len(), 1, "all of it waited for more");
    drop(socket);
}

/// A certificate for this machine that nobody vouches for, and what serves it.
fn certificate() -> (String, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    (made.cert.pem(), Arc::new(config))
}

#[test]
fn a_receiver_whom_nobody_vouches_for_is_told_nothing_until_a_reload_says_who_it_is() {
    let (pem, config) = certificate();
    let mut receiver = Receiver::start(Some(config));
    let ca = Scratch::with("hooks-ca.pem", &fs::read_to_string("tests/keys/hook-ca.pem").unwrap());
    let settings =
        settings("tls", &format!("url = \"https://localhost:{}/in\"\nca_file = {:?}", receiver.port, ca.path()));
    let program = serve(backends()[0], &settings);
    let socket = ask(program.address(0), &handshake("/topics/news", ""));
    until("it was tried", || program.metric("holdline_hooks_retries_total") >= 2);
    assert_eq!(program.metric("holdline_hooks_delivered_total"), 0);
    fs::write(ca.path(), pem).unwrap();
    program.signal("-HUP");
    receiver.await_kind("subscribe", 1);
    assert_eq!(receiver.missed(), 0, "nothing was lost meanwhile");
    drop(socket);
}

/// `HOLDLINE_HOOKS_CONNECTIONS=100000` makes it as many.
#[test]
fn while_the_receiver_is_away_memory_is_bounded_and_what_is_lost_is_told() {
    let connections: u64 = std::env::var("HOLDLINE_HOOKS_CONNECTIONS").map_or(3000, |number| number.parse().unwrap());
    // Nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = settings("away", &format!("url = \"http://{free}\"\nqueue_bytes = \"64KiB\""));
    let program = serve(backends()[0], &settings);
    let address = program.address(1).to_owned();
    for _ in 0..connections {
        let stream = TcpStream::connect(&address).unwrap();
        // So that no port is taken for a while.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let events = || program.metric("holdline_hooks_events_total{kind=\"disconnect\"}");
    let opened = || program.metric("holdline_hooks_events_total{kind=\"connect\"}");
    until("all have gone", || program.metric("holdline_connections{") == 0 && events() == opened() && opened() > 0);
    assert!(program.metric("holdline_hooks_queued_bytes") <= 64 * 1024);
    // Some may still come: the kernel has taken connections that the server has not.
    until("what is lost and what waits is all there was", || {
        let [lost, queued, all] =
            ["dropped_total", "queued ", "events_total"].map(|name| program.metric(&format!("holdline_hooks_{name}")));
        lost > 0 && lost + queued == all
    });
    // Somebody comes back there.
    let mut receiver = Receiver::at(free, None);
    let is_whole = |receiver: &Receiver| {
        let told = receiver.missed() + receiver.events.len() as u64;
        program.metric("holdline_hooks_queued ") == 0 && told == program.metric("holdline_hooks_events_total")
    };
    receiver.until("all of it is told or missing", is_whole);
    assert_eq!(receiver.missed(), program.metric("holdline_hooks_dropped_total"));
    let newest = receiver.of("disconnect").len();
    assert!(newest > 0, "the newest were kept");
}

/// The five lines of the docs, which receivers copy.
#[test]
fn the_documented_verifier_takes_what_is_signed_and_nothing_else() {
    let docs = fs::read_to_string("docs/hooks.md").unwrap();
    let verifier = docs.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut receiver = Receiver::start(None);
    let url = format!("url = \"http://127.0.0.1:{}\"\nsecret_file = \"tests/keys/hook-secret\"", receiver.port);
    let program = serve(backends()[0], &settings("signed", &url));
    let socket = ask(program.address(0), &handshake("/topics/news", ""));
    receiver.await_kind("subscribe", 1);
    let told = receiver.all[0].clone();
    let signature = told.field("holdline-signature").unwrap();
    let secret = fs::read_to_string("tests/keys/hook-secret").unwrap();
    let verify = |signature: &str, body: &[u8], secret: &str| {
        let call = format!(
            "{verifier}\nimport sys\nprint(verify({secret:?}, {signature:?}, sys.stdin.buffer.read()))\n",
            secret = secret.trim()
        );
        let mut python = Command::new("python3");
        python.args(["-c", &call]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        child.stdin.take().unwrap().write_all(body).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim() == "True"
    };
    assert!(verify(signature, &told.body, &secret), "{signature}");
    assert!(!verify(signature, &[&told.body[..], b" "].concat(), &secret), "another body");
    assert!(!verify(signature, &told.body, "another secret of more than 32 bytes"), "another secret");
    let old = format!("t=1{}", signature.split_once(',').map(|(_, rest)| format!(",{rest}")).unwrap());
    assert!(!verify(&old, &told.body, &secret), "another time");
    // One of several signatures is enough.
    let both = signature.replacen(",v1=", &format!(",v1={},v1=", "0".repeat(64)), 1);
    assert!(verify(&both, &told.body, &secret));
    drop(socket);
}

#[test]
fn a_second_signal_does_not_wait_for_a_receiver_that_hangs() {
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("url = \"http://{}\"\ntimeout = \"5m\"", silent.local_addr().unwrap());
    let mut program = serve(backends()[0], &settings("silent", &url));
    let socket = ask(program.address(0), &handshake("/topics/news", ""));
    let (_stream, _) = silent.accept().unwrap();
    program.signal("-TERM");
    drop(socket);
    let mut out = String::new();
    // Two of one kind could be taken for one.
    program.signal("-INT");
    program.out.read_to_string(&mut out).unwrap();
    let status = program.child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "it ended at once: {out}");
}

/// A stream, and what one of its messages says: the JSON, and two of its fields.
async fn messages(url: &str, first: u64, last: u64) -> Vec<(Value, String, String)> {
    let context = jetstream::new(async_nats::connect(url).await.unwrap());
    let stream = context.get_stream("EVENTS").await.unwrap();
    assert_eq!(stream.get_info().await.unwrap().state.last_sequence, last);
    let mut messages = Vec::new();
    for sequence in first..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let field = |name: &str| message.headers.get(name).unwrap().to_string();
        let json = serde_json::from_slice(&message.payload).unwrap();
        messages.push((json, field("Nats-Msg-Id"), field("Holdline-Signature")));
    }
    messages
}

async fn make_stream(url: &str) {
    let context = jetstream::new(async_nats::connect(url).await.unwrap());
    let config = jetstream::stream::Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["events.>".to_owned()],
        ..jetstream::stream::Config::default()
    };
    context.create_stream(config).await.unwrap();
}

#[test]
fn events_go_into_a_stream_of_nats_and_wait_until_it_is_there() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut nats = Nats::start();
    let more = format!(
        "nats = \"events.edge\"\nsecret_file = \"tests/keys/hook-secret\"\nevents = [\"publish\"]\npayload = true\n\
         [cluster]\nnats = \"{}\"",
        nats.url
    );
    let program = serve(backends()[0], &settings("nats", &more));
    let is_delivered = |events| program.metric("holdline_hooks_delivered_total") == events;
    post(program.address(0), "news", "one");
    until("it was tried", || program.metric("holdline_hooks_retries_total") > 0);
    assert!(is_delivered(0), "nobody keeps it");
    runtime.block_on(make_stream(&nats.url));
    until("the stream has it", || is_delivered(1));
    nats.stop();
    post(program.address(0), "news", "two");
    let tries = program.metric("holdline_hooks_retries_total");
    until("it was tried again", || program.metric("holdline_hooks_retries_total") > tries);
    assert!(is_delivered(1), "it is away");
    nats.start_again();
    until("the stream has that too", || is_delivered(2));
    let told = runtime.block_on(messages(&nats.url, 1, 2));
    for (number, (said, (batch, name, signature))) in (1..).zip(["one", "two"].into_iter().zip(&told)) {
        assert_eq!((&batch["events"][0]["text"], &batch["batch"]), (&Value::from(said), &Value::from(number)));
        assert_eq!(*name, format!("{}-{number}", batch["node"].as_str().unwrap()));
        assert!(signature.starts_with("t=") && signature.contains(",v1="), "{signature}");
    }
    program.signal("-TERM");
    program.ends_well();
}
