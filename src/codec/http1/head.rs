//! A request's head, read strictly: wherever two readers could take the same bytes for two different requests
//! (RFC 9112 section 11.2, request smuggling), the head is refused instead of interpreted.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::date::Date;
use super::response::{Reply, Version};
use super::uri::{self, Query};
use crate::config::Limits;
use crate::rule::Rule;

/// Fields that a head can have at most, whatever the limits say: their index lies on the stack, 32 bytes each.
pub const FIELDS_MAX: usize = 128;

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first byte begins no method: another protocol, TLS for one.
    #[error("this is not an HTTP/1.1 request")]
    NotHttp,
    /// A line that does not end in CR LF.
    #[error("a line of the request's head ends in LF without CR")]
    BareLineFeed,
    /// Over the limit.
    #[error("the request's head has more than {0} bytes")]
    TooLarge(usize),
    /// Over the limit.
    #[error("the request's target has more than {0} bytes")]
    TargetTooLong(usize),
    /// Over the limit.
    #[error("the request's head has more than {0} fields")]
    TooManyFields(usize),
    /// Not `METHOD target HTTP/1.1`.
    #[error("the request line is malformed")]
    RequestLine,
    /// A version that exists and is not spoken here.
    #[error("this HTTP version is not supported; use HTTP/1.1")]
    Version,
    /// Neither a path nor a URL of http.
    #[error("the request's target is neither a path nor an http URL")]
    Target,
    /// A path or query with a broken percent encoding, not UTF-8, or with control characters.
    #[error("the request's target is not well-encoded UTF-8")]
    Encoding,
    /// Something that is no token before the colon: a space, a folded line, nothing.
    #[error("the name of a header field is malformed")]
    FieldName,
    /// A control character in a field.
    #[error("the value of a header field is malformed")]
    FieldValue,
    /// HTTP/1.1 wants one.
    #[error("the request has no Host field")]
    HostMissing,
    /// More than one, or one that contradicts the target.
    #[error("the request names more than one host")]
    HostAmbiguous,
    /// Not a host.
    #[error("the Host field is malformed")]
    HostInvalid,
    /// More than one, or a list.
    #[error("the request has more than one Content-Length")]
    LengthAmbiguous,
    /// Not a number, or not one of 64 bits.
    #[error("the Content-Length is malformed")]
    LengthInvalid,
    /// `Content-Length` beside `Transfer-Encoding`.
    #[error("the request has both a Content-Length and a Transfer-Encoding")]
    LengthAndEncoding,
    /// More than one, or one in HTTP/1.0.
    #[error("the Transfer-Encoding is malformed")]
    EncodingInvalid,
    /// Not `chunked`.
    #[error("the Transfer-Encoding is not supported; use chunked")]
    EncodingUnknown,
}

impl Malformed {
    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TooLarge(_) | Self::TooManyFields(_) => 431,
            Self::TargetTooLong(_) => 414,
            Self::Version => 505,
            Self::EncodingUnknown => 501,
            _ => 400,
        }
    }

    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::NotHttp => Rule::NotHttp,
            Self::BareLineFeed => Rule::BareLineFeed,
            Self::TooLarge(_) => Rule::HeadTooLarge,
            Self::TargetTooLong(_) => Rule::TargetTooLong,
            Self::TooManyFields(_) => Rule::TooManyFields,
            Self::RequestLine => Rule::RequestLine,
            Self::Version => Rule::Version,
            Self::Target => Rule::Target,
            Self::Encoding => Rule::TargetEncoding,
            Self::FieldName => Rule::FieldName,
            Self::FieldValue => Rule::FieldValue,
            Self::HostMissing => Rule::HostMissing,
            Self::HostAmbiguous => Rule::HostAmbiguous,
            Self::HostInvalid => Rule::HostInvalid,
            Self::LengthAmbiguous => Rule::LengthAmbiguous,
            Self::LengthInvalid => Rule::LengthInvalid,
            Self::LengthAndEncoding => Rule::LengthAndEncoding,
            Self::EncodingInvalid => Rule::EncodingInvalid,
            Self::EncodingUnknown => Rule::EncodingUnknown,
        }
    }
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A request's head that is whole and unambiguous.
#[derive(Debug)]
pub struct Head<'a> {
    method: &'a str,
    path: Cow<'a, str>,
    raw_path: &'a str,
    query: &'a str,
    host: &'a [u8],
    fields: &'a [httparse::Header<'a>],
    /// HTTP/1.1, not 1.0.
    modern: bool,
    keep_alive: bool,
    body: Body,
    behind: usize,
}

