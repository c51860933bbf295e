//! Who the processes of a cluster run as. PostgreSQL refuses root, so root drops to `postgres`, or else to `nobody`.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, User, chown};

/// The user that owns the scratch directory's contents and runs every process of a cluster.
#[derive(Clone, Debug)]
pub struct RunAs {
    drop_to: Option<(Uid, Gid)>,
    name: String,
}

impl RunAs {
    /// The present user; for root the first of `postgres` and `nobody` that exists.
    pub fn detect() -> Result<Self> {
        let me = Uid::effective();
        if !me.is_root() {
            let name = User::from_uid(me)?.map_or_else(|| me.to_string(), |user| user.name);
            return Ok(Self { drop_to: None, name });
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name)? {
                return Ok(Self {
                    drop_to: Some((user.uid, user.gid)),
                    name: user.name,
                });
            }
        }
        anyhow::bail!("run as root, and there is neither a user `postgres` nor `nobody` that PostgreSQL could run as")
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the command run as this user. The standard library clears the supplementary groups along with the user.
    pub fn apply(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.drop_to {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
    }

    /// Gives the file or directory to this user.
    pub fn own(&self, path: &Path) -> Result<()> {
        match self.drop_to {
            None => Ok(()),
            Some((uid, gid)) => chown(path, Some(uid), Some(gid))
                .with_context(|| format!("cannot give {} to {}", path.display(), self.name)),
        }
    }

    /// Whether this user can read the file; root's own rights say nothing about that.
    pub fn can_read(&self, path: &Path) -> bool {
        let mut test = Command::new("test");
        test.arg("-r").arg(path);
        self.apply(&mut test);
        test.status().is_ok_and(|status| status.success())
    }
}
