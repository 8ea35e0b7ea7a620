//! What a swarm is told to do: typed, so that the engine need not check it again.
//!
//! The text forms (URLs, rates, shares, counts) are read here as well, as flags have them.

use std::ffi::OsString;
use std::time::Duration;

pub use super::target::{App, Protocol, Target};
use crate::config::{Wrong, quote};
pub use crate::io::tls::Trust;

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to load.
    pub target: Target,
    /// Whose certificates are taken where the target is spoken to over TLS.
    pub trust: Trust,
    /// How to get there.
    pub via: Via,
    /// Connections to open; at least 1.
    pub connections: usize,
    /// How fast at most. `None`: as fast as they come.
    pub rate: Option<Rate>,
    /// Threads that hold the connections; at least 1.
    pub threads: usize,
    /// What the connections do.
    pub scenario: Scenario,
    /// The server's process, whose memory and CPU time go into the report.
    pub server_pid: Option<u32>,
    /// Time that one connection has, from the dial to the welcome.
    pub connect_timeout: Duration,
    /// Time in which no answer and no delivery comes, after which those that have not come count as missing. Late ones
    /// count as long as something comes.
    pub patience: Duration,
}

impl Plan {
    /// Room that a server may use beyond what the swarm sends: what others publish to the same topic.
    const HEADROOM_BYTES: usize = 64 << 10;

    /// Guests of one thread at a time, at most.
    const GUESTS_MAX: usize = 4_000_000;

    /// Bytes of each message of ours.
    #[must_use]
    pub const fn message_bytes(&self) -> usize {
        match &self.scenario {
            Scenario::Broadcast(broadcast) => broadcast.size,
            Scenario::Echo(echo) => echo.size,
            Scenario::Idle(_) | Scenario::Churn(_) => MESSAGE_BYTES_MIN,
        }
    }

    /// The probes of a churn, which have a thread to themselves, the last one: what they measure must not wait until
    /// another thousand of deliveries have been read.
    #[must_use]
    pub const fn probes(&self) -> Option<usize> {
        match &self.scenario {
            Scenario::Churn(churn) if churn.probe.is_some() && !matches!(self.target.app, App::Echo) => {
                Some(churn.probes)
            }
            _ => None,
        }
    }

    /// All threads of a run.
    #[must_use]
    pub const fn crew(&self) -> usize {
        self.threads + if self.probes().is_some() { 1 } else { 0 }
    }

    /// Places that guests need beside those that stay, in each of `threads`.
    #[must_use]
    pub fn places_beside(&self, threads: usize) -> usize {
        let Scenario::Churn(churn) = &self.scenario else { return 0 };
        // Opening, staying, mute, and leaving ones; the backend's tables cost nothing until they are used.
        let opening = self.connect_timeout.as_secs_f64().min(2.0);
        let mute = churn.half_open.get() * churn.half_open_for.as_secs_f64();
        let seconds = opening + churn.lifetime.as_secs_f64() + mute + 10.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturating")]
        let guests = (churn.rate.get() * seconds / threads as f64) as usize;
        guests.min(Self::GUESTS_MAX) + 64
    }

    /// Where messages come back.
    #[must_use]
    pub const fn echo_target(&self) -> &Target {
        match &self.scenario {
            Scenario::Churn(Churn { probe: Some(probe), .. }) => probe,
            _ => &self.target,
        }
    }

    /// Bytes of a message that a client takes at most: a bound on what a server can make the swarm keep.
    #[must_use]
    pub const fn message_bytes_max(&self) -> usize {
        let ours = match &self.scenario {
            Scenario::Broadcast(broadcast) => broadcast.size,
            Scenario::Echo(echo) => echo.size,
            Scenario::Idle(_) | Scenario::Churn(_) => 0,
        };
        ours + Self::HEADROOM_BYTES
    }
}

/// What the connections do.
#[derive(Clone, Debug)]
pub enum Scenario {
    /// Nothing but to live.
    Idle(Idle),
    /// They hear what is published to the topic that all hold.
    Broadcast(Broadcast),
    /// They send and hear it come back.
    Echo(Echo),
    /// They come and go.
    Churn(Churn),
}

impl Scenario {
    /// `"idle"`, `"broadcast"`, `"echo"` or `"churn"`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Idle(_) => "idle",
            Self::Broadcast(_) => "broadcast",
            Self::Echo(_) => "echo",
            Self::Churn(_) => "churn",
        }
    }
}

