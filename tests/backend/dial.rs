//! Rules of dialling, one per case.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;

use holdline::id::ConnId;
use holdline::io::uring::{Config, Sources};
use holdline::io::{Backend, Ending};
use socket2::{Domain, Socket, Type};

use super::caller::{Caller, lane, small};
use super::world::noise;

fn hello() -> Arc<[u8]> {
    (*b"hello").into()
}

/// Bound and not listening: nobody else gets the port while this is held, and whoever dials it is refused.
fn nobody() -> (Socket, SocketAddrV4) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket_ipv4().unwrap();
    (socket, address)
}

/// A server whose queue is full, so that whoever dials it hears nothing.
fn silence() -> (Socket, Vec<TcpStream>, SocketAddrV4) {
    let (socket, address) = nobody();
    socket.listen(0).unwrap();
    // A queue of 0 takes one.
    let first = TcpStream::connect(address).unwrap();
    (socket, vec![first], address)
}

fn source(stream: &TcpStream) -> SocketAddrV4 {
    let SocketAddr::V4(address) = stream.peer_addr().unwrap() else { panic!("IPv4 was dialled") };
    address
}

#[test]
fn a_connection_says_hello_and_works_both_ways() {
    for sources in [Sources::Kernel, lane()] {
        let mut caller = Caller::new(Config { sources, ..Config::new(10) });
        for hello in [hello(), Arc::from([])] {
            let (id, mut stream) = caller.pair(&hello);
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
fn a_hello_larger_than_the_socket_arrives_whole() {
    let mut caller = Caller::new(small(4, 4));
    let hello: Arc<[u8]> = noise(32 << 20, 9).into();
    let id = caller.dial(&hello);
    let mut stream = caller.accept();
    assert_eq!(caller.open[&id].writable, 0);
    caller.reads(&mut stream, &hello);
    caller.until("connected", |caller| caller.open[&id].writable == 1);
    // One that is given up in the middle lets go too.
    let id = caller.dial(&hello);
    let _stream = caller.accept();
    caller.idle_turns();
    caller.close_and_wait(id, Ending::Reset);
    caller.close_all(Ending::Reset);
    assert_eq!(Arc::strong_count(&hello), 1);
}

#[test]
fn a_refused_dial_fails_and_closes() {
    let mut caller = Caller::new(small(10, 4));
    let (_socket, to) = nobody();
    for round in 0..100 {
        for _ in 0..4 {
            caller.dial_to(to, &hello());
        }
        caller.until("failed", |caller| caller.open.values().all(|known| known.failed.is_some()));
        assert!(caller.open.values().all(|known| known.failed == Some(ErrorKind::ConnectionRefused)));
        assert!(caller.open.values().all(|known| known.writable == 0));
        caller.close_all(if round % 2 == 0 { Ending::Graceful } else { Ending::Reset });
    }
}

#[test]
fn a_close_while_connecting_gives_up() {
    for ending in [Ending::Graceful, Ending::Reset] {
        let mut caller = Caller::new(small(6, 4));
        let (_socket, _queue, to) = silence();
        let hello = hello();
        for _ in 0..50 {
            let ids: Vec<ConnId> = (0..6).map(|_| caller.dial_to(to, &hello)).collect();
            // Some hang, some are not even submitted.
            ids[..3].iter().for_each(|id| caller.close(*id, ending));
            caller.idle_turns();
            assert!(ids[3..].iter().all(|id| caller.open[id].writable == 0 && caller.open[id].failed.is_none()));
            caller.close_all(ending);
        }
        assert_eq!((caller.closed, Arc::strong_count(&hello)), (300, 1));
    }
}

#[test]
fn what_is_asked_before_it_stands_does_no_harm() {
    let mut caller = Caller::new(small(6, 4));
    let hello = hello();
    let id = caller.dial(&hello);
    caller.backend.send(id, holdline::io::Out::Bytes(b"too soon"), 7);
    caller.backend.flush();
    let short = caller.backend.next_short().unwrap();
    assert_eq!((short.tag, short.sent), (7, Ok(0)));
    caller.backend.want_writable(id);
    caller.backend.pause(id);
    caller.backend.quieten(id);
    caller.backend.resume(id);
    let mut stream = caller.accept();
    caller.idle_turns();
    assert_eq!(caller.open[&id].writable, 1, "told once");
    caller.reads(&mut stream, &hello);
    stream.write_all(b"welcome").unwrap();
    caller.until("welcome", |caller| caller.open[&id].received == b"welcome");
}

#[test]
fn more_than_one_ring_holds_them_and_no_more_than_there_is_room() {
    let mut caller = Caller::new(small(11, 4));
    let hello = hello();
    let mut pairs: Vec<_> = (0..12).map(|_| caller.pair(&hello)).collect();
    for (id, stream) in &mut pairs {
        caller.reads(stream, b"hello");
        stream.write_all(&id.bits().to_le_bytes()).unwrap();
    }
    caller.until("all", |caller| caller.open.iter().all(|(id, known)| known.received == id.bits().to_le_bytes()));
    let late = caller.dial(&hello);
    caller.until("failed", |caller| caller.open[&late].failed == Some(ErrorKind::QuotaExceeded));
    caller.close_and_wait(late, Ending::Graceful);
    caller.close_and_wait(pairs[5].0, Ending::Graceful);
    caller.pair(&hello);
    let peers: std::collections::HashSet<_> = pairs.iter().map(|(_, stream)| source(stream)).collect();
    assert_eq!(peers.len(), 12, "no source twice");
}

#[test]
fn thousands_come_and_go_over_few_slots() {
    let mut caller = Caller::new(small(11, 4));
    let hello = hello();
    let (_socket, refuses) = nobody();
    for round in 0..500 {
        let ids: Vec<ConnId> =
            (0..12).map(|nth| caller.dial_to(if nth % 4 == 3 { refuses } else { caller.target() }, &hello)).collect();
        match round % 3 {
            0 => caller.until("told", |caller| {
                ids.iter().all(|id| caller.open[id].writable == 1 || caller.open[id].failed.is_some())
            }),
            1 => caller.turn(),
            _ => {}
        }
        caller.close_all(if round % 2 == 0 { Ending::Reset } else { Ending::Graceful });
        while caller.server.accept().is_ok() {}
    }
    assert_eq!((caller.closed, Arc::strong_count(&hello)), (6000, 1));
}

#[test]
fn a_source_that_is_taken_is_passed_over() {
    let mut caller = Caller::new(Config { sources: lane(), ..Config::new(1000) });
    let hello = hello();
    let first = source(&caller.pair(&hello).1);
    let [a, b, c, host] = first.ip().octets();
    // Near the end of a port's addresses the next one has another port.
    let next = (host < 250).then(|| SocketAddrV4::new(Ipv4Addr::new(a, b, c, host + 1), first.port()));
    let _taken = next.map(|next| TcpListener::bind(next).unwrap());
    let ports = (1..6).map(|step| first.port().checked_add(step).unwrap_or(1023 + step));
    let Some(everywhere) = ports.into_iter().find_map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok())
    else {
        panic!("five ports in a row are taken")
    };
    let avoided = everywhere.local_addr().unwrap().port();
    for _ in 0..800 {
        let from = source(&caller.pair(&hello).1);
        assert!(Some(from) != next && from.port() != avoided && from.port() >= 1024, "{from}");
    }
}
