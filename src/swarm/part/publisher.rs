//! Who publishes: a message at each intended time, by a connection that is open.

use std::time::Duration;

use super::super::crowd::Crowd;
use super::super::stamp::Template;
use super::super::tally::Count;
use crate::io::Dial;
use crate::time::Instant;

/// Time until another try, when no connection took a publication.
const AGAIN: Duration = Duration::from_millis(1);

/// A series of publications.
#[derive(Clone, Copy, Debug)]
pub(in crate::swarm) struct Series {
    /// The number of the first.
    pub(in crate::swarm) first: u32,
    pub(in crate::swarm) count: u32,
    /// When the first is due; `None` for at once.
    pub(in crate::swarm) start: Option<Instant>,
    pub(in crate::swarm) interval: Duration,
}

/// What is still to be published.
#[derive(Debug)]
pub(in crate::swarm) struct Publisher {
    template: Template,
    series: Option<Series>,
    done: u32,
    /// Not before then.
    again: Instant,
    /// Who published last.
    place: u32,
}

impl Publisher {
    pub(in crate::swarm) fn new(run: u32, size: usize) -> Self {
        Self { template: Template::new(run, size), series: None, done: 0, again: Instant::ZERO, place: 0 }
    }

    pub(in crate::swarm) fn begin(&mut self, mut series: Series, now: Instant) {
        series.start.get_or_insert(now);
        self.series = Some(series);
        self.done = 0;
    }

    pub(in crate::swarm) fn stop(&mut self) {
        self.series = None;
    }

    /// When there is something to do.
    pub(in crate::swarm) fn due(&self) -> Option<Instant> {
        Some(self.next()?.max(self.again))
    }

    /// When the next one is due.
    fn next(&self) -> Option<Instant> {
        let series = self.series.filter(|series| self.done < series.count)?;
        Some(series.start? + series.interval.saturating_mul(self.done))
    }

    /// Publishes what is due. What no connection takes is tried again a little later, with the time when it was due.
    pub(in crate::swarm) fn publish<B: Dial>(&mut self, crowd: &mut Crowd<B>) {
        let now = crowd.now();
        if self.again > now {
            return;
        }
        while let (Some(due), Some(series)) = (self.next().filter(|due| *due <= now), self.series) {
            let number = series.first.wrapping_add(self.done);
            if !self.send(crowd, number, due) {
                self.again = now + AGAIN;
                return;
            }
            crowd.tally.one(Count::Published);
            self.done += 1;
        }
    }

    fn send<B: Dial>(&mut self, crowd: &mut Crowd<B>, number: u32, due: Instant) -> bool {
        let places = crowd.places();
        let from = self.place;
        // The same one as long as it lives, so that there is one order.
        let role = crowd.publishers();
        let mut all = (0..places).map(|step| (from + step) % places);
        let open = all.find(|index| crowd.standing(*index).is_some_and(|member| member.role() == role));
        let Some(place) = open else { return false };
        self.place = place;
        let payload = self.template.stamp(number, due);
        crowd.send(place, |member, client, out| client.message(payload, member.speaking(), out))
    }
}
