//! Threads with shards on them.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use socket2::Socket;

use super::bind::{self, BACKLOG_MAX, Numbered};
use super::publisher::Publisher;
use super::{Joins, RunError, StartError, lock, ring_all};
use crate::app::Router;
use crate::cluster::port::ShardEnd as ClusterEnd;
use crate::config::BackendChoice;
use crate::hooks::port::ShardEnd as HooksEnd;
use crate::hub::topics::Legacy;
use crate::id::{ListenerId, ShardId};
use crate::io::proxy::Proxy;
use crate::io::tls::{Current, Setup, Speaks, Tls};
use crate::io::{Backend, epoll, uring};
use crate::journal::port::ShardEnd;
use crate::mailbox::Doorbell;
use crate::message::Epoch;
use crate::metrics::{Metrics, ShardMetrics};
use crate::shard::{Control, Entrance, Mail, Postbox, Seed, Shard, Turn};
use crate::time::SystemClock;

/// What a group of shards is started from.
pub(super) struct Launch {
    pub(super) backend: BackendChoice,
    pub(super) entrances: Arc<[Entrance]>,
    /// Per shard, with the numbers of the entrances.
    pub(super) sockets: Vec<Vec<Numbered>>,
    pub(super) control: Arc<Control>,
    pub(super) metrics: Metrics,
    pub(super) router: Router,
    /// What the listeners speak below their protocols and on which terms, where one of them speaks TLS.
    pub(super) tls: Option<(Vec<Speaks>, Arc<Current>)>,
    /// Of the threads.
    pub(super) name: &'static str,
}

/// Shards that serve together.
pub(super) struct Group {
    control: Arc<Control>,
    doorbells: Arc<[Arc<Doorbell>]>,
    publisher: Publisher,
    threads: Joins,
}

/// What a shard begins with.
struct Heritage {
    /// The newest epoch of the process before, and the topics that the shard is to own.
    topics: (Epoch, Vec<Legacy>),
    /// Its way to the journal, the newest epoch there, and the topics that the journal has for it.
    journal: Option<(ShardEnd, Epoch, Vec<Legacy>)>,
    /// Its way to a receiver of what happens.
    hooks: Option<HooksEnd>,
    /// Its way to the other nodes.
    cluster: Option<ClusterEnd>,
}

/// What a journal has for all shards.
pub(super) struct Recovered {
    /// The newest epoch.
    pub(super) epoch: Epoch,
    pub(super) topics: Vec<Legacy>,
    /// In the order of the shards.
    pub(super) ends: Vec<ShardEnd>,
}

/// Shards that wait for the word to listen. Without it they end.
pub(super) struct Waiting {
    group: Group,
    words: Vec<mpsc::Sender<Heritage>>,
    reports: mpsc::Receiver<Result<(), StartError>>,
}

impl Waiting {
    /// The shards.
    pub(super) const fn group(&self) -> &Group {
        &self.group
    }

    /// Lets them listen and go on with these topics; all of them accept when it returns.
    pub(super) fn listen(
        self,
        epoch: Epoch,
        topics: Vec<Legacy>,
        recovered: Option<Recovered>,
        hooks: Vec<HooksEnd>,
        cluster: Vec<ClusterEnd>,
    ) -> Result<Group, StartError> {
        let Self { group, words, reports } = self;
        let shards = u16::try_from(words.len()).unwrap_or(u16::MAX);
        let mut journals = recovered.map(|recovered| {
            let parts = by_owner(recovered.topics, shards);
            recovered.ends.into_iter().zip(parts).map(move |(end, part)| (end, recovered.epoch, part))
        });
        let (mut hooks, mut cluster) = (hooks.into_iter(), cluster.into_iter());
        for (word, part) in words.iter().zip(by_owner(topics, shards)) {
            let journal = journals.as_mut().and_then(Iterator::next);
            let _ =
                word.send(Heritage { topics: (epoch, part), journal, hooks: hooks.next(), cluster: cluster.next() });
        }
        reports.iter().take(words.len()).try_for_each(|started| started.map_err(|error| group.fail(error)))?;
        Ok(group)
    }

