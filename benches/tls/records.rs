//! Records after the handshake: our layer beside rustls' own, as it is for those who keep buffers of their own (unbuffered)
//! and for all others (buffered). The handshake is rustls' in each of them, the cipher ring's.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use holdline::io::tls::pairs::Pairs;
use rustix::time::{ClockId, clock_gettime};
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite};

use super::common::report::{Table, median};

/// Both ends of many connections, of which servers speak and clients listen.
trait Layer {
    /// Seals a record at a server, behind what is in `out`.
    fn seal(&mut self, connection: usize, text: &[u8], out: &mut Vec<u8>) -> io::Result<()>;

    /// Opens it at the client. Returns how long its text is.
    fn open(&mut self, connection: usize, record: &mut [u8]) -> io::Result<usize>;
}

/// Who takes part in a handshake.
struct Terms {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Terms {
    fn new(suite: SupportedCipherSuite) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).map_err(io::Error::other)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut provider = default_provider();
        provider.cipher_suites = vec![suite];
        let provider = Arc::new(provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(io::Error::other)?.with_no_client_auth();
        let mut server = builder.with_single_cert(vec![made.cert.der().clone()], key).map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).map_err(io::Error::other)?;
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(io::Error::other)?.with_root_certificates(roots);
        let mut client = builder.with_no_client_auth();
        (server.enable_secret_extraction, client.enable_secret_extraction) = (true, true);
        // They would be the first thing that a client opens.
        server.send_tls13_tickets = 0;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }

    fn name() -> io::Result<ServerName<'static>> {
        ServerName::try_from("localhost").map_err(io::Error::other)
    }
}

impl Layer for Pairs {
    fn seal(&mut self, connection: usize, text: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if Self::seal(self, connection, text, out) { Ok(()) } else { Err(io::Error::other("a key is spent")) }
    }

    fn open(&mut self, connection: usize, record: &mut [u8]) -> io::Result<usize> {
        let text = Self::open(self, connection, record).ok_or_else(|| io::Error::other("a record does not open"))?;
        Ok(black_box(text).len())
    }
}

fn ours(terms: &Terms, connections: usize) -> io::Result<Pairs> {
    let mut pairs = Pairs::default();
    for _ in 0..connections {
        let agreed = pairs.agree(Arc::clone(&terms.server), Arc::clone(&terms.client), Terms::name()?);
        agreed.map_err(io::Error::other)?;
    }
    Ok(pairs)
}

/// rustls for those who have buffers.
struct Unbuffered(Vec<(UnbufferedServerConnection, UnbufferedClientConnection)>);

impl Unbuffered {
    fn new(terms: &Terms, connections: usize) -> io::Result<Self> {
        let pair = |_| {
            let server = UnbufferedServerConnection::new(Arc::clone(&terms.server)).map_err(io::Error::other)?;
            let client = UnbufferedClientConnection::new(Arc::clone(&terms.client), Terms::name()?);
            let (mut server, mut client) = (server, client.map_err(io::Error::other)?);
            let (mut up, mut down) = (Vec::new(), Vec::new());
            for _ in 0..4 {
                while let (used, true) = step(client.process_tls_records(&mut down), &mut up)? {
                    down.drain(..used);
                }
                while let (used, true) = step(server.process_tls_records(&mut up), &mut down)? {
                    up.drain(..used);
                }
            }
            Ok((server, client))
        };
        (0..connections).map(pair).collect::<io::Result<_>>().map(Self)
    }
}

/// One step of a handshake: what it has used of the input, and whether it goes on by itself.
fn step<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) -> io::Result<(usize, bool)> {
    let goes_on = match status.state.map_err(io::Error::other)? {
        ConnectionState::EncodeTlsData(mut data) => {
            let start = out.len();
            if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
                out.resize(start + needed.required_size, 0);
                data.encode(&mut out[start..]).map_err(io::Error::other)?;
            }
            true
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            true
        }
        _ => status.discard > 0,
    };
    Ok((status.discard, goes_on))
}

impl Layer for Unbuffered {
    fn seal(&mut self, connection: usize, text: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let status = self.0[connection].0.process_tls_records(&mut []);
        let ConnectionState::WriteTraffic(mut traffic) = status.state.map_err(io::Error::other)? else {
            return Err(io::Error::other("a server that may not speak"));
        };
        let start = out.len();
        // Room for the header, the type and the tag.
        out.resize(start + text.len() + 64, 0);
        let sealed = traffic.encrypt(text, &mut out[start..]).map_err(io::Error::other)?;
        out.truncate(start + sealed);
        Ok(())
    }

    fn open(&mut self, connection: usize, record: &mut [u8]) -> io::Result<usize> {
        let status = self.0[connection].1.process_tls_records(record);
        let ConnectionState::ReadTraffic(mut traffic) = status.state.map_err(io::Error::other)? else {
            return Err(io::Error::other("a record without text"));
        };
        let mut len = 0;
        while let Some(found) = traffic.next_record() {
            len += black_box(found.map_err(io::Error::other)?.payload).len();
        }
        Ok(len)
    }
}

