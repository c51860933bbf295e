//! Jobs that make or replace a data directory: bootstrap, base backup, comparison of histories, crash recovery, rewind.

use pgha_core::event::OpId;
use pgha_core::job::{DivergenceFacts, JobFailure, JobOutcome, NextWal, Upstream};
use pgha_core::pg::{ControlState, UnfinishedWork};
use pgha_core::units::{Lsn, Timeline};

use crate::postgres::{Branch, Data, Dir, Server};
use crate::world::{MS, SEC, World};

impl World {
    pub(super) fn finish_bootstrap(&mut self, i: usize) {
        if self.nodes[i].pg.trouble.disk_full > 0 {
            return self.fail_job(i, JobFailure::Damaged, "initdb: no space left on device");
        }
        self.next_branch += 1;
        let branch = Branch {
            id: self.next_branch,
            timeline: 1,
            start: 0,
        };
        let system_id = 7_000_000_000_000_000_000 + self.next_branch;
        self.nodes[i].pg.dir = Dir::Data(Data::initial(system_id, branch));
        self.end_job(i, JobOutcome::Done);
    }

    /// The node of a source that runs and can be reached from `i`, and whether it accepts writes.
    fn source(&self, i: usize, source: &Upstream) -> Option<(usize, bool)> {
        let at = self.nodes.iter().position(|n| n.name == source.name)?;
        let from = &self.nodes[at];
        if !self.talk(i, at) || !self.wal_passes(at, i) || !self.wal_passes(i, at) || from.pg.mute {
            return None;
        }
        match from.pg.server {
            Server::Primary => Some((at, true)),
            Server::Standby(_) => Some((at, false)),
            Server::Down | Server::Starting | Server::Stopping { .. } => None,
        }
    }

    pub(super) fn finish_clone(&mut self, i: usize, source: &Upstream) {
        let copy = self
            .source(i, source)
            .and_then(|(at, _)| self.nodes[at].pg.data().map(Data::copy));
        let space = self.nodes[i].pg.trouble.disk_full == 0;
        match copy.filter(|_| space) {
            Some(copy) if !self.postgres.chance(30) => {
                self.nodes[i].pg.dir = Dir::Data(copy);
                self.copy_altered(i, source);
                self.end_job(i, JobOutcome::Done);
            }
            Some(_) | None => self.fail_job(i, JobFailure::SourceNotReady, "pg_basebackup failed"),
        }
    }

    /// postgresql.auto.conf comes with the copy.
    fn copy_altered(&mut self, i: usize, source: &Upstream) {
        let from = self.nodes.iter().find(|n| n.name == source.name);
        self.nodes[i].pg.sync.altered = from.and_then(|n| n.pg.sync.altered.clone());
    }

    // ---- histories ----

    pub(super) fn finish_check(&mut self, i: usize, source: &Upstream) {
        let there = self.source(i, source);
        let theirs = there.and_then(|(at, writable)| Some((self.nodes[at].pg.data()?, writable)));
        let (Some((theirs, writable)), Some(mine)) = (theirs, self.nodes[i].pg.data()) else {
            return self.fail_job(i, JobFailure::SourceNotReady, "the leader does not answer");
        };
        let running = self.nodes[i].pg.server != Server::Down;
        let control = mine.control();
        let recovering = matches!(
            control.state,
            ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery
        );
        // As the agent does it: IDENTIFY_SYSTEM while it runs, pg_control otherwise.
        let (local_timeline, local_lsn) = match (running, control.min_recovery_timeline) {
            (true, _) => (Timeline(mine.timeline()), Lsn(mine.position())),
            (false, Some(timeline)) if recovering => (timeline, control.min_recovery),
            (false, Some(_) | None) => (control.checkpoint_timeline, control.checkpoint),
        };
        let clean = !running && mine.state == ControlState::ShutDown;
        let facts = DivergenceFacts {
            local_timeline,
            local_lsn,
            was_primary: !running && !mine.signal && !recovering,
            shutdown_checkpoint_end: clean.then_some(Lsn(mine.written)),
            leader_timeline: Timeline(theirs.timeline()),
            leader_in_recovery: !writable,
            local_history: mine.history.ends_before(local_timeline),
            leader_history: theirs.history.ends(),
            same_promotion: same_promotion(mine, theirs),
            next_wal: match self.nodes[i].pg.receiver() {
                Some(_) if mine.replayed < mine.written => NextWal::NotKnown,
                Some(_) if mine.written < theirs.oldest => NextWal::Gone {
                    archive: self.nodes[i].pg.archives,
                },
                Some(_) => NextWal::Kept,
                None => NextWal::NotKnown,
            },
        };
        self.end_job(i, JobOutcome::Divergence(facts));
    }

