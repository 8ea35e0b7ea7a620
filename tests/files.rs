//! Static files over real sockets, on every backend.

#![allow(clippy::unwrap_used, reason = "a test that cannot get what it needs has failed")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{PATIENCE, Running, backends, config, until};
use holdline::app::standard_routes;
use holdline::close::CloseReason;
use holdline::config::BackendChoice;

const BIG: usize = 64 * 1024 * 1024;

/// A directory that goes with its value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("root/sub/deep")).unwrap();
        fs::create_dir_all(path.join("root/.well-known")).unwrap();
        fs::create_dir_all(path.join("root/.git")).unwrap();
        fs::create_dir_all(path.join("root/empty dir")).unwrap();
        let folder = Self(path);
        for (name, text) in [
            ("secret.txt", "outside"),
            ("root/index.html", "<p>front"),
            ("root/a.txt", "0123456789"),
            ("root/none", ""),
            ("root/app.js", "plain"),
            ("root/app.js.br", "brotli"),
            ("root/app.js.gz", "gzipped"),
            ("root/sub/index.html", "<p>sub"),
            ("root/.env", "hidden"),
            ("root/.git/config", "hidden"),
            ("root/.well-known/token", "known"),
        ] {
            folder.write(name, text.as_bytes());
        }
        symlink("../secret.txt", folder.0.join("root/out.txt")).unwrap();
        symlink(folder.0.join("secret.txt"), folder.0.join("root/absolute.txt")).unwrap();
        symlink("..", folder.0.join("root/up")).unwrap();
        symlink("/proc/self/root", folder.0.join("root/magic")).unwrap();
        symlink("../a.txt", folder.0.join("root/sub/in.txt")).unwrap();
        folder
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).unwrap();
    }

    fn serve(&self, backend: BackendChoice, change: impl FnOnce(&mut holdline::config::Config)) -> Running {
        let mut config = config(backend, 1);
        config.public = Some(self.0.join("root"));
        change(&mut config);
        Running::start(&config, standard_routes())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        common::wire::field(&self.head, name)
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}

/// A client that keeps its connection.
struct Browser(TcpStream);

