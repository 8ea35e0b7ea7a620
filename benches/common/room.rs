//! A certificate for localhost, in files, and who trusts it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;

/// Where the files are. They go with it.
pub(crate) struct Room {
    pub(crate) own: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) roots: Arc<RootCertStore>,
}

impl Room {
    /// For the bench of this name.
    pub(crate) fn new(bench: &str) -> io::Result<Self> {
        let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{bench}-bench-{}", std::process::id()));
        fs::create_dir_all(&own)?;
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).map_err(io::Error::other)?;
        let (certificate, key) = (own.join("localhost.pem"), own.join("localhost.key"));
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).map_err(io::Error::other)?;
        Ok(Self { own, certificate, key, roots: Arc::new(roots) })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.own);
    }
}