/// Open, hold, and be found alive by data.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// How long all of them are held.
    pub hold: Duration,
}

/// Publish to a topic that all of them hold.
#[derive(Clone, Copy, Debug)]
pub struct Broadcast {
    /// Publications; at least 1.
    pub messages: u32,
    /// Bytes of each; at least [`MESSAGE_BYTES_MIN`].
    pub size: usize,
    /// Time between two intended publications.
    pub interval: Duration,
    /// How long the connections are held before the first.
    pub hold: Duration,
}

/// Messages there and back.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    /// Bytes of each; at least [`MESSAGE_BYTES_MIN`].
    pub size: usize,
    /// Messages under way per connection; at least 1.
    pub in_flight: usize,
    /// Messages per second over all connections, each with its intended time. `None`: a closed loop, in which the next
    /// message leaves when an answer has come.
    pub rate: Option<Rate>,
    /// How long it is measured.
    pub duration: Duration,
    /// How long it runs before that.
    pub warm_up: Duration,
}

/// Connections that come and go, beside others that stay.
#[derive(Clone, Debug)]
pub struct Churn {
    /// Connections that stay; [`Plan::connections`] is the same number.
    pub held: usize,
    /// New connections per second.
    pub rate: Rate,
    /// How long each of them stays.
    pub lifetime: Duration,
    /// How long it goes on.
    pub duration: Duration,
    /// The share of them that ends with a reset.
    pub abrupt: Share,
    /// The share of them that goes mute and never closes.
    pub half_open: Share,
    /// The share of them that stops reading.
    pub slow: Share,
    /// Where healthy clients measure the latency of an echo. `None`: at the target when it echoes, else nowhere.
    pub probe: Option<Target>,
    /// Connections that do so.
    pub probes: usize,
    /// Time in which the server should notice that a connection is mute: its heartbeat's interval and timeout, and more.
    pub half_open_for: Duration,
    /// Time between two publications to the topic.
    pub publish_every: Duration,
}

/// Bytes of the smallest message: the header that says which one it is and when it was due.
pub const MESSAGE_BYTES_MIN: usize = 64;

/// How to get to the server.
#[derive(Clone, Debug)]
pub enum Via {
    /// The kernel's sockets.
    Loopback,
    /// A client of our own behind a TUN device, in a network namespace made for it.
    Tun(TunPlan),
}

impl Via {
    /// `"loopback"` or `"tun"`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Tun(_) => "tun",
        }
    }
}

/// A network made of bytes.
#[derive(Clone, Debug, Default)]
pub struct TunPlan {
    /// Round-trip time.
    pub rtt: Duration,
    /// The share of packets that are lost.
    pub loss: Share,
    /// The share of packets that are overtaken.
    pub reorder: Share,
    /// The share of connections that vanish once all have proven alive: no FIN, no answer.
    pub vanish: Share,
    /// The server's program and arguments: it is started inside the namespace.
    pub server: Vec<OsString>,
    /// Whether what the server says on standard error is kept from ours.
    pub quiet: bool,
}

