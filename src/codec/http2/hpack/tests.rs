#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

const WIDE: Bounds = Bounds { bytes_max: 1 << 16, fields_max: 100 };

/// Bytes as RFC 7541 prints them.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit.to_le_bytes()[0]).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn bounded(decoder: &mut Decoder, block: &[u8], bounds: Bounds) -> Result<(Vec<(String, String)>, Decoded), BadBlock> {
    let (mut fields, text) = (Vec::new(), |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned());
    let mut room = b"what is left of before".to_vec();
    let decoded = decoder.decode(block, bounds, &mut room, |name, value| fields.push((text(name), text(value))))?;
    Ok((fields, decoded))
}

/// A block's fields, a line each.
fn read(decoder: &mut Decoder, block: &[u8]) -> Result<String, BadBlock> {
    let (fields, decoded) = bounded(decoder, block, WIDE)?;
    assert!(!decoded.over && decoded.fields == fields.len());
    assert_eq!(decoded.bytes, fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>());
    Ok(fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect())
}

fn fresh(block: &str) -> Result<String, BadBlock> {
    read(&mut Decoder::new(4096), &hex(block))
}

/// The dynamic table, the newest entry first, and its size.
fn table(decoder: &Decoder) -> String {
    let mut text = String::new();
    for index in 62.. {
        let Ok((name, value)) = decoder.entry(index) else { break };
        text += &format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    }
    text
}

#[test]
fn numbers_of_appendix_c_1() {
    let encoded = |value, prefix| {
        let mut out = Vec::new();
        encode_integer(value, prefix, 0, &mut out);
        out
    };
    assert_eq!(encoded(10, 5), [10]);
    assert_eq!(encoded(1337, 5), [31, 154, 10]);
    assert_eq!(encoded(42, 8), [42]);
    assert_eq!(encoded(31, 5), [31, 0]);
    for value in (0..70_000).chain([u32::MAX as usize]) {
        // As the length of a table, whose prefix has five bits.
        let mut block = encoded(value, 5);
        block[0] |= 0x20;
        assert_eq!(Reader::new(&block).item(), Ok(Item::TableSize(value)));
    }
}

#[test]
fn fields_of_appendix_c_2() {
    let mut decoder = Decoder::new(4096);
    let block = hex("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
    assert_eq!(read(&mut decoder, &block).unwrap(), "custom-key: custom-header\n");
    assert_eq!(table(&decoder), "custom-key: custom-header\n");
    let mut decoder = Decoder::new(4096);
    let block = hex("040c 2f73 616d 706c 652f 7061 7468");
    assert_eq!(read(&mut decoder, &block).unwrap(), ":path: /sample/path\n");
    let block = hex("1008 7061 7373 776f 7264 0673 6563 7265 74");
    assert_eq!(read(&mut decoder, &block).unwrap(), "password: secret\n");
    assert_eq!(read(&mut decoder, &[0x82]).unwrap(), ":method: GET\n");
    assert!(decoder.table.is_none() && decoder.memory() == 0, "none of these is added");
}

/// Appendices C.3 and C.4: the same requests, without and with Huffman codes.
#[test]
fn requests_of_appendix_c_3_and_4() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let get = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new(4096);
        assert_eq!(read(&mut decoder, &hex(blocks[0])).unwrap(), get);
        assert_eq!(table(&decoder), ":authority: www.example.com\n");
        assert_eq!(read(&mut decoder, &hex(blocks[1])).unwrap(), format!("{get}cache-control: no-cache\n"));
        assert_eq!(table(&decoder), "cache-control: no-cache\n:authority: www.example.com\n");
        let third = ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n";
        assert_eq!(read(&mut decoder, &hex(blocks[2])).unwrap(), format!("{third}custom-key: custom-value\n"));
        let all = "custom-key: custom-value\ncache-control: no-cache\n:authority: www.example.com\n";
        assert_eq!(table(&decoder), all);
    }
}

