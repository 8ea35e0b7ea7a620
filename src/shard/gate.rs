//! Who comes, and until when: tokens are verified here, in whatever protocol they were shown, and their ends are seen to.
//!
//! What a connection may do lies in its entry as a [`Grant`] that all connections with the same token share on their shard.
//! Where nobody is asked who they are there is none, and everything is allowed.
//!
//! ```text
//!   shown --verified--> grant --exp--> told, may be renewed --renew_grace--> closed with 4002
//!                         ^_______________________|
//! ```
//!
//! What a reload of the keys makes of those who are there is in `standing`.

use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};

use super::connection::{Connection, Flags};
use super::control::Control;
use super::core::Core;
use super::mail::OwnMail;
use super::timers::Due;
use crate::access::{Access, Grant, TOKEN_BYTES_MAX, Verified};
use crate::app::Effect;
use crate::app::router::News;
use crate::app::{Refusal, Renewed};
use crate::close::CloseReason;
use crate::codec::json;
use crate::id::ConnId;
use crate::message::{Kind, Topic};
use crate::rule::AuthRefusal;
use crate::session::{self, Protocol};
use crate::wheel::Tick;

/// What a frame begins with that shows a token: the first one of a raw TCP connection, and later ones of connections that
/// asked to be told when it is time.
pub(super) const AUTH: &[u8] = b"AUTH";

/// Tokens that were verified lately, by their hash: who comes again with the same one costs no signature.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Each in the place that its hash says, which the next one there takes. Empty until the first comes.
    known: Vec<Option<Known>>,
    /// Tokens that were not in it, since this was set to 0.
    pub(super) checks: u32,
    /// Grants whose topics others with the same ones share, in such places too.
    shared: Vec<Option<Arc<Grant>>>,
    /// What those may do who show nothing.
    anonymous: Option<Arc<Grant>>,
}

/// A token that was verified: its SHA-256, and what it came to.
#[derive(Debug)]
struct Known {
    name: [u8; 32],
    grant: Arc<Grant>,
}

/// The place of a hash in a table that has all its places from the first use on.
fn place<T>(table: &mut Vec<Option<T>>, hash: u64, places: usize) -> &mut Option<T> {
    if table.len() != places {
        table.resize_with(places, || None);
    }
    let index = usize::try_from(hash % places as u64).unwrap_or(0);
    &mut table[index]
}

impl Gate {
    /// Places for tokens: 160 KiB.
    const KNOWN_MAX: usize = 4096;
    /// Places for lists of topics.
    const SHARED_MAX: usize = 256;

    /// What the bearer of a token may do.
    pub(super) fn verify(&mut self, access: &Access, token: &[u8], unix_ms: u64) -> Result<Verified, AuthRefusal> {
        if access.one_time || token.len() > TOKEN_BYTES_MAX {
            self.checks += 1;
            return access.verify(token, unix_ms).map(|verified| self.share(verified));
        }
        let mut name = [0; 32];
        name.copy_from_slice(digest(&SHA256, token).as_ref());
        let hash = name.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        if let Some(Known { name: known, grant }) = place(&mut self.known, hash, Self::KNOWN_MAX)
            && *known == name
            && grant.ends(access.leeway.as_secs()).is_none_or(|ends| unix_ms / 1000 < ends)
        {
            return Ok(Verified { grant: Arc::clone(grant), once: None });
        }
        self.checks += 1;
        let verified = self.share(access.verify(token, unix_ms)?);
        let known = Known { name, grant: Arc::clone(&verified.grant) };
        *place(&mut self.known, hash, Self::KNOWN_MAX) = Some(known);
        Ok(verified)
    }

    /// Has a grant that has just been made share the memory of its topics.
    fn share(&mut self, mut verified: Verified) -> Verified {
        // Those of API keys are there already.
        if let Some(grant) = Arc::get_mut(&mut verified.grant) {
            match place(&mut self.shared, grant.topics_hash(), Self::SHARED_MAX) {
                Some(other) if grant.share_topics(other) => {}
                place => *place = Some(Arc::clone(&verified.grant)),
            }
        }
        verified
    }

