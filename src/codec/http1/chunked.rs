//! Bodies in chunks, RFC 9112 section 7.1, read as strictly as heads are: only one reading of the bytes is possible.
//!
//! ```text
//!   size --CR--> size_lf --LF--> data --------> data_cr --> data_lf --> size
//!    \  ;         ^   \  LF, size 0                                       |
//!     +-> extension    +--> trailer_start <-- trailer_lf <-- trailer      |
//!                               \ CR                 ^--------/           |
//!                                +--> end_lf --LF--> done                 v
//! ```

use crate::rule::Rule;

/// What is wrong with a body in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChunk {
    /// Not hexadecimal digits, or too many of them.
    #[error("a chunk's size is malformed")]
    Size,
    /// Not CR LF where a chunk or its size ends.
    #[error("a chunk or its size does not end in CR LF")]
    End,
    /// Control characters in an extension, or too long ones.
    #[error("a chunk's extension is malformed or too long")]
    Extension,
    /// A field behind the last chunk that is none, or too many bytes of them.
    #[error("the body's trailer is malformed or too long")]
    Trailer,
    /// More bytes than are taken.
    #[error("the body is too large")]
    TooLarge,
}

impl BadChunk {
    /// The rule that was broken; a body over its limit has none of its own.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Size => Rule::ChunkSize,
            Self::End => Rule::ChunkEnd,
            Self::Extension => Rule::ChunkExtension,
            Self::Trailer => Rule::Trailer,
            Self::TooLarge => Rule::BodyTooLarge,
        }
    }
}

/// Where a body stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// A body in chunks that is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    state: State,
    /// The size that is being read, then the bytes of the chunk that are still to come.
    left: u64,
    /// Digits of the size.
    digits: u8,
    /// Bytes of all chunks so far, the announced ones included.
    total: u64,
    /// Bytes of extensions so far.
    extensions: usize,
    /// Bytes of trailers so far.
    trailers: usize,
}

/// How far [`Chunks::decode`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes that were read. Those behind the body's end are not.
    pub consumed: usize,
    /// Bytes of the body, now at the start of what was given.
    pub written: usize,
    /// Whether the body is whole.
    pub done: bool,
}

impl Chunks {
    /// Digits of a size: 64 bits, leading zeros included.
    const DIGITS_MAX: u8 = 16;
    /// Bytes of one body's extensions together. Nobody uses them (CVE-2023-39326).
    const EXTENSIONS_MAX: usize = 4 * 1024;
    /// Bytes of the trailers, which are read and ignored.
    const TRAILERS_MAX: usize = 8 * 1024;

    /// Reads the next bytes and moves what is the body's to their start. A chunk over `bytes_max`, with those before it,
    /// is refused when its size is known.
    ///
    /// # Errors
    /// When it is no such body.
    pub fn decode(&mut self, bytes: &mut [u8], bytes_max: usize) -> Result<Decoded, BadChunk> {
        let (mut at, mut written) = (0, 0);
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                bytes.copy_within(at..at + length, written);
                (at, written) = (at + length, written + length);
                self.left -= length as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(bytes[at], bytes_max)?;
                at += 1;
            }
        }
        Ok(Decoded { consumed: at, written, done: self.state == State::Done })
    }

    /// Takes a byte that is not the body's.
    fn step(&mut self, byte: u8, bytes_max: usize) -> Result<State, BadChunk> {
        Ok(match (self.state, byte) {
            (State::Size, _) => return self.size(byte),
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) => {
                self.extensions += 1;
                if self.extensions > Self::EXTENSIONS_MAX || is_control(byte) {
                    return Err(BadChunk::Extension);
                }
                State::Extension
            }
            (State::SizeLf, b'\n') => return self.begin_chunk(bytes_max),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::SizeLf | State::DataCr | State::DataLf, _) => return Err(BadChunk::End),
            _ => return self.trailer(byte),
        })
    }

    fn size(&mut self, byte: u8) -> Result<State, BadChunk> {
        match byte {
            b'\r' if self.digits > 0 => Ok(State::SizeLf),
            b';' if self.digits > 0 => Ok(State::Extension),
            _ => {
                let digit = char::from(byte).to_digit(16).filter(|_| self.digits < Self::DIGITS_MAX);
                self.left = self.left << 4 | u64::from(digit.ok_or(BadChunk::Size)?);
                self.digits += 1;
                Ok(State::Size)
            }
        }
    }

    fn begin_chunk(&mut self, bytes_max: usize) -> Result<State, BadChunk> {
        self.digits = 0;
        self.total = self.total.saturating_add(self.left);
        if self.total > bytes_max as u64 {
            return Err(BadChunk::TooLarge);
        }
        Ok(if self.left == 0 { State::TrailerStart } else { State::Data })
    }

    fn trailer(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.trailers += 1;
        if self.trailers > Self::TRAILERS_MAX {
            return Err(BadChunk::Trailer);
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerStart | State::TrailerName, _) if super::head::is_token(byte) => Ok(State::TrailerName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if !is_control(byte) => Ok(State::TrailerValue),
            _ => Err(BadChunk::Trailer),
        }
    }
}

