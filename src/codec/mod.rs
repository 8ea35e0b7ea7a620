//! Bytes to frames and back: pure, no state but what a codec needs between two calls.

pub mod length;
pub mod line;
pub mod websocket;
