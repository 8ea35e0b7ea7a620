//! Small files in memory.
//!
//! A hit takes a read lock for one look-up. What has not been looked at for a round is evicted first (the clock
//! algorithm), and no lock is held while a file is read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;

/// Something that is worth keeping.
pub(super) trait Weigh {
    /// Bytes that it keeps.
    fn weight(&self) -> usize;
}

#[derive(Debug)]
struct Slot<T> {
    value: Arc<T>,
    used: AtomicBool,
}

#[derive(Debug)]
struct Inside<T> {
    slots: HashMap<Arc<str>, Slot<T>>,
    /// The keys, each once, the next to be evicted first.
    clock: VecDeque<Arc<str>>,
    bytes: usize,
}

/// Values by path, bounded in number and bytes.
#[derive(Debug)]
pub(super) struct Cache<T> {
    inside: RwLock<Inside<T>>,
    entries_max: usize,
    bytes_max: usize,
}

impl<T: Weigh> Cache<T> {
    pub(super) fn new(entries_max: usize, bytes_max: usize) -> Self {
        let inside = Inside { slots: HashMap::new(), clock: VecDeque::new(), bytes: 0 };
        Self { inside: RwLock::new(inside), entries_max, bytes_max }
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<T>> {
        let inside = self.inside.read().unwrap_or_else(PoisonError::into_inner);
        let slot = inside.slots.get(key)?;
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&slot.value))
    }

    /// Bytes of all values.
    pub(super) fn bytes(&self) -> usize {
        self.inside.read().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Keeps a value instead of the one before, if there is room at all.
    pub(super) fn put(&self, key: &str, value: Arc<T>) {
        let mut inside = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        let weight = value.weight();
        inside.remove(key);
        if weight > self.bytes_max {
            return;
        }
        while inside.slots.len() >= self.entries_max || inside.bytes + weight > self.bytes_max {
            if !inside.evict() {
                return;
            }
        }
        let key: Arc<str> = key.into();
        inside.bytes += weight;
        inside.clock.push_back(Arc::clone(&key));
        inside.slots.insert(key, Slot { value, used: AtomicBool::new(false) });
    }

    pub(super) fn remove(&self, key: &str) {
        self.inside.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

impl<T: Weigh> Inside<T> {
    fn remove(&mut self, key: &str) {
        if let Some(slot) = self.slots.remove(key) {
            self.bytes -= slot.value.weight();
            self.clock.retain(|other| **other != *key);
        }
    }

    /// Lets the first go that was not used since the last round; whether there was any.
    fn evict(&mut self) -> bool {
        while let Some(key) = self.clock.pop_front() {
            let Some(slot) = self.slots.get(&key) else { continue };
            if slot.used.swap(false, Ordering::Relaxed) {
                self.clock.push_back(key);
                continue;
            }
            self.bytes -= slot.value.weight();
            self.slots.remove(&key);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    fn put(cache: &Cache<usize>, key: &str, weight: usize) {
        cache.put(key, Arc::new(weight));
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let cache = Cache::new(3, 100);
        ["a", "b", "c"].into_iter().for_each(|key| put(&cache, key, 10));
        assert!(cache.get("a").is_some());
        put(&cache, "d", 10);
        assert!(cache.get("b").is_none(), "it was the oldest that nobody used");
        assert!(["a", "c", "d"].iter().all(|key| cache.get(key).is_some()));
    }

    #[test]
    fn bytes_are_bounded_also_when_all_are_used() {
        let cache = Cache::new(100, 100);
        for key in ["a", "b", "c", "d", "e", "f"] {
            put(&cache, key, 40);
            assert!(cache.get(key).is_some());
            assert!(cache.inside.read().is_ok_and(|inside| inside.bytes <= 100 && inside.slots.len() <= 2));
        }
        put(&cache, "big", 101);
        assert!(cache.get("big").is_none());
    }

    #[test]
    fn a_value_is_replaced_and_removed_with_its_weight() {
        let cache = Cache::new(10, 100);
        put(&cache, "a", 60);
        put(&cache, "a", 70);
        assert_eq!(cache.get("a").as_deref(), Some(&70));
        cache.remove("a");
        cache.remove("a");
        assert!(cache.get("a").is_none());
        assert!(cache.inside.read().is_ok_and(|inside| inside.bytes == 0 && inside.clock.is_empty()));
    }
}
