//! A message in the encoding `gzip`: one member of RFC 1952, bounded while it is inflated.

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Why a compressed message is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GunzipError {
    /// Not gzip, not all of it, or not what its checksum is of.
    #[error("a compressed message that is not gzip")]
    Garbage,
    /// The message would be larger than the limit.
    #[error("a compressed message over the limit when inflated")]
    TooBig,
}

/// Inflates messages, each on its own. It takes 40 KiB when first used.
#[derive(Debug, Default)]
pub struct Gunzip {
    decompressor: Option<Box<Decompress>>,
}

/// Bytes behind the compressed data: a checksum and a length, 32 bits each, little endian.
const TRAILER_BYTES: usize = 8;
/// Bytes that the output grows by at first.
const CHUNK_BYTES: usize = 4096;

impl Gunzip {
    /// Appends the inflated message, of at most `limit` bytes.
    ///
    /// # Errors
    /// When it is no such message. `out` has the part that was inflated until then: at most `limit` and one byte, or what it
    /// had room for.
    pub fn inflate(&mut self, compressed: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), GunzipError> {
        let data = behind_header(compressed).ok_or(GunzipError::Garbage)?;
        let start = out.len();
        let taken = self.inflate_data(data, limit, out)?;
        let trailer = data.get(taken..).and_then(|trailer| <[u8; TRAILER_BYTES]>::try_from(trailer).ok());
        let [a, b, c, d, length @ ..] = trailer.ok_or(GunzipError::Garbage)?;
        let mut crc = Crc::new();
        crc.update(&out[start..]);
        let length = u32::from_le_bytes(length);
        let is_whole =
            crc.sum() == u32::from_le_bytes([a, b, c, d]) && usize::try_from(length) == Ok(out.len() - start);
        if is_whole { Ok(()) } else { Err(GunzipError::Garbage) }
    }

    /// Inflates the data up to its end, and says how many bytes they are.
    fn inflate_data(&mut self, data: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<usize, GunzipError> {
        let decompressor = self.decompressor.get_or_insert_with(|| Box::new(Decompress::new(false)));
        decompressor.reset(false);
        let start = out.len();
        let mut taken = 0;
        loop {
            if out.len() == out.capacity() {
                // Up to one byte more than the limit: that byte shows that the limit is passed.
                let used = out.len() - start;
                out.reserve_exact((limit.saturating_add(1) - used).min(used.max(CHUNK_BYTES)));
            }
            let (before, len) = (taken, out.len());
            let status = decompressor.decompress_vec(&data[taken..], out, FlushDecompress::None);
            // The size counts before the garbage behind it, so that it does not matter how much room there was.
            if out.len() - start > limit {
                return Err(GunzipError::TooBig);
            }
            let status = status.map_err(|_| GunzipError::Garbage)?;
            taken = usize::try_from(decompressor.total_in())
                .ok()
                .filter(|&taken| taken <= data.len())
                .ok_or(GunzipError::Garbage)?;
            if status == Status::StreamEnd {
                return Ok(taken);
            }
            if taken == before && out.len() == len {
                return Err(GunzipError::Garbage);
            }
        }
    }
}

/// Flags of a member's header.
const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// What follows the header of a member (RFC 1952 section 2.3). Its optional parts say nothing here.
fn behind_header(bytes: &[u8]) -> Option<&[u8]> {
    let ([0x1f, 0x8b, 8, flags, ..], mut rest) = bytes.split_at_checked(10)? else { return None };
    if flags & RESERVED != 0 {
        return None;
    }
    if flags & EXTRA != 0 {
        let (&[low, high], after) = rest.split_first_chunk()?;
        rest = after.get(usize::from(u16::from_le_bytes([low, high]))..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            rest = rest.get(memchr::memchr(0, rest)? + 1..)?;
        }
    }
    if flags & HEADER_CRC == 0 { Some(rest) } else { rest.get(2..) }
}

/// A message as a peer compresses it.
#[cfg(test)]
pub(crate) fn compress(payload: &[u8]) -> Vec<u8> {
    use std::io::Write as _;

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(payload).and_then(|()| encoder.finish()).expect("memory can be written to")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflate(compressed: &[u8], limit: usize) -> Result<Vec<u8>, GunzipError> {
        let mut out = Vec::new();
        let inflated = Gunzip::default().inflate(compressed, limit, &mut out);
        assert!(out.len() <= limit.max(CHUNK_BYTES) + 1, "{} bytes in memory", out.len());
        inflated.map(|()| out)
    }

    #[test]
    fn what_was_compressed_comes_back_up_to_the_limit() {
        for payload in [&b""[..], b"hello", &[b'x'; 4096], &[7; 100_000]] {
            let compressed = compress(payload);
            assert_eq!(inflate(&compressed, payload.len()).as_deref(), Ok(payload));
            if !payload.is_empty() {
                assert_eq!(inflate(&compressed, payload.len() - 1), Err(GunzipError::TooBig));
            }
        }
        // A bomb: a hundred MiB in a hundred KiB.
        assert_eq!(inflate(&compress(&vec![0; 100 << 20]), 1 << 20), Err(GunzipError::TooBig));
    }

    #[test]
    fn a_header_may_have_all_its_parts() {
        let plain = compress(b"hello");
        for (flags, parts) in
            [(4, &b"\x03\0abc"[..]), (8, b"name\0"), (16, b"\0"), (2, b"cc"), (31, b"\0\0name\0comment\0cc")]
        {
            let member = [&plain[..3], &[flags], &plain[4..10], parts, &plain[10..]].concat();
            assert_eq!(inflate(&member, 5).as_deref(), Ok(&b"hello"[..]), "flags {flags}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let plain = compress(b"hello, hello, hello");
        for end in 0..plain.len() {
            assert_eq!(inflate(&plain[..end], 100), Err(GunzipError::Garbage), "cut at {end}");
        }
        for at in [0, 1, 2, plain.len() - 1, plain.len() - 5] {
            let mut bent = plain.clone();
            bent[at] ^= 1;
            assert_eq!(inflate(&bent, 100), Err(GunzipError::Garbage), "a bit of byte {at}");
        }
        for more in [&b"x"[..], &plain] {
            assert_eq!(inflate(&[&plain, more].concat(), 100), Err(GunzipError::Garbage));
        }
    }
}
