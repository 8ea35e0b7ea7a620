//! Frames and field blocks as a client writes them, by the RFCs alone: nothing here comes from the server's own code.

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const WITH_PRIORITY: u8 = 0x20;
/// A HEADERS frame that is the whole request.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const HEADER_TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;
pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// The largest window (RFC 9113 section 6.9.1).
pub const WINDOW_MAX: u32 = 0x7fff_ffff;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame (RFC 9113 section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_header(u32::try_from(payload.len()).unwrap(), kind, flags, stream);
    bytes.extend(payload);
    bytes
}

/// A frame's header, for as many bytes as it says.
pub fn frame_header(length: u32, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes
}

pub fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

pub fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

pub fn continuation(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(CONTINUATION, flags, stream, block)
}

pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = values.iter().flat_map(|&(id, value)| setting(id, value)).collect();
    frame(SETTINGS, 0, 0, &payload)
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

pub fn ping(payload: &[u8]) -> Vec<u8> {
    frame(PING, 0, 0, payload)
}

pub fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// `on`: the stream it depends on, its first bit set when it does so alone.
pub fn priority(stream: u32, on: u32, weight: u8) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &dependency(on, weight))
}

/// The five bytes of a priority (RFC 7540 section 6.3).
pub fn dependency(on: u32, weight: u8) -> Vec<u8> {
    [&on.to_be_bytes()[..], &[weight]].concat()
}

pub fn goaway(stream: u32, last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, stream, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A payload behind its pad length, with as many zero bytes after it.
pub fn padded(length: u8, payload: &[u8]) -> Vec<u8> {
    [&[length][..], payload, &vec![0; usize::from(length)]].concat()
}

/// An integer behind the bits of `first` (RFC 7541 section 5.1).
pub fn integer(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1_usize << bits) - 1;
    if value < most {
        return vec![first | u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![first | u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// A string that is not compressed (section 5.2).
pub fn string(value: &[u8]) -> Vec<u8> {
    [integer(0, 7, value.len()), value.to_vec()].concat()
}

/// What says that a string of so many bytes is compressed by Huffman's code, and the bytes.
pub fn huffman(coded: &[u8]) -> Vec<u8> {
    [integer(0x80, 7, coded.len()), coded.to_vec()].concat()
}

/// A field that is in a table (section 6.1).
pub fn indexed(index: usize) -> Vec<u8> {
    integer(0x80, 7, index)
}

/// A field that goes into no table (section 6.2.2).
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    [vec![0], string(name.as_bytes()), string(value.as_bytes())].concat()
}

/// A field that goes into the dynamic table (section 6.2.1).
pub fn stored(name: &str, value: &str) -> Vec<u8> {
    [vec![0x40], string(name.as_bytes()), string(value.as_bytes())].concat()
}

/// A change of the dynamic table's size (section 6.3).
pub fn table_size(bytes: usize) -> Vec<u8> {
    integer(0x20, 5, bytes)
}

/// Fields, as literals.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// The four pseudo-fields of a request.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost")])
}

/// A request with more fields.
pub fn request_with(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    [request(method, path), block(fields)].concat()
}

/// A whole request for a page.
pub fn get(stream: u32) -> Vec<u8> {
    headers(stream, WHOLE, &request("GET", "/"))
}

/// The head of a request whose body is still to come, which the answer waits for.
pub fn post(stream: u32) -> Vec<u8> {
    headers(stream, END_HEADERS, &request("POST", "/echo"))
}

/// The `:status` that a response's block begins with. Digits are all that it can read in Huffman's code.
pub fn status(block: &[u8]) -> Option<u16> {
    let mut block = block;
    while let [0x20..=0x3f, rest @ ..] = block {
        let more = if block[0] == 0x3f { 1 + rest.iter().take_while(|byte| **byte >= 0x80).count() } else { 0 };
        block = rest.get(more..)?;
    }
    let first = *block.first()?;
    let known = [200, 204, 206, 304, 400, 404, 500];
    if (0x88..=0x8e).contains(&first) {
        return Some(known[usize::from(first - 0x88)]);
    }
    let is_status = first & 0xc0 == 0x40 && first & 0x3f == 8 || first & 0xe0 == 0 && first & 0x0f == 8;
    let length = *block.get(1)?;
    let value = block.get(2..2 + usize::from(length & 0x7f))?;
    let digits = if length & 0x80 == 0 { value.to_vec() } else { coded_digits(value) };
    std::str::from_utf8(&digits).ok()?.parse().ok().filter(|_| is_status)
}

/// Three digits from Huffman's code (RFC 7541 appendix B): 0, 1 and 2 have five bits, the others six from 011001 on.
fn coded_digits(value: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = value.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0_u8, |all, bit| all << 1 | bit);
    let (mut digits, mut at) = (Vec::new(), 0);
    while digits.len() < 3 && at + 5 <= bits.len() {
        let five = number(&bits[at..at + 5]);
        if five < 3 {
            digits.push(b'0' + five);
            at += 5;
        } else {
            let six = bits.get(at..at + 6).map_or(0, number);
            digits.push(b'3' + six.wrapping_sub(25));
            at += 6;
        }
    }
    digits
}

#[test]
fn statuses_are_read_in_every_form() {
    assert_eq!(status(&[0x88]), Some(200));
    assert_eq!(status(&[0x20, 0x8d, 0x88]), Some(404));
    assert_eq!(status(&[0x20, 0x3f, 0xe1, 0x1f, 0x88]), Some(200));
    assert_eq!(status(b"\x08\x03405"), Some(405));
    assert_eq!(status(b"\x48\x03302"), Some(302));
    // RFC 7541 appendix C.6.1: 302.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
    assert_eq!(status(&[0x82]), None);
}

#[test]
fn integers_are_those_of_the_examples() {
    // RFC 7541 appendix C.1.
    assert_eq!(integer(0, 5, 10), [10]);
    assert_eq!(integer(0, 5, 1337), [31, 154, 10]);
    assert_eq!(integer(0, 8, 42), [42]);
}
