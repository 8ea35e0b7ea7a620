//! The Huffman code of strings (RFC 7541 section 5.2, appendix B).
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and the first of a length is
//! the one after the last that is shorter, with zeros behind. So the lengths are all that has to be known; the machine that
//! decodes four bits at a time is built from them when this is compiled.

use super::BadBlock;

/// The end of a string, which must not be in one.
const END: usize = 256;

/// Bits of each symbol's code.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6,
    7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5,
    5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24,
    24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22,
    23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26,
    27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23,
    22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The longest code: that of [`END`], all ones.
const LENGTH_MAX: u8 = 30;

/// The code of each symbol.
const CODES: [u32; 257] = codes();

/// What four bits lead to, from each inner node of the code's tree.
static STEPS: [[Step; 16]; 256] = steps();

/// Four bits read. No code is shorter than five, so at most one symbol ends in them.
#[derive(Clone, Copy)]
struct Step {
    /// The node behind them.
    next: u8,
    /// The symbol that ended in them, where [`Step::ENDED`] says so.
    symbol: u8,
    /// Bits as below.
    flags: u8,
}

impl Step {
    /// A symbol ended.
    const ENDED: u8 = 1;
    /// A string can end here: what was read of the next code is padding, below eight bits and all ones.
    const CAN_END: u8 = 2;
    /// [`END`] is in the string.
    const FAILED: u8 = 4;
}

const fn codes() -> [u32; 257] {
    let mut codes = [0; 257];
    let (mut next, mut length) = (0, 1);
    while length <= LENGTH_MAX {
        let mut symbol = 0;
        while symbol <= END {
            if LENGTHS[symbol] == length {
                codes[symbol] = next;
                next += 1;
            }
            symbol += 1;
        }
        next <<= 1;
        length += 1;
    }
    codes
}

