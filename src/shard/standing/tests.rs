//! Connections that are there while keys and terms become others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use super::*;
use crate::access::{Access, ApiKeys, FromFile};
use crate::app::opening::Opening;
use crate::app::standard_routes;
use crate::config::{App, Limits, Pattern};
use crate::metrics::Metrics;
use crate::session::Protocol;
use crate::shard::{EntranceKind, Live, Shard, tests};
use crate::sim::{Client, ManualClock, Net, Peer, SimBackend};

const ANN: &str = "the-key-of-ann-1";
const BEN: &str = "the-key-of-ben-2";

/// One may read all, in a file of keys.
fn key(name: &str, key: &str, subscribe: &str) -> String {
    format!("[[key]]\nname = \"{name}\"\nkey = \"{key}\"\nsubscribe = [\"{subscribe}\"]\npublish = [\"**\"]\n")
}

fn with_keys(keys: &[String]) -> Access {
    let content = Arc::new(ApiKeys::from_toml(&keys.concat()).unwrap());
    let api_keys = FromFile { path: None, content };
    Access { api_keys, leeway: Duration::ZERO, renew_grace: Duration::from_secs(5), ..Access::default() }
}

/// A shard whose clients send lines, the first one being a topic.
struct Scene {
    clock: ManualClock,
    shard: Shard<SimBackend>,
    metrics: Metrics,
    net: Net,
    drain: Duration,
}

impl Scene {
    fn new(access: Access, drain: Duration) -> Self {
        let kind = EntranceKind::Tcp { protocol: Protocol::Line, opening: Opening::new(App::Topic, None) };
        let (shard, net, metrics) = tests::alone(kind, standard_routes(), Self::live(access, drain));
        Self { clock: ManualClock::new(), shard, metrics, net, drain }
    }

    fn live(access: Access, drain: Duration) -> Live {
        let limits = Limits { connections_max: 1000, heartbeat_interval: Duration::ZERO, ..Limits::default() };
        Live { access: Arc::new(access), drain, ..Live::new(limits) }
    }

    fn rest(&mut self) {
        tests::rest(&mut self.shard, &self.clock);
    }

    fn connect(&mut self, first: &str) -> Client {
        tests::connect(&self.net, &mut self.shard, &self.clock, first.as_bytes())
    }

    fn reload(&mut self, access: Access) {
        self.shard.core.control.replace(Self::live(access, self.drain));
        self.rest();
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.clock.advance(Duration::from_millis(100));
            self.rest();
        }
    }

    fn lapsed(&self) -> u64 {
        self.metrics.total(|shard| shard.auth_lapsed_total.get())
    }

    fn expired(&self) -> u64 {
        self.metrics.total(|shard| shard.closed(CloseReason::AuthExpired))
    }
}

fn is_there(client: &Client) -> bool {
    client.peer() == Peer::Open
}

/// All that has come, in one text.
fn said(client: &mut Client) -> String {
    String::from_utf8(client.read()).unwrap()
}

#[test]
fn who_was_not_asked_has_to_say_who_it_is_when_all_are() {
    let mut scene = Scene::new(with_keys(&[]), Duration::ZERO);
    let clients = [scene.connect("t\n"), scene.connect("t\n")];
    scene.reload(with_keys(&[key("ann", ANN, "**")]));
    assert_eq!(scene.lapsed(), 2);
    scene.pass(4);
    assert!(clients.iter().all(is_there), "they have the time of an expired token");
    scene.pass(2);
    assert!(!clients.iter().any(is_there));
    assert_eq!(scene.expired(), 2);
}

#[test]
fn who_may_come_without_a_key_stays_as_such_a_one() {
    let mut scene = Scene::new(with_keys(&[]), Duration::ZERO);
    let (mut open, closed) = (scene.connect("public\n"), scene.connect("secret\n"));
    let public =
        Access { anonymous_subscribe: vec![Pattern::parse("public").unwrap()], ..with_keys(&[key("a", ANN, "**")]) };
    scene.reload(public);
    scene.pass(6);
    assert!(is_there(&open) && !is_there(&closed));
    open.write(b"may I?\n");
    scene.rest();
    assert!(!is_there(&open), "it may read and not write");
}

