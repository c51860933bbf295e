//! Files that are there whole or not at all, and libpq's passfile.
//!
//! A file is written under a temporary name, synced, renamed, and its directory synced: after a crash the old or the
//! new content is there. The temporary file is created exclusively and never through a symbolic link.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::conninfo::ConnInfo;
use crate::error::Error;
use crate::spec::{Credentials, Secret};

/// Mode of files with secrets, and of the state directory's files.
pub(crate) const PRIVATE_FILE: u32 = 0o600;
/// Mode of the state directory.
pub(crate) const PRIVATE_DIR: u32 = 0o700;

static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Replaces `path` by a file with this content and mode.
///
/// # Errors
/// [`Error::Io`]; the old file is untouched then.
pub fn atomic_write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let temporary = temporary_name(path);
    let written = write_new(&temporary, content, mode)
        .and_then(|()| fs::rename(&temporary, path).map_err(Error::io("replace", path)))
        .and_then(|()| sync_parent(path));
    if written.is_err() {
        remove_file(&temporary)?;
    }
    written
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(
        ".{}.{}.tmp",
        std::process::id(),
        TEMPORARY.fetch_add(1, Ordering::Relaxed)
    ));
    path.with_file_name(name)
}

/// Creates a file that must not exist yet and syncs it.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        // The umask may have taken bits away that the mode asks for.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(Error::io("write", path))
}

/// Makes a rename or removal in the directory of `path` survive a crash.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    fs::File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(Error::io("sync", dir))
}

/// Removes a file; it is no error when there is none.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Reads a text file; `None` when there is none.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

/// Creates the private state directory if it is missing.
pub(crate) fn ensure_private_dir(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(dir)
        .map_err(Error::io("create", dir))
}

/// Mode for files in or beside the data directory: readable by the group when the data directory is.
pub(crate) fn file_mode_of(data_dir: &Path) -> u32 {
    let group_may_read = fs::metadata(data_dir).is_ok_and(|m| m.mode() & 0o040 != 0);
    if group_may_read { 0o640 } else { PRIVATE_FILE }
}

/// One line of a passfile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassEntry {
    /// Host, address, or socket directory.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password.
    pub password: Secret,
}

/// Writes a passfile (mode 0600), atomically, with a `localhost` line for each socket directory, since that is the name
/// libpq looks up for its default one.
///
/// # Errors
/// [`Error::Io`].
pub fn write_pgpass(path: &Path, entries: &[PassEntry]) -> Result<(), Error> {
    atomic_write(path, render_pgpass(entries).as_bytes(), PRIVATE_FILE)
}

fn render_pgpass(entries: &[PassEntry]) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let mut out = String::new();
    for e in entries {
        let socket = e.host.starts_with('/').then_some("localhost");
        for host in std::iter::once(e.host.as_str()).chain(socket) {
            let (host, user, password) = (escape(host), escape(&e.user), escape(e.password.expose()));
            out.push_str(&format!("{host}:{}:*:{user}:{password}\n", e.port));
        }
    }
    out
}

/// A passfile that exists as long as this value.
pub(crate) struct TemporaryPass {
    path: PathBuf,
}

impl TemporaryPass {
    /// For a connection to `info` (its `host` and `port`, lists included) as `user`.
    pub(crate) fn new(state_dir: &Path, info: &ConnInfo, user: &Credentials) -> Result<TemporaryPass, Error> {
        ensure_private_dir(state_dir)?;
        let path = temporary_name(&state_dir.join("pgpass"));
        let ports: Vec<u16> = info
            .get("port")
            .unwrap_or("")
            .split(',')
            .filter_map(|p| p.parse().ok())
            .collect();
        let hosts = info.get("host").unwrap_or("localhost").split(',');
        let entry = |(i, host): (usize, &str)| {
            let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
            user.password.clone().map(|password| PassEntry {
                host: host.to_string(),
                port,
                user: user.user.clone(),
                password,
            })
        };
        let entries: Vec<PassEntry> = hosts.enumerate().filter_map(entry).collect();
        write_new(&path, render_pgpass(&entries).as_bytes(), PRIVATE_FILE)?;
        Ok(TemporaryPass { path })
    }

    /// A private file with a bare password, as `initdb --pwfile` wants it.
    pub(crate) fn bare(state_dir: &Path, password: &Secret) -> Result<TemporaryPass, Error> {
        ensure_private_dir(state_dir)?;
        let path = temporary_name(&state_dir.join("pwfile"));
        write_new(&path, format!("{}\n", password.expose()).as_bytes(), PRIVATE_FILE)?;
        Ok(TemporaryPass { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryPass {
    fn drop(&mut self) {
        if let Err(e) = remove_file(&self.path) {
            tracing::warn!(error = %e.chain(), "a temporary password file stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_replaced_file_has_the_mode_asked_for_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.conf");
        atomic_write(&path, b"one", 0o600).unwrap();
        atomic_write(&path, b"two", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(atomic_write(&dir.path().join("no/such"), b"", 0o600).is_err());
    }

    #[test]
    fn special_characters_in_a_passfile_are_escaped_and_a_socket_gets_a_localhost_line() {
        let entry = PassEntry {
            host: "/run/pg".into(),
            port: 5432,
            user: "a:b".into(),
            password: Secret::new("p\\:q"),
        };
        assert_eq!(
            render_pgpass(&[entry]),
            "/run/pg:5432:*:a\\:b:p\\\\\\:q\nlocalhost:5432:*:a\\:b:p\\\\\\:q\n"
        );
    }

    #[test]
    fn a_temporary_passfile_covers_every_host_and_vanishes() {
        let dir = tempfile::tempdir().unwrap();
        let info = ConnInfo::new().with("host", "a,b").with("port", "1,2");
        let pass = TemporaryPass::new(&dir.path().join("state"), &info, &Credentials::new("u", "p")).unwrap();
        let path = pass.path().to_path_buf();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a:1:*:u:p\nb:2:*:u:p\n");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        drop(pass);
        assert!(!path.exists());
    }
}
