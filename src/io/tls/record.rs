//! TLS records once the keys are agreed on: RFC 8446 section 5 for TLS 1.3; RFC 5246 section 6.2.3.3 with RFC 5288
//! (AES-GCM) or RFC 7905 (ChaCha20) for TLS 1.2.
//!
//! rustls makes the handshake and gives the secrets; the cipher is ring's. What is done here is what lies between: headers,
//! nonces, sequence numbers, the content type behind the text. Text is sealed where it will be sent from and opened where
//! it was received, so that a record costs no allocation, which rustls' own record layer cannot offer a server that keeps
//! no buffers.

use std::ops::Range;

use ring::aead::{Aad, NONCE_LEN, Nonce};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};

use super::keys::{Cipher, Key, Ready};

/// Bytes of a record's header: type, version, length.
pub(super) const HEADER: usize = 5;
/// Bytes of plain text in a record (RFC 8446 section 5.1).
pub(super) const TEXT_MAX: usize = 1 << 14;
/// Bytes of the nonce that TLS 1.2 sends with each AES-GCM record (RFC 5288 section 3).
const EXPLICIT: usize = 8;
/// Bytes that each of the ciphers adds to prove that nothing was changed.
const TAG: usize = 16;
/// Bytes around the text of a record, whatever its form.
#[cfg(test)]
const OVERHEAD_MAX: usize = HEADER + EXPLICIT + 1 + TAG;

/// Records that one AES-GCM key may seal: 2^24 is the bound of RFC 8446 section 5.5, rounded down. Tests would take their
/// time.
pub(super) const RECORDS_MAX: u64 = if cfg!(test) { 1 << 8 } else { 1 << 24 };
/// When to look for a new key.
pub(super) const RECORDS_WORN: u64 = RECORDS_MAX / 2;
/// Records of them that are for last words: an alert and a good-bye.
const RECORDS_LAST: u64 = 2;

/// What a record holds.
pub(super) mod kind {
    pub(in super::super) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(in super::super) const ALERT: u8 = 21;
    pub(in super::super) const HANDSHAKE: u8 = 22;
    pub(in super::super) const DATA: u8 = 23;
}

/// What is wrong with what a peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// It was changed on its way, or sealed with another key.
    #[error("a record that does not open")]
    BadMac,
    /// A record is longer than records may be.
    #[error("a record that is too long")]
    TooLong,
    /// No record begins like this, or it holds what it cannot.
    #[error("a malformed record")]
    Malformed,
    /// There is nothing to be said like this now.
    #[error("a record out of place")]
    Unexpected,
    /// A field has a value that it cannot have.
    #[error("a record with a value that is none")]
    Illegal,
    /// Too many records in a row without any data.
    #[error("too many records without data")]
    Flood,
    /// The key has sealed all that it may, and there is no other.
    #[error("a key that is spent")]
    Spent,
}

impl Fault {
    /// The alert that tells the peer (RFC 8446 section 6).
    pub(super) const fn alert(self) -> u8 {
        match self {
            Self::BadMac => 20,
            Self::TooLong => 22,
            Self::Illegal => 47,
            Self::Malformed => 50,
            Self::Unexpected | Self::Flood => 10,
            Self::Spent => 80,
        }
    }
}

/// The length of the record at the beginning, with its header; `None` while that is not there.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    if !(kind::CHANGE_CIPHER_SPEC..=kind::DATA).contains(&kind) || major != 3 {
        return Err(Fault::Malformed);
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    // TLS 1.2 allows 2048 bytes around the text, TLS 1.3 256; nobody has a use for more than those.
    if len > TEXT_MAX + 256 {
        return Err(Fault::TooLong);
    }
    Ok(Some(HEADER + len))
}

/// How text is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The type is sealed with the text.
    Tls13,
    /// Half of the nonce is sent along.
    Tls12Gcm,
    /// The nonce is the sequence number's.
    Tls12ChaCha,
}

/// One direction's key, and how far it has come.
pub(super) struct Half {
    key: Key,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    form: Form,
}

// What an idle connection keeps, twice.
const _: () = assert!(size_of::<Half>() <= 72);

impl Half {
    /// From what the handshake agreed on; `None` for a cipher that is not spoken here.
    pub(super) fn new(
        version: ProtocolVersion,
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
        ready: &mut Ready,
    ) -> Option<Self> {
        let (key, iv) = ready.key(secrets)?;
        let form = match version {
            ProtocolVersion::TLSv1_3 => Form::Tls13,
            ProtocolVersion::TLSv1_2 if key.cipher() == Cipher::ChaCha20Poly1305 => Form::Tls12ChaCha,
            ProtocolVersion::TLSv1_2 => Form::Tls12Gcm,
            _ => return None,
        };
        Some(Self { key, iv: <[u8; NONCE_LEN]>::try_from(iv).ok()?, sequence, form })
    }

