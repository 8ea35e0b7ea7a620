//! The smallest loops that do a server's work on raw TCP, without protocol, limits, timers or bookkeeping: what the
//! kernel alone costs. They run in a process of their own, as the server does.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::str::FromStr;

use socket2::{Domain, SockAddr, Type};

mod epoll;
mod many;
mod uring;

/// What a bare loop does with the bytes it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sends them back.
    Echo,
    /// Answers with a fixed upgrade response, whatever they are.
    Upgrade,
    /// Sends them to every connection. The first bytes of a connection go back to it alone.
    Fanout,
}

/// By which system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// epoll_wait, recv(2), send(2).
    Epoll,
    /// io_uring on descriptors of the process.
    Uring,
    /// io_uring on direct descriptors.
    UringDirect,
    /// io_uring on direct descriptors of as many rings as it takes: [`Role::Fanout`] only, to commands on standard
    /// input.
    UringMany,
}

impl Engine {
    pub(crate) const ALL: [Self; 3] = [Self::Uring, Self::UringDirect, Self::Epoll];

    /// As the command line and the tables write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::Uring => "uring",
            Self::UringDirect => "uring-direct",
            Self::UringMany => "uring-many",
        }
    }
}

impl Role {
    /// As the command line writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Upgrade => "upgrade",
            Self::Fanout => "fanout",
        }
    }
}

impl FromStr for Role {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<Self> {
        let found = [Self::Echo, Self::Upgrade, Self::Fanout].into_iter().find(|role| role.name() == name);
        found.ok_or_else(|| io::Error::other(format!("no bare loop called {name}")))
    }
}

impl FromStr for Engine {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<Self> {
        let found = Self::ALL.into_iter().chain([Self::UringMany]).find(|engine| engine.name() == name);
        found.ok_or_else(|| io::Error::other(format!("no bare engine called {name}")))
    }
}

/// Bytes of a bare loop's receive buffers: a whole burst of 16 messages of 1 KiB, so that it is echoed by one send.
/// A smaller one makes the io_uring loops receive and send a burst in pieces.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;

/// Runs a bare loop until the process that started this one ends or kills it.
fn run(role: Role, engine: Engine, buffer_bytes: usize) -> io::Result<()> {
    end_with_parent();
    let listener = listen()?;
    println!("listening on tcp://{}\nready", listener.local_addr()?);
    io::stdout().flush()?;
    match engine {
        Engine::Epoll => epoll::run(&listener, role, buffer_bytes),
        Engine::Uring => uring::run(&listener, role, buffer_bytes, false),
        Engine::UringDirect => uring::run(&listener, role, buffer_bytes, true),
        Engine::UringMany if role == Role::Fanout => many::run(&listener),
        Engine::UringMany => Err(io::Error::other("many rings only do fan-out")),
    }
}

/// First argument of a process that runs [`dial`].
pub(crate) const DIAL: &str = "--bare-dial";

/// What a bench program does that was started with [`super::target::BARE`] or [`DIAL`] as first argument.
pub(crate) fn main(arguments: &[String]) -> io::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [DIAL, address, count] => {
            dial(address.parse().map_err(io::Error::other)?, count.parse().map_err(io::Error::other)?)
        }
        [_, role, engine, buffer_bytes] => {
            run(role.parse()?, engine.parse()?, buffer_bytes.parse().map_err(io::Error::other)?)
        }
        _ => Err(io::Error::other("a bare loop wants a role, an engine and a size")),
    }
}

/// Opens connections that are sockets and no more, and holds them until standard input ends. A process of its own, so
/// that its end closes them all.
fn dial(to: SocketAddrV4, count: usize) -> io::Result<()> {
    end_with_parent();
    many::dial(to, count)
}

/// Has this process end when the one that started it does.
pub(crate) fn end_with_parent() {
    // SAFETY: takes two integers, touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

fn listen() -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
    socket.listen(4096)?;
    Ok(socket.into())
}
