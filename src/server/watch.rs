//! A thread that looks at the whole server a few times a second: whether there is memory for more connections, and
//! whether connections are being turned away, of which it tells the log once when it begins and once when it is over.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::StartError;
use crate::host;
use crate::metrics::Metrics;
use crate::rule::Limit;
use crate::shard::Control;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(250);
/// Without anybody turned away for so long, it is over.
const CALM: Duration = Duration::from_secs(5);
/// Limits for which connections are turned away.
const LIMITS: [Limit; 3] = [Limit::ConnectionsMax, Limit::AcceptRate, Limit::MemoryFreeBytesMin];

/// The thread. It ends with this value.
pub(super) struct Watch {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it.
    pub(super) fn start(control: Arc<Control>, metrics: Metrics) -> Result<Self, StartError> {
        let (stop, stopped) = mpsc::channel::<()>();
        let run = move || {
            let mut shedding = Shedding::default();
            loop {
                look_at_memory(&control, control.live().limits.memory_free_bytes_min as u64);
                let struck = LIMITS.map(|limit| metrics.total(|shard| shard.struck(limit)));
                shedding.look(Instant::now(), struck).into_iter().for_each(Said::log);
                if stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(run).map_err(StartError::Thread)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        self.thread.take().into_iter().for_each(|thread| {
            let _ = thread.join();
        });
    }
}

/// Nobody is let in while memory is short, until there is a quarter more than the least. With zero it never is.
fn look_at_memory(control: &Control, min: u64) {
    if min == 0 {
        return control.set_starved(false);
    }
    let Some(free) = host::free_bytes() else { return };
    let enough = if control.is_starved() { min.saturating_add(min / 4) } else { min };
    control.set_starved(free < enough);
}

/// What the log is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Begun(Limit),
    Over(u64),
}

impl Said {
    fn log(self) {
        match self {
            Self::Begun(limit) => {
                tracing::warn!(limit = limit.label(), "connections are being turned away; see /metrics for how many");
            }
            Self::Over(turned_away) => tracing::info!(turned_away, "all connections are taken in again"),
        }
    }
}

/// Whether connections are being turned away.
#[derive(Debug, Default)]
struct Shedding {
    /// How often each of [`LIMITS`] had struck when it was looked at last.
    struck: [u64; LIMITS.len()],
    /// While it goes on: how many there were before, and when the last look was that found another.
    episode: Option<(u64, Instant)>,
}

impl Shedding {
    fn look(&mut self, now: Instant, struck: [u64; LIMITS.len()]) -> Option<Said> {
        let before = std::mem::replace(&mut self.struck, struck);
        let more = struck.iter().zip(before).position(|(is, was)| *is > was);
        let (old, new) = (before.iter().sum::<u64>(), struck.iter().sum::<u64>());
        match (self.episode, more) {
            (None, None) => None,
            (None, Some(which)) => {
                self.episode = Some((old, now));
                Some(Said::Begun(LIMITS[which]))
            }
            (Some((since, _)), Some(_)) => {
                self.episode = Some((since, now));
                None
            }
            (Some((since, last)), None) => {
                let is_over = now.duration_since(last) >= CALM;
                is_over.then(|| {
                    self.episode = None;
                    Said::Over(new - since)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_hears_of_the_beginning_and_of_the_end() {
        let (mut shedding, start) = (Shedding::default(), Instant::now());
        let mut look = |seconds, struck| shedding.look(start + Duration::from_secs(seconds), struck);
        assert_eq!(look(0, [0, 0, 0]), None);
        assert_eq!(look(1, [0, 7, 0]), Some(Said::Begun(Limit::AcceptRate)));
        assert_eq!(look(2, [0, 9, 0]), None);
        assert_eq!(look(4, [1, 9, 0]), None);
        assert_eq!(look(8, [1, 9, 0]), None);
        assert_eq!(look(9, [1, 9, 0]), Some(Said::Over(10)));
        assert_eq!(look(60, [1, 9, 0]), None);
        assert_eq!(look(61, [1, 9, 2]), Some(Said::Begun(Limit::MemoryFreeBytesMin)));
        assert_eq!(look(70, [1, 9, 2]), Some(Said::Over(2)));
    }

    #[test]
    fn memory_decides_who_is_let_in() {
        let control = Control::new(crate::shard::Live::default());
        look_at_memory(&control, u64::MAX);
        assert!(control.is_starved());
        look_at_memory(&control, 1);
        assert!(!control.is_starved());
        look_at_memory(&control, u64::MAX);
        look_at_memory(&control, 0);
        assert!(!control.is_starved());
    }
}
