//! The private state directory: where the socket and the locks of one data directory's agent and fence live.
//!
//! Invariants: the directory belongs to this user, nobody else can enter it, it is no symbolic link, and the same data
//! directory leads to the same state directory at every start, since a daemon that looks elsewhere would not find the
//! fence that already runs. The marks of unfinished copies that
//! pgha-postgres keeps here must outlive a reboot, which is why the directory stands beside the data directory.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::AgentError;

/// Longest path of a Unix socket in bytes: `sun_path` holds 108 with the closing zero.
const MAX_SOCKET_PATH: usize = 107;
/// Where the directory goes when there is no room beside the data directory.
const FALLBACK_PARENT: &str = "/tmp";
/// Bytes of a lock file that are read to learn the holder.
const MAX_LOCK_TEXT: u64 = 32;

const SOCKET: &str = "fence.sock";
const FENCE_LOCK: &str = "fence.lock";
const AGENT_LOCK: &str = "agent.lock";

/// A checked state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Chooses the directory for `data_dir` and creates it where needed.
    ///
    /// In order: the `configured` one; `<data_dir>.pgha`; `/tmp/pgha-<uid>-<hash of data_dir>`. One that already exists
    /// goes before one that would have to be created, so that a choice stays made.
    ///
    /// # Errors
    /// [`AgentError::StateDir`] when the directory belongs to somebody else, is open to others, is no directory, or
    /// makes the socket's path too long; [`AgentError::Os`] when it cannot be created.
    pub fn open(configured: Option<&Path>, data_dir: &Path) -> Result<StateDir, AgentError> {
        if let Some(path) = configured {
            check_socket_length(path)?;
            create(path).map_err(|e| cannot_create(path, e))?;
            return StateDir::existing(path);
        }
        let data_dir = canonical(data_dir)?;
        let beside = sibling(&data_dir);
        let fallback = fallback(&data_dir);
        let beside_fits = check_socket_length(&beside).is_ok();
        if beside_fits && fs::symlink_metadata(&beside).is_ok() {
            return StateDir::existing(&beside);
        }
        if fs::symlink_metadata(&fallback).is_ok() {
            return StateDir::existing(&fallback);
        }
        if beside_fits && create(&beside).is_ok() {
            return StateDir::existing(&beside);
        }
        create(&fallback).map_err(|e| cannot_create(&fallback, e))?;
        StateDir::existing(&fallback)
    }

    /// Takes a directory that must already exist, after the same checks as [`StateDir::open`].
    ///
    /// # Errors
    /// [`AgentError::StateDir`] and [`AgentError::Os`] as there.
    pub fn existing(path: &Path) -> Result<StateDir, AgentError> {
        // The fence gets this path and works in another directory.
        let path = &std::path::absolute(path).map_err(|e| AgentError::os(format!("resolve {}", path.display()), e))?;
        check_socket_length(path)?;
        let meta = fs::symlink_metadata(path).map_err(|e| AgentError::os(format!("inspect {}", path.display()), e))?;
        let bad = |problem: String, remedy| AgentError::StateDir {
            path: path.to_owned(),
            problem,
            remedy,
        };
        if !meta.is_dir() {
            return Err(bad(
                "it is not a directory".into(),
                "remove it or configure another one",
            ));
        }
        let uid = nix::unistd::geteuid().as_raw();
        if meta.uid() != uid {
            let problem = format!("it belongs to uid {}, not to uid {uid}", meta.uid());
            return Err(bad(problem, "remove it or configure another one"));
        }
        if meta.mode() & 0o077 != 0 {
            let problem = format!("its mode is {:04o}, others could reach the fence", meta.mode() & 0o7777);
            return Err(bad(problem, "set it to 0700"));
        }
        Ok(StateDir { path: path.to_owned() })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket of the fence.
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Makes this process the only agent of the data directory for as long as the lock lives.
    ///
    /// # Errors
    /// [`AgentError::Locked`] with the pid of the other agent.
    pub fn lock_agent(&self) -> Result<Lock, AgentError> {
        Lock::take(self.path.join(AGENT_LOCK), "another pgha")
    }

    /// Makes this process the only fence of the data directory for as long as the lock lives.
    ///
    /// # Errors
    /// [`AgentError::Locked`] with the pid of the other fence.
    pub fn lock_fence(&self) -> Result<Lock, AgentError> {
        Lock::take(self.path.join(FENCE_LOCK), "another fence")
    }

    /// A shared lock on the directory itself: systemd-tmpfiles leaves alone what is locked, whatever its age.
    ///
    /// # Errors
    /// [`AgentError::Os`] when the directory cannot be opened or locked.
    pub fn hold(&self) -> Result<File, AgentError> {
        let what = || format!("lock {}", self.path.display());
        let dir = File::open(&self.path).map_err(|e| AgentError::os(what(), e))?;
        dir.lock_shared().map_err(|e| AgentError::os(what(), e))?;
        Ok(dir)
    }
}

