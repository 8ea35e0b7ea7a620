//! A connection's keys, and what may be said with them beside data: alerts, new keys, and requests that are declined.

use std::ops::Range;

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, Error, ProtocolVersion};

use super::handshake::Side;
use super::keys::Ready;
use super::record::{self, Fault, Half, TEXT_MAX, kind};

/// Records in a row that bring no data. Nobody needs more than a few.
const BARREN_MAX: u8 = 32;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const NO_RENEGOTIATION: u8 = 100;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
/// A whole KeyUpdate message (RFC 8446 section 4.6.3) but for its last byte, which asks for one in return (1) or does not (0).
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

/// Why a peer's data end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It said so.
    CloseNotify,
    /// It said that something is wrong.
    Alert(u8),
    /// Something is wrong.
    Fault(Fault),
}

/// What came of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// Where the text of all records lies.
    pub(super) text: Range<usize>,
    /// Bytes that were whole records.
    pub(super) consumed: usize,
    /// Behind the text.
    pub(super) end: Option<End>,
}

/// What makes new keys.
enum Renewal {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

impl Renewal {
    fn next_to_seal(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(kernel) => kernel.update_tx_secret(),
            Self::Client(kernel) => kernel.update_tx_secret(),
        }
    }

    fn next_to_open(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(kernel) => kernel.update_rx_secret(),
            Self::Client(kernel) => kernel.update_rx_secret(),
        }
    }
}

/// Both directions of a connection whose handshake is done.
pub(super) struct Traffic {
    seal: Half,
    open: Half,
    /// Makes new keys in TLS 1.3; TLS 1.2 has none.
    renewal: Option<Box<Renewal>>,
    barren: u8,
    /// The peer is a server.
    is_client: bool,
    /// Bytes of a KeyUpdate whose rest has not come.
    begun: u8,
}

impl Traffic {
    /// What makes new keys, without what it points to.
    pub(super) const RENEWAL_BYTES: usize = size_of::<KernelConnection<ServerConnectionData>>();

