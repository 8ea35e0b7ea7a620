//! The receiver as a stream of NATS: a batch is one message on a subject, and is taken when a stream says that it has it.
//!
//! The connection is that of `[cluster]`, but one of its own: what waits here holds up no topic. A batch that is sent again has
//! the same `Nats-Msg-Id`, so that a stream keeps it once, as long as it remembers (its `duplicate_window`).

use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{ContextBuilder, PublishErrorKind};
use bytes::Bytes;
use tokio::time;

use super::webhook::chain;
use super::{Outcome, Receiver};
use crate::config::{Cluster, Hooks};
use crate::hooks::{Batch, signature};
use crate::server::cluster::{self, Settings};

/// Bytes of a message that are left for its fields.
const FIELDS_BYTES: usize = 4096;
/// Bytes of a batch while NATS has not said how large a message may be: it hardly takes less.
const FIRST_BYTES: usize = 32 * 1024;
/// More than any request has: it is `hooks.timeout` that counts.
const LONGEST: Duration = Duration::from_secs(600);

/// The receiver.
pub(super) struct Nats {
    settings: Settings,
    subject: String,
    stream: Option<Context>,
}

impl Nats {
    /// Who takes what is published on this subject.
    pub(super) fn new(subject: &str, cluster: &Cluster) -> Self {
        Self { settings: Settings::of(cluster), subject: subject.to_owned(), stream: None }
    }

    /// The way there. Once there was a connection, NATS' client comes back by itself.
    async fn stream(&mut self) -> Result<&Context, String> {
        if self.stream.is_none() {
            let client = cluster::connect(&self.settings).await?;
            self.stream = Some(ContextBuilder::new().timeout(LONGEST).build(client));
        }
        // What is published without one would be kept, and published again beside the next try.
        let stream = self.stream.as_ref().filter(|stream| cluster::is_up(&stream.client()));
        stream.ok_or_else(|| "there is no connection to NATS".to_owned())
    }

    async fn publish(&mut self, batch: &Batch, hooks: &Hooks) -> Outcome {
        let (subject, fields) = (self.subject.clone(), fields(batch, hooks));
        let stream = match self.stream().await {
            Ok(stream) => stream,
            Err(why) => return Outcome::Later(why, None),
        };
        let sent = stream.publish_with_headers(subject, fields, Bytes::copy_from_slice(&batch.body)).await;
        let error = match sent {
            Ok(answer) => match answer.await {
                Ok(_) => return Outcome::Taken,
                Err(error) => error,
            },
            Err(error) => error,
        };
        let subject = &self.subject;
        match error.kind() {
            PublishErrorKind::StreamNotFound => {
                let mend = format!("make one, such as `nats stream add EVENTS --subjects {subject}`");
                Outcome::Later(format!("no stream of NATS keeps what is published on {subject}: {mend}"), None)
            }
            PublishErrorKind::MaxPayloadExceeded => {
                Outcome::Never(format!("{}: raise max_payload in the configuration of NATS", chain(&error)))
            }
            _ => Outcome::Later(chain(&error), None),
        }
    }
}

impl Receiver for Nats {
    fn origin(&self) -> String {
        format!("{} {}", self.settings.servers(), self.subject)
    }

    fn bytes_max(&self) -> usize {
        let most = self.stream.as_ref().map(|stream| stream.client().server_info().max_payload);
        most.filter(|&most| most > 0).map_or(FIRST_BYTES, |most| most.saturating_sub(FIELDS_BYTES))
    }

    async fn post(&mut self, batch: &Batch, hooks: &Hooks) -> Outcome {
        let outcome = time::timeout(hooks.timeout, self.publish(batch, hooks)).await;
        outcome.unwrap_or_else(|_| Outcome::Later(format!("no answer within {:?}", hooks.timeout), None))
    }
}

fn fields(batch: &Batch, hooks: &Hooks) -> HeaderMap {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut fields = HeaderMap::new();
    fields.insert(async_nats::header::NATS_MESSAGE_ID, batch.name.as_str());
    fields.insert("Content-Type", "application/json");
    if let Some(signature) = signature::value(&hooks.secrets.content, seconds, &batch.body) {
        fields.insert(signature::FIELD, signature.as_str());
    }
    fields
}
