//! The path between us and the server, with whatever is wrong with it.
//!
//! A packet is lost, or held until it is due. All chance comes from one seed; which packets it hits depends on how they
//! happen to arrive, so two runs are alike but not equal. A path with nothing wrong with it is no [`Link`] at all.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::id::ConnId;
use crate::sim::Random;
use crate::time::Instant;

/// Packets held in one direction at most; those that find no place are lost, as in a router.
const HELD_MAX: usize = 1 << 18;
/// The least that a packet is held back by to be overtaken.
const OVERTAKEN_MIN: Duration = Duration::from_millis(1);

/// What a path does to packets. Shares are between 0 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Path {
    /// There and back, half of it each way.
    pub rtt: Duration,
    /// Up to so much more each way, evenly spread. Packets overtake each other by it.
    pub jitter: Duration,
    /// Share of packets that are held back by a quarter of the round-trip time (at least 1 ms), so that others overtake
    /// them.
    pub reorder: f64,
    /// Share of packets lost on their way to the server.
    pub loss_out: f64,
    /// Share of packets lost on their way to the clients.
    pub loss_in: f64,
    /// Share of connections that fall silent for good once they have stood for `vanish_after`: they neither answer nor
    /// receive, as if a cable had been cut.
    pub vanish: f64,
    /// See `vanish`. Counted in whole seconds.
    pub vanish_after: Duration,
    /// What chance follows from.
    pub seed: u64,
}

impl Path {
    /// Whether all shares are between 0 and 1.
    pub(super) fn is_valid(&self) -> bool {
        [self.reorder, self.loss_out, self.loss_in, self.vanish].iter().all(|share| (0.0..=1.0).contains(share))
    }

    pub(super) fn vanish(&self) -> Option<Vanish> {
        let after = u16::try_from(self.vanish_after.as_secs()).unwrap_or(u16::MAX);
        (self.vanish > 0.0).then_some(Vanish { share: self.vanish, after, seed: self.seed })
    }
}

/// Who falls silent, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vanish {
    share: f64,
    /// Seconds.
    after: u16,
    seed: u64,
}

impl Vanish {
    /// Whether a connection that was established at the second `since` is silent by now.
    pub(super) fn takes(&self, id: ConnId, since: u16, now: Instant) -> bool {
        seconds(now).wrapping_sub(since) >= self.after
            && share_is_hit(self.share, Random::new(self.seed ^ id.bits()).bits())
    }
}

/// Whole seconds, which wrap after 18 hours.
#[expect(clippy::cast_possible_truncation, reason = "they wrap")]
pub(super) const fn seconds(now: Instant) -> u16 {
    (now.as_millis() / 1000) as u16
}

/// Whether evenly spread bits fall into a share of all there are.
fn share_is_hit(share: f64, bits: u64) -> bool {
    // 53 bits are what a double holds exactly.
    ((bits >> 11) as f64) < share * (1_u64 << 53) as f64
}

/// Both directions.
#[derive(Debug)]
pub(super) struct Link {
    /// To the server.
    pub(super) outward: Lane,
    /// To the clients.
    pub(super) inward: Lane,
}

impl Link {
    /// `None` when nothing is wrong with the path.
    pub(super) fn new(path: &Path) -> Option<Self> {
        let is_perfect = path.rtt.is_zero()
            && path.jitter.is_zero()
            && [path.reorder, path.loss_out, path.loss_in].iter().all(|share| *share <= 0.0);
        (!is_perfect).then(|| Self {
            outward: Lane::new(path, path.loss_out, path.seed),
            inward: Lane::new(path, path.loss_in, !path.seed),
        })
    }

    /// When the next packet is due in either direction.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.outward.due(), self.inward.due()].into_iter().flatten().min()
    }

    /// Packets lost in both directions.
    pub(super) const fn lost(&self) -> u64 {
        self.outward.lost + self.inward.lost
    }
}

/// One direction.
#[derive(Debug)]
pub(super) struct Lane {
    delay: Duration,
    jitter: Duration,
    loss: f64,
    reorder: f64,
    overtaken_by: Duration,
    random: Random,
    held: BinaryHeap<Held>,
    serial: u64,
    lost: u64,
}

