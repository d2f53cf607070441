//! A bounded map of what was read from storage. What is asked for often stays; what is not goes after two generations.
//!
//! A reader that fills it must not put back what was changed while it read: it takes [`Cache::changes`] before it reads, and
//! [`Cache::insert`] drops a value that is older than the last change.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub struct Cache<V> {
    inner: Mutex<Inner<V>>,
    /// The weight of one generation.
    limit: usize,
}

struct Inner<V> {
    young: HashMap<Box<str>, (V, usize)>,
    old: HashMap<Box<str>, (V, usize)>,
    weight: usize,
    changes: u64,
}

impl<V> fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<V: Clone> Cache<V> {
    /// Holds values of `limit` together, at most.
    pub fn new(limit: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                young: HashMap::new(),
                old: HashMap::new(),
                weight: 0,
                changes: 0,
            }),
            limit: limit / 2,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &str) -> Option<V> {
        let mut inner = self.inner();
        if let Some((value, _)) = inner.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, weight)) = inner.old.remove_entry(key)?;
        let copy = value.clone();
        self.put(&mut inner, key, value, weight);
        Some(copy)
    }

    pub fn changes(&self) -> u64 {
        self.inner().changes
    }

    /// Nothing, when there was a change since `seen`.
    pub fn insert(&self, key: &str, value: V, weight: usize, seen: u64) {
        let mut inner = self.inner();
        if inner.changes == seen && weight <= self.limit {
            self.put(&mut inner, key.into(), value, weight);
        }
    }

    pub fn remove(&self, key: &str) {
        let mut inner = self.inner();
        inner.changes += 1;
        if let Some((_, weight)) = inner.young.remove(key) {
            inner.weight -= weight;
        }
        inner.old.remove(key);
    }

    fn put(&self, inner: &mut Inner<V>, key: Box<str>, value: V, weight: usize) {
        if inner.weight + weight > self.limit {
            inner.old = std::mem::take(&mut inner.young);
            inner.weight = 0;
        }
        inner.weight += weight;
        if let Some((_, before)) = inner.young.insert(key, (value, weight)) {
            inner.weight -= before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let cache = Cache::new(20);
        for number in 0..100 {
            cache.insert(&number.to_string(), number, 1, 0);
            assert_eq!(cache.get("0"), Some(0), "{number}");
        }
        let inner = cache.inner();
        assert!(inner.young.len() + inner.old.len() <= 20);
        assert!(inner.weight <= 10);
    }

    #[test]
    fn what_was_read_before_a_change_is_not_put_back() {
        let cache = Cache::new(20);
        let seen = cache.changes();
        cache.remove("a");
        cache.insert("a", 1, 1, seen);
        assert_eq!(cache.get("a"), None);
        cache.insert("a", 2, 1, cache.changes());
        assert_eq!(cache.get("a"), Some(2));
        cache.insert("large", 3, 11, cache.changes());
        assert_eq!(cache.get("large"), None);
    }
}
