//! epoll, edge-triggered: accept4, recv and send; a read that did not fill the buffer has emptied the socket, so the
//! read that would say EAGAIN is skipped.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use super::super::sys::check;
use super::super::wire::UPGRADED;
use super::Role;

const EVENTS: usize = 1024;

/// Serves for ever.
pub(super) fn run(listener: &TcpListener, role: Role, buffer_bytes: usize) -> io::Result<()> {
    // One byte more, so that a burst of exactly that size is known to be all there was.
    listener.set_nonblocking(true)?;
    // SAFETY: takes an integer, touches no memory.
    let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    let mut server = Loop { epoll, role, members: Vec::new(), greeted: Vec::new(), scratch: vec![0; buffer_bytes + 1] };
    server.watch(listener.as_raw_fd())?;
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    loop {
        // SAFETY: the kernel writes at most EVENTS events.
        let ready = check(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), EVENTS as i32, -1) })?;
        for event in &events[..ready as usize] {
            let fd = event.u64 as RawFd;
            if fd == listener.as_raw_fd() { server.accept(fd)? } else { server.readable(fd)? }
        }
    }
}

struct Loop {
    epoll: RawFd,
    role: Role,
    members: Vec<RawFd>,
    greeted: Vec<bool>,
    scratch: Vec<u8>,
}

impl Loop {
    fn watch(&self, fd: RawFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: fd as u64 };
        // SAFETY: the kernel reads one event.
        check(unsafe { libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
    }

    fn accept(&mut self, listener: RawFd) -> io::Result<()> {
        loop {
            // SAFETY: no address is asked for.
            let fd = unsafe { libc::accept4(listener, ptr::null_mut(), ptr::null_mut(), libc::SOCK_NONBLOCK) };
            match check(fd) {
                Ok(fd) => {
                    self.members.push(fd);
                    self.watch(fd)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn readable(&mut self, fd: RawFd) -> io::Result<()> {
        loop {
            let room = self.scratch.len();
            // SAFETY: the kernel writes at most `room` bytes.
            let received = unsafe { libc::recv(fd, self.scratch.as_mut_ptr().cast(), room, 0) };
            if received <= 0 {
                if received < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock {
                    return Ok(());
                }
                self.close(fd);
                return Ok(());
            }
            let received = received as usize;
            self.answer(fd, received)?;
            if received < room {
                return Ok(());
            }
        }
    }

    fn answer(&mut self, fd: RawFd, received: usize) -> io::Result<()> {
        let bytes = &self.scratch[..received];
        match self.role {
            Role::Echo => send(fd, bytes),
            Role::Upgrade => send(fd, UPGRADED.as_bytes()),
            Role::Fanout if !greet(&mut self.greeted, fd) => send(fd, bytes),
            Role::Fanout => self.members.iter().try_for_each(|member| send(*member, bytes)),
        }
    }

    fn close(&mut self, fd: RawFd) {
        self.members.retain(|member| *member != fd);
        if let Some(greeted) = self.greeted.get_mut(fd as usize) {
            *greeted = false;
        }
        // SAFETY: the descriptor is this loop's own and is not used again.
        unsafe { libc::close(fd) };
    }
}

fn send(fd: RawFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `bytes.len()` bytes.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    assert!(sent == bytes.len() as isize, "short send: {sent}");
    Ok(())
}

/// Whether a connection has been greeted before; from now on it has.
fn greet(greeted: &mut Vec<bool>, fd: RawFd) -> bool {
    let index = fd as usize;
    if greeted.len() <= index {
        greeted.resize(index + 1, false);
    }
    std::mem::replace(&mut greeted[index], true)
}
