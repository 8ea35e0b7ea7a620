//! The WebSocket session, RFC 6455.

/// Where the session stands in an unfinished frame or message.
#[derive(Debug, Default)]
pub struct Assembly {}
