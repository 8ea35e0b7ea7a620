//! Which web pages may open a WebSocket here (RFC 6455 section 10.2, CWE-1385).

/// An allow list of origins. A browser sends its user's cookies along with every page's handshake and says in `Origin`
/// which page it was (cross-site WebSocket hijacking). A client that sends none is no browser, and is not asked.
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
    if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ', '*']) || !authority.is_ascii() {
        return Err("is more or less than a scheme, a host and a port");
    }
    Ok(origin.strip_suffix(port).unwrap_or(&origin).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_whole_origins_as_browsers_write_them() {
        let mut origins = Origins { same: false, ..Origins::default() };
        for (word, listed) in [
            ("https://App.example", "https://app.example"),
            ("HTTPS://app.example:443", "https://app.example"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://app.example:443", "http://app.example:443"),
        ] {
            assert_eq!(origins.add(word), Ok(()));
            assert_eq!(origins.list.pop().as_deref(), Some(listed));
        }
        for word in ["app.example", "https://app.example/path", "null", "file://", "http://", "https://*.example"] {
            assert!(origins.add(word).is_err(), "{word}");
        }
    }
}
