//! What the machine says of itself in /proc and /sys: the memory that is left, the limits of control groups.
//!
//! Everything is read from a root that a test can choose. What cannot be read is unknown, and never a panic.

mod cgroup;
mod process;
#[cfg(test)]
pub(crate) mod testing;
mod tree;

use std::path::Path;

pub use self::cgroup::{Cgroups, Level};
pub(crate) use self::cgroup::{memory_levels, tightest};
pub use self::process::Process;
pub use self::tree::Limit;
pub(crate) use self::tree::{Tree, field};

/// The longest queue of new connections that it is worth while to ask for, as `tuning/` sets `net.core.somaxconn`.
pub const BACKLOG: u64 = 65_535;

/// Bytes of memory that the kernel has to give.
pub(crate) fn available_bytes(tree: &Tree) -> Option<u64> {
    tree.field("proc/meminfo", "MemAvailable").map(|kib| kib.saturating_mul(1024))
}

/// Bytes that this process can still use: what the kernel has, or what the tightest memory control group above the
/// process has left, if that is less. `None` when nothing is known.
#[must_use]
pub fn free_bytes() -> Option<u64> {
    free_bytes_of(&Tree::new(Path::new("/")))
}

fn free_bytes_of(tree: &Tree) -> Option<u64> {
    let levels = memory_levels(tree);
    let room = tightest(&levels).map_or(Limit::Unknown, Level::room);
    match room.min(Limit::of(available_bytes(tree))) {
        Limit::At(bytes) => Some(bytes),
        Limit::Unlimited | Limit::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::testing::FakeTree;
    use super::*;

    #[test]
    fn the_kernel_or_the_tightest_group_says_how_much_memory_is_left() {
        let text = "MemTotal:       24683528 kB\nMemFree:         5751020 kB\nMemAvailable:   24053448 kB\n";
        let tree = FakeTree::new("free").file("proc/meminfo", text);
        assert_eq!(free_bytes_of(&tree.tree()), Some(24_053_448 * 1024));
        let tree = tree
            .file("proc/self/cgroup", "0::/a\n")
            .file("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
            .file("sys/fs/cgroup/a/memory.max", "max\n")
            .file("sys/fs/cgroup/a/memory.current", "700\n");
        assert_eq!(free_bytes_of(&tree.tree()), Some(24_053_448 * 1024), "no limit");
        let tree = tree.file("sys/fs/cgroup/a/memory.max", "1000\n");
        assert_eq!(free_bytes_of(&tree.tree()), Some(300));
        let tree = tree.file("sys/fs/cgroup/a/memory.stat", "anon 500\nactive_file 50\ninactive_file 150\n");
        assert_eq!(free_bytes_of(&tree.tree()), Some(500));
        assert_eq!(free_bytes_of(&FakeTree::new("nothing").tree()), None);
        assert!(free_bytes().is_some_and(|bytes| bytes > 1024 * 1024), "this machine says what it has");
    }
}
