//! WebSocket framing, RFC 6455 section 5, and permessage-deflate, RFC 7692.

pub mod deflate;
pub mod frame;
