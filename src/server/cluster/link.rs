//! The connection to NATS: how it is made, and what all tasks know of it.

use std::cell::Cell;
use std::error::Error;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, iter};

use async_nats::connection::State;
use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time;

use super::{ClusterError, Settings};
use crate::config::{Login, NatsUrl};

/// For a first answer.
const CONNECT: Duration = Duration::from_secs(5);
/// Between two questions to NATS whether it is there: twice without an answer is none.
const PING: Duration = Duration::from_secs(5);
/// Between two tries to come back, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// For an answer of NATS to who asks where it stands.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two lines of the log about what NATS refuses.
const SAID: Duration = Duration::from_secs(10);
/// Between two looks at the connection, should nothing be heard of it.
const LOOK: Duration = Duration::from_secs(1);
/// Messages of one subscription that may wait for their shard.
const WAITING_MAX: usize = 16 * 1024;
/// Commands that may wait for the socket.
const COMMANDS_MAX: usize = 4096;

/// What is known of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// There is one, and NATS knows what is listened to.
    pub(super) is_up: bool,
    /// How many there have been.
    pub(super) number: u64,
    /// How often a subscription was so slow that messages were dropped.
    pub(super) slow: u64,
}

/// A connection to NATS, and where news of it come from.
pub(super) struct Line {
    pub(super) client: Client,
    news: watch::Receiver<News>,
}

/// What NATS' client calls out. It drops some of it where there is much: of connections only that something is new.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    changes: u64,
    slow: u64,
}

impl Line {
    /// Connects, or begins to try. Who is turned away for its credentials is told so; who finds nobody goes on without.
    pub(super) async fn open(settings: &Settings) -> Result<Self, ClusterError> {
        let (news, heard) = watch::channel(News::default());
        let first = options(settings, news.clone()).await?.connect(addresses(settings)?).await;
        let client = match first {
            Ok(client) => client,
            Err(error) if is_final(&error, settings.nats.len()) => return Err(ClusterError::refused(settings, &error)),
            Err(error) => {
                let nats = settings.servers();
                tracing::warn!(%error, nats, "NATS cannot be reached yet: topics are this node's own until it can");
                let options = options(settings, news).await?.retry_on_initial_connect();
                options.connect(addresses(settings)?).await.map_err(|error| ClusterError::refused(settings, &error))?
            }
        };
        Ok(Self { client, news: heard })
    }

    /// Tells what is known of the connection whenever that changes, without end. A new one counts as up when NATS has taken
    /// all subscriptions: what is published from then on is heard.
    pub(super) async fn watch(mut self, link: watch::Sender<Link>) {
        loop {
            let slow = self.news.borrow_and_update().slow;
            let now = Link { is_up: is_up(&self.client), number: self.connections(), slow };
            let before = *link.borrow();
            if now.is_up && now.number != before.number {
                if before.is_up {
                    link.send_modify(|link| link.is_up = false);
                }
                round_trip(&self.client).await;
                if self.connections() != now.number || !is_up(&self.client) {
                    time::sleep(RETRY.0).await;
                    continue;
                }
            }
            if now != before {
                tell(before, now);
                link.send_replace(now);
            }
            let _ = time::timeout(LOOK, self.news.changed()).await;
        }
    }

    fn connections(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }
}

/// Waits until NATS has worked off what was sent before: it answers this question, whether it has JetStream or not. Where it
/// leaves that to somebody who listens to everything, or may not be asked, it has had its time.
async fn round_trip(client: &Client) {
    let _ = time::timeout(ANSWER, client.request("$JS.API.INFO", Bytes::new())).await;
}

/// One question for all who wait for an answer to it.
#[derive(Debug, Default)]
pub(super) struct Settling {
    wanted: Notify,
    /// Questions that were asked.
    asked: Cell<u64>,
    /// Those that were answered.
    answered: watch::Sender<u64>,
}

impl Settling {
    /// Waits until NATS has worked off what was sent before.
    pub(super) async fn settle(&self) {
        let needed = self.asked.get() + 1;
        self.wanted.notify_one();
        let _ = self.answered.subscribe().wait_for(|answered| *answered >= needed).await;
    }