    /// Ends them: nobody has come in.
    pub(super) fn give_up(self) {
        let Self { group, words, .. } = self;
        drop(words);
        group.end();
        let _ = group.join();
    }
}

/// Topics by the shards that own them.
fn by_owner(topics: Vec<Legacy>, shards: u16) -> Vec<Vec<Legacy>> {
    let mut parts: Vec<_> = (0..shards).map(|_| Vec::new()).collect();
    for legacy in topics {
        parts[usize::from(legacy.topic.owner(shards).0)].push(legacy);
    }
    parts
}

impl Launch {
    /// Starts the threads; all that they need is there when it returns, but they do not listen yet.
    pub(super) fn start(self) -> Result<Waiting, StartError> {
        let shards = u16::try_from(self.sockets.len()).unwrap_or(u16::MAX);
        let limits = Arc::clone(&self.control.live().limits);
        let mails = Mail::mesh(shards, limits.mailbox_capacity);
        let doorbells: Arc<[Arc<Doorbell>]> = mails.iter().map(Mail::doorbell).collect();
        let (report, reports) = mpsc::channel();
        // One for all: what one shard stamps another measures.
        let clock = SystemClock::new();
        let postbox = mails[0].postbox();
        let publisher = Publisher::new(postbox, Arc::clone(&self.control));
        let group = Group { control: self.control, doorbells, publisher, threads: Mutex::default() };
        let mut words = Vec::new();
        for ((number, mail), sockets) in (0..).zip(mails).zip(self.sockets) {
            let seed = Seed {
                id: ShardId(number),
                router: self.router.fresh(),
                entrances: Arc::clone(&self.entrances),
                mail,
                control: Arc::clone(&group.control),
                metrics: self.metrics.clone(),
            };
            let (report, backend, tls) = (report.clone(), self.backend, self.tls.clone());
            let (word, wait) = mpsc::channel();
            words.push(word);
            let (control, doorbells) = (Arc::clone(&group.control), Arc::clone(&group.doorbells));
            let alarm = Alarm { control, doorbells, is_well: false };
            let run = move || {
                // All of it: a closure takes no more than it names.
                let mut alarm = alarm;
                let result = run(backend, tls, seed, clock, sockets, &report, &wait);
                alarm.is_well = result.is_ok();
                result
            };
            let thread = thread::Builder::new().name(format!("{}-{number}", self.name)).spawn(run);
            // The list must not be locked when the start fails: giving up waits for those that are on it.
            match thread {
                Ok(thread) => lock(&group.threads).push(thread),
                Err(error) => {
                    drop(words);
                    return Err(group.fail(StartError::Thread(error)));
                }
            }
        }
        drop(report);
        for started in reports.iter().take(usize::from(shards)) {
            if let Err(error) = started {
                drop(words);
                return Err(group.fail(error));
            }
        }
        Ok(Waiting { group, words, reports })
    }
}

impl Group {
    pub(super) const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The way to its shards.
    pub(super) fn postbox(&self) -> Postbox {
        self.publisher.postbox().clone()
    }

    /// What tells its shards to drain.
    pub(super) fn gate(&self) -> Gate {
        Gate { control: Arc::clone(&self.control), doorbells: Arc::clone(&self.doorbells) }
    }

    /// Has each shard take a turn.
    pub(super) fn wake(&self) {
        ring_all(&self.doorbells);
    }

    pub(super) fn doorbells(&self) -> Arc<[Arc<Doorbell>]> {
        Arc::clone(&self.doorbells)
    }

    pub(super) fn end(&self) {
        self.control.end();
        ring_all(&self.doorbells);
    }

    /// Waits for all threads.
    pub(super) fn join(&self) -> Result<(), RunError> {
        let threads = std::mem::take(&mut *lock(&self.threads));
        let mut first = Ok(());
        for (number, thread) in threads.into_iter().enumerate() {
            let result = match thread.join() {
                Ok(result) => result.map_err(|error| RunError::Io(number, error)),
                Err(_) => Err(RunError::Panic(number)),
            };
            first = first.and(result);
        }
        first
    }

