//! Keys: small while their connections are idle, ready while they are busy.
//!
//! What AES-GCM makes from a key before it can use it takes 544 bytes with ring, for each direction of each connection. It takes
//! 0.15 µs to make (AES-256 on an EPYC with AES-NI; a record of 128 bytes is sealed in 0.09 µs, and sent in more than 1 µs). So
//! a connection keeps its keys as they are, and a shard what it has made from those that it used last.

use ring::aead::{self, AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use rustls::ConnectionTrafficSecrets;

use super::record::Fault;

/// The ciphers that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Cipher {
    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}

/// A key at rest.
pub(super) struct Key {
    bytes: [u8; 32],
    cipher: Cipher,
    /// What it is called among those that are ready; no other key of the shard has it.
    number: u64,
}

impl Key {
    /// The cipher that it is for.
    pub(super) const fn cipher(&self) -> Cipher {
        self.cipher
    }
}

/// What a shard has made from the keys that it used last.
#[derive(Default)]
pub(super) struct Ready {
    /// By the last digits of the keys' numbers. Nothing before the first key is used.
    places: Vec<Option<(u64, LessSafeKey)>>,
    keys: u64,
}

impl Ready {
    /// Keys that are kept ready: 590 KB. Connections follow each other in their numbers, so as many as half of that are busy
    /// before one is in another's way.
    const PLACES: u64 = 1024;

    /// The key of a cipher that is spoken, and the bytes that begin its nonces.
    pub(super) fn key<'a>(&mut self, secrets: &'a ConnectionTrafficSecrets) -> Option<(Key, &'a [u8])> {
        let (cipher, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Cipher::ChaCha20Poly1305, key, iv),
            _ => return None,
        };
        let mut bytes = [0; 32];
        // Secrets hold as many bytes of key as their cipher takes; the rest of the space that they are given is not used.
        let len = cipher.algorithm().key_len();
        bytes.get_mut(..len)?.copy_from_slice(key.as_ref().get(..len)?);
        self.keys += 1;
        Some((Key { bytes, cipher, number: self.keys }, iv.as_ref()))
    }

    /// A key that can be used.
    pub(super) fn of(&mut self, key: &Key) -> Result<&LessSafeKey, Fault> {
        let places = usize::try_from(Self::PLACES).unwrap_or(1);
        if self.places.is_empty() {
            self.places.resize_with(places, || None);
        }
        let place = usize::try_from(key.number % Self::PLACES).unwrap_or(0);
        let place = &mut self.places[place];
        if place.as_ref().is_none_or(|&(number, _)| number != key.number) {
            let algorithm = key.cipher.algorithm();
            let made = UnboundKey::new(algorithm, &key.bytes[..algorithm.key_len()]).map_err(|_| Fault::Spent)?;
            *place = Some((key.number, LessSafeKey::new(made)));
        }
        place.as_ref().map(|(_, ready)| ready).ok_or(Fault::Spent)
    }

    /// Bytes that are kept.
    pub(super) const fn memory(&self) -> usize {
        self.places.capacity() * size_of::<Option<(u64, LessSafeKey)>>()
    }
}
