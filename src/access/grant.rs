//! What somebody may do.

use std::sync::Arc;

use ring::digest::{SHA256, digest};

use crate::config::Pattern;
use crate::rule::AuthRefusal;

/// What the bearer of a token or a key may do, in as few bytes as can be: every connection that has shown a token of its own
/// keeps one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who it is; `None`: nobody in particular.
    pub user: Option<Box<str>>,
    pub(super) topics: Topics,
    /// The Unix second at which it ends; `NEVER`: never.
    pub(super) expires: u64,
    /// What vouches for it.
    pub(super) voucher: Voucher,
    /// Nothing was shown for it.
    pub is_anonymous: bool,
    /// It is an operator.
    pub is_operator: bool,
    /// It is of an API key.
    pub(super) is_of_api_key: bool,
    /// Its topics are those of tokens that name none.
    pub(super) has_default_topics: bool,
}

/// Bytes of a grant in memory, beside the user's name and the topics: those 16 each, the end 8, the voucher 12, four facts.
const GRANT_BYTES: usize = 56;

const _: () = assert!(size_of::<Grant>() == GRANT_BYTES);

/// The key behind a grant, and the issuer and the audience of its token, each by the first bytes of a hash; 0: none. So it
/// can be told later whether they would do, when the operator has named others, and the claims need not be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Voucher {
    pub(super) key: u32,
    pub(super) issuer: u32,
    pub(super) audience: u32,
}

/// What stands for something in a [`Voucher`]. The names and keys are the operator's own, of which there are a thousand at
/// most: nobody else can make two of them alike.
pub(super) fn mark(parts: &[&[u8]]) -> u32 {
    let hash = digest(&SHA256, &parts.join(&0));
    hash.as_ref().first_chunk().map_or(1, |first| u32::from_be_bytes(*first)).max(1)
}

/// The same, of what may be missing.
pub(super) fn mark_of(name: Option<&str>) -> u32 {
    name.map_or(0, |name| mark(&[name.as_bytes()]))
}

impl Default for Grant {
    fn default() -> Self {
        Self::new(None, &[], &[])
    }
}

impl Grant {
    /// Patterns of one kind at most.
    pub const PATTERNS_MAX: usize = 64;
    /// No end.
    const NEVER: u64 = u64::MAX;

    /// A grant without an end for these topics. Patterns beyond [`Grant::PATTERNS_MAX`] of one kind are left out.
    #[must_use]
    pub fn new(user: Option<&str>, subscribe: &[Pattern], publish: &[Pattern]) -> Self {
        Self {
            user: user.map(Box::from),
            topics: Topics::new(subscribe, publish),
            expires: Self::NEVER,
            voucher: Voucher::default(),
            is_anonymous: false,
            is_operator: false,
            is_of_api_key: false,
            has_default_topics: false,
        }
    }

    /// A grant for nothing, of those who have shown nothing.
    #[must_use]
    pub fn nobody() -> Self {
        Self { is_anonymous: true, ..Self::default() }
    }

    /// The same until this Unix second.
    #[must_use]
    pub fn until(self, expires: Option<u64>) -> Self {
        Self { expires: expires.unwrap_or(Self::NEVER), ..self }
    }

    /// The Unix second at which it ends; `None`: never.
    #[must_use]
    pub const fn expires(&self) -> Option<u64> {
        if self.expires == Self::NEVER { None } else { Some(self.expires) }
    }

    /// Whether it may read a topic of this name: its messages, its history and its state.
    #[must_use]
    pub fn may_subscribe(&self, topic: &str) -> bool {
        self.topics.subscribe().any(|pattern| Pattern::text_matches(pattern, topic))
    }

    /// Whether it may write to it.
    #[must_use]
    pub fn may_publish(&self, topic: &str) -> bool {
        self.topics.publish().any(|pattern| Pattern::text_matches(pattern, topic))
    }

    /// Why it does not allow something: it is too little, or nothing was shown that could allow more.
    #[must_use]
    pub const fn refusal(&self) -> AuthRefusal {
        if self.is_anonymous { AuthRefusal::Missing } else { AuthRefusal::Forbidden }
    }

