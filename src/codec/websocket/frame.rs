//! Frame headers, RFC 6455 section 5.2: ours to write, the client's to read.

use super::deflate::Deflater;
use crate::codec::Kind;

/// Bytes of a control frame's payload at most, section 5.5.
pub const CONTROL_BYTES_MAX: usize = 125;

/// Bytes of a client's header at most: 2, 8 of length, 4 of key.
pub const CLIENT_HEADER_BYTES_MAX: usize = 14;

/// Below this compression does not pay for the work.
pub const DEFLATE_BYTES_MIN: usize = 64;

pub(super) const FIN: u8 = 0x80;
pub(super) const RSV1: u8 = 0x40;
const RSV2_RSV3: u8 = 0x30;
pub(super) const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0,
    /// A text, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// Good-bye.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// A sign of life.
    Pong = 10,
}

impl Opcode {
    const fn parse(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Whether it is a control frame's.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

impl From<Kind> for Opcode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// An encoded header of a server's frame: 2, 4 or 10 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; 10],
    len: u8,
}

impl Header {
    /// The header of a whole message in one frame.
    #[must_use]
    #[inline]
    pub fn message(kind: Kind, payload_bytes: usize, compressed: bool) -> Self {
        let rsv1 = if compressed { RSV1 } else { 0 };
        Self::new(FIN | rsv1 | Opcode::from(kind) as u8, payload_bytes)
    }

    /// The header of a control frame, whose payload has at most [`CONTROL_BYTES_MAX`] bytes.
    #[must_use]
    pub fn control(opcode: Opcode, payload_bytes: usize) -> Self {
        debug_assert!(opcode.is_control() && payload_bytes <= CONTROL_BYTES_MAX);
        Self::new(FIN | opcode as u8, payload_bytes)
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "each cast stands behind the range that makes it exact")]
    pub(super) fn new(first: u8, payload_bytes: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = first;
        let len = match payload_bytes {
            0..126 => {
                bytes[1] = payload_bytes as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, len }
    }

    /// The bytes.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A header that no client may send, RFC 6455 section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadHeader {
    /// RSV2 and RSV3 mean nothing, RSV1 nothing on control frames and later fragments.
    #[error("a frame with a reserved bit set")]
    ReservedBit,
    /// Opcodes 3 to 7 and 11 to 15.
    #[error("a frame with a reserved opcode")]
    ReservedOpcode,
    /// Control frames are whole.
    #[error("a control frame in fragments")]
    FragmentedControl,
    /// More than [`CONTROL_BYTES_MAX`] bytes.
    #[error("a control frame of more than 125 bytes")]
    LongControl,
    /// Clients mask.
    #[error("a frame without a mask")]
    Unmasked,
    /// The shortest form of the length is the only one.
    #[error("a frame's length in a longer form than it needs")]
    LengthForm,
    /// The top bit of a 64-bit length.
    #[error("a frame's length with its top bit set")]
    LengthOverflow,
}

/// The header of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHeader {
    /// The last frame of its message.
    pub fin: bool,
    /// RSV1: the first frame of a compressed message.
    pub compressed: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// Bytes of payload, below 2^63: what a peer says, not what is there.
    pub payload_bytes: u64,
    /// The mask.
    pub key: [u8; 4],
    /// Bytes of the header itself.
    pub header_bytes: usize,
}

/// What the bytes so far say about a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// All there.
    Header(ClientHeader),
    /// So many bytes, counted from the header's first, are needed to know more; never more than the header has.
    Needs(usize),
}

