//! Walls of each backend: descriptors, rings and what is charged for them.

use super::amount::{count, several};
use super::{Amount, Check, Facts, Limit, Needs};
use crate::io::epoll::DESCRIPTORS_RESERVED;

/// A table of direct descriptors has no more slots (IORING_MAX_FIXED_FILES).
const SLOTS_MAX: u64 = 1 << 20;
/// Rings of one shard at most: `io::uring` names a ring with 12 bits, one value of which is taken.
const RINGS_PER_SHARD_MAX: u64 = 4095;
/// Pages that the kernel charges for one ring: 8 for 512 submissions of 64 bytes, 17 for 4,096 completions of 16 bytes
/// and the head, 1 for the ring of buffers that busy connections receive into. Measured without the last, Linux 6.18:
/// 8 MiB are enough for 81 rings.
pub(super) const RING_PAGES: u64 = 26;
pub(super) const PAGE: u64 = 4096;
/// How a command begins that sets what `tuning/holdline-tune` sets too.
pub(super) const SYSCTL: &str = "sysctl -w ";
/// Descriptors of a shard beside its rings: two eventfds, and its listeners.
const SHARD_DESCRIPTORS: u64 = 4;
/// Mappings: two for a ring's queues, two for its buffers.
const RING_MAPS: u64 = 4;
/// Mappings of the program itself; 59 were counted.
const MAPS_RESERVED: u64 = 256;

/// Slots of a ring: as many as RLIMIT_NOFILE, which the kernel compares with each ring's table.
pub(super) fn slots(facts: &Facts) -> u64 {
    match facts.process.files {
        Limit::At(files) => files.clamp(1, SLOTS_MAX),
        Limit::Unlimited => SLOTS_MAX,
        // The least that is common.
        Limit::Unknown => 1024,
    }
}

/// Rings that hold `connections` however they are spread over the shards: each shard may have one that is not full.
fn rings(connections: u64, slots: u64, shards: u64) -> u64 {
    shards.saturating_add(connections / slots)
}

/// Connections for which that many rings are enough, the reverse of [`rings`].
fn held_by(rings: u64, slots: u64, shards: u64) -> u64 {
    match rings.checked_sub(shards) {
        Some(spare) => spare.saturating_add(1).saturating_mul(slots).saturating_sub(1),
        None => 0,
    }
}

/// What bounds epoll alone.
pub(super) fn epoll(facts: &Facts, needs: &Needs) -> Vec<Check> {
    let descriptors = needs.connections.saturating_add(DESCRIPTORS_RESERVED);
    let stops_at = facts.process.files.map(|files| files.saturating_sub(DESCRIPTORS_RESERVED));
    let files = Check::wall("open files", "RLIMIT_NOFILE", stops_at, needs)
        .amounts(Amount::count(facts.process.files), Amount::Count(descriptors))
        .because(format!("{} connections + {DESCRIPTORS_RESERVED} for all else", count(needs.connections)))
        .mended_by(|| raise_files(facts, descriptors));
    let needed = needs.connections.saturating_add(16);
    let stops_at = facts.files.epoll_watches.map(|watches| watches.saturating_sub(16));
    let watches = Check::wall("epoll watches of a user", "fs.epoll.max_user_watches", stops_at, needs)
        .amounts(Amount::count(facts.files.epoll_watches), Amount::Count(needed))
        .because(format!("{} connections + 16 for all else", count(needs.connections)))
        .mended_by(|| sysctl("fs.epoll.max_user_watches", needed));
    vec![files, watches]
}

/// What bounds io_uring alone.
pub(super) fn uring(facts: &Facts, needs: &Needs) -> Vec<Check> {
    vec![
        interface(facts, needs),
        ring_files(facts, needs),
        ring_tables(facts, needs),
        locked(facts, needs),
        maps(facts, needs),
    ]
}