impl Lane {
    fn new(path: &Path, loss: f64, seed: u64) -> Self {
        Self {
            delay: path.rtt / 2,
            jitter: path.jitter,
            loss,
            reorder: path.reorder,
            overtaken_by: (path.rtt / 4).max(OVERTAKEN_MIN),
            random: Random::new(seed),
            held: BinaryHeap::new(),
            serial: 0,
            lost: 0,
        }
    }

    /// Takes a packet, or loses it.
    pub(super) fn push(&mut self, packet: &[u8], now: Instant) {
        if self.chance(self.loss) || self.held.len() >= HELD_MAX {
            self.lost += 1;
            return;
        }
        let mut due = now + self.delay;
        if !self.jitter.is_zero() {
            let spread = usize::try_from(self.jitter.as_nanos()).unwrap_or(usize::MAX);
            due = due + Duration::from_nanos(self.random.below(spread) as u64);
        }
        if self.chance(self.reorder) {
            due = due + self.overtaken_by;
        }
        self.serial += 1;
        self.held.push(Held { due, serial: self.serial, packet: packet.into() });
    }

    /// The next packet that has arrived.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Box<[u8]>> {
        self.due().filter(|due| *due <= now)?;
        self.held.pop().map(|held| held.packet)
    }

    fn due(&self) -> Option<Instant> {
        self.held.peek().map(|held| held.due)
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && share_is_hit(share, self.random.bits())
    }
}

/// A packet on its way. The earliest is the greatest; of those due at once it is the first that came.
#[derive(Debug)]
struct Held {
    due: Instant,
    serial: u64,
    packet: Box<[u8]>,
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.serial).cmp(&(self.due, self.serial))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Held {}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(path: &Path, packets: u32) -> Vec<(u64, u32)> {
        let mut lane = Link::new(path).map(|link| link.outward).into_iter();
        let mut lane = lane.next().unwrap_or_else(|| Lane::new(path, 0.0, 0));
        for number in 0..packets {
            lane.push(&number.to_be_bytes(), Instant::from_millis(u64::from(number)));
        }
        let mut arrivals = Vec::new();
        for ms in 0..100_000 {
            while let Some(packet) = lane.pop(Instant::from_millis(ms)) {
                let number = packet.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
                arrivals.push((ms, number));
            }
        }
        arrivals
    }

    #[test]
    fn nothing_wrong_is_no_link() {
        assert!(Link::new(&Path::default()).is_none());
        assert!(Link::new(&Path { vanish: 0.5, ..Path::default() }).is_none());
    }

    #[test]
    fn half_the_round_trip_is_added_and_the_order_kept() {
        let path = Path { rtt: Duration::from_millis(40), ..Path::default() };
        let expected: Vec<_> = (0..50).map(|number| (u64::from(number) + 20, number)).collect();
        assert_eq!(arrivals(&path, 50), expected);
    }

    #[test]
    fn the_share_that_was_asked_for_is_lost() {
        let path = Path { loss_out: 0.1, seed: 1, ..Path::default() };
        let arrived = arrivals(&path, 20_000).len();
        assert!((17_800..18_200).contains(&arrived), "{arrived} of 20,000 with a tenth lost");
    }

    #[test]
    fn reordered_packets_all_arrive() {
        let path = Path { rtt: Duration::from_millis(40), reorder: 0.2, seed: 2, ..Path::default() };
        let mut numbers: Vec<_> = arrivals(&path, 1000).into_iter().map(|(_, number)| number).collect();
        assert!(!numbers.is_sorted());
        numbers.sort_unstable();
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_share_of_connections_vanishes_in_time_and_no_other() {
        let path = Path { vanish: 0.25, vanish_after: Duration::from_secs(10), ..Path::default() };
        let gone = |at: u64| {
            let takes = |vanish: Vanish| {
                (0..10_000).filter(|index| vanish.takes(ConnId::new(*index, 1), 5, Instant::from_millis(at))).count()
            };
            path.vanish().map(takes)
        };
        assert_eq!(gone(14_999), Some(0));
        assert!(gone(15_000).is_some_and(|gone| (2_300..2_700).contains(&gone)));
    }
}
