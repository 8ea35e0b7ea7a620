//! Rules of dialling, one per case.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddrV4, TcpListener};
use std::sync::Arc;

use holdline::id::ConnId;
use holdline::io::uring::{Config, Sources};
use holdline::io::{Backend, Dial, Ending};

use super::caller::{Caller, lane, small};
use super::world::noise;

fn hello() -> Arc<[u8]> {
    (*b"hello").into()
}

fn nobody() -> SocketAddrV4 {
    // Bound and not listening: nobody else gets it while it is held, and whoever dials it is refused.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket_ipv4().unwrap();
    std::mem::forget(socket);
    address
}

#[test]
fn a_connection_says_hello_and_works_both_ways() {
    for sources in [Sources::Kernel, lane()] {
        let mut caller = Caller::new(Config { sources, ..Config::new(10) });
        for hello in [hello(), Arc::from([])] {
            let (id, mut stream) = caller.pair(&hello);
            assert_eq!(stream.peer_addr().unwrap().ip().is_loopback(), true);
            caller.reads(&mut stream, &hello);
            stream.write_all(b"welcome").unwrap();
            caller.until("welcome", |caller| caller.open[&id].received == b"welcome");
            caller.send(id, b"thanks");
            caller.reads(&mut stream, b"thanks");
            caller.close_and_wait(id, Ending::Graceful);
            assert_eq!(Arc::strong_count(&hello), 1, "the backend let go of what it sent");
        }
        assert_eq!(caller.closed, 2);
    }
}

#[test]
fn a_refused_dial_fails_and_closes() {
    let mut caller = Caller::new(small(10, 4));
    let to = nobody();
    for _ in 0..100 {
        let ids: Vec<ConnId> = (0..4).map(|_| caller.dial_to(to, &hello())).collect();
        caller.until("failed", |caller| caller.open.values().all(|known| known.failed.is_some()));
        assert!(caller.open.values().all(|known| known.failed == Some(ErrorKind::ConnectionRefused)));
        assert_eq!(caller.backend.dial_error().unwrap().raw_os_error(), Some(libc::ECONNREFUSED));
        assert!(ids.iter().all(|id| caller.open[id].writable == 0));
        caller.close_all(Ending::Graceful);
    }
}
