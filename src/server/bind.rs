//! Listening sockets: one per shard on the same address, between which the kernel spreads new connections
//! (SO_REUSEPORT, Linux 3.9). They do not listen before all else is ready, or have been passed to this process and do.

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::StartError;
use super::handover::{Offered, Passed};
use super::socket_file::{self, SocketFile};
use crate::config::{Limits, Listen, ListenAt};
use crate::host::BACKLOG;
use crate::id::ListenerId;
use crate::io::syn_filter;

/// Connections that the kernel completes before we take them. It makes it `net.core.somaxconn` when it is more, and
/// nothing but that should bound it.
pub(super) const BACKLOG_MAX: i32 = i32::MAX;

/// A listener of the configuration, and its sockets, which the server keeps to hand them over. The shards have their own
/// descriptors of them.
#[derive(Debug)]
pub(super) struct Held {
    /// With the real port.
    pub(super) url: String,
    /// `admin`, or the listener's scheme.
    name: String,
    /// As configured.
    asked: ListenAt,
    address: ListenAt,
    /// Of a Unix socket that no service manager made.
    file: Option<SocketFile>,
    /// A service manager has them too.
    pub(super) activated: bool,
    /// Where they stood in the offer of the process before.
    pub(super) number: Option<usize>,
    /// One for each shard at least, or those that were passed.
    pub(super) sockets: Vec<TcpListener>,
}

impl Held {
    /// Bytes that the kernel keeps for one client beyond what it has on the way to it. By itself it takes up to 4 MiB
    /// (`net.ipv4.tcp_wmem`) for a client that asks for much and reads nothing, before our own bound on queues is felt: a
    /// hundred of them had 300 MiB of kernel memory, and the server's time until that was full.
    const UNSENT_BYTES: u32 = 256 * 1024;

    /// Binds for so many shards. Whoever takes no data for `silence` is given up by the kernel: a stream that its reader never
    /// answers has no other sign that the reader is gone.
    pub(super) fn new(
        name: &str,
        listen: &Listen,
        passed: Option<Passed>,
        shards: usize,
        silence: Option<Duration>,
    ) -> Result<Self, StartError> {
        let ip = match &listen.address {
            ListenAt::Ip(address) => *address,
            ListenAt::Unix(path) => return Self::new_unix(name, listen, path, passed),
        };
        let failed = |error: Error| StartError::Bind { url: listen.to_string(), mend: mend(&error), error };
        let (name, asked) = (name.to_owned(), listen.address.clone());
        if let Some(Passed { address, activated, number, mut sockets, .. }) = passed {
            for socket in &sockets {
                SockRef::from(socket).set_tcp_user_timeout(silence).map_err(failed)?;
                SockRef::from(socket).set_tcp_nodelay(true).map_err(failed)?;
                SockRef::from(socket).set_tcp_notsent_lowat(Self::UNSENT_BYTES).map_err(failed)?;
            }
            // Where others may not bind beside them, shards share what there is.
            let more = (sockets.len()..shards).map_while(|_| waiting(address.ip()?, silence).ok());
            let more: Vec<_> = if activated { Vec::new() } else { more.collect() };
            sockets.extend(more);
            let url = listen.at(address.clone()).to_string();
            return Ok(Self { url, name, asked, address, file: None, activated, number, sockets });
        }
        // A socket that shares with nobody finds out whether anybody else is there, another Holdline included.
        let probe = patiently(|| bound(ip, false)).map_err(failed)?;
        probe.listen(1).map_err(failed)?;
        let address = probe.local_addr().map_err(failed)?.as_socket().unwrap_or(ip);
        drop(probe);
        let sockets = (0..shards).map(|_| waiting(address, silence)).collect::<Result<_, _>>().map_err(failed)?;
        let (activated, number, url) = (false, None, listen.at(address).to_string());
        Ok(Self { url, name, asked, address: address.into(), file: None, activated, number, sockets })
    }

    /// The same at a file. There is one socket, which all shards have: SO_REUSEPORT spreads nothing here.
    fn new_unix(name: &str, listen: &Listen, path: &Path, passed: Option<Passed>) -> Result<Self, StartError> {
        let failed =
            |error: Error| StartError::Bind { url: listen.to_string(), mend: socket_file::mend(&error), error };
        let (name, asked, mode) = (name.to_owned(), listen.address.clone(), listen.mode.unwrap_or(Listen::MODE));
        let mut made = None;
        if let Some(passed) = passed {
            let file = if passed.activated { None } else { SocketFile::adopt(path, mode).map_err(failed)? };
            // A socket whose file is gone is nobody's to reach.
            made = (passed.activated || file.is_some()).then_some((passed, file));
        }
        if let Some((Passed { address, activated, number, sockets, .. }, file)) = made {
            let url = listen.at(address.clone()).to_string();
            return Ok(Self { url, name, asked, address, file, activated, number, sockets });
        }
        let (socket, file) = patiently(|| SocketFile::bind(path, mode)).map_err(failed)?;
        let (url, address) = (listen.to_string(), asked.clone());
        let (file, sockets) = (Some(file), vec![socket]);
        Ok(Self { url, name, asked, address, file, activated: false, number: None, sockets })
    }

