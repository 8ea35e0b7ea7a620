//! Bad input over real sockets, on both backends: each kind ends as the contract says, is counted, costs bounded memory,
//! and a neighbour's connection goes on during and after it.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;

mod misbehaviour {
    pub mod addresses;
    pub mod exchanges;
    pub mod floods;
    pub mod frames;
    pub mod handshakes;
    pub mod limits;
    pub mod requests;
    pub mod shedding;
    pub mod silence;
}

use common::{Neighbour, Running, backends, config, until};
use holdline::app::standard_routes;
use holdline::config::{Config, SlowConsumer};

/// The message limit of these servers.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Runs `test` on a server of each backend, beside a neighbour who must be well before, and well after. In the end only
/// the neighbour is left.
fn beside_a_neighbour(adjust: impl Fn(&mut Config), test: impl Fn(&Running, &mut Neighbour)) {
    for backend in backends() {
        let mut config = config(backend, 1);
        config.limits.message_bytes_max = MESSAGE_BYTES_MAX;
        config.limits.close_timeout = std::time::Duration::from_millis(500);
        adjust(&mut config);
        let routes = standard_routes()
            .route_with("/oldest/{topic}", holdline::app::topic::Topics, SlowConsumer::DropOldest)
            .route_with("/latest/{topic}", holdline::app::topic::Topics, SlowConsumer::KeepLatest);
        let running = Running::start(&config, routes);
        let mut neighbour = Neighbour::new(&running);
        neighbour.is_well();
        test(&running, &mut neighbour);
        neighbour.is_well();
        until("only the neighbour is left", || running.connections() == 1);
        until("nothing is queued", || running.count(|shard| shard.queued_bytes.get()) == 0);
        assert_eq!(running.count(|shard| shard.handler_panics_total.get()), 0);
    }
}
