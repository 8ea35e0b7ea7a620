//! permessage-deflate without context takeover: one compressor and one inflater serve a whole shard.
//!
//! No message refers to an earlier one, so an idle connection costs nothing and a published message is compressed once
//! for all who read it. What is negotiated for that is in [`super::extension`].

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

pub use super::extension::{Agreement, negotiate};

/// Window bits that we can send with. zlib has no compressor for 8: what it makes with them needs 9.
pub const WINDOW_BITS: std::ops::RangeInclusive<u8> = 9..=15;

const WINDOWS: usize = 7;

/// An empty stored block, without its first three bits: what RFC 7692 section 7.2.1 has every message end with, and has
/// left out.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The tail, and behind it a last block without content. Inflating it adds nothing and ends the stream exactly at its
/// end, unless the message was cut off inside a block.
const TAIL_AND_END: [u8; 6] = [0x00, 0x00, 0xff, 0xff, 0x03, 0x00];

/// The compressor failed: a fault of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the compressor failed")]
pub struct DeflateError;

/// Compresses messages, each on its own. A compressor takes 300 KiB, so each is made when it is first asked for.
#[derive(Debug, Default)]
pub struct Deflater {
    /// By window bits, from 9.
    compressors: [Option<Box<Compress>>; WINDOWS],
}

impl Deflater {
    /// Level 1 has fixed codes and leaves a chat message of 235 bytes 232; level 2 makes codes for each message and
    /// leaves 184. Level 6 leaves 1 to 4 % less than level 2, in up to twice its time.
    const LEVEL: u32 = 2;

    /// Appends the compressed payload. `window_bits` is one of [`WINDOW_BITS`], or taken as the nearest.
    ///
    /// # Errors
    /// When the compressor fails; `out` is as it was then.
    pub fn compress(&mut self, payload: &[u8], window_bits: u8, out: &mut Vec<u8>) -> Result<(), DeflateError> {
        if payload.is_empty() {
            out.push(0); // RFC 7692 section 7.2.3.6
            return Ok(());
        }
        let window_bits = window_bits.clamp(*WINDOW_BITS.start(), *WINDOW_BITS.end());
        let compressor = self.compressors[usize::from(window_bits - WINDOW_BITS.start())].get_or_insert_with(|| {
            Box::new(Compress::new_with_window_bits(Compression::new(Self::LEVEL), false, window_bits))
        });
        compressor.reset();
        let start = out.len();
        let done = compress_all(compressor, payload, out);
        if done.is_err() || !out[start..].ends_with(&TAIL) {
            out.truncate(start);
            return Err(DeflateError);
        }
        out.truncate(out.len() - TAIL.len());
        Ok(())
    }
}

/// Compresses and flushes.
fn compress_all(compressor: &mut Compress, payload: &[u8], out: &mut Vec<u8>) -> Result<(), DeflateError> {
    // An upper bound for nearly all payloads, so that one call does it all.
    out.reserve(payload.len() + payload.len() / 64 + 64);
    let mut rest = payload;
    loop {
        let before = compressor.total_in();
        compressor.compress_vec(rest, out, FlushCompress::Sync).map_err(|_| DeflateError)?;
        let taken = usize::try_from(compressor.total_in() - before).map_err(|_| DeflateError)?;
        rest = rest.get(taken..).ok_or(DeflateError)?;
        // The flush is complete when it leaves room.
        if out.len() < out.capacity() {
            return if rest.is_empty() { Ok(()) } else { Err(DeflateError) };
        }
        out.reserve(rest.len() + 64);
    }
}

/// Why a compressed message is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// Not DEFLATE, or not all of it.
    #[error("a compressed message that cannot be inflated")]
    Garbage,
    /// The message would be larger than the limit.
    #[error("a compressed message over the limit when inflated")]
    TooBig,
}

/// Inflates messages, each on its own, whatever window they were made with. It takes 40 KiB when first used.
#[derive(Debug, Default)]
pub struct Inflater {
    decompressor: Option<Box<Decompress>>,
}

impl Inflater {
    /// Bytes that the output grows by at first.
    const CHUNK_BYTES: usize = 4096;

    /// Blocks that say they are the last, in one message. Each costs a reset, so they are counted.
    const LAST_BLOCKS_MAX: u32 = 256;