impl ClientHeader {
    /// Reads the header at the beginning of `bytes`. What is wrong is told as soon as its byte is there, and the first
    /// wrong byte counts, so that it does not matter how the bytes were cut.
    ///
    /// # Errors
    /// When no header of a client begins like that.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Parsed, BadHeader> {
        let Some(&first) = bytes.first() else { return Ok(Parsed::Needs(2)) };
        let opcode = parse_first(first)?;
        let Some(&second) = bytes.get(1) else { return Ok(Parsed::Needs(2)) };
        if second & MASKED == 0 {
            return Err(BadHeader::Unmasked);
        }
        let short = second & !MASKED;
        if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(BadHeader::LongControl);
        }
        let header_bytes = match short {
            126 => 8,
            127 => 14,
            _ => 6,
        };
        let Some((payload_bytes, key)) = parse_length(short, &bytes[2..])? else {
            return Ok(Parsed::Needs(header_bytes));
        };
        Ok(Parsed::Header(Self {
            fin: first & FIN != 0,
            compressed: first & RSV1 != 0,
            opcode,
            payload_bytes,
            key,
            header_bytes,
        }))
    }
}

#[inline]
pub(super) fn parse_first(first: u8) -> Result<Opcode, BadHeader> {
    if first & RSV2_RSV3 != 0 {
        return Err(BadHeader::ReservedBit);
    }
    let opcode = Opcode::parse(first & 0x0f).ok_or(BadHeader::ReservedOpcode)?;
    if first & RSV1 != 0 && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(BadHeader::ReservedBit);
    }
    if opcode.is_control() && first & FIN == 0 {
        return Err(BadHeader::FragmentedControl);
    }
    Ok(opcode)
}

/// The length and the key, `None` when they are not all there.
#[inline]
fn parse_length(short: u8, rest: &[u8]) -> Result<Option<(u64, [u8; 4])>, BadHeader> {
    let Some((payload_bytes, rest)) = split_length(short, rest)? else { return Ok(None) };
    Ok(rest.first_chunk().map(|key| (payload_bytes, *key)))
}

/// The length and what follows it, `None` when it is not all there. `short` is the second byte's.
#[inline]
pub(super) fn split_length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, BadHeader> {
    Ok(Some(match short {
        126 => {
            let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
            let len = u64::from(u16::from_be_bytes(*len));
            if len < 126 {
                return Err(BadHeader::LengthForm);
            }
            (len, rest)
        }
        127 => {
            let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
            let len = u64::from_be_bytes(*len);
            if len >> 63 != 0 {
                return Err(BadHeader::LengthOverflow);
            }
            if len <= 0xffff {
                return Err(BadHeader::LengthForm);
            }
            (len, rest)
        }
        short => (u64::from(short), rest),
    }))
}

/// Appends the whole message as one compressed frame, unless that would not make it smaller: then it returns `false`
/// and `out` is as it was.
pub fn append_deflated(
    kind: Kind,
    payload: &[u8],
    window_bits: u8,
    deflater: &mut Deflater,
    out: &mut Vec<u8>,
) -> bool {
    if payload.len() < DEFLATE_BYTES_MIN {
        return false;
    }
    // Room for the header is made before the compressed length is known; when that makes the header shorter, the
    // payload moves up.
    let start = out.len();
    let room = Header::message(kind, payload.len(), true);
    out.extend_from_slice(room.as_slice());
    let body = out.len();
    if deflater.compress(payload, window_bits, out).is_err() || out.len() - body >= payload.len() {
        out.truncate(start);
        return false;
    }
    let header = Header::message(kind, out.len() - body, true);
    let header = header.as_slice();
    let surplus = body - start - header.len();
    if surplus > 0 {
        out.copy_within(body.., body - surplus);
        out.truncate(out.len() - surplus);
    }
    out[start..start + header.len()].copy_from_slice(header);
    true
}

