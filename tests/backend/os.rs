//! Harness for backends over a real kernel: sockets on loopback.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use holdline::id::ListenerId;
use holdline::io::proxy::Proxy;
use holdline::io::{Backend, epoll, uring};
use socket2::{Domain, SockRef, Socket, Type};

use super::harness::{Client, Harness, Peer, Setup};

/// Descriptors belong to the process, so cases that count them have it for themselves.
static PROCESS: RwLock<()> = RwLock::new(());

/// For a case that leaves the process's descriptors to others too.
pub fn in_company() -> RwLockReadGuard<'static, ()> {
    PROCESS.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

enum Turnstile {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

/// A backend that can be made for a case.
pub trait Make: Backend + Sized {
    fn make(connections_max: u32) -> Self;
}

impl Make for epoll::Epoll {
    fn make(connections_max: u32) -> Self {
        Self::new(epoll::Config::new(connections_max as usize)).unwrap()
    }
}

impl Make for uring::Uring {
    fn make(connections_max: u32) -> Self {
        Self::new(uring::Config::new(connections_max as usize)).unwrap()
    }
}

/// With nobody behind a proxy it must not be noticed.
impl<B: Make> Make for Proxy<B> {
    fn make(connections_max: u32) -> Self {
        Self::new(B::make(connections_max), [ListenerId(1)])
    }
}

/// A backend, a listener on a free port, and what `starve` took.
pub struct Loopback<B> {
    backend: B,
    address: SocketAddr,
    small_buffers: bool,
    ballast: Vec<File>,
    _turnstile: Turnstile,
}

const SMALL: usize = 4096;

impl<B: Make> Harness for Loopback<B> {
    type Backend = B;
    type Client = TcpClient;

    fn new(setup: Setup) -> Self {
        // A case that failed poisons the lock, which is no reason for others to fail.
        let turnstile = if setup.alone {
            Turnstile::Alone(PROCESS.write().unwrap_or_else(std::sync::PoisonError::into_inner))
        } else {
            Turnstile::Shared(in_company())
        };
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if setup.small_buffers {
            // Accepted sockets inherit these.
            listener.set_send_buffer_size(SMALL).unwrap();
            listener.set_recv_buffer_size(SMALL).unwrap();
        }
        listener.set_tcp_nodelay(true).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(4096).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut backend = B::make(setup.connections_max);
        backend.listen(ListenerId(0), listener.into()).unwrap();
        let small_buffers = setup.small_buffers;
        Self { backend, address, small_buffers, ballast: Vec::new(), _turnstile: turnstile }
    }

    fn backend(&mut self) -> &mut B {
        &mut self.backend
    }

    fn try_connect(&mut self) -> Option<TcpClient> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if self.small_buffers {
            socket.set_send_buffer_size(SMALL).unwrap();
            socket.set_recv_buffer_size(SMALL).unwrap();
        }
        socket.connect_timeout(&self.address.into(), Duration::from_secs(5)).ok()?;
        socket.set_nonblocking(true).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        Some(TcpClient { stream: socket.into(), peer: Peer::Open })
    }

    fn starve(&mut self) -> bool {
        while let Ok(file) = File::open("/dev/null") {
            self.ballast.push(file);
        }
        true
    }

    fn feed(&mut self) {
        self.ballast.clear();
    }

    fn holdings(&self) -> usize {
        fs::read_dir("/proc/self/fd").unwrap().count()
    }
}

/// A non-blocking socket.
pub struct TcpClient {
    stream: TcpStream,
    peer: Peer,
}

impl Client for TcpClient {
    fn address(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        match self.stream.write(bytes) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.peer = Peer::Reset;
                0
            }
        }
    }

    fn read(&mut self, into: &mut Vec<u8>, bytes_max: usize) -> usize {
        let start = into.len();
        into.resize(start + bytes_max.min(64 * 1024), 0);
        let read = match self.stream.read(&mut into[start..]) {
            Ok(0) => {
                // The kernel tells of a reset once, then it is an end like any other.
                if self.peer == Peer::Open {
                    self.peer = Peer::Finished;
                }
                0
            }
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.peer = Peer::Reset;
                0
            }
        };
        into.truncate(start + read);
        read
    }

    fn peer(&mut self) -> Peer {
        self.peer
    }

    fn shutdown_write(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    fn close(self) {}

    fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
