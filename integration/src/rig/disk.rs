//! A small file system for a node, so that it can be filled.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::netns;

/// A mounted file system in memory. Only this thread and what it starts see it. Dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of this size (`600m`) over a directory.
    pub fn mount(dir: &Path, size: &str) -> Result<Self> {
        let options = format!("size={size}");
        netns::run(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(dir),
            "",
        )?;
        Ok(Self(dir.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, since what runs there is killed a moment later. A mount that stays goes with the thread.
        netns::run(Command::new("umount").arg("-l").arg(&self.0), "").ok();
    }
}
