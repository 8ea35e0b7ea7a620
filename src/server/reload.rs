//! Another configuration for a running server: read as at the start, checked as a whole, and then followed by all shards at
//! once, or not at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use super::start::{admin_live, live};
use super::tls::Keeper;
use super::validity::{self, Validity};
use super::{StartError, lock, ring_all};
use crate::config::{Config, Difference, Problem};
use crate::logging;
use crate::mailbox::Doorbell;
use crate::metrics::text::{Kind, Text};
use crate::shard::Control;

/// Reads the configuration anew, from where it came at the start.
pub type Source = Box<dyn Fn() -> Result<Config, Vec<Problem>> + Send>;

/// Why a configuration was not taken on. The one that runs goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It is wrong, in these ways.
    #[error("{}", first_of(.0))]
    Wrong(Vec<Problem>),
    /// What it names cannot be had.
    #[error(transparent)]
    Failed(#[from] StartError),
    /// Nobody has said where it comes from.
    #[error("there is nowhere to read a configuration from, in this program: it was started without a source")]
    NoSource,
}

impl ReloadError {
    /// One line for each thing that is wrong.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Wrong(problems) => problems.iter().map(Problem::to_string).collect(),
            other => vec![other.to_string()],
        }
    }
}

fn first_of(problems: &[Problem]) -> String {
    let first = problems.first().map_or_else(String::new, Problem::to_string);
    if problems.len() > 1 { format!("{first} (the first of {} errors)", problems.len()) } else { first }
}

/// Shards that follow: what they look at, and what wakes them.
type Followers = (Arc<Control>, Arc<[Arc<Doorbell>]>);

/// The configuration of a running server, and the way to another one. It may be asked from any thread, and reads files.
pub struct Reloader {
    /// Of what the server was started from, and what of later ones could be followed.
    running: Mutex<Arc<Config>>,
    source: Mutex<Option<Source>>,
    /// Where listeners speak TLS.
    tls: Mutex<Option<Keeper>>,
    /// Of their certificates. A scrape does not wait while files are read.
    validities: Mutex<Arc<[Validity]>>,
    control: Arc<Control>,
    doorbells: Arc<[Arc<Doorbell>]>,
    /// Reloads that went well, and that did not.
    well: AtomicU64,
    badly: AtomicU64,
    /// Unix time of the last one that went well, or of the start.
    since: AtomicU64,
    /// Those of the admin listener, where there is one.
    admin: Mutex<Option<Followers>>,
}

