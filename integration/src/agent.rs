//! Which agent a cluster runs, and how it is started.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::programs;
use crate::scratch::Scratch;

/// An agent. Both read the same YAML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// Ours.
    Pgha,
    /// Patroni from PyPI, for comparison.
    Patroni,
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pgha => "pgha",
            Self::Patroni => "Patroni",
        })
    }
}

impl Agent {
    /// pgha, unless `PGHA_TEST_AGENT=patroni` asks for the other one: that is how the tests themselves are tested.
    pub fn from_env() -> Self {
        match std::env::var("PGHA_TEST_AGENT").as_deref() {
            Ok("patroni") => Self::Patroni,
            _ => Self::Pgha,
        }
    }

    /// The command that runs the agent with this file. The programs lie in the node's directory afterwards, where the
    /// node's user can run them.
    pub fn command(self, scratch: &Scratch, node_dir: &Path, config: &Path) -> Result<Command> {
        let mut command = match self {
            Self::Pgha => Command::new(install_pgha(scratch, node_dir)?),
            Self::Patroni => {
                let mut command = Command::new(patroni_python(scratch)?);
                command.args(["-m", "patroni"]);
                command
            }
        };
        command.arg(config).env("LC_ALL", "C.UTF-8");
        for (key, _) in std::env::vars_os() {
            let name = key.to_string_lossy();
            if name.starts_with("PATRONI_") || name.starts_with("PG") && !name.starts_with("PGHA_") {
                command.env_remove(key);
            }
        }
        Ok(command)
    }
}

fn install_pgha(scratch: &Scratch, node_dir: &Path) -> Result<PathBuf> {
    let bin = node_dir.join("bin");
    std::fs::create_dir_all(&bin)?;
    scratch.install(&programs::own("pgha-fence")?, &bin)?;
    scratch.install(&programs::own("pgha")?, &bin)
}

/// Patroni's interpreter, from a copy of its directory if the node's user cannot reach the original.
fn patroni_python(scratch: &Scratch) -> Result<PathBuf> {
    let python = programs::patroni_python()?;
    if scratch.user().can_read(&python) {
        return Ok(python);
    }
    let copy = scratch.path().join("patroni");
    if !copy.exists() {
        let original = programs::repository().join(".tools/patroni");
        let status = Command::new("cp")
            .arg("-a")
            .arg(&original)
            .arg(&copy)
            .status()
            .context("cannot run cp")?;
        anyhow::ensure!(status.success(), "cannot copy {}", original.display());
    }
    Ok(copy.join("bin/python3"))
}
