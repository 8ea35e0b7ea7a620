//! More connections than one ring has slots for: one thread that accepts into a ring until its table is nearly full,
//! then into the next, as many rings as it takes. What a topic with heartbeats costs the kernel, and nothing else.
//!
//! It speaks 4 bytes of length, then the message; an empty message is a heartbeat or its answer. Anything else goes to
//! every connection. It starts as sockets and no more: standard input tells what else to do, in lines.
//!
//! ```text
//! count         prints `count CONNECTIONS`
//! receive       arms a receive on every connection, and on those that come later
//! beat SECONDS  one heartbeat to every connection, spread over the time; prints `beaten SENT ANSWERED`
//! ```

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::super::client::next_source;
use super::super::ring::{Completion, Ring, Sizes, Socket};
use super::super::sys::{check, descriptor_limit};
use super::super::wire::bad;

const ACCEPT: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const BELL: u64 = 3 << 32;
/// Free slots at which the next ring takes over: a multishot accept that meets a full table drops a connection, and
/// the kernel takes some hundreds before the cancellation is seen.
const FREE_MIN: u32 = 2048;
const SIZES: Sizes = Sizes { completions: 32_768, slots: 0, buffers: 1024, buffer_bytes: 512 };
const HEARTBEAT: [u8; 4] = [0; 4];
/// How often a part of the heartbeats leaves, as from a timer wheel.
const TICK: Duration = Duration::from_millis(100);
/// Time that the last answers have.
const GRACE: Duration = Duration::from_secs(2);

/// One ring and who is in it.
struct Shelf {
    ring: Ring,
    /// By slot.
    members: Vec<bool>,
    taken: u32,
}

/// Heartbeats that are on their way.
struct Beats {
    started: Instant,
    over: Duration,
    total: usize,
    sent: usize,
    answered: usize,
    /// The next connection: shelf and slot.
    next: (usize, usize),
}

enum Command {
    Count,
    Receive,
    Beat(Duration),
}

struct Many {
    shelves: Vec<Shelf>,
    slots: u32,
    listener: i32,
    bell: File,
    receiving: bool,
    beats: Option<Beats>,
    image: Vec<u8>,
}

/// Serves until standard input ends.
pub(super) fn run(listener: &TcpListener) -> io::Result<()> {
    let bell = bell()?;
    let commands = listen_to_input(bell.try_clone()?);
    let slots = descriptor_limit();
    let (shelves, listener) = (Vec::new(), listener.as_raw_fd());
    let mut many = Many { shelves, slots, listener, bell, receiving: false, beats: None, image: Vec::new() };
    many.next_shelf()?;
    many.watch_bell()?;
    loop {
        many.turn()?;
        loop {
            match commands.try_recv() {
                Ok(command) => many.obey(&command)?,
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }
}

/// What the other rings and the thread that reads commands wake the loop by.
fn bell() -> io::Result<File> {
    // SAFETY: takes two integers, touches no memory.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn listen_to_input(mut bell: File) -> Receiver<Command> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let command = match words[..] {
                ["count"] => Command::Count,
                ["receive"] => Command::Receive,
                ["beat", seconds] => Command::Beat(Duration::from_secs_f64(seconds.parse().unwrap_or(0.0))),
                _ => break,
            };
            let _ = sender.send(command);
            let _ = bell.write_all(&1_u64.to_ne_bytes());
        }
        drop(sender);
        let _ = bell.write_all(&1_u64.to_ne_bytes());
    });
    receiver
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

impl Many {
    fn next_shelf(&mut self) -> io::Result<()> {
        let mut ring = Ring::with_bell(Sizes { slots: self.slots, ..SIZES }, &self.bell)?;
        ring.accept(self.listener, true, ACCEPT)?;
        ring.flush()?;
        self.shelves.push(Shelf { ring, members: vec![false; self.slots as usize], taken: 0 });
        Ok(())
    }

    fn watch_bell(&mut self) -> io::Result<()> {
        let _ = self.bell.read(&mut [0; 8]);
        self.shelves[0].ring.poll(&self.bell, BELL)
    }

    /// Waits in the first ring, until the next tick if heartbeats are due, and serves all that have work.
    fn turn(&mut self) -> io::Result<()> {
        let timeout = self.beats.as_ref().map(|_| TICK);
        self.shelves[0].ring.enter(1, timeout)?;
        self.serve(0)?;
        for shelf in 1..self.shelves.len() {
            if self.shelves[shelf].ring.has_work() {
                self.shelves[shelf].ring.enter(0, None)?;
                self.serve(shelf)?;
            }
        }
        self.beat()
    }

    fn serve(&mut self, shelf: usize) -> io::Result<()> {
        for index in 0..self.shelves[shelf].ring.completions() {
            let completion = self.shelves[shelf].ring.completion(index);
            match completion.tag & !u64::from(u32::MAX) {
                0 => self.received(shelf, completion)?,
                ACCEPT => self.accepted(shelf, completion)?,
                BELL => self.watch_bell()?,
                _ => self.unsent(shelf, completion)?,
            }
        }
        Ok(())
    }

    fn accepted(&mut self, at: usize, completion: Completion) -> io::Result<()> {
        let shelf = &mut self.shelves[at];
        match completion.result {
            slot @ 0.. => {
                shelf.members[slot as usize] = true;
                shelf.taken += 1;
                if self.receiving {
                    shelf.ring.receive(Socket::Direct(slot.cast_unsigned()), slot as u64)?;
                }
                if shelf.taken + FREE_MIN.min(self.slots / 2) == self.slots {
                    shelf.ring.cancel(ACCEPT)?;
                    shelf.ring.flush()?;
                }
            }
            result if -result == libc::ECANCELED => {}
            result => return Err(io::Error::from_raw_os_error(-result)),
        }
        if completion.more() { Ok(()) } else { self.next_shelf() }
    }

