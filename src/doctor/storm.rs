//! What happens when all clients come, speak or leave at once, and what is good to know.

use super::amount::{bytes, count, several};
use super::descriptors::{PAGE, sysctl};
use super::{Amount, Check, Facts, Needs, Verdict, room};
use crate::host::BACKLOG;

/// A burst that one CPU may have to keep: as `tuning/` sets it.
const BURST: u64 = 65_535;
/// Connections in one chain of the kernel's hash table from which on it shows.
const CHAIN_MAX: u64 = 4;
/// Clocks that are read without a system call.
const FAST_CLOCKS: [&str; 5] =
    ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "riscv_clocksource"];

pub(super) fn checks(facts: &Facts, needs: &Needs) -> Vec<Check> {
    let mut checks = coming(facts, needs);
    checks.extend([pages(facts, needs)]);
    checks.extend(leaving(facts, needs));
    checks.push(buckets(facts, needs));
    checks.extend(tracked_buckets(facts, needs));
    checks
}

/// All come at once.
fn coming(facts: &Facts, needs: &Needs) -> Vec<Check> {
    let net = &facts.net;
    let share = needs.connections.div_ceil(needs.shards.max(1));
    let queue = share.min(BACKLOG);
    let words =
        format!("{} / {}, {} at most", count(needs.connections), several(needs.shards, "shard"), count(BACKLOG));
    let accept = Check::storm("accept queue", "net.core.somaxconn", net.somaxconn, queue)
        .because(format!("{words}; a full one drops connections, which try again a second later"))
        .mended_by(|| sysctl("net.core.somaxconn", BACKLOG));
    let syn = Check::storm("unfinished handshakes", "net.ipv4.tcp_max_syn_backlog", net.syn_backlog, queue);
    let syn = if net.syncookies.is_some_and(|level| level > 0) {
        Check { verdict: Verdict::Ok, ..syn }.because(format!("{words}; SYN cookies (on) take over when it is full"))
    } else {
        syn.because(format!("{words}; SYN cookies are off")).mended_by(|| {
            format!("sysctl -w net.ipv4.tcp_syncookies=1 && {}", sysctl("net.ipv4.tcp_max_syn_backlog", BACKLOG))
        })
    };
    let burst = Check::storm(
        "burst of packets",
        "net.core.netdev_max_backlog",
        net.netdev_backlog,
        needs.connections.min(BURST),
    )
    .because(format!("one packet of each, {} at most; over loopback, TUN and veth only", count(BURST)))
    .mended_by(|| sysctl("net.core.netdev_max_backlog", BURST));
    vec![accept, syn, burst]
}

/// All have something to read or to send: each holds a page.
fn pages(facts: &Facts, needs: &Needs) -> Check {
    let saving = facts.net.tcp_mem.get(1).copied();
    // As `tuning/` counts: what the connections themselves leave, a page for each of them taken off.
    let free = facts.memory.total.map_or(u64::MAX, |total| (total / PAGE).saturating_sub(needs.connections));
    let needed = needs.connections.min(free / 4).max(1);
    let values = format!("'{} {needed} {}'", needed / 2, needed.saturating_add(needed / 2));
    Check::storm("pages of TCP", "net.ipv4.tcp_mem, second", saving, needed)
        .because(format!(
            "4 KiB for each of {} connections with unread or unsent data, a quarter at most of the memory that they \
             leave; above it the kernel saves",
            count(needs.connections)
        ))
        .mended_by(|| sysctl("net.ipv4.tcp_mem", values))
}

/// All leave at once.
fn leaving(facts: &Facts, needs: &Needs) -> [Check; 2] {
    let net = &facts.net;
    // No more than a page of memory in four, as `tuning/` has it.
    let needed = needs.connections.min(facts.memory.total.map_or(u64::MAX, |total| total / PAGE / 4)).max(1);
    let orphans = Check::storm("closed with unsent data", "net.ipv4.tcp_max_orphans", net.orphans, needed)
        .because("all connections in a drain; above it the kernel resets them and last words are lost")
        .mended_by(|| sysctl("net.ipv4.tcp_max_orphans", needed));
    let time_wait = Check::storm("TIME_WAIT", "net.ipv4.tcp_max_tw_buckets", net.time_wait, needed)
        .because("all connections in a drain; above it they are forgotten early")
        .mended_by(|| sysctl("net.ipv4.tcp_max_tw_buckets", needed));
    [orphans, time_wait]
}

