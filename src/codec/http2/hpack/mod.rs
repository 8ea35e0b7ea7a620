//! HPACK (RFC 7541): how fields are compressed.
//!
//! What we send uses the static table alone, so that it costs a connection nothing; for what we read the dynamic table is
//! bounded, and there only while there is something in it.

mod fixed;
mod huffman;
mod reader;
mod table;

use fixed::Found;
use reader::{Item, Place, Reader};
use table::{ENTRY_OVERHEAD, Table};

use super::ErrorCode;

/// Why a block of fields cannot be read: a connection error (RFC 9113 section 4.3), since the table is lost with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBlock {
    /// It ends in the middle of something.
    #[error("a block of fields ends too early")]
    Truncated,
    /// A number above 32 bits, or written with more bytes than such a one can need (RFC 7541 section 5.1).
    #[error("a number in a block of fields is too large")]
    Integer,
    /// A string whose code has the end symbol in it, or a wrong padding (RFC 7541 section 5.2).
    #[error("a string in a block of fields is coded wrongly")]
    Huffman,
    /// An index that is 0, or behind the end of both tables (RFC 7541 sections 2.3.3 and 6.1).
    #[error("a block of fields names an entry that is not in the table")]
    Index,
    /// A table larger than our settings allow (RFC 7541 section 6.3).
    #[error("a block of fields makes the table larger than the settings allow")]
    TableSize,
    /// A new size of the table behind a field, or more than two of them (RFC 7541 section 4.2).
    #[error("a block of fields changes the table's size where it may not")]
    TableSizePlace,
    /// Names of the table were used for new entries until they had [`WORK_MAX`] bytes, or the fields are [`EXCESS`] times over
    /// the bounds: nobody has so many honest fields.
    #[error("a block of fields makes too much work")]
    TooMuchWork,
}

impl BadBlock {
    /// What the peer is told.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::TooMuchWork => ErrorCode::EnhanceYourCalm,
            _ => ErrorCode::CompressionError,
        }
    }
}

/// Bytes of names that a block can have copied from the table at most. A reference of two bytes copies up to 4 KiB.
pub const WORK_MAX: usize = 1 << 20;

/// How many times over the bounds the fields of a block may be. Up to there it is read, so that the connection can go on; a
/// frame of 16 KiB can name 60 MiB, for a millisecond of work.
pub const EXCESS: usize = 16;
/// The least of which that is counted: bytes, and fields.
const BOUNDS_MIN: (usize, usize) = (4096, 64);

/// Bytes that each field is charged beside its name and value: as much as RFC 9113 section 6.5.2 says for
/// `SETTINGS_MAX_HEADER_LIST_SIZE`.
pub const FIELD_OVERHEAD: usize = 32;

/// How large a block's fields may be. Behind that they are read, so that the table stays right, but not given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of names and values, with [`FIELD_OVERHEAD`] for each field.
    pub bytes_max: usize,
    /// Fields, pseudo-fields too.
    pub fields_max: usize,
}

/// What a block was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The fields are over the bounds: some were not given out, and whatever they belong to must be refused.
    pub over: bool,
    /// Bytes of all fields, as [`Bounds::bytes_max`] counts them.
    pub bytes: usize,
    /// How many fields there were.
    pub fields: usize,
}

impl Decoded {
    /// Counts a field, and says whether it is within the bounds.
    const fn admits(&mut self, name: &[u8], value: &[u8], bounds: Bounds) -> bool {
        self.bytes = self.bytes.saturating_add(name.len() + value.len() + FIELD_OVERHEAD);
        self.fields += 1;
        self.over = self.over || self.bytes > bounds.bytes_max || self.fields > bounds.fields_max;
        !self.over
    }

    /// Whether the fields are so far over the bounds that the rest is not worth reading.
    fn is_excessive(&self, bounds: Bounds) -> bool {
        self.over
            && (self.bytes / EXCESS > bounds.bytes_max.max(BOUNDS_MIN.0)
                || self.fields / EXCESS > bounds.fields_max.max(BOUNDS_MIN.1))
    }
}

/// Reads the blocks of one connection, in their order.
#[derive(Debug)]
pub struct Decoder {
    /// There while it has an entry.
    table: Option<Box<Table>>,
    /// What the table may have now, as the peer said last.
    table_bytes: u16,
    /// What the peer may make of that.
    table_bytes_max: u16,
}

/// A pointer and two sizes: what each connection of HTTP/2 pays.
const _: () = assert!(size_of::<Decoder>() <= 16);

