//! Why connections end.
//!
//! Every layer has its own errors; each maps to one [`CloseReason`], and that maps to a WebSocket close code, a metric
//! label and a log line. The list is closed: whoever reads it knows all that can happen to a connection.

use std::fmt;

/// Why a connection ended or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// The application or the peer said good-bye.
    Normal,
    /// The server drains.
    GoingAway,
    /// The peer broke its protocol.
    ProtocolError,
    /// The peer sent a kind of data that this route does not take.
    Unsupported,
    /// Text that is not UTF-8.
    BadUtf8,
    /// The peer did what a limit or a rule forbids.
    Policy,
    /// A message over the limit.
    TooBig,
    /// A fault of ours, a panicking handler for one.
    Internal,
    /// No room now, come back later.
    TryAgainLater,
    /// No sign of life within the heartbeat timeout.
    HeartbeatTimeout,
    /// The peer reads too slowly for what it subscribed to.
    SlowConsumer,
    /// Its permission ended.
    AuthExpired,
    /// An operator or the application threw it out.
    Kicked,
    /// No complete handshake within its time.
    HandshakeTimeout,
    /// A handshake that cannot be accepted.
    BadHandshake,
    /// The idle timeout of its route.
    IdleTimeout,
    /// The peer closed the transport without a good-bye.
    PeerClosed,
    /// The transport failed: a reset, a time-out of the kernel's.
    TransportError,
}

impl CloseReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Normal,
        Self::GoingAway,
        Self::ProtocolError,
        Self::Unsupported,
        Self::BadUtf8,
        Self::Policy,
        Self::TooBig,
        Self::Internal,
        Self::TryAgainLater,
        Self::HeartbeatTimeout,
        Self::SlowConsumer,
        Self::AuthExpired,
        Self::Kicked,
        Self::HandshakeTimeout,
        Self::BadHandshake,
        Self::IdleTimeout,
        Self::PeerClosed,
        Self::TransportError,
    ];

    /// The WebSocket close code (RFC 6455 section 7.4, and ours from 4000) that tells the peer, `None` where there is
    /// nobody to tell.
    #[must_use]
    pub const fn code(self) -> Option<u16> {
        Some(match self {
            Self::Normal | Self::IdleTimeout => 1000,
            Self::GoingAway => 1001,
            Self::ProtocolError | Self::BadHandshake => 1002,
            Self::Unsupported => 1003,
            Self::BadUtf8 => 1007,
            Self::Policy | Self::HandshakeTimeout => 1008,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::TryAgainLater => 1013,
            Self::HeartbeatTimeout => 4000,
            Self::SlowConsumer => 4001,
            Self::AuthExpired => 4002,
            Self::Kicked => 4003,
            Self::PeerClosed | Self::TransportError => return None,
        })
    }

    /// The name in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::GoingAway => "going_away",
            Self::ProtocolError => "protocol_error",
            Self::Unsupported => "unsupported",
            Self::BadUtf8 => "bad_utf8",
            Self::Policy => "policy",
            Self::TooBig => "too_big",
            Self::Internal => "internal",
            Self::TryAgainLater => "try_again_later",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::SlowConsumer => "slow_consumer",
            Self::AuthExpired => "auth_expired",
            Self::Kicked => "kicked",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::BadHandshake => "bad_handshake",
            Self::IdleTimeout => "idle_timeout",
            Self::PeerClosed => "peer_closed",
            Self::TransportError => "transport_error",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_reason_at_its_number() {
        for (number, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
    }
}