    /// What those may do who show nothing.
    pub(super) fn anonymous(&mut self, access: &Access) -> Result<Arc<Grant>, AuthRefusal> {
        if let Some(grant) = &self.anonymous {
            return Ok(Arc::clone(grant));
        }
        access.anonymous().inspect(|grant| self.anonymous = Some(Arc::clone(grant)))
    }

    /// There are other keys from now on.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Control {
    /// Uses a verified token up, where it may be used once.
    pub(super) fn use_up(&self, verified: Verified, unix_ms: u64) -> Result<Arc<Grant>, AuthRefusal> {
        if let Some(once) = verified.once {
            self.seen().take(once, unix_ms / 1000)?;
        }
        Ok(verified.grant)
    }
}

/// What a connection may do, and until when.
#[derive(Debug)]
pub(super) struct Admission {
    /// What it may do; `None`: everything, nobody was asked.
    pub(super) grant: Option<Arc<Grant>>,
    /// When it is closed; [`Admission::NEVER`]: never.
    ends: Tick,
    /// It sends `AUTH` frames to renew its token.
    pub(super) renews: bool,
    /// It was told that it is time for that.
    told: bool,
    /// It ends because the keys are others now, and not because its token does.
    pub(super) lapsed: bool,
    /// New tokens that were not taken.
    failures: u8,
}

impl Default for Admission {
    fn default() -> Self {
        Self { grant: None, ends: Self::NEVER, renews: false, told: false, lapsed: false, failures: 0 }
    }
}

impl Admission {
    /// Tokens in vain after which a connection is closed: each costs a signature.
    const FAILURES_MAX: u8 = 8;
    /// No end.
    const NEVER: Tick = Tick(u32::MAX);

    /// With this grant, from now on; without one everything is allowed.
    pub(super) fn new(grant: Option<Arc<Grant>>, renews: bool) -> Self {
        Self { grant, renews, ..Self::default() }
    }

    /// What it says of itself is told when it ends.
    pub(super) const fn cause(&self) -> AuthRefusal {
        if self.lapsed { AuthRefusal::Missing } else { AuthRefusal::Expired }
    }
}

/// What is wrong with the first subscription that a handler wishes for and is not allowed.
pub(super) fn forbidden(effects: &[Effect], grant: Option<&Grant>) -> Option<Refusal> {
    let grant = grant?;
    let mut topics = effects.iter().filter_map(|effect| match effect {
        Effect::Subscribe(topic, _) => Some(topic),
        _ => None,
    });
    topics.find(|topic| !grant.may_subscribe(topic.as_str())).map(|topic| not_allowed(topic, grant))
}

/// Why a grant is not enough for a topic. Who has shown nothing yet may have something to show.
pub(super) fn not_allowed(topic: &Topic, grant: &Grant) -> Refusal {
    let cause = grant.refusal();
    let message = match cause {
        AuthRefusal::Missing => cause.message().to_owned(),
        _ => format!("your token does not allow you to read {topic}"),
    };
    Refusal { status: cause.status(), code: cause.code(), message }
}

impl Core {
    /// Who a connection's client is, as its token says.
    #[must_use]
    pub fn user(&self, id: ConnId) -> Option<&str> {
        self.table.get(id)?.grant()?.user.as_deref()
    }

    /// Whether a connection may read a topic.
    ///
    /// # Errors
    /// When it may not.
    pub fn permits_subscribe(&self, id: ConnId, topic: &Topic) -> Result<(), AuthRefusal> {
        let grant = self.table.get(id).and_then(Connection::grant);
        match grant.filter(|grant| !grant.may_subscribe(topic.as_str())) {
            Some(grant) => Err(grant.refusal()),
            None => Ok(()),
        }
    }

    /// Notes until when a connection may do what it may, from now on.
    pub(super) fn begin_admission(&mut self, id: ConnId) {
        let Some(connection) = self.table.get(id).filter(|connection| connection.extra.is_some()) else { return };
        let expires = connection.grant().and_then(|grant| grant.expires());
        let grace = self.grace();
        let ends = expires.map_or(Admission::NEVER, |expires| {
            let left = expires.saturating_mul(1000).saturating_sub(self.unix_ms);
            self.after(Duration::from_millis(left).saturating_add(grace))
        });
        if let Some(admission) = self.table.get_mut(id).and_then(Connection::admission) {
            (admission.ends, admission.told, admission.lapsed) = (ends, false, false);
        }
    }

