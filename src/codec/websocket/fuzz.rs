//! What a fuzzer runs: each takes any bytes and panics when the codec is wrong.

use super::deflate::{Deflater, InflateError, Inflater, WINDOW_BITS};
use super::frame::{ClientHeader, Parsed};
use super::{close, extension, mask, utf8};

/// Headers: a cut never changes what is said.
pub fn fuzz_header(data: &[u8]) {
    let data = &data[..data.len().min(16)];
    let whole = ClientHeader::parse(data);
    for cut in 0..data.len() {
        match ClientHeader::parse(&data[..cut]) {
            Ok(Parsed::Needs(needs)) => assert!(needs > cut),
            known => assert_eq!(known, whole),
        }
    }
    if let Ok(Parsed::Header(header)) = whole {
        assert!(header.header_bytes <= data.len() && header.payload_bytes >> 63 == 0);
    }
}

/// Masks: pieces are as the whole, byte by byte.
pub fn fuzz_unmask(data: &[u8]) {
    let Some((key, rest)) = data.split_first_chunk::<4>() else { return };
    let cut = usize::from(key[0]).min(rest.len());
    let mut pieces = rest.to_vec();
    mask::unmask(&mut pieces[..cut], *key, 0);
    mask::unmask(&mut pieces[cut..], *key, cut);
    for (index, (masked, plain)) in rest.iter().zip(&pieces).enumerate() {
        assert_eq!(masked ^ key[index % 4], *plain);
    }
}

/// Text: in pieces it is what the standard library says of the whole, and never refused late.
pub fn fuzz_utf8(data: &[u8]) {
    let Some((&step, text)) = data.split_first() else { return };
    let step = usize::from(step % 7) + 1;
    let (mut valid, mut refused) = (0, false);
    for end in (0..text.len()).step_by(step).chain([text.len()]) {
        match utf8::check_partial(&text[..end], valid) {
            Ok(now) => valid = now,
            Err(_) => refused = true,
        }
        let hopeless = std::str::from_utf8(&text[..end]).is_err_and(|error| error.error_len().is_some());
        assert_eq!(refused, hopeless);
        if refused {
            break;
        }
    }
    assert_eq!(!refused && valid == text.len(), std::str::from_utf8(text).is_ok());
    assert_eq!(utf8::check(text).is_ok(), std::str::from_utf8(text).is_ok());
}

/// Any bytes inflate within the limit or not at all.
pub fn fuzz_inflate(data: &[u8], inflater: &mut Inflater) {
    let limit = data.first().map_or(0, |&first| usize::from(first) * 64);
    let mut out = Vec::new();
    match inflater.inflate(data, limit, &mut out) {
        Ok(()) => assert!(out.len() <= limit),
        Err(InflateError::TooBig) => assert!(out.len() > limit),
        Err(InflateError::Garbage) => {}
    }
    assert!(out.capacity() <= limit + 1);
}

/// What is compressed inflates to what it was.
pub fn fuzz_deflate(data: &[u8], deflater: &mut Deflater, inflater: &mut Inflater) {
    let window_bits = WINDOW_BITS.start() + data.first().map_or(0, |first| first % 7);
    let (mut compressed, mut back) = (Vec::new(), Vec::new());
    assert_eq!(deflater.compress(data, window_bits, &mut compressed), Ok(()));
    assert_eq!(inflater.inflate(&compressed, data.len(), &mut back), Ok(()));
    assert_eq!(back, data);
}

/// Offers and close frames are taken or not.
pub fn fuzz_small(data: &[u8]) {
    if let Some(agreement) = extension::negotiate(&String::from_utf8_lossy(data)) {
        assert!(WINDOW_BITS.contains(&agreement.window_bits));
    }
    if let Ok(Some(code)) = close::parse(data) {
        assert!(close::may_be_sent(code));
    }
}

/// Inputs for the bodies where no fuzzer runs: xorshift64*, a seed gives one sequence.
#[cfg(test)]
pub(crate) mod random {
    pub(crate) struct Random(pub(crate) u64);

    impl Random {
        pub(crate) fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }

        pub(crate) fn below(&mut self, bound: usize) -> usize {
            usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
        }

        pub(crate) fn bytes(&mut self, len_max: usize) -> Vec<u8> {
            (0..self.below(len_max + 1)).map(|_| self.next().to_be_bytes()[0]).collect()
        }

        /// Changes a few bytes, doubles or drops some.
        pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
            for _ in 0..=self.below(3) {
                let at = self.below(bytes.len());
                match self.below(4) {
                    _ if bytes.is_empty() => bytes.extend(self.bytes(4)),
                    0 => bytes[at] ^= 1 << self.below(8),
                    1 => bytes[at] = self.next().to_be_bytes()[0],
                    2 => drop(bytes.drain(at..(at + self.below(4)).min(bytes.len()))),
                    _ => bytes.insert(at, bytes[at]),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::random::Random;
    use super::*;

    #[test]
    fn bodies_hold_on_random_and_mutated_inputs() {
        let (mut random, mut deflater, mut inflater) = (Random(0x5eed), Deflater::default(), Inflater::default());
        let seeds: [&[u8]; 6] = [
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
            b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04",
            "\u{2}κόσμε \u{10ffff} plain text".as_bytes(),
            b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
            b"permessage-deflate; server_max_window_bits=10; client_max_window_bits, permessage-deflate",
            b"\x03\xe8bye",
        ];
        for round in 0..50_000 {
            let mut data = seeds[round % seeds.len()].to_vec();
            if round % 4 == 0 {
                data = random.bytes(64);
            } else {
                random.mutate(&mut data);
            }
            fuzz_header(&data);
            fuzz_unmask(&data);
            fuzz_utf8(&data);
            fuzz_small(&data);
            fuzz_inflate(&data, &mut inflater);
            if round % 32 == 0 {
                fuzz_deflate(&data, &mut deflater, &mut inflater);
            }
        }
    }
}
