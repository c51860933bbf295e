//! Finds PostgreSQL's programs and tells their version.
//!
//! Invariant: a program is only ever run by its absolute path, found once. Absent on purpose: a search of
//! distribution directories; which installation to use is the configuration's choice.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::child::{Tool, run};
use crate::error::Error;
use crate::spec::InstanceSpec;

/// Asking a program for its version takes milliseconds.
const VERSION_LIMIT: Duration = Duration::from_secs(5);

/// Version of the installed programs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PgVersion {
    /// Major version, e.g. 15.
    pub major: u32,
    /// Minor version; zero for development versions and betas.
    pub minor: u32,
}

impl std::fmt::Display for PgVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct PgBin {
    dir: Option<PathBuf>,
    names: BTreeMap<String, String>,
}

impl PgBin {
    /// Takes the directory and the other names from the spec; looks at nothing yet.
    pub fn new(spec: &InstanceSpec) -> PgBin {
        PgBin {
            dir: spec.bin_dir.clone(),
            names: spec.bin_name.clone(),
        }
    }

    /// File name of `program`, which the configuration may have changed.
    pub(crate) fn name<'a>(&'a self, program: &'a str) -> &'a str {
        self.names.get(program).map_or(program, String::as_str)
    }

    /// Absolute path of `program` (its usual name, e.g. `pg_rewind`).
    ///
    /// # Errors
    /// [`Error::NoProgram`] naming where it was looked for.
    pub fn path(&self, program: &str) -> Result<PathBuf, Error> {
        let name = self.name(program);
        let searched: Vec<PathBuf> = match &self.dir {
            Some(dir) => vec![dir.clone()],
            None => std::env::var_os("PATH")
                .map(|p| std::env::split_paths(&p).collect())
                .unwrap_or_default(),
        };
        let found = searched.iter().map(|dir| dir.join(name)).find(|path| is_program(path));
        let looked_in = || match &self.dir {
            Some(dir) => dir.display().to_string(),
            None => "PATH".to_string(),
        };
        let missing = || Error::NoProgram {
            program: name.to_string(),
            looked_in: looked_in(),
        };
        std::path::absolute(found.ok_or_else(missing)?).map_err(|_| missing())
    }

    /// Version of the `postgres` program.
    ///
    /// # Errors
    /// It is missing, fails, or prints something else.
    pub async fn version(&self) -> Result<PgVersion, Error> {
        let tool = Tool::new(self.path("postgres")?).arg("--version").limit(VERSION_LIMIT);
        let done = run(tool, &CancellationToken::new(), |_| {}).await?.success()?;
        parse_version(&done.stdout)
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn parse_version(text: &str) -> Result<PgVersion, Error> {
    let bad = || Error::Malformed {
        place: "output of postgres --version".to_string(),
        reason: format!(
            "expected `postgres (PostgreSQL) 15.4`, found {:?}",
            text.chars().take(80).collect::<String>()
        ),
    };
    let word = text
        .split_once("(PostgreSQL) ")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .ok_or_else(bad)?;
    let mut numbers = word.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next().and_then(|n| n.parse().ok()).ok_or_else(bad)?;
    let minor = if word.contains('.') {
        numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0)
    } else {
        0
    };
    Ok(PgVersion { major, minor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_releases_and_betas_are_read() {
        let read = |t: &str| parse_version(t).map(|v| (v.major, v.minor)).ok();
        assert_eq!(
            read("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"),
            Some((15, 20))
        );
        assert_eq!(read("postgres (PostgreSQL) 18beta2\n"), Some((18, 0)));
        assert_eq!(read("postgres (EnterpriseDB) x"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_the_directory() {
        let bin = PgBin {
            dir: Some("/nonexistent".into()),
            names: BTreeMap::new(),
        };
        let text = bin.path("pg_rewind").map_err(|e| e.to_string()).expect_err("not there");
        assert!(
            text.contains("pg_rewind") && text.contains("/nonexistent") && text.contains("bin_dir"),
            "{text}"
        );
    }
}
