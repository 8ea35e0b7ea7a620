//! Names of requests: the 64 bits that come back with a completion, and how each request is built.
//!
//! ```text
//! kind, 8 bits | what it is about, 56 bits: a ConnId, the tag of a send, the number of a buffer or of a listener
//! ```

use std::net::SocketAddrV4;
use std::os::fd::RawFd;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};
use io_uring::{cqueue, opcode};

use crate::id::ConnId;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What was asked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

kinds! {
    /// Of nobody's interest.
    Ignored,
    /// Multishot poll of the doorbell, by which other threads wake this one.
    Doorbell,
    /// Multishot poll of the eventfd that all other rings share.
    Kick,
    /// Multishot accept, by listener.
    Accept,
    /// One accept, by listener.
    AcceptOne,
    /// The question for a client's address, by the place for the answer.
    Peer,
    /// Cancellation of a listener's accepts.
    CancelAccept,
    /// Multishot poll for POLLIN.
    Poll,
    /// Cancellation of that.
    CancelPoll,
    /// Receive, by scratch buffer.
    Recv,
    /// Multishot receive.
    Multi,
    /// Cancellation of that.
    CancelMulti,
    /// One-shot poll for POLLOUT.
    PollOut,
    /// Cancellation of that.
    CancelPollOut,
    /// Send, by tag; comes back only when not all was taken.
    Send,
    /// Send of a part, by tag; comes back always.
    SendPart,
    /// Shutdown of the sending side; comes back always.
    Shutdown,
    /// Close of a connection's descriptor.
    Close,
    /// Close of a descriptor that was never attached.
    Refuse,
    /// Making of a socket to dial with; comes back only when that fails.
    DialSocket,
    /// Its binding to a planned source; comes back only when that fails.
    DialBind,
    /// Its connecting and its hello; the last of them comes back, or the one that fails.
    Dial,
    /// Cancellation of that.
    CancelDial,
}

const ABOUT_BITS: u32 = 56;

/// The name of a request.
pub(super) const fn name(kind: Kind, about: u64) -> u64 {
    (kind as u64) << ABOUT_BITS | about
}

/// What a name says.
pub(super) fn parse(name: u64) -> (Kind, u64) {
    let kind = usize::try_from(name >> ABOUT_BITS).ok().and_then(|kind| Kind::ALL.get(kind));
    (kind.copied().unwrap_or(Kind::Ignored), name & ((1 << ABOUT_BITS) - 1))
}

/// A completion, copied out of the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) kind: Kind,
    pub(super) about: u64,
    pub(super) result: i32,
    flags: u32,
}

impl Done {
    pub(super) fn new(cqe: &cqueue::Entry) -> Self {
        let (kind, about) = parse(cqe.user_data());
        Self { kind, about, result: cqe.result(), flags: cqe.flags() }
    }

    #[cfg(test)]
    pub(super) const fn failed(kind: Kind, about: u64, errno: i32) -> Self {
        Self { kind, about, result: -errno, flags: 0 }
    }

    pub(super) const fn id(&self) -> ConnId {
        ConnId::from_bits(self.about)
    }

    /// Whether the multishot request goes on.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// Whether the socket had more to read when this receive ended.
    pub(super) fn nonempty(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }

    /// The buffer that the kernel took from the ring's group.
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// Whether a poll has seen an end or an error.
    pub(super) const fn hung_up(&self) -> bool {
        self.result > 0 && self.result.unsigned_abs() & HANG_UP_EVENTS != 0
    }

    /// The error, positive, 0 when there is none.
    pub(super) const fn errno(&self) -> i32 {
        if self.result < 0 { -self.result } else { 0 }
    }
}

#[allow(clippy::cast_sign_loss, reason = "poll(2) has its masks in signed shorts")]
const READ_EVENTS: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;
#[allow(clippy::cast_sign_loss, reason = "poll(2) has its masks in signed shorts")]
const HANG_UP_EVENTS: u32 = (libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP) as u32;
#[allow(clippy::cast_sign_loss, reason = "poll(2) has its masks in signed shorts")]
const IN_EVENTS: u32 = libc::POLLIN as u32;
#[allow(clippy::cast_sign_loss, reason = "poll(2) has its masks in signed shorts")]
const OUT_EVENTS: u32 = libc::POLLOUT as u32;

/// All at once or as much as fits, without ever waiting, and without a signal.
const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

static ONE: i32 = 1;
static NO_LINGER: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

pub(super) fn poll_eventfd(fd: RawFd, kind: Kind) -> Entry {
    opcode::PollAdd::new(Fd(fd), IN_EVENTS).multi(true).build().user_data(name(kind, 0))
}