    /// Appends the inflated message, of at most `limit` bytes. `compressed` is the message as it was sent, without the
    /// tail.
    ///
    /// # Errors
    /// When it is no such message. `out` has the part that was inflated until then: at most `limit` and one byte, or
    /// what it had room for.
    pub fn inflate(&mut self, compressed: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), InflateError> {
        let decompressor = self.decompressor.get_or_insert_with(|| Box::new(Decompress::new(false)));
        decompressor.reset(false);
        let start = out.len();
        let mut run = Run { decompressor, start, limit, last_blocks: 0 };
        run.feed(compressed, out)?;
        let end = out.len();
        // Some peers send an empty message as nothing, or forget the empty block behind one that says it is the last
        // (section 7.2.3.4): there is nothing left that could be missing.
        if run.decompressor.total_in() == 0 {
            return Ok(());
        }
        run.feed(&TAIL_AND_END, out)?;
        // Nothing more came out, and the stream began anew exactly at the end.
        let whole = out.len() == end && run.decompressor.total_in() == 0;
        if whole { Ok(()) } else { Err(InflateError::Garbage) }
    }
}

/// The inflation of one message.
struct Run<'a> {
    decompressor: &'a mut Decompress,
    /// Where the message begins in the output.
    start: usize,
    limit: usize,
    /// Last blocks so far; the stream begins anew behind each (section 7.2.3.5).
    last_blocks: u32,
}

