//! A crowd of clients, to load a server with: what `holdline swarm` does.
//!
//! [`plan`] is what to do, typed; [`peer`] the client's side of each protocol, without a socket or a clock; [`live`] what
//! a terminal sees while it runs; [`report`] what is written when it is over.

pub mod latency;
pub mod live;
pub mod peer;
pub mod plan;
pub mod report;
mod target;
