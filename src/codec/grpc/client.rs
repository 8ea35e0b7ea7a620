//! What a client of `holdline.v1.Edge` writes and reads (`proto/holdline/v1/edge.proto`), in place and without copies: a load
//! generator does little else.
//!
//! The messages alone: what stands around them is the call's.

/// A field that is no field, or one that ends too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("a message that is no protobuf")]
pub struct BadMessage;

/// A place in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The epoch.
    pub epoch: u64,
    /// The offset in it.
    pub offset: u64,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on.
    #[default]
    Now,
    /// With what came after this place.
    Since(Cursor),
    /// With the last so many messages.
    History(u32),
}

/// What to subscribe to, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Where to begin.
    pub start: Start,
    /// A queue group; empty for none.
    pub group: &'a str,
    /// Without what the same call publishes.
    pub no_echo: bool,
}

/// The number of a field's type (protobuf's encoding, "wire types").
mod wire {
    pub(super) const VARINT: u8 = 0;
    pub(super) const FIXED64: u8 = 1;
    pub(super) const BYTES: u8 = 2;
    pub(super) const FIXED32: u8 = 5;
}

/// Appends a `ClientFrame` that subscribes.
pub fn write_subscribe(id: u32, subscription: &Subscription<'_>, out: &mut Vec<u8>) {
    let mut subscribe = Vec::with_capacity(subscription.topic.len() + subscription.group.len() + 32);
    write_bytes(1, subscription.topic.as_bytes(), &mut subscribe);
    match subscription.start {
        Start::Now => {}
        Start::Since(cursor) => {
            let mut since = Vec::with_capacity(22);
            write_number(1, cursor.epoch, &mut since);
            write_number(2, cursor.offset, &mut since);
            write_message(2, &since, &mut subscribe);
        }
        // Of a choice also a 0 is written.
        Start::History(count) => {
            write_varint(u64::from(3 << 3 | wire::VARINT), &mut subscribe);
            write_varint(u64::from(count), &mut subscribe);
        }
    }
    write_bytes(4, subscription.group.as_bytes(), &mut subscribe);
    write_number(5, u64::from(subscription.no_echo), &mut subscribe);
    write_number(1, u64::from(id), out);
    write_message(2, &subscribe, out);
}

/// Appends a `ClientFrame` that publishes text.
pub fn write_publish(id: u32, topic: &str, text: &str, out: &mut Vec<u8>) {
    write_number(1, u64::from(id), out);
    let length = bytes_length(topic.len()) * usize::from(!topic.is_empty()) + bytes_length(text.len());
    out.push(4 << 3 | wire::BYTES);
    write_varint(length as u64, out);
    write_bytes(1, topic.as_bytes(), out);
    write_message(2, text.as_bytes(), out);
}

/// Appends a `ClientFrame` that asks for no more of a topic.
pub fn write_unsubscribe(id: u32, topic: &str, out: &mut Vec<u8>) {
    let mut unsubscribe = Vec::with_capacity(topic.len() + 3);
    write_bytes(1, topic.as_bytes(), &mut unsubscribe);
    write_number(1, u64::from(id), out);
    write_message(3, &unsubscribe, out);
}

/// What stands in front of the payload of an `EchoMessage`.
pub fn write_echo_head(payload_bytes: usize, out: &mut Vec<u8>) {
    out.push(1 << 3 | wire::BYTES);
    write_varint(payload_bytes as u64, out);
}

/// The payload of an `EchoMessage`.
///
/// # Errors
/// When it is none.
pub fn read_echo(message: &[u8]) -> Result<&[u8], BadMessage> {
    let mut payload: &[u8] = &[];
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        if let (1, Value::Bytes(bytes)) = field {
            payload = bytes;
        }
    }
    Ok(payload)
}

/// A `ServerFrame`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerFrame<'a> {
    /// What it answers, 0 where it answers nothing.
    pub id: u32,
    /// What it says.
    pub said: Said<'a>,
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// A message of a topic.
    Message {
        /// Its place.
        cursor: Cursor,
        /// What it says, text or not.
        payload: &'a [u8],
    },
    /// A subscription has begun: the newest place of its topic.
    Subscribed(Cursor),
    /// A publication has its place.
    Published(Cursor),
    /// What was asked for is not kept any more: it goes on after this place.
    Reset(Cursor),
    /// Something could not be done: a word for programs and a sentence.
    Error {
        /// The word.
        code: &'a str,
        /// The sentence.
        message: &'a str,
    },
    /// Something else, perhaps of a later version.
    Other,
}

