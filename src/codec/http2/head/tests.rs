#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::codec::http1::{Head, Malformed};
use crate::config::Limits;

type Fields<'a> = &'a [(&'a str, &'a str)];

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "host")];

fn head(fields: Fields<'_>) -> Result<(String, Facts), MalformedHead> {
    let mut out = b"before".to_vec();
    let mut head = RequestHead::new(&mut out);
    fields.iter().for_each(|(name, value)| head.push(name.as_bytes(), value.as_bytes()));
    let facts = head.finish();
    let stored = String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned();
    assert!(facts.is_ok() || stored.is_empty(), "nothing is left of what is malformed");
    facts.map(|facts| (stored, facts))
}

/// As it is stored.
fn stored(fields: Fields<'_>) -> Result<String, MalformedHead> {
    head(fields).map(|(stored, _)| stored)
}

/// [`GET`], and more fields.
fn get(fields: Fields<'_>) -> Result<String, MalformedHead> {
    stored(&[&GET, fields].concat())
}

fn pseudo(fields: Fields<'_>) -> MalformedHead {
    stored(fields).unwrap_err()
}

#[test]
fn a_request_is_stored_as_http_1_1_writes_it() {
    let fields = [("accept", "*/*"), ("te", "trailers"), ("x-empty", ""), ("x-text", "a: b, \u{e4}\tc")];
    let expected = "GET /a HTTP/1.1\r\nhost: host\r\naccept: */*\r\nx-empty: \r\nx-text: a: b, \u{e4}\tc\r\n\r\n";
    assert_eq!(get(&fields).unwrap(), expected);
    assert_eq!(get(&[]).unwrap(), "GET /a HTTP/1.1\r\nhost: host\r\n\r\n", "also without any field");
    let turned: Vec<_> = GET.into_iter().rev().collect();
    assert_eq!(stored(&turned), get(&[]), "pseudo-fields come in any order");
}

#[test]
fn what_is_stored_is_read_as_a_head() {
    let (stored, _) = head(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "example.com:8443"),
        (":path", "/holdline.v1.Edge/Connect?x=%20"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ])
    .unwrap();
    let seen = |head: &Head<'_>| {
        assert_eq!((head.method(), head.path(), head.raw_query()), ("POST", "/holdline.v1.Edge/Connect", "x=%20"));
        assert_eq!(head.host(), b"example.com:8443");
        assert_eq!(head.field("content-type"), Some(&b"application/grpc"[..]));
        assert!(head.field("te").is_none() && head.keep_alive());
    };
    Head::parse(stored.as_bytes(), 0, &Limits::default(), seen).unwrap();
}

#[test]
fn facts_are_found_on_the_way() {
    let facts = |fields: Fields<'_>| head(&[&GET, fields].concat()).map(|(_, facts)| facts).unwrap();
    assert_eq!(facts(&[]), Facts::default());
    assert_eq!(facts(&[("content-length", "12")]).content_length, Some(12));
    for (kind, is_grpc) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("Application/gRPC;charset=utf-8", true),
        ("application/grpc-web", false),
        ("application/json", false),
        ("application/grp", false),
    ] {
        assert_eq!(facts(&[("content-type", kind)]).is_grpc, is_grpc, "{kind}");
    }
}

#[test]
fn names_are_small_letters_and_tokens() {
    // Section 8.2.1.
    for name in ["", "Accept", "x y", "x\u{0}", "x\r\ny", "x:", "\u{e4}", "x\u{7f}", "x(", " x"] {
        assert_eq!(get(&[(name, "1")]), Err(MalformedHead::FieldName), "{name:?}");
    }
}

#[test]
fn values_have_no_control_characters_and_no_blanks_at_their_ends() {
    // Section 8.2.1.
    for value in ["\r\nx: y", "a\nb", "a\rb", "a\0b", "\u{1}", "\u{7f}", " a", "a ", "\ta", "a\t", " "] {
        assert_eq!(get(&[("x", value)]), Err(MalformedHead::FieldValue), "{value:?}");
    }
}

#[test]
fn fields_of_connections_are_refused() {
    // Section 8.2.2.
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert_eq!(get(&[(name, "close")]), Err(MalformedHead::ConnectionField), "{name}");
    }
    assert_eq!(get(&[("te", "trailers")]), get(&[]));
    for te in ["gzip", "trailers, deflate", ""] {
        assert_eq!(get(&[("te", te)]), Err(MalformedHead::Te), "{te}");
    }
}

