//! Our records with rustls at the other end, in each version, with each cipher suite that is spoken, and from either side.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::crypto::ring::{ALL_CIPHER_SUITES, default_provider};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, Error, RootCertStore, ServerConfig, ServerConnection,
    SupportedCipherSuite,
};

use super::*;
use crate::io::tls::handshake::{Handshake, Progress};
use crate::io::tls::record::RECORDS_MAX;

/// It guards nothing: ring makes no keys of RSA, so there is one.
const RSA: &str = include_str!("../../../../tests/keys/rsa.pem");

/// Which side is ours.
#[derive(Clone, Copy, Debug)]
enum Ours {
    Server,
    Client,
}

/// A connection whose handshake is done: our end, and rustls'.
struct Scene {
    ready: Ready,
    ours: Traffic,
    theirs: Connection,
}

/// What both sides are told for a suite.
fn terms(suite: SupportedCipherSuite) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let is_rsa = format!("{:?}", suite.suite()).contains("_RSA_");
    let key = if is_rsa { rcgen::KeyPair::from_pem(RSA) } else { rcgen::KeyPair::generate() }.unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let provider = Arc::new(provider);
    let versions = [suite.version()];
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).unwrap();
    let mut client = builder.with_root_certificates(roots).with_no_client_auth();
    let mut server = server.unwrap();
    (server.enable_secret_extraction, client.enable_secret_extraction) = (true, true);
    (Arc::new(server), Arc::new(client))
}

impl Scene {
    fn new(suite: SupportedCipherSuite, side: Ours) -> Self {
        let ((server, client), name) = (terms(suite), ServerName::try_from("localhost").unwrap());
        let (ours, mut theirs) = match side {
            Ours::Server => (Handshake::new(server).unwrap(), ClientConnection::new(client, name).unwrap().into()),
            Ours::Client => (Handshake::with(client, name).unwrap(), ServerConnection::new(server).unwrap().into()),
        };
        let (mut ready, mut ours, mut input) = (Ready::default(), Progress::Waits(ours), Vec::new());
        for _ in 0..4 {
            let mut out = Vec::new();
            if let Progress::Waits(handshake) = ours {
                ours = handshake.step(&mut input, &mut out).unwrap();
            }
            hear(&mut theirs, &out).unwrap();
            say(&mut theirs, &mut input);
        }
        let Progress::Done(done) = ours else { panic!("no agreement on {suite:?}") };
        let traffic = done.traffic(&mut ready).unwrap();
        let mut scene = Self { ready, ours: traffic, theirs };
        // Tickets, where we are the client.
        assert_eq!(scene.open(input), (Vec::new(), None));
        assert_eq!(scene.theirs.negotiated_cipher_suite().unwrap().suite(), suite.suite());
        scene
    }

    /// What rustls hears of our text.
    fn down(&mut self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.ours.seal(&mut self.ready, text, &mut out).unwrap();
        hear(&mut self.theirs, &out).unwrap().0
    }

    /// What we hear of its text.
    fn up(&mut self, text: &[u8]) -> Vec<u8> {
        let mut input = Vec::new();
        // It keeps no more than 64 KiB.
        self.theirs.writer().write_all(text).unwrap();
        say(&mut self.theirs, &mut input);
        let (text, end) = self.open(input);
        assert_eq!(end, None);
        text
    }

    /// The text of whole records, and how they end; rustls is told what we have to answer.
    fn open(&mut self, mut bytes: Vec<u8>) -> (Vec<u8>, Option<End>) {
        let mut answer = Vec::new();
        let opened = self.ours.open(&mut self.ready, &mut bytes, &mut answer);
        hear(&mut self.theirs, &answer).unwrap();
        (bytes[opened.text].to_vec(), opened.end)
    }
}

/// Takes all that rustls has to say.
fn say(theirs: &mut Connection, into: &mut Vec<u8>) {
    while theirs.wants_write() {
        theirs.write_tls(into).unwrap();
    }
}

/// What rustls makes of bytes, and whether they end in a good-bye.
fn hear(theirs: &mut Connection, mut bytes: &[u8]) -> Result<(Vec<u8>, bool), Error> {
    let (mut text, mut closed) = (Vec::new(), false);
    while !bytes.is_empty() {
        theirs.read_tls(&mut bytes).unwrap();
        closed = theirs.process_new_packets()?.peer_has_closed();
        let _ = theirs.reader().read_to_end(&mut text);
    }
    Ok((text, closed))
}

/// Text in which every place can be told from its neighbours.
fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Each suite, from both sides.
fn each() -> impl Iterator<Item = (SupportedCipherSuite, Ours)> {
    ALL_CIPHER_SUITES.iter().flat_map(|&suite| [(suite, Ours::Server), (suite, Ours::Client)])
}

