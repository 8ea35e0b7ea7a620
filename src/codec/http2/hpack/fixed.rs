//! The static table (RFC 7541 appendix A), and how a field is found in it.

/// Names and values; the first has index 1.
pub(super) static FIELDS: [(&[u8], &[u8]); 61] = TABLE;

#[rustfmt::skip]
const TABLE: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// Where a name is looked for: its place by [`hash`], and those behind it, to the first that is 0.
static PLACES: [u8; PLACES_COUNT] = places();

const PLACES_COUNT: usize = 128;

/// By length and two letters. Capitals count as small letters, and what is no letter is changed likewise everywhere.
const fn hash(name: &[u8]) -> usize {
    if name.is_empty() {
        return 0;
    }
    let (first, last) = (name[name.len() / 2] | 0x20, name[name.len() - 1] | 0x20);
    (name.len() * 5 + first as usize * 3 + last as usize * 17) % PLACES_COUNT
}

/// Each name once, with the index of its first field. Fields of one name follow each other.
const fn places() -> [u8; PLACES_COUNT] {
    let mut places = [0; PLACES_COUNT];
    let mut index: u8 = 1;
    while index as usize <= TABLE.len() {
        let name = TABLE[index as usize - 1].0;
        if index == 1 || !is_same(name, TABLE[index as usize - 2].0) {
            let mut place = hash(name);
            while places[place] != 0 {
                place = (place + 1) % PLACES_COUNT;
            }
            places[place] = index;
        }
        index += 1;
    }
    places
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut same = a.len() == b.len();
    let mut at = 0;
    while same && at < a.len() {
        same = a[at] == b[at];
        at += 1;
    }
    same
}

/// What the table has of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The field.
    Field(u8),
    /// Its name.
    Name(u8),
    /// Nothing.
    Nothing,
}

/// Looks for a field, whose name may have capitals.
pub(super) fn find(name: &[u8], value: &[u8]) -> Found {
    let mut place = hash(name);
    while PLACES[place] != 0 {
        let first = PLACES[place];
        if FIELDS[usize::from(first) - 1].0.eq_ignore_ascii_case(name) {
            return among(first, value);
        }
        place = (place + 1) % PLACES_COUNT;
    }
    Found::Nothing
}

/// Looks for a value among the fields that have the name of the `first`.
fn among(first: u8, value: &[u8]) -> Found {
    let fields = &FIELDS[usize::from(first) - 1..];
    let same_name = fields.iter().take_while(|(name, _)| *name == fields[0].0);
    for (index, (_, known)) in (first..).zip(same_name) {
        if *known == value && !value.is_empty() {
            return Found::Field(index);
        }
    }
    Found::Name(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_that_of_appendix_a() {
        assert_eq!(FIELDS[0], (&b":authority"[..], &b""[..]));
        assert_eq!(FIELDS[15], (&b"accept-encoding"[..], &b"gzip, deflate"[..]));
        assert_eq!(FIELDS[60], (&b"www-authenticate"[..], &b""[..]));
        assert!(
            FIELDS[14..].is_sorted_by(|a, b| a.0 < b.0 || *b.0 == *b"accept"),
            "by name but for the RFC's own slip"
        );
    }

    #[test]
    fn every_field_is_found() {
        for (index, (name, value)) in (1..).zip(FIELDS) {
            let first = (1..).zip(FIELDS).find(|(_, field)| field.0 == name).map_or(0, |(first, _)| first);
            let expected = if value.is_empty() { Found::Name(first) } else { Found::Field(index) };
            assert_eq!(find(name, value), expected);
            assert_eq!(find(&name.to_ascii_uppercase(), b"else"), Found::Name(first));
        }
        for name in [&b""[..], b"x", b"grpc-status", b"content-typ", b"content-typf"] {
            assert_eq!(find(name, b""), Found::Nothing);
        }
    }
}
