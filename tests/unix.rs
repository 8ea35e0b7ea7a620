//! HTTP at a Unix socket: the program itself, its file, who comes there, and the process that follows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/program.rs"]
mod program;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use program::{PATIENCE, Program, Scratch, backends, holdline};

/// A server at this URL, with an admin listener, on two shards.
fn serve(url: &str, backend: &str, arguments: &[&str]) -> Command {
    let common = ["serve", "--listen", url, "--admin", "127.0.0.1:0", "--backend", backend, "--shards", "2"];
    let mut command = holdline(&common);
    command.args(["--drain", "0s"]).args(arguments).stderr(Stdio::inherit());
    command
}

fn connect(socket: &Scratch) -> UnixStream {
    let stream = UnixStream::connect(socket.path()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request whose answer ends the connection, and returns all of that.
fn ask(mut stream: impl Read + Write, target: &str, host: &str) -> String {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn is_served(stream: UnixStream) {
    let answer = ask(stream, "/topics/t/info", "anything.at.all");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

/// The status and the words of a server that does not start.
fn fails(url: &str) -> (Option<i32>, String) {
    let output = serve(url, "epoll", &[]).stderr(Stdio::piped()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_socket_is_served_by_all_shards_and_gone_at_the_end() {
    for backend in backends() {
        let (socket, log) = (Scratch::new(&format!("edge-{backend}.sock")), Scratch::new(&format!("{backend}.log")));
        let url = format!("unix://{}?mode=0640", socket.path());
        let mut command = serve(&url, backend, &[]);
        let program = Program::start({
            command.stderr(fs::File::create(log.path()).unwrap());
            command
        });
        assert_eq!(program.urls[0], url);
        assert_eq!(fs::metadata(socket.path()).unwrap().permissions().mode() & 0o777, 0o640);
        let mut stays = connect(&socket);
        stays.write_all(b"GET /topics/t?stream=1 HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        // Goes on after a signal, which ends a read of a socket with a time limit.
        stays.read_exact(&mut [0; 64]).unwrap();
        for _ in 0..64 {
            is_served(connect(&socket));
        }
        // Those who serve it can tell where somebody came in, not who it is.
        let admin = TcpStream::connect(program.address(1)).unwrap();
        let answer = ask(admin, "/api/connections", program.address(1));
        assert!(answer.contains("\"address\":\"unix\""), "{answer}");
        // A second server leaves it alone.
        let (status, said) = fails(&url);
        assert!(status == Some(1) && said.contains("cannot listen: somebody listens there, unix:///"), "{said}");
        is_served(connect(&socket));
        drop(stays);
        program.signal("-TERM");
        program.ends_well();
        assert!(!fs::exists(socket.path()).unwrap());
        let said = fs::read_to_string(log.path()).unwrap();
        assert!(!said.contains("no addresses of the clients"), "{said}");
    }
}

#[test]
fn a_proxy_says_for_whom_it_speaks() {
    for backend in backends() {
        let socket = Scratch::new(&format!("proxied-{backend}.sock"));
        let program = Program::start(serve(&format!("unix://{}?proxy=on", socket.path()), backend, &[]));
        let mut stream = connect(&socket);
        stream.write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\n").unwrap();
        is_served(stream);
        let mut bare = connect(&socket);
        bare.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        assert_eq!(bare.read(&mut [0; 16]).unwrap_or(0), 0, "a header is missing");
        drop(program);
    }
}

#[test]
fn what_a_killed_server_left_is_replaced_and_no_other_file() {
    let socket = Scratch::new("left.sock");
    let url = format!("unix://{}", socket.path());
    let first = Program::start(serve(&url, "epoll", &[]));
    assert_eq!(fs::metadata(socket.path()).unwrap().permissions().mode() & 0o777, 0o660);
    drop(first);
    assert!(fs::exists(socket.path()).unwrap(), "it was killed");
    let second = Program::start(serve(&url, "epoll", &[]));
    is_served(connect(&socket));
    second.signal("-TERM");
    second.ends_well();
    fs::write(socket.path(), "precious").unwrap();
    let (status, said) = fails(&url);
    assert!(status == Some(1) && said.contains("the file is no socket") && said.contains("remove it"), "{said}");
    assert_eq!(fs::read_to_string(socket.path()).unwrap(), "precious");
    let (status, said) = fails("unix:///nowhere/at/all/edge.sock");
    assert!(status == Some(1) && said.contains("make its directory"), "{said}");
    let (status, said) = fails(&format!("unix:///{}", "a".repeat(107)));
    assert!(status == Some(2) && said.contains("has 108 bytes"), "{said}");
}

#[test]
fn the_process_that_follows_has_the_same_socket() {
    for backend in backends() {
        let [socket, upgrade] = ["edge", "up"].map(|name| Scratch::new(&format!("{name}-{backend}-follow.sock")));
        let url = format!("unix://{}", socket.path());
        let with = ["--upgrade", "--upgrade-socket", upgrade.path()];
        let first = Program::start(serve(&url, backend, &with));
        let file = fs::metadata(socket.path()).unwrap().ino();
        // One that fails to follow takes nothing away.
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = format!("tcp://{}", busy.local_addr().unwrap());
        let failed = serve(&url, backend, &with).args(["--listen", &taken]).output().unwrap();
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        is_served(connect(&socket));
        let second = Program::start(serve(&url, backend, &with));
        assert_eq!(second.urls[0], url);
        first.ends_well();
        assert_eq!(fs::metadata(socket.path()).unwrap().ino(), file, "it is the same file, still there");
        for _ in 0..8 {
            is_served(connect(&socket));
        }
        second.signal("-TERM");
        second.ends_well();
        assert!(!fs::exists(socket.path()).unwrap(), "it goes with the last one");
    }
}