/// The code as a tree: from each inner node (the root is 0) by a bit to another, or to a symbol, written as 256 more than it.
const fn tree() -> [[u16; 2]; 256] {
    let mut tree = [[0; 2]; 256];
    let mut nodes = 1;
    let mut symbol = 0;
    while symbol <= END {
        let (mut node, mut bits) = (0, LENGTHS[symbol]);
        while bits > 1 {
            bits -= 1;
            let bit = (CODES[symbol] >> bits & 1) as usize;
            if tree[node][bit] == 0 {
                tree[node][bit] = nodes;
                nodes += 1;
            }
            node = tree[node][bit] as usize;
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most 512")]
        let leaf = (symbol + 256) as u16;
        tree[node][(CODES[symbol] & 1) as usize] = leaf;
        symbol += 1;
    }
    assert!(nodes == 256, "a full tree with 257 leaves has 256 inner nodes");
    tree
}

/// Which nodes a padding leads to: the root, and up to seven ones from it.
const fn can_end(tree: &[[u16; 2]; 256]) -> [bool; 256] {
    let mut can_end = [false; 256];
    let (mut node, mut ones) = (0, 0);
    while ones <= 7 {
        can_end[node] = true;
        node = tree[node][1] as usize;
        ones += 1;
    }
    can_end
}

const fn steps() -> [[Step; 16]; 256] {
    let tree = tree();
    let can_end = can_end(&tree);
    let mut steps = [[Step { next: 0, symbol: 0, flags: 0 }; 16]; 256];
    let mut from = 0;
    while from < 256 {
        let mut bits = 0;
        while bits < 16 {
            steps[from][bits] = step(&tree, &can_end, from, bits);
            bits += 1;
        }
        from += 1;
    }
    steps
}

#[allow(clippy::cast_possible_truncation, reason = "nodes are below 256, and so are symbols but one, told apart")]
const fn step(tree: &[[u16; 2]; 256], can_end: &[bool; 256], from: usize, bits: usize) -> Step {
    let (mut node, mut symbol, mut flags) = (from, 0, 0);
    let mut left = 4;
    while left > 0 {
        left -= 1;
        let to = tree[node][bits >> left & 1] as usize;
        node = if to < 256 { to } else { 0 };
        if to == 256 + END {
            flags |= Step::FAILED;
        } else if to >= 256 {
            symbol = (to - 256) as u8;
            flags |= Step::ENDED;
        }
    }
    if can_end[node] {
        flags |= Step::CAN_END;
    }
    Step { next: node as u8, symbol, flags }
}

/// Appends what a string stands for: at most eight fifths of its bytes.
///
/// # Errors
/// When the end symbol is in it, or its padding is not what it must be: fewer than eight bits, all ones.
pub(super) fn decode(string: &[u8], out: &mut Vec<u8>) -> Result<(), BadBlock> {
    out.reserve(string.len() * 8 / 5);
    let (mut node, mut flags) = (0, Step::CAN_END);
    for byte in string {
        for bits in [byte >> 4, byte & 15] {
            let step = &STEPS[usize::from(node)][usize::from(bits)];
            (node, flags) = (step.next, step.flags);
            if flags & Step::FAILED != 0 {
                return Err(BadBlock::Huffman);
            }
            if flags & Step::ENDED != 0 {
                out.push(step.symbol);
            }
        }
    }
    if flags & Step::CAN_END == 0 { Err(BadBlock::Huffman) } else { Ok(()) }
}

/// Appends the code of a string. Blocks of ours have their strings as they are; this is the other side in tests.
#[cfg(test)]
pub(super) fn encode(string: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0_u64, 0_u32);
    for &byte in string {
        let length = u32::from(LENGTHS[usize::from(byte)]);
        bits = bits << length | u64::from(CODES[usize::from(byte)]);
        count += length;
        while count >= 8 {
            count -= 8;
            out.push((bits >> count).to_le_bytes()[0]);
        }
    }
    if count > 0 {
        out.push((bits << (8 - count)).to_le_bytes()[0] | 0xff >> count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(string: &[u8]) -> Result<Vec<u8>, BadBlock> {
        let mut out = Vec::new();
        decode(string, &mut out).map(|()| out)
    }

    #[test]
    fn codes_are_those_of_appendix_b() {
        assert_eq!((CODES[usize::from(b'0')], LENGTHS[usize::from(b'0')]), (0, 5));
        assert_eq!((CODES[usize::from(b'a')], LENGTHS[usize::from(b'a')]), (0x3, 5));
        assert_eq!((CODES[usize::from(b' ')], LENGTHS[usize::from(b' ')]), (0x14, 6));
        assert_eq!((CODES[usize::from(b':')], LENGTHS[usize::from(b':')]), (0x5c, 7));
        assert_eq!((CODES[usize::from(b'Z')], LENGTHS[usize::from(b'Z')]), (0xfd, 8));
        assert_eq!((CODES[usize::from(b'\\')], LENGTHS[usize::from(b'\\')]), (0x7fff0, 19));
        assert_eq!((CODES[0], LENGTHS[0]), (0x1ff8, 13));
        assert_eq!((CODES[255], LENGTHS[255]), (0x03ff_ffee, 26));
        assert_eq!((CODES[END], LENGTHS[END]), (0x3fff_ffff, 30));
    }

    #[test]
    fn every_byte_comes_back() {
        for first in 0..=255 {
            for second in 0..=255 {
                let (string, mut code) = ([first, second, b'a'], Vec::new());
                encode(&string, &mut code);
                assert_eq!(decoded(&code).as_deref(), Ok(&string[..]));
            }
        }
        assert_eq!(decoded(b""), Ok(Vec::new()));
    }

    #[test]
    fn padding_is_below_eight_bits_of_ones() {
        // Section 5.2. "a" is 00011, so three bits are left.
        assert_eq!(decoded(&[0b0001_1111]), Ok(b"a".to_vec()));
        assert_eq!(decoded(&[0b0001_1110]), Err(BadBlock::Huffman));
        assert_eq!(decoded(&[0b0001_1000]), Err(BadBlock::Huffman));
        assert_eq!(decoded(&[0b0001_1111, 0xff]), Err(BadBlock::Huffman));
        assert_eq!(decoded(&[0xff]), Err(BadBlock::Huffman));
        // "X" is 11111100, eight bits: nothing is left, and a byte of ones is too much.
        assert_eq!(decoded(&[0xfc]), Ok(b"X".to_vec()));
        assert_eq!(decoded(&[0xfc, 0xff]), Err(BadBlock::Huffman));
        // ":" is 1011100: one bit is left.
        assert_eq!(decoded(&[0b1011_1001]), Ok(b":".to_vec()));
    }

    #[test]
    fn the_end_symbol_is_refused() {
        // Section 5.2: a decoding error, also when something follows it.
        assert_eq!(decoded(&[0xff; 4]), Err(BadBlock::Huffman));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xfc, 0x7f, 0xff]), Err(BadBlock::Huffman));
    }
}
