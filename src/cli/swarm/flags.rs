//! From flags to a plan: what is wrong is told with the flag's name, before anything runs.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::Failure;
use crate::cli::trust::TrustArgs;
use crate::config::{Place, Wrong, parse_duration, parse_size, quote};
use crate::io::tun::{DEVICES_MAX, SERVER};
use crate::swarm::plan::{
    App, Broadcast, Churn, Echo, Idle, MESSAGE_BYTES_MIN, Plan, Rate, Scenario, Share, Target, TunPlan, Via,
    parse_count,
};

/// What all scenarios take.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// ws://HOST:PORT/echo, ws://HOST:PORT/topics/NAME, http://HOST:PORT/topics/NAME for server-sent events (SSE),
    /// grpc://HOST:PORT/echo, grpc://HOST:PORT/topics/NAME, or
    /// tcp://HOST:PORT?framing=line|length&app=echo|topic&topic=NAME, where topic= is what each connection sends first;
    /// over TLS wss://, https://, grpcs:// and tls://
    #[arg(long, value_name = "URL")]
    target: String,
    #[command(flatten)]
    trust: TrustArgs,
    /// What the target does with a message, for paths of your own: echo or topic [default: as the URL says]
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Connections to hold; 200k and 5M are numbers, too
    #[arg(long, value_name = "N", default_value = "1000", allow_negative_numbers = true)]
    connections: String,
    /// New connections per second at most, such as 30k/s [default: as fast as they come]
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    rate: Option<String>,
    /// Threads that hold them [default: 0, one for two cores]
    #[arg(long, value_name = "N", default_value = THREADS_BY_CORES, hide_default_value = true, allow_negative_numbers = true)]
    threads: String,
    /// loopback (the kernel's sockets) or tun (a TCP client of its own behind a TUN device, in a network namespace
    /// where it starts the server)
    #[arg(long, value_name = "NAME", default_value = "loopback")]
    via: String,
    /// The server's process: its memory and CPU time go into the report
    #[arg(long, value_name = "PID", allow_negative_numbers = true)]
    pid: Option<String>,
    /// Time that one connection has, from the dial to the end of its handshake
    #[arg(long, value_name = "D", default_value = "30s")]
    connect_timeout: String,
    /// How long nothing at all may come before what has not come counts as missing; as long as something comes, late
    /// answers and deliveries count
    #[arg(long, value_name = "D", default_value = "30s")]
    patience: String,
    /// Write the report there as JSON; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Say nothing while it runs
    #[arg(long)]
    pub(super) quiet: bool,
    /// Round-trip time [default: 0]
    #[arg(long, value_name = "D", help_heading = "Network of --via tun")]
    rtt: Option<String>,
    /// The share of packets that are lost, such as 0.01 or 1% [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, help_heading = "Network of --via tun")]
    loss: Option<String>,
    /// The share of packets that are overtaken [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, help_heading = "Network of --via tun")]
    reorder: Option<String>,
    /// The share of --connections that vanish without a word once all have proven alive [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, help_heading = "Network of --via tun")]
    vanish: Option<String>,
    /// With --via tun: the server to start in the namespace, such as
    /// `-- holdline serve --insecure --listen http://198.18.0.1:8080`
    #[arg(last = true, value_name = "SERVER")]
    server: Vec<OsString>,
}

/// `swarm idle`
#[derive(Debug, clap::Args)]
pub(super) struct IdleArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// How long all connections are held
    #[arg(long, value_name = "D", default_value = "30s")]
    hold: String,
}

/// `swarm broadcast`
#[derive(Debug, clap::Args)]
pub(super) struct BroadcastArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Publications
    #[arg(long, value_name = "N", default_value = "10", allow_negative_numbers = true)]
    messages: String,
    /// Bytes of each
    #[arg(long, value_name = "SIZE", default_value = "128")]
    size: String,
    /// Time from one publication to the next
    #[arg(long, value_name = "D", default_value = "1s")]
    interval: String,
    /// How long the connections are held before the first
    #[arg(long, value_name = "D", default_value = "0")]
    hold: String,
}

