//! What TLS listeners need.

use std::path::PathBuf;

/// Certificates and what is agreed on with clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Files with certificate chains (PEM), the server's own certificate first. Who names none of their hosts gets the
    /// first.
    pub certificates: Vec<PathBuf>,
    /// Files with their keys, in the same order. None: each key stands in its certificate's file.
    pub keys: Vec<PathBuf>,
    /// A file with certificates that clients' ones are to lead to.
    pub client_ca: Option<PathBuf>,
    /// Whether clients are asked for certificates.
    pub client_certificates: ClientCertificates,
    /// The oldest version that is spoken.
    pub version_min: TlsVersion,
    /// Whether clients are given tickets, with which their next handshake is cheap.
    pub tickets: bool,
    /// Bytes that the handshakes of a shard may keep while they are under way.
    pub handshake_bytes_max: usize,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            keys: Vec::new(),
            client_ca: None,
            client_certificates: ClientCertificates::default(),
            version_min: TlsVersion::default(),
            tickets: true,
            handshake_bytes_max: 64 << 20,
        }
    }
}

named! {
    /// Whether clients are asked for certificates.
    ClientCertificates {
        /// They are not.
        #[default]
        Off = "off",
        /// They are, and may have none.
        Optional = "optional",
        /// Nobody is let in without.
        Required = "required",
    }
}

named! {
    /// A version of TLS.
    TlsVersion {
        /// RFC 5246, with forward secrecy and authenticated encryption only.
        #[default]
        Tls12 = "1.2",
        /// RFC 8446.
        Tls13 = "1.3",
    }
}
