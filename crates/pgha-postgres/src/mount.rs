//! Remembers on which mount a data directory with a cluster was, so that a missing mount is not an empty directory.
//!
//! Device numbers change with reboots and a replaced disk is a legitimate reason for an empty directory, so what is
//! compared is the mount point: when the cluster once lay under `/var/lib/pgdata` mounted on its own and now the same
//! path belongs to `/`, the mount is missing. Absent on purpose: any attempt to mount.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::files::{PRIVATE_FILE, atomic_write, ensure_private_dir, read_optional};

const FILE_NAME: &str = "pgha.mount";
const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// Notes the mount point that holds `data_dir`. Writes only when it changed.
pub(crate) fn remember(state_dir: &Path, data_dir: &Path) -> Result<(), Error> {
    let Some(mount) = mount_point_of(data_dir) else {
        return Ok(());
    };
    let path = state_dir.join(FILE_NAME);
    let line = format!("{}\n", mount.display());
    if read_optional(&path)?.as_deref() == Some(line.as_str()) {
        return Ok(());
    }
    ensure_private_dir(state_dir)?;
    atomic_write(&path, line.as_bytes(), PRIVATE_FILE)
}

/// Why an empty or missing `data_dir` must not be taken for empty: its mount is gone. `None` when nothing speaks
/// against it.
pub(crate) fn missing(state_dir: &Path, data_dir: &Path) -> Result<Option<String>, Error> {
    let path = state_dir.join(FILE_NAME);
    let Some(text) = read_optional(&path)? else {
        return Ok(None);
    };
    let before = Path::new(text.trim_end_matches('\n'));
    let Some(now) = mount_point_of(data_dir) else {
        return Ok(None);
    };
    if now == before {
        return Ok(None);
    }
    Ok(Some(format!(
        "the mount {} that held the cluster is missing ({} is on {} now); mount it, or remove {} if the directory is \
         empty on purpose",
        before.display(),
        data_dir.display(),
        now.display(),
        path.display()
    )))
}

/// The mount point of the file system that holds `path`, or would hold it.
fn mount_point_of(path: &Path) -> Option<PathBuf> {
    let existing = path.ancestors().find_map(|p| p.canonicalize().ok())?;
    let table = std::fs::read_to_string(MOUNT_TABLE).ok()?;
    longest_mount(&table, &existing)
}

fn longest_mount(table: &str, path: &Path) -> Option<PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|mount| path.starts_with(mount))
        .max_by_key(|mount| mount.components().count())
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut out = field.to_string();
    for (code, text) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(code, text);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TABLE: &str = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 22 8:17 / /var/lib/pg\\040data rw - xfs /dev/sdb1 rw\n\
        31 22 0:5 / /var/lib/pg rw - tmpfs t rw\n";

    #[test]
    fn the_deepest_mount_above_a_path_holds_it() {
        let of = |p: &str| longest_mount(TABLE, Path::new(p)).unwrap().display().to_string();
        assert_eq!(of("/var/lib/pg data/15/main"), "/var/lib/pg data");
        assert_eq!(of("/var/lib/pgx"), "/");
        assert_eq!(of("/var/lib/pg/x"), "/var/lib/pg");
    }

    #[test]
    fn an_empty_directory_on_another_mount_than_before_is_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (state, data) = (dir.path().join("state"), dir.path().join("data"));
        assert_eq!(missing(&state, &data).unwrap(), None, "nothing was recorded yet");
        remember(&state, &data).unwrap();
        assert_eq!(missing(&state, &data).unwrap(), None, "the same mount");
        std::fs::write(state.join(FILE_NAME), "/mnt/gone\n").unwrap();
        let reason = missing(&state, &data).unwrap().unwrap();
        assert!(reason.contains("/mnt/gone") && reason.contains("remove"), "{reason}");
    }
}