fn is_chacha(suite: SupportedCipherSuite) -> bool {
    matches!(
        suite.suite(),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

#[test]
fn every_suite_that_is_offered_is_spoken() {
    let offered: Vec<_> = default_provider().cipher_suites.iter().map(SupportedCipherSuite::suite).collect();
    let spoken: Vec<_> = ALL_CIPHER_SUITES.iter().map(SupportedCipherSuite::suite).collect();
    assert_eq!((offered.len(), &offered), (9, &spoken));
}

#[test]
fn text_comes_whole_in_both_directions() {
    for (suite, side) in each() {
        let mut scene = Scene::new(suite, side);
        for len in [1, 15, 16, 17, 1024, TEXT_MAX - 1, TEXT_MAX, TEXT_MAX + 1, 3 * TEXT_MAX] {
            let text = text(len);
            assert!(scene.down(&text) == text, "{len} bytes down: {suite:?} {side:?}");
            assert!(scene.up(&text) == text, "{len} bytes up: {suite:?} {side:?}");
        }
        // Records without number in one piece.
        scene.theirs.set_buffer_limit(None);
        let mut input = Vec::new();
        for len in 1..100 {
            scene.theirs.writer().write_all(&text(len)).unwrap();
            say(&mut scene.theirs, &mut input);
        }
        assert!(scene.open(input).0 == (1..100).flat_map(text).collect::<Vec<_>>(), "{suite:?} {side:?}");
    }
}

#[test]
fn good_byes_are_heard_on_both_ends() {
    for (suite, side) in each() {
        let mut scene = Scene::new(suite, side);
        let (mut out, mut input) = (Vec::new(), Vec::new());
        scene.ours.seal(&mut scene.ready, b"last", &mut out).unwrap();
        scene.ours.seal_close(&mut scene.ready, &mut out);
        assert_eq!(hear(&mut scene.theirs, &out).unwrap(), (b"last".to_vec(), true), "{suite:?} {side:?}");
        scene.theirs.writer().write_all(b"words").unwrap();
        scene.theirs.send_close_notify();
        say(&mut scene.theirs, &mut input);
        assert_eq!(scene.open(input), (b"words".to_vec(), Some(End::CloseNotify)), "{suite:?} {side:?}");
    }
}

#[test]
fn what_was_changed_on_its_way_opens_on_neither_end() {
    for (suite, side) in each() {
        let mut scene = Scene::new(suite, side);
        let (mut out, mut input) = (Vec::new(), Vec::new());
        scene.ours.seal(&mut scene.ready, b"text", &mut out).unwrap();
        *out.last_mut().unwrap() ^= 1;
        assert_eq!(hear(&mut scene.theirs, &out), Err(Error::DecryptError), "{suite:?} {side:?}");
        let mut scene = Scene::new(suite, side);
        scene.theirs.writer().write_all(b"text").unwrap();
        say(&mut scene.theirs, &mut input);
        *input.last_mut().unwrap() ^= 1;
        assert_eq!(scene.open(input), (Vec::new(), Some(End::Fault(Fault::BadMac))), "{suite:?} {side:?}");
    }
}

/// RFC 8446 section 4.6.3: theirs ask for ours in return, and ours are made when a key is worn.
#[test]
fn keys_are_renewed_on_both_ends() {
    for (suite, side) in each().filter(|(suite, _)| *suite.version() == TLS13) {
        let mut scene = Scene::new(suite, side);
        for round in 0..5 {
            scene.down(b"under our old key");
            let before = scene.ours.seal.left();
            scene.theirs.refresh_traffic_keys().unwrap();
            assert_eq!(scene.up(b"under their new key"), b"under their new key", "{round}: {suite:?} {side:?}");
            assert!(scene.ours.seal.left() > before, "ours is another one, too");
            for _ in 0..RECORDS_MAX {
                assert_eq!(scene.down(b"x"), b"x", "{round}: {suite:?} {side:?}");
            }
        }
    }
}

/// Beyond the bound of AES-GCM: a key of ChaCha20 has none, and TLS 1.2 has no other key.
#[test]
fn many_records_come_as_long_as_their_key_lasts() {
    for (suite, side) in each() {
        let mut scene = Scene::new(suite, side);
        let times = 2 * RECORDS_MAX;
        for _ in 0..times {
            assert_eq!(scene.up(b"up"), b"up", "{suite:?} {side:?}");
        }
        let lasts = is_chacha(suite) || *suite.version() == TLS13;
        let mut out = Vec::new();
        let sealed =
            (0..times).take_while(|_| scene.ours.seal(&mut scene.ready, b"x", &mut out).is_ok()).count() as u64;
        // The Finished of TLS 1.2 was the first record under its key, and the last two are for last words.
        assert_eq!(sealed, if lasts { times } else { RECORDS_MAX - 3 }, "{suite:?} {side:?}");
        scene.ours.seal_close(&mut scene.ready, &mut out);
        let (heard, closed) = hear(&mut scene.theirs, &out).unwrap();
        assert_eq!((heard.len() as u64, closed), (sealed, true), "{suite:?} {side:?}");
    }
}
