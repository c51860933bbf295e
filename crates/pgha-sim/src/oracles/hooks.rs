//! Where the oracles of data safety are told what happened.

use pgha_core::commit::Commit;
use pgha_core::settings::Settings;

use super::{l04_sync_restored, l05_commits_unblock, s04_no_acknowledged_commit_lost as s04, s05_sync_key as s05};
use super::{s06_eligibility, s07_bounded_loss, s13_slots, s15_clean_hand_over as s15, s18_sync_names};
use crate::postgres::{Point, Slot};
use crate::world::World;

impl World {
    /// After every event: did the leader key change hands, or `/sync`?
    pub(super) fn check_store(&mut self) {
        let revision = self.etcd.revision();
        if self.oracles.store_checked == revision {
            return;
        }
        self.oracles.store_checked = revision;
        s13_slots::note(self);
        s07_bounded_loss::note(self);
        if let Some(got) = self.see_store() {
            self.found(s06_eligibility::check(self, &got));
            self.found(s07_bounded_loss::check(self, &got));
            self.forgive_forced(&got);
            s15::note(self, &got);
        }
        self.found(s05::check(self));
    }

    fn found(&mut self, broken: Option<String>) {
        if let Some(text) = broken {
            self.violation(text);
        }
    }

    /// An operator forced a failover to somebody outside `/sync`: nothing is promised any more.
    fn forgive_forced(&mut self, got: &super::seen::Acquisition) {
        let forced = got.before.failover.as_ref().is_some_and(|wish| !wish.is_switchover());
        let name = self.nodes[got.node].name.clone();
        let member = got.before.sync.as_ref().is_some_and(|s| s.standbys.contains(&name));
        if forced && !member {
            for known in self.clients.ledger.branches.values_mut() {
                known.promised = 0;
            }
        }
    }

    /// Does synchronous replication promise to keep what `i` acknowledges now?
    pub(crate) fn is_promised(&self, i: usize) -> bool {
        let cluster = &self.oracles.seen.cluster;
        let settings: Settings = match &cluster.config {
            Some(config) if config.settings.is_synchronous() => config.settings.clone(),
            Some(_) | None => return false,
        };
        let named = cluster
            .sync
            .as_ref()
            .is_some_and(|s| s.leader.as_ref() == Some(&self.nodes[i].name) && !s.standbys.is_empty());
        named || settings.synchronous_mode_strict
    }

    /// A client was told that its commit is done.
    pub(crate) fn check_acknowledged(&mut self, i: usize, at: Point, promised: bool) {
        if promised {
            self.found(s04::check_commit(self, i, at));
        }
        self.found(s05::check_commit(self, i, at));
    }

    /// A node begins to accept writes.
    pub(crate) fn became_primary(&mut self, i: usize) {
        self.found(s04::check_primary(self, i));
        let broken = s15::check_primary(self, i);
        self.found(broken);
        let history = self.nodes[i].pg.data().map(|d| d.history.clone());
        let newest = self.oracles.newest.as_ref().map_or(0, |h| h.current().id);
        if let Some(history) = history.filter(|h| h.current().id > newest) {
            self.oracles.newest = Some(history);
        }
    }

    /// A daemon writes to etcd.
    pub(crate) fn note_commit(&mut self, i: usize, commit: &Commit) {
        s15::note_commit(self, i, commit);
    }

    /// A slot was lost.
    pub(crate) fn note_lost_slot(&mut self) {
        self.oracles.slots_changed = self.now;
    }

    /// A slot was dropped.
    pub(crate) fn check_dropped_slot(&mut self, i: usize, name: &str, slot: Slot) {
        self.oracles.slots_changed = self.now;
        self.found(s13_slots::check_drop(self, i, name, slot));
    }

    /// A person has set synchronous_standby_names.
    pub(crate) fn note_hand(&mut self, i: usize) {
        self.oracles.by_hand.insert(i);
    }

    /// Does any process still go by what a person set?
    pub(crate) fn goes_by_hand(&mut self, i: usize) -> bool {
        if self.nodes[i].pg.sync.altered.is_none() && self.nodes[i].pg.has_reloaded() {
            self.oracles.by_hand.remove(&i);
        }
        self.oracles.by_hand.contains(&i)
    }

    /// synchronous_standby_names is written.
    pub(crate) fn check_sync_names(&mut self, i: usize, text: &str) {
        self.found(s18_sync_names::check(self, i, text));
    }

    /// After calm.
    pub(super) fn check_data_progress(&mut self) {
        self.found(s13_slots::check_progress(self));
        self.found(s05::check_progress(self));
        self.found(l04_sync_restored::check(self));
        self.found(l05_commits_unblock::check(self));
    }
}
