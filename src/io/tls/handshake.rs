//! Handshakes: what rustls makes of received bytes until both sides have their keys.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, HandshakeKind, ProtocolVersion, ServerConfig};

use super::keys::Ready;
use super::record;
use super::traffic::Traffic;
use crate::rule::TlsFailure;

/// Bytes that may wait for the rest of a handshake's message: a whole record and a part of the next. Hellos have 2 KiB with
/// post-quantum keys, and clients' certificates some more.
pub(super) const INPUT_MAX: usize = 20 * 1024;

/// Which end of it we are.
pub(super) enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Side {
    /// Has rustls look at `input`: what it has used up of it, and whether it goes on by itself.
    fn process(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> (usize, Result<bool, Error>) {
        match self {
            Self::Server(connection) => taken(connection.process_tls_records(input), out),
            Self::Client(connection) => taken(connection.process_tls_records(input), out),
        }
    }

    fn state(&self) -> &CommonState {
        match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        }
    }
}

/// A handshake that has begun.
pub(super) struct Handshake {
    connection: Side,
    /// Bytes at the front of the input that rustls has been shown and still counts on.
    shown: usize,
}

/// How far a handshake has come.
pub(super) enum Progress {
    /// The peer's next.
    Waits(Box<Handshake>),
    /// Both sides have their keys.
    Done(Box<Done>),
}

/// What came of a handshake.
pub(super) struct Done {
    connection: Side,
    pub(super) version: ProtocolVersion,
    /// It went on from an earlier connection's.
    pub(super) resumed: bool,
}

impl Done {
    /// The keys, of which the shard makes what it needs.
    pub(super) fn traffic(self, ready: &mut Ready) -> Result<Traffic, Error> {
        Traffic::new(self.connection, ready)
    }
}

impl Handshake {
    /// What a handshake keeps while it waits for its peer, beside its input: itself, and about as much behind it (secrets, a
    /// transcript, what the hello said).
    pub(super) const BYTES: usize = size_of::<Self>() + 3072;

    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Box<Self>, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Box::new(Self { connection: Side::Server(connection), shown: 0 }))
    }

    /// One that asks a server of this name. Its first step needs no input.
    pub(super) fn with(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Box<Self>, Error> {
        let connection = UnbufferedClientConnection::new(config, name)?;
        Ok(Box::new(Self { connection: Side::Client(connection), shown: 0 }))
    }

    /// Goes as far as `input` leads, from whose front it takes what it has used. What is to be sent goes behind what is in
    /// `out`, an alert included. Records behind the end of the handshake are left in `input`.
    pub(super) fn step(mut self: Box<Self>, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Progress, Error> {
        loop {
            let (discard, goes_on) = self.connection.process(&mut input[..self.shown], out);
            let discard = discard.min(self.shown);
            input.drain(..discard);
            self.shown -= discard;
            match goes_on {
                Ok(true) => {}
                Ok(false) if self.connection.state().is_handshaking() && self.show(input) => {}
                Ok(false) => break,
                Err(error) => {
                    self.tell(out);
                    return Err(error);
                }
            }
        }
        if !self.connection.state().is_handshaking() {
            return self.finish();
        }
        if input.len() > INPUT_MAX {
            return Err(Error::General("a handshake that leads nowhere".to_owned()));
        }
        Ok(Progress::Waits(self))
    }

    /// Shows rustls one more record, if it is whole. Were it to see those behind the handshake, it would answer a KeyUpdate
    /// among them with one that it keeps for itself, and hand over the keys that come after it.
    fn show(&mut self, input: &[u8]) -> bool {
        let rest = &input[self.shown..];
        self.shown += match record::length(rest) {
            Ok(Some(len)) if len <= rest.len() => len,
            Ok(_) => return false,
            // It says what is wrong.
            Err(_) => rest.len(),
        };
        true
    }

    fn finish(self: Box<Self>) -> Result<Progress, Error> {
        let state = self.connection.state();
        let version = state.protocol_version().ok_or(Error::HandshakeNotComplete)?;
        let resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok(Progress::Done(Box::new(Done { connection: self.connection, version, resumed })))
    }

    /// Takes the alert out that rustls has for the peer after an error. It is not asked for more than it has: it would look for
    /// messages that it has seen the beginning of, and there is no input here.
    fn tell(&mut self, out: &mut Vec<u8>) {
        while self.connection.state().wants_write() {
            let len = out.len();
            if self.connection.process(&mut [], out).1.is_err() || out.len() == len {
                break;
            }
        }
    }
}

/// What rustls wants done, done.
fn taken<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) -> (usize, Result<bool, Error>) {
    let goes_on = match status.state {
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out).map(|()| true),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(true)
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(false),
        Ok(_) => Err(Error::General("data or an end within the handshake".to_owned())),
        Err(error) => Err(error),
    };
    (status.discard, goes_on)
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) else { return Ok(()) };
    out.resize(start + needed.required_size, 0);
    let encoded = data.encode(&mut out[start..]);
    encoded.map(|_| ()).map_err(|error| Error::General(error.to_string()))
}

