//! What can be said of a cluster: which NATS, who this node is there.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::authority::host_and_port;
use super::problem::{Wrong, quote};
use super::value::{Format, Raw, each_item};

named! {
    /// Where NATS keeps durable topics.
    Storage {
        /// In files.
        #[default]
        File = "file",
        /// In memory: they end with it.
        Memory = "memory",
    }
}

/// A node of a cluster, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Where NATS is; without any there is no cluster.
    pub nats: Vec<NatsUrl>,
    /// A file with a JWT and a seed, or none.
    pub credentials: Option<PathBuf>,
    /// Certificates of authorities beside the system's, or none.
    pub ca_file: Option<PathBuf>,
    /// What this node is called; empty: as its host.
    pub name: String,
    /// The beginning of all subjects and streams.
    pub prefix: String,
    /// Servers of NATS that keep each durable topic, where NATS is a cluster itself.
    pub replicas: u8,
    /// Where they keep it.
    pub storage: Storage,
    /// How long a node that is not heard of is there still.
    pub lease: Duration,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            nats: Vec::new(),
            credentials: None,
            ca_file: None,
            name: String::new(),
            prefix: "holdline".to_owned(),
            replicas: 1,
            storage: Storage::File,
            lease: Duration::from_secs(10),
        }
    }
}

impl Cluster {
    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.nats.is_empty()
    }
}

/// `nats://HOST:PORT` or `tls://HOST:PORT`, with `USER:PASSWORD@` or `TOKEN@` before the host. It is shown without them.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl(String);

impl NatsUrl {
    /// # Errors
    /// What it is not.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const SCHEME: &str = "begins with neither nats:// nor tls://";
        let (scheme, rest) = text.split_once("://").ok_or(SCHEME)?;
        if !matches!(scheme, "nats" | "tls") {
            return Err(SCHEME);
        }
        let (login, authority) = rest.rsplit_once('@').unwrap_or(("", rest));
        // The host would end there: RFC 3986 section 3.2.
        if login.contains(['/', '?', '#']) || login.contains(char::is_whitespace) {
            return Err("has a character before the @ that must be percent-encoded");
        }
        host_and_port(authority)?;
        Ok(Self(text.to_owned()))
    }

    /// With its secrets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who a node is for NATS, as a URL says it.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// `USER:PASSWORD@`
    Password(String, String),
    /// `TOKEN@`
    Token(String),
}

impl NatsUrl {
    /// Who it says that this node is.
    #[must_use]
    pub fn login(&self) -> Option<Login> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (login, _) = self.0.split_once("://").map_or(&*self.0, |(_, rest)| rest).rsplit_once('@')?;
        Some(match login.split_once(':') {
            Some((user, password)) => Login::Password(decoded(user), decoded(password)),
            None => Login::Token(decoded(login)),
        })
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("nats", &self.0));
        match rest.rsplit_once('@') {
            Some((_, host)) => write!(f, "{scheme}://(not shown)@{host}"),
            None => write!(f, "{scheme}://{rest}"),
        }
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A list of them.
pub(super) struct NatsUrls;

impl Format for NatsUrls {
    type Value = Vec<NatsUrl>;

    fn read(raw: &Raw<'_>) -> Result<Vec<NatsUrl>, Wrong> {
        let mend = "write where NATS is, such as nats://127.0.0.1:4222, or several servers of it";
        // It is not quoted: it may have a password.
        let urls = each_item(raw.list(mend)?, |text| NatsUrl::parse(text).map_err(|what| Wrong::new(what, mend)))?;
        // NATS is one, however many servers it has.
        match urls.iter().position(|url| url.login() != urls[0].login()) {
            Some(index) => {
                Err(Wrong::new("has another user or token than the first", "name the same one in each").of_item(index))
            }
            None => Ok(urls),
        }
    }

    fn write(value: &Vec<NatsUrl>) -> String {
        let urls: Vec<_> = value.iter().map(|url| quote(&url.to_string())).collect();
        format!("[{}]", urls.join(", "))
    }
}

/// Whether a text can be what all subjects of a cluster begin with: tokens of letters, digits, `-` and `_`.
#[must_use]
pub fn is_prefix(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_plain);
    text.len() <= 64 && text.split('.').all(is_token)
}

/// A word that subjects begin with.
pub(super) struct Prefix;

impl Format for Prefix {
    type Value = String;

