//! Why connections fail, which of these reasons pass by themselves, and how to mend the others.

use std::io::ErrorKind;

use super::peer::Broken;
use crate::session::caller::status_name;

/// Why a connection did not open, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reason {
    /// Nobody listens there.
    Refused,
    /// A reset.
    Reset,
    /// No answer in time.
    TimedOut,
    /// No way there.
    Unreachable,
    /// The server ended it without a word.
    Ended,
    /// The server said good-bye with a close frame.
    Closed,
    /// HTTP 503 or 429 in answer to an upgrade.
    Busy,
    /// Another HTTP status in answer to an upgrade.
    Declined,
    /// Another answer than the protocol allows.
    Protocol,
    /// No address and port is free.
    Ports,
    /// No memory, or no buffers.
    Memory,
    /// No descriptors.
    Descriptors,
    /// No place for another guest.
    Places,
    /// More waits to be sent than a connection may hold back.
    Stuck,
    /// No agreement on keys, or a certificate that is not taken.
    Tls,
    /// Something else that the kernel said.
    Other,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [Self; Self::COUNT] = [
        Self::Refused,
        Self::Reset,
        Self::TimedOut,
        Self::Unreachable,
        Self::Ended,
        Self::Closed,
        Self::Busy,
        Self::Declined,
        Self::Protocol,
        Self::Ports,
        Self::Memory,
        Self::Descriptors,
        Self::Places,
        Self::Stuck,
        Self::Tls,
        Self::Other,
    ];
    pub(super) const COUNT: usize = 16;

    pub(super) fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => Self::Unreachable,
            ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => Self::Ports,
            ErrorKind::OutOfMemory | ErrorKind::StorageFull => Self::Memory,
            ErrorKind::QuotaExceeded => Self::Descriptors,
            // The kernel has no such error: it is what TLS makes of what came.
            ErrorKind::InvalidData => Self::Tls,
            _ => Self::Other,
        }
    }

    /// The name in the report.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Ended => "ended",
            Self::Closed => "closed",
            Self::Busy => "busy",
            Self::Declined => "declined",
            Self::Protocol => "protocol",
            Self::Ports => "ports",
            Self::Memory => "memory",
            Self::Descriptors => "descriptors",
            Self::Places => "places",
            Self::Stuck => "stuck",
            Self::Tls => "tls",
            Self::Other => "other",
        }
    }

    /// The same for people.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::TimedOut => "no answer in time",
            Self::Ended => "ended by the server",
            Self::Closed => "closed by the server",
            Self::Busy => "server busy",
            Self::Protocol => "not the target's protocol",
            Self::Ports => "no free source port",
            Self::Memory => "no memory",
            Self::Descriptors => "no descriptors",
            Self::Places => "no place for another guest",
            Self::Stuck => "server does not read",
            Self::Tls => "TLS failed",
            _ => self.name(),
        }
    }

    /// The reason of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// How often a connection is tried before it is given up. A storm resets and times out who comes again a moment later;
    /// what this machine lacks is lacking the next time too.
    pub(super) const fn tries(self) -> u8 {
        match self {
            Self::Reset | Self::TimedOut | Self::Ended | Self::Closed | Self::Busy => 8,
            Self::Refused => 3,
            _ => 1,
        }
    }

    /// What stopped the run: the beginning of a sentence.
    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::Refused => "a target where nobody listens",
            Self::Reset => "a server that resets new connections",
            Self::TimedOut => "a server that does not answer new connections in time",
            Self::Unreachable => "a target that cannot be reached",
            Self::Ended => "a server that ends new connections at once",
            Self::Closed => "a server that closes new connections",
            Self::Busy => "a server that answers 503 to new connections",
            Self::Declined => "a server that declines new connections",
            Self::Protocol => "a server that does not speak the target's protocol",
            Self::Ports => "the lack of free source addresses and ports",
            Self::Memory => "the lack of memory for another connection",
            Self::Descriptors => "the lack of descriptors for another connection",
            Self::Places => "the lack of a place for another guest",
            Self::Stuck => "a server that does not read what it is sent",
            Self::Tls => "a server whose TLS or certificate is not taken",
            Self::Other => "the kernel, which opens no more connections,",
        }
    }

    /// How to mend it.
    pub(super) const fn mend(self) -> &'static str {
        match self {
            Self::Refused => "start the server, or mend the target's port",
            Self::Reset | Self::Ended | Self::Closed | Self::Busy => {
                "raise the server's --max-connections, or ask for fewer --connections"
            }
            Self::TimedOut => {
                "open slower with --rate, or raise net.core.somaxconn and net.ipv4.tcp_max_syn_backlog of the server"
            }
            Self::Declined => "check the target's path, and look into the server's log",
            Self::Unreachable => "mend the target's address, or the route to it",
            Self::Protocol => "mend the target: its scheme, its path or its framing",
            Self::Ports => {
                "widen net.ipv4.ip_local_port_range, or use a target in 127.0.0.0/8, which has a port range per address"
            }
            Self::Memory => "free memory, raise net.ipv4.tcp_mem or the cgroup's limit, or ask for fewer --connections",
            Self::Descriptors => "raise ulimit -n",
            Self::Places => "lower --churn or --lifetime: the guests before it had not gone yet",
            Self::Stuck => "give the server more CPU, or send less",
            Self::Tls => {
                "name the authority of its certificate with --ca, or take any with --insecure; check that the port speaks TLS"
            }
            Self::Other => "ask for fewer --connections, and see dmesg",
        }
    }
}

