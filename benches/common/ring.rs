//! One io_uring with one group of provided buffers: the tightest form that bare loops and clients can share.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::mem;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, cqueue, opcode};

const GROUP: u16 = 0;
const PAGE: usize = 4096;

/// Entries of a submission queue: several messages to each of a few thousand connections fit in a batch.
const SUBMISSIONS: u32 = 4096;

/// How large a ring is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Entries of the completion queue; a burst that does not fit goes down a slow path.
    pub(crate) completions: u32,
    /// Direct descriptors; 0: none.
    pub(crate) slots: u32,
    /// Provided buffers, a power of two, at most 32,768.
    pub(crate) buffers: u16,
    /// Bytes of each.
    pub(crate) buffer_bytes: usize,
}

/// A socket as a ring names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Socket {
    /// A descriptor of the process.
    Plain(i32),
    /// A slot of the ring's own table.
    Direct(u32),
}

/// What one request came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// What the request was tagged with.
    pub(crate) tag: u64,
    /// Bytes, descriptor or negative error number.
    pub(crate) result: i32,
    flags: u32,
}

impl Completion {
    /// Whether a multishot request goes on.
    pub(crate) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that holds the bytes.
    pub(crate) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// A ring, its buffers, and the completions of the last [`Ring::enter`].
pub(crate) struct Ring {
    ring: IoUring,
    buffers: Buffers,
    batch: Vec<Completion>,
}

impl Ring {
    /// A ring that only the calling thread will use.
    pub(crate) fn new(sizes: Sizes) -> io::Result<Self> {
        Self::build(sizes, &mut IoUring::builder())
    }

    /// One of several rings of the calling thread, which signals an eventfd when it has something to do: a ring cannot
    /// be waited for from another one. See [`Ring::has_work`].
    pub(crate) fn with_bell(sizes: Sizes, bell: &impl AsRawFd) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        let ring = Self::build(sizes, builder.setup_coop_taskrun().setup_taskrun_flag())?;
        ring.ring.submitter().register_eventfd(bell.as_raw_fd())?;
        Ok(ring)
    }

    fn build(sizes: Sizes, builder: &mut Builder) -> io::Result<Self> {
        let ring = builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(sizes.completions.max(2 * SUBMISSIONS))
            .build(SUBMISSIONS)?;
        if sizes.slots > 0 {
            ring.submitter().register_files_sparse(sizes.slots)?;
        }
        let buffers = Buffers::new(sizes.buffers, sizes.buffer_bytes);
        // SAFETY: the buffer ring is page-aligned, zeroed, of the length named, and freed after the io_uring.
        unsafe { ring.submitter().register_buf_ring_with_flags(buffers.ring as u64, sizes.buffers, GROUP, 0)? };
        Ok(Self { ring, buffers, batch: Vec::new() })
    }

