//! How lists are written, and the addresses and names in them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::problem::{Wrong, quote};
use super::value::{Format, Raw, each_item};
use super::{Listen, Network, Networks, Origins};

/// Listener URLs.
pub(super) struct Listeners;

impl Listeners {
    const MAX: usize = 64;
}

impl Format for Listeners {
    type Value = Vec<Listen>;

    fn read(raw: &Raw<'_>) -> Result<Vec<Listen>, Wrong> {
        let mend = "write a list of URLs, such as [\"http://127.0.0.1:8080\"]";
        let urls = raw.list(mend)?;
        if urls.is_empty() || urls.len() > Self::MAX {
            return Err(Wrong::new(format!("has {} listeners", urls.len()), format!("name 1 to {}", Self::MAX)));
        }
        each_item(urls, |url| {
            Listen::parse(url).map_err(|error| Wrong::new(format!("{}: {}", quote(url), error.what), error.mend))
        })
    }

    fn write(value: &Vec<Listen>) -> String {
        write_list(value)
    }
}

/// An address, or `off`.
pub(super) struct Address;

impl Format for Address {
    type Value = Option<SocketAddr>;

    fn read(raw: &Raw<'_>) -> Result<Option<SocketAddr>, Wrong> {
        let mend = "write HOST:PORT with an IP address, such as 127.0.0.1:9090, or off";
        match raw.text(mend)? {
            "off" => Ok(None),
            text => {
                let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
                let text = text.replace("localhost:", "127.0.0.1:");
                text.parse().map(Some).map_err(|_| Wrong::new(format!("is {}", quote(&text)), mend))
            }
        }
    }

    fn write(value: &Option<SocketAddr>) -> String {
        value.map_or_else(|| "\"off\"".to_owned(), |address| format!("\"{address}\""))
    }
}

/// `same`, `*` and origins.
pub(super) struct OriginList;

impl Format for OriginList {
    type Value = Origins;

    fn read(raw: &Raw<'_>) -> Result<Origins, Wrong> {
        let mend = "write same, *, or origins such as https://app.example";
        let mut origins = Origins { any: false, same: false, list: Vec::new() };
        each_item(raw.list(mend)?, |word| {
            origins.add(word).map_err(|why| Wrong::new(format!("has {}, which {why}", quote(word)), mend))
        })?;
        Ok(origins)
    }

    fn write(value: &Origins) -> String {
        write_list(&value.words())
    }
}

/// Networks.
pub(super) struct NetworkList;

impl Format for NetworkList {
    type Value = Networks;

    fn read(raw: &Raw<'_>) -> Result<Networks, Wrong> {
        const MAX: usize = 1024;
        let mend = "write networks such as [\"10.0.0.0/8\", \"fd00::/8\"], or addresses";
        let words = raw.list(mend)?;
        if words.len() > MAX {
            return Err(Wrong::new(format!("has {} networks", words.len()), format!("name at most {MAX}")));
        }
        let networks = each_item(words, |word| {
            word.parse::<Network>().map_err(|why| Wrong::new(format!("has {}, which {why}", quote(word)), mend))
        });
        networks.map(Networks)
    }

    fn write(value: &Networks) -> String {
        write_list(&value.0)
    }
}

/// WebSocket subprotocols: tokens (RFC 9110 section 5.6.2), each once.
pub(super) struct Subprotocols;

impl Format for Subprotocols {
    type Value = Vec<String>;

    fn read(raw: &Raw<'_>) -> Result<Vec<String>, Wrong> {
        let mend = "write a list of names, such as [\"chat.v2\", \"chat.v1\"], best first";
        let mut known = HashSet::new();
        each_item(raw.list(mend)?, |name| {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                return Err(Wrong::new(format!("has {}, which is no token", quote(name)), mend));
            }
            if !known.insert(name) {
                return Err(Wrong::new(format!("has {} twice", quote(name)), "leave one out"));
            }
            Ok(name.to_owned())
        })
    }

    fn write(value: &Vec<String>) -> String {
        write_list(value)
    }
}

/// Files. Whether they are there is looked at when they are read.
pub(super) struct Files;

impl Files {
    const MAX: usize = 64;
}

impl Format for Files {
    type Value = Vec<PathBuf>;

    fn read(raw: &Raw<'_>) -> Result<Vec<PathBuf>, Wrong> {
        let mend = "write a list of paths, such as [\"/etc/ssl/edge.pem\"]";
        let paths = raw.list(mend)?;
        if paths.len() > Self::MAX {
            return Err(Wrong::new(format!("has {} files", paths.len()), format!("name at most {}", Self::MAX)));
        }
        Ok(paths.into_iter().map(PathBuf::from).collect())
    }

    fn write(value: &Vec<PathBuf>) -> String {
        let paths: Vec<String> = value.iter().map(|path| quote(&path.display().to_string())).collect();
        format!("[{}]", paths.join(", "))
    }
}

/// What is listed here is printable ASCII, so Rust's escapes are TOML's.
fn write_list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("{:?}", item.to_string())).collect();
    format!("[{}]", items.join(", "))
}