fn interface(facts: &Facts, needs: &Needs) -> Check {
    let stops_at = if facts.uring.is_ok() { Limit::Unlimited } else { Limit::At(0) };
    let (now, why) = match &facts.uring {
        Ok(()) => ("ready", "it was tried and has all that the backend needs"),
        Err(missing) => ("missing", missing.as_str()),
    };
    Check::wall("io_uring", "Linux 6.7 or later", stops_at, needs)
        .amounts(Amount::Words(now.to_owned()), Amount::Words("ready".to_owned()))
        .because(why)
        .mended_by(|| interface_mend(why))
}

/// The probe's word ends with what to do, which is a command behind `run:`.
fn interface_mend(why: &str) -> String {
    let epoll = "serve --backend epoll";
    match (why.split_once("run: "), why.rsplit_once("; ")) {
        (Some((_, command)), _) => format!("{command}  # or {epoll}"),
        (None, Some((_, mend))) => format!("holdline {epoll}  # otherwise: {mend}"),
        (None, None) => format!("holdline {epoll}"),
    }
}

/// A row for `auto` when it had to take epoll.
pub(super) fn fallback(facts: &Facts) -> Option<Check> {
    let missing = facts.uring.as_ref().err()?;
    let now = Amount::Words("missing".to_owned());
    let note = Check::note("io_uring", "Linux 6.7 or later", now, format!("auto takes epoll: {missing}"));
    let command = missing.split_once("run: ").map(|(_, command)| command.to_owned());
    Some(Check { mend: command, ..note })
}

fn ring_files(facts: &Facts, needs: &Needs) -> Check {
    let slots = slots(facts);
    let fixed = DESCRIPTORS_RESERVED.saturating_add(SHARD_DESCRIPTORS.saturating_mul(needs.shards));
    let rings_needed = rings(needs.connections, slots, needs.shards);
    let stops_at = facts.process.files.map(|files| held_by(files.saturating_sub(fixed), slots, needs.shards));
    let arithmetic = format!(
        "{} / {} slots of a ring + {} = {}, + {fixed} for all else; connections take slots, not descriptors",
        count(needs.connections),
        count(slots),
        several(needs.shards, "shard"),
        several(rings_needed, "ring")
    );
    let needed = rings_needed.saturating_add(fixed);
    Check::wall("open files", "RLIMIT_NOFILE", stops_at, needs)
        .amounts(Amount::count(facts.process.files), Amount::Count(needed))
        .because(arithmetic)
        .mended_by(|| {
            raise_files(facts, root_above(needs.connections).saturating_add(fixed).saturating_add(needs.shards))
        })
}

/// The rings of one shard, which must be able to hold everybody.
fn ring_tables(facts: &Facts, needs: &Needs) -> Check {
    let slots = slots(facts);
    let stops_at = match facts.process.files {
        Limit::Unknown => Limit::Unknown,
        _ => Limit::At(RINGS_PER_SHARD_MAX.saturating_mul(slots).saturating_sub(1)),
    };
    let needed = needs.connections.saturating_add(1).div_ceil(slots);
    Check::wall("rings of a shard", format!("{} slots each", count(slots)), stops_at, needs)
        .amounts(Amount::Count(RINGS_PER_SHARD_MAX), Amount::Count(needed))
        .because(format!("({} connections + 1) / {} slots, rounded up", count(needs.connections), count(slots)))
        .mended_by(|| raise_files(facts, needs.connections.saturating_add(1).div_ceil(RINGS_PER_SHARD_MAX)))
}

/// The memory of rings is charged to RLIMIT_MEMLOCK up to Linux 5.11, and again since 6.14 (measured on 6.18): per user,
/// and only without CAP_IPC_LOCK.
fn locked(facts: &Facts, needs: &Needs) -> Check {
    let slots = slots(facts);
    let is_charged = !facts.process.may_lock() && facts.kernel_since(6, 14).unwrap_or(true);
    let affordable = facts.process.locked.map(|locked| locked / (RING_PAGES * PAGE));
    let stops_at =
        if is_charged { affordable.map(|rings| held_by(rings, slots, needs.shards)) } else { Limit::Unlimited };
    let rings = rings(needs.connections, slots, needs.shards);
    let needed = rings.saturating_mul(RING_PAGES * PAGE);
    let arithmetic = match (is_charged, facts.process.may_lock()) {
        (true, _) => format!("{} x {RING_PAGES} pages; counts for the user, not the process", several(rings, "ring")),
        (false, true) => "CAP_IPC_LOCK: it does not apply".to_owned(),
        (false, false) => "Linux 5.12 to 6.13 do not charge rings".to_owned(),
    };
    Check::wall("locked memory", "RLIMIT_MEMLOCK", stops_at, needs)
        .amounts(Amount::bytes(facts.process.locked), if is_charged { Amount::Bytes(needed) } else { Amount::None })
        .because(arithmetic)
        .mended_by(|| {
            let keep = format!("as root, or LimitMEMLOCK={needed} in the unit of the service, see tuning/");
            format!("prlimit --pid $$ --memlock={needed}  # {keep}")
        })
}

