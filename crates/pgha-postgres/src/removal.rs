//! Empties a data directory or puts it aside.
//!
//! Both refuse while any server process uses the directory. Symbolic links are never followed when deleting; the two
//! places where PostgreSQL itself links elsewhere (`pg_wal`, `pg_tblspc/*`) are handled by name. An interrupted wipe
//! leaves the mark of unfinished work, so the rest is never taken for a cluster.
//! Absent on purpose: tablespaces that a killed pg_basebackup filled before it made their links. Nobody knows them.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use pgha_core::pg::UnfinishedWork;

use crate::control::read_major_version;
use crate::data_dir::is_ignored;
use crate::error::Error;
use crate::files::{PRIVATE_DIR, sync_parent};
use crate::postmaster::{find_postmaster, orphans};
use crate::spec::InstanceSpec;
use crate::unfinished::UnfinishedMarker;

/// Refuses with [`Error::InUse`] while a server or one of its orphans lives.
pub(crate) fn refuse_if_in_use(spec: &InstanceSpec, program: &str) -> Result<(), Error> {
    let server = find_postmaster(&spec.data_dir, program).process();
    match server.or_else(|| orphans(&spec.data_dir, program).first().copied()) {
        Some(process) => Err(Error::InUse {
            data_dir: spec.data_dir.clone(),
            pid: process.pid,
        }),
        None => Ok(()),
    }
}

/// Removes everything in the data directory, its WAL directory and its tablespaces; the directory itself stays.
pub(crate) fn wipe(spec: &InstanceSpec, program: &str) -> Result<(), Error> {
    refuse_if_in_use(spec, program)?;
    let mark = UnfinishedMarker::new(&spec.state_dir);
    let dir = spec.data_dir.as_path();
    if !dir.exists() {
        return mark.finish();
    }
    // An unreadable mark is replaced: its purpose, to keep the directory from being started, is kept.
    if !matches!(mark.read(), Ok(Some(_))) {
        mark.begin(UnfinishedWork::Clone)?;
    }
    if let Ok(major) = read_major_version(dir) {
        for link in tablespace_links(dir)? {
            empty_directory(&link.target, |name| name.starts_with(&format!("PG_{major}_")))?;
        }
    }
    if let Some(wal) = link_target(&dir.join("pg_wal"))? {
        empty_directory(&wal, |_| true)?;
    }
    empty_directory(dir, |_| true)?;
    mark.finish()
}

/// Renames the data directory, its WAL directory and its tablespaces by adding `suffix`; returns the new path.
pub(crate) fn set_aside(spec: &InstanceSpec, program: &str, suffix: &str) -> Result<PathBuf, Error> {
    refuse_if_in_use(spec, program)?;
    let dir = spec.data_dir.as_path();
    let refuse = |reason: &str| Error::Unsuitable {
        data_dir: dir.to_path_buf(),
        reason: reason.to_string(),
    };
    if !suffix.starts_with('.') || suffix.len() < 2 || suffix.contains('/') {
        return Err(refuse(
            "a suffix to put it aside must begin with a dot and hold no slash",
        ));
    }
    let real = dir.canonicalize().map_err(Error::io("find", dir))?;
    let aside = rename_aside(&real, suffix).map_err(|e| match e {
        Error::Io { source, .. } if source.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
            refuse("it is a mount point and cannot be renamed; use a directory below it, or empty it by hand")
        }
        other => other,
    })?;
    if real != dir && fs::symlink_metadata(dir).is_ok_and(|m| m.is_symlink()) {
        fs::DirBuilder::new()
            .mode(PRIVATE_DIR)
            .create(&real)
            .map_err(Error::io("create", &real))?;
    }
    let mut links = tablespace_links(&aside)?;
    let wal = aside.join("pg_wal");
    links.extend(link_target(&wal)?.map(|target| Link { path: wal, target }));
    for link in links {
        let moved = rename_aside(&link.target, suffix)?;
        fs::remove_file(&link.path).map_err(Error::io("remove", &link.path))?;
        symlink(&moved, &link.path).map_err(Error::io("link", &link.path))?;
    }
    UnfinishedMarker::new(&spec.state_dir).finish()?;
    Ok(aside)
}

/// Adds the suffix to a directory's name; what an earlier time put there is replaced.
fn rename_aside(dir: &Path, suffix: &str) -> Result<PathBuf, Error> {
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    let aside = dir.with_file_name(name);
    match fs::remove_dir_all(&aside) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("remove", &aside)(e)),
        _ => {}
    }
    fs::rename(dir, &aside).map_err(Error::io("rename", dir))?;
    sync_parent(&aside)?;
    Ok(aside)
}

struct Link {
    path: PathBuf,
    target: PathBuf,
}

fn tablespace_links(dir: &Path) -> Result<Vec<Link>, Error> {
    let tablespaces = dir.join("pg_tblspc");
    let entries = match fs::read_dir(&tablespaces) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", &tablespaces)(e)),
    };
    let mut links = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list", &tablespaces))?.path();
        links.extend(link_target(&path)?.map(|target| Link { path, target }));
    }
    Ok(links)
}

/// The existing directory that a symbolic link leads to; `None` for anything that is no link or leads nowhere.
fn link_target(path: &Path) -> Result<Option<PathBuf>, Error> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => match path.canonicalize() {
            Ok(target) => Ok(target.is_dir().then_some(target)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("follow", path)(e)),
        },
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("look at", path)(e)),
        _ => Ok(None),
    }
}

/// Deletes the entries of a directory whose names pass `chosen`. `std` deletes relative to open directories, so a
/// directory swapped for a link meanwhile is not followed.
fn empty_directory(dir: &Path, chosen: impl Fn(&str) -> bool) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !chosen(&name) || name == "lost+found" {
            continue;
        }
        let path = entry.path();
        match remove(&path) {
            // Snapshot directories of some file systems cannot be removed and do not count as content.
            Err(e) if is_ignored(&name) => tracing::warn!(path = %path.display(), error = %e, "left in place"),
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("remove", &path)(e)),
            _ => {}
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}
