//! Who may do what: tokens and keys in, a [`Grant`] or an [`AuthRefusal`] out.
//!
//! A client proves who it is with a JSON Web Token (RFC 7519) that is signed by one of the operator's keys, or with an API
//! key. What comes of it is a [`Grant`]: a user, and the topics that it may read and write, by patterns. Who has nothing to
//! show may be let in as nobody in particular, where the operator names topics for that.
//!
//! What this is not: it reads no clock, keeps nothing between two calls but what it was made from, and never says which
//! of its secrets something was compared with. Which tokens were used already is kept by [`Seen`], whoever owns that.
//!
//! Rules that attackers have made necessary (RFC 8725): the algorithm belongs to the key and not to the token, so that
//! `none` is never one and a public key never becomes a shared secret; a token is measured before it is read; critical
//! extensions are refused, since none is known; and keys that a token brings along are not looked at.

mod api_key;
mod claims;
mod der;
mod grant;
mod jwk;
mod jwt;
mod review;
mod seen;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Pattern;
use crate::rule::AuthRefusal;

pub use api_key::ApiKeys;
pub use grant::Grant;
pub use jwk::{BadKey, Key, KeySet};
pub use jwt::CHECKS_MAX;
pub use review::Standing;
pub use seen::Seen;

/// Bytes of a token at most, whatever it is.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What a file holds, and which file that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromFile<T> {
    /// The file; `None`: there is none, and nothing in it.
    pub path: Option<PathBuf>,
    /// What it held when it was read.
    pub content: Arc<T>,
}

impl<T: Default> Default for FromFile<T> {
    fn default() -> Self {
        Self { path: None, content: Arc::default() }
    }
}

/// What an operator has decided about tokens and keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// Keys of tokens, from a JSON Web Key Set.
    pub jwks: FromFile<KeySet>,
    /// Keys of tokens from PEM files, public ones.
    pub public_keys: Vec<FromFile<KeySet>>,
    /// A secret that tokens are signed with (HS256).
    pub secret: Option<Key>,
    /// Who must have issued a token; empty: anyone who has a key.
    pub issuers: Vec<String>,
    /// Whom a token must be for; empty: only tokens that are for nobody in particular are taken.
    pub audiences: Vec<String>,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// Whether a token may be used more than once.
    pub one_time: bool,
    /// Whether a token must say when it expires.
    pub must_expire: bool,
    /// The claim that names topics.
    pub claim: String,
    /// What tokens may read that name no topics.
    pub subscribe: Vec<Pattern>,
    /// What they may write.
    pub publish: Vec<Pattern>,
    /// What those may read who show nothing.
    pub anonymous_subscribe: Vec<Pattern>,
    /// What they may write.
    pub anonymous_publish: Vec<Pattern>,
    /// API keys.
    pub api_keys: FromFile<ApiKeys>,
    /// Time that a connection has to renew its token when that has expired.
    pub renew_grace: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            jwks: FromFile::default(),
            public_keys: Vec::new(),
            secret: None,
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::from_secs(30),
            one_time: false,
            must_expire: true,
            claim: "holdline".to_owned(),
            subscribe: Vec::new(),
            publish: Vec::new(),
            anonymous_subscribe: Vec::new(),
            anonymous_publish: Vec::new(),
            api_keys: FromFile::default(),
            renew_grace: Duration::from_secs(30),
        }
    }
}

/// Keys and API keys do not show what is secret.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { jwks, public_keys, secret, issuers, audiences, leeway, one_time, must_expire, claim, .. } = self;
        let Self { subscribe, publish, anonymous_subscribe, anonymous_publish, api_keys, renew_grace, .. } = self;
        let keys = (jwks, public_keys, secret, api_keys);
        let tokens = (issuers, audiences, leeway, one_time, must_expire, claim, renew_grace);
        let topics = (subscribe, publish, anonymous_subscribe, anonymous_publish);
        f.debug_struct("Access").field("keys", &keys).field("tokens", &tokens).field("topics", &topics).finish()
    }
}

/// What a token or a key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What its bearer may do.
    pub grant: Arc<Grant>,
    /// Its number and the Unix second after which it need not be remembered, where it must be used once only.
    pub once: Option<([u8; 16], u64)>,
}

impl Access {
    /// Whether anybody is asked who they are. Where it is said what those may do who show nothing, they may do that alone, and
    /// a file of keys that has none lets in nobody.
    #[must_use]
    pub fn is_on(&self) -> bool {
        let names_anonymous = !self.anonymous_subscribe.is_empty() || !self.anonymous_publish.is_empty();
        self.has_keys() || self.api_keys.path.is_some() || names_anonymous
    }

    /// Whether there is anything that a client could show.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.takes_tokens() || !self.api_keys.content.is_empty()
    }

    /// Whether operators are asked: somebody has a key for that.
    #[must_use]
    pub fn guards_admin(&self) -> bool {
        self.api_keys.content.names_operators()
    }

    /// Whether there are keys that tokens may be signed with.
    #[must_use]
    pub fn takes_tokens(&self) -> bool {
        self.keys().next().is_some()
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        let public = self.public_keys.iter().flat_map(|file| file.content.keys());
        self.secret.iter().chain(self.jwks.content.keys()).chain(public)
    }

    /// What those may do who show nothing.
    ///
    /// # Errors
    /// When that is nothing at all.
    pub fn anonymous(&self) -> Result<Arc<Grant>, AuthRefusal> {
        if self.anonymous_subscribe.is_empty() && self.anonymous_publish.is_empty() {
            return Err(AuthRefusal::Missing);
        }
        let grant = Grant::new(None, &self.anonymous_subscribe, &self.anonymous_publish);
        Ok(Arc::new(Grant { is_anonymous: true, ..grant }))
    }

    /// What the bearer of a token or an API key may do, at this time in milliseconds of Unix time.
    ///
    /// # Errors
    /// When it proves nothing.
    pub fn verify(&self, token: &[u8], unix_ms: u64) -> Result<Verified, AuthRefusal> {
        if token.is_empty() {
            return Err(AuthRefusal::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthRefusal::TooLong);
        }
        if let Some(grant) = self.api_keys.content.find(token) {
            return Ok(Verified { grant, once: None });
        }
        if !self.takes_tokens() {
            return Err(AuthRefusal::UnknownKey);
        }
        let (payload, key) = jwt::verify(token, || self.keys())?;
        claims::Claims::read(&payload)?.check(self, key, unix_ms / 1000)
    }

    /// Keys without a name of which some are never tried, since [`CHECKS_MAX`] others of their algorithm are: the algorithm, and
    /// how many there are.
    #[must_use]
    pub fn untried(&self) -> Option<(&'static str, usize)> {
        let nameless = || self.keys().filter(|key| key.is_nameless()).map(Key::algorithm);
        let count = |algorithm| nameless().filter(|other| *other == algorithm).count();
        nameless().map(|algorithm| (algorithm.name(), count(algorithm))).find(|(_, count)| *count > CHECKS_MAX)
    }
}
