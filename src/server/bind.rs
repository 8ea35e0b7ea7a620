//! Listening sockets: one per shard on the same address, between which the kernel spreads new connections
//! (SO_REUSEPORT, Linux 3.9).

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;
use crate::config::{Limits, Listen};
use crate::host::BACKLOG;

/// A listener of the configuration, bound.
pub(super) struct Bound {
    /// With the real port.
    pub(super) url: String,
    /// One for each shard.
    sockets: Vec<TcpListener>,
}

impl Bound {
    /// Connections that the kernel completes before we take them. It makes it `net.core.somaxconn` when it is more, and
    /// nothing but that should bound it.
    const BACKLOG: i32 = i32::MAX;
    /// Bytes that the kernel keeps for one client beyond what it has on the way to it. By itself it takes up to 4 MiB
    /// (`net.ipv4.tcp_wmem`) for a client that asks for much and reads nothing, before our own bound on queues is felt: a
    /// hundred of them had 300 MiB of kernel memory, and the server's time until that was full.
    const UNSENT_BYTES: u32 = 256 * 1024;

    /// Binds for so many shards. Whoever takes no data for `silence` is given up by the kernel: a stream that its reader never
    /// answers has no other sign that the reader is gone.
    pub(super) fn new(listen: &Listen, shards: usize, silence: Option<Duration>) -> Result<Self, StartError> {
        let failed = |error: Error| StartError::Bind { url: listen.to_string(), mend: mend(&error), error };
        // A socket that shares with nobody finds out whether anybody else is there, another Holdline included.
        let probe = patiently(|| bound(listen.address, false)).map_err(failed)?;
        probe.listen(1).map_err(failed)?;
        let address = probe.local_addr().map_err(failed)?.as_socket().unwrap_or(listen.address);
        drop(probe);
        let socket = |_| listening(address, silence);
        let sockets = (0..shards).map(socket).collect::<Result<_, _>>().map_err(failed)?;
        Ok(Self { url: listen.at(address).to_string(), sockets })
    }
}

/// Tries again for a second while the address is in use: the kernel takes the rings of a server that was killed apart a
/// moment after it has gone, and their sockets with them.
fn patiently<T>(bind: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 0..20 {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse => std::thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
    bind()
}

/// What to do about a backlog that is far smaller than the crowd that may come at once, when all clients of a server of
/// so many connections come back: a sixteenth of them should find room. Beyond, the kernel drops their SYNs, and they
/// try again after a second.
pub(super) fn small_backlog(somaxconn: u64, connections_max: usize) -> Option<String> {
    (somaxconn < (connections_max as u64 / 16).min(BACKLOG)).then(|| {
        format!(
            "net.core.somaxconn is {somaxconn}, little for {connections_max} connections that may come at once: \
             `sysctl -w net.core.somaxconn={BACKLOG}`"
        )
    })
}

/// The kernel's bound on backlogs; `None` where it does not tell.
pub(super) fn somaxconn() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// The sockets of each shard, in the order of the listeners.
pub(super) fn per_shard(bound: Vec<Bound>, shards: usize) -> Vec<Vec<TcpListener>> {
    let mut per_shard: Vec<Vec<TcpListener>> = (0..shards).map(|_| Vec::new()).collect();
    for Bound { sockets, .. } in bound {
        per_shard.iter_mut().zip(sockets).for_each(|(shard, socket)| shard.push(socket));
    }
    per_shard
}

fn bound(address: SocketAddr, shared: bool) -> Result<Socket, Error> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    // Accepted sockets inherit it: small messages must not wait for the peer's acknowledgement.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// How long a connection may take no data: long enough for a heartbeat to have shown that nobody is there, and for a slow
/// reader to be told so.
pub(super) fn silence(limits: &Limits) -> Option<Duration> {
    let heartbeat = limits.heartbeat_interval + limits.heartbeat_timeout;
    let stalled = limits.queue_stall_timeout + limits.close_timeout + Duration::from_secs(5);
    (!limits.heartbeat_interval.is_zero()).then(|| heartbeat.max(stalled))
}

fn listening(address: SocketAddr, silence: Option<Duration>) -> Result<TcpListener, Error> {
    let socket = bound(address, true)?;
    // Accepted sockets inherit this too (Linux 2.6.37).
    socket.set_tcp_user_timeout(silence)?;
    // And this (Linux 3.12).
    socket.set_tcp_notsent_lowat(Bound::UNSENT_BYTES)?;
    socket.listen(Bound::BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn mend(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "stop whoever uses it, or choose another port with --listen or --admin",
        ErrorKind::PermissionDenied => "choose a port above 1023, or grant CAP_NET_BIND_SERVICE",
        ErrorKind::AddrNotAvailable => "choose an address of this machine",
        _ => "choose another address",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_inherits_how_long_it_may_be_silent() {
        let silence = silence(&Limits::default());
        assert_eq!(silence, Some(Duration::from_secs(40)));
        let listener = listening(SocketAddr::from(([127, 0, 0, 1], 0)), silence).expect("a free port");
        listener.set_nonblocking(false).expect("it can wait");
        let _client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let accepted = Socket::from(listener.accept().expect("the client").0);
        assert_eq!(accepted.tcp_user_timeout().expect("an option"), silence);
    }

    #[test]
    fn a_backlog_is_small_only_beside_many_connections() {
        assert_eq!(small_backlog(4096, 10_000), None);
        assert_eq!(small_backlog(65_535, 100_000_000), None);
        let hint = small_backlog(4096, 1_000_000).unwrap_or_default();
        assert!(hint.contains("is 4096") && hint.ends_with("`sysctl -w net.core.somaxconn=65535`"), "{hint}");
        assert!(somaxconn().is_some(), "Linux tells");
    }
}
