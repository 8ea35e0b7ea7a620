//! nginx, started in the foreground with a configuration of ours: one worker, no log.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::sys;
use super::target::{Target, spawn_pinned};
use super::wire::bad;

/// The command that installs it where it is missing.
pub(crate) const INSTALL: &str = "apt-get install nginx-light";
/// What it answers to a POST.
pub(crate) const POSTED: &[u8] = b"ok\n";

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How it serves files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// By sendfile; each file is opened for each request.
    Sendfile,
    /// By sendfile, with `open_file_cache`.
    FileCache,
    /// The same with `tcp_nopush`: head and file leave in one packet.
    NoPush,
    /// With `open_file_cache`, but read into a buffer: head and file leave in one system call.
    Buffered,
}

impl Tuning {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sendfile => "nginx",
            Self::FileCache => "nginx, file cache",
            Self::NoPush => "nginx, file cache, nopush",
            Self::Buffered => "nginx, file cache, no sendfile",
        }
    }

    const fn directives(self) -> &'static str {
        match self {
            Self::Sendfile => "sendfile on; open_file_cache off;",
            Self::FileCache => "sendfile on; open_file_cache max=1000 inactive=60s;",
            Self::NoPush => "sendfile on; tcp_nopush on; open_file_cache max=1000 inactive=60s;",
            Self::Buffered => "sendfile off; open_file_cache max=1000 inactive=60s;",
        }
    }
}

/// Its version, when it is there.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("nginx").arg("-v").output().ok()?;
    Some(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Starts it for the files below `root`, with its files of its own in `room`.
pub(crate) fn start(room: &Path, root: &Path, tuning: Tuning) -> io::Result<Target> {
    let location = format!("root {};\n        location /topics/ {{ return 200 \"ok\\n\"; }}", root.display());
    launch(room, "http", &format!("{location}\n        {}", tuning.directives()))
}

/// Starts it with TLS, its certificate and key in these files, to answer everything with 404 as a server without files does.
pub(crate) fn start_tls(room: &Path, certificate: &Path, key: &Path) -> io::Result<Target> {
    let (certificate, key) = (certificate.display(), key.display());
    let directives = format!(
        "ssl_certificate {certificate};\n        ssl_certificate_key {key};\n        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_tickets on;\n        location / {{ return 404 \"none\\n\"; }}"
    );
    launch(room, "https", &directives)
}

fn launch(room: &Path, scheme: &str, server: &str) -> io::Result<Target> {
    // The port is free again until nginx takes it. Another program that is faster makes nginx say so and end.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    fs::create_dir_all(room)?;
    let file = room.join("nginx.conf");
    let ssl = if scheme == "https" { " ssl" } else { "" };
    fs::write(&file, configuration(room, &format!("listen 127.0.0.1:{port}{ssl};\n        {server}")))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(room).arg("-c").arg(&file).arg("-e").arg(room.join("error.log")).stdout(Stdio::null());
    sys::die_with_parent(&mut command);
    let mut master = spawn_pinned(&mut command)?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let answers = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        if let Some(worker) = sys::child_of(master.id())?.filter(|_| answers) {
            return Ok(Target::with_worker(master, worker, vec![format!("{scheme}://127.0.0.1:{port}")]));
        }
        let ended = master.try_wait()?;
        if ended.is_some() || Instant::now() > deadline {
            sys::terminate(master.id());
            let _ = master.wait();
            return Err(bad("nginx did not start"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn configuration(room: &Path, server: &str) -> String {
    let room = room.display();
    let user = if are_root() { "user root root;" } else { "" };
    format!(
        "{user}
daemon off;
worker_processes 1;
pid {room}/nginx.pid;
error_log {room}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {room}/body;
    proxy_temp_path {room}/proxy;
    fastcgi_temp_path {room}/fastcgi;
    uwsgi_temp_path {room}/uwsgi;
    scgi_temp_path {room}/scgi;
    server {{
        {server}
    }}
}}
"
    )
}

/// Whether we are root: then nginx's worker would be somebody else, who perhaps may not read our files.
fn are_root() -> bool {
    rustix::process::geteuid().is_root()
}
