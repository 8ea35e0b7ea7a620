//! From a head to a whole request: what is to be done with its body, and where an unfinished one stands.

use super::{Body, Head, Violation};
use crate::codec::http1::{BadChunk, Chunks};
use crate::config::Limits;
use crate::wheel::Tick;

/// What is done with a request whose head is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preflight {
    /// It is answered now. When it has a body that is not read, and the answer is the connection's last.
    #[default]
    Now,
    /// Its body is taken, of `message_bytes_max` at most.
    Message,
    /// Its body is taken, of `body_bytes_max` at most.
    Batch,
    /// It is answered now, and what follows on its stream belongs to what it becomes: a call.
    Call,
}

impl Preflight {
    pub(super) const fn bytes_max(self, limits: &Limits) -> usize {
        match self {
            Self::Now | Self::Call => 0,
            Self::Message => limits.message_bytes_max,
            Self::Batch => limits.body_bytes_max,
        }
    }

    pub(super) const fn too_large(self, limits: &Limits) -> Violation {
        match self {
            Self::Message => Violation::MessageTooLarge(self.bytes_max(limits)),
            Self::Now | Self::Batch | Self::Call => Violation::BodyTooLarge(self.bytes_max(limits)),
        }
    }

    fn refused(self, bad: BadChunk, limits: &Limits) -> Violation {
        if bad == BadChunk::TooLarge { self.too_large(limits) } else { Violation::Chunk(bad) }
    }
}

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Length(usize),
    Chunks(Chunks),
    /// Until its stream ends, so many bytes at most.
    Stream(usize),
    /// Likewise, but nothing of it is kept.
    Dropped(usize),
}

/// HTTP's notes on an unfinished request: one whose head is whole, and whose body is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assembly {
    /// Bytes of the head, which lies before the body; 0 until it is whole.
    pub(super) head: usize,
    pub(super) rest: Rest,
    pub(super) preflight: Preflight,
    /// Why the request is refused, once its body is out of the way.
    pub(super) refused: Option<Violation>,
    /// When the body began; the caller's to set.
    pub began: Tick,
    /// When its last byte came; the caller's to set.
    pub heard: Tick,
}

impl Default for Rest {
    fn default() -> Self {
        Self::Length(0)
    }
}

/// How far a body came.
pub(super) struct Taken {
    /// Bytes that were read.
    pub(super) consumed: usize,
    /// Bytes of the body, at the start of what was given.
    pub(super) written: usize,
    /// What is still to come, when it is not whole.
    pub(super) more: Option<Assembly>,
}

impl Assembly {
    /// Where the body begins in the partial's buffer, once it has begun.
    #[must_use]
    pub const fn body_start(&self) -> Option<usize> {
        if self.head == 0 { None } else { Some(self.head) }
    }

    /// For the body of this head, which is `head_bytes` long.
    pub(super) fn begin(
        head: &Head<'_>,
        head_bytes: usize,
        preflight: Preflight,
        limits: &Limits,
    ) -> Result<Self, Violation> {
        let bytes_max = preflight.bytes_max(limits);
        let rest = match head.body() {
            Body::Chunked => Rest::Chunks(Chunks::default()),
            Body::None => Rest::Length(0),
            Body::Length(length) => {
                let length = usize::try_from(length).ok().filter(|length| *length <= bytes_max);
                Rest::Length(length.ok_or_else(|| preflight.too_large(limits))?)
            }
        };
        Ok(Self { head: head_bytes, rest, preflight, ..Self::default() })
    }

    /// Takes the next bytes; the body's are moved to their start.
    pub(super) fn take(mut self, bytes: &mut [u8], limits: &Limits) -> Result<Taken, Violation> {
        match &mut self.rest {
            Rest::Length(left) => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                let more = (*left > 0).then_some(self);
                Ok(Taken { consumed: taken, written: taken, more })
            }
            Rest::Chunks(chunks) => {
                let preflight = self.preflight;
                let decoded =
                    chunks.decode(bytes, preflight.bytes_max(limits)).map_err(|bad| preflight.refused(bad, limits))?;
                let more = (!decoded.done).then_some(self);
                Ok(Taken { consumed: decoded.consumed, written: decoded.written, more })
            }
            // Their ends are not in the bytes, see `stream`.
            Rest::Stream(_) | Rest::Dropped(_) => Ok(Taken { consumed: bytes.len(), written: 0, more: Some(self) }),
        }
    }
}

/// Whether the client waits for a `100 Continue` before it sends its body.
///
/// # Errors
/// When it expects anything else.
pub(super) fn expects_continue(head: &Head<'_>) -> Result<bool, Violation> {
    let mut expected = head.list("expect");
    let is_expected = expected.next().is_some();
    let all = head.list("expect").all(|what| what.eq_ignore_ascii_case(b"100-continue"));
    // An HTTP/1.0 client's wish is ignored (RFC 9110 section 10.1.1).
    match (is_expected && head.is_modern(), all) {
        (true, false) => Err(Violation::Expectation),
        (asked, _) => Ok(asked),
    }
}