/// A part of a whole, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// Reads `0.05` or `5%`.
    ///
    /// # Errors
    /// When it is no number from 0 to 1.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let mend = "write a share from 0 to 1, such as 0.05, or 5%";
        let (number, whole) = text.trim().strip_suffix('%').map_or((text.trim(), 1.0), |number| (number, 100.0));
        let share = number.parse::<f64>().ok().map(|number| number / whole);
        let Some(share) = share.filter(|share| share.is_finite()) else {
            return Err(Wrong::new(format!("is {}", quote(text)), mend));
        };
        if !(0.0..=1.0).contains(&share) {
            let far = if share < 0.0 { "below 0" } else { "above 1" };
            return Err(Wrong::new(format!("is {}, {far}", text.trim()), mend));
        }
        Ok(Self(share))
    }

    /// From 0 to 1; what is not is taken for the nearest that is.
    #[must_use]
    pub const fn new(share: f64) -> Self {
        Self(if share > 0.0 { share.min(1.0) } else { 0.0 })
    }

    /// From 0 to 1.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// Something per second: above 0, finite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    const MAX: f64 = 1e9;

    /// Reads `5000`, `5000/s`, `5k/s` or `0.5/s`.
    ///
    /// # Errors
    /// When it is no number from just above 0 to a billion.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let mend = "write how many per second, such as 5000/s or 30k/s";
        let bare = text.trim();
        let (number, factor) = split_factor(bare.strip_suffix("/s").unwrap_or(bare));
        let Some(rate) = number.parse::<f64>().ok().filter(|rate| rate.is_finite()) else {
            return Err(Wrong::new(format!("is {}", quote(text)), mend));
        };
        #[allow(clippy::cast_precision_loss, reason = "a thousand or a million")]
        let rate = rate * factor as f64;
        if rate <= 0.0 {
            return Err(Wrong::new(format!("is {bare}, which never begins"), mend));
        }
        if rate > Self::MAX {
            return Err(Wrong::new(format!("is {bare}, above a billion per second"), mend));
        }
        Ok(Self(rate))
    }

    /// So many per second, between a billionth and a billion.
    #[must_use]
    pub const fn new(per_second: f64) -> Self {
        Self(if per_second > 1e-9 { per_second.min(Self::MAX) } else { 1e-9 })
    }

    /// Per second.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// When number `n`, counted from 0, is due after the start.
    #[must_use]
    pub fn due(self, n: u64) -> Duration {
        #[allow(clippy::cast_precision_loss, reason = "2^53 of them take a hundred days at the highest rate")]
        let seconds = n as f64 / self.0;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// Reads how many: `1000`, `1_000_000`, `200k`, `5M`.
pub(crate) fn parse_count(text: &str, least: usize, most: usize) -> Result<usize, Wrong> {
    let mend = format!("write a number from {least} to {most}, such as {}", most.min(10_000));
    let (number, factor) = split_factor(text.trim());
    let number =
        number.replace('_', "").parse::<usize>().ok().filter(|_| number.starts_with(|c: char| c.is_ascii_digit()));
    let Some(count) = number.and_then(|number| number.checked_mul(factor)) else {
        return Err(Wrong::new(format!("is {}", quote(text)), mend));
    };
    if !(least..=most).contains(&count) {
        let (far, bound) = if count < least { ("below", least) } else { ("above", most) };
        return Err(Wrong::new(format!("is {count}, {far} {bound}"), mend));
    }
    Ok(count)
}

fn split_factor(text: &str) -> (&str, usize) {
    let factors = [("k", 1000), ("K", 1000), ("M", 1_000_000)];
    let found = factors.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)));
    found.unwrap_or((text, 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn shares_are_from_0_to_1() {
        for (text, share) in [("0", 0.0), ("1", 1.0), ("0.05", 0.05), ("5%", 0.05), (" 100% ", 1.0)] {
            assert!((Share::parse(text).unwrap().get() - share).abs() < 1e-12, "{text}");
        }
        for (text, what) in [
            ("1.5", "is 1.5, above 1"),
            ("-0.1", "is -0.1, below 0"),
            ("101%", "is 101%, above 1"),
            ("half", "is \"half\""),
            ("NaN", "is \"NaN\""),
            ("inf", "is \"inf\""),
            ("", "is \"\""),
            ("%", "is \"%\""),
        ] {
            assert_eq!(Share::parse(text).unwrap_err().what, what);
        }
    }

    #[test]
    fn rates_are_above_0() {
        for (text, rate) in [("5000", 5000.0), ("5k/s", 5000.0), ("0.5/s", 0.5), ("1_0", 0.0), ("2M", 2e6)] {
            match Rate::parse(text) {
                Ok(found) => assert!((found.get() - rate).abs() < 1e-9, "{text}"),
                Err(_) => assert!(rate < 0.1, "{text}"),
            }
        }
        for text in ["0", "0/s", "-1", "", "/s", "fast", "NaN", "inf", "1e300", "2000M", "5/m"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
        assert_eq!(Rate::parse("4").unwrap().due(6), Duration::from_millis(1500));
        assert_eq!(Rate::parse("1e-300").unwrap().due(u64::MAX), Duration::MAX);
    }

    #[test]
    fn counts_may_be_short() {
        for (text, count) in [("1", 1), ("1_000_000", 1_000_000), ("200k", 200_000), ("5M", 5_000_000), ("3 k", 3000)] {
            assert_eq!(parse_count(text, 1, 10_000_000), Ok(count));
        }
        for text in ["", "k", "_", "-1", "+1", "1.5M", "1G", "99999999999999999999", "18446744073709551615M"] {
            assert!(parse_count(text, 1, usize::MAX).is_err(), "{text}");
        }
        let wrong = parse_count("0", 1, 100).unwrap_err();
        assert_eq!(
            (wrong.what.as_str(), wrong.mend.as_str()),
            ("is 0, below 1", "write a number from 1 to 100, such as 100")
        );
    }
}
