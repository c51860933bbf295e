//! The shared memory that a killed PostgreSQL leaves behind.
//!
//! Whoever kills a postmaster with `SIGKILL` takes over its cleaning up. The next start on the same data directory would do
//! it, but a scratch directory has no next start. The dynamic segments lie in the data directory itself, because the
//! clusters set `dynamic_shared_memory_type = mmap`; what remains is one small System V segment for each server, which
//! its `postmaster.pid` names.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The line of `postmaster.pid` with key and number of the segment.
const SEGMENT_LINE: usize = 7;

/// Removes the segments that servers below `dir` left, one level down. Those in use stay.
pub fn remove_segments(dir: &Path) -> Result<()> {
    let unused = unused_segments()?;
    for node in fs::read_dir(dir)? {
        // Stopped in order, a server removes the file and its segment.
        let Ok(text) = fs::read_to_string(node?.path().join("data/postmaster.pid")) else {
            continue;
        };
        let segment = text
            .lines()
            .nth(SEGMENT_LINE - 1)
            .and_then(|line| line.split_ascii_whitespace().nth(1));
        if let Some(id) = segment
            && unused.iter().any(|unused| unused == id)
        {
            let removed = Command::new("ipcrm").args(["-m", id]).status().context("ipcrm")?;
            ensure!(removed.success(), "ipcrm -m {id}: {removed}");
        }
    }
    Ok(())
}

/// Numbers of the System V segments that no process has attached.
fn unused_segments() -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/sysvipc/shm").context("cannot read /proc/sysvipc/shm")?;
    Ok(table
        .lines()
        .filter_map(|line| {
            // key, shmid, perms, size, cpid, lpid, nattch, ..
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            (fields.get(6) == Some(&"0")).then(|| fields.get(1).map(ToString::to_string))?
        })
        .collect())
}
