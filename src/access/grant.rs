//! What somebody may do.

use std::sync::Arc;

use crate::config::Pattern;
use crate::rule::AuthRefusal;

/// What the bearer of a token or a key may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Who it is; `None`: nobody in particular.
    pub user: Option<Box<str>>,
    pub(super) subscribe: Arc<[Pattern]>,
    pub(super) publish: Arc<[Pattern]>,
    /// Nothing was shown for it.
    pub is_anonymous: bool,
    /// It is an operator.
    pub is_operator: bool,
    /// The Unix second at which it ends; `None`: never.
    pub expires: Option<u64>,
}

impl Grant {
    /// Patterns of one kind at most.
    pub const PATTERNS_MAX: usize = 64;

    /// A grant without an end for these topics.
    #[must_use]
    pub fn new(user: Option<&str>, subscribe: &[Pattern], publish: &[Pattern]) -> Self {
        let user = user.map(Box::from);
        let (subscribe, publish) = (subscribe.into(), publish.into());
        Self { user, subscribe, publish, is_anonymous: false, is_operator: false, expires: None }
    }

    /// A grant for nothing, of those who have shown nothing.
    #[must_use]
    pub fn nobody() -> Self {
        Self { is_anonymous: true, ..Self::default() }
    }

    /// What it comes to for an operator, among topics that are for operators alone: all may be read, for as long.
    #[must_use]
    pub fn of_operator(&self) -> Self {
        let all: Vec<_> = Pattern::parse("**").into_iter().collect();
        let Self { user, is_operator, expires, .. } = self;
        Self { is_operator: *is_operator, expires: *expires, ..Self::new(user.as_deref(), &all, &[]) }
    }

    /// Whether it may read a topic of this name: its messages, its history and its state.
    #[must_use]
    pub fn may_subscribe(&self, topic: &str) -> bool {
        self.subscribe.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether it may write to it.
    #[must_use]
    pub fn may_publish(&self, topic: &str) -> bool {
        self.publish.iter().any(|pattern| pattern.matches(topic))
    }

    /// Why it does not allow something: it is too little, or nothing was shown that could allow more.
    #[must_use]
    pub const fn refusal(&self) -> AuthRefusal {
        if self.is_anonymous { AuthRefusal::Missing } else { AuthRefusal::Forbidden }
    }

    /// The last Unix second at which a connection may still use it, where that is bounded: so long after its end.
    #[must_use]
    pub fn ends(&self, grace_s: u64) -> Option<u64> {
        self.expires.map(|expires| expires.saturating_add(grace_s))
    }
}
