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
    /// Another process goes on with them: a token that is used here now could be used there again.
    left: bool,
}

impl Seen {
    /// Tokens in it at most: some 32 bytes each. Where so many are good at the same time no more are taken.
    pub const TOKENS_MAX: usize = 1 << 20;

    /// Notes that a token is used, now being a Unix second.
    ///
    /// # Errors
    /// When it was used before, or there is no room.
    pub fn take(&mut self, (number, until): ([u8; 16], u64), now: u64) -> Result<(), AuthRefusal> {
        if self.left {
            return Err(AuthRefusal::ReplaysFull);
        }
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
    /// All of them with the seconds until which they are good, for another process. No more are taken until
    /// [`Seen::go_on`].
    pub fn leave(&mut self) -> Vec<([u8; 16], u64)> {
        self.left = true;
        self.used.iter().map(|(number, until)| (*number, *until)).collect()
    }

    /// The other process has not come to it.
    pub const fn go_on(&mut self) {
        self.left = false;
    }

    /// Adds those of another process, as far as there is room.
    pub fn adopt(&mut self, used: impl IntoIterator<Item = ([u8; 16], u64)>) {
        let room = Self::TOKENS_MAX.saturating_sub(self.used.len());
        self.used.extend(used.into_iter().take(room));
    }
}
