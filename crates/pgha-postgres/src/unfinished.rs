//! The mark of work that leaves the data directory unusable while it lasts.
//!
//! It is written and synced before initdb, a clone or a rewind begins, and removed after it ended well. It lies in the
//! state directory, because initdb and pg_basebackup demand an empty data directory and pg_rewind deletes files that
//! the source does not have. It also names the worker process, so that a restarted agent can end a pg_basebackup or
//! pg_rewind that outlived its predecessor before anything else touches the directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pgha_core::pg::UnfinishedWork;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::Error;
use crate::files::{PRIVATE_FILE, atomic_write, ensure_private_dir, read_optional, remove_file, sync_parent};
use crate::process::{ProcessId, is_alive, send_signal, wait_exit};

const FILE_NAME: &str = "pgha.unfinished";
/// How long a leftover worker may take to end after SIGTERM, and again after SIGKILL.
const WORKER_GRACE: Duration = Duration::from_secs(5);

/// The mark's place.
#[derive(Clone, Debug)]
pub struct UnfinishedMarker {
    path: PathBuf,
}

impl UnfinishedMarker {
    /// The mark of the instance with this state directory.
    pub fn new(state_dir: &Path) -> UnfinishedMarker {
        UnfinishedMarker {
            path: state_dir.join(FILE_NAME),
        }
    }

    /// What is unfinished, if anything.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood: then nothing may be concluded about the data directory.
    pub fn read(&self) -> Result<Option<UnfinishedWork>, Error> {
        Ok(self.content()?.map(|(what, _)| what))
    }

    /// Writes the mark; returns when it is on disk.
    ///
    /// # Errors
    /// [`Error::Io`]; the work must not begin then.
    pub fn begin(&self, what: UnfinishedWork) -> Result<(), Error> {
        if let Some(dir) = self.path.parent() {
            ensure_private_dir(dir)?;
        }
        self.write(what, None)
    }

    /// Notes which process does the work.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_worker(&self, what: UnfinishedWork, worker: ProcessId) -> Result<(), Error> {
        self.write(what, Some(worker))
    }

    /// Removes the mark: the work ended well, or what it left was removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(&self) -> Result<(), Error> {
        if !self.path.exists() {
            return Ok(());
        }
        remove_file(&self.path)?;
        sync_parent(&self.path)
    }

    /// Ends a worker that outlived the agent which started it. `Ok(true)` when there was one.
    ///
    /// # Errors
    /// It cannot be signalled or does not end.
    pub async fn end_worker(&self) -> Result<bool, Error> {
        let Some((_, Some(worker))) = self.content()? else {
            return Ok(false);
        };
        for signal in [Signal::TERM, Signal::KILL] {
            if !is_alive(worker) {
                return Ok(signal == Signal::KILL);
            }
            signal_group(worker, signal)?;
            if let Ok(ended) = tokio::time::timeout(WORKER_GRACE, wait_exit(worker)).await {
                ended?;
                return Ok(true);
            }
        }
        Err(Error::TimedOut {
            what: format!("the end of process {} of an earlier run", worker.pid),
            limit: WORKER_GRACE,
        })
    }

    fn write(&self, what: UnfinishedWork, worker: Option<ProcessId>) -> Result<(), Error> {
        let name = match what {
            UnfinishedWork::Bootstrap => "bootstrap",
            UnfinishedWork::Clone => "clone",
            UnfinishedWork::Rewind => "rewind",
        };
        let worker = worker
            .map(|w| format!("{} {}\n", w.pid, w.start_ticks))
            .unwrap_or_default();
        atomic_write(&self.path, format!("{name}\n{worker}").as_bytes(), PRIVATE_FILE)
    }

    fn content(&self) -> Result<Option<(UnfinishedWork, Option<ProcessId>)>, Error> {
        let Some(text) = read_optional(&self.path)? else {
            return Ok(None);
        };
        let mut lines = text.lines();
        let what = match lines.next() {
            Some("bootstrap") => UnfinishedWork::Bootstrap,
            Some("clone") => UnfinishedWork::Clone,
            Some("rewind") => UnfinishedWork::Rewind,
            _ => {
                return Err(Error::Malformed {
                    place: self.path.display().to_string(),
                    reason:
                        "expected bootstrap, clone or rewind; remove the data directory's content or this file by hand"
                            .to_string(),
                });
            }
        };
        let worker = lines.next().and_then(|l| l.split_once(' ')).and_then(|(pid, ticks)| {
            Some(ProcessId {
                pid: pid.parse().ok()?,
                start_ticks: ticks.parse().ok()?,
            })
        });
        Ok(Some((what, worker)))
    }
}

/// A worker leads its own process group, and pg_basebackup has a child that receives WAL.
fn signal_group(worker: ProcessId, signal: Signal) -> Result<(), Error> {
    send_signal(worker, signal)?;
    match Pid::from_raw(worker.pid).map(|pid| kill_process_group(pid, signal)) {
        Some(Err(e)) if e != rustix::io::Errno::SRCH => {
            Err(Error::io("signal", &PathBuf::from(format!("/proc/{}", worker.pid)))(e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::process::process_id;
    use std::os::unix::process::CommandExt;

    #[tokio::test]
    async fn a_mark_is_read_back_and_its_leftover_worker_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mark = UnfinishedMarker::new(&dir.path().join("state"));
        assert_eq!(mark.read().unwrap(), None);
        mark.begin(UnfinishedWork::Clone).unwrap();
        assert!(!mark.end_worker().await.unwrap());
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .process_group(0)
            .spawn()
            .unwrap();
        let worker = process_id(i32::try_from(child.id()).unwrap()).unwrap();
        mark.set_worker(UnfinishedWork::Rewind, worker).unwrap();
        assert_eq!(mark.read().unwrap(), Some(UnfinishedWork::Rewind));
        assert!(mark.end_worker().await.unwrap());
        assert!(!is_alive(worker));
        child.wait().unwrap();
        mark.finish().unwrap();
        assert_eq!(mark.read().unwrap(), None);
    }

    #[test]
    fn an_unreadable_mark_is_an_error_and_not_absence() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), "").unwrap();
        assert!(UnfinishedMarker::new(dir.path()).read().is_err());
    }
}
