//! A file on its way to a client, slice by slice, without I/O.
//!
//! ```text
//!            next()                     took()               all sent
//!   READY ----------> read a slice ---------------> READY -------------> DONE
//!                         | cold                      ^
//!                         +--------> WAITS -----------+
//!                          waits()         took()
//! ```
//!
//! What must not be sent under the announced length is never sent: a read that is short ends the connection.

use super::Slice;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read so many bytes from there, at least one.
    Read {
        /// From the file's start.
        offset: u64,
        /// Bytes.
        length: usize,
    },
    /// Nothing: a slow read is on its way.
    Wait,
    /// Nothing more: all has been sent.
    Done,
}

/// A file that is being sent.
#[derive(Debug)]
pub struct Transfer {
    slice: Slice,
    waits: bool,
    /// Whether the connection ends behind it.
    pub last: bool,
    /// Whether it is on the shard's list of those that can go on.
    pub listed: bool,
}

impl Transfer {
    /// Bytes that are read and sent at once, at most.
    pub const SLICE_BYTES_MAX: usize = 64 * 1024;

    /// All of a slice is to be sent.
    #[must_use]
    pub const fn new(slice: Slice, last: bool) -> Self {
        Self { slice, waits: false, last, listed: false }
    }

    /// What is sent.
    #[must_use]
    pub const fn slice(&self) -> &Slice {
        &self.slice
    }

    /// What to do next, with at most so many bytes.
    #[must_use]
    pub fn next(&self, bytes_max: usize) -> Step {
        if self.waits {
            return Step::Wait;
        }
        let bytes_max = bytes_max.clamp(1, Self::SLICE_BYTES_MAX);
        match usize::try_from(self.slice.length).unwrap_or(usize::MAX).min(bytes_max) {
            0 => Step::Done,
            length => Step::Read { offset: self.slice.start, length },
        }
    }

    /// Notes that the next bytes come from a slow read.
    pub const fn waits(&mut self) {
        self.waits = true;
    }

    /// Notes that so many bytes have been given to the connection.
    pub fn took(&mut self, bytes: usize) {
        debug_assert!(bytes as u64 <= self.slice.length);
        self.waits = false;
        self.slice.start += bytes as u64;
        self.slice.length = self.slice.length.saturating_sub(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::app::files::testing::slice_of;

    #[test]
    fn slices_follow_each_other_to_the_end() {
        let (_folder, slice) = slice_of(b"0123456789");
        let mut transfer = Transfer::new(Slice { start: 2, length: 7, ..slice }, true);
        let mut steps = Vec::new();
        while let Step::Read { offset, length } = transfer.next(3) {
            steps.push((offset, length));
            transfer.took(length);
        }
        assert_eq!(steps, [(2, 3), (5, 3), (8, 1)]);
        assert_eq!(transfer.next(3), Step::Done);
    }

    #[test]
    fn nothing_is_read_while_a_slow_read_is_on_its_way() {
        let (_folder, slice) = slice_of(b"0123456789");
        let mut transfer = Transfer::new(slice, false);
        transfer.waits();
        assert_eq!(transfer.next(4), Step::Wait);
        transfer.took(4);
        assert_eq!(transfer.next(100), Step::Read { offset: 4, length: 6 });
    }

    #[test]
    fn a_slice_is_never_empty_and_never_over_its_bound() {
        let (_folder, slice) = slice_of(b"x");
        let transfer = Transfer::new(Slice { length: u64::MAX, ..slice }, false);
        assert_eq!(transfer.next(0), Step::Read { offset: 0, length: 1 });
        assert_eq!(transfer.next(usize::MAX), Step::Read { offset: 0, length: Transfer::SLICE_BYTES_MAX });
    }
}
