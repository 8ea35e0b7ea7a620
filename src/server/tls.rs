//! From certificates in files to the terms on which handshakes are made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::ring::digest::{Context, SHA256};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::StartError;
use super::validity::Validity;
use crate::config::{ClientCertificates, Config, TlsConfig, TlsVersion};
use crate::io::tls::{Current, Speaks, Terms};

/// What is the matter with a certificate or its key.
#[derive(Debug, thiserror::Error)]
#[error("{what}, {}: {mend}", path.display())]
pub struct TlsError {
    /// What is wrong.
    what: String,
    /// With which file.
    path: PathBuf,
    /// What to do.
    mend: &'static str,
}

impl TlsError {
    fn new(what: impl Into<String>, path: &Path, mend: &'static str) -> Self {
        Self { what: what.into(), path: path.to_owned(), mend }
    }
}

/// What listeners speak below their protocols, in their order.
pub(super) fn speaks(config: &Config) -> Vec<Speaks> {
    let speaks = |listen: &crate::config::Listen| match (listen.tls, &listen.transport) {
        (false, _) => Speaks::Plain,
        (true, crate::config::Transport::Http) => Speaks::Https,
        (true, crate::config::Transport::Tcp { .. }) => Speaks::Tls,
    };
    config.listeners.iter().map(speaks).collect()
}

/// The terms of a running server, and what outlives their replacement.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) current: Arc<Current>,
    /// Until when its certificates are valid.
    pub(super) validities: Arc<[Validity]>,
    /// Tells whether others vouch for clients now.
    authorities: Option<Fingerprint>,
    tickets: Tickets,
}

/// Tickets are good across a reload, as long as the same clients are let in.
#[derive(Clone)]
struct Tickets {
    producer: Arc<dyn ProducesTickets>,
    config: TlsConfig,
}

impl Keeper {
    /// Reads what the configuration names; `None` where nobody listens with TLS.
    pub(super) fn new(config: &Config) -> Result<Option<Self>, StartError> {
        if !config.listeners.iter().any(|listen| listen.tls) {
            return Ok(None);
        }
        let tickets = Tickets::new(&config.tls)?;
        let (terms, validities, authorities) = terms(config, &tickets.producer)?;
        Ok(Some(Self { current: Arc::new(Current::new(terms)), validities, authorities, tickets }))
    }

    /// Reads it again: handshakes that begin from now on are made on the new terms. On an error the old ones stay. Returns the
    /// keys whose files hold something else than before.
    pub(super) fn reload(&mut self, config: &Config) -> Result<Vec<&'static str>, StartError> {
        let same_clients = self.tickets.config.client_ca == config.tls.client_ca
            && self.tickets.config.client_certificates == config.tls.client_certificates
            && config.tls.client_certificates == ClientCertificates::Off;
        let tickets = if same_clients { self.tickets.clone() } else { Tickets::new(&config.tls)? };
        let (terms, validities, authorities) = terms(config, &tickets.producer)?;
        self.current.replace(terms);
        let differ =
            [("tls.certificates", self.validities != validities), ("tls.client_ca", self.authorities != authorities)];
        self.validities = validities;
        self.authorities = authorities;
        self.tickets = tickets;
        Ok(differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect())
    }
}

impl Tickets {
    fn new(config: &TlsConfig) -> Result<Self, StartError> {
        let producer = ring::Ticketer::new().map_err(StartError::Crypto)?;
        Ok(Self { producer, config: config.clone() })
    }
}

/// What tells a file's certificates from others.
type Fingerprint = [u8; 32];

/// What handshakes are made on, until when the certificates are valid, and who vouches for clients.
type Read = (Terms, Arc<[Validity]>, Option<Fingerprint>);

