//! A program of a user's: a guest book with a handler of its own, started from a configuration built in code. What goes
//! wrong in the handler of one connection is that connection's end and nobody else's.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdline::app::{Context, Handler, Refusal, Request, Router, Subscribe, echo::Echo};
use holdline::close::CloseReason;
use holdline::codec::http1::Query;
use holdline::message::{Kind, Topic};
use holdline::rule::Limit;

use common::wire::{BINARY, CLOSE, FIN, TEXT};
use common::{Running, backends, config, until};

/// A guest book: each page is a topic, and every guest of it reads what the others write.
#[derive(Clone, Default)]
struct GuestBook {
    /// Shared by the handlers of all shards.
    farewells: Arc<AtomicU64>,
}

/// What the guest book keeps of a guest.
#[derive(Default)]
struct Guest {
    name: String,
    entries: u32,
}

fn topic(name: &str) -> Topic {
    Topic::parse(name.as_bytes(), Topic::BYTES_MAX).unwrap()
}

impl Handler for GuestBook {
    type State = Guest;

    fn open(&mut self, guest: &mut Guest, request: &Request<'_>, context: &mut Context<'_>) -> Result<(), Refusal> {
        let name = Query::new(request.query).get("name").unwrap_or_default().into_owned();
        assert_ne!(name, "boom", "asked to, in open");
        if name.is_empty() {
            return Err(Refusal { status: 401, code: "who_are_you", message: "sign with your name".to_owned() });
        }
        context.send_text(&format!("welcome to {}, {name}", request.param));
        context.subscribe(topic(request.param), Subscribe { echo: false, ..Subscribe::default() });
        guest.name = name;
        Ok(())
    }

    fn message(&mut self, guest: &mut Guest, kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        guest.entries += 1;
        match (kind, payload) {
            (_, b"boom") => panic!("asked to, in message"),
            (Kind::Binary, _) => context.send(Kind::Binary, &guest.entries.to_be_bytes()),
            (Kind::Text, b"bye") => {
                context.send_text("come again");
                context.close(CloseReason::Normal);
            }
            (Kind::Text, b"leave") => context.unsubscribe(context.topic().unwrap().clone()),
            (Kind::Text, text) => {
                let text = String::from_utf8_lossy(text);
                let page = context.topic().cloned().unwrap_or_else(|| topic("lost"));
                context.publish(page, Kind::Text, format!("{} #{}: {text}", guest.name, guest.entries).as_bytes());
            }
        }
    }

    fn close(&mut self, guest: &mut Guest, reason: CloseReason, context: &mut Context<'_>) {
        self.farewells.fetch_add(1, Ordering::Relaxed);
        assert_ne!(guest.name, "grumpy", "asked to, in close");
        if let Some(page) = context.topic().cloned() {
            context.publish(page, Kind::Text, format!("{} left: {reason}", guest.name).as_bytes());
        }
    }
}

fn on_each_backend(test: impl Fn(&Running, &AtomicU64)) {
    for backend in backends() {
        for shards in [1, 2] {
            let book = GuestBook::default();
            let farewells = Arc::clone(&book.farewells);
            let router = Router::new().route("/book/{page}", book).route("/echo", Echo);
            let running = Running::start(&config(backend, shards), router);
            test(&running, &farewells);
        }
    }
}

#[test]
fn guests_come_write_read_and_leave() {
    on_each_backend(|running, farewells| {
        let mut ann = running.websocket("/book/garden?name=Ann");
        assert_eq!(ann.text(), "welcome to garden, Ann");
        let mut bob = running.websocket("/book/garden?name=Bob");
        assert_eq!(bob.text(), "welcome to garden, Bob");
        let mut elsewhere = running.websocket("/book/kitchen?name=Cleo");
        assert_eq!(elsewhere.text(), "welcome to kitchen, Cleo");

        ann.send_text("what roses!");
        assert_eq!(bob.text(), "Ann #1: what roses!");
        bob.send_text("and weeds");
        assert_eq!(ann.text(), "Bob #1: and weeds", "her own entry does not come back");
        ann.send_binary(b"how many?");
        let answer = ann.message().unwrap();
        assert_eq!((answer.first, answer.payload.as_slice()), (FIN | BINARY, &[0, 0, 0, 2][..]));

        bob.send_text("bye");
        assert_eq!(bob.text(), "come again");
        assert_eq!(bob.close_code(), Some(1000));
        bob.send_frame(FIN | CLOSE, &1000_u16.to_be_bytes());
        bob.end();
        until("the book has heard of it", || farewells.load(Ordering::Relaxed) == 1);

        assert_eq!(ann.text(), "Bob left: normal");

        elsewhere.send_text("soup");
        ann.send_binary(b"nothing from the kitchen?");
        assert_eq!(ann.message().unwrap().payload, [0, 0, 0, 3]);
    });
}

