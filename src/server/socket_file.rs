//! Unix sockets that clients connect to, and their files.
//!
//! The file is what clients find; the socket lives on without it. So whoever ends removes the file, if it is still its own
//! and nobody follows, and whoever was killed leaves one behind, which the next one replaces.

use std::fs::{self, Metadata, Permissions};
use std::io::{Error, ErrorKind};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a listener. It goes with this value, unless another one is there by then or it was left to somebody.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
    is_left: AtomicBool,
}

impl SocketFile {
    /// A socket at this path, with these permission bits, that waits for the word to listen. The file of a process that is
    /// no more is replaced. (Any stream socket is a `TcpListener` here: it is a descriptor.)
    ///
    /// # Errors
    /// When somebody listens there, the file is no socket, or the kernel refuses.
    pub(super) fn bind(path: &Path, mode: u32) -> Result<(TcpListener, Self), Error> {
        make_room(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Nobody can connect before it listens, so there is no moment with other bits than these.
        let file = Self::of(path, &fs::symlink_metadata(path)?);
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        Ok((TcpListener::from(OwnedFd::from(socket)), file))
    }

    /// The file of a socket that was passed to this process, with these permission bits from now on; `None` when it is not
    /// there any more. It is another one's until it is [owned](Self::own).
    ///
    /// # Errors
    /// When its bits cannot be changed.
    pub(super) fn adopt(path: &Path, mode: u32) -> Result<Option<Self>, Error> {
        let Some(metadata) = fs::symlink_metadata(path).ok().filter(|metadata| metadata.file_type().is_socket()) else {
            return Ok(None);
        };
        if metadata.mode() & 0o777 != mode {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        let file = Self::of(path, &metadata);
        file.leave();
        Ok(Some(file))
    }

    fn of(path: &Path, metadata: &Metadata) -> Self {
        Self { path: path.to_owned(), file: (metadata.dev(), metadata.ino()), is_left: AtomicBool::new(false) }
    }

    /// Takes it over from whoever made it.
    pub(super) fn own(&self) {
        self.is_left.store(false, Ordering::Release);
    }

    /// Leaves it to the process that follows.
    pub(super) fn leave(&self) {
        self.is_left.store(true, Ordering::Release);
    }

    /// Removes it, once: whoever comes now finds that nobody is there.
    pub(super) fn remove(&self) {
        if self.is_left.swap(true, Ordering::AcqRel) {
            return;
        }
        let is_ours = |metadata: Metadata| (metadata.dev(), metadata.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes what a process left there that is no more.
fn make_room(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(Error::new(ErrorKind::AlreadyExists, "the file is no socket"));
        }
        Ok(_) => {}
        // Whatever else is wrong is told when the socket is bound.
        Err(_) => return Ok(()),
    }
    let caller = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Where a queue is full, a call would wait.
    caller.set_nonblocking(true)?;
    match caller.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        // A queue that is full or of another kind of socket is somebody's too.
        Ok(()) | Err(_) => Err(Error::new(ErrorKind::AddrInUse, "somebody listens there")),
    }
}

pub(super) fn mend(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "stop whoever uses it, start with --upgrade to follow it, or choose another path",
        ErrorKind::AlreadyExists => "remove it, or choose another path",
        ErrorKind::NotFound | ErrorKind::NotADirectory => "make its directory, or choose another path",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "choose a directory that the server's user may write to"
        }
        _ => "choose another path",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    /// A path of a test's own.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("holdline-{name}-{}.sock", std::process::id()));
            let _ = fs::remove_file(&path);
            Self(path)
        }

        fn mode(&self) -> u32 {
            fs::metadata(&self.0).unwrap().mode() & 0o777
        }

        fn refusal(&self) -> String {
            SocketFile::bind(&self.0, 0o660).unwrap_err().to_string()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn the_file_comes_and_goes_with_its_value() {
        let path = Scratch::new("comes");
        let (socket, file) = SocketFile::bind(&path.0, 0o640).unwrap();
        assert_eq!(path.mode(), 0o640);
        let refused = UnixStream::connect(&path.0).unwrap_err().kind();
        assert_eq!(refused, ErrorKind::ConnectionRefused, "it does not listen yet");
        rustix::net::listen(&socket, 1).unwrap();
        UnixStream::connect(&path.0).unwrap();
        drop(file);
        assert!(!path.0.exists());
    }

    #[test]
    fn what_a_dead_process_left_is_replaced() {
        let path = Scratch::new("stale");
        drop(UnixListener::bind(&path.0).unwrap());
        let (socket, _file) = SocketFile::bind(&path.0, 0o600).unwrap();
        rustix::net::listen(&socket, 1).unwrap();
        assert_eq!(path.mode(), 0o600);
        UnixStream::connect(&path.0).unwrap();
    }

    #[test]
    fn what_somebody_has_is_left_alone() {
        let path = Scratch::new("taken");
        let there = UnixListener::bind(&path.0).unwrap();
        assert_eq!(path.refusal(), "somebody listens there");
        // A queue without room is no sign of death.
        rustix::net::listen(&there, 0).unwrap();
        assert_eq!(path.refusal(), "somebody listens there");
        assert_eq!(path.refusal(), "somebody listens there");
        fs::remove_file(&path.0).unwrap();
        let _datagrams = UnixDatagram::bind(&path.0).unwrap();
        assert_eq!(path.refusal(), "somebody listens there");
        fs::remove_file(&path.0).unwrap();
        fs::write(&path.0, "precious").unwrap();
        assert_eq!(path.refusal(), "the file is no socket");
        assert_eq!(fs::read_to_string(&path.0).unwrap(), "precious");
    }

    #[test]
    fn a_file_that_was_left_or_is_another_ones_stays() {
        let path = Scratch::new("left");
        let (_socket, first) = SocketFile::bind(&path.0, 0o660).unwrap();
        drop(SocketFile::adopt(&path.0, 0o660).unwrap().unwrap());
        assert!(path.0.exists(), "it was not owned");
        let second = SocketFile::adopt(&path.0, 0o606).unwrap().unwrap();
        second.own();
        first.leave();
        drop(first);
        assert_eq!(path.mode(), 0o606);
        fs::remove_file(&path.0).unwrap();
        fs::write(&path.0, "another").unwrap();
        drop(second);
        assert!(path.0.exists());
        assert!(SocketFile::adopt(&path.0, 0o660).unwrap().is_none(), "no socket");
    }
}