fn terms(config: &Config, tickets: &Arc<dyn ProducesTickets>) -> Result<Read, StartError> {
    let tls = &config.tls;
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] = match tls.version_min {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let certificates = Arc::new(Certificates::read(tls, &provider)?);
    let validities = certificates.validities(tls).collect();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
    let builder = builder.map_err(StartError::Crypto)?;
    let mut authorities = None;
    let builder = match (tls.client_certificates, &tls.client_ca) {
        (ClientCertificates::Off, _) | (_, None) => builder.with_no_client_auth(),
        (asked, Some(path)) => {
            let (roots, fingerprint) = roots(path)?;
            authorities = Some(fingerprint);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if asked == ClientCertificates::Optional { verifier.allow_unauthenticated() } else { verifier };
            let mend = "name a file of CA certificates with tls.client_ca";
            let verifier = verifier.build().map_err(|error| TlsError::new(error.to_string(), path, mend))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut raw = builder.with_cert_resolver(certificates);
    // The keys go to the record layer in io::tls, see there.
    raw.enable_secret_extraction = true;
    // Tickets leave with the client what a cache would keep here for each.
    raw.session_storage = Arc::new(NoServerSessionStorage {});
    if tls.tickets {
        raw.ticketer = Arc::clone(tickets);
    } else {
        raw.send_tls13_tickets = 0;
    }
    let mut http = raw.clone();
    http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let terms = Terms {
        http: Arc::new(http),
        raw: Arc::new(raw),
        timeout: config.limits.handshake_timeout,
        handshake_bytes_max: tls.handshake_bytes_max,
    };
    Ok((terms, validities, authorities))
}

fn roots(path: &Path) -> Result<(RootCertStore, Fingerprint), TlsError> {
    let (mut roots, mut all) = (RootCertStore::empty(), Context::new(&SHA256));
    for certificate in chain(path)? {
        all.update(&certificate);
        let added = roots.add(certificate);
        added.map_err(|error| TlsError::new(error.to_string(), path, "name a file of CA certificates"))?;
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(all.finish().as_ref());
    Ok((roots, fingerprint))
}

/// All certificates of a file.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mend = "name a file of certificates in PEM";
    let failed = |error: pem::Error| TlsError::new(told(error, "certificate"), path, mend);
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if chain.is_empty() { Err(TlsError::new("no certificate", path, mend)) } else { Ok(chain) }
}

/// What could not be read, in the words of the kernel where it is the kernel's.
fn told(error: pem::Error, what: &str) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot read: {error}"),
        pem::Error::NoItemsFound => format!("no {what}"),
        error => format!("no PEM: {error}"),
    }
}

/// Certificates with their keys, in the order of the configuration.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    fn read(tls: &TlsConfig, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let pairs = tls.certificates.iter().enumerate();
        let read = |(index, path): (usize, &PathBuf)| certified(path, tls.keys.get(index).unwrap_or(path), provider);
        pairs.map(|pair| read(pair).map(Arc::new)).collect::<Result<_, _>>().map(Self)
    }

    fn validities<'a>(&'a self, tls: &'a TlsConfig) -> impl Iterator<Item = Validity> + 'a {
        let of = |(key, path): (&Arc<CertifiedKey>, &PathBuf)| Validity::of(key.end_entity_cert().ok()?, path);
        self.0.iter().zip(&tls.certificates).filter_map(of)
    }
}

fn certified(path: &Path, key_path: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = chain(path)?;
    let mend = "name the file of its key in PEM, without a password, with tls.keys";
    let key = PrivateKeyDer::from_pem_file(key_path);
    let key = key.map_err(|error| TlsError::new(told(error, "private key"), key_path, mend))?;
    warn_of_age(&chain[0], path);
    ParsedCertificate::try_from(&chain[0])
        .map_err(|error| TlsError::new(error.to_string(), path, "have the certificate made again"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let what = format!("the key is not that of {}", path.display());
            TlsError::new(what, key_path, "name tls.certificates and tls.keys in the same order")
        }
        error => TlsError::new(error.to_string(), key_path, "use an ECDSA (P-256, P-384), Ed25519 or RSA key"),
    })
}

/// Says that a certificate is of no use any more, or soon will be. Clients decide, so it is served all the same.
fn warn_of_age(certificate: &CertificateDer<'_>, path: &Path) {
    const SOON: i64 = 14 * 24 * 3600;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let Some(Validity { not_after, .. }) = Validity::of(certificate, path) else { return };
    let left = not_after - i64::try_from(now).unwrap_or(i64::MAX);
    let path = path.display();
    if left < 0 {
        tracing::warn!(%path, "the certificate has expired {} hours ago: renew it and reload", -left / 3600);
    } else if left < SOON {
        let (days, hours) = (left / 86_400, left / 3600 % 24);
        tracing::warn!(%path, "the certificate expires in {days} days and {hours} hours: renew it and reload");
    }
}

