//! What the kernel says of this process: memory, processor time, descriptors.

use std::path::Path;

use super::tree::{Limit, Tree};

/// What a process uses. What cannot be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Memory that is resident, bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, bytes.
    pub virtual_bytes: Option<u64>,
    /// Processor time so far, user and system, seconds.
    pub cpu_seconds: Option<f64>,
    /// When it was started, Unix time, seconds.
    pub start_seconds: Option<f64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors. Kernels before 6.2 know them only one by one, and nobody counts a million.
    pub open_files: Option<u64>,
    /// How many it may have; `None` also when there is no limit.
    pub open_files_max: Option<u64>,
}

impl Process {
    /// This one, now.
    #[must_use]
    pub fn now() -> Self {
        Self::read(&Tree::new(Path::new("/")))
    }

    fn read(tree: &Tree) -> Self {
        // Of `pid (name) state ppid ...` the name may have anything in it.
        let stat = tree.text("proc/self/stat").unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        // Numbers of proc(5), which begin with the pid as 1; what is left begins with the state, 3.
        let field = |number: usize| fields.get(number - 3).and_then(|word| word.parse::<u64>().ok());
        let ticks = field(14).zip(field(15)).map(|(user, system)| user + system);
        let boot = tree.field("proc/stat", "btime");
        let started = field(22).zip(boot).map(|(ticks, boot)| seconds_of(ticks) + whole(boot));
        let kib = |name| tree.field("proc/self/status", name).map(|kib| kib.saturating_mul(1024));
        let limits = tree.text("proc/self/limits").unwrap_or_default();
        let files_max = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        Self {
            resident_bytes: kib("VmRSS"),
            virtual_bytes: field(23),
            cpu_seconds: ticks.map(seconds_of),
            start_seconds: started,
            threads: field(20),
            open_files: tree.size("proc/self/fd").filter(|count| *count > 0),
            open_files_max: match files_max.map(Limit::parse) {
                Some(Limit::At(files)) => Some(files),
                _ => None,
            },
        }
    }
}

/// Of `USER_HZ`, which Linux has as 100 on all that it runs on today.
fn seconds_of(ticks: u64) -> f64 {
    whole(ticks) / 100.0
}

#[allow(clippy::cast_precision_loss, reason = "times in this universe are far below 2^53")]
const fn whole(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::super::testing::FakeTree;
    use super::*;

    #[test]
    fn this_process_has_memory_time_and_descriptors() {
        let process = Process::now();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{process:?}");
        assert!(process.virtual_bytes >= process.resident_bytes);
        assert!(process.cpu_seconds.is_some() && process.threads.is_some_and(|threads| threads > 0));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        assert!(process.start_seconds.is_some_and(|start| start > now - 86400.0 && start <= now + 2.0), "{process:?}");
        assert!(process.open_files.is_none_or(|files| files >= 3));
    }

    #[test]
    fn a_name_may_have_anything_in_it_and_what_is_not_there_is_unknown() {
        let stat = "7 (a) R) 9 (b) S 1 7 7 0 -1 0 1 2 3 4 250 50 0 0 20 0 5 0 1000 4096 12 99\n";
        let tree =
            FakeTree::new("process").file("proc/self/stat", stat).file("proc/stat", "cpu 1 2\nbtime 1700000000\n");
        let process = Process::read(&tree.tree());
        assert_eq!((process.cpu_seconds, process.threads, process.virtual_bytes), (Some(3.0), Some(5), Some(4096)));
        assert_eq!((process.start_seconds, process.resident_bytes), (Some(1_700_000_010.0), None));
        let tree = tree.file("proc/self/status", "VmRSS:\t     100 kB\n");
        let limits = "Limit    Soft Limit   Hard Limit   Units\nMax open files            1024     4096     files\n";
        let tree = tree.file("proc/self/limits", limits);
        let process = Process::read(&tree.tree());
        assert_eq!((process.resident_bytes, process.open_files_max), (Some(102_400), Some(1024)));
        let nothing = Process::read(&FakeTree::new("no-process").tree());
        assert_eq!(nothing, Process { open_files: nothing.open_files, ..Process::default() });
    }
}