    /// Submits everything queued, waits for `want` completions or the time, and collects what is there: one system
    /// call. Buffers recycled before go back to the kernel afterwards, when queued sends have taken their bytes.
    pub(crate) fn enter(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        let submitted = match timeout {
            None => self.ring.submit_and_wait(want),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                self.ring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(&timespec))
            }
        };
        match submitted {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(error) => return Err(error),
        }
        self.buffers.publish();
        let completions = self.ring.completion().map(|completion| Completion {
            tag: completion.user_data(),
            result: completion.result(),
            flags: completion.flags(),
        });
        self.batch.clear();
        self.batch.extend(completions);
        Ok(())
    }

    /// Submits everything queued without waiting.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.ring.submit().map(drop)
    }

    /// Whether [`Ring::enter`] would find something, or has something to submit. For rings with a bell.
    pub(crate) fn has_work(&mut self) -> bool {
        let queue = self.ring.submission();
        let waits = queue.taskrun() || queue.cq_overflow() || !queue.is_empty();
        drop(queue);
        waits || !self.ring.completion().is_empty()
    }

    /// Completions of the last [`Ring::enter`].
    pub(crate) fn completions(&self) -> usize {
        self.batch.len()
    }

    /// One of them.
    pub(crate) fn completion(&self, index: usize) -> Completion {
        self.batch[index]
    }

    /// The bytes that a completion left in a provided buffer.
    pub(crate) fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        self.buffers.get(buffer, length)
    }

    /// Gives a buffer back with the next [`Ring::enter`].
    pub(crate) fn recycle(&mut self, buffer: u16) {
        self.buffers.put(buffer);
    }

    /// Accepts for ever, into the process's table or into the ring's own.
    pub(crate) fn accept(&mut self, listener: i32, direct: bool, tag: u64) -> io::Result<()> {
        self.push(opcode::AcceptMulti::new(Fd(listener)).allocate_file_index(direct).build().user_data(tag))
    }

    /// Ends the requests with this tag.
    pub(crate) fn cancel(&mut self, tag: u64) -> io::Result<()> {
        self.push(opcode::AsyncCancel::new(tag).build().flags(Flags::SKIP_SUCCESS).user_data(tag))
    }

    /// Waits once until an eventfd has been signalled.
    pub(crate) fn poll(&mut self, fd: &impl AsRawFd, tag: u64) -> io::Result<()> {
        self.push(opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLIN as u32).build().user_data(tag))
    }

    /// Receives into provided buffers for ever.
    pub(crate) fn receive(&mut self, socket: Socket, tag: u64) -> io::Result<()> {
        self.push(receive(socket).user_data(tag))
    }

    /// Queues bytes to be sent. They must stay where they are until the next [`Ring::enter`] returns; a completion
    /// comes only when not all of them were taken.
    pub(crate) fn send(&mut self, socket: Socket, bytes: &[u8], tag: u64) -> io::Result<()> {
        self.push(send(socket, bytes, libc::MSG_DONTWAIT | libc::MSG_WAITALL).user_data(tag))
    }

    /// Closes a socket; a completion comes only when that fails.
    pub(crate) fn close(&mut self, socket: Socket, tag: u64) -> io::Result<()> {
        let entry = match socket {
            Socket::Plain(fd) => opcode::Close::new(Fd(fd)).build(),
            Socket::Direct(slot) => opcode::Close::new(Fixed(slot)).build(),
        };
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(tag))
    }

    /// Opens a connection in a slot: socket, no delay, bind, connect, first bytes, and a multishot receive; one chain.
    /// A completion comes only from the receive, or from whatever fails. `hello` lives as long as the ring.
    pub(crate) fn dial(
        &mut self,
        slot: u32,
        from: SocketAddrV4,
        to: SocketAddrV4,
        hello: &'static [u8],
        tag: u64,
    ) -> io::Result<()> {
        let linked = Flags::IO_LINK | Flags::SKIP_SUCCESS;
        self.chain(slot, from, to, linked, tag, |ring| {
            if !hello.is_empty() {
                ring.push(send(Socket::Direct(slot), hello, libc::MSG_WAITALL).flags(linked).user_data(tag))?;
            }
            ring.push(receive(Socket::Direct(slot)).user_data(tag))
        })
    }

    /// Opens a connection in a slot and does nothing with it; a completion comes when that is done.
    pub(crate) fn connect(&mut self, slot: u32, from: SocketAddrV4, to: SocketAddrV4, tag: u64) -> io::Result<()> {
        self.chain(slot, from, to, Flags::empty(), tag, |_| Ok(()))
    }

    /// Socket, no delay, bind, and connect, this one with flags of its own; then what follows it in the chain.
    fn chain(
        &mut self,
        slot: u32,
        from: SocketAddrV4,
        to: SocketAddrV4,
        last: Flags,
        tag: u64,
        then: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        static ONE: i32 = 1;
        const CHAIN: usize = 6;
        let at = Fixed(slot);
        let (from, to) = (raw_address(from), raw_address(to));
        let length = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
        // A chain ends where a submission ends: it must not straddle two.
        let queue = self.ring.submission();
        let room = queue.capacity() - queue.len();
        drop(queue);
        if room < CHAIN {
            self.flush()?;
        }
        let place = DestinationSlot::try_from_slot_target(slot).ok();
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).file_index(place).build();
        let value = (&raw const ONE).cast();
        let level = (libc::IPPROTO_TCP as u32, libc::TCP_NODELAY as u32);
        let no_delay = opcode::SetSockOpt::new(at, level.0, level.1, value, mem::size_of::<i32>() as u32).build();
        let bind = opcode::Bind::new(at, (&raw const from).cast(), length).build();
        let connect = opcode::Connect::new(at, (&raw const to).cast(), length).build();
        for entry in [socket, no_delay, bind] {
            self.push(entry.flags(Flags::IO_LINK | Flags::SKIP_SUCCESS).user_data(tag))?;
        }
        self.push(connect.flags(last).user_data(tag))?;
        then(self)?;
        // The addresses are copied when the chain is submitted, and they live on this stack.
        self.flush()
    }

    fn push(&mut self, entry: Entry) -> io::Result<()> {
        loop {
            // SAFETY: every pointer in the entry lives until the kernel is done with it: see the callers.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.flush()?;
        }
    }
}

