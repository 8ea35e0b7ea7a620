//! What connections cost the kernel: slab caches before and after.

use std::collections::BTreeMap;
use std::{fs, io};

use super::results::Kernel;
use crate::common::sys;

/// Caches that grow and shrink with files, processes and mappings, and those of what is under way: no part of a
/// connection that is open and idle.
const FOREIGN: &[&str] = &[
    "ext4",
    "jbd2",
    "btrfs",
    "xfs",
    "erofs",
    "fuse",
    "ovl",
    "f2fs",
    "nfs",
    "fat_",
    "squashfs",
    "buffer_head",
    "extent_status",
    "radix_tree",
    "xarray",
    "proc_inode",
    "inode_cache",
    "shmem",
    "kernfs",
    "sysfs",
    "vm_area",
    "anon_vma",
    "maple_node",
    "vmap_area",
    "task_",
    "mm_",
    "signal_cache",
    "sighand",
    "pid",
    "cred",
    "names_cache",
    "bio",
    "request_queue",
    "blkdev",
    "kmalloc-rcl",
    "mnt_cache",
    "trace_",
    "ftrace",
    "debug_objects",
    "memdup",
    // Connections that are no longer or not yet.
    "tw_sock_",
    "request_sock_",
];
const PAGE: f64 = 4096.0;

/// A look at the kernel's memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// Bytes by cache: objects in use, with their share of what the slabs leave unused.
    caches: BTreeMap<String, f64>,
    available: u64,
    /// TCP sockets of the whole machine.
    sockets: f64,
}

impl Look {
    /// Reads `/proc/slabinfo`, which only root may, and `/proc/meminfo`.
    pub(crate) fn now() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/slabinfo").map_err(|error| {
            io::Error::new(error.kind(), format!("/proc/slabinfo: {error}, kernel memory needs root"))
        })?;
        Ok(Self { caches: caches(&text), available: sys::available_memory(), sockets: sockets(&text) })
    }

    /// What has grown since an earlier look, for each of so many connections.
    pub(crate) fn since(&self, before: &Self, connections: u64) -> Kernel {
        let each = |bytes: f64| bytes / connections.max(1) as f64;
        let old = |name: &String| before.caches.get(name).copied().unwrap_or(0.0);
        let grown: BTreeMap<String, f64> =
            self.caches.iter().map(|(name, bytes)| (name.clone(), each(bytes - old(name)))).collect();
        let round = |bytes: f64| (bytes * 10.0).round() / 10.0;
        Kernel {
            sockets: ((self.sockets - before.sockets) / connections.max(1) as f64 * 1e4).round() / 1e4,
            slab: round(grown.values().sum()),
            caches: grown
                .into_iter()
                .filter(|(_, bytes)| bytes.abs() >= 1.0)
                .map(|(name, it)| (name, round(it)))
                .collect(),
            available: round(each(before.available as f64 - self.available as f64)),
        }
    }
}

/// `name active_objs num_objs objsize objperslab pagesperslab : ...`
fn caches(slabinfo: &str) -> BTreeMap<String, f64> {
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next().filter(|name| !FOREIGN.iter().any(|foreign| name.starts_with(foreign)))?;
        let numbers: Vec<f64> = words.take(5).map_while(|word| word.parse().ok()).collect();
        let [active, _, _, per_slab, pages] = numbers[..] else { return None };
        Some((name.to_owned(), active * pages * PAGE / per_slab.max(1.0)))
    };
    slabinfo.lines().filter_map(read).collect()
}

/// Objects of the cache `TCP`.
fn sockets(slabinfo: &str) -> f64 {
    let line = slabinfo.lines().find_map(|line| line.strip_prefix("TCP "));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
