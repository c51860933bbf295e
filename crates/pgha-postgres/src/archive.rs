//! Runs the operator's archive and restore commands for single WAL files.
//!
//! PostgreSQL defines these settings as shell text, so a shell runs them, with PostgreSQL's own placeholders and
//! nothing else put in. pg_rewind deletes WAL that was not archived yet; archiving it first is what saves it.

use std::path::Path;
use std::time::Duration;

use crate::child::{Moment, Tool, run};
use crate::error::Error;
use crate::files::{remove_file, sync_parent};
use crate::flows::{Job, Progress};
use crate::instance::Instance;

/// Longest run of one command.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);
/// What `%r` becomes outside of recovery, where PostgreSQL has no restart point to name.
const NO_RESTART_POINT: &str = "000000010000000000000001";

impl Instance {
    /// Archives every file in pg_wal that is marked ready, oldest first, with `archive_command`, and marks it done.
    /// Returns how many. The server must be stopped.
    ///
    /// # Errors
    /// The first command that fails; the rest stays marked ready.
    pub async fn archive_ready(&self, archive_command: &str, job: &Job<'_>) -> Result<usize, Error> {
        let names = self.on_disk(|spec| ready_files(&spec.data_dir)).await?;
        let status = self.spec().data_dir.join("pg_wal").join("archive_status");
        for name in &names {
            self.run_for("archive_command", archive_command, name, job).await?;
            let (ready, done) = (
                status.join(format!("{name}.ready")),
                status.join(format!("{name}.done")),
            );
            std::fs::rename(&ready, &done).map_err(Error::io("rename", &ready))?;
            sync_parent(&done)?;
        }
        Ok(names.len())
    }

    /// Fetches one WAL file into pg_wal with `restore_command`.
    ///
    /// # Errors
    /// The command fails, or succeeds without bringing the file.
    pub async fn restore_wal(&self, restore_command: &str, name: &str, job: &Job<'_>) -> Result<(), Error> {
        let path = self.spec().data_dir.join("pg_wal").join(name);
        if let Err(e) = self.run_for("restore_command", restore_command, name, job).await {
            // A half-copied file would be taken for WAL.
            remove_file(&path)?;
            return Err(e);
        }
        path.metadata().map(drop).map_err(Error::io("find the restored", &path))
    }

    async fn run_for(&self, what: &'static str, command: &str, name: &str, job: &Job<'_>) -> Result<(), Error> {
        let text = expand(command, &format!("pg_wal/{name}"), name);
        let tool = Tool::new("/bin/sh".into())
            .arg("-c")
            .arg(text)
            .cwd(&self.spec().data_dir)
            .limit(COMMAND_LIMIT);
        let heard = |m: Moment<'_>| {
            if let Moment::Line(line) = m {
                job.say(Progress::Line {
                    program: what,
                    text: line.to_string(),
                });
            }
        };
        run(tool, job.cancel, heard).await?.success().map(drop)
    }
}

fn ready_files(data_dir: &Path) -> Result<Vec<String>, Error> {
    let dir = data_dir.join("pg_wal").join("archive_status");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
        let name = entry.map_err(Error::io("list", &dir))?.file_name();
        names.extend(name.to_str().and_then(|n| n.strip_suffix(".ready")).map(str::to_string));
    }
    names.sort();
    Ok(names)
}

/// `%p` path, `%f` file name, `%r` restart point, `%%` a percent sign; anything else stays as it is.
fn expand(command: &str, path: &str, name: &str) -> String {
    let mut out = String::with_capacity(command.len());
    let mut chars = command.chars().peekable();
    while let Some(c) = chars.next() {
        let replaced = match (c, chars.peek()) {
            ('%', Some('p')) => path,
            ('%', Some('f')) => name,
            ('%', Some('r')) => NO_RESTART_POINT,
            ('%', Some('%')) => "%",
            _ => {
                out.push(c);
                continue;
            }
        };
        out.push_str(replaced);
        chars.next();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_postgresqls_placeholders_are_replaced() {
        assert_eq!(
            expand("cp %p /a/%f %% %x %", "pg_wal/X", "X"),
            "cp pg_wal/X /a/X % %x %"
        );
        assert_eq!(expand("%%p", "P", "F"), "%p");
    }
}