    /// Whether it is time for a new key.
    pub(super) fn is_worn(&self) -> bool {
        self.form == Form::Tls13 && self.sequence >= RECORDS_WORN && self.key.cipher() != Cipher::ChaCha20Poly1305
    }

    /// The number of the record at hand, over the key's own bytes (RFC 8446 section 5.3, and RFC 7905 section 2). In TLS 1.2
    /// with AES-GCM the sender may choose the last 8 bytes; these never come twice.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        nonce
    }

    /// What TLS 1.2 binds to a record (RFC 5246 section 6.2.3.3).
    fn bound(&self, kind: u8, text: usize) -> [u8; 13] {
        let mut bound = [0; 13];
        bound[..8].copy_from_slice(&self.sequence.to_be_bytes());
        let [.., high, low] = text.to_be_bytes();
        bound[8..].copy_from_slice(&[kind, 3, 3, high, low]);
        bound
    }

    /// Records that the key may still seal before the last ones.
    pub(super) fn left(&self) -> u64 {
        match self.key.cipher() {
            // It wears with bytes, and not within any lifetime (RFC 8446 section 5.5).
            Cipher::ChaCha20Poly1305 => u64::MAX - self.sequence,
            _ => (RECORDS_MAX - RECORDS_LAST).saturating_sub(self.sequence),
        }
    }

    /// Seals one record of at most [`TEXT_MAX`] bytes behind what is in `out`.
    pub(super) fn seal(&mut self, ready: &mut Ready, kind: u8, text: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.left() == 0 {
            return Err(Fault::Spent);
        }
        self.seal_last(ready, kind, text, out)
    }

    /// The same for last words, for which a key always has something left.
    pub(super) fn seal_last(
        &mut self,
        ready: &mut Ready,
        kind: u8,
        text: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        debug_assert!(text.len() <= TEXT_MAX);
        let records_max = if self.key.cipher() == Cipher::ChaCha20Poly1305 { u64::MAX } else { RECORDS_MAX };
        if self.sequence >= records_max {
            return Err(Fault::Spent);
        }
        let (key, nonce, begin) = (ready.of(&self.key)?, self.nonce(), out.len());
        let (before, behind, shown) = match self.form {
            Form::Tls13 => (0, 1, kind::DATA),
            Form::Tls12Gcm => (EXPLICIT, 0, kind),
            Form::Tls12ChaCha => (0, 0, kind),
        };
        let [.., high, low] = (before + text.len() + behind + TAG).to_be_bytes();
        let header = [shown, 3, 3, high, low];
        out.extend_from_slice(&header);
        out.extend_from_slice(&nonce[NONCE_LEN - before..]);
        out.extend_from_slice(text);
        let start = begin + HEADER + before;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = if self.form == Form::Tls13 {
            out.push(kind);
            key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut out[start..])
        } else {
            let bound = self.bound(kind, text.len());
            key.seal_in_place_separate_tag(nonce, Aad::from(bound), &mut out[start..])
        };
        let Ok(tag) = tag else {
            out.truncate(begin);
            return Err(Fault::Spent);
        };
        out.extend_from_slice(tag.as_ref());
        self.sequence += 1;
        Ok(())
    }

    /// Opens one whole record in place. Returns what it holds and where in `record` that is.
    pub(super) fn open(&mut self, ready: &mut Ready, record: &mut [u8]) -> Result<(u8, Range<usize>), Fault> {
        let (head, body) = record.split_first_chunk_mut::<HEADER>().ok_or(Fault::Malformed)?;
        let (header, shown) = (*head, head[0]);
        let (mut nonce, mut before) = (self.nonce(), 0);
        if self.form == Form::Tls12Gcm {
            before = EXPLICIT;
            nonce[NONCE_LEN - EXPLICIT..].copy_from_slice(body.get(..EXPLICIT).ok_or(Fault::BadMac)?);
        }
        let sealed = &mut body[before..];
        let text = sealed.len().checked_sub(TAG).ok_or(Fault::BadMac)?;
        let (key, nonce) = (ready.of(&self.key)?, Nonce::assume_unique_for_key(nonce));
        let opened = if self.form == Form::Tls13 {
            if shown != kind::DATA {
                return Err(Fault::Unexpected);
            }
            key.open_in_place(nonce, Aad::from(header), sealed)
        } else {
            key.open_in_place(nonce, Aad::from(self.bound(shown, text)), sealed)
        };
        let opened = &*opened.map_err(|_| Fault::BadMac)?;
        self.sequence = self.sequence.checked_add(1).ok_or(Fault::Spent)?;
        // The padding counts too, and with TLS 1.3 the type.
        if opened.len() > TEXT_MAX + usize::from(self.form == Form::Tls13) {
            return Err(Fault::TooLong);
        }
        let (kind, len) = if self.form == Form::Tls13 {
            // Zeros fill the record up behind its type (RFC 8446 section 5.4).
            let last = opened.iter().rposition(|&byte| byte != 0).ok_or(Fault::Unexpected)?;
            (opened[last], last)
        } else {
            (shown, opened.len())
        };
        let start = HEADER + before;
        Ok((kind, start..start + len))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    type Secrets = fn(AeadKey, Iv) -> ConnectionTrafficSecrets;

    fn halves(version: ProtocolVersion, secrets: Secrets) -> (Half, Half, Ready) {
        let secrets = || secrets(AeadKey::from([7; 32]), Iv::new([9; NONCE_LEN]));
        let mut ready = Ready::default();
        let mut half = || Half::new(version, 3, &secrets(), &mut ready).unwrap();
        (half(), half(), ready)
    }

    const FORMS: [(ProtocolVersion, Secrets); 4] = [
        (ProtocolVersion::TLSv1_3, |key, iv| ConnectionTrafficSecrets::Aes256Gcm { key, iv }),
        (ProtocolVersion::TLSv1_3, |key, iv| ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }),
        (ProtocolVersion::TLSv1_2, |key, iv| ConnectionTrafficSecrets::Aes256Gcm { key, iv }),
        (ProtocolVersion::TLSv1_2, |key, iv| ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }),
    ];

    #[test]
    fn what_is_sealed_opens_in_its_place() {
        for (version, secrets) in FORMS {
            let (mut sealer, mut opener, mut ready) = halves(version, secrets);
            for text in [&b"first"[..], b"", &[42; TEXT_MAX]] {
                let mut out = b"before".to_vec();
                sealer.seal(&mut ready, kind::DATA, text, &mut out).unwrap();
                let record = &mut out[6..];
                assert!(record.len() <= text.len() + OVERHEAD_MAX);
                assert_eq!(length(record), Ok(Some(record.len())));
                let (found, place) = opener.open(&mut ready, record).unwrap();
                assert_eq!((found, &record[place]), (kind::DATA, text));
            }
        }
    }

    #[test]
    fn a_record_opens_once_in_its_order_and_unchanged() {
        for (version, secrets) in FORMS {
            let (mut sealer, mut opener, mut ready) = halves(version, secrets);
            let (mut first, mut second) = (Vec::new(), Vec::new());
            sealer.seal(&mut ready, kind::DATA, b"first", &mut first).unwrap();
            sealer.seal(&mut ready, kind::ALERT, &[1, 0], &mut second).unwrap();
            for byte in 1..first.len() {
                let mut changed = first.clone();
                changed[byte] ^= 1;
                // The version and the length of TLS 1.2 headers are bound by value, not by their bytes.
                let open = opener.open(&mut ready, &mut changed);
                if open.is_ok() {
                    assert!(version == ProtocolVersion::TLSv1_2 && byte < HEADER, "{byte} was changed, and it opens");
                    opener = halves(version, secrets).1;
                }
            }
            assert_eq!(opener.open(&mut ready, &mut second.clone()), Err(Fault::BadMac), "a record is missing");
            opener.open(&mut ready, &mut first.clone()).unwrap();
            assert_eq!(opener.open(&mut ready, &mut first), Err(Fault::BadMac), "it comes again");
            assert_eq!(opener.open(&mut ready, &mut second).unwrap().0, kind::ALERT);
        }
    }

    #[test]
    fn keys_that_are_in_each_others_way_are_made_ready_again() {
        let (version, secrets) = FORMS[0];
        let mut ready = Ready::default();
        let mut pair = || {
            let secrets = secrets(AeadKey::from([7; 32]), Iv::new([9; NONCE_LEN]));
            let mut half = || Half::new(version, 0, &secrets, &mut ready).unwrap();
            (half(), half())
        };
        let mut pairs: Vec<_> = (0..2_000).map(|_| pair()).collect();
        let empty = ready.memory();
        for _ in 0..2 {
            for (number, (sealer, opener)) in pairs.iter_mut().enumerate() {
                let (mut out, text) = (Vec::new(), number.to_be_bytes());
                sealer.seal(&mut ready, kind::DATA, &text, &mut out).unwrap();
                let (_, place) = opener.open(&mut ready, &mut out).unwrap();
                assert_eq!(out[place], text);
            }
        }
        assert_eq!(empty, 0, "a server without TLS has none of it");
        assert!(ready.memory() < 640 * 1024, "{}", ready.memory());
    }

    #[test]
    fn what_is_no_record_is_known_by_its_header() {
        assert_eq!(length(&[23, 3, 3, 0]), Ok(None));
        assert_eq!(length(b"GET / HTTP/1.1"), Err(Fault::Malformed));
        assert_eq!(length(&[23, 3, 3, 0xff, 0xff]), Err(Fault::TooLong));
        assert_eq!(length(&[22, 3, 1, 0, 5]), Ok(Some(10)));
        let (_, mut opener, mut ready) = halves(ProtocolVersion::TLSv1_3, FORMS[0].1);
        assert_eq!(opener.open(&mut ready, &mut [23, 3, 3, 0, 1, 0]), Err(Fault::BadMac));
        assert_eq!(
            opener.open(&mut ready, &mut [21, 3, 3, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Err(Fault::Unexpected)
        );
    }

    #[test]
    fn padding_counts_as_text() {
        for (len, expected) in
            [(TEXT_MAX + 1, Ok((kind::DATA, HEADER..HEADER + 1))), (TEXT_MAX + 2, Err(Fault::TooLong))]
        {
            let (sealer, mut opener, mut ready) = halves(ProtocolVersion::TLSv1_3, FORMS[0].1);
            let mut sealed = vec![0; len];
            sealed[..2].copy_from_slice(&[b'x', kind::DATA]);
            let [.., high, low] = (len + TAG).to_be_bytes();
            let header = [kind::DATA, 3, 3, high, low];
            let nonce = Nonce::assume_unique_for_key(sealer.nonce());
            let key = ready.of(&sealer.key).unwrap();
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut sealed).unwrap();
            let mut record = [&header[..], &sealed, tag.as_ref()].concat();
            assert_eq!(opener.open(&mut ready, &mut record), expected);
        }
    }

    #[test]
    fn a_key_is_not_used_beyond_its_bound() {
        let (mut sealer, _, mut ready) = halves(ProtocolVersion::TLSv1_2, FORMS[2].1);
        sealer.sequence = RECORDS_MAX - RECORDS_LAST;
        let mut out = Vec::new();
        assert_eq!(sealer.seal(&mut ready, kind::DATA, b"x", &mut out), Err(Fault::Spent));
        assert!(out.is_empty());
        for _ in 0..RECORDS_LAST {
            sealer.seal_last(&mut ready, kind::ALERT, &[1, 0], &mut out).unwrap();
        }
        let said = out.len();
        assert_eq!(sealer.seal_last(&mut ready, kind::ALERT, &[1, 0], &mut out), Err(Fault::Spent));
        assert_eq!(out.len(), said);
        let (mut sealer, ..) = halves(ProtocolVersion::TLSv1_3, FORMS[0].1);
        assert!(!sealer.is_worn());
        sealer.sequence = RECORDS_WORN;
        assert!(sealer.is_worn());
    }

    /// RFC 8446 section 5.3: they do not wrap.
    #[test]
    fn numbers_do_not_begin_again() {
        for (version, secrets) in [FORMS[1], FORMS[3]] {
            let (mut sealer, mut opener, mut ready) = halves(version, secrets);
            (sealer.sequence, opener.sequence) = (u64::MAX - 1, u64::MAX - 1);
            let mut last = Vec::new();
            sealer.seal(&mut ready, kind::DATA, b"the last one", &mut last).unwrap();
            assert_eq!(opener.open(&mut ready, &mut last).unwrap().0, kind::DATA);
            let mut out = Vec::new();
            assert_eq!(sealer.seal(&mut ready, kind::DATA, b"x", &mut out), Err(Fault::Spent));
            assert_eq!(sealer.seal_last(&mut ready, kind::ALERT, &[1, 0], &mut out), Err(Fault::Spent));
            assert!(out.is_empty());
            // What another end seals all the same.
            sealer.sequence = 3;
            sealer.seal(&mut ready, kind::DATA, b"x", &mut out).unwrap();
            assert!(opener.open(&mut ready, &mut out).is_err());
        }
    }
}
