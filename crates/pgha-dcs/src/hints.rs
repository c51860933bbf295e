//! Watch events as hints to wake up.
//!
//! The queue holds at most one hint per key (the newest) and a bounded number of keys; when it overflows, everything in
//! it becomes one [`Hint::Resync`]. So a slow reader costs no memory and loses no wake-up. Values are not carried: a
//! decision reads the whole prefix at one revision (rule R3).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgha_core::units::Revision;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Keys remembered for a reader that does not keep up; more than any cluster has.
const MAX_PENDING_KEYS: usize = 256;

/// A reason to look at the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hint {
    /// A key was written or deleted.
    Changed {
        /// Full key.
        key: String,
        /// Revision of the change.
        mod_revision: Revision,
        /// The key is gone.
        deleted: bool,
    },
    /// Events may have been missed: anything may have changed.
    Resync,
}

#[derive(Default)]
struct Pending {
    resync: bool,
    changes: VecDeque<Hint>,
    producer_gone: bool,
}

#[derive(Default)]
struct Queue {
    pending: Mutex<Pending>,
    filled: Notify,
}

impl Queue {
    /// A panic between lock and unlock cannot leave `Pending` half changed, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving end of a watch. Dropping it ends the watch.
pub struct WatchHints {
    queue: Arc<Queue>,
    producer: Option<JoinHandle<()>>,
}

/// The sending end, for backends.
pub struct HintSender {
    queue: Arc<Queue>,
}

impl WatchHints {
    /// A connected pair.
    pub fn channel() -> (HintSender, WatchHints) {
        let queue = Arc::new(Queue::default());
        (
            HintSender {
                queue: Arc::clone(&queue),
            },
            WatchHints { queue, producer: None },
        )
    }

    /// Ties the life of a background task to this end: it is aborted when the hints are dropped.
    #[must_use]
    pub fn fed_by(mut self, producer: JoinHandle<()>) -> WatchHints {
        self.producer = Some(producer);
        self
    }

    /// Waits for the next hint; `None` when the backend has given up for good. Safe to cancel.
    pub async fn next(&mut self) -> Option<Hint> {
        loop {
            // `Notify` keeps one permit, so a hint that arrives between the look and the wait is not missed.
            if let Some(answer) = self.take() {
                return answer;
            }
            self.queue.filled.notified().await;
        }
    }

    /// `Some(None)` at the end, `None` when there is nothing now.
    fn take(&mut self) -> Option<Option<Hint>> {
        let mut pending = self.queue.lock();
        if pending.resync {
            pending.resync = false;
            return Some(Some(Hint::Resync));
        }
        match pending.changes.pop_front() {
            Some(hint) => Some(Some(hint)),
            None if pending.producer_gone => Some(None),
            None => None,
        }
    }
}

impl Drop for WatchHints {
    fn drop(&mut self) {
        if let Some(producer) = &self.producer {
            producer.abort();
        }
    }
}

impl HintSender {
    /// Adds a hint. An older one about the same key is replaced.
    pub fn send(&self, hint: Hint) {
        let mut pending = self.queue.lock();
        match &hint {
            Hint::Resync => pending.overflow(),
            Hint::Changed { key, .. } => {
                pending
                    .changes
                    .retain(|old| !matches!(old, Hint::Changed { key: old, .. } if old == key));
                if pending.changes.len() < MAX_PENDING_KEYS {
                    pending.changes.push_back(hint);
                } else {
                    pending.overflow();
                }
            }
        }
        drop(pending);
        self.queue.filled.notify_one();
    }
}

impl Pending {
    /// A re-read covers every single change, so they need not be told any more.
    fn overflow(&mut self) {
        self.changes.clear();
        self.resync = true;
    }
}

impl Drop for HintSender {
    fn drop(&mut self) {
        self.queue.lock().producer_gone = true;
        self.queue.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn changed(key: &str, revision: i64) -> Hint {
        Hint::Changed {
            key: key.to_owned(),
            mod_revision: Revision(revision),
            deleted: false,
        }
    }

    #[tokio::test]
    async fn a_newer_hint_replaces_the_older_one_of_the_same_key() {
        let (sender, mut hints) = WatchHints::channel();
        sender.send(changed("/a", 1));
        sender.send(changed("/b", 2));
        sender.send(changed("/a", 3));
        assert_eq!(hints.next().await, Some(changed("/b", 2)));
        assert_eq!(hints.next().await, Some(changed("/a", 3)));
    }

    #[tokio::test]
    async fn a_reader_that_sleeps_through_too_many_keys_is_told_to_read_everything() {
        let (sender, mut hints) = WatchHints::channel();
        for n in 0..=MAX_PENDING_KEYS {
            sender.send(changed(&format!("/{n}"), 1));
        }
        assert_eq!(hints.next().await, Some(Hint::Resync));
        sender.send(changed("/later", 2));
        assert_eq!(hints.next().await, Some(changed("/later", 2)));
    }

    #[tokio::test]
    async fn the_end_of_the_producer_is_told_after_its_last_hint() {
        let (sender, mut hints) = WatchHints::channel();
        sender.send(changed("/a", 1));
        drop(sender);
        assert_eq!(hints.next().await, Some(changed("/a", 1)));
        assert_eq!(hints.next().await, None);
    }
}
