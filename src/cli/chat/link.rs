//! One connection of a chat: written to by the main thread, read by a thread of its own.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::call::{self, CallError, Caller};
use super::stream::Stream;
use super::target::{Speech, Target};
use super::websocket::{self, Event, Fault, HandshakeError, Opcode};
use crate::io::tls::Trust;
use crate::session::caller::Outcome;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The host's name says nothing.
    #[error("cannot find the host: {0}")]
    Resolve(io::Error),
    /// Nobody there.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// Somebody there, but no keys to talk under.
    #[error("no TLS: {0}")]
    Tls(io::Error),
    /// Somebody there, but not for us.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The same, for a call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A fault on this side.
    #[error("no thread: {0}")]
    Thread(io::Error),
}

impl LinkError {
    /// How to mend it.
    pub(super) fn mend(&self) -> String {
        match self {
            Self::Resolve(_) => "check the name".to_owned(),
            Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "start `holdline serve`, or check the port".to_owned()
            }
            Self::Connect(_) => "check host and port".to_owned(),
            Self::Tls(error) if is_distrust(error) => {
                "name the authority of its certificate with --ca FILE, or take any with --insecure".to_owned()
            }
            Self::Tls(_) => "check that the port speaks TLS".to_owned(),
            Self::Handshake(HandshakeError::Status(status, _, said)) => {
                let advice = match status {
                    401 | 403 => "you are not let in",
                    404 => "check the path, such as /chat/lobby",
                    429 | 503 => "try again later",
                    _ => "check the URL",
                };
                if said.is_empty() { advice.to_owned() } else { format!("{advice} ({said})") }
            }
            Self::Handshake(_) => "check the port; raw TCP listeners are tcp://HOST:PORT".to_owned(),
            Self::Call(error) => error.mend().to_owned(),
            Self::Thread(_) => "raise ulimit -u".to_owned(),
        }
    }

    /// Whether it may be gone at the next attempt.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Resolve(_) | Self::Connect(_) | Self::Thread(_) => true,
            Self::Handshake(HandshakeError::Status(status, ..)) => matches!(status, 429 | 500..),
            Self::Handshake(HandshakeError::Io(_)) => true,
            Self::Handshake(HandshakeError::Broken(_)) => false,
            Self::Tls(error) => error.kind() != io::ErrorKind::InvalidData,
            Self::Call(error) => error.may_pass(),
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The server said good-bye: a WebSocket close code and reason.
    Closed(Option<u16>, String),
    /// The call ended.
    Call(Outcome),
    /// The server is there, but not for this topic: why.
    Refused(String),
    /// It went away.
    Lost(String),
}

/// What a connection brings.
#[derive(Debug)]
pub(super) enum Heard<'a> {
    /// A message.
    Message(&'a [u8]),
    /// A line was not taken: why.
    NotTaken(String),
    /// Messages were lost that had been asked for.
    Missed,
}

type Shared = Arc<Mutex<Stream>>;

/// The writing end.
pub(super) struct Link {
    speech: Speech,
    stream: Shared,
    /// What a call keeps beside them.
    caller: Option<Arc<Caller>>,
}

impl Link {
    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Connects and starts to read: `hear` gets everything and says whether to go on, `ended` is called once.
    pub(super) fn open(
        target: &Target,
        trust: &Trust,
        hear: impl Fn(Heard<'_>) -> bool + Send + 'static,
        ended: impl FnOnce(Ending) + Send + 'static,
    ) -> Result<Self, LinkError> {
        let mut stream = connect(target, trust)?;
        let reading = stream.try_clone().map_err(LinkError::Connect)?;
        let conversation = match target.speech {
            Speech::WebSocket => Conversation::WebSocket(websocket::handshake(&mut stream, target)?, reading),
            Speech::Lines => Conversation::Lines(reading),
            Speech::Call => {
                let (caller, reader) = call::open(reading, target)?;
                Conversation::Call(caller, reader)
            }
        };
        // From here on silence is no fault; the server's heartbeat finds dead connections.
        stream.set_read_timeout(None).map_err(LinkError::Connect)?;
        let caller = conversation.caller();
        let link = Self { speech: target.speech, stream: Arc::new(Mutex::new(stream)), caller };
        let shared = Arc::clone(&link.stream);
        let read = move || {
            let print = |message: &[u8]| hear(Heard::Message(message));
            ended(match conversation {
                Conversation::WebSocket(start, reading) => {
                    read_messages(websocket::Reader::new(reading, start), &shared, print)
                }
                Conversation::Lines(reading) => read_lines(BufReader::new(reading), &shared, print),
                Conversation::Call(caller, reader) => reader.run(&caller, hear),
            });
        };
        thread::Builder::new().name("connection".to_owned()).spawn(read).map_err(LinkError::Thread)?;
        Ok(link)
    }

    /// Sends one line as one message.
    pub(super) fn send(&mut self, line: &str) -> io::Result<()> {
        let mut stream = lock(&self.stream);
        match self.speech {
            // Nobody wants to read it, and between lines it would be a heartbeat.
            _ if line.is_empty() => Ok(()),
            Speech::WebSocket => websocket::write_frame(&mut *stream, Opcode::Text, line.as_bytes()),
            Speech::Lines => stream.write_all([line.as_bytes(), b"\n"].concat().as_slice()),
            Speech::Call => self.caller.as_ref().map_or(Ok(()), |caller| caller.send(&mut *stream, line)),
        }
    }

    /// Says good-bye; the reader tells when the server has answered.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let mut stream = lock(&self.stream);
        match self.speech {
            Speech::WebSocket => websocket::write_frame(&mut *stream, Opcode::Close, &1000_u16.to_be_bytes()),
            Speech::Lines => stream.shutdown(Shutdown::Write),
            Speech::Call => self.caller.as_ref().map_or(Ok(()), |caller| caller.close(&mut *stream)),
        }
    }
}

