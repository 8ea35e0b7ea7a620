//! What becomes of grants when the operator has named other keys and terms. Claims are not kept, but what vouched for each
//! grant is: its key, issuer and audience.

use std::sync::Arc;

use super::grant::{Topics, mark_of};
use super::{Access, Grant};
use crate::config::Pattern;

/// What a grant is worth under other keys and terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What it was.
    Same,
    /// Its bearer may do this instead.
    Other(Arc<Grant>),
    /// Nobody is asked any more: everything is allowed.
    Free,
    /// Nothing: something else has to be shown.
    Lapsed,
}

impl Access {
    /// What a grant is worth that was given under other keys and terms; `None` is what those had who were not asked.
    /// `operators_only`: operators are asked, and nobody else comes.
    #[must_use]
    pub fn review(&self, grant: Option<&Arc<Grant>>, operators_only: bool) -> Standing {
        let asks = if operators_only { self.guards_admin() } else { self.is_on() };
        match grant {
            None if !asks => Standing::Same,
            Some(_) if !asks => Standing::Free,
            None => self.review_nobody(None, operators_only),
            Some(old) if old.is_anonymous => self.review_nobody(Some(old), operators_only),
            Some(old) => {
                let new = if old.is_of_api_key { self.review_key(old) } else { self.review_token(old) };
                let new = new.filter(|new| new.is_operator || !operators_only);
                let new = new.map(|new| if operators_only { Arc::new(new.for_operator()) } else { new });
                standing(Some(old), new)
            }
        }
    }

    /// Of who has shown nothing.
    fn review_nobody(&self, old: Option<&Arc<Grant>>, operators_only: bool) -> Standing {
        standing(old, self.anonymous().ok().filter(|_| !operators_only))
    }

    /// Of who has shown an API key.
    fn review_key(&self, old: &Grant) -> Option<Arc<Grant>> {
        self.api_keys.content.successor(old).cloned()
    }

    /// Of who has shown a token.
    fn review_token(&self, old: &Arc<Grant>) -> Option<Arc<Grant>> {
        let voucher = old.voucher;
        let knows = |names: &[String], mark: u32| names.iter().any(|name| mark_of(Some(name)) == mark);
        let is_signed = self.keys().any(|key| key.mark(&self.claim) == voucher.key);
        let is_issued = self.issuers.is_empty() || knows(&self.issuers, voucher.issuer);
        let is_meant = match voucher.audience {
            0 => self.audiences.is_empty(),
            audience => knows(&self.audiences, audience),
        };
        let ends = old.expires().is_some() || !(self.must_expire || self.one_time);
        if !(is_signed && is_issued && is_meant && ends) {
            return None;
        }
        if !old.has_default_topics {
            return Some(Arc::clone(old));
        }
        Some(Arc::new(old.with_topics(&self.subscribe, &self.publish)))
    }
}

fn standing(old: Option<&Arc<Grant>>, new: Option<Arc<Grant>>) -> Standing {
    match (old, new) {
        (_, None) => Standing::Lapsed,
        (Some(old), Some(new)) if **old == *new => Standing::Same,
        (_, Some(new)) => Standing::Other(new),
    }
}

impl Grant {
    /// The same for other topics.
    fn with_topics(&self, subscribe: &[Pattern], publish: &[Pattern]) -> Self {
        Self { topics: Topics::new(subscribe, publish), ..self.clone() }
    }

    /// What it comes to for an operator, among topics that are for operators alone: all may be read, for as long.
    #[must_use]
    pub fn for_operator(&self) -> Self {
        let all: Vec<_> = Pattern::parse("**").into_iter().collect();
        self.with_topics(&all, &[])
    }
}
