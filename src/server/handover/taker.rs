//! The new process's side.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::estate::Estate;
use super::heir;
use super::inherited::{Inherited, Passed};
use super::wire::{self, Frame, Kind, Nothing, Offer, Refused, Taken};
use super::{HandoverError, PATIENCE, START_PATIENCE};
use crate::config::ListenAt;

/// A running server that waits for this process to be ready.
#[derive(Debug)]
pub struct Predecessor {
    path: PathBuf,
    stream: UnixStream,
}

impl Predecessor {
    /// Calls the server at this socket, if one is there: what it has goes to `inherited`.
    ///
    /// # Errors
    /// When it is not ours, or gives nothing.
    pub fn call(path: &Path, inherited: &mut Inherited) -> Result<Option<Self>, HandoverError> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(HandoverError::refused(path, error)),
        };
        let passed = ask(&stream).map_err(|what| HandoverError::refused(path, what))?;
        inherited.0.extend(passed);
        Ok(Some(Self { path: path.to_owned(), stream }))
    }

    /// Says that this process is ready to serve what it took of the offer, and waits until the other one takes nobody in
    /// any more. Returns what that one leaves.
    ///
    /// # Errors
    /// When the other one does not want that any more.
    pub(in crate::server) fn ready(&self, taken: Vec<usize>) -> Result<Estate, HandoverError> {
        let mut estate = Estate::default();
        match self.take(taken, &mut estate) {
            Ok(()) => Ok(estate),
            // It has gone, and what it had is ours alone.
            Err(error) if is_end(&error) => {
                tracing::warn!("the server before this one ended while it handed over");
                Ok(estate)
            }
            Err(error) => Err(HandoverError::refused(&self.path, error)),
        }
    }

    fn take(&self, taken: Vec<usize>, estate: &mut Estate) -> io::Result<()> {
        wire::send(&self.stream, Kind::Ready, &Taken { taken }, &[])?;
        let (left, came) = heir::inherit(&self.stream);
        *estate = left;
        came?;
        let frame = wire::receive(&self.stream)?;
        if frame.kind == Kind::Yours { Ok(()) } else { Err(wire::strange(&refusal(&frame))) }
    }
}

fn ask(stream: &UnixStream) -> Result<Vec<Passed>, String> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("it does not answer within {PATIENCE:?}"),
        ErrorKind::UnexpectedEof => "it hung up".to_owned(),
        _ => error.to_string(),
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    wire::known_peer(stream).map_err(failed)?;
    wire::send(stream, Kind::Hello, &Nothing {}, &[]).map_err(failed)?;
    let frame = wire::receive(stream).map_err(failed)?;
    if frame.kind != Kind::Offer {
        return Err(refusal(&frame));
    }
    let offer: Offer = frame.read().map_err(failed)?;
    let count = offer.listeners.iter().map(|offered| offered.sockets).fold(0, usize::saturating_add);
    let mut sockets = Vec::new();
    while sockets.len() < count {
        let frame = wire::receive(stream).map_err(failed)?;
        if frame.kind != Kind::Sockets || frame.descriptors.is_empty() {
            return Err("it gives fewer sockets than it said".to_owned());
        }
        sockets.extend(frame.descriptors.into_iter().map(TcpListener::from));
    }
    stream.set_read_timeout(Some(START_PATIENCE)).map_err(failed)?;
    let mut sockets = sockets.into_iter();
    let passed = |(number, offered): (usize, wire::Offered)| {
        let address: ListenAt = offered.address.parse().map_err(|_| format!("{:?} is no address", offered.address))?;
        let sockets: Vec<_> = sockets.by_ref().take(offered.sockets).collect();
        let (asked, number) = (Some(offered.asked), Some(number));
        Ok(Passed { name: offered.name, asked, address, activated: offered.activated, number, sockets })
    };
    offer.listeners.into_iter().enumerate().map(passed).collect()
}

/// Whether the other side has gone.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

pub(super) fn refusal(frame: &Frame) -> String {
    match frame.kind {
        Kind::Refused => frame.read().map_or_else(|error| error.to_string(), |Refused { reason }| reason),
        kind => format!("it says {kind:?}, which was not its turn"),
    }
}