    /// Ends what has been started already.
    pub(super) fn fail(&self, error: StartError) -> StartError {
        self.end();
        let _ = self.join();
        error
    }
}

/// Tells the shards of a group to drain.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) control: Arc<Control>,
    doorbells: Arc<[Arc<Doorbell>]>,
}

impl Gate {
    pub(super) fn drain(&self, period: Duration) {
        self.control.drain(period);
        self.wake();
    }

    /// Has each shard take a turn.
    pub(super) fn wake(&self) {
        ring_all(&self.doorbells);
    }
}

/// Ends all shards when one of them fails, by an error or a panic: its connections are gone, its topics have no owner, and
/// nobody would wait for the others.
struct Alarm {
    control: Arc<Control>,
    doorbells: Arc<[Arc<Doorbell>]>,
    /// The shard has ended as it should.
    is_well: bool,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.is_well {
            self.control.end();
            ring_all(&self.doorbells);
        }
    }
}

type Report = mpsc::Sender<Result<(), StartError>>;
type Word = mpsc::Receiver<Heritage>;

/// A shard's thread. The backend is made here, since a ring belongs to the thread that made it.
fn run(
    backend: BackendChoice,
    tls: Option<(Vec<Speaks>, Arc<Current>)>,
    seed: Seed,
    clock: SystemClock,
    sockets: Vec<Numbered>,
    report: &Report,
    word: &Word,
) -> Result<(), std::io::Error> {
    let connections_max = seed.control.live().limits.connections_max;
    let failed = |error: StartError| {
        let _ = report.send(Err(error));
        Ok(())
    };
    if backend == BackendChoice::Epoll {
        match epoll::Epoll::new(epoll::Config::new(connections_max)) {
            Ok(backend) => serve(backend, tls, seed, clock, sockets, report, word),
            Err(error) => failed(error.into()),
        }
    } else {
        let slots = connections_max.saturating_add(Control::SHED_MAX);
        match uring::Uring::new(uring::Config::new(slots)) {
            Ok(backend) => serve(backend, tls, seed, clock, sockets, report, word),
            Err(error) => failed(error.into()),
        }
    }
}

/// The backend with TLS, where a listener speaks it.
fn around<B>(backend: B, tls: Option<(Vec<Speaks>, Arc<Current>)>, metrics: Arc<ShardMetrics>) -> Tls<B> {
    match tls {
        Some((listeners, current)) => Tls::new(backend, Setup { listeners, current, metrics }),
        None => Tls::plain(backend, metrics),
    }
}

fn serve<B: Backend>(
    backend: B,
    tls: Option<(Vec<Speaks>, Arc<Current>)>,
    seed: Seed,
    clock: SystemClock,
    sockets: Vec<Numbered>,
    report: &Report,
    word: &Word,
) -> Result<(), std::io::Error> {
    let (entrances, mut ears) = (Arc::clone(&seed.entrances), Ears::new(&sockets, &seed.control));
    let proxied = (0..).zip(entrances.iter()).filter(|(_, entrance)| entrance.proxied);
    let backend = Proxy::new(backend, proxied.map(|(number, _)| ListenerId(number)));
    let metrics = Arc::clone(&seed.metrics.shards[usize::from(seed.id.0)]);
    let backend = around(backend, tls, metrics).of_shard(seed.id);
    let mut shard = Shard::new(backend, seed);
    let _ = report.send(Ok(()));
    let Ok(heritage) = word.recv() else { return Ok(()) };
    begin(&mut shard, heritage, &clock);
    for (listener, socket) in sockets {
        let listening = rustix::net::listen(&socket, BACKLOG_MAX).map_err(std::io::Error::from);
        if let Err(error) = listening.and_then(|()| shard.backend().listen(listener, socket)) {
            let url = entrances.get(usize::from(listener.0)).map_or_else(String::new, |entrance| entrance.url.clone());
            let _ = report.send(Err(StartError::Bind { url, mend: bind::mend(&error), error }));
            return Ok(());
        }
    }
    let _ = report.send(Ok(()));
    while shard.turn(&clock)? == Turn::Again {
        ears.follow();
    }
    Ok(())
}

