//! Bytes to frames and back: pure, no state but what a codec needs between two calls.

pub mod event_stream;
pub mod grpc;
pub mod http1;
pub mod http2;
pub mod json;
pub mod length;
pub mod line;
pub mod proxy;
pub mod sse;
pub mod trace;
pub mod websocket;

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UTF-8, checked where the protocol says so.
    Text,
    /// Any bytes.
    Binary,
}