    /// Has a connection show something new, from this tick on, and end if it does not.
    pub(super) fn lapse(&mut self, id: ConnId, from: Tick) {
        let ends = from.later(self.wheel.ticks_in(self.grace()));
        let Some(connection) = self.table.get_mut(id) else { return };
        let admission = &mut connection.extra.get_or_insert_default().admission;
        if admission.lapsed {
            // Its time runs.
            return;
        }
        admission.lapsed = true;
        if ends < admission.ends {
            (admission.ends, admission.told) = (ends, false);
            self.arm_by(id, from);
        }
        self.metrics.auth_lapsed_total.add(1);
    }

    /// Time from a token's end to that of its connection.
    fn grace(&self) -> Duration {
        self.live.access.renew_grace.max(self.live.access.leeway)
    }

    /// When a connection has to go because its token has ended, or is worth nothing any more.
    pub(super) fn admission_ends(connection: &Connection) -> Option<Tick> {
        let admission = connection.extra.as_deref().map(|extra| &extra.admission)?;
        Some(admission.ends).filter(|ends| *ends < Admission::NEVER)
    }

    /// Why it has to, for whoever shows it.
    pub(super) fn admission_cause(&self, id: ConnId) -> AuthRefusal {
        let extra = self.table.get(id).and_then(|connection| connection.extra.as_deref());
        extra.map_or(AuthRefusal::Expired, |extra| extra.admission.cause())
    }

    /// What has to be done about a connection's token; the ticks at which something has to be go to `passed`, which says
    /// whether they have come.
    pub(super) fn admission_due(&self, connection: &Connection, mut passed: impl FnMut(Tick) -> bool) -> Option<Due> {
        let ends = Self::admission_ends(connection)?;
        if passed(ends) {
            return Some(Due::Close(CloseReason::AuthExpired));
        }
        let admission = &connection.extra.as_deref()?.admission;
        let hears = admission.renews || connection.protocol == Protocol::Grpc;
        let expires = Tick(ends.0.saturating_sub(self.wheel.ticks_in(self.grace())));
        (hears && !admission.told && passed(expires)).then_some(Due::Renewal)
    }

    /// Tells a client that its token has expired, and how long it has to show another.
    pub(super) fn tell_expiry(&mut self, id: ConnId) {
        let now = self.tick;
        let Some(connection) = self.table.get_mut(id) else { return };
        let is_call = connection.protocol == Protocol::Grpc;
        let Some(admission) = connection.admission() else { return };
        admission.told = true;
        let left = self.wheel.instant_of(admission.ends).since(self.wheel.instant_of(now));
        if is_call {
            return self.tell_handler(id, News::Expiring(left));
        }
        let text = format!("{{\"auth\":{{\"expiring\":true,\"seconds_left\":{}}}}}", left.as_secs());
        self.say_aside(id, &text);
    }

    /// Takes a new token for a connection. The outcome is told in turn with what else it is told.
    pub(super) fn renew(&mut self, id: ConnId, token: &[u8], number: u32) {
        let admission = self.table.get(id).and_then(|connection| Some(&connection.extra.as_deref()?.admission));
        if admission.is_some_and(|admission| admission.failures >= Admission::FAILURES_MAX) {
            // It is about to be closed: what it has sent meanwhile is worth no signature.
            return;
        }
        let outcome = self.try_renew(id, token);
        if let Err(cause) = outcome {
            self.metrics.count_refused(cause);
            let is_guessing = self.table.get_mut(id).is_some_and(|connection| {
                let admission = &mut connection.extra.get_or_insert_default().admission;
                admission.failures = admission.failures.saturating_add(1);
                admission.failures >= Admission::FAILURES_MAX
            });
            if is_guessing {
                self.doomed.push((id, CloseReason::Policy, cause.message()));
            }
        }
        self.own_mail.push_back(OwnMail::Renewed(id, number, outcome));
    }

