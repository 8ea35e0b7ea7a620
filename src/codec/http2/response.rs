//! Heads of responses, and trailers: HEADERS frames out, and for clients in.

use super::hpack::{BadBlock, Bounds, Decoder};
use super::{StreamId, block, field, hpack};

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
        hpack::encode(b":status", &digits(status), out);
        fields.for_each(|(name, value)| block::write_field(name, value, out));
    });
}

/// Appends the HEADERS frame that ends a response behind its body.
pub fn write_trailers<'f>(stream: StreamId, fields: impl Iterator<Item = (&'f [u8], &'f [u8])>, out: &mut Vec<u8>) {
    block::write(stream, true, out, |out| fields.for_each(|(name, value)| block::write_field(name, value, out)));
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