fn maps(facts: &Facts, needs: &Needs) -> Check {
    let slots = slots(facts);
    let rings_of = |maps: u64| maps.saturating_sub(MAPS_RESERVED) / RING_MAPS;
    let stops_at = facts.memory.maps.map(|maps| held_by(rings_of(maps), slots, needs.shards));
    let rings = rings(needs.connections, slots, needs.shards);
    let needed = rings.saturating_mul(RING_MAPS).saturating_add(MAPS_RESERVED);
    Check::wall("memory mappings", "vm.max_map_count", stops_at, needs)
        .amounts(Amount::count(facts.memory.maps), Amount::Count(needed))
        .because(format!("{} x {RING_MAPS} + {MAPS_RESERVED}", several(rings, "ring")))
        .mended_by(|| sysctl("vm.max_map_count", needed))
}

/// What RLIMIT_NOFILE must be so that its square is above that many.
fn root_above(connections: u64) -> u64 {
    connections.isqrt().saturating_add(1)
}

/// How a process gets to have more files, from what its hard limit and the system's allow.
fn raise_files(facts: &Facts, needed: u64) -> String {
    let keep = format!("or LimitNOFILE={needed} in the unit of the service, see tuning/");
    let raise = if facts.process.files_hard.is_below(needed) {
        format!("prlimit --pid $$ --nofile={needed}  # as root, {keep}")
    } else {
        format!("ulimit -n {needed}  # {keep}")
    };
    match facts.files.nr_open.is_below(needed) {
        true => format!("sysctl -w fs.nr_open={needed} && {raise}"),
        false => raise,
    }
}

/// The command that sets a value until the next boot.
pub(super) fn sysctl(name: &str, value: impl std::fmt::Display) -> String {
    format!("{SYSCTL}{name}={value}")
}

/// Open files of the whole machine, which bound both.
pub(super) fn machine_files(facts: &Facts, needs: &Needs) -> Check {
    let others = facts.files.open.unwrap_or(0).saturating_add(DESCRIPTORS_RESERVED);
    let needed = needs.connections.saturating_add(others);
    let sum = format!("{} connections + {} of all others", count(needs.connections), count(others));
    let is_exempt = facts.process.may_administer();
    let (stops_at, words) = if is_exempt {
        (Limit::Unlimited, format!("{sum}; with CAP_SYS_ADMIN it does not stop the server, but all who are without"))
    } else {
        (facts.files.file_max.map(|max| max.saturating_sub(others)), sum)
    };
    Check::wall("open files of the machine", "fs.file-max", stops_at, needs)
        .amounts(Amount::count(facts.files.file_max), Amount::Count(needed))
        .because(words)
        .slow_if(is_exempt && facts.files.file_max.is_below(needed))
        .mended_by(|| sysctl("fs.file-max", needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_and_what_they_hold_are_each_others_reverse() {
        for (slots, shards) in [(1, 1), (10, 2), (1024, 3), (20_000, 64)] {
            assert_eq!(held_by(shards - 1, slots, shards), 0);
            for count in shards..shards + 50 {
                let held = held_by(count, slots, shards);
                assert_eq!(rings(held, slots, shards), count);
                assert_eq!(rings(held + 1, slots, shards), count + 1);
            }
        }
        assert_eq!(held_by(u64::MAX, u64::MAX, 0), u64::MAX - 1);
    }
}
