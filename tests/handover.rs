//! From one process to the next, with real ones: upgrades under load, sockets of a service manager, and what it is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use program::{PATIENCE, Program, Scratch, backends, holdline};

/// A server that can be followed. `listeners` are those of the first one, with their ports.
fn serve(listeners: &[String], admin: &str, socket: &Scratch, arguments: &[&str]) -> Command {
    let mut command = holdline(&["serve", "--admin", admin, "--upgrade-socket", socket.path(), "--drain", "1s"]);
    for url in listeners {
        command.args(["--listen", url]);
    }
    command.args(arguments).stderr(Stdio::inherit());
    command
}

fn free() -> Vec<String> {
    ["http://127.0.0.1:0", "tcp://127.0.0.1:0"].map(str::to_owned).into()
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One connection to a listener that echoes lines.
fn echo(address: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"hello\n")?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

/// The status and the whole of an answer.
fn get(address: &str, target: &str) -> (u16, String) {
    let mut stream = connect(address);
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap(), answer)
}

/// Publishes, and says where the message is: `EPOCH:OFFSET`.
fn publish(address: &str, text: &str) -> String {
    let mut stream = connect(address);
    let length = text.len();
    write!(
        stream,
        "POST /topics/t HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let number = |name: &str| answer.split(name).nth(1).unwrap().split([',', '}']).next().unwrap().to_owned();
    format!("{}:{}", number("\"epoch\":"), number("\"offset\":"))
}

/// Connects all the time, from several threads, while `work` is done. How many there were; not one may have failed.
fn under_load(address: &str, work: impl FnOnce()) -> usize {
    let (over, count, failures) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    match echo(address) {
                        Ok(()) => drop(count.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.lock().unwrap().push(error.to_string()),
                    }
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        done.unwrap();
    });
    assert_eq!(failures.into_inner().unwrap(), Vec::<String>::new());
    count.into_inner()
}

/// From many shards to one and back to some, while clients come all the time: nobody is refused or reset, and who is there
/// is told to come back.
#[test]
fn upgrades_under_load_lose_nobody() {
    for backend in backends() {
        let socket = Scratch::new(&format!("upgrade-{backend}"));
        let with = |shards, last| ["--backend", backend, "--shards", shards, last];
        let first = Program::start(serve(&free(), "127.0.0.1:0", &socket, &with("4", "--upgrade")));
        let (urls, web, lines) = (first.urls.clone(), first.address(0).to_owned(), first.address(1).to_owned());
        let admin = first.address(2).to_owned();
        let place = publish(&web, "before");

        let mut stream = connect(&web);
        stream.write_all(b"GET /topics/t?stream=1 HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        let idle: Vec<_> = (0..50).map(|_| connect(&lines)).collect();

        let follow = |before: Program, shards| {
            let next = Program::start(serve(&urls[..2], &admin, &socket, &with(shards, "--upgrade")));
            assert_eq!(next.urls, urls, "the same listeners");
            before.ends_well();
            next
        };
        let mut last = None;
        let connects = under_load(&lines, || {
            let second = follow(first, "1");
            // The past goes over with the topics.
            let (status, history) = get(&web, &format!("/topics/t/history?since={place}"));
            assert!(status == 200 && history.trim_end().ends_with("[]"), "{history}");
            let (epoch, offset) = place.split_once(':').unwrap();
            let following = format!("{epoch}:{}", offset.parse::<u64>().unwrap() + 1);
            assert_eq!(publish(&web, "after"), following, "the same epoch, the next offset");
            last = Some(follow(second, "3"));
        });
        assert!(connects > 200, "{connects} connections are no load");
        eprintln!("{backend}: {connects} connections, none refused");

        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.contains("{\"retry\":") && said.ends_with("0\r\n\r\n"), "{said}");
        for mut idle in idle {
            assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0, "a clean end");
        }
        assert_eq!(get(&admin, "/readyz").0, 200);
        let last = last.unwrap();
        last.signal("-TERM");
        last.ends_well();
        assert!(!std::path::Path::new(socket.path()).exists(), "the socket goes with the last one");
    }
}

