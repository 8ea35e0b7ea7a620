//! A certificate for the server, a neighbour that trusts it, and the first message of a client that means no good.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A certificate for localhost, its key, and who trusts it.
pub(crate) struct Room {
    own: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    client: Arc<ClientConfig>,
}

impl Room {
    pub(crate) fn new() -> io::Result<Self> {
        let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("neighbours-bench-{}", std::process::id()));
        fs::create_dir_all(&own)?;
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).map_err(io::Error::other)?;
        let (certificate, key) = (own.join("localhost.pem"), own.join("localhost.key"));
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { own, certificate, key, client: Arc::new(client) })
    }

    fn connection(&self) -> io::Result<ClientConnection> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        ClientConnection::new(Arc::clone(&self.client), name).map_err(io::Error::other)
    }

    pub(crate) fn wrap<S: Read + Write>(&self, stream: S) -> io::Result<StreamOwned<ClientConnection, S>> {
        Ok(StreamOwned::new(self.connection()?, stream))
    }

    /// A ClientHello that is as good as any: it costs whoever sends it again nothing, and the server a key exchange and a
    /// signature.
    pub(crate) fn hello(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.connection()?.write_tls(&mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.own);
    }
}