    /// The last Unix second at which a connection may still use it, where that is bounded: so long after its end.
    #[must_use]
    pub fn ends(&self, grace_s: u64) -> Option<u64> {
        self.expires().map(|expires| expires.saturating_add(grace_s))
    }

    /// Has it share the memory of its topics with another grant, where those are the same. Returns whether they are.
    pub fn share_topics(&mut self, other: &Self) -> bool {
        let is_same = self.topics == other.topics;
        if is_same {
            self.topics = other.topics.clone();
        }
        is_same
    }

    /// A number by which grants with the same topics are found.
    #[must_use]
    pub fn topics_hash(&self) -> u64 {
        // FNV-1a: it is no defence, a bad one costs sharing.
        self.topics
            .0
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

/// Two lists of patterns in one piece of memory, which grants share: how many the first has, then each with its length
/// before it. A pattern has 255 bytes at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topics(Arc<[u8]>);

impl Topics {
    pub(super) fn new(subscribe: &[Pattern], publish: &[Pattern]) -> Self {
        let subscribe = &subscribe[..subscribe.len().min(Grant::PATTERNS_MAX)];
        let publish = &publish[..publish.len().min(Grant::PATTERNS_MAX)];
        let mut bytes = vec![u8::try_from(subscribe.len()).unwrap_or(0)];
        for pattern in subscribe.iter().chain(publish) {
            let text = pattern.as_str().as_bytes();
            bytes.push(u8::try_from(text.len()).unwrap_or(0));
            bytes.extend_from_slice(text);
        }
        Self(bytes.into())
    }

    fn all(&self) -> Texts<'_> {
        Texts(self.0.get(1..).unwrap_or_default())
    }

    fn subscribe_count(&self) -> usize {
        self.0.first().map_or(0, |count| usize::from(*count))
    }

    fn subscribe(&self) -> impl Iterator<Item = &[u8]> {
        self.all().take(self.subscribe_count())
    }

    fn publish(&self) -> impl Iterator<Item = &[u8]> {
        self.all().skip(self.subscribe_count())
    }
}

/// Texts with their lengths before them.
struct Texts<'t>(&'t [u8]);

impl<'t> Iterator for Texts<'t> {
    type Item = &'t [u8];

    fn next(&mut self) -> Option<&'t [u8]> {
        let (length, rest) = self.0.split_first()?;
        let (text, rest) = rest.split_at_checked(usize::from(*length))?;
        self.0 = rest;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    #[test]
    fn both_lists_are_there_whatever_is_in_the_other() {
        let long = "x".repeat(Pattern::BYTES_MAX);
        for (subscribe, publish) in
            [(&[][..], &[][..]), (&["a/*", &long][..], &[]), (&[], &["a/*", &long]), (&["a/*"], &["b", &long])]
        {
            let grant = Grant::new(None, &patterns(subscribe), &patterns(publish));
            for name in ["a/1", "b", &long, "c"] {
                let fits = |list: &[&str]| patterns(list).iter().any(|pattern| pattern.matches(name));
                assert_eq!(grant.may_subscribe(name), fits(subscribe), "{subscribe:?} {name}");
                assert_eq!(grant.may_publish(name), fits(publish), "{publish:?} {name}");
            }
        }
    }

    #[test]
    fn the_same_topics_are_kept_once() {
        let one = Grant::new(Some("ann"), &patterns(&["room/*"]), &[]);
        let mut same = Grant::new(Some("ben"), &patterns(&["room/*"]), &[]);
        let mut other = Grant::new(Some("ben"), &[], &patterns(&["room/*"]));
        assert_eq!(one.topics_hash(), same.topics_hash());
        assert!(same.share_topics(&one) && !other.share_topics(&one));
        assert!(Arc::ptr_eq(&one.topics.0, &same.topics.0) && !Arc::ptr_eq(&one.topics.0, &other.topics.0));
        assert!(other.may_publish("room/1") && !other.may_subscribe("room/1"));
    }
}