#[test]
fn an_upgrade_that_fails_changes_nothing() {
    let socket = Scratch::new("fails");
    let first = Program::start(serve(&free(), "off", &socket, &["--shards", "2"]));
    let lines = first.address(1).to_owned();
    let mut there = connect(&lines);
    under_load(&lines, || {
        let arguments = ["--upgrade", "--shards", "4", "--public", "/nowhere/at/all"];
        let failed = serve(&first.urls, "off", &socket, &arguments).output().unwrap();
        assert_eq!(failed.status.code(), Some(2), "{failed:?}");
    });
    there.write_all(b"still here\n").unwrap();
    let mut answer = String::new();
    BufReader::new(&there).read_line(&mut answer).unwrap();
    assert_eq!(answer, "still here\n");

    // Others than a Holdline of this version get nothing either.
    for said in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"holdline\0\x63\0\x01\0\0\0\x02{}"] {
        let mut stranger = UnixStream::connect(socket.path()).unwrap();
        stranger.write_all(said).unwrap();
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("reason") && !answer.contains("listeners"), "{answer}");
    }
    // A second server does not take the socket away.
    let second = serve(&free(), "off", &socket, &[]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(1) && said.contains("another server is at the upgrade socket"), "{said}");

    let next = Program::start(serve(&first.urls, "off", &socket, &["--upgrade"]));
    first.ends_well();
    echo(next.address(1)).unwrap();
}

/// The drain of a server that nobody follows: whoever has connected by then is served.
#[test]
fn who_has_connected_when_the_drain_begins_is_served() {
    for backend in backends() {
        let program = Program::serve(
            &["tcp://127.0.0.1:0"],
            &["--admin", "127.0.0.1:0", "--backend", backend, "--drain-delay", "500ms", "--drain", "1s"],
        );
        let (lines, admin) = (program.address(0).to_owned(), program.address(1).to_owned());
        program.signal("-TERM");
        let deadline = Instant::now() + PATIENCE;
        while get(&admin, "/readyz").0 == 200 {
            assert!(Instant::now() < deadline);
        }
        // Not ready, but there.
        let (mut served, mut refused) = (0, 0);
        while refused == 0 {
            let address = lines.parse().unwrap();
            match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
                Ok(mut stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.write_all(b"hello\n").unwrap();
                    let mut answer = Vec::new();
                    stream.shutdown(Shutdown::Write).unwrap();
                    stream.read_to_end(&mut answer).expect("never a reset");
                    served += usize::from(answer == b"hello\n");
                }
                Err(_) => refused += 1,
            }
        }
        assert!(served > 10, "{served}");
        program.ends_well();
    }
}

#[test]
fn sockets_of_a_service_manager_are_taken() {
    // Two sockets on descriptors 3 and 4, as systemd passes them.
    const LAUNCHER: &str = "
import os, socket, sys
made = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]
print(*[one.getsockname()[1] for one in made], flush=True)
high = [os.dup2(one.fileno(), 100 + n) for n, one in enumerate(made)]
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='tcp:admin')
os.execv(sys.argv[1], sys.argv[1:])
";
    let mut command = Command::new("python3");
    let program = env!("CARGO_BIN_EXE_holdline");
    let serve = ["serve", "--listen", "tcp://127.0.0.1:1", "--admin", "127.0.0.1:2", "--shards", "2"];
    program::clean(&mut command).args(["-c", LAUNCHER, program]).args(serve).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let ports: Vec<u16> = line.split_whitespace().map(|port| port.parse().unwrap()).collect();
    let (lines, admin) = (format!("127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
    while line != "ready\n" {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "it ended");
    }
    (0..20).for_each(|_| echo(&lines).unwrap());
    assert_eq!(get(&admin, "/readyz").0, 200);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_service_manager_hears_of_all_that_happens() {
    let (path, socket) = (Scratch::new("notify"), Scratch::new("followed"));
    let manager = UnixDatagram::bind(path.path()).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hears = |what: &str| {
        let mut buffer = [0; 1024];
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if said.contains(what) {
                return said;
            }
        }
    };
    let told = |mut command: Command| {
        command.env("NOTIFY_SOCKET", path.path()).env("WATCHDOG_USEC", "900000");
        Program::start(command)
    };
    let first = told(serve(&free(), "off", &socket, &[]));
    assert!(hears("READY=1").contains(&format!("MAINPID={}", first.pid())));
    hears("WATCHDOG=1");
    let next = told(serve(&first.urls, "off", &socket, &["--upgrade"]));
    // First the one before says who follows, then that one speaks.
    assert_eq!(hears("MAINPID="), format!("MAINPID={}", next.pid()));
    assert!(hears("READY=1").contains(&format!("MAINPID={}", next.pid())));
    first.ends_well();
    next.signal("-TERM");
    hears("STOPPING=1");
    next.ends_well();
}
