//! What this machine allows, as it says itself.

use std::path::Path;

use crate::host::{self, Cgroups, Limit, Tree, field};

/// All that the diagnosis is made from. What could not be read is `None` or [`Limit::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's release, such as `6.18.44`.
    pub kernel: Option<String>,
    /// Whether io_uring has what the backend needs, or what is missing, in one line.
    pub uring: Result<(), String>,
    /// Limits and rights of this process.
    pub process: Process,
    /// Files of the whole machine.
    pub files: Files,
    /// Memory of the whole machine.
    pub memory: Memory,
    /// Limits of control groups.
    pub cgroups: Cgroups,
    /// The network's settings.
    pub net: Net,
    /// Connection tracking, if the kernel has it loaded.
    pub conntrack: Option<Conntrack>,
    /// What the kernel reads the time from.
    pub clock: Option<String>,
    /// Whether there is a `/dev/net/tun`.
    pub has_tun: bool,
}

/// Limits and rights of a process; a server that is started the same way gets the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// RLIMIT_NOFILE, soft.
    pub files: Limit,
    /// RLIMIT_NOFILE, hard.
    pub files_hard: Limit,
    /// RLIMIT_MEMLOCK, soft, bytes.
    pub locked: Limit,
    /// RLIMIT_AS, soft, bytes.
    pub address_space: Limit,
    /// RLIMIT_DATA, soft, bytes.
    pub data: Limit,
    /// RLIMIT_NPROC, soft: tasks of this user.
    pub tasks: Limit,
    /// Effective capabilities that count in the whole system: none inside a user namespace.
    pub capabilities: u64,
    /// Cores that it may run on.
    pub cores: Option<u64>,
}

impl Process {
    const IPC_LOCK: u32 = 14;
    const SYS_ADMIN: u32 = 21;
    const SYS_RESOURCE: u32 = 24;

    const fn has(&self, capability: u32) -> bool {
        self.capabilities & 1 << capability != 0
    }

    /// CAP_IPC_LOCK: RLIMIT_MEMLOCK does not apply.
    #[must_use]
    pub const fn may_lock(&self) -> bool {
        self.has(Self::IPC_LOCK)
    }

    /// CAP_SYS_ADMIN: fs.file-max does not apply.
    #[must_use]
    pub const fn may_administer(&self) -> bool {
        self.has(Self::SYS_ADMIN)
    }

    /// CAP_SYS_RESOURCE or CAP_SYS_ADMIN: RLIMIT_NPROC does not apply.
    #[must_use]
    pub const fn may_fork(&self) -> bool {
        self.has(Self::SYS_RESOURCE) || self.has(Self::SYS_ADMIN)
    }
}

/// Files of the whole machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `fs.nr_open`: the highest RLIMIT_NOFILE that can be set.
    pub nr_open: Limit,
    /// `fs.file-max`: open files of the machine. A socket is one, with a descriptor or without.
    pub file_max: Limit,
    /// How many there are.
    pub open: Option<u64>,
    /// `fs.epoll.max_user_watches`: of one user.
    pub epoll_watches: Limit,
}

/// Memory of the whole machine, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All.
    pub total: Option<u64>,
    /// What can be had without swapping.
    pub available: Option<u64>,
    /// Swap that is free; a socket is never swapped out.
    pub swap: Option<u64>,
    /// `vm.overcommit_memory`.
    pub overcommit: Option<u64>,
    /// What may be reserved when that is 2.
    pub commit_limit: Option<u64>,
    /// What is reserved.
    pub committed: Option<u64>,
    /// `vm.max_map_count`: mappings of one process.
    pub maps: Limit,
}

/// Settings of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Net {
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub syn_backlog: Option<u64>,
    /// `net.ipv4.tcp_syncookies`.
    pub syncookies: Option<u64>,
    /// `net.core.netdev_max_backlog`.
    pub netdev_backlog: Option<u64>,
    /// `net.ipv4.tcp_mem`, pages: saves above the second, drops above the third.
    pub tcp_mem: Vec<u64>,
    /// `net.ipv4.tcp_rmem`, bytes: least, default, most.
    pub rmem: Vec<u64>,
    /// `net.ipv4.tcp_wmem`, bytes: least, default, most.
    pub wmem: Vec<u64>,
    /// `net.ipv4.tcp_max_orphans`.
    pub orphans: Option<u64>,
    /// `net.ipv4.tcp_max_tw_buckets`.
    pub time_wait: Option<u64>,
    /// `net.ipv4.ip_local_port_range`, first and last.
    pub ports: Vec<u64>,
    /// `net.ipv4.tcp_ehash_entries`: buckets of the table of connections.
    pub buckets: Option<u64>,
}

/// Connection tracking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// `net.netfilter.nf_conntrack_max`; 0 is no limit.
    pub max: Limit,
    /// Connections that are tracked now. None at all: no rule asks for it.
    pub count: u64,
    /// `net.netfilter.nf_conntrack_buckets`.
    pub buckets: Option<u64>,
}