impl Decoder {
    /// With a dynamic table of so many bytes at most, as our settings say (RFC 7541 section 4.2): below 64 KiB.
    #[must_use]
    pub const fn new(table_bytes_max: u32) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "it is compared before")]
        let max = if table_bytes_max > u16::MAX as u32 { u16::MAX } else { table_bytes_max as u16 };
        Self { table: None, table_bytes: max, table_bytes_max: max }
    }

    /// What its table keeps in memory.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.table.as_deref().map_or(0, Table::memory)
    }

    /// Reads a whole block. Each field is given to `on_field`, name and value, in order, as long as they are within the
    /// bounds; strings that are not as they stand in the block are built in `room`, whose contents do not matter.
    ///
    /// # Errors
    /// When the block cannot be read. The connection's state is lost with it.
    pub fn decode(
        &mut self,
        block: &[u8],
        bounds: Bounds,
        room: &mut Vec<u8>,
        mut on_field: impl FnMut(&[u8], &[u8]),
    ) -> Result<Decoded, BadBlock> {
        let mut reader = Reader::new(block);
        let mut decoded = Decoded { over: false, bytes: 0, fields: 0 };
        let (mut sizes, mut work) = (0, 0);
        while !reader.is_empty() {
            if decoded.is_excessive(bounds) {
                return Err(BadBlock::TooMuchWork);
            }
            match reader.item()? {
                Item::Indexed(index) => {
                    let (name, value) = self.entry(index)?;
                    if decoded.admits(name, value, bounds) {
                        on_field(name, value);
                    }
                }
                Item::Literal { index, adds } => {
                    room.clear();
                    let name = self.name(index, &mut reader, room, &mut work)?;
                    let value = reader.string(room)?;
                    let (name, value) = (name.of(room), value.of(room));
                    if decoded.admits(name, value, bounds) {
                        on_field(name, value);
                    }
                    if adds {
                        self.add(name, value);
                    }
                }
                Item::TableSize(size) => {
                    sizes += 1;
                    if decoded.fields > 0 || sizes > 2 {
                        return Err(BadBlock::TableSizePlace);
                    }
                    self.resize(size)?;
                }
            }
        }
        Ok(decoded)
    }

    /// The entry of an index in both tables.
    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), BadBlock> {
        let index = index.checked_sub(1).ok_or(BadBlock::Index)?;
        if let Some(field) = fixed::FIELDS.get(index) {
            return Ok(*field);
        }
        let table = self.table.as_deref().ok_or(BadBlock::Index)?;
        table.get(index - fixed::FIELDS.len()).ok_or(BadBlock::Index)
    }

    /// The name of a literal field: that of an entry, or the string that comes next. A name of the dynamic table is copied,
    /// since its entry may have to go for the new one.
    fn name<'b>(
        &self,
        index: usize,
        reader: &mut Reader<'b>,
        room: &mut Vec<u8>,
        work: &mut usize,
    ) -> Result<Place<'b>, BadBlock> {
        if index == 0 {
            return reader.string(room);
        }
        if let Some((name, _)) = fixed::FIELDS.get(index - 1) {
            return Ok(Place::There(name));
        }
        let (name, _) = self.entry(index)?;
        *work += name.len();
        if *work > WORK_MAX {
            return Err(BadBlock::TooMuchWork);
        }
        room.extend_from_slice(name);
        Ok(Place::Built(room.len() - name.len(), room.len()))
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        if name.len() + value.len() + ENTRY_OVERHEAD > usize::from(self.table_bytes) {
            self.table = None;
        } else {
            self.table.get_or_insert_default().add(name, value, usize::from(self.table_bytes));
        }
    }

    fn resize(&mut self, size: usize) -> Result<(), BadBlock> {
        let size = u16::try_from(size).ok().filter(|size| *size <= self.table_bytes_max);
        self.table_bytes = size.ok_or(BadBlock::TableSize)?;
        if let Some(table) = &mut self.table {
            table.shrink(usize::from(self.table_bytes));
        }
        self.table.take_if(|table| table.is_empty());
        Ok(())
    }
}

/// Appends a field, whose name is written in small letters. Where the static table has it, or its name, that is used;
/// nothing is added to the peer's table, and strings are as they are: a Huffman code would save some bytes in a head, once
/// per stream, and cost time on both sides.
pub fn encode(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    match fixed::find(name, value) {
        // Sections 6.1 and 6.2.2.
        Found::Field(index) => return out.push(0x80 | index),
        Found::Name(index) => encode_integer(usize::from(index), 4, 0, out),
        Found::Nothing => {
            out.push(0);
            encode_integer(name.len(), 7, 0, out);
            out.extend(name.iter().map(u8::to_ascii_lowercase));
        }
    }
    encode_integer(value.len(), 7, 0, out);
    out.extend_from_slice(value);
}

/// Appends a number whose first `prefix` bits share a byte with `first` (RFC 7541 section 5.1).
fn encode_integer(value: usize, prefix: u32, first: u8, out: &mut Vec<u8>) {
    let max = (1 << prefix) - 1;
    let Some(mut rest) = value.checked_sub(max) else {
        return out.push(first | value.to_le_bytes()[0]);
    };
    out.push(first | max.to_le_bytes()[0]);
    while rest >= 0x80 {
        out.push(0x80 | rest.to_le_bytes()[0]);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests;
