//! Masking, RFC 6455 section 5.3.

/// Takes the mask off `bytes` (or puts it on, which is the same), where `bytes[0]` is byte number `offset` of the
/// frame's payload.
#[inline]
pub fn unmask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    // The key as it lies over `bytes`: turned left by the bytes that an earlier piece has used up.
    let at = |index: usize| key[(offset + index) % 4];
    let key = [at(0), at(1), at(2), at(3)];
    let narrow = u32::from_ne_bytes(key);
    let wide = u64::from(narrow) << 32 | u64::from(narrow);
    // Whole words first; the compiler turns this loop into vector instructions.
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    // At most 7 bytes are left, and they start at a multiple of 4.
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(bytes: &mut [u8], key: [u8; 4], offset: usize) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte ^= key[(offset + index) % 4];
        }
    }

    #[test]
    fn section_5_7_a_masked_hello() {
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&payload, b"Hello");
    }

    #[test]
    fn every_length_and_offset_is_as_the_naive_loop() {
        for len in 0..130 {
            for offset in 0..9 {
                let mut fast: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
                let mut slow = fast.clone();
                unmask(&mut fast, [1, 2, 4, 128], offset);
                naive(&mut slow, [1, 2, 4, 128], offset);
                assert_eq!(fast, slow, "{len} bytes from {offset}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_are_as_the_whole(bytes: Vec<u8>, key: [u8; 4], cut: prop::sample::Index) {
            let mut whole = bytes.clone();
            naive(&mut whole, key, 0);
            let mut pieces = bytes;
            let cut = if pieces.is_empty() { 0 } else { cut.index(pieces.len()) };
            let (head, tail) = pieces.split_at_mut(cut);
            unmask(head, key, 0);
            unmask(tail, key, cut);
            prop_assert_eq!(pieces, whole);
        }
    }
}