    pub(super) fn finish_crash_recovery(&mut self, i: usize) {
        if self.nodes[i].pg.trouble.disk_full > 0 {
            return self.fail_job(i, JobFailure::Nothing, "postgres --single: no space left on device");
        }
        if let Some(data) = self.nodes[i].pg.data_mut() {
            data.state = ControlState::ShutDown;
            data.signal = false;
            data.min_recovery = 0;
            data.checkpoint = data.written;
            data.checkpoint_timeline = data.timeline();
            data.append_record();
        }
        self.end_job(i, JobOutcome::Done);
    }

    /// Steps: pg_rewind reads; from then on it writes, and the directory is unusable until it has ended well.
    pub(super) fn rewind(&mut self, i: usize, op: OpId, source: &Upstream, step: u8) {
        let there = self.source(i, source);
        let theirs = there.and_then(|(at, writable)| Some((self.nodes[at].pg.data()?, writable)));
        if step > 0 {
            let copy = theirs.filter(|(_, writable)| *writable).map(|(data, _)| data.copy());
            let breaks = std::mem::take(&mut self.nodes[i].pg.trouble.rewind_breaks) || self.postgres.chance(10);
            let space = self.nodes[i].pg.trouble.disk_full == 0;
            return match copy.filter(|_| space && !breaks) {
                Some(copy) => {
                    self.nodes[i].pg.dir = Dir::Data(copy);
                    self.copy_altered(i, source);
                    self.count("rewind");
                    self.end_job(i, JobOutcome::Done);
                }
                None => {
                    self.count("rewind broke off");
                    self.nodes[i].pg.dir = Dir::Unfinished(UnfinishedWork::Rewind);
                    self.fail_job(i, JobFailure::Damaged, "pg_rewind broke off");
                }
            };
        }
        let (Some((theirs, writable)), Some(mine)) = (theirs, self.nodes[i].pg.data()) else {
            return self.fail_job(i, JobFailure::SourceNotReady, "pg_rewind could not connect");
        };
        if !writable {
            return self.fail_job(i, JobFailure::SourceNotReady, "source server must not be in recovery");
        }
        if theirs.checkpoint_timeline != theirs.timeline() {
            self.count("rewind waits for the checkpoint after promotion");
            return self.fail_job(i, JobFailure::SourceNotReady, "waiting for checkpoint before rewind");
        }
        let fork = mine.history.common(mine.written, &theirs.history, theirs.flushed);
        let archives = self.nodes[i].pg.archives;
        let restored = archives && fork < mine.oldest && self.archive.covers(&mine.history, fork, mine.oldest);
        if fork < mine.oldest && !restored || fork < theirs.oldest {
            self.count("rewind finds WAL missing");
            return self.fail_job(i, JobFailure::Nothing, "a WAL segment is missing");
        }
        if restored {
            self.count("rewind restored WAL from the archive");
        }
        let writing = self.postgres.range(200 * MS, 3 * SEC);
        self.job_goes_on(i, op, 1, writing);
    }
}

/// Was the local timeline begun by the promotion that began the other server's timeline of that number? The first record
/// behind the switchpoint tells, where both keep it.
fn same_promotion(mine: &Data, theirs: &Data) -> Option<bool> {
    let branch = mine.history.current();
    let other = theirs.history.branches().find(|b| b.timeline == branch.timeline)?;
    let is_kept = mine.oldest <= branch.start && theirs.oldest <= branch.start;
    let is_begun = branch.timeline > 1 && mine.written > branch.start;
    (is_kept && is_begun && other.start == branch.start).then_some(other.id == branch.id)
}
