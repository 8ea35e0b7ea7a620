//! Harness for the TLS decorator over a kernel's backend: the same cases, with clients that speak TLS.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use holdline::io::tls::{Current, Setup as TlsSetup, Speaks, Terms, Tls};
use holdline::metrics::ShardMetrics;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::harness::{Client, Harness, Peer, Setup};
use super::os::{Loopback, Make, TcpClient};

/// What both sides agree on.
struct Trust {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn trust() -> &'static Trust {
    static TRUST: OnceLock<Trust> = OnceLock::new();
    TRUST.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let server = builder.unwrap().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
        let mut server = server.unwrap();
        server.enable_secret_extraction = true;
        server.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let client = builder.with_root_certificates(roots).with_no_client_auth();
        Trust { server: Arc::new(server), client: Arc::new(client) }
    })
}

impl<B: Make> Make for Tls<B> {
    fn make(connections_max: u32) -> Self {
        let server = &trust().server;
        let terms = Terms {
            http: Arc::clone(server),
            raw: Arc::clone(server),
            timeout: Duration::from_secs(10),
            handshake_bytes_max: 64 << 20,
        };
        let setup = TlsSetup {
            listeners: vec![Speaks::Tls],
            current: Arc::new(Current::new(terms)),
            metrics: Arc::new(ShardMetrics::default()),
        };
        Self::new(B::make(connections_max), setup)
    }
}

/// A backend over loopback, and clients that speak TLS with it. What they have sealed and not sent goes on with every turn, as
/// what a kernel holds would.
pub struct Secured<B> {
    loopback: Loopback<Tls<B>>,
    clients: Vec<Weak<RefCell<Inner>>>,
}

impl<B: Make> Harness for Secured<B> {
    type Backend = Tls<B>;
    type Client = TlsClient;

    fn new(setup: Setup) -> Self {
        Self { loopback: Loopback::new(setup), clients: Vec::new() }
    }

    fn backend(&mut self) -> &mut Tls<B> {
        for client in self.clients.iter().filter_map(Weak::upgrade) {
            client.borrow_mut().go_on();
        }
        self.loopback.backend()
    }

    fn try_connect(&mut self) -> Option<TlsClient> {
        let tcp = self.loopback.try_connect()?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::clone(&trust().client), name).unwrap();
        tls.set_buffer_limit(Some(4096));
        let client = Rc::new(RefCell::new(Inner { tcp, tls, peer: Peer::Open }));
        self.clients.retain(|client| client.strong_count() > 0);
        self.clients.push(Rc::downgrade(&client));
        Some(TlsClient(client))
    }

    fn starve(&mut self) -> bool {
        self.loopback.starve()
    }

    fn feed(&mut self) {
        self.loopback.feed();
    }

    fn holdings(&self) -> usize {
        self.loopback.holdings()
    }
}

/// A non-blocking socket with TLS on it.
pub struct TlsClient(Rc<RefCell<Inner>>);

struct Inner {
    tcp: TcpClient,
    tls: ClientConnection,
    peer: Peer,
}

/// The socket as rustls reads and writes it.
struct Socket<'a>(&'a mut TcpClient);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut bytes = Vec::new();
        match (self.0.read(&mut bytes, buffer.len()), self.0.peer()) {
            (0, Peer::Open) => Err(ErrorKind::WouldBlock.into()),
            (0, Peer::Reset) => Err(ErrorKind::ConnectionReset.into()),
            (read, _) => {
                buffer[..read].copy_from_slice(&bytes);
                Ok(read)
            }
        }
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.write(bytes) {
            0 => Err(ErrorKind::WouldBlock.into()),
            written => Ok(written),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Inner {
    fn push(&mut self) {
        while self.tls.wants_write() && self.tls.write_tls(&mut Socket(&mut self.tcp)).is_ok() {}
    }

    fn go_on(&mut self) {
        self.push();
        if self.tls.is_handshaking() {
            self.pull();
            self.push();
        }
    }

    fn pull(&mut self) {
        match self.tls.read_tls(&mut Socket(&mut self.tcp)) {
            Ok(0) if self.peer == Peer::Open => self.peer = Peer::Finished,
            Ok(_) => {
                let handshaking = self.tls.is_handshaking();
                let closed = match self.tls.process_new_packets() {
                    Ok(state) => state.peer_has_closed(),
                    // A client that leaves within the handshake is told so.
                    Err(error) => {
                        assert!(handshaking, "{error}");
                        true
                    }
                };
                if closed && self.peer == Peer::Open {
                    self.peer = Peer::Finished;
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.peer = Peer::Reset,
            Err(_) => {}
        }
    }
}

impl Client for TlsClient {
    fn address(&self) -> Option<SocketAddr> {
        self.0.borrow().tcp.address()
    }

    fn settle(&mut self) -> bool {
        let mut inner = self.0.borrow_mut();
        inner.go_on();
        if inner.tls.tls13_tickets_received() < 2 {
            inner.pull();
        }
        // They are the server's last word in a handshake.
        inner.tls.tls13_tickets_received() == 2
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut inner = self.0.borrow_mut();
        inner.go_on();
        let written = inner.tls.writer().write(bytes).unwrap();
        inner.push();
        written
    }

    fn read(&mut self, into: &mut Vec<u8>, bytes_max: usize) -> usize {
        let mut inner = self.0.borrow_mut();
        inner.push();
        let start = into.len();
        into.resize(start + bytes_max.min(64 * 1024), 0);
        let mut read = 0;
        // What has come before goes first: rustls keeps no more than it may.
        for _ in 0..4 {
            match inner.tls.reader().read(&mut into[start..]) {
                Ok(more) => read = more,
                Err(error) => assert!([ErrorKind::WouldBlock, ErrorKind::UnexpectedEof].contains(&error.kind())),
            }
            if read > 0 {
                break;
            }
            inner.pull();
        }
        into.truncate(start + read);
        read
    }

    fn peer(&mut self) -> Peer {
        self.0.borrow().peer
    }

    fn shutdown_write(&mut self) {
        let mut inner = self.0.borrow_mut();
        inner.tls.send_close_notify();
        inner.push();
        inner.tcp.shutdown_write();
    }

    fn close(self) {
        let mut inner = self.0.borrow_mut();
        inner.tls.send_close_notify();
        inner.push();
    }

    fn reset(self) {
        if let Ok(inner) = Rc::try_unwrap(self.0) {
            inner.into_inner().tcp.reset();
        }
    }
}
