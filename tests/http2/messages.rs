//! Requests that are well or badly formed (RFC 9113 section 8): each bad one is the error of its stream alone.

use super::peer::same;
use super::wire::{
    DATA, END_HEADERS, END_STREAM, HEADERS, NO_ERROR, PROTOCOL_ERROR, RST_STREAM, WHOLE, block, data, get, headers,
    post, request, request_with, stored,
};
use crate::judge;

/// A request of just these fields is malformed.
fn malformed(fields: &[(&str, &str)]) {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &block(fields)));
        peer.resets(1, &[PROTOCOL_ERROR]).map_err(|error| format!("{error}\nwith {fields:?}"))
    });
}

/// A request for a page with these fields is malformed.
fn malformed_with(fields: &[(&str, &str)]) {
    for field in fields {
        judge(|peer| {
            peer.send(&headers(1, WHOLE, &request_with("GET", "/", &[*field])));
            peer.resets(1, &[PROTOCOL_ERROR]).map_err(|error| format!("{error}\nwith {field:?}"))
        });
    }
}

/// A request for a page with these fields is answered.
fn answered_with(fields: &[(&str, &str)]) {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &request_with("GET", "/", fields)));
        peer.answers(1, 200).map(drop)
    });
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", "localhost");

#[test]
fn s8_1_a_second_head_that_does_not_end_the_stream() {
    judge(|peer| {
        peer.say(&[post(1), data(1, 0, b"x"), headers(1, END_HEADERS, &block(&[("x-trailer", "1")]))]);
        peer.resets(1, &[PROTOCOL_ERROR])
    });
}

#[test]
fn s8_1_trailers_end_a_body() {
    judge(|peer| {
        peer.say(&[post(1), data(1, 0, b"before trailers"), headers(1, WHOLE, &block(&[("x-sum", "1"), ("a", "")]))]);
        same("the echo", peer.answers(1, 200)?, b"before trailers".to_vec())?;
        peer.say(&[
            post(3),
            headers(3, END_STREAM, &[]),
            super::wire::continuation(3, END_HEADERS, &block(&[("b", "c")])),
        ]);
        same("the echo", peer.answers(3, 200)?, Vec::new())?;
        peer.lives()
    });
}

#[test]
fn s8_1_pseudo_fields_in_trailers() {
    for field in [(":method", "GET"), (":status", "200"), (":path", "/"), (":unknown", "")] {
        judge(|peer| {
            peer.say(&[post(1), data(1, 0, b"x"), headers(1, WHOLE, &block(&[("x-sum", "1"), field]))]);
            peer.resets(1, &[PROTOCOL_ERROR])
        });
    }
}

#[test]
fn s8_2_1_bad_trailers() {
    for field in [("UPPER", "x"), ("connection", "close"), ("x", "a\r\nb"), ("x y", "")] {
        judge(|peer| {
            peer.say(&[post(1), data(1, 0, b"x"), headers(1, WHOLE, &block(&[field]))]);
            peer.resets(1, &[PROTOCOL_ERROR])
        });
    }
}

#[test]
fn s8_2_1_names_in_upper_case() {
    malformed_with(&[("X-TEST", "ok"), ("x-tesT", "ok"), ("A", "")]);
}

#[test]
fn s8_2_1_names_of_other_characters() {
    malformed_with(&[
        ("", "no name"),
        ("x y", "a space"),
        (" x", "a space before"),
        ("x\0", "a zero byte"),
        ("x\r\ny", "a line"),
        ("x:", "a colon"),
        ("x:y", "a colon"),
        ("x\u{7f}", "DEL"),
        ("\u{fc}", "beyond ASCII"),
        ("x\t", "a tab"),
    ]);
}

#[test]
fn s8_2_1_values_of_other_characters() {
    malformed_with(&[
        ("x", "a\0b"),
        ("x", "a\rb"),
        ("x", "a\nb"),
        ("x", "a\r\nhost: evil"),
        ("x", " a"),
        ("x", "a "),
        ("x", "\ta"),
        ("x", "a\t"),
        ("x", " "),
    ]);
}

#[test]
fn s8_2_1_values_that_are_well() {
    answered_with(&[
        ("x", ""),
        ("x-space", "a b\tc"),
        ("x-utf-8", "gr\u{fc}\u{df}e"),
        ("x!#$%&'*+-.^_`|~9", "every token"),
    ]);
}

#[test]
fn s8_2_2_fields_of_the_connection() {
    malformed_with(&[
        ("connection", "keep-alive"),
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("upgrade", "websocket"),
    ]);
}

