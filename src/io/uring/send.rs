//! Sending: requests that take what fits at once and complete only when that was not all.

use std::io;
use std::sync::Arc;

use super::buffers::Arena;
use super::request::{self, Done, Kind};
use super::table::DIAL;
use super::{Out, Short, Uring};
use crate::id::ConnId;

/// Bytes of one send at most. More than any socket takes at once.
const SHARED_BYTES_MAX: usize = 1 << 30;
/// Shared allocations held until the next submission at most.
const HELD_MAX: usize = 1024;

impl Uring {
    pub(super) fn push_send(&mut self, id: ConnId, out: Out<'_>, tag: u32) {
        let Some(entry) = self.table.open(id) else {
            self.shorts.push_back(Short { tag, sent: Err(io::ErrorKind::NotConnected) });
            return;
        };
        if entry.has(DIAL) {
            self.shorts.push_back(Short { tag, sent: Ok(0) });
            return;
        }
        let (ring, slot) = (entry.ring(), entry.slot());
        let (start, len, whole) = match out {
            Out::Bytes(bytes) => {
                let part = &bytes[..bytes.len().min(Arena::BYTES)];
                let Some(start) = self.copy(part) else {
                    self.shorts.push_back(Short { tag, sent: Err(io::ErrorKind::OutOfMemory) });
                    return;
                };
                (start, part.len(), part.len() == bytes.len())
            }
            Out::Shared(bytes, from, to) => {
                let part = &bytes[from..to.min(from + SHARED_BYTES_MAX)];
                self.hold(bytes);
                (part.as_ptr(), part.len(), part.len() == to - from)
            }
        };
        if len == 0 {
            return;
        }
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let entry = match whole {
            true => request::send(slot, start, len, tag),
            false => request::send_part(slot, start, len, tag),
        };
        self.push(ring, &entry);
    }

    /// Where the bytes lie until they are submitted; `None` only when the interface is broken and the arena is full.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> Option<*const u8> {
        self.arena.put(bytes).or_else(|| {
            self.submit_all();
            self.arena.put(bytes)
        })
    }

    /// Keeps shared bytes alive until they are submitted. A fan-out gives the same ones again and again.
    fn hold(&mut self, bytes: &Arc<[u8]>) {
        if self.held.last().is_some_and(|last| Arc::ptr_eq(last, bytes)) {
            return;
        }
        if self.held.len() >= HELD_MAX {
            self.submit_all();
        }
        self.held.push(Arc::clone(bytes));
    }

    pub(super) fn on_send(&mut self, done: &Done) {
        let sent = match done.errno() {
            0 => Ok(usize::try_from(done.result).unwrap_or(0)),
            libc::EAGAIN | libc::ENOBUFS => Ok(0),
            errno => Err(io::Error::from_raw_os_error(errno).kind()),
        };
        debug_assert!(matches!(done.kind, Kind::Send | Kind::SendPart), "a send");
        self.shorts.push_back(Short { tag: u32::try_from(done.about).unwrap_or(u32::MAX), sent });
    }
}
