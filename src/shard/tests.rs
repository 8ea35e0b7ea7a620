//! A shard alone on a simulated network, for tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use super::{Control, Entrance, EntranceKind, Live, Mail, Seed, Shard};
use crate::app::Router;
use crate::id::{ListenerId, ShardId};
use crate::metrics::Metrics;
use crate::sim::{Client, Config, ManualClock, Net, SimBackend};

/// Where clients come in.
pub(super) const ENTRANCE: ListenerId = ListenerId(0);

/// A shard whose clients come in like this, its network, and what it counts.
pub(super) fn alone(kind: EntranceKind, router: Router, live: Live) -> (Shard<SimBackend>, Net, Metrics) {
    let (net, metrics) = (Net::new(1, Config::default()), Metrics::new(1));
    let mut backend = net.backend();
    backend.open(ENTRANCE);
    let seed = Seed {
        id: ShardId(0),
        router,
        entrances: [Entrance { url: String::new(), kind, proxied: false }].into(),
        mail: Mail::mesh(1, live.limits.mailbox_capacity).remove(0),
        control: Arc::new(Control::new(live)),
        metrics: metrics.clone(),
    };
    (Shard::new(backend, seed), net, metrics)
}

/// Has it take so many turns that what has come is done with, and looks at its books after each.
pub(super) fn rest(shard: &mut Shard<SimBackend>, clock: &ManualClock) {
    for _ in 0..10 {
        shard.turn(clock).unwrap();
        shard.audit().unwrap();
    }
}

/// A client that has said this.
pub(super) fn connect(net: &Net, shard: &mut Shard<SimBackend>, clock: &ManualClock, first: &[u8]) -> Client {
    let mut client = net.connect_to(0, ENTRANCE).unwrap();
    assert_eq!(client.write(first), first.len());
    rest(shard, clock);
    client
}