impl Run<'_> {
    /// Inflates all of `input`.
    fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), InflateError> {
        loop {
            self.make_room(out);
            let (total_in, len) = (self.decompressor.total_in(), out.len());
            let status = self.decompressor.decompress_vec(input, out, FlushDecompress::None);
            // The size counts before the garbage behind it, so that it does not matter how much room there was.
            if out.len() - self.start > self.limit {
                return Err(InflateError::TooBig);
            }
            let status = status.map_err(|_| InflateError::Garbage)?;
            let taken = usize::try_from(self.decompressor.total_in() - total_in).map_err(|_| InflateError::Garbage)?;
            input = input.get(taken..).ok_or(InflateError::Garbage)?;
            if status == Status::StreamEnd {
                self.begin_anew()?;
            } else if taken == 0 && out.len() == len && !input.is_empty() {
                return Err(InflateError::Garbage);
            }
            // A full output may hide more that is due.
            if input.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }

    fn begin_anew(&mut self) -> Result<(), InflateError> {
        self.last_blocks += 1;
        if self.last_blocks > Inflater::LAST_BLOCKS_MAX {
            return Err(InflateError::Garbage);
        }
        self.decompressor.reset(false);
        Ok(())
    }

    /// Doubles a full output, up to one byte more than the limit: that byte shows that the limit is passed.
    fn make_room(&self, out: &mut Vec<u8>) {
        if out.len() < out.capacity() {
            return;
        }
        let used = out.len() - self.start;
        let left = self.limit.saturating_add(1) - used;
        out.reserve_exact(left.min(used.max(Inflater::CHUNK_BYTES)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use proptest::prelude::*;

    use super::*;

    fn compress(payload: &[u8], window_bits: u8) -> Vec<u8> {
        let mut out = Vec::new();
        Deflater::default().compress(payload, window_bits, &mut out).unwrap();
        out
    }

    fn inflate(compressed: &[u8]) -> Result<Vec<u8>, InflateError> {
        let mut out = Vec::new();
        Inflater::default().inflate(compressed, 1 << 20, &mut out).map(|()| out)
    }

    /// Some JSON, compressible but not trivially.
    fn json(bytes: usize) -> Vec<u8> {
        let mut text = Vec::new();
        for n in 0_u32.. {
            if text.len() >= bytes {
                break;
            }
            let price = n.wrapping_mul(2_654_435_761) % 100_000;
            text.extend_from_slice(format!("{{\"id\":{n},\"price\":{price},\"name\":\"item {}\"}},", n % 7).as_bytes());
        }
        text.truncate(bytes);
        text
    }

    #[test]
    fn rfc_7692_section_7_2_3_examples() {
        let hello = Ok(b"Hello".to_vec());
        assert_eq!(inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00"), hello, "7.2.3.1 one block");
        assert_eq!(inflate(b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"), hello, "7.2.3.3 without compression");
        assert_eq!(inflate(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), hello, "7.2.3.4 a block that says it is the last");
        assert_eq!(inflate(b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), hello, "7.2.3.5 two blocks");
        assert_eq!(inflate(b"\x00"), Ok(Vec::new()), "7.2.3.6 an empty message");
        assert_eq!(compress(b"Hello", 15), b"\xf2\x48\xcd\xc9\xc9\x07\x00");
        assert_eq!(compress(b"", 15), b"\x00");
        // 7.2.3.2: "Hello" again, with context takeover, refers to the message before. We have refused that.
        assert_eq!(inflate(b"\xf2\x00\x11\x00\x00"), Err(InflateError::Garbage));
    }

    #[test]
    fn last_blocks_may_stand_anywhere() {
        assert_eq!(inflate(b"\xf3\x48\xcd\xc9\xc9\x07\x00"), Ok(b"Hello".to_vec()), "nothing behind");
        let twice = b"\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00\x00";
        assert_eq!(inflate(twice), Ok(b"HelloHello".to_vec()));
        assert_eq!(inflate(b"\x01"), Ok(Vec::new()), "the one that the tail ends");
        assert_eq!(inflate(&b"\x03\x00".repeat(200)), Ok(Vec::new()));
        assert_eq!(inflate(&b"\x03\x00".repeat(100_000)), Err(InflateError::Garbage), "each costs a reset");
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(inflate(b"\xff\xff\xff"), Err(InflateError::Garbage));
        assert_eq!(inflate(b"Hello"), Err(InflateError::Garbage));
        assert_eq!(inflate(b"\x00\x05\x00\xfa\xffHel"), Err(InflateError::Garbage), "cut off in a stored block");
        assert_eq!(inflate(b"\x00\x07\x00\xf8\xffHel"), Err(InflateError::Garbage), "by as much as the tail fills");
        let whole = compress(&json(3000), 15);
        assert_eq!(inflate(&whole[..whole.len() / 2]), Err(InflateError::Garbage), "cut off in a compressed one");
    }

    /// The input may be used up while output is still due.
    #[test]
    fn every_size_around_a_full_output() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        for len in (4000..4800).chain(8100..8600) {
            let (mut compressed, mut out) = (Vec::new(), Vec::new());
            deflater.compress(&vec![b'a'; len], 15, &mut compressed).unwrap();
            assert_eq!(inflater.inflate(&compressed, len, &mut out), Ok(()), "{len}");
            assert_eq!(out.len(), len);
        }
    }

    #[test]
    fn the_limit_is_the_last_size_that_fits() {
        let (mut inflater, message) = (Inflater::default(), json(70_000));
        let compressed = compress(&message, 15);
        for limit in [0, 1, 4095, 4096, 4097, 69_999] {
            assert_eq!(inflater.inflate(&compressed, limit, &mut Vec::new()), Err(InflateError::TooBig), "{limit}");
        }
        for limit in [70_000, 70_001, usize::MAX] {
            let mut out = b"before".to_vec();
            assert_eq!(inflater.inflate(&compressed, limit, &mut out), Ok(()), "{limit}");
            assert_eq!(out, [b"before".as_slice(), &message].concat());
        }
    }

    /// A few bytes became gigabytes: the size was looked at when all was inflated.
    #[test]
    fn cve_2026_39804_inflate_without_a_cap() {
        let bomb = compress(&vec![0; 64 << 20], 15);
        assert!(bomb.len() < 1 << 20);
        let mut out = Vec::new();
        assert_eq!(Inflater::default().inflate(&bomb, 1 << 16, &mut out), Err(InflateError::TooBig));
        assert!(out.capacity() <= (1 << 16) + 1, "{}", out.capacity());
    }

    /// An inflater with the agreed window must do; it is fed so that it cannot look further back than that.
    #[test]
    fn windows_are_kept() {
        let message = json(20_000);
        for window_bits in WINDOW_BITS {
            let mut compressed = compress(&message, window_bits);
            compressed.extend_from_slice(&TAIL);
            let mut peer = Decompress::new_with_window_bits(false, window_bits);
            let (mut out, mut piece) = (Vec::new(), [0; 64]);
            while out.len() < message.len() {
                let (from, before) = (usize::try_from(peer.total_in()).unwrap(), peer.total_out());
                peer.decompress(&compressed[from..], &mut piece, FlushDecompress::None).unwrap();
                out.extend_from_slice(&piece[..usize::try_from(peer.total_out() - before).unwrap()]);
            }
            assert_eq!(out, message, "{window_bits} bits");
        }
    }

    #[test]
    fn one_message_leaves_nothing_for_the_next() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let message = json(1000);
        let mut first = Vec::new();
        deflater.compress(&message, 12, &mut first).unwrap();
        for _ in 0..3 {
            let (mut again, mut out) = (Vec::new(), Vec::new());
            deflater.compress(&message, 12, &mut again).unwrap();
            assert_eq!(again, first);
            assert_eq!(inflater.inflate(b"garbage", 1000, &mut Vec::new()), Err(InflateError::Garbage));
            inflater.inflate(&again, 1000, &mut out).unwrap();
            assert_eq!(out, message);
        }
    }

    proptest! {
        #[test]
        fn there_and_back(
            piece in prop::collection::vec(any::<u8>(), 0..600),
            times in 1..200_usize,
            window_bits in WINDOW_BITS,
        ) {
            let message = piece.repeat(times);
            prop_assert_eq!(inflate(&compress(&message, window_bits)), Ok(message));
        }
    }
}