    /// A new token must be the same user's, unless nothing was shown yet, and allow what the old one is used for. Where nobody
    /// is asked it is not looked at, as those of requests are not.
    fn try_renew(&mut self, id: ConnId, token: &[u8]) -> Renewed {
        if self.live.operators_only {
            // What an operator looks at is looked at with the token that it was asked for with.
            return Err(AuthRefusal::Forbidden);
        }
        let access = Arc::clone(&self.live.access);
        let Some(connection) = self.table.get(id) else { return Err(AuthRefusal::Missing) };
        if !access.is_on() {
            return Ok(None);
        }
        let verified = self.gate.verify(&access, token, self.unix_ms)?;
        let is_somebody = connection.grant().filter(|old| !old.is_anonymous);
        let is_another = is_somebody.is_some_and(|old| old.user != verified.grant.user);
        if is_another || !self.allows_memberships(connection, &verified.grant) {
            return Err(AuthRefusal::Forbidden);
        }
        let grant = self.control.use_up(verified, self.unix_ms)?;
        let expires = grant.expires();
        if let Some(connection) = self.table.get_mut(id) {
            connection.extra.get_or_insert_default().admission.grant = Some(grant);
        }
        self.begin_admission(id);
        self.arm_due(id);
        Ok(expires)
    }

    /// Whether a grant allows all that a connection is subscribed to.
    pub(super) fn allows_memberships(&self, connection: &Connection, grant: &Grant) -> bool {
        let mut topics = connection.memberships().filter_map(|membership| self.members.name(membership.topic));
        topics.all(|topic| grant.may_subscribe(topic.as_str()))
    }

    /// Tells a client what became of its new token.
    pub(super) fn tell_renewed(&mut self, id: ConnId, number: u32, outcome: Renewed) {
        let Some(connection) = self.table.get(id).filter(|one| one.flags.has(Flags::OPEN)) else { return };
        if connection.protocol == Protocol::Grpc {
            return self.tell_handler(id, News::Renewed(number, outcome));
        }
        match outcome {
            Ok(expires) => {
                let expires = expires.map_or_else(|| "null".to_owned(), |expires| expires.to_string());
                self.say_aside(id, &format!("{{\"auth\":{{\"renewed\":true,\"expires\":{expires}}}}}"));
            }
            Err(cause) => self.say_aside(id, &error_text(cause)),
        }
    }

    /// Says something that is no message of a topic.
    fn say_aside(&mut self, id: ConnId, text: &str) {
        let Some(connection) = self.table.get(id).filter(|one| one.flags.has(Flags::OPEN)) else { return };
        let encoder = connection.encoder();
        let mut frame = Vec::new();
        session::encode_message(encoder, Kind::Text, text.as_bytes(), &mut self.deflater, &mut frame);
        self.say(id, &frame);
    }

    /// Whether a raw TCP connection has to show a token before all else.
    pub(super) fn awaits_token(&self, id: ConnId) -> bool {
        self.live.access.is_on() && self.table.get(id).is_some_and(|connection| connection.grant().is_none())
    }

    /// Takes the first frame of a raw TCP connection: `AUTH`, and behind spaces a token and `renew=1`, if it has them.
    pub(super) fn take_auth_frame(&mut self, id: ConnId, frame: &[u8]) -> Result<(), AuthRefusal> {
        let access = Arc::clone(&self.live.access);
        let (mut token, mut renews) = (None, false);
        let mut words = frame.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        if words.next() != Some(AUTH) {
            return Err(AuthRefusal::Missing);
        }
        for word in words {
            match word {
                b"renew=1" => renews = true,
                word if token.is_none() => token = Some(word),
                _ => return Err(AuthRefusal::Malformed),
            }
        }
        let grant = match token {
            Some(token) => self.control.use_up(self.gate.verify(&access, token, self.unix_ms)?, self.unix_ms)?,
            None => self.gate.anonymous(&access)?,
        };
        if let Some(connection) = self.table.get_mut(id) {
            connection.extra.get_or_insert_default().admission = Admission::new(Some(grant), renews);
        }
        Ok(())
    }
}

/// The token of a frame that shows one.
pub(super) fn token_in(frame: &[u8]) -> Option<&[u8]> {
    frame.strip_prefix(AUTH)?.strip_prefix(b" ").map(<[u8]>::trim_ascii)
}

/// A refusal as JSON.
pub(super) fn error_text(cause: AuthRefusal) -> String {
    let mut text = Vec::new();
    json::write_error(cause.code(), cause.message(), &mut text);
    String::from_utf8_lossy(text.trim_ascii_end()).into_owned()
}
