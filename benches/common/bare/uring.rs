//! io_uring: multishot accept, multishot receive into provided buffers, sends in batches, one system call per batch.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use super::super::ring::{Completion, Ring, Sizes, Socket};
use super::super::wire::UPGRADED;
use super::Role;

const ACCEPT: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const SIZES: Sizes = Sizes { completions: 16_384, slots: 0, buffers: 256, buffer_bytes: 0 };

/// Serves for ever.
pub(super) fn run(listener: &TcpListener, role: Role, buffer_bytes: usize, direct: bool) -> io::Result<()> {
    let slots = if direct { super::super::sys::descriptor_limit() } else { 0 };
    let mut ring = Ring::new(Sizes { slots, buffer_bytes, ..SIZES })?;
    ring.accept(listener.as_raw_fd(), direct, ACCEPT)?;
    let mut server = Loop { ring, role, direct, members: Vec::new(), greeted: Vec::new(), image: Vec::new() };
    loop {
        server.ring.enter(1, None)?;
        for index in 0..server.ring.completions() {
            server.complete(server.ring.completion(index))?;
        }
    }
}

struct Loop {
    ring: Ring,
    role: Role,
    direct: bool,
    members: Vec<Socket>,
    greeted: Vec<bool>,
    image: Vec<u8>,
}

impl Loop {
    fn complete(&mut self, completion: Completion) -> io::Result<()> {
        let index = completion.tag as u32;
        match completion.tag & !u64::from(u32::MAX) {
            0 => self.received(self.socket(index), index, completion),
            ACCEPT => {
                assert!(completion.result >= 0 && completion.more(), "accept ended: {}", completion.result);
                let index = completion.result.cast_unsigned();
                let socket = self.socket(index);
                self.members.push(socket);
                self.ring.receive(socket, u64::from(index))
            }
            _ => panic!("short send: {}", completion.result),
        }
    }

    fn socket(&self, index: u32) -> Socket {
        if self.direct { Socket::Direct(index) } else { Socket::Plain(index.cast_signed()) }
    }

    fn received(&mut self, socket: Socket, index: u32, completion: Completion) -> io::Result<()> {
        match (completion.result, completion.buffer()) {
            (received @ 1.., Some(buffer)) => {
                // The bytes stay in the buffer, which the kernel gets back only after the next batch of sends.
                let bytes: *const [u8] = self.ring.bytes(buffer, received as usize);
                // SAFETY: nothing below moves or frees the ring's buffers, and sends do not write to them.
                self.answer(socket, index, unsafe { &*bytes })?;
                self.ring.recycle(buffer);
            }
            (result, _) if -result == libc::ENOBUFS => {}
            _ => {
                self.members.retain(|member| *member != socket);
                if let Some(greeted) = self.greeted.get_mut(index as usize) {
                    *greeted = false;
                }
                return self.ring.close(socket, SEND);
            }
        }
        if completion.more() { Ok(()) } else { self.ring.receive(socket, u64::from(index)) }
    }

    fn answer(&mut self, socket: Socket, index: u32, bytes: &[u8]) -> io::Result<()> {
        match self.role {
            Role::Echo => self.ring.send(socket, bytes, SEND),
            Role::Upgrade => self.ring.send(socket, UPGRADED.as_bytes(), SEND),
            Role::Fanout => {
                if !self.greet(index) {
                    return self.ring.send(socket, bytes, SEND);
                }
                self.image.clear();
                self.image.extend_from_slice(bytes);
                for member in &self.members {
                    self.ring.send(*member, &self.image, SEND)?;
                }
                // The image may change with the next message: let the kernel take it now.
                self.ring.flush()
            }
        }
    }

    /// Whether a connection has been greeted before; from now on it has.
    fn greet(&mut self, index: u32) -> bool {
        let index = index as usize;
        if self.greeted.len() <= index {
            self.greeted.resize(index + 1, false);
        }
        std::mem::replace(&mut self.greeted[index], true)
    }
}
