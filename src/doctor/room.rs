//! Walls of both backends: memory, what may be reserved of it, tracked connections, tasks.

use super::amount::{bytes, count, several};
use super::descriptors::{PAGE, RING_PAGES, machine_files, slots, sysctl};
use super::{Amount, Check, Facts, Limit, Needs, Verdict};
use crate::config::BackendChoice;
use crate::host::{Level, tightest};

/// An idle connection in the kernel, slab packing included: tcp_sock 2,521 (13 in eight pages), socket inode 862, file
/// 195, dentry 195, security 56. Linux 6.18, x86-64; counted in /proc/slabinfo.
const SOCKET_BYTES: u64 = 3_829;
/// The part of it that the network makes before anybody has accepted it. Version 1 of control groups does not charge
/// that: 1,592 bytes for a connection on io_uring were measured there, 1,562 on epoll. Version 2 does since Linux 6.12.
const TCP_SOCK_BYTES: u64 = 2_521;
/// Waiting with epoll: epitem 128, wait queue entry 64, list head 16.
const EPOLL_BYTES: u64 = 208;
/// Waiting with a multishot poll on a direct descriptor: request 256, node 32, slot 8.
const URING_BYTES: u64 = 296;
/// The server's own budget. 72 to 90 were measured, with the heap's slack.
const SERVER_BYTES: u64 = 128;
/// A tracked connection: 256 in the slab and as much for its extensions at most.
const CONNTRACK_BYTES: u64 = 512;
/// The program, the log, the admin pages.
const BASE_BYTES: u64 = 16 << 20;
/// Of each shard: buffers, and a ring's table of direct descriptors at its largest (8 MiB).
const SHARD_BYTES: u64 = 16 << 20;
/// Reserved at the start for each connection by each shard, since any of them may get all: a slot of 64 bytes and the
/// backend's 8.
const RESERVED_BYTES: u64 = 72;
/// What the heap reserves for a thread without touching it (glibc).
const ARENA_BYTES: u64 = 64 << 20;
/// Threads beside the shards: main, wait, admin, and one to spare.
const THREADS_RESERVED: u64 = 4;
/// Worker threads that the kernel may start for a shard's rings.
const RING_WORKERS: u64 = 3;

pub(super) fn walls(facts: &Facts, needs: &Needs) -> Vec<Check> {
    let mut walls = vec![memory(facts, needs)];
    walls.extend(tightest(&facts.cgroups.memory).map(|level| cgroup_memory(level, facts, needs)));
    walls.extend([machine_files(facts, needs), commit(facts, needs)]);
    walls.extend([address_space(facts, needs), data(facts, needs)]);
    walls.extend(conntrack(facts, needs));
    walls.push(user_tasks(facts, needs));
    walls.extend(tightest(&facts.cgroups.pids).map(|level| cgroup_tasks(level, needs)));
    walls
}

/// Bytes for each connection, and the words for them.
fn each(facts: &Facts, needs: &Needs, socket: u64) -> (u64, String) {
    let ring = (RING_PAGES * PAGE).div_ceil(slots(facts));
    let mut terms = vec![(socket, "socket")];
    match needs.backend {
        BackendChoice::Epoll => terms.push((EPOLL_BYTES, "epoll")),
        BackendChoice::Uring | BackendChoice::Auto => terms.extend([(URING_BYTES, "io_uring"), (ring, "rings")]),
    }
    terms.push((SERVER_BYTES, "server"));
    if facts.conntrack.as_ref().is_some_and(|conntrack| conntrack.count > 0) {
        terms.push((CONNTRACK_BYTES, "conntrack"));
    }
    let words: Vec<String> = terms.iter().map(|(bytes, of)| format!("{} {of}", count(*bytes))).collect();
    (terms.iter().map(|(bytes, _)| bytes).sum(), words.join(" + "))
}