impl Browser {
    fn new(at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn ask(&mut self, method: &str, target: &str, fields: &str) {
        write!(self.0, "{method} {target} HTTP/1.1\r\nHost: here\r\n{fields}\r\n").unwrap();
    }

    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    fn answer(&mut self, has_body: bool) -> Answer {
        let head = self.head();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.field("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body = vec![0; if has_body { length } else { 0 }];
        self.0.read_exact(&mut answer.body).unwrap();
        answer
    }

    fn get(&mut self, target: &str, fields: &str) -> Answer {
        self.ask("GET", target, fields);
        self.answer(true)
    }
}

/// Bytes that tell where they are.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 255).unwrap()).collect()
}

fn everywhere(change: fn(&mut holdline::config::Config), test: impl Fn(&Folder, &Running)) {
    for backend in backends() {
        let folder = Folder::new();
        test(&folder, &folder.serve(backend, change));
    }
}

#[test]
fn files_indexes_and_redirects() {
    everywhere(
        |_| {},
        |_, server| {
            let mut browser = Browser::new(server.at[0]);
            for (target, body) in [
                ("/", "<p>front"),
                ("/index.html", "<p>front"),
                ("/a.txt", "0123456789"),
                ("/%61.txt?x=1", "0123456789"),
                ("/none", ""),
                ("/sub/", "<p>sub"),
                ("/sub/in.txt", "0123456789"),
                ("/.well-known/token", "known"),
            ] {
                let answer = browser.get(target, "");
                assert_eq!((answer.status, answer.text()), (200, body), "{target}");
                assert!(answer.field("etag").is_some() && answer.field("last-modified").is_some());
                assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
                assert_eq!(answer.field("cache-control"), Some("no-cache"));
                assert_eq!(answer.field("content-security-policy"), None);
            }
            assert_eq!(browser.get("/a.txt", "").field("content-type"), Some("text/plain; charset=utf-8"));
            let answer = browser.get("/sub?x=1", "");
            assert_eq!((answer.status, answer.field("location")), (308, Some("/sub/?x=1")));
            assert_eq!(browser.get("/empty%20dir", "").field("location"), Some("/empty%20dir/"));
            assert_eq!(browser.get("/empty%20dir/", "").status, 404);
        },
    );
}

#[test]
fn nothing_leads_out_of_the_root() {
    everywhere(
        |_| {},
        |_, server| {
            for target in [
                "/../secret.txt",
                "/%2e%2e/secret.txt",
                "/sub/%2E%2e%2f%2e./../secret.txt",
                "/..%5csecret.txt",
                "/sub/..%2f..%2fsecret.txt",
                "/out.txt",
                "/absolute.txt",
                "/up/secret.txt",
                "/magic/etc/passwd",
                "//etc/passwd",
                "/.env",
                "/.git/config",
                "/%2egit/config",
                "/a.txt/",
                "/sub//index.html",
                "/a.txt%00.html",
                "/missing",
            ] {
                let answer = Browser::new(server.at[0]).get(target, "");
                let expected = if target.contains("%00") { 400 } else { 404 };
                assert_eq!(answer.status, expected, "{target}");
                assert!(!answer.text().contains("outside") && !answer.text().contains("hidden"), "{target}");
            }
        },
    );
}

#[test]
fn conditions_ranges_and_heads() {
    everywhere(
        |_| {},
        |_, server| {
            let mut browser = Browser::new(server.at[0]);
            let whole = browser.get("/a.txt", "");
            let (etag, date) = (whole.field("etag").unwrap(), whole.field("last-modified").unwrap());
            for (fields, status, body) in [
                (format!("If-None-Match: {etag}\r\n"), 304, ""),
                (format!("If-Modified-Since: {date}\r\n"), 304, ""),
                (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}\r\n"), 200, "0123456789"),
                ("If-Match: \"x\"\r\n".into(), 412, ""),
                (format!("If-Match: {etag}\r\n"), 200, "0123456789"),
                ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".into(), 412, ""),
                ("Range: bytes=2-4\r\n".into(), 206, "234"),
                ("Range: bytes=-3\r\n".into(), 206, "789"),
                ("Range: bytes=0-1,4-5\r\n".into(), 200, "0123456789"),
                ("Range: bytes=10-\r\n".into(), 416, ""),
                (format!("Range: bytes=2-4\r\nIf-Range: {etag}\r\n"), 206, "234"),
                (format!("Range: bytes=2-4\r\nIf-Range: {date}\r\n"), 206, "234"),
                ("Range: bytes=2-4\r\nIf-Range: \"x\"\r\n".into(), 200, "0123456789"),
            ] {
                let answer = browser.get("/a.txt", &fields);
                assert_eq!((answer.status, answer.text()), (status, body), "{fields}");
                match status {
                    206 => assert!(answer.field("content-range").unwrap().ends_with("/10")),
                    416 => assert_eq!(answer.field("content-range"), Some("bytes */10")),
                    304 => assert_eq!((answer.field("etag"), answer.field("content-length")), (Some(etag), None)),
                    _ => {}
                }
            }
            browser.ask("HEAD", "/a.txt", "Range: bytes=2-4\r\n");
            let answer = browser.answer(false);
            assert_eq!((answer.status, answer.field("content-length")), (200, Some("10")));
            assert_eq!(browser.get("/a.txt", "").text(), "0123456789", "nothing came behind the head");
        },
    );
}

#[test]
fn compressed_siblings() {
    everywhere(
        |_| {},
        |_, server| {
            let mut browser = Browser::new(server.at[0]);
            let mut tags = Vec::new();
            for (accept, body, encoding) in [
                ("br, gzip", "brotli", Some("br")),
                ("gzip", "gzipped", Some("gzip")),
                ("br;q=0, gzip;q=0.1", "gzipped", Some("gzip")),
                ("identity", "plain", None),
            ] {
                let answer = browser.get("/app.js", &format!("Accept-Encoding: {accept}\r\n"));
                assert_eq!((answer.text(), answer.field("content-encoding")), (body, encoding));
                assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
                assert_eq!(answer.field("content-type"), Some("text/javascript; charset=utf-8"));
                tags.push(answer.field("etag").unwrap().to_owned());
            }
            assert!(tags[0] != tags[1] && tags[1] == tags[2] && tags[2] != tags[3]);
            assert_eq!(browser.get("/a.txt", "Accept-Encoding: br\r\n").field("vary"), None);
        },
    );
}

#[test]
fn a_change_is_seen_within_some_seconds() {
    everywhere(
        |_| {},
        |folder, server| {
            let mut browser = Browser::new(server.at[0]);
            let before = browser.get("/a.txt", "").field("etag").unwrap().to_owned();
            folder.write("root/a.txt", b"changed");
            let deadline = Instant::now() + PATIENCE;
            while browser.get("/a.txt", "").text() != "changed" {
                assert!(Instant::now() < deadline);
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_ne!(browser.get("/a.txt", "").field("etag"), Some(&before[..]));
            fs::remove_file(folder.0.join("root/a.txt")).unwrap();
            let deadline = Instant::now() + PATIENCE;
            while browser.get("/a.txt", "").status != 404 {
                assert!(Instant::now() < deadline);
                std::thread::sleep(Duration::from_millis(20));
            }
        },
    );
}

#[test]
fn requests_behind_a_large_file_wait_for_its_end() {
    everywhere(
        |_| {},
        |folder, server| {
            let bytes = pattern(1_000_003);
            folder.write("root/large", &bytes);
            let mut browser = Browser::new(server.at[0]);
            for _ in 0..3 {
                browser.ask("GET", "/large", "");
                browser.ask("HEAD", "/large", "");
                browser.ask("GET", "/a.txt", "");
                browser.ask("GET", "/large", "Range: bytes=70000-899999\r\n");
            }
            browser.ask("GET", "/large", "Connection: close\r\n");
            browser.0.shutdown(Shutdown::Write).unwrap();
            for _ in 0..3 {
                assert!(browser.answer(true).body == bytes);
                assert_eq!(browser.answer(false).field("content-length"), Some("1000003"));
                assert_eq!(browser.answer(true).text(), "0123456789");
                assert!(browser.answer(true).body == bytes[70000..900_000]);
            }
            assert!(browser.answer(true).body == bytes);
            assert_eq!(browser.0.read(&mut [0]).unwrap(), 0, "it was the last");
        },
    );
}

#[test]
fn a_connection_goes_on_after_a_large_file() {
    everywhere(
        |config| config.limits.handshake_timeout = Duration::from_secs(1),
        |folder, server| {
            // Far more than the kernel takes ahead, so that the server sends for longer than a request may take.
            let bytes = pattern(BIG);
            folder.write("root/large", &bytes);
            let mut browser = Browser::new(server.at[0]);
            browser.ask("GET", "/large", "");
            assert!(browser.head().contains(&format!("Content-Length: {BIG}\r\n")));
            let mut body = vec![0; BIG];
            for (number, part) in body.chunks_mut(BIG / 64).enumerate() {
                browser.0.read_exact(part).unwrap();
                if number < 8 {
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
            assert!(body == bytes);
            assert_eq!(browser.get("/a.txt", "").text(), "0123456789");
        },
    );
}

#[test]
fn an_echo_beside_a_64_mib_file() {
    everywhere(
        |_| {},
        |folder, server| {
            let bytes = pattern(BIG);
            folder.write("root/big", &bytes);
            let at = server.at[0];
            let mut echo = server.websocket("/echo");
            let download = std::thread::spawn(move || Browser::new(at).get("/big", "").body);
            let mut worst = Duration::ZERO;
            let mut rounds = 0;
            while !download.is_finished() {
                let begin = Instant::now();
                echo.send_text("there?");
                assert_eq!(echo.frame().unwrap().payload, b"there?");
                worst = worst.max(begin.elapsed());
                rounds += 1;
            }
            println!("{:?}: {rounds} echoes beside 64 MiB, the slowest took {worst:?}", server.server.backend());
            assert!(download.join().unwrap() == bytes);
        },
    );
}

#[test]
fn who_does_not_read_is_cut() {
    everywhere(
        |config| config.limits.queue_stall_timeout = Duration::from_millis(200),
        |folder, server| {
            folder.write("root/big", &pattern(BIG));
            let mut silent = common::Client::with_small_window(server.at[0]);
            silent.send_raw(b"GET /big HTTP/1.1\r\nHost: here\r\n\r\n");
            until("the silent client is cut", || server.closed(CloseReason::SlowConsumer) == 1);
            let mut browser = Browser::new(server.at[0]);
            assert_eq!(browser.get("/a.txt", "").text(), "0123456789");
        },
    );
}

#[test]
fn a_file_that_shrinks_ends_its_connection() {
    everywhere(
        |_| {},
        |folder, server| {
            let bytes = pattern(BIG);
            folder.write("root/big", &bytes);
            let mut browser = Browser::new(server.at[0]);
            browser.ask("GET", "/big", "");
            browser.head();
            let file = fs::OpenOptions::new().write(true).open(folder.0.join("root/big")).unwrap();
            file.set_len(100).unwrap();
            let mut body = Vec::new();
            let _ = browser.0.read_to_end(&mut body);
            assert!(body.len() < BIG && bytes.starts_with(&body), "nothing but what was there");
            until("the connection has ended", || server.closed(CloseReason::Internal) == 1);
        },
    );
}

#[test]
fn a_file_that_is_not_in_memory_comes_whole() {
    everywhere(
        |_| {},
        |folder, server| {
            let bytes = pattern(4_000_003);
            folder.write("root/cold", &bytes);
            let file = fs::File::open(folder.0.join("root/cold")).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            let mut browser = Browser::new(server.at[0]);
            assert!(browser.get("/cold", "").body == bytes);
            assert_eq!(browser.get("/a.txt", "").text(), "0123456789");
        },
    );
}