/// The kernel's table of connections has a size fixed at boot.
fn buckets(facts: &Facts, needs: &Needs) -> Check {
    let buckets = facts.net.buckets;
    let needed = needs.connections.div_ceil(CHAIN_MAX);
    let size = needed.checked_next_power_of_two().unwrap_or(needed).clamp(1, 1 << 24);
    let chain = buckets.map_or_else(String::new, |buckets| {
        let tenths = needs.connections.saturating_mul(10) / buckets.max(1);
        format!("; now {}.{}", tenths / 10, tenths % 10)
    });
    Check::storm("hash table of connections", "net.ipv4.tcp_ehash_entries", buckets, needed)
        .because(format!("{} / {CHAIN_MAX} in a chain{chain}", count(needs.connections)))
        .mended_by(|| {
            format!(
                "sysctl -w net.ipv4.tcp_child_ehash_entries={size}  # then serve in a network namespace made after that; \
                 or boot with thash_entries={size}"
            )
        })
}

fn tracked_buckets(facts: &Facts, needs: &Needs) -> Option<Check> {
    let conntrack = facts.conntrack.as_ref().filter(|conntrack| conntrack.count > 0)?;
    let needed = needs.connections.div_ceil(CHAIN_MAX);
    let check = Check::storm("hash table of tracking", "net.netfilter.nf_conntrack_buckets", conntrack.buckets, needed);
    let check = check.because(format!("{} / {CHAIN_MAX} in a chain", count(needs.connections)));
    Some(check.mended_by(|| sysctl("net.netfilter.nf_conntrack_buckets", needed)))
}

/// Nothing to compare with, but good to know.
pub(super) fn notes(facts: &Facts, needs: &Needs) -> Vec<Check> {
    let mut notes = vec![buffers(facts), ports(facts, needs), room::cores(facts), clock(facts)];
    let swap = facts.memory.swap.map_or(Amount::Unknown, Amount::Bytes);
    notes.push(Check::note("swap", "SwapFree", swap, "sockets are never swapped out; it does not add connections"));
    notes.push(tun(facts));
    notes
}

/// What `swarm --via tun` is built on.
fn tun(facts: &Facts) -> Check {
    let now = Amount::Words(if facts.has_tun { "there" } else { "not there" }.to_owned());
    let rights = if facts.process.may_administer() { "which this user may make" } else { "which takes CAP_SYS_ADMIN" };
    let words = format!("for load tests whose clients live outside the kernel, in a namespace, {rights}");
    Check::note("TUN device", "/dev/net/tun", now, words)
}

fn buffers(facts: &Facts) -> Check {
    let most = |sizes: &[u64]| sizes.get(2).copied();
    let both = most(&facts.net.rmem).zip(most(&facts.net.wmem));
    let now =
        both.map_or(Amount::Unknown, |(read, write)| Amount::Words(format!("{} + {}", bytes(read), bytes(write))));
    Check::note("socket buffers", "net.ipv4.tcp_rmem, tcp_wmem", now, "most for one connection; an idle one has none")
}

fn ports(facts: &Facts, needs: &Needs) -> Check {
    let [first, last] = facts.net.ports[..] else {
        return Check::note("client ports", "net.ipv4.ip_local_port_range", Amount::Unknown, "");
    };
    let ports = last.saturating_sub(first).saturating_add(1);
    let words = format!(
        "for clients on this machine only: {} from one address to one address and port, so N take {} such addresses at least",
        count(ports),
        count(needs.connections.div_ceil(ports))
    );
    Check::note("client ports", "net.ipv4.ip_local_port_range", Amount::Words(format!("{first}-{last}")), words)
}

fn clock(facts: &Facts) -> Check {
    let Some(clock) = &facts.clock else {
        return Check::note("clock", "clocksource", Amount::Unknown, "");
    };
    let check = Check::note("clock", "clocksource", Amount::Words(clock.clone()), "read once in a turn of a shard");
    if FAST_CLOCKS.contains(&clock.as_str()) {
        return check;
    }
    let file = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    Check { verdict: Verdict::Slow, ..check }.mended_by(|| format!("echo tsc > {file}  # if the machine has it"))
}
