//! Pages beside the routes: what a browser gets that does not ask for a WebSocket.

use std::borrow::Cow;

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// MIME type.
    pub content_type: &'static str,
    /// What it is.
    pub body: Cow<'static, [u8]>,
}

/// Where pages come from. It is called on a shard's thread and must not block.
pub trait Site: Send + Sync {
    /// The page at a path, percent-decoded.
    fn page(&self, path: &str) -> Option<Page>;
}

/// Header fields for every page: no scripts or styles but our own, no framing, no guessing of types.
///
/// `connect-src 'self'` takes the WebSocket of the same host with it (CSP level 3).
pub const SECURITY_FIELDS: &[(&str, &str)] = &[
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
];

/// The built-in page, a chat room: it shows that the server works, to people.
#[derive(Clone, Copy, Debug, Default)]
pub struct DemoSite;

impl Site for DemoSite {
    fn page(&self, path: &str) -> Option<Page> {
        let (content_type, body): (_, &'static [u8]) = match path {
            "/" | "/index.html" => ("text/html; charset=utf-8", include_bytes!("demo.html")),
            "/demo.css" => ("text/css; charset=utf-8", include_bytes!("demo.css")),
            "/demo.js" => ("text/javascript; charset=utf-8", include_bytes!("demo.js")),
            _ => return None,
        };
        Some(Page { status: 200, content_type, body: Cow::Borrowed(body) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_page_finds_all_that_it_names_and_nothing_is_inline() {
        let page = DemoSite.page("/").unwrap();
        let html = str::from_utf8(&page.body).unwrap();
        for path in html.split(['"', '\'']).filter(|word| word.starts_with("/demo")) {
            assert!(DemoSite.page(path).is_some(), "{path}");
        }
        assert!(html.contains("/demo.js") && html.contains("/demo.css"));
        assert!(!html.contains("<style") && !html.contains("style=") && !html.contains("onclick"));
        assert!(!html.contains("src=\"http") && !html.contains("href=\"http"));
        assert!(DemoSite.page("/demo").is_none() && DemoSite.page("//").is_none());
    }
}
