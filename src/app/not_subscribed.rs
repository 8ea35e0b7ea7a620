//! Why a subscription is none.

use super::Refusal;
use crate::close::CloseReason;
use crate::rule::{AuthRefusal, Limit};

/// Why a connection was not subscribed to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub enum NotSubscribed {
    /// The connection has as many subscriptions as it may have.
    TooMany,
    /// The topic's name is too long.
    TopicTooLong,
    /// There is no room for another topic.
    NoRoom,
    /// The topic's owner has too much to do.
    Busy,
    /// This connection may not read the topic.
    Forbidden(AuthRefusal),
}

impl NotSubscribed {
    /// The limit that is in the way, if it is one.
    #[must_use]
    pub const fn limit(self) -> Option<Limit> {
        Some(match self {
            Self::TooMany => Limit::SubscriptionsMax,
            Self::TopicTooLong => Limit::TopicBytesMax,
            Self::NoRoom => Limit::TopicsMax,
            Self::Busy => Limit::MailboxCapacity,
            Self::Forbidden(_) => return None,
        })
    }

    /// How a connection ends that has no other way to hear of it.
    #[must_use]
    pub const fn reason(self) -> CloseReason {
        match self {
            Self::TooMany | Self::TopicTooLong | Self::Forbidden(_) => CloseReason::Policy,
            Self::NoRoom | Self::Busy => CloseReason::TryAgainLater,
        }
    }

    /// A stable word for programs: the limit's name, where it is one.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match (self, self.limit()) {
            (Self::Forbidden(cause), _) => cause.code(),
            (_, Some(limit)) => limit.label(),
            (_, None) => "policy",
        }
    }

    /// A sentence for people.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::TooMany => "this connection has as many subscriptions as limits.subscriptions_max allows",
            Self::TopicTooLong => "the topic's name is longer than limits.topic_bytes_max allows",
            Self::NoRoom => "there are as many topics as limits.topics_max allows; try again later",
            Self::Forbidden(cause) => cause.message(),
            Self::Busy => "the topic has too much to do; try again later",
        }
    }
}

impl From<NotSubscribed> for CloseReason {
    fn from(why: NotSubscribed) -> Self {
        why.reason()
    }
}

impl From<NotSubscribed> for Refusal {
    fn from(why: NotSubscribed) -> Self {
        let status = match why {
            NotSubscribed::Forbidden(cause) => cause.status(),
            NotSubscribed::NoRoom | NotSubscribed::Busy => 503,
            NotSubscribed::TooMany | NotSubscribed::TopicTooLong => 400,
        };
        Self { status, code: why.code(), message: why.message().to_owned() }
    }
}