/// A lock on a file; the kernel releases it with the process, whatever way that ends.
#[derive(Debug)]
pub struct Lock {
    // Held for its lock; the pid written into it is for people and for the error message.
    _file: File,
}

impl Lock {
    fn take(path: PathBuf, what: &'static str) -> Result<Lock, AgentError> {
        let os = |step: &str, e: io::Error| AgentError::os(format!("{step} {}", path.display()), e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|e| os("open", e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(AgentError::Locked {
                    what,
                    pid: holder(&mut file),
                    path,
                });
            }
            Err(TryLockError::Error(e)) => return Err(os("lock", e)),
        }
        file.set_len(0).map_err(|e| os("write", e))?;
        file.rewind().map_err(|e| os("write", e))?;
        writeln!(file, "{}", std::process::id()).map_err(|e| os("write", e))?;
        Ok(Lock { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(MAX_LOCK_TEXT).read_to_string(&mut text) {
        Ok(_) if text.trim().parse::<u32>().is_ok() => text.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// One spelling per data directory. Its last part need not exist yet: bootstrap creates it.
fn canonical(data_dir: &Path) -> Result<PathBuf, AgentError> {
    let what = || format!("resolve the data directory {}", data_dir.display());
    let absolute = std::path::absolute(data_dir).map_err(|e| AgentError::os(what(), e))?;
    if let Ok(path) = fs::canonicalize(&absolute) {
        return Ok(path);
    }
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Ok(absolute);
    };
    Ok(fs::canonicalize(parent).map_or_else(|_| absolute.clone(), |parent| parent.join(name)))
}

fn sibling(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.as_os_str().to_owned();
    name.push(".pgha");
    PathBuf::from(name)
}

fn fallback(data_dir: &Path) -> PathBuf {
    let digest = Sha256::digest(data_dir.as_os_str().as_bytes());
    let hash: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    Path::new(FALLBACK_PARENT).join(format!("pgha-{}-{hash}", nix::unistd::geteuid()))
}

fn create(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn cannot_create(path: &Path, e: io::Error) -> AgentError {
    AgentError::os(format!("create the state directory {}", path.display()), e)
}

fn check_socket_length(path: &Path) -> Result<(), AgentError> {
    let len = path.join(SOCKET).as_os_str().len();
    if len <= MAX_SOCKET_PATH {
        return Ok(());
    }
    Err(AgentError::StateDir {
        path: path.to_owned(),
        problem: format!("the path of the socket in it would be {len} bytes long, the limit is {MAX_SOCKET_PATH}"),
        remedy: "configure a shorter one",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().expect("a scratch directory")
    }

    #[test]
    fn the_directory_lies_beside_the_data_directory_and_is_private() {
        let scratch = scratch();
        let state = StateDir::open(None, &scratch.path().join("data")).expect("opens");
        assert!(state.path().ends_with("data.pgha"));
        assert_eq!(fs::metadata(state.path()).expect("exists").mode() & 0o7777, 0o700);
        assert_eq!(
            StateDir::open(None, &scratch.path().join("data")).expect("opens again"),
            state
        );
    }

    #[test]
    fn without_room_beside_it_goes_to_tmp_and_stays_there() {
        let scratch = scratch();
        let data = scratch.path().join("missing/data");
        let state = StateDir::open(None, &data).expect("opens");
        assert!(state.path().starts_with("/tmp"), "{}", state.path().display());
        fs::create_dir(scratch.path().join("missing")).expect("creates");
        let again = StateDir::open(None, &data).expect("opens again");
        fs::remove_dir(state.path()).expect("removes");
        assert_eq!(again, state);
    }

    #[test]
    fn a_directory_open_to_others_is_refused_with_the_remedy() {
        let scratch = scratch();
        let dir = scratch.path().join("state");
        fs::create_dir(&dir).expect("creates");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).expect("chmod");
        let error = StateDir::open(Some(&dir), Path::new("/data"))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("0750") && error.contains("set it to 0700"), "{error}");
    }

    #[test]
    fn a_relative_path_is_made_absolute_for_the_fence() {
        let scratch = tempfile::tempdir_in(".").expect("a scratch directory");
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
        let relative = Path::new(scratch.path().file_name().expect("has a name"));
        assert!(StateDir::existing(relative).expect("opens").path().is_absolute());
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let scratch = scratch();
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(scratch.path(), &link).expect("links");
        let error = StateDir::open(Some(&link), Path::new("/data"))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("not a directory"), "{error}");
    }

    #[test]
    fn a_configured_path_too_long_for_a_socket_is_an_error_that_says_so() {
        let long = Path::new("/tmp").join("x".repeat(120));
        let error = StateDir::open(Some(&long), Path::new("/data"))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("limit is 107") && error.contains("shorter"), "{error}");
    }

    #[test]
    fn a_second_agent_is_refused_with_the_pid_of_the_first() {
        let scratch = scratch();
        let state = StateDir::open(None, &scratch.path().join("data")).expect("opens");
        let first = state.lock_agent().expect("locks");
        let error = state.lock_agent().expect_err("refused").to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        state.lock_agent().expect("free again");
    }
}