/// Appendices C.5 and C.6: responses in a table of 256 bytes, from which entries are dropped.
#[test]
fn responses_of_appendix_c_5_and_6() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d
         546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f
         6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b
         2076 6572 7369 6f6e 3d31",
    ];
    let coded = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7
         8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335
         dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    let (private, location) = ("cache-control: private\n", "location: https://www.example.com\n");
    let (first, later) = ("date: Mon, 21 Oct 2013 20:13:21 GMT\n", "date: Mon, 21 Oct 2013 20:13:22 GMT\n");
    let cookie = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n";
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new(256);
        let expected = format!(":status: 302\n{private}{first}{location}");
        assert_eq!(read(&mut decoder, &hex(blocks[0])).unwrap(), expected);
        assert_eq!(table(&decoder), format!("{location}{first}{private}:status: 302\n"));
        let expected = format!(":status: 307\n{private}{first}{location}");
        assert_eq!(read(&mut decoder, &hex(blocks[1])).unwrap(), expected);
        assert_eq!(table(&decoder), format!(":status: 307\n{location}{first}{private}"));
        let expected = format!(":status: 200\n{private}{later}{location}content-encoding: gzip\n{cookie}");
        assert_eq!(read(&mut decoder, &hex(blocks[2])).unwrap(), expected);
        assert_eq!(table(&decoder), format!("{cookie}content-encoding: gzip\n{later}"));
    }
}

#[test]
fn an_index_must_be_in_a_table() {
    // Sections 2.3.3 and 6.1.
    assert_eq!(fresh("80"), Err(BadBlock::Index), "0 is not used");
    assert_eq!(fresh("be"), Err(BadBlock::Index), "the dynamic table is empty");
    assert_eq!(fresh("ff ff ff ff 0f"), Err(BadBlock::Index));
    assert_eq!(fresh("7e 01 61"), Err(BadBlock::Index), "nor is there a name");
    assert_eq!(fresh("40 01 61 01 62 be").unwrap(), "a: b\na: b\n");
    assert_eq!(fresh("40 01 61 01 62 bf"), Err(BadBlock::Index));
    assert_eq!(fresh("bd").unwrap(), "www-authenticate: \n");
}

#[test]
fn numbers_are_bounded() {
    // Section 5.1.
    assert_eq!(fresh("ff ff ff ff ff ff"), Err(BadBlock::Integer), "they go on and on");
    assert_eq!(fresh("ff 80 80 80 80 80 00"), Err(BadBlock::Integer), "also with zeros");
    assert_eq!(fresh("ff 80 80 80 80 10"), Err(BadBlock::Integer), "33 bits");
    assert_eq!(fresh("00 7f ff ff ff ff 7f"), Err(BadBlock::Integer));
    assert_eq!(fresh("00 7f 80 80 80 80 01 61"), Err(BadBlock::Truncated), "a string of 256 MiB");
    assert_eq!(fresh("00 01 61 7f 80 00").err(), Some(BadBlock::Truncated));
}

#[test]
fn what_is_cut_off_is_refused() {
    let block =
        hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff40 0161 0162 1008 7061 7373 776f 7264 0673 6563 7265 74");
    let whole =
        fresh("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff40 0161 0162 1008 7061 7373 776f 7264 0673 6563 7265 74");
    for end in 0..block.len() {
        match read(&mut Decoder::new(4096), &block[..end]) {
            Ok(fields) => assert!(whole.as_ref().unwrap().starts_with(&fields), "between two fields"),
            Err(error) => assert_eq!(error, BadBlock::Truncated),
        }
    }
}

#[test]
fn a_table_changes_its_size_at_the_start_of_a_block_within_the_settings() {
    // Sections 4.2 and 6.3.
    assert_eq!(fresh("20 82").unwrap(), ":method: GET\n");
    assert_eq!(fresh("3f e1 1f 82").unwrap(), ":method: GET\n", "4,096 bytes");
    assert_eq!(fresh("3f e2 1f 82"), Err(BadBlock::TableSize), "4,097 bytes");
    assert_eq!(fresh("20 3f e1 1f 82").unwrap(), ":method: GET\n", "the smallest in between, and the last");
    assert_eq!(fresh("20 20 20 82"), Err(BadBlock::TableSizePlace), "which are two");
    assert_eq!(fresh("82 20"), Err(BadBlock::TableSizePlace));
    assert_eq!(fresh("20").unwrap(), "", "also alone");
}

