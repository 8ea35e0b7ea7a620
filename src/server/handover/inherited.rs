//! Listening sockets that this process was given: by a service manager at its start, or by the process that it follows.

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use crate::config::ListenAt;
use crate::io::sys;

/// Sockets on one address that somebody else has made.
#[derive(Debug)]
pub(in crate::server) struct Passed {
    /// `admin` or a listener's scheme; of a service manager the name that it gave, which may be anything.
    pub(super) name: String,
    /// The address as the process before had it configured.
    pub(super) asked: Option<String>,
    pub(in crate::server) address: ListenAt,
    /// A service manager has them too, and gives them to whoever comes next.
    pub(in crate::server) activated: bool,
    /// Where they stand in the offer of the process before.
    pub(in crate::server) number: Option<usize>,
    pub(in crate::server) sockets: Vec<TcpListener>,
}

/// All sockets that this process was given.
#[derive(Debug, Default)]
pub struct Inherited(pub(super) Vec<Passed>);

/// What a service manager passed cannot be used: what, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the sockets that were passed: {0}")]
pub struct ActivationError(pub(super) String);

/// Whether what was passed is for a listener of this name and address.
type Way<'a> = &'a dyn Fn(&Passed, &str, &ListenAt) -> bool;

impl Inherited {
    /// What a service manager has passed, as `sd_listen_fds(3)` describes it: `LISTEN_PID`, `LISTEN_FDS`,
    /// `LISTEN_FDNAMES`. To be called once, before anything else is opened.
    ///
    /// # Errors
    /// When something else than listening TCP and Unix sockets was passed.
    pub fn from_environment() -> Result<Self, ActivationError> {
        let variable = |name| std::env::var(name).ok();
        let count = count(variable("LISTEN_PID").as_deref(), variable("LISTEN_FDS").as_deref(), std::process::id());
        if count == 0 {
            return Ok(Self::default());
        }
        Self::of(sys::take_passed(count), &variable("LISTEN_FDNAMES").unwrap_or_default())
    }

