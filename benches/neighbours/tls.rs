//! A certificate for the server, a neighbour that trusts it, and the first message of a client that means no good.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::common::room::Room;

/// The server's certificate, and a client that trusts it.
pub(crate) struct Trust {
    pub(crate) room: Room,
    client: Arc<ClientConfig>,
}

impl Trust {
    pub(crate) fn new() -> io::Result<Self> {
        let room = Room::new("neighbours")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(io::Error::other)?.with_root_certificates(Arc::clone(&room.roots));
        Ok(Self { room, client: Arc::new(builder.with_no_client_auth()) })
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
