//! Reads single WAL record headers from `pg_wal`, to say where a cleanly stopped server's WAL ends.
//!
//! The header of a record and of a page have not changed from PostgreSQL 13 to 18. Only positions that `pg_control`
//! or a record header names are read. Absent on purpose: record bodies, scanning, and the record's checksum: the
//! position comes from a checked `pg_control`, and a wrong answer would only cost a needless pg_rewind.

use std::os::unix::fs::FileExt;
use std::path::Path;

use pgha_core::pg::ControlState;
use pgha_core::units::{Lsn, Timeline};

use crate::control::ControlFile;
use crate::error::Error;

/// Bytes in the header of a record.
pub(crate) const RECORD_HEADER: u64 = 24;
const PAGE_HEADER: u64 = 24;
/// The first page of a segment has a longer header.
const SEGMENT_HEADER: u64 = 40;
/// Records begin at multiples of this.
const ALIGNMENT: u64 = 8;
/// Resource manager of checkpoints and WAL switches.
const RM_XLOG: u8 = 0;
const INFO_CHECKPOINT_SHUTDOWN: u8 = 0x00;
const INFO_SWITCH: u8 = 0x40;
/// The upper half of the info byte belongs to the resource manager.
const INFO_MASK: u8 = 0xF0;

/// Header of a WAL record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalRecord {
    /// Where it begins.
    pub start: Lsn,
    /// Where the next record would begin.
    pub end: Lsn,
    /// Where the record before it begins.
    pub previous: Lsn,
    /// Resource manager.
    pub rmgr: u8,
    /// Info byte.
    pub info: u8,
}

impl WalRecord {
    /// Is it a shutdown checkpoint?
    pub fn is_shutdown_checkpoint(&self) -> bool {
        self.rmgr == RM_XLOG && self.info & INFO_MASK == INFO_CHECKPOINT_SHUTDOWN
    }
    /// Is it a WAL switch?
    pub fn is_switch(&self) -> bool {
        self.rmgr == RM_XLOG && self.info & INFO_MASK == INFO_SWITCH
    }
}

/// Where the WAL of a cleanly stopped primary ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShutdownCheckpoint {
    /// Timeline.
    pub timeline: Timeline,
    /// Where the checkpoint record begins.
    pub checkpoint: Lsn,
    /// Where it ends: a standby that was promoted having it all switches timelines exactly here. `None` when the record
    /// cannot be read from pg_wal.
    pub end: Option<Lsn>,
    /// Where the WAL switch just before it begins. With archiving on, the server switches WAL before the checkpoint, and
    /// a standby may never receive more than up to the switch.
    pub switch: Option<Lsn>,
}

impl ShutdownCheckpoint {
    /// The position that a standby must have to lose nothing.
    pub fn needed(&self) -> Lsn {
        self.switch.unwrap_or(self.checkpoint)
    }
}

/// The shutdown checkpoint of a cluster whose control file says `shut down`; `None` in any other state.
///
/// # Errors
/// [`Error::Io`] when WAL is there and cannot be read.
pub(crate) fn shutdown_checkpoint(data_dir: &Path, control: &ControlFile) -> Result<Option<ShutdownCheckpoint>, Error> {
    if control.data.state != ControlState::ShutDown {
        return Ok(None);
    }
    let (timeline, checkpoint) = (control.data.checkpoint_timeline, control.data.checkpoint);
    let record = read_record(data_dir, control, checkpoint)?.filter(WalRecord::is_shutdown_checkpoint);
    let before = match record {
        Some(record) => read_record(data_dir, control, record.previous)?,
        None => None,
    };
    Ok(Some(ShutdownCheckpoint {
        timeline,
        checkpoint,
        end: record.map(|r| r.end),
        switch: before.filter(WalRecord::is_switch).map(|r| r.start),
    }))
}

