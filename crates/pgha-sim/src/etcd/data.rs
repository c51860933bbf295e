//! Keys, revisions and everything that ever changed them.
//!
//! Nothing is copied to answer about the past: the state at an earlier revision is the present one with later changes
//! undone. Watches, reads at a revision, members that lag behind and restored snapshots all come from this one record.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgha_core::units::{LeaseId, Revision};
use pgha_wire::kv::{Compare, KeyValue, Op, Snapshot, Txn};

use super::Time;

/// A key as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// What clients see of it.
    pub kv: KeyValue,
    /// How often it was put since its creation.
    pub version: i64,
}

/// One key changed by one revision.
#[derive(Clone, Debug)]
pub struct Change {
    /// The revision.
    pub revision: i64,
    /// When.
    pub at: Time,
    /// Full key.
    pub key: Arc<str>,
    /// What was there.
    pub before: Option<Arc<Stored>>,
    /// What is there now; `None` when it was deleted.
    pub after: Option<Arc<Stored>>,
}

/// Why a revision cannot be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutOfRange {
    /// It was compacted away.
    Compacted,
    /// It is yet to come.
    Future,
}

/// The keyspace and its past.
#[derive(Debug)]
pub struct Data {
    revision: i64,
    compacted: i64,
    keys: BTreeMap<Arc<str>, Arc<Stored>>,
    changes: Vec<Change>,
}

impl Data {
    /// An empty keyspace.
    pub fn new() -> Data {
        Data {
            revision: 1,
            compacted: 0,
            keys: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// Current revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// One key.
    pub fn get(&self, key: &str) -> Option<&Arc<Stored>> {
        self.keys.get(key)
    }

    /// All keys below a prefix, as they are kept.
    pub fn keys_below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a KeyValue> {
        below(&self.keys, prefix).map(|(_, stored)| &stored.kv)
    }

    /// All keys below a prefix, now.
    pub fn range(&self, prefix: &str) -> Snapshot {
        snapshot(self.revision, below(&self.keys, prefix).map(|(_, stored)| stored))
    }

    /// All keys below a prefix as they were at a revision.
    ///
    /// # Errors
    /// The revision is not there any more, or not yet.
    pub fn range_at(&self, prefix: &str, revision: i64) -> Result<Snapshot, OutOfRange> {
        if revision < self.compacted {
            return Err(OutOfRange::Compacted);
        }
        if revision > self.revision {
            return Err(OutOfRange::Future);
        }
        let mut then: BTreeMap<&str, &Arc<Stored>> = below(&self.keys, prefix).map(|(k, s)| (&**k, s)).collect();
        let later = self.changes.iter().rev().take_while(|c| c.revision > revision);
        for change in later.filter(|c| c.key.starts_with(prefix)) {
            match &change.before {
                Some(stored) => then.insert(&change.key, stored),
                None => then.remove(&*change.key),
            };
        }
        Ok(snapshot(revision, then.into_values()))
    }

    /// What changed after a revision, in order.
    ///
    /// # Errors
    /// Some of it was compacted away.
    pub fn changes_after(&self, revision: i64) -> Result<&[Change], OutOfRange> {
        // The change that the compaction stopped at is still there.
        if revision + 1 < self.compacted {
            return Err(OutOfRange::Compacted);
        }
        let from = self.changes.partition_point(|c| c.revision <= revision);
        Ok(self.changes.get(from..).unwrap_or_default())
    }

    /// The past before a revision can be asked for no more.
    pub fn compact(&mut self, revision: i64) {
        self.compacted = self.compacted.max(revision.min(self.revision));
    }

    /// The last revision that was written at a time.
    pub fn revision_at(&self, time: Time) -> i64 {
        let count = self.changes.partition_point(|c| c.at <= time);
        count.checked_sub(1).map_or(1, |last| self.changes[last].revision)
    }

    /// Everything after a revision never happened.
    pub fn rewind_to(&mut self, revision: i64) {
        while let Some(change) = self.changes.pop_if(|c| c.revision > revision) {
            match change.before {
                Some(stored) => self.keys.insert(change.key, stored),
                None => self.keys.remove(&change.key),
            };
        }
        self.revision = revision;
        self.compacted = self.compacted.min(revision);
    }

    /// Do all conditions hold, at this one revision?
    pub fn holds(&self, compares: &[Compare]) -> bool {
        compares.iter().all(|compare| {
            let kv = |key: &str| self.keys.get(key).map(|stored| &stored.kv);
            match compare {
                Compare::CreateRevision(key, want) => kv(key).map_or(Revision(0), |kv| kv.create_revision) == *want,
                Compare::ModRevision(key, want) => kv(key).map_or(Revision(0), |kv| kv.mod_revision) == *want,
                Compare::Lease(key, want) => kv(key).is_some_and(|kv| kv.lease == Some(*want)),
                Compare::Value(key, want) => kv(key).is_some_and(|kv| kv.value == *want),
            }
        })
    }

    /// Performs all writes under one new revision, and returns it. Without any change there is no new one.
    pub fn write(&mut self, now: Time, txn: &Txn) -> i64 {
        let revision = self.revision + 1;
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => self.put(now, revision, key, value, *lease),
                Op::Delete(key) => self.delete(now, revision, &Arc::from(key.as_str())),
                Op::DeletePrefix(prefix) => {
                    let gone: Vec<Arc<str>> = below(&self.keys, prefix).map(|(key, _)| Arc::clone(key)).collect();
                    gone.iter().for_each(|key| self.delete(now, revision, key));
                }
            }
        }
        self.settle(revision)
    }

