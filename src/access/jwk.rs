//! Keys that tokens are signed with: JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037), public keys in PEM, and a
//! shared secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;

use super::der;
use super::grant::mark;

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// By its name in a token (RFC 7518 section 3.1, RFC 8037 section 3.1, RFC 9864 section 2.2).
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "RS256" => Self::Rs256,
            "ES256" => Self::Es256,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    /// Its name in a token.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// What a signature is checked with.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Material {
    Secret(Box<[u8]>),
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa(Box<[u8]>, Box<[u8]>),
    /// A point of P-256, not compressed.
    P256([u8; 65]),
    Ed25519([u8; 32]),
}

/// A key, and what it is called.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    kid: Option<Box<str>>,
    material: Material,
    /// What it is known by in a grant.
    mark: u32,
}

/// Without what may be secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

/// Why something is no key that could be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadKey(pub(super) String);

/// What a reader of JSON or TOML says, without what it has found where something else should be: that may be the secret.
pub(super) fn discreet(message: &str) -> String {
    let tail = message.rfind(", expected ").map_or("", |at| &message[at..]);
    let found = &message[..message.len() - tail.len()];
    match found.find(['"', '`', '\'']) {
        Some(at) if message.starts_with("invalid ") => format!("{}{tail}", found[..at].trim_end()),
        _ => message.replace('\n', " "),
    }
}

fn bad<T>(what: impl Into<String>) -> Result<T, BadKey> {
    Err(BadKey(what.into()))
}

impl Key {
    /// Bytes of a shared secret at least (RFC 7518 section 3.2).
    pub const SECRET_BYTES_MIN: usize = 32;
    /// Bytes of an RSA modulus: 2048 to 8192 bits.
    const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

    fn new(kid: Option<&str>, material: Material) -> Self {
        let mark = match &material {
            Material::Secret(secret) => mark(&[b"secret", secret]),
            Material::Rsa(modulus, exponent) => mark(&[b"rsa", modulus, exponent]),
            Material::P256(point) => mark(&[b"p256", point]),
            Material::Ed25519(point) => mark(&[b"ed25519", point]),
        };
        Self { kid: kid.map(Box::from), material, mark }
    }

    /// What grants know it by whose topics are in this claim.
    pub(super) fn mark(&self, claim: &str) -> u32 {
        mark(&[&self.mark.to_be_bytes(), claim.as_bytes()])
    }

    /// A shared secret (HS256).
    ///
    /// # Errors
    /// When it is short enough to be guessed.
    pub fn secret(secret: &[u8]) -> Result<Self, BadKey> {
        if secret.len() < Self::SECRET_BYTES_MIN {
            return bad(format!("has {} bytes, and a secret has at least {}", secret.len(), Self::SECRET_BYTES_MIN));
        }
        Ok(Self::new(None, Material::Secret(secret.into())))
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Material, BadKey> {
        let start = modulus.iter().take_while(|&&byte| byte == 0).count();
        let modulus = &modulus[start..];
        if !Self::RSA_BYTES.contains(&modulus.len()) {
            return bad(format!("has an RSA modulus of {} bits; 2048 to 8192 are taken", modulus.len() * 8));
        }
        Ok(Material::Rsa(modulus.into(), exponent.into()))
    }

    /// Public keys in PEM: `PUBLIC KEY` blocks (RFC 7468 section 13) of RSA, P-256 and Ed25519.
    ///
    /// # Errors
    /// When one is something else.
    pub(super) fn from_pem(der: &[u8]) -> Result<Self, BadKey> {
        let material = match der::public_key(der) {
            Some(der::PublicKey::Rsa { modulus, exponent }) => Self::rsa(modulus, exponent)?,
            Some(der::PublicKey::P256(point)) => Material::P256(*point),
            Some(der::PublicKey::Ed25519(point)) => Material::Ed25519(*point),
            None => return bad("holds a key that is neither RSA nor P-256 nor Ed25519"),
        };
        Ok(Self::new(None, material))
    }

    /// What it signs with: a key has one algorithm (RFC 8725 section 3.1).
    pub(super) const fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Secret(_) => Algorithm::Hs256,
            Material::Rsa(..) => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
            Material::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Whether a token that names a key means this one.
    pub(super) fn is_called(&self, kid: &str) -> bool {
        self.kid.as_deref() == Some(kid)
    }

    /// Whether it has no name, so that any token may mean it.
    pub(super) const fn is_nameless(&self) -> bool {
        self.kid.is_none()
    }

    /// Whether this key made a signature. Secrets are compared in constant time.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(secret) => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), message, signature).is_ok()
            }
            Material::Rsa(modulus, exponent) => {
                let key = RsaPublicKeyComponents { n: &modulus[..], e: &exponent[..] };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            Material::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature).is_ok(),
        }
    }
}

