//! Where a collector of traces takes what is sent to it.

use std::fmt;
use std::str::FromStr;

use super::authority::host_and_port;
use super::problem::{Wrong, quote};
use super::value::{Format, Raw};

/// A URL of plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `HOST:PORT`.
    pub authority: String,
    /// The path, without a slash at its end.
    pub path: String,
}

impl Endpoint {
    /// Of OTLP over HTTP.
    const PORT: u16 = 4318;
    const BYTES_MAX: usize = 1024;
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix("http://").ok_or("does not begin with http://")?;
        if text.len() > Self::BYTES_MAX || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("is too long, or not plain text");
        }
        if rest.contains(['?', '#', '@']) {
            return Err("has more than a host, a port and a path");
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (_, port) = host_and_port(authority)?;
        let port = port.map_or_else(|| format!(":{}", Self::PORT), |_| String::new());
        Ok(Self { authority: format!("{authority}{port}"), path: path.trim_end_matches('/').to_owned() })
    }
}

/// How it is written; empty for none.
pub(super) struct Collector;

impl Format for Collector {
    type Value = Option<Endpoint>;

    fn read(raw: &Raw<'_>) -> Result<Option<Endpoint>, Wrong> {
        let mend = "write http://HOST:4318, where a collector takes OTLP over HTTP as JSON";
        let text = raw.text(mend)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|what| Wrong::new(format!("is {}, which {what}", shown(text)), mend))
    }

    fn write(value: &Option<Endpoint>) -> String {
        quote(&value.as_ref().map_or_else(String::new, ToString::to_string))
    }
}

/// How one that is none is told: without what may be a password.
fn shown(text: &str) -> String {
    text.rsplit_once('@').map_or_else(|| quote(text), |(_, host)| quote(&format!("(not shown)@{host}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_password_is_not_told() {
        for text in ["http://user:hushhush@a:1/", "user:hushhush@a", "https://hush@hush@a/x"] {
            let wrong = Collector::read(&Raw::Text(text)).unwrap_err();
            assert!(!wrong.what.contains("hush") && wrong.what.contains("(not shown)@a"), "{}", wrong.what);
        }
    }

    #[test]
    fn endpoints() {
        for (text, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("http://collector", "http://collector:4318"),
            ("http://[::1]", "http://[::1]:4318"),
            ("http://[::1]:9/base/", "http://[::1]:9/base"),
        ] {
            assert_eq!(text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()), Ok(expected.to_owned()));
        }
        for bad in
            ["https://a", "a:4318", "http://", "http://:1", "http://a:0", "http://a:x", "http://u@a", "http://a b"]
        {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
