//! API keys: long random words that programs show, each with a name and what its bearer may do.
//!
//! ```toml
//! [[key]]
//! name = "billing"
//! sha256 = "..."           # of the key, in hex; or key = "..." as it is
//! publish = ["invoice/**"]
//! subscribe = []
//! admin = false
//! ```

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::grant::{Voucher, mark};
use super::jwk::discreet;
use super::{BadKey, Grant};
use crate::config::Pattern;

/// All API keys. Only their hashes are kept.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ApiKeys(Vec<([u8; 32], Arc<Grant>)>);

/// Without the hashes.
impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(_, grant)| &grant.user)).finish()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    key: Option<String>,
    sha256: Option<String>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    admin: bool,
}

impl ApiKeys {
    /// Keys at most: each that somebody shows is compared with all.
    pub const KEYS_MAX: usize = 1024;
    /// Bytes of a key that stands in the file as it is, at least.
    const KEY_BYTES_MIN: usize = 16;

    /// Reads the text of a file.
    ///
    /// # Errors
    /// When it says something that is not understood.
    pub fn from_toml(text: &str) -> Result<Self, BadKey> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            BadKey(format!("is no list of API keys: line {line}: {}", discreet(error.message())))
        })?;
        if file.key.len() > Self::KEYS_MAX {
            return Err(BadKey(format!("has {} keys; at most {} are taken", file.key.len(), Self::KEYS_MAX)));
        }
        let mut keys = Self::default();
        for entry in &file.key {
            let told = |what: String| BadKey(format!("has a key named {:?}, {what}", entry.name));
            let hash = entry.hash().map_err(told)?;
            if keys.0.iter().any(|(other, grant)| *other == hash || grant.user.as_deref() == Some(&*entry.name)) {
                return Err(told("which is there twice".to_owned()));
            }
            let (subscribe, publish) = (patterns(&entry.subscribe), patterns(&entry.publish));
            let grant = Grant::new(Some(&entry.name), &subscribe.map_err(told)?, &publish.map_err(told)?);
            let voucher = Voucher { key: mark(&[&hash]), ..Voucher::default() };
            let grant = Grant { is_operator: entry.admin, is_of_api_key: true, voucher, ..grant };
            keys.0.push((hash, Arc::new(grant)));
        }
        Ok(keys)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is an operator's.
    pub(super) fn names_operators(&self) -> bool {
        self.0.iter().any(|(_, grant)| grant.is_operator)
    }

    /// What the bearer of the key that this was for may do now, if there is that key.
    pub(super) fn successor(&self, old: &Grant) -> Option<&Arc<Grant>> {
        let is_it = |grant: &&Arc<Grant>| grant.user == old.user && grant.voucher == old.voucher;
        self.0.iter().map(|(_, grant)| grant).find(is_it)
    }

    /// What the bearer of this key may do. It takes the same time whichever key it is like.
    pub(super) fn find(&self, key: &[u8]) -> Option<Arc<Grant>> {
        if self.0.is_empty() {
            return None;
        }
        let hash = digest(&SHA256, key);
        let mut found = None;
        for (own, grant) in &self.0 {
            if bool::from(own[..].ct_eq(hash.as_ref())) {
                found = Some(grant);
            }
        }
        found.cloned()
    }
}

impl Entry {
    fn hash(&self) -> Result<[u8; 32], String> {
        match (&self.key, &self.sha256) {
            (Some(key), None) if key.len() < ApiKeys::KEY_BYTES_MIN => {
                Err(format!("whose key has {} bytes; give it {} at least", key.len(), ApiKeys::KEY_BYTES_MIN))
            }
            (Some(key), None) => {
                let mut hash = [0; 32];
                hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
                Ok(hash)
            }
            (None, Some(hex)) => from_hex(hex).ok_or_else(|| "whose sha256 is not 64 digits of hex".to_owned()),
            _ => Err("which needs either key or sha256".to_owned()),
        }
    }
}

fn from_hex(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn patterns(texts: &[String]) -> Result<Vec<Pattern>, String> {
    if texts.len() > Grant::PATTERNS_MAX {
        return Err(format!("which has more than {} patterns", Grant::PATTERNS_MAX));
    }
    texts.iter().map(|text| Pattern::parse(text).map_err(|error| error.to_string())).collect()
}
