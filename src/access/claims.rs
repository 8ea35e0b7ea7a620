//! What a token says (RFC 7519 section 4), and whether that holds.
//!
//! Topics are in a claim of their own, whose members may all be left out:
//!
//! ```text
//! "holdline": {"subscribe": ["room/*"], "publish": ["room/7"], "admin": false}
//! ```

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::{Map, Number, Value};

use super::grant::{Voucher, mark_of};
use super::{Access, Grant, Key, Verified};
use crate::config::Pattern;
use crate::rule::AuthRefusal;

/// Registered claims. Each may be there once: of two, two readers may take different ones.
#[derive(Deserialize)]
struct Registered {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Audience>,
    exp: Option<Number>,
    nbf: Option<Number>,
    iat: Option<Number>,
    jti: Option<String>,
}

/// One, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// The claim about topics.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Topics {
    subscribe: Vec<String>,
    publish: Vec<String>,
    admin: bool,
}

/// What the claim about topics names: what may be read, what may be written, and whether all of an operator's may be done.
type Named = (Vec<Pattern>, Vec<Pattern>, bool);

/// All claims of a token.
pub(super) struct Claims {
    registered: Registered,
    all: Map<String, Value>,
}

impl Claims {
    pub(super) fn read(payload: &[u8]) -> Result<Self, AuthRefusal> {
        let malformed = |_| AuthRefusal::Claims;
        let registered = serde_json::from_slice(payload).map_err(malformed)?;
        Ok(Self { registered, all: serde_json::from_slice(payload).map_err(malformed)? })
    }

    /// What the bearer may do, if the token, which this key has signed, is good at this Unix second.
    pub(super) fn check(&self, access: &Access, key: &Key, now: u64) -> Result<Verified, AuthRefusal> {
        let expires = self.check_times(access, now)?;
        let audience = self.check_parties(access)?;
        let voucher = Voucher {
            key: key.mark(&access.claim),
            issuer: mark_of(self.registered.iss.as_deref()),
            audience: mark_of(audience),
        };
        let user = self.registered.sub.as_deref();
        let grant = match self.topics(access)? {
            Some((subscribe, publish, is_operator)) => Grant { is_operator, ..Grant::new(user, &subscribe, &publish) },
            None => Grant { has_default_topics: true, ..Grant::new(user, &access.subscribe, &access.publish) },
        };
        let grant = Grant { voucher, ..grant }.until(expires);
        let once = if access.one_time { Some(self.number(expires, access)?) } else { None };
        Ok(Verified { grant: Arc::new(grant), once })
    }

    /// Checks when the token is good; returns when it ends.
    fn check_times(&self, access: &Access, now: u64) -> Result<Option<u64>, AuthRefusal> {
        let (registered, leeway) = (&self.registered, access.leeway.as_secs());
        let expires = seconds(registered.exp.as_ref())?;
        if expires.is_none() && (access.must_expire || access.one_time) {
            return Err(AuthRefusal::NoExpiry);
        }
        if expires.is_some_and(|expires| now >= expires.saturating_add(leeway)) {
            return Err(AuthRefusal::Expired);
        }
        for begins in [&registered.nbf, &registered.iat] {
            if seconds(begins.as_ref())?.is_some_and(|begins| begins > now.saturating_add(leeway)) {
                return Err(AuthRefusal::NotYet);
            }
        }
        Ok(expires)
    }

    /// Checks who has issued it, and for whom; returns which of ours that is. A token for somebody is refused by those who do not know that they are meant
    /// (RFC 7519 section 4.1.3).
    fn check_parties(&self, access: &Access) -> Result<Option<&str>, AuthRefusal> {
        let knows = |list: &[String], name: &String| list.contains(name);
        let is_issuer = self.registered.iss.as_ref().is_some_and(|issuer| knows(&access.issuers, issuer));
        if !access.issuers.is_empty() && !is_issuer {
            return Err(AuthRefusal::Issuer);
        }
        let meant = match &self.registered.aud {
            None if access.audiences.is_empty() => return Ok(None),
            None => None,
            Some(Audience::One(name)) => Some(name).filter(|name| knows(&access.audiences, name)),
            Some(Audience::Several(names)) => names.iter().find(|name| knows(&access.audiences, name)),
        };
        meant.map(|name| Some(&**name)).ok_or(AuthRefusal::Audience)
    }

    /// What it may read and write, and whether it is an operator's, if it says that.
    fn topics(&self, access: &Access) -> Result<Option<Named>, AuthRefusal> {
        let Some(claim) = self.all.get(&access.claim) else { return Ok(None) };
        // An array would be read as the members in their order.
        let claim = Some(claim).filter(|claim| claim.is_object()).ok_or(AuthRefusal::Claims)?;
        let topics = Topics::deserialize(claim).map_err(|_| AuthRefusal::Claims)?;
        Ok(Some((patterns(&topics.subscribe)?, patterns(&topics.publish)?, topics.admin)))
    }

    /// What it is remembered by, and until when. An issuer's numbers are its own.
    fn number(&self, expires: Option<u64>, access: &Access) -> Result<([u8; 16], u64), AuthRefusal> {
        let number = self.registered.jti.as_deref().filter(|jti| !jti.is_empty()).ok_or(AuthRefusal::Claims)?;
        let issuer = self.registered.iss.as_deref().unwrap_or_default();
        let name = digest(&SHA256, [issuer, "\0", number].concat().as_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&name.as_ref()[..16]);
        Ok((short, expires.unwrap_or(u64::MAX).saturating_add(access.leeway.as_secs())))
    }
}

/// A NumericDate (RFC 7519 section 2) in whole seconds.
fn seconds(date: Option<&Number>) -> Result<Option<u64>, AuthRefusal> {
    let Some(date) = date else { return Ok(None) };
    if let Some(whole) = date.as_u64() {
        return Ok(Some(whole));
    }
    let date = date.as_f64().filter(|date| (0.0..1e15).contains(date)).ok_or(AuthRefusal::Claims)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 10^15")]
    let whole = date as u64;
    Ok(Some(whole))
}

fn patterns(texts: &[String]) -> Result<Vec<Pattern>, AuthRefusal> {
    if texts.len() > Grant::PATTERNS_MAX {
        return Err(AuthRefusal::Claims);
    }
    texts.iter().map(|text| Pattern::parse(text).map_err(|_| AuthRefusal::Claims)).collect()
}