    fn read(raw: &Raw<'_>) -> Result<String, Wrong> {
        let mend = "write letters, digits, - and _, with dots between, 64 bytes at most";
        let text = raw.text(mend)?;
        if is_prefix(text) { Ok(text.to_owned()) } else { Err(Wrong::new(format!("is {}", quote(text)), mend)) }
    }

    fn write(value: &String) -> String {
        quote(value)
    }
}

/// A node's name, or none.
pub(super) struct NodeName;

impl Format for NodeName {
    type Value = String;

    fn read(raw: &Raw<'_>) -> Result<String, Wrong> {
        let mend = "write 64 printable characters at most, without spaces";
        let text = raw.text(mend)?;
        if text.len() <= 64 && text.chars().all(|c| !c.is_control() && !c.is_whitespace()) {
            Ok(text.to_owned())
        } else {
            Err(Wrong::new(format!("is {}", quote(text)), mend))
        }
    }

    fn write(value: &String) -> String {
        quote(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::config::{Config, Loader, effective};

    fn load(text: &str) -> Result<Config, String> {
        let mut loader = Loader::new();
        loader.text("c.toml".as_ref(), text);
        loader.finish().map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn a_cluster_is_shown_without_its_secrets() {
        let config = load(
            "[cluster]\nnats = [\"nats://ann:pass@127.0.0.1:4222\", \"tls://ann:pass@[::1]:4222\"]\nprefix = \"a.b\"\n",
        )
        .unwrap();
        assert!(config.cluster.is_set());
        let shown: Vec<_> = effective(&config).filter(|(key, _)| key.starts_with("cluster.")).collect();
        let all = format!("{shown:?} {:?}", config.cluster);
        assert!(
            all.contains("nats://(not shown)@127.0.0.1:4222") && all.contains("tls://(not shown)@[::1]:4222"),
            "{all}"
        );
        assert!(!all.contains("pass@") && !all.contains("ann"), "{all}");
    }

    #[test]
    fn a_url_says_who_a_node_is() {
        let login = |url: &str| NatsUrl(url.to_owned()).login();
        assert!(login("nats://h:4222").is_none());
        assert!(login("nats://to%40ken@h") == Some(Login::Token("to@ken".to_owned())));
        assert!(login("tls://ann:p%3Aq@h:1") == Some(Login::Password("ann".to_owned(), "p:q".to_owned())));
    }

    #[test]
    fn what_is_a_url_here_is_one_for_who_connects() {
        for url in [
            "nats://h",
            "nats://127.0.0.1:4222",
            "tls://[2001:db8::1]:1",
            "nats://[::1]",
            "nats://a_b-c.example:65535",
            "nats://ann:p%2Fq:r@h:1",
            "nats://to@ken@h",
            "tls://1.2.3.4.5:1",
            "nats://a..b:1",
        ] {
            let parsed = NatsUrl::parse(url).unwrap();
            assert!(parsed.as_str().parse::<async_nats::ServerAddr>().is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (line, said) in [
            ("nats = \"http://x\"", "cluster.nats begins with neither nats:// nor tls://"),
            (
                "nats = \"nats://\"",
                "cluster.nats has no host, or a port that is none, c.toml line 2: write where NATS is",
            ),
            ("nats = \"nats://:4222\"", "cluster.nats has no host"),
            ("nats = \"nats://h:0\"", "cluster.nats has no host, or a port that is none, c.toml line 2"),
            ("nats = \"nats://h:99999\"", "cluster.nats has no host, or a port that is none"),
            ("nats = \"nats://h:\"", "cluster.nats has no host, or a port that is none"),
            ("nats = \"nats://[::1:4222\"", "cluster.nats has no host"),
            ("nats = \"nats://h:1/x\"", "cluster.nats has no host, or a port that is none"),
            ("nats = \"nats://ann:a/b@h\"", "cluster.nats has a character before the @ that must be percent-encoded"),
            (
                "nats = [\"nats://h:1\",\n\"nats://h:0\"]",
                "cluster.nats has no host, or a port that is none, c.toml line 3",
            ),
            ("nats = [\"nats://a@b\", \"nats://c\"]", "cluster.nats has another user or token than the first"),
            ("nats = \"nats://a b\"", "cluster.nats has no host"),
            ("prefix = \"a..b\"", "cluster.prefix is \"a..b\""),
            ("name = \"a b\"", "cluster.name is \"a b\""),
            ("lease = \"1ms\"", "cluster.lease is"),
        ] {
            let text = load(&format!("[cluster]\n{line}\n")).unwrap_err();
            assert!(text.starts_with(said), "{text}");
        }
    }
}
