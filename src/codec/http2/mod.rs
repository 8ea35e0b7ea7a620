//! HTTP/2's bytes (RFC 9113), without a connection around them: frames, compressed fields, and how requests and responses
//! lie in both.
//!
//! What a connection must remember between frames is a session's, see [`session::http2`](crate::session::http2).

mod block;
mod field;
pub mod frame;
pub mod fuzz;
pub mod head;
pub mod hpack;
pub mod request;
pub mod response;

pub use frame::{ErrorCode, StreamId};
pub use head::{MalformedHead, RequestHead, Trailers};
pub use hpack::Decoder;