pub(super) fn accept(fd: RawFd, listener: u64) -> Entry {
    opcode::AcceptMulti::new(Fd(fd)).allocate_file_index(true).build().user_data(name(Kind::Accept, listener))
}

pub(super) fn accept_one(fd: RawFd, listener: u64) -> Entry {
    let (address, len) = (std::ptr::null_mut(), std::ptr::null_mut());
    let slot = DestinationSlot::auto_target();
    opcode::Accept::new(Fd(fd), address, len).file_index(Some(slot)).build().user_data(name(Kind::AcceptOne, listener))
}

pub(super) fn cancel_accept(kind: Kind, listener: u64) -> Entry {
    let which = CancelBuilder::user_data(name(kind, listener)).all();
    opcode::AsyncCancel2::new(which).build().user_data(name(Kind::CancelAccept, listener))
}

pub(super) fn poll(slot: u32, id: ConnId) -> Entry {
    opcode::PollAdd::new(Fixed(slot), READ_EVENTS).multi(true).build().user_data(name(Kind::Poll, id.bits()))
}

pub(super) fn poll_out(slot: u32, id: ConnId) -> Entry {
    opcode::PollAdd::new(Fixed(slot), OUT_EVENTS).build().user_data(name(Kind::PollOut, id.bits()))
}

/// Cancels the request of `kind`; comes back as `cancel` only when that fails.
pub(super) fn cancel(kind: Kind, cancel: Kind, id: ConnId) -> Entry {
    let entry = opcode::AsyncCancel::new(name(kind, id.bits())).build();
    entry.flags(Flags::SKIP_SUCCESS).user_data(name(cancel, id.bits()))
}

pub(super) fn recv(slot: u32, start: *mut u8, len: u32, buffer: u32) -> Entry {
    let entry = opcode::Recv::new(Fixed(slot), start, len).flags(libc::MSG_DONTWAIT).build();
    entry.user_data(name(Kind::Recv, u64::from(buffer)))
}

/// Throws away what is there, up to `len` bytes. TCP copies nothing for MSG_TRUNC, see tcp(7).
pub(super) fn discard(slot: u32, start: *mut u8, len: u32) -> Entry {
    let entry = opcode::Recv::new(Fixed(slot), start, len).flags(libc::MSG_DONTWAIT | libc::MSG_TRUNC).build();
    entry.flags(Flags::SKIP_SUCCESS).user_data(name(Kind::Ignored, 0))
}

pub(super) fn recv_multi(slot: u32, group: u16, id: ConnId) -> Entry {
    opcode::RecvMulti::new(Fixed(slot), group).build().user_data(name(Kind::Multi, id.bits()))
}

pub(super) fn send(slot: u32, start: *const u8, len: u32, tag: u32) -> Entry {
    let entry = opcode::Send::new(Fixed(slot), start, len).flags(SEND_FLAGS).build();
    entry.flags(Flags::SKIP_SUCCESS).user_data(name(Kind::Send, u64::from(tag)))
}

pub(super) fn send_part(slot: u32, start: *const u8, len: u32, tag: u32) -> Entry {
    let entry = opcode::Send::new(Fixed(slot), start, len).flags(SEND_FLAGS).build();
    entry.user_data(name(Kind::SendPart, u64::from(tag)))
}

/// Always completes: until then the slot must stay what it is.
pub(super) fn shutdown(slot: u32, id: ConnId) -> Entry {
    opcode::Shutdown::new(Fixed(slot), libc::SHUT_WR).build().user_data(name(Kind::Shutdown, id.bits()))
}

/// Makes the next close a reset.
pub(super) fn no_linger(slot: u32) -> Entry {
    const LEN: u32 = {
        assert!(size_of::<libc::linger>() == 8, "two ints");
        8
    };
    let value = (&raw const NO_LINGER).cast();
    let (level, option) = (libc::SOL_SOCKET.unsigned_abs(), libc::SO_LINGER.unsigned_abs());
    let entry = opcode::SetSockOpt::new(Fixed(slot), level, option, value, LEN).build();
    entry.flags(Flags::SKIP_SUCCESS).user_data(name(Kind::Ignored, 0))
}

/// Takes the socket's filter off. Comes back where it has none.
pub(super) fn no_filter(slot: u32) -> Entry {
    let (level, option) = (libc::SOL_SOCKET.unsigned_abs(), libc::SO_DETACH_FILTER.unsigned_abs());
    let entry = opcode::SetSockOpt::new(Fixed(slot), level, option, (&raw const ONE).cast(), 4).build();
    entry.flags(Flags::SKIP_SUCCESS).user_data(name(Kind::Ignored, 0))
}