    /// What the process that follows is told.
    pub(super) fn offered(&self) -> Offered {
        let (name, asked, address) = (self.name.clone(), self.asked.to_string(), self.address.to_string());
        Offered { name, asked, address, sockets: self.sockets.len(), activated: self.activated }
    }

    /// Whether clients come from elsewhere, so that a handshake takes time.
    pub(super) const fn is_remote(&self) -> bool {
        self.address.is_remote()
    }

    /// The process before has made room: what it had is ours.
    pub(super) fn own(&self) {
        self.file.iter().for_each(SocketFile::own);
    }

    /// Leaves the sockets to the process that follows, and the file with them.
    pub(super) fn leave(&self) {
        self.file.iter().for_each(SocketFile::leave);
    }

    /// Lets no handshake begin any more, so that all who have begun one can be taken before the sockets close. A SYN gets no
    /// answer; its client tries again a second later, and finds out then what is there. The sockets must not be anybody else's.
    /// Whoever looks for a Unix socket finds none.
    pub(super) fn lock_out(&self) {
        if self.address.path().is_some() {
            return self.file.iter().for_each(SocketFile::remove);
        }
        for socket in &self.sockets {
            if let Err(error) = syn_filter::set_for_all(socket) {
                tracing::debug!(%error, "connections that come while the listener closes may be reset");
            }
        }
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

/// A listener's number and one of its sockets.
pub(super) type Numbered = (ListenerId, TcpListener);

/// Descriptors of the sockets for each shard. Every socket has a shard: nobody must wait in a queue that is not looked at.
/// Where there are fewer sockets than shards, some share one.
pub(super) fn per_shard(held: &[Held], shards: usize) -> Result<Vec<Vec<Numbered>>, StartError> {
    let mut per_shard: Vec<Vec<Numbered>> = (0..shards).map(|_| Vec::new()).collect();
    for (number, Held { url, sockets, .. }) in (0..).zip(held) {
        for (at, socket) in sockets.iter().cycle().take(sockets.len().max(shards)).enumerate() {
            let failed = |error| StartError::Bind { url: url.clone(), error, mend: "raise ulimit -n" };
            per_shard[at % shards].push((ListenerId(number), socket.try_clone().map_err(failed)?));
        }
    }
    Ok(per_shard)
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

/// A socket that waits for the word to listen.
fn waiting(address: SocketAddr, silence: Option<Duration>) -> Result<TcpListener, Error> {
    let socket = bound(address, true)?;
    // Accepted sockets inherit this too (Linux 2.6.37).
    socket.set_tcp_user_timeout(silence)?;
    // And this (Linux 3.12).
    socket.set_tcp_notsent_lowat(Held::UNSENT_BYTES)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

pub(super) fn mend(error: &Error) -> &'static str {
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
        let listener = waiting(SocketAddr::from(([127, 0, 0, 1], 0)), silence).expect("a free port");
        SockRef::from(&listener).listen(1).expect("it is bound");
        listener.set_nonblocking(false).expect("it can wait");
        let _client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let accepted = Socket::from(listener.accept().expect("the client").0);
        assert_eq!(accepted.tcp_user_timeout().expect("an option"), silence);
    }

    #[test]
    fn who_has_begun_to_connect_is_taken_and_nobody_else() {
        let listen = Listen::http(SocketAddr::from(([127, 0, 0, 1], 0)));
        let held = Held::new("http", &listen, None, 1, None).expect("a free port");
        SockRef::from(&held.sockets[0]).listen(16).expect("it is bound");
        let _client = std::net::TcpStream::connect(held.address.ip().expect("an address")).expect("it listens");
        held.lock_out();
        let short = Duration::from_millis(100);
        let late = std::net::TcpStream::connect_timeout(&held.address.ip().expect("an address"), short)
            .expect_err("it is locked out");
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        assert!(held.sockets[0].accept().is_ok());
        assert_eq!(held.sockets[0].accept().expect_err("there was one").kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn every_socket_has_a_shard_and_every_shard_a_socket() {
        let listen = Listen::http(SocketAddr::from(([127, 0, 0, 1], 0)));
        let held = Held::new("http", &listen, None, 3, None).expect("a free port");
        let lens = |shards| {
            let per_shard = per_shard(std::slice::from_ref(&held), shards).expect("descriptors");
            per_shard.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!((lens(1), lens(2), lens(5)), (vec![3], vec![2, 1], vec![1; 5]));
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