/// Reads a `ServerFrame`.
///
/// # Errors
/// When it is none.
#[inline]
pub fn read_server_frame(message: &[u8]) -> Result<ServerFrame<'_>, BadMessage> {
    let (mut id, mut said) = (0, Said::Other);
    let mut fields = Fields(message);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            // Numbers that are too long lose what is too much (protobuf's rules).
            (1, Value::Number(number)) => id = u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0),
            (2, Value::Bytes(bytes)) => said = read_message(bytes)?,
            (3, Value::Bytes(bytes)) => said = Said::Subscribed(read_place(bytes)?),
            (5, Value::Bytes(bytes)) => said = Said::Published(read_place(bytes)?),
            (6, Value::Bytes(bytes)) => said = Said::Reset(read_place(bytes)?),
            (7, Value::Bytes(bytes)) => said = read_error(bytes)?,
            _ => {}
        }
    }
    Ok(ServerFrame { id, said })
}

/// A `Message`.
#[inline]
fn read_message(bytes: &[u8]) -> Result<Said<'_>, BadMessage> {
    let (mut cursor, mut payload): (_, &[u8]) = (Cursor::default(), &[]);
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (2, Value::Bytes(bytes)) => cursor = read_cursor(bytes)?,
            (4 | 5, Value::Bytes(bytes)) => payload = bytes,
            _ => {}
        }
    }
    Ok(Said::Message { cursor, payload })
}

/// The cursor of what has a topic and a cursor.
fn read_place(bytes: &[u8]) -> Result<Cursor, BadMessage> {
    let mut cursor = Cursor::default();
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        if let (2, Value::Bytes(bytes)) = field {
            cursor = read_cursor(bytes)?;
        }
    }
    Ok(cursor)
}

fn read_cursor(bytes: &[u8]) -> Result<Cursor, BadMessage> {
    let mut cursor = Cursor::default();
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(number)) => cursor.epoch = number,
            (2, Value::Number(number)) => cursor.offset = number,
            _ => {}
        }
    }
    Ok(cursor)
}

fn read_error(bytes: &[u8]) -> Result<Said<'_>, BadMessage> {
    let (mut code, mut message) = ("", "");
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => code = read_text(bytes)?,
            (2, Value::Bytes(bytes)) => message = read_text(bytes)?,
            _ => {}
        }
    }
    Ok(Said::Error { code, message })
}

fn read_text(bytes: &[u8]) -> Result<&str, BadMessage> {
    std::str::from_utf8(bytes).map_err(|_| BadMessage)
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that no field here has.
    Other,
}

/// The fields of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next one: its number and its value.
    #[inline]
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, BadMessage> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        let value = match (tag & 7) as u8 {
            wire::VARINT => Value::Number(self.varint()?),
            wire::BYTES => {
                let length = usize::try_from(self.varint()?).map_err(|_| BadMessage)?;
                Value::Bytes(self.take(length)?)
            }
            wire::FIXED64 => self.take(8).map(|_| Value::Other)?,
            wire::FIXED32 => self.take(4).map(|_| Value::Other)?,
            // Groups, which nobody writes any more, and what is not defined.
            _ => return Err(BadMessage),
        };
        if number == 0 { Err(BadMessage) } else { Ok(Some((number, value))) }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, BadMessage> {
        let mut value = 0_u64;
        for at in 0..10 {
            let byte = *self.0.get(at).ok_or(BadMessage)?;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                // The tenth byte has room for one bit.
                return if at == 9 && byte > 1 { Err(BadMessage) } else { Ok(value) };
            }
        }
        Err(BadMessage)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], BadMessage> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BadMessage)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Appends a number, unless it is the 0 that stands for nothing.
fn write_number(field: u8, number: u64, out: &mut Vec<u8>) {
    if number > 0 {
        out.push(field << 3 | wire::VARINT);
        write_varint(number, out);
    }
}

/// Appends bytes, unless there are none.
fn write_bytes(field: u8, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        write_message(field, bytes, out);
    }
}

/// Appends a message, or a field of a choice: they are there also when they are empty.
fn write_message(field: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(field << 3 | wire::BYTES);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Bytes of a field with so many bytes in it.
const fn bytes_length(bytes: usize) -> usize {
    1 + varint_length(bytes as u64) + bytes
}

const fn varint_length(value: u64) -> usize {
    (63 - (value | 1).leading_zeros()) as usize / 7 + 1
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

#[cfg(test)]
mod tests;
