//! Which paths of requests can be names of files at all.

/// The directory for what other standards put on a server (RFC 8615), the only one with a dot that is served.
const WELL_KNOWN: &str = ".well-known";

/// A path below the root, without the slash at its start; a directory's ends in a slash or is empty. `None` for what
/// names no file that is served: dot files, dot-dot, empty segments, backslashes and control characters.
///
/// The path has no percent encodings any more: what was `%2e%2e` is judged as `..`.
pub(super) fn relative(path: &str) -> Option<&str> {
    let inside = path.strip_prefix('/')?;
    if inside.bytes().any(|byte| byte == b'\\' || byte.is_ascii_control()) {
        return None;
    }
    let names = inside.strip_suffix('/').unwrap_or(inside);
    if names.is_empty() {
        return inside.is_empty().then_some(inside);
    }
    let fits =
        |(place, name): (usize, &str)| !name.is_empty() && (!name.starts_with('.') || place == 0 && name == WELL_KNOWN);
    names.split('/').enumerate().all(fits).then_some(inside)
}

/// A path as it stands in a URL.
pub(super) fn encode(path: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(path.len() + 8);
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_the_root_pass() {
        for path in ["/", "/a", "/a/b.txt", "/a/b/", "/a b/ü", "/.well-known/acme/token", "/a..b", "/a./b"] {
            assert_eq!(relative(path), path.strip_prefix('/'), "{path}");
        }
    }

    #[test]
    fn what_leads_elsewhere_or_is_hidden_does_not() {
        for path in [
            "",
            "a",
            "*",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/..",
            "/../a",
            "/a/..",
            "/a/../b",
            "/.",
            "/a/./b",
            "/.git/config",
            "/.env",
            "/a/.env",
            "/a/.well-known/b",
            "/.well-known2",
            "/.well-known/.env",
            "/a\\..\\b",
            "/\\",
            "/a\0",
            "/a\n",
        ] {
            assert_eq!(relative(path), None, "{path:?}");
        }
    }

    #[test]
    fn a_path_in_a_url_has_nothing_that_ends_it() {
        assert_eq!(encode("/a b/ü?#%\""), "/a%20b/%C3%BC%3F%23%25%22");
    }
}
