//! synchronous_standby_names in the files of a server, and the reload that brings it to each process in its own time. A
//! checkpointer at work misses it.

use std::sync::Arc;

use super::{PgEvent, Process, Server, SyncRules};
use crate::etcd::Time;
use crate::world::{MS, SEC, World};

impl World {
    /// The agent's file is written and the postmaster told. `None` when PostgreSQL does not understand the text.
    pub fn set_sync_names(&mut self, i: usize, text: &str) -> Option<()> {
        self.check_sync_names(i, text);
        self.nodes[i].pg.sync.on_disk = Arc::new(SyncRules::parse(text)?);
        self.reload(i);
        Some(())
    }

    /// ALTER SYSTEM, whose file wins over the agent's, and a reload; `None`: the setting is taken out of that file.
    pub(crate) fn alter_sync_names(&mut self, i: usize, text: Option<&str>) {
        self.nodes[i].pg.sync.altered = text.and_then(SyncRules::parse).map(Arc::new);
        self.reload(i);
    }

    /// A reload that changes nothing is left out.
    pub(crate) fn reload_if_changed(&mut self, i: usize) {
        let sync = &self.nodes[i].pg.sync;
        if sync.in_files() != &sync.loaded {
            self.reload(i);
        }
    }

    /// Every process of a running server will read the files again.
    pub(crate) fn reload(&mut self, i: usize) {
        let pg = &mut self.nodes[i].pg;
        if matches!(pg.server, Server::Down | Server::Starting) {
            return;
        }
        pg.sync.loaded = Arc::clone(pg.sync.in_files());
        self.senders_reload(i);
        let after = self.reload_takes();
        self.server_does(i, after, PgEvent::Reload(Process::Checkpointer));
    }

    /// Wal senders read a new configuration: after a reload, and after they were stopped and missed it.
    pub(crate) fn senders_reload(&mut self, i: usize) {
        let pg = &self.nodes[i].pg;
        let old = pg.senders.iter().filter(|s| s.rules != pg.sync.loaded);
        let senders: Vec<u64> = old.map(|s| s.connection).collect();
        for connection in senders {
            let after = self.reload_takes();
            self.server_does(i, after, PgEvent::Reload(Process::WalSender(connection)));
        }
    }

    fn reload_takes(&mut self) -> Time {
        match self.postgres.range(0, 9) {
            0 => self.postgres.range(100 * MS, 2 * SEC),
            _ => self.postgres.range(MS, 20 * MS),
        }
    }

    pub(super) fn process_reloads(&mut self, i: usize, process: Process) {
        let pg = &mut self.nodes[i].pg;
        let rules = Arc::clone(&pg.sync.loaded);
        match process {
            Process::WalSender(connection) => {
                let frozen = pg.trouble.frozen_senders > 0;
                let sender = pg.senders.iter_mut().find(|s| s.connection == connection);
                if let Some(sender) = sender.filter(|_| !frozen) {
                    sender.priority = rules.priority(&sender.name);
                    sender.rules = rules;
                }
            }
            Process::Checkpointer => {
                if let Some(running) = pg.checkpoint.as_mut().filter(|c| c.immediate) {
                    running.reload_missed = true;
                    return self.count("reload missed by the checkpointer");
                }
                self.checkpointer_reloads(i);
            }
        }
    }

    pub(super) fn checkpointer_reloads(&mut self, i: usize) {
        let pg = &mut self.nodes[i].pg;
        let defined = pg.sync.loaded.is_defined();
        let switched_off = pg.sync.defined && !defined;
        pg.sync.defined = defined;
        if switched_off {
            self.let_go(i, u64::MAX);
        }
    }
}
