//! A plain server inside a namespace: a thread for each connection, and counts of how they ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use holdline::io::tun::{Namespace, SERVER};
use socket2::{Domain, Socket, Type};

/// Enough for one read and one write.
const STACK: usize = 128 * 1024;

#[derive(Debug, Default)]
pub struct Ends {
    pub accepted: AtomicUsize,
    pub graceful: AtomicUsize,
    pub reset: AtomicUsize,
}

impl Ends {
    pub fn seen(&self) -> (usize, usize) {
        (self.graceful.load(Ordering::Acquire), self.reset.load(Ordering::Acquire))
    }
}

pub fn namespace(connections: usize) -> Namespace {
    Namespace::new(connections).unwrap_or_else(|error| panic!("this test needs a network namespace: {error}"))
}

/// Starts one. It ends with the test's process; its threads block.
pub fn serve(namespace: &Namespace) -> (SocketAddrV4, Arc<Ends>) {
    let ends = Arc::new(Ends::default());
    let counted = Arc::clone(&ends);
    let start = move || {
        // A listener of the standard library queues 128 connections only.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((SERVER, 0)).into()).unwrap();
        socket.listen(4096).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let ends = Arc::clone(&counted);
                ends.accepted.fetch_add(1, Ordering::AcqRel);
                let thread = thread::Builder::new().stack_size(STACK);
                thread.spawn(move || echo(stream.unwrap(), &ends)).unwrap();
            }
        });
        address
    };
    let SocketAddr::V4(address) = namespace.run(start).unwrap() else { unreachable!("it was bound to IPv4") };
    (address, ends)
}

fn echo(mut stream: TcpStream, ends: &Ends) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let ended = match stream.read(&mut buffer) {
            Ok(0) => &ends.graceful,
            Ok(len) if stream.write_all(&buffer[..len]).is_ok() => continue,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            _ => &ends.reset,
        };
        ended.fetch_add(1, Ordering::AcqRel);
        return;
    }
}
