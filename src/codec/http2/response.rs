//! Heads of responses, and trailers: HEADERS frames out, and for clients in.

use super::hpack::{BadBlock, Bounds, Decoder};
use super::{StreamId, block, field, hpack};

/// Makes the peer's table empty. A peer that lowers its size waits for that in the next block (RFC 7541 section 4.2); in each
/// head it costs a byte, and nobody has to remember whether it is due.
const EMPTY_TABLE: u8 = 0x20;

/// Appends a HEADERS frame with a status and fields, whose names may have capitals (they are written small) and whose values
/// lose control characters. `ends`: nothing follows it.
pub fn write_head<'f>(
    stream: StreamId,
    status: u16,
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
    ends: bool,
    out: &mut Vec<u8>,
) {
    block::write(stream, ends, out, |out| {
        out.push(EMPTY_TABLE);
        hpack::encode(b":status", &digits(status), out);
        fields.for_each(|(name, value)| block::write_field(name, value, out));
    });
}

/// Appends the HEADERS frame that ends a response behind its body.
pub fn write_trailers<'f>(stream: StreamId, fields: impl Iterator<Item = (&'f [u8], &'f [u8])>, out: &mut Vec<u8>) {
    block::write(stream, true, out, |out| fields.for_each(|(name, value)| block::write_field(name, value, out)));
}

/// The status of a frame that [`write_head`] has written.
#[must_use]
pub fn status_of(frame: &[u8]) -> Option<u16> {
    const FRAME_HEADER_BYTES: usize = 9;
    // By its place in the fixed table (RFC 7541 appendix A), or its name's place and three digits.
    match frame.get(FRAME_HEADER_BYTES..)? {
        [EMPTY_TABLE, field @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(field - 0x88)]),
        [EMPTY_TABLE, 0x08, 3, digits @ ..] => str::from_utf8(digits.get(..3)?).ok()?.parse().ok(),
        _ => None,
    }
}

/// A status has three digits.
fn digits(status: u16) -> [u8; 3] {
    [status / 100, status / 10, status].map(|digit| b'0' + (digit % 10).to_le_bytes()[0])
}

/// Why a client cannot make use of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    /// The connection is of no use any more.
    #[error(transparent)]
    Block(#[from] BadBlock),
    /// More fields than the bounds allow.
    #[error("a response has too many fields")]
    TooLarge,
    /// Fields that break the rules (RFC 9113 sections 8.2 and 8.3.2).
    #[error("a response's fields are malformed")]
    Malformed,
}

/// Reads the fields of a response, whose status it returns, or trailers, which have none. The others are given to
/// `on_field`, also those that come before something that is malformed.
///
/// # Errors
/// When they cannot be read. After [`BadResponse::Block`] the connection must end.
pub fn read(
    decoder: &mut Decoder,
    block: &[u8],
    bounds: Bounds,
    room: &mut Vec<u8>,
    mut on_field: impl FnMut(&[u8], &[u8]),
) -> Result<Option<u16>, BadResponse> {
    let (mut status, mut fields, mut malformed) = (None, 0, false);
    let decoded = decoder.decode(block, bounds, room, |name, value| {
        if name == b":status" {
            malformed |= fields > 0 || status.is_some();
            status = Some(value.try_into().ok().and_then(parse_status));
        } else if field::check(name, value).is_err() {
            malformed = true;
        } else {
            fields += 1;
            on_field(name, value);
        }
    })?;
    match status {
        _ if decoded.over => Err(BadResponse::TooLarge),
        Some(None) => Err(BadResponse::Malformed),
        _ if malformed => Err(BadResponse::Malformed),
        status => Ok(status.flatten()),
    }
}