/// Anything but a tab that has no place in a line.
const fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// The body and what follows it; `None` while it is unfinished.
    fn read(stream: &[u8], piece: usize, bytes_max: usize) -> Result<Option<(Vec<u8>, usize)>, BadChunk> {
        let (mut chunks, mut body, mut consumed) = (Chunks::default(), Vec::new(), 0);
        for piece in stream.chunks(piece) {
            let mut piece = piece.to_vec();
            let decoded = chunks.decode(&mut piece, bytes_max)?;
            body.extend_from_slice(&piece[..decoded.written]);
            consumed += decoded.consumed;
            if decoded.done {
                return Ok(Some((body, stream.len() - consumed)));
            }
            assert_eq!(decoded.consumed, piece.len());
        }
        Ok(None)
    }

    #[test]
    fn bodies_whole_and_in_pieces() {
        let long = format!("3E8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000));
        let long_body = "x".repeat(1000);
        for (stream, body) in [
            ("0\r\n\r\n", Some("")),
            ("000\r\n\r\n", Some("")),
            ("5\r\nhello\r\n0\r\n\r\n", Some("hello")),
            ("5\r\nhello\r\n1\r\n,\r\n06\r\n world\r\n0\r\n\r\n", Some("hello, world")),
            ("a;name=value\r\n0123456789\r\n0;last\r\n\r\n", Some("0123456789")),
            ("2\r\n\r\n\r\n0\r\nX-Sum: 5\r\nY:\r\n\r\n", Some("\r\n")),
            (&long, Some(&long_body)),
            ("5\r\nhell", None),
            ("5\r\nhello\r\n0\r\n", None),
        ] {
            for piece in [1, 2, 3, 7, 5000] {
                for rest in ["", "GET /"] {
                    let stream = stream.to_owned() + if body.is_some() { rest } else { "" };
                    let found = read(stream.as_bytes(), piece, 1000).unwrap();
                    assert_eq!(found.as_ref().map(|(body, _)| str::from_utf8(body).unwrap()), body, "{stream:?}");
                    assert!(found.is_none_or(|(_, behind)| behind == rest.len()));
                }
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let long_extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(4097));
        let many_extensions = format!("{}0\r\n\r\n", "1;eeeeeeee\r\nx\r\n".repeat(513));
        let long_trailer = format!("0\r\nX: {}\r\n\r\n", "t".repeat(8192));
        let many_trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(1400));
        for (stream, wrong) in [
            ("\r\n", BadChunk::Size),
            (";\r\n", BadChunk::Size),
            ("x\r\n", BadChunk::Size),
            ("0x5\r\n", BadChunk::Size),
            ("+5\r\n", BadChunk::Size),
            ("-5\r\n", BadChunk::Size),
            (" 5\r\n", BadChunk::Size),
            ("5 \r\n", BadChunk::Size),
            ("5\thello", BadChunk::Size),
            ("5\nhello", BadChunk::Size),
            ("5_0\r\n", BadChunk::Size),
            ("\0", BadChunk::Size),
            ("10000000000000005\r\nhello", BadChunk::Size),
            ("00000000000000005\r\nhello", BadChunk::Size),
            ("5\r\rhello", BadChunk::End),
            ("5\rhello", BadChunk::End),
            ("5\r\nhello0\r\n\r\n", BadChunk::End),
            ("5\r\nhello\n0\r\n\r\n", BadChunk::End),
            ("5\r\nhello\r0\r\n\r\n", BadChunk::End),
            ("5\r\nhello!\r\n0\r\n\r\n", BadChunk::End),
            ("5;a\nhello\r\n", BadChunk::Extension),
            ("5;\0\r\nhello\r\n", BadChunk::Extension),
            (&long_extension, BadChunk::Extension),
            (&many_extensions, BadChunk::Extension),
            ("0\r\n\n", BadChunk::Trailer),
            ("0\r\n\r\r", BadChunk::Trailer),
            ("0\r\n folded: x\r\n\r\n", BadChunk::Trailer),
            ("0\r\nX : y\r\n\r\n", BadChunk::Trailer),
            ("0\r\n: y\r\n\r\n", BadChunk::Trailer),
            ("0\r\nX\r\n\r\n", BadChunk::Trailer),
            ("0\r\nX: a\0\r\n\r\n", BadChunk::Trailer),
            ("0\r\nX: a\n\r\n", BadChunk::Trailer),
            (&long_trailer, BadChunk::Trailer),
            (&many_trailers, BadChunk::Trailer),
            ("3e9\r\n", BadChunk::TooLarge),
            ("ffffffffffffffff\r\n", BadChunk::TooLarge),
            ("1\r\nx\r\nffffffffffffffff\r\n", BadChunk::TooLarge),
        ] {
            for piece in [1, 3, 20_000] {
                assert_eq!(read(stream.as_bytes(), piece, 1000), Err(wrong), "{stream:?} by {piece}");
            }
        }
    }
}