/// Goes on with what was left.
fn begin<B: Backend>(shard: &mut Shard<B>, heritage: Heritage, clock: &SystemClock) {
    let Heritage { topics: (epoch, topics), journal, hooks, cluster } = heritage;
    cluster.into_iter().for_each(|end| shard.join_cluster(end));
    hooks.into_iter().for_each(|end| shard.join_hooks(end));
    let (count, adopted) = (topics.len(), shard.adopt(epoch, topics, clock));
    if adopted < count {
        tracing::warn!("{} topics of the server before have no room here; raise limits.topics_max", count - adopted);
    }
    if let Some((end, epoch, topics)) = journal {
        shard.join_journal(end);
        let left_out = shard.recover(epoch, topics, clock);
        if left_out > 0 {
            tracing::warn!("{left_out} topics of the journal have no room here; raise limits.topics_max");
        }
    }
}

/// The sockets that a shard listens at, beside those of its backend: what accepted ones inherit follows the limits.
struct Ears {
    sockets: Vec<Socket>,
    control: Arc<Control>,
    version: u64,
}

impl Ears {
    fn new(sockets: &[Numbered], control: &Arc<Control>) -> Self {
        // Without room for another descriptor what the start has set stays.
        // Those of files have no such options, nor addresses.
        let of_tcp = sockets.iter().filter(|(_, socket)| socket.local_addr().is_ok());
        let sockets = of_tcp.filter_map(|(_, socket)| socket.try_clone().ok()).map(Socket::from).collect();
        Self { sockets, control: Arc::clone(control), version: control.live_version() }
    }

    fn follow(&mut self) {
        if self.control.phase() != crate::shard::Phase::Running {
            // A socket listens until the last descriptor of it is closed.
            self.sockets = Vec::new();
            return;
        }
        let version = self.control.live_version();
        if version != self.version {
            self.version = version;
            let silence = bind::silence(&self.control.live().limits);
            for socket in &self.sockets {
                if let Err(error) = socket.set_tcp_user_timeout(silence) {
                    tracing::warn!(%error, "clients that take no data are given up as before the reload");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};

    use super::*;
    use crate::app::site::{Page, PageRequest, Site};
    use crate::config::Limits;
    use crate::config::Listen;
    use crate::server::bind::Held;
    use crate::shard::{EntranceKind, Live};

    /// Not a handler, whose panics are caught, but a part of the server.
    struct Faulty;

    impl Site for Faulty {
        fn get(&self, _request: &PageRequest<'_>) -> Option<Page> {
            panic!("a fault, as the test wants it")
        }
    }

    #[test]
    fn a_shard_that_panics_ends_all_of_them() {
        let shards = 3;
        let listen = Listen::http(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let bound = Held::new("http", &listen, None, shards, None).unwrap();
        let address = bound.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let kind = EntranceKind::Http { site: Arc::new(Faulty), routes: false };
        let launch = Launch {
            backend: BackendChoice::Epoll,
            entrances: [Entrance { url: bound.url.clone(), kind, proxied: false }].into(),
            sockets: bind::per_shard(&[bound], shards).unwrap(),
            control: Arc::new(Control::new(Live::new(Limits { connections_max: 10, ..Limits::default() }))),
            metrics: Metrics::new(shards),
            router: Router::new(),
            tls: None,
            name: "test",
        };
        let group = launch.start().unwrap().listen(Epoch::default(), Vec::new(), None, Vec::new(), Vec::new()).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        assert!(matches!(group.join(), Err(RunError::Panic(_))), "it ends, and says why");
        assert_eq!(client.read(&mut [0; 16]).unwrap_or(0), 0, "nobody answers");
    }
}
