//! What a service manager wants to know: `sd_notify(3)`, without its library. Where no manager asks, nothing is done.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::Server;
use crate::metrics::Metrics;

/// The manager's end, and what it expects.
#[derive(Debug, Default)]
pub struct Service {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// Without a sign of life for so long the process is killed.
    watchdog: Option<Duration>,
    /// Another process is the service now: only it speaks.
    silent: Arc<AtomicBool>,
}

impl Service {
    /// What `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name| env::var(name).ok();
        let pid = variable("WATCHDOG_PID").and_then(|pid| pid.parse().ok());
        let is_ours = pid.is_none_or(|pid: u32| pid == std::process::id());
        let watchdog = variable("WATCHDOG_USEC").filter(|_| is_ours).and_then(|micros| micros.parse().ok());
        Self::new(variable("NOTIFY_SOCKET").as_deref(), watchdog.map(Duration::from_micros))
    }

    /// The manager at this socket: a path, or a name behind an `@`.
    #[must_use]
    pub fn new(socket: Option<&str>, watchdog: Option<Duration>) -> Self {
        let address = |socket: &str| match socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(socket),
        };
        let to = socket.filter(|socket| !socket.is_empty()).and_then(|socket| {
            let from = UnixDatagram::unbound().and_then(|from| from.set_nonblocking(true).map(|()| from));
            from.and_then(|from| Ok((from, address(socket)?))).ok()
        });
        let watchdog = watchdog.filter(|period| to.is_some() && !period.is_zero());
        Self { to, watchdog, silent: Arc::default() }
    }

    /// Says something, a variable in each line. That it does not arrive is no failure.
    pub fn say(&self, what: &str) {
        if let Some((from, to)) = self.to.as_ref().filter(|_| !self.silent.load(Ordering::Acquire)) {
            let _ = from.send_to_addr(what.as_bytes(), to);
        }
    }

    /// The server accepts. From now on the manager hears how it is, and that its shards turn.
    pub fn ready(self: &Arc<Self>, server: &Arc<Server>) {
        self.say(&format!("READY=1\nMAINPID={}\nSTATUS=serving", std::process::id()));
        if self.to.is_some() {
            let (service, server) = (Arc::clone(self), Arc::downgrade(server));
            let _ = thread::Builder::new().name("service".to_owned()).spawn(move || service.report(&server));
        }
    }

    /// The configuration is being read anew; [`Service::reloaded`] follows.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// That is done, with this result.
    pub fn reloaded(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", status.replace('\n', " ")));
    }

    /// The server drains, and ends then.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=draining");
    }

    /// Another process is the service now.
    pub fn followed_by(&self, pid: u32) {
        self.say(&format!("MAINPID={pid}"));
        self.silent.store(true, Ordering::Release);
    }

    /// Tells how the server is, until it has gone.
    fn report(&self, server: &Weak<Server>) {
        const PERIOD: Duration = Duration::from_secs(5);
        let period = self.watchdog.map_or(PERIOD, |watchdog| PERIOD.min(watchdog / 3));
        let mut turns: Option<Vec<u64>> = None;
        let mut before = 0;
        loop {
            thread::sleep(period);
            let Some(server) = server.upgrade() else { return };
            let connections = server.metrics().total(|shard| shard.connections.get());
            if connections != before {
                before = connections;
                self.say(&format!("STATUS={}, {connections} connections", server.phase().label()));
            }
            let now = turns_of(server.metrics());
            // A shard that has nothing to do sleeps for a second at most; it is woken now, to have turned by the next look.
            server.wake();
            if !turns.as_ref().is_some_and(|turns| turns.iter().zip(&now).any(|(before, now)| before == now)) {
                self.say("WATCHDOG=1");
                turns = Some(now);
            }
        }
    }
}

fn turns_of(metrics: &Metrics) -> Vec<u64> {
    metrics.shards.iter().map(|shard| shard.turns_total.get()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_with_an_abstract_name_hears_all_until_another_process_takes_over() {
        let name = format!("holdline-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let service = Service::new(Some(&format!("@{name}")), None);
        service.reloading();
        let said = heard(&manager);
        assert!(said.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said}");
        service.reloaded("two\nlines");
        assert_eq!(heard(&manager), "READY=1\nSTATUS=two lines");
        service.stopping();
        assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=draining");
        service.followed_by(7);
        service.stopping();
        assert_eq!(heard(&manager), "MAINPID=7");
        manager.set_nonblocking(true).unwrap();
        assert!(manager.recv(&mut [0; 8]).is_err(), "it is silent then");
    }

    #[test]
    fn nobody_is_told_anything_without_a_manager() {
        let service = Service::new(None, Some(Duration::from_secs(1)));
        service.stopping();
        assert!(service.watchdog.is_none() && service.to.is_none());
    }
}