impl Facts {
    /// Reads all of it from the `proc`, `sys` and `dev` under `root`. `uring` is what a probe of io_uring said.
    #[must_use]
    pub fn read(root: &Path, uring: Result<(), String>) -> Self {
        let tree = &Tree::new(root);
        let text = |path: &str| tree.text(path).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        Self {
            kernel: text("proc/sys/kernel/osrelease"),
            uring,
            process: process(tree),
            files: files(tree),
            memory: memory(tree),
            cgroups: Cgroups::read(tree),
            net: net(tree),
            conntrack: conntrack(tree),
            clock: text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            has_tun: tree.exists("dev/net/tun"),
        }
    }

    /// Whether the kernel is of this version or later; `None` when it does not say.
    #[must_use]
    pub fn kernel_since(&self, major: u32, minor: u32) -> Option<bool> {
        let mut numbers = self.kernel.as_ref()?.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(version >= (major, minor))
    }
}

fn process(tree: &Tree) -> Process {
    let limits = tree.text("proc/self/limits").unwrap_or_default();
    let status = tree.text("proc/self/status").unwrap_or_default();
    let word = |name: &str, at: usize| {
        let found = limits.lines().find_map(|line| line.strip_prefix(name));
        found.and_then(|rest| rest.split_whitespace().nth(at)).map_or(Limit::Unknown, Limit::parse)
    };
    // In a user namespace of its own a process may have every capability and still is bound by these limits.
    let is_initial = tree.numbers("proc/self/uid_map") == [0, 0, u64::from(u32::MAX)];
    let capabilities = field(&status, "CapEff").and_then(|word| u64::from_str_radix(word, 16).ok());
    Process {
        files: word("Max open files", 0),
        files_hard: word("Max open files", 1),
        locked: word("Max locked memory", 0),
        address_space: word("Max address space", 0),
        data: word("Max data size", 0),
        tasks: word("Max processes", 0),
        capabilities: capabilities.filter(|_| is_initial).unwrap_or(0),
        cores: field(&status, "Cpus_allowed_list").and_then(cores),
    }
}

/// How many a list such as `0-3,8` has.
fn cores(list: &str) -> Option<u64> {
    let count = |range: &str| -> Option<u64> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        Some(u64::from(last.checked_sub(first)?) + 1)
    };
    list.split(',').try_fold(0, |sum, range| Some(sum + count(range.trim())?))
}

fn files(tree: &Tree) -> Files {
    let file_nr = tree.numbers("proc/sys/fs/file-nr");
    Files {
        nr_open: tree.limit("proc/sys/fs/nr_open"),
        file_max: tree.limit("proc/sys/fs/file-max"),
        open: file_nr.first().copied(),
        epoll_watches: tree.limit("proc/sys/fs/epoll/max_user_watches"),
    }
}

fn memory(tree: &Tree) -> Memory {
    let kib = |key: &str| tree.field("proc/meminfo", key).map(|kib| kib.saturating_mul(1024));
    Memory {
        total: kib("MemTotal"),
        available: host::available_bytes(tree),
        swap: kib("SwapFree"),
        overcommit: tree.number("proc/sys/vm/overcommit_memory"),
        commit_limit: kib("CommitLimit"),
        committed: kib("Committed_AS"),
        maps: tree.limit("proc/sys/vm/max_map_count"),
    }
}

fn net(tree: &Tree) -> Net {
    let (core, ipv4) = ("proc/sys/net/core", "proc/sys/net/ipv4");
    Net {
        somaxconn: tree.number(&format!("{core}/somaxconn")),
        syn_backlog: tree.number(&format!("{ipv4}/tcp_max_syn_backlog")),
        syncookies: tree.number(&format!("{ipv4}/tcp_syncookies")),
        netdev_backlog: tree.number(&format!("{core}/netdev_max_backlog")),
        tcp_mem: tree.numbers(&format!("{ipv4}/tcp_mem")),
        rmem: tree.numbers(&format!("{ipv4}/tcp_rmem")),
        wmem: tree.numbers(&format!("{ipv4}/tcp_wmem")),
        orphans: tree.number(&format!("{ipv4}/tcp_max_orphans")),
        time_wait: tree.number(&format!("{ipv4}/tcp_max_tw_buckets")),
        ports: tree.numbers(&format!("{ipv4}/ip_local_port_range")),
        // Below zero in a namespace that shares the table of its parent.
        buckets: tree.number(&format!("{ipv4}/tcp_ehash_entries")),
    }
}

fn conntrack(tree: &Tree) -> Option<Conntrack> {
    let folder = "proc/sys/net/netfilter";
    let max = tree.limit_if_there(&format!("{folder}/nf_conntrack_max"));
    (max != Limit::Unlimited).then(|| Conntrack {
        max: if max == Limit::At(0) { Limit::Unlimited } else { max },
        count: tree.number(&format!("{folder}/nf_conntrack_count")).unwrap_or(0),
        buckets: tree.number(&format!("{folder}/nf_conntrack_buckets")),
    })
}
