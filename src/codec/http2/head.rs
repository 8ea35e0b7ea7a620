//! Heads of requests: fields, checked by RFC 9113 section 8, become a head of HTTP/1.1, so that all behind it has one kind of
//! request to deal with.
//!
//! A head that is well-formed here can still be one that HTTP/1.1 has an answer to: no host, a path whose encoding is broken,
//! CONNECT. Those are written as they are. Nothing in a name or a value can begin a line in what is written.

use super::field;

/// How a head, or trailers, can be malformed: a stream error of type PROTOCOL_ERROR (RFC 9113 section 8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedHead {
    /// Empty, with capitals, or with something else that no name can have (section 8.2.1).
    #[error("the name of a field is malformed")]
    FieldName,
    /// Control characters, or blanks at an end (section 8.2.1).
    #[error("the value of a field is malformed")]
    FieldValue,
    /// A field that is about a connection of HTTP/1.1 (section 8.2.2).
    #[error("a field belongs to connections of HTTP/1.1")]
    ConnectionField,
    /// A `te` that is not `trailers` (section 8.2.2).
    #[error("the field te says something else than trailers")]
    Te,
    /// A name with a colon that no request has (section 8.3).
    #[error("there is a pseudo-field that no request has")]
    PseudoUnknown,
    /// Behind a field, or in trailers (sections 8.1 and 8.3).
    #[error("there is a pseudo-field where none may be")]
    PseudoLate,
    /// One that is there already (section 8.3.1).
    #[error("there is a pseudo-field twice")]
    PseudoTwice,
    /// No method, or, without CONNECT, no scheme or path (section 8.3.1).
    #[error("there is no :method, :scheme or :path")]
    PseudoMissing,
    /// Not a token (section 8.3.1).
    #[error("the :method is malformed")]
    Method,
    /// Not the name of a scheme (section 8.3.1).
    #[error("the :scheme is malformed")]
    Scheme,
    /// Empty, not absolute, `*` without OPTIONS, or with characters that no path can have (section 8.3.1).
    #[error("the :path is malformed")]
    Path,
    /// Empty, with a user's name, or with characters that no host can have (section 8.3.1).
    #[error("the :authority, or host, is malformed")]
    Authority,
    /// A `host` that is not the `:authority` (section 8.3.1).
    #[error("the :authority and host are not the same")]
    HostContradicts,
    /// CONNECT without an authority, or with a scheme or path (section 8.5).
    #[error("the fields of CONNECT are not those that it must have")]
    Connect,
    /// `:protocol` without CONNECT, or empty (RFC 8441 section 4).
    #[error("there is a :protocol where none may be")]
    Protocol,
    /// Not a number of 64 bits, or several that differ (section 8.1.1).
    #[error("the content-length is malformed")]
    ContentLength,
}

/// What a head says about its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How many bytes the body must have.
    pub content_length: Option<u64>,
    /// The content is gRPC's, in whatever encoding of messages.
    pub is_grpc: bool,
}

/// Bytes in what has been written: from, to.
type Span = (usize, usize);

/// The pseudo-fields of a request, in the order of [`RequestHead::pseudo`].
#[derive(Clone, Copy)]
enum Pseudo {
    Method,
    Scheme,
    Path,
    Authority,
    Protocol,
}

impl Pseudo {
    const COUNT: usize = 5;

    const fn named(name: &[u8]) -> Option<Self> {
        match name {
            b":method" => Some(Self::Method),
            b":scheme" => Some(Self::Scheme),
            b":path" => Some(Self::Path),
            b":authority" => Some(Self::Authority),
            b":protocol" => Some(Self::Protocol),
            _ => None,
        }
    }
}

