//! Limits of control groups, version 1 and 2: every level up to the mount counts, the smallest is the one.

use super::tree::{Limit, Tree, field};

/// One level of the hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The file with the limit.
    pub file: String,
    /// What it says, bytes or tasks.
    pub limit: Limit,
    /// What of it is in use and cannot be taken back.
    pub used: u64,
}

impl Level {
    /// What is left.
    #[must_use]
    pub fn room(&self) -> Limit {
        self.limit.map(|limit| limit.saturating_sub(self.used))
    }
}

/// What bounds this process together with its neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Memory, bytes. Kernel memory of sockets is charged here too.
    pub memory: Vec<Level>,
    /// Tasks.
    pub pids: Vec<Level>,
    /// Cores' worth of processor time, in hundredths; `None`: all there is.
    pub cpu_percent: Option<u64>,
}

/// The level with the least room.
#[must_use]
pub(crate) fn tightest(levels: &[Level]) -> Option<&Level> {
    let rank = |level: &Level| match level.room() {
        Limit::At(room) => (0, room),
        Limit::Unknown => (1, 0),
        Limit::Unlimited => (2, 0),
    };
    levels.iter().min_by_key(|level| rank(level))
}

/// A hierarchy deeper than this is cut off at its top.
const LEVELS_MAX: usize = 64;
/// Version 1 says "no limit" with a number of about 2^63.
const V1_UNLIMITED: u64 = 1 << 62;

/// What bounds this process's memory, level by level.
pub(crate) fn memory_levels(tree: &Tree) -> Vec<Level> {
    folders(tree, "memory").iter().flat_map(|folder| memory_level(tree, folder)).collect()
}

impl Cgroups {
    pub(crate) fn read(tree: &Tree) -> Self {
        let folders = |controller: &str| folders(tree, controller);
        let (pids, cpu) = (folders("pids"), folders("cpu"));
        Self {
            memory: memory_levels(tree),
            pids: pids.iter().map(|folder| pids_level(tree, folder)).collect(),
            cpu_percent: cpu.iter().filter_map(|folder| cpu_percent(tree, folder)).min(),
        }
    }
}

fn memory_level(tree: &Tree, folder: &str) -> Vec<Level> {
    let number = |name: &str| tree.number(&format!("{folder}/{name}"));
    let stat = tree.text(&format!("{folder}/memory.stat")).unwrap_or_default();
    let sum = |keys: &[&str]| -> u64 {
        keys.iter().filter_map(|key| field(&stat, key)?.parse::<u64>().ok()).fold(0, u64::saturating_add)
    };
    let level = |name: &str, used: u64| {
        let file = format!("{folder}/{name}");
        let limit = match tree.limit_if_there(&file) {
            Limit::At(limit) if limit >= V1_UNLIMITED => Limit::Unlimited,
            limit => limit,
        };
        Level { file, limit, used }
    };
    if tree.exists(&format!("{folder}/memory.limit_in_bytes")) {
        let cache = sum(&["total_inactive_file", "total_active_file"]);
        let used = number("memory.usage_in_bytes").unwrap_or(0).saturating_sub(cache);
        return vec![level("memory.limit_in_bytes", used)];
    }
    let cache = sum(&["inactive_file", "active_file", "slab_reclaimable"]);
    let used = number("memory.current").unwrap_or(0).saturating_sub(cache);
    // Above memory.high every allocation waits for memory to be freed, and that of sockets cannot be freed.
    vec![level("memory.max", used), level("memory.high", used)]
}

fn pids_level(tree: &Tree, folder: &str) -> Level {
    let file = format!("{folder}/pids.max");
    let used = tree.number(&format!("{folder}/pids.current")).unwrap_or(0);
    Level { limit: tree.limit_if_there(&file), file, used }
}

fn cpu_percent(tree: &Tree, folder: &str) -> Option<u64> {
    let number = |name: &str| tree.text(&format!("{folder}/{name}"))?.trim().parse::<u64>().ok();
    let (quota, period) = match tree.text(&format!("{folder}/cpu.max")) {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse().ok()?, period.parse().ok()?)
        }
        None => (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?),
    };
    u64::checked_div(quota.saturating_mul(100), period)
}