impl Reloader {
    pub(super) fn new(
        config: &Config,
        tls: Option<Keeper>,
        control: Arc<Control>,
        doorbells: Arc<[Arc<Doorbell>]>,
    ) -> Self {
        let running = Mutex::new(Arc::new(config.clone()));
        let (well, badly, since) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(unix_seconds()));
        let validities = tls.as_ref().map_or_else(Arc::default, |keeper| Arc::clone(&keeper.validities)).into();
        let (source, admin, tls) = (Mutex::default(), Mutex::default(), Mutex::new(tls));
        Self { running, source, tls, validities, control, doorbells, well, badly, since, admin }
    }

    /// The configuration that runs.
    #[must_use]
    pub fn running(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.running))
    }

    /// Has the admin listener's shards follow too.
    pub(super) fn follow_admin(&self, control: Arc<Control>, doorbells: Arc<[Arc<Doorbell>]>) {
        *lock(&self.admin) = Some((control, doorbells));
    }

    /// Says where [`Reloader::reload`] reads from.
    pub fn read_from(&self, source: Source) {
        *lock(&self.source) = Some(source);
    }

    /// Reads the configuration anew and takes it on. The log hears what came of it.
    ///
    /// # Errors
    /// When it is wrong: nothing has changed then.
    pub fn reload(&self) -> Result<Difference, ReloadError> {
        let source = lock(&self.source);
        let read = source.as_ref().map_or(Err(ReloadError::NoSource), |read| read().map_err(ReloadError::Wrong));
        // What two readers have read must not be taken on in another order.
        let result = read.and_then(|config| self.take_on(config));
        drop(source);
        match &result {
            Ok(difference) => {
                self.well.fetch_add(1, Ordering::Relaxed);
                self.since.store(unix_seconds(), Ordering::Relaxed);
                log(difference);
            }
            Err(error) => {
                self.badly.fetch_add(1, Ordering::Relaxed);
                error.lines().iter().take(Self::LINES_MAX).for_each(|line| tracing::error!("not reloaded: {line}"));
            }
        }
        result
    }

    /// What Prometheus is told: how many reloads went well and badly, and since when the configuration is what it is.
    pub(super) fn write_metrics(&self, text: &mut Text) {
        let [well, badly, since] = [&self.well, &self.badly, &self.since].map(|number| number.load(Ordering::Relaxed));
        let help = "Times the configuration was read again, by what came of it.";
        text.family("config_reloads_total", Kind::Counter, help);
        for (result, times) in [("followed", well), ("refused", badly)] {
            text.sample("config_reloads_total", &[("result", result)], times);
        }
        let help = "Unix time at which the configuration that runs was read.";
        text.one("config_since_seconds", Kind::Gauge, help, since);
        let validities = Arc::clone(&lock(&self.validities));
        validity::write_metrics(&validities, text);
    }

    /// Errors that the log hears of at most.
    const LINES_MAX: usize = 20;

    /// Takes a configuration on.
    ///
    /// # Errors
    /// When it does not fit to what cannot change, or what it names cannot be had: nothing has changed then.
    pub fn take_on(&self, config: Config) -> Result<Difference, ReloadError> {
        let mut running = lock(&self.running);
        let (config, mut difference) = config.over(&running).map_err(ReloadError::Wrong)?;
        let live = live(&config)?;
        // Certificates are read again whether their names have changed or not: connections that are there keep theirs.
        if let Some(keeper) = lock(&self.tls).as_mut() {
            for key in keeper.reload(&config)? {
                if difference.changed.iter().all(|told| told != key) {
                    difference.changed.push(key.to_owned());
                }
            }
            *lock(&self.validities) = Arc::clone(&keeper.validities);
        }
        warn_of_less(&running, &config);
        self.control.replace(live);
        ring_all(&self.doorbells);
        if let Some((control, doorbells)) = &*lock(&self.admin) {
            control.replace(admin_live(&config));
            ring_all(doorbells);
        }
        logging::follow(&config.log_filter);
        *running = Arc::new(config);
        Ok(difference)
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Says that fewer are asked who they are than before.
fn warn_of_less(running: &Config, config: &Config) {
    if running.access.is_on() && !config.access.is_on() {
        tracing::warn!("clients are not asked any more who they are: there is no key, and all may do everything");
    }
    if config.admin.is_some() && running.access.guards_admin() && !config.access.guards_admin() {
        tracing::warn!("operators are not asked any more who they are: no API key has admin = true");
    }
}

fn log(difference: &Difference) {
    let Difference { changed, at_start } = difference;
    if difference.is_empty() {
        return tracing::info!("configuration read again: nothing is different");
    }
    tracing::info!(changed = changed.join(" "), "configuration reloaded");
    if !at_start.is_empty() {
        tracing::warn!(
            keys = at_start.join(" "),
            "these settings change at the next start only: drain this server then"
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::config::Loader;

    /// Applied by the server itself, or looked at only while a configuration is checked.
    const NOT_OF_SHARDS: [&str; 10] = [
        "drain_delay",
        "insecure",
        "log.level",
        // Followed by TLS listeners, for the handshakes that begin then.
        "tls.certificates",
        "tls.keys",
        "tls.client_ca",
        "tls.client_certificates",
        "tls.version_min",
        "tls.tickets",
        "tls.handshake_bytes_max",
    ];

    fn load(text: &str) -> Result<Config, Vec<Problem>> {
        let mut loader = Loader::new();
        loader.text("h.toml".as_ref(), text);
        loader.finish()
    }

    fn reloader(text: &str) -> Reloader {
        let config = load(text).unwrap();
        let control = Arc::new(Control::new(live(&config).unwrap()));
        Reloader::new(&config, None, control, Arc::default())
    }

    /// What else a file must say to say something of this key.
    fn beside(key: &str) -> &'static str {
        match key {
            "topics.durable" => "[journal]\ndir = \"/srv\"\n",
            "hooks.nats" => "[cluster]\nnats = \"nats://127.0.0.1:4222\"\n",
            _ => "",
        }
    }

    /// The same in its own table.
    fn within(key: &str) -> &'static str {
        match key {
            "auth.issuers" | "auth.audiences" | "auth.subscribe" | "auth.publish" => {
                "secret = \"another secret of thirty-two bytes or more\"\n"
            }
            _ => "",
        }
    }

    fn default(key: &str) -> Config {
        let table = if within(key).is_empty() { "" } else { "[auth]\n" };
        load(&format!("{table}{}{}", within(key), beside(key))).unwrap()
    }

    /// Some other value for a key than its default, in a file that is right. A key whose values look otherwise needs one here.
    fn other(key: &str) -> Config {
        let (default, beside) = (default(key), beside(key));
        let set = |value: &str| match key.split_once('.') {
            Some((table, name)) => load(&format!("[{table}]\n{name} = {value}\n{}{beside}", within(key))),
            None => load(&format!("{key} = {value}\n{beside}")),
        };
        // What mends a word that is none names the words.
        let mend = set("\"?\"").err().map_or_else(String::new, |problems| problems[0].mend.clone());
        let words = mend.split_whitespace().map(|word| format!("{word:?}"));
        let values = [
            "true",
            "false",
            "3",
            "77",
            "1000",
            "5000",
            "100000",
            "\"2GiB\"",
            "\"7s\"",
            "\"1m\"",
            "\"/srv\"",
            "\"127.0.0.1:7\"",
            "\"http://127.0.0.1:7\"",
            "[\"http://127.0.0.1:7\"]",
            "[\"https://a.example\"]",
            "[\"10.0.0.0/8\"]",
            "\"a secret of thirty-two bytes or more\"",
            "\"tests/keys/jwks.json\"",
            "\"tests/keys/api-keys.toml\"",
            "[\"tests/keys/public.pem\"]",
            "\"tests/keys/hook-secret\"",
            "\"tests/keys/hook-ca.pem\"",
        ];
        let mut configs = words.chain(values.map(str::to_owned)).filter_map(|value| set(&value).ok());
        let other = configs.find(|config| *config != default);
        other.unwrap_or_else(|| panic!("no value here is one of {key}: add one"))
    }

    /// The promise that nothing is silently ignored: each key of the table is told as one of the next start, or it reaches
    /// what shards follow.
    #[test]
    fn every_key_waits_for_the_next_start_or_reaches_the_shards() {
        let seen = |config: &Config| format!("{:?}", live(config).unwrap());
        for key in crate::config::keys() {
            let default = default(key);
            let (effective, difference) = other(key).over(&default).unwrap();
            if difference.at_start == [key] {
                assert_eq!((&effective, difference.changed.len()), (&default, 0), "{key}");
                continue;
            }
            assert_eq!((&difference.changed[..], difference.at_start.len()), (&[key.to_owned()][..], 0), "{key}");
            let reaches = seen(&effective) != seen(&default);
            assert_eq!(reaches, !NOT_OF_SHARDS.contains(&key), "{key}");
        }
    }

    #[test]
    fn a_configuration_is_taken_on_as_a_whole_or_not_at_all() {
        let reloader = reloader("drain = \"1s\"\n");
        assert!(matches!(reloader.reload(), Err(ReloadError::NoSource)));
        reloader.read_from(Box::new(|| load("drain = \"2s\"\nshards = 7\n[topics.\"a/*\"]\nrate = 5\n")));
        let difference = reloader.reload().unwrap();
        assert_eq!(difference.changed, ["drain", "topics.\"a/*\""]);
        assert_eq!(difference.at_start, ["shards"]);
        let live = reloader.control.live();
        assert_eq!((live.drain.as_secs(), live.rules.of("a/b").rate), (2, 5));
        reloader.read_from(Box::new(|| load("drain = \"3s\"\n[topics.\"a/*\"]\nrat = 6\n")));
        let error = reloader.reload().unwrap_err();
        let said = "unknown key topics.\"a/*\".rat, h.toml line 3: did you mean rate?";
        assert_eq!(error.lines(), [said]);
        let live = reloader.control.live();
        assert_eq!((live.drain.as_secs(), live.rules.of("a/b").rate), (2, 5), "half of it is none of it");
        assert_eq!(reloader.running().drain.as_secs(), 2);
    }
}
