//! What begins a server's drain, and what becomes of its listeners then.

use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use super::admin::{Phase, PhaseCell};
use super::bind::Held;
use super::launch::Gate;
use super::lock;
use crate::id::ListenerId;

/// Begins the drain of a server, once. Clones are of the same server.
#[derive(Clone)]
pub(super) struct Drainer(Arc<Parts>);

struct Parts {
    phase: Arc<PhaseCell>,
    serving: Gate,
    admin: OnceLock<Gate>,
    /// All listeners in the order configured, the admin listener last: until the drain begins.
    held: Mutex<Option<Arc<Vec<Held>>>>,
    /// How many of them are for clients.
    clients: usize,
}

impl Drainer {
    /// Time for handshakes that are under way, where clients come from elsewhere.
    const GRACE: Duration = Duration::from_secs(1);

    /// For a server with these listeners, of which so many are for clients.
    pub(super) fn new(phase: Arc<PhaseCell>, serving: Gate, held: Arc<Vec<Held>>, clients: usize) -> Self {
        let (admin, held) = (OnceLock::new(), Mutex::new(Some(held)));
        Self(Arc::new(Parts { phase, serving, admin, held, clients }))
    }

    /// Notes who serves the admin listener.
    pub(super) fn set_admin(&self, admin: Gate) {
        let _ = self.0.admin.set(admin);
    }

    /// The listeners, while none of them is about to close.
    pub(super) fn held(&self) -> Option<Arc<Vec<Held>>> {
        if self.0.phase.get() >= Phase::Draining { None } else { lock(&self.0.held).clone() }
    }

    /// Begins to drain, within `period`. Says whether that was new.
    pub(super) fn drain(&self, period: Duration) -> bool {
        self.hand_over(&[], period)
    }

    /// The same after a while in which the server only says that it is not ready.
    pub(super) fn drain_after(&self, delay: Duration, period: Duration) {
        self.0.phase.advance(Phase::Draining);
        let drainer = self.clone();
        let wait = move || {
            thread::sleep(delay);
            drainer.drain(period);
        };
        let waits = !delay.is_zero() && thread::Builder::new().name("delay".to_owned()).spawn(wait).is_ok();
        if !waits {
            self.drain(period);
        }
    }

    /// The same, and the listeners with these numbers are left to the process that follows.
    pub(super) fn hand_over(&self, taken: &[usize], period: Duration) -> bool {
        self.0.phase.advance(Phase::Draining);
        let Some(held) = lock(&self.0.held).take() else { return false };
        let Parts { serving, admin, clients, .. } = &*self.0;
        serving.control.keep_silences();
        let (mut grace, is_left) = (Duration::ZERO, |number| taken.contains(&number));
        for (number, held) in held.iter().enumerate().take(*clients) {
            if is_left(number) || held.activated {
                held.leave();
                serving.control.hand_over(ListenerId(u8::try_from(number).unwrap_or(u8::MAX)));
            } else {
                held.lock_out();
                grace = if held.is_remote() { Self::GRACE.min(period) } else { grace };
            }
        }
        serving.control.set_grace(grace);
        serving.drain(period);
        // Where nobody else serves it, operators look until the end.
        if let Some(admin) = admin.get().filter(|_| is_left(*clients)) {
            admin.control.hand_over(ListenerId(0));
            admin.drain(Duration::ZERO);
        }
        true
    }

    /// Holds publications back. Returns the tokens that were used.
    pub(super) fn hold(&self) -> Vec<([u8; 16], u64)> {
        let serving = &self.0.serving;
        serving.control.hold();
        serving.wake();
        serving.control.leave_seen()
    }

    /// Has publications go on.
    pub(super) fn go_on(&self) {
        self.0.serving.control.go_on();
        self.0.serving.wake();
    }

    /// Refuses publications from now on: another process has the topics. To be said before the listeners are handed over.
    pub(super) fn give_topics_away(&self) {
        self.0.serving.control.give_topics_away();
        self.0.serving.wake();
    }

    /// Gives up the server's own descriptors.
    pub(super) fn close(&self) {
        *lock(&self.0.held) = None;
    }
}
