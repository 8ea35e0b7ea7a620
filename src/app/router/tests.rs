//! Which route takes a path, whose state lives how long, and what a panic costs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::app::testing::Bench;
use crate::app::{Subscribe, standard_routes};
use crate::message::{Topic, Wire};

/// Counts the states that live.
#[derive(Default)]
struct Counted {
    alive: Option<Arc<AtomicUsize>>,
    said: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(alive) = &self.alive {
            alive.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Panics where it is told to.
#[derive(Clone, Default)]
struct Touchy {
    alive: Arc<AtomicUsize>,
}

impl Handler for Touchy {
    type State = Counted;

    fn open(&mut self, state: &mut Counted, request: &Request<'_>, context: &mut Context<'_>) -> Result<(), Refusal> {
        state.alive = Some(Arc::clone(&self.alive));
        self.alive.fetch_add(1, Ordering::Relaxed);
        match request.query {
            "panic" => panic!("asked to, in open"),
            "refuse" => Err(Refusal { status: 403, code: "no", message: "not today".into() }),
            _ => {
                context.subscribe(Topic::parse(b"t", 255).unwrap(), Subscribe::default());
                Ok(())
            }
        }
    }

    fn message(&mut self, state: &mut Counted, _kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        assert_ne!(payload, b"panic", "asked to, in message");
        state.said += 1;
        context.send_text(&state.said.to_string());
    }

    fn close(&mut self, _state: &mut Counted, reason: CloseReason, _context: &mut Context<'_>) {
        assert_ne!(reason, CloseReason::Kicked, "asked to, in close");
    }
}

fn touchy() -> (Router, Arc<AtomicUsize>) {
    let handler = Touchy::default();
    let alive = Arc::clone(&handler.alive);
    (Router::new().route("/touchy", handler), alive)
}

fn open(router: &mut Router, bench: &mut Bench, query: &str) -> Result<u32, Fault> {
    let (route, param) = router.find("/touchy").unwrap();
    bench.call(|context| {
        let request = Request { path: "/touchy", query, param, ..Request::default() };
        router.open(route, &request, context)
    })
}

const TOUCHY: RouteId = RouteId(0);

#[test]
fn paths_find_their_routes() {
    let router = standard_routes();
    for (path, found) in [
        ("/echo", Some((0, ""))),
        ("/echo/", None),
        ("/echoes", None),
        ("/chat/lobby", Some((1, "lobby"))),
        ("/chat/", None),
        ("/chat", None),
        ("/topics/a/b c", Some((2, "a/b c"))),
        ("/topics//", Some((2, "/"))),
        ("/topics", Some((3, ""))),
        ("/", None),
        ("", None),
        ("*", None),
    ] {
        let found = found.map(|(route, param)| (RouteId(route), param));
        assert_eq!(router.find(path), found, "{path}");
        assert_eq!(router.fresh().find(path), found, "{path} on another shard");
    }
}

#[test]
fn the_first_pattern_that_matches_wins_and_policies_belong_to_routes() {
    let router = standard_routes().route_with("/{all}", super::super::echo::Echo, SlowConsumer::DropOldest);
    assert_eq!(router.find("/echo"), Some((RouteId(0), "")));
    let (last, param) = router.find("/other").expect("it takes all that is left");
    assert_eq!((last, param), (RouteId(u16::try_from(router.routes.len()).expect("few") - 1), "other"));
    assert_eq!(router.slow_consumer(last), Some(SlowConsumer::DropOldest));
    assert_eq!(router.fresh().slow_consumer(last), Some(SlowConsumer::DropOldest));
    assert_eq!(router.slow_consumer(RouteId(0)), None);
}

#[test]
fn each_connection_has_its_state_from_open_to_close() {
    let ((mut router, alive), mut bench) = (touchy(), Bench::new(Wire::Line));
    let first = open(&mut router, &mut bench, "").unwrap();
    let second = open(&mut router, &mut bench, "").unwrap();
    for state in [first, first, second] {
        bench.call(|context| router.message(TOUCHY, state, Kind::Text, b"x", context)).unwrap();
    }
    assert_eq!(bench.out, b"1\n2\n1\n");
    assert_eq!(alive.load(Ordering::Relaxed), 2);
    for state in [first, second] {
        bench.call(|context| router.close(TOUCHY, state, CloseReason::Normal, context)).unwrap();
    }
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    // A connection that is closed has nothing to say.
    bench.call(|context| router.message(TOUCHY, first, Kind::Text, b"panic", context)).unwrap();
}

#[test]
fn who_is_refused_leaves_no_state() {
    let ((mut router, alive), mut bench) = (touchy(), Bench::new(Wire::Line));
    let fault = open(&mut router, &mut bench, "refuse").unwrap_err();
    assert!(matches!(fault, Fault::Refused(refusal) if refusal.status == 403));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    assert_eq!(bench.effects(), [""; 0]);
}

#[test]
fn a_panic_in_open_leaves_no_state() {
    let ((mut router, alive), mut bench) = (touchy(), Bench::new(Wire::Line));
    assert_eq!(open(&mut router, &mut bench, "panic"), Err(Fault::Panicked));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    assert_eq!(open(&mut router, &mut bench, ""), Ok(0), "and the route goes on");
}

#[test]
fn a_panic_in_message_leaves_the_state_to_close_and_others_alone() {
    let ((mut router, alive), mut bench) = (touchy(), Bench::new(Wire::Line));
    let (first, other) = (open(&mut router, &mut bench, "").unwrap(), open(&mut router, &mut bench, "").unwrap());
    let fault = bench.call(|context| router.message(TOUCHY, first, Kind::Text, b"panic", context));
    assert_eq!(fault, Err(Fault::Panicked));
    bench.call(|context| router.message(TOUCHY, other, Kind::Text, b"x", context)).unwrap();
    assert_eq!(bench.out, b"1\n");
    bench.call(|context| router.close(TOUCHY, first, CloseReason::Internal, context)).unwrap();
    assert_eq!(alive.load(Ordering::Relaxed), 1);
}

#[test]
fn a_panic_in_close_drops_the_state_all_the_same() {
    let ((mut router, alive), mut bench) = (touchy(), Bench::new(Wire::Line));
    let state = open(&mut router, &mut bench, "").unwrap();
    let fault = bench.call(|context| router.close(TOUCHY, state, CloseReason::Kicked, context));
    assert_eq!(fault, Err(Fault::Panicked));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn shards_do_not_share_states() {
    let ((mut router, _), mut bench) = (touchy(), Bench::new(Wire::Line));
    let mut other = router.fresh();
    assert_eq!(open(&mut router, &mut bench, ""), Ok(0));
    assert_eq!(open(&mut other, &mut bench, ""), Ok(0));
    assert_eq!(open(&mut router, &mut bench, ""), Ok(1));
}
