//! Copies WAL that a rewind is about to discard to a directory of its own beside the data directory.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pgha_core::rewind::DivergedWal;

use crate::control::read_control;
use crate::error::Error;
use crate::files::{PRIVATE_DIR, sync_dir, sync_parent};
use crate::spec::InstanceSpec;
use crate::wal::Shape;

/// Digits of a segment's name: eight of the timeline, sixteen of its place in WAL.
const SEGMENT_DIGITS: usize = 24;
/// Those of the timeline.
const TIMELINE_DIGITS: usize = 8;

/// What was kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptWal {
    /// The directory.
    pub path: PathBuf,
    /// Files in it.
    pub files: usize,
}

/// Copies every segment of pg_wal from the one that holds the beginning of `wal` on, whatever its timeline, and all history
/// files. The directory's name says what it holds, so a second try writes the same files again.
pub(crate) fn keep_wal(spec: &InstanceSpec, wal: &DivergedWal) -> Result<KeptWal, Error> {
    let shape = Shape::of(&read_control(&spec.data_dir)?);
    if !shape.is_sane() {
        return Err(Error::Malformed {
            place: "pg_control".into(),
            reason: "the sizes of WAL pages and segments".into(),
        });
    }
    let from = shape.segment_name(wal.from.0);
    let real = spec
        .data_dir
        .canonicalize()
        .map_err(Error::io("find", &spec.data_dir))?;
    let mut name = real.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".diverged-{}-{:X}", wal.timeline.0, wal.from.0));
    let path = real.with_file_name(name);
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(&path)
        .map_err(Error::io("create", &path))?;
    let source = real.join("pg_wal");
    let mut files = 0;
    for entry in fs::read_dir(&source).map_err(Error::io("read", &source))? {
        let entry = entry.map_err(Error::io("read", &source))?;
        let file = entry.file_name();
        let wanted = file.to_str().is_some_and(|name| is_wanted(name, &from));
        if wanted {
            copy(&entry.path(), &path.join(&file))?;
            files += 1;
        }
    }
    sync_dir(&path)?;
    sync_parent(&path)?;
    Ok(KeptWal { path, files })
}

/// A history file, or a segment from `from` on: names of one length order as the places in WAL that they stand for.
fn is_wanted(name: &str, from: &str) -> bool {
    let digits = name.strip_suffix(".partial").unwrap_or(name);
    let is_segment = digits.len() == SEGMENT_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    name.ends_with(".history") || (is_segment && digits.get(TIMELINE_DIGITS..).is_some_and(|place| place >= from))
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map_err(Error::io("copy to", to))?;
    let file = File::open(to).map_err(Error::io("open", to))?;
    file.sync_all().map_err(Error::io("flush", to))
}

#[cfg(test)]
mod tests {
    use super::is_wanted;

    const THIRD: &str = "0000000000000003";

    #[test]
    fn segments_count_on_over_groups_whatever_their_timeline() {
        for name in [
            "000000020000000000000003",
            "000000070000000100000000",
            "000000020000000000000003.partial",
            "00000002.history",
        ] {
            assert!(is_wanted(name, THIRD), "{name}");
        }
    }

    #[test]
    fn what_lies_before_the_fork_is_not_kept_nor_what_is_no_wal() {
        for name in [
            "000000020000000000000002",
            "archive_status",
            "00000002000000000000000G",
            "0003",
        ] {
            assert!(!is_wanted(name, THIRD), "{name}");
        }
    }
}
