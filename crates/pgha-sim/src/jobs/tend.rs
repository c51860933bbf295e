//! Small upkeep inside the running server.

use std::sync::Arc;

use pgha_core::effect::Tend;
use pgha_core::event::{Event, OpId};
use pgha_core::sync::names::NOBODY;
use pgha_core::sync::{self, SyncOutcome, SyncTask};

use crate::postgres::{Server, Slot, SyncRules};
use crate::world::{MS, World};

impl World {
    pub(crate) fn tend(&mut self, i: usize, epoch: u64, op: OpId, items: &[Tend]) {
        let mut takes = 20 * MS;
        for item in items {
            match item {
                Tend::CreateSlot(name) => self.create_slot(i, name),
                Tend::DropSlot(name) => self.drop_slot(i, name),
                Tend::AdvanceSlot(name, to) => self.advance_slot(i, name, to.0),
                Tend::Checkpoint => takes += self.begin_checkpoint(i, true),
                Tend::ApplyConfiguration => self.apply_configuration(i),
            }
        }
        self.later(i, epoch, takes, Event::Tended { op });
    }

    /// Commits wait for what the agent wants, or are seen to.
    pub(crate) fn tend_sync(&mut self, i: usize, epoch: u64, op: OpId, task: &SyncTask) {
        let outcome = match task {
            _ if !self.answers_sql(i) => SyncOutcome::Failed,
            SyncTask::SetNames(_) if self.nodes[i].pg.trouble.disk_full > 0 => SyncOutcome::Failed,
            SyncTask::SetNames(text) => self.bring_sync_names(i, text),
            SyncTask::Probe => {
                let loaded = &self.nodes[i].pg.sync;
                if !loaded.defined {
                    SyncOutcome::Acknowledged
                } else if sync::blocks(&loaded.loaded.text) {
                    SyncOutcome::Done
                } else {
                    SyncOutcome::Failed
                }
            }
        };
        self.note(|| format!("n{} {task:?}: {outcome:?}", i + 1));
        self.later(i, epoch, 20 * MS, Event::SyncTended { op, outcome });
    }

    /// The file first, and what a person put above it goes.
    fn bring_sync_names(&mut self, i: usize, text: &str) -> SyncOutcome {
        if self.set_sync_names(i, text).is_none() {
            return SyncOutcome::Failed;
        }
        if self.nodes[i].pg.sync.loaded.text != text {
            self.count("synchronous_standby_names of a person taken back");
            self.alter_sync_names(i, None);
        }
        SyncOutcome::Done
    }

    /// The files for a server that is about to start, or to follow somebody: in a synchronous mode it waits for a name that
    /// nobody has, without one for what the user's file says, which is nobody.
    pub(super) fn write_start_configuration(&mut self, i: usize) {
        let Some(agent) = &self.nodes[i].agent else { return };
        let synchronous = agent.view().settings().is_synchronous();
        let text = if synchronous { NOBODY } else { "" };
        if let Some(rules) = SyncRules::parse(text) {
            self.nodes[i].pg.sync.on_disk = Arc::new(rules);
        }
    }

    /// A new `/config`: what a synchronous primary waits for is left to core.
    fn apply_configuration(&mut self, i: usize) {
        let pg = &self.nodes[i].pg;
        let synchronous = self.nodes[i]
            .agent
            .as_ref()
            .is_some_and(|a| a.view().settings().is_synchronous());
        if !self.answers_sql(i) || pg.trouble.disk_full > 0 || synchronous && pg.server == Server::Primary {
            return;
        }
        self.write_start_configuration(i);
        self.reload_if_changed(i);
    }

    fn answers_sql(&self, i: usize) -> bool {
        let pg = &self.nodes[i].pg;
        matches!(pg.server, Server::Primary | Server::Standby(_)) && !pg.mute
    }

    /// A slot that reserves WAL at once: from the redo position of the last checkpoint on.
    fn create_slot(&mut self, i: usize, name: &str) {
        if !self.answers_sql(i) {
            return;
        }
        if let Some(d) = self.nodes[i].pg.data_mut() {
            let restart = d.checkpoint.max(d.oldest);
            d.slots.entry(name.to_owned()).or_insert(Slot { restart, lost: false });
        }
    }

    fn is_active(&self, i: usize, name: &str) -> bool {
        let senders = &self.nodes[i].pg.senders;
        senders.iter().any(|s| s.slot.as_deref() == Some(name))
    }

    fn drop_slot(&mut self, i: usize, name: &str) {
        if !self.answers_sql(i) || self.is_active(i, name) {
            return;
        }
        let Some(slot) = self.nodes[i].pg.data_mut().and_then(|d| d.slots.remove(name)) else {
            return;
        };
        self.note(|| format!("n{} drops the slot {name}: {slot:?}", i + 1));
        self.check_dropped_slot(i, name, slot);
    }

    /// PostgreSQL refuses to move a slot back, or beyond what is flushed or replayed.
    fn advance_slot(&mut self, i: usize, name: &str, to: u64) {
        if !self.answers_sql(i) || self.is_active(i, name) {
            return;
        }
        let Some(d) = self.nodes[i].pg.data_mut() else { return };
        let limit = if d.signal { d.replayed } else { d.flushed };
        let Some(slot) = d.slots.get_mut(name).filter(|s| !s.lost && s.restart < to) else {
            return;
        };
        slot.restart = to.min(limit);
    }
}
