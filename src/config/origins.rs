//! Which web pages may open a WebSocket here (RFC 6455 section 10.2, CWE-1385).

/// An allow list of origins. A client that sends no `Origin` is no browser, and is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    /// Pages of any origin.
    pub any: bool,
    /// Pages that came from the host and port that the request names.
    pub same: bool,
    /// Pages of these origins, `scheme://host[:port]` in lower case.
    pub list: Vec<String>,
}

impl Default for Origins {
    fn default() -> Self {
        Self { any: false, same: true, list: Vec::new() }
    }
}

impl Origins {
    /// Whether a request with these header fields may go on. Allocates nothing.
    #[must_use]
    pub fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        self.any
            || self.same && host.is_some_and(|host| same(origin, host))
            || self.list.iter().any(|listed| listed.eq_ignore_ascii_case(origin))
    }

    /// Reads one word of the list.
    pub(super) fn add(&mut self, word: &str) -> Result<(), &'static str> {
        match word {
            "*" => self.any = true,
            "same" => self.same = true,
            _ => self.list.push(checked(word)?),
        }
        Ok(())
    }

    /// The words that make this list.
    pub(super) fn words(&self) -> Vec<String> {
        let any = self.any.then(|| "*".to_owned());
        let same = self.same.then(|| "same".to_owned());
        any.into_iter().chain(same).chain(self.list.iter().cloned()).collect()
    }
}

/// Whether an origin is that of the host. A proxy in front may have taken TLS off, so the scheme does not count, but
/// its default port does.
fn same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default = if scheme.eq_ignore_ascii_case("https") {
        ":443"
    } else if scheme.eq_ignore_ascii_case("http") {
        ":80"
    } else {
        return false;
    };
    let bare = |name: &'_ str| -> usize { name.len() - if name.ends_with(default) { default.len() } else { 0 } };
    !host.is_empty() && authority[..bare(authority)].eq_ignore_ascii_case(&host[..bare(host)])
}

fn checked(origin: &str) -> Result<String, &'static str> {
    let (scheme, authority) = origin.split_once("://").ok_or("has no scheme")?;
    if !matches!(scheme, "http" | "https") {
        return Err("is neither http nor https");
    }
    if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ', '*']) || !authority.is_ascii() {
        return Err("is more or less than a scheme, a host and a port");
    }
    Ok(origin.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_same_host_come_in_and_others_do_not() {
        let origins = Origins::default();
        for (origin, host, allowed) in [
            (None, Some("a.example"), true),
            (Some("http://a.example"), Some("a.example"), true),
            (Some("http://A.example"), Some("a.example:80"), true),
            (Some("https://a.example:443"), Some("a.example"), true),
            (Some("http://a.example:8080"), Some("a.example:8080"), true),
            (Some("http://a.example"), Some("a.example:8080"), false),
            (Some("http://a.example.evil"), Some("a.example"), false),
            (Some("http://evil"), Some("a.example"), false),
            (Some("null"), Some("a.example"), false),
            (Some("http://"), Some(""), false),
            (Some("http://a.example"), None, false),
            (Some("file://a.example"), Some("a.example"), false),
        ] {
            assert_eq!(origins.allow(origin, host), allowed, "{origin:?} {host:?}");
        }
    }

    #[test]
    fn a_list_names_whole_origins() {
        let mut origins = Origins { same: false, ..Origins::default() };
        assert_eq!(origins.add("https://App.example"), Ok(()));
        assert!(origins.add("app.example").is_err());
        assert!(origins.add("https://app.example/path").is_err());
        assert!(origins.allow(Some("https://app.example"), Some("other")));
        assert!(!origins.allow(Some("http://app.example"), Some("app.example")));
        assert_eq!(origins.words(), ["https://app.example"]);
    }
}
