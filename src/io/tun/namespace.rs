//! A network namespace that lasts as long as this process, at most.
//!
//! One thread lives in it, and everything that has to be done inside is done by that thread: threads, processes, sockets
//! and devices stay where they were made. A namespace has no name and no file, so the kernel takes it down when the last
//! of these is gone, also after a SIGKILL.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::plan::{self, Block};
use super::server::{Enclosure, Launch, Server};
use crate::io::sys::network::{self, Device};

/// Buckets of the kernel's table of connections: one per connection, between these.
const BUCKETS_MIN: usize = 1 << 16;
const BUCKETS_MAX: usize = 1 << 24;

/// Packets that any kernel queues for a device.
const QUEUE_MIN: i32 = 500;

/// How long a device's name may be taken by one that is closed already, and the time between two looks.
const NAME_PATIENCE: Duration = Duration::from_secs(5);
const NAME_PAUSE: Duration = Duration::from_millis(1);

/// Settings of the inside. What a kernel does not know it cannot need.
const SETTINGS: &[(&str, &str)] = &[
    // A storm of connects fills these before the server has its turn. It asks for its own share of the first.
    ("net/core/somaxconn", "65535"),
    ("net/ipv4/tcp_max_syn_backlog", "1048576"),
    ("net/ipv4/tcp_syncookies", "1"),
    // Clients are many addresses behind one device, and none of them is worth remembering.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/tcp_no_metrics_save", "1"),
    // Devices would send their own packets into the queue.
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv6/conf/all/disable_ipv6", "1"),
];

/// Why there is no namespace, device or server.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The kernel refuses a network namespace.
    #[error("network namespace: {0}: run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN")]
    Namespace(io::Error),
    /// There is a namespace, but no way to set it up.
    #[error("{what} in the network namespace: {error}")]
    Inside {
        /// The setting or device.
        what: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// No device can be made.
    #[error("/dev/net/tun: {0}: it needs the `tun` module (modprobe tun), the device file, and CAP_NET_ADMIN")]
    Tun(io::Error),
    /// All blocks of addresses have a device.
    #[error("{} devices are all that a network namespace has addresses for", plan::DEVICES_MAX)]
    TooManyDevices,
    /// More connections than a device has addresses for.
    #[error("{asked} connections: a device has addresses for {}", plan::CONNECTIONS_MAX)]
    TooManyConnections {
        /// How many were asked for.
        asked: usize,
    },
    /// A share is not between 0 and 1, or a packet has no room for its headers.
    #[error("{0}")]
    Config(&'static str),
    /// The server does not start.
    #[error("server `{program}`: {why}")]
    Server {
        /// What was to be run.
        program: String,
        /// What went wrong.
        why: String,
    },
    /// We were told to stop before the server was ready.
    #[error("stopped before the server was ready")]
    Stopped,
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace. It goes when this value and every [`Server`] and [`super::Tun`] of it are gone.
#[derive(Clone)]
pub struct Namespace(Arc<Inside>);

struct Inside {
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// A bit for each block of addresses that has a device.
    blocks: AtomicU16,
}

impl Namespace {
    /// A namespace whose kernel tables fit `connections`, with a loopback device, and with [`super::SERVER`] as an
    /// address to listen on.
    ///
    /// # Errors
    /// When this process may not make one, or the kernel cannot set it up.
    pub fn new(connections: usize) -> Result<Self, SetupError> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::channel();
        let live = move || {
            let is_made = make(connections);
            let goes_on = is_made.is_ok();
            let _ = ready.send(is_made);
            if goes_on {
                todo.into_iter().for_each(|job| job());
            }
        };
        let thread = thread::Builder::new().name("namespace".to_owned()).spawn(live).map_err(SetupError::Namespace)?;
        let inside = Inside { jobs: Some(jobs), thread: Some(thread), blocks: AtomicU16::new(0) };
        made.recv().unwrap_or_else(|_| Err(SetupError::Namespace(ErrorKind::BrokenPipe.into())))?;
        Ok(Self(Arc::new(inside)))
    }

    /// Runs something on the thread inside. Sockets, threads and processes that it makes stay inside.
    ///
    /// # Errors
    /// When it panics.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (done, result) = mpsc::sync_channel(1);
        let job = move || {
            // Its panic must not end the thread that keeps the namespace and all processes in it.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let _ = done.send(outcome.ok());
        };
        let jobs = self.0.jobs.as_ref().ok_or(ErrorKind::BrokenPipe)?;
        jobs.send(Box::new(job)).map_err(|_| ErrorKind::BrokenPipe)?;
        result.recv().ok().flatten().ok_or_else(|| ErrorKind::BrokenPipe.into())
    }

    /// Starts a server inside and waits until it says `ready`, see [`Server`].
    ///
    /// # Errors
    /// When it cannot be run, ends, or says nothing for half a minute.
    pub fn spawn_server(&self, command: &[String]) -> Result<Server, SetupError> {
        self.launch_server(Launch { command, stop: &AtomicBool::new(false), shown: true })
    }

    /// The same, in this way.
    ///
    /// # Errors
    /// The same, and [`SetupError::Stopped`].
    pub fn launch_server(&self, launch: Launch<'_>) -> Result<Server, SetupError> {
        Server::spawn(self, launch, Enclosure::IfGranted)
    }

    /// Takes a block of addresses that no device has.
    pub(super) fn take_block(&self) -> Result<Taken, SetupError> {
        let taken = self.0.blocks.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
            (taken != u16::MAX).then_some(taken | (taken + 1))
        });
        let taken = taken.map_err(|_| SetupError::TooManyDevices)?;
        // The lowest bit that was not set.
        let block = u8::try_from(taken.trailing_ones()).unwrap_or(0);
        Ok(Taken { block, namespace: self.clone() })
    }
}

