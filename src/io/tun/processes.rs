//! The processes of a server, which may be more than the one that was started: a script in front of it, workers behind it.
//!
//! They have a PID namespace of their own. Its first process is the one that we start, and when that one ends, however
//! it does, the kernel kills all others: nobody can leave. Where the kernel refuses such a namespace they are a process
//! group, which a process can leave.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Fields of `/proc/PID/stat` behind the name, from the state on.
const STAT_PROCESS_GROUP: usize = 2;
/// Columns of `/proc/PID/net/tcp`.
const TCP_STATE: usize = 3;
const TCP_INODE: usize = 9;
const LISTENS: &str = "0A";

/// All that belong to one server, found by the first of them.
#[derive(Debug)]
pub(super) struct Processes {
    /// The first, which leads the process group, by its number out here.
    leader: Pid,
    /// The PID namespace of their own.
    namespace: Option<PathBuf>,
}

impl Processes {
    /// Those that the child `leader` has begun. It must not have been waited for.
    pub(super) fn of(leader: Pid, is_contained: bool) -> Self {
        let namespace = is_contained.then(|| fs::read_link(file(number(leader), "ns/pid")).ok()).flatten();
        Self { leader, namespace }
    }

    /// Whether the kernel ends them all with the first.
    pub(super) const fn are_contained(&self) -> bool {
        self.namespace.is_some()
    }

    /// Whether nobody runs any more, the first having ended.
    pub(super) fn are_gone(&self) -> bool {
        self.are_contained() || self.all().is_empty()
    }

    /// The numbers of all that can be found now, ascending.
    fn all(&self) -> BTreeSet<u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(|pid| self.has(*pid)).collect()
    }

    fn has(&self, pid: u32) -> bool {
        match &self.namespace {
            Some(namespace) => fs::read_link(file(pid, "ns/pid")).is_ok_and(|at| at == *namespace),
            None => self.is_in_group(pid),
        }
    }

    fn is_in_group(&self, pid: u32) -> bool {
        let stat = fs::read_to_string(file(pid, "stat")).unwrap_or_default();
        // The name in parentheses may hold spaces.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = rest.split_whitespace();
        let is_running = fields.next().is_some_and(|state| state != "Z");
        is_running && fields.nth(STAT_PROCESS_GROUP - 1) == Some(&number(self.leader).to_string())
    }

    /// The one that listens, by its number out here; the first of them when that cannot be seen.
    pub(super) fn listener(&self) -> u32 {
        let leader = number(self.leader);
        let tables = ["net/tcp", "net/tcp6"].map(|table| fs::read_to_string(file(leader, table)).unwrap_or_default());
        let sockets: BTreeSet<_> = tables.iter().flat_map(|table| table.lines()).filter_map(listening).collect();
        let listens = |pid: &u32| {
            let descriptors = fs::read_dir(file(*pid, "fd")).into_iter().flatten().flatten();
            let mut ends = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
            ends.any(|end| end.to_str().is_some_and(|end| sockets.contains(end)))
        };
        self.all().into_iter().find(listens).unwrap_or(leader)
    }

    /// Asks them to end, each once: a second signal means haste to many.
    pub(super) fn ask_to_end(&self) {
        let _ = kill_process_group(self.leader, Signal::TERM);
        let others = self.all().into_iter().filter(|pid| !self.is_in_group(*pid));
        for other in others.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = kill_process(other, Signal::TERM);
        }
    }

    /// Makes them. The first must not have been waited for, or its number may be another's by now.
    pub(super) fn kill(&self) {
        let _ = kill_process_group(self.leader, Signal::KILL);
        let _ = kill_process(self.leader, Signal::KILL);
    }

    /// Whether asking is in vain: the first process of a namespace does not end by a signal that it does not handle, and
    /// nobody else is left who could end.
    pub(super) fn are_deaf(&self) -> bool {
        self.are_contained() && !handles_term(number(self.leader)) && self.all().len() <= 1
    }
}

/// Whether SIGTERM is caught, or waited for with the signal blocked.
fn handles_term(pid: u32) -> bool {
    let status = fs::read_to_string(file(pid, "status")).unwrap_or_default();
    let has_term = |line: &str| {
        let mask = line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigBlk:"))?;
        let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
        Some(mask >> (Signal::TERM.as_raw() - 1) & 1 == 1)
    };
    status.lines().filter_map(has_term).any(|has| has)
}

/// What a link to this socket reads, if it listens.
fn listening(line: &str) -> Option<String> {
    let columns: Vec<_> = line.split_whitespace().collect();
    let inode = columns.get(TCP_INODE).filter(|_| columns.get(TCP_STATE) == Some(&LISTENS))?;
    Some(format!("socket:[{inode}]"))
}

fn file(pid: u32, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

pub(super) fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::net::TcpListener;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn who_listens_is_found_by_its_socket() {
        let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let me = std::process::id();
        let group = rustix::process::getpgrp();
        let processes = Processes { leader: group, namespace: None };
        assert!(processes.all().contains(&me));
        let mine = Processes { leader: rustix::process::getpid(), namespace: fs::read_link("/proc/self/ns/pid").ok() };
        assert!(mine.has(me) && mine.are_contained());
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        assert_eq!(listening(line).as_deref(), Some("socket:[4711]"));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn who_handles_a_signal_is_told_from_who_does_not() {
        let spawn = |script: &str| {
            let mut command = Command::new("bash");
            command.args(["-c", script]).process_group(0).stdout(std::process::Stdio::piped()).spawn().unwrap()
        };
        for (script, handles) in [("trap : TERM; echo; read", true), ("echo; read", false)] {
            let mut child = spawn(script);
            let mut byte = [0; 1];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
            assert_eq!(handles_term(child.id()), handles, "{script}");
            Processes::of(Pid::from_child(&child), false).kill();
            child.wait().unwrap();
        }
    }
}
