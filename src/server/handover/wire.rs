//! What both processes say to each other at an upgrade: frames over a Unix stream socket, some of them with descriptors.
//!
//! ```text
//!  8 bytes        2 bytes    2 bytes    4 bytes        length bytes
//!  "holdline"     version    kind       length         JSON, or a part of the estate
//! ```
//!
//! Numbers are big-endian. Descriptors come with the first byte of their frame (unix(7), SCM_RIGHTS).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg, sockopt,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Of this protocol. Another one is refused.
pub(super) const VERSION: u16 = 2;
const MAGIC: [u8; 8] = *b"holdline";
const HEADER_BYTES: usize = 16;
/// Bytes of one frame: more than 64 listeners need.
pub(super) const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Descriptors of one frame; the kernel takes 253.
pub(super) const DESCRIPTORS_MAX: usize = 64;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    /// From the new process: it wants to take over.
    Hello = 1,
    /// From the old one: its [`Offer`]. [`Kind::Sockets`] follow.
    Offer = 2,
    /// Descriptors, in the order of the offer.
    Sockets = 3,
    /// From the new process: it is ready and waits for the word; which of the offer it [`Taken`].
    Ready = 4,
    /// From the old one: it takes nobody in any more.
    Yours = 5,
    /// From the old one: it will not, and why.
    Refused = 6,
    /// From the old one, after [`Kind::Ready`]: a part of what topics leave, bytes of an [`estate`](super::estate).
    Estate = 7,
    /// From the old one: that was all of it.
    EstateEnd = 8,
    /// From the new process: it has it.
    Adopted = 9,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Hello,
        Self::Offer,
        Self::Sockets,
        Self::Ready,
        Self::Yours,
        Self::Refused,
        Self::Estate,
        Self::EstateEnd,
        Self::Adopted,
    ];
}

/// What the old process has.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) listeners: Vec<Offered>,
}

/// One of its listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::server) struct Offered {
    /// `admin`, or a listener's scheme.
    pub(in crate::server) name: String,
    /// The address as it was configured, with port 0 where it was.
    pub(in crate::server) asked: String,
    /// The real one.
    pub(in crate::server) address: String,
    /// How many descriptors of it follow.
    pub(in crate::server) sockets: usize,
    /// A service manager has it too.
    pub(in crate::server) activated: bool,
}

/// What the new process makes use of, by its number in the offer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) taken: Vec<usize>,
}

/// Why the old process will not.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refused {
    pub(super) reason: String,
}

/// Frames that say nothing but what they are.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Nothing {}

/// What has come.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Frame {
    /// What its JSON says.
    pub(super) fn read<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.payload)
            .map_err(|error| strange(&format!("its {:?} is strange: {error}", self.kind)))
    }
}

pub(super) fn strange(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Sends one frame of JSON.
pub(super) fn send<T: Serialize>(
    stream: &UnixStream,
    kind: Kind,
    what: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_bytes(stream, kind, &serde_json::to_vec(what)?, descriptors)
}

/// Sends one frame.
pub(super) fn send_bytes(
    stream: &UnixStream,
    kind: Kind,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| strange("a frame is too long"))?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&(kind as u16).to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(strange("a frame has too many descriptors"));
    }
    let sent = retry_on_intr(|| sendmsg(stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))?;
    let mut stream = stream;
    stream.write_all(bytes.get(sent..).unwrap_or_default())
}

/// Waits for one frame, as long as the socket's timeout says.
pub(super) fn receive(stream: &UnixStream) -> io::Result<Frame> {
    let (header, descriptors) = receive_header(stream)?;
    if header[..8] != MAGIC {
        return Err(strange("it is no Holdline"));
    }
    let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if number(8) != VERSION {
        return Err(strange(&format!("it speaks version {} of the hand-over, this is {VERSION}", number(8))));
    }
    let kind = Kind::ALL.into_iter().find(|kind| *kind as u16 == number(10));
    let kind = kind.ok_or_else(|| strange(&format!("it says what is unknown here, {}", number(10))))?;
    let length = u32::from_be_bytes([header[12], header[13], header[14], header[15]]) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err(strange(&format!("it says {length} bytes at once, {PAYLOAD_BYTES_MAX} are the most")));
    }
    let mut payload = vec![0; length];
    let mut stream = stream;
    stream.read_exact(&mut payload)?;
    Ok(Frame { kind, payload, descriptors })
}

fn receive_header(stream: &UnixStream) -> io::Result<([u8; HEADER_BYTES], Vec<OwnedFd>)> {
    let (mut header, mut descriptors, mut filled) = ([0; HEADER_BYTES], Vec::new(), 0);
    while filled < HEADER_BYTES {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let rest = &mut [IoSliceMut::new(&mut header[filled..])];
        // A socket with a timeout is interrupted by whatever stops the thread for a moment (signal(7)).
        let received = retry_on_intr(|| recvmsg(stream, rest, &mut control, RecvFlags::CMSG_CLOEXEC))?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        filled += received.bytes;
    }
    Ok((header, descriptors))
}

/// Who is at the other end, if it may be: this user, or root.
pub(super) fn known_peer(stream: impl AsFd) -> io::Result<u32> {
    let peer = sockopt::socket_peercred(stream)?;
    if peer.uid != rustix::process::geteuid() && !peer.uid.is_root() {
        let who = format!(
            "it belongs to user {}, this process to {}",
            peer.uid.as_raw(),
            rustix::process::geteuid().as_raw()
        );
        return Err(io::Error::new(ErrorKind::PermissionDenied, who));
    }
    Ok(u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_frame_comes_with_its_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sockets: Vec<_> = (0..DESCRIPTORS_MAX).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        send(&ours, Kind::Ready, &Taken { taken: vec![0, 2] }, &[]).unwrap();
        send(&ours, Kind::Sockets, &Nothing {}, &descriptors).unwrap();
        let frame = receive(&theirs).unwrap();
        assert_eq!((frame.kind, frame.read::<Taken>().unwrap().taken), (Kind::Ready, vec![0, 2]));
        let frame = receive(&theirs).unwrap();
        assert_eq!((frame.kind, frame.descriptors.len()), (Kind::Sockets, DESCRIPTORS_MAX));
        let addresses = frame.descriptors.into_iter().map(|one| TcpListener::from(one).local_addr().unwrap());
        assert!(addresses.eq(sockets.iter().map(|socket| socket.local_addr().unwrap())));
        drop(ours);
        assert_eq!(receive(&theirs).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn strangers_are_refused() {
        for (said, expected) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "it is no Holdline"),
            (b"holdline\0\x01\0\x01\0\0\0\0", "it speaks version 1 of the hand-over, this is 2"),
            (b"holdline\0\x02\0\x0a\0\0\0\0", "it says what is unknown here, 10"),
            (b"holdline\0\x02\0\x01\xff\xff\xff\xff", "it says 4294967295 bytes at once, 262144 are the most"),
        ] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(said).unwrap();
            assert_eq!(receive(&theirs).unwrap_err().to_string(), expected);
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&ours, Kind::Offer, &Nothing {}, &[]).unwrap();
        let said = receive(&theirs).unwrap().read::<Offer>().unwrap_err().to_string();
        assert!(said.starts_with("its Offer is strange: missing field"), "{said}");
        assert_eq!(known_peer(&ours).unwrap(), std::process::id());
    }
}
