//! What may be said beside data: new keys, last words, tickets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::*;
use crate::io::tls::handshake::tests::server;
use crate::io::tls::handshake::{Handshake, Progress};
use crate::io::tls::record::{RECORDS_MAX, RECORDS_WORN};

/// Both sides of a connection whose handshake is done.
fn open(version: &'static SupportedProtocolVersion, ready: &mut Ready) -> (Traffic, ClientConnection) {
    let (config, certificate) = server();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots);
    let mut trust = builder.with_no_client_auth();
    trust.enable_secret_extraction = true;
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(trust), name).unwrap();
    let mut handshake = Handshake::new(config).unwrap();
    let mut input = Vec::new();
    loop {
        while client.wants_write() {
            client.write_tls(&mut input).unwrap();
        }
        let mut out = Vec::new();
        let step = handshake.step(&mut input, &mut out).unwrap();
        read(&mut client, &out);
        match step {
            Progress::Waits(more) => handshake = more,
            Progress::Done(done) => return (done.traffic(ready).unwrap(), client),
        }
    }
}

/// What a client makes of bytes, and whether they end in a good-bye.
fn read(client: &mut ClientConnection, mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let (mut text, mut closed) = (Vec::new(), false);
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        closed = client.process_new_packets().unwrap().peer_has_closed();
        let _ = client.reader().read_to_end(&mut text);
    }
    (text, closed)
}

/// The client's way to seal, and so to say what no client says.
fn words_of(client: ClientConnection, ready: &mut Ready) -> Half {
    let (sequence, secrets) = client.dangerous_extract_secrets().unwrap().tx;
    Half::new(ProtocolVersion::TLSv1_3, sequence, &secrets, ready).unwrap()
}

#[test]
fn a_worn_key_is_renewed_before_it_is_spent() {
    let mut ready = Ready::default();
    let (mut traffic, mut client) = open(&TLS13, &mut ready);
    let (mut out, times) = (Vec::new(), 3 * RECORDS_MAX);
    for _ in 0..times {
        traffic.seal(&mut ready, b"x", &mut out).unwrap();
    }
    assert!(traffic.seal.left() > RECORDS_MAX - RECORDS_WORN - 3);
    traffic.seal_close(&mut ready, &mut out);
    let (text, closed) = read(&mut client, &out);
    assert_eq!((text.len() as u64, closed), (times, true));
}

#[test]
fn a_spent_key_of_tls_1_2_has_a_goodbye_left() {
    let mut ready = Ready::default();
    let (mut traffic, mut client) = open(&TLS12, &mut ready);
    let (mut out, mut times) = (Vec::new(), 0);
    while traffic.seal(&mut ready, b"x", &mut out).is_ok() {
        times += 1;
    }
    // Its Finished was the first record under this key; two are for last words.
    assert_eq!(times, RECORDS_MAX - 3);
    traffic.seal_close(&mut ready, &mut out);
    let (text, closed) = read(&mut client, &out);
    assert_eq!((text.len() as u64, closed), (times, true));
}

#[test]
fn text_for_which_a_key_has_too_few_records_is_not_begun() {
    let mut ready = Ready::default();
    let (mut traffic, mut client) = open(&TLS12, &mut ready);
    let mut out = Vec::new();
    while traffic.seal.left() > 1 {
        traffic.seal(&mut ready, b"x", &mut out).unwrap();
    }
    let said = out.len();
    assert_eq!(traffic.seal(&mut ready, &[0; TEXT_MAX + 1], &mut out), Err(Fault::Spent));
    assert_eq!(out.len(), said);
    traffic.seal_close(&mut ready, &mut out);
    assert!(read(&mut client, &out).1);
}

#[test]
fn a_key_update_may_come_in_parts() {
    for parts in [&[&[24, 0, 0, 1, 1][..]][..], &[&[24], &[0, 0, 1, 1]], &[&[24, 0], &[0], &[1], &[1]]] {
        let mut ready = Ready::default();
        let (mut traffic, client) = open(&TLS13, &mut ready);
        let mut words = words_of(client, &mut ready);
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        for part in parts {
            assert!(out.is_empty(), "half of it changes nothing");
            bytes.clear();
            words.seal(&mut ready, kind::HANDSHAKE, part, &mut bytes).unwrap();
            assert_eq!(traffic.open(&mut ready, &mut bytes, &mut out).end, None, "{parts:?}");
        }
        assert!(!out.is_empty(), "it asked for one in return");
        // The old key is none any more.
        bytes.clear();
        words.seal(&mut ready, kind::DATA, b"x", &mut bytes).unwrap();
        let end = traffic.open(&mut ready, &mut bytes, &mut out).end;
        assert_eq!(end, Some(End::Fault(Fault::BadMac)));
    }
}

#[test]
fn what_is_no_key_update_ends_with_the_alert_for_it() {
    let update: (u8, &[u8]) = (kind::HANDSHAKE, &[24, 0, 0, 1, 0]);
    for (records, fault) in [
        (&[(kind::HANDSHAKE, &[24, 0, 0, 1, 2][..])][..], Fault::Illegal),
        (&[(kind::HANDSHAKE, &[24, 0, 0, 2])], Fault::Malformed),
        (&[(kind::HANDSHAKE, &[24]), (kind::HANDSHAKE, &[1])], Fault::Malformed),
        (&[(kind::HANDSHAKE, &[24, 0, 0, 1, 0, 24])], Fault::Unexpected),
        (&[(kind::HANDSHAKE, &[11, 0, 0, 0])], Fault::Unexpected),
        (&[(kind::HANDSHAKE, &[])], Fault::Unexpected),
        (&[(kind::HANDSHAKE, &[24]), (kind::DATA, b"x")], Fault::Unexpected),
        (&[(kind::HANDSHAKE, &[24]), (kind::ALERT, &[1, 0])], Fault::Unexpected),
        (&[(kind::HANDSHAKE, &[24]), update], Fault::Unexpected),
    ] {
        let mut ready = Ready::default();
        let (mut traffic, client) = open(&TLS13, &mut ready);
        let mut words = words_of(client, &mut ready);
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        for (kind, text) in records {
            words.seal(&mut ready, *kind, text, &mut bytes).unwrap();
        }
        let end = traffic.open(&mut ready, &mut bytes, &mut out).end;
        assert_eq!(end, Some(End::Fault(fault)), "{records:?}");
    }
}

#[test]
fn only_whole_tickets_are_tickets() {
    const TWO: &[u8] = &[4, 0, 0, 2, 1, 2, 4, 0, 0, 1, 3];
    assert!(are_tickets(&TWO[..6]) && are_tickets(TWO));
    for other in
        [&[][..], &TWO[..5], &TWO[..8], &[24, 0, 0, 1, 0], &[4, 0, 0, 0, 24, 0, 0, 1, 0], &[4, 0xff, 0xff, 0xff]]
    {
        assert!(!are_tickets(other), "{other:?}");
    }
}