#[test]
fn a_smaller_table_drops_entries_and_an_empty_one_has_no_memory() {
    // Section 4.3.
    let mut decoder = Decoder::new(4096);
    read(&mut decoder, &hex("40 01 61 01 62 40 01 63 01 64")).unwrap();
    assert_eq!(table(&decoder), "c: d\na: b\n");
    assert!(decoder.memory() > 0 && decoder.memory() < 256, "{}", decoder.memory());
    read(&mut decoder, &hex("3f 03")).unwrap();
    assert_eq!(table(&decoder), "c: d\n", "34 bytes are one entry");
    read(&mut decoder, &hex("3f 02")).unwrap();
    assert!(decoder.table.is_none());
    // Section 4.4: what is larger than the table is no error, and empties it.
    assert_eq!(read(&mut decoder, &hex("40 01 61 01 62")).unwrap(), "a: b\n");
    assert!(decoder.table.is_none());
}

#[test]
fn an_entry_can_be_dropped_for_one_that_has_its_name() {
    // Section 4.4.
    let mut decoder = Decoder::new(4096);
    let field = [&hex("40 7f e0 1e")[..], &[b'n'; 4095 - 32], &[0]].concat();
    read(&mut decoder, &field).unwrap();
    assert_eq!(table(&decoder).len(), 4096 - 32 - 1 + 3);
    let name = "n".repeat(4095 - 32);
    assert_eq!(read(&mut decoder, &hex("7e 01 78")).unwrap(), format!("{name}: x\n"));
    assert_eq!(table(&decoder), format!("{name}: x\n"));
}

#[test]
fn fields_over_the_bounds_are_not_given_out_but_remembered() {
    let block = hex("40 01 61 01 62 40 01 63 01 64 82");
    let given = |bounds| {
        let mut decoder = Decoder::new(4096);
        let (fields, decoded) = bounded(&mut decoder, &block, bounds).unwrap();
        assert_eq!(table(&decoder), "c: d\na: b\n");
        assert_eq!((decoded.fields, decoded.bytes), (3, 34 + 34 + 42));
        (fields.len(), decoded.over)
    };
    assert_eq!(given(Bounds { bytes_max: 110, fields_max: 3 }), (3, false));
    assert_eq!(given(Bounds { bytes_max: 109, fields_max: 3 }), (2, true));
    assert_eq!(given(Bounds { bytes_max: 110, fields_max: 2 }), (2, true));
    assert_eq!(given(Bounds { bytes_max: 0, fields_max: 0 }), (0, true));
}

#[test]
fn references_are_counted_with_what_they_name() {
    // An entry of nearly 4 KiB, named by a byte each.
    let mut first = hex("40 01 61 7f e0 1e");
    first.extend([b'v'; 4095 - 32]);
    let bounds = Bounds { bytes_max: 16 * 1024, fields_max: 100 };
    let mut decoder = Decoder::new(4096);
    let (fields, decoded) = bounded(&mut decoder, &[&first[..], &[0xbe; 60]].concat(), bounds).unwrap();
    assert!(decoded.over && decoded.fields == 61 && decoded.bytes > 240_000);
    assert!(fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() <= 16 * 1024);
    assert_eq!(read(&mut decoder, &[0x82]).unwrap(), ":method: GET\n", "and the connection lives");
    // 16,000 times: 64 MiB of fields. It is given up long before.
    let bomb = [&first[..], &[0xbe; 16_000]].concat();
    assert_eq!(bounded(&mut Decoder::new(4096), &bomb, bounds), Err(BadBlock::TooMuchWork));
}

#[test]
fn very_many_small_fields_are_given_up() {
    let bounds = Bounds { bytes_max: 1 << 20, fields_max: 100 };
    let given = |count: usize| bounded(&mut Decoder::new(4096), &[0x82].repeat(count), bounds);
    assert!(given(EXCESS * 101).unwrap().1.over);
    assert_eq!(given(EXCESS * 101 + 1), Err(BadBlock::TooMuchWork));
}