/// A block of addresses, which others may have after this value.
#[derive(Debug)]
pub(super) struct Taken {
    block: u8,
    namespace: Namespace,
}

impl Taken {
    pub(super) const fn block(&self) -> u8 {
        self.block
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.namespace.0.blocks.fetch_and(!(1 << self.block), Ordering::AcqRel);
    }
}

const _: () = assert!(plan::DEVICES_MAX as u32 == u16::BITS);

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").field("blocks", &self.0.blocks).finish_non_exhaustive()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Moves this thread into a namespace of its own and sets that up.
fn make(connections: usize) -> Result<(), SetupError> {
    network::enter_new_network().map_err(SetupError::Namespace)?;
    // The size of a namespace's table of connections is set in the one it is made from. That is one of our own, so that
    // the machine's is left alone; it goes when this thread leaves it. Kernels before 6.1 have one table for all.
    let buckets = connections.clamp(BUCKETS_MIN, BUCKETS_MAX).next_power_of_two();
    set("net/ipv4/tcp_child_ehash_entries", &buckets.to_string())?;
    network::enter_new_network().map_err(SetupError::Namespace)?;
    for (name, value) in SETTINGS {
        set(name, value)?;
    }
    // The second address of a device needs a name of its own with these calls.
    let host = Ipv4Addr::BROADCAST;
    let inside = |what: &str| {
        let what = what.to_owned();
        move |error| SetupError::Inside { what, error }
    };
    Device::new("lo").and_then(|lo| lo.up()).map_err(inside("loopback device"))?;
    Device::new("lo:1").and_then(|lo| lo.set_address(plan::SERVER, host)).map_err(inside("the server's address"))
}

/// Writes a setting of this thread's namespace.
fn set(name: &str, value: &str) -> Result<(), SetupError> {
    match fs::write(format!("/proc/sys/{name}"), value) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(SetupError::Inside { what: name.replace('/', "."), error })
        }
        _ => Ok(()),
    }
}

/// Makes the device of a block in this thread's namespace, with that many packets to wait in it.
pub(super) fn make_device(block: u8, mtu: u16, queue: i32) -> Result<fs::File, SetupError> {
    let name = format!("holdline{block}");
    let file = make_named(&name).map_err(SetupError::Tun)?;
    let addresses = Block::new(block);
    let set_up = |device: Device<'_>| {
        device.set_mtu(mtu)?;
        // Before it is up: the queueing discipline that it then gets takes its length from here.
        set_queue(&device, queue)?;
        device.set_address(addresses.device(), Block::mask())?;
        device.up()
    };
    Device::new(&name).and_then(set_up).map_err(|error| SetupError::Inside { what: name, error })?;
    Ok(file)
}

/// Makes a device, after the one that had its name is gone. That is when its last descriptor is closed, and a process that
/// another thread of this one is just starting has them all, until it runs its own program.
fn make_named(name: &str) -> io::Result<fs::File> {
    let deadline = Instant::now() + NAME_PATIENCE;
    loop {
        match network::make_tun(name) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(NAME_PAUSE);
            }
            made => return made,
        }
    }
}

/// Makes the queue as long as the kernel lets it be, which takes 2^19 packets (6.18): it is one array of 4 MiB.
fn set_queue(device: &Device<'_>, mut packets: i32) -> io::Result<()> {
    while let Err(error) = device.set_queue(packets) {
        if packets <= QUEUE_MIN {
            return Err(error);
        }
        packets /= 2;
    }
    Ok(())
}
