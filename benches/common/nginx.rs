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
    // The port is free again until nginx takes it. Another program that is faster makes nginx say so and end.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    fs::create_dir_all(room)?;
    let file = room.join("nginx.conf");
    fs::write(&file, configuration(room, root, port, tuning))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(room).arg("-c").arg(&file).arg("-e").arg(room.join("error.log")).stdout(Stdio::null());
    sys::die_with_parent(&mut command);
    let mut master = spawn_pinned(&mut command)?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let answers = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        if let Some(worker) = sys::child_of(master.id())?.filter(|_| answers) {
            return Ok(Target::with_worker(master, worker, vec![format!("http://127.0.0.1:{port}")]));
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

fn configuration(room: &Path, root: &Path, port: u16, tuning: Tuning) -> String {
    let (room, root) = (room.display(), root.display());
    let user = if are_root() { "user root root;" } else { "" };
    let directives = tuning.directives();
    format!(
        "{user}
daemon off;
worker_processes 1;
pid {room}/nginx.pid;
error_log {room}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    {directives}
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {room}/body;
    proxy_temp_path {room}/proxy;
    fastcgi_temp_path {room}/fastcgi;
    uwsgi_temp_path {room}/uwsgi;
    scgi_temp_path {room}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        location /topics/ {{ return 200 \"ok\\n\"; }}
    }}
}}
"
    )
}

/// Whether we are root: then nginx's worker would be somebody else, who perhaps may not read our files.
fn are_root() -> bool {
    rustix::process::geteuid().is_root()
}