/// The folders in which `controller` bounds this process, innermost first.
fn folders(tree: &Tree, controller: &str) -> Vec<String> {
    let own = tree.text("proc/self/cgroup").unwrap_or_default();
    let mounts = tree.text("proc/self/mountinfo").unwrap_or_default();
    let listed =
        |line: &&str| line.split(':').nth(1).is_some_and(|list| list.split(',').any(|name| name == controller));
    let (kind, path) = match own.lines().find(listed) {
        Some(line) => ("cgroup", line.splitn(3, ':').nth(2)),
        None => ("cgroup2", own.lines().find_map(|line| line.strip_prefix("0::"))),
    };
    let Some(path) = path else { return Vec::new() };
    let Some((root, point)) = mounts.lines().find_map(|line| mount(line, kind, controller)) else { return Vec::new() };
    // A container may see its own group as the root, or its parents' as `..`, which lead nowhere from here.
    let inside = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
    let inside: Vec<&str> = inside.split('/').filter(|part| !part.is_empty()).collect();
    let inside = if inside.contains(&"..") { &[][..] } else { &inside[..inside.len().min(LEVELS_MAX)] };
    (0..=inside.len()).rev().map(|depth| [&[point][..], &inside[..depth]].concat().join("/")).collect()
}

/// Root and mount point of a line of proc_pid_mountinfo(5), if it mounts `controller`.
fn mount<'a>(line: &'a str, kind: &str, controller: &str) -> Option<(&'a str, &'a str)> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let (found, options) = (right.next()?, right.nth(1).unwrap_or(""));
    let fits = found == kind && (kind == "cgroup2" || options.split(',').any(|name| name == controller));
    fits.then_some((root, point.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::FakeTree;

    const V2_MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_smallest_of_nested_groups_counts() {
        let tree = FakeTree::new("nested")
            .file("proc/self/cgroup", "0::/a.slice/b.service\n")
            .file("proc/self/mountinfo", V2_MOUNT)
            .file("sys/fs/cgroup/a.slice/memory.max", "536870912\n")
            .file("sys/fs/cgroup/a.slice/memory.high", "max\n")
            .file("sys/fs/cgroup/a.slice/memory.current", "100000000\n")
            .file("sys/fs/cgroup/a.slice/memory.stat", "anon 7\nactive_file 10000000\ninactive_file 20000000\n")
            .file("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n")
            .file("sys/fs/cgroup/a.slice/b.service/memory.high", "900000000\n")
            .file("sys/fs/cgroup/a.slice/b.service/pids.max", "50\n")
            .file("sys/fs/cgroup/a.slice/b.service/pids.current", "8\n")
            .file("sys/fs/cgroup/a.slice/cpu.max", "150000 100000\n")
            .file("sys/fs/cgroup/a.slice/b.service/cpu.max", "max 100000\n");
        let found = Cgroups::read(&tree.tree());
        let memory = tightest(&found.memory).cloned().unwrap_or_default();
        assert_eq!((memory.file.as_str(), memory.used), ("/sys/fs/cgroup/a.slice/memory.max", 70_000_000));
        assert_eq!(memory.room(), Limit::At(466_870_912));
        assert_eq!(tightest(&found.pids).map(Level::room), Some(Limit::At(42)));
        assert_eq!(found.cpu_percent, Some(150));
    }

    #[test]
    fn version_one_in_a_container_is_read_from_its_own_mount() {
        let tree = FakeTree::new("v1")
            .file("proc/self/cgroup", "8:pids:/docker/x\n4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n0::/\n")
            .file(
                "proc/self/mountinfo",
                "31 30 0:1 /docker/x /sys/fs/cgroup/memory ro shared:9 - cgroup cgroup rw,memory\n\
                 32 30 0:2 /docker/x /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n",
            )
            .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n")
            .file("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n")
            .file("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 400\n")
            .file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
        let found = Cgroups::read(&tree.tree());
        let file = "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned();
        assert_eq!(found.memory, [Level { file, limit: Limit::At(268_435_456), used: 600 }]);
        assert_eq!((found.pids.len(), found.cpu_percent), (0, None));
    }

    #[test]
    fn no_limit_and_nonsense_are_no_limit() {
        let tree = FakeTree::new("odd")
            .file("proc/self/cgroup", "4:memory:/../../x\nnonsense\n")
            .file("proc/self/mountinfo", "nonsense\n35 31 0:32 / /m rw - cgroup cgroup rw,memory\n")
            .file("m/memory.limit_in_bytes", "9223372036854771712\n");
        let found = Cgroups::read(&tree.tree());
        assert_eq!(found.memory.iter().map(|level| level.limit).collect::<Vec<_>>(), [Limit::Unlimited]);
        assert_eq!(Cgroups::read(&FakeTree::new("none").tree()), Cgroups::default());
    }
}
