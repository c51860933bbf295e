//! The WAL archive that all nodes share: whole segments and history files by their names. The archiver of a primary pushes
//! (archive_command), standbys fetch (restore_command).
//!
//! Names are all that an archive knows. Two nodes that create the same timeline number have the same names for other WAL;
//! a name that is taken is not written again, as every archive_command should have it.

use std::collections::BTreeMap;

use super::{Data, History, PgEvent, Server};
use crate::etcd::Time;
use crate::world::{MS, SEC, World};

/// `wal_segment_size`.
pub const SEGMENT: u64 = 128 << 10;
/// How soon a failed archive_command is tried again.
const ARCHIVE_RETRY: Time = 10 * SEC;
/// For so long an archiver that is told to end tries to archive the rest.
pub(super) const LAST_TRIES: Time = 3 * SEC;

/// What is in the archive, and what faults do to it.
#[derive(Clone, Default, Debug)]
pub struct Archive {
    /// By number and timeline: the history that the segment goes on with.
    segments: BTreeMap<(u64, u32), History>,
    /// History files by timeline: the branch that the timeline is.
    histories: BTreeMap<u32, u64>,
    /// It cannot be reached.
    pub away: u32,
    /// Everything takes so many times longer.
    pub slow: Option<u64>,
}

/// What an archiver pushes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArchiveFile {
    /// The history file of the current timeline.
    History,
    /// The segment of this number.
    Segment(u64),
}

impl Archive {
    /// Is it there, and can it be reached?
    fn answers(&self) -> bool {
        self.away == 0
    }

    /// Takes a file in; `false` when its name is taken by another one.
    fn push(&mut self, data: &Data, file: ArchiveFile) -> bool {
        match file {
            ArchiveFile::History => {
                let branch = data.history.current();
                *self.histories.entry(branch.timeline).or_insert(branch.id) == branch.id
            }
            ArchiveFile::Segment(number) => {
                let history = data.history.up_to((number + 1) * SEGMENT);
                let id = history.current().id;
                let name = (number, history.current().timeline);
                self.segments.entry(name).or_insert(history).current().id == id
            }
        }
    }

    /// The segment that brings this standby further, on the newest timeline that it can reach: the history behind it, and
    /// where it ends.
    pub fn next_for(&self, mine: &Data) -> Option<(History, u64)> {
        let number = mine.written / SEGMENT;
        let end = (number + 1) * SEGMENT;
        let candidates = self.segments.range((number, 0)..=(number, u32::MAX)).rev();
        let leads_on = |timeline: u32, history: &History| {
            let known = self.histories.get(&timeline) == Some(&history.current().id);
            (known || timeline == mine.timeline()) && history.contains(end, mine.end())
        };
        candidates
            .filter(|((_, timeline), history)| leads_on(*timeline, history))
            .map(|(_, history)| (history.clone(), end))
            .next()
    }

    /// Has it all segments of this history from one position up to another?
    pub fn covers(&self, history: &History, from: u64, to: u64) -> bool {
        self.answers()
            && (from / SEGMENT..to.div_ceil(SEGMENT)).all(|number| {
                let part = history.up_to((number + 1) * SEGMENT);
                let stored = self.segments.get(&(number, part.current().timeline));
                stored.is_some_and(|h| h.current().id == part.current().id)
            })
    }

    /// The number that a promotion takes: behind all that have a history file, since PostgreSQL looks for those first.
    fn next_timeline(&self, after: u32) -> u32 {
        (after + 1..)
            .find(|timeline| !self.answers() || !self.histories.contains_key(timeline))
            .unwrap_or(after + 1)
    }

    /// The newest segments are lost. Returns how many there were to be lost.
    pub fn lose_newest(&mut self, number: usize) -> usize {
        let lost = number.min(self.segments.len());
        for _ in 0..lost {
            self.segments.pop_last();
        }
        lost
    }
}

impl Data {
    /// What an archiver of this server pushes next.
    fn next_to_archive(&self) -> Option<ArchiveFile> {
        if self.history_to_archive {
            return Some(ArchiveFile::History);
        }
        let complete = (self.to_archive + 1) * SEGMENT <= self.flushed;
        complete.then_some(ArchiveFile::Segment(self.to_archive))
    }

    /// Nothing that is not archived may be removed.
    pub(super) fn archived_to(&self) -> u64 {
        self.to_archive * SEGMENT
    }
}

impl World {
    fn archive_takes(&mut self, low: Time, high: Time) -> Time {
        self.archive_draws.range(low, high) * self.archive.slow.unwrap_or(1)
    }

    // ---- archive_command ----

    /// The archiver begins with what is next, unless it is at work.
    pub(super) fn archiver_looks(&mut self, i: usize) {
        let pg = &self.nodes[i].pg;
        let runs = matches!(pg.server, Server::Primary | Server::Stopping { primary: true, .. });
        let next = pg.data().and_then(Data::next_to_archive);
        if !pg.archives || !runs || pg.archiver_at_work || next.is_none() {
            return;
        }
        self.nodes[i].pg.archiver_at_work = true;
        let takes = self.archive_takes(5 * MS, 300 * MS);
        self.server_does(i, takes, PgEvent::ArchiveCommandEnds);
    }

    pub(super) fn archive_command_ends(&mut self, i: usize) {
        self.nodes[i].pg.archiver_at_work = false;
        let Some(data) = self.nodes[i].pg.data() else { return };
        let Some(file) = data.next_to_archive() else { return };
        let answers = self.archive.answers();
        let taken_in = answers && self.archive.push(data, file);
        if !taken_in {
            self.count(if answers {
                "archive refused a file of another promotion"
            } else {
                "archive_command failed"
            });
            self.nodes[i].pg.archiver_at_work = true;
            return self.server_does(i, ARCHIVE_RETRY, PgEvent::ArchiveCommandEnds);
        }
        self.count(match file {
            ArchiveFile::History => "history file archived",
            ArchiveFile::Segment(_) => "segment archived",
        });
        if let Some(data) = self.nodes[i].pg.data_mut() {
            match file {
                ArchiveFile::History => data.history_to_archive = false,
                ArchiveFile::Segment(number) => data.to_archive = number + 1,
            }
        }
        self.archiver_looks(i);
    }

