//! Names of subjects and streams.
//!
//! A topic's name becomes tokens of a subject, one for each level, so that what NATS counts or permits by levels can be said of
//! topics too. No two topics have the same subject, and none has a wildcard: in a level, what is no letter, digit, `-`, `_` or
//! beyond ASCII is `=` and two hexadecimal digits, and a level that is empty is `=` alone.
//!
//! ```text
//!   room/7         holdline.t.room.7          a plain topic's messages
//!   a.b/*//        holdline.t.a=2Eb.=2A.=.=
//! ```

use ring::digest;

use crate::message::Topic;

/// What a subject is for: a token behind the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// Messages of a plain topic.
    Plain,
    /// Messages of a durable topic on their way into its stream.
    Durable,
    /// Messages of a durable topic with their places, as its stream says them again.
    Ordered,
    /// What owners of a topic tell each other beside.
    Whisper,
}

impl Use {
    const fn token(self) -> &'static str {
        match self {
            Self::Plain => "t",
            Self::Durable => "d",
            Self::Ordered => "o",
            Self::Whisper => "w",
        }
    }
}

/// Names within one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Those of the cluster with this prefix: tokens of a subject.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// A topic's subject, of 4 times the topic's bytes at most.
    #[must_use]
    pub fn subject(&self, what: Use, topic: &Topic) -> String {
        let mut subject = format!("{}.{}", self.prefix, what.token());
        for level in topic.as_str().split('/') {
            subject.push('.');
            write_token(level, &mut subject);
        }
        subject
    }

    /// The subject on which nodes say that they live.
    #[must_use]
    pub fn nodes(&self) -> String {
        format!("{}.node", self.prefix)
    }

    /// The name of a topic's stream: no two topics have been found that share one (half of SHA-256).
    #[must_use]
    pub fn stream(&self, topic: &Topic) -> String {
        // A stream's name has no dots. What stands before the digest is for people: the digest has the prefix too.
        let mut name = self.prefix.replace('.', "_");
        name.push('_');
        let whole = format!("{} {}", self.prefix, topic.as_str());
        let digest = digest::digest(&digest::SHA256, whole.as_bytes());
        digest.as_ref()[..16].iter().for_each(|byte| write_hex(*byte, &mut name));
        name
    }
}

const fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || !c.is_ascii()
}

fn write_token(level: &str, out: &mut String) {
    if level.is_empty() {
        out.push('=');
    }
    for c in level.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            out.push('=');
            // What is not plain is ASCII.
            write_hex(u8::try_from(c).unwrap_or(0), out);
        }
    }
}

fn write_hex(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use proptest::prelude::*;

    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::parse(name.as_bytes(), Topic::BYTES_MAX).unwrap()
    }

    /// What the tokens of a subject stand for.
    fn read(subject: &str) -> String {
        let levels: Vec<_> = subject.split('.').skip(2).map(read_token).collect();
        levels.join("/")
    }

    fn read_token(token: &str) -> String {
        if token == "=" {
            return String::new();
        }
        let mut parts = token.split('=');
        let mut level = parts.next().unwrap().to_owned();
        for part in parts {
            level.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
            level.push_str(&part[2..]);
        }
        level
    }

    #[test]
    fn a_level_is_a_token() {
        let names = Names::new("holdline");
        for (name, what, subject) in [
            ("room/7", Use::Plain, "holdline.t.room.7"),
            ("a.b/*//", Use::Durable, "holdline.d.a=2Eb.=2A.=.="),
            (">", Use::Ordered, "holdline.o.=3E"),
            ("$JS/=2A", Use::Whisper, "holdline.w.=24JS.=3D2A"),
            ("größe", Use::Plain, "holdline.t.größe"),
        ] {
            assert_eq!(names.subject(what, &topic(name)), subject);
        }
        assert_eq!(names.nodes(), "holdline.node");
    }

    #[test]
    fn a_stream_has_a_name_of_its_own() {
        let names = Names::new("eu.one");
        let (one, other) = (names.stream(&topic("room/7")), names.stream(&topic("room.7")));
        assert!(one.starts_with("eu_one_") && one.len() == "eu_one_".len() + 32, "{one}");
        assert_ne!(one, other);
        assert_eq!(one, Names::new("eu.one").stream(&topic("room/7")));
        assert_ne!(
            one,
            Names::new("eu_one").stream(&topic("room/7")),
            "clusters with prefixes that look alike are two"
        );
    }

    #[test]
    fn a_prefix_has_no_wildcards() {
        assert!(["holdline", "a.b-c_1"].into_iter().all(crate::config::is_prefix));
        assert!(
            ["", "a.", ".a", "a..b", "a.*", ">", "a b", "ü"].into_iter().all(|text| !crate::config::is_prefix(text))
        );
        assert!(!crate::config::is_prefix(&"a".repeat(65)));
    }

    proptest! {
        #[test]
        fn no_two_topics_share_a_subject(name in "[^\\s\\p{Cc}]{1,60}") {
            prop_assume!(name.len() <= Topic::BYTES_MAX);
            let subject = Names::new("p").subject(Use::Plain, &topic(&name));
            prop_assert!(!subject.contains(['*', '>', ' ']) && !subject.contains(".."), "{}", subject);
            prop_assert!(subject.len() <= 4 + 4 * name.len());
            prop_assert_eq!(read(&subject), name);
        }
    }
}
