//! What stands in a block of fields (RFC 7541 sections 5 and 6), without the tables.

use super::{BadBlock, huffman};

/// A position in a block, which it cannot run off.
#[derive(Debug)]
pub(super) struct Reader<'b> {
    rest: &'b [u8],
}

/// What comes next; a literal's strings follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A field that is in a table (section 6.1).
    Indexed(usize),
    /// A field whose value follows, and, with index 0, its name before that (section 6.2).
    Literal {
        /// Whose name it has.
        index: usize,
        /// It is added to the dynamic table.
        adds: bool,
    },
    /// What the dynamic table may have from now on (section 6.3).
    TableSize(usize),
}

/// Where a string is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'b> {
    /// In the block, or in the static table.
    There(&'b [u8]),
    /// Between two places of the room.
    Built(usize, usize),
}

impl<'b> Place<'b> {
    pub(super) fn of<'r>(self, room: &'r [u8]) -> &'r [u8]
    where
        'b: 'r,
    {
        match self {
            Self::There(string) => string,
            Self::Built(start, end) => &room[start..end],
        }
    }
}

impl<'b> Reader<'b> {
    pub(super) const fn new(block: &'b [u8]) -> Self {
        Self { rest: block }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field or size, told by its first bits.
    pub(super) fn item(&mut self) -> Result<Item, BadBlock> {
        let first = self.byte()?;
        Ok(match first {
            0x80.. => Item::Indexed(self.integer(first, 7)?),
            0x40.. => Item::Literal { index: self.integer(first, 6)?, adds: true },
            0x20.. => Item::TableSize(self.integer(first, 5)?),
            // Never indexed (0x10) or only not now (0): a difference to those who pass it on.
            _ => Item::Literal { index: self.integer(first, 4)?, adds: false },
        })
    }

    /// A string (section 5.2), as it stands or built behind what is in `room`.
    pub(super) fn string(&mut self, room: &mut Vec<u8>) -> Result<Place<'b>, BadBlock> {
        let first = self.byte()?;
        let length = self.integer(first, 7)?;
        let (string, rest) = self.rest.split_at_checked(length).ok_or(BadBlock::Truncated)?;
        self.rest = rest;
        if first & 0x80 == 0 {
            return Ok(Place::There(string));
        }
        let start = room.len();
        huffman::decode(string, room)?;
        Ok(Place::Built(start, room.len()))
    }

    fn byte(&mut self) -> Result<u8, BadBlock> {
        let (&first, rest) = self.rest.split_first().ok_or(BadBlock::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    /// A number whose first bits are the last `prefix` ones of `first` (section 5.1). Five more bytes hold 32 bits.
    fn integer(&mut self, first: u8, prefix: u32) -> Result<usize, BadBlock> {
        let max = (1_u64 << prefix) - 1;
        let mut value = u64::from(first) & max;
        if value < max {
            return usize::try_from(value).map_err(|_| BadBlock::Integer);
        }
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let value = u32::try_from(value).map_err(|_| BadBlock::Integer)?;
                return usize::try_from(value).map_err(|_| BadBlock::Integer);
            }
        }
        Err(BadBlock::Integer)
    }
}
