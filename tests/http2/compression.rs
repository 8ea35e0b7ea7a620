//! The compression of fields (RFC 7541) as a server reads it.

use super::peer::same;
use super::wire::{
    ACK, COMPRESSION_ERROR, END_HEADERS, END_STREAM, HEADER_TABLE_SIZE, SETTINGS, WHOLE, block, data, headers, huffman,
    indexed, integer, literal, post, request, settings, status, stored, string, table_size,
};
use crate::judge;

/// A request with `rest` behind its pseudo-fields ends the connection.
fn bad(rest: &[u8]) {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &[request("GET", "/"), rest.to_vec()].concat()));
        peer.dies(&[COMPRESSION_ERROR]).map_err(|error| format!("{error}\nwith {rest:02x?}"))
    });
}

/// A request with `rest` behind its pseudo-fields is answered.
fn good(rest: &[u8]) {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &[request("GET", "/"), rest.to_vec()].concat()));
        peer.answers(1, 200)?;
        peer.lives()
    });
}

/// GET, http and / by their index: 2, 6 and 4.
fn by_index() -> Vec<u8> {
    [indexed(2), indexed(6), indexed(4)].concat()
}

#[test]
fn hpack_s2_3_3_an_index_beyond_both_tables() {
    bad(&indexed(62));
    bad(&indexed(70));
    bad(&indexed(127));
    bad(&indexed(128));
    bad(&indexed(100_000));
}

#[test]
fn hpack_s2_3_3_a_names_index_beyond_both_tables() {
    bad(&[integer(0x40, 6, 62), string(b"x")].concat());
    bad(&[integer(0, 4, 70), string(b"x")].concat());
    bad(&[integer(0x10, 4, 62), string(b"x")].concat());
}

#[test]
fn hpack_s2_3_2_entries_have_the_newest_first() {
    judge(|peer| {
        peer.send(&headers(
            1,
            WHOLE,
            &[indexed(2), indexed(6), indexed(4), stored(":authority", "localhost")].concat(),
        ));
        peer.answers(1, 200)?;
        // 62: the authority.
        peer.send(&headers(3, WHOLE, &[by_index(), indexed(62)].concat()));
        peer.answers(3, 200)?;
        peer.send(&headers(5, WHOLE, &[indexed(2), indexed(6), stored(":path", "/nowhere"), indexed(63)].concat()));
        peer.answers(5, 404)?;
        peer.send(&headers(7, WHOLE, &[indexed(2), indexed(6), stored(":path", "/"), indexed(64)].concat()));
        peer.answers(7, 200)?;
        // 62 is /, 63 /nowhere.
        peer.send(&headers(9, WHOLE, &[indexed(2), indexed(6), indexed(63), indexed(64)].concat()));
        peer.answers(9, 404)?;
        peer.send(&headers(11, WHOLE, &[indexed(2), indexed(6), indexed(62), indexed(64)].concat()));
        peer.answers(11, 200).map(drop)
    });
}

#[test]
fn hpack_s4_2_a_size_at_the_end_of_a_block() {
    bad(&table_size(0));
    bad(&[literal("x", "y"), table_size(100)].concat());
}

#[test]
fn hpack_s4_2_a_size_in_the_middle_of_a_block() {
    judge(|peer| {
        let block = [indexed(2), table_size(0), indexed(6), indexed(4), literal(":authority", "localhost")].concat();
        peer.send(&headers(1, WHOLE, &block));
        peer.dies(&[COMPRESSION_ERROR])
    });
}

#[test]
fn hpack_s4_2_two_sizes_at_the_start_of_a_block() {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &[table_size(0), table_size(4096), request("GET", "/")].concat()));
        peer.answers(1, 200)?;
        peer.send(&headers(3, WHOLE, &[table_size(100), request("GET", "/")].concat()));
        peer.answers(3, 200)?;
        peer.lives()
    });
}

#[test]
fn hpack_s4_3_a_smaller_table_evicts() {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &[request("GET", "/"), stored("x-kept", "value")].concat()));
        peer.answers(1, 200)?;
        peer.send(&headers(3, WHOLE, &[table_size(0), table_size(4096), request("GET", "/"), indexed(62)].concat()));
        peer.dies(&[COMPRESSION_ERROR])
    });
}

/// Entries cost 32 bytes more than they are long (section 4.1).
#[test]
fn hpack_s4_4_the_oldest_entries_go_first() {
    judge(|peer| {
        // 10 + 54 + 32 = 96 bytes: 42 fit into 4096.
        let entry = |number: usize| stored(&format!("x-name-{number:03}"), &"v".repeat(54));
        let all: Vec<u8> = (0..42).flat_map(entry).collect();
        peer.send(&headers(1, WHOLE, &[request("GET", "/"), all].concat()));
        peer.answers(1, 200)?;
        peer.send(&headers(3, WHOLE, &[request("GET", "/"), indexed(61 + 42)].concat()));
        peer.answers(3, 200)?;
        peer.send(&headers(5, WHOLE, &[request("GET", "/"), entry(42), indexed(61 + 42)].concat()));
        peer.answers(5, 200)?;
        peer.send(&headers(7, WHOLE, &[request("GET", "/"), indexed(61 + 43)].concat()));
        peer.dies(&[COMPRESSION_ERROR])
    });
}

#[test]
fn hpack_s4_4_an_entry_over_the_table_empties_it() {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &[request("GET", "/"), stored("x-kept", "value")].concat()));
        peer.answers(1, 200)?;
        peer.send(&headers(3, WHOLE, &[request("GET", "/"), stored("x-long", &"v".repeat(4096))].concat()));
        peer.answers(3, 200)?;
        peer.send(&headers(5, WHOLE, &[request("GET", "/"), indexed(62)].concat()));
        peer.dies(&[COMPRESSION_ERROR])
    });
}