/// rustls with its own buffers.
struct Buffered {
    pairs: Vec<(ServerConnection, ClientConnection)>,
    text: Vec<u8>,
}

impl Buffered {
    fn new(terms: &Terms, connections: usize) -> io::Result<Self> {
        let pair = |_| {
            let mut server = ServerConnection::new(Arc::clone(&terms.server)).map_err(io::Error::other)?;
            let client = ClientConnection::new(Arc::clone(&terms.client), Terms::name()?);
            let mut client = client.map_err(io::Error::other)?;
            while server.is_handshaking() || client.is_handshaking() {
                let (mut up, mut down) = (Vec::new(), Vec::new());
                client.write_tls(&mut up)?;
                server.read_tls(&mut &up[..])?;
                server.process_new_packets().map_err(io::Error::other)?;
                while server.wants_write() {
                    server.write_tls(&mut down)?;
                }
                client.read_tls(&mut &down[..])?;
                client.process_new_packets().map_err(io::Error::other)?;
            }
            Ok((server, client))
        };
        let pairs = (0..connections).map(pair).collect::<io::Result<_>>()?;
        Ok(Self { pairs, text: vec![0; 16 * 1024] })
    }
}

impl Layer for Buffered {
    fn seal(&mut self, connection: usize, text: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let server = &mut self.pairs[connection].0;
        server.writer().write_all(text)?;
        server.write_tls(out).map(|_| ())
    }

    fn open(&mut self, connection: usize, record: &mut [u8]) -> io::Result<usize> {
        let (client, mut record) = (&mut self.pairs[connection].1, &*record);
        let mut len = 0;
        // It takes no more than 4 KiB at a time.
        while !record.is_empty() {
            client.read_tls(&mut record)?;
            let state = client.process_new_packets().map_err(io::Error::other)?;
            if state.plaintext_bytes_to_read() > 0 {
                len += black_box(client.reader().read(&mut self.text)?);
            }
        }
        Ok(len)
    }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Nanoseconds for sealing and for opening one record of so many bytes, the connections in turn. As many are sealed before
/// they are opened as a core's own cache has room for.
fn measure(layer: &mut dyn Layer, connections: usize, bytes: usize, records: usize) -> io::Result<[f64; 2]> {
    let (text, batch) = (vec![b'x'; bytes], (256 * 1024 / bytes).clamp(16, 256));
    let (mut out, mut ends) = (Vec::with_capacity(batch * (bytes + 64)), Vec::with_capacity(batch));
    let (mut sealing, mut opening, mut done) = (Duration::ZERO, Duration::ZERO, 0);
    while done < records {
        out.clear();
        ends.clear();
        let began = cpu();
        for number in done..done + batch {
            layer.seal(number % connections, &text, &mut out)?;
            ends.push(out.len());
        }
        let sealed = cpu();
        let mut start = 0;
        for (number, end) in (done..).zip(&ends) {
            let found = layer.open(number % connections, &mut out[start..*end])?;
            if found != bytes {
                return Err(io::Error::other(format!("{found} bytes of text instead of {bytes}")));
            }
            start = *end;
        }
        opening += cpu() - sealed;
        sealing += sealed - began;
        done += batch;
    }
    Ok([sealing, opening].map(|time| time.as_secs_f64() * 1e9 / done as f64))
}

/// CPU time of each record, sealed and opened, small and large, of one busy connection and of so many that their keys are not
/// all ready.
pub(crate) fn records(rounds: usize, many: usize, records: usize) -> io::Result<()> {
    let head =
        ["records", "bytes", "connections", "", "ours", "rustls, unbuffered", "rustls, buffered", "ours/unbuffered"];
    let mut table = Table::new(&head);
    for (cipher, suite) in [
        ("AES-128-GCM", cipher_suite::TLS13_AES_128_GCM_SHA256),
        ("ChaCha20-Poly1305", cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
    ] {
        let terms = Terms::new(suite)?;
        for connections in [1, many] {
            let mut ours = ours(&terms, connections)?;
            let mut unbuffered = Unbuffered::new(&terms, connections)?;
            let mut buffered = Buffered::new(&terms, connections)?;
            let mut layers: [&mut dyn Layer; 3] = [&mut ours, &mut unbuffered, &mut buffered];
            for bytes in [32, 1024, 16 * 1024] {
                let mut times = [const { [const { Vec::new() }; 2] }; 3];
                for _ in 0..rounds {
                    for (layer, times) in layers.iter_mut().zip(&mut times) {
                        let measured = measure(&mut **layer, connections, bytes, records)?;
                        times.iter_mut().zip(measured).for_each(|(times, time)| times.push(time));
                    }
                }
                for (way, name) in ["seal", "open"].into_iter().enumerate() {
                    let [ours, unbuffered, buffered] = times.each_ref().map(|layer| median(&layer[way]));
                    let figures = [ours, unbuffered, buffered].map(|time| format!("{time:.0} ns"));
                    let mut row = vec![cipher.to_owned(), bytes.to_string(), connections.to_string(), name.to_owned()];
                    row.extend(figures);
                    row.push(format!("{:.2}", ours / unbuffered));
                    table.row(row);
                }
            }
        }
    }
    table.print();
    Ok(())
}
