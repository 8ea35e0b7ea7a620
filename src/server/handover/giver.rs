//! The old process's side.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::heir::Will;
use super::wire::{self, DESCRIPTORS_MAX, Kind, Nothing, Offer, Refused, Taken};
use super::{HandoverError, PATIENCE, START_PATIENCE};
use crate::server::Server;
use crate::server::bind::Held;
use crate::server::drainer::Drainer;
use crate::server::journal::Keeping;
use crate::shard::Postbox;

/// What is done when a new process is ready; it is given its PID.
type OnReady = Box<dyn Fn(u32) + Send>;

/// Waits for new processes at a Unix socket. The file goes with this value, unless another one is there by then or somebody
/// follows, who puts its own in that place.
pub struct Giver {
    path: PathBuf,
    /// Device and inode of the file that is ours.
    file: (u64, u64),
    is_followed: Arc<AtomicBool>,
}

impl Giver {
    /// Listens at this path, in a thread of its own. Where a new process is ready, `on_ready` is called before it is told
    /// that this one takes nobody in any more and drains within `period`.
    ///
    /// `follows`: a server that was there has been taken over, and this one takes its place.
    ///
    /// # Errors
    /// When the path cannot be had.
    pub fn start(
        path: &Path,
        follows: bool,
        server: &Server,
        period: Duration,
        on_ready: impl Fn(u32) + Send + 'static,
    ) -> Result<Self, HandoverError> {
        let listener = listen(path, follows)?;
        let metadata = fs::metadata(path).map_err(|error| HandoverError::socket(path, error))?;
        let is_followed = Arc::new(AtomicBool::new(false));
        let file = (metadata.st_dev(), metadata.st_ino());
        let giver = Self { path: path.to_owned(), file, is_followed: Arc::clone(&is_followed) };
        let on_ready = move |pid| {
            is_followed.store(true, Ordering::Release);
            on_ready(pid);
        };
        let (drainer, on_ready): (_, OnReady) = (server.drainer.clone(), Box::new(on_ready));
        let (shards, journal) = (server.serving.postbox(), server.journal.clone());
        let run = move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => {
                        if give(&stream, &drainer, &shards, &journal, period, &on_ready) {
                            return;
                        }
                    }
                    Err(_) => thread::sleep(PATIENCE / 50),
                }
            }
        };
        let thread = thread::Builder::new().name("upgrade".to_owned()).spawn(run);
        thread.map_err(|error| HandoverError::socket(path, error))?;
        Ok(giver)
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        // Between a look at the file and its removal there may be another one.
        if self.is_followed.load(Ordering::Acquire) {
            return;
        }
        let is_ours =
            fs::metadata(&self.path).is_ok_and(|metadata| (metadata.st_dev(), metadata.st_ino()) == self.file);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at a path. What a server left there that is no more is replaced, and so is what was there when it was taken over.
fn listen(path: &Path, follows: bool) -> Result<UnixListener, HandoverError> {
    let failed = |error| HandoverError::socket(path, error);
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(failed(std::io::Error::new(ErrorKind::AlreadyExists, "the file is no socket")));
        }
        Ok(_) if !follows && UnixStream::connect(path).is_ok() => return Err(HandoverError::Taken(path.to_owned())),
        _ => {}
    }
    // Under another name first: there is no moment without a socket, and none with one that others may write to.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let _ = fs::remove_file(&name);
    let listener = UnixListener::bind(&name).map_err(failed)?;
    let placed = fs::set_permissions(&name, fs::Permissions::from_mode(0o600)).and_then(|()| fs::rename(&name, path));
    if let Err(error) = placed {
        let _ = fs::remove_file(&name);
        return Err(failed(error));
    }
    Ok(listener)
}

/// Gives one caller all sockets and waits until it is ready. Whether the server is its own from then on.
fn give(
    stream: &UnixStream,
    drainer: &Drainer,
    shards: &Postbox,
    journal: &Keeping,
    period: Duration,
    on_ready: &OnReady,
) -> bool {
    let offered = offer(stream, drainer);
    let given = offered.and_then(|(pid, taken)| bequeath(stream, drainer, shards).map(|()| (pid, taken)));
    match given {
        Ok((pid, taken)) => {
            on_ready(pid);
            drainer.give_topics_away();
            drainer.hand_over(&taken, period);
            // All that waited for it is written: the other process goes on with it.
            journal.end();
            let _ = wire::send(stream, Kind::Yours, &Nothing {}, &[]);
            true
        }
        Err(why) => {
            tracing::warn!("an upgrade came to nothing: {why}; this server goes on");
            let _ = wire::send(stream, Kind::Refused, &Refused { reason: why }, &[]);
            false
        }
    }
}

fn failed(error: std::io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "the new process does not get on".to_owned(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            "the new process has gone".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Gives a caller that is ready what the topics leave. Publications wait from then on, but where that comes to nothing they
/// go on as before.
fn bequeath(stream: &UnixStream, drainer: &Drainer, shards: &Postbox) -> Result<(), String> {
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let (began, mut will) = (Instant::now(), Will::new(stream));
    let used = drainer.hold();
    let sent = will.used(used).and_then(|()| will.topics(shards)).and_then(|()| will.end());
    if let Err(error) = sent {
        drainer.go_on();
        return Err(failed(error));
    }
    tracing::info!(topics = will.topics, messages = will.messages, took = ?began.elapsed(), "the topics go over");
    Ok(())
}

fn offer(stream: &UnixStream, drainer: &Drainer) -> Result<(u32, Vec<usize>), String> {
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let pid = wire::known_peer(stream).map_err(failed)?;
    if wire::receive(stream).map_err(failed)?.kind != Kind::Hello {
        return Err("the new process does not begin with a hello".to_owned());
    }
    let held = drainer.held().ok_or("this server drains already")?;
    let offer = Offer { listeners: held.iter().map(Held::offered).collect() };
    wire::send(stream, Kind::Offer, &offer, &[]).map_err(failed)?;
    let descriptors: Vec<_> = held.iter().flat_map(|held| held.sockets.iter().map(AsFd::as_fd)).collect();
    for some in descriptors.chunks(DESCRIPTORS_MAX) {
        wire::send(stream, Kind::Sockets, &Nothing {}, some).map_err(failed)?;
    }
    tracing::info!(pid, "a new process takes over");
    stream.set_read_timeout(Some(START_PATIENCE)).map_err(failed)?;
    let frame = wire::receive(stream).map_err(failed)?;
    if frame.kind != Kind::Ready {
        return Err("the new process says something else than that it is ready".to_owned());
    }
    let Taken { taken } = frame.read().map_err(failed)?;
    if drainer.held().is_none() {
        return Err("this server drains already".to_owned());
    }
    Ok((pid, taken))
}
