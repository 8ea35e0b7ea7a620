//! Pages beside the routes: what a browser gets that does not ask for a WebSocket.

use std::sync::LazyLock;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::Refusal;
use super::files::Slice;
use super::files::conditions::{self, Validators, Verdict};
use crate::codec::http1::head::Head;
use crate::id::ConnId;
use crate::time::Instant;

/// What matters of a request for a page. Of a field that came several times it has the first.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageRequest<'a> {
    /// The path, percent-decoded.
    pub path: &'a str,
    /// The query as it came, without the question mark.
    pub raw_query: &'a str,
    /// HEAD, not GET.
    pub head_only: bool,
    /// When it is.
    pub now: Instant,
    /// `If-Match`.
    pub if_match: Option<&'a [u8]>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a [u8]>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'a [u8]>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<&'a [u8]>,
    /// `If-Range`.
    pub if_range: Option<&'a [u8]>,
    /// `Range`.
    pub range: Option<&'a [u8]>,
    /// `Accept`.
    pub accept: Option<&'a [u8]>,
    /// `Accept-Encoding`.
    pub accept_encoding: Option<&'a [u8]>,
}

impl<'a> PageRequest<'a> {
    /// A bare GET.
    #[must_use]
    pub fn get(path: &'a str) -> Self {
        Self { path, ..Self::default() }
    }

    /// What a request's head says, in one pass over its fields.
    #[must_use]
    pub fn of(head: &'a Head<'_>, now: Instant) -> Self {
        let (path, raw_query, head_only) = (head.path(), head.raw_query(), head.method() == "HEAD");
        let mut request = Self { path, raw_query, head_only, now, ..Self::default() };
        for (name, value) in head.all_fields() {
            if let Some(place) = request.place(name) {
                place.get_or_insert(value);
            }
        }
        request
    }

    /// Where the value of a field belongs.
    fn place(&mut self, name: &str) -> Option<&mut Option<&'a [u8]>> {
        let (known, place) = match name.len() {
            5 => ("range", &mut self.range),
            6 => ("accept", &mut self.accept),
            8 if name.as_bytes()[3].eq_ignore_ascii_case(&b'm') => ("if-match", &mut self.if_match),
            8 => ("if-range", &mut self.if_range),
            13 => ("if-none-match", &mut self.if_none_match),
            15 => ("accept-encoding", &mut self.accept_encoding),
            17 => ("if-modified-since", &mut self.if_modified_since),
            19 => ("if-unmodified-since", &mut self.if_unmodified_since),
            _ => return None,
        };
        name.eq_ignore_ascii_case(known).then_some(place)
    }
}

/// A page.
#[derive(Clone, Debug)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// Its header fields as they are sent, each line with its CRLF; without those about length and connection.
    pub fields: Bytes,
    /// What it is.
    pub body: Body,
}

/// What a page is.
#[derive(Clone, Debug)]
pub enum Body {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Part of an open file, to be sent in slices.
    File(Slice),
}

impl Body {
    /// Bytes in it.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(slice) => slice.length,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Page {
    /// A page of the server's own, with [`SECURITY_FIELDS`].
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut fields = Fields::default();
        fields.add("Content-Type", content_type);
        SECURITY_FIELDS.iter().for_each(|(name, value)| fields.add(name, value));
        Self { status, fields: fields.into(), body: Body::Bytes(body.into()) }
    }
}

/// Header fields that are put together.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<u8>);

impl Fields {
    /// Adds a field. Control characters in its value are left out, so that it cannot become two.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        self.0.extend(value.bytes().filter(|byte| !byte.is_ascii_control()));
        self.0.extend_from_slice(b"\r\n");
    }

    /// Fields that were put together before.
    #[must_use]
    pub fn from_lines(lines: &[u8]) -> Self {
        Self(lines.to_vec())
    }

    /// Adds fields that were put together before.
    pub fn add_lines(&mut self, lines: &[u8]) {
        self.0.extend_from_slice(lines);
    }
}

impl From<Fields> for Bytes {
    fn from(fields: Fields) -> Self {
        Self::from(fields.0)
    }
}

/// Where pages come from. It is called on a shard's thread and must not block.
pub trait Site: Send + Sync {
    /// The page that answers a request.
    fn get(&self, request: &PageRequest<'_>) -> Option<Page>;

    /// The methods of a path whose requests are taken by [`Site::ask`], as `Allow` has them; `None` for all that is a page.
    fn methods(&self, path: &str) -> Option<&'static str> {
        let _ = path;
        None
    }

    /// Whether what was sent to this host may have a route's stream or a page of the API, where everything is for operators.
    ///
    /// # Errors
    /// A [`Refusal`] is the answer.
    fn lets_in(&self, host: &[u8]) -> Result<(), Refusal> {
        let _ = host;
        Ok(())
    }

    /// Bytes of user memory that it keeps pages in.
    fn memory(&self) -> usize {
        0
    }

    /// Takes a request whose answer comes later, from elsewhere.
    ///
    /// # Errors
    /// A [`Refusal`] is the answer at once.
    fn ask(&self, ask: Ask) -> Result<(), Refusal> {
        let _ = ask;
        Err(Refusal { status: 404, code: "not_found", message: "there is nothing at this path".to_owned() })
    }
}

