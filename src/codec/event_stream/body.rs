//! The body of an answer, out of its chunks when it has some (RFC 9112, section 7.1), wherever the bytes are cut.
//!
//! Trailers are not read: behind the last chunk nothing is of interest.

/// Bytes of one chunk at most: what is left of one fits beside the state.
pub const CHUNK_BYTES_MAX: u32 = (1 << LEFT_BITS) - 1;

const LEFT_BITS: u32 = 28;

/// No way to write a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadBody {
    /// Its size is no hexadecimal number with a line end.
    #[error("a chunk without a size")]
    Size,
    /// More than [`CHUNK_BYTES_MAX`].
    #[error("a chunk of more than {CHUNK_BYTES_MAX} bytes")]
    TooLong,
    /// Something else than a line end behind its bytes.
    #[error("a chunk that goes on behind its end")]
    End,
}

/// Where a body is read.
///
/// ```text
///  Plain
///  Start -> Size -> (Extension) -> SizeEnd -> Data -> DataEnd -> DataFeed -> Start
///                                     +-> Over
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// No chunks: all is body until the connection ends.
    Plain,
    /// The first digit of a size is due.
    Start,
    /// More digits, or the end of the line.
    Size,
    /// What follows a semicolon.
    Extension,
    /// The newline behind a size.
    SizeEnd,
    /// Bytes of the body.
    Data,
    /// The carriage return behind them.
    DataEnd,
    /// The newline behind that.
    DataFeed,
    /// The last chunk has come.
    Over,
}

const STATES: [State; 9] = [
    State::Plain,
    State::Start,
    State::Size,
    State::Extension,
    State::SizeEnd,
    State::Data,
    State::DataEnd,
    State::DataFeed,
    State::Over,
];

/// Reads a body; [packed](Body::pack) it is four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    state: State,
    /// Bytes of the chunk that have not come; its size so far while that is read.
    left: u32,
}

impl Body {
    /// One that ends with its connection.
    #[must_use]
    pub const fn until_close() -> Self {
        Self { state: State::Plain, left: 0 }
    }

    /// One in chunks.
    #[must_use]
    pub const fn chunked() -> Self {
        Self { state: State::Start, left: 0 }
    }

    /// As a number.
    #[must_use]
    pub const fn pack(self) -> u32 {
        (self.state as u32) << LEFT_BITS | self.left
    }

    /// From such a number; a body that is over from any other.
    #[must_use]
    pub fn unpack(packed: u32) -> Self {
        let state = STATES.get((packed >> LEFT_BITS) as usize).copied().unwrap_or(State::Over);
        Self { state, left: packed & CHUNK_BYTES_MAX }
    }

    /// Whether nothing more comes.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.state == State::Over
    }

    /// Takes the next piece of the body from the front of `bytes`, with what stands before it. Empty when `bytes` has no
    /// more of it; then all of them are taken.
    ///
    /// # Errors
    /// When they are no chunks.
    #[inline]
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<&'a [u8], BadBody> {
        if self.state == State::Plain {
            return Ok(std::mem::take(bytes));
        }
        while let Some((first, rest)) = bytes.split_first() {
            if self.state == State::Data {
                return Ok(self.take(bytes));
            }
            if self.state == State::Over {
                break;
            }
            self.step(*first)?;
            *bytes = rest;
        }
        *bytes = &[];
        Ok(&[])
    }

    fn take<'a>(&mut self, bytes: &mut &'a [u8]) -> &'a [u8] {
        let (piece, rest) = bytes.split_at(bytes.len().min(self.left as usize));
        *bytes = rest;
        self.left = self.left.saturating_sub(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        if self.left == 0 {
            self.state = State::DataEnd;
        }
        piece
    }

    /// One byte of what stands between the pieces.
    fn step(&mut self, byte: u8) -> Result<(), BadBody> {
        self.state = match (self.state, byte) {
            (State::Start | State::Size, _) if byte.is_ascii_hexdigit() => {
                if self.left > CHUNK_BYTES_MAX >> 4 {
                    return Err(BadBody::TooLong);
                }
                self.left = self.left << 4 | char::from(byte).to_digit(16).unwrap_or(0);
                State::Size
            }
            (State::Size, b';' | b' ' | b'\t') => State::Extension,
            (State::Size | State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, byte) if byte != b'\n' => State::Extension,
            (State::SizeEnd, b'\n') if self.left == 0 => State::Over,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataEnd, b'\r') => State::DataFeed,
            (State::DataFeed, b'\n') => State::Start,
            (State::DataEnd | State::DataFeed, _) => return Err(BadBody::End),
            _ => return Err(BadBody::Size),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use proptest::prelude::*;

    use super::*;

    /// The body of pieces, packed between any two of them.
    fn read(body: Body, pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), BadBody> {
        let (mut packed, mut out) = (body.pack(), Vec::new());
        for piece in pieces {
            let (mut bytes, mut body) = (*piece, Body::unpack(packed));
            loop {
                let piece = body.next(&mut bytes)?;
                if piece.is_empty() {
                    break;
                }
                out.extend_from_slice(piece);
            }
            assert!(bytes.is_empty(), "all was taken");
            packed = body.pack();
        }
        Ok((out, Body::unpack(packed).is_over()))
    }

    #[test]
    fn chunks_are_read_wherever_they_are_cut() {
        let bytes = b"4\r\nwiki\r\n10;name=\"v\"\r\n0123456789abcdef\r\n00A \r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        let expected = b"wiki0123456789abcdef0123456789".to_vec();
        assert_eq!(read(Body::chunked(), &[bytes]), Ok((expected.clone(), true)));
        for cut in 0..bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(read(Body::chunked(), &[head, tail]), Ok((expected.clone(), true)), "{cut}");
        }
        let one_by_one: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(Body::chunked(), &one_by_one), Ok((expected, true)));
    }

    #[test]
    fn a_body_that_ends_with_its_connection_is_all_there_is() {
        assert_eq!(read(Body::until_close(), &[b"4\r\n", b"x"]), Ok((b"4\r\nx".to_vec(), false)));
    }

    #[test]
    fn what_is_no_chunk_is_told() {
        for (bytes, expected) in [
            (&b"\r\n"[..], BadBody::Size),
            (b"x", BadBody::Size),
            (b"4\n", BadBody::Size),
            (b"4;a\n", BadBody::Size),
            (b"4\rx", BadBody::Size),
            (b"-4", BadBody::Size),
            (b"10000000\r\n", BadBody::TooLong),
            (b"ffffffffffffffffff", BadBody::TooLong),
            (b"1\r\nab", BadBody::End),
            (b"1\r\na\n", BadBody::End),
            (b"1\r\na\rx", BadBody::End),
        ] {
            assert_eq!(read(Body::chunked(), &[bytes]), Err(expected), "{bytes:?}");
        }
        assert_eq!(read(Body::chunked(), &[b"fffffff\r\nab"]), Ok((b"ab".to_vec(), false)), "the longest");
    }

    #[test]
    fn numbers_are_bodies() {
        for state in STATES {
            for left in [0, 1, CHUNK_BYTES_MAX] {
                let body = Body { state, left };
                assert_eq!(Body::unpack(body.pack()), body);
            }
        }
        assert!(Body::unpack(u32::MAX).is_over());
    }

    proptest! {
        #[test]
        fn anything_is_survived_and_reads_the_same_in_pieces(
            bytes in prop::collection::vec(prop::sample::select(&b"0124af;\r\n x"[..]), 0..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(read(Body::chunked(), &[&bytes]), read(Body::chunked(), &[head, tail]));
        }
    }
}
