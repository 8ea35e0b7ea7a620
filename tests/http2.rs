//! HTTP/2 rule by rule, with frames written by hand, on both backends: what RFC 9113 and RFC 7541 say that a server must
//! do has a test here that is named by its section (`s6_5_3` is section 6.5.3 of RFC 9113, `hpack_s4_2` section 4.2 of RFC
//! 7541). A neighbour's connection goes on beside every one of them.
//!
//! With `HTTP2_PEER=127.0.0.1:8080` the rules are held against whatever serves there, which is how the tests themselves are
//! tested: what every server fails is the test's fault. Such a server should answer `GET /` with a page and `POST /echo`
//! with what was posted.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;

mod http2 {
    pub mod compression;
    pub mod connection;
    pub mod exchanges;
    pub mod floods;
    pub mod frames;
    pub mod messages;
    pub mod peer;
    pub mod streams;
    pub mod windows;
    #[allow(dead_code, reason = "the names of a protocol, whether or not a test needs them")]
    pub mod wire;
}

use std::net::SocketAddr;

use common::{Neighbour, Running, backends, config, until};
use holdline::app::standard_routes;
use holdline::config::Config;
use http2::peer::{Peer, Verdict};

/// Another server to hold the rules against.
fn other() -> Option<SocketAddr> {
    std::env::var("HTTP2_PEER").ok().map(|address| address.parse().expect("HTTP2_PEER is HOST:PORT"))
}

/// A connection that has begun does `test`, on each backend and beside a neighbour.
fn judge(test: impl Fn(&mut Peer) -> Verdict) {
    judge_with(&[], test);
}

/// The same, with SETTINGS.
fn judge_with(settings: &[(u16, u32)], test: impl Fn(&mut Peer) -> Verdict) {
    judge_silent(|peer| {
        peer.begin(settings)?;
        test(peer)
    });
}

/// A connection on which nothing has been said yet.
fn judge_silent(test: impl Fn(&mut Peer) -> Verdict) {
    if let Some(address) = other() {
        test(&mut Peer::silent(address, true)).unwrap();
        return;
    }
    on_each_backend(|_| {}, |running, _| test(&mut Peer::silent(running.at[0], false)));
}

/// A server of each backend, beside a neighbour who must be well before and after. In the end only the neighbour is left,
/// and nothing of the others.
fn on_each_backend(adjust: impl Fn(&mut Config), test: impl Fn(&Running, &mut Neighbour) -> Verdict) {
    for backend in backends() {
        let mut config = config(backend, 1);
        config.limits.close_timeout = std::time::Duration::from_millis(150);
        adjust(&mut config);
        let running = Running::start(&config, standard_routes());
        let mut neighbour = Neighbour::new(&running);
        neighbour.is_well();
        if let Err(wrong) = test(&running, &mut neighbour) {
            panic!("{backend:?}: {wrong}");
        }
        neighbour.is_well();
        until("only the neighbour is left", || running.connections() == 1);
        until("no stream is left", || running.count(|shard| shard.http2_streams.get()) == 0);
        until("nothing is queued", || running.count(|shard| shard.queued_bytes.get()) == 0);
        assert_eq!(running.count(|shard| shard.handler_panics_total.get()), 0);
    }
}
