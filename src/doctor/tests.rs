//! Whole machines as trees of files, and what is said about them.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::host::testing::FakeTree;

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     \n\
Max data size             unlimited            unlimited            bytes     \n\
Max processes             96365                96365                processes \n\
Max open files            20000                20000                files     \n\
Max locked memory         8388608              8388608              bytes     \n\
Max address space         unlimited            unlimited            bytes     \n";

/// Two cores, 24 GiB, root: roomy in all but descriptors.
fn machine(name: &str) -> FakeTree {
    FakeTree::new(name)
        .file("proc/sys/kernel/osrelease", "6.18.44-generic\n")
        .file("proc/self/limits", LIMITS)
        .file("proc/self/status", "CapEff:\t000001fffeffffff\nCpus_allowed_list:\t0-1\n")
        .file("proc/self/uid_map", "         0          0 4294967295\n")
        .file("proc/sys/fs/nr_open", "1048576\n")
        .file("proc/sys/fs/file-max", "9223372036854775807\n")
        .file("proc/sys/fs/file-nr", "595\t0\t9223372036854775807\n")
        .file("proc/sys/fs/epoll/max_user_watches", "5491511\n")
        .file("proc/meminfo", "MemTotal: 24684084 kB\nMemAvailable: 23950948 kB\nSwapFree: 0 kB\n")
        .file("proc/sys/vm/overcommit_memory", "0\n")
        .file("proc/sys/vm/max_map_count", "65530\n")
        .file("proc/sys/net/core/somaxconn", "65535\n")
        .file("proc/sys/net/core/netdev_max_backlog", "65535\n")
        .file("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048\n")
        .file("proc/sys/net/ipv4/tcp_syncookies", "1\n")
        .file("proc/sys/net/ipv4/tcp_mem", "287898\t383867\t575796\n")
        .file("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432\n")
        .file("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n")
        .file("proc/sys/net/ipv4/tcp_max_orphans", "131072\n")
        .file("proc/sys/net/ipv4/tcp_max_tw_buckets", "131072\n")
        .file("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")
        .file("proc/sys/net/ipv4/tcp_ehash_entries", "262144\n")
        .file("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
}

const USER: &str = "CapEff:\t0000000000000000\nCpus_allowed_list:\t0-1\n";

fn needs(connections: u64, backend: BackendChoice) -> Needs {
    Needs { connections, backend, shards: 0, queue_bytes: 0, history_bytes: 0 }
}

fn look(tree: &FakeTree, connections: u64, backend: BackendChoice) -> Diagnosis {
    diagnose(&Facts::read(tree.root(), Ok(())), &needs(connections, backend))
}

fn check<'a>(diagnosis: &'a Diagnosis, what: &str) -> &'a Check {
    diagnosis.checks.iter().find(|check| check.what == what).unwrap_or_else(|| panic!("{what} is not in {diagnosis}"))
}

fn mend(check: &Check) -> &str {
    check.mend.as_deref().unwrap()
}

#[test]
fn a_machine_with_room_holds_a_million_on_io_uring_and_says_what_is_slow() {
    let found = look(&machine("roomy"), 1_000_000, BackendChoice::Auto);
    assert!(found.fits && found.warning().is_none());
    assert_eq!((found.backend, found.shards), ("uring", 2));
    let memory = check(&found, "memory");
    // 3,829 + 296 + 128, and 26 pages for each 20,000.
    assert_eq!(memory.needs, Amount::Bytes(4_259 * 1_000_000 + (48 << 20)));
    assert_eq!(found.stops_at, Limit::At((23_950_948 * 1024 - (48 << 20)) / 4_259));
    assert_eq!(found.because.as_deref(), Some("memory, MemAvailable"));
    let slow: Vec<&str> =
        found.checks.iter().filter(|check| check.verdict == Verdict::Slow).map(|check| check.what).collect();
    assert_eq!(slow, ["pages of TCP", "closed with unsent data", "TIME_WAIT"]);
    assert_eq!(mend(check(&found, "TIME_WAIT")), "sysctl -w net.ipv4.tcp_max_tw_buckets=1000000");
    assert!(found.to_string().ends_with(
        "1,000,000 fit; what is slow shows when all clients come, speak or leave at once\n\
         most of that is set by tuning/holdline-tune apply --connections 1000000 (and kept with --persist)\n"
    ));
}

