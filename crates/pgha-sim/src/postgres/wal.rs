//! WAL of a primary: commits are written, flushed, and acknowledged when the configuration that each process has loaded
//! says so. Checkpoints.

use std::sync::Arc;

use super::{PgEvent, RunningCheckpoint, Server, Stopping, WAL_KEEP};
use crate::etcd::Time;
use crate::world::{MS, SEC, World};

/// How often a server checkpoints by itself.
const CHECKPOINT_EVERY: Time = 30 * SEC;

impl World {
    /// A session writes its commit record and waits for the disk.
    pub(crate) fn commit_begins(&mut self, i: usize, size: u64) {
        if self.nodes[i].pg.trouble.disk_full > 0 {
            self.count("primary panicked for want of space");
            return self.server_dies(i);
        }
        let pg = &mut self.nodes[i].pg;
        let Some(d) = pg.data_mut() else { return };
        d.written += size;
        let at = d.written;
        pg.sessions.flushing.push_back(at);
        if !pg.flushing {
            pg.flushing = true;
            let takes = self.postgres.range(MS / 5, 3 * MS);
            self.server_does(i, takes, PgEvent::Flush);
        }
    }

    pub(super) fn wal_flushed(&mut self, i: usize) {
        let now = self.now;
        let pg = &mut self.nodes[i].pg;
        pg.flushing = false;
        let Some(d) = pg.data_mut() else { return };
        d.flushed = d.written;
        d.replayed = d.written;
        let flushed = d.flushed;
        let mut acknowledged = Vec::new();
        while pg.sessions.flushing.front().is_some_and(|at| *at <= flushed) {
            let Some(at) = pg.sessions.flushing.pop_front() else {
                break;
            };
            if pg.sync.defined && at > pg.sync.released {
                pg.sessions.waiting.push_back((at, now));
            } else {
                acknowledged.push(at);
            }
        }
        for at in acknowledged {
            self.acknowledge(i, at, now);
        }
        self.archiver_looks(i);
        self.feed_standbys(i);
    }

    /// A wal sender heard from its standby: does that release anybody?
    pub(super) fn release_waiting(&mut self, i: usize, sender: usize) {
        let pg = &mut self.nodes[i].pg;
        let Some(rules) = pg.senders.get(sender).map(|s| Arc::clone(&s.rules)) else {
            return;
        };
        let Some(upto) = rules.released(&pg.senders, sender) else {
            return;
        };
        pg.sync.released = pg.sync.released.max(upto);
        self.let_go(i, upto);
    }

    pub(super) fn let_go(&mut self, i: usize, upto: u64) {
        while let Some((at, since)) = self.nodes[i].pg.sessions.waiting.front().copied() {
            if at > upto {
                return;
            }
            self.nodes[i].pg.sessions.waiting.pop_front();
            self.acknowledge(i, at, since);
        }
    }

    // ---- checkpoints ----

    pub(super) fn checkpoint_due(&mut self, i: usize) {
        self.begin_checkpoint(i, false);
        self.server_does(i, CHECKPOINT_EVERY, PgEvent::CheckpointDue);
    }

    /// Begins a checkpoint, or joins the one that runs. Returns how long it takes.
    pub(crate) fn begin_checkpoint(&mut self, i: usize, immediate: bool) -> Time {
        let now = self.now;
        match self.nodes[i].pg.server {
            Server::Down | Server::Starting => return 0,
            // None follows the shutdown checkpoint.
            Server::Stopping {
                phase: Stopping::WalSenders | Stopping::Archiver,
                ..
            } => return 0,
            Server::Primary | Server::Standby(_) | Server::Stopping { .. } => {}
        }
        let slow = self.nodes[i].pg.trouble.checkpoint_takes.filter(|_| immediate);
        let takes = slow.unwrap_or_else(|| self.postgres.range(5 * MS, 300 * MS));
        let pg = &mut self.nodes[i].pg;
        if let Some(running) = &mut pg.checkpoint {
            // What was asked for begins when the running one has ended, and is as good as it.
            running.immediate |= immediate;
            return running.ends.saturating_sub(now);
        }
        let redo = match (&pg.server, pg.data()) {
            (Server::Primary, Some(d)) => d.written,
            (_, Some(d)) => d.replayed,
            (_, None) => return 0,
        };
        pg.checkpoint = Some(RunningCheckpoint {
            redo,
            immediate,
            ends: now + takes,
            reload_missed: false,
        });
        self.server_does(i, takes, PgEvent::CheckpointEnds);
        takes
    }

    pub(super) fn checkpoint_ends(&mut self, i: usize) {
        let pg = &mut self.nodes[i].pg;
        let Some(done) = pg.checkpoint.take() else { return };
        let primary = pg.server == Server::Primary;
        let archives = pg.archives && primary;
        let Some(d) = pg.data_mut() else { return };
        if primary {
            d.append_record();
        }
        let removable = if archives { d.archived_to() } else { u64::MAX };
        let kept_for_archiver = removable.saturating_add(WAL_KEEP) < d.flushed;
        let lost = d.checkpoint_done(done.redo, removable);
        if primary {
            d.checkpoint_timeline = d.timeline();
        }
        let is_lost = |name: &String| d.slots.get(name).is_some_and(|s| s.lost);
        let gone: Vec<String> = d.slots.keys().filter(|name| is_lost(name)).cloned().collect();
        if lost > 0 {
            // Whoever streams through such a slot is disconnected.
            let kept = |s: &super::Sender| s.slot.as_ref().is_none_or(|slot| !gone.contains(slot));
            pg.senders.retain(kept);
        }
        if primary {
            self.feed_standbys(i);
        }
        if kept_for_archiver {
            self.count("WAL kept for the archiver");
        }
        for _ in 0..lost {
            self.count("slot lost");
            self.note_lost_slot();
            self.note(|| format!("n{} gives a slot up", i + 1));
        }
        if done.reload_missed {
            self.checkpointer_reloads(i);
        }
    }
}