/// A wall of `each` bytes for each connection and `base` for all else, of which there are `room`.
fn bytes_wall(check: (&'static str, &str), room: Limit, each: u64, base: u64, needs: &Needs) -> Check {
    let needed = each.saturating_mul(needs.connections).saturating_add(base);
    let stops_at = room.map(|room| room.saturating_sub(base) / each);
    Check::wall(check.0, check.1, stops_at, needs).amounts(Amount::bytes(room), Amount::Bytes(needed))
}

/// What is needed of memory, as a wall with `room`, when a socket counts as so many bytes.
fn memory_wall(check: (&'static str, &str), room: Limit, socket: u64, facts: &Facts, needs: &Needs) -> Check {
    let (each, words) = each(facts, needs, socket);
    let base = SHARD_BYTES.saturating_mul(needs.shards).saturating_add(BASE_BYTES);
    let check = bytes_wall(check, room, each, base, needs);
    let busy = each.saturating_mul(needs.connections).saturating_add(base).saturating_add(needs.more_bytes());
    let arithmetic = format!(
        "{} x ({words}) + {} for {}; queues may add {} (limits.queue_bytes_total_max), histories {} (history.bytes_total_max)",
        count(needs.connections),
        bytes(base),
        several(needs.shards, "shard"),
        bytes(needs.queue_bytes),
        bytes(needs.history_bytes)
    );
    check.because(arithmetic).slow_if(room.is_below(busy))
}

fn memory(facts: &Facts, needs: &Needs) -> Check {
    let room = Limit::of(facts.memory.available);
    memory_wall(("memory", "MemAvailable"), room, SOCKET_BYTES, facts, needs).mended_by(|| {
        let total = facts.memory.total.map_or_else(String::new, |total| format!(" ({} now)", bytes(total)));
        format!("# no command does: more memory{total}, or less of what else runs; swap does not help")
    })
}

fn cgroup_memory(level: &Level, facts: &Facts, needs: &Needs) -> Check {
    let is_v1 = level.file.ends_with("memory.limit_in_bytes");
    let socket = if is_v1 { SOCKET_BYTES - TCP_SOCK_BYTES } else { SOCKET_BYTES };
    let check = memory_wall(("memory of the control group", &level.file), level.room(), socket, facts, needs);
    let needed = match check.needs {
        Amount::Bytes(needed) => needed.saturating_add(needs.more_bytes()).saturating_add(level.used),
        _ => 0,
    };
    let file = &level.file;
    let limit = Amount::bytes(level.limit).show();
    let words = format!("{}; the limit is {limit}, {} are in use", check.arithmetic, bytes(level.used));
    check.because(words).mended_by(|| {
        format!("echo {needed} > {file}  # or MemoryMax={needed} in the unit, or docker run --memory {needed}")
    })
}

/// With `vm.overcommit_memory = 2` what is reserved counts as if it was used.
fn commit(facts: &Facts, needs: &Needs) -> Check {
    let memory = &facts.memory;
    let room = match (memory.overcommit, memory.commit_limit, memory.committed) {
        (Some(2), Some(limit), Some(committed)) => Limit::At(limit.saturating_sub(committed)),
        (Some(0 | 1), ..) => Limit::Unlimited,
        _ => Limit::Unknown,
    };
    let base = SHARD_BYTES.saturating_mul(needs.shards).saturating_add(BASE_BYTES);
    let tail = if room == Limit::Unlimited { "; only counted when vm.overcommit_memory is 2" } else { "" };
    reserved(("memory to reserve", "vm.overcommit_memory"), room, base, needs, tail)
        .mended_by(|| sysctl("vm.overcommit_memory", 0))
}

fn address_space(facts: &Facts, needs: &Needs) -> Check {
    let base = ARENA_BYTES.saturating_mul(needs.shards.saturating_add(THREADS_RESERVED)).saturating_add(BASE_BYTES);
    reserved(("address space", "RLIMIT_AS"), facts.process.address_space, base, needs, "")
        .mended_by(|| "ulimit -v unlimited  # or LimitAS=infinity in the unit of the service".to_owned())
}

fn data(facts: &Facts, needs: &Needs) -> Check {
    let base = SHARD_BYTES.saturating_mul(needs.shards).saturating_add(BASE_BYTES);
    reserved(("data", "RLIMIT_DATA"), facts.process.data, base, needs, "")
        .mended_by(|| "ulimit -d unlimited  # or LimitDATA=infinity in the unit of the service".to_owned())
}

fn reserved(check: (&'static str, &str), room: Limit, base: u64, needs: &Needs, tail: &str) -> Check {
    let each = RESERVED_BYTES.saturating_mul(needs.shards).max(1);
    let (connections, shards) = (count(needs.connections), several(needs.shards, "shard"));
    bytes_wall(check, room, each, base, needs)
        .because(format!("{connections} x {RESERVED_BYTES} bytes x {shards} + {}{tail}", bytes(base)))
}

/// A full table drops the packets of new connections. It fills only when a rule asks for tracking; a count of zero says
/// that none does.
fn conntrack(facts: &Facts, needs: &Needs) -> Option<Check> {
    let conntrack = facts.conntrack.as_ref()?;
    let needed = needs.connections.saturating_add(conntrack.count);
    let stops_at = match conntrack.count {
        0 => Limit::Unlimited,
        others => conntrack.max.map(|max| max.saturating_sub(others)),
    };
    let check = Check::wall("tracked connections", "net.netfilter.nf_conntrack_max", stops_at, needs)
        .amounts(Amount::count(conntrack.max), Amount::Count(needed));
    let mend = || {
        let command = sysctl("net.netfilter.nf_conntrack_max", needed);
        format!("{command}  # or do not track: iptables -t raw -A PREROUTING -p tcp --dport PORT -j CT --notrack")
    };
    let connections = count(needs.connections);
    Some(match conntrack.count {
        0 => {
            let check =
                check.because(format!("{connections} connections, if a firewall rule tracked them: none does now"));
            check.slow_if(conntrack.max.is_below(needed)).mended_by(mend)
        }
        others => {
            check.because(format!("{connections} connections + {} that are tracked now", count(others))).mended_by(mend)
        }
    })
}

/// Threads, which are as many for ten connections as for ten million.
fn threads(needs: &Needs) -> (u64, String) {
    let workers = if needs.backend == BackendChoice::Epoll { 0 } else { RING_WORKERS };
    let each = workers + 1;
    let words =
        format!("{} x {each} + {THREADS_RESERVED}, for any number of connections", several(needs.shards, "shard"));
    (needs.shards.saturating_mul(each).saturating_add(THREADS_RESERVED), words)
}

fn tasks_wall(what: &'static str, setting: &str, room: Limit, needs: &Needs) -> Check {
    let (needed, words) = threads(needs);
    let stops_at = match room {
        Limit::At(room) if room < needed => Limit::At(0),
        Limit::Unknown => Limit::Unknown,
        _ => Limit::Unlimited,
    };
    Check::wall(what, setting, stops_at, needs).amounts(Amount::count(room), Amount::Count(needed)).because(words)
}

fn user_tasks(facts: &Facts, needs: &Needs) -> Check {
    let room = if facts.process.may_fork() { Limit::Unlimited } else { facts.process.tasks };
    let needed = threads(needs).0;
    tasks_wall("tasks of the user", "RLIMIT_NPROC", room, needs).mended_by(|| {
        format!(
            "ulimit -u {needed}  # and as many as this user runs besides; or LimitNPROC= in the unit of the service"
        )
    })
}

fn cgroup_tasks(level: &Level, needs: &Needs) -> Check {
    let needed = threads(needs).0.saturating_add(level.used);
    tasks_wall("tasks of the control group", &level.file, level.room(), needs)
        .mended_by(|| format!("echo {needed} > {}  # or TasksMax={needed} in the unit", level.file))
}

/// Cores, which bound no number of connections but the number of shards.
pub(super) fn cores(facts: &Facts) -> Check {
    let cores = facts.process.cores.map_or(Amount::Unknown, Amount::Count);
    let quota = facts.cgroups.cpu_percent;
    let words = quota.map_or_else(
        || "one shard for each".to_owned(),
        |percent| format!("one shard for each, with the time of {}.{:02}", percent / 100, percent % 100),
    );
    let check = Check::note("cores", "affinity, cpu.max", cores, words);
    // Less than one whole core is given out in slices of 100 ms with pauses between them.
    Check { verdict: if quota.is_some_and(|percent| percent < 100) { Verdict::Slow } else { check.verdict }, ..check }
}