#[test]
fn hpack_s5_1_integers_that_overflow() {
    bad(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    bad(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80]);
    bad(&[&[0][..], &string(b"x"), &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat());
}

#[test]
fn hpack_s5_1_integers_that_are_cut_off() {
    bad(&[0xff]);
    bad(&[0x7f, 0x80]);
    bad(&[0x00]);
}

#[test]
fn hpack_s5_2_strings_that_are_cut_off() {
    bad(&[0, 5, b'a', b'b']);
    bad(&[&[0][..], &string(b"x"), &[3, b'a', b'b']].concat());
    bad(&[&[0][..], &string(b"x")].concat());
    bad(&[&[0][..], &string(b"x"), &[0x85, 0xff]].concat());
}

/// x-test: test in Huffman's code, whose last bits are 1 and at most 7.
fn coded(value: &[u8]) -> Vec<u8> {
    [vec![0], string(b"x-test"), huffman(value)].concat()
}

#[test]
fn hpack_s5_2_strings_in_huffmans_code() {
    // "test" is 01001 00101 01000 01001, padded with 1111: 4 letters of 5 bits.
    good(&coded(&[0x49, 0x50, 0x9f]));
    good(&coded(&[]));
    judge(|peer| {
        // www.example.com, from appendix C.4.1.
        let authority = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        peer.send(&headers(1, WHOLE, &[&[0x82, 0x86, 0x84, 0x41][..], &huffman(&authority)].concat()));
        peer.answers(1, 200)?;
        peer.lives()
    });
}

#[test]
fn hpack_s5_2_padding_of_more_than_7_bits() {
    bad(&coded(&[0x49, 0x50, 0x9f, 0xff]));
    bad(&coded(&[0xff]));
}

#[test]
fn hpack_s5_2_padding_that_is_not_of_ones() {
    bad(&coded(&[0x49, 0x50, 0x90]));
    bad(&coded(&[0x49, 0x50, 0x9e]));
}

#[test]
fn hpack_s5_2_the_end_of_string_symbol() {
    bad(&coded(&[0x49, 0x50, 0x9f, 0xff, 0xff, 0xff, 0xff]));
    bad(&coded(&[0xff, 0xff, 0xff, 0xff]));
}

#[test]
fn hpack_s6_1_index_0() {
    bad(&[0x80]);
}

#[test]
fn hpack_s6_2_every_form_of_a_literal() {
    good(&[&[0x40][..], &string(b"x-new"), &string(b"stored")].concat());
    good(&[integer(0x40, 6, 58), string(b"agent of a known name")].concat());
    good(&[&[0x00][..], &string(b"x-new"), &string(b"not stored")].concat());
    good(&[integer(0, 4, 58), string(b"agent of a known name")].concat());
    good(&[&[0x10][..], &string(b"x-new"), &string(b"never stored")].concat());
    good(&[integer(0x10, 4, 58), string(b"agent of a known name")].concat());
}

#[test]
fn hpack_appendix_a_fields_of_the_static_table() {
    judge(|peer| {
        // POST, http, /, and an authority: index 3, 6, 4, 1; accept-encoding: gzip, deflate is 16.
        peer.send(&headers(1, WHOLE, &[by_index(), integer(0, 4, 1), string(b"localhost"), indexed(16)].concat()));
        peer.answers(1, 200)?;
        let echo = [indexed(3), indexed(6), integer(0, 4, 4), string(b"/echo"), integer(0, 4, 1), string(b"localhost")];
        peer.say(&[headers(3, END_HEADERS, &echo.concat()), data(3, END_STREAM, b"by index")]);
        same("the echo", peer.answers(3, 200)?, b"by index".to_vec())?;
        // Fields that a request has no use for, but for those of responses and connections.
        let others: Vec<u8> = (15..=61).filter(|index| ![28, 38, 57].contains(index)).flat_map(indexed).collect();
        peer.send(&headers(5, WHOLE, &[request("GET", "/"), others].concat()));
        let found = peer.until("an answer", |frame| frame.stream == 5 && matches!(frame.kind, 1 | 3))?;
        // The server understood it: empty fields may be worth any status, but are no error of compression.
        same("a status", found.kind == 3 || status(&found.payload).is_some(), true)?;
        peer.lives()
    });
}

#[test]
fn hpack_s6_3_a_size_over_the_limit() {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &[table_size(4097), request("GET", "/")].concat()));
        peer.dies(&[COMPRESSION_ERROR])
    });
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &[table_size(1 << 30), request("GET", "/")].concat()));
        peer.dies(&[COMPRESSION_ERROR])
    });
}

#[test]
fn s4_3_1_our_smaller_table_is_no_error() {
    judge(|peer| {
        for bytes in [0, 4096, 0, 1 << 30] {
            peer.send(&settings(&[(HEADER_TABLE_SIZE, bytes)]));
            peer.until("an acknowledgement", |frame| frame.kind == SETTINGS && frame.flags == ACK)?;
            peer.lives()?;
        }
        Ok(())
    });
}

#[test]
fn s4_3_a_block_that_is_no_field() {
    judge(|peer| {
        // A literal whose name is longer than the block (RFC 9113 section 4.3).
        peer.send(&headers(1, WHOLE, &[0x40, 0x7f, 0x10]));
        peer.dies(&[COMPRESSION_ERROR])
    });
}

#[test]
fn s4_3_trailers_that_do_not_decode() {
    judge(|peer| {
        peer.say(&[post(1), data(1, 0, b"x"), headers(1, WHOLE, &[block(&[("x", "y")]), indexed(70)].concat())]);
        peer.dies(&[COMPRESSION_ERROR])
    });
}