fn receive(socket: Socket) -> Entry {
    match socket {
        Socket::Plain(fd) => opcode::RecvMulti::new(Fd(fd), GROUP).build(),
        Socket::Direct(slot) => opcode::RecvMulti::new(Fixed(slot), GROUP).build(),
    }
}

fn send(socket: Socket, bytes: &[u8], flags: i32) -> Entry {
    let (start, length) = (bytes.as_ptr(), bytes.len() as u32);
    let entry = match socket {
        Socket::Plain(fd) => opcode::Send::new(Fd(fd), start, length).flags(flags).build(),
        Socket::Direct(slot) => opcode::Send::new(Fixed(slot), start, length).flags(flags).build(),
    };
    entry.flags(Flags::SKIP_SUCCESS)
}

fn raw_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// Provided buffers and the ring by which the kernel takes them.
struct Buffers {
    ring: *mut BufRingEntry,
    bytes: *mut u8,
    count: u16,
    each: usize,
    tail: u16,
}

impl Buffers {
    fn new(count: u16, each: usize) -> Self {
        assert!(count.is_power_of_two(), "the kernel wants a power of two");
        // SAFETY: neither layout is empty.
        let (ring, bytes) =
            unsafe { (alloc_zeroed(Self::ring_layout(count)), alloc_zeroed(Self::bytes_layout(count, each))) };
        assert!(!ring.is_null() && !bytes.is_null(), "no memory for the buffers of a ring");
        let mut buffers = Self { ring: ring.cast(), bytes, count, each, tail: 0 };
        for buffer in 0..count {
            buffers.put(buffer);
        }
        buffers.publish();
        buffers
    }

    fn ring_layout(count: u16) -> Layout {
        let bytes = usize::from(count) * mem::size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, PAGE).expect("a page is a valid alignment")
    }

    fn bytes_layout(count: u16, each: usize) -> Layout {
        Layout::from_size_align(usize::from(count) * each, PAGE).expect("a page is a valid alignment")
    }

    fn get(&self, buffer: u16, length: usize) -> &[u8] {
        assert!(buffer < self.count && length <= self.each, "the kernel names its own buffers");
        // SAFETY: in bounds by the assertion; the kernel does not write to a buffer that it has handed out.
        unsafe { std::slice::from_raw_parts(self.bytes.add(usize::from(buffer) * self.each), length) }
    }

    fn put(&mut self, buffer: u16) {
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is within the ring; the kernel reads the entry only after `publish`.
        unsafe {
            let entry = &mut *self.ring.add(at);
            entry.set_addr(self.bytes.add(usize::from(buffer) * self.each) as u64);
            entry.set_len(self.each as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the tail is a u16 inside the first entry, shared with the kernel, valid while the ring lives.
        unsafe { (*BufRingEntry::tail(self.ring).cast::<AtomicU16>()).store(self.tail, Ordering::Release) };
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with these layouts. The io_uring is a field before this one: already closed.
        unsafe {
            dealloc(self.ring.cast(), Self::ring_layout(self.count));
            dealloc(self.bytes, Self::bytes_layout(self.count, self.each));
        }
    }
}