#[test]
fn s8_2_2_te_says_only_trailers() {
    malformed_with(&[("te", "gzip"), ("te", "trailers, deflate;q=0.5"), ("te", "chunked")]);
    answered_with(&[("te", "trailers")]);
}

#[test]
fn s8_2_3_cookies_may_come_in_crumbs() {
    answered_with(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
}

#[test]
fn s8_3_unknown_pseudo_fields() {
    malformed(&[METHOD, SCHEME, PATH, AUTHORITY, (":test", "ok")]);
    malformed(&[(":", ""), METHOD, SCHEME, PATH, AUTHORITY]);
    malformed(&[METHOD, SCHEME, PATH, AUTHORITY, (":Method", "GET")]);
}

#[test]
fn s8_3_pseudo_fields_of_responses() {
    malformed(&[METHOD, SCHEME, PATH, AUTHORITY, (":status", "200")]);
}

#[test]
fn s8_3_pseudo_fields_behind_others() {
    malformed(&[METHOD, SCHEME, AUTHORITY, ("x-test", "ok"), PATH]);
    malformed(&[("x-test", "ok"), METHOD, SCHEME, PATH, AUTHORITY]);
    malformed(&[METHOD, SCHEME, PATH, ("x-test", "ok"), AUTHORITY]);
}

#[test]
fn s8_3_1_each_pseudo_field_is_needed() {
    malformed(&[SCHEME, PATH, AUTHORITY]);
    malformed(&[METHOD, PATH, AUTHORITY]);
    malformed(&[METHOD, SCHEME, AUTHORITY]);
    malformed(&[("x", "y")]);
}

#[test]
fn s8_3_1_a_request_without_any_field() {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &[]));
        peer.resets(1, &[PROTOCOL_ERROR])
    });
}

#[test]
fn s8_3_1_each_pseudo_field_is_there_once() {
    malformed(&[METHOD, SCHEME, PATH, AUTHORITY, METHOD]);
    malformed(&[METHOD, SCHEME, PATH, AUTHORITY, SCHEME]);
    malformed(&[METHOD, SCHEME, PATH, AUTHORITY, PATH]);
    malformed(&[METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY]);
}

#[test]
fn s8_3_1_an_empty_path() {
    malformed(&[METHOD, SCHEME, (":path", ""), AUTHORITY]);
}

#[test]
fn s8_3_1_values_of_pseudo_fields() {
    malformed(&[(":method", ""), SCHEME, PATH, AUTHORITY]);
    malformed(&[(":method", "GE T"), SCHEME, PATH, AUTHORITY]);
    malformed(&[(":method", "GET\r\nx: y"), SCHEME, PATH, AUTHORITY]);
    malformed(&[METHOD, SCHEME, (":path", "/a b"), AUTHORITY]);
    malformed(&[METHOD, SCHEME, (":path", "/a\r\nx: y"), AUTHORITY]);
    malformed(&[METHOD, SCHEME, (":path", "/ HTTP/1.1\r\nhost: evil\r\n\r\n"), AUTHORITY]);
    malformed(&[METHOD, SCHEME, PATH, (":authority", "a\r\nx: y")]);
    malformed(&[METHOD, SCHEME, PATH, (":authority", "user:secret@localhost")]);
}

#[test]
fn s8_3_1_a_path_begins_with_a_slash() {
    malformed(&[METHOD, SCHEME, (":path", "index.html"), AUTHORITY]);
    malformed(&[METHOD, SCHEME, (":path", "*"), AUTHORITY]);
}

#[test]
fn s8_3_1_authority_and_host_agree() {
    malformed_with(&[("host", "elsewhere")]);
    answered_with(&[("host", "localhost")]);
}

#[test]
fn s8_3_1_host_may_stand_for_the_authority() {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &block(&[METHOD, SCHEME, PATH, ("host", "localhost")])));
        peer.answers(1, 200).map(drop)
    });
}

#[test]
fn s8_1_1_content_length_that_is_not_the_bodys() {
    let head =
        |stream, length| headers(stream, END_HEADERS, &request_with("POST", "/echo", &[("content-length", length)]));
    for (length, pieces) in
        [("1", &["hello"][..]), ("6", &["hello"]), ("5", &["hello", "!"]), ("9", &["one", "two"]), ("0", &["x"])]
    {
        judge(|peer| {
            peer.send(&head(1, length));
            for (number, piece) in pieces.iter().enumerate() {
                let ends = if number + 1 == pieces.len() { END_STREAM } else { 0 };
                peer.send(&data(1, ends, piece.as_bytes()));
            }
            peer.resets(1, &[PROTOCOL_ERROR]).map_err(|error| format!("{error}\nwith {length} for {pieces:?}"))
        });
    }
}

