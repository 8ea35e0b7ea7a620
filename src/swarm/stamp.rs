//! What the swarm's messages begin with: whose they are, which one, and when they were due.
//!
//! ```text
//!   hl RRRRRRRR NNNNNNNN TTTTTTTTTTTTTTTT abcdefgh...      hexadecimal: run, number, nanoseconds
//! ```
//!
//! All of it is printable ASCII, so that it is a text, and a line.

use crate::time::Instant;

/// Bytes of a stamp.
pub(super) const BYTES: usize = 38;
const MAGIC: &[u8; 3] = b"hl ";

/// The beginning of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Tells the messages of this run from those of others.
    pub(super) run: u32,
    /// From 1.
    pub(super) number: u32,
    /// When it should have left.
    pub(super) due: Instant,
}

impl Stamp {
    /// Reads the stamp of a message, if it has one.
    #[inline]
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let bytes = payload.first_chunk::<BYTES>()?;
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        let run = u32::try_from(unhex(&bytes[3..11])?).ok()?;
        let number = u32::try_from(unhex(&bytes[12..20])?).ok()?;
        Some(Self { run, number, due: Instant::from_nanos(unhex(&bytes[21..37])?) })
    }
}

/// Messages of one size that differ in their stamps.
#[derive(Clone, Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
}

impl Template {
    /// Of `size` bytes, at least [`BYTES`].
    pub(super) fn new(run: u32, size: usize) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.resize(BYTES, b' ');
        bytes.extend((b'a'..=b'z').cycle().take(size.saturating_sub(BYTES)));
        hex(u64::from(run), &mut bytes[3..11]);
        Self { bytes }
    }

    /// The same for another run.
    pub(super) fn of_run(&self, run: u32) -> Self {
        Self::new(run, self.bytes.len())
    }

    /// The message with this number.
    #[inline]
    pub(super) fn stamp(&mut self, number: u32, due: Instant) -> &[u8] {
        hex(u64::from(number), &mut self.bytes[12..20]);
        hex(due.as_nanos(), &mut self.bytes[21..37]);
        &self.bytes
    }

    /// Bytes of each.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a message is one of these, not looking at its stamp.
    pub(super) fn is_like(&self, payload: &[u8]) -> bool {
        payload.len() == self.bytes.len() && payload[BYTES..] == self.bytes[BYTES..]
    }
}

#[inline]
fn hex(mut value: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[inline]
fn unhex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value: u64, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        for size in [0, BYTES, 64, 1000] {
            let mut template = Template::new(0xdead_beef, size);
            let due = Instant::from_nanos(u64::MAX - 7);
            let message = template.stamp(u32::MAX, due).to_vec();
            assert_eq!(Stamp::read(&message), Some(Stamp { run: 0xdead_beef, number: u32::MAX, due }));
            assert!(template.is_like(&message) && message.iter().all(|byte| matches!(byte, b' '..=b'~')));
            assert_eq!(message.len(), size.max(BYTES));
            assert!(!template.is_like(&message[1..]));
        }
    }

    #[test]
    fn other_messages_have_none() {
        let good = Template::new(1, 64).stamp(2, Instant::ZERO).to_vec();
        assert_eq!(Stamp::read(&good[..BYTES - 1]), None);
        for at in [0, 3, 12, 36] {
            let mut bad = good.clone();
            bad[at] = b'G';
            assert_eq!(Stamp::read(&bad), None, "{at}");
        }
    }
}