/// The whole message as one compressed frame, `None` when compression would not make it smaller.
#[must_use]
pub fn deflated(kind: Kind, payload: &[u8], deflater: &mut Deflater) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    append_deflated(kind, payload, 15, deflater, &mut frame).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Parsed, BadHeader> {
        // However the bytes are cut, nothing is said earlier that is not so later.
        for cut in 0..bytes.len() {
            match ClientHeader::parse(&bytes[..cut]) {
                Ok(Parsed::Needs(needs)) => assert!(needs > cut, "{needs} of {bytes:x?} at {cut}"),
                known => assert_eq!(known, ClientHeader::parse(bytes)),
            }
        }
        ClientHeader::parse(bytes)
    }

    fn header(bytes: &[u8]) -> ClientHeader {
        match parse(bytes) {
            Ok(Parsed::Header(header)) => header,
            other => panic!("{bytes:x?}: {other:?}"),
        }
    }

    #[test]
    fn section_5_2_our_lengths() {
        let message = |len| Header::message(Kind::Binary, len, false).as_slice().to_vec();
        assert_eq!(message(0), [0x82, 0]);
        assert_eq!(message(125), [0x82, 125]);
        assert_eq!(message(126), [0x82, 126, 0, 126]);
        assert_eq!(message(0xffff), [0x82, 126, 0xff, 0xff]);
        assert_eq!(message(0x1_0000), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(Header::message(Kind::Text, 5, true).as_slice(), [0xc1, 5]);
        assert_eq!(Header::control(Opcode::Ping, 0).as_slice(), [0x89, 0]);
        assert_eq!(Header::control(Opcode::Close, 2).as_slice(), [0x88, 2]);
    }

    #[test]
    fn section_5_7_examples() {
        let hello = header(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f]);
        assert!(hello.fin && !hello.compressed);
        assert_eq!((hello.opcode, hello.payload_bytes, hello.header_bytes), (Opcode::Text, 5, 6));
        assert_eq!(hello.key, [0x37, 0xfa, 0x21, 0x3d]);
        let fragment = header(&[0x01, 0x83, 0, 0, 0, 0]);
        assert!(!fragment.fin);
        let longer = header(&[0x82, 0xfe, 0x01, 0x00, 1, 2, 3, 4]);
        assert_eq!((longer.payload_bytes, longer.header_bytes, longer.key), (256, 8, [1, 2, 3, 4]));
        let long = header(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4]);
        assert_eq!((long.payload_bytes, long.header_bytes), (65_536, 14));
    }

    #[test]
    fn section_5_what_no_client_may_send() {
        assert_eq!(parse(&[0x81, 0x05]), Err(BadHeader::Unmasked));
        assert_eq!(parse(&[0xa1]), Err(BadHeader::ReservedBit));
        assert_eq!(parse(&[0x91]), Err(BadHeader::ReservedBit));
        assert_eq!(parse(&[0xc0]), Err(BadHeader::ReservedBit), "RSV1 on a continuation");
        assert_eq!(parse(&[0xc9]), Err(BadHeader::ReservedBit), "RSV1 on a ping");
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            assert_eq!(parse(&[0x80 | opcode]), Err(BadHeader::ReservedOpcode));
        }
        assert_eq!(parse(&[0x09]), Err(BadHeader::FragmentedControl));
        assert_eq!(parse(&[0x89, 0xfe]), Err(BadHeader::LongControl));
        assert_eq!(parse(&[0x82, 0xfe, 0, 125]), Err(BadHeader::LengthForm));
        assert_eq!(parse(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), Err(BadHeader::LengthForm));
    }

    /// A length that is negative as a signed number was added to others and came out small.
    #[test]
    fn cve_2020_27813_length_overflow() {
        assert_eq!(parse(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), Err(BadHeader::LengthOverflow));
        assert_eq!(
            parse(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Err(BadHeader::LengthOverflow)
        );
        let largest = header(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(largest.payload_bytes, i64::MAX as u64);
    }

    #[test]
    fn deflated_only_when_that_is_smaller() {
        let mut deflater = Deflater::default();
        assert_eq!(deflated(Kind::Text, b"aaaaaaaaaaaaaaaa", &mut deflater), None, "too short to try");
        let noise: Vec<u8> = (0..200_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(deflated(Kind::Binary, &noise, &mut deflater), None);
        for len in [64, 126, 1000, 65_535, 65_536, 1_000_000] {
            let frame = deflated(Kind::Text, &vec![b'a'; len], &mut deflater).expect("compresses well");
            let header = Header::message(Kind::Text, frame.len() - if frame.len() < 128 { 2 } else { 4 }, true);
            assert_eq!(&frame[..header.as_slice().len()], header.as_slice(), "{len}");
        }
    }
}