#[test]
fn a_key_that_is_gone_ends_its_connections_and_no_others() {
    let both = [key("ann", ANN, "**"), key("ben", BEN, "**")];
    let mut scene = Scene::new(with_keys(&both), Duration::ZERO);
    let mut ann = scene.connect(&format!("AUTH {ANN} renew=1\nt\n"));
    let mut ben = scene.connect(&format!("AUTH {BEN} renew=1\nt\n"));
    scene.reload(with_keys(&both[1..]));
    assert_eq!(said(&mut ann), "{\"auth\":{\"expiring\":true,\"seconds_left\":5}}\n");
    scene.pass(3);
    // A reload that changes something else gives it no more time.
    scene.reload(Access { must_expire: false, ..with_keys(&both[1..]) });
    scene.pass(3);
    assert!(!is_there(&ann) && is_there(&ben));
    assert_eq!((said(&mut ben), scene.lapsed(), scene.expired()), (String::new(), 1, 1));
}

#[test]
fn a_key_that_comes_back_in_time_is_as_if_it_had_not_gone() {
    let both = [key("ann", ANN, "**"), key("ben", BEN, "**")];
    let mut scene = Scene::new(with_keys(&both), Duration::ZERO);
    let ann = scene.connect(&format!("AUTH {ANN}\nt\n"));
    scene.reload(with_keys(&both[1..]));
    scene.pass(3);
    scene.reload(with_keys(&both));
    scene.pass(10);
    assert!(is_there(&ann));
    scene.reload(with_keys(&[]));
    scene.pass(10);
    assert!(is_there(&ann), "nobody is asked any more");
}

#[test]
fn what_a_key_allows_follows_at_once_unless_it_is_in_use() {
    let mut scene = Scene::new(with_keys(&[key("ann", ANN, "**")]), Duration::ZERO);
    let mut reader = scene.connect(&format!("AUTH {ANN} renew=1\nroom/1\n"));
    let mut other = scene.connect(&format!("AUTH {ANN} renew=1\nnews\n"));
    scene.reload(with_keys(&[key("ann", ANN, "room/*")]));
    assert!(said(&mut reader).is_empty() && said(&mut other).contains("expiring"));
    // The same user's key is looked at anew: it does not allow what it is subscribed to.
    other.write(format!("AUTH {ANN}\n").as_bytes());
    scene.rest();
    assert!(said(&mut other).contains("forbidden"));
    scene.pass(6);
    assert!(is_there(&reader) && !is_there(&other));
}

#[test]
fn a_connection_that_shows_a_new_key_stays() {
    let both = [key("ann", ANN, "**"), key("ann2", BEN, "**")];
    let mut scene = Scene::new(with_keys(&[]), Duration::ZERO);
    // While nobody is asked the first line is a topic; so it is one of a server that has asked.
    scene.reload(with_keys(&both[..1]));
    let mut ann = scene.connect(&format!("AUTH {ANN} renew=1\nt\n"));
    let rotated = [both[0].replace(ANN, BEN)];
    scene.reload(with_keys(&rotated));
    assert!(said(&mut ann).contains("expiring"));
    ann.write(format!("AUTH {BEN}\n").as_bytes());
    scene.rest();
    assert!(said(&mut ann).contains("renewed"));
    scene.pass(10);
    assert!(is_there(&ann));
}

#[test]
fn one_that_has_not_said_what_it_wants_goes_with_its_key() {
    let mut scene = Scene::new(with_keys(&[key("ann", ANN, "**")]), Duration::ZERO);
    let ann = scene.connect(&format!("AUTH {ANN}\n"));
    scene.reload(with_keys(&[key("ben", BEN, "**")]));
    assert!(!is_there(&ann));
    assert_eq!(scene.expired(), 1);
}

/// A crowd is not sent away in one turn: it is told so over the time of a drain.
#[test]
fn a_crowd_goes_one_after_the_other() {
    const CROWD: u64 = 300;
    let mut scene = Scene::new(with_keys(&[]), Duration::from_secs(10));
    let _crowd: Vec<Client> = (0..CROWD).map(|_| scene.connect("t\n")).collect();
    scene.reload(with_keys(&[key("ann", ANN, "**")]));
    scene.pass(4);
    assert_eq!(scene.expired(), 0, "each has the time of an expired token");
    scene.pass(1);
    let mut before = scene.expired();
    for second in 1..=10 {
        scene.pass(1);
        let gone = scene.expired() - before;
        assert!((CROWD / 20..CROWD / 5).contains(&gone), "{gone} in second {second}");
        before += gone;
    }
    scene.pass(1);
    assert_eq!(scene.expired(), CROWD);
}
