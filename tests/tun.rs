//! Clients without sockets against the kernel's TCP, over a device in a namespace that each test makes.
//!
//! They need `/dev/net/tun` and the right to make network namespaces; where these are missing they fail and say so.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod tun {
    pub mod crowd;
    pub mod echo;
    pub mod leftovers;
    pub mod traffic;
}