/// `swarm echo`
#[derive(Debug, clap::Args)]
pub(super) struct EchoArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Bytes of each message
    #[arg(long, value_name = "SIZE", default_value = "64")]
    size: String,
    /// Messages under way per connection
    #[arg(long, value_name = "N", default_value = "1", allow_negative_numbers = true)]
    in_flight: String,
    /// Messages per second over all connections, at intended times [default: the next leaves when one has come back]
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    message_rate: Option<String>,
    /// How long it is measured
    #[arg(long, value_name = "D", default_value = "10s")]
    duration: String,
    /// How long it runs before that
    #[arg(long, value_name = "D", default_value = "1s")]
    warm_up: String,
}

/// `swarm churn`
#[derive(Debug, clap::Args)]
pub(super) struct ChurnArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Connections that come per second, beside the --connections that stay
    #[arg(long, value_name = "R", default_value = "100/s", allow_negative_numbers = true)]
    churn: String,
    /// How long each of them stays
    #[arg(long, value_name = "D", default_value = "5s")]
    lifetime: String,
    /// How long it goes on
    #[arg(long, value_name = "D", default_value = "30s")]
    duration: String,
    /// The share of them that ends with a reset
    #[arg(long, value_name = "SHARE", default_value = "0", allow_negative_numbers = true)]
    abrupt: String,
    /// The share of them that goes mute and never closes
    #[arg(long, value_name = "SHARE", default_value = "0", allow_negative_numbers = true)]
    half_open: String,
    /// The share of them that stops reading
    #[arg(long, value_name = "SHARE", default_value = "0", allow_negative_numbers = true)]
    slow: String,
    /// An echo target of the same server, where healthy clients measure [default: the target, when it echoes]
    #[arg(long, value_name = "URL")]
    probe: Option<String>,
    /// How many of them
    #[arg(long, value_name = "N", default_value = "10", allow_negative_numbers = true)]
    probes: String,
    /// Time in which the server should end those that went mute: above its heartbeat's interval and timeout
    #[arg(long, value_name = "D", default_value = "60s")]
    half_open_for: String,
    /// Time between two publications to those who stay, on a topic [default: 1s, more above 10,000 connections]
    #[arg(long, value_name = "D")]
    publish_every: Option<String>,
}

/// The default of `--threads`.
const THREADS_BY_CORES: &str = "0";
const CONNECTIONS_MAX: usize = 100_000_000;
const THREADS_MAX: usize = 256;
const DAY: Duration = Duration::from_secs(86_400);
/// A frame that every server takes; larger ones measure memory bandwidth.
const SIZE_MAX: usize = 16 << 20;

/// What is wrong with a flag's value, and a value read.
trait At<T> {
    fn at(self, key: &str, flag: &'static str) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Wrong> {
    fn at(self, key: &str, flag: &'static str) -> Result<T, Failure> {
        self.map_err(|wrong| Failure::usage(wrong.at(key, Place::Flag(flag))))
    }
}

fn refuse<T>(what: &str, place: &str, mend: &str) -> Result<T, Failure> {
    Err(Failure::usage(format_args!("{what}, {place}: {mend}")))
}

fn duration(text: &str) -> Result<Duration, Wrong> {
    parse_duration(text, Duration::ZERO, 30 * DAY)
}

fn some_time(text: &str) -> Result<Duration, Wrong> {
    parse_duration(text, Duration::from_millis(1), 30 * DAY)
}

fn size(text: &str) -> Result<usize, Wrong> {
    parse_size(text, MESSAGE_BYTES_MIN, SIZE_MAX)
}

fn resolve(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.take(64).collect())
}

impl Common {
    fn plan(&self, scenario: Scenario) -> Result<Plan, Failure> {
        let target = self.target()?;
        let connections = parse_count(&self.connections, 1, CONNECTIONS_MAX).at("connections", "--connections")?;
        let probe = if let Scenario::Churn(Churn { probe: Some(probe), .. }) = &scenario { probe.tls } else { false };
        let plan = Plan {
            trust: self.trust.read(target.tls || probe)?,
            target,
            via: self.via()?,
            connections,
            rate: self.rate.as_deref().map(Rate::parse).transpose().at("rate", "--rate")?,
            threads: self.threads(connections)?,
            scenario,
            server_pid: self.pid()?,
            connect_timeout: some_time(&self.connect_timeout).at("connect-timeout", "--connect-timeout")?,
            patience: some_time(&self.patience).at("patience", "--patience")?,
        };
        if matches!(plan.via, Via::Tun(_)) { self.fit_tun(plan) } else { Ok(plan) }
    }