/// Asks for the address of the socket's other end, `getsockopt(SO_PEERNAME)`; comes back with its length.
///
/// The crate has the command that sets an option only. The one that reads it has the same shape and another number
/// (`io_uring/uring_cmd.c`, both since Linux 6.7).
pub(super) fn peer_name(slot: u32, place: *mut u8, len: u32, about: u64) -> Entry {
    /// `SOCKET_URING_OP_GETSOCKOPT` of `linux/io_uring.h`.
    const GET_OPTION: u32 = 2;
    /// Where `struct io_uring_sqe` has its `cmd_op`, in words of four bytes.
    const COMMAND: usize = 2;
    const { assert!(size_of::<Entry>() == 64 && align_of::<Entry>() >= 4, "an entry is what the kernel reads") };
    let (level, option) = (libc::SOL_SOCKET.unsigned_abs(), libc::SO_PEERNAME.unsigned_abs());
    let mut entry = opcode::SetSockOpt::new(Fixed(slot), level, option, place.cast_const().cast(), len).build();
    // SAFETY: inside the entry, aligned, and four plain bytes of it.
    unsafe { (&raw mut entry).cast::<u32>().add(COMMAND).write(GET_OPTION) };
    entry.user_data(name(Kind::Peer, about))
}

/// Makes the socket of a connection to dial.
pub(super) fn socket(slot: u32, id: ConnId) -> Entry {
    let place = DestinationSlot::try_from_slot_target(slot).ok();
    let entry = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).file_index(place).build();
    entry.flags(Flags::SKIP_SUCCESS).user_data(name(Kind::DialSocket, id.bits()))
}

/// Small messages leave at once.
pub(super) fn no_delay(slot: u32) -> Entry {
    let (level, option) = (libc::IPPROTO_TCP.unsigned_abs(), libc::TCP_NODELAY.unsigned_abs());
    let entry = opcode::SetSockOpt::new(Fixed(slot), level, option, (&raw const ONE).cast(), 4).build();
    entry.flags(Flags::SKIP_SUCCESS).user_data(name(Kind::Ignored, 0))
}

/// A socket address as the kernel has it.
pub(super) const ADDRESS_BYTES: usize = 16;

const ADDRESS_LEN: u32 = {
    assert!(size_of::<libc::sockaddr_in>() == ADDRESS_BYTES && libc::AF_INET == 2, "as netinet/in.h has it");
    16
};

/// The bytes of a `sockaddr_in`.
pub(super) fn raw_address(address: SocketAddrV4) -> [u8; ADDRESS_BYTES] {
    let mut raw = [0; ADDRESS_BYTES];
    raw[..2].copy_from_slice(&2_u16.to_ne_bytes());
    raw[2..4].copy_from_slice(&address.port().to_be_bytes());
    raw[4..8].copy_from_slice(&address.ip().octets());
    raw
}

/// First in the chain of a dial.
pub(super) fn bind(slot: u32, address: *const u8, id: ConnId) -> Entry {
    let entry = opcode::Bind::new(Fixed(slot), address.cast(), ADDRESS_LEN).build();
    entry.flags(Flags::SKIP_SUCCESS | Flags::IO_LINK).user_data(name(Kind::DialBind, id.bits()))
}

/// The chain's last link, unless `linked` to a hello.
pub(super) fn connect(slot: u32, address: *const u8, linked: bool, id: ConnId) -> Entry {
    let entry = opcode::Connect::new(Fixed(slot), address.cast(), ADDRESS_LEN).build();
    let flags = if linked { Flags::SKIP_SUCCESS | Flags::IO_LINK } else { Flags::empty() };
    entry.flags(flags).user_data(name(Kind::Dial, id.bits()))
}

/// Sends all of it, and waits for that if need be.
pub(super) fn hello(slot: u32, start: *const u8, len: u32, id: ConnId) -> Entry {
    let entry = opcode::Send::new(Fixed(slot), start, len).flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL).build();
    entry.user_data(name(Kind::Dial, id.bits()))
}

pub(super) fn close(slot: u32, id: ConnId) -> Entry {
    opcode::Close::new(Fixed(slot)).build().user_data(name(Kind::Close, id.bits()))
}

pub(super) fn refuse(slot: u32) -> Entry {
    opcode::Close::new(Fixed(slot)).build().user_data(name(Kind::Refuse, slot as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_was_put_in() {
        let id = ConnId::new(u32::MAX, u32::MAX);
        for &kind in Kind::ALL {
            assert_eq!(parse(name(kind, id.bits())), (kind, id.bits()));
        }
        assert_eq!(parse(u64::MAX).0, Kind::Ignored);
    }
}