#[test]
fn what_the_tuning_script_sets_is_enough_for_the_doctor() {
    for connections in [10_000, 1_000_000, 5_000_000] {
        let tree = machine("tuned").file("proc/sys/net/core/somaxconn", "4096\n");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/holdline-tune");
        let mut tune = std::process::Command::new("bash");
        tune.args([script, "apply", "--connections", &connections.to_string(), "--root"]).arg(tree.root());
        let output = tune.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let found = look(&tree, connections, BackendChoice::Uring);
        let left = found.checks.iter().filter_map(|check| check.mend.as_deref());
        let left: Vec<&str> = left.filter(|mend| mend.starts_with("sysctl -w ")).collect();
        let is_boots = |mend: &str| mend.contains("tcp_child_ehash_entries");
        assert!(left.iter().all(|mend| is_boots(mend)), "{connections}: {left:?}");
    }
}

#[test]
fn epoll_in_a_small_container_ends_at_its_descriptors() {
    let limits = LIMITS.replace("20000                20000 ", "1024                 524288");
    let tree = machine("small").file("proc/self/limits", &limits);
    let found = look(&tree, 10_000, BackendChoice::Epoll);
    assert_eq!((found.fits, found.stops_at), (false, Limit::At(704)));
    let files = check(&found, "open files");
    assert_eq!((files.verdict, mend(files).starts_with("ulimit -n 10320  # ")), (Verdict::TooSmall, true));
    let warning = found.warning().unwrap();
    assert!(warning.contains("10,000 connections do not fit here: epoll ends at 704 (open files, RLIMIT_NOFILE)"));
    assert!(warning.ends_with("see `holdline doctor --connections 10000`") && !warning.contains('\n'), "{warning}");
    // Above the hard limit, and above what any limit can be.
    let found = look(&tree, 2_000_000, BackendChoice::Epoll);
    assert!(
        mend(check(&found, "open files"))
            .starts_with("sysctl -w fs.nr_open=2000320 && prlimit --pid $$ --nofile=2000320  # as root, ")
    );
}