    fn target(&self) -> Result<Target, Failure> {
        let app = match self.app.as_deref() {
            None => None,
            Some("echo") => Some(App::Echo),
            Some("topic") => Some(App::Topic),
            Some(other) => {
                return Err(Wrong::new(format!("is {}", quote(other)), "write echo or topic")).at("app", "--app");
            }
        };
        Target::parse(&self.target, app, &resolve).at("target", "--target")
    }

    /// No more threads than there are connections.
    fn threads(&self, connections: usize) -> Result<usize, Failure> {
        let threads = match parse_count(&self.threads, 0, THREADS_MAX).at("threads", "--threads")? {
            // The other half is the server's, on a machine that both share.
            0 => (std::thread::available_parallelism().map_or(1, usize::from) / 2).clamp(1, THREADS_MAX),
            threads => threads,
        };
        Ok(threads.min(connections))
    }

    fn pid(&self) -> Result<Option<u32>, Failure> {
        let Some(text) = &self.pid else { return Ok(None) };
        let number = text.parse::<u32>().ok().filter(|pid| *pid > 0);
        let mend = "write the number of the server's process, such as pidof holdline prints";
        let pid = number.ok_or_else(|| Wrong::new(format!("is {}", quote(text)), mend)).at("pid", "--pid")?;
        if !Path::new("/proc").join(pid.to_string()).exists() {
            return Err(Wrong::new(format!("is {pid}, and there is no such process"), mend)).at("pid", "--pid");
        }
        Ok(Some(pid))
    }

    fn via(&self) -> Result<Via, Failure> {
        match self.via.as_str() {
            "loopback" => self.loopback(),
            "tun" => self.tun(),
            other => {
                let what = format!("is {}", quote(other));
                Err(Wrong::new(what, "write loopback or tun")).at("via", "--via")
            }
        }
    }

    fn loopback(&self) -> Result<Via, Failure> {
        let network =
            [("--rtt", &self.rtt), ("--loss", &self.loss), ("--reorder", &self.reorder), ("--vanish", &self.vanish)];
        if let Some((flag, _)) = network.iter().find(|(_, value)| value.is_some()) {
            let what = format!("{flag} needs a network of its own");
            return refuse(&what, "on the command line", "add --via tun");
        }
        if !self.server.is_empty() {
            return refuse(
                "a server to start is only for tun",
                "behind --",
                "add --via tun, or start the server yourself",
            );
        }
        Ok(Via::Loopback)
    }

    fn tun(&self) -> Result<Via, Failure> {
        if self.server.is_empty() {
            let mend = "add it, such as -- holdline serve --insecure --listen http://198.18.0.1:8080";
            return refuse("no server to start in the namespace", "behind --", mend);
        }
        if self.pid.is_some() {
            return refuse(
                "--pid is not for tun",
                "on the command line",
                "leave it out: the server is started, and known",
            );
        }
        let share = |text: &Option<String>| text.as_deref().map_or(Ok(Share::default()), Share::parse);
        Ok(Via::Tun(TunPlan {
            rtt: self
                .rtt
                .as_deref()
                .map_or(Ok(Duration::ZERO), |text| parse_duration(text, Duration::ZERO, DAY))
                .at("rtt", "--rtt")?,
            loss: share(&self.loss).at("loss", "--loss")?,
            reorder: share(&self.reorder).at("reorder", "--reorder")?,
            vanish: share(&self.vanish).at("vanish", "--vanish")?,
            server: self.server.clone(),
            quiet: self.quiet,
        }))
    }
}

impl Common {
    /// What a network with one address for the server, and for so many threads, has no place for.
    fn fit_tun(&self, mut plan: Plan) -> Result<Plan, Failure> {
        there(&plan.target).at("target", "--target")?;
        if let Scenario::Churn(Churn { probe: Some(probe), .. }) = &plan.scenario {
            there(probe).at("probe", "--probe")?;
        }
        // Each has a device of its own, the one of the probes too.
        let most = usize::from(DEVICES_MAX) + plan.threads - plan.crew();
        if plan.threads > most && self.threads != THREADS_BY_CORES {
            let mend = format!("write {most} or less, there is no device for more of them");
            let what = format!("is {}, above {most}", plan.threads);
            return Err(Wrong::new(what, mend)).at("threads", "--threads");
        }
        plan.threads = plan.threads.min(most);
        Ok(plan)
    }
}