#[test]
fn a_bomb_of_names_is_refused() {
    // An entry whose name has nearly 4 KiB, and a new one of that name for each two bytes.
    let mut block = hex("40 7f e0 1e");
    block.extend([b'n'; 4095 - 32]);
    block.push(0);
    block.extend([0x7e, 0].repeat(8_000));
    let refused = bounded(&mut Decoder::new(4096), &block, Bounds { bytes_max: 16 * 1024, fields_max: 100 });
    assert_eq!(refused, Err(BadBlock::TooMuchWork));
    assert_eq!(BadBlock::TooMuchWork.code(), ErrorCode::EnhanceYourCalm);
    assert_eq!(BadBlock::Index.code(), ErrorCode::CompressionError);
}

#[test]
fn what_we_write_adds_nothing_to_a_table() {
    let mut block = Vec::new();
    encode(b":status", b"200", &mut block);
    encode(b":status", b"431", &mut block);
    encode(b"Content-Type", b"application/grpc", &mut block);
    encode(b"Grpc-Status", b"0", &mut block);
    assert_eq!(block[..7], [0x88, 0x08, 3, b'4', b'3', b'1', 0x0f]);
    let mut decoder = Decoder::new(4096);
    let expected = ":status: 200\n:status: 431\ncontent-type: application/grpc\ngrpc-status: 0\n";
    assert_eq!(read(&mut decoder, &block).unwrap(), expected);
    assert!(decoder.table.is_none());
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        fields in prop::collection::vec(("[a-z:][a-z0-9-]{0,40}", prop::collection::vec(any::<u8>(), 0..300)), 0..30),
    ) {
        let mut block = Vec::new();
        fields.iter().for_each(|(name, value)| encode(name.as_bytes(), value, &mut block));
        let mut back = Vec::new();
        let decoded = Decoder::new(0).decode(&block, WIDE, &mut Vec::new(), |name, value| {
            back.push((String::from_utf8(name.to_vec()).unwrap(), value.to_vec()));
        });
        prop_assert!(!decoded.unwrap().over);
        prop_assert_eq!(back, fields);
    }

    #[test]
    fn a_peer_that_uses_all_of_it_is_read(
        fields in prop::collection::vec((0_u8..4, "[a-c]{1,2}", "[a-c]{0,3}|[A-Z]{60}"), 0..200),
        limit in 0_u16..400,
    ) {
        // A peer that knows its table, by the RFC's words: a list of pairs.
        let (mut list, mut block) = (Vec::<(String, String)>::new(), Vec::new());
        encode_integer(usize::from(limit), 5, 0x20, &mut block);
        for (how, name, value) in &fields {
            let adds = how % 2 == 0;
            let known = list.iter().position(|(known, _)| known == name);
            if let Some(at) = list.iter().position(|entry| entry == &(name.clone(), value.clone())) {
                encode_integer(62 + at, 7, 0x80, &mut block);
                continue;
            }
            encode_integer(known.map_or(0, |at| 62 + at), if adds { 6 } else { 4 }, if adds { 0x40 } else { 0 }, &mut block);
            for string in [known.is_none().then_some(name), Some(value)].into_iter().flatten() {
                let mut code = string.as_bytes().to_vec();
                if *how >= 2 {
                    code.clear();
                    huffman::encode(string.as_bytes(), &mut code);
                }
                encode_integer(code.len(), 7, if *how >= 2 { 0x80 } else { 0 }, &mut block);
                block.extend(code);
            }
            if adds {
                list.insert(0, (name.clone(), value.clone()));
                while list.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > usize::from(limit) {
                    list.pop();
                }
            }
        }
        let mut decoder = Decoder::new(4096);
        let bounds = Bounds { bytes_max: 1 << 20, fields_max: 1000 };
        let (read, _) = bounded(&mut decoder, &block, bounds).unwrap();
        let sent: Vec<_> = fields.into_iter().map(|(_, name, value)| (name, value)).collect();
        prop_assert_eq!(read, sent);
    }
}