/// Where a head ends: the place behind its empty line. `scanned` bytes have been looked at before and are not looked at
/// again.
///
/// # Errors
/// When `bytes` cannot become a head.
pub fn find_end(bytes: &[u8], scanned: usize) -> Result<Option<usize>, Malformed> {
    if scanned == 0 && bytes.first().is_some_and(|&first| !is_token(first) && first != b'\r') {
        return Err(Malformed::NotHttp);
    }
    for at in memchr::memchr_iter(b'\n', &bytes[scanned..]) {
        let line = &bytes[..scanned + at];
        let Some(line) = line.strip_suffix(b"\r") else { return Err(Malformed::BareLineFeed) };
        if line.ends_with(b"\n") {
            return Ok(Some(scanned + at + 1));
        }
    }
    Ok(None)
}

impl<'a> Head<'a> {
    /// Reads `bytes`, which end where [`find_end`] said, and gives the head to `read`. `behind` says how many bytes
    /// have come after it already. Nothing is copied, nothing allocated, unless the path has percent encodings.
    ///
    /// # Errors
    /// When the head is malformed.
    pub fn parse<T>(
        bytes: &[u8],
        behind: usize,
        limits: &Limits,
        read: impl FnOnce(&Head<'_>) -> T,
    ) -> Result<T, Malformed> {
        // One empty line before a request is ignored (RFC 9112 section 2.2).
        let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let fields_max = limits.head_fields_max.min(FIELDS_MAX);
        let mut request = httparse::Request::new(&mut []);
        let parsed = request
            .parse_with_uninit_headers(bytes, &mut room[..fields_max])
            .map_err(|error| malformed(error, bytes, fields_max))?;
        // A head that ends before httparse thinks so, or after: two readers, two requests.
        if parsed != httparse::Status::Complete(bytes.len()) {
            return Err(Malformed::RequestLine);
        }
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return Err(Malformed::RequestLine);
        };
        if target.len() > limits.target_bytes_max {
            return Err(Malformed::TargetTooLong(limits.target_bytes_max));
        }
        Head::check(method, target, minor == 1, request.headers, behind).map(|head| read(&head))
    }

    fn check(
        method: &'a str,
        target: &'a str,
        modern: bool,
        fields: &'a [httparse::Header<'a>],
        behind: usize,
    ) -> Result<Self, Malformed> {
        let (authority, target) = split_target(method, target)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let raw_path = path;
        let path = uri::decode_path(raw_path).map_err(|_| Malformed::Encoding)?;
        uri::check_query(query).map_err(|_| Malformed::Encoding)?;
        let host = host(fields, modern, authority)?;
        let body = body(fields, modern)?;
        let mut head = Self { method, path, raw_path, query, host, fields, modern, keep_alive: false, body, behind };
        let asked = modern || head.has_token("connection", "keep-alive");
        head.keep_alive = asked && !head.has_token("connection", "close");
        Ok(head)
    }

    /// `GET` and the like, in the request's own letters.
    #[must_use]
    pub const fn method(&self) -> &str {
        self.method
    }

    /// The path, percent-decoded, without the query; `*` for the server as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path as it was sent, with its percent encodings.
    #[must_use]
    pub const fn raw_path(&self) -> &str {
        self.raw_path
    }

    /// The raw query, without the question mark.
    #[must_use]
    pub const fn raw_query(&self) -> &str {
        self.query
    }

    /// The query's parameters.
    #[must_use]
    pub const fn query(&self) -> Query<'_> {
        Query::new(self.query)
    }

    /// The host that the client wants, with its port when it gave one; empty only in HTTP/1.0.
    #[must_use]
    pub const fn host(&self) -> &[u8] {
        self.host
    }

    /// Whether it is HTTP/1.1, not 1.0.
    #[must_use]
    pub const fn is_modern(&self) -> bool {
        self.modern
    }

    /// Whether the connection can go on after the answer.
    #[must_use]
    pub const fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// What follows the head.
    #[must_use]
    pub const fn body(&self) -> Body {
        self.body
    }

    /// How many bytes had come behind the head when it was read: a body, or requests that did not wait.
    #[must_use]
    pub const fn behind(&self) -> usize {
        self.behind
    }

    /// How the answer has to be.
    #[must_use]
    pub fn reply(&self, date: Date) -> Reply<'static> {
        let (keep_alive, head_only) = (self.keep_alive, self.method == "HEAD");
        let version = if self.modern { Version::Http11 } else { Version::Http10 };
        Reply { keep_alive, head_only, version, ..Reply::last(date) }
    }

    /// The value of the first field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields(name).next()
    }

    /// The values of all fields of that name.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &[u8]> + Clone {
        named(self.fields, name)
    }

    /// All fields, names in the request's own letters.
    pub fn all_fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (field.name, field.value))
    }

    /// The members of a list that may be spread over several fields of that name.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &[u8]> + Clone {
        let members = self.fields(name).flat_map(|value| value.split(|&byte| byte == b','));
        members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
    }

    /// Whether such a list has `token` in it, in whatever case.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }
}

