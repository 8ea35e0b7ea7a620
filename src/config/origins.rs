//! Which web pages may open a WebSocket here (RFC 6455 section 10.2, CWE-1385).

/// An allow list of origins. A browser sends its user's cookies along with every page's handshake and says in `Origin`
/// which page it was (cross-site WebSocket hijacking). A client that sends none is no browser, and is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    /// Pages of any origin.
    pub any: bool,
    /// Pages that came from the host and port that the request names.
    pub same: bool,
    /// Pages of these origins, `scheme://host[:port]` in lower case. A host that begins with `*.` stands for all names below
    /// the rest, at any depth, and not for the rest itself.
    pub list: Vec<String>,
}

impl Default for Origins {
    fn default() -> Self {
        Self { any: false, same: true, list: Vec::new() }
    }
}

impl Origins {
    /// Reads one word of the list.
    pub(super) fn add(&mut self, word: &str) -> Result<(), &'static str> {
        match word {
            "*" => self.any = true,
            "same" => self.same = true,
            _ => self.list.push(checked(word)?),
        }
        Ok(())
    }

    /// Whether the list has this origin, as a browser says it.
    #[must_use]
    pub fn lists(&self, origin: &[u8]) -> bool {
        self.list.iter().any(|listed| match listed.split_once("*.") {
            None => listed.as_bytes().eq_ignore_ascii_case(origin),
            Some((scheme, rest)) => is_below(scheme.as_bytes(), rest.as_bytes(), origin),
        })
    }

    /// The words that make this list.
    pub(super) fn words(&self) -> Vec<String> {
        let any = self.any.then(|| "*".to_owned());
        let same = self.same.then(|| "same".to_owned());
        any.into_iter().chain(same).chain(self.list.iter().cloned()).collect()
    }
}

/// Whether an origin is `scheme`, some labels, a dot, `rest`.
fn is_below(scheme: &[u8], rest: &[u8], origin: &[u8]) -> bool {
    let Some(labels) = origin.len().checked_sub(rest.len() + 1).and_then(|end| origin.get(scheme.len()..end)) else {
        return false;
    };
    let label = |label: &[u8]| {
        !label.is_empty() && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    origin[..scheme.len()].eq_ignore_ascii_case(scheme)
        && origin[scheme.len() + labels.len()] == b'.'
        && origin[origin.len() - rest.len()..].eq_ignore_ascii_case(rest)
        && labels.split(|byte| *byte == b'.').all(label)
}

/// An origin as browsers write it: in lower case, without its scheme's own port.
fn checked(origin: &str) -> Result<String, &'static str> {
    if origin.eq_ignore_ascii_case("null") {
        return Err("is what pages without an origin of their own say, anyone's among them");
    }
    let origin = origin.to_ascii_lowercase();
    let (scheme, authority) = origin.split_once("://").ok_or("has no scheme")?;
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return Err("is neither http nor https"),
    };
    // A star for all of a top-level domain would be everybody.
    let host = match authority.strip_prefix("*.") {
        Some(rest) if !rest.contains('.') || rest.starts_with('.') => {
            return Err("has a star that stands for more than the names below a domain, as in https://*.app.example");
        }
        Some(rest) => rest,
        None => authority,
    };
    if authority.is_empty() || host.contains(['/', '?', '#', '@', ' ', '*']) || !authority.is_ascii() {
        return Err("is more or less than a scheme, a host and a port");
    }
    Ok(origin.strip_suffix(port).unwrap_or(&origin).to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_list_names_whole_origins_as_browsers_write_them() {
        let mut origins = Origins { same: false, ..Origins::default() };
        for (word, listed) in [
            ("https://App.example", "https://app.example"),
            ("HTTPS://app.example:443", "https://app.example"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://app.example:443", "http://app.example:443"),
            ("https://*.App.example:443", "https://*.app.example"),
            ("https://*.app.example:8443", "https://*.app.example:8443"),
        ] {
            assert_eq!(origins.add(word), Ok(()));
            assert_eq!(origins.list.pop().as_deref(), Some(listed));
        }
        for word in ["app.example", "https://app.example/path", "null", "file://", "http://", "https://*.example"] {
            assert!(origins.add(word).is_err(), "{word}");
        }
        for word in
            ["https://*", "https://*.", "https://*..example", "https://a.*.app.example", "https://*app.example.org"]
        {
            assert!(origins.add(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_star_stands_for_the_names_below_a_domain() {
        let mut origins = Origins { same: false, ..Origins::default() };
        origins.add("https://*.app.example").unwrap();
        origins.add("http://*.dev.example:3000").unwrap();
        for origin in ["https://a.app.example", "HTTPS://A.b-1.App.Example", "http://x.dev.example:3000"] {
            assert!(origins.lists(origin.as_bytes()), "{origin}");
        }
        for origin in [
            "https://app.example",
            "https://.app.example",
            "https://a..app.example",
            "https://evilapp.example",
            "http://a.app.example",
            "https://a.app.example:8443",
            "https://a.app.example.evil",
            "https://evil.example/.app.example",
            "https://evil.example#.app.example",
            "https://user@a.app.example",
            "http://x.dev.example",
            "https://*.app.example",
            "",
            "null",
        ] {
            assert!(!origins.lists(origin.as_bytes()), "{origin}");
        }
    }
}