/// A head that is being read, field by field.
///
/// Pseudo-fields can come in any order: their values are appended to `out` as they come, and taken out of it again when the
/// first field, or the end, shows that there are no more and the request line can be written.
#[derive(Debug)]
pub struct RequestHead<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    pseudo: [Option<Span>; Pseudo::COUNT],
    /// The request line is written.
    began: bool,
    /// Where the authority is in the stored form.
    authority: Option<Span>,
    /// All of them, joined. They may come with other fields between.
    cookies: Vec<u8>,
    facts: Facts,
    malformed: Option<MalformedHead>,
}

impl<'o> RequestHead<'o> {
    /// A head that is going to be appended to `out`, as [`Head::parse`] reads it:
    ///
    /// ```text
    /// GET /path HTTP/1.1
    /// host: authority
    /// name: value
    /// cookie: all; of; them
    /// ```
    ///
    /// [`Head::parse`]: crate::codec::http1::Head::parse
    #[must_use]
    pub const fn new(out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        let pseudo = [None; Pseudo::COUNT];
        let facts = Facts { content_length: None, is_grpc: false };
        Self { out, start, pseudo, began: false, authority: None, cookies: Vec::new(), facts, malformed: None }
    }

    /// Takes the next field. What is malformed is said in the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        if self.malformed.is_some() {
            return;
        }
        let taken =
            if name.first() == Some(&b':') { self.push_pseudo(name, value) } else { self.push_field(name, value) };
        self.malformed = taken.err();
    }

    /// Ends the head.
    ///
    /// # Errors
    /// When it is malformed: `out` is as it was.
    pub fn finish(mut self) -> Result<Facts, MalformedHead> {
        if self.malformed.is_none() && !self.began {
            self.malformed = self.begin().err();
        }
        if let Some(malformed) = self.malformed {
            self.out.truncate(self.start);
            return Err(malformed);
        }
        if !self.cookies.is_empty() {
            write_line(b"cookie", &self.cookies, self.out);
        }
        self.out.extend_from_slice(b"\r\n");
        Ok(self.facts)
    }

    fn push_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), MalformedHead> {
        let pseudo = Pseudo::named(name).ok_or(MalformedHead::PseudoUnknown)?;
        if self.began {
            return Err(MalformedHead::PseudoLate);
        }
        let span = &mut self.pseudo[pseudo as usize];
        if span.is_some() {
            return Err(MalformedHead::PseudoTwice);
        }
        match pseudo {
            Pseudo::Method if value.is_empty() || !value.iter().copied().all(field::is_token) => {
                return Err(MalformedHead::Method);
            }
            Pseudo::Scheme if !is_scheme(value) => return Err(MalformedHead::Scheme),
            Pseudo::Path if value.is_empty() || value.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) => {
                return Err(MalformedHead::Path);
            }
            Pseudo::Authority if !is_authority(value) => return Err(MalformedHead::Authority),
            Pseudo::Protocol if value.is_empty() || !value.iter().copied().all(field::is_token) => {
                return Err(MalformedHead::Protocol);
            }
            _ => {}
        }
        *span = Some((self.out.len(), self.out.len() + value.len()));
        self.out.extend_from_slice(value);
        Ok(())
    }

    /// Puts the request line, and the host, in the place of the pseudo-fields.
    fn begin(&mut self) -> Result<(), MalformedHead> {
        let end = self.out.len();
        let [method, scheme, path, authority, protocol] = self.pseudo;
        let method = method.ok_or(MalformedHead::PseudoMissing)?;
        let is_connect = self.of(method) == b"CONNECT";
        let target = match (is_connect && protocol.is_none(), scheme, path, authority) {
            _ if protocol.is_some() && !is_connect => return Err(MalformedHead::Protocol),
            (true, None, None, Some(authority)) => authority,
            (true, ..) => return Err(MalformedHead::Connect),
            (false, Some(_), Some(path), _) => path,
            (false, ..) => return Err(MalformedHead::PseudoMissing),
        };
        if path.is_some_and(|path| !is_target(self.of(method), self.of(path))) {
            return Err(MalformedHead::Path);
        }
        if protocol.is_some() {
            // What an extended CONNECT asks for is asked for by an upgrade in HTTP/1.1 (RFC 8441 section 5).
            self.out.extend_from_slice(b"GET");
        } else {
            self.out.extend_from_within(method.0..method.1);
        }
        self.out.push(b' ');
        self.out.extend_from_within(target.0..target.1);
        self.out.extend_from_slice(b" HTTP/1.1\r\n");
        if let Some((from, to)) = authority {
            self.out.extend_from_slice(b"host: ");
            self.out.extend_from_within(from..to);
            let host_end = self.out.len() - (end - self.start);
            self.authority = Some((host_end - (to - from), host_end));
            self.out.extend_from_slice(b"\r\n");
        }
        if let Some((from, to)) = protocol {
            self.out.extend_from_slice(b"upgrade: ");
            self.out.extend_from_within(from..to);
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.drain(self.start..end);
        self.began = true;
        Ok(())
    }

    fn push_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), MalformedHead> {
        if !self.began {
            self.begin()?;
        }
        field::check(name, value)?;
        match name {
            b"te" => return Ok(()),
            b"host" => match self.authority {
                Some(authority) if value.eq_ignore_ascii_case(self.of(authority)) => return Ok(()),
                Some(_) => return Err(MalformedHead::HostContradicts),
                None if !is_authority(value) => return Err(MalformedHead::Authority),
                None => {}
            },
            // Section 8.2.3.
            b"cookie" if value.is_empty() => return Ok(()),
            b"cookie" => {
                if !self.cookies.is_empty() {
                    self.cookies.extend_from_slice(b"; ");
                }
                self.cookies.extend_from_slice(value);
                return Ok(());
            }
            b"content-length" => {
                let length = parse_length(value)?;
                match self.facts.content_length.replace(length) {
                    Some(before) if before != length => return Err(MalformedHead::ContentLength),
                    Some(_) => return Ok(()),
                    None => {}
                }
            }
            b"content-type" => self.facts.is_grpc = is_grpc(value),
            _ => {}
        }
        write_line(name, value, self.out);
        Ok(())
    }

    fn of(&self, (from, to): Span) -> &[u8] {
        &self.out[from..to]
    }
}

