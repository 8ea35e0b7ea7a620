//! A filter between server and peers that breaks what the oracles guard, to show that they would see it.

use super::wire::Frame;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// A message is lost.
    Lose,
    /// A message comes twice.
    Double,
    /// Two messages change places.
    Swap,
    /// A byte is changed.
    Corrupt,
    /// A reader that resumes misses a message.
    Skip,
    /// It gets one twice.
    Again,
    /// It is not told that something is lost.
    Unreset,
    /// A publisher is told another place of its message.
    Misplace,
    /// A message whose publisher sent it twice is published twice.
    Republish,
    /// A publisher is told of a subscriber where there is none.
    Subscribers,
    /// A queue group's message goes to two members.
    TwoWorkers,
    /// It goes to none.
    NoWorker,
}

impl Trick {
    /// Those that are done to frames.
    pub const FRAMES: [Self; 4] = [Self::Lose, Self::Double, Self::Swap, Self::Corrupt];
    /// Those that are done to what a server says to readers, workers and publishers.
    pub const WORDS: [Self; 8] = [
        Self::Skip,
        Self::Again,
        Self::Unreset,
        Self::Misplace,
        Self::Republish,
        Self::Subscribers,
        Self::TwoWorkers,
        Self::NoWorker,
    ];
}

/// Breaks one message, the `nth` that healthy peers get.
#[derive(Debug)]
pub struct Sabotage {
    trick: Trick,
    nth: usize,
    held: Option<(u32, Frame)>,
    /// Whether it has been done.
    pub(super) struck: bool,
}

impl Sabotage {
    /// Will break the `nth` message.
    #[must_use]
    pub const fn new(trick: Trick, nth: usize) -> Self {
        Self { trick, nth, held: None, struck: false }
    }

    /// Whether it is the turn of this trick, where nothing else is needed for it.
    pub(super) fn strikes(&mut self, trick: Trick) -> bool {
        if self.trick != trick || self.struck {
            return false;
        }
        self.struck = self.nth == 0;
        self.nth = self.nth.saturating_sub(1);
        self.struck
    }

    /// What the peer gets instead of this frame.
    pub(super) fn filter(&mut self, peer: u32, frame: Frame) -> Vec<Frame> {
        if let Some((_, first)) = self.held.take_if(|(held, _)| *held == peer) {
            self.struck = true;
            return vec![frame, first];
        }
        if !Trick::FRAMES.contains(&self.trick) {
            return vec![frame];
        }
        if self.struck || self.held.is_some() || !matches!(frame, Frame::Text(_) | Frame::Binary(_) | Frame::Raw(_)) {
            return vec![frame];
        }
        if self.nth > 0 {
            self.nth -= 1;
            return vec![frame];
        }
        self.struck = self.trick != Trick::Swap;
        match self.trick {
            Trick::Lose => Vec::new(),
            Trick::Double => vec![frame.clone(), frame],
            Trick::Swap => {
                self.held = Some((peer, frame));
                Vec::new()
            }
            Trick::Corrupt => vec![corrupt(frame)],
            _ => vec![frame],
        }
    }
}

fn corrupt(mut frame: Frame) -> Frame {
    if let Frame::Text(bytes) | Frame::Binary(bytes) | Frame::Raw(bytes) = &mut frame
        && let Some(last) = bytes.last_mut()
    {
        *last ^= 1;
    }
    frame
}