    /// Takes the keys of a finished handshake.
    pub(super) fn new(handshake: Side, ready: &mut Ready) -> Result<Self, Error> {
        let unknown = || Error::General("a cipher that is not spoken here".to_owned());
        let (secrets, version, renewal) = match handshake {
            Side::Server(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, kernel.protocol_version(), Renewal::Server(kernel))
            }
            Side::Client(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, kernel.protocol_version(), Renewal::Client(kernel))
            }
        };
        let is_client = matches!(renewal, Renewal::Client(_));
        let mut half = |(sequence, secrets)| Half::new(version, sequence, &secrets, ready).ok_or_else(unknown);
        let (seal, open) = (half(secrets.tx)?, half(secrets.rx)?);
        let renewal = (version == ProtocolVersion::TLSv1_3).then(|| Box::new(renewal));
        Ok(Self { seal, open, renewal, barren: 0, begun: 0, is_client })
    }

    /// Seals data behind what is in `out`. What a key that cannot be renewed has no records for is not begun.
    pub(super) fn seal(&mut self, ready: &mut Ready, text: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.renewal.is_none() && self.seal.left() < text.len().div_ceil(TEXT_MAX) as u64 {
            return Err(Fault::Spent);
        }
        for text in text.chunks(TEXT_MAX) {
            if self.seal.is_worn() {
                self.renew_sealing(ready, out)?;
            }
            self.seal.seal(ready, kind::DATA, text, out)?;
        }
        Ok(())
    }

    /// Seals the good-bye.
    pub(super) fn seal_close(&mut self, ready: &mut Ready, out: &mut Vec<u8>) {
        // Once each for a good-bye and an alert: there is room for them.
        let _ = self.seal.seal_last(ready, kind::ALERT, &[WARNING, CLOSE_NOTIFY], out);
    }

    /// Seals what tells the peer what is wrong.
    pub(super) fn seal_alert(&mut self, ready: &mut Ready, fault: Fault, out: &mut Vec<u8>) {
        let _ = self.seal.seal_last(ready, kind::ALERT, &[FATAL, fault.alert()], out);
    }

    /// Opens all whole records at the beginning of `bytes` in place, and moves their text together. What has to be answered
    /// is sealed behind what is in `out`.
    pub(super) fn open(&mut self, ready: &mut Ready, bytes: &mut [u8], out: &mut Vec<u8>) -> Opened {
        let mut opened = Opened { text: 0..0, consumed: 0, end: None };
        while opened.end.is_none() {
            let at = opened.consumed;
            match record::length(&bytes[at..]) {
                Ok(Some(len)) if len <= bytes.len() - at => {
                    opened.consumed += len;
                    match self.open.open(ready, &mut bytes[at..at + len]) {
                        Ok((kind::DATA, place)) if self.begun == 0 => {
                            self.data(bytes, at + place.start..at + place.end, &mut opened);
                        }
                        Ok((kind, place)) => opened.end = self.control(ready, kind, &bytes[at..][place], out),
                        Err(fault) => opened.end = Some(End::Fault(fault)),
                    }
                }
                Ok(_) => break,
                Err(fault) => opened.end = Some(End::Fault(fault)),
            }
        }
        opened
    }

    fn data(&mut self, bytes: &mut [u8], place: Range<usize>, opened: &mut Opened) {
        if place.is_empty() {
            opened.end = self.barren();
            return;
        }
        self.barren = 0;
        if opened.text.is_empty() {
            opened.text = place;
        } else {
            let len = place.len();
            bytes.copy_within(place, opened.text.end);
            opened.text.end += len;
        }
    }

    /// Counts a record that brings nothing.
    const fn barren(&mut self) -> Option<End> {
        self.barren += 1;
        if self.barren > BARREN_MAX { Some(End::Fault(Fault::Flood)) } else { None }
    }

    /// A record that is no data.
    fn control(&mut self, ready: &mut Ready, kind: u8, text: &[u8], out: &mut Vec<u8>) -> Option<End> {
        match (kind, text) {
            // Nothing comes between the parts of a message (RFC 8446 section 5.1).
            (kind::ALERT | kind::DATA, _) if self.begun > 0 => Some(End::Fault(Fault::Unexpected)),
            (kind::ALERT, &[_, CLOSE_NOTIFY]) => Some(End::CloseNotify),
            // In TLS 1.3 every other alert is fatal, whatever it says of itself (RFC 8446 section 6).
            (kind::ALERT, &[_, USER_CANCELED]) => self.barren(),
            (kind::ALERT, &[WARNING, _]) if self.renewal.is_none() => self.barren(),
            (kind::ALERT, &[_, alert]) => Some(End::Alert(alert)),
            // Nothing is resumed from here.
            (kind::HANDSHAKE, text)
                if self.is_client && self.renewal.is_some() && self.begun == 0 && are_tickets(text) =>
            {
                self.barren()
            }
            (kind::HANDSHAKE, text) if self.renewal.is_some() => match self.key_update(ready, text, out) {
                Ok(()) => self.barren(),
                Err(fault) => Some(End::Fault(fault)),
            },
            // Another handshake on this connection (RFC 5746 tells how it went wrong) is declined, not started.
            (kind::HANDSHAKE, &[hello, ..]) if self.renewal.is_none() && hello == self.renegotiates() => {
                let _ = self.seal.seal(ready, kind::ALERT, &[WARNING, NO_RENEGOTIATION], out);
                self.barren()
            }
            (kind::ALERT, _) => Some(End::Fault(Fault::Malformed)),
            _ => Some(End::Fault(Fault::Unexpected)),
        }
    }

    /// What a peer asks for another handshake with.
    const fn renegotiates(&self) -> u8 {
        if self.is_client { HELLO_REQUEST } else { CLIENT_HELLO }
    }

    /// A record of handshake messages in TLS 1.3: a KeyUpdate, or a part of one. All others are for clients, or asked for by
    /// servers (RFC 8446 section 4.6).
    fn key_update(&mut self, ready: &mut Ready, text: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let rest = &KEY_UPDATE[usize::from(self.begun)..];
        // Its record ends with it (section 5.1), and none is empty (section 5.4).
        if text.is_empty() || text.len() > rest.len() + 1 {
            return Err(Fault::Unexpected);
        }
        let known = text.len().min(rest.len());
        if text[..known] != rest[..known] {
            let is_another = self.begun == 0 && text[0] != KEY_UPDATE[0];
            return Err(if is_another { Fault::Unexpected } else { Fault::Malformed });
        }
        let Some(&asks) = text.get(rest.len()) else {
            self.begun += u8::try_from(known).unwrap_or(0);
            return Ok(());
        };
        self.begun = 0;
        if asks > 1 {
            return Err(Fault::Illegal);
        }
        self.renew_opening(ready)?;
        if asks == 1 { self.renew_sealing(ready, out) } else { Ok(()) }
    }

    fn renew_opening(&mut self, ready: &mut Ready) -> Result<(), Fault> {
        let renewal = self.renewal.as_mut().ok_or(Fault::Unexpected)?;
        let (sequence, secrets) = renewal.next_to_open().map_err(|_| Fault::Spent)?;
        self.open = Half::new(ProtocolVersion::TLSv1_3, sequence, &secrets, ready).ok_or(Fault::Spent)?;
        Ok(())
    }

    /// Says that another key follows, under the old one, and takes it.
    fn renew_sealing(&mut self, ready: &mut Ready, out: &mut Vec<u8>) -> Result<(), Fault> {
        let renewal = self.renewal.as_mut().ok_or(Fault::Spent)?;
        let [a, b, c, d] = KEY_UPDATE;
        self.seal.seal(ready, kind::HANDSHAKE, &[a, b, c, d, 0], out)?;
        let (sequence, secrets) = renewal.next_to_seal().map_err(|_| Fault::Spent)?;
        self.seal = Half::new(ProtocolVersion::TLSv1_3, sequence, &secrets, ready).ok_or(Fault::Spent)?;
        Ok(())
    }
}

/// Whether these are whole NewSessionTicket messages (RFC 8446 section 4.6.1), one or more, and nothing else.
fn are_tickets(mut text: &[u8]) -> bool {
    while let [NEW_SESSION_TICKET, a, b, c, rest @ ..] = text {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(rest) = rest.get(len..) else { return false };
        if rest.is_empty() {
            return true;
        }
        text = rest;
    }
    false
}

#[cfg(test)]
mod suites;
#[cfg(test)]
mod tests;