/// Reads the header of the record at `at` on the control file's timeline. `None` when its segment is not in pg_wal or
/// no record begins there.
fn read_record(data_dir: &Path, control: &ControlFile, at: Lsn) -> Result<Option<WalRecord>, Error> {
    let shape = Shape::of(control);
    if !shape.is_sane() || !at.0.is_multiple_of(ALIGNMENT) {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(RECORD_HEADER as usize);
    for (from, length) in shape.pieces(at.0, RECORD_HEADER) {
        let name = shape.file_name(control.data.checkpoint_timeline, from);
        let path = data_dir.join("pg_wal").join(name);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", &path)(e)),
        };
        let mut piece = vec![0; length as usize];
        file.read_exact_at(&mut piece, from % shape.segment)
            .map_err(Error::io("read", &path))?;
        bytes.extend(piece);
    }
    Ok(parse_header(&bytes, at, &shape))
}

fn parse_header(bytes: &[u8], start: Lsn, shape: &Shape) -> Option<WalRecord> {
    let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?);
    let previous = Lsn(u64::from_ne_bytes(bytes.get(8..16)?.try_into().ok()?));
    let (info, rmgr) = (*bytes.get(16)?, *bytes.get(17)?);
    if u64::from(length) < RECORD_HEADER || previous >= start {
        return None;
    }
    Some(WalRecord {
        start,
        end: Lsn(shape.end(start.0, u64::from(length))),
        previous,
        rmgr,
        info,
    })
}

/// Sizes of pages and segments.
pub(crate) struct Shape {
    pub(crate) page: u64,
    pub(crate) segment: u64,
}

impl Shape {
    pub(crate) fn is_sane(&self) -> bool {
        self.page.is_power_of_two()
            && self.segment.is_power_of_two()
            && self.page >= 1024
            && self.segment >= self.page
            && self.segment <= 1 << 30
    }

    /// The stretches of WAL that `length` bytes of a record occupy from `at` on; page headers lie between them.
    fn pieces(&self, mut at: u64, mut length: u64) -> Vec<(u64, u64)> {
        let mut pieces = Vec::new();
        while length > 0 {
            let here = length.min(self.page - at % self.page);
            pieces.push((at, here));
            length -= here;
            at += here;
            if length > 0 {
                at += self.page_header(at);
            }
        }
        pieces
    }

    /// Bytes of the page header that begins at `at`; zero within a page.
    pub(crate) fn page_header(&self, at: u64) -> u64 {
        if at.is_multiple_of(self.segment) {
            SEGMENT_HEADER
        } else if at.is_multiple_of(self.page) {
            PAGE_HEADER
        } else {
            0
        }
    }

    fn end(&self, at: u64, length: u64) -> u64 {
        let end = self.pieces(at, length).last().map_or(at, |(from, n)| from + n);
        end.next_multiple_of(ALIGNMENT)
    }

    pub(crate) fn file_name(&self, timeline: Timeline, at: u64) -> String {
        format!("{:08X}{}", timeline.0, self.segment_name(at))
    }

    /// The part of a file's name that is the same on every timeline.
    pub(crate) fn segment_name(&self, at: u64) -> String {
        let number = at / self.segment;
        let per_file_group = (1u64 << 32) / self.segment;
        format!("{:08X}{:08X}", number / per_file_group, number % per_file_group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        page: 8192,
        segment: 16 << 20,
    };

    #[test]
    fn the_end_of_a_record_accounts_for_page_headers_and_alignment() {
        assert_eq!(SHAPE.end(0x300_0028, 114), 0x300_00A0);
        assert_eq!(SHAPE.end(8192 - 64, 64), 8192, "it ends exactly with its page");
        assert_eq!(SHAPE.end(8192 - 64, 100), 8192 + 24 + 40);
        assert_eq!(SHAPE.end((16 << 20) - 8, 100), (16 << 20) + 40 + 96);
    }

    #[test]
    fn segments_are_named_as_postgresql_names_them() {
        assert_eq!(SHAPE.file_name(Timeline(2), 0x1_0500_0028), "000000020000000100000005");
    }

    #[test]
    fn nonsense_is_no_record() {
        assert_eq!(parse_header(&[0; 24], Lsn(0x1000), &SHAPE), None);
        assert_eq!(parse_header(&[0xFF; 24], Lsn(0x1000), &SHAPE), None);
        assert_eq!(parse_header(&[1; 3], Lsn(0x1000), &SHAPE), None);
    }
}
