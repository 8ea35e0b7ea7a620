//! What a fuzzer runs: each takes any bytes and panics when the codec is wrong.

use super::hpack::{self, BadBlock, Bounds, Decoder, FIELD_OVERHEAD};
use super::{RequestHead, Trailers};
use crate::codec::http1::{Head, Malformed};
use crate::config::Limits;

const BOUNDS: Bounds = Bounds { bytes_max: 4096, fields_max: 50 };

type Field = (Vec<u8>, Vec<u8>);

/// Blocks of one connection: they are read within the bounds and in bounded memory, and what they said comes back when we
/// say it.
///
/// # Panics
/// When it is not so.
pub fn fuzz_blocks(data: &[u8]) {
    let (mut decoder, mut room) = (Decoder::new(512), Vec::new());
    for block in data.split(|&byte| byte == 0xff) {
        let mut fields = Vec::new();
        match read(&mut decoder, block, &mut room, &mut fields) {
            Ok(over) => assert!(over || echo(&fields) == fields, "what was read comes back"),
            Err(_) => return,
        }
        let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len() + FIELD_OVERHEAD).sum();
        assert!(bytes <= BOUNDS.bytes_max && fields.len() <= BOUNDS.fields_max, "within the bounds");
        assert!(decoder.memory() <= 2048, "a table of 512 bytes has few entries");
        assert!(room.len() <= block.len() * 8 / 5 + 512);
    }
}

fn read(decoder: &mut Decoder, block: &[u8], room: &mut Vec<u8>, fields: &mut Vec<Field>) -> Result<bool, BadBlock> {
    decoder
        .decode(block, BOUNDS, room, |name, value| fields.push((name.to_vec(), value.to_vec())))
        .map(|read| read.over)
}

/// Fields by way of our encoder and another decoder. Names are small before, since that is how they come back.
fn echo(fields: &[Field]) -> Vec<Field> {
    let (mut block, mut back) = (Vec::new(), Vec::new());
    for (name, value) in fields {
        hpack::encode(name, value, &mut block);
    }
    let over = read(&mut Decoder::new(0), &block, &mut Vec::new(), &mut back);
    assert_eq!(over, Ok(false));
    for ((name, _), (sent, _)) in back.iter_mut().zip(fields) {
        assert_eq!(*name, sent.to_ascii_lowercase());
        name.clone_from(sent);
    }
    back
}

/// A head whose fields are cut out of `data`, at 0xfe, and each in name and value, at 0xff: it is refused, or stored as
/// lines that say what was given, no more and no less; and HTTP/1.1 reads it, or has an honest reason not to.
///
/// # Panics
/// When it is not so.
pub fn fuzz_head(data: &[u8]) {
    let fields: Vec<(&[u8], &[u8])> = data.split(|&byte| byte == 0xfe).map(name_and_value).collect();
    let (mut stored, mut trailers) = (Vec::new(), Trailers::default());
    let mut head = RequestHead::new(&mut stored);
    for (name, value) in &fields {
        head.push(name, value);
        trailers.push(name, value);
    }
    let has_pseudo = fields.iter().any(|(name, _)| name.starts_with(b":"));
    assert!(!has_pseudo || trailers.finish().is_err());
    match head.finish() {
        Ok(_) => check_stored(&stored, &fields),
        Err(malformed) => assert!(stored.is_empty() && !malformed.to_string().is_empty()),
    }
}

fn name_and_value(field: &[u8]) -> (&[u8], &[u8]) {
    let at = field.iter().position(|&byte| byte == 0xff).unwrap_or(field.len());
    (&field[..at], field.get(at + 1..).unwrap_or_default())
}

fn check_stored(stored: &[u8], fields: &[(&[u8], &[u8])]) {
    let text: Vec<&[u8]> = stored.split(|&byte| byte == b'\n').collect();
    let lines: Vec<&[u8]> = text.iter().filter_map(|line| line.strip_suffix(b"\r")).collect();
    assert_eq!(lines.len() + 1, text.len(), "every line ends in CR LF");
    assert!(
        text.last() == Some(&&b""[..]) && lines.iter().rposition(|line| !line.is_empty()) == lines.len().checked_sub(2)
    );
    assert_eq!(stored.iter().filter(|&&byte| byte == b'\r').count(), lines.len());
    assert_eq!(lines[1..lines.len() - 1], expected_lines(fields));
    let of = |wanted: &[u8]| fields.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    let target = of(b":path").or(of(b":authority")).unwrap_or_default();
    let line = [of(b":method").unwrap_or_default(), b" ", target, b" HTTP/1.1"].concat();
    assert_eq!(lines[0], line);
    check_parsed(stored, lines.len() - 2);
}

