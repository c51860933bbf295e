//! Simulated etcd: one linearizable store with revisions, leases and transactions. The adversary that loses replies and
//! delays requests stands between it and the nodes, in the world.
//!
//! Values are what pgha-wire writes, so the formats are exercised with every seed.

use std::collections::BTreeMap;

use pgha_core::commit::CommitOutcome;
use pgha_core::units::{LeaseId, Revision};
use pgha_wire::kv::{Compare, KeyValue, Op, Snapshot, Txn};

/// Time in the simulated world, in nanoseconds.
pub type Time = u64;

/// The store.
#[derive(Debug, Default)]
pub struct SimEtcd {
    revision: i64,
    keys: BTreeMap<String, KeyValue>,
    leases: BTreeMap<i64, Lease>,
    next_lease: i64,
    /// Every applied transaction that put a key: revision to keys, for the oracles.
    pub log: BTreeMap<i64, Vec<String>>,
}

#[derive(Debug)]
struct Lease {
    ttl: Time,
    expires: Time,
}

impl SimEtcd {
    /// An empty store.
    pub fn new() -> SimEtcd {
        SimEtcd {
            revision: 1,
            next_lease: 7000,
            ..SimEtcd::default()
        }
    }

    /// All keys below a prefix.
    pub fn read(&self, prefix: &str) -> Snapshot {
        let keys = self
            .keys
            .values()
            .filter(|kv| kv.key.starts_with(prefix))
            .cloned()
            .collect();
        Snapshot {
            revision: Revision(self.revision),
            keys,
        }
    }

    /// One key.
    pub fn get(&self, key: &str) -> Option<&KeyValue> {
        self.keys.get(key)
    }

    /// Performs a transaction.
    pub fn commit(&mut self, txn: &Txn) -> CommitOutcome {
        if !txn.compares.iter().all(|c| self.holds(c)) {
            return CommitOutcome::Conflict;
        }
        let lease_gone = txn.ops.iter().any(|op| match op {
            Op::Put { lease: Some(lease), .. } => !self.leases.contains_key(&lease.0),
            Op::Put { lease: None, .. } | Op::Delete(_) | Op::DeletePrefix(_) => false,
        });
        if lease_gone {
            return CommitOutcome::LeaseGone;
        }
        self.revision += 1;
        let mut written = Vec::new();
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    let revision = Revision(self.revision);
                    let create_revision = self.keys.get(key).map_or(revision, |old| old.create_revision);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision,
                        mod_revision: revision,
                        lease: *lease,
                    };
                    self.keys.insert(key.clone(), kv);
                    written.push(key.clone());
                }
                Op::Delete(key) => {
                    self.keys.remove(key);
                    written.push(key.clone());
                }
                Op::DeletePrefix(prefix) => self.keys.retain(|key, _| !key.starts_with(prefix.as_str())),
            }
        }
        self.log.insert(self.revision, written);
        CommitOutcome::Applied {
            revision: Revision(self.revision),
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::CreateRevision(key, want) => {
                self.keys.get(key).map_or(Revision(0), |kv| kv.create_revision) == *want
            }
            Compare::ModRevision(key, want) => self.keys.get(key).map_or(Revision(0), |kv| kv.mod_revision) == *want,
            Compare::Lease(key, want) => self.keys.get(key).is_some_and(|kv| kv.lease == Some(*want)),
            Compare::Value(key, want) => self.keys.get(key).is_some_and(|kv| kv.value == *want),
        }
    }

    /// Grants a lease.
    pub fn grant(&mut self, now: Time, ttl: Time) -> LeaseId {
        self.next_lease += 1;
        self.leases.insert(
            self.next_lease,
            Lease {
                ttl,
                expires: now + ttl,
            },
        );
        LeaseId(self.next_lease)
    }

    /// Renews a lease; false when it is gone.
    pub fn keep(&mut self, now: Time, lease: LeaseId) -> bool {
        match self.leases.get_mut(&lease.0) {
            Some(l) => {
                l.expires = now + l.ttl;
                true
            }
            None => false,
        }
    }

    /// When the next lease ends.
    pub fn next_expiry(&self) -> Option<Time> {
        self.leases.values().map(|l| l.expires).min()
    }

    /// Ends leases whose time is over, or one that is ended early (etcd issue 15247). Returns the deleted keys.
    pub fn expire(&mut self, now: Time, early: Option<LeaseId>) -> Vec<String> {
        let over: Vec<i64> = self
            .leases
            .iter()
            .filter(|(id, l)| l.expires <= now || early == Some(LeaseId(**id)))
            .map(|(id, _)| *id)
            .collect();
        let mut deleted = Vec::new();
        for id in over {
            self.leases.remove(&id);
            let keys: Vec<String> = self
                .keys
                .values()
                .filter(|kv| kv.lease == Some(LeaseId(id)))
                .map(|kv| kv.key.clone())
                .collect();
            if !keys.is_empty() {
                self.revision += 1;
            }
            for key in keys {
                self.keys.remove(&key);
                deleted.push(key);
            }
        }
        deleted
    }

    /// All keys and leases are lost. The revision goes on, since the oracles look writes up by it.
    pub fn empty(&mut self) {
        self.revision += 1;
        self.keys.clear();
        self.leases.clear();
    }

    /// Store revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }
}
