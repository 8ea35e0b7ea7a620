//! Sockets that do not answer some.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use holdline::id::ListenerId;
use holdline::io::syn_filter::Source;
use holdline::io::{Backlog, Ending};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use super::harness::Setup;
use super::os::{Loopback, Make, in_company};
use super::world::World;

const LISTENER: ListenerId = ListenerId(0);

/// Whether the kernel answers who connects from `127.0.0.x`.
fn is_answered(x: u8, to: SocketAddr) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, x], 0)).into()).unwrap();
    match socket.connect_timeout(&to.into(), Duration::from_millis(300)) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => false,
        Err(error) => panic!("neither answered nor not: {error}"),
    }
}

fn source(x: u8) -> Source {
    Source::of([127, 0, 0, x].into())
}

pub fn who_is_silenced_is_not_answered_and_others_are<B: Make>() {
    let _company = in_company();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    // Whoever had the socket before has left something there: it lets nobody through.
    let drop_all = SockFilter::new(u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap(), 0, 0, 0);
    SockRef::from(&listener).attach_filter(&[drop_all]).unwrap();
    assert!(!is_answered(1, to));
    // And somebody else has it as well.
    let same = listener.try_clone().unwrap();
    let mut backend = B::make(16);
    backend.listen(LISTENER, listener).unwrap();
    assert!(is_answered(7, to));
    backend.silence(LISTENER, &[source(7), source(9)]).unwrap();
    assert!(!is_answered(7, to) && is_answered(8, to) && !is_answered(9, to));
    backend.silence(ListenerId(1), &[source(8)]).unwrap();
    assert!(is_answered(8, to), "that is another listener");
    backend.silence(LISTENER, &[]).unwrap();
    assert!(is_answered(7, to));
    // What is left to others is left as it was.
    backend.silence(LISTENER, &[source(7)]).unwrap();
    backend.stop_listening(LISTENER, Backlog::Leave);
    assert!(is_answered(7, to));
    drop(same);
}

pub fn who_comes_while_somebody_is_silent_is_served<B: Make>() {
    let mut world = World::<Loopback<B>>::new(Setup::default());
    world.echo = true;
    let (_, mut before) = world.pair();
    world.backend().silence(LISTENER, &[source(7)]).unwrap();
    let (id, mut during) = world.pair();
    for client in [&mut before, &mut during] {
        world.write_all(client, &[1; 1000]);
        world.reads(client, &[2; 1000]);
    }
    world.close_and_wait(id, Ending::Graceful);
    world.backend().silence(LISTENER, &[]).unwrap();
    let (_, mut after) = world.pair();
    world.write_all(&mut after, &[1; 1000]);
    world.reads(&mut after, &[2; 1000]);
}
