//! What a request asks for: the path, percent-decoded, and the parameters of the query.

use std::borrow::Cow;

/// An encoding that stands for nothing: a percent sign without two hex digits, bytes that are not UTF-8, or, in a
/// path, a control character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEncoding;

/// A path without its percent encodings; borrowed when it has none.
///
/// # Errors
/// When it is not UTF-8 without control characters, encoded well.
pub fn decode_path(raw: &str) -> Result<Cow<'_, str>, BadEncoding> {
    let path = if memchr::memchr(b'%', raw.as_bytes()).is_none() {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(String::from_utf8(decode(raw, false)?).map_err(|_| BadEncoding)?)
    };
    if path.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(BadEncoding);
    }
    Ok(path)
}

/// Checks a query as a whole. Parameters are cut at ASCII characters, so each is UTF-8 when the whole is.
///
/// # Errors
/// When it is not UTF-8, encoded well.
pub fn check_query(raw: &str) -> Result<(), BadEncoding> {
    if memchr::memchr(b'%', raw.as_bytes()).is_none() {
        return Ok(());
    }
    simdutf8::basic::from_utf8(&decode(raw, true)?).map(|_| ()).map_err(|_| BadEncoding)
}

/// Host (without brackets) and port of a URL's authority; without user and password, which nobody here takes. `None`
/// when it is none.
#[must_use]
pub fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
        (host, port)
    } else {
        authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
    };
    let fits = !host.is_empty() && !host.contains(['@', '[', ']', '\\']);
    let port =
        port.map(|port| port.parse().ok().filter(|port| *port != 0)).map_or(Some(None), |port| port.map(Some))?;
    fits.then_some((host, port))
}

/// Appends `text` encoded as the value of a parameter.
pub fn encode_value(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

fn decode(raw: &str, plus_is_space: bool) -> Result<Vec<u8>, BadEncoding> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next())? << 4 | hex(bytes.next())?,
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    Ok(decoded)
}

fn hex(digit: Option<u8>) -> Result<u8, BadEncoding> {
    let value = digit.and_then(|digit| char::from(digit).to_digit(16)).ok_or(BadEncoding)?;
    u8::try_from(value).map_err(|_| BadEncoding)
}

/// The parameters of a query: `name=value` between ampersands, percent and plus encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// The parameters in a raw query, without its question mark.
    #[must_use]
    pub const fn new(raw: &'a str) -> Self {
        Self(raw)
    }

    /// The names of all parameters, decoded. Those that are not encoded well are left out.
    pub fn names(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        let pairs = self.0.split('&').filter(|pair| !pair.is_empty());
        pairs.filter_map(|pair| decode_value(pair.split_once('=').map_or(pair, |(name, _)| name)))
    }

    /// The first parameter of that name, decoded; empty when it has no value. What is not encoded well counts as not
    /// there: a request's head with such a query has been refused before.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.find(|(key, _)| decode_value(key).is_some_and(|key| key == name))?;
        decode_value(value)
    }
}

fn decode_value(raw: &str) -> Option<Cow<'_, str>> {
    if memchr::memchr2(b'%', b'+', raw.as_bytes()).is_none() {
        return Some(Cow::Borrowed(raw));
    }
    String::from_utf8(decode(raw, true).ok()?).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_plain_path_is_borrowed_and_an_encoded_one_decoded() {
        assert!(matches!(decode_path("/chat/lobby"), Ok(Cow::Borrowed("/chat/lobby"))));
        assert_eq!(decode_path("/chat/%C3%bcber%2Fall+%25").unwrap(), "/chat/über/all+%");
        assert_eq!(decode_path("/chat/über").unwrap(), "/chat/über");
    }

    #[test]
    fn bad_paths_are_refused() {
        for raw in ["/%", "/%4", "/%zz", "/%+1", "/%ff", "/%c3", "/%00", "/a%0d%0ab", "/%7f", "/%C3%28"] {
            assert_eq!(decode_path(raw), Err(BadEncoding), "{raw}");
        }
    }

    #[test]
    fn parameters_are_found_and_decoded() {
        let query = Query::new("name=Ann+Lee&room=%C3%BC&flag&empty=&na%6De2=x=y&name=second");
        assert_eq!(query.get("name").unwrap(), "Ann Lee");
        assert_eq!(query.get("room").unwrap(), "ü");
        assert_eq!(query.get("flag").unwrap(), "");
        assert_eq!(query.get("empty").unwrap(), "");
        assert_eq!(query.get("name2").unwrap(), "x=y");
        assert_eq!(query.get("absent"), None);
        assert!(query.names().eq(["name", "room", "flag", "empty", "name2", "name"]));
        assert_eq!(Query::new("").get("a"), None);
        assert_eq!(Query::new("a=%f").get("a"), None);
        assert_eq!(check_query("a=%ff"), Err(BadEncoding));
        assert_eq!(check_query("a=%C3%BC&b=1+2"), Ok(()));
    }

    #[test]
    fn an_encoded_value_comes_back() {
        let text = "Zoë & Bob=100%+\n😀";
        let mut raw = "name=".to_owned();
        encode_value(text, &mut raw);
        assert_eq!(Query::new(&raw).get("name").unwrap(), text);
    }
}