#[test]
fn pseudo_fields_are_known_first_and_single() {
    // Section 8.3.
    assert_eq!(pseudo(&[&GET[..], &[("x", "1"), (":authority", "a")]].concat()), MalformedHead::PseudoLate);
    assert_eq!(pseudo(&[&GET[..3], &[("x", "1"), (":authority", "a")]].concat()), MalformedHead::PseudoLate);
    for field in GET {
        assert_eq!(pseudo(&[&GET[..], &[field]].concat()), MalformedHead::PseudoTwice);
    }
    for name in [":status", ":", ":Method", ":foo", ":method:"] {
        assert_eq!(pseudo(&[&[(name, "200")], &GET[..]].concat()), MalformedHead::PseudoUnknown, "{name}");
    }
    assert_eq!(pseudo(&[&GET[..], &[(":status", "200")]].concat()), MalformedHead::PseudoUnknown);
}

#[test]
fn method_scheme_and_path_are_there() {
    // Section 8.3.1.
    for missing in [":method", ":scheme", ":path"] {
        let mut fields = GET.to_vec();
        fields.retain(|(name, _)| *name != missing);
        assert_eq!(pseudo(&fields), MalformedHead::PseudoMissing, "{missing}");
        fields.push(("x", "1"));
        assert_eq!(pseudo(&fields), MalformedHead::PseudoMissing);
    }
    assert_eq!(pseudo(&[]), MalformedHead::PseudoMissing);
    assert_eq!(pseudo(&[("accept", "*/*")]), MalformedHead::PseudoMissing);
}

/// [`GET`] with one of its fields changed.
fn changed(name: &str, value: &str) -> Result<String, MalformedHead> {
    let fields = GET.map(|field| if field.0 == name { (field.0, value) } else { field });
    stored(&fields)
}

#[test]
fn pseudo_fields_are_what_they_are_called() {
    // Section 8.3.1.
    for method in ["", "GET /x HTTP/1.1\r\nx: y\r\n\r\n", "G T", "GET\0", "G\u{e4}T", "GET:"] {
        assert_eq!(changed(":method", method), Err(MalformedHead::Method), "{method:?}");
    }
    for scheme in ["", "1http", "ht tp", "http:", "http\r\n"] {
        assert_eq!(changed(":scheme", scheme), Err(MalformedHead::Scheme), "{scheme:?}");
    }
    for path in ["", "a", "*", "http://host/a", "?a", "/a b", "/a HTTP/1.1\r\nx: y", "/\t", "/\0", "/\u{7f}"] {
        assert_eq!(changed(":path", path), Err(MalformedHead::Path), "{path:?}");
    }
    for authority in ["", "me@host", "me:secret@host", "a b", "a\r\nx: y", "h\u{f6}st", "\u{7f}"] {
        assert_eq!(changed(":authority", authority), Err(MalformedHead::Authority), "{authority:?}");
    }
}

#[test]
fn the_whole_server_can_be_asked_for_its_options() {
    // Section 8.3.1.
    let fields = [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "host")];
    assert_eq!(stored(&fields).unwrap(), "OPTIONS * HTTP/1.1\r\nhost: host\r\n\r\n");
}

#[test]
fn the_host_is_the_authority() {
    // Section 8.3.1.
    assert_eq!(get(&[("host", "HOST")]), get(&[]), "once is enough");
    assert_eq!(get(&[("host", "other")]), Err(MalformedHead::HostContradicts));
    assert_eq!(get(&[("host", "")]), Err(MalformedHead::HostContradicts));
    let alone = |host| stored(&[&GET[..3], &[("host", host)]].concat());
    assert_eq!(alone("a:1").unwrap(), "GET /a HTTP/1.1\r\nhost: a:1\r\n\r\n");
    for host in ["", "me@host"] {
        assert_eq!(alone(host), Err(MalformedHead::Authority));
    }
}

