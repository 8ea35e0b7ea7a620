//! Whose certificates our clients take: what `--ca` and `--insecure` say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Failure;
use crate::io::tls::Trust;

/// Where systems keep the authorities that they trust: Debian and Alpine, Fedora, SUSE.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

#[derive(Debug, Default, clap::Args)]
pub(super) struct TrustArgs {
    /// Over TLS: take certificates that an authority in this file of PEM has signed [default: those that the system trusts]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Over TLS: take every certificate, whoever has signed it
    #[arg(long)]
    insecure: bool,
}

impl TrustArgs {
    /// What they come to where TLS is spoken.
    pub(super) fn read(&self, tls: bool) -> Result<Trust, Failure> {
        match &self.ca {
            Some(path) => authorities(path).map_err(|what| {
                let path = path.display();
                Failure::usage(format_args!("{what}, {path}, flag --ca: name a file of CA certificates in PEM"))
            }),
            None if self.insecure => Ok(Trust::Anyone),
            None if tls => Ok(system()),
            None => Ok(Trust::default()),
        }
    }
}

/// Those whom the system trusts; nobody, where it says nothing.
fn system() -> Trust {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let files = named.into_iter().chain(SYSTEM.into_iter().map(PathBuf::from));
    files.filter_map(|path| authorities(&path).ok()).next().unwrap_or_default()
}

/// All certificates of a file that can be an authority's.
fn authorities(path: &Path) -> Result<Trust, String> {
    let mut roots = RootCertStore::empty();
    let read = CertificateDer::pem_file_iter(path).map_err(|error| format!("cannot read it: {error}"))?;
    for certificate in read {
        let certificate = certificate.map_err(|error| format!("no PEM: {error}"))?;
        // A system has hundreds, and one that is of no use is no obstacle.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        Err("no certificate of an authority".to_owned())
    } else {
        Ok(Trust::Authorities(Arc::new(roots)))
    }
}