    /// Deletes all keys on a lease under one revision.
    pub fn delete_on_lease(&mut self, now: Time, lease: LeaseId) {
        let on_it = self.keys.iter().filter(|(_, stored)| stored.kv.lease == Some(lease));
        let gone: Vec<Arc<str>> = on_it.map(|(key, _)| Arc::clone(key)).collect();
        let revision = self.revision + 1;
        gone.iter().for_each(|key| self.delete(now, revision, key));
        self.settle(revision);
    }

    /// The revision is used up if something changed.
    fn settle(&mut self, revision: i64) -> i64 {
        if self.changes.last().is_some_and(|c| c.revision == revision) {
            self.revision = revision;
        }
        self.revision
    }

    fn put(&mut self, now: Time, revision: i64, key: &str, value: &[u8], lease: Option<LeaseId>) {
        let before = self
            .keys
            .get_key_value(key)
            .map(|(k, s)| (Arc::clone(k), Arc::clone(s)));
        let name = before
            .as_ref()
            .map_or_else(|| Arc::from(key), |(name, _)| Arc::clone(name));
        let before = before.map(|(_, stored)| stored);
        let after = Arc::new(Stored {
            kv: KeyValue {
                key: key.to_owned(),
                value: value.to_vec(),
                create_revision: before.as_ref().map_or(Revision(revision), |b| b.kv.create_revision),
                mod_revision: Revision(revision),
                lease,
            },
            version: before.as_ref().map_or(0, |b| b.version) + 1,
        });
        self.keys.insert(Arc::clone(&name), Arc::clone(&after));
        self.changes.push(Change {
            revision,
            at: now,
            key: name,
            before,
            after: Some(after),
        });
    }

    fn delete(&mut self, now: Time, revision: i64, key: &Arc<str>) {
        if let Some(before) = self.keys.remove(key) {
            self.changes.push(Change {
                revision,
                at: now,
                key: Arc::clone(key),
                before: Some(before),
                after: None,
            });
        }
    }
}

impl Default for Data {
    fn default() -> Data {
        Data::new()
    }
}

fn below<'a>(
    keys: &'a BTreeMap<Arc<str>, Arc<Stored>>,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Stored>)> {
    keys.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
        .take_while(move |(key, _)| key.starts_with(prefix))
}

fn snapshot<'a>(revision: i64, stored: impl Iterator<Item = &'a Arc<Stored>>) -> Snapshot {
    Snapshot {
        revision: Revision(revision),
        keys: stored.map(|stored| stored.kv.clone()).collect(),
    }
}
