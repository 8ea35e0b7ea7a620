//! Whom a client trusts, and on which terms it asks for TLS.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Whose certificates a client takes.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those that one of these authorities has signed, for the host that was asked for.
    Authorities(Arc<RootCertStore>),
    /// Anybody's: who sits between can read it all.
    Anyone,
}

impl Default for Trust {
    /// Nobody's.
    fn default() -> Self {
        Self::Authorities(Arc::new(RootCertStore::empty()))
    }
}

impl Trust {
    /// How a client of this trust asks for TLS, with protocols to agree on (ALPN, RFC 7301), none where there are none.
    /// Nothing is resumed.
    ///
    /// # Errors
    /// None that is known: the provider has ciphers for both versions.
    pub fn config(&self, protocols: &[&str]) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match self {
            Self::Authorities(roots) => builder.with_root_certificates(Arc::clone(roots)),
            Self::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(Credulous(provider))),
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        Ok(Arc::new(config))
    }
}

/// Takes every certificate, though not every signature: the peer has the key of what it shows.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