    /// Does a shutdown wait for the archiver? It ends when all complete segments are archived, or when it cannot.
    pub(super) fn archiver_has_more(&self, i: usize) -> bool {
        let pg = &self.nodes[i].pg;
        let more = pg.data().and_then(Data::next_to_archive).is_some();
        pg.archives && more && self.archive.answers()
    }

    /// The number of a new timeline.
    pub(super) fn new_timeline(&self, i: usize) -> u32 {
        let pg = &self.nodes[i].pg;
        let now = pg.data().map_or(0, Data::timeline);
        if pg.archives {
            self.archive.next_timeline(now)
        } else {
            now + 1
        }
    }

    // ---- restore_command ----

    fn restorable(&self, i: usize) -> Option<(History, u64)> {
        let pg = &self.nodes[i].pg;
        let may = pg.archives && pg.trouble.disk_full == 0 && self.archive.answers();
        pg.data().filter(|_| may).and_then(|data| self.archive.next_for(data))
    }

    /// A standby without a stream looks into the archive first, and connects to its upstream when nothing is there.
    pub(super) fn wants_wal(&mut self, i: usize) {
        let pg = &self.nodes[i].pg;
        let idle = pg.receiver().is_some_and(|r| r.connection.is_none()) && !pg.promoting;
        if !idle || pg.restoring {
            return;
        }
        if self.restorable(i).is_none() {
            return self.connect(i);
        }
        self.nodes[i].pg.restoring = true;
        let takes = self.archive_takes(10 * MS, 300 * MS);
        self.server_does(i, takes, PgEvent::RestoreCommandEnds);
    }

    pub(super) fn restore_command_ends(&mut self, i: usize) {
        let pg = &mut self.nodes[i].pg;
        pg.restoring = false;
        let idle = pg.receiver().is_some_and(|r| r.connection.is_none()) && !pg.promoting;
        if idle && let Some((history, end)) = self.restorable(i) {
            self.count("standby restored from the archive");
            self.nodes[i].pg.take_in(Some(history), end);
            self.wal_received(i, end);
        }
        self.wants_wal(i);
    }

    /// Before it leaves recovery a server replays all that the archive has for it.
    pub(super) fn restore_the_rest(&mut self, i: usize) {
        while let Some((history, end)) = self.restorable(i) {
            self.count("promotion restored from the archive");
            let pg = &mut self.nodes[i].pg;
            pg.take_in(Some(history), end);
            if let Some(data) = pg.data_mut() {
                data.flushed = end;
                data.replayed = end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Branch;
    use super::{Archive, ArchiveFile, Data, SEGMENT};

    fn branch(id: u64, timeline: u32, start: u64) -> Branch {
        Branch { id, timeline, start }
    }

    fn data(end: u64) -> Data {
        let mut data = Data::initial(7, branch(1, 1, 0));
        (data.written, data.flushed, data.replayed) = (end, end, end);
        data
    }

    #[test]
    fn a_standby_gets_the_segment_it_is_in_and_the_newest_timeline_it_can_reach() {
        let mut archive = Archive::default();
        let standby = data(SEGMENT + 10);
        let mut primary = data(2 * SEGMENT);
        assert!(archive.push(&primary, ArchiveFile::Segment(0)));
        assert_eq!(archive.next_for(&standby), None);
        assert!(archive.push(&primary, ArchiveFile::Segment(1)));
        let (history, end) = archive.next_for(&standby).unwrap();
        assert_eq!((history.current().timeline, end), (1, 2 * SEGMENT));

        // A promotion at a position that the standby has not reached: its segment counts once its history is known.
        primary.history = primary.history.up_to(SEGMENT + 50);
        primary.history.fork(branch(2, 2, SEGMENT + 50));
        assert!(archive.push(&primary, ArchiveFile::Segment(1)));
        assert_eq!(archive.next_for(&standby).unwrap().0.current().timeline, 1);
        assert!(archive.push(&primary, ArchiveFile::History));
        assert_eq!(archive.next_for(&standby).unwrap().0.current().timeline, 2);
        // Whoever is beyond the fork goes on where it is.
        assert_eq!(archive.next_for(&data(SEGMENT + 60)).unwrap().0.current().timeline, 1);
        assert!(archive.covers(&primary.history, 0, 2 * SEGMENT));
        assert!(!archive.covers(&primary.history, 0, 2 * SEGMENT + 1));
    }

    #[test]
    fn a_name_that_is_taken_is_refused_to_another_promotion_and_skipped_by_the_next_one() {
        let mut archive = Archive::default();
        let mut one = data(SEGMENT + 10);
        let mut other = one.clone();
        one.history.fork(branch(2, 2, SEGMENT + 10));
        other.history.fork(branch(3, 2, SEGMENT + 10));
        assert_eq!(archive.next_timeline(1), 2);
        assert!(archive.push(&one, ArchiveFile::History) && archive.push(&one, ArchiveFile::Segment(1)));
        assert!(archive.push(&one, ArchiveFile::History), "the same file again");
        assert!(!archive.push(&other, ArchiveFile::History) && !archive.push(&other, ArchiveFile::Segment(1)));
        assert_eq!(archive.next_timeline(1), 3);
        archive.away += 1;
        assert_eq!(archive.next_timeline(1), 2, "it cannot look");
    }
}
