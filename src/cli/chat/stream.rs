//! A connection of bytes, inside of TLS or not, which one thread reads and others write.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// Bytes that are read at a time.
const READ_BYTES: usize = 16 << 10;

/// What TLS is doing, which both directions share.
#[derive(Debug)]
struct Inside {
    connection: ClientConnection,
    /// Received, and not taken by `connection` yet.
    came: Vec<u8>,
}

/// A connection. Its clones are the same one; only one of them may read.
#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    inside: Option<Arc<Mutex<Inside>>>,
}

impl Stream {
    /// Bytes as they are.
    pub(super) const fn plain(socket: TcpStream) -> Self {
        Self { socket, inside: None }
    }

    /// Agrees on keys with a server of this name.
    pub(super) fn secured(socket: TcpStream, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Self> {
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut &socket)?;
        }
        let inside = Inside { connection, came: Vec::new() };
        Ok(Self { socket, inside: Some(Arc::new(Mutex::new(inside))) })
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, inside: self.inside.clone() })
    }

    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(timeout)
    }

    /// Says that nothing more is sent, or that nothing more is wanted at all.
    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if let Some(mut inside) = self.inside.as_deref().map(lock) {
            inside.connection.send_close_notify();
            // Who is gone need not hear it.
            let _ = inside.send(&self.socket);
        }
        self.socket.shutdown(how)
    }
}

fn lock(inside: &Mutex<Inside>) -> MutexGuard<'_, Inside> {
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inside {
    /// Sends what TLS has to say.
    fn send(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut socket)?;
        }
        Ok(())
    }

    /// Text that has come. `None`: there is none yet.
    fn text(&mut self, into: &mut [u8], socket: &TcpStream) -> io::Result<Option<usize>> {
        loop {
            match self.connection.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // An end without a good-bye is told by what is spoken inside.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Some(0)),
                read => return read.map(Some),
            }
            if self.came.is_empty() {
                return Ok(None);
            }
            let mut rest = &self.came[..];
            self.connection.read_tls(&mut rest)?;
            let taken = self.came.len() - rest.len();
            self.came.drain(..taken);
            let opened = self.connection.process_new_packets();
            self.send(socket)?;
            opened.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(inside) = &self.inside else { return self.socket.read(into) };
        let mut bytes = [0; READ_BYTES];
        loop {
            if let Some(read) = lock(inside).text(into, &self.socket)? {
                return Ok(read);
            }
            // Others may write meanwhile.
            let count = self.socket.read(&mut bytes)?;
            let mut inside = lock(inside);
            if count == 0 {
                inside.connection.read_tls(&mut io::empty())?;
                return Ok(0);
            }
            inside.came.extend_from_slice(&bytes[..count]);
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(inside) = &self.inside else { return (&self.socket).write(bytes) };
        let mut inside = lock(inside);
        let taken = inside.connection.writer().write(bytes)?;
        inside.send(&self.socket)?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