fn named<'f>(fields: &'f [httparse::Header<'f>], name: &str) -> impl Iterator<Item = &'f [u8]> + Clone {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// RFC 9110 section 5.6.2.
pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

fn malformed(error: httparse::Error, bytes: &[u8], fields_max: usize) -> Malformed {
    match error {
        httparse::Error::HeaderName => Malformed::FieldName,
        httparse::Error::HeaderValue => Malformed::FieldValue,
        httparse::Error::TooManyHeaders => Malformed::TooManyFields(fields_max),
        httparse::Error::Version if names_a_version(bytes) => Malformed::Version,
        _ => Malformed::RequestLine,
    }
}

/// Whether the first line is a good one but for a version like `HTTP/2.0`.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ').skip(2);
    let (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None) = (words.next(), words.next()) else {
        return false;
    };
    major.is_ascii_digit() && minor.is_ascii_digit()
}

/// The authority of an absolute target (RFC 9112 section 3.2.2), and the path with the query.
fn split_target<'a>(method: &str, target: &'a str) -> Result<(Option<&'a str>, &'a str), Malformed> {
    if target.bytes().any(|byte| byte == b'#') {
        return Err(Malformed::Target);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((None, target));
    }
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let rest = &target[scheme.ok_or(Malformed::Target)?.len()..];
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) if rest.as_bytes()[at] == b'/' => rest.split_at(at),
        // `http://host?query`: the path is there, but cannot be borrowed.
        Some(_) => return Err(Malformed::Target),
        None => (rest, "/"),
    };
    Ok((Some(authority), path))
}

fn host<'a>(
    fields: &'a [httparse::Header<'a>],
    modern: bool,
    authority: Option<&'a str>,
) -> Result<&'a [u8], Malformed> {
    let mut hosts = named(fields, "host");
    let Some(host) = hosts.next() else {
        return if modern { Err(Malformed::HostMissing) } else { Ok(authority.unwrap_or_default().as_bytes()) };
    };
    if hosts.next().is_some() || authority.is_some_and(|name| !name.as_bytes().eq_ignore_ascii_case(host)) {
        return Err(Malformed::HostAmbiguous);
    }
    // RFC 3986 section 3.2.2, without the comma: two hosts that someone has merged.
    let is_host = |&byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&'..=b'+' | b';' | b'=' | b':' | b'[' | b']'
            )
    };
    if !host.iter().all(is_host) || !str::from_utf8(host).is_ok_and(is_authority) {
        return Err(Malformed::HostInvalid);
    }
    Ok(host)
}

/// Whether it is one host, with a port or without.
fn is_authority(host: &str) -> bool {
    let Some((name, _)) = uri::split_authority(host) else { return false };
    !host.starts_with('[') || name.parse::<std::net::Ipv6Addr>().is_ok()
}

fn body(fields: &[httparse::Header<'_>], modern: bool) -> Result<Body, Malformed> {
    let mut lengths = named(fields, "content-length");
    let mut encodings = named(fields, "transfer-encoding");
    match (lengths.next(), encodings.next()) {
        (None, None) => Ok(Body::None),
        (Some(_), Some(_)) => Err(Malformed::LengthAndEncoding),
        (Some(_), None) if lengths.next().is_some() => Err(Malformed::LengthAmbiguous),
        (Some(length), None) => parse_length(length),
        (None, Some(_)) if !modern || encodings.next().is_some() => Err(Malformed::EncodingInvalid),
        (None, Some(encoding)) if encoding.eq_ignore_ascii_case(b"chunked") => Ok(Body::Chunked),
        (None, Some(_)) => Err(Malformed::EncodingUnknown),
    }
}

fn parse_length(value: &[u8]) -> Result<Body, Malformed> {
    if value.contains(&b',') {
        return Err(Malformed::LengthAmbiguous);
    }
    // Digits and nothing else: `parse` alone would take a plus sign.
    let digits = str::from_utf8(value).ok().filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        None => Err(Malformed::LengthInvalid),
        Some(0) => Ok(Body::None),
        Some(length) => Ok(Body::Length(length)),
    }
}
