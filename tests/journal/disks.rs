//! Disks that are full, and files that may not be longer.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::program::{self, PATIENCE, Program, Scratch};
use crate::{Client, Directory, has_uring, number, serve, settings};

/// Runs a server in a small filesystem of its own, or under other bounds, by a shell.
fn bounded(settings: &Scratch, script: &str, namespace: bool) -> Command {
    let serve = serve(settings);
    let mut command = Command::new(if namespace { "unshare" } else { "sh" });
    if namespace {
        command.args(["--mount", "sh"]);
    }
    command.arg("-c").arg(format!("{script}\nexec \"$0\" \"$@\"")).arg(serve.get_program()).args(serve.get_args());
    program::clean(&mut command).stderr(Stdio::null());
    command
}

/// A server whose journal is in a filesystem of this size; `None` where none can be made, which is said.
fn on_small_disk(name: &str, size: &str, more: &str) -> Option<(Directory, Program)> {
    let can_mount = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !has_uring() || !can_mount {
        eprintln!("NOT CHECKED: a full disk: no mount namespace can be made here; run the tests as root");
        return None;
    }
    let directory = Directory::new(name);
    fs::create_dir_all(&directory.0).unwrap();
    let settings = settings(&directory.0.join("journal"), more);
    let mount = format!("mount -t tmpfs -o size={size} none '{}'", directory.0.display());
    let program = Program::start(bounded(&settings, &mount, true));
    Some((directory, program))
}

/// Publishes until it is refused; says how many were not, and what the refusal was.
fn fill(client: &mut Client, topic: &str) -> (u64, u16, String) {
    let text = "x".repeat(50_000);
    for message in 0..10_000 {
        let (status, body) = client.publish(topic, &text).unwrap();
        if status != 200 {
            return (message, status, body);
        }
    }
    panic!("nothing was refused");
}

/// Waits until a durable topic can be published to again.
fn until_it_works(client: &mut Client) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, body) = client.publish("durable/small", "small").unwrap();
        if status == 200 {
            return number(&body, "offset");
        }
        assert!(Instant::now() < deadline, "it stays refused: {body}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_full_disk_refuses_durable_messages_and_nothing_else() {
    let Some((directory, program)) = on_small_disk("full", "4m", "") else { return };
    let mut client = Client::connect(program.address(0)).unwrap();
    let (taken, status, body) = fill(&mut client, "durable/big");
    assert!(taken > 10 && status == 503 && body.contains("journal_failed"), "{taken} {status} {body}");
    client.published("plain", "hello").expect("other topics go on");
    let mut admin = Client::connect(program.address(1)).unwrap();
    assert!(admin.metric("holdline_journal_failures_total") >= 1);
    assert_eq!(admin.ask("GET /readyz", "").unwrap().0, 200);
    assert_eq!(client.history("durable/big").len() as u64, taken, "nobody hears of what was refused");
    // Room is made, from outside of its namespace.
    let mut grow = Command::new("nsenter");
    grow.args(["--mount", "--target", &program.pid(), "mount", "-o", "remount,size=64m"]).arg(&directory.0);
    assert!(grow.status().unwrap().success());
    assert_eq!(until_it_works(&mut client), 1);
    assert_eq!(admin.metric("holdline_journal_working"), 1);
    client.published("durable/big", "again").unwrap();
    assert_eq!(client.history("durable/big").len() as u64, taken + 1);
}

/// By messages that nobody needs for long, and some that are needed in between.
#[test]
fn a_disk_that_the_journal_has_filled_becomes_free_by_itself() {
    let short = "[topics.\"short\"]\ndurable = true\nhistory.age_max = \"3s\"\n";
    let Some((_directory, program)) = on_small_disk("filled", "8m", short) else { return };
    let mut client = Client::connect(program.address(0)).unwrap();
    let mut told = Vec::new();
    let text = "x".repeat(50_000);
    let refused = loop {
        // One of these in each file, about.
        told.push(client.published("durable/quiet", "needed").unwrap());
        let refused = (0..20).find_map(|_| client.publish("short", &text).filter(|(status, _)| *status != 200));
        if let Some((_, body)) = refused {
            break body;
        }
        assert!(told.len() < 100, "nothing was refused");
    };
    assert!(told.len() > 5 && refused.contains("journal_failed"), "{} {refused}", told.len());
    assert_eq!(until_it_works(&mut client), 1);
    let mut admin = Client::connect(program.address(1)).unwrap();
    assert_eq!(
        (admin.metric("holdline_journal_working"), admin.metric("holdline_journal_segments_lost_total")),
        (1, 0)
    );
    let places = |history: Vec<(u64, u64, String)>| history.into_iter().map(|(epoch, offset, _)| (epoch, offset));
    assert!(places(client.history("durable/quiet")).eq(told));
}

#[test]
fn a_limit_of_file_sizes_is_told_and_lived_with() {
    if !has_uring() {
        return;
    }
    let directory = Directory::new("limit");
    let settings = settings(&directory.0, "");
    // In blocks of 512 bytes: less than a segment.
    let program = Program::start(bounded(&settings, "ulimit -f 512", false));
    let mut client = Client::connect(program.address(0)).unwrap();
    let (taken, status, body) = fill(&mut client, "durable/big");
    assert!(taken > 1 && status == 503, "{taken} {status} {body}");
    client.published("plain", "hello").expect("other topics go on");
    // The next file is not so large yet.
    assert_eq!(until_it_works(&mut client), 1);
    assert_eq!(client.history("durable/big").len() as u64, taken);
}