#[test]
fn a_control_group_of_512_mib_ends_it() {
    let tree = machine("cgroup")
        .file("proc/self/cgroup", "0::/docker.slice/x\n")
        .file("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
        .file("sys/fs/cgroup/docker.slice/x/memory.max", "536870912\n")
        .file("sys/fs/cgroup/docker.slice/x/memory.current", "20000000\n")
        .file("sys/fs/cgroup/docker.slice/x/pids.max", "10\n");
    let found = look(&tree, 200_000, BackendChoice::Uring);
    assert!(!found.fits);
    let memory = check(&found, "memory of the control group");
    assert_eq!(memory.stops_at, Limit::At((536_870_912 - 20_000_000 - (48 << 20)) / 4_259));
    assert!(mend(memory).contains("/sys/fs/cgroup/docker.slice/x/memory.max  # or MemoryMax="), "{}", mend(memory));
    // Twelve threads do not fit into ten, for one connection or a million.
    assert_eq!(check(&found, "tasks of the control group").stops_at, Limit::At(0));
    // Six do, and then descriptors are the wall.
    assert_eq!(look(&tree, 1, BackendChoice::Epoll).stops_at, Limit::At(19_680));
}

#[test]
fn version_one_of_control_groups_does_not_charge_all_of_a_socket() {
    let tree = machine("cgroup-v1")
        .file("proc/self/cgroup", "4:memory:/x\n0::/\n")
        .file("proc/self/mountinfo", "35 31 0:32 / /m rw - cgroup cgroup rw,memory\n")
        .file("m/x/memory.limit_in_bytes", "104857600\n");
    let found = look(&tree, 50_000, BackendChoice::Uring);
    assert_eq!((found.fits, found.stops_at), (false, Limit::At((52 << 20) / (4_259 - 2_521))));
}

#[test]
fn a_full_table_of_tracked_connections_is_a_wall_and_an_empty_one_is_not() {
    let tree = machine("conntrack").file("proc/sys/net/netfilter/nf_conntrack_max", "262144\n");
    let full = tree.file("proc/sys/net/netfilter/nf_conntrack_count", "262144\n");
    let found = look(&full, 1_000, BackendChoice::Epoll);
    assert_eq!((found.fits, found.stops_at), (false, Limit::At(0)));
    let tracked = check(&found, "tracked connections");
    assert!(mend(tracked).starts_with("sysctl -w net.netfilter.nf_conntrack_max=263144  # or "));
    assert!(check(&found, "memory").arithmetic.contains(" + 512 conntrack)"));
    let empty = full.file("proc/sys/net/netfilter/nf_conntrack_count", "0\n");
    assert_eq!(check(&look(&empty, 1_000, BackendChoice::Epoll), "tracked connections").verdict, Verdict::Ok);
    let found = look(&empty, 300_000, BackendChoice::Uring);
    assert_eq!((found.fits, check(&found, "tracked connections").verdict), (true, Verdict::Slow));
    let unbounded = empty.file("proc/sys/net/netfilter/nf_conntrack_max", "0\n");
    assert_eq!(check(&look(&unbounded, 300_000, BackendChoice::Uring), "tracked connections").verdict, Verdict::Ok);
}

#[test]
fn without_io_uring_auto_takes_epoll_and_uring_ends_at_nothing() {
    let tree = machine("old").file("proc/sys/kernel/osrelease", "5.15.0-91\n");
    for (missing, command) in [
        (
            crate::io::uring::Missing::Interface,
            "holdline serve --backend epoll  # otherwise: it needs Linux 6.7 or later, built with",
        ),
        (crate::io::uring::Missing::Disabled(2), "sysctl -w kernel.io_uring_disabled=0  # or serve --backend epoll"),
        (
            crate::io::uring::Missing::Memory,
            "holdline serve --backend epoll  # otherwise: raise the limit (ulimit -l unlimited",
        ),
    ] {
        let facts = Facts::read(tree.root(), Err(missing.to_string()));
        let found = diagnose(&facts, &needs(10_000, BackendChoice::Auto));
        assert_eq!((found.fits, found.backend, found.stops_at), (true, "epoll", Limit::At(19_680)));
        assert_eq!(check(&found, "io_uring").verdict, Verdict::Note);
        let found = diagnose(&facts, &needs(10_000, BackendChoice::Uring));
        assert_eq!((found.fits, found.stops_at), (false, Limit::At(0)));
        assert!(mend(check(&found, "io_uring")).starts_with(command), "{found}");
        assert!(found.to_string().contains("\nuring does not work here: io_uring, "));
    }
}

#[test]
fn rings_are_charged_to_a_user_without_rights_since_linux_6_14() {
    let tree = machine("locked").file("proc/self/status", USER);
    let found = look(&tree, 1_000_000, BackendChoice::Uring);
    // 78 rings of 26 pages are in 8 MiB; one shard's last one may be empty.
    assert_eq!(check(&found, "locked memory").stops_at, Limit::At(77 * 20_000 - 1));
    assert_eq!(check(&found, "locked memory").needs, Amount::Bytes(52 * 26 * 4096));
    let found = look(&tree, 2_000_000, BackendChoice::Uring);
    assert_eq!(
        (found.fits, mend(check(&found, "locked memory")).starts_with("prlimit --pid $$ --memlock=10862592  # ")),
        (false, true)
    );
    let tree = tree.file("proc/sys/kernel/osrelease", "6.8.0-40-generic\n");
    assert_eq!(check(&look(&tree, 2_000_000, BackendChoice::Uring), "locked memory").stops_at, Limit::Unlimited);
}

#[test]
fn capabilities_inside_a_user_namespace_do_not_lift_limits() {
    let tree = machine("namespace").file("proc/self/uid_map", "0 100000 65536\n");
    let facts = Facts::read(tree.root(), Ok(()));
    assert!(!facts.process.may_lock() && !facts.process.may_administer() && !facts.process.may_fork());
    let facts = Facts::read(machine("root").root(), Ok(()));
    assert!(facts.process.may_lock() && facts.process.may_administer() && facts.process.may_fork());
}

#[test]
fn strict_overcommit_counts_what_is_reserved() {
    let meminfo =
        "MemTotal: 24684084 kB\nMemAvailable: 23950948 kB\nCommitLimit: 1048576 kB\nCommitted_AS: 524288 kB\n";
    let tree = machine("strict").file("proc/meminfo", meminfo).file("proc/sys/vm/overcommit_memory", "2\n");
    let found = look(&tree, 10_000_000, BackendChoice::Uring);
    assert_eq!(check(&found, "memory to reserve").stops_at, Limit::At(((512 << 20) - (48 << 20)) / 144));
    assert!(mend(check(&found, "memory to reserve")).starts_with("sysctl -w vm.overcommit_memory=0"));
}

#[test]
fn what_cannot_be_read_is_unknown_and_stops_nothing() {
    let unreadable = FakeTree::new("unreadable");
    let unreadable = ["proc/self/limits", "proc/meminfo", "proc/sys/fs/file-nr", "proc/self/cgroup"]
        .iter()
        .fold(unreadable, |tree, path| tree.unreadable(path));
    let nonsense = machine("nonsense")
        .file("proc/self/limits", "Max open files many\nMax processes\n")
        .file("proc/meminfo", "MemAvailable: -1 kB\nMemTotal:\n")
        .file("proc/self/status", "CapEff:\tzz\nCpus_allowed_list:\t9-1,x\n")
        .file("proc/sys/net/ipv4/ip_local_port_range", "60999 x\n")
        .file("proc/sys/kernel/osrelease", "six\n");
    for tree in [FakeTree::new("empty"), unreadable, nonsense] {
        for backend in [BackendChoice::Auto, BackendChoice::Epoll] {
            let found = look(&tree, 10_000, backend);
            assert!(found.fits && found.shards == 1);
            assert_eq!(check(&found, "memory").verdict, Verdict::Unknown);
            assert_eq!(check(&found, "open files").verdict, Verdict::Unknown);
            assert!(found.to_string().contains("what is unknown could not be read and was not counted"));
        }
    }
}

#[test]
fn json_has_the_documented_shape() {
    let found = look(&machine("json"), 50_000, BackendChoice::Epoll);
    let json: serde_json::Value = serde_json::to_value(&found).unwrap();
    assert_eq!(
        (&json["connections"], &json["fits"], &json["stops_at"]),
        (&50_000.into(), &false.into(), &19_680.into())
    );
    assert_eq!(
        (&json["backend"], &json["shards"], &json["because"]),
        (&"epoll".into(), &2.into(), &"open files, RLIMIT_NOFILE".into())
    );
    assert_eq!(json["backends"][1]["stops_at"], 19_680);
    let files = &json["checks"][0];
    assert_eq!(
        (&files["what"], &files["now"], &files["needs"]),
        (&"open files".into(), &20_000.into(), &50_320.into())
    );
    assert_eq!((&files["verdict"], &files["setting"]), (&"too_small".into(), &"RLIMIT_NOFILE".into()));
    assert!(files["mend"].as_str().unwrap().contains("50320") && files["arithmetic"].is_string());
    let address_space =
        json["checks"].as_array().unwrap().iter().find(|check| check["what"] == "address space").unwrap();
    assert_eq!((&address_space["now"], &address_space["stops_at"]), (&"unlimited".into(), &"unlimited".into()));
}

/// Every limit that can end it, at these values.
fn bounded(limits: &[u64; 14]) -> Facts {
    let [files, locked, space, data, tasks, file_max, watches, available, commit, maps, cgroup, high, pids, tracked] =
        limits.map(Limit::At);
    let mut facts = Facts::read(FakeTree::new("bounded").root(), Ok(()));
    facts.process = Process { files, locked, address_space: space, data, tasks, ..facts.process };
    facts.files = Files { file_max, epoll_watches: watches, open: Some(100), ..facts.files };
    let number = |limit: Limit| if let Limit::At(number) = limit { Some(number) } else { None };
    facts.memory = Memory {
        available: number(available),
        commit_limit: number(commit),
        committed: Some(1 << 20),
        overcommit: Some(2),
        maps,
        ..facts.memory
    };
    let level = |limit, used| Level { file: "/x".to_owned(), limit, used };
    facts.cgroups.memory = vec![level(cgroup, 1 << 20), level(high, 1 << 19)];
    facts.cgroups.pids = vec![level(pids, 3)];
    facts.conntrack = Some(Conntrack { max: tracked, count: 5, buckets: None });
    facts
}

proptest! {
    #[test]
    fn raising_any_limit_never_lowers_a_ceiling(
        limits in prop::array::uniform14(prop_oneof![0_u64..100, 100_u64..100_000, 100_000_u64..1 << 36, Just(u64::MAX)]),
        which in 0_usize..14,
        more in prop_oneof![1_u64..10, 1_u64..1 << 40],
        shards in 0_u64..70,
        connections in 1_u64..100_000_000,
    ) {
        let mut raised = limits;
        raised[which] = raised[which].saturating_add(more);
        let needs = Needs { shards, ..needs(connections, BackendChoice::Auto) };
        let ceilings = |limits| diagnose(&bounded(limits), &needs).backends.into_iter().map(|it| it.stops_at);
        for (before, after) in ceilings(&limits).zip(ceilings(&raised)) {
            let (Limit::At(before), Limit::At(after)) = (before, after) else { panic!("{before:?} {after:?}") };
            prop_assert!(before <= after, "{before} fell to {after}");
        }
    }

    #[test]
    fn the_verdict_is_the_ceilings_and_numbers_of_any_size_are_told(
        limits in prop::array::uniform14(prop_oneof![0_u64..100_000, 0_u64..1 << 40, Just(u64::MAX)]),
        shards in 0_u64..2000,
        connections in prop_oneof![1_u64..100_000_000, Just(u64::MAX)],
    ) {
        let needs = Needs { shards, queue_bytes: u64::MAX, ..needs(connections, BackendChoice::Uring) };
        let found = diagnose(&bounded(&limits), &needs);
        prop_assert_eq!(found.fits, !found.stops_at.is_below(connections));
        prop_assert_eq!(found.fits, found.checks.iter().all(|check| check.verdict != Verdict::TooSmall));
        prop_assert_eq!(found.fits, found.warning().is_none());
        let unmended = found.checks.iter().find(|check| check.verdict == Verdict::TooSmall && check.mend.is_none());
        prop_assert!(unmended.is_none(), "{unmended:?}");
        prop_assert!(!found.to_string().is_empty());
    }
}
