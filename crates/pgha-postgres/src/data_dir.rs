//! Says what a data directory is, by looking only.
//!
//! Order matters: what cannot be read concludes nothing, an empty directory needs no further questions, and the mark of
//! unfinished work comes before everything that the files themselves might suggest.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pgha_core::pg::DataDir;

use crate::control::{control_path, read_control};
use crate::error::Error;
use crate::mount;
use crate::spec::InstanceSpec;
use crate::unfinished::UnfinishedMarker;

/// Modes that PostgreSQL starts with.
const GOOD_MODES: [u32; 2] = [0o700, 0o750];

/// Classifies the data directory. While a server runs in it (`in_use`), a wrong mode is only a [`concern`]: PostgreSQL
/// itself looks at the mode when it starts and lives with it afterwards.
pub(crate) fn classify(spec: &InstanceSpec, in_use: bool) -> DataDir {
    match look(spec, in_use) {
        Ok(kind) => kind,
        Err(e) => DataDir::Inaccessible { reason: e.chain() },
    }
}

fn look(spec: &InstanceSpec, in_use: bool) -> Result<DataDir, Error> {
    let dir = spec.data_dir.as_path();
    let meta = match fs::metadata(dir) {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => return absent(spec),
        Err(e) => return Err(Error::io("look at", dir)(e)),
    };
    if !meta.is_dir() {
        return Ok(DataDir::Foreign {
            reason: format!("{} is not a directory", dir.display()),
        });
    }
    if is_empty(dir)? {
        return empty(spec);
    }
    if let Some(what) = UnfinishedMarker::new(&spec.state_dir).read()? {
        return Ok(DataDir::Unfinished { what });
    }
    for (file, meaning) in [
        (dir.join("PG_VERSION"), "this is no PostgreSQL data directory"),
        (
            control_path(dir),
            "a restore or base backup that was not begun here did not end",
        ),
    ] {
        if let Err(e) = fs::metadata(&file) {
            if e.kind() != ErrorKind::NotFound {
                return Err(Error::io("look at", &file)(e));
            }
            return Ok(DataDir::Foreign {
                reason: format!("there is no {}: {meaning}", file.display()),
            });
        }
    }
    if let Some(reason) = bad_owner_or_mode(dir, &meta).filter(|_| !in_use) {
        return Ok(DataDir::Inaccessible { reason });
    }
    match read_control(dir) {
        Ok(file) => {
            mount::remember(&spec.state_dir, dir)?;
            Ok(DataDir::Present(file.data))
        }
        Err(e @ Error::Io { .. }) => Err(e),
        Err(e) => Ok(DataDir::Foreign { reason: e.chain() }),
    }
}

/// Why the server that runs in the data directory could not be started again.
pub(crate) fn concern(spec: &InstanceSpec) -> Option<String> {
    let meta = fs::metadata(&spec.data_dir).ok()?;
    bad_owner_or_mode(&spec.data_dir, &meta)
}

fn absent(spec: &InstanceSpec) -> Result<DataDir, Error> {
    let dir = spec.data_dir.as_path();
    if fs::symlink_metadata(dir).is_ok() {
        let reason = format!("{} is a symbolic link to something that is not there", dir.display());
        return Ok(DataDir::Inaccessible { reason });
    }
    match dir.parent() {
        Some(parent) if !parent.is_dir() => {
            let reason = format!(
                "the parent directory {} is missing: create or mount it",
                parent.display()
            );
            Ok(DataDir::Inaccessible { reason })
        }
        _ => empty(spec),
    }
}

/// Empty, unless the mount that held the cluster is missing.
fn empty(spec: &InstanceSpec) -> Result<DataDir, Error> {
    Ok(match mount::missing(&spec.state_dir, &spec.data_dir)? {
        Some(reason) => DataDir::Inaccessible { reason },
        None => DataDir::Empty,
    })
}

/// Does the directory hold nothing but dot files and `lost+found`?
fn is_empty(dir: &Path) -> Result<bool, Error> {
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        if !is_ignored(&name.to_string_lossy()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Names that do not make a directory non-empty.
pub(crate) fn is_ignored(name: &str) -> bool {
    name == "lost+found" || name.starts_with('.')
}

fn bad_owner_or_mode(dir: &Path, meta: &fs::Metadata) -> Option<String> {
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me {
        return Some(format!(
            "{} belongs to user id {} and the agent runs as {me}: PostgreSQL runs only as the owner of its data",
            dir.display(),
            meta.uid()
        ));
    }
    let mode = meta.mode() & 0o777;
    if GOOD_MODES.contains(&mode) {
        return None;
    }
    Some(format!(
        "{} has mode {mode:04o} and PostgreSQL demands 0700 or 0750: chmod 0700 it",
        dir.display()
    ))
}