/// Several keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

/// A JSON Web Key, as far as it is looked at.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    k: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

impl KeySet {
    /// Keys of a set at most.
    pub const KEYS_MAX: usize = 64;

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// Reads a JSON Web Key Set. Keys for something else than signatures, and of kinds that are not known here, are passed
    /// over (RFC 7517 section 5).
    ///
    /// # Errors
    /// When it is none, a key is broken, or there is none that could be used.
    pub fn from_jwks(text: &str) -> Result<Self, BadKey> {
        let set: Jwks = serde_json::from_str(text)
            .map_err(|error| BadKey(format!("is no JSON Web Key Set: {}", discreet(&error.to_string()))))?;
        if set.keys.len() > Self::KEYS_MAX {
            return bad(format!("has {} keys; at most {} are taken", set.keys.len(), Self::KEYS_MAX));
        }
        let mut keys = Vec::new();
        for (number, jwk) in (1..).zip(&set.keys) {
            let key = jwk.key().map_err(|error| BadKey(format!("has a key, number {number}, that {error}")))?;
            keys.extend(key);
        }
        if keys.is_empty() {
            return bad("has no key for HS256, RS256, ES256 or EdDSA");
        }
        Ok(Self(keys))
    }

    /// Reads a PEM file's public keys.
    ///
    /// # Errors
    /// When there is none, or one that could not be used.
    pub fn from_pem(text: &str) -> Result<Self, BadKey> {
        const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
        const END: &str = "-----END PUBLIC KEY-----";
        let mut keys = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(BEGIN) {
            let body = &rest[start + BEGIN.len()..];
            let Some(end) = body.find(END) else { return bad("has a key without an end") };
            let base64: String = body[..end].split_ascii_whitespace().collect();
            let der = base64::engine::general_purpose::STANDARD.decode(base64);
            keys.push(Key::from_pem(&der.map_err(|_| BadKey("has a key that is no base64".to_owned()))?)?);
            rest = &body[end + END.len()..];
            if keys.len() > Self::KEYS_MAX {
                return bad(format!("has more than {} keys", Self::KEYS_MAX));
            }
        }
        if keys.is_empty() {
            let hint = if text.contains("PRIVATE KEY") { " but a private key, which has to stay secret" } else { "" };
            return bad(format!("has no PUBLIC KEY{hint}"));
        }
        Ok(Self(keys))
    }
}

impl Jwk {
    /// The key, if it is one for signatures that are known here.
    fn key(&self) -> Result<Option<Key>, BadKey> {
        let signs = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        if !signs || !self.key_ops.as_ref().is_none_or(verifies) {
            return Ok(None);
        }
        let material = match (&*self.kty, self.crv.as_deref()) {
            ("oct", _) => Key::secret(&part(self.k.as_deref(), "k")?)?.material,
            ("RSA", _) => Key::rsa(&part(self.n.as_deref(), "n")?, &part(self.e.as_deref(), "e")?)?,
            ("EC", Some("P-256")) => {
                let (x, y) = (fixed(self.x.as_deref(), "x")?, fixed(self.y.as_deref(), "y")?);
                let mut point = [4; 65];
                point[1..33].copy_from_slice(&x);
                point[33..].copy_from_slice(&y);
                Material::P256(point)
            }
            ("OKP", Some("Ed25519")) => Material::Ed25519(fixed(self.x.as_deref(), "x")?),
            _ => return Ok(None),
        };
        let key = Key::new(self.kid.as_deref(), material);
        let is_for_this = self.alg.as_deref().is_none_or(|alg| Algorithm::from_name(alg) == Some(key.algorithm()));
        Ok(is_for_this.then_some(key))
    }
}

fn part(text: Option<&str>, name: &str) -> Result<Vec<u8>, BadKey> {
    let text = text.ok_or_else(|| BadKey(format!("has no {name}")))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| BadKey(format!("has a {name} that is no base64url")))
}

fn fixed(text: Option<&str>, name: &str) -> Result<[u8; 32], BadKey> {
    part(text, name)?.try_into().map_err(|_| BadKey(format!("has a {name} that is not 32 bytes long")))
}