impl From<Broken> for Reason {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Declined { status: 429 | 503, .. } => Self::Busy,
            Broken::Status(8 | 14) => Self::Busy,
            Broken::Declined { .. } | Broken::Status(_) | Broken::NotSubscribed => Self::Declined,
            Broken::StreamReset(_) => Self::Reset,
            _ => Self::Protocol,
        }
    }
}

/// Codes of a good-bye that are told apart: the statuses of gRPC, and those of a close frame (RFC 6455, section 7.4, and the
/// server's own).
pub(super) const CLOSE_CODES: [u16; 31] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012,
    1013, 4000, 4001, 4002, 4003,
];

/// How to mend that a server closes connections with this code.
pub(super) const fn mend_close(code: u16) -> &'static str {
    match code {
        0 | 14 => {
            "let the server run until the swarm has ended, and give both more CPU: a heartbeat may have come too late"
        }
        8 => "raise the server's limits, send less, or give the swarm more CPU: it did not read what the server sent",
        1000 | 1001 | 1012 => "let the server run until the swarm has ended",
        1002 | 1003 | 1007 => "check that the target's protocol is the server's",
        1009 => "ask for a smaller --size, or raise the server's limit of a message",
        1008 | 4002 | 4003 => "check the server's rules, and who else has a say there",
        1013 => "raise the server's limits, or ask for fewer --connections",
        4000 => "raise the server's --heartbeat-timeout, or give the swarm more CPU: its answers came too late",
        4001 => "send less, or give the swarm more CPU: it did not read what the server sent",
        _ => "look into the server's log",
    }
}

/// A name in the report, for people.
pub(super) fn in_words(name: &str) -> String {
    match (name.strip_prefix("closed_"), Reason::named(name)) {
        (Some(code), _) => match code.parse() {
            Ok(status @ 0..=16) => format!("ended by the server with status {status} ({})", status_name(status)),
            _ => format!("closed by the server with code {code}"),
        },
        (None, Some(reason)) => reason.words().to_owned(),
        (None, None) => name.to_owned(),
    }
}

/// A reason, and what the server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) reason: Reason,
    said: Option<Broken>,
    /// Of a close frame, or the status of a call.
    pub(super) code: Option<u16>,
}

impl Cause {
    /// A close frame with this code.
    pub(super) fn closed(code: Option<u16>) -> Self {
        Self { code, ..Reason::Closed.into() }
    }

    /// What stopped the run: the beginning of a sentence.
    pub(super) fn what(&self) -> String {
        self.said.map_or_else(|| self.reason.what().to_owned(), |said| said.to_string())
    }

    /// How to mend it.
    pub(super) fn mend(&self) -> &'static str {
        self.said.as_ref().map_or(self.reason.mend(), Broken::mend)
    }
}

impl From<Reason> for Cause {
    fn from(reason: Reason) -> Self {
        Self { reason, said: None, code: None }
    }
}

impl From<Broken> for Cause {
    fn from(broken: Broken) -> Self {
        // Of a full server all is known.
        let said = Some(broken).filter(|broken| !matches!(broken, Broken::Declined { status: 503, .. }));
        Self { reason: Reason::from(broken), said, code: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_stand_at_their_numbers() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{reason:?}");
            assert!(Reason::ALL[..number].iter().all(|other| other.name() != reason.name()), "{reason:?}");
        }
    }

    #[test]
    fn names_have_words() {
        let words = ["timed_out", "closed_1009", "closed_14", "reset", "closed"].map(in_words);
        let expected = [
            "no answer in time",
            "closed by the server with code 1009",
            "ended by the server with status 14 (UNAVAILABLE)",
            "reset",
            "closed by the server",
        ];
        assert_eq!(words, expected);
        assert!(Reason::ALL.into_iter().all(|reason| !reason.words().contains('_')));
    }

    #[test]
    fn what_a_storm_does_is_tried_again_and_what_is_lacking_is_not() {
        assert!(Reason::of(ErrorKind::ConnectionReset).tries() > Reason::of(ErrorKind::ConnectionRefused).tries());
        for kind in [ErrorKind::AddrNotAvailable, ErrorKind::QuotaExceeded, ErrorKind::OutOfMemory] {
            let reason = Reason::of(kind);
            assert!(reason != Reason::Other && reason.tries() == 1, "{kind}: {reason:?}");
        }
    }
}