/// Whether a target is where the server of a TUN run can be.
fn there(target: &Target) -> Result<(), Wrong> {
    if *target.address.ip() == SERVER {
        return Ok(());
    }
    let what = format!("is {}, and in its network the server has {SERVER}", target.address);
    Err(Wrong::new(what, format!("write {SERVER} for the host, and let the server listen there")))
}

impl IdleArgs {
    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let hold = duration(&self.hold).at("hold", "--hold")?;
        self.common.plan(Scenario::Idle(Idle { hold }))
    }
}

impl BroadcastArgs {
    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let messages = parse_count(&self.messages, 1, 1_000_000).at("messages", "--messages")?;
        let plan = self.common.plan(Scenario::Broadcast(Broadcast {
            messages: u32::try_from(messages).unwrap_or(u32::MAX),
            size: size(&self.size).at("size", "--size")?,
            interval: some_time(&self.interval).at("interval", "--interval")?,
            hold: duration(&self.hold).at("hold", "--hold")?,
        }))?;
        match plan.target.app {
            App::Topic => Ok(plan),
            App::Echo => {
                let mend =
                    "write ws://, http:// or grpc://HOST:PORT/topics/NAME, or tcp://HOST:PORT?app=topic&topic=NAME";
                Err(Wrong::new("echoes, and nobody hears what others say there", mend)).at("target", "--target")
            }
        }
    }
}

impl EchoArgs {
    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let plan = self.common.plan(Scenario::Echo(Echo {
            size: size(&self.size).at("size", "--size")?,
            in_flight: parse_count(&self.in_flight, 1, 1024).at("in-flight", "--in-flight")?,
            rate: self.message_rate.as_deref().map(Rate::parse).transpose().at("message-rate", "--message-rate")?,
            duration: some_time(&self.duration).at("duration", "--duration")?,
            warm_up: duration(&self.warm_up).at("warm-up", "--warm-up")?,
        }))?;
        echoes(&plan.target, "target", "--target")?;
        Ok(plan)
    }
}

impl ChurnArgs {
    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let common = &self.common;
        let probe = match &self.probe {
            Some(url) => Some(Target::parse(url, None, &resolve).at("probe", "--probe")?),
            None => None,
        };
        if let Some(probe) = &probe {
            echoes(probe, "probe", "--probe")?;
        }
        let share = |text: &str, key, flag| Share::parse(text).at(key, flag);
        let held = parse_count(&common.connections, 1, CONNECTIONS_MAX).at("connections", "--connections")?;
        let publish_every = match &self.publish_every {
            Some(text) => some_time(text).at("publish-every", "--publish-every")?,
            // 10,000 deliveries per second leave the server time for what is measured.
            None => Duration::from_millis(held as u64 / 10).max(Duration::from_secs(1)),
        };
        let churn = Churn {
            held,
            rate: Rate::parse(&self.churn).at("churn", "--churn")?,
            lifetime: duration(&self.lifetime).at("lifetime", "--lifetime")?,
            duration: some_time(&self.duration).at("duration", "--duration")?,
            abrupt: share(&self.abrupt, "abrupt", "--abrupt")?,
            half_open: share(&self.half_open, "half-open", "--half-open")?,
            slow: share(&self.slow, "slow", "--slow")?,
            probe,
            probes: parse_count(&self.probes, 1, 10_000).at("probes", "--probes")?,
            half_open_for: some_time(&self.half_open_for).at("half-open-for", "--half-open-for")?,
            publish_every,
        };
        let all = churn.abrupt.get() + churn.half_open.get() + churn.slow.get();
        if all > 1.0 + 1e-9 {
            let what = format!("--abrupt, --half-open and --slow are {all} together, above 1");
            return refuse(&what, "on the command line", "they are shares of the same connections: make them smaller");
        }
        common.plan(Scenario::Churn(churn))
    }
}

fn echoes(target: &Target, key: &str, flag: &'static str) -> Result<(), Failure> {
    match target.app {
        App::Echo => Ok(()),
        App::Topic => {
            let mend = "write ws:// or grpc://HOST:PORT/echo, or tcp://HOST:PORT?app=echo";
            Err(Wrong::new("is a topic, and echoes come from an echo", mend)).at(key, flag)
        }
    }
}
