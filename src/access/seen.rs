//! Tokens that were used, of those that may be used once.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::rule::AuthRefusal;

/// The numbers of used tokens, until they have expired.
#[derive(Debug, Default)]
pub struct Seen {
    used: HashMap<[u8; 16], u64>,
    /// Not before this second it is worth looking for what has expired: the room is full of what has not.
    sweep_from: u64,
}

impl Seen {
    /// Tokens in it at most: some 32 bytes each. Where so many are good at the same time no more are taken.
    pub const TOKENS_MAX: usize = 1 << 20;

    /// Notes that a token is used, now being a Unix second.
    ///
    /// # Errors
    /// When it was used before, or there is no room.
    pub fn take(&mut self, (number, until): ([u8; 16], u64), now: u64) -> Result<(), AuthRefusal> {
        if self.used.len() >= Self::TOKENS_MAX && now >= self.sweep_from {
            self.used.retain(|_, until| *until > now);
            // To look again at once would find little, and takes milliseconds.
            self.sweep_from = now + 10;
        }
        let is_full = self.used.len() >= Self::TOKENS_MAX;
        match self.used.entry(number) {
            Entry::Occupied(entry) if *entry.get() > now => Err(AuthRefusal::Replayed),
            Entry::Occupied(mut entry) => {
                entry.insert(until);
                Ok(())
            }
            Entry::Vacant(_) if is_full => Err(AuthRefusal::ReplaysFull),
            Entry::Vacant(entry) => {
                entry.insert(until);
                Ok(())
            }
        }
    }
}
