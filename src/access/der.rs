//! The public keys in SubjectPublicKeyInfo structures (RFC 5280 section 4.1.2.7), of the three kinds that sign tokens.

/// A public key.
pub(super) enum PublicKey<'d> {
    Rsa { modulus: &'d [u8], exponent: &'d [u8] },
    P256(&'d [u8; 65]),
    Ed25519(&'d [u8; 32]),
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const NULL: u8 = 0x05;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// 1.2.840.113549.1.1.1, RFC 3279 section 2.3.1.
const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
/// 1.2.840.10045.2.1 and 1.2.840.10045.3.1.7, RFC 5480 section 2.1.1.
const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const P256: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// 1.3.101.112, RFC 8410 section 3.
const ED25519: &[u8] = b"\x2b\x65\x70";

/// The key in a structure that is one of these and nothing behind it.
pub(super) fn public_key(der: &[u8]) -> Option<PublicKey<'_>> {
    let mut outer = Reader(der);
    let mut info = Reader(outer.take(SEQUENCE)?);
    let mut algorithm = Reader(info.take(SEQUENCE)?);
    let kind = algorithm.take(OBJECT)?;
    let bits = info.take(BIT_STRING)?.strip_prefix(&[0])?;
    if !outer.0.is_empty() || !info.0.is_empty() {
        return None;
    }
    match kind {
        RSA => {
            algorithm.take(NULL)?;
            let mut key = Reader(bits);
            let mut numbers = Reader(key.take(SEQUENCE)?);
            let (modulus, exponent) = (numbers.take(INTEGER)?, numbers.take(INTEGER)?);
            Some(PublicKey::Rsa { modulus, exponent })
        }
        EC if algorithm.take(OBJECT)? == P256 => bits.try_into().ok().map(PublicKey::P256),
        ED25519 => bits.try_into().ok().map(PublicKey::Ed25519),
        _ => None,
    }
}

struct Reader<'d>(&'d [u8]);

impl<'d> Reader<'d> {
    /// The content of the next value, which must have this tag (X.690 section 8.1).
    fn take(&mut self, tag: u8) -> Option<&'d [u8]> {
        let (&first, rest) = self.0.split_first()?;
        let (&short, rest) = rest.split_first()?;
        let (length, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            0x81 => (usize::from(*rest.first()?), &rest[1..]),
            0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (first == tag).then_some(content)
    }
}
