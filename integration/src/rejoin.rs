//! How an old primary came back: told from the data directory, not from what the agent says.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How a node rejoined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejoin {
    /// Its own files, started again.
    AsItWas,
    /// Its own files, made to follow by pg_rewind.
    Rewound,
    /// A new copy from another node.
    Copied,
}

impl fmt::Display for Rejoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsItWas => "as it was",
            Self::Rewound => "by pg_rewind",
            Self::Copied => "by a new base backup",
        })
    }
}

/// A data directory's state before the node went down.
#[derive(Debug)]
pub struct RejoinMark {
    data_dir: PathBuf,
    inode: u64,
    label: Option<(u64, i64, i64)>,
}

impl RejoinMark {
    /// Remembers the data directory as it is now.
    pub fn take(data_dir: &Path) -> Result<Self> {
        Ok(Self {
            data_dir: data_dir.to_owned(),
            inode: control_inode(data_dir)?,
            label: old_label(data_dir),
        })
    }

    /// What has happened to the directory since.
    ///
    /// A new copy has a new `pg_control` file; pg_rewind writes into the old one. pg_rewind leaves a backup label, which
    /// PostgreSQL renames when it starts; a plain start leaves none.
    pub fn compare(&self) -> Result<Rejoin> {
        if control_inode(&self.data_dir)? != self.inode {
            return Ok(Rejoin::Copied);
        }
        Ok(if old_label(&self.data_dir) == self.label {
            Rejoin::AsItWas
        } else {
            Rejoin::Rewound
        })
    }
}

fn control_inode(data_dir: &Path) -> Result<u64> {
    let file = data_dir.join("global/pg_control");
    Ok(file
        .metadata()
        .with_context(|| format!("cannot look at {}", file.display()))?
        .ino())
}

fn old_label(data_dir: &Path) -> Option<(u64, i64, i64)> {
    let meta = data_dir.join("backup_label.old").metadata().ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec()))
}