/// A message for a topic that finds no room is not lost in silence: whoever said it is told to come again.
#[test]
fn who_says_something_where_there_is_no_room_is_told_so() {
    for backend in backends() {
        let mut config = config(backend, 1);
        config.limits.topics_max = 1;
        let router = Router::new().route("/book/{page}", GuestBook::default()).route("/echo", Echo);
        let running = Running::start(&config, router);
        let mut bob = running.websocket("/book/garden?name=Bob");
        let mut ann = running.websocket("/book/garden?name=Ann");
        assert_eq!((bob.text().as_str(), ann.text().as_str()), ("welcome to garden, Bob", "welcome to garden, Ann"));
        ann.send_text("leave");
        until("she has left", || running.count(|shard| shard.subscriptions.get()) == 1);
        ann.send_text("is this the lost page?");
        assert_eq!(ann.close_code(), Some(1013));
        assert_eq!(running.count(|shard| shard.struck(Limit::TopicsMax)), 1);
        assert_eq!(running.closed(CloseReason::TryAgainLater), 1);
    }
}

#[test]
fn who_unsubscribes_reads_no_more() {
    on_each_backend(|running, _| {
        let mut ann = running.websocket("/book/garden?name=Ann");
        let mut bob = running.websocket("/book/garden?name=Bob");
        ann.text();
        bob.text();
        ann.send_text("leave");
        until("she has left", || running.count(|shard| shard.subscriptions.get()) == 1);
        bob.send_text("anyone?");
        until("it is out", || running.count(|shard| shard.publications_total.get()) == 1);
        ann.send_binary(b"?");
        assert_eq!(ann.message().unwrap().first, FIN | BINARY, "and nothing before it");
    });
}

#[test]
fn a_refusal_is_an_answer() {
    on_each_backend(|running, farewells| {
        let mut nobody = running.connect(0);
        nobody.send_raw(common::wire::handshake("/book/garden", "").as_bytes());
        let answer = nobody.answer();
        assert_eq!(answer.status, 401, "{}", answer.head);
        nobody.end();
        drop(nobody);
        until("it is gone", || running.connections() == 0);
        assert_eq!(running.closed(CloseReason::BadHandshake), 1);
        assert_eq!(farewells.load(Ordering::Relaxed), 0, "there was no connection");
    });
}

#[test]
fn a_panic_in_open_is_a_500() {
    on_each_backend(|running, _| {
        let mut others = common::Neighbour::new(running);
        let mut unlucky = running.connect(0);
        unlucky.send_raw(common::wire::handshake("/book/garden?name=boom", "").as_bytes());
        assert_eq!(unlucky.answer().status, 500);
        unlucky.end();
        drop(unlucky);
        until("it is gone", || running.connections() == 1);
        assert_eq!(running.count(|shard| shard.handler_panics_total.get()), 1);
        assert_eq!(running.closed(CloseReason::Internal), 1);
        others.is_well();
        assert_eq!(running.websocket("/book/garden?name=Ann").text(), "welcome to garden, Ann");
    });
}

#[test]
fn a_panic_in_message_ends_that_connection_with_1011() {
    on_each_backend(|running, farewells| {
        let mut others = common::Neighbour::new(running);
        let mut bob = running.websocket("/book/garden?name=Bob");
        bob.text();
        let mut unlucky = running.websocket("/book/garden?name=Ann");
        unlucky.text();
        unlucky.send_text("so far so good");
        assert_eq!(bob.text(), "Ann #1: so far so good");
        unlucky.send_text("boom");
        assert_eq!(unlucky.close_code(), Some(1011));
        unlucky.end();
        assert_eq!(farewells.load(Ordering::Relaxed), 1, "close is called all the same");
        assert_eq!(running.count(|shard| shard.handler_panics_total.get()), 1);
        others.is_well();
        bob.send_text("boom?");
        bob.send_binary(b"?");
        until("bob's entry is out", || running.count(|shard| shard.publications_total.get()) >= 2);
    });
}

#[test]
fn a_panic_in_close_hurts_nobody() {
    on_each_backend(|running, farewells| {
        let mut others = common::Neighbour::new(running);
        let mut grumpy = running.websocket("/book/garden?name=grumpy");
        grumpy.text();
        grumpy.send_frame(FIN | CLOSE, &1000_u16.to_be_bytes());
        assert_eq!(grumpy.close_code(), Some(1000), "the good-bye was answered before");
        grumpy.end();
        until("it is gone", || running.connections() == 1);
        assert_eq!(farewells.load(Ordering::Relaxed), 1);
        assert_eq!(running.count(|shard| shard.handler_panics_total.get()), 1);
        others.is_well();
        let mut ann = running.websocket("/book/garden?name=Ann");
        ann.text();
        ann.send_frame(FIN | TEXT, b"bye");
        assert_eq!(ann.text(), "come again", "its place is taken by another state");
    });
}
