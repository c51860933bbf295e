//! Copies WAL that a rewind is about to discard to a directory of its own beside the data directory.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pgha_core::rewind::DivergedWal;

use crate::control::read_control;
use crate::error::Error;
use crate::files::{PRIVATE_DIR, sync_dir, sync_parent};
use crate::spec::InstanceSpec;

/// Digits of the name of a segment: timeline, group and number, eight each.
const SEGMENT_DIGITS: usize = 24;

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
    let segment = u64::from(read_control(&spec.data_dir)?.wal_segment_size).max(1);
    let from = wal.from.0 / segment;
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
        let wanted = file.to_str().is_some_and(|name| is_wanted(name, segment, from));
        if wanted {
            copy(&entry.path(), &path.join(&file))?;
            files += 1;
        }
    }
    sync_dir(&path)?;
    sync_parent(&path)?;
    Ok(KeptWal { path, files })
}

fn is_wanted(name: &str, segment: u64, from: u64) -> bool {
    name.ends_with(".history") || number(name, segment).is_some_and(|number| number >= from)
}

/// The number of a segment, counted from the beginning of WAL.
fn number(name: &str, segment: u64) -> Option<u64> {
    let digits = name.strip_suffix(".partial").unwrap_or(name);
    if digits.len() != SEGMENT_DIGITS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let part = |at: usize| u64::from_str_radix(digits.get(at..at + 8)?, 16).ok();
    let per_group = (1u64 << 32) / segment;
    part(8)?.checked_mul(per_group)?.checked_add(part(16)?)
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map_err(Error::io("copy to", to))?;
    let file = File::open(to).map_err(Error::io("open", to))?;
    file.sync_all().map_err(Error::io("flush", to))
}

#[cfg(test)]
mod tests {
    use super::{is_wanted, number};

    const MIB_16: u64 = 16 << 20;

    #[test]
    fn segments_count_on_over_groups_whatever_their_timeline() {
        assert_eq!(number("000000020000000000000003", MIB_16), Some(3));
        assert_eq!(number("000000070000000100000003", MIB_16), Some(259));
        assert_eq!(number("000000020000000000000003.partial", MIB_16), Some(3));
        assert_eq!(number("archive_status", MIB_16), None);
        assert_eq!(number("00000002000000000000000G", MIB_16), None);
    }

    #[test]
    fn what_lies_before_the_fork_is_not_kept_but_every_history_is() {
        assert!(!is_wanted("000000020000000000000002", MIB_16, 3));
        assert!(is_wanted("000000020000000000000003", MIB_16, 3));
        assert!(is_wanted("00000002.history", MIB_16, 3));
        assert!(!is_wanted("archive_status", MIB_16, 0));
    }
}