/// What the thread that reads has to do.
enum Conversation {
    /// With what came behind the handshake.
    WebSocket(Vec<u8>, Stream),
    Lines(Stream),
    Call(Arc<Caller>, call::Reader),
}

impl Conversation {
    fn caller(&self) -> Option<Arc<Caller>> {
        if let Self::Call(caller, _) = self { Some(Arc::clone(caller)) } else { None }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = lock(&self.stream).shutdown(Shutdown::Both);
    }
}

fn lock(stream: &Shared) -> MutexGuard<'_, Stream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first address that answers.
fn connect(target: &Target, trust: &Trust) -> Result<Stream, LinkError> {
    let addresses = (target.host.as_str(), target.port).to_socket_addrs().map_err(LinkError::Resolve)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses.take(8) {
        match TcpStream::connect_timeout(&address, Link::TIMEOUT) {
            Ok(stream) => {
                let prepared = stream
                    .set_nodelay(true)
                    .and_then(|()| stream.set_read_timeout(Some(Link::TIMEOUT)))
                    .and_then(|()| stream.set_write_timeout(Some(Link::TIMEOUT)));
                prepared.map_err(LinkError::Connect)?;
                return if target.tls { secure(stream, target, trust) } else { Ok(Stream::plain(stream)) };
            }
            Err(error) => last = error,
        }
    }
    Err(LinkError::Connect(last))
}

/// Agrees on keys with the target's server.
fn secure(stream: TcpStream, target: &Target, trust: &Trust) -> Result<Stream, LinkError> {
    let protocols: &[&str] = match target.speech {
        Speech::WebSocket => &["http/1.1"],
        Speech::Call => &["h2"],
        Speech::Lines => &[],
    };
    let failed = |error: io::Error| LinkError::Tls(error);
    let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other).map_err(failed)?;
    let config = trust.config(protocols).map_err(io::Error::other).map_err(failed)?;
    Stream::secured(stream, config, name).map_err(failed)
}

/// Whether it is the certificate that was not taken.
fn is_distrust(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

fn read_messages(mut reader: websocket::Reader<Stream>, stream: &Shared, print: impl Fn(&[u8]) -> bool) -> Ending {
    let send = |opcode, payload: &[u8]| websocket::write_frame(&mut *lock(stream), opcode, payload);
    loop {
        let go_on = match reader.next() {
            Ok(Event::Text(text)) => print(text.as_bytes()),
            Ok(Event::Binary(bytes)) => print(&bytes),
            Ok(Event::Ping(payload)) => send(Opcode::Pong, &payload).is_ok(),
            Ok(Event::Close(code, reason)) => {
                // Ours may have crossed it; a second one harms nobody, the server has stopped reading.
                let _ = send(Opcode::Close, &code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec()));
                return Ending::Closed(code, reason);
            }
            Err(Fault::Io(error)) => return lost(&error),
            Err(fault) => {
                let _ = fault.code().map(|code| send(Opcode::Close, &code.to_be_bytes()));
                return Ending::Lost(fault.to_string());
            }
        };
        if !go_on {
            return Ending::Lost("it does not read".to_owned());
        }
    }
}

fn read_lines(mut reader: BufReader<Stream>, stream: &Shared, print: impl Fn(&[u8]) -> bool) -> Ending {
    const LINE_BYTES_MAX: usize = 16 << 20;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut reader, LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        let go_on = match (read, line.strip_suffix(b"\n")) {
            (Err(error), _) => return lost(&error),
            (Ok(_), None) if line.len() == LINE_BYTES_MAX => return Ending::Lost("a line is over 16 MiB".to_owned()),
            (Ok(_), None) => return lost(&io::ErrorKind::UnexpectedEof.into()),
            // A heartbeat; the answer to one is one.
            (Ok(_), Some(b"" | b"\r")) => lock(stream).write_all(b"\n").is_ok(),
            (Ok(_), Some(line)) => print(line.strip_suffix(b"\r").unwrap_or(line)),
        };
        if !go_on {
            return Ending::Lost("it does not read".to_owned());
        }
    }
}

pub(super) fn lost(error: &io::Error) -> Ending {
    Ending::Lost(match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server went away".to_owned(),
        _ => error.to_string(),
    })
}
