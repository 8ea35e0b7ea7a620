//! Machines: a network namespace for NATS and one for each node, joined by links that can be cut.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use holdline::io::tun::Namespace;
use rustix::thread::gettid;
use tokio::sync::oneshot;

use super::nats::Nats;
use super::program::{PATIENCE, Program, Scratch, holdline};

pub const NODES: usize = 3;

/// Where a node listens on its machine.
const WEB: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9090";
/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:00:99";

/// How a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It goes down, and what wants to send there is told so.
    Down,
    /// Whatever is sent there gets lost, and nobody is told.
    Silent,
}

/// All of them. They are gone with this value.
pub struct Machines {
    pub nats: Nats,
    hub: Namespace,
    pub nodes: Vec<Node>,
}

/// A machine with a server.
pub struct Node {
    number: usize,
    inside: Namespace,
    settings: Scratch,
    program: Option<Program>,
}

impl Machines {
    /// Starts NATS and all nodes, which share topics and have this lease; `settings` is more of their file.
    pub fn start(lease: &str, settings: &str) -> Self {
        let hub = namespace();
        let nats = Nats::start_inside(&hub);
        let node = |number| Node::start(number, &hub, lease, settings);
        let nodes = (0..NODES).map(node).collect();
        Self { nats, hub, nodes }
    }

    pub fn cut(&self, node: usize, how: Cut) {
        let inside = &self.nodes[node].inside;
        match how {
            Cut::Down => ip(inside, "link set nats down"),
            Cut::Silent => {
                let lost = format!("lladdr {NOBODY} nud permanent");
                ip(inside, &format!("neigh replace 10.77.{node}.1 {lost} dev nats"));
                ip(&self.hub, &format!("neigh replace 10.77.{node}.2 {lost} dev node{node}"));
            }
        }
    }

    pub fn mend(&self, node: usize, how: Cut) {
        let inside = &self.nodes[node].inside;
        match how {
            Cut::Down => ip(inside, "link set nats up"),
            Cut::Silent => {
                ip(inside, &format!("neigh del 10.77.{node}.1 dev nats"));
                ip(&self.hub, &format!("neigh del 10.77.{node}.2 dev node{node}"));
            }
        }
    }
}

impl Node {
    fn start(number: usize, hub: &Namespace, lease: &str, settings: &str) -> Self {
        let inside = namespace();
        let there = inside.run(|| gettid().as_raw_nonzero()).unwrap();
        let device = format!("node{number}");
        ip(hub, &format!("link add {device} type veth peer name nats netns {there}"));
        ip(hub, &format!("addr add 10.77.{number}.1/30 dev {device}"));
        ip(hub, &format!("link set {device} up"));
        ip(&inside, &format!("addr add 10.77.{number}.2/30 dev nats"));
        ip(&inside, "link set nats up");
        let text = format!(
            "[cluster]\nnats = [\"nats://10.77.{number}.1:4222\"]\nname = \"{device}\"\nlease = \"{lease}\"\n\
             [heartbeat]\ninterval = \"10m\"\n[limits]\nkeep_alive_requests_max = 1000000000\n\
             [history]\nmessages_max = 1000000\nbytes_max = \"64MiB\"\nage_max = \"1h\"\n{settings}"
        );
        let settings = Scratch::with(&format!("nodes-{number}-{there}.toml"), &text);
        let mut node = Self { number, inside, settings, program: None };
        node.start_again();
        node
    }

    /// Kills it where it stands.
    pub fn kill(&mut self) {
        self.program = None;
    }

    pub fn start_again(&mut self) {
        let mut command = holdline(&["serve", "--config", self.settings.path(), "--listen"]);
        command.args([&format!("http://{WEB}"), "--admin", ADMIN, "--shards", "2", "--max-connections", "15000"]);
        command.stderr(if std::env::var_os("HOLDLINE_NODES_LOG").is_some() { Stdio::inherit() } else { Stdio::null() });
        self.program = Some(self.inside.run(move || Program::start(command)).unwrap());
    }

    /// A number that it tells of itself: the sum over all labels.
    pub fn metric(&self, name: &str) -> u64 {
        let name = format!("holdline_{name}");
        let is_it = |line: &&str| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let page = self.page("/metrics");
        let values: Vec<u64> =
            page.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        assert!(!values.is_empty(), "node {} tells no {name}", self.number);
        values.iter().sum()
    }

    fn page(&self, path: &str) -> String {
        let mut stream = self.inside.run(|| TcpStream::connect(ADMIN)).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A way in for clients of this machine.
    pub fn door(&self) -> Door {
        let (asks, asked) = mpsc::channel::<oneshot::Sender<_>>();
        let serve = move || asked.into_iter().for_each(|ask| drop(ask.send(TcpStream::connect(WEB))));
        self.inside.run(move || thread::spawn(serve)).unwrap();
        Door(asks)
    }
}

/// Makes connections to a node on its own machine, which no cut of its link touches.
pub struct Door(mpsc::Sender<oneshot::Sender<std::io::Result<TcpStream>>>);

impl Door {
    pub async fn connect(&self) -> std::io::Result<tokio::net::TcpStream> {
        let (ask, answer) = oneshot::channel();
        self.0.send(ask).unwrap();
        let stream = answer.await.unwrap()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    }
}

fn namespace() -> Namespace {
    Namespace::new(1).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a command of `ip` in a namespace.
fn ip(inside: &Namespace, command: &str) {
    let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
    let done = inside.run(move || Command::new("ip").args(words).output()).unwrap();
    let done = done.unwrap_or_else(|error| panic!("ip is needed ({error}): apt-get install iproute2"));
    assert!(done.status.success(), "ip {command}: {}", String::from_utf8_lossy(&done.stderr));
}