/// The lines between the first and the empty one, by another reading of the rules.
fn expected_lines(fields: &[(&[u8], &[u8])]) -> Vec<Vec<u8>> {
    let line = |name: &[u8], value: &[u8]| [name, b": ", value].concat();
    let values =
        |wanted: &'static [u8]| fields.iter().filter(move |(name, _)| *name == wanted).map(|(_, value)| *value);
    let authority = values(b":authority").next();
    let mut lines: Vec<Vec<u8>> = authority.map(|authority| line(b"host", authority)).into_iter().collect();
    let mut has_length = false;
    for (name, value) in fields {
        let is_left_out = match *name {
            b"host" => authority.is_some(),
            b"te" | b"cookie" => true,
            b"content-length" => std::mem::replace(&mut has_length, true),
            other => other.starts_with(b":"),
        };
        if !is_left_out {
            lines.push(line(name, value));
        }
    }
    let cookies: Vec<&[u8]> = values(b"cookie").filter(|value| !value.is_empty()).collect();
    if !cookies.is_empty() {
        lines.push(line(b"cookie", &cookies.join(&b"; "[..])));
    }
    lines
}

/// HTTP/1.1 sees as many fields, or refuses for a reason of its own.
fn check_parsed(stored: &[u8], fields: usize) {
    let read = Head::parse(stored, 0, &Limits::default(), |head| {
        assert_eq!(head.all_fields().count(), fields);
        assert!(head.keep_alive() && head.is_modern());
    });
    match read {
        Ok(())
        | Err(
            Malformed::HostMissing
            | Malformed::HostAmbiguous
            | Malformed::HostInvalid
            | Malformed::Target
            | Malformed::Encoding
            | Malformed::TargetTooLong(_)
            | Malformed::TooManyFields(_),
        ) => {}
        // A path that is not UTF-8.
        Err(Malformed::RequestLine) => assert!(stored.iter().any(|byte| !byte.is_ascii())),
        Err(other) => panic!("{other}: {}", String::from_utf8_lossy(stored)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::websocket::fuzz::random::Random;

    const PSEUDO: &[u8] = b":method\xffGET\xfe:scheme\xffhttp\xfe:path\xff/a?b\xfe:authority\xffhost:1";

    #[test]
    fn bodies_hold_on_random_and_mutated_inputs() {
        let mut random = Random(0x5eed);
        let blocks: [&[u8]; 5] = [
            b"\x82\x86\x84\x41\x0fwww.example.com\xff\x82\x86\x84\xbe\x58\x08no-cache",
            b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\x9d",
            b"\x3f\x03\x40\x01a\x01b\xff\xbe\xbe\x7e\x01c\x20\xff\x20\x40\x01a\x01b",
            b"\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b\x40\x01a\x00\xbe\xbe\xbf",
            b"\x40\x01a\x7e0123456789012345678901234567890123456789\xbe\xbe\x10\x01b\x01c",
        ];
        let heads = [
            PSEUDO.to_vec(),
            [PSEUDO, b"\xfecookie\xffa=1\xfex\xffy\xfecookie\xffb\xfecontent-length\xff12\xfecontent-length\xff12"]
                .concat(),
            [PSEUDO, b"\xfete\xfftrailers\xfehost\xffhost:1\xfecontent-type\xffapplication/grpc\xfex\xff"].concat(),
            b":method\xffOPTIONS\xfe:scheme\xffhttps\xfe:path\xff*\xfehost\xff[::1]:80".to_vec(),
            b":method\xffCONNECT\xfe:authority\xffhost:443".to_vec(),
        ];
        let mut accepted = 0;
        for round in 0..40_000 {
            let mut data = blocks[round % blocks.len()].to_vec();
            random.mutate(&mut data);
            fuzz_blocks(&data);
            let mut data = heads[round % heads.len()].clone();
            random.mutate(&mut data);
            fuzz_head(&data);
            accepted += usize::from(RequestHead::accepts(&data));
            fuzz_blocks(&random.bytes(64));
        }
        assert!(accepted > 4_000, "{accepted} heads were looked at, which is few");
    }

    impl RequestHead<'_> {
        fn accepts(data: &[u8]) -> bool {
            let mut stored = Vec::new();
            let mut head = RequestHead::new(&mut stored);
            data.split(|&byte| byte == 0xfe).map(name_and_value).for_each(|(name, value)| head.push(name, value));
            head.finish().is_ok()
        }
    }

    #[test]
    fn a_head_that_smuggles_is_seen() {
        let smuggled =
            std::panic::catch_unwind(|| check_stored(b"GET / HTTP/1.1\r\nx: a\r\ny: b\r\n\r\n", &[(b"x", b"a")]));
        assert!(smuggled.is_err(), "the body of the fuzzer can fail");
    }
}
