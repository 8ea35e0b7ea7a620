//! Heads of requests as clients write them.

use super::{StreamId, block, hpack};

/// What every request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'r> {
    /// `GET` and the like.
    pub method: &'r str,
    /// `http` or `https`.
    pub scheme: &'r str,
    /// The host, with its port.
    pub authority: &'r str,
    /// The path with the query.
    pub path: &'r str,
}

/// Appends a HEADERS frame with a request and its other fields. `ends`: it has no body.
pub fn write_head<'f>(
    stream: StreamId,
    request: Request<'_>,
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
    ends: bool,
    out: &mut Vec<u8>,
) {
    block::write(stream, ends, out, |out| {
        hpack::encode(b":method", request.method.as_bytes(), out);
        hpack::encode(b":scheme", request.scheme.as_bytes(), out);
        hpack::encode(b":path", request.path.as_bytes(), out);
        hpack::encode(b":authority", request.authority.as_bytes(), out);
        fields.for_each(|(name, value)| block::write_field(name, value, out));
    });
}
