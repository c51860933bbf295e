//! What is on disk: WAL with its positions, pg_control, replication slots, and which WAL is still kept.

use std::collections::BTreeMap;

use pgha_core::pg::{ControlData, ControlState, UnfinishedWork};
use pgha_core::units::{Lsn, SystemId, Timeline};

use super::history::{Branch, History, Point};

/// Size of a checkpoint record, or of the record that ends a recovery.
pub const RECORD: u64 = 8;
/// WAL that is kept without any slot.
pub const WAL_KEEP: u64 = 2 << 20;
/// `max_slot_wal_keep_size`: a slot that holds back more is lost.
pub const MAX_SLOT_KEEP: u64 = 8 << 20;

/// What is in the data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dir {
    /// Nothing.
    Empty,
    /// Work that must not be started.
    Unfinished(UnfinishedWork),
    /// A cluster.
    Data(Data),
}

/// A cluster on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Data {
    /// System identifier.
    pub system_id: u64,
    /// WAL history.
    pub history: History,
    /// A primary: inserted. A standby: received and handed to the operating system.
    pub written: u64,
    /// On disk: no crash takes it away.
    pub flushed: u64,
    /// A standby: replayed.
    pub replayed: u64,
    /// A standby must replay to here before it is consistent.
    pub min_recovery: u64,
    /// WAL from here on is still there.
    pub oldest: u64,
    /// standby.signal is there.
    pub signal: bool,
    /// pg_control's state.
    pub state: ControlState,
    /// Where the last checkpoint record begins.
    pub checkpoint: u64,
    /// Its timeline.
    pub checkpoint_timeline: u32,
    /// Replication slots by name.
    pub slots: BTreeMap<String, Slot>,
    /// The first segment that is not archived yet, when this is a primary with an archive.
    pub to_archive: u64,
    /// The history file of its timeline is not archived yet.
    pub history_to_archive: bool,
    /// The file in which a daemon keeps what it knows of the cluster.
    pub kept: Option<String>,
}

/// A physical replication slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    /// WAL from here on is kept for it.
    pub restart: u64,
    /// Too much would have had to be kept.
    pub lost: bool,
}

impl Data {
    /// What initdb makes, shut down.
    pub fn initial(system_id: u64, first: Branch) -> Data {
        let end = 1000;
        Data {
            system_id,
            history: History::new(first),
            written: end,
            flushed: end,
            replayed: end,
            min_recovery: 0,
            oldest: 0,
            signal: false,
            state: ControlState::ShutDown,
            checkpoint: end - RECORD,
            checkpoint_timeline: first.timeline,
            slots: BTreeMap::new(),
            to_archive: 0,
            history_to_archive: false,
            kept: None,
        }
    }

    /// A copy as pg_basebackup or pg_rewind leaves it: no slots, to be started as a standby.
    pub fn copy(&self) -> Data {
        Data {
            written: self.flushed,
            replayed: self.checkpoint.min(self.flushed),
            min_recovery: self.flushed,
            signal: true,
            state: ControlState::InArchiveRecovery,
            slots: BTreeMap::new(),
            history_to_archive: false,
            ..self.clone()
        }
    }

    /// Current timeline number.
    pub fn timeline(&self) -> u32 {
        self.history.current().timeline
    }

    /// The end of WAL.
    pub fn end(&self) -> Point {
        Point {
            branch: self.history.current().id,
            lsn: self.written,
        }
    }

    /// Is `other`'s end of WAL a point on this history?
    pub fn contains(&self, other: &Data) -> bool {
        self.history.contains(self.written, other.end())
    }

    /// Position in elections: what is flushed, or replayed.
    pub fn position(&self) -> u64 {
        self.flushed.max(self.replayed)
    }

    /// The power goes off: what was not flushed is gone.
    pub fn lose_unflushed(&mut self) {
        self.written = self.flushed;
        self.replayed = self.replayed.min(self.flushed);
        self.history = self.history.up_to(self.flushed);
    }

    /// Appends a record and flushes it.
    pub fn append_record(&mut self) {
        self.written += RECORD;
        self.flushed = self.written;
        self.replayed = self.written;
    }

    /// A checkpoint (or restartpoint) has ended: WAL that nobody needs is removed, up to `removable`. Returns how many slots
    /// were lost.
    pub fn checkpoint_done(&mut self, at: u64, removable: u64) -> usize {
        self.checkpoint = at;
        self.checkpoint_timeline = self.history.timeline_at(at.max(1));
        if self.signal {
            self.min_recovery = self.min_recovery.max(self.replayed);
        }
        let mut lost = 0;
        let end = self.flushed;
        for slot in self.slots.values_mut() {
            if !slot.lost && slot.restart + MAX_SLOT_KEEP < end {
                slot.lost = true;
                lost += 1;
            }
        }
        let held = self.slots.values().filter(|s| !s.lost).map(|s| s.restart).min();
        let unneeded = end
            .saturating_sub(WAL_KEEP)
            .min(at)
            .min(held.unwrap_or(end))
            .min(removable);
        self.oldest = self.oldest.max(unneeded);
        lost
    }

    /// What `pg_control` and the files beside it say.
    pub fn control(&self) -> ControlData {
        let recovering = self.min_recovery > 0;
        ControlData {
            system_id: SystemId(self.system_id),
            state: self.state,
            checkpoint_timeline: Timeline(self.checkpoint_timeline),
            checkpoint: Lsn(self.checkpoint),
            redo: Lsn(self.checkpoint),
            min_recovery: Lsn(self.min_recovery),
            min_recovery_timeline: recovering.then(|| Timeline(self.history.timeline_at(self.min_recovery))),
            data_checksums: true,
            wal_log_hints: true,
            recovery_signal: self.signal,
            major_version: 18,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Branch, Data, MAX_SLOT_KEEP, Slot, WAL_KEEP};

    fn data() -> Data {
        let first = Branch {
            id: 1,
            timeline: 1,
            start: 0,
        };
        Data::initial(7, first)
    }

    fn grown(by: u64) -> Data {
        let mut data = data();
        data.written += by;
        data.flushed = data.written;
        data
    }

    #[test]
    fn a_checkpoint_removes_wal_that_neither_the_limit_nor_a_slot_holds_back() {
        let mut data = grown(WAL_KEEP + 500);
        let end = data.flushed;
        assert_eq!(data.checkpoint_done(end, 300), 0);
        assert_eq!(data.oldest, 300, "the rest is not archived yet");
        assert_eq!(data.checkpoint_done(end, u64::MAX), 0);
        assert_eq!(data.oldest, end - WAL_KEEP);

        let mut data = grown(WAL_KEEP + 500);
        let slot = Slot {
            restart: 700,
            lost: false,
        };
        data.slots.insert("n2".into(), slot);
        assert_eq!(data.checkpoint_done(end, u64::MAX), 0);
        assert_eq!(data.oldest, 700);
    }

    #[test]
    fn a_slot_that_would_hold_back_too_much_is_lost() {
        let mut data = grown(MAX_SLOT_KEEP + 500);
        let end = data.flushed;
        data.slots.insert("n2".into(), Slot::default());
        assert_eq!(data.checkpoint_done(end, u64::MAX), 1);
        assert!(data.slots["n2"].lost);
        assert_eq!(data.oldest, end - WAL_KEEP);
    }
}