/// Trailers that are being read: they are checked, and say nothing here.
#[derive(Debug, Default)]
pub struct Trailers {
    malformed: Option<MalformedHead>,
}

impl Trailers {
    /// Takes the next field.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        if self.malformed.is_none() {
            let is_pseudo = name.first() == Some(&b':');
            let checked = if is_pseudo { Err(MalformedHead::PseudoLate) } else { field::check(name, value) };
            self.malformed = checked.err();
        }
    }

    /// Ends them.
    ///
    /// # Errors
    /// When they are malformed.
    pub fn finish(self) -> Result<(), MalformedHead> {
        self.malformed.map_or(Ok(()), Err)
    }
}

fn write_line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// RFC 3986 section 3.1.
fn is_scheme(scheme: &[u8]) -> bool {
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Whether it can be an authority as far as this layer cares: something, without blanks, controls and users. Whether it is
/// a host is for [`http1::Head`](crate::codec::http1::Head) to say.
fn is_authority(authority: &[u8]) -> bool {
    !authority.is_empty() && authority.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'@')
}

/// What can be asked for: a path, or the server as a whole.
fn is_target(method: &[u8], path: &[u8]) -> bool {
    path.starts_with(b"/") || (path == b"*" && method == b"OPTIONS")
}

/// Digits and nothing else: `parse` alone would take a plus sign.
fn parse_length(value: &[u8]) -> Result<u64, MalformedHead> {
    let digits = str::from_utf8(value).ok().filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(MalformedHead::ContentLength)
}

/// `application/grpc`, with a suffix or parameters or nothing behind it.
fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    content_type.split_at_checked(GRPC.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(GRPC) && rest.first().is_none_or(|byte| matches!(byte, b'+' | b';' | b' '))
    })
}

#[cfg(test)]
mod tests;
