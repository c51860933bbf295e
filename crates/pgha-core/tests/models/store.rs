//! etcd as the models see it: the keys of one scope, leases that end at a tick, and transactions that are still on their way.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgha_core::cluster::{ClusterView, ConfigKey, Initialize};
use pgha_core::commit::{Commit, CommitOutcome, Purpose};
use pgha_core::settings::Settings;
use pgha_core::units::{LeaseId, Revision};

use super::support::etcd::{apply, holds, lease_used};
use super::support::world::SYSTEM_ID;

/// Proofs that are remembered: with so few faults no node counts on an older one.
const PROOFS: usize = 8;

/// One linearizable store.
#[derive(Clone, Debug)]
pub struct Store {
    /// What a read returns.
    pub keys: Arc<ClusterView>,
    /// When each live lease ends, in ticks.
    leases: BTreeMap<LeaseId, u64>,
    next_lease: i64,
    /// Transactions whose sender has given up, and which may still be applied: by whom, and what.
    pub late: Vec<(usize, Commit)>,
    /// The last proofs that were written: store revision and who wrote it.
    pub proofs: Vec<(Revision, usize)>,
    /// The last acquisition of the leader key: store revision and by whom.
    pub taken: (Revision, usize),
}

impl Store {
    /// An initialized scope without a leader.
    pub fn new(settings: &Settings) -> Store {
        let keys = ClusterView {
            revision: Revision(100),
            initialize: Initialize::Done(SYSTEM_ID),
            config: Some(ConfigKey {
                mod_revision: Revision(1),
                text: "{}".into(),
                settings: settings.clone(),
            }),
            ..ClusterView::default()
        };
        Store {
            keys: Arc::new(keys),
            leases: BTreeMap::new(),
            next_lease: 1,
            late: Vec::new(),
            proofs: Vec::new(),
            taken: (Revision(0), usize::MAX),
        }
    }

    /// Grants a lease that ends at this tick.
    pub fn grant(&mut self, ends: u64) -> LeaseId {
        let lease = LeaseId(self.next_lease);
        self.next_lease += 1;
        self.leases.insert(lease, ends);
        lease
    }

    /// Renews a lease; `false` when it is gone.
    pub fn keep(&mut self, lease: LeaseId, ends: u64) -> bool {
        match self.leases.get_mut(&lease) {
            Some(at) => {
                *at = ends;
                true
            }
            None => false,
        }
    }

    /// Performs one transaction of a node.
    pub fn commit(&mut self, by: usize, commit: &Commit) -> CommitOutcome {
        if !commit.guards.iter().all(|g| holds(&self.keys, g)) {
            return CommitOutcome::Conflict;
        }
        if !commit
            .changes
            .iter()
            .filter_map(lease_used)
            .all(|l| self.leases.contains_key(&l))
        {
            return CommitOutcome::LeaseGone;
        }
        let keys = Arc::make_mut(&mut self.keys);
        keys.revision = Revision(keys.revision.0 + 1);
        let revision = keys.revision;
        let settings = keys.settings();
        for change in &commit.changes {
            apply(keys, &settings, change, revision);
        }
        match commit.purpose {
            Purpose::ProveLeadership => {
                self.proofs.push((revision, by));
                if self.proofs.len() > PROOFS {
                    self.proofs.remove(0);
                }
            }
            Purpose::AcquireLeaderKey if keys.leader.as_ref().is_some_and(|l| l.create_revision == revision) => {
                self.taken = (revision, by);
            }
            _ => {}
        }
        CommitOutcome::Applied { revision }
    }

    /// Somebody who is no node changes the keys.
    pub fn change(&mut self, change: impl FnOnce(&mut ClusterView, Revision)) {
        let keys = Arc::make_mut(&mut self.keys);
        keys.revision = Revision(keys.revision.0 + 1);
        let revision = keys.revision;
        change(keys, revision);
    }

    /// Ends the leases whose time is over.
    pub fn expire(&mut self, now: u64) {
        let over: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(l, _)| *l)
            .collect();
        over.into_iter().for_each(|lease| self.revoke(lease));
    }

    /// Ends a lease: its keys vanish.
    pub fn revoke(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        self.change(|keys, _| {
            keys.leader = keys.leader.take().filter(|l| l.lease != Some(lease));
            keys.members.retain(|_, m| m.lease != Some(lease));
        });
    }

    /// Moves the beginning of time: leases end so many ticks earlier.
    pub fn shift(&mut self, ticks: u64) {
        self.leases.values_mut().for_each(|at| *at = at.saturating_sub(ticks));
    }

    /// Is this lease alive?
    pub fn is_alive(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }
}
