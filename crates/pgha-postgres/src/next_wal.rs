//! What a standby and its leader keep of their WAL: is what comes next still there, and did one promotion begin the
//! timeline that both have a number for?
//!
//! The leader is asked as the rewind user and with nothing but the functions that pg_rewind itself needs, so that it takes
//! no grant more. See `docs/adr/0013-standbys-that-stand-still.md`.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use pgha_core::units::{Lsn, Timeline};

use crate::conninfo::ConnInfo;
use crate::control::ControlFile;
use crate::error::Error;
use crate::instance::Instance;
use crate::sql::{Purpose, Session};
use crate::wal::{RECORD_HEADER, Shape};

/// What the first record of a timeline and the page header before it take at most: 40 and 48 bytes.
const BEGINNING: u64 = 96;

/// Where startup waits when no WAL is left that it has itself (PostgreSQL 13 to 18).
const WAITS: [&str; 3] = ["RecoveryRetrieveRetryInterval", "RecoveryWalStream", "RestoreCommand"];

const APPETITE: &str = "
SELECT a.wait_event, pg_catalog.current_setting('restore_command') <> ''
FROM pg_catalog.pg_stat_activity a WHERE a.backend_type = 'startup'";

/// A standby that waits for WAL from elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitsForWal {
    /// It has a restore_command.
    pub archive: bool,
}

impl Instance {
    /// Has the local standby replayed all WAL that it has, and waits for more? `None` when it is busy with what it has, when
    /// replay is paused or delayed on purpose, and when it is no standby.
    ///
    /// # Errors
    /// The local server does not answer.
    pub async fn waits_for_wal(&self, limit: Duration) -> Result<Option<WaitsForWal>, Error> {
        let session = Session::open(self.spec(), Purpose::Action, limit).await?;
        let rows = session.rows("the wait of startup", APPETITE, limit).await?;
        let field = |column| rows.first().and_then(|row| row.try_get(column).ok().flatten());
        let waits = field(0).is_some_and(|event| WAITS.contains(&event));
        Ok(waits.then(|| WaitsForWal {
            archive: field(1) == Some("t"),
        }))
    }

    /// Has another server, a primary, the WAL that follows `at`? It has when there is none yet, since the file of the next
    /// segment may come with its first record; else when it has that segment on whatever timeline.
    ///
    /// # Errors
    /// As [`Instance::identify_system`]; also when it is in recovery, or the rewind user may not list pg_wal.
    pub async fn keeps_wal_from(&self, source: &ConnInfo, at: Lsn, limit: Duration) -> Result<bool, Error> {
        let shape = Shape::of(&self.control().await?);
        if !shape.is_sane() {
            return Err(Error::Malformed {
                place: "pg_control".into(),
                reason: "the sizes of WAL pages and segments".into(),
            });
        }
        let sql = format!(
            "SELECT pg_catalog.pg_current_wal_flush_lsn() <= '{at}' OR EXISTS \
             (SELECT FROM pg_catalog.pg_ls_dir('pg_wal', true, false) AS f(name) \
             WHERE pg_catalog.length(f.name) = 24 AND pg_catalog.right(f.name, 16) = '{}')",
            shape.segment_name(at.0)
        );
        let text = self.psql(source, self.spec().rewind_user(), &sql, limit).await?;
        match text.trim() {
            "t" => Ok(true),
            "f" => Ok(false),
            _ => Err(crate::remote::malformed("the question for a segment", &text)),
        }
    }

    /// Did the same promotion begin `timeline` here and at another server, at the same `switchpoint`? Its first record has
    /// the time of the promotion. `upto`: where local WAL ends. `None` when one of the two has not got that record.
    ///
    /// # Errors
    /// As [`Instance::identify_system`]; also when the rewind user may not read pg_wal; the local file is there and cannot be read.
    pub async fn is_same_promotion(
        &self,
        source: &ConnInfo,
        timeline: Timeline,
        switchpoint: Lsn,
        upto: Lsn,
        limit: Duration,
    ) -> Result<Option<bool>, Error> {
        let control = self.control().await?;
        let shape = Shape::of(&control);
        let Some(length) = shape.beginning(switchpoint, upto) else {
            return Ok(None);
        };
        let name = shape.file_name(timeline, switchpoint.0);
        let offset = switchpoint.0 % shape.segment;
        let here = {
            let name = name.clone();
            self.on_disk(move |spec| read_stretch(&spec.data_dir, &name, offset, length))
                .await?
        };
        let Some(here) = here else { return Ok(None) };
        let sql = format!(
            "SELECT pg_catalog.encode(pg_catalog.pg_read_binary_file('pg_wal/{name}', {offset}, {length}, true), 'hex')"
        );
        let there = self.psql(source, self.spec().rewind_user(), &sql, limit).await?;
        let hex: String = here.iter().map(|byte| format!("{byte:02x}")).collect();
        let there = there.trim();
        Ok((there.len() == hex.len()).then(|| there == hex))
    }
}

/// Reads from a file in pg_wal; `None` when it is not there.
fn read_stretch(data_dir: &Path, name: &str, offset: u64, length: u64) -> Result<Option<Vec<u8>>, Error> {
    let path = data_dir.join("pg_wal").join(name);
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", &path)(e)),
    };
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, offset)
        .map_err(Error::io("read", &path))?;
    Ok(Some(bytes))
}

impl Shape {
    pub(crate) fn of(control: &ControlFile) -> Shape {
        Shape {
            page: u64::from(control.wal_block_size),
            segment: u64::from(control.wal_segment_size),
        }
    }

    /// How many bytes from a switchpoint on are compared; `None` when local WAL, up to `upto`, does not reach over the
    /// header of the first record. That one has the checksum of the record in it.
    fn beginning(&self, switchpoint: Lsn, upto: Lsn) -> Option<u64> {
        if !self.is_sane() {
            return None;
        }
        let in_segment = self.segment - switchpoint.0 % self.segment;
        let length = upto.0.saturating_sub(switchpoint.0).min(in_segment).min(BEGINNING);
        let needed = self.page_header(switchpoint.0) + RECORD_HEADER;
        (length >= needed).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::{BEGINNING, Lsn, Shape};

    const SHAPE: Shape = Shape {
        page: 8192,
        segment: 16 << 20,
    };

    #[test]
    fn a_beginning_is_compared_when_its_checksum_is_in_it() {
        let at = |from: u64, length: u64| SHAPE.beginning(Lsn(from), Lsn(from + length));
        assert_eq!(at(0x300_0028, 0), None);
        assert_eq!(at(0x300_0028, 23), None);
        assert_eq!(at(0x300_0028, 48), Some(48));
        assert_eq!(at(0x300_0028, 5000), Some(BEGINNING));
        assert_eq!((at(0x300_2000, 47), at(0x300_2000, 48)), (None, Some(48)));
        assert_eq!((at(0x300_0000, 63), at(0x300_0000, 64)), (None, Some(64)));
        assert_eq!(at(0x3FF_FFF0, 5000), None, "the record goes on in another segment");
        assert_eq!(SHAPE.beginning(Lsn(0x300_0028), Lsn(0)), None);
    }
}
