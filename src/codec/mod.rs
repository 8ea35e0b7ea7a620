//! Bytes to frames and back: pure, no state but what a codec needs between two calls.

pub mod http1;
pub mod length;
pub mod line;
pub mod websocket;