    fn unsent(&mut self, shelf: usize, completion: Completion) -> io::Result<()> {
        let slot = (completion.tag & u64::from(u32::MAX)) as usize;
        match -completion.result {
            // It left; the receive says so too.
            libc::EPIPE | libc::ECONNRESET | libc::EBADF => {
                self.shelves[shelf].members[slot] = false;
                Ok(())
            }
            _ => Err(bad(&format!("short send: {}", completion.result))),
        }
    }

    fn received(&mut self, at: usize, completion: Completion) -> io::Result<()> {
        let slot = completion.tag as u32;
        let socket = Socket::Direct(slot);
        let ring = &mut self.shelves[at].ring;
        match (completion.result, completion.buffer()) {
            (received @ 1.., Some(buffer)) => {
                let mut bytes = ring.bytes(buffer, received as usize);
                let mut answers = 0;
                while let Some(rest) = bytes.strip_prefix(&HEARTBEAT) {
                    (bytes, answers) = (rest, answers + 1);
                }
                self.image.clear();
                self.image.extend_from_slice(bytes);
                ring.recycle(buffer);
                self.beats.iter_mut().for_each(|beats| beats.answered += answers);
                if !self.image.is_empty() {
                    self.publish()?;
                }
            }
            (result, _) if -result == libc::ENOBUFS => {}
            _ => {
                self.shelves[at].members[slot as usize] = false;
                return self.shelves[at].ring.close(socket, SEND | u64::from(slot));
            }
        }
        if completion.more() { Ok(()) } else { self.shelves[at].ring.receive(socket, u64::from(slot)) }
    }

    /// Sends the image to everybody.
    fn publish(&mut self) -> io::Result<()> {
        for Shelf { ring, members, .. } in &mut self.shelves {
            for (slot, _) in members.iter().enumerate().filter(|(_, member)| **member) {
                ring.send(Socket::Direct(slot as u32), &self.image, SEND | slot as u64)?;
            }
            // The image may change with the next message: let the kernel take it now.
            ring.flush()?;
        }
        Ok(())
    }

    fn obey(&mut self, command: &Command) -> io::Result<()> {
        let count = self.shelves.iter().map(|shelf| shelf.members.iter().filter(|member| **member).count()).sum();
        match command {
            Command::Count => say(&format!("count {count}")),
            Command::Receive => self.receive(),
            Command::Beat(over) => {
                let started = Instant::now();
                self.beats = Some(Beats { started, over: *over, total: count, sent: 0, answered: 0, next: (0, 0) });
                Ok(())
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.receiving = true;
        for Shelf { ring, members, .. } in &mut self.shelves {
            for (slot, _) in members.iter().enumerate().filter(|(_, member)| **member) {
                ring.receive(Socket::Direct(slot as u32), slot as u64)?;
            }
            ring.flush()?;
        }
        Ok(())
    }

    /// Sends the heartbeats that are due, and tells when all of them had their time.
    fn beat(&mut self) -> io::Result<()> {
        let Some(beats) = &mut self.beats else { return Ok(()) };
        let share = beats.started.elapsed().as_secs_f64() / beats.over.as_secs_f64().max(1e-3);
        let due = (beats.total as f64 * share.min(1.0)) as usize;
        while beats.sent < due && beats.next.0 < self.shelves.len() {
            let Shelf { ring, members, .. } = &mut self.shelves[beats.next.0];
            match members.get(beats.next.1) {
                Some(true) => {
                    ring.send(Socket::Direct(beats.next.1 as u32), &HEARTBEAT, SEND | beats.next.1 as u64)?;
                    beats.sent += 1;
                    beats.next.1 += 1;
                }
                Some(false) => beats.next.1 += 1,
                None => {
                    ring.flush()?;
                    beats.next = (beats.next.0 + 1, 0);
                }
            }
        }
        if let Some(shelf) = self.shelves.get_mut(beats.next.0) {
            shelf.ring.flush()?;
        }
        let (sent, answered) = (beats.sent, beats.answered);
        if beats.started.elapsed() < beats.over + if answered < sent { GRACE } else { Duration::ZERO } {
            return Ok(());
        }
        self.beats = None;
        say(&format!("beaten {sent} {answered}"))
    }
}

/// Opens connections that are sockets and no more, says `open COUNT`, and holds them until the process ends.
pub(super) fn dial(to: SocketAddrV4, count: usize) -> io::Result<()> {
    const WINDOW: usize = 256;
    let slots = descriptor_limit();
    let mut rings = Vec::new();
    let mut left = count;
    while left > 0 {
        let here = left.min(slots as usize);
        let mut ring = Ring::new(Sizes { slots, buffers: 1, ..SIZES })?;
        let (mut dialed, mut open) = (0, 0);
        while open < here {
            while dialed < here && dialed - open < WINDOW {
                ring.connect(dialed as u32, next_source(), to, 0)?;
                dialed += 1;
            }
            ring.enter(1, None)?;
            for index in 0..ring.completions() {
                match ring.completion(index).result {
                    0.. => open += 1,
                    result => return Err(io::Error::from_raw_os_error(-result)),
                }
            }
        }
        rings.push(ring);
        left -= here;
    }
    say(&format!("open {count}"))?;
    // Until whoever started this closes it.
    io::stdin().lock().read_to_end(&mut Vec::new()).map(drop)
}
