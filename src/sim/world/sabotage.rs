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

    /// What the peer gets instead of this frame.
    pub(super) fn filter(&mut self, peer: u32, frame: Frame) -> Vec<Frame> {
        if let Some((_, first)) = self.held.take_if(|(held, _)| *held == peer) {
            self.struck = true;
            return vec![frame, first];
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
