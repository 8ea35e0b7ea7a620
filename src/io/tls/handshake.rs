//! Handshakes: what rustls makes of received bytes until both sides have their keys.

use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{Error, HandshakeKind, ProtocolVersion, ServerConfig};

use super::traffic::Traffic;
use crate::rule::TlsFailure;

/// Bytes that may wait for the rest of a handshake's message: more than any list of certificates takes.
pub(super) const INPUT_MAX: usize = 64 * 1024;

/// A handshake that has begun.
pub(super) struct Handshake(UnbufferedServerConnection);

/// How far a handshake has come.
pub(super) enum Progress {
    /// The peer's next.
    Waits(Handshake),
    /// Both sides have their keys.
    Done(Done),
}

/// What came of a handshake.
pub(super) struct Done {
    pub(super) traffic: Traffic,
    pub(super) version: ProtocolVersion,
    /// It went on from an earlier connection's.
    pub(super) resumed: bool,
    /// The peer has said good-bye already.
    pub(super) closed: bool,
}

impl Handshake {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        UnbufferedServerConnection::new(config).map(Self)
    }

    /// Goes as far as `input` leads, from whose front it takes what it has used. What is to be sent goes behind what is in
    /// `out`, an alert included; data that came with the end of the handshake go to `text`.
    pub(super) fn step(
        mut self,
        input: &mut Vec<u8>,
        out: &mut Vec<u8>,
        text: &mut Vec<u8>,
    ) -> Result<Progress, Error> {
        let mut closed = false;
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.0.process_tls_records(input);
            let goes_on = match state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out).map(|()| true),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(true)
                }
                Ok(ConnectionState::ReadTraffic(mut records)) => loop {
                    match records.next_record() {
                        None => break Ok(true),
                        Some(Ok(record)) => {
                            discard += record.discard;
                            text.extend_from_slice(record.payload);
                        }
                        Some(Err(error)) => break Err(error),
                    }
                },
                Ok(ConnectionState::PeerClosed) => {
                    closed = true;
                    Ok(true)
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(false),
                Ok(_) => Err(Error::General("closed within the handshake".to_owned())),
                Err(error) => Err(error),
            };
            input.drain(..discard.min(input.len()));
            match goes_on {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.tell(out);
                    return Err(error);
                }
            }
        }
        if !self.0.is_handshaking() {
            return self.finish(closed);
        }
        if closed || input.len() > INPUT_MAX {
            return Err(Error::General("a handshake that leads nowhere".to_owned()));
        }
        Ok(Progress::Waits(self))
    }

    fn finish(self, closed: bool) -> Result<Progress, Error> {
        let version = self.0.protocol_version().ok_or(Error::HandshakeNotComplete)?;
        let resumed = self.0.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok(Progress::Done(Done { traffic: Traffic::new(self.0)?, version, resumed, closed }))
    }

    /// Takes the alert out that rustls has for the peer after an error.
    fn tell(&mut self, out: &mut Vec<u8>) {
        // Two would be one more than it ever has.
        for _ in 0..4 {
            match self.0.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    if encode(data, out).is_err() {
                        break;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => break,
            }
        }
    }
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