/// A request that is answered later: what of it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// The connection, or stream, that waits.
    pub asker: ConnId,
    /// The method.
    pub method: Box<str>,
    /// The path, percent-decoded.
    pub path: Box<str>,
    /// The query as it came, without the question mark.
    pub query: Box<str>,
    /// The host that it was sent to.
    pub host: Box<[u8]>,
    /// `Content-Type`.
    pub content_type: Option<Box<[u8]>>,
    /// Whether it has the field [`Ask::MARK`], which no form of another site's page can send.
    pub is_marked: bool,
    /// `Authorization`.
    pub authorization: Option<Box<[u8]>>,
    /// Who asks, by the name of the key or the token that was shown.
    pub user: Option<Box<str>>,
    /// The body.
    pub body: Vec<u8>,
}

impl Ask {
    /// The field that says that a request is meant.
    pub const MARK: &str = "x-holdline";

    /// What a request's head says.
    #[must_use]
    pub fn of(head: &Head<'_>, asker: ConnId, body: &[u8]) -> Self {
        Self {
            asker,
            method: head.method().into(),
            path: head.path().into(),
            query: head.raw_query().into(),
            host: head.host().into(),
            content_type: head.field("content-type").map(Into::into),
            is_marked: head.field(Self::MARK).is_some(),
            authorization: head.field("authorization").map(Into::into),
            user: None,
            body: body.to_vec(),
        }
    }
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

/// A file of the demo page with its entity tag.
struct DemoFile {
    paths: &'static [&'static str],
    content_type: &'static str,
    body: &'static [u8],
    etag: String,
}

static DEMO: LazyLock<[DemoFile; 3]> = LazyLock::new(|| {
    let file = |paths, content_type, body: &'static [u8]| {
        let digest: String = Sha1::digest(body).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        DemoFile { paths, content_type, body, etag: format!("\"{digest}\"") }
    };
    [
        file(&["/", "/index.html"], "text/html; charset=utf-8", include_bytes!("demo.html")),
        file(&["/demo.css"], "text/css; charset=utf-8", include_bytes!("demo.css")),
        file(&["/demo.js"], "text/javascript; charset=utf-8", include_bytes!("demo.js")),
    ]
});

impl Site for DemoSite {
    fn get(&self, request: &PageRequest<'_>) -> Option<Page> {
        let file = DEMO.iter().find(|file| file.paths.contains(&request.path))?;
        let (status, body) = match conditions::judge(request, Validators { etag: file.etag.as_bytes(), modified: None })
        {
            Verdict::Go => (200, file.body),
            Verdict::NotModified => (304, &[][..]),
            Verdict::Failed => (412, &[][..]),
        };
        let mut page = Page::new(status, file.content_type, body);
        let mut fields = Fields(page.fields.into());
        fields.add("ETag", &file.etag);
        page.fields = fields.into();
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Limits;

    #[test]
    fn of_each_field_a_request_has_the_first() {
        let fields = [
            ("range", "1"),
            ("If-Match", "2"),
            ("If-Range", "3"),
            ("IF-NONE-MATCH", "4"),
            ("Accept-Encoding", "5"),
            ("If-Modified-Since", "6"),
            ("If-Unmodified-Since", "7"),
        ];
        let lines = |tail: &str| fields.map(|(name, value)| format!("{name}: {value}{tail}\r\n")).concat();
        let others = "Ranga: x\r\nIf-Mutch: x\r\nX-Fields-Here: x\r\nAccept-Language: x\r\n";
        let text = format!("HEAD /a?b HTTP/1.1\r\nHost: h\r\n{others}{}{}\r\n", lines(""), lines("0"));
        let now = Instant::from_millis(9);
        Head::parse(text.as_bytes(), 0, &Limits::default(), |head| {
            let request = PageRequest::of(head, now);
            assert_eq!((request.path, request.raw_query, request.head_only, request.now), ("/a", "b", true, now));
            let conditions = [request.range, request.if_match, request.if_range, request.if_none_match];
            let rest = [request.accept_encoding, request.if_modified_since, request.if_unmodified_since];
            let values = conditions.into_iter().chain(rest).map(|value| str::from_utf8(value.unwrap()).unwrap());
            assert!(values.eq(fields.map(|(_, value)| value)));
        })
        .unwrap();
    }

    #[test]
    fn the_page_finds_all_that_it_names_and_nothing_is_inline() {
        let get = |path| DemoSite.get(&PageRequest::get(path));
        let Body::Bytes(body) = get("/").unwrap().body else { panic!("it is in memory") };
        let html = str::from_utf8(&body).unwrap();
        for path in html.split(['"', '\'']).filter(|word| word.starts_with("/demo")) {
            assert!(get(path).is_some(), "{path}");
        }
        assert!(html.contains("/demo.js") && html.contains("/demo.css"));
        assert!(!html.contains("<style") && !html.contains("style=") && !html.contains("onclick"));
        assert!(!html.contains("src=\"http") && !html.contains("href=\"http"));
        assert!(get("/demo").is_none() && get("//").is_none());
    }

    #[test]
    fn who_has_the_page_is_not_sent_it_again() {
        let page = DemoSite.get(&PageRequest::get("/demo.css")).unwrap();
        let fields = String::from_utf8(page.fields.to_vec()).unwrap();
        let etag = fields.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
        let again = PageRequest { if_none_match: Some(etag.as_bytes()), ..PageRequest::get("/demo.css") };
        let page = DemoSite.get(&again).unwrap();
        assert!(page.status == 304 && page.body.is_empty());
        assert_eq!(DemoSite.get(&PageRequest { path: "/", ..again }).unwrap().status, 200);
    }
}