    /// Asks whenever somebody waits, without end.
    pub(super) async fn work(&self, client: &Client) {
        loop {
            self.wanted.notified().await;
            let number = self.asked.get() + 1;
            self.asked.set(number);
            round_trip(client).await;
            self.answered.send_replace(number);
        }
    }
}

fn tell(before: Link, now: Link) {
    if now.is_up && now.number != before.number {
        tracing::info!(connections = now.number, "connected to NATS");
    } else if before.is_up && !now.is_up {
        tracing::warn!("the connection to NATS is lost: topics are this node's own until it is back");
    }
    if now.slow != before.slow {
        tracing::warn!("NATS sent more than this node took: something was dropped, and its topics begin anew");
    }
}

/// A connection for whoever has other business with NATS than topics; or why there is none.
pub(in crate::server) async fn connect(settings: &Settings) -> Result<Client, String> {
    let (news, _) = watch::channel(News::default());
    let options = options(settings, news).await.map_err(|error| error.to_string())?;
    let addresses = addresses(settings).map_err(|error| error.to_string())?;
    options.connect(addresses).await.map_err(|error| error.to_string())
}

/// Whether trying again changes nothing. All of several servers want the same credentials; one of them may have a certificate
/// that is not good while the others are away.
fn is_final(error: &ConnectError, servers: usize) -> bool {
    use ConnectErrorKind as Kind;
    match error.kind() {
        Kind::ServerParse | Kind::Authentication | Kind::AuthorizationViolation => true,
        Kind::Tls => servers == 1,
        // A handshake that ends in a fault of TLS is told as any other trouble with the socket.
        Kind::Io => servers == 1 && iter::successors(error.source(), |&error| error.source()).any(is_of_tls),
        _ => false,
    }
}

fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>)
}

fn addresses(settings: &Settings) -> Result<Vec<ServerAddr>, ClusterError> {
    let address = |url: &NatsUrl| {
        url.as_str()
            .parse()
            .map_err(|error: io::Error| ClusterError::Address { url: url.to_string(), why: error.to_string() })
    };
    settings.nats.iter().map(address).collect()
}

async fn options(settings: &Settings, news: watch::Sender<News>) -> Result<ConnectOptions, ClusterError> {
    let said = Mutex::<Option<Instant>>::default();
    let say = move |error: &str| {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() > SAID) {
            *said = Some(Instant::now());
            tracing::warn!(error, "NATS");
        }
    };
    let hear = move |event: Event| {
        match event {
            Event::SlowConsumer(_) => news.send_modify(|news| news.slow += 1),
            // What is not allowed is among it, and of each try to come back why it failed.
            Event::ServerError(error) => say(&error.to_string()),
            Event::ClientError(error) => say(&error.to_string()),
            _ => news.send_modify(|news| news.changes += 1),
        }
        std::future::ready(())
    };
    let options = ConnectOptions::new()
        .name(format!("holdline {}", settings.name))
        .no_echo()
        .event_callback(hear)
        .connection_timeout(CONNECT)
        .ping_interval((settings.lease / 3).min(PING))
        .subscription_capacity(WAITING_MAX)
        .client_capacity(COMMANDS_MAX)
        .request_timeout(Some(CONNECT))
        .reconnect_delay_callback(|tries| {
            let doubled = RETRY.0.saturating_mul(1 << tries.min(10));
            doubled.min(RETRY.1)
        });
    let options = match &settings.ca_file {
        Some(file) => options.add_root_certificates(file.clone()),
        None => options,
    };
    let options = match settings.nats.iter().find_map(NatsUrl::login) {
        Some(Login::Password(user, password)) => options.user_and_password(user, password),
        Some(Login::Token(token)) => options.token(token),
        None => options,
    };
    match &settings.credentials {
        Some(file) => {
            let credentials = options.credentials_file(file).await;
            credentials.map_err(|error| ClusterError::Credentials { file: file.clone(), error })
        }
        None => Ok(options),
    }
}

/// Whether a client has a connection now.
pub(in crate::server) fn is_up(client: &Client) -> bool {
    client.connection_state() == State::Connected
}
