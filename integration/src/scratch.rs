//! The scratch directory of a cluster, and the promise that nothing stays behind.
//!
//! Dropping it kills every process that belongs to it and removes it, and the shared memory too. If the harness itself is killed, a small shell
//! script, waiting on a pipe that only the harness holds, does the same. The script has a process group of its own, so
//! a ctrl-C at the terminal does not end it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::process;
use crate::programs;
use crate::shared_memory;
use crate::user::RunAs;

/// Waits until its input ends, then kills what belongs to `$1` and removes it.
const REAPER: &str = r#"
trap '' HUP INT TERM
read -r _ || :
dir=$1
[ -d "$dir" ] || exit 0
round=0
while [ $round -lt 20 ]; do
  left=0
  for p in /proc/[0-9]*; do
    pid=${p#/proc/}
    [ "$pid" = $$ ] && continue
    exe=$(readlink "$p/exe" 2>/dev/null) || continue
    mine=0
    case "$exe" in "$dir"/*) mine=1 ;; esac
    if [ $mine = 0 ] && tr '\0' '\n' <"$p/environ" 2>/dev/null | grep -q "^SCRATCH_OF_PGHA=$dir"; then mine=1; fi
    if [ $mine = 0 ]; then
      case "${exe##*/}" in
        postgres|etcd|haproxy|pgha|pgha-fence)
          case "$(readlink "$p/cwd")" in "$dir"/*) mine=1 ;; esac
          tr '\0' ' ' <"$p/cmdline" 2>/dev/null | grep -qF "$dir/" && mine=1 ;;
      esac
    fi
    [ $mine = 1 ] && { kill -9 "$pid" 2>/dev/null; left=1; }
  done
  [ $left = 0 ] && break
  round=$((round + 1))
  sleep 0.1
done
for f in "$dir"/*/data/postmaster.pid; do
  segment=$(sed -n '7s/.* //p' "$f" 2>/dev/null)
  while read -r _ id _ _ _ _ attached _; do
    [ "$id" = "$segment" ] && [ "$attached" = 0 ] && ipcrm -m "$id"
  done </proc/sysvipc/shm
done
rm -rf "$dir"
"#;

/// A scratch directory with its reaper.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    user: RunAs,
    keep_logs_as: Option<String>,
    reaper: Child,
}

impl Scratch {
    /// A new directory below `PGHA_SCRATCH_ROOT` or the system's temporary directory. With `keep_logs_as`, the logs and
    /// configuration files are copied to `target/integration-logs/NAME` before it is removed.
    pub fn new(keep_logs_as: Option<String>, user: RunAs) -> Result<Self> {
        let root = scratch_root(&user);
        let path = tempfile::Builder::new()
            .prefix("pgha-")
            .rand_bytes(6)
            .tempdir_in(&root)
            .with_context(|| format!("cannot make a scratch directory in {}", root.display()))?
            .keep();
        // The user that the programs run as must be able to pass through, whatever the umask.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        user.own(&path)?;
        let reaper = Command::new("sh")
            .args(["-c", REAPER, "pgha-reaper"])
            .arg(&path)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the reaper")?;
        Ok(Self {
            path,
            user,
            keep_logs_as,
            reaper,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The user that owns it.
    pub fn user(&self) -> &RunAs {
        &self.user
    }

    /// A directory in it, made if it is not there, owned by the user of the processes.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        self.user.own(&dir)?;
        Ok(dir)
    }

    /// Writes a file that only the user of the processes can read.
    pub fn write(&self, file: &Path, text: &str) -> Result<()> {
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        self.user.own(file)
    }

    /// Puts a program where the processes' user can run it, whatever stands between that user and the original.
    pub fn install(&self, program: &Path, dir: &Path) -> Result<PathBuf> {
        let to = dir.join(programs::base_name(program));
        if to.exists() {
            return Ok(to);
        }
        if fs::hard_link(program, &to).is_ok() && self.user.can_read(&to) {
            return Ok(to);
        }
        if to.exists() {
            fs::remove_file(&to)?;
        }
        fs::copy(program, &to).with_context(|| format!("cannot copy {} to {}", program.display(), to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        Ok(to)
    }

    fn keep_logs(&self, name: &str) -> Result<()> {
        let to = programs::repository().join("target/integration-logs").join(name);
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        fs::create_dir_all(&to)?;
        copy_logs(&self.path, &self.path, &to)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(name) = &self.keep_logs_as
            && let Err(error) = self.keep_logs(name)
        {
            eprintln!("the logs of {name} could not be kept: {error:#}");
        }
        let gone = process::kill_all(&self.path)
            .and_then(|()| shared_memory::remove_segments(&self.path))
            .and_then(|()| Ok(fs::remove_dir_all(&self.path)?));
        match gone {
            Ok(()) => {
                self.reaper.kill().ok();
            }
            // Closing the pipe lets the reaper try what did not succeed here.
            Err(error) => {
                eprintln!("{}: {error:#}", self.path.display());
                drop(self.reaper.stdin.take());
            }
        }
        self.reaper.wait().ok();
    }
}

fn scratch_root(user: &RunAs) -> PathBuf {
    if let Some(root) = std::env::var_os("PGHA_SCRATCH_ROOT") {
        return root.into();
    }
    // A temporary directory below root's home is closed to the user that the programs run as.
    let root = std::env::temp_dir();
    if user.can_read(&root) {
        root
    } else {
        PathBuf::from("/tmp")
    }
}

fn copy_logs(from: &Path, base: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let kind = path.symlink_metadata()?.file_type();
        if kind.is_dir() && programs::base_name(&path) != "data" {
            copy_logs(&path, base, to)?;
        } else if kind.is_file()
            && path
                .extension()
                .is_some_and(|ext| ext == "log" || ext == "yml" || ext == "cfg")
        {
            let name = path.strip_prefix(base)?.display().to_string().replace('/', "-");
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
