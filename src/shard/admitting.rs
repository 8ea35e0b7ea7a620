//! Whose requests are taken: what each shows, and what that allows.

use std::sync::Arc;

use super::gate::{forbidden, not_allowed};
use super::requests::Requests;
use crate::access::{Grant, Verified};
use crate::app::router::Fault;
use crate::app::{Refusal, RouteId};
use crate::message::Topic;
use crate::rule::AuthRefusal;
use crate::session::http::{self, Head, Violation};

/// The pages of the admin listener that machines look at, which have nothing to hide.
pub(super) const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Who it is.
pub(super) fn user_of(grant: &Option<Arc<Grant>>) -> Option<&str> {
    grant.as_ref()?.user.as_deref()
}

impl Requests<'_> {
    /// Whether a request has to show something: one for a route, or anything of operators.
    fn is_guarded(&self, head: &Head<'_>) -> bool {
        if head.method() == "OPTIONS" {
            // A browser asks so, without a token, whether it may send one.
            return false;
        }
        if !self.operators_only {
            self.access.is_on() && self.route(head.path()).is_some()
        } else {
            self.access.guards_admin() && !PROBES.contains(&head.path())
        }
    }

    /// What a request shows, and what that comes to.
    fn verify(&mut self, head: &Head<'_>) -> Result<Verified, AuthRefusal> {
        match http::credentials(head)? {
            Some(token) => self.gate.verify(self.access, &token, self.unix_ms),
            None if self.route(head.path()).is_some_and(|(route, _)| self.offers(route).open) => {
                Ok(Verified { grant: Arc::new(Grant::nobody()), once: None })
            }
            None => Ok(Verified { grant: self.gate.anonymous(self.access)?, once: None }),
        }
    }

    /// Looks at what a request shows before its body is taken.
    ///
    /// # Errors
    /// When that is not enough.
    pub(super) fn check(&mut self, head: &Head<'_>) -> Result<(), Violation> {
        if !self.is_guarded(head) {
            return Ok(());
        }
        let verified = self.verify(head).map_err(|cause| self.refused(cause))?;
        if self.operators_only && !verified.grant.is_operator {
            return Err(self.refused(verified.grant.refusal()));
        }
        self.verified = Some(verified);
        Ok(())
    }

    /// Takes what a request shows; a token that may be used once is used up.
    ///
    /// # Errors
    /// When that is not enough.
    pub(super) fn admit(&mut self, head: &Head<'_>) -> Result<(), Violation> {
        if self.is_guarded(head) {
            self.take_verified(head).map_err(|cause| self.refused(cause))?;
        }
        Ok(())
    }

    /// The same for a call, which has its own way to say what is wrong.
    pub(super) fn admit_call(&mut self, head: &Head<'_>) -> Result<(), AuthRefusal> {
        let taken = if self.is_guarded(head) { self.take_verified(head) } else { Ok(()) };
        taken.inspect_err(|cause| self.metrics.count_refused(*cause))
    }

    fn take_verified(&mut self, head: &Head<'_>) -> Result<(), AuthRefusal> {
        let verified = match self.verified.take() {
            Some(verified) => verified,
            None => self.verify(head)?,
        };
        let grant = self.control.use_up(verified, self.unix_ms)?;
        if !self.operators_only {
            self.grant = Some(grant);
        } else if !grant.is_operator {
            return Err(grant.refusal());
        } else {
            // Topics that an operator looks at are the listener's own, as long as the token is good.
            self.grant = Some(Arc::new(grant.for_operator()));
        }
        Ok(())
    }

    /// Counts a refusal and says how it is answered.
    fn refused(&self, cause: AuthRefusal) -> Violation {
        self.metrics.count_refused(cause);
        if self.operators_only { Violation::NoOperator(cause) } else { Violation::Unauthorized(cause) }
    }

    /// A topic that whoever asks may read.
    pub(super) fn may_read(&self, topic: Topic) -> Result<Topic, Refusal> {
        match self.grant.as_deref().filter(|grant| !grant.may_subscribe(topic.as_str())) {
            Some(grant) => {
                self.metrics.count_refused(grant.refusal());
                Err(not_allowed(&topic, grant))
            }
            None => Ok(topic),
        }
    }

    /// Whether what a handler wishes for that has just opened is allowed. If not, it is as if it had refused.
    pub(super) fn allowed(&mut self, route: RouteId, state: u32) -> Result<u32, Fault> {
        let grant = self.grant.as_deref();
        let Some(refusal) = forbidden(self.effects, grant) else { return Ok(state) };
        self.metrics.count_refused(grant.map_or(AuthRefusal::Forbidden, Grant::refusal));
        self.router.forget(route, state);
        Err(Fault::Refused(refusal))
    }
}
