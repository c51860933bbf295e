//! Where the programs are that a cluster is made of.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Directories that are often missing from the `PATH` of an ordinary user although daemons live there.
const MORE_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// Where distributions keep PostgreSQL, one directory for each major version.
const POSTGRES_ROOTS: [&str; 2] = ["/usr/lib/postgresql", "/usr/local/lib/postgresql"];

/// A program by name, on `PATH` or in the directories of daemons.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(MORE_DIRS.iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is not installed; `sh scripts/setup.sh` installs it"))
}

/// The directory with `postgres`, `initdb` and the others: `PGHA_PG_BIN`, else the newest version installed.
pub fn postgres_bin() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("PGHA_PG_BIN") {
        let dir = PathBuf::from(dir);
        if dir.join("postgres").is_file() {
            return Ok(dir);
        }
        bail!("PGHA_PG_BIN is {}, which has no `postgres`", dir.display());
    }
    let newest = POSTGRES_ROOTS
        .iter()
        .filter_map(|root| std::fs::read_dir(root).ok())
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let major: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("initdb").is_file().then_some((major, bin))
        })
        .max();
    match newest {
        Some((_, bin)) => Ok(bin),
        None => {
            let postgres = find("postgres").context("no PostgreSQL server programs under /usr/lib/postgresql")?;
            Ok(parent(&postgres))
        }
    }
}

/// A binary of this workspace: in `PGHA_BIN_DIR`, else beside the running program (or its `deps` directory's parent).
pub fn own(name: &str) -> Result<PathBuf> {
    let dirs = match env::var_os("PGHA_BIN_DIR") {
        Some(dir) => vec![PathBuf::from(dir)],
        None => {
            let exe = env::current_exe().context("cannot tell where the running program is")?;
            let dir = parent(&exe);
            vec![dir.clone(), parent(&dir)]
        }
    };
    dirs.iter()
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .with_context(|| {
            format!("{name} has not been built; `cargo build -p pgha-agent -p pgha-ctl` builds it (looked in {dirs:?})")
        })
}

/// The repository, if the program still runs from its target directory.
pub fn repository() -> PathBuf {
    parent(Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// The interpreter of the Patroni that `just setup-bench` installs.
pub fn patroni_python() -> Result<PathBuf> {
    let python = repository().join(".tools/patroni/bin/python3");
    if python.exists() {
        return Ok(python);
    }
    bail!(
        "Patroni is not installed in {}; `sh scripts/setup-bench.sh` installs it",
        python.display()
    )
}

/// Last component of a path, as text.
pub fn base_name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_path_buf()
}