fn parse_status(digits: &[u8; 3]) -> Option<u16> {
    let is_status = matches!(digits[0], b'1'..=b'9') && digits.iter().all(u8::is_ascii_digit);
    is_status.then(|| digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::frame::{Header, flag, kind};
    use super::super::request::{self, Request};
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes_max: 1 << 16, fields_max: 100 };

    fn header(frame: &[u8]) -> (Header, &[u8]) {
        let (header, rest) = frame.split_first_chunk().unwrap();
        (Header::parse(header), rest)
    }

    /// The status and the fields, a line each.
    fn read_block(block: &[u8]) -> Result<(Option<u16>, String), BadResponse> {
        let mut text = String::new();
        let status = read(&mut Decoder::new(4096), block, BOUNDS, &mut Vec::new(), |name, value| {
            text += &format!("{}: {}\n", str::from_utf8(name).unwrap(), str::from_utf8(value).unwrap());
        })?;
        Ok((status, text))
    }

    fn fields<'a>(fields: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }

    fn written(status: u16, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        write_head(StreamId(5), status, fields(pairs), false, &mut out);
        out.drain(..6);
        out
    }

    #[test]
    fn a_head_is_one_frame() {
        let frame = written(200, &[("Content-Type", "application/grpc"), ("Date", "now")]);
        let (header, block) = header(&frame);
        assert_eq!((header.kind, header.flags, header.stream), (kind::HEADERS, flag::END_HEADERS, StreamId(5)));
        assert_eq!(header.length as usize, block.len());
        assert_eq!(block[..2], [0x20, 0x88], "an empty table, and a status of the static one");
        assert_eq!(read_block(block).unwrap(), (Some(200), "content-type: application/grpc\ndate: now\n".to_owned()));
        for status in [100, 204, 431, 599, 999] {
            assert_eq!(read_block(&written(status, &[])[9..]).unwrap().0, Some(status));
        }
    }

    #[test]
    fn trailers_end_the_stream() {
        let mut out = Vec::new();
        write_trailers(StreamId(1), fields(&[("grpc-status", "0"), ("grpc-message", "")]), &mut out);
        let (header, block) = header(&out);
        assert_eq!((header.kind, header.flags), (kind::HEADERS, flag::END_HEADERS | flag::END_STREAM));
        assert_eq!(read_block(block).unwrap(), (None, "grpc-status: 0\ngrpc-message: \n".to_owned()));
    }

    #[test]
    fn a_value_cannot_break_the_rules_of_fields() {
        // RFC 9113 section 8.2.1: the peer would have to treat it as malformed.
        let frame = written(200, &[("Location", " /a\r\nset-cookie: b\0 ")]);
        assert_eq!(read_block(&frame[9..]).unwrap().1, "location: /aset-cookie: b\n");
    }

    #[test]
    fn what_does_not_fit_in_a_frame_is_continued() {
        // RFC 9113 sections 4.2 and 6.10.
        let long = "x".repeat(40_000);
        let frames = written(200, &[("x-long", &long), ("x-last", "1")]);
        let (mut rest, mut block, mut kinds) = (&frames[..], Vec::new(), Vec::new());
        while !rest.is_empty() {
            let (header, payload) = header(rest);
            let (payload, behind) = payload.split_at(header.length as usize);
            block.extend_from_slice(payload);
            kinds.push((header.kind, header.flags, payload.len() <= 1 << 14));
            rest = behind;
        }
        let between = (kind::CONTINUATION, 0, true);
        assert_eq!(kinds, [(kind::HEADERS, 0, true), between, (kind::CONTINUATION, flag::END_HEADERS, true)]);
        assert_eq!(read_block(&block).unwrap().1, format!("x-long: {long}\nx-last: 1\n"));
    }

    #[test]
    fn responses_are_checked() {
        // RFC 9113 section 8.3.2.
        let block = |fields: &[(&str, &str)]| {
            let mut block = Vec::new();
            fields.iter().for_each(|(name, value)| hpack::encode(name.as_bytes(), value.as_bytes(), &mut block));
            read_block(&block)
        };
        assert_eq!(block(&[(":status", "200"), ("a", "b")]).unwrap(), (Some(200), "a: b\n".to_owned()));
        for malformed in [
            &[("a", "b"), (":status", "200")][..],
            &[(":status", "200"), (":status", "200")],
            &[(":status", "20")],
            &[(":status", "2x0")],
            &[(":status", "099")],
            &[(":status", "200"), (":path", "/")],
            &[(":status", "200"), ("connection", "close")],
            &[(":status", "200"), ("a", "\n")],
        ] {
            assert_eq!(block(malformed), Err(BadResponse::Malformed), "{malformed:?}");
        }
        assert_eq!(read_block(&[0x80]), Err(BadResponse::Block(BadBlock::Index)));
        let many = [("a", "b")].repeat(101);
        assert_eq!(block(&many), Err(BadResponse::TooLarge));
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = Request { method: "POST", scheme: "http", authority: "host:1", path: "/a.B/C" };
        let (mut frame, mut stored) = (Vec::new(), Vec::new());
        let more = [("te", "trailers"), ("Content-Type", "application/grpc")];
        request::write_head(StreamId(7), request, fields(&more), true, &mut frame);
        let (header, block) = header(&frame);
        assert_eq!(header.flags, flag::END_HEADERS | flag::END_STREAM);
        let mut head = super::super::RequestHead::new(&mut stored);
        Decoder::new(0).decode(block, BOUNDS, &mut Vec::new(), |name, value| head.push(name, value)).unwrap();
        assert!(head.finish().unwrap().is_grpc);
        let expected = "POST /a.B/C HTTP/1.1\r\nhost: host:1\r\ncontent-type: application/grpc\r\n\r\n";
        assert_eq!(str::from_utf8(&stored).unwrap(), expected);
    }
}
