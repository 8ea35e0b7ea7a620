//! Who may use the API: nobody on behalf of somebody else's browser.

use std::net::IpAddr;

use super::refusal;
use crate::app::Refusal;
use crate::app::site::Ask;

/// What every request is checked for before it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    /// The listener is reached from this machine alone, so it has no names but this machine's own.
    pub(super) is_local: bool,
}

impl Guard {
    /// Lets a request in.
    ///
    /// A page of another site that runs in an operator's browser can send requests here. One that says where it comes from
    /// was refused before. What changes something must be JSON or have a field of ours, which a form cannot send. And the
    /// host must be one: whoever makes his own name lead to this machine is of the same origin (DNS rebinding).
    ///
    /// # Errors
    /// When it must not be let in.
    pub(super) fn admit(self, ask: &Ask) -> Result<(), Refusal> {
        self.lets_in(&ask.host)?;
        // Reading the configuration again does what an operator has written, whoever asks for it.
        let changes = !matches!(&*ask.method, "GET" | "HEAD") && *ask.path != *super::RELOAD;
        let is_json = ask.content_type.as_deref().is_some_and(is_json);
        if changes && !is_json && !ask.is_marked {
            let message = "send it with Content-Type: application/json, or with a field X-Holdline: 1";
            return Err(refusal(415, "unsupported_media_type", message));
        }
        Ok(())
    }

    /// Lets in what was sent to this host: whatever somebody watches live is read as well by a page of the same origin.
    ///
    /// # Errors
    /// When it must not be let in.
    pub(super) fn lets_in(self, host: &[u8]) -> Result<(), Refusal> {
        if self.is_local && !is_local_host(host) {
            let message = "this listener is local: ask it as localhost, or by its address";
            return Err(refusal(403, "host", message));
        }
        Ok(())
    }
}

fn is_json(content_type: &[u8]) -> bool {
    let media = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    media.eq_ignore_ascii_case(b"application/json")
}

/// Whether a `Host` is an address, or this machine's name for itself: neither can be made to lead here by others.
fn is_local_host(host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let name = name.to_ascii_lowercase();
    bare.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_cannot_be_taken_are_local() {
        for host in ["127.0.0.1:9090", "[::1]:9090", "[::1]", "localhost", "LOCALHOST:80", "a.localhost:1", "10.0.0.1"]
        {
            assert!(is_local_host(host.as_bytes()), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:9090", "127.0.0.1.evil.example", "", ":80", "\u{fc}"] {
            assert!(!is_local_host(host.as_bytes()), "{host}");
        }
        assert!(!is_local_host(b"\xff"));
    }

    #[test]
    fn what_a_form_can_send_changes_nothing() {
        let guard = Guard { is_local: true };
        let ask = |method: &str, content_type: Option<&str>, is_marked| Ask {
            method: method.into(),
            host: (*b"localhost:9090").into(),
            content_type: content_type.map(|value| value.as_bytes().into()),
            is_marked,
            ..Ask::default()
        };
        let code = |ask: &Ask| guard.admit(ask).map_err(|refusal| refusal.code);
        assert_eq!(code(&ask("GET", None, false)), Ok(()));
        assert_eq!(code(&ask("POST", None, false)), Err("unsupported_media_type"));
        assert_eq!(code(&ask("POST", Some("text/plain"), false)), Err("unsupported_media_type"));
        assert_eq!(code(&ask("DELETE", None, false)), Err("unsupported_media_type"));
        assert_eq!(code(&ask("DELETE", None, true)), Ok(()));
        assert_eq!(code(&ask("POST", Some("application/json; charset=utf-8"), false)), Ok(()));
        let foreign = Ask { host: (*b"evil.example").into(), ..ask("GET", None, false) };
        assert_eq!(code(&foreign), Err("host"));
        assert_eq!(Guard { is_local: false }.admit(&foreign), Ok(()));
        let watches = |is_local| Guard { is_local }.lets_in(b"evil.example:9090").is_ok();
        assert_eq!((watches(true), watches(false), guard.lets_in(b"[::1]:9090")), (false, true, Ok(())));
    }
}