    fn of(descriptors: Vec<OwnedFd>, names: &str) -> Result<Self, ActivationError> {
        let mut names = names.split(':');
        let mut all: Vec<Passed> = Vec::new();
        for (number, descriptor) in (3..).zip(descriptors) {
            let name = names.next().unwrap_or_default().to_owned();
            let wrong = |what: &str| {
                ActivationError(format!(
                    "descriptor {number} ({name:?}) {what}: check the ListenStream= of the socket unit"
                ))
            };
            if !rustix::net::sockopt::socket_acceptconn(&descriptor).unwrap_or(false) {
                return Err(wrong("is no listening stream socket"));
            }
            let address = address_of(&descriptor).ok_or_else(|| wrong("is neither a TCP socket nor a file's"))?;
            let socket = TcpListener::from(descriptor);
            socket.set_nonblocking(true).map_err(|error| wrong(&error.to_string()))?;
            match all.iter_mut().find(|passed| passed.address == address) {
                Some(passed) => passed.sockets.push(socket),
                None => {
                    let (asked, number, sockets) = (None, None, vec![socket]);
                    all.push(Passed { name, asked, address, activated: true, number, sockets });
                }
            }
        }
        Ok(Self(all))
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives each of these listeners, a name and an address as configured, what was passed for it: on the same address, else
    /// for a port that was 0 before too, else under its name.
    pub(in crate::server) fn assign(&mut self, wanted: &[(&str, ListenAt)]) -> Vec<Option<Passed>> {
        let mut given: Vec<Option<Passed>> = wanted.iter().map(|_| None).collect();
        let by_address = |passed: &Passed, _: &str, address: &ListenAt| passed.address == *address;
        let by_wish = |passed: &Passed, name: &str, address: &ListenAt| {
            passed.name == name && passed.asked.as_ref().is_some_and(|asked| *asked == address.to_string())
        };
        let by_name = |passed: &Passed, name: &str, address: &ListenAt| {
            let is_file = |at: &ListenAt| at.path().is_some();
            passed.activated && passed.name == name && is_file(&passed.address) == is_file(address)
        };
        let ways: [Way<'_>; 3] = [&by_address, &by_wish, &by_name];
        for fits in ways {
            for ((name, address), given) in wanted.iter().zip(&mut given).filter(|(_, given)| given.is_none()) {
                let found = self.0.iter().position(|passed| fits(passed, name, address));
                *given = found.map(|at| self.0.remove(at));
            }
        }
        given
    }

    /// What a service manager passed and nobody wants.
    pub(in crate::server) fn unwanted(&self) -> Option<ActivationError> {
        // Of those that the process before had, one may be gone from the configuration.
        let passed = self.0.iter().find(|passed| passed.activated && passed.number.is_none())?;
        let (name, address) = (&passed.name, &passed.address);
        Some(ActivationError(format!(
            "no listener is configured for {address} ({name:?}): configure one there, or name the socket http, tcp, unix or \
             admin (FileDescriptorName=)"
        )))
    }
}

/// Where a socket listens.
fn address_of(socket: &OwnedFd) -> Option<ListenAt> {
    let name = rustix::net::getsockname(socket).ok()?;
    if let Ok(address) = std::net::SocketAddr::try_from(name.clone()) {
        return Some(address.into());
    }
    let name = rustix::net::SocketAddrUnix::try_from(name).ok()?;
    Some(ListenAt::Unix(std::str::from_utf8(name.path()?.to_bytes()).ok()?.into()))
}

/// How many descriptors were passed to this process.
fn count(pid: Option<&str>, count: Option<&str>, own_pid: u32) -> usize {
    const MAX: usize = 1024;
    let is_ours = pid.and_then(|pid| pid.parse().ok()) == Some(own_pid);
    count.filter(|_| is_ours).and_then(|count| count.parse().ok()).filter(|count| *count <= MAX).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::net::UdpSocket;

    use super::*;

    fn passed(name: &str, asked: Option<&str>, address: &str, activated: bool) -> Passed {
        let (asked, address) = (asked.map(str::to_owned), address.parse().unwrap());
        Passed { name: name.to_owned(), asked, address, activated, number: None, sockets: Vec::new() }
    }

    #[test]
    fn descriptors_are_for_the_process_that_is_named() {
        assert_eq!(count(Some("7"), Some("2"), 7), 2);
        for (pid, fds) in [(Some("8"), Some("2")), (None, Some("2")), (Some("7"), None), (Some("7"), Some("-1"))] {
            assert_eq!(count(pid, fds, 7), 0);
        }
        assert_eq!(count(Some("7"), Some("100000"), 7), 0);
    }

    #[test]
    fn listeners_find_their_sockets() {
        let mut inherited = Inherited(vec![
            passed("tcp", Some("127.0.0.1:0"), "127.0.0.1:4001", false),
            passed("http", Some("127.0.0.1:0"), "127.0.0.1:4002", false),
            passed("http", None, "0.0.0.0:80", true),
            passed("whatever", None, "127.0.0.1:9090", true),
        ]);
        let address = |text: &str| text.parse().unwrap();
        let wanted = [
            ("http", address("127.0.0.1:0")),
            ("http", address("127.0.0.1:8080")),
            ("tcp", address("127.0.0.1:0")),
            ("tcp", address("127.0.0.1:7000")),
            ("admin", address("127.0.0.1:9090")),
        ];
        let given = inherited.assign(&wanted);
        let given: Vec<_> =
            given.iter().map(|given| given.as_ref().map(|passed| passed.address.ip().unwrap().port())).collect();
        assert_eq!(given, [Some(4002), Some(80), Some(4001), None, Some(9090)]);
        assert!(inherited.is_empty() && inherited.unwanted().is_none());
    }

    #[test]
    fn what_nobody_wants_is_told() {
        let mut inherited = Inherited(vec![passed("web", None, "127.0.0.1:81", true)]);
        assert!(inherited.assign(&[("http", "127.0.0.1:80".parse().unwrap())])[0].is_none());
        let said = inherited.unwanted().unwrap().to_string();
        assert!(said.contains("no listener is configured for 127.0.0.1:81 (\"web\")"), "{said}");
    }

    #[test]
    fn a_socket_of_a_file_is_taken_by_its_path_or_name_and_by_no_other_kind() {
        let path = std::env::temp_dir().join(format!("holdline-passed-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let _ = std::fs::remove_file(&path);
        let passed = |name: &str| Inherited::of(vec![socket.try_clone().unwrap().into()], name).unwrap();
        let (at, elsewhere) = (ListenAt::Unix(path), ListenAt::Unix("/elsewhere".into()));
        assert_eq!(passed("x").assign(&[("unix", at.clone())])[0].as_ref().unwrap().address, at);
        assert_eq!(passed("unix").assign(&[("unix", elsewhere.clone())])[0].as_ref().unwrap().address, at);
        assert!(passed("x").assign(&[("unix", elsewhere)])[0].is_none());
        assert!(passed("http").assign(&[("http", "127.0.0.1:80".parse().unwrap())])[0].is_none());
    }

    #[test]
    fn only_listening_sockets_are_taken_and_those_of_one_address_together() {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let again = first.try_clone().unwrap();
        let inherited = Inherited::of(vec![first.into(), again.into()], "http:http").unwrap();
        assert_eq!((inherited.0.len(), inherited.0[0].sockets.len(), inherited.0[0].name.as_str()), (1, 2, "http"));
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let said = Inherited::of(vec![datagrams.into()], "x").unwrap_err().to_string();
        assert!(said.contains("descriptor 3 (\"x\") is no listening stream socket"), "{said}");
    }
}