#[test]
fn what_http_1_1_has_an_answer_to_gets_that() {
    let read = |stored: String| {
        let read = Head::parse(stored.as_bytes(), 0, &Limits::default(), |_| ());
        read.map_err(|malformed| (malformed, malformed.status()))
    };
    assert_eq!(read(stored(&GET[..3]).unwrap()), Err((Malformed::HostMissing, 400)));
    let twice = stored(&[&GET[..3], &[("host", "a"), ("host", "a")]].concat());
    assert_eq!(read(twice.unwrap()), Err((Malformed::HostAmbiguous, 400)));
    assert_eq!(read(changed(":authority", "a,b").unwrap()), Err((Malformed::HostInvalid, 400)));
    assert_eq!(read(changed(":path", "/%zz").unwrap()), Err((Malformed::Encoding, 400)));
    assert_eq!(read(changed(":path", "/a#b").unwrap()), Err((Malformed::Target, 400)));
    let long = format!("/{}", "a".repeat(Limits::default().target_bytes_max));
    assert_eq!(read(changed(":path", &long).unwrap()).unwrap_err().1, 414);
    let connect = stored(&[(":method", "CONNECT"), (":authority", "host:1")]);
    assert_eq!(read(connect.unwrap()), Err((Malformed::Target, 400)));
}

#[test]
fn connect_has_an_authority_and_nothing_else() {
    // Section 8.5.
    let (method, authority) = ((":method", "CONNECT"), (":authority", "host:1"));
    assert_eq!(stored(&[method, authority]).unwrap(), "CONNECT host:1 HTTP/1.1\r\nhost: host:1\r\n\r\n");
    assert_eq!(pseudo(&[method]), MalformedHead::Connect);
    assert_eq!(pseudo(&[method, authority, (":scheme", "http")]), MalformedHead::Connect);
    assert_eq!(pseudo(&[method, authority, (":path", "/")]), MalformedHead::Connect);
}

#[test]
fn an_extended_connect_asks_for_an_upgrade() {
    // RFC 8441 section 4.
    let extended = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "host:1"),
        (":path", "/echo"),
    ];
    let head = stored(&[&extended[..], &[("sec-websocket-version", "13")]].concat()).unwrap();
    let lines = "GET /echo HTTP/1.1\r\nhost: host:1\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n";
    assert_eq!(head, lines);
    assert_eq!(pseudo(&extended[..3]), MalformedHead::PseudoMissing);
    assert_eq!(pseudo(&[&GET[..], &[(":protocol", "websocket")]].concat()), MalformedHead::Protocol);
    assert_eq!(pseudo(&[&extended[..1], &[(":protocol", "a b")], &extended[2..]].concat()), MalformedHead::Protocol);
}

#[test]
fn cookies_are_joined() {
    // Section 8.2.3.
    let fields = [("cookie", "a=1"), ("x", "y"), ("cookie", ""), ("cookie", "b=2; c=3"), ("cookie", "d=4")];
    let expected = "GET /a HTTP/1.1\r\nhost: host\r\nx: y\r\ncookie: a=1; b=2; c=3; d=4\r\n\r\n";
    assert_eq!(get(&fields).unwrap(), expected);
}

#[test]
fn a_content_length_is_one_number() {
    // Section 8.1.1.
    let twice = get(&[("content-length", "7"), ("content-length", "7")]);
    assert_eq!(twice.unwrap(), "GET /a HTTP/1.1\r\nhost: host\r\ncontent-length: 7\r\n\r\n");
    assert_eq!(get(&[("content-length", "7"), ("content-length", "8")]), Err(MalformedHead::ContentLength));
    for length in ["", "+1", "-1", "1, 1", "0x1", "1 1", "18446744073709551616"] {
        assert_eq!(get(&[("content-length", length)]), Err(MalformedHead::ContentLength), "{length}");
    }
}

#[test]
fn trailers_have_no_pseudo_fields() {
    // Section 8.1.
    let trailers = |fields: Fields<'_>| {
        let mut trailers = Trailers::default();
        fields.iter().for_each(|(name, value)| trailers.push(name.as_bytes(), value.as_bytes()));
        trailers.finish()
    };
    assert_eq!(trailers(&[]), Ok(()));
    assert_eq!(trailers(&[("grpc-status", "0"), ("x", "")]), Ok(()));
    assert_eq!(trailers(&[(":path", "/")]), Err(MalformedHead::PseudoLate));
    assert_eq!(trailers(&[("x", "1"), (":status", "200"), ("Y", "1")]), Err(MalformedHead::PseudoLate));
    assert_eq!(trailers(&[("X", "1")]), Err(MalformedHead::FieldName));
    assert_eq!(trailers(&[("x", "1\n")]), Err(MalformedHead::FieldValue));
    assert_eq!(trailers(&[("connection", "close")]), Err(MalformedHead::ConnectionField));
}
