//! Bytes that came before their turn, kept until the hole before them is filled.
//!
//! Without them one lost segment would cost the whole window behind it, and the peer, which we send no time stamps, would
//! learn nothing about the path while it sends all that again (Karn's rule, RFC 6298 section 3), and wait ever longer.

use hashbrown::HashMap;

/// Segments of one connection at most; a window has 45 full ones.
const SEGMENTS_MAX: usize = 64;
/// Bytes of all connections at most. What finds no place is dropped, and the peer sends it again.
const BYTES_MAX: usize = 64 << 20;

/// A segment's first sequence number and its bytes.
type Piece = (u32, Box<[u8]>);

/// The pieces of all connections, by index.
#[derive(Debug, Default)]
pub(super) struct Held {
    pieces: HashMap<u32, Vec<Piece>>,
    bytes: usize,
}

impl Held {
    /// Keeps a copy, if there is room and it is not there already. Whether anything of this connection is kept.
    pub(super) fn keep(&mut self, index: u32, seq: u32, bytes: &[u8]) -> bool {
        let known = self.pieces.get(&index).map_or(&[][..], Vec::as_slice);
        let is_there = known.iter().any(|(start, piece)| *start == seq && piece.len() >= bytes.len());
        if is_there || known.len() >= SEGMENTS_MAX || bytes.len() > BYTES_MAX - self.bytes {
            return !known.is_empty();
        }
        self.bytes += bytes.len();
        self.pieces.entry(index).or_default().push((seq, bytes.into()));
        true
    }

    /// Takes a piece in which `next` lies, with the number of bytes in it that come before. Pieces that are old news
    /// are dropped.
    pub(super) fn take(&mut self, index: u32, next: u32) -> Option<(Box<[u8]>, usize)> {
        let pieces = self.pieces.get_mut(&index)?;
        let old = |(seq, _): &Piece| next.wrapping_sub(*seq) as usize;
        // Wrapping makes `old` huge for pieces that are still ahead; a window is far less than half of all numbers.
        let is_ahead = |piece: &Piece| old(piece) > u32::MAX as usize / 2;
        let mut bytes = self.bytes;
        pieces.retain(|piece| {
            let stays = is_ahead(piece) || old(piece) < piece.1.len();
            bytes -= if stays { 0 } else { piece.1.len() };
            stays
        });
        self.bytes = bytes;
        let at = pieces.iter().position(|piece| !is_ahead(piece))?;
        let piece = pieces.swap_remove(at);
        self.bytes -= piece.1.len();
        let old = old(&piece);
        Some((piece.1, old))
    }

    /// Whether nothing is kept of this connection. An empty list goes.
    pub(super) fn is_done(&mut self, index: u32) -> bool {
        let is_done = self.pieces.get(&index).is_none_or(Vec::is_empty);
        if is_done {
            self.pieces.remove(&index);
        }
        is_done
    }

    /// Drops all of a connection.
    pub(super) fn forget(&mut self, index: u32) {
        let pieces = self.pieces.remove(&index).unwrap_or_default();
        self.bytes -= pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u32 = u32::MAX - 1;

    #[test]
    fn pieces_come_out_when_it_is_their_turn() {
        let mut held = Held::default();
        for (at, bytes) in [(8, &b"89"[..]), (2, b"234"), (4, b"4567"), (2, b"23")] {
            assert!(held.keep(7, START.wrapping_add(at), bytes));
        }
        assert_eq!(held.take(7, START), None);
        assert_eq!(held.take(7, START.wrapping_add(2)), Some((b"234"[..].into(), 0)));
        assert_eq!(held.take(7, START.wrapping_add(5)), Some((b"4567"[..].into(), 1)));
        assert!(!held.is_done(7));
        assert_eq!(held.take(7, START.wrapping_add(10)), None);
        assert!(held.is_done(7));
        assert_eq!(held.bytes, 0);
    }

    #[test]
    fn there_is_a_bound_and_what_is_forgotten_counts_no_more() {
        let mut held = Held::default();
        for seq in 0..100 {
            assert!(held.keep(1, seq * 2 + 1, b"x"));
        }
        assert_eq!(held.bytes, SEGMENTS_MAX);
        held.bytes += BYTES_MAX - SEGMENTS_MAX;
        assert!(!held.keep(2, 1, b"x"));
        held.bytes -= BYTES_MAX - SEGMENTS_MAX;
        held.forget(1);
        assert!(held.is_done(1) && held.bytes == 0);
    }
}