impl ResolvesServerCert for Certificates {
    /// The first certificate for the host that the client names, with a key that it can check; without one the first with
    /// such a key.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name.filter(|_| self.0.len() > 1).and_then(|name| {
            let is_for = |key: &&Arc<CertifiedKey>| {
                let certificate = key.end_entity_cert().ok().and_then(|der| ParsedCertificate::try_from(der).ok());
                certificate.is_some_and(|certificate| verify_server_name(&certificate, &name).is_ok())
            };
            self.0.iter().filter(is_for).find(usable)
        });
        named.or_else(|| self.0.iter().find(usable)).or_else(|| self.0.first()).map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs;

    use super::*;
    use crate::config::Listen;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("holdline-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn pair(folder: &Path, name: &str, host: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    fn config(tls: TlsConfig) -> Config {
        Config { listeners: vec![Listen::parse("https://127.0.0.1:0").unwrap()], tls, ..Config::default() }
    }

    #[test]
    fn certificates_and_keys_are_read_and_what_is_wrong_is_named_with_its_file() {
        let folder = folder("read");
        let (a, a_key) = pair(&folder, "a", "a.example");
        let (b, b_key) = pair(&folder, "b", "b.example");
        let both = folder.join("both.pem");
        fs::write(&both, [fs::read(&a).unwrap(), fs::read(&a_key).unwrap()].concat()).unwrap();
        let load = |certificates: &[&PathBuf], keys: &[&PathBuf]| {
            let files = |paths: &[&PathBuf]| paths.iter().copied().cloned().collect::<Vec<_>>();
            let tls = TlsConfig { certificates: files(certificates), keys: files(keys), ..TlsConfig::default() };
            Keeper::new(&config(tls)).map(|keeper| keeper.is_some()).map_err(|error| error.to_string())
        };
        assert_eq!(load(&[&a, &b], &[&a_key, &b_key]), Ok(true));
        assert_eq!(load(&[&both], &[]), Ok(true));
        for (certificates, keys, expected) in [
            (&[&a][..], &[&b_key][..], "the key is not that of"),
            (&[&a], &[], "no private key"),
            (&[&a_key], &[&a_key], "no certificate"),
            (&[&folder.join("missing.pem")], &[&a_key], "cannot read: No such file"),
        ] {
            let error = load(certificates, keys).unwrap_err();
            assert!(error.contains(expected) && error.contains("holdline-tls-read"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn who_listens_without_tls_needs_no_certificate() {
        assert!(Keeper::new(&Config::default()).unwrap().is_none());
        assert_eq!(speaks(&config(TlsConfig::default())), [Speaks::Https]);
    }

    #[test]
    fn a_reload_that_fails_leaves_the_old_terms() {
        let folder = folder("reload");
        let (a, key) = pair(&folder, "a", "a.example");
        let tls = TlsConfig { certificates: vec![a.clone()], keys: vec![key], ..TlsConfig::default() };
        let mut keeper = Keeper::new(&config(tls.clone())).unwrap().unwrap();
        let before = keeper.current.terms();
        fs::write(&a, "no certificate").unwrap();
        assert!(keeper.reload(&config(tls.clone())).is_err());
        assert!(Arc::ptr_eq(&before, &keeper.current.terms()));
        pair(&folder, "a", "b.example");
        assert_eq!(keeper.reload(&config(tls.clone())).unwrap(), ["tls.certificates"]);
        assert!(!Arc::ptr_eq(&before, &keeper.current.terms()));
        assert!(keeper.reload(&config(tls.clone())).unwrap().is_empty());
        let (ca, _) = pair(&folder, "ca", "ca.example");
        let (client_certificates, client_ca) = (ClientCertificates::Optional, Some(ca));
        let tls = TlsConfig { client_certificates, client_ca, ..tls };
        assert_eq!(keeper.reload(&config(tls.clone())).unwrap(), ["tls.client_ca"]);
        assert!(keeper.reload(&config(tls.clone())).unwrap().is_empty());
        pair(&folder, "ca", "other.example");
        assert_eq!(keeper.reload(&config(tls)).unwrap(), ["tls.client_ca"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
