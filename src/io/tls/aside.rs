//! Steps of handshakes, and the thread that takes them.
//!
//! A step signs or agrees on a secret: 50 to 200 µs with ECDSA and X25519, and more with RSA. On a shard's own thread whoever
//! says something meanwhile would wait for it, and in a flood of handshakes nearly everybody does. So each shard that is asked
//! for TLS has a thread beside it, which runs where a core is free, and where none is, in what the shards leave: it is nicer
//! than they are. A few handshakes are away with it at a time, all others wait at the shard, which may end them.

use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{Error, ServerConfig};

use super::handshake::{Handshake, Progress};
use super::session::{Session, Stage};
use super::terms::Terms;
use crate::id::ConnId;
use crate::io::Wake;
use crate::io::sys;

/// Why a handshake ends without keys.
pub(super) enum Failure {
    /// The peer speaks HTTP.
    PlainHttp,
    Tls(Error),
}

/// A step to be taken.
pub(super) struct Step {
    id: ConnId,
    begun: Begun,
    input: Vec<u8>,
}

enum Begun {
    Before(Box<Handshake>),
    /// It begins with this step.
    Now(Arc<ServerConfig>),
    /// It does not even begin.
    Never(Failure),
}

/// What came of a step.
pub(super) struct Taken {
    pub(super) id: ConnId,
    pub(super) result: Result<Progress, Failure>,
    /// What is left of the input.
    pub(super) input: Vec<u8>,
    /// What is to be sent.
    pub(super) out: Vec<u8>,
    pub(super) took: Duration,
}

impl Step {
    /// The next step of a connection whose handshake is under way. It is away from here on.
    pub(super) fn of(session: &mut Session, terms: Option<&Terms>) -> Self {
        let away = Stage::Away(session.handshake_bytes());
        let begun = match mem::replace(&mut session.stage, away) {
            Stage::Greeting(Some(handshake)) => Begun::Before(handshake),
            _ if session.http && session.input.first().is_some_and(u8::is_ascii_uppercase) => {
                Begun::Never(Failure::PlainHttp)
            }
            _ => match terms {
                Some(terms) => Begun::Now(Arc::clone(if session.http { &terms.http } else { &terms.raw })),
                None => Begun::Never(Failure::Tls(Error::General("no terms".to_owned()))),
            },
        };
        Self { id: session.id, begun, input: mem::take(&mut session.input) }
    }

    /// Takes it.
    pub(super) fn take(self) -> Taken {
        let Self { id, begun, mut input } = self;
        let (began, mut out) = (Instant::now(), Vec::new());
        let handshake = match begun {
            Begun::Before(handshake) => Ok(handshake),
            Begun::Now(config) => Handshake::new(config).map_err(Failure::Tls),
            Begun::Never(failure) => Err(failure),
        };
        let result = handshake.and_then(|one| one.step(&mut input, &mut out).map_err(Failure::Tls));
        if input.capacity() > 2 * input.len() {
            input.shrink_to_fit();
        }
        Taken { id, result, input, out, took: began.elapsed() }
    }
}

/// Where a shard's steps are taken.
pub(super) enum Place {
    /// Nowhere yet: no handshake has begun.
    Unknown,
    /// By a thread.
    Aside(Thread),
    /// By the shard itself: there is no thread, or it is a client.
    Here,
}

/// The thread, seen from its shard.
pub(super) struct Thread {
    steps: Sender<Step>,
    taken: Receiver<Taken>,
    /// Steps that have not come back.
    away: usize,
}

impl Thread {
    /// Steps that are away at a time: enough for the thread to have the next one when it has done one.
    const AWAY_MAX: usize = 4;

    /// Starts it. It ends with this.
    pub(super) fn start(waker: Arc<dyn Wake>) -> Option<Self> {
        let (steps, to_take) = mpsc::channel::<Step>();
        let (done, taken) = mpsc::channel();
        let run = move || {
            // Where that is not allowed it is as urgent as the shard.
            let _ = sys::stand_back();
            for step in to_take {
                if done.send(step.take()).is_err() {
                    return;
                }
                waker.wake();
            }
        };
        let spawned = thread::Builder::new().name("handshakes".to_owned()).spawn(run);
        spawned.is_ok().then_some(Self { steps, taken, away: 0 })
    }

    /// Whether one more may go away.
    pub(super) const fn has_room(&self) -> bool {
        self.away < Self::AWAY_MAX
    }

    /// Sends a step away; it comes back if the thread is gone.
    pub(super) fn send(&mut self, step: Step) -> Result<(), Step> {
        self.steps.send(step).map_err(|mpsc::SendError(step)| step)?;
        self.away += 1;
        Ok(())
    }

    /// The next that has come back. `Err`: the thread is gone, with all that were away.
    pub(super) fn next(&mut self) -> Result<Option<Taken>, Gone> {
        match self.taken.try_recv() {
            Ok(taken) => {
                self.away = self.away.saturating_sub(1);
                Ok(Some(taken))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Gone),
        }
    }
}

/// There is no thread any more.
pub(super) struct Gone;
