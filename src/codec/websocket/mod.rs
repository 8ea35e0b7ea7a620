//! WebSocket framing, RFC 6455 section 5, and permessage-deflate, RFC 7692.
//!
//! What the bytes of one frame mean, and nothing about a connection: which frame may follow which is the session's.

pub mod client;
pub mod close;
pub mod deflate;
pub mod extension;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
pub mod handshake;
pub mod mask;
pub mod utf8;