/// What went wrong, as it is counted.
pub(super) const fn cause(error: &Error) -> TlsFailure {
    match error {
        Error::PeerIncompatible(_) => TlsFailure::Incompatible,
        Error::NoApplicationProtocol => TlsFailure::Protocol,
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => {
            TlsFailure::Certificate
        }
        Error::AlertReceived(_) => TlsFailure::Alert,
        Error::InvalidMessage(_) | Error::DecryptError | Error::PeerSentOversizedRecord => TlsFailure::Malformed,
        Error::PeerMisbehaved(_) | Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            TlsFailure::Misbehaved
        }
        _ => TlsFailure::Other,
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::{Read, Write};

    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    pub(in super::super) fn server() -> (Arc<ServerConfig>, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let certificate = made.cert.der().clone();
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![certificate.clone()], key).unwrap();
        config.enable_secret_extraction = true;
        (Arc::new(config), certificate)
    }

    #[test]
    fn a_message_that_has_begun_does_not_outlive_the_error_behind_it() {
        // Half of a ClientHello.
        const HALF: &[u8] = &[22, 3, 1, 0, 6, 1, 0, 0, 32, 3, 3];
        // A message that cannot be the first, and one more in the same record.
        const TWO: &[u8] = &[22, 3, 1, 0, 8, 20, 0, 0, 0, 20, 0, 0, 0];
        let (config, _) = server();
        for input in [
            [HALF, &[99, 3, 3, 0, 1, 0]].concat(),
            [HALF, &[23, 3, 3, 0, 1, 0]].concat(),
            [HALF, &[21, 3, 3, 0, 2, 2, 40]].concat(),
            [HALF, &[20, 3, 3, 0, 1, 1]].concat(),
            [HALF, b"GET / HTTP/1.1\r\n"].concat(),
            TWO.to_vec(),
            [TWO, HALF].concat(),
        ] {
            // All at once, and in two parts.
            for cut in [0, HALF.len()] {
                let (mut bytes, mut out) = (input[..cut].to_vec(), Vec::new());
                let mut step = Handshake::new(Arc::clone(&config)).unwrap().step(&mut bytes, &mut out);
                if let Ok(Progress::Waits(handshake)) = step {
                    bytes.extend_from_slice(&input[cut..]);
                    step = handshake.step(&mut bytes, &mut out);
                }
                assert!(step.is_err(), "{input:?}");
            }
        }
    }

    #[test]
    fn both_ends_agree_in_both_versions_and_tickets_are_passed_over() {
        let (config, certificate) = server();
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).unwrap();
            let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
            let builder = builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots);
            let mut asks = builder.with_no_client_auth();
            asks.enable_secret_extraction = true;
            let name = ServerName::try_from("localhost").unwrap();
            let mut client = Progress::Waits(Handshake::with(Arc::new(asks), name).unwrap());
            let mut server = Progress::Waits(Handshake::new(Arc::clone(&config)).unwrap());
            let (mut up, mut down, mut ready) = (Vec::new(), Vec::new(), Ready::default());
            for _ in 0..4 {
                if let Progress::Waits(handshake) = client {
                    client = handshake.step(&mut down, &mut up).unwrap();
                }
                if let Progress::Waits(handshake) = server {
                    server = handshake.step(&mut up, &mut down).unwrap();
                }
            }
            let (Progress::Done(client), Progress::Done(server)) = (client, server) else {
                panic!("no agreement on {version:?}");
            };
            let [mut client, mut server] = [client, server].map(|done| done.traffic(&mut ready).unwrap());
            // Two tickets in TLS 1.3, and text behind them.
            server.seal(&mut ready, b"down", &mut down).unwrap();
            client.seal(&mut ready, b"up", &mut up).unwrap();
            for (traffic, bytes, expected) in [(&mut client, &mut down, &b"down"[..]), (&mut server, &mut up, b"up")] {
                let mut answer = Vec::new();
                let opened = traffic.open(&mut ready, bytes, &mut answer);
                assert_eq!((opened.end, opened.consumed, answer.len()), (None, bytes.len(), 0));
                assert_eq!(&bytes[opened.text], expected);
            }
        }
    }

    #[test]
    fn what_comes_with_the_end_of_a_handshake_is_left_for_the_records() {
        let (config, certificate) = server();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(builder.with_no_client_auth()), name).unwrap();
        let (mut input, mut out, mut ready) = (Vec::new(), Vec::new(), Ready::default());
        client.write_tls(&mut input).unwrap();
        let step = Handshake::new(config).unwrap().step(&mut input, &mut out).unwrap();
        let Progress::Waits(handshake) = step else { panic!("it ends with its first message") };
        let mut answer = &out[..];
        while !answer.is_empty() {
            client.read_tls(&mut answer).unwrap();
            client.process_new_packets().unwrap();
        }
        out.clear();
        // Its end, data, other keys, which ask for others in return, and data under them.
        client.writer().write_all(b"one").unwrap();
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(b"two").unwrap();
        while client.wants_write() {
            client.write_tls(&mut input).unwrap();
        }
        let Progress::Done(done) = handshake.step(&mut input, &mut out).unwrap() else {
            panic!("it is not at its end");
        };
        let mut traffic = done.traffic(&mut ready).unwrap();
        let opened = traffic.open(&mut ready, &mut input, &mut out);
        assert_eq!((opened.end, opened.consumed), (None, input.len()));
        assert_eq!(&input[opened.text], b"onetwo");
        traffic.seal(&mut ready, b"three", &mut out).unwrap();
        let mut answer = &out[..];
        while !answer.is_empty() {
            client.read_tls(&mut answer).unwrap();
            client.process_new_packets().unwrap();
        }
        let mut text = [0; 5];
        client.reader().read_exact(&mut text).unwrap();
        assert_eq!(&text, b"three");
    }
}
