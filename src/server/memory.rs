//! How much memory the process may still use: what the kernel has, and what its control groups leave it.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that can be used without swapping: MemAvailable of `/proc/meminfo`, or what the tightest memory control group
/// above the process has left, if that is less. `None` when nothing is known.
pub(super) fn free_bytes() -> Option<u64> {
    let system = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = groups_of(&groups, Path::new("/sys/fs/cgroup"));
    groups.iter().filter_map(|(folder, version)| left_in(folder, *version)).chain(system).min()
}

/// The names that a control group's files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// The memory control groups in the text of cgroups(7), "/proc/pid/cgroup", with all above them. Those that are not
/// mounted here (a container sees its own as the root) are named all the same.
fn groups_of(text: &str, mount: &Path) -> Vec<(PathBuf, Version)> {
    let mut groups = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, version) = if controllers.split(',').any(|controller| controller == "memory") {
            (mount.join("memory"), Version::One)
        } else if number == "0" && controllers.is_empty() {
            (mount.to_owned(), Version::Two)
        } else {
            continue;
        };
        let group = root.join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|folder| folder.starts_with(&root));
        groups.extend(above.map(|folder| (folder.to_owned(), version)));
    }
    groups
}

/// What a group may still use; page cache that has not been used of late counts as free. `None` without a limit.
fn left_in(folder: &Path, version: Version) -> Option<u64> {
    let (max, current, inactive) = match version {
        Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
        Version::Two => ("memory.max", "memory.current", "inactive_file "),
    };
    let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    let (max, current) = (number(max)?, number(current)?);
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok());
    Some(max.saturating_sub(current.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn the_kernels_own_estimate_counts() {
        let text = "MemTotal:       24683528 kB\nMemFree:         5751020 kB\nMemAvailable:   24053448 kB\n";
        assert_eq!(mem_available(text), Some(24_053_448 * 1024));
        assert_eq!(mem_available("MemTotal: 1 kB\n"), None);
        assert!(free_bytes().is_some_and(|bytes| bytes > 1024 * 1024), "this machine says what it has");
    }

    #[test]
    fn groups_of_both_versions_are_found_with_those_above() {
        let text = "5:devices:/x\n4:cpu,memory:/a/b\n1:name=systemd:/\n0::/c\n";
        let found: Vec<_> = groups_of(text, Path::new("/m"))
            .into_iter()
            .map(|(path, version)| (path.display().to_string(), version))
            .collect();
        let expected = [
            ("/m/memory/a/b", Version::One),
            ("/m/memory/a", Version::One),
            ("/m/memory/", Version::One),
            ("/m/c", Version::Two),
            ("/m", Version::Two),
        ];
        let same = |((is, kind), (path, version)): (&(String, Version), (&str, Version))| {
            is.trim_end_matches('/') == path.trim_end_matches('/') && *kind == version
        };
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(same), "{found:?}");
    }

    #[test]
    fn the_rest_of_a_group_is_its_limit_without_what_is_in_use() {
        let folder = std::env::temp_dir().join(format!("holdline-memory-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |file: &str, text: &str| fs::write(folder.join(file), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(left_in(&folder, Version::Two), None, "no limit");
        write("memory.max", "1000\n");
        assert_eq!(left_in(&folder, Version::Two), Some(300));
        write("memory.stat", "anon 500\nactive_file 50\ninactive_file 150\n");
        assert_eq!(left_in(&folder, Version::Two), Some(450));
        assert_eq!(left_in(&folder, Version::One), None, "other names");
        fs::remove_dir_all(&folder).unwrap();
    }
}
