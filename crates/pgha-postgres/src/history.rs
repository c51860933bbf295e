//! Timeline history files: `00000002.history` and their lines.

use std::path::{Path, PathBuf};

use pgha_core::units::{Lsn, Timeline};

use crate::error::Error;
use crate::files::read_optional;

/// One line: where `timeline` was left for the next one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryEntry {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where it ended: the first position of the following timeline.
    pub switchpoint: Lsn,
    /// PostgreSQL's reason.
    pub reason: String,
}

/// A history file of the local cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryFile {
    /// The timeline that the file belongs to.
    pub timeline: Timeline,
    /// Its lines, oldest first.
    pub entries: Vec<HistoryEntry>,
    /// When it was written: seconds since 1970, nanoseconds.
    pub modified: (i64, u32),
}

/// Parses the text of a history file. Comments and empty lines are skipped, as PostgreSQL does.
///
/// # Errors
/// [`Error::Malformed`] with the line: no timeline, no position, or timelines that do not grow.
pub fn parse_history(text: &str) -> Result<Vec<HistoryEntry>, Error> {
    let mut entries: Vec<HistoryEntry> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(i, l)| (i + 1, l.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |reason: &str| Error::Malformed {
            place: format!("timeline history, line {number}"),
            reason: reason.to_string(),
        };
        let mut parts = line.splitn(3, |c: char| c.is_whitespace());
        let timeline: u32 = parts
            .next()
            .and_then(|p| p.parse().ok())
            .filter(|t| *t > 0)
            .ok_or_else(|| bad("expected a timeline number"))?;
        let switchpoint = parts
            .next()
            .and_then(Lsn::parse)
            .ok_or_else(|| bad("expected a position such as 0/3000000"))?;
        if entries.last().is_some_and(|e| e.timeline.0 >= timeline) {
            return Err(bad("timelines must grow from line to line"));
        }
        let reason = parts.next().unwrap_or("").trim().to_string();
        entries.push(HistoryEntry {
            timeline: Timeline(timeline),
            switchpoint,
            reason,
        });
    }
    Ok(entries)
}

/// Reads the history file of a timeline from the local `pg_wal`; `None` when there is none (timeline 1 has none).
pub(crate) fn read_history(data_dir: &Path, timeline: Timeline) -> Result<Option<HistoryFile>, Error> {
    use std::os::unix::fs::MetadataExt;
    let path: PathBuf = data_dir.join("pg_wal").join(format!("{:08X}.history", timeline.0));
    let Some(text) = read_optional(&path)? else {
        return Ok(None);
    };
    let meta = path.metadata().map_err(Error::io("look at", &path))?;
    let modified = (meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap_or(0));
    Ok(Some(HistoryFile {
        timeline,
        entries: parse_history(&text)?,
        modified,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_read_with_their_reasons_and_comments_skipped() {
        let text = "# c\n1\t0/3000000\tno recovery target specified\n\n3\tA/FF\t\n";
        let entries = parse_history(text).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].reason, "no recovery target specified");
        assert_eq!(
            (entries[1].timeline, entries[1].switchpoint),
            (Timeline(3), Lsn(0xA_0000_00FF))
        );
        assert_eq!(parse_history("").unwrap(), []);
    }

    #[test]
    fn broken_lines_are_refused_with_their_number() {
        for text in [
            "x\t0/1\tr",
            "1\t0-1\tr",
            "1",
            "0\t0/1\tr",
            "2\t0/1\tr\n2\t0/2\tr",
            "2\t0/1\tr\n1\t0/2\tr",
        ] {
            let error = parse_history(text).unwrap_err().to_string();
            assert!(error.contains("line"), "{text:?}: {error}");
        }
    }
}
