//! The program from outside: what it prints, and how it exits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};

use program::{Program, Scratch, holdline};

fn run(arguments: &[&str]) -> Output {
    holdline(arguments).output().unwrap()
}

/// Exit status, and standard error, which has to be one line that names the program.
fn failure(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("holdline: ") && said.ends_with('\n'), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code(), said.trim_end().to_owned())
}

fn refused(arguments: &[&str]) -> String {
    let (status, said) = failure(&run(arguments));
    assert_eq!(status, Some(2), "{arguments:?}: {said}");
    said
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    for (arguments, expected) in [
        (&[][..], "no command given, on the command line: `holdline serve` runs the server"),
        (&["serve", "--drain"], "see `holdline serve --help`"),
        (&["serve", "--shards", "-1"], "shards is \"-1\", flag --shards"),
        (&["serve", "--listen", "http://127.0.0.1:0/path"], "a listener has no path"),
        (&["serv"], "'serve'"),
        (&["serve", "--shard", "2"], "'--shards'"),
        (&["serve", "--shards", "many"], "shards is \"many\", flag --shards: write a whole number"),
        (&["serve", "--shards", "5000"], "shards is 5000, above 1024, flag --shards: write 0 to 1024"),
        (&["serve", "--max-connections", "0"], "is 0, below 1, flag --max-connections"),
        (&["serve", "--drain", "30"], "drain is \"30\", without a unit, flag --drain"),
        (&["serve", "--heartbeat-timeout", "0s"], "below 10ms, flag --heartbeat-timeout"),
        (&["serve", "--backend", "kqueue"], "write auto or epoll or uring"),
        (&["serve", "--log-format", "xml"], "write text or json"),
        (&["serve", "--admin", "9090"], "flag --admin: write HOST:PORT"),
        (
            &["serve", "--listen", "https://127.0.0.1:0"],
            "listen speaks TLS, and there is no certificate, flag --listen",
        ),
        (&["serve", "--listen", "tcp://127.0.0.1:0?frame=line"], "did you mean framing?"),
        (&["serve", "--listen", "http://127.0.0.1:0", "--listen", "htp://127.0.0.1:0"], "did you mean http://?"),
        (
            &["serve", "--listen", "tcp://127.0.0.1:7001", "--listen", "tcp://127.0.0.1:7001"],
            "has 127.0.0.1:7001 twice",
        ),
        (&["serve", "--config", "/nowhere/holdline.toml"], "/nowhere/holdline.toml"),
        (&["serve", "--listen", "http://127.0.0.1:0\n\x1b[31m"], "is not a port"),
        (&["check-config"], "see `holdline check-config --help`"),
        (&["chat", "lobby"], "not a URL, lobby: write ws://"),
        (&["chat", "tls://127.0.0.1"], "a tcp URL needs a port"),
        (
            &["chat", "grpc://127.0.0.1:1/chat/lobby"],
            "write ws://HOST:PORT/chat/ROOM, or grpc://HOST:PORT/topics/chat/ROOM",
        ),
        (&["chat", "grpc://127.0.0.1:1/topics/a?history=x"], "the parameter history cannot be"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn a_bad_configuration_is_refused_with_file_and_line() {
    let file = Scratch::with("bad.toml", "shards = 1\n\n[limits]\nmesage_bytes_max = \"1MiB\"\nfragments_max = 0\n");
    let said = refused(&["serve", "--config", file.path()]);
    assert!(said.contains("unknown key \"limits.mesage_bytes_max\""), "{said}");
    assert!(said.contains("bad.toml line 4: did you mean limits.message_bytes_max?"), "{said}");
    assert!(said.contains("the first of 2 errors"), "{said}");

    let output = run(&["check-config", file.path()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 2), "{said}");
    assert!(said.contains("line 4") && said.contains("line 5"), "{said}");
}

#[test]
fn a_bad_environment_is_refused_with_the_variable() {
    for (name, value, expected) in [
        ("HOLDLINE_SHRADS", "1", "did you mean HOLDLINE_SHARDS?"),
        (
            "HOLDLINE_LIMITS_MESSAGE_BYTES_MAX",
            "1MB",
            "environment variable HOLDLINE_LIMITS_MESSAGE_BYTES_MAX: write bytes",
        ),
        ("HOLDLINE_LOG", "=,=", "environment variable HOLDLINE_LOG"),
    ] {
        let (status, said) =
            failure(&holdline(&["serve", "--listen", "http://127.0.0.1:0"]).env(name, value).output().unwrap());
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn what_a_configuration_names_has_to_be_there() {
    let listen = "listen = [\"https://127.0.0.1:0\"]\n[tls]\ncertificates = [\"/nowhere/edge.pem\"]\n";
    for (text, expected) in [
        (listen, "/nowhere/edge.pem: name a file of certificates in PEM"),
        ("public = \"/nowhere/www\"\n", "/nowhere/www: name a directory that can be read"),
    ] {
        let file = Scratch::with("named.toml", text);
        let output = run(&["check-config", file.path()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_service_of_kubernetes_is_no_setting() {
    let mut serve = holdline(&["serve", "--listen", "http://127.0.0.1:0", "--public", "/nowhere/www"]);
    let (_, said) = failure(&serve.env("HOLDLINE_PORT_8080_TCP", "tcp://10.0.0.1:8080").output().unwrap());
    assert!(said.contains("cannot serve files"), "the variable is passed over: {said}");
}

#[test]
fn the_printed_configuration_passes_its_own_check() {
    let printed = run(&["default-config"]);
    assert_eq!(printed.status.code(), Some(0));
    let file = Scratch::with("default.toml", &String::from_utf8(printed.stdout).unwrap());
    let output = run(&["check-config", file.path()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("default.toml: ok\n"));
}

#[test]
fn help_and_version_are_no_failure() {
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"], &["chat", "--help"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn a_reader_that_leaves_is_no_reason_to_panic() {
    let mut child = holdline(&["default-config"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_full_disk_is_told() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (status, said) = failure(&holdline(&["default-config"]).stdout(full).output().unwrap());
    assert_eq!(status, Some(1));
    assert!(said.contains("cannot write"), "{said}");
}

#[test]
fn a_chat_with_nobody_is_a_failure() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for url in [
        format!("ws://127.0.0.1:{port}/chat/a"),
        format!("tcp://127.0.0.1:{port}"),
        format!("grpc://127.0.0.1:{port}/echo"),
    ] {
        let (status, said) = failure(&run(&["chat", &url]));
        assert_eq!(status, Some(1));
        assert!(said.contains("cannot connect") && said.contains("holdline serve"), "{said}");
    }
}

/// What needs a server that serves.
mod server {
    use std::net::TcpStream;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    /// A server with a web and a line listener, and the admin's.
    struct Server(Program);

    impl Server {
        fn start(arguments: &[&str]) -> Self {
            let listeners =
                ["--listen", "http://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0", "--admin", "127.0.0.1:0"];
            let mut command = holdline(&["serve", "--shards", "2"]);
            if !arguments.contains(&"--backend") {
                command.args(["--backend", "epoll"]);
            }
            command.args(listeners).args(arguments);
            let server = Program::start(command);
            assert_eq!(server.urls.len(), 3, "{:?}", server.urls);
            Self(server)
        }

        fn signal(&self, name: &str) {
            let done =
                Command::new("kill").args([&format!("-{name}"), &self.0.child.id().to_string()]).status().unwrap();
            assert!(done.success());
        }

        fn address(&self, number: usize) -> &str {
            self.0.address(number)
        }

        fn chat(&self, scheme: &str, number: usize, path: &str) -> Command {
            holdline(&["chat", &format!("{scheme}://{}{path}", self.address(number))])
        }

        /// Waits for the end: exit status, and what standard error said.
        fn end(&mut self) -> (Option<i32>, String) {
            let (mut said, mut rest) = (String::new(), String::new());
            self.0.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            self.0.out.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "", "nothing goes to standard output after `ready`");
            (self.0.child.wait().unwrap().code(), said)
        }

        fn get(&self, number: usize, path: &str) -> String {
            let mut stream = TcpStream::connect(self.address(number)).unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address(number));
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        }
    }

    #[test]
    fn a_signal_drains_and_the_exit_is_clean() {
        for signal in ["TERM", "INT"] {
            let mut server = Server::start(&["--drain", "1s", "--log-format", "json"]);
            server.signal("HUP");
            server.signal(signal);
            let (status, said) = server.end();
            assert_eq!(status, Some(0), "{said}");
            assert!(said.contains("nothing is different") && said.contains("draining"), "{said}");
            assert!(said.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{said}");
        }
    }

    #[test]
    fn health_is_an_exit_status() {
        let mut server = Server::start(&[]);
        let admin = server.0.address(server.0.urls.len() - 1).to_owned();
        let ask = |what: &[&str]| {
            let output = run(&[&["health", "--admin", &admin], what].concat());
            let said = String::from_utf8(output.stdout).unwrap();
            (output.status.code(), said.trim_end().to_owned(), String::from_utf8(output.stderr).unwrap())
        };
        assert_eq!(ask(&[]), (Some(0), "ok".to_owned(), String::new()));
        assert_eq!(ask(&["--ready"]), (Some(0), "ready".to_owned(), String::new()));
        server.signal("TERM");
        let (status, said) = server.end();
        assert_eq!(status, Some(0), "{said}");
        let (status, _, said) = ask(&[]);
        assert!(status == Some(1) && said.contains("is a server running there?"), "{status:?} {said}");
        assert!(refused(&["health", "--admin", "off"]).contains("the admin listener is off"));
        // A container's environment says where to listen, a file that only the server is given who may come.
        let mut command = holdline(&["health", "--admin", &admin]);
        let asked = command.env("HOLDLINE_LISTEN", "http://0.0.0.0:8080").output().unwrap();
        assert_eq!(asked.status.code(), Some(1), "nobody is there any more, and that is all");
    }

    /// Tables for all of them are reserved and not touched.
    #[test]
    fn a_server_for_five_million_starts_at_once_and_small() {
        if let Err(missing) = holdline::io::uring::probe() {
            panic!("this machine cannot show it: {missing}");
        }
        let begin = Instant::now();
        let server = Server::start(&["--backend", "uring", "--max-connections", "5000000"]);
        let took = begin.elapsed();
        let bound = if cfg!(debug_assertions) { Duration::from_secs(3) } else { Duration::from_secs(1) };
        assert!(took < bound, "{took:?}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.0.child.id())).unwrap();
        let kib = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
        };
        let used = kib("RssAnon") + kib("RssShmem");
        assert!(used < 16 * 1024, "{used} KiB");
        eprintln!("ready after {took:?} with {used} KiB");
    }

    #[test]
    fn a_second_signal_ends_at_once() {
        let mut server = Server::start(&["--drain", "10m"]);
        let mut stay = server.chat("ws", 0, "/echo").stdin(Stdio::piped()).spawn().unwrap();
        stay.stdin.as_mut().unwrap().write_all(b"here\n").unwrap();
        let mut line = String::new();
        BufReader::new(stay.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "here\n");
        server.signal("TERM");
        // The log says when the first one was heard: two at once could be taken for one.
        let mut log = BufReader::new(server.0.child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("draining") {
            assert_ne!(log.read_line(&mut said).unwrap(), 0, "{said}");
        }
        server.signal("TERM");
        said.clear();
        log.read_to_string(&mut said).unwrap();
        assert_eq!(server.0.child.wait().unwrap().code(), Some(1), "{said}");
        assert!(said.contains("holdline: ended by a second signal"), "{said}");
        assert_eq!(stay.wait().unwrap().code(), Some(1));
    }

    #[test]
    fn a_port_that_is_taken_is_told() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", taken.local_addr().unwrap());
        let (status, said) = failure(&run(&["serve", "--backend", "epoll", "--listen", &url, "--admin", "off"]));
        assert_eq!(status, Some(1));
        assert!(said.contains(&url) && said.contains("choose another port"), "{said}");
    }

    #[test]
    fn a_closed_standard_output_is_harmless() {
        let mut command =
            holdline(&["serve", "--backend", "epoll", "--listen", "http://127.0.0.1:0", "--admin", "off"]);
        let mut child = command.args(["--drain", "0s"]).spawn().unwrap();
        drop(child.stdout.take());
        drop(child.stderr.take());
        // It handles signals before it prints; until then a signal would kill it.
        let handled = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
            u64::from_str_radix(&caught, 16).unwrap() & (1 << 14) != 0
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !handled() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }

    #[test]
    fn a_chat_speaks_and_leaves_with_its_input() {
        let server = Server::start(&[]);
        for (scheme, number, path) in [
            ("ws", 0, "/echo"),
            ("http", 0, "/echo"),
            ("tcp", 1, ""),
            ("grpc", 0, "/echo"),
            ("grpc", 0, "/topics/mine"),
        ] {
            let mut chat = server.chat(scheme, number, path).stdin(Stdio::piped()).spawn().unwrap();
            let mut input = chat.stdin.take().unwrap();
            input.write_all("hello\n\nwörld\n".as_bytes()).unwrap();
            let mut out = BufReader::new(chat.stdout.take().unwrap());
            let mut lines = String::new();
            out.read_line(&mut lines).unwrap();
            out.read_line(&mut lines).unwrap();
            assert_eq!(lines, "hello\nwörld\n");
            drop(input);
            assert_eq!(chat.wait().unwrap().code(), Some(0), "{scheme}");
        }
    }

    #[test]
    fn two_people_chat() {
        let server = Server::start(&[]);
        let join = |name: &str| {
            let mut chat = server.chat("ws", 0, "").env("USER", name).stdin(Stdio::piped()).spawn().unwrap();
            let out = BufReader::new(chat.stdout.take().unwrap());
            let (heard, inbox) = mpsc::channel();
            std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| heard.send(line)));
            (chat, inbox)
        };
        let expect = |inbox: &mpsc::Receiver<String>, expected: &str| {
            assert_eq!(inbox.recv_timeout(Duration::from_secs(10)).as_deref(), Ok(expected));
        };
        let (mut ann, heard_by_ann) = join("Ann");
        expect(&heard_by_ann, "Ann joined the chat");
        let (mut bob, heard_by_bob) = join("Bob");
        expect(&heard_by_ann, "Bob joined the chat");
        expect(&heard_by_bob, "Bob joined the chat");
        ann.stdin.as_mut().unwrap().write_all(b"hi\n").unwrap();
        expect(&heard_by_bob, "Ann: hi");
        expect(&heard_by_ann, "Ann: hi");
        drop(bob.stdin.take());
        expect(&heard_by_ann, "Bob left the chat");
        assert_eq!(bob.wait().unwrap().code(), Some(0));
        drop(ann.stdin.take());
        assert_eq!(ann.wait().unwrap().code(), Some(0));
    }

    #[test]
    fn a_chat_over_grpc_meets_the_others_of_its_topic() {
        let server = Server::start(&[]);
        let mut first = server.chat("ws", 0, "/topics/room").stdin(Stdio::piped()).spawn().unwrap();
        let mut heard_by_first = BufReader::new(first.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut says = first.stdin.take().unwrap();
        says.write_all(b"one\n").unwrap();
        assert_eq!(heard_by_first.next().as_deref(), Some("one"));
        let path = "/topics/room?history=9&echo=0";
        let mut second = server.chat("grpc", 0, path).stdin(Stdio::piped()).spawn().unwrap();
        let mut heard_by_second = BufReader::new(second.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(heard_by_second.next().as_deref(), Some("one"), "which is from before");
        says.write_all("zwölf\n".as_bytes()).unwrap();
        assert_eq!(heard_by_second.next().as_deref(), Some("zwölf"));
        // Its last line is published, though its input ends with it.
        second.stdin.take().unwrap().write_all(b"three\n").unwrap();
        assert_eq!(heard_by_first.next().as_deref(), Some("zwölf"));
        assert_eq!(heard_by_first.next().as_deref(), Some("three"));
        assert_eq!(
            (second.wait().unwrap().code(), heard_by_second.next()),
            (Some(0), None),
            "its own it does not hear"
        );
        drop(says);
        assert_eq!(first.wait().unwrap().code(), Some(0));
    }

    #[test]
    fn a_chat_over_grpc_says_what_the_server_says() {
        let file = Scratch::with("small.toml", "[limits]\nmessage_bytes_max = \"1KiB\"\n");
        let mut server = Server::start(&["--drain", "0s", "--config", file.path()]);
        let (status, said) = failure(&server.chat("grpc", 0, "/topics/a%20b").stdin(Stdio::piped()).output().unwrap());
        assert!(status == Some(1) && said.contains("bad_topic"), "{said}");
        let (status, said) = failure(&server.chat("grpc", 1, "/echo").output().unwrap());
        assert!(status == Some(1) && said.contains("gRPC is served by http:// listeners"), "{said}");
        let mut chat = server.chat("grpc", 0, "/echo").stdin(Stdio::piped()).spawn().unwrap();
        chat.stdin.as_mut().unwrap().write_all(&[[b'a'; 2000].as_slice(), b"\n"].concat()).unwrap();
        let (status, said) = failure(&chat.wait_with_output().unwrap());
        assert!(status == Some(1) && said.contains("ended the call: 8 RESOURCE_EXHAUSTED"), "{said}");
        let mut chat = server.chat("grpc", 0, "/echo").stdin(Stdio::piped()).spawn().unwrap();
        chat.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
        let mut line = String::new();
        BufReader::new(chat.stdout.take().unwrap()).read_line(&mut line).unwrap();
        server.signal("TERM");
        let mut said = String::new();
        chat.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((chat.wait().unwrap().code(), line.as_str()), (Some(1), "x\n"));
        assert!(said.contains("ended the call: 14 UNAVAILABLE") && said.contains("connect again later"), "{said}");
        let (status, log) = server.end();
        assert_eq!(status, Some(0), "{log}");
    }

    #[test]
    fn a_chat_says_why_it_is_not_let_in() {
        let server = Server::start(&[]);
        let (status, said) = failure(&server.chat("ws", 0, "/nothing/here").output().unwrap());
        assert_eq!(status, Some(1));
        assert!(said.contains("404") && said.contains("check the path"), "{said}");
    }

    #[test]
    fn a_drain_tells_a_chat_in_a_pipe_to_come_back() {
        let mut server = Server::start(&["--drain", "0s"]);
        let mut chat = server.chat("ws", 0, "/echo").stdin(Stdio::piped()).spawn().unwrap();
        chat.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(chat.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        server.signal("TERM");
        let mut said = String::new();
        chat.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(chat.wait().unwrap().code(), Some(1));
        assert!(said.contains("closed the connection: 1001 retry after"), "{said}");
        let (status, log) = server.end();
        assert_eq!(status, Some(0), "{log}");
    }

    #[test]
    fn operators_have_their_own_port() {
        let server = Server::start(&[]);
        assert!(server.get(2, "/metrics").contains("holdline_connections{shard=\"0\"}"));
        assert!(server.get(2, "/healthz").starts_with("HTTP/1.1 200"));
        assert!(server.get(2, "/readyz").ends_with("ready\n"));
        assert!(server.get(2, "/").contains("connections now"));
        assert!(server.get(2, "/admin.css").contains("text/css"));
        assert!(!server.get(0, "/metrics").starts_with("HTTP/1.1 200"));
    }
}
