//! Network devices and namespaces: ioctls, and what belongs to a thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The device that makes others.
const TUN: &str = "/dev/net/tun";

/// Moves this thread, and the threads and processes that it starts from now on, into a network namespace of its own.
pub(crate) fn enter_new_network() -> io::Result<()> {
    // SAFETY: only the flag that shares descriptors between threads is a danger to memory or descriptors.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}

/// Lets the processes that this thread starts from now on, all of them together, have a PID namespace of their own. The
/// first of them is its init, and the kernel kills the others when that one ends. This thread cannot start threads then.
pub(crate) fn enclose_children() -> io::Result<()> {
    // SAFETY: as above.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?)
}

/// Starts a child that leads a process group of its own, and is killed when the thread that started it ends, however
/// that happens. An `enclosed` one sees its own processes in `/proc`, where that can be mounted.
pub(crate) fn spawn_bound(command: &mut Command, enclosed: bool) -> io::Result<Child> {
    let parent = getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the signal was asked for. Out of a namespace it cannot be seen but in the
        // `/proc` of the outside.
        let seen = if enclosed { parent_out_there().or(Some(parent)) } else { getppid() };
        if seen != Some(parent) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if enclosed {
            // Without it `/proc/self` is still right, since the outside knows this process too.
            let _ = mount_proc();
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls only, and neither allocates nor takes a lock.
    unsafe { command.process_group(0).pre_exec(bind) };
    command.spawn()
}

/// The parent of this process as `/proc` shows it. It does not allocate.
fn parent_out_there() -> Option<Pid> {
    let mut buffer = [0; 256];
    let len = File::open("/proc/self/stat").ok()?.read(&mut buffer).ok()?;
    // `PID (NAME) STATE PARENT ...`, and the name may hold anything.
    let name_end = buffer[..len].iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&buffer[name_end + 1..len]).ok()?;
    Pid::from_raw(rest.split_ascii_whitespace().nth(1)?.parse().ok()?)
}

/// Gives this process mounts of its own, with a `/proc` that shows its own PID namespace.
fn mount_proc() -> io::Result<()> {
    // SAFETY: as above; this process has one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // What is mounted here must not be seen outside.
    // SAFETY: the strings end in zeros, and these two calls may leave the others out.
    done(unsafe { libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), private, ptr::null()) })?;
    let (proc, flags) = (c"proc".as_ptr(), libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC);
    // SAFETY: likewise.
    done(unsafe { libc::mount(proc, c"/proc".as_ptr(), proc, flags, ptr::null()) })
}

/// Makes a TUN device in this thread's network namespace, which goes when the file is closed. Reads and writes of the
/// file never wait; each is one packet behind a `virtio_net_hdr` of ten bytes, whose checksum flags both sides may use.
pub(crate) fn make_tun(name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN)?;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = flags(libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL);
    // SAFETY: the descriptor is open, and the request is what this ioctl reads and writes.
    done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    // SAFETY: this one takes a number.
    done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(libc::TUN_F_CSUM)) })?;
    Ok(file)
}

/// Names a device of this thread's network namespace, to set it up.
#[derive(Debug)]
pub(crate) struct Device<'a> {
    name: &'a str,
    /// Any socket will do, it only says which namespace.
    socket: UdpSocket,
}

impl<'a> Device<'a> {
    pub(crate) fn new(name: &'a str) -> io::Result<Self> {
        // Binding to any address and port works without a device.
        Ok(Self { name, socket: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))? })
    }

    /// Its address and the mask of its subnet, which is routed to it.
    pub(crate) fn set_address(&self, address: Ipv4Addr, mask: Ipv4Addr) -> io::Result<()> {
        self.set(libc::SIOCSIFADDR, |request| request.ifr_ifru.ifru_addr = socket_address(address))?;
        self.set(libc::SIOCSIFNETMASK, |request| request.ifr_ifru.ifru_addr = socket_address(mask))
    }

    /// The longest packet, in bytes.
    pub(crate) fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        self.set(libc::SIOCSIFMTU, |request| request.ifr_ifru.ifru_mtu = i32::from(mtu))
    }

    /// How many packets may wait in it.
    pub(crate) fn set_queue(&self, packets: i32) -> io::Result<()> {
        // This ioctl reads the number from the same place as others do an index.
        self.set(libc::SIOCSIFTXQLEN, |request| request.ifr_ifru.ifru_ifindex = packets)
    }

    /// Lets packets through.
    pub(crate) fn up(&self) -> io::Result<()> {
        self.set(libc::SIOCSIFFLAGS, |request| request.ifr_ifru.ifru_flags = flags(libc::IFF_UP | libc::IFF_RUNNING))
    }

    fn set(&self, what: libc::c_ulong, fill: impl FnOnce(&mut libc::ifreq)) -> io::Result<()> {
        // The type of a request differs between glibc and musl; those of sockets have 16 bits (linux/sockios.h).
        let what = libc::Ioctl::from(u16::try_from(what).map_err(|_| io::ErrorKind::InvalidInput)?);
        let mut request = request(self.name)?;
        fill(&mut request);
        // SAFETY: the socket is open, and all of these ioctls read and write an `ifreq`.
        done(unsafe { libc::ioctl(self.socket.as_raw_fd(), what, &raw mut request) })
    }
}

/// A request about a device.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: it consists of numbers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = byte.cast_signed();
    }
    Ok(request)
}

#[expect(clippy::cast_possible_truncation, reason = "a family has 16 bits, whatever type its number has")]
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: it consists of numbers, for which zero is valid.
    let mut socket_address: libc::sockaddr = unsafe { std::mem::zeroed() };
    socket_address.sa_family = libc::AF_INET as libc::sa_family_t;
    // A `sockaddr_in`: two bytes of port come before the address.
    for (to, byte) in socket_address.sa_data[2..].iter_mut().zip(address.octets()) {
        *to = byte.cast_signed();
    }
    socket_address
}

/// The flags of a device, which have 16 bits in a request.
#[expect(clippy::cast_possible_truncation, reason = "none of those that are used is above")]
const fn flags(flags: libc::c_int) -> libc::c_short {
    flags as libc::c_short
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