#[test]
fn s8_1_1_content_length_without_a_body() {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &request_with("POST", "/echo", &[("content-length", "1")])));
        peer.resets(1, &[PROTOCOL_ERROR])
    });
}

#[test]
fn s8_1_1_content_length_before_trailers() {
    judge(|peer| {
        let head = request_with("POST", "/echo", &[("content-length", "3")]);
        peer.say(&[headers(1, END_HEADERS, &head), data(1, 0, b"ab"), headers(1, WHOLE, &block(&[("x", "y")]))]);
        peer.resets(1, &[PROTOCOL_ERROR])
    });
}

#[test]
fn s8_1_1_content_length_that_is_no_number() {
    for length in ["", "-1", "+1", "0x1", "1,2", "99999999999999999999999", "1 2"] {
        judge(|peer| {
            let head = request_with("POST", "/echo", &[("content-length", length)]);
            peer.say(&[headers(1, END_HEADERS, &head), data(1, END_STREAM, b"x")]);
            peer.resets(1, &[PROTOCOL_ERROR]).map_err(|error| format!("{error}\nwith {length:?}"))
        });
    }
    judge(|peer| {
        let head = request_with("POST", "/echo", &[("content-length", "1"), ("content-length", "2")]);
        peer.say(&[headers(1, END_HEADERS, &head), data(1, END_STREAM, b"x")]);
        peer.resets(1, &[PROTOCOL_ERROR])
    });
}

#[test]
fn s8_1_1_content_length_that_is_right() {
    judge(|peer| {
        let head = request_with("POST", "/echo", &[("content-length", "10")]);
        peer.say(&[
            headers(1, END_HEADERS, &head),
            data(1, 0, b"hello"),
            data(1, 0, b""),
            data(1, END_STREAM, b"world"),
        ]);
        same("the echo", peer.answers(1, 200)?, b"helloworld".to_vec())
    });
}

/// A malformed request has gone through the tables of fields all the same: what it stored is there (section 4.3).
#[test]
fn s4_3_a_malformed_request_leaves_the_tables_whole() {
    judge(|peer| {
        peer.send(&headers(
            1,
            WHOLE,
            &[request("GET", "/"), block(&[("UPPER", "x")]), stored(":path", "/echo")].concat(),
        ));
        peer.until("RST_STREAM", |frame| frame.kind == RST_STREAM && frame.stream == 1)?;
        let rest = block(&[(":method", "POST"), SCHEME, AUTHORITY]);
        peer.say(&[
            headers(3, END_HEADERS, &[rest, super::wire::indexed(62)].concat()),
            data(3, END_STREAM, b"stored"),
        ]);
        same("the echo", peer.answers(3, 200)?, b"stored".to_vec())
    });
}

/// An answer that does not wait for its request's body may end first, and then says NO_ERROR or nothing.
#[test]
fn s8_1_an_answer_before_the_end_of_a_request() {
    judge(|peer| {
        peer.send(&headers(1, END_HEADERS, &request("POST", "/")));
        let mut answered = false;
        while !answered {
            let frame =
                peer.until("405", |frame| frame.stream == 1 && matches!(frame.kind, HEADERS | DATA | RST_STREAM))?;
            if frame.kind == RST_STREAM {
                return same("the code", frame.number(0), NO_ERROR);
            }
            answered = frame.ends_stream();
        }
        peer.say(&[data(1, END_STREAM, b"that nobody waits for"), get(3)]);
        peer.answers(3, 200)?;
        peer.lives()
    });
}

#[test]
fn s8_5_connect_has_neither_scheme_nor_path() {
    malformed(&[(":method", "CONNECT"), SCHEME, PATH, AUTHORITY]);
    malformed(&[(":method", "CONNECT")]);
}

/// Nobody connects through this server: refused, not left waiting.
#[test]
fn s8_5_connect_is_refused() {
    judge(|peer| {
        peer.send(&headers(1, END_HEADERS, &block(&[(":method", "CONNECT"), (":authority", "localhost:80")])));
        let frame = peer.until("an answer", |frame| frame.stream == 1 && matches!(frame.kind, HEADERS | RST_STREAM))?;
        if frame.kind == HEADERS {
            let found = super::wire::status(&frame.payload);
            same("a status that refuses", found.is_some_and(|status| status >= 400), true)?;
        }
        peer.lives()
    });
}
